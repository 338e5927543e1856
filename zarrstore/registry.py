"""open_store: from a path, a URL or a foreign object to a Store. By content first, then by suffix, then by scheme.

Classes stand here by their dotted names and are imported on use, so that nobody pays for a backend that is not opened.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import DestinationExistsError, StoreNotFoundError

__all__ = ["MODES", "open_store", "store_class"]

MODES = ("r", "r+", "a", "w", "w-", "x")

_CLASSES = {
    "dict": "zarrstore.stores.dict:DictStore",
    "dir": "zarrstore.stores.directory:DirectoryStore",
    "nested": "zarrstore.stores.nested:NestedDirectoryStore",
    "zip": "zarrstore.stores.zip:ZipStore",
    "lmdb": "zarrstore.stores.lmdb:LMDBStore",
    "dbm": "zarrstore.stores.dbm:DBMStore",
    "sqlite": "zarrstore.stores.sqlite:SQLiteStore",
    "http": "zarrstore.stores.http:HTTPStore",
    "fsspec": "zarrstore.stores.fsspec:FSStore",
    "obstore": "zarrstore.stores.obstore:ObstoreStore",
    "opendal": "zarrstore.stores.opendal:OpenDALStore",
    "readonly": "zarrstore.wrappers.readonly:ReadOnlyStore",
}

_SUFFIXES = {
    ".zip": "zip",
    ".lmdb": "lmdb",
    ".mdb": "lmdb",
    ".db": "dbm",
    ".dbm": "dbm",
    ".bdb": "dbm",
    ".gdbm": "dbm",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
}

#: Foreign objects that are no mappings: module and name of a class that they inherit -> what adapts them.
_FOREIGN = {
    ("zarr.abc.store", "Store"): "zarrstore.bridges.zarr3:AsyncStoreMapping",
    ("zarr.storage._common", "StorePath"): "zarrstore.bridges.zarr3:AsyncStoreMapping",
    ("icechunk.session", "Session"): "zarrstore.bridges.icechunk:IcechunkStore",
    ("obstore.store", ""): "zarrstore.stores.obstore:ObstoreStore",
    ("opendal.operator", "Operator"): "zarrstore.stores.opendal:OpenDALStore",
    ("opendal", "Operator"): "zarrstore.stores.opendal:OpenDALStore",
    ("upath.core", "UPath"): "zarrstore.stores.fsspec:FSStore.from_upath",
}

_LOOKED_FOR = "a directory, or a zip, LMDB, SQLite or DBM file by its content"


def open_store(
    target: Any = None,
    mode: str = "a",
    *,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Store:
    """Return the store that a path, a URL, a mapping or a foreign store object stands for.

    Parameters
    ----------
    target : str, path-like, mapping or store object, optional
        What to open: see the table below. None is a new DictStore.
    mode : {'r', 'r+', 'a', 'w', 'w-'}, default 'a'
        ``r`` must exist, and the result refuses writes; ``r+`` must exist; ``a`` creates what is missing; ``w``
        erases; ``w-`` (or ``x``) must not exist.
    storage_options : mapping, optional
        For a URL: what its file system needs to be told.
    **options
        Passed to the store's class.

    Returns
    -------
    Store

    Raises
    ------
    StoreNotFoundError
        Nothing is there and `mode` does not create, or what is there is nothing of ours. Says what was looked for.
    DestinationExistsError
        `mode` is ``w-`` and something is there.
    DamagedStoreError
        A file is there by its suffix and is not what its suffix says.
    MissingDependencyError
        The store needs a package that is not installed.
    ValueError
        A mode that does not exist, or `storage_options` for what is no URL.

    Notes
    -----
    =============================================  ===========================================================
    target                                         opened as
    =============================================  ===========================================================
    existing file                                  by its first bytes: zip, SQLite, LMDB, DBM
    existing directory                             LMDBStore if it holds ``data.mdb``, else DirectoryStore
    missing: ``.zip``; ``.lmdb .mdb``;             ZipStore; LMDBStore;
    ``.sqlite .sqlite3``; ``.db .dbm .bdb``        SQLiteStore; DBMStore
    any other path                                 DirectoryStore; Nested with ``dimension_separator="/"``
    ``file://`` ``local://``                       as the path
    ``zip:// lmdb:// dbm:// sqlite:// dir://``     that store, whatever the suffix; ``nested://`` ``dict://`` too
    ``http://`` ``https://``                       HTTPStore; FSStore with `storage_options`
    ``obstore+URL`` ``opendal+SCHEME://``          ObstoreStore, OpenDALStore
    any other ``SCHEME://``, any ``A::B``          FSStore
    mapping                                        itself, as a Store; ReadOnlyStore if it cannot be written
    zarr 3 store, Icechunk session, obstore        the bridge over it
    store, OpenDAL operator, UPath
    =============================================  ===========================================================

    ``~`` is expanded in paths. Source: the rules of zarr 2.18 and 3.4, where they agree; by content first is this
    package's.

    Examples
    --------
    >>> open_store({"a": b"1"}, mode="r")["a"]
    b'1'
    >>> open_store("no/such/place", mode="r")
    Traceback (most recent call last):
    zarrstore.errors.StoreNotFoundError: no store at 'no/such/place': looked for a directory, or a zip, LMDB, ...
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; it is one of {', '.join(MODES)}")
    mode = "w-" if mode == "x" else mode
    if isinstance(target, str) and ("://" in target or "::" in target):
        return _open_url(target, mode, storage_options, options)
    if storage_options:
        raise ValueError(f"storage_options are for URLs, and {target!r} is none")
    if target is None:
        return _ready(store_class("dict")(**options), mode, there=False, target="a new DictStore")
    foreign = _foreign(target)
    if foreign is not None:
        return _ready(foreign(target, **options), mode, target=target)
    if isinstance(target, Mapping):
        return _ready(as_store(target), mode, target=target)
    if isinstance(target, str | os.PathLike):
        return _open_path(os.fspath(target), mode, options)
    raise TypeError(
        f"cannot open {type(target).__name__} as a store: a path, URL, mapping, zarr 3 store, obstore store, "
        "OpenDAL operator, UPath or Icechunk session is expected"
    )


