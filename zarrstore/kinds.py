"""The kinds of store that `open_store` knows: one row each, with all by which a kind is recognised and opened.

Classes stand here by their dotted names and are imported on use, so that nobody pays for a backend that is not opened.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "KINDS",
    "LOOKED_FOR",
    "LOOKED_FOR_AT_URL",
    "Kind",
    "foreign_adapter",
    "foreign_place",
    "is_reference_metadata",
    "kind_of_content",
    "kind_of_scheme",
    "kind_of_suffix",
    "load",
]


@dataclass(frozen=True)
class Kind:
    """One kind of store.

    Parameters
    ----------
    name : str
        What error messages call it.
    target : str
        Dotted name of its class, or of what makes a store from a URL.
    suffixes : tuple of str
        Of files and directories that are made as this kind where nothing is yet.
    schemes : tuple of str
        Of URLs that always mean this kind.
    magic : tuple of (offset, bytes)
        What the file of such a store holds at an offset within its first 64 bytes; one of them is enough.
    modes : mapping of str to mapping
        Arguments by which the class itself opens in a mode of `open_store`. Modes that are not here are applied from
        outside.
    erases : bool
        Whether its mode ``w`` erases by itself.
    is_folder : bool
        Whether its place is a directory of anybody's files, of which nothing proves that they are a store's.
    """

    name: str
    target: str
    suffixes: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    magic: tuple[tuple[int, bytes], ...] = ()
    modes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    erases: bool = False
    is_folder: bool = False

    @property
    def make(self) -> Callable[..., Any]:
        """What makes a store of this kind, imported now."""
        return load(self.target)

    @property
    def label(self) -> str:
        """The name with its article."""
        return (
            f"an {self.name}"
            if self.name in ("n5", "lmdb", "sqlite", "http", "icechunk", "obstore", "opendal")
            else f"a {self.name}"
        )

    def claims(self, head: bytes) -> bool:
        """Tell whether a file that begins with `head` is of this kind."""
        return any(head[offset : offset + len(sign)] == sign for offset, sign in self.magic)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("dict", "zarrstore.stores.dict:DictStore", schemes=("dict",)),
        Kind("dir", "zarrstore.stores.directory:DirectoryStore", schemes=("dir",), is_folder=True),
        Kind("nested", "zarrstore.stores.nested:NestedDirectoryStore", schemes=("nested",), is_folder=True),
        Kind("n5", "zarrstore.registry:n5_directory", suffixes=(".n5",), schemes=("n5",), is_folder=True),
        Kind(
            "zip",
            "zarrstore.stores.zip:ZipStore",
            suffixes=(".zip", ".ozx"),
            schemes=("zip",),
            magic=((0, b"PK\x03\x04"), (0, b"PK\x05\x06"), (0, b"PK\x07\x08")),
            modes={"r": {"mode": "r"}, "w": {"mode": "w"}, "w-": {"mode": "x"}},
            erases=True,
        ),
        Kind(
            "lmdb",
            "zarrstore.stores.lmdb:LMDBStore",
            suffixes=(".lmdb", ".mdb"),
            schemes=("lmdb",),
            magic=((16, b"\xde\xc0\xef\xbe"), (16, b"\xbe\xef\xc0\xde")),
            modes={"r": {"readonly": True}},
        ),
        Kind(
            "sqlite",
            "zarrstore.stores.sqlite:SQLiteStore",
            suffixes=(".sqlite", ".sqlite3", ".db"),
            schemes=("sqlite",),
            magic=((0, b"SQLite format 3\0"),),
        ),
        Kind(
            "dbm",
            "zarrstore.stores.dbm:DBMStore",
            suffixes=(".dbm", ".bdb", ".gdbm"),
            schemes=("dbm",),
            modes={"r": {"flag": "r"}, "r+": {"flag": "w"}, "w": {"flag": "n"}},
            erases=True,
        ),
        Kind(
            "reference",
            "zarrstore.tools.references:open_references",
            suffixes=(".json", ".parq", ".parquet"),
            schemes=("references",),
            magic=((0, b"{"),),
        ),
        Kind("http", "zarrstore.stores.http:HTTPStore", schemes=("http", "https")),
        Kind("fsspec", "zarrstore.stores.fsspec:FSStore"),
        Kind("icechunk", "zarrstore.bridges.icechunk:open_repository"),
        Kind("zarr3", "zarrstore.bridges.zarr3:open_target"),
        Kind("obstore", "zarrstore.stores.obstore:ObstoreStore.from_url"),
        Kind("opendal", "zarrstore.stores.opendal:OpenDALStore.from_url"),
    )
}

LOOKED_FOR = "a directory, or a zip, LMDB, SQLite, DBM or reference file by its content"
#: The same of a URL.
LOOKED_FOR_AT_URL = "keys below it, or a zip, LMDB, SQLite, DBM or reference file; there is neither"

#: Foreign objects that are no mappings: module and name of a class that they inherit -> what adapts them.
_FOREIGN = {
    ("zarr.abc.store", "Store"): "zarrstore.bridges.zarr3:AsyncStoreMapping",
    ("zarr.storage._common", "StorePath"): "zarrstore.bridges.zarrnodes:store_of_path",
    ("zarr", "Group"): "zarrstore.bridges.zarrnodes:store_of_node",
    ("zarr", "Array"): "zarrstore.bridges.zarrnodes:store_of_node",
    ("icechunk.session", "Session"): "zarrstore.bridges.icechunk:IcechunkStore",
    ("obstore.store", ""): "zarrstore.stores.obstore:ObstoreStore",
    ("opendal.operator", "Operator"): "zarrstore.stores.opendal:OpenDALStore",
    ("opendal", "Operator"): "zarrstore.stores.opendal:OpenDALStore",
    ("upath.core", "UPath"): "zarrstore.stores.fsspec:FSStore.from_upath",
}


def load(dotted: str) -> Callable[..., Any]:
    """Return what ``"module:name.name"`` stands for, imported now."""
    module, _, names = dotted.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found  # type: ignore[no-any-return]


def foreign_adapter(target: object) -> Callable[..., Any] | None:
    """Return what adapts a foreign store object, told by the classes it inherits, so that none need be imported."""
    for cls in type(target).__mro__:
        for (module, name), dotted in _FOREIGN.items():
            if name in ("", cls.__name__) and f"{cls.__module__}.".startswith(f"{module}."):
                return load(dotted)
    return None


def kind_of_scheme(scheme: str) -> Kind | None:
    """Return the kind that a URL's scheme always means, None if it leaves it open."""
    return next((kind for kind in KINDS.values() if scheme in kind.schemes), None)


