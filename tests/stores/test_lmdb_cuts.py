"""LMDBStore after a power cut: what was flushed is there while writing went on, and no damaged file opens."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from tests.support import crash, cuts
from zarrstore.errors import DamagedStoreError
from zarrstore.stores.lmdb import LMDBStore, checks

CHECKOUT = Path(__file__).parent.parent.parent

# Recorded writes ----------------------------------------------------------------------------------------------------

WRITER = """
import os, random, sys
from tests.support import crash
from zarrstore.stores.lmdb import LMDBStore

store = LMDBStore(sys.argv[1], **eval(sys.argv[2]))
chance = random.Random(int(sys.argv[3]))
def mark(text): os.write(2, f"MARK {text}\\n".encode())
for version in range(1, 70):
    key = chance.randrange(15)
    if chance.random() < 0.15 and f"k{key}" in store:
        mark(f"begin {key} -")
        del store[f"k{key}"]
    else:
        mark(f"begin {key} {version}")
        store[f"k{key}"] = crash.value(key, version, chance.choice((10, 100, 3000, 9000)))
    mark("set")
    if version % 10 == 0:
        store.flush()
        mark("flushed")
os._exit(0)
"""


def possible(marks, acknowledged):
    """Return, for each key, the versions that may be found ("-": none), by what came before the cut."""
    history: dict[int, list[str]] = {key: ["-"] for key in range(15)}
    for mark in marks:
        if mark.startswith("begin"):
            _, key, version = mark.split()
            history[int(key)].append(version)
        elif mark == "flushed" or (mark == "set" and acknowledged):
            for past in history.values():
                del past[:-1]
    return history


@pytest.mark.needs_peer("strace")
@pytest.mark.parametrize("options", [{}, {"metasync": True}, {"subdir": False}], ids=str)
@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_cut_between_any_two_writes_leaves_all_that_was_flushed(tmp_path, options, every):
    folder = tmp_path / "store"
    LMDBStore(folder if options.get("subdir", True) else tmp_path / "store" / "a.mdb", **options).close()
    place = folder if options.get("subdir", True) else folder / "a.mdb"
    disk = cuts.Disk.of(folder)
    events = cuts.record(WRITER.replace("sys.argv[1]", repr(str(place))), folder, options, 1)
    judged = 0
    for cut, marks in cuts.states(disk, events, folder, tmp_path / "cuts", seed=2, every=every):
        allowed = possible(marks, acknowledged=options.get("metasync", False))
        with LMDBStore(cut if options.get("subdir", True) else cut / "a.mdb", readonly=True, **options) as store:
            found = dict.fromkeys(range(15), "-")
            for name, value in store.items():
                key = int(name[1:])
                found[key] = str(crash.version_of(key, value))
            assert len(store) == sum(version != "-" for version in found.values())
        wrong = {key: (version, allowed[key]) for key, version in found.items() if version not in allowed[key]}
        assert wrong == {}, f"after {len(marks)} marks"
        judged += 1
    assert judged > 300 // every
    assert sum(event.what == "sync" for event in events) >= 69


# Images of two states -----------------------------------------------------------------------------------------------

JUDGE = """
import json, os, sys
from zarrstore.errors import DamagedStoreError
from zarrstore.stores.lmdb import LMDBStore

answers = []
for name in sorted(os.listdir(sys.argv[1])):
    try:
        with LMDBStore(os.path.join(sys.argv[1], name)) as store:
            answers.append([name, {key: store[key].hex() for key in store}, len(store)])
    except DamagedStoreError:
        answers.append([name, None, 0])