def store_class(kind: str) -> Callable[..., Any]:
    """Return the class of a kind of store ("zip", "dir" ...), imported now, for verbs, which import no store."""
    return _load(_CLASSES[kind])


def _load(dotted: str) -> Callable[..., Any]:
    module, _, names = dotted.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found  # type: ignore[no-any-return]


def _foreign(target: object) -> Callable[..., Any] | None:
    """Return what adapts a foreign store object, told by the classes it inherits, so that none need be imported."""
    for cls in type(target).__mro__:
        for (module, name), dotted in _FOREIGN.items():
            if name in ("", cls.__name__) and _within(cls.__module__, module):
                return _load(dotted)
    return None


def _within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _ready(store: Store, mode: str, *, target: object, there: bool | None = None) -> Store:
    """Bring a store that cannot be opened in a mode of its own into the wanted one."""
    if mode in ("w", "w-") and there is None:
        there = _holds_something(store)
    if mode == "w" and there:
        store.clear()
    if mode == "w-" and there:
        raise DestinationExistsError("", str(target), "open it with mode 'a', or erase it with mode 'w'")
    if mode == "r" and store.capabilities.writable:
        return store_class("readonly")(store)  # type: ignore[no-any-return]
    return store


def _holds_something(store: Store) -> bool:
    # One that cannot be listed (HTTP) is there or not when its first value is asked for.
    return bool(store) if store.capabilities.listable else True


# URLs ---------------------------------------------------------------------------------------------------------------


def _open_url(url: str, mode: str, storage_options: Mapping[str, Any] | None, options: dict[str, Any]) -> Store:
    scheme, _, rest = url.partition("://")
    told = dict(storage_options or {})
    if "::" not in url:
        if scheme in ("file", "local"):
            return _open_path(_local(rest), mode, options)
        if scheme == "dict":
            return _ready(store_class("dict")(**options), mode, target=url, there=False)
        if scheme in ("dir", "nested", "zip", "lmdb", "dbm", "sqlite"):
            return _open_kind(scheme, _local(rest), mode, options)
        if scheme in ("http", "https") and not told:
            return _ready(store_class("http")(url, **options), mode, target=url)
    if scheme.startswith(("obstore+", "opendal+")):
        kind, _, inner = scheme.partition("+")
        made = _load(f"{_CLASSES[kind]}.from_url")(f"{inner}://{rest}", **told, **options)
        return _ready(made, mode, target=url)
    return _ready(store_class("fsspec")(url, **told, **options), mode, target=url)


