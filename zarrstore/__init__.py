"""The storage layer of Zarr version 2: every store a plain mapping of `str` to `bytes`."""

from zarrstore.adapt import KVStore, as_store
from zarrstore.base import Capabilities, Store
from zarrstore.hierarchy import contains_array, contains_group, delete_node, init_array, init_group
from zarrstore.ops import (
    delitems,
    getitems,
    getrange,
    getsize,
    getsuffix,
    keys_below,
    listdir,
    rename,
    rmdir,
    setitems,
)
from zarrstore.stores.dict import DictStore, MemoryStore
from zarrstore.tools.migrate_1to2 import migrate_1to2
from zarrstore.tools.migration import MigratedNode, MigrationReport
from zarrstore.tools.read import read_array

__version__ = "0.1.0"

__all__ = [
    "Capabilities",
    "DictStore",
    "KVStore",
    "MemoryStore",
    "MigratedNode",
    "MigrationReport",
    "Store",
    "as_store",
    "contains_array",
    "contains_group",
    "delete_node",
    "delitems",
    "getitems",
    "getrange",
    "getsize",
    "getsuffix",
    "init_array",
    "init_group",
    "keys_below",
    "listdir",
    "migrate_1to2",
    "read_array",
    "rename",
    "rmdir",
    "setitems",
]
