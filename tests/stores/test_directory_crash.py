"""DirectoryStore and NestedDirectoryStore when killed, when system calls fail, and when the disk is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import crash
from tests.support.world import run_readonly


@pytest.mark.parametrize("name", ["plain", "nested", "always"])
def test_a_kill_loses_nothing_that_was_set(tmp_path: Path, name: str) -> None:
    found = crash.kills(f"tests.support.openers:{name}", tmp_path, rounds=30)
    assert found["bad"] == []
    assert found["acknowledged"] > (30 if name == "always" else 200)  # a sync may take 20 ms


@pytest.mark.needs_peer("strace")
@pytest.mark.parametrize(
    ("name", "every"), [("plain", 3), ("nested", 3), pytest.param("plain", 1, marks=pytest.mark.slow)]
)
def test_any_system_call_may_fail_or_be_the_last(tmp_path: Path, name: str, every: int) -> None:
    # Not the two that sync: they do it in threads, and strace counts the calls of each thread by itself.
    found = crash.failing_calls(f"tests.support.openers:{name}", tmp_path, every=every)
    assert found["bad"] == []


FULL_DISK = """
import json, os, subprocess
from zarrstore.stores.directory import DirectoryStore

os.mkdir("small")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", "small"], check=True)
store = DirectoryStore("small/data")
held, refused = {}, 0
for n in range(400):
    key, value = f"a/{n % 60}", bytes([n % 251]) * 100_000
    try:
        store[key] = value
    except OSError as exc:
        assert exc.errno == 28 and repr(key) in str(exc), exc
        refused += 1
    else:
        held[key] = value
    if refused and n % 50 == 0:
        del store[next(iter(held))]
        del held[next(iter(held))]
same = dict(store.items()) == held
left = [name for _, _, names in os.walk("small/data") for name in names if name.startswith(".")]
print(json.dumps({"refused": refused, "same": same, "left": left}))
"""


def test_a_full_disk_is_an_error_and_loses_nothing() -> None:
    outcome = run_readonly(FULL_DISK)
    assert outcome["refused"] > 10
    assert outcome["same"]
    assert outcome["left"] == []
