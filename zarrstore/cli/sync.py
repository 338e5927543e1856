"""The verb ``sync``."""

from __future__ import annotations

import click

from zarrstore.cli import copy
from zarrstore.cli.common import (
    dry_run_option,
    executor_options,
    json_option,
    path_option,
    questions_option,
    storage_options,
    target_argument,
)
from zarrstore.tools.copy import MEMORY


@click.command()
@target_argument("source")
@target_argument("dest")
@path_option("--source-path", "Take what is at and below this path.")
@path_option("--dest-path", "Bring it to this path.")
@click.option("--exclude", "excludes", multiple=True, metavar="REGEX", help="Leave alone keys in which this is found.")
@click.option("--include", "includes", multiple=True, metavar="REGEX", help="But not those in which this is.")
@click.option("--delete", is_flag=True, help="Delete in DEST what SOURCE does not have.")
@click.option("--verify", is_flag=True, help="Read every value that was written back and compare.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each key.")
@questions_option
@executor_options
@dry_run_option
@json_option
@storage_options
@click.pass_context
def command(ctx: click.Context, /, **options: object) -> None:
    """Make DEST equal to SOURCE, and write only what differs: by size where listings tell it, else by the bytes."""
    ctx.invoke(copy.command, if_exists="differ", resume=None, memory=MEMORY >> 20, **options)
