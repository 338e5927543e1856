"""LMDBStore when its process is killed, when system calls fail, and when the disk is full."""

from __future__ import annotations

import pytest

from tests.support import crash
from tests.support.world import run_readonly

OPENER = "tests.support.openers:lmdb"


@pytest.mark.parametrize("rounds", [20, pytest.param(40, marks=pytest.mark.slow)])
def test_a_kill_loses_nothing_that_was_set(tmp_path, rounds):
    found = crash.kills(OPENER, tmp_path, rounds=rounds)
    assert found["bad"] == []
    assert found["acknowledged"] > 10 * rounds


@pytest.mark.needs_peer("strace")
@pytest.mark.parametrize("where", [OPENER, f"{OPENER}_with_every_call_synced"], ids=["default", "sync"])
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_any_system_call_may_fail_or_be_the_last(tmp_path, where, every):
    found = crash.failing_calls(where, tmp_path, every=every)
    assert found["bad"] == []
    assert found["silent"] == []
    assert found["calls"].get("fdatasync", 0) >= 2, "flush and close sync"
    assert found["calls"].get("pwrite64", 0) + found["calls"].get("writev", 0) >= 10


FULL_DISK = """
import json, os, subprocess, sys
from tests.support import crash
from zarrstore.stores.lmdb import LMDBStore

os.mkdir("small")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", "small"], check=True)
answer = {"acknowledged": 0, "refused": 0, "bad": []}
child = os.fork()
if child == 0:  # a SIGBUS would be its end, and not the test's
    store = LMDBStore("small/data.lmdb")
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
    size = os.path.getsize("small/data.lmdb/data.mdb")
    store.close()
    if os.path.getsize("small/data.lmdb/data.mdb") < size:
        answer["bad"].append("the file was truncated")
    with LMDBStore("small/data.lmdb") as store:
        if dict(store) != held:
            answer["bad"].append("the store opened again differs")
    print(json.dumps(answer), flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, f"ended with {status}"
"""


def test_a_full_disk_is_an_error_and_loses_nothing():
    answer = run_readonly(FULL_DISK)
    assert answer["bad"] == []
    assert answer["acknowledged"] > 40
    assert answer["refused"] > 40
