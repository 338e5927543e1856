"""zarr 2.18.7's own tests of groups, over our stores; collected under that zarr only, where named."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import zarr.tests.test_hierarchy as suite

import zarrstore
import zarrstore.bridges.zarr2

#: zarr's class -> the names there of the stores that its `create_store` makes.
STORES = {
    "TestGroup": ("KVStore",),
    "TestGroupWithMemoryStore": ("MemoryStore",),
    "TestGroupWithDirectoryStore": ("DirectoryStore",),
    "TestGroupWithNestedDirectoryStore": ("NestedDirectoryStore",),
    "TestGroupWithFSStore": ("FSStore",),
    "TestGroupWithNestedFSStore": ("FSStore",),
    "TestGroupWithZipStore": ("ZipStore",),
    "TestGroupWithDBMStore": ("DBMStore",),
    "TestGroupWithLMDBStore": ("LMDBStore",),
    "TestGroupWithSQLiteStore": ("SQLiteStore",),
    "TestGroupWithChunkStore": ("KVStore",),
    "TestGroupWithStoreCache": ("LRUStoreCache", "KVStore"),
}
_numbers = itertools.count()


def over_ours(name: str, stores: tuple[str, ...]) -> type:
    """Return zarr's class of tests, in all of whose methods the stores of those names are ours."""

    class Over(getattr(suite, name)):  # type: ignore[misc]
        # zarr's class for archives passes it by: they delete nothing there.
        test_move = suite.TestGroup.test_move

        @pytest.fixture(autouse=True)
        def _ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
            # Below the folder of the test; zarr's tests remove theirs at exit.
            monkeypatch.setattr(suite, "mktemp", lambda suffix: str(tmp_path / f"{next(_numbers)}{suffix}"))
            monkeypatch.setattr(suite.atexit, "register", lambda *args: None)
            for store in stores:
                monkeypatch.setattr(suite, store, getattr(zarrstore, store))

    Over.__name__ = Over.__qualname__ = name
    return Over


globals().update({name: over_ours(name, stores) for name, stores in STORES.items()})
