"""What the verbs draw into files, with matplotlib (extra ``plot``), which is loaded when something is drawn."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from zarrstore.cli.common import printable
from zarrstore.optional import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from zarrstore.tools.chunkmap import ChunkMap
    from zarrstore.tools.tree import Usage

__all__ = ["check_suffix", "draw_map", "draw_usages", "map_as_html"]

#: Bars of a picture of sizes.
_BARS = 30


def check_suffix(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a file of which the name does not say how to draw it, before anything is read."""
    if value is not None and os.path.splitext(value)[1].lower() not in (".png", ".svg"):
        raise click.BadParameter(f"{value!r} ends in neither .png nor .svg", ctx, param)
    return value


def draw_map(found: ChunkMap, output: str) -> None:
    """Draw the chunk grid of an array into a file."""
    _map_figure(found).savefig(output, dpi=120)


def map_as_html(found: ChunkMap) -> str:
    """Return the chunk grid of an array as an image within a page."""
    buffer = io.BytesIO()
    _map_figure(found).savefig(buffer, format="png", dpi=90)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def draw_usages(usages: Sequence[Usage], output: str) -> None:
    """Draw what lies at and below directories as bars, the largest on top."""
    figure = _figure("du --plot", height=max(2.0, 1.0 + 0.3 * min(len(usages), _BARS)))
    from matplotlib.ticker import EngFormatter

    shown = list(reversed(usages[:_BARS]))
    axes = figure.subplots()
    names = [_plain(usage.path or "/") for usage in shown]
    bars = axes.barh(range(len(shown)), [max(0, usage.nbytes) for usage in shown], color="#4477aa")
    axes.bar_label(bars, [f"{usage.nkeys:,} keys" for usage in shown], padding=3, fontsize=8)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.margins(x=0.15)
    more = f" (the largest {_BARS:,} of {len(usages):,})" if len(usages) > _BARS else ""
    axes.set_title(f"bytes at and below each path{more}", fontsize=9)
    figure.savefig(output, dpi=120)


def _figure(feature: str, height: float = 6) -> Figure:
    require("matplotlib", extra="plot", feature=f"zarrstore {feature}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(text: str) -> str:
    """Return a text in which matplotlib finds no formula."""
    return printable(text).replace("$", r"\$")


def _map_figure(found: ChunkMap) -> Figure:
    figure = _figure("map --output")
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    cells = np.array(found.rows(columns=400, rows=400))
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
    axes.set_title(_plain(found.title), fontsize=9)
    return figure
