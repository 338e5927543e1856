"""Blocks of the manual that need a bucket or a cluster, and so are not run: they are Python, and name what there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import each_of

HERE = Path(__file__).resolve().parent.parent
PAGES = [HERE / "README.rst", HERE / "CONTRIBUTING.rst", *sorted((HERE / "docs").rglob("*.rst"))]

_BLOCK = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", re.MULTILINE)


def blocks() -> Iterator[Any]:
    for page in PAGES:
        if page.name in ("api.rst", "tour.rst"):
            continue
        for n, match in enumerate(_BLOCK.finditer(page.read_text(encoding="utf-8"))):
            yield pytest.param(textwrap.dedent(match[2]), id=f"{page.stem}-{n}")


BLOCKS = list(blocks())


def test_there_are_such_blocks():
    assert len(BLOCKS) >= 6


@each_of("source", BLOCKS)
def test_a_block_that_is_not_run_names_what_there_is(source: str) -> None:
    names: dict[str, Any] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bind(node, names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (called := look_up(node.func, names)) is not None:
            check_keywords(called, node)
        elif isinstance(node, ast.Attribute):
            look_up(node, names)


def bind(node: ast.Import | ast.ImportFrom, names: dict[str, Any]) -> None:
    """Import what a line imports, if it is ours."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zarrstore"):
        module = importlib.import_module(str(node.module))
        names.update({alias.asname or alias.name: getattr(module, alias.name) for alias in node.names})
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.startswith("zarrstore"):
                importlib.import_module(alias.name)
                names["zarrstore"] = importlib.import_module("zarrstore")


def look_up(node: ast.expr, names: dict[str, Any]) -> Any:
    """Return what an expression of dots names, None if it is not ours; AttributeError if there is no such thing."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    holder = look_up(node.value, names)
    return None if holder is None else getattr(holder, node.attr)


def check_keywords(called: Any, call: ast.Call) -> None:
    parameters = inspect.signature(called).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    assert given <= set(parameters), f"{ast.unparse(call)}: no {given - set(parameters)}"
