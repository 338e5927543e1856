"""zarr 2.18.7's own tests of storage, over our stores; collected under that zarr only, where named."""

from __future__ import annotations

from pathlib import Path

import pytest
import zarr.tests.test_storage as suite

import zarrstore
import zarrstore.bridges.zarr2

#: zarr's class -> the name there of the store that its `create_store` makes.
STORES = {
    "TestMappingStore": "KVStore",
    "TestMemoryStore": "MemoryStore",
    "TestDirectoryStore": "DirectoryStore",
    "TestNestedDirectoryStore": "NestedDirectoryStore",
    "TestNestedDirectoryStoreNone": "NestedDirectoryStore",
    "TestNestedDirectoryStoreWithWrongValue": "NestedDirectoryStore",
    "TestTempStore": "TempStore",
    "TestZipStore": "ZipStore",
    "TestDBMStore": "DBMStore",
    "TestDBMStoreDumb": "DBMStore",
    "TestDBMStoreGnu": "DBMStore",
    "TestDBMStoreNDBM": "DBMStore",
    "TestLMDBStore": "LMDBStore",
    "TestSQLiteStore": "SQLiteStore",
    "TestSQLiteStoreInMemory": "SQLiteStore",
    "TestLRUStoreCache": "LRUStoreCache",
}


def over_ours(name: str, store: str) -> type:
    """Return zarr's class of tests, in all of whose methods the store of that name is ours."""
    theirs = getattr(suite, name)
    ours = getattr(zarrstore, store)

    class Over(theirs):  # type: ignore[misc]
        ZipStoreClass = zarrstore.ZipStore
        LRUStoreClass = zarrstore.LRUStoreCache

        # Of a method that zarr's class keeps to itself.
        test_listing_keys_slash = test_listing_keys_no_slash = None

        @pytest.fixture(autouse=True)
        def _ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
            # In a folder of its own: an archive that a failed test leaves open is locked.
            (tmp_path / "data").mkdir()
            monkeypatch.chdir(tmp_path)
            monkeypatch.setattr(suite, store, ours)

    Over.__name__ = Over.__qualname__ = name
    return Over


globals().update({name: over_ours(name, store) for name, store in STORES.items()})


class TestDictStore(suite.StoreTests):  # type: ignore[misc]
    """zarr's class of the name demands a warning of zarr's DictStore, which ours does not give."""

    def create_store(self, **kwargs: object) -> object:
        suite.skip_if_nested_chunks(**kwargs)
        return zarrstore.DictStore(**kwargs)


# The fixture that these ask for.
dimension_separator_fixture = suite.dimension_separator_fixture
