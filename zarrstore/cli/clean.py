"""The verb ``clean``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    check_hierarchy,
    confirm,
    dask_option,
    dry_run_option,
    echo_err,
    force_option,
    json_option,
    opened,
    path_argument,
    print_json,
    printable,
    storage_options,
    target_argument,
    with_executor,
    yes_option,
)
from zarrstore.keys import normalize_path
from zarrstore.tools.clean import clean
from zarrstore.tools.listing import require


@click.command()
@target_argument()
@path_argument()
@dry_run_option
@yes_option
@force_option
@dask_option
@json_option
@storage_options
def command(
    target: str,
    path: str,
    dry_run: bool,
    yes: bool,
    force: bool,
    dask: str | None,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Delete junk (.DS_Store, ._*, Thumbs.db …) and what writers that were killed left behind."""
    # Not "r" for a dry run: what killed writers left is looked for by the store that may delete it.
    with opened(target, "r+", storage_option) as store, with_executor(None, dask) as executor:
        require(store, normalize_path(path))
        found = clean(store, path, dry_run=True, executor=executor)
        if found and not dry_run:
            check_hierarchy(store, target, force)
            confirm(f"Delete {len(found):,} keys that are junk in {target}?", yes)
            found = clean(store, path, executor=executor)
    if as_json:
        print_json({"dry_run": dry_run, "keys": found})
    else:
        for key in found:
            click.echo(printable(key))
    echo_err(f"{'would delete' if dry_run else 'deleted'} {len(found):,} keys")
