"""Every store that many threads may share, and every wrapper: what the checks of histories and machines run over.

Makers take a folder and return a new store that holds nothing but the documents without which it would take no chunk.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import roster
from zarrstore import KVStore, LRUStoreCache, as_store
from zarrstore.metadata import documents, v2, v3
from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.zip import ZipStore
from zarrstore.wrappers.consolidated import ConsolidatedStore
from zarrstore.wrappers.n5view import N5View
from zarrstore.wrappers.overlay import OverlayStore
from zarrstore.wrappers.unsharded import UnshardedView
from zarrstore.wrappers.v2view import V2View
from zarrstore.wrappers.v3view import V3View

Maker = Callable[[Path], Any]

#: Chunks of two arrays, so that the views know their names too.
CHUNKS = ["a/0", "a/1", "b/0", "b/1"]


def array_document() -> bytes:
    """Return the ``.zarray`` of an array that has all of `CHUNKS`."""
    return v2.encode_array(v2.build_array(shape=64, chunks=8, dtype="u1", compressor=None, fill_value=0))


def arrays(store: Any) -> Any:
    """Set the documents of two arrays."""
    store["a/.zarray"] = store["b/.zarray"] = array_document()
    return store


def arrays_of_v3(store: Any) -> Any:
    meta = v2.decode_array(array_document(), "a/.zarray")
    document = documents.dumps(v3.array_v2_to_v3(meta, {}, separator=".").document)
    store["a/zarr.json"] = store["b/zarr.json"] = document
    return store


def consolidated(path: Path) -> Any:
    inner = DirectoryStore(path / "data")
    inner[".zmetadata"] = b'{"zarr_consolidated_format": 1, "metadata": {".zgroup": {"zarr_format": 2}}}'
    return ConsolidatedStore(inner, write_chunks=True)


#: Beside those of the roster.
STORES: dict[str, Maker] = {
    **roster.STORES,
    "KVStore-shared-root": lambda path: KVStore({}),
    "DirectoryStore-flush": lambda path: DirectoryStore(path / "data", durability="flush"),
    "ZipStore-deflated": lambda path: ZipStore(path / "data.zip", compression=8),
}
STORES.pop("dict")
for _name in ("gnu", "ndbm", "sqlite3"):
    if importlib.util.find_spec({"gnu": "_gdbm", "ndbm": "_dbm", "sqlite3": "dbm.sqlite3"}[_name]):
        _open = importlib.import_module(f"dbm.{_name}").open
        STORES[f"DBMStore-{_name}"] = lambda path, _open=_open: DBMStore(path / "data", open=_open)
if importlib.util.find_spec("obstore"):
    import obstore

    from zarrstore.stores.obstore import ObstoreStore

    STORES["ObstoreStore"] = lambda path: ObstoreStore(obstore.store.MemoryStore())
    STORES["ObstoreStore-files"] = lambda path: ObstoreStore(obstore.store.LocalStore(path / "data", mkdir=True))
if importlib.util.find_spec("opendal"):
    import opendal

    from zarrstore.stores.opendal import OpenDALStore

    STORES["OpenDALStore-files"] = lambda path: OpenDALStore(
        opendal.Operator("fs", root=str(path / "data"), atomic_write_dir=str(path / "aside"))
    )

#: Wrappers over one store of the caller's: those of the roster that can be written, and caches of every size.
WRAPPERS: dict[str, Callable[[Any, Path], Any]] = {
    **roster.WRAPPERS,
    "LRUStoreCache-files": lambda inner, path: LRUStoreCache(inner, 70, cache=DirectoryStore(path / "tier")),
    "OverlayStore-files": lambda inner, path: OverlayStore(inner, DirectoryStore(path / "upper")),
    "UnshardedView": lambda inner, path: UnshardedView(inner),
}
WRAPPERS.pop("ReadOnlyStore")

#: Views, which take chunks of arrays only: no directory is removed.
VIEWS: dict[str, Maker] = {
    "NestedDirectoryStore of arrays": lambda path: arrays(NestedDirectoryStore(path / "data")),
    "V2View": lambda path: arrays(V2View(DirectoryStore(path / "data"))),
    "V3View": lambda path: arrays_of_v3(V3View(DirectoryStore(path / "data"))),
    "N5View": lambda path: N5View(arrays(N5View(DirectoryStore(path / "data"))).inner),
    "ConsolidatedStore": consolidated,
}
if importlib.util.find_spec("icechunk"):
    import icechunk

    from zarrstore.bridges.icechunk import IcechunkStore

    VIEWS["IcechunkStore"] = lambda path: arrays(
        IcechunkStore(icechunk.Repository.create(icechunk.in_memory_storage()))
    )


def stack_of_three(seed: int) -> tuple[str, Maker]:
    """Return the name and the maker of three random wrappers over a random store."""
    rng = random.Random(seed)
    base = rng.choice(list(STORES))
    outer = [rng.choice(list(WRAPPERS)) for _ in range(3)]

    def make(path: Path) -> Any:
        store = STORES[base](path)
        for number, name in enumerate(reversed(outer)):
            place = path / str(number)
            place.mkdir()
            store = WRAPPERS[name](store, place)
        return as_store(store)

    return " over ".join([*outer, base]), make
