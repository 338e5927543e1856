"""SQLite: zarr 2's files, other writers, other threads, other processes, and wildcards that are none."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from zarrstore.errors import ClosedStoreError, DamagedStoreError, LockedStoreError, ReadOnlyError
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.testing import StoreConformance

V2 = Path(__file__).parent.parent / "data" / "v2"


class TestSQLiteStore(StoreConformance):
    def make_store(self, tmp_path: Path) -> SQLiteStore:
        return SQLiteStore(tmp_path / "a.sqlite")

    def reopen(self, store: SQLiteStore, tmp_path: Path) -> SQLiteStore:
        store.close()
        return SQLiteStore(tmp_path / "a.sqlite")


def test_the_file_that_zarr_2_wrote_opens_and_every_key_is_right(tmp_path: Path) -> None:
    path = shutil.copy(V2 / "legacy.sqlite", tmp_path / "a.sqlite")
    wanted = json.loads((V2 / "manifest.json").read_text())["keys"]
    for store in (SQLiteStore(path, readonly=True), SQLiteStore(path)):
        with store:
            assert {key: hashlib.sha256(value).hexdigest() for key, value in store.items()} == wanted
            assert len(store) == 89


def test_zarr_2_opens_what_we_wrote(tmp_path: Path) -> None:
    with SQLiteStore(V2 / "legacy.sqlite", readonly=True) as old, SQLiteStore(tmp_path / "a.sqlite") as new:
        new.update(old)
    assert [path.name for path in tmp_path.iterdir()] == ["a.sqlite"]
    script = (
        "import hashlib, json, sys, warnings; warnings.simplefilter('ignore'); import zarr\n"
        "store = zarr.SQLiteStore(sys.argv[1])\n"
        "print(json.dumps({key: hashlib.sha256(store[key]).hexdigest() for key in list(store)}))\n"
    )
    done = subprocess.run([peers.python("zarr2"), "-c", script, tmp_path / "a.sqlite"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((V2 / "manifest.json").read_text())["keys"]


def test_wildcards_and_case_are_not_mixed_up(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store.update({"f_o/x": b"1", "foo/x": b"2", "fAo/x": b"3", "fao/x": b"4", "f%/x": b"5"})
        store.rmdir("f_o")
        store.rmdir("f%")
        store.rename("fao", "moved")
        assert dict(store) == {"foo/x": b"2", "fAo/x": b"3", "moved/x": b"4"}


def test_a_foreign_or_damaged_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine(a)")
    connection.commit()
    connection.close()
    junk = tmp_path / "junk.sqlite"
    junk.write_bytes(b"this is no database at all, and is long enough to be looked at" * 20)
    for path in (other, junk):
        before = path.read_bytes()
        with pytest.raises(DamagedStoreError):
            SQLiteStore(path)
        assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError):
        SQLiteStore(tmp_path / "absent" / "a.sqlite")
    with pytest.raises(FileNotFoundError):
        SQLiteStore(tmp_path / "absent.sqlite", readonly=True)


def test_a_read_only_store_refuses_and_works_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = shutil.copy(V2 / "legacy.sqlite", tmp_path / "a.sqlite")
    with SQLiteStore(path, readonly=True) as store:
        for write in (
            store.clear,
            lambda: store.rmdir("ocean"),
            lambda: store.setitems({}),
            lambda: store.update(a=b""),
        ):
            with pytest.raises(ReadOnlyError):
                write()
        with pytest.raises(ReadOnlyError):
            store["a"] = b""
        assert len(store) == 89
    assert [found.name for found in tmp_path.iterdir()] == ["a.sqlite"]


def test_another_writer_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with SQLiteStore(path, timeout=0.1) as store:
        store["a"] = b"1"
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockedStoreError, match=r"0\.1 s"):
            store["a"] = b"2"
        assert store["a"] == b"1"
        other.execute("ROLLBACK")
        other.close()
        store["a"] = b"3"
        assert store["a"] == b"3"


def test_eight_threads_and_four_processes(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    store = SQLiteStore(path)
    problems: list[Any] = []

    def work(me: int) -> None:
        try:
            for n in range(40):
                store[f"t{me}/x"] = bytes([n]) * 1000
                assert store[f"t{me}/x"] == bytes([n]) * 1000
                store.listdir("")
        except BaseException as exc:
            problems.append(exc)

    script = (
        "import sys; from zarrstore.stores.sqlite import SQLiteStore\n"
        "store = SQLiteStore(sys.argv[1])\n"
        "for n in range(40):\n"
        "    store[f'p{sys.argv[2]}/x'] = bytes([n]) * 1000\n"
        "    assert store[f'p{sys.argv[2]}/x'] == bytes([n]) * 1000\n"
        "store.close()\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(path), str(n)]) for n in range(4)]
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait(60) for child in children] == [0] * 4
    assert problems == []
    assert sorted(store) == sorted([f"t{n}/x" for n in range(8)] + [f"p{n}/x" for n in range(4)])
    store.close()
    assert [found.name for found in tmp_path.iterdir()] == ["a.sqlite"]


def test_a_forked_child_opens_its_own_connection(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.sqlite")
    store["a"] = b"1"
    pid = os.fork()
    if not pid:
        try:
            ok = store["a"] == b"1"
            store["child"] = b"2"
            os._exit(0 if ok else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    store["b"] = b"3"
    assert dict(store) == {"a": b"1", "b": b"3", "child": b"2"}
    store.close()


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    script = (
        "import sys, itertools; from zarrstore.stores.sqlite import SQLiteStore\n"
        "store = SQLiteStore(sys.argv[1])\n"
        "for n in itertools.count():\n"
        "    store[f'k{n % 50}'] = str(n).encode() * 100\n"
        "    print(n, flush=True)\n"
    )
    for round_ in range(5):
        path = tmp_path / f"{round_}.sqlite"
        child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        last = -1
        for line in child.stdout:
            last = int(line)
            if last >= 60 + 37 * round_:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        last = max([last, *map(int, rest[:-1])])
        with SQLiteStore(path) as store:
            found = {key: int(value[: len(value) // 100]) for key, value in store.items()}
            assert all(value == str(found[key]).encode() * 100 for key, value in store.items())
            for n in range(max(0, last - 49), last + 1):
                assert found[f"k{n % 50}"] >= n


def test_flush_syncs(tmp_path: Path) -> None:
    peers.require_tool("strace")
    script = (
        "import sys, os; from zarrstore.stores.sqlite import SQLiteStore\n"
        "store = SQLiteStore(sys.argv[1]); store['a'] = b'1'\n"
        "os.write(2, b'MARK\\n'); store.flush(); os.write(2, b'MARK\\n'); os._exit(0)\n"
    )
    log = tmp_path / "log"
    command = ["strace", "-f", "-o", str(log), "-e", "trace=write,fsync,fdatasync", sys.executable, "-c", script]
    done = subprocess.run([*command, str(tmp_path / "a.sqlite")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    between = log.read_text().split("MARK")[1]
    assert "sync(" in between


def test_after_close_it_says_so_and_a_pickle_opens_again(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.sqlite", dimension_separator="/")
    store["a"] = b"1"
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy._dimension_separator == "/"
    store.close()
    store.close()
    with pytest.raises(ClosedStoreError):
        store["a"]
    assert copy["a"] == b"1"
    copy.close()


def test_compact_gives_space_back_and_describe_counts(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store.update({f"k{n}": bytes(10_000) for n in range(100)})
        store.rmdir("")
        store["left"] = b"12345"
        told = store.describe()
        assert (told["entries"], told["live_bytes"]) == (1, 5)
        assert told["dead_bytes"] > 500_000
        store.compact()
        assert store.describe()["dead_bytes"] == 0
        assert dict(store) == {"left": b"12345"}


def test_listing_jumps_over_subtrees(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store.update({f"big/{n}": b"" for n in range(5000)})
        store.update({"big": b"value", "big.x": b"", "big0": b"", "a": b""})
        statements: list[str] = []
        (connection,) = store._connections.idle
        connection.set_trace_callback(statements.append)
        assert store.listdir("") == ["a", "big", "big.x", "big0"]
        connection.set_trace_callback(None)
        assert len(statements) <= 8
