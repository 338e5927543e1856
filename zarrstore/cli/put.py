"""The verb ``put``."""

from __future__ import annotations

from typing import BinaryIO

import click

from zarrstore import keys as k
from zarrstore.cli.common import echo_err, not_empty, opened, storage_options, target_argument
from zarrstore.errors import DestinationExistsError
from zarrstore.metadata import documents
from zarrstore.tools.consolidate import set_document


@click.command()
@target_argument()
@click.argument("key", callback=not_empty)
@click.argument("file", type=click.File("rb"))
@click.option("--overwrite", is_flag=True, help="Replace the value that is there.")
@storage_options
def command(target: str, key: str, file: BinaryIO, overwrite: bool, storage_option: tuple[str, ...]) -> None:
    """Set KEY to the content of FILE; - is stdin.

    \b
    zarrstore put data.zarr ocean/temperature/.zattrs attributes.json --overwrite
    """
    data = file.read()
    with opened(target, "a", storage_option) as store:
        name = k.check_key(key)
        if not overwrite and name in store:
            raise DestinationExistsError(file.name, name, "pass --overwrite to replace it")
        # What repeats a document follows it; a consolidated document is set as it was given.
        if k.name(name) in documents.DOCUMENTS and k.name(name) != documents.ZMETADATA:
            set_document(store, name, data)
        else:
            store[name] = data
    echo_err(f"set {name} to {len(data):,} bytes")
