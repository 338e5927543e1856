"""zarr 2.18.7's own tests of storage, over our stores and functions; collected under that zarr only, where named."""

from __future__ import annotations

import zarr.tests.test_storage as suite

import zarrstore
import zarrstore.bridges.zarr2

for _name in (
    "DBMStore DictStore DirectoryStore KVStore LMDBStore LRUStoreCache MemoryStore NestedDirectoryStore SQLiteStore"
    " TempStore ZipStore"
).split():
    setattr(suite, _name, getattr(zarrstore, _name))
suite.ConsolidatedMetadataStore = zarrstore.ConsolidatedStore
suite.TestZipStore.ZipStoreClass = zarrstore.ZipStore
suite.TestLRUStoreCache.LRUStoreClass = zarrstore.LRUStoreCache
suite.TestConsolidatedMetadataStore.ConsolidatedMetadataClass = zarrstore.ConsolidatedStore

# The tests, and the fixtures that they ask for. Those of zarr's FSStore and N5 stores are tests of those.
globals().update({name: value for name, value in vars(suite).items() if not name.startswith("__")})
for _name in [name for name in globals() if "FSStore" in name or "N5" in name]:
    del globals()[_name]
