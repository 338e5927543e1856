"""A million keys, and values above 2 and 4 GiB, through each local store."""

from __future__ import annotations

import dbm.dumb
import mmap
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import roster
from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.stores.zip import ZipStore

STORES: dict[str, Callable[[Path], Any]] = {
    "DirectoryStore": lambda f: DirectoryStore(f / "data"),
    "NestedDirectoryStore": lambda f: NestedDirectoryStore(f / "data"),
    "ZipStore": lambda f: ZipStore(f / "data.zip"),
    "LMDBStore": lambda f: LMDBStore(f / "data.lmdb"),
    "SQLiteStore": lambda f: SQLiteStore(f / "data.sqlite"),
    "DBMStore": lambda f: DBMStore(f / "data.dbm", open=dbm.dumb.open),
}
GIB = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is emptied at once: pytest keeps those of three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


#: Local stores that take many keys. TempStore is DirectoryStore with an end of its own.
MANY = ["DictStore", *STORES, *(name for name in ("FSStore-files",) if name in roster.STORES)]
MILLION = 1_000_000


def lives_through(name: str, folder: Path, count: int) -> None:
    """Set, list, remove and look up `count` keys in ten directories."""

    def key(n: int) -> str:
        return f"a{n % 10}/k{n // 10}"

    per_directory = count // 10
    store = roster.STORES[name](folder)
    for start in range(0, count, 50_000):
        store.setitems((key(n), b"%d" % n) for n in range(start, min(start + 50_000, count)))
    assert len(store) == count
    assert len(store.listdir("a3")) == per_directory
    assert len(store.listdir()) == 10
    store.rmdir("a3")
    assert len(store) == count - per_directory
    if name in roster.REOPEN:
        store = roster.REOPEN[name](store, folder)
    with store:
        assert len(store) == count - per_directory
        assert store.listdir("a3") == []
        assert sum(1 for _ in store.keys_below("a4")) == per_directory
        chance = random.Random(0)
        for n in (chance.randrange(count) for _ in range(1000)):
            assert store.get(key(n)) == (None if n % 10 == 3 else b"%d" % n)
        store.clear()
        assert len(store) == 0


@pytest.mark.parametrize("name", MANY)
def test_1000_keys_are_set_listed_and_removed(folder, name):
    lives_through(name, folder, 1000)


# 7 ms a key: a disk mounted with `discard` is told of each file that is removed before the removal returns, which took
# 1 ms a file where other processes kept the disk and the processors busy. The work of a store itself is linear.
@pytest.mark.nightly
@pytest.mark.timeout(MILLION * 0.007)
@pytest.mark.parametrize("name", MANY)
def test_a_million_keys_are_set_listed_and_removed(folder, name):
    lives_through(name, folder, MILLION)


#: The largest value that a store takes, in bytes, where its format sets a limit.
LIMITS = {"SQLiteStore": 2 * GIB - 1, "LMDBStore": 4 * GIB - 1}


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [2 * GIB + 1, 4 * GIB + 1], ids=["2 GiB", "4 GiB"])
@pytest.mark.parametrize("name", STORES)
def test_a_value_above_the_words_of_32_bits_is_whole_or_refused(folder, name, size):
    if shutil.disk_usage(folder).free < 4 * size:
        pytest.skip(f"less than {4 * size:,} bytes are free on the disk of {folder}")
    # Closing it raises BufferError if something holds a view of it still.
    with mmap.mmap(-1, size) as zeros, STORES[name](folder) as store:
        store["big"] = b"old"
        zeros[:5], zeros[-3:] = b"begin", b"end"
        with memoryview(zeros) as view:
            if size > LIMITS.get(name, size):
                with pytest.raises((OSError, ValueError), match="big"):
                    store["big"] = view
                assert store["big"] == b"old"
                return
            store["big"] = view
        assert store.getsize("big") == size
        assert (store.getrange("big", 0, 5), store.getsuffix("big", 3)) == (b"begin", b"end")
        assert store.getrange("big", size - 10) == b"\0" * 7 + b"end"
    with STORES[name](folder) as store:
        value = store["big"]
        assert (len(value), value[:5], value[-3:]) == (size, b"begin", b"end")
        assert value.count(0) == size - 8
