"""The storage layer of Zarr version 2: every store a plain mapping of `str` to `bytes`."""

from zarrstore.adapt import KVStore, as_store
from zarrstore.base import Capabilities, Store
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

__version__ = "0.1.0"

__all__ = [
    "Capabilities",
    "DictStore",
    "KVStore",
    "MemoryStore",
    "Store",
    "as_store",
    "delitems",
    "getitems",
    "getrange",
    "getsize",
    "getsuffix",
    "keys_below",
    "listdir",
    "rename",
    "rmdir",
    "setitems",
]
