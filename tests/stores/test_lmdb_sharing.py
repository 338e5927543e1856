"""LMDBStore among threads, processes, forks, copies and other stores on the same file."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support import crash, mixed, peers
from zarrstore.errors import ClosedStoreError, LockedStoreError, ReadOnlyError
from zarrstore.stores import _process
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.lmdb.environments import SharedEnvironment


@pytest.fixture
def store(tmp_path):
    with LMDBStore(tmp_path / "data.lmdb") as opened:
        yield opened


@pytest.fixture(autouse=True)
def others():
    """What other tests left open: the traceback of one that failed holds its store."""
    before = set(_process.registered(SharedEnvironment))
    yield before
    if not set(_process.registered(SharedEnvironment)) <= before:
        gc.collect()
    assert set(_process.registered(SharedEnvironment)) <= before


# One process --------------------------------------------------------------------------------------------------------


def test_two_stores_stand_on_one_file(tmp_path, store):
    os.symlink(store.path, tmp_path / "link")
    with LMDBStore(tmp_path / "link") as other:
        other["a"] = b"1"
        store["b"] = b"2"
        assert dict(store) == dict(other) == {"a": b"1", "b": b"2"}
        assert store == other
        assert other != LMDBStore(tmp_path / "elsewhere")
    with pytest.raises(ClosedStoreError):
        other["a"]
    assert store["a"] == b"1"


def test_a_reader_and_a_writer_share_a_file_in_either_order(tmp_path, store):
    store["a"] = b"1"
    with LMDBStore(store.path, readonly=True) as reader:
        assert reader["a"] == b"1"
        with pytest.raises(ReadOnlyError):
            reader["a"] = b"2"
    store.close()
    with LMDBStore(store.path, readonly=True) as reader, LMDBStore(store.path) as writer:
        writer["a"] = b"3"
        assert reader["a"] == b"3"
        with pytest.raises(ReadOnlyError):
            reader["a"] = b"2"


def test_options_that_all_must_share_are_not_silently_dropped(store):
    with pytest.raises(LockedStoreError, match=r"in this process with sync=True, not False; close that one first"):
        LMDBStore(store.path, sync=False)
    LMDBStore(store.path, sync=True, max_readers=10).close()
    store["works"] = b"1"


def test_a_second_store_with_a_larger_map_gets_it(tmp_path):
    with LMDBStore(tmp_path / "a", map_size=1 << 20) as small, LMDBStore(tmp_path / "a", map_size=1 << 24) as large:
        large["a"] = b"a" * (4 << 20)
        assert small["a"] == large["a"]
        assert large.describe()["map_size"] == 1 << 24


def test_a_pickled_copy_stands_on_the_same_file(store):
    store["a"] = b"1"
    with pickle.loads(pickle.dumps(store)) as copy:
        assert copy == store
        copy["b"] = b"2"
        assert store["b"] == b"2"
    assert store["a"] == b"1"


def test_options_survive_pickling_and_a_closed_store_opens_again(tmp_path):
    with LMDBStore(tmp_path / "a", map_size=1 << 20, dimension_separator="/") as store:
        store["a"] = b"1"
        data = pickle.dumps(store)
    with pickle.loads(data) as copy:
        assert copy._dimension_separator == "/"
        assert copy.describe()["map_size"] == 1 << 20
    with pytest.raises(ClosedStoreError):
        copy["a"]
    with pickle.loads(pickle.dumps(copy)) as again:  # as in zarr 2: a pickle holds a path
        assert again["a"] == b"1"


def test_a_store_that_nobody_holds_lets_go_of_its_file(tmp_path, others):
    store = LMDBStore(tmp_path / "a")
    store["a"] = b"1"
    assert len(set(_process.registered(SharedEnvironment)) - others) == 1
    del store
    gc.collect()
    assert set(_process.registered(SharedEnvironment)) <= others


def test_a_store_whose_file_was_removed_can_be_closed(tmp_path):
    store = LMDBStore(tmp_path / "a")
    store["a"] = b"1"
    shutil.rmtree(tmp_path / "a")
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_replaced_is_opened_anew(tmp_path, store):
    store["old"] = b"1"
    os.rename(store.path, tmp_path / "away")
    with LMDBStore(store.path) as new:
        assert dict(new) == {}
        new["new"] = b"2"
        assert dict(store) == {"old": b"1"}


# Threads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ops", [500, pytest.param(1500, marks=pytest.mark.slow)])
def test_8_threads_of_mixed_operations(store, ops):
    problems: list[str] = []
    threads = [threading.Thread(target=mixed.work, args=(store, i, 8, ops, 1, problems)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_the_map_grows_under_readers(tmp_path):
    with LMDBStore(tmp_path / "a") as store:
        store["a"] = b"a" * 5000
        environment = store._env
        problems, done = [], threading.Event()

        def read():
            try:
                while not done.is_set():
                    assert store["a"] == b"a" * 5000
                    assert "a" in list(store)
            except BaseException as exc:
                problems.append(repr(exc))

        threads = [threading.Thread(target=read) for _ in range(6)]
        for thread in threads:
            thread.start()
        before = environment.map_size
        for i in range(60):
            store[f"b{i}"] = bytes(1 << 20)
        done.set()
        for thread in threads:
            thread.join()
        assert problems == []
        assert environment.map_size > before


def test_closing_while_others_read_and_write_is_an_error_for_them_and_no_crash(tmp_path):
    for _ in range(20):
        store = LMDBStore(tmp_path / "a")
        store["a"] = b"a" * 50_000
        problems, ended = [], []

        def use(store=store, problems=problems, ended=ended):
            try:
                while True:
                    assert store["a"] == b"a" * 50_000
                    list(store)
                    store["b"] = b"b"
            except ClosedStoreError:
                ended.append(1)
            except BaseException as exc:
                problems.append(repr(exc))

        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.01)
        store.close()
        for thread in threads:
            thread.join()
        assert problems == []
        assert len(ended) == 6


def test_more_threads_than_reader_slots_wait_for_each_other(tmp_path):
    with LMDBStore(tmp_path / "a", max_readers=4) as store:
        store["a"] = b"1"
        problems: list[str] = []

        def read():
            try:
                for _ in range(200):
                    assert store["a"] == b"1"
            except BaseException as exc:
                problems.append(repr(exc))

        threads = [threading.Thread(target=read) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []


# Processes ----------------------------------------------------------------------------------------------------------

WORKER = """
import json, sys
from tests.support import mixed
from zarrstore.stores.lmdb import LMDBStore
problems = []
with LMDBStore(sys.argv[1]) as store:
    mixed.work(store, int(sys.argv[2]), 4, 2000, 2, problems)
