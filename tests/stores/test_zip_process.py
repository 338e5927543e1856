"""ZipStore beside what shares its process or its file: exits, threads, forks, copies of the object."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import histories
from zarrstore.errors import LockedStoreError, StoreReadError, UnsupportedOperation
from zarrstore.stores import _process
from zarrstore.stores.zip import ZipStore

# Exit ----------------------------------------------------------------------------------------------------------------

EXIT = """
import os, sys, threading, time
from zarrstore.stores.zip import ZipStore

store = ZipStore(sys.argv[1])
store["first"] = b"1"

def write(number):
    i = 0
    while True:
        i += 1
        key = f"{number}/{i}"
        if sys.argv[2] == "batches":
            store.setitems({key: key.encode() * 300, f"{key}-b": b"b"})
        elif sys.argv[2] == "deletes" and i > 3:
            store[key] = key.encode() * 300
            del store[f"{number}/{i - 3}"]
        else:
            store[key] = key.encode() * 300
        os.write(1, f"{key}\\n".encode())
        acknowledged.append(key)

acknowledged = []
for number in range(3):
    threading.Thread(target=write, args=(number,), daemon=True).start()
while len(acknowledged) < 20:  # not by the clock alone: a busy machine may not even have begun them
    time.sleep(0.001)
time.sleep(0.03)
if sys.argv[2] == "error":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how", ["sets", "batches", "deletes", "error"])
def test_an_exit_beside_writing_threads_loses_nothing_that_was_acknowledged(tmp_path, how):
    for number in range(2):
        path = tmp_path / f"{number}.zip"
        command = [sys.executable, "-c", EXIT, str(path), how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        acknowledged = done.stdout.split("\n")[:-1]
        assert len(acknowledged) > 3, done.stderr
        with ZipStore(path, mode="r") as store:
            assert store["first"] == b"1"
            for key in acknowledged:
                thread, _, i = key.partition("/")
                if how == "deletes" and f"{thread}/{int(i) + 3}" in acknowledged and int(i) > 0:
                    assert key not in store, key
                elif how != "deletes":
                    assert store[key] == key.encode() * 300


def test_after_the_exit_began_a_set_is_refused_and_not_lost(tmp_path):
    script = """
import atexit, sys

def late():  # registered before the import of the package, so called behind the end of its stores
    try:
        store["late"] = b"x"
    except ClosedStoreError:
        print("refused")

atexit.register(late)
from zarrstore.stores.zip import ZipStore
from zarrstore.errors import ClosedStoreError
store = ZipStore(sys.argv[1])
store["a"] = b"1"
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.zip")]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "refused\n"
    assert dict(ZipStore(tmp_path / "a.zip", mode="r")) == {"a": b"1"}


# Threads -------------------------------------------------------------------------------------------------------------


def test_the_last_bytes_of_a_value_are_of_one_value(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        store["a"] = b"short"
        find = store._archive.directory.find

        def changed_after(key):
            record = find(key)
            store._archive.directory.find = find
            store["a"] = b"a value that is longer"
            return record

        store._archive.directory.find = changed_after
        assert store.getsuffix("a", 5) in (b"short", b"onger")


def test_describe_beside_a_writer_raises_nothing(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        store.setitems({f"k/{i}": b"x" for i in range(3000)})
        stop = threading.Event()

        def write():
            i = 0
            while not stop.is_set():
                i += 1
                store[f"new/{i}"] = b"x"
                store.delitems([f"new/{i - 5}"])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            with histories.restless():
                for _ in range(30):
                    assert store.describe()["entries"] >= 3000
                    assert len(store.listdir("k")) == 3000
                    assert len(list(store.keys_below("k"))) == 3000
        finally:
            stop.set()
            writer.join()


# Forks ---------------------------------------------------------------------------------------------------------------


def _children(count: int, work) -> list[int]:
    """Fork `count` children that do `work`; return their process numbers."""
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(BaseException):
                work()
                code = 0
            os._exit(code)
        children.append(child)
    return children


def _codes(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_a_file_object_is_read_rightly_on_both_sides_of_a_fork(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.update({f"k/{i}": bytes([i]) * 5000 for i in range(50)})
    with open(path, "rb") as file, ZipStore(file) as store:

        def read():
            for _ in range(40):
                for i in range(50):
                    assert store.getrange(f"k/{i}", 100, 4000) == bytes([i]) * 3900
                    assert store[f"k/{i}"] == bytes([i]) * 5000

        children = _children(2, read)
        read()
        assert _codes(children) == [0, 0]


def test_a_file_object_whose_position_a_fork_shares_is_refused_in_the_child(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store["a"] = b"1" * 1000

    class Other:
        def __init__(self, file):
            self.file = file

        def read(self, n=-1):
            return self.file.read(n)

        def seek(self, offset, whence=0):
            return self.file.seek(offset, whence)

        def fileno(self):
            return self.file.fileno()

    with open(path, "rb") as file, ZipStore(Other(file)) as store:

        def read():
            with pytest.raises(StoreReadError, match="shared with the parent process; open the archive by its path"):
                store["a"]

        assert _codes(_children(1, read)) == [0]
        assert store["a"] == b"1" * 1000


def test_children_forked_from_several_threads_beside_a_writer_read_and_list(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        store.update({f"k/{i}": bytes([i]) * 500 for i in range(50)})
        stop, codes = threading.Event(), list[int]()

        def write():
            i = 0
            while not stop.is_set():
                i += 1
                store[f"new/{i % 20}"] = b"n" * 500
                store.listdir("new")
                store.flush()

        def read():
            assert {store[f"k/{i}"] for i in range(50)} == {bytes([i]) * 500 for i in range(50)}
            assert len(store.listdir("k")) == 50
            with pytest.raises(LockedStoreError, match="forked from its writer"):
                store["a"] = b"1"
            store.close()

        def fork():
            for _ in range(4):
                codes.extend(_codes(_children(1, read)))

        writer = threading.Thread(target=write)
        forks = [threading.Thread(target=fork) for _ in range(3)]
        for thread in (writer, *forks):
            thread.start()
        for thread in forks:
            thread.join()
        stop.set()
        writer.join()
        assert codes == [0] * 12


def test_a_closed_writer_takes_no_part_in_forks_any_more(tmp_path):
    store = ZipStore(tmp_path / "a.zip")
    assert store._guard in _process.registered(type(store._guard))
    store.close()
    assert store._guard not in _process.registered(type(store._guard))


def test_a_closed_writer_lets_the_lock_go_though_its_file_is_still_held(tmp_path):
    store = ZipStore(tmp_path / "a.zip")
    store["a"] = b"1"
    held = store._archive
    store.close()
    with ZipStore(tmp_path / "a.zip") as other:
        other["b"] = b"2"
        assert dict(other) == {"a": b"1", "b": b"2"}
    del held


def test_what_is_read_after_a_repack_is_the_new_archive(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        for _ in range(3):
            store["a"] = bytes(10_000)
        assert store.repack() > 19_000
        assert store["a"] == bytes(10_000)
        assert store.describe()["dead_bytes"] == 0


@pytest.mark.parametrize("mode", ["w", "r"])
def test_what_an_archive_says_that_it_can_do(tmp_path, mode):
    ZipStore(tmp_path / "a.zip").close()
    with ZipStore(tmp_path / "a.zip", mode=mode) as store:
        flags = store.capabilities
        assert (flags.ranged, flags.blocking, flags.listable, flags.concurrent) == (True, True, True, False)
        assert flags.writable == flags.erasable == flags.durable_flush == (mode == "w")
        assert flags.process_safe == (mode == "r")


# Copies of the object ------------------------------------------------------------------------------------------------


def test_a_writer_is_pickled_as_a_reader_of_what_it_had_flushed_by_that(tmp_path):
    path = tmp_path / "a.zip"
    store = ZipStore(path)
    store["a"] = b"1"
    parcel = pickle.dumps(store)
    assert dict(pickle.loads(parcel)) == {"a": b"1"}
    store["b"] = b"2" * 100_000  # beyond what the parcel speaks of, and not flushed
    del store["a"]
    for again in (pickle.loads(parcel), copy.copy(store), copy.deepcopy(store), pickle.loads(pickle.dumps(store))):
        held = dict(again)
        assert held in ({"a": b"1"}, {"b": b"2" * 100_000})
        assert pickle.loads(pickle.dumps(again)) == again
        assert dict(pickle.loads(pickle.dumps(again))) == held
        store["c"] = b"3"
        assert dict(again) == held
        for write in (lambda again=again: again.update({"a": b"4"}), again.clear, again.popitem):
            with pytest.raises(LockedStoreError, match="another writer has it open"):
                write()
        again.close()
        del store["c"]
    assert dict(pickle.loads(parcel)) == {"a": b"1"}
    assert dict(store) == {"b": b"2" * 100_000}
    store.close()
    assert dict(ZipStore(path, mode="r")) == {"b": b"2" * 100_000}


def test_a_copy_writes_when_the_writer_has_closed(tmp_path):
    path = tmp_path / "a.zip"
    store = ZipStore(path, mode="w", compression=8)
    store["a"] = b"1"
    again = pickle.loads(pickle.dumps(store))
    store["b"] = b"2"
    store.close()
    assert dict(again) == {"a": b"1"}
    again["c"] = b"3"
    assert dict(again) == {"a": b"1", "b": b"2", "c": b"3"}
    with pytest.raises(LockedStoreError):
        ZipStore(path)
    again.close()
    assert dict(ZipStore(path, mode="r")) == {"a": b"1", "b": b"2", "c": b"3"}


def test_a_parcel_of_an_archive_that_was_rewritten_since_opens_what_is_there_now(tmp_path):
    path = tmp_path / "a.zip"
    store = ZipStore(path)
    store.update({"a": b"1" * 1000, "b": b"2"})
    parcel = pickle.dumps(store)
    store["a"] = b"3"
    store.repack()
    assert dict(pickle.loads(parcel)) == {"a": b"3", "b": b"2"}
    store.close()


def test_a_pickled_reader_refuses_writes(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store["a"] = b"1"
    again = pickle.loads(pickle.dumps(ZipStore(path, mode="r")))
    assert dict(again) == {"a": b"1"}
    with pytest.raises(PermissionError, match="read-only"):
        again["a"] = b"2"


@pytest.mark.parametrize("mode", ["a", "w"])
def test_a_store_pickles_the_same_before_and_after_its_close(mode, tmp_path):
    path = tmp_path / "a.zip"
    store = ZipStore(path, mode=mode)
    store["a"] = b"1"
    before = pickle.dumps(store)
    store.close()
    assert pickle.dumps(store) == before
    with ZipStore(path) as other:
        other["a"] = b"2"
    # Others have written since: what the copy of a closed store reads is what it finds.
    assert dict(pickle.loads(pickle.dumps(store))) == {"a": b"2"}
    with pickle.loads(before) as copy:
        copy["b"] = b"3"
    with ZipStore(path, mode="r") as reader:
        assert reader["b"] == b"3"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(store))


def test_a_child_of_a_fork_is_pickled_if_all_it_sees_is_flushed(tmp_path):
    store = ZipStore(tmp_path / "a.zip")
    store["a"] = b"1"
    store.flush()

    def flushed():
        assert dict(pickle.loads(pickle.dumps(store))) == {"a": b"1"}

    def unflushed():
        with pytest.raises(UnsupportedOperation, match="flush it before the fork"):
            pickle.dumps(store)

    assert _codes(_children(1, flushed)) == [0]
    store["b"] = b"2"
    assert _codes(_children(1, unflushed)) == [0]
    store.close()


def _length(store: ZipStore, key: str) -> int:
    return len(store[key])


def test_another_process_reads_a_store_that_is_being_written(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        store.update({"a": b"1" * 10, "b": b"2" * 20_000})
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            assert [pool.submit(_length, store, key).result() for key in "ab"] == [10, 20_000]
            store["c"] = b"3" * 5
            assert pool.submit(_length, store, "c").result() == 5


# Paths ---------------------------------------------------------------------------------------------------------------


def test_paths_may_be_bytes(tmp_path: Path):
    path = os.fsencode(tmp_path / "a.zip")
    with ZipStore(path) as store:
        store["a"] = b"1"
        assert store.path == os.fsdecode(path)
    os.truncate(path, os.path.getsize(path) - 5)
    assert ZipStore.recover(path).kept == 1
    assert ZipStore.recover(path, os.fsencode(tmp_path / "b.zip")).path == str(tmp_path / "b.zip")
    assert dict(ZipStore(tmp_path / "b.zip", mode="r")) == {"a": b"1"}
