"""docs/guarantees.rst: each test that it names exists, and no store or mode is left out."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults import calls
from tests.faults.modes import MODES
from tests.support import roster
from tests.support.cases import each_of

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/guarantees.rst").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"``((?:tests|zarrstore)/[\w/]+\.py)::(\w+)``", TEXT)))


def test_the_tables_name_tests():
    assert len(NAMED) > 60


@each_of("file", sorted({file for file, _ in NAMED}))
def test_each_test_that_the_guarantees_name_exists(file):
    source = (ROOT / file).read_text(encoding="utf-8")
    missing = [name for named, name in NAMED if named == file and f"def {name}(" not in source]
    assert missing == []


def test_every_mode_has_a_row_for_each_of_its_promises():
    table = TEXT[TEXT.index("Which test shows what") :]
    for name, mode in MODES.items():
        rows = re.findall(rf"   \* - {name}\n     - (.*)\n", table)
        if mode.kill is not None:
            assert any("a kill at any moment" in row for row in rows), name
            assert any("a kill inside a verb" in row for row in rows), name
        if mode.power is not None:
            assert any("a power cut" in row for row in rows), name


def test_every_row_has_the_figures_of_the_last_full_run():
    table = TEXT[TEXT.index("Which test shows what") : TEXT.index("The faults of 0.1.0")]
    rows = re.split(r"^   \* - ", table, flags=re.MULTILINE)[1:]
    cells = [re.split(r"\n     - ", row.strip()) for row in rows]
    assert cells[0] == ["Store and mode", "Promise", "Test", "Last full run"]
    assert [row[:2] for row in cells[1:] if len(row) != 4 or not re.search(r"[0-9]", row[3])] == []
    kills = [row for row in cells if row[1].startswith(("a kill", "a power cut"))]
    assert [row[:2] for row in kills if not re.search(r"\b0\b.*(lost|wrong)", row[3])] == []
    assert len(kills) > 20


def test_every_store_of_the_roster_stands_in_the_guarantees():
    names = {name.split("-")[0] for name in roster.STORES} - {"dict", "KVStore"}
    assert [name for name in sorted(names) if name not in TEXT] == []
    assert {name.split("-")[0] for name in calls.STORES} <= names | set(roster.WRAPPERS) | {"LRUStoreCache"}


def test_every_fault_of_the_first_release_has_a_row():
    table = TEXT[TEXT.index("The faults of 0.1.0") :]
    assert re.findall(r"   \* - (\w+)\n", table) == [
        *map(str, range(1, 11)),
        *("10a", "10b", "10c", "10d"),
        *map(str, range(11, 19)),
    ]
