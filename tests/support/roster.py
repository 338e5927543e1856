"""The table of every store, every wrapper and stacks of two, each of which goes through the conformance suite.

A new backend or wrapper adds one line here. Makers take the test's folder and return a new, empty store.
"""

from __future__ import annotations

import dbm.dumb
import importlib.util
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zarrstore import DictStore, KVStore, LRUStoreCache
from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.stores.temp import TempStore
from zarrstore.stores.zip import ZipStore
from zarrstore.testing import CountingStore, Recorder, RecordingStore, SlowStore
from zarrstore.wrappers.base import Wrapper
from zarrstore.wrappers.filter import FilterStore
from zarrstore.wrappers.metrics import MetricsStore
from zarrstore.wrappers.overlay import OverlayStore
from zarrstore.wrappers.prefix import PrefixStore
from zarrstore.wrappers.readonly import ReadOnlyStore
from zarrstore.wrappers.retry import RetryStore
from zarrstore.wrappers.split import SplitStore
from zarrstore.wrappers.usagelog import UsageLogStore

Maker = Callable[[Path], Any]

#: Backends: name -> maker. Keyword arguments of the suite (attributes to override) stand in OPTIONS.
STORES: dict[str, Maker] = {
    "dict": lambda path: {},
    "DictStore": lambda path: DictStore(),
    "DictStore-shared-root": lambda path: DictStore(root={}),
    "KVStore": lambda path: KVStore({}),
    "DirectoryStore": lambda path: DirectoryStore(path / "data"),
    "DirectoryStore-always": lambda path: DirectoryStore(path / "data", durability="always"),
    "DirectoryStore-direct": lambda path: DirectoryStore(path / "data", direct_io=True),
    "NestedDirectoryStore": lambda path: NestedDirectoryStore(path / "data"),
    "TempStore": lambda path: TempStore(dir=path),
    "ZipStore": lambda path: ZipStore(path / "data.zip"),
    "LMDBStore": lambda path: LMDBStore(path / "data.lmdb"),
    "DBMStore": lambda path: DBMStore(path / "data.dbm", open=dbm.dumb.open),
    "SQLiteStore": lambda path: SQLiteStore(path / "data.sqlite"),
}

# Bridges, where their packages are here. Those over obstore, S3 and OpenDAL's files go through the suite in
# tests/bridges.
if importlib.util.find_spec("fsspec"):
    from zarrstore.stores.fsspec import FSStore

    STORES["FSStore-memory"] = lambda path: FSStore(f"memory://{uuid.uuid4().hex}")
    STORES["FSStore-files"] = lambda path: FSStore(str(path / "data"))
if importlib.util.find_spec("opendal"):
    import opendal

    from zarrstore.stores.opendal import OpenDALStore

    STORES["OpenDALStore"] = lambda path: OpenDALStore(opendal.Operator("memory"))

#: Wrappers: name -> maker of a wrapper around a given store.
WRAPPERS: dict[str, Callable[[Any, Path], Any]] = {
    "Wrapper": lambda inner, path: Wrapper(inner),
    "CountingStore": lambda inner, path: CountingStore(inner),
    "SlowStore": lambda inner, path: SlowStore(inner, delay=0.0),
    "FilterStore": lambda inner, path: FilterStore(inner),
    "LRUStoreCache": lambda inner, path: LRUStoreCache(inner, 1e6),
    "LRUStoreCache-tiny": lambda inner, path: LRUStoreCache(inner, 8),
    "LRUStoreCache-tier": lambda inner, path: LRUStoreCache(inner, 100, cache=DictStore(), cache_size=1e6),
    "MetricsStore": lambda inner, path: MetricsStore(inner),
    "OverlayStore": lambda inner, path: OverlayStore(inner, DictStore()),
    "PrefixStore": lambda inner, path: PrefixStore(inner, "part/of it"),
    "ReadOnlyStore": lambda inner, path: ReadOnlyStore(inner),
    "RecordingStore": lambda inner, path: RecordingStore(inner, Recorder(), "inner"),
    "RetryStore": lambda inner, path: RetryStore(inner),
    "SplitStore": lambda inner, path: SplitStore(PrefixStore(inner, "documents"), PrefixStore(inner, "chunks")),
    "UsageLogStore": lambda inner, path: UsageLogStore(inner, path.with_suffix(".log")),
}

#: Backends under which every wrapper is run; stacks of two wrappers run over the first.
UNDER_WRAPPERS = ("DictStore", "DirectoryStore", "ZipStore", "LMDBStore")

#: Attributes of the suite for backends that need others: name -> attributes.
OPTIONS: dict[str, dict[str, Any]] = {
    "dict": {"pickles": False},
    "OpenDALStore": {"pickles": False, "forks": False},  # an operator on memory unpickles empty
    "TempStore": {"pickles": False},  # its folder goes with the object that made it
    "DirectoryStore-always": {"examples": 5},
}

#: How a store is opened again, for those that outlive their object: name -> reopen(store, path).
REOPEN: dict[str, Callable[[Any, Path], Any]] = {
    "FSStore-memory": lambda store, path: FSStore(store.url),
    "FSStore-files": lambda store, path: FSStore((path / "data").as_uri()),
    "DirectoryStore": lambda store, path: (store.close(), DirectoryStore(path / "data"))[1],
    "NestedDirectoryStore": lambda store, path: (store.close(), NestedDirectoryStore(path / "data"))[1],
    "ZipStore": lambda store, path: (store.close(), ZipStore(path / "data.zip"))[1],
    "LMDBStore": lambda store, path: (store.close(), LMDBStore(path / "data.lmdb"))[1],
    "DBMStore": lambda store, path: (store.close(), DBMStore(path / "data.dbm", open=dbm.dumb.open))[1],
    "SQLiteStore": lambda store, path: (store.close(), SQLiteStore(path / "data.sqlite"))[1],
}


def options(outer: str, inner: str) -> dict[str, Any]:
    """Return the attributes of the suite for a wrapper over a store or over another wrapper."""
    return {"checks_processes": False} | OPTIONS.get(inner, {}) | OPTIONS.get(outer, {})
