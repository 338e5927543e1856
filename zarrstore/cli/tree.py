"""The verb ``tree``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from zarrstore.cli.common import (
    console,
    json_option,
    opened,
    path_argument,
    print_json,
    printable,
    storage_options,
    target_argument,
)
from zarrstore.tools.tree import TreeNode, tree

if TYPE_CHECKING:
    from rich.tree import Tree


@click.command()
@target_argument()
@path_argument()
@click.option("-L", "--level", type=click.IntRange(min=0), help="Show so many levels.")
@click.option(
    "--no-consolidated", "walked", is_flag=True, help="Look into each directory, not at consolidated metadata."
)
@json_option
@storage_options
def command(
    target: str, path: str, level: int | None, walked: bool, as_json: bool, storage_option: tuple[str, ...]
) -> None:
    """Draw the groups and arrays at and below PATH, with shape, dtype and chunks."""
    with opened(target, "r", storage_option) as store:
        root = tree(store, path, depth=level, consolidated=not walked)
    if as_json:
        print_json(root.as_dict())
        return
    if sys.stdout.isatty():
        console().print(_drawn(root))
    else:
        click.echo("\n".join(map(printable, str(root).splitlines())))


def _drawn(node: TreeNode) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    is_array = node.node is not None and node.node.kind == "array"
    name, _, rest = printable(node.label).partition(" ") if is_array else (printable(node.label), "", "")
    label = Text(name, style="bold" if is_array else "bold blue")
    if rest:
        label.append(f" {rest}", style="dim")
    drawn = Tree(label)
    for child in node.children:
        drawn.add(_drawn(child))
    return drawn
