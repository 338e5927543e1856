"""SQLiteStore after a power cut between any two of its writes, and after a lock that could not be given up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores.test_lmdb_cuts import WRITER, possible
from tests.support import crash, cuts
from zarrstore.stores.sqlite import SQLiteStore

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(900)
@pytest.mark.needs_peer("strace")
@pytest.mark.parametrize(("sets", "every"), [(25, 20), pytest.param(70, 3, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("log_bytes", [4 << 20, 100_000], ids=["log", "checkpoints"])
def test_a_cut_between_any_two_writes_leaves_all_that_was_flushed(tmp_path, log_bytes, sets, every):
    folder = tmp_path / "store"
    folder.mkdir()
    SQLiteStore(folder / "a.sqlite").close()
    disk = cuts.Disk.of(folder)
    script = (
        WRITER.replace(
            "zarrstore.stores.lmdb import LMDBStore", "zarrstore.stores.sqlite import SQLiteStore, connections"
        )
        .replace(
            "store = LMDBStore(sys.argv[1]",
            f"connections.LOG_BYTES = {log_bytes}\nstore = SQLiteStore({str(folder / 'a.sqlite')!r}",
        )
        .replace("range(1, 70)", f"range(1, {sets})")
        .replace("(10, 100, 3000, 9000)", "(10, 100, 3000, 9000, 9000, 9000, 9000, 270_000)")
    )
    events = cuts.record(script, folder, {}, 1)
    assert sum(event.what == "mark" and event.data == b"flushed" for event in events) >= sets // 10 - 1 > 0
    judged = 0
    for cut, marks in cuts.states(disk, events, folder, tmp_path / "cuts", seed=2, every=every):
        allowed = possible(marks, acknowledged=False)
        with SQLiteStore(cut / "a.sqlite") as store:
            found = dict.fromkeys(range(15), "-")
            for name, value in store.items():
                key = int(name[1:])
                found[key] = str(crash.version_of(key, value))
        for name in os.listdir(cut):  # what this opening made
            if name not in ("a.sqlite", "a.sqlite-wal", "a.sqlite-shm"):
                os.unlink(cut / name)
        wrong = {key: (version, allowed[key]) for key, version in found.items() if version not in allowed[key]}
        assert wrong == {}, f"after {len(marks)} marks"
        judged += 1
    assert judged > 3 * sets // every


@pytest.mark.nightly
@pytest.mark.needs_peer("strace")
def test_a_lock_that_could_not_be_given_up_is_forgotten(tmp_path):
    """SQLite looks for ten seconds whether somebody gives it up, and then every call would."""
    script = """
import os, sys, time
from zarrstore.stores.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
os.write(2, b"MARK")
for n in range(6):
    start = time.monotonic()
    store[f"k{n}"] = b"1"
    assert store[f"k{n}"] == b"1"
    if time.monotonic() - start > 5:
        print("waited", flush=True)
"""
    log = tmp_path / "log"

    def run(path, *options):
        command = ["strace", "-f", "-o", str(log), "-e", "trace=fcntl,write", *options, sys.executable, "-c", script]
        return subprocess.run([*command, str(path)], cwd=CHECKOUT, capture_output=True, text=True)

    run(tmp_path / "counted")
    before, after = log.read_text().split("MARK", 1)
    first = before.count("fcntl(")
    # The end of the first read: byte 124 of the index of the log is the lock of its readers.
    calls = [line for line in after.splitlines() if "fcntl(" in line]
    candidates = [number for number, line in enumerate(calls, first + 1) if "F_UNLCK" in line and "l_start=124" in line]
    waits = 0
    for nth in candidates[1:4]:
        done = run(tmp_path / f"{nth}", "-e", f"inject=fcntl:error=EIO:when={nth}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("waited") <= 1
        waits += done.stdout.count("waited")
    assert waits > 0, "no unlock that failed was one that counts"
