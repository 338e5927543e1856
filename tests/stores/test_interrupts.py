"""LMDBStore and SQLiteStore under interrupts at random moments: nothing is lost, no lock is held, nothing leaks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent

SCRIPT = """
import os, signal, sys, threading, time
from tests.support import crash
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.sqlite import SQLiteStore

kind, folder, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
open_store = {"lmdb": LMDBStore, "sqlite": SQLiteStore}[kind]
main = threading.main_thread().ident
armed, interrupts, ended = False, 0, []
descriptors = []

def interrupt(number, frame):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

def send_interrupts():
    start = time.monotonic()
    # By what came, not by the clock alone: a busy machine lets few of them through.
    while (passed := time.monotonic() - start) < seconds or (interrupts <= 50 and passed < seconds + 20):
        time.sleep(0.0011)
        signal.pthread_kill(main, signal.SIGINT)
    ended.append(1)

store = open_store(f"{folder}/a")
other = open_store(f"{folder}/b")
written = {key: [0] for key in range(6)}  # versions that may be found, the last acknowledged one first

def steps(version):
    key = version % 6
    written[key].append(version)
    store[f"k{key}"] = crash.value(key, version, (10, 5000, 300_000)[version % 3])
    del written[key][:-1]
    assert crash.version_of(key, store[f"k{key}"]) == version
    assert len(store) >= 1 and list(store)
    store.getrange(f"k{key}", 3, 9)
    if version % 7 == 0:
        store.flush()
    if version % 9 == 0:
        store.setitems({f"batch/{n}": bytes(20) for n in range(50)})
        store.rmdir("batch")
    if version % 11 == 0:
        with open_store(f"{folder}/b") as second:
            second["x"] = other["x"] = b"1"
    if version % 13 == 0 and kind == "lmdb":
        with store.reading() as view:
            bytes(view[f"k{key}"])

signal.signal(signal.SIGINT, interrupt)
threading.Thread(target=send_interrupts, daemon=True).start()
version = 0
while not ended:
    try:
        armed = True
        while not ended:
            version += 1
            steps(version)
    except KeyboardInterrupt:
        interrupts += 1
    armed = False
    descriptors.append(len(os.listdir("/proc/self/fd")))

signal.signal(signal.SIGINT, signal.SIG_IGN)
problems = []

def another_thread():
    for key, versions in written.items():
        found = store.get(f"k{key}")
        if found is None:
            if versions[0]:
                problems.append(f"key {key} is lost, had {versions}")
        elif crash.version_of(key, found) not in versions:
            problems.append(f"key {key} has {crash.version_of(key, found)} of {versions}")
    store["last"] = b"1"
    store.flush()
    store.close()
    other.close()
    with open_store(f"{folder}/a") as again:
        problems.extend([] if again["last"] == b"1" else ["not there after closing"])
    problems.append("done")

thread = threading.Thread(target=another_thread, daemon=True)
thread.start()
thread.join(20)
if max(descriptors) > descriptors[0] + 12:
    problems.append(f"descriptors leak: {descriptors[0]} to {max(descriptors)}")
print(interrupts > 50, problems, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("seconds", [1.5, pytest.param(60, marks=[pytest.mark.nightly, pytest.mark.timeout(200)])])
@pytest.mark.parametrize("kind", ["lmdb", "sqlite"])
def test_interrupts_at_random_moments_lose_nothing_and_leave_no_lock_held(tmp_path, kind, seconds):
    command = [sys.executable, "-c", SCRIPT, kind, str(tmp_path), str(seconds)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Python drops an interrupt that comes in the middle of a finaliser, and says so; nothing else is said.
    dropped = r"Exception ignored in: [^\n]*__del__[^\n]*\nTraceback [^\n]*\n(?: [^\n]*\n|\n)*KeyboardInterrupt: \n"
    assert re.sub(dropped, "", done.stderr) == ""
    assert done.stdout == "True ['done']\n"
