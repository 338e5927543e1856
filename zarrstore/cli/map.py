"""The verb ``map``."""

from __future__ import annotations

from pathlib import Path

import click

from zarrstore.cli.common import (
    echo_err,
    json_option,
    not_empty,
    opened,
    path_argument,
    print_json,
    printable,
    storage_options,
    target_argument,
)
from zarrstore.optional import require
from zarrstore.tools.chunkmap import ChunkMap, chunk_map


@click.command()
@target_argument()
@path_argument()
@click.option("--decode", is_flag=True, help="Decode every chunk, and mark those that are damaged.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), callback=not_empty, help="A .png or .svg file.")
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
        _draw(found, output)
        echo_err(f"wrote {output}")
    if as_json:
        sizes = [{"chunk": list(at), "nbytes": size} for at, size in sorted(found.sizes.items())]
        damaged = [list(at) for at in sorted(found.damaged)]
        print_json({"path": found.path, "grid": list(found.grid), "written": sizes, "damaged": damaged})
    elif not output:
        for line in str(found).splitlines():
            click.echo(printable(line))
    ctx.exit(1 if found.damaged else 0)


def _draw(found: ChunkMap, output: str) -> None:
    if Path(output).suffix.lower() not in (".png", ".svg"):
        raise click.UsageError(f"{output!r} ends in neither .png nor .svg")
    require("matplotlib", extra="plot", feature="zarrstore map --output")
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    cells = np.array(found.rows(columns=400, rows=400))
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shades = np.ma.masked_where(cells <= 0, cells)
    shown = axes.imshow(shades, cmap="viridis", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_facecolor("#e8e8e8")
    down, across = np.nonzero(cells < 0)
    if len(down):
        axes.scatter(across, down, marker="x", color="red", label="damaged")
        axes.legend(loc="upper right")
    figure.colorbar(shown, ax=axes, label="bytes, as a share of the largest chunk")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="chunks of the last axis", ylabel="chunks of the other axes")
    axes.set_title(printable(found.title).replace("$", r"\$"), fontsize=9)
    figure.savefig(output, dpi=120)