print(json.dumps(problems))
"""


def _start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=Path(__file__).parent.parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.PIPE,
        text=True,
    )


def test_4_processes_of_mixed_operations_on_a_file_that_none_has_made_yet(tmp_path):
    workers = [_start(WORKER, tmp_path / "a", i) for i in range(4)]
    assert [worker.communicate(timeout=60)[0].splitlines()[-1:] for worker in workers] == [["[]"]] * 4


def test_a_pickled_copy_works_in_another_process(store):
    store["a"] = b"1"
    answer = peers.run(
        "self",
        """
        import json, pickle, sys
        store = pickle.loads(bytes.fromhex(sys.argv[1]))
        store["b"] = store["a"] + b"2"
        print(json.dumps(sorted(store)))
        """,
        pickle.dumps(store).hex(),
    )
    assert answer == ["a", "b"]
    assert store["b"] == b"12"


def test_what_another_process_wrote_beyond_this_map_is_read_and_written_on(store):
    store["a"] = b"1"
    script = """
    import sys
    from zarrstore.stores.lmdb import LMDBStore
    with LMDBStore(sys.argv[1]) as store:
        for i in range(60):
            store[f"b{i}"] = bytes([i]) * (1 << 20)
    """
    peers.run("self", script, store.path)
    assert store["b59"] == b"\x3b" * (1 << 20)
    assert len(store) == 61
    store.rmdir()
    store.clear()
    peers.run("self", script, store.path)
    store["c"] = b"c" * (1 << 20)
    assert len(store) == 61


HOLD = """
import sys
from zarrstore.stores.lmdb import LMDBStore
import lmdb
store = LMDBStore(sys.argv[1])
txn = store._env.begin()  # a reader in the middle of a read
txn.get(b"live")
print("reading", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("writes", [250, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("when", ["opening", "writing"])
def test_a_killed_reader_does_not_make_the_file_grow_for_ever(tmp_path, when, writes):
    live = 200_000
    with LMDBStore(tmp_path / "a") as store:
        store["live"] = os.urandom(live)
        reader = _start(HOLD, store.path)
        assert reader.stdout.readline() == "reading\n"
        if when == "opening":
            reader.kill()
            reader.wait()
            store.close()
            store = LMDBStore(tmp_path / "a")
        for number in range(writes):
            if number == 1 and when == "writing":
                reader.kill()
                reader.wait()
            store["live"] = os.urandom(live)
        reader.communicate()
        assert os.path.getsize(tmp_path / "a" / "data.mdb") <= 3 * live + 100_000
        store.close()


def _readers(store):
    """Return the processes that have a slot: the first of the columns, beside which stand addresses."""
    return {line.split()[0] for line in store._env.env.readers().splitlines()}


def test_who_opens_a_file_clears_the_slots_of_killed_readers(store):
    store["live"] = b"1"
    reader = _start(HOLD, store.path)
    assert reader.stdout.readline() == "reading\n"
    assert str(reader.pid) in _readers(store)
    reader.kill()
    reader.communicate()
    assert str(reader.pid) in _readers(store)
    peers.run("self", "import sys; from zarrstore.stores.lmdb import LMDBStore; LMDBStore(sys.argv[1])", store.path)
    assert str(reader.pid) not in _readers(store)


def test_a_file_that_another_process_has_open_is_not_compacted(store):
    store.update({f"k{i}": bytes(10_000) for i in range(100)})
    store.delitems(f"k{i}" for i in range(99))
    before = dict(store)
    other = _start(HOLD, store.path)
    assert other.stdout.readline() == "reading\n"
    with pytest.raises(LockedStoreError, match="another process has it open"):
        store.compact()
    assert dict(store) == before
    other.communicate("")
    assert store.compact() > 500_000
    assert dict(store) == before


# Fork ---------------------------------------------------------------------------------------------------------------


def _forked(work):
    """Return the exit status of `work` in a forked child: 0 if it raised nothing."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as exc:
            os.write(2, f"{exc!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_store_works_on_both_sides_of_a_fork(store):
    store["a"] = b"1"

    def child():
        assert store["a"] == b"1"
        store["child"] = b"c" * 30_000_000  # more than the map of the parent
        with LMDBStore(store.path) as second:
            assert sorted(second) == ["a", "child"]
        store.close()

    assert _forked(child) == 0
    assert len(store["child"]) == 30_000_000
    store["a"] = b"2"
    assert _forked(lambda: None) == 0
    assert store["a"] == b"2"
    assert store.describe()["readers"] <= 2


def test_a_child_that_closes_or_is_killed_leaves_the_parents_reads_alone(store):
    store["a"] = b"a" * 100_000
    for end in (store.close, lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: None):
        status = _forked(lambda end=end: (store["a"], end()))
        assert status in (0, signal.SIGKILL)
        listing = iter(store)
        assert store["a"] == b"a" * 100_000
        assert list(listing) == ["a"]


def test_forks_while_threads_write(store):
    problems, done = [], threading.Event()

    def write(worker):
        try:
            version = 0
            while not done.is_set():
                version += 1
                store[f"k{worker}"] = crash.value(worker, version, 2000)
                assert crash.version_of(worker, store[f"k{worker}"]) == version
        except BaseException as exc:
            problems.append(repr(exc))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)

    def child():
        for worker in range(3):
            crash.version_of(worker, store[f"k{worker}"])
        store["child"] = b"1"

    statuses = [_forked(child) for _ in range(15)]
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert statuses == [0] * 15


def test_a_fork_does_not_wait_for_ever_for_another_threads_transaction(store, monkeypatch):
    monkeypatch.setattr(_process, "FORK_WAITS", 0.2)
    store["a"] = b"1"
    inside, leave = threading.Event(), threading.Event()

    def hang(txn):
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=lambda: store._env.read(hang))
    thread.start()
    inside.wait()
    try:

        def child():
            with pytest.raises(LockedStoreError, match="forked while another thread"):
                store["a"]

        assert _forked(child) == 0
    finally:
        leave.set()
        thread.join()
    assert store["a"] == b"1"


def _read_in_pool(store):
    return store["a"], os.getpid()


def test_a_pool_of_forked_workers_reads_and_writes(store):
    store["a"] = b"1"
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(_read_in_pool, [store] * 12)
    assert {value for value, _ in found} == {b"1"}
    assert os.getpid() not in {pid for _, pid in found}
    assert store["a"] == b"1"
