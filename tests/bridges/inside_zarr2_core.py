"""zarr 2.18.7's own tests of arrays, over our stores; collected under that zarr only, where named."""

from __future__ import annotations

from tempfile import mkdtemp, mktemp

import zarr.tests.test_core as suite
from fsspec.implementations.local import LocalFileSystem

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
    "TestArrayWithFSStore": lambda: filesystem("."),
    "TestArrayWithFSStoreNested": lambda: filesystem("/"),
    "TestArrayWithFSStoreFromFilesystem": lambda: zarrstore.FSStore(
        mkdtemp(), fs=LocalFileSystem(auto_mkdir=True), key_separator=".", check=True, create=True
    ),
}


def filesystem(separator: str) -> object:
    """Return an FSStore with the arguments that zarr's tests give."""
    return zarrstore.FSStore(
        mkdtemp(), key_separator=separator, auto_mkdir=True, check=True, create=True, missing_exceptions=None
    )


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


class TestArrayWithCustomMapping(suite.TestArray):
    """Around a mapping with the methods of a dict alone; zarr's class of the name counts the bytes of its own."""

    def create_store(self) -> object:
        return zarrstore.KVStore(suite.CustomMapping())


pytestmark = suite.pytestmark
