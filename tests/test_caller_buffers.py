"""A set that has returned holds nothing of the caller's memory: a traceback in a cycle would, until it is collected.

LMDBStore did, when its map had to grow: ``mmap.close`` of the caller raised BufferError.
"""

from __future__ import annotations

import gc
import os
import sys

import pytest

from tests.support.roster import STORES, WRAPPERS
from zarrstore.adapt import as_store
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import opening
from zarrstore.testing import FailingStore
from zarrstore.wrappers.retry import RetryStore


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """What is held by a cycle stays held; an LMDB map is too small for every value."""
    monkeypatch.setattr(opening, "SMALLEST_MAP", 1 << 18)
    gc.disable()
    yield
    gc.enable()


def assert_memory_is_free_after_a_set(store):
    writes = {
        "set": lambda value: store.__setitem__(f"a/b/{len(value)}", value),
        "over": lambda value: store.__setitem__(f"a/b/{len(value)}", memoryview(value)),
        "setitems": lambda value: store.setitems({f"c/{len(value)}": value, "e/x": value}),
    }
    for size in (10, 100_000, 700_000):
        for name, write in writes.items():
            buffer = bytearray(size)
            write(buffer)
            try:
                buffer.append(0)
            except BufferError:
                pytest.fail(f"{name} of {size:,} bytes holds a view of them in {gc.get_referrers(buffer)}")
            value = os.urandom(size)
            before = sys.getrefcount(value)
            write(value)
            store.clear()  # what keeps values has let go of them now
            assert sys.getrefcount(value) == before, f"{name} of {size:,} bytes holds them in {gc.get_referrers(value)}"


@pytest.mark.parametrize("name", STORES)
def test_a_store_lets_go_of_a_buffer_that_it_has_set(name, tmp_path):
    with as_store(STORES[name](tmp_path)) as store:
        assert_memory_is_free_after_a_set(store)


#: One refuses to set, one keeps what it was asked.
OTHERS = {"ReadOnlyStore", "CountingStore"}


@pytest.mark.parametrize("name", [name for name in WRAPPERS if name not in OTHERS])
def test_a_wrapper_lets_go_of_a_buffer_that_it_has_set(name, tmp_path):
    with WRAPPERS[name](DirectoryStore(tmp_path / "inner"), tmp_path) as store:
        assert_memory_is_free_after_a_set(store)


def test_a_set_that_failed_at_first_lets_go_of_its_buffer(tmp_path):
    flaky = FailingStore(DirectoryStore(tmp_path), TimeoutError("slow"), times=3)
    assert_memory_is_free_after_a_set(RetryStore(flaky, sleep=lambda seconds: None))
    assert flaky.failures >= 3


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError, OSError])
def test_an_fsspec_write_that_failed_at_first_lets_go_of_its_value(tmp_path, monkeypatch, error):
    fsspec = pytest.importorskip("fsspec")
    from zarrstore.stores.fsspec import FSStore

    fs = fsspec.filesystem("memory", skip_instance_cache=True)
    write, failures = fs.pipe_file, ["at first"]

    def pipe_file(path, value, **options):
        if failures:
            raise error(failures.pop())
        write(path, value, **options)

    monkeypatch.setattr(fs, "pipe_file", pipe_file)
    monkeypatch.setattr(fs, "isdir", lambda path: False)
    store = FSStore(f"memory://{tmp_path.name}", fs=fs)
    value = os.urandom(1000)
    before = sys.getrefcount(value)
    store["a/b"] = value
    assert store["a/b"] == value
    store.clear()
    assert sys.getrefcount(value) == before, gc.get_referrers(value)
