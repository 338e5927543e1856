"""The deterministic twins of power cuts: the writes, syncs and names of a store, recorded, and cut between any two."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.modes import MODES
from tests.support import crash, cuts
from zarrstore.stores import _files
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.nested import NestedDirectoryStore

KEYS = 12
# Flat keys of chunks, which NestedDirectoryStore keeps in nested files; and beside each a place to which it is moved.
NAMES = {key: f"a{key % 2}/0.{key}" for key in range(KEYS)} | {key + KEYS: f"b/0.{key}" for key in range(KEYS)}

WRITER = '''
import os, random, sys, zarrstore.threads
from pathlib import Path
from tests.faults.modes import MODES
from tests.faults.test_cuts import KEYS, NAMES
from tests.support import crash

class Serial:
    """A pool whose calls can be told apart in the record."""

    def __init__(self, *args):
        self.map = map

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def shutdown(self, **options):
        pass

zarrstore.threads.Threads = Serial  # the stores import it where they use it
folder, mode, sets, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = MODES[mode].open(folder)
chance = random.Random(seed)
held = {key: 0 for key in range(KEYS)}

def mark(text):
    os.write(2, f"MARK {text}\\n".encode())

def put(version, *keys):
    for key in keys:
        mark(f"begin {key} {version}")
    store.setitems({NAMES[key]: crash.value(key % KEYS, version, chance.choice((10, 3000, 9000))) for key in keys})
    held.update(dict.fromkeys(keys, version))

def remove(*keys):
    for key in keys:
        mark(f"begin {key} -")
        held.pop(key, None)

mark("start")
for version in range(1, sets):
    dice, key = chance.random(), chance.randrange(KEYS)
    if dice < 0.15 and key in held:
        remove(key)
        del store[NAMES[key]]
        if dice < 0.08:
            put(version, key)
    elif dice < 0.2:
        source, dest = (key, key + KEYS) if key in held else (key + KEYS, key)
        if source in held and dest not in held:
            moved = held[source]
            remove(source)
            mark(f"begin {dest} {moved}")
            store.rename(NAMES[source], NAMES[dest])
            held[dest] = moved
    elif dice < 0.25:
        remove(*(other for other in range(KEYS) if other % 2 == key % 2))
        store.rmdir(f"a{key % 2}")
        if key % 3:
            put(version, key)
    else:
        put(version, *chance.sample(range(KEYS), 3 if dice < 0.35 else 1))
    mark("set")
    if version % 6 == 0:
        store.flush()
        mark("flushed")
os._exit(0)
'''


def wrong_after_cuts(tmp_path: Path, mode: str, sets: int, every: int, seed: int = 1) -> list[str]:
    """Cut a writer after each so many-th step; return what was found that must not be."""
    folder = tmp_path / "store"
    folder.mkdir()
    with MODES[mode].open(folder) as store:
        store.update({NAMES[key]: crash.value(key, 0, 1000) for key in range(KEYS)})
        if isinstance(store, NestedDirectoryStore):
            # Some chunks in flat files, as other stores write them, of an array.
            flat = DirectoryStore(store.path)
            flat.update({"a0/.zarray": b"{}", "b/.zarray": b"{}"})
    disk = cuts.Journal.of(folder)
    recorded = copy.deepcopy(disk)
    events = cuts.record(WRITER, folder, mode, sets, seed)
    assert sum(event.what == "mark" and event.data == b"flushed" for event in events) >= (sets - 1) // 6 > 0
    assert _replayed(recorded, events) == {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }, "the record is complete"
    wrong: list[str] = []
    judged = 0
    for cut, marks in cuts.states(disk, events, folder, tmp_path / "cuts", seed=seed, every=every):
        if marks:
            wrong += [f"after {len(marks)} marks: {line}" for line in _judge(mode, cut, marks)]
            judged += 1
    assert judged > 4 * sets // every
    return wrong


def _replayed(disk: cuts.Journal, events: list[cuts.Event]) -> dict[str, bytes]:
    for event in events:
        disk.apply(event)
    return list(disk.after_cuts(random.Random(0)))[2]


def _judge(mode: str, cut: Path, marks: list[str]) -> Iterator[str]:
    past: dict[int, list[str]] = {key: ["0"] for key in range(KEYS)} | {key + KEYS: ["-"] for key in range(KEYS)}
    for mark in marks:
        if mark.startswith("begin"):
            past[int(mark.split()[1])].append(mark.split()[2])
        elif mark == "flushed" or (mark == "set" and MODES[mode].power == "acknowledged"):
            for versions in past.values():
                del versions[:-1]
    with MODES[mode].open(cut) as store:
        for key, versions in past.items():
            found = _version(store, key)
            if found not in versions and not (found == "torn" and versions[0] == "-" and MODES[mode].new_may_tear):
                yield f"{NAMES[key]} is {found}, and may be {versions}"


def _version(store: Any, key: int) -> str:
    try:
        return str(crash.version_of(key % KEYS, store[NAMES[key]]))
    except KeyError:
        return "-"
    except Exception:  # too short to be a value of the tests, or other bytes than its checksum says
        return "torn"


@pytest.mark.needs_peer("strace")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("sets", "every"), [(25, 15), pytest.param(150, 1, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "mode", ["DirectoryStore-flush", "DirectoryStore-always", "NestedDirectoryStore-flush", "ZipStore"]
)
def test_a_cut_between_any_two_steps_leaves_all_that_was_promised(tmp_path, mode, sets, every):
    assert wrong_after_cuts(tmp_path, mode, sets, every) == []


@pytest.mark.needs_peer("strace")
def test_a_store_that_syncs_too_late_is_seen_to_lose(tmp_path, monkeypatch):
    monkeypatch.setitem(MODES, "DirectoryStore", MODES["DirectoryStore"]._replace(power="flushed", new_may_tear=True))
    assert wrong_after_cuts(tmp_path, "DirectoryStore", 25, 3)


# The model ------------------------------------------------------------------------------------------------------------


def test_the_journal_keeps_names_in_order_and_contents_apart(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    at = f"{tmp_path}/"
    journal = cuts.Journal.of(tmp_path)
    for event in (
        cuts.Event("create", at + _files.temporary_name()),
        cuts.Event("create", at + "new"),
        cuts.Event("write", at + "new", 0, b"new"),
        cuts.Event("rename", at + "new", data=(at + "old").encode()),
    ):
        journal.apply(event)
    found = [files.get(at + "old") for files in journal.after_cuts(random.Random(0))]
    assert found[:3] == [b"old", b"", b"new"]
    journal.apply(cuts.Event("sync", at + "old"))
    assert [files[at + "old"] for files in journal.after_cuts(random.Random(0))][:3] == [b"old", b"new", b"new"]
    journal.apply(cuts.Event("sync folder", str(tmp_path)))
    assert {files[at + "old"] for files in journal.after_cuts(random.Random(0))} == {b"new"}
