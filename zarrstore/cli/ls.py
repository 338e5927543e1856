"""The verb ``ls``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.cli.common import (
    json_option,
    opened,
    path_argument,
    print_json,
    print_table,
    printable,
    questions_option,
    storage_options,
    target_argument,
)
from zarrstore.errors import UnsupportedOperation
from zarrstore.shown import human_bytes
from zarrstore.tools.listing import keys_of, listing_of, present, require
from zarrstore.tools.overlap import overlap


@click.command()
@target_argument()
@path_argument()
@click.option("-l", "--long", "long", is_flag=True, help="Show kind and size.")
@click.option("-r", "--recursive", is_flag=True, help="List every key below PATH.")
@click.option("-h", "human", is_flag=True, help="With -l: sizes as people read them.")
@click.option(
    "--sort", type=click.Choice(["name", "size"]), default="name", show_default=True, help="size: largest first."
)
@questions_option
@json_option
@storage_options
def command(
    target: str,
    path: str,
    long: bool,
    recursive: bool,
    human: bool,
    sort: str,
    max_questions: int,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """List what is immediately below PATH: directories end in '/'."""
    with opened(target, "r", storage_option) as store:
        at = k.normalize_path(path)
        require(store, at)
        listed = _below if recursive else _children
        entries = sorted(
            listed(store, at, long or as_json or sort == "size", max_questions),
            key=lambda entry: k.natural_order(entry.key),
        )
    rows = [_row(entry, recursive) for entry in entries]
    if sort == "size":
        rows.sort(key=lambda row: -(row.nbytes or 0))
    if as_json:
        print_json([{"name": row.name, "kind": row.kind, "nbytes": row.nbytes} for row in rows])
    elif long:
        _print_long(rows, human)
    else:
        for row in rows:
            click.echo(printable(row.name) + ("/" if row.kind == "directory" else ""))


class _Row(NamedTuple):
    """What is printed of a key or a directory; a directory has no size."""

    kind: str
    nbytes: int | None
    name: str


def _row(entry: Entry, recursive: bool) -> _Row:
    name = entry.key if recursive else k.name(entry.key)
    return _Row("directory", None, name) if _is_directory(entry) else _Row("key", entry.nbytes, name)


def _print_long(rows: list[_Row], human: bool) -> None:
    size = human_bytes if human else "{:,}".format
    cells = [(row.kind, "" if row.nbytes is None else size(row.nbytes), row.name) for row in rows]
    print_table(("kind", "bytes", "name"), cells, numbers=(1,))


def _is_directory(entry: Entry) -> bool:
    return entry.identity == "directory/"


def _below(store: Store, path: str, sizes: bool, max_questions: int) -> Iterator[Entry]:
    listing = listing_of(store, path, details=sizes, max_questions=max_questions)
    return present(store, listing) if sizes or not listing.certain else iter(listing.entries)


def _children(store: Store, path: str, sizes: bool, max_questions: int) -> Iterator[Entry]:
    try:
        names = store.listdir(path)
    except UnsupportedOperation:
        names = sorted(k.children(keys_of(store, path, max_questions=max_questions), path))

    def entry(name: str) -> Entry:
        key = k.join(path, name)
        try:
            return Entry(key, store._nbytes(key)) if sizes else Entry(key, -1, "" if key in store else "directory/")
        except KeyError:
            return Entry(key, -1, "directory/")

    yield from overlap(store, entry, names)
