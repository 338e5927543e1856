"""The verb ``map``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    echo_err,
    json_option,
    opened,
    path_argument,
    print_json,
    printable,
    storage_options,
    target_argument,
)
from zarrstore.cli.pictures import check_suffix, draw_map
from zarrstore.tools.chunkmap import chunk_map


@click.command()
@target_argument()
@path_argument()
@click.option("--decode", is_flag=True, help="Decode every chunk, and mark those that are damaged.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), callback=check_suffix, help="A .png or .svg file.")
@json_option
@storage_options
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    path: str,
    decode: bool,
    output: str | None,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Draw the chunk grid of the array at PATH: what is written and missing, and with --decode what is damaged.

    Rows are all axes but the last; a shade is the bytes of a chunk. Exit 1 if a chunk is damaged.
    """
    with opened(target, "r", storage_option) as store:
        found = chunk_map(store, path, decode=decode)
    if output:
        draw_map(found, output)
        echo_err(f"wrote {output}")
    if as_json:
        sizes = [{"chunk": list(at), "nbytes": size} for at, size in sorted(found.sizes.items())]
        damaged = [list(at) for at in sorted(found.damaged)]
        print_json({"path": found.path, "grid": list(found.grid), "written": sizes, "damaged": damaged})
    elif not output:
        for line in str(found).splitlines():
            click.echo(printable(line))
    ctx.exit(1 if found.damaged else 0)
