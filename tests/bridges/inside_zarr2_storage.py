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
    "TestFSStore": "FSStore",
    "TestFSStoreWithKeySeparator": "FSStore",
    "TestFSStoreFromFilesystem": "FSStore",
}
#: What zarr's module takes from zarr, and we have under the same name.
VERBS = ("getsize", "listdir", "rename", "init_array", "init_group", "migrate_1to2")
ERRORS = ("ContainsArrayError", "ContainsGroupError")


def over_ours(name: str, store: str, *more: str) -> type:
    """Return zarr's class of tests, in all of whose methods the store of that name, and `more`, are ours."""
    theirs = getattr(suite, name)

    class Over(theirs):  # type: ignore[misc]
        ZipStoreClass = zarrstore.ZipStore
        LRUStoreClass = zarrstore.LRUStoreCache

        # Of a method that zarr's class keeps to itself.
        test_listing_keys_slash = test_listing_keys_no_slash = None
        # They start a server of S3 that is not installed.
        test_s3 = test_s3_complex = None

        @pytest.fixture(autouse=True)
        def _ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
            # In a folder of its own: an archive that a failed test leaves open is locked.
            (tmp_path / "data").mkdir()
            monkeypatch.chdir(tmp_path)
            for each in (store, *more):
                monkeypatch.setattr(suite, each, getattr(zarrstore, each))

    Over.__name__ = Over.__qualname__ = name
    return Over


globals().update({name: over_ours(name, store) for name, store in STORES.items()})
#: The verbs are zarr's above, as for who gives zarr a store of ours, and ours here.
TestOurVerbs = over_ours("TestMappingStore", "KVStore", *VERBS, *ERRORS)


class TestDictStore(suite.StoreTests):  # type: ignore[misc]
    """zarr's class of the name demands a warning of zarr's DictStore, which ours does not give."""

    def create_store(self, **kwargs: object) -> object:
        suite.skip_if_nested_chunks(**kwargs)
        return zarrstore.DictStore(**kwargs)


# The fixture that these ask for.
dimension_separator_fixture = suite.dimension_separator_fixture


class TestFunctions:
    """Those that stand in no class, with our verbs over zarr's KVStore: what they put there is no bytes."""

    @pytest.fixture(autouse=True)
    def _ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for each in VERBS:
            monkeypatch.setattr(suite, each, getattr(zarrstore, each))

    test_getsize_non_implemented = staticmethod(suite.test_getsize_non_implemented)
    test_coverage_rename = staticmethod(suite.test_coverage_rename)
    test_deprecated_listdir_nosotre = staticmethod(suite.test_deprecated_listdir_nosotre)
    test_getsize = staticmethod(suite.test_getsize)
    test_migrate_1to2 = staticmethod(suite.test_migrate_1to2)
