"""The verb ``diff``."""

from __future__ import annotations

import click

from zarrstore.cli.common import json_option, opened, print_json, printable, storage_options, target_argument
from zarrstore.tools.diff import diff


@click.command()
@target_argument("left")
@target_argument("right")
@click.option("--left-path", default="", help="Compare what is below this path.")
@click.option("--right-path", default="", help="With what is below this one.")
@json_option
@storage_options
@click.pass_context
def command(
    ctx: click.Context,
    left: str,
    right: str,
    left_path: str,
    right_path: str,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Print every key that differs: '<' only in LEFT, '>' only in RIGHT, '!' other bytes. Exit 1 if one does."""
    with opened(left, "r", storage_option) as one, opened(right, "r", storage_option) as other:
        found = list(diff(one, other, left_path, right_path))
    if as_json:
        print_json([{"key": difference.key, "kind": difference.kind} for difference in found])
    else:
        for difference in found:
            click.echo(printable(str(difference)))
    ctx.exit(1 if found else 0)
