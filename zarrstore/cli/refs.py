"""The verb ``refs``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    echo_err,
    json_option,
    not_empty,
    opened,
    path_argument,
    print_json,
    storage_options,
    target_argument,
)
from zarrstore.keys import normalize_path
from zarrstore.tools.listing import require
from zarrstore.tools.references import write_references


@click.group()
def command() -> None:
    """Reference files (Kerchunk): one small file through which other programs read what lies elsewhere."""


@command.command("write")
@target_argument("source")
@click.argument("file", type=click.Path(dir_okay=False), callback=not_empty)
@path_argument()
@json_option
@storage_options
def write(source: str, file: str, path: str, as_json: bool, storage_option: tuple[str, ...]) -> None:
    """Write FILE, a reference file of version 1, for what is at PATH of SOURCE: a zip, a directory or a bucket."""
    with opened(source, "r", storage_option) as store:
        require(store, normalize_path(path))
        count = write_references(store, file, path)
    if as_json:
        print_json({"keys": count})
    echo_err(f"wrote {count:,} references to {file}")
