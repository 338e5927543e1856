"""TempStore: gone when its maker is done with it, and not before."""

from __future__ import annotations

import gc
import os
import pickle
import sys

import pytest

from tests.support import peers
from zarrstore.errors import ClosedStoreError
from zarrstore.stores.temp import TempStore
from zarrstore.testing import StoreConformance


class TestTempStore(StoreConformance):
    def make_store(self, tmp_path):
        return TempStore(dir=tmp_path)


def test_the_directory_is_named_as_asked_and_for_its_owner_alone(tmp_path):
    store = TempStore("-end", "begin-", tmp_path)
    name = os.path.basename(store.path)
    assert name.startswith("begin-")
    assert name.endswith("-end")
    assert os.path.dirname(store.path) == str(tmp_path)
    assert os.stat(store.path).st_mode & 0o777 == 0o700
    assert os.path.basename(TempStore(dir=tmp_path).path).startswith("zarr")


def test_it_takes_what_zarr_takes(tmp_path):
    store = TempStore(dir=tmp_path, normalize_keys=True, dimension_separator="/", durability="flush")
    store["FOO"] = b"1"
    assert (list(store), store._dimension_separator, store.capabilities.durable_flush) == (["foo"], "/", True)


def test_close_removes_it_once_and_every_call_then_says_so(tmp_path):
    store = TempStore(dir=tmp_path)
    store["a/b"] = b"1"
    store.close()
    store.close()
    assert os.listdir(tmp_path) == []
    for act in (
        lambda: store["a/b"],
        lambda: store.__setitem__("a/b", b"1"),
        lambda: store.__delitem__("a/b"),
        lambda: "a/b" in store,
        lambda: list(store),
        lambda: len(store),
        lambda: store.listdir(),
        lambda: store.rmdir("a"),
        lambda: store.clear(),
        lambda: store.getsize("a/b"),
        lambda: store.getrange("a/b", 0),
        lambda: store.rename("a", "b"),
    ):
        with pytest.raises(ClosedStoreError):
            act()
    assert os.listdir(tmp_path) == []


def test_it_goes_with_the_last_reference(tmp_path):
    store = TempStore(dir=tmp_path)
    store["a"] = b"1"
    del store
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_it_goes_at_exit_and_with_a_failure_to_construct(tmp_path):
    script = "import sys; from zarrstore.stores.temp import TempStore; s = TempStore(dir=sys.argv[1]); s['a'] = b'1'"
    peers.run("self", script, tmp_path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="durability"):
        TempStore(dir=tmp_path, durability="perhaps")
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_a_child_that_leaves_by_sys_exit_leaves_the_directory(tmp_path):
    script = """
        import os, sys
        from zarrstore.stores.temp import TempStore
        store = TempStore(dir=sys.argv[1])
        store["a"] = b"1"
        child = os.fork()
        if child == 0:
            if sys.argv[2] == "close":
                store.close()
            if sys.argv[2] == "drop":
                del store
            sys.exit()
        os.waitpid(child, 0)
        print(int(dict(store) == {"a": b"1"}))
    """
    for how in ("exit", "close", "drop"):
        assert peers.run("self", script, tmp_path, how) == 1, how
    assert os.listdir(tmp_path) == []


def test_a_pickled_copy_uses_the_directory_and_never_removes_it(tmp_path):
    store = TempStore(dir=tmp_path)
    copy = pickle.loads(pickle.dumps(store))
    copy["a"] = b"1"
    assert (copy == store, store["a"]) == (True, b"1")
    copy.close()
    with pytest.raises(ClosedStoreError):
        copy["a"]
    del copy
    gc.collect()
    assert store["a"] == b"1"


def test_once_pickled_the_directory_outlives_its_store_for_the_copies_as_in_zarr_2(tmp_path):
    script = """
        import gc, json, os, pickle, sys
        from zarrstore.stores.temp import TempStore
        store = TempStore(dir=sys.argv[1])
        store["a"] = b"1"
        pickled = pickle.dumps(store)
        store.close()
        assert pickle.dumps(store) == pickled
        copy = pickle.loads(pickled)
        found = [dict(copy) == {"a": b"1"}]
        del store, copy
        gc.collect()
        found.append(dict(pickle.loads(pickled)) == {"a": b"1"})
        child = os.fork()
        if child == 0:
            sys.exit()
        os.waitpid(child, 0)
        found.append(len(os.listdir(sys.argv[1])) == 1)
        print(json.dumps(found))
    """
    assert peers.run("self", script, tmp_path) == [True, True, True]
    assert os.listdir(tmp_path) == []


def test_it_goes_with_the_last_reference_and_no_garbage_collection(tmp_path):
    gc.disable()
    try:
        for durability in ("none", "flush"):
            store = TempStore(dir=tmp_path, durability=durability)
            store["a"] = b"1"
            del store
    finally:
        gc.enable()
    assert os.listdir(tmp_path) == []


def test_a_thread_that_writes_at_the_close_or_exit_does_not_bring_the_directory_back(tmp_path):
    script = """
        import sys, threading, time
        from zarrstore.errors import ClosedStoreError
        from zarrstore.stores.temp import TempStore
        store = TempStore(dir=sys.argv[1])
        def write(n):
            try:
                for i in range(10**9):
                    store[f"d{n}/{i % 7}/{i % 3}"] = b"1" * 1000
                    if i % 5 == 0:
                        store.rmdir(f"d{n}")
            except ClosedStoreError:
                pass
        for n in range(4):
            threading.Thread(target=write, args=(n,), daemon=True).start()
        time.sleep(0.1)
        if sys.argv[2] == "close":
            store.close()
    """
    for how in ("exit", "close"):
        for _ in range(3):
            peers.run("self", script, tmp_path, how)
            assert os.listdir(tmp_path) == []


def test_it_takes_bytes_where_paths_are_taken(tmp_path):
    store = TempStore(b"-end", b"begin-", os.fsencode(tmp_path))
    assert os.path.dirname(store.path) == str(tmp_path)
    store["a"] = b"1"
    assert store["a"] == b"1"


def test_importing_it_makes_nothing(tmp_path):
    assert peers.run("self", "import os, zarrstore.stores.temp\nprint(len(os.listdir('.')))", cwd=tmp_path) == 0
    assert sys.modules["zarrstore.stores.temp"].__all__ == ["TempStore"]
