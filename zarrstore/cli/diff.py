"""The verb ``diff``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    echo_questions,
    json_option,
    memory_option,
    opened,
    path_option,
    print_json,
    printable,
    questions_option,
    storage_options,
    target_argument,
)
from zarrstore.tools.diff import diff


@click.command()
@target_argument("left")
@target_argument("right")
@path_option("--left-path", "Compare what is at and below this path.")
@path_option("--right-path", "With what is at and below this one.")
@memory_option
@questions_option
@json_option
@storage_options
@click.pass_context
def command(
    ctx: click.Context,
    left: str,
    right: str,
    left_path: str,
    right_path: str,
    memory: int,
    max_questions: int,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Print every key that differs: '<' only in LEFT, '>' only in RIGHT, '!' other bytes. Exit 1 if one does."""
    with opened(left, "r", storage_option) as one, opened(right, "r", storage_option) as other:
        echo_questions(one, left_path, max_questions)
        echo_questions(other, right_path, max_questions)
        differences = diff(one, other, left_path, right_path, max_questions=max_questions, memory=memory)
        differ = False
        if as_json:
            found = [{"key": difference.key, "kind": difference.kind} for difference in differences]
            differ = bool(found)
            print_json(found)
        else:
            for difference in differences:
                differ = True
                click.echo(printable(str(difference)))
    ctx.exit(1 if differ else 0)
