"""The verb ``consolidate``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    dask_option,
    echo_err,
    json_option,
    opened,
    path_argument,
    print_json,
    printable,
    storage_options,
    target_argument,
    with_executor,
)
from zarrstore.keys import normalize_path
from zarrstore.tools.consolidate import check_consolidated, consolidate_metadata
from zarrstore.tools.listing import require


@click.command()
@target_argument()
@path_argument()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if what is there is stale.")
@dask_option
@json_option
@storage_options
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    path: str,
    check: bool,
    dask: str | None,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Write one document that repeats all documents below PATH, or check the one that is there."""
    with opened(target, "r" if check else "r+", storage_option) as store, with_executor(None, dask) as executor:
        require(store, normalize_path(path))
        if check:
            stale = check_consolidated(store, path=path, executor=executor)
        else:
            consolidate_metadata(store, path=path, executor=executor)
            echo_err("consolidated")
            stale = check_consolidated(store, path=path, executor=executor)
    found = {"missing": stale.missing, "extra": stale.extra, "different": stale.different}
    if as_json:
        print_json({"stale": bool(stale), **{name: list(keys) for name, keys in found.items()}})
    else:
        for name, keys in found.items():
            for key in keys:
                click.echo(printable(f"{name} {key}"))
    ctx.exit(1 if stale else 0)
