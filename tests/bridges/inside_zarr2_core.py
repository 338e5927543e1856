"""zarr 2.18.7's own tests of arrays, over our stores; collected under that zarr only, where named."""

from __future__ import annotations

import zarr.tests.test_core as suite

import zarrstore
import zarrstore.bridges.zarr2

for _name in "DBMStore DirectoryStore KVStore LMDBStore LRUStoreCache NestedDirectoryStore SQLiteStore".split():
    setattr(suite, _name, getattr(zarrstore, _name))

# Version 3 was an experiment of that zarr, with stores of its own.
globals().update({name: value for name, value in vars(suite).items() if not name.startswith("__")})
for _name in [name for name in globals() if "FSStore" in name or "N5" in name or "V3" in name]:
    del globals()[_name]
