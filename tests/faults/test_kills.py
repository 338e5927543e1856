"""Killed processes lose nothing that was acknowledged, and tear nothing, in every mode and inside every verb."""

from __future__ import annotations

import pytest

from tests.faults import kills
from tests.faults.modes import MODES
from tests.support import crash

PROMISING = [name for name, mode in MODES.items() if mode.kill is not None]


QUICK = ["DirectoryStore-flush", "NestedDirectoryStore-flush", "ZipStore", "LMDBStore", "SQLiteStore"]


@pytest.mark.parametrize("mode", QUICK)
def test_a_kill_inside_each_verb_loses_nothing(mode):
    verbs = kills.verbs_of(mode)
    found = kills.kills(mode, ",".join(verbs), 1)
    assert found["bad"] == []
    assert found["rounds"] == len(verbs)


def test_a_store_that_promises_nothing_is_seen_to_lose():
    seen = any(kills.kills("DBMStore", "setitems", 10, seed=seed)["bad"] for seed in range(10))
    assert seen, "dbm.dumb writes its index only at the end"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", PROMISING)
def test_1000_kills_inside_the_verbs_lose_nothing(mode):
    verbs = kills.verbs_of(mode)
    found = kills.kills(mode, ",".join(verbs), -(-1000 // len(verbs)), seed=1)
    assert found["bad"] == []
    assert found["inside"] > found["rounds"] // 4, "most verbs had ended before the kill, so this shows little"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", PROMISING)
def test_1000_kills_lose_nothing_that_was_acknowledged(tmp_path, mode):
    found = crash.kills(f"tests.faults.modes:{mode}", tmp_path, rounds=1000, promise=MODES[mode].kill, seed=1)
    assert found["bad"] == []
    assert found["acknowledged"] > 1000
