"""The verb ``get``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from zarrstore import keys as k
from zarrstore.cli.common import complete_path, echo_err, not_empty, opened, storage_options, target_argument
from zarrstore.tools.nearby import absent


@click.command()
@target_argument()
@click.argument("key", callback=not_empty, shell_complete=complete_path)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), required=False, callback=not_empty)
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
@storage_options
def command(target: str, key: str, file: str | None, overwrite: bool, storage_option: tuple[str, ...]) -> None:
    """Write the value of KEY into FILE: by default of the key's last name, here; - is stdout.

    \b
    zarrstore get data.zarr ocean/temperature/.zarray
    zarrstore get data.zarr ocean/temperature/0.0 chunk.bin
    """
    with opened(target, "r", storage_option) as store:
        name = k.check_key(key)
        data = store.get(name)
        if data is None:
            raise absent(store, name, "value")
    if file == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(file or k.name(name))
    with open(path, "wb" if overwrite else "xb") as out:
        out.write(data)
    echo_err(f"wrote {len(data):,} bytes to {os.fspath(path)}")
