"""The verb ``find``."""

from __future__ import annotations

import fnmatch
import re

import click

from zarrstore import keys as k
from zarrstore.cli.common import (
    json_option,
    not_empty,
    opened,
    path_option,
    print_json,
    printable,
    questions_option,
    storage_options,
    target_argument,
)
from zarrstore.nodes import walk
from zarrstore.tools.listing import keys_of, require


@click.command()
@target_argument()
@click.argument("pattern", callback=not_empty)
@path_option("--path", "Look at and below this path.")
@click.option("-t", "--type", "kind", type=click.Choice(["key", "array", "group"]), default="key", show_default=True)
@questions_option
@json_option
@storage_options
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    pattern: str,
    path: str,
    kind: str,
    max_questions: int,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Print the keys, arrays or groups whose name or path PATTERN fits: * and ? are anything, [ab] is a or b.

    Exit 1 if there is none.

    \b
    zarrstore find data.zarr '*.zarray'
    zarrstore find data.zarr 'temp*' --type array
    """
    fits = re.compile(fnmatch.translate(pattern)).match
    with opened(target, "r", storage_option) as store:
        at = k.normalize_path(path)
        require(store, at)
        if kind == "key":
            names = keys_of(store, at, max_questions=max_questions)
        else:
            names = (node.path for node in walk(store, at) if node.kind == kind)
        found = sorted((name for name in names if fits(name) or fits(k.name(name))), key=k.natural_order)
    if as_json:
        print_json(found)
    else:
        for name in found:
            click.echo(printable(name or "/"))
    ctx.exit(0 if found else 1)
