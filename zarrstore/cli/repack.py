"""The verb ``repack``."""

from __future__ import annotations

import os

import click

from zarrstore.cli.common import echo_err, json_option, print_json
from zarrstore.stores.zip import ZipStore


@click.command()
@click.argument("archive", type=click.Path(exists=True, dir_okay=False))
@json_option
def command(archive: str, as_json: bool) -> None:
    """Rewrite a zip ARCHIVE without its dead space, atomically."""
    before = os.path.getsize(archive)
    with ZipStore(archive, mode="r+") as store:
        store.repack()
    after = os.path.getsize(archive)
    if as_json:
        print_json({"before": before, "after": after})
    echo_err(f"{archive}: {before:,} bytes became {after:,}")
