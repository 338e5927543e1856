"""The verb ``clean``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    confirm,
    dry_run_option,
    echo_err,
    json_option,
    opened,
    print_json,
    printable,
    storage_options,
    target_argument,
    yes_option,
)
from zarrstore.tools.clean import clean


@click.command()
@target_argument()
@click.argument("path", default="")
@dry_run_option
@yes_option
@json_option
@storage_options
def command(target: str, path: str, dry_run: bool, yes: bool, as_json: bool, storage_option: tuple[str, ...]) -> None:
    """Delete junk (.DS_Store, ._*, Thumbs.db …) and what writers that were killed left behind."""
    with opened(target, "r+", storage_option) as store:
        found = clean(store, path, dry_run=True)
        if found and not dry_run:
            confirm(f"Delete {len(found):,} keys that are junk in {target}?", yes)
            found = clean(store, path)
    if as_json:
        print_json({"dry_run": dry_run, "keys": found})
    else:
        for key in found:
            click.echo(printable(key))
    echo_err(f"{'would delete' if dry_run else 'deleted'} {len(found):,} keys")
