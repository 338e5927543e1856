"""A report of `verify` as one page: every problem, and the map of each array that has damaged chunks."""

from __future__ import annotations

from pathlib import Path

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.cli.pictures import map_as_html
from zarrstore.errors import ZarrStoreError
from zarrstore.nodes import node_at
from zarrstore.shown import STYLE, escape
from zarrstore.tools.chunkmap import chunk_map
from zarrstore.tools.findings import VerifyReport

__all__ = ["write_report"]

#: Arrays of which a map is drawn.
_MAPS = 50
_TITLE = "What zarrstore verify found in {}"


def write_report(store: Store, report: VerifyReport, target: str, place: str) -> None:
    """Write the page.

    Notes
    -----
    Cost: one listing for each array that has a map; nothing is decoded again.
    """
    title = escape(_TITLE.format(target))
    rows = [(one.key, one.kind, one.reason) for one in report.problems] + [("", "note", note) for note in report.notes]
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    head = "<thead><tr><th>key</th><th>kind</th><th>reason</th></tr></thead>"
    table = f'<table style="text-align:left">{head}<tbody>{cells}</tbody></table>' if rows else ""
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<body style="{STYLE};margin:2em"><h1 style="font-size:120%">{title}</h1><p>{escape(report._title())}</p>'
        f"{table}{_maps(store, report)}</body></html>\n"
    )
    Path(place).write_text(page, encoding="utf-8")


def _maps(store: Store, report: VerifyReport) -> str:
    drawn: list[str] = []
    omitted = 0
    for path in _arrays(store, report):
        try:
            found = chunk_map(store, path, report=report)
        except (ZarrStoreError, KeyError, ValueError) as exc:
            drawn.append(f"<h2>{escape(path or '/')}</h2><p>no map: {escape(exc)}</p>")
            continue
        if not found.damaged:
            continue
        if len(drawn) >= _MAPS:
            omitted += 1
            continue
        drawn.append(f'<h2 style="font-size:110%">{escape(path or "/")}</h2>{map_as_html(found)}')
    return "".join(drawn) + (f"<p>… and {omitted:,} more arrays with damaged chunks</p>" if omitted else "")


def _arrays(store: Store, report: VerifyReport) -> list[str]:
    """Return the paths of the arrays that problems lie in, each once."""
    known: dict[str, str | None] = {}
    for problem in report.problems:
        place = k.parent(problem.key)
        if place not in known:
            known[place] = _array_above(store, place)
    return list(dict.fromkeys(path for path in known.values() if path is not None))


def _array_above(store: Store, path: str) -> str | None:
    while True:
        node = node_at(store, path)
        if node is not None:
            return path if node.kind == "array" and node.error is None else None
        if not path:
            return None
        path = k.parent(path)
