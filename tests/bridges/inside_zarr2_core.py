"""zarr 2.18.7's own tests of arrays, over our stores; collected under that zarr only, where named."""

from __future__ import annotations

from tempfile import mkdtemp, mktemp

import zarr.tests.test_core as suite

import zarrstore
import zarrstore.bridges.zarr2

#: zarr's class -> how the store under its arrays is made.
STORES = {
    "TestArray": lambda: zarrstore.KVStore({}),
    "TestArrayWithPath": lambda: zarrstore.KVStore({}),
    "TestArrayWithDirectoryStore": lambda: zarrstore.DirectoryStore(mkdtemp()),
    "TestArrayWithNestedDirectoryStore": lambda: zarrstore.NestedDirectoryStore(mkdtemp()),
    "TestArrayWithDBMStore": lambda: zarrstore.DBMStore(mktemp(suffix=".anydbm"), flag="n"),
    "TestArrayWithLMDBStore": lambda: zarrstore.LMDBStore(mktemp(suffix=".lmdb"), buffers=True),
    "TestArrayWithLMDBStoreNoBuffers": lambda: zarrstore.LMDBStore(mktemp(suffix=".lmdb"), buffers=False),
    "TestArrayWithSQLiteStore": lambda: zarrstore.SQLiteStore(mktemp(suffix=".db")),
    "TestArrayWithNoCompressor": zarrstore.DictStore,
    "TestArrayWithBZ2Compressor": zarrstore.DictStore,
    "TestArrayWithBloscCompressor": zarrstore.DictStore,
    "TestArrayWithLZMACompressor": zarrstore.DictStore,
    "TestArrayWithFilters": zarrstore.MemoryStore,
    "TestArrayNoCache": zarrstore.MemoryStore,
    "TestArrayWithStoreCache": lambda: zarrstore.LRUStoreCache({}, max_size=None),
}
for _name, _make in STORES.items():
    _theirs = getattr(suite, _name)
    globals()[_name] = type(_name, (_theirs,), {"create_store": lambda self, make=_make: make()})


class TestArrayWithZipStore(suite.TestArray):  # zarr has none
    def create_store(self) -> object:
        return zarrstore.ZipStore(mktemp(suffix=".zip"), mode="w")


class TestArrayWithChunkStore(suite.TestArrayWithChunkStore):
    def create_store(self) -> object:
        return zarrstore.DictStore()

    def create_chunk_store(self) -> object:
        return zarrstore.DirectoryStore(mkdtemp())


pytestmark = suite.pytestmark