print(json.dumps(answers))
"""


def _judged(folder):
    """Return what each image holds, None where it is refused, found in a process that may abort."""
    done = subprocess.run([sys.executable, "-c", JUDGE, str(folder)], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)


def test_an_image_of_two_states_opens_as_one_of_them_or_not_at_all(tmp_path):
    """The heads of a later state over the pages of the flushed one: what a cut leaves where commits are not synced."""
    images = tmp_path / "images"
    states = {}
    for round_ in range(40):
        chance = random.Random(round_)
        with LMDBStore(tmp_path / f"{round_}", sync=False) as store:
            store.update({f"k{i:03}": chance.randbytes(chance.choice((20, 1000))) for i in range(200)})
            store.flush()
            flushed, a = dict(store), Path(store.path, "data.mdb").read_bytes()
            for _ in range(chance.randrange(1, 8)):
                store[f"k{chance.randrange(210):03}"] = chance.randbytes(chance.choice((30, 1000)))
            later, b = dict(store), Path(store.path, "data.mdb").read_bytes()
        images.joinpath(f"{round_:03}").mkdir(parents=True)
        padded = b[:8192] + a[8192:] + b[len(a) :] if round_ % 2 else b[:8192] + a[8192:]
        images.joinpath(f"{round_:03}", "data.mdb").write_bytes(padded)
        states[f"{round_:03}"] = [{key: value.hex() for key, value in state.items()} for state in (flushed, later)]
    refused = 0
    for name, found, length in _judged(images):
        refused += found is None
        assert found is None or (found in states[name] and length == len(found)), name
    assert refused > 20


def test_images_of_any_pages_of_two_states_never_end_the_process(tmp_path):
    images = tmp_path / "images"
    for round_ in range(60):
        chance = random.Random(1000 + round_)
        with LMDBStore(tmp_path / "a", sync=False) as store:
            store.update({f"k{i:03}": chance.randbytes(chance.choice((20, 900, 6000))) for i in range(80)})
            a = Path(store.path, "data.mdb").read_bytes()
            store.update({f"k{chance.randrange(90):03}": chance.randbytes(700) for _ in range(20)})
            store.delitems(f"k{chance.randrange(90):03}" for _ in range(20))
            b = Path(store.path, "data.mdb").read_bytes()
        shutil.rmtree(tmp_path / "a")
        a = a.ljust(len(b), b"\0")
        pages = [(a if chance.random() < 0.5 else b)[at : at + 4096] for at in range(0, len(b), 4096)]
        images.joinpath(f"{round_}").mkdir(parents=True)
        images.joinpath(f"{round_}", "data.mdb").write_bytes(b"".join(pages))
    answers = _judged(images)
    assert len(answers) == 60
    assert sum(found is None for _, found, _ in answers) > 20


def test_mutants_of_a_file_never_end_the_process(tmp_path):
    with LMDBStore(tmp_path / "a") as store:
        store.update({f"k{i:03}": bytes([i]) * (50 if i % 3 else 9000) for i in range(150)})
    whole = (tmp_path / "a" / "data.mdb").read_bytes()
    images = tmp_path / "images"
    for number in range(60):
        chance = random.Random(number)
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            page = chance.randrange(len(whole) // 4096)
            at = page * 4096 + chance.choice((chance.randrange(40), chance.randrange(4096)))
            content[at] = chance.choice((0, 255, content[at] ^ 1 << chance.randrange(8)))
        images.joinpath(f"{number}").mkdir(parents=True)
        images.joinpath(f"{number}", "data.mdb").write_bytes(content)
    assert len(_judged(images)) == 60


# Modes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "promise"),
    [({}, True), ({"metasync": True}, True), ({"sync": False}, False), ({"writemap": True}, False)],
    ids=str,
)
def test_a_mode_says_whether_a_flush_is_durable(tmp_path, options, promise):
    with LMDBStore(tmp_path / "a", **options) as store:
        assert store.capabilities.durable_flush is promise
        with LMDBStore(tmp_path / "a") as second:
            assert second.capabilities.durable_flush is promise, "it shares the environment of the first"


def test_a_file_written_without_syncs_is_refused_once_the_machine_has_stopped(tmp_path, monkeypatch):
    store = LMDBStore(tmp_path / "a", sync=False)
    store["a"] = b"1"
    child = os.fork()
    if not child:
        store["a"] = b"2"
        os._exit(0)
    os.waitpid(child, 0)
    data = Path(store.path, "data.mdb")
    if not hasattr(os, "getxattr") or not checks._attribute(str(data), checks._UNSYNCED):
        pytest.skip("the file system has no extended attributes")
    image = tmp_path / "b"
    image.mkdir()
    subprocess.run(["cp", "--preserve=xattr", data, image / "data.mdb"], check=True)  # the state of a killed process
    store.close()
    with LMDBStore(tmp_path / "a", check=True) as store:  # closed properly
        assert store["a"] == b"2"
    again = tmp_path / "c"
    shutil.copytree(image, again)  # with its attributes
    with LMDBStore(again) as store:  # killed, and the machine still runs
        assert store["a"] == b"2"
    monkeypatch.setattr(checks, "_boot", lambda: "another")
    with pytest.raises(DamagedStoreError, match=r"without syncs \(sync=False\) when the machine stopped"):
        LMDBStore(image)
    with LMDBStore(image, check=False) as store:
        assert store["a"] == b"2"
    with LMDBStore(again) as store:
        assert store["a"] == b"2"


def test_a_file_that_was_found_whole_is_not_looked_at_again(tmp_path, monkeypatch):
    looks = []
    look = checks._first_problem
    monkeypatch.setattr(checks, "_first_problem", lambda path: looks.append(path) or look(path))
    with LMDBStore(tmp_path / "a") as store:
        store["a"] = b"1"
    if not checks._attribute(os.path.join(store.path, "data.mdb"), checks._WHOLE):
        pytest.skip("the file system has no extended attributes")
    looks.clear()
    for _ in range(3):
        with LMDBStore(tmp_path / "a") as store:
            store["b"] = b"2"
    assert looks == []
    with lmdb.open(str(tmp_path / "a"), sync=False) as env, env.begin(write=True) as txn:
        txn.put(b"c", b"3")
    for _ in range(3):
        with LMDBStore(tmp_path / "a", readonly=True) as store:
            assert len(store) == 3
    assert len(looks) == 1
    with LMDBStore(tmp_path / "a", check=True):
        assert len(looks) == 2
    monkeypatch.setattr(checks, "MOST_ENTRIES", 2)
    with lmdb.open(str(tmp_path / "a"), sync=False) as env, env.begin(write=True) as txn:
        txn.put(b"d", b"4")
    with LMDBStore(tmp_path / "a"):
        assert len(looks) == 2


def test_the_look_drops_no_lock_of_an_environment_that_this_process_has_open(tmp_path):
    """POSIX locks are the process's: whoever closes the lock file drops them all."""
    with lmdb.open(str(tmp_path / "a")) as env:
        with env.begin(write=True) as txn:
            txn.put(b"a", b"1")
        with pytest.raises(OSError, match="already open in this process"):
            LMDBStore(tmp_path / "a")
        script = """
import fcntl, sys
with open(sys.argv[1] + "/lock.mdb", "r+b") as lock:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except OSError:
        print("locked")
"""
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], capture_output=True, text=True)
        assert done.stdout == "locked\n"


@pytest.mark.needs_peer("strace")
def test_a_flush_after_a_failed_sync_writes_another_head(tmp_path):
    """The system drops what it could not write, and a second sync finds nothing to do."""
    script = """
import os, sys
from zarrstore.stores.lmdb import LMDBStore
store = LMDBStore(sys.argv[1])
store["a"] = b"1"
environment = store._env
before = environment.env.info()["last_txnid"]
store.flush()
assert environment.env.info()["last_txnid"] == before
environment._failed_commits += 1
store.flush()
assert environment.env.info()["last_txnid"] == before + 1
store.flush()
assert environment.env.info()["last_txnid"] == before + 1
assert dict(store) == {"a": b"1"}
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