def foreign_place(target: object) -> tuple[str, str] | None:
    """Return the kind and the place of a target in a store of others.

    Examples
    --------
    >>> foreign_place("icechunk+s3://bucket/repo"), foreign_place("icechunk:///data/repo")
    (('icechunk', 's3://bucket/repo'), ('icechunk', '/data/repo'))
    >>> foreign_place("zarr3:s3://bucket/x"), foreign_place("zarr3:x.zip"), foreign_place("x:y")
    (('zarr3', 's3://bucket/x'), ('zarr3', 'x.zip'), None)
    """
    if not isinstance(target, str):
        return None
    name, sign, place = target.partition(":")
    kind, plus, scheme = name.partition("+")
    if kind not in ("icechunk", "zarr3") or not sign or not place or os.path.exists(target):
        return None
    if plus:
        return kind, f"{scheme}:{place}"
    return kind, place.lstrip(":").removeprefix("//")


def kind_of_suffix(path: str) -> Kind:
    """Return the kind that is made at a path where nothing is yet."""
    suffix = os.path.splitext(path.rstrip("/\\" if os.name == "nt" else "/"))[1].lower()
    return next((kind for kind in KINDS.values() if suffix in kind.suffixes), KINDS["dir"])


def kind_of_head(head: bytes) -> Kind | None:
    """Return the kind of a file that begins with `head` (64 bytes are enough), None if it is none that is known."""
    return next((kind for kind in KINDS.values() if kind.claims(head)), None)


def kind_of_content(path: str) -> Kind | None:
    """Return the kind of store that is at a path; None if nothing is there, or nothing that is known."""
    if os.path.isdir(path):
        return KINDS[_kind_of_directory(path)]
    sqlite = sys.modules.get("zarrstore.stores.sqlite")
    if sqlite is not None and sqlite.is_open_here(path):
        return KINDS["sqlite"]  # to read the head and close the file would drop SQLite's locks, which are the process's
    head = b""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            head = file.read(64)
    elif os.path.exists(path):
        return None  # a pipe or a device: to read it could wait for ever
    kind = kind_of_head(head)
    if kind is not None:
        return KINDS["dbm"] if kind.name == "sqlite" and _is_dbm_sqlite(path) else kind
    import dbm

    return KINDS["dbm"] if dbm.whichdb(path) else None


#: Documents that make a directory a Zarr hierarchy, whatever else lies beside them.
_ZARR = (".zgroup", ".zarray", ".zmetadata", "zarr.json")


def _kind_of_directory(path: str) -> str:
    def holds(name: str) -> bool:
        return os.path.isfile(os.path.join(path, name))

    if holds("data.mdb"):
        return "lmdb"
    if any(map(holds, _ZARR)):
        return "reference" if _holds_references(path) else "dir"
    return "n5" if holds("attributes.json") else "dir"


def _holds_references(path: str) -> bool:
    """Tell a folder of references in Parquet, whose ``.zmetadata`` says how many stand in a table, from a hierarchy."""
    if any(os.path.lexists(os.path.join(path, name)) for name in _ZARR if name != ".zmetadata"):
        return False
    with open(os.path.join(path, ".zmetadata"), "rb") as file:
        return is_reference_metadata(file.read())


def is_reference_metadata(data: bytes) -> bool:
    """Tell whether a ``.zmetadata`` is that of references in Parquet.

    Examples
    --------
    >>> is_reference_metadata(b'{"metadata": {}, "record_size": 10}'), is_reference_metadata(b'{"metadata": {}}')
    (True, False)
    """
    import json

    if b'"record_size"' not in data:
        return False
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "record_size" in document and "zarr_consolidated_format" not in document


def _is_dbm_sqlite(path: str) -> bool:
    """Tell Python 3.13's dbm.sqlite3, whose table is named Dict, from zarr 2's SQLiteStore."""
    import sqlite3
    from pathlib import Path

    try:
        with sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error:
        return False
    finally:
        if "connection" in locals():
            connection.close()
    return [name for (name,) in rows] == ["Dict"]
