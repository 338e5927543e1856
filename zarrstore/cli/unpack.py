"""The verb ``unpack``."""

from __future__ import annotations

from typing import Literal

import click

from zarrstore.cli.common import echo_err, json_option, memory_option, not_empty, print_json, progress, target_argument
from zarrstore.tools.pack import unpack


@click.command()
@target_argument("archive")
@click.argument("dest", type=click.Path(file_okay=False), callback=not_empty)
@click.option("--if-exists", type=click.Choice(["raise", "skip", "replace"]), default="raise", show_default=True)
@click.option("--verify", is_flag=True, help="Read every file back and compare.")
@memory_option
@json_option
def command(
    archive: str, dest: str, if_exists: Literal["raise", "skip", "replace"], verify: bool, memory: int, as_json: bool
) -> None:
    """Put every entry of ARCHIVE into the directory DEST. ARCHIVE is kept."""
    result = unpack(archive, dest, if_exists=if_exists, verify=verify, memory=memory, progress=progress("unpack"))
    copied, skipped, nbytes = result
    if as_json:
        print_json({"copied": copied, "skipped": skipped, "nbytes": nbytes})
    echo_err(f"unpacked {copied:,} keys ({nbytes:,} bytes) into {dest}, skipped {skipped:,}")
