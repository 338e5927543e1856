"""The storage layer of Zarr version 2: every store a plain mapping of `str` to `bytes`.

Each public name is loaded from its module when it is first used, so that ``import zarrstore`` costs next to nothing.
"""

import importlib

__version__ = "0.2.0"

TYPE_CHECKING = False  # as type checkers read it; `import typing` costs more than all the rest of this file
if TYPE_CHECKING:
    from typing import Any

    from zarrstore.adapt import KVStore as KVStore
    from zarrstore.adapt import as_store as as_store
    from zarrstore.base import Capabilities as Capabilities
    from zarrstore.base import Store as Store
    from zarrstore.bridges.references import ReferenceStore as ReferenceStore
    from zarrstore.errors import ClosedStoreError as ClosedStoreError
    from zarrstore.errors import ConflictError as ConflictError
    from zarrstore.errors import ContainsArrayError as ContainsArrayError
    from zarrstore.errors import ContainsGroupError as ContainsGroupError
    from zarrstore.errors import DamagedStoreError as DamagedStoreError
    from zarrstore.errors import DestinationExistsError as DestinationExistsError
    from zarrstore.errors import InvalidKeyError as InvalidKeyError
    from zarrstore.errors import InvalidPathError as InvalidPathError
    from zarrstore.errors import LockedStoreError as LockedStoreError
    from zarrstore.errors import MetadataError as MetadataError
    from zarrstore.errors import MissingDependencyError as MissingDependencyError
    from zarrstore.errors import NodeNotFoundError as NodeNotFoundError
    from zarrstore.errors import NotRepresentableError as NotRepresentableError
    from zarrstore.errors import OverlapError as OverlapError
    from zarrstore.errors import ReadOnlyError as ReadOnlyError
    from zarrstore.errors import RenameError as RenameError
    from zarrstore.errors import RootIsFileError as RootIsFileError
    from zarrstore.errors import StoreNotFoundError as StoreNotFoundError
    from zarrstore.errors import StoreReadError as StoreReadError
    from zarrstore.errors import UnsupportedOperation as UnsupportedOperation
    from zarrstore.errors import ValueTooLargeError as ValueTooLargeError
    from zarrstore.errors import ZarrStoreError as ZarrStoreError
    from zarrstore.hierarchy import contains_array as contains_array
    from zarrstore.hierarchy import contains_group as contains_group
    from zarrstore.hierarchy import delete_node as delete_node
    from zarrstore.hierarchy import init_array as init_array
    from zarrstore.hierarchy import init_group as init_group
    from zarrstore.nodes import Node as Node
    from zarrstore.nodes import walk as walk
    from zarrstore.ops import delitems as delitems
    from zarrstore.ops import getitems as getitems
    from zarrstore.ops import getrange as getrange
    from zarrstore.ops import getranges as getranges
    from zarrstore.ops import getsize as getsize
    from zarrstore.ops import getsuffix as getsuffix
    from zarrstore.ops import keys_below as keys_below
    from zarrstore.ops import listdir as listdir
    from zarrstore.ops import rename as rename
    from zarrstore.ops import rmdir as rmdir
    from zarrstore.ops import setitems as setitems
    from zarrstore.registry import open_store as open_store
    from zarrstore.stores.dbm import DBMStore as DBMStore
    from zarrstore.stores.dict import DictStore as DictStore
    from zarrstore.stores.dict import MemoryStore as MemoryStore
    from zarrstore.stores.directory import DirectoryStore as DirectoryStore
    from zarrstore.stores.fsspec import FSStore as FSStore
    from zarrstore.stores.http import HTTPStore as HTTPStore
    from zarrstore.stores.lmdb import LMDBStore as LMDBStore
    from zarrstore.stores.nested import NestedDirectoryStore as NestedDirectoryStore
    from zarrstore.stores.obstore import ObstoreStore as ObstoreStore
    from zarrstore.stores.opendal import OpenDALStore as OpenDALStore
    from zarrstore.stores.sqlite import SQLiteStore as SQLiteStore
    from zarrstore.stores.temp import TempStore as TempStore
    from zarrstore.stores.zip import ZipStore as ZipStore
    from zarrstore.tools.checksums import dandi_checksum as dandi_checksum
    from zarrstore.tools.checksums import write_bagit_manifest as write_bagit_manifest
    from zarrstore.tools.clean import clean as clean
    from zarrstore.tools.consolidate import check_consolidated as check_consolidated
    from zarrstore.tools.consolidate import consolidate_metadata as consolidate_metadata
    from zarrstore.tools.consolidate import open_consolidated as open_consolidated
    from zarrstore.tools.copy import CopyError as CopyError
    from zarrstore.tools.copy import CopyResult as CopyResult
    from zarrstore.tools.copy import copy_store as copy_store
    from zarrstore.tools.diff import Difference as Difference
    from zarrstore.tools.diff import diff as diff
    from zarrstore.tools.manifest import manifest_of as manifest_of
    from zarrstore.tools.manifest import read_manifest as read_manifest
    from zarrstore.tools.manifest import write_manifest as write_manifest
    from zarrstore.tools.migrate_1to2 import migrate_1to2 as migrate_1to2
    from zarrstore.tools.migrate_1to3 import migrate_1to3 as migrate_1to3
    from zarrstore.tools.migrate_2to3 import migrate_2to3 as migrate_2to3
    from zarrstore.tools.migrate_3to2 import migrate_3to2 as migrate_3to2
    from zarrstore.tools.migrate_icechunk import migrate_to_icechunk as migrate_to_icechunk
    from zarrstore.tools.migration import MigratedNode as MigratedNode
    from zarrstore.tools.migration import MigrationReport as MigrationReport
    from zarrstore.tools.pack import pack as pack
    from zarrstore.tools.pack import unpack as unpack
    from zarrstore.tools.progress import Progress as Progress
    from zarrstore.tools.read import read_array as read_array
    from zarrstore.tools.references import write_references as write_references
    from zarrstore.tools.repair import repair as repair
    from zarrstore.tools.report import write_report as write_report
    from zarrstore.tools.respell import respell as respell
    from zarrstore.tools.shard import migrate_to_shards as migrate_to_shards
    from zarrstore.tools.tree import du as du
    from zarrstore.tools.tree import tree as tree
    from zarrstore.tools.verify import Problem as Problem
    from zarrstore.tools.verify import VerifyReport as VerifyReport
    from zarrstore.tools.verify import verify as verify
    from zarrstore.wrappers.consolidated import ConsolidatedStore as ConsolidatedStore
    from zarrstore.wrappers.filter import FilterStore as FilterStore
    from zarrstore.wrappers.lru import LRUStoreCache as LRUStoreCache
    from zarrstore.wrappers.metrics import MetricsStore as MetricsStore
    from zarrstore.wrappers.n5view import N5View as N5View
    from zarrstore.wrappers.overlay import OverlayStore as OverlayStore
    from zarrstore.wrappers.prefix import PrefixStore as PrefixStore
    from zarrstore.wrappers.readonly import ReadOnlyStore as ReadOnlyStore
    from zarrstore.wrappers.retry import RetryStore as RetryStore
    from zarrstore.wrappers.split import SplitStore as SplitStore
    from zarrstore.wrappers.unsharded import UnshardedView as UnshardedView
    from zarrstore.wrappers.usagelog import UsageLogStore as UsageLogStore
    from zarrstore.wrappers.v2view import V2View as V2View
    from zarrstore.wrappers.v3view import V3View as V3View

