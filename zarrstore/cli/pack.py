"""The verb ``pack``."""

from __future__ import annotations

import click

from zarrstore.cli.common import echo_err, json_option, not_empty, print_json, progress, target_argument
from zarrstore.tools.pack import pack


@click.command()
@target_argument("source")
@click.argument("archive", type=click.Path(dir_okay=False), callback=not_empty)
@click.option("--overwrite", is_flag=True, help="Replace an archive that is there.")
@click.option("--verify", is_flag=True, help="Read every entry back and compare.")
@json_option
def command(source: str, archive: str, overwrite: bool, verify: bool, as_json: bool) -> None:
    """Put SOURCE, as a rule a directory, into one zip ARCHIVE, documents first. SOURCE is kept."""
    copied, _, nbytes = pack(source, archive, overwrite=overwrite, verify=verify, progress=progress("pack"))
    if as_json:
        print_json({"copied": copied, "nbytes": nbytes})
    echo_err(f"packed {copied:,} keys ({nbytes:,} bytes) into {archive}")
