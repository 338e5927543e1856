"""The verb ``mv``."""

from __future__ import annotations

import click

from zarrstore import keys as k
from zarrstore.cli.common import (
    dry_run_option,
    echo_err,
    json_option,
    opened,
    path_argument,
    print_json,
    storage_options,
    target_argument,
)
from zarrstore.tools.move import move
from zarrstore.tools.nearby import absent


@click.command()
@target_argument()
@path_argument("source", required=True)
@path_argument("dest", required=True)
@dry_run_option
@json_option
@storage_options
def command(target: str, source: str, dest: str, dry_run: bool, as_json: bool, storage_option: tuple[str, ...]) -> None:
    """Move the node or key SOURCE to DEST, where nothing may be, within TARGET; consolidated metadata stays true."""
    with opened(target, "r" if dry_run else "r+", storage_option) as store:
        at = k.normalize_path(source)
        count = sum(1 for _ in store.keys_below(at)) + (bool(at) and at in store)
        if not count:
            raise absent(store, at)
        if not dry_run:
            move(store, source, dest)
    if as_json:
        print_json({"dry_run": dry_run, "source": source, "dest": dest, "keys": count})
    echo_err(f"{'would move' if dry_run else 'moved'} {count:,} keys from {source} to {dest}")