#: Modules and their public names. The type checker reads the same table above; a test holds the two together.
_MODULES = {
    "adapt": "KVStore as_store",
    "base": "Capabilities Store",
    "bridges.references": "ReferenceStore",
    "errors": (
        "ClosedStoreError ConflictError ContainsArrayError ContainsGroupError DamagedStoreError "
        "DestinationExistsError InvalidKeyError InvalidPathError LockedStoreError MetadataError "
        "MissingDependencyError NodeNotFoundError NotRepresentableError OverlapError ReadOnlyError RenameError "
        "RootIsFileError StoreNotFoundError StoreReadError UnsupportedOperation ValueTooLargeError ZarrStoreError"
    ),
    "hierarchy": "contains_array contains_group delete_node init_array init_group",
    "nodes": "Node walk",
    "ops": "delitems getitems getrange getranges getsize getsuffix keys_below listdir rename rmdir setitems",
    "registry": "open_store",
    "stores.dbm": "DBMStore",
    "stores.dict": "DictStore MemoryStore",
    "stores.directory": "DirectoryStore",
    "stores.fsspec": "FSStore",
    "stores.http": "HTTPStore",
    "stores.lmdb": "LMDBStore",
    "stores.nested": "NestedDirectoryStore",
    "stores.obstore": "ObstoreStore",
    "stores.opendal": "OpenDALStore",
    "stores.sqlite": "SQLiteStore",
    "stores.temp": "TempStore",
    "stores.zip": "ZipStore",
    "tools.checksums": "dandi_checksum write_bagit_manifest",
    "tools.clean": "clean",
    "tools.consolidate": "check_consolidated consolidate_metadata open_consolidated",
    "tools.copy": "CopyError CopyResult copy_store",
    "tools.diff": "Difference diff",
    "tools.manifest": "manifest_of read_manifest write_manifest",
    "tools.migrate_1to2": "migrate_1to2",
    "tools.migrate_1to3": "migrate_1to3",
    "tools.migrate_2to3": "migrate_2to3",
    "tools.migrate_3to2": "migrate_3to2",
    "tools.references": "write_references",
    "tools.migrate_icechunk": "migrate_to_icechunk",
    "tools.repair": "repair",
    "tools.report": "write_report",
    "tools.respell": "respell",
    "tools.migration": "MigratedNode MigrationReport",
    "tools.pack": "pack unpack",
    "tools.progress": "Progress",
    "tools.read": "read_array",
    "tools.shard": "migrate_to_shards",
    "tools.tree": "du tree",
    "tools.verify": "Problem VerifyReport verify",
    "wrappers.consolidated": "ConsolidatedStore",
    "wrappers.filter": "FilterStore",
    "wrappers.lru": "LRUStoreCache",
    "wrappers.metrics": "MetricsStore",
    "wrappers.n5view": "N5View",
    "wrappers.overlay": "OverlayStore",
    "wrappers.prefix": "PrefixStore",
    "wrappers.readonly": "ReadOnlyStore",
    "wrappers.retry": "RetryStore",
    "wrappers.split": "SplitStore",
    "wrappers.unsharded": "UnshardedView",
    "wrappers.usagelog": "UsageLogStore",
    "wrappers.v2view": "V2View",
    "wrappers.v3view": "V3View",
}
_HOMES = {name: f"zarrstore.{module}" for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> "Any":
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'zarrstore' has no attribute {name!r}") from None
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
