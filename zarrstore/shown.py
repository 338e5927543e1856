"""How results show themselves: text of at most 30 lines at a prompt, HTML in a notebook, escaped to the last byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["LINES", "Shown", "clip", "escape", "fold", "human_bytes", "printable", "table_html", "table_text"]

#: Lines of a `repr`.
LINES = 30
#: Rows of a table in a notebook.
_ROWS = 200

STYLE = "font-family:ui-monospace,monospace;font-size:90%;line-height:1.5;text-align:left;white-space:pre-wrap;margin:0"


def human_bytes(nbytes: float) -> str:
    """Return a number of bytes as people read it.

    Examples
    --------
    >>> human_bytes(999), human_bytes(123456)
    ('999 B', '120.6 KiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:,.0f} {unit}" if unit == "B" else f"{nbytes:,.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:,.1f} TiB"


def printable(text: str) -> str:
    r"""Return a text with control characters escaped: a name must not move the cursor of a terminal.

    Examples
    --------
    >>> print(printable("a\x1b[2J"), printable("é"))
    a\x1b[2J é
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape(text: object) -> str:
    """Return a text as HTML that shows it and does nothing else; control characters and marks of direction are named.

    Examples
    --------
    >>> escape('<b onclick="x">')
    '&lt;b onclick=&quot;x&quot;&gt;'
    """
    import html

    return html.escape(printable(str(text)), quote=True)


def clip(text: str, lines: int = LINES) -> str:
    """Return the first lines of a text, and how many there are more.

    Examples
    --------
    >>> print(clip("a\\nb\\nc\\nd", 3))
    a
    b
    … and 2 more lines
    """
    parts = text.splitlines()
    if len(parts) <= lines:
        return text
    return "\n".join([*parts[: lines - 1], f"… and {len(parts) - lines + 1:,} more lines"])


def fold(summary: str, inside: str, *, is_open: bool) -> str:
    """Return HTML that folds; both parts are HTML already.

    Examples
    --------
    >>> fold("name", "more", is_open=False)
    '<details style="margin-left:1.2em"><summary>name</summary>more</details>'
    """
    attribute = " open" if is_open else ""
    return f'<details style="margin-left:1.2em"{attribute}><summary>{summary}</summary>{inside}</details>'


def table_text(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a title and the columns below it, each as wide as its widest cell.

    Examples
    --------
    >>> print(table_text("2 things", ("name", "n"), [("a", 1), ("long", 22)]))
    2 things
      name  n
      a     1
      long  22
    """
    cells = [tuple(headers), *(tuple(printable(str(cell)) for cell in row) for row in rows)]
    if len(cells) == 1:
        return title
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join([title, *(f"  {line}" for line in lines)])


def table_html(title: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a title and a table below it, as HTML; rows beyond the first 200 are counted.

    Examples
    --------
    >>> ">&lt;x&gt;</td>" in table_html("t", ("name",), [("<x>",)])
    True
    """
    if not rows:
        return f'<div style="{STYLE}"><b>{escape(title)}</b></div>'
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in headers)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:_ROWS])
    more = f"<div>… and {len(rows) - _ROWS:,} more</div>" if len(rows) > _ROWS else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
    return f'<div style="{STYLE}">{fold(f"<b>{escape(title)}</b>", table, is_open=True)}</div>'


def _cell(value: object) -> str:
    text = str(value)
    # For each cell: notebooks align all cells of a table to the right.
    side = "right" if text.replace(",", "").isdecimal() else "left"
    return f'<td style="text-align:{side}">{escape(text)}</td>'


class Shown:
    """What shows itself as a title and a table: `repr` cuts it at 30 lines, a notebook folds it.

    Notes
    -----
    A class gives `_title`, `_headers` and `_rows`.
    """

    __slots__ = ()

    def _title(self) -> str:
        return type(self).__name__

    def _headers(self) -> Sequence[str]:
        return ("", "")

    def _rows(self) -> Sequence[Sequence[object]]:
        return ()

    def __repr__(self) -> str:
        return clip(table_text(self._title(), self._headers(), self._rows()))

    def _repr_html_(self) -> str:
        return table_html(self._title(), self._headers(), self._rows())
