"""The verb ``ls``."""

from __future__ import annotations

from collections.abc import Iterator

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
    shown = [
        ("directory" if nbytes is None else "key", nbytes, key if recursive else k.name(key))
        for key, nbytes in ((entry.key, None if _is_directory(entry) else entry.nbytes) for entry in entries)
    ]
    if sort == "size":
        shown.sort(key=lambda row: -(row[1] or 0))
    if as_json:
        print_json([{"name": name, "kind": kind, "nbytes": nbytes} for kind, nbytes, name in shown])
    elif long:
        written = human_bytes if human else "{:,}".format
        cells = [(kind, "" if nbytes is None else written(nbytes), name) for kind, nbytes, name in shown]
        print_table(("kind", "bytes", "name"), cells, numbers=(1,))
    else:
        for kind, _, name in shown:
            click.echo(printable(name) + ("/" if kind == "directory" else ""))


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
