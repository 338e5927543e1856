"""The verb ``rm``."""

from __future__ import annotations

import click

from zarrstore import keys as k
from zarrstore.cli.common import (
    check_hierarchy,
    confirm,
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
    yes_option,
)
from zarrstore.metadata import documents
from zarrstore.tools.consolidate import consolidated_updates
from zarrstore.tools.nearby import absent


@click.command()
@target_argument()
@path_argument(required=True)
@dry_run_option
@yes_option
@force_option
@json_option
@storage_options
def command(
    target: str, path: str, dry_run: bool, yes: bool, force: bool, as_json: bool, storage_option: tuple[str, ...]
) -> None:
    """Delete the key at PATH and everything below it, and nothing beside it; '/' empties TARGET."""
    with opened(target, "r" if dry_run else "r+", storage_option) as store:
        at = k.normalize_path(path)
        is_key = bool(at) and at in store
        keys = sorted([*store.keys_below(at), *([at] if is_key else [])])
        if not keys:
            raise absent(store, at)
        if not dry_run:
            check_hierarchy(store, target, force)
            confirm(f"Delete {len(keys):,} keys at and below {path!r} in {target}?", yes)
            # What repeats the documents goes first: a reader must not take deleted chunks for fill values.
            deleted = dict.fromkeys(key for key in keys if k.name(key) in documents.DOCUMENTS)
            for key, data in consolidated_updates(store, deleted).items():
                store[key] = data
            if is_key:
                del store[at]
            store.rmdir(at)
    if as_json:
        print_json({"dry_run": dry_run, "path": at, "keys": keys})
    elif dry_run:
        for key in keys:
            click.echo(printable(key))
    echo_err(f"{'would delete' if dry_run else 'deleted'} {len(keys):,} keys")
