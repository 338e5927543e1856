"""SQLiteStore: rows of other programs, parts without the rest, large values without a copy, memory, full disks."""

from __future__ import annotations

import os
import pickle
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
import tracemalloc
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.support.world import run_readonly
from zarrstore.errors import ClosedStoreError, DamagedStoreError, ReadOnlyError, StoreReadError
from zarrstore.stores.sqlite import SQLiteStore, rows

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.fixture
def store(tmp_path):
    with SQLiteStore(tmp_path / "a.sqlite") as opened:
        yield opened


def insert(path, key, value):
    """Put a row into the table as another program would; `value` is SQL."""
    connection = sqlite3.connect(path)
    connection.execute(f"INSERT INTO zarr VALUES ({key}, {value})")
    connection.commit()
    connection.close()


# Rows of others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["7", "1000000000000", "-3", "1.5", "NULL"])
def test_a_number_in_a_row_is_an_error_and_not_so_many_zero_bytes(store, value):
    store["a"] = b"1"
    insert(store.path, "'n'", value)
    for read in (
        lambda: store["n"],
        lambda: store.getrange("n", 0, 1),
        lambda: store.getsuffix("n", 1),
        lambda: store.getsize("n"),
    ):
        with pytest.raises(StoreReadError, match=r"'n'.*which is no bytes"):
            read()
    assert "n" in store
    assert store.getsize() == 1
    store["n"] = b"2"
    assert dict(store) == {"a": b"1", "n": b"2"}


def test_a_text_in_a_row_is_its_bytes_whatever_is_asked(store):
    insert(store.path, "'t'", "'é' || 'b'")
    insert(store.path, "'x'", "CAST(x'ff00fe' AS TEXT)")
    assert (store["t"], store.getsize("t"), store.getsuffix("t", 2), store.getrange("t", 1, 2)) == (
        "éb".encode(),
        3,
        b"\xa9b",
        b"\xa9",
    )
    assert (store["x"], store.getsize("x"), store.getsuffix("x", 2)) == (b"\xff\x00\xfe", 3, b"\x00\xfe")


def test_a_name_that_is_not_utf8_is_not_listed_and_stops_no_listing(store):
    store.update({f"k{n:04}": b"1" for n in range(2100)})
    for name in ("x'ff'", "x'6b303939396ffe'", "x'6b2fff2f61'", "x'00'"):
        insert(store.path, f"CAST({name} AS TEXT)", "x'00'")
    assert list(store) == [f"k{n:04}" for n in range(2100)]
    assert len(store) == 2100
    assert store.listdir() == sorted(store)
    assert store.listdir("k") == []
    store.clear()
    assert dict(store) == {}


def test_a_schema_whose_names_are_not_utf8_is_damage(tmp_path):
    path = tmp_path / "a.sqlite"
    SQLiteStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        name = "CAST(x'ff' AS TEXT)"
        connection.execute(f"INSERT INTO sqlite_master VALUES ('table', {name}, {name}, 2, 'nonsense')")
        connection.commit()
    for readonly in (False, True):
        with pytest.raises(DamagedStoreError, match="malformed"):
            SQLiteStore(path, readonly=readonly)


def test_len_counts_what_iteration_shows(store):
    store.update({"a": b"1", "b/c": b"2"})
    for name in ("'../x'", "'/etc'", "''", "x'00'", "NULL", "'a//b'"):
        insert(store.path, name, "x'00'")
    assert len(store) == len(list(store)) == 2
    assert [entry[:2] for entry in store._details("")] == [("a", 1), ("b/c", 1)]


# Parts and sizes ----------------------------------------------------------------------------------------------------


