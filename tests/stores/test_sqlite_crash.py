"""SQLiteStore when its process is killed, when system calls fail, and when the disk is full."""

from __future__ import annotations

import pytest

from tests.support import crash
from tests.support.world import run_readonly

OPENER = "tests.support.openers:sqlite"


@pytest.mark.parametrize("rounds", [20, pytest.param(40, marks=pytest.mark.slow)])
def test_a_kill_loses_nothing_that_was_set(tmp_path, rounds):
    found = crash.kills(OPENER, tmp_path, rounds=rounds)
    assert found["bad"] == []
    assert found["acknowledged"] > 5 * rounds


@pytest.mark.needs_peer("strace")
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.nightly)])
def test_any_system_call_may_fail_or_be_the_last(tmp_path, every):
    found = crash.failing_calls(OPENER, tmp_path, every=every)
    assert found["bad"] == []
    assert sum(found["calls"].get(name, 0) for name in ("fsync", "fdatasync")) >= 2


FULL_DISK = """
import json, os, subprocess
from tests.support import crash
from tests.support.world import run_readonly
from zarrstore.stores.sqlite import SQLiteStore

os.mkdir("small")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", "small"], check=True)
answer = {"acknowledged": 0, "refused": 0, "bad": []}
store = SQLiteStore("small/data.sqlite")
held = {}
for version in range(1, 400):
    key = version % 40
    new = crash.value(key, version, 4000 * (version % 60))
    try:
        store[f"k/{key}"] = new
        held[f"k/{key}"] = new
        answer["acknowledged"] += 1
    except OSError as exc:
        assert exc.errno == 28, exc
        answer["refused"] += 1
if dict(store) != held:
    answer["bad"].append("the open store differs")
try:
    store.close()
except OSError as exc:
    assert exc.errno == 28, exc
with SQLiteStore("small/data.sqlite", readonly=True) as store:
    if dict(store) != held:
        answer["bad"].append("the store opened again differs")
print(json.dumps(answer))
"""


def test_a_full_disk_is_an_error_and_loses_nothing():
    answer = run_readonly(FULL_DISK)
    assert answer["bad"] == []
    assert answer["acknowledged"] > 20
    assert answer["refused"] > 40
