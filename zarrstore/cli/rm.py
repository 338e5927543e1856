"""The verb ``rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zarrstore import keys as k
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
from zarrstore.metadata import documents
from zarrstore.tools.consolidate import consolidated_updates
from zarrstore.tools.deletion import Survey, delete_parts, deletes_elsewhere, survey
from zarrstore.tools.holding import is_document
from zarrstore.tools.nearby import absent

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from zarrstore.base import Store


@click.command()
@target_argument()
@path_argument(required=True)
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
    """Delete the key at PATH and everything below it, and nothing beside it; '/' empties TARGET."""
    with opened(target, "r" if dry_run else "r+", storage_option) as store, with_executor(None, dask) as executor:
        at = k.normalize_path(path)
        elsewhere = executor if deletes_elsewhere(executor, store) else None
        own = [at] if at and at in store else []
        # Millions of names are worth no list; of what workers delete there is a number.
        keys = [] if elsewhere is not None else [*store.keys_below(at), *own]
        found = Survey(len(keys), dict.fromkeys(filter(is_document, keys), b""))
        if elsewhere is not None:
            found = survey(store, at, elsewhere, None if dry_run else store)
            found.n_keys += len(own)
            found.documents |= dict.fromkeys(filter(is_document, own), b"")
        if not found.n_keys:
            raise absent(store, at)
        if not dry_run:
            check_hierarchy(store, target, force)
            confirm(f"Delete {found.n_keys:,} keys at and below {path!r} in {target}?", yes)
            _delete(store, at, own, found, elsewhere)
    if as_json:
        listed = {"n_keys": found.n_keys} if elsewhere is not None else {"keys": sorted(keys)}
        print_json({"dry_run": dry_run, "path": at, **listed})
    elif dry_run:
        for key in sorted(keys):
            click.echo(printable(key))
    echo_err(f"{'would delete' if dry_run else 'deleted'} {found.n_keys:,} keys")


def _delete(store: Store, path: str, own: list[str], found: Survey, executor: Executor | None) -> None:
    # What repeats the documents goes first: a reader must not take deleted chunks for fill values.
    deleted = dict.fromkeys(sorted(key for key in found.documents if k.name(key) in documents.DOCUMENTS))
    for key, data in consolidated_updates(store, deleted).items():
        store[key] = data
    store.delitems(own)
    if executor is None:
        store.rmdir(path)
    else:
        delete_parts(store, path, executor, found.documents)
