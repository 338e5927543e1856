"""The index of DictStore's directories says what the keys say, whatever interrupts, forks or threads do."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
import threading
import tracemalloc
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.support.collector import not_collecting
from tests.support.interrupts import Interrupts
from zarrstore import DictStore
from zarrstore import keys as k

CHECKOUT = Path(__file__).parent.parent.parent


def test_a_value_that_outlived_the_directory_of_its_name_leaves_no_name_behind():
    store = DictStore()
    store.listdir()  # builds the index
    store.update({"a": b"1", "a/b/c": b"2"})
    del store["a/b/c"]
    assert store.listdir("a") == []
    del store["a"]
    assert (store.listdir(), list(store)) == ([], [])


def test_a_directory_that_outlived_the_value_of_its_name_is_still_listed():
    store = DictStore()
    store.listdir()
    store.update({"a": b"1", "a/b": b"2"})
    del store["a"]
    assert (store.listdir(), store.listdir("a")) == (["a"], ["b"])


def test_keys_below_a_path_include_values_beside_directories_of_their_name():
    store = DictStore()
    store.update({"a": b"1", "a/b": b"2", "a/b/c": b"3", "ab/c": b"4", "a.b/c": b"5"})
    assert sorted(store.keys_below("a")) == ["a/b", "a/b/c"]
    assert sorted(store.keys_below("a/b")) == ["a/b/c"]
    assert list(store.keys_below("a/b/c")) == list(store.keys_below("absent")) == []


def test_work_on_a_small_subtree_looks_at_no_other_key():
    store = DictStore()
    store.update({f"big/{i}": b"1" for i in range(20_000)})
    store.listdir("big")
    lines = 0

    def count(frame, event, arg):
        nonlocal lines
        lines += 1
        return count

    with not_collecting():
        sys.settrace(count)
        try:
            store["small/a/x"] = b"1"
            store["small/b"] = b"2"
            store.rename("small", "other")
            store.rmdir("other")
        finally:
            sys.settrace(None)
    assert lines < 3000
    assert (store.listdir(), len(store)) == (["big"], 20_000)


def test_a_directory_is_removed_with_a_value_that_a_reader_saw_before_its_set_ended():
    remover = seen = None

    class Values(dict):
        def __setitem__(self, key, value):
            nonlocal remover, seen
            super().__setitem__(key, value)
            if key == "a/new":
                seen = store.get(key)
                remover = threading.Thread(target=store.rmdir, args=("a",))
                remover.start()
                remover.join(0.05)  # where nothing makes it wait, it ends

    store = DictStore(cls=Values)
    store["a/old"] = b"1"
    store.listdir("a")  # builds the index
    store["a/new"] = b"2"
    remover.join()
    assert (seen, dict(store)) == (b"2", {})


def listing_by_keys(store, path):
    return sorted(k.children(list(store), path))


def test_an_interrupt_at_any_moment_hides_no_key():
    store = DictStore()

    def work():
        for i in range(1000):
            store[f"d{i % 7}/e{i % 3}/{i % 11}"] = b"1"
            if i % 5 == 0:
                store.rmdir(f"d{i % 7}")

    cuts = 0
    with Interrupts() as interrupts:
        while cuts < 200:
            store.listdir()
            cuts += interrupts.during(work, 0.002)
            for path in ("", "d0", "d1/e1"):
                assert store.listdir(path) == listing_by_keys(store, path)


# In a process of its own: to fork the one that runs the tests, which has imported everything, takes much longer.
FORKS = """
import os, signal, sys, threading
from zarrstore import DictStore

store = DictStore()
store.update({f"a/{i}": b"1" for i in range(300)})
stop = threading.Event()

def work(n):
    while not stop.is_set():
        store.listdir("a")
        store[f"b{n}/x"] = b"1"
        store.rmdir(f"b{n}")

