"""The verb ``du``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    echo_err,
    echo_questions,
    json_option,
    opened,
    path_argument,
    print_json,
    print_table,
    questions_option,
    storage_options,
    target_argument,
)
from zarrstore.cli.pictures import check_suffix, draw_usages
from zarrstore.keys import normalize_path
from zarrstore.tools.listing import require
from zarrstore.tools.progress import human_bytes
from zarrstore.tools.tree import du


@click.command()
@target_argument()
@path_argument()
@click.option("-d", "--depth", type=click.IntRange(min=0), default=1, show_default=True, help="Levels to report.")
@click.option("-s", "--summary", is_flag=True, help="Print the total only: --depth 0.")
@click.option(
    "--plot", type=click.Path(dir_okay=False), callback=check_suffix, help="Draw it into a .png or .svg file."
)
@questions_option
@json_option
@storage_options
def command(
    target: str,
    path: str,
    depth: int,
    summary: bool,
    plot: str | None,
    max_questions: int,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Bytes and keys at and below PATH and its directories, the largest first."""
    with opened(target, "r", storage_option) as store:
        require(store, normalize_path(path))
        echo_questions(store, path, max_questions)
        usages = du(store, path, depth=0 if summary else depth, max_questions=max_questions)
    if plot:
        draw_usages(usages, plot)
        echo_err(f"wrote {plot}")
    if as_json:
        print_json([{"path": usage.path, "nbytes": usage.nbytes, "nkeys": usage.nkeys} for usage in usages])
        return
    rows = [
        (
            f"{usage.nbytes:,}" if usage.nbytes >= 0 else "?",
            human_bytes(usage.nbytes),
            f"{usage.nkeys:,}",
            usage.path or "/",
        )
        for usage in usages
    ]
    print_table(("bytes", "", "keys", "path"), rows, numbers=(0, 1, 2))
