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
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.support import mixed, peers
from tests.support.descriptors import files_open_below
from tests.support.world import run_readonly
from zarrstore.errors import (
    ClosedStoreError,
    DamagedStoreError,
    LockedStoreError,
    ReadOnlyError,
    ValueTooLargeError,
)
from zarrstore.registry import open_store
from zarrstore.stores import _files, _process
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
            traceback.print_exc()
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
        answer = store.describe()
        assert (answer["entries"], answer["live_bytes"]) == (1, 5)
        assert answer["dead_bytes"] > 500_000
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


# Files --------------------------------------------------------------------------------------------------------------


def test_an_empty_or_truncated_file_never_opens_as_an_empty_store(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store.update({f"k/{n}": bytes([n]) * 5000 for n in range(100)})
    whole = (tmp_path / "a.sqlite").read_bytes()
    cut = tmp_path / "cut.sqlite"
    for size in (0, 1, 50, 100, 4095):
        cut.write_bytes(whole[:size])
        with pytest.raises(DamagedStoreError):
            SQLiteStore(cut)
        assert cut.stat().st_size == size
    cut.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    with pytest.raises(DamagedStoreError):
        with SQLiteStore(cut) as store:
            dict(store)


def test_a_read_only_file_system_is_opened_for_reading() -> None:
    out = run_readonly(
        """
        import hashlib, json
        from pathlib import Path
        import tests
        from zarrstore.errors import ReadOnlyError
        from zarrstore.stores.sqlite import SQLiteStore

        place = Path(tests.__file__).parent / "data" / "v2" / "legacy.sqlite"
        out = []
        for options in ({}, {"readonly": True}):
            with SQLiteStore(place, **options) as store:
                try:
                    store["a"] = b""
                except ReadOnlyError:
                    out.append([store.capabilities.writable, {k: hashlib.sha256(store[k]).hexdigest() for k in store}])
        print(json.dumps(out))
        """
    )
    wanted = json.loads((V2 / "manifest.json").read_text())["keys"]
    assert out == [[False, wanted], [False, wanted]]


def test_names_that_are_no_keys_are_not_listed(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store["a/b"] = b"1"
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    foreign = ["../x", "/etc", "a//b", "./y", "c\\d", "", b"blob", None, 7]
    connection.executemany("INSERT INTO zarr VALUES (?, x'00')", [(name,) for name in foreign])
    connection.commit()
    connection.close()
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        assert sorted(store) == ["7", "a/b"]
        assert store.listdir() == ["7", "a"]
        assert store.listdir("a") == ["b"]
        assert "../x" not in store
        store.clear()
        assert dict(store) == {}


def test_a_value_above_what_sqlite_takes_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        huge = bytes(1_000_000_001)
        for write in (lambda: store.__setitem__("huge", huge), lambda: store.setitems({"a": b"", "huge": huge})):
            with pytest.raises(ValueTooLargeError, match="1,000,000,001 bytes"):
                write()
        assert dict(store) == {}


def test_the_last_bytes_of_a_value_are_those(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store.update({"a": b"0123456789", "b": b""})
        assert [store.getsuffix("a", n) for n in (0, 1, 9, 10, 11, 100)] == [
            b"",
            b"9",
            b"123456789",
            b"0123456789",
            b"0123456789",
            b"0123456789",
        ]
        assert store.getsuffix("b", 3) == b""


# Others -------------------------------------------------------------------------------------------------------------


def test_a_flush_syncs_although_a_reader_keeps_an_old_state(tmp_path: Path) -> None:
    peers.require_tool("strace")
    script = """
import os, sqlite3, sys
from zarrstore.stores.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
store["a"] = b"1"
store.flush()
reader = sqlite3.connect(sys.argv[1], isolation_level=None)
reader.execute("BEGIN")
reader.execute("SELECT * FROM zarr").fetchall()
store["a"] = b"2"
store.flush()
store["a"] = b"3"
os.write(2, b"MARK\\n"); store.flush(); os.write(2, b"MARK\\n"); os._exit(0)
"""
    log = tmp_path / "log"
    command = ["strace", "-f", "-o", str(log), "-e", "trace=write,fsync,fdatasync", sys.executable, "-c", script]
    done = subprocess.run([*command, str(tmp_path / "a.sqlite")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sync(" in log.read_text().split("MARK")[1]


def test_8_threads_of_mixed_operations(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        problems: list[str] = []
        threads = [threading.Thread(target=mixed.work, args=(store, i, 8, 250, 1, problems)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []


def test_4_processes_of_mixed_operations_on_a_file_that_none_has_made_yet(tmp_path: Path) -> None:
    script = """
import json, sys
from tests.support import mixed
from zarrstore.stores.sqlite import SQLiteStore
problems = []
for part in range(3):  # opening and closing among the others too
    with SQLiteStore(sys.argv[1]) as store:
        mixed.work(store, int(sys.argv[2]) + 4 * part, 12, 100, 2, problems)
print(json.dumps(problems))
"""
    checkout = Path(__file__).parent.parent.parent
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "a.sqlite"), str(i)],
            cwd=checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(4)
    ]
    assert [worker.communicate(timeout=90)[0].splitlines()[-1:] for worker in workers] == [["[]"]] * 4
    # SQLite leaves its log where the last two close at the same moment: each saw that the other had the file.
    SQLiteStore(tmp_path / "a.sqlite").close()
    assert [found.name for found in tmp_path.iterdir()] == ["a.sqlite"]


def test_threads_that_come_and_go_leave_no_connections_open(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store["a"] = b"1"
        before = len(files_open_below(tmp_path))
        for _ in range(50):
            thread = threading.Thread(target=lambda: store["a"])
            thread.start()
            thread.join()
        assert len(files_open_below(tmp_path)) <= before + 3


def test_closing_while_others_read_and_write_is_an_error_for_them_and_no_crash(tmp_path: Path) -> None:
    for _ in range(5):
        store = SQLiteStore(tmp_path / "a.sqlite")
        store["a"] = b"a" * 5000
        problems: list[str] = []
        ended: list[int] = []

        def use(
            store: SQLiteStore = store,
            problems: list[str] = problems,
            ended: list[int] = ended,
        ) -> None:
            try:
                while True:
                    assert store["a"] == b"a" * 5000
                    list(store)
                    store["b"] = b"b"
            except ClosedStoreError:
                ended.append(1)
            except BaseException as exc:
                problems.append(repr(exc))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        store.close()
        for thread in threads:
            thread.join()
        assert (problems, len(ended)) == ([], 4)
        assert store._connections.idle == []
    assert [found.name for found in tmp_path.iterdir()] == ["a.sqlite"]


def test_no_connection_crosses_a_fork(tmp_path: Path) -> None:
    """A child that has its parent's connections counts on locks it does not hold: another process undoes its log."""
    store = SQLiteStore(tmp_path / "a.sqlite")
    store["a"] = b"1"
    go, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        code = 2
        try:
            os.close(go[1])
            store["child"] = b"2"
            os.write(done[1], b"!")
            os.read(go[0], 1)  # the parent closes, and would take the log away if the child held no lock
            store["late"] = b"3"
            os.write(done[1], b"!")
            os.read(go[0], 1)
            store.close()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:  # or the child would go on with the tests of its parent
            os._exit(code)
    os.close(done[1])
    os.read(done[0], 1)
    store.close()
    os.write(go[1], b"!")
    os.read(done[0], 1)
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        assert dict(store) == {"a": b"1", "child": b"2", "late": b"3"}
    os.write(go[1], b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_does_not_wait_for_ever_for_another_threads_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "FORK_WAITS", 0.2)
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store["a"] = b"1"
        inside, leave = threading.Event(), threading.Event()

        def hang(connection: sqlite3.Connection) -> None:
            inside.set()
            leave.wait(30)

        thread = threading.Thread(target=lambda: store._connections.run(hang))
        thread.start()
        inside.wait()
        try:
            child = os.fork()
            if not child:
                try:
                    store["a"]
                except LockedStoreError as exc:
                    os._exit(0 if "forked while" in str(exc) else 1)
                os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            leave.set()
            thread.join()
        assert store["a"] == b"1"


def test_a_pickle_holds_a_path_so_a_closed_store_opens_again(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.sqlite")
    store["a"] = b"1"
    store.close()
    with pytest.raises(ClosedStoreError):
        store["a"]
    with pickle.loads(pickle.dumps(store)) as again:
        assert again["a"] == b"1"


def test_open_store_leaves_the_locks_of_an_open_store_alone(tmp_path: Path) -> None:
    """POSIX locks are the process's: whoever reads the head of the file and closes it drops them all."""
    path = tmp_path / "a.sqlite"
    with SQLiteStore(path) as store:
        store["a"] = b"1"
        again = open_store(str(path))
        answer = peers.run(
            "self",
            """
            import json, sqlite3, sys
            connection = sqlite3.connect(sys.argv[1], timeout=0.1)
            try:
                print(json.dumps(connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]))
            except sqlite3.OperationalError as exc:
                print(json.dumps(str(exc)))
            """,
            path,
        )
        assert answer == "database is locked"
        assert again["a"] == b"1"
        again.close()


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    left = peers.run("self", "from zarrstore.stores._files import temporary_name as t; print(f'\"{t()}\"')")
    ours = _files.temporary_name()
    for name in (left, ours):
        (tmp_path / name).write_bytes(b"")
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        assert sorted(os.listdir(tmp_path))[:2] == sorted([ours, "a.sqlite"], key=lambda n: n != ours)
        (tmp_path / left).write_bytes(b"")
        assert store.sweep(dry_run=True) == [left]
        assert store.sweep() == [left]
        assert store.sweep("foo") == []
    assert sorted(os.listdir(tmp_path)) == sorted([ours, "a.sqlite"])


def test_a_long_listing_meets_every_key_once(tmp_path: Path) -> None:
    names = [f"d{n % 7}/{n:05}" for n in range(2500)]
    with SQLiteStore(tmp_path / "a.sqlite") as store:
        store.setitems((name, b"") for name in names)
        seen = []
        for key in store:
            seen.append(key)
            if len(seen) in (999, 1001):  # while keys come and go
                store.delitems([key])
        assert seen == sorted(names)
