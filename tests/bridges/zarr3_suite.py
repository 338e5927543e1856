"""The stores that stand under zarr 3's own tests: name -> maker, which takes the test's folder."""

from __future__ import annotations

import dbm.dumb
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zarrstore import DictStore
from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.zip import ZipStore
from zarrstore.testing import SlowStore
from zarrstore.wrappers.filter import FilterStore
from zarrstore.wrappers.lru import LRUStoreCache
from zarrstore.wrappers.metrics import MetricsStore
from zarrstore.wrappers.overlay import OverlayStore
from zarrstore.wrappers.prefix import PrefixStore
from zarrstore.wrappers.retry import RetryStore
from zarrstore.wrappers.split import SplitStore
from zarrstore.wrappers.usagelog import UsageLogStore


def stack(path: Path) -> Any:
    """Return seven wrappers around a directory."""
    inner = DirectoryStore(path / "stack")
    split = SplitStore(PrefixStore(inner, "documents"), PrefixStore(inner, "chunks"))
    return MetricsStore(RetryStore(FilterStore(UsageLogStore(split, path / "usage.log"))))


MAKERS: dict[str, Callable[[Path], Any]] = {
    "dict": lambda path: {},
    "DictStore": lambda path: DictStore(),
    "DirectoryStore": lambda path: DirectoryStore(path / "directory"),
    "NestedDirectoryStore": lambda path: NestedDirectoryStore(path / "nested"),
    "ZipStore": lambda path: ZipStore(path / "data.zip", mode="w"),
    "DBMStore": lambda path: DBMStore(path / "data.dbm", open=dbm.dumb.open),
    "LMDBStore": lambda path: LMDBStore(path / "data.lmdb"),
    "LRUStoreCache": lambda path: LRUStoreCache(DirectoryStore(path / "cached"), max_size=1 << 20),
    "a stack": stack,
    "OverlayStore": lambda path: OverlayStore(DirectoryStore(path / "lower"), DirectoryStore(path / "upper")),
    "a store that waits": lambda path: SlowStore(DictStore(), delay=0.0),
}
if importlib.util.find_spec("zarrstore.stores.sqlite"):
    from zarrstore.stores.sqlite import SQLiteStore

    MAKERS["SQLiteStore"] = lambda path: SQLiteStore(path / "data.sqlite")

#: Where a value and a directory cannot share a name, which zarr's machine of arbitrary keys does not know.
HIERARCHICAL = {"DirectoryStore", "NestedDirectoryStore", "LRUStoreCache", "a stack", "OverlayStore"}
