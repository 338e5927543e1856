"""The verb ``sync``."""

from __future__ import annotations

import click

from zarrstore.cli import copy
from zarrstore.cli.common import copy_options, path_option, selection_options, target_argument


@click.command()
@target_argument("source")
@target_argument("dest")
@path_option("--source-path", "Take what is at and below this path.")
@path_option("--dest-path", "Bring it to this path.")
@selection_options
@click.option("--delete", is_flag=True, help="Delete in DEST what SOURCE does not have.")
@click.option("--verify", is_flag=True, help="Read every value that was written back and compare.")
@copy_options
@click.pass_context
def command(ctx: click.Context, /, **options: object) -> None:
    """Make DEST equal to SOURCE, and write only what differs.

    Told by sizes and checksums in listings (the ETag of S3, the CRC of a zip); where SOURCE or DEST is remote, by size
    and time, with a note; else by the bytes.
    """
    ctx.invoke(copy.command, if_exists="differ", resume=None, **options)