def _local(rest: str) -> str:
    return unquote(rest)


# Paths --------------------------------------------------------------------------------------------------------------


def _open_path(path: str, mode: str, options: dict[str, Any]) -> Store:
    path = os.path.expanduser(path)
    kind = _kind_by_content(path)
    if kind is None:
        kind = _kind_by_suffix(path, options)
        if mode in ("r", "r+") and not os.path.exists(path):
            raise StoreNotFoundError(path, _LOOKED_FOR)
        if kind in ("dir", "nested") and os.path.isfile(path):
            raise StoreNotFoundError(path, f"{_LOOKED_FOR}; a file of another kind is there")
    if kind == "dir" and options.get("dimension_separator") == "/":
        kind = "nested"
    return _open_kind(kind, path, mode, options)


def _kind_by_suffix(path: str, options: Mapping[str, Any]) -> str:
    return _SUFFIXES.get(Path(path).suffix.lower(), "dir")


def _kind_by_content(path: str) -> str | None:
    """Tell what is at a path; None if nothing, or nothing that is known."""
    if os.path.isdir(path):
        return "lmdb" if os.path.isfile(os.path.join(path, "data.mdb")) else "dir"
    sqlite = sys.modules.get("zarrstore.stores.sqlite")
    if sqlite is not None and sqlite.is_open_here(path):
        return "sqlite"  # to read the head and close the file would drop SQLite's locks, which are the process's
    head = b""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            head = file.read(64)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head.startswith(b"SQLite format 3\0"):
        return "dbm" if _is_dbm_sqlite(path) else "sqlite"
    if head[16:20] in (b"\xde\xc0\xef\xbe", b"\xbe\xef\xc0\xde"):
        return "lmdb"
    import dbm

    return "dbm" if dbm.whichdb(path) else None


def _is_dbm_sqlite(path: str) -> bool:
    """Tell Python 3.13's dbm.sqlite3, whose table is named Dict, from zarr 2's SQLiteStore."""
    import sqlite3

    try:
        with sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error:
        return False
    finally:
        if "connection" in locals():
            connection.close()
    return [name for (name,) in rows] == ["Dict"]


def _open_kind(kind: str, path: str, mode: str, options: dict[str, Any]) -> Store:
    there = _is_there(kind, path)
    # An empty directory is an empty store to read, and none that `w-` would have to spare.
    if mode in ("r", "r+") and not (there or os.path.isdir(path)):
        raise StoreNotFoundError(path, f"{_article(kind)} {kind} store there")
    if mode == "w-" and there:
        raise DestinationExistsError("", path, "open it with mode 'a', or erase it with mode 'w'")
    make = store_class(kind)
    told = {**_OWN_MODES.get(kind, {}).get(mode, {}), **options}
    if kind == "lmdb" and "subdir" not in told and os.path.isfile(path):
        told["subdir"] = False
    store: Store = make(path, **told)
    erased = mode == "w" and kind not in ("zip", "dbm")
    return _ready(store, mode, target=path, there=there and erased)


#: How the classes that have modes of their own are told.
_OWN_MODES: dict[str, dict[str, dict[str, Any]]] = {
    "zip": {"r": {"mode": "r"}, "w": {"mode": "w"}, "w-": {"mode": "x"}},
    "dbm": {"r": {"flag": "r"}, "r+": {"flag": "w"}, "w": {"flag": "n"}},
    "lmdb": {"r": {"readonly": True}},
}


def _is_there(kind: str, path: str) -> bool:
    if kind == "dbm":
        import dbm

        return os.path.isfile(path) or bool(dbm.whichdb(path))
    if kind in ("dir", "nested"):
        return os.path.isdir(path) and any(os.scandir(path))
    return os.path.exists(path)


def _article(kind: str) -> str:
    return "an" if kind == "lmdb" else "a"