def test_a_range_may_end_beyond_every_number_of_sqlite(store):
    for value in (b"0123456789", bytes(range(256)) * 2000):
        store["a"] = value
        for start in (0, 1, 9, len(value) - 1, len(value), len(value) + 5, sys.maxsize - 1, 1 << 70):
            for stop in (None, start, start + 1, len(value), sys.maxsize - 1, sys.maxsize, 1 << 64, 1 << 70):
                assert store.getrange("a", start, stop) == value[start:stop]
        for n in (0, 1, 10, sys.maxsize, 1 << 70):
            assert store.getsuffix("a", n) == (value[-n:] if n else b"")
        spans = [(3, 5), (0, 1), (0, None), (7, 7), (1 << 70, None)]
        assert store.getranges("a", spans) == [value[a:b] for a, b in spans]


@pytest.mark.parametrize("read", ["getrange", "getsuffix", "getsize", "contains"])
def test_a_part_or_a_size_of_a_large_value_leaves_the_rest_on_the_disk(tmp_path, read):
    """Memory of SQLite is not seen by tracemalloc, so the peak of a process tells."""
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store["large"] = os.urandom(64 << 20)
    script = """
import sys
from zarrstore.stores.sqlite import SQLiteStore
def peak():
    # Not ru_maxrss, which begins with that of the process that started this one, and may never grow.
    return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
store = SQLiteStore(sys.argv[1])
store.get("absent")
before = peak()
answer = {
    "getrange": lambda: store.getrange("large", 1 << 20, (1 << 20) + 10),
    "getsuffix": lambda: store.getsuffix("large", 10),
    "getsize": lambda: store.getsize("large"),
    "contains": lambda: "large" in store,
}[sys.argv[2]]()
print(peak() - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.sqlite"), read]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 << 10, "KiB"


def test_a_part_belongs_to_its_key_while_another_writer_moves_rows(tmp_path):
    """The row of one key is found and read in one state: its number may be another key's in the next."""
    size = rows.LARGE + 1000
    problems: list[str] = []
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store.update({"a": b"a" * size, "b": b"b" * size})
        done = threading.Event()

        def check(name, part):
            if part.strip(name.encode()):
                problems.append(f"{name} holds {part[:1]!r}")

        def read(name):
            try:
                while not done.is_set():
                    check(name, store.get(name, b""))
                    with suppress(KeyError):
                        check(name, store.getrange(name, 5, 900))
            except BaseException as exc:
                problems.append(repr(exc))

        threads = [threading.Thread(target=read, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for _ in range(150):
            store.delitems(["a", "b"])
            store["b"] = b"b" * size
            store["a"] = b"a" * size
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []


# Large values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["set", "setitems", "update"])
def test_a_numpy_chunk_is_set_without_a_copy(store, how):
    chunk = np.random.default_rng(0).integers(0, 255, 4 << 20, dtype="u1").reshape(1024, -1)
    store["warm"] = chunk
    tracemalloc.start()
    try:
        if how == "set":
            store["a"] = chunk
        elif how == "setitems":
            store.setitems({"a": chunk})
        else:
            store.update([("a", chunk)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000
    assert store["a"] == chunk.tobytes()


def test_a_large_value_is_read_with_one_copy(store):
    store["a"] = bytes(8 << 20)
    tracemalloc.start()
    try:
        value = store["a"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(value) == 8 << 20
    assert peak < (8 << 20) + 200_000


@pytest.mark.parametrize("size", [10, 100_000, 300_000, 1_000_000])
def test_a_batch_of_one_buffer_that_is_filled_again_and_again_keeps_each_content(store, size):
    scratch = bytearray(size)

    def items():
        for n in range(6):
            scratch[:] = bytes([n]) * size
            yield f"k{n}", scratch

    store.setitems(items())
    assert dict(store.items()) == {f"k{n}": bytes([n]) * size for n in range(6)}


def test_a_large_value_replaces_a_small_one_and_the_reverse(store):
    contents = [b"", b"x", os.urandom(rows.LARGE - 1), os.urandom(rows.LARGE), os.urandom(rows.LARGE * 3)]
    for value in contents + contents[::-1]:
        store["a"] = value
        assert (store["a"], store.getsize("a"), len(store)) == (value, len(value), 1)


# In memory ----------------------------------------------------------------------------------------------------------


def test_memory_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SQLiteStore(":memory:") as store, SQLiteStore(":memory:") as other:
        store["a/b"] = b"1"
        store.setitems({"a/c": bytes(1 << 20)})
        store.flush()
        assert (store.listdir("a"), store.getrange("a/b", 0), dict(other)) == (["b", "c"], b"1", {})
        assert store != other
        assert not store.capabilities.durable_flush
        assert not store.capabilities.process_safe
        problems = []

        def use(n):
            try:
                for i in range(50):
                    store[f"{n}/{i}"] = b"x"
                    assert len(store.listdir(str(n))) == i + 1
            except BaseException as exc:
                problems.append(exc)

        threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        child = os.fork()
        if not child:
            code = 2
            try:
                store["child"] = b"1"
                code = 0 if store["a/b"] == b"1" else 3
            except BaseException:
                traceback.print_exc()
            finally:  # or the child would go on with the tests of its parent
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert "child" not in store
        # As zarr 2: a copy would be another database.
        with pytest.raises(pickle.PicklingError):
            pickle.dumps(store)
    with pytest.raises(ClosedStoreError):
        store["a/b"]
    assert os.listdir(tmp_path) == []


# Places that cannot be written to -----------------------------------------------------------------------------------

READ_ONLY = """
import json, os, subprocess, sys
from zarrstore.errors import ReadOnlyError
from zarrstore.stores.sqlite import SQLiteStore

os.mkdir("place")
with SQLiteStore("place/a.sqlite") as store:
    store.update({f"k{n}": bytes(100) for n in range(1500)})
subprocess.run(["mount", "--bind", "place", "place"], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", "place"], check=True)
answers = {}
for name, options in {"default": {}, "readonly": {"readonly": True}, "immutable": {"immutable": True}}.items():
    try:
        with SQLiteStore("place/a.sqlite", **options) as store:
            answers[name] = [len(store), store.capabilities.writable, store.capabilities.process_safe]
            try:
                store["a"] = b""
            except ReadOnlyError as exc:
                answers[name].append(str(exc))
    except PermissionError as exc:
        answers[name] = str(exc)
print(json.dumps(answers))
"""


def test_a_database_in_wal_mode_in_a_place_that_cannot_be_written_to_opens_where_the_caller_says_so():
    answers = run_readonly(READ_ONLY)
    assert answers["immutable"][:3] == [1500, False, False]
    for name in ("default", "readonly"):
        assert "immutable=True opens it" in answers[name]


def test_who_may_not_write_to_the_folder_of_a_closed_database_is_told_how_to_read_it():
    with tempfile.TemporaryDirectory() as folder:
        with SQLiteStore(folder + "/a.sqlite") as store:
            store["a"] = b"1"
        os.chmod(folder, 0o555)
        end, start = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                if os.geteuid() == 0:  # whom no mode keeps out
                    os.setuid(65534)
                SQLiteStore(folder + "/a.sqlite", readonly=True).get("a")
            except BaseException as exc:
                os.write(start, f"{type(exc).__name__}: {exc}".encode())
            os._exit(0)
        os.close(start)
        os.waitpid(pid, 0)
        os.chmod(folder, 0o755)
        with open(end, encoding="utf-8") as answer:
            assert re.match("PermissionError: .*immutable=True opens it", answer.read())


def test_an_immutable_store_refuses_writes(tmp_path):
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store["a"] = b"1"
    with SQLiteStore(tmp_path / "a.sqlite", immutable=True) as store:
        assert store["a"] == b"1"
        with pytest.raises(ReadOnlyError, match="immutable=True"):
            store["b"] = b""
        assert pickle.loads(pickle.dumps(store)).immutable


def test_a_database_stays_in_wal_mode(tmp_path):
    for _ in range(2):
        with SQLiteStore(tmp_path / "a.sqlite") as store:
            store["a"] = b"1"
            assert store.describe()["journal_mode"] == "wal"
        assert [found.name for found in tmp_path.iterdir()] == ["a.sqlite"]
        assert (tmp_path / "a.sqlite").read_bytes()[18:20] == b"\2\2"


# Creation and full disks --------------------------------------------------------------------------------------------


@pytest.mark.needs_peer("strace")
@pytest.mark.parametrize("kind", ["sqlite", "lmdb"])
def test_a_creation_that_is_killed_leaves_nothing_or_a_whole_store(tmp_path, kind):
    script = """
import os, sys
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.sqlite import SQLiteStore
kind = {"sqlite": SQLiteStore, "lmdb": lambda path: LMDBStore(path, subdir=False)}[sys.argv[1]]
os.write(2, b"START")
kind(sys.argv[2])
"""
    calls = "openat,pwrite64,write,fsync,fdatasync,linkat,link,unlink,rename,ftruncate,mkdir"
    log = tmp_path / "log"

    def run(folder, *options):
        folder.mkdir()
        command = ["strace", "-f", "-o", str(log), "-e", f"trace={calls}", *options, sys.executable, "-c", script]
        subprocess.run([*command, kind, str(folder / "a")], cwd=CHECKOUT, capture_output=True)

    run(tmp_path / "counted")
    lines = log.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if "START" in line)
    counts: dict[str, int] = {}
    kills = []
    for number, line in enumerate(lines):
        call = line.split(" ", 1)[-1].strip().split("(")[0]
        counts[call] = counts.get(call, 0) + 1
        if number > start and (str(tmp_path) in line or call in ("fsync", "linkat", "pwrite64")):
            kills.append((call, counts[call]))
    assert len(kills) >= 4
    for call, nth in kills[:12]:
        folder = tmp_path / f"{call}-{nth}"
        run(folder, "-e", f"inject={call}:signal=KILL:when={nth}")
        assert {found.name for found in folder.iterdir()} <= {"a", "a-lock", "a-journal", "a-wal", "a-shm"}
        kind_of = SQLiteStore if kind == "sqlite" else __import__("zarrstore").LMDBStore
        with kind_of(folder / "a", **({} if kind == "sqlite" else {"subdir": False})) as store:
            assert dict(store) == {}
            store["a"] = b"1"


FULL_DISK = """
import json, os, subprocess, sys
from zarrstore.stores.sqlite import SQLiteStore

os.mkdir("small")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", "small"], check=True)
size = SIZE
store = SQLiteStore("small/data.sqlite")
answers = {"set": 0, "deleted": 0, "again": 0}
held = {}
try:
    for n in range(100_000):
        new = os.urandom(size)
        store[f"k/{n}"] = new
        held[f"k/{n}"] = new
except OSError as exc:
    assert exc.errno == 28, exc
    answers["set"] = n
for n in range(answers["set"] // 2):
    del store[f"k/{n}"]
    del held[f"k/{n}"]
    answers["deleted"] += 1
assert dict(store) == held
for n in range(0, answers["set"] // 4 if size < 200_000 else 0):
    store[f"new/{n}"] = held[f"new/{n}"] = os.urandom(size)
    answers["again"] += 1
store.rmdir("k")
held = {key: value for key, value in held.items() if not key.startswith("k/")}
assert dict(store) == held
store.close()
with SQLiteStore("small/data.sqlite") as store:
    assert dict(store) == held
print(json.dumps(answers))
"""


@pytest.mark.parametrize("size", [1000, 100_000, 700_000])
def test_keys_are_deleted_on_a_full_disk_and_their_space_is_used_again(size):
    answers = run_readonly(FULL_DISK.replace("SIZE", str(size)))
    assert answers["set"] * size > 2_000_000
    assert answers["deleted"] == answers["set"] // 2
    if size < 200_000:  # a larger one needs more room in the log than is kept free
        assert answers["again"] == answers["set"] // 4
