"""Tables where no terminal is: the same lines with rich and without it."""

from __future__ import annotations

import sys

import pytest

from zarrstore.cli import common

TABLES = {
    "numbers": (("bytes", "", "keys", "path"), [("62,921", "61.4 KiB", "89", "/"), ("?", "?", "1", "a/b")], (0, 1, 2)),
    "empty": (("kind", "bytes", "name"), [], (1,)),
    "markup": (("key", "reason"), [("[bold]x[/bold]", "a\x1b[2Jb"), ("two\nlines", "tab\there")], ()),
    "accents": (("store", ""), [("title", "\u017elu\u0165ou\u010dk\u00fd k\u016f\u0148"), ("soft", "a\u00adb")], ()),
    "long": (("key", "reason"), [("k" * 300, "r" * 300)], ()),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_a_pipe_is_what_rich_would_print(name, capsys, monkeypatch):
    headers, rows, numbers = TABLES[name]
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    common.print_table(headers, rows, numbers=numbers)
    plain = capsys.readouterr().out
    common._draw_table(headers, [[common.printable(cell) for cell in row] for row in rows], numbers)
    assert plain == capsys.readouterr().out
    assert plain.count("\n") == len(rows) + 1


@pytest.mark.parametrize("text", ["\u6d77\u6d0b", "e\u0301", "\U0001f30a"], ids=["wide", "combining", "picture"])
def test_characters_of_another_width_are_laid_out_by_rich(text, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(common, "_draw_table", lambda *args: drawn.append(args))
    common.print_table(("name", ""), [(text, "x")])
    assert len(drawn) == 1


def test_a_terminal_gets_a_table_of_rich(monkeypatch):
    drawn = []
    monkeypatch.setattr(common, "_draw_table", lambda *args: drawn.append(args))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    common.print_table(("name", ""), [("a", "x")])
    assert len(drawn) == 1
    monkeypatch.undo()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(common, "_draw_table", lambda *args: drawn.append(args))
    common.print_table(("name", ""), [("a", "x")])
    assert len(drawn) == 2
