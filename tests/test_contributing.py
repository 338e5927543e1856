"""CONTRIBUTING and what stands around it: what it names exists, and the words that it bans are gone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.cases import each_of

ROOT = Path(__file__).parent.parent
ROOMS = ("zarrstore", "tests", "benchmarks", "examples")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TEXT = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
#: Only the modules in which one stands as a name may, be it in a comment, are parsed.
_BARE = re.compile(r"\b(told|said|made|gone)\b(?=\s*(=[^=]|,[^\n]*=|:|\)|in\b))")


def test_every_file_that_contributing_names_exists():
    named = set(re.findall(r"``((?:zarrstore|tests|examples|docs|metadata|tools|cli|stores)/[\w/.]*)``", TEXT))
    named = {name for name in named if "NAME" not in name}  # what the reader will add
    missing = {name for name in named if not (ROOT / name).exists() and not (ROOT / "zarrstore" / name).exists()}
    assert len(named) > 15
    assert missing == set()


@each_of("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_variable_is_named_by_a_bare_participle(path):
    source = path.read_text(encoding="utf-8")
    if not _BARE.search(source):
        return
    tree = ast.parse(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert not names & {"told", "said", "made", "gone"}, f"name it by a noun of the field: {path}"


def test_stores_has_at_most_sixteen_entries():
    entries = [entry.name for entry in (ROOT / "zarrstore" / "stores").iterdir() if entry.name != "__pycache__"]
    assert len(entries) <= 17  # sixteen, and __init__.py


def test_the_source_distribution_lists_what_its_tests_need():
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    for needed in ("tests", "examples", "docs", "benchmarks", "conftest.py", "CONTRIBUTING.rst", ".ruff.toml"):
        assert needed in manifest
