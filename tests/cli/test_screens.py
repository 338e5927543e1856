"""The screens of the manual are what the verbs print today."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from zarrstore.cli.group import VERBS

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def make() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "screens" / "make.py"))


@pytest.mark.slow
def test_the_screens_are_up_to_date(make: dict[str, Any]) -> None:
    shown = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "screens").glob("*.txt")}
    assert dict(make["screens"]()) == shown, "python docs/screens/make.py"


def test_every_verb_has_a_screen_in_the_manual(make: dict[str, Any]) -> None:
    page = (DOCS / "cli.rst").read_text(encoding="utf-8")
    assert set(make["SCREENS"]) == set(VERBS) - {"serve", "completion"}  # a page of its own, and a script
    for verb in make["SCREENS"]:
        assert f".. literalinclude:: screens/{verb}.txt" in page, verb
