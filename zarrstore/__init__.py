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
from zarrstore.packing import pack, unpack
from zarrstore.registry import open_store
from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.dict import DictStore, MemoryStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.http import HTTPStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.stores.temp import TempStore
from zarrstore.stores.zip import ZipStore
from zarrstore.tools.clean import clean
from zarrstore.tools.consolidate import check_consolidated, consolidate_metadata, open_consolidated
from zarrstore.tools.copy import CopyError, CopyResult, copy_store
from zarrstore.tools.diff import Difference, diff
from zarrstore.tools.manifest import manifest_of, read_manifest, write_manifest
from zarrstore.tools.migrate_1to2 import migrate_1to2
from zarrstore.tools.migrate_2to3 import migrate_1to3, migrate_2to3
from zarrstore.tools.migration import MigratedNode, MigrationReport
from zarrstore.tools.nodes import Node, walk
from zarrstore.tools.progress import Progress
from zarrstore.tools.read import read_array
from zarrstore.tools.tree import du, tree
from zarrstore.tools.verify import Problem, VerifyReport, verify
from zarrstore.wrappers.consolidated import ConsolidatedStore
from zarrstore.wrappers.filter import FilterStore
from zarrstore.wrappers.lru import LRUStoreCache
from zarrstore.wrappers.metrics import MetricsStore
from zarrstore.wrappers.overlay import OverlayStore
from zarrstore.wrappers.prefix import PrefixStore
from zarrstore.wrappers.readonly import ReadOnlyStore
from zarrstore.wrappers.retry import RetryStore
from zarrstore.wrappers.split import SplitStore
from zarrstore.wrappers.usagelog import UsageLogStore

__version__ = "0.1.0"

__all__ = [
    "Capabilities",
    "ConsolidatedStore",
    "CopyError",
    "CopyResult",
    "DBMStore",
    "DictStore",
    "Difference",
    "DirectoryStore",
    "FilterStore",
    "HTTPStore",
    "KVStore",
    "LMDBStore",
    "LRUStoreCache",
    "MemoryStore",
    "MetricsStore",
    "MigratedNode",
    "MigrationReport",
    "NestedDirectoryStore",
    "Node",
    "OverlayStore",
    "PrefixStore",
    "Problem",
    "Progress",
    "ReadOnlyStore",
    "RetryStore",
    "SQLiteStore",
    "SplitStore",
    "Store",
    "TempStore",
    "UsageLogStore",
    "VerifyReport",
    "ZipStore",
    "as_store",
    "check_consolidated",
    "clean",
    "consolidate_metadata",
    "contains_array",
    "contains_group",
    "copy_store",
    "delete_node",
    "delitems",
    "diff",
    "du",
    "getitems",
    "getrange",
    "getsize",
    "getsuffix",
    "init_array",
    "init_group",
    "keys_below",
    "listdir",
    "manifest_of",
    "migrate_1to2",
    "migrate_1to3",
    "migrate_2to3",
    "open_consolidated",
    "open_store",
    "pack",
    "read_array",
    "read_manifest",
    "rename",
    "rmdir",
    "setitems",
    "tree",
    "unpack",
    "verify",
    "walk",
    "write_manifest",
]
