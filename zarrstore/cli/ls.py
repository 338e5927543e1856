"""The verb ``ls``."""

from __future__ import annotations

import click

from zarrstore import keys as k
from zarrstore.cli.common import (
    json_option,
    opened,
    print_json,
    print_table,
    printable,
    storage_options,
    target_argument,
)


@click.command()
@target_argument()
@click.argument("path", default="")
@click.option("-l", "--long", "long", is_flag=True, help="Show kind and size.")
@click.option("-r", "--recursive", is_flag=True, help="List every key below PATH.")
@json_option
@storage_options
def command(
    target: str, path: str, long: bool, recursive: bool, as_json: bool, storage_option: tuple[str, ...]
) -> None:
    """List what is immediately below PATH: directories end in '/'."""
    with opened(target, "r", storage_option) as store:
        at = k.normalize_path(path)
        if recursive:
            names = sorted(store.keys_below(at), key=k.natural_order)
        else:
            names = sorted((k.join(at, name) for name in store.listdir(at)), key=k.natural_order)
        if not names and at and at not in store:
            raise KeyError(at)
        rows = []
        for key in names:
            is_key = key in store
            shown = key if recursive else k.name(key)
            kind = "key" if is_key else "directory"
            rows.append((kind, store.getsize(key) if is_key and (long or as_json) else None, shown))
    if as_json:
        print_json([{"name": name, "kind": kind, "nbytes": size} for kind, size, name in rows])
    elif long:
        cells = [(kind, "" if size is None else f"{size:,}", name) for kind, size, name in rows]
        print_table(("kind", "bytes", "name"), cells, numbers=(1,))
    else:
        for kind, _, name in rows:
            click.echo(printable(name) + ("/" if kind == "directory" else ""))