def fork(results):
    for _ in range(15):
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a hang ends as a signal
            try:
                found = store.listdir("a")
                store["c/x"] = b"1"
                good = len(found) == 300 and store.listdir("c") == ["x"] and "c" in store.listdir()
                os._exit(0 if good else 1)
            except BaseException:
                os._exit(2)
        results.append(os.waitpid(child, 0)[1])

workers = [threading.Thread(target=work, args=(n,)) for n in range(3)]
results = []
forkers = [threading.Thread(target=fork, args=(results,)) for _ in range(int(sys.argv[1]))]
for thread in (*workers, *forkers):
    thread.start()
for thread in forkers:
    thread.join()
stop.set()
for thread in workers:
    thread.join()
print(results)
"""


@pytest.mark.parametrize("forking_threads", [1, 2])
def test_a_child_forked_beside_threads_lists_what_it_has(forking_threads):
    command = [sys.executable, "-c", FORKS, str(forking_threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, cwd=CHECKOUT)
    assert ast.literal_eval(done.stdout) == [0] * (15 * forking_threads)


def test_threads_that_write_while_the_index_is_built_are_listed():
    for _ in range(20):
        store = DictStore()
        store.update({f"a/{i}": b"1" for i in range(2000)})
        batches = [{f"w{n}/{i}": b"1" for i in range(50)} for n in range(3)]
        threads = [threading.Thread(target=store.update, args=(batch,)) for batch in batches]
        for thread in threads:
            thread.start()
        store.listdir()
        for thread in threads:
            thread.join()
        for path in ("", "w0", "w1", "w2"):
            assert store.listdir(path) == listing_by_keys(store, path)


def test_a_buffer_is_copied_once_and_bytes_not_at_all():
    store = DictStore()
    chunk = np.zeros(4 << 20, "u1")
    tracemalloc.start()
    try:
        store["a"] = chunk
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * chunk.nbytes
    chunk[:] = 1
    assert store["a"] == bytes(4 << 20)
    value = b"1" * 1000
    store["b"] = value
    assert store["b"] is value


class Odd(str):
    """A str of a class that counts as another, and hashes as what it holds."""

    __slots__ = ()


@pytest.mark.parametrize(
    "make",
    [
        DictStore,
        lambda: DictStore(root={}),
        lambda: DictStore(cls=OrderedDict),
        lambda: pickle.loads(pickle.dumps(DictStore())),
    ],
    ids=["own", "shared", "cls", "pickled"],
)
def test_the_short_way_of_a_read_gives_what_the_judged_way_gives(make):
    store = make()
    store["a/b"] = b"1"
    for key in ("a/b", Odd("a/b"), "a", "../x", "", "a//b", b"a/b", 1, None, [], {}, "\ud800"):
        good = isinstance(key, str) and key == "a/b"
        assert (key in store) is good
        assert store.get(key, 7) == (b"1" if good else 7)
        if good:
            assert store[key] == b"1"
        else:
            with pytest.raises(KeyError):
                store[key]


def test_a_refused_key_in_a_mapping_of_the_caller_s_is_absent():
    store = DictStore(root={"a": b"1"})
    store.root["../x"] = b"2"
    assert ("../x" in store, store.get("../x")) == (False, None)
    with pytest.raises(KeyError):
        store["../x"]


def test_a_read_of_an_absent_key_makes_none():
    store = DictStore(cls=lambda: defaultdict(bytes))
    assert (store.get("a"), "a" in store) == (None, False)
    assert len(store) == 0


def test_a_rename_lets_no_other_thread_write_between_its_copies_and_its_deletes():
    writable = []

    class Watched(DictStore):
        def _delete_many(self, keys):
            def attempt():
                if self._index.turn.acquire(blocking=False):
                    self._index.turn.release()
                    writable.append(keys)

            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()
            super()._delete_many(keys)

    store = Watched()
    store.update({"a/x": b"1", "a/y": b"2"})
    store.delitems(["a/y"])
    assert len(writable) == 1
    store.rename("a", "b")
    assert (dict(store), len(writable)) == ({"b/x": b"1"}, 1)
