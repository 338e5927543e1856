"""open_store: from a path, a URL or a foreign object to a Store. By content first, then by suffix, then by scheme.

What each kind of store is recognised by stands in `kinds`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import DamagedStoreError, DestinationExistsError, StoreNotFoundError, UnsupportedOperation
from zarrstore.kinds import (
    KINDS,
    LOOKED_FOR,
    LOOKED_FOR_AT_URL,
    Kind,
    foreign_adapter,
    foreign_place,
    is_reference_metadata,
    kind_of_content,
    kind_of_scheme,
    kind_of_suffix,
    load,
)
from zarrstore.metadata import documents

if TYPE_CHECKING:
    from zarrstore.remotefile import RemoteFile

__all__ = ["MODES", "holds_hierarchy", "open_store", "remote_store", "store_class"]

MODES = ("r", "r+", "a", "w", "w-", "x")

#: Documents that prove a hierarchy: those of all versions.
_IS_WINDOWS = os.name == "nt"
_DOCUMENTS = (*sorted(documents.DOCUMENTS), "meta", "attributes.json")


def open_store(
    target: Any = None,
    mode: Literal["r", "r+", "a", "w", "w-", "x"] = "a",
    *,
    storage_options: Mapping[str, Any] | None = None,
    force: bool = False,
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
    force : bool, default False
        With ``w``: erase a folder although nothing in it proves that it holds a Zarr hierarchy.
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
        `mode` is ``w-`` and something is there; or it is ``w``, and a folder is there that holds no hierarchy.
    DamagedStoreError
        A file is there by its suffix and is not what its suffix says.
    MissingDependencyError
        The store needs a package that is not installed.
    ValueError
        A mode that does not exist, an empty path, or `storage_options` for what is no URL.

    Notes
    -----
    =============================================  ===========================================================
    target                                         opened as
    =============================================  ===========================================================
    existing file                                  by its first bytes: zip, SQLite, LMDB, DBM, reference file in JSON
    existing directory                             LMDBStore if it holds ``data.mdb``, N5View if its root is N5,
                                                   ReferenceStore if it holds references in Parquet, else DirectoryStore
    missing: ``.n5``; ``.zip .ozx``;               N5View; ZipStore;
    ``.lmdb .mdb``;                                LMDBStore;
    ``.sqlite .sqlite3 .db``; ``.dbm .bdb``        SQLiteStore; DBMStore
    any other path                                 DirectoryStore; Nested with ``dimension_separator="/"``, and where
                                                   chunks lie nested below documents that do not say so (zarr 2.0-2.7)
    ``file://`` ``local://``                       as the path
    ``zip:// lmdb:// dbm:// sqlite:// dir://``     that store, whatever the suffix; ``nested://`` ``dict://`` too
    ``http://`` ``https://``                       HTTPStore; FSStore with `storage_options`
    ``zarrstore+http://`` ``zarrstore+https://``   HTTPStore of what ``zarrstore serve`` serves: it can be listed
    ``obstore+URL`` ``opendal+SCHEME://``          ObstoreStore, OpenDALStore
    ``icechunk://PATH`` ``icechunk+s3://``         IcechunkStore, whose `close` commits (``message=``)
    ``zarr3:TARGET``                               what zarr 3 makes of a path, a zip file or a URL, under its own keys
    any other ``SCHEME://``, any ``A::B``          FSStore
    any of these four, ending in a file            a zip archive, read by ranges; LMDB, SQLite, DBM through a local
                                                   copy in the cache folder (``$ZARRSTORE_CACHE``); ReferenceStore
                                                   (a folder of Parquet by ``.parq`` or ``.parquet``); to read only
    ``A|zip:path|zarr3:`` and other pipelines      what they name, see `zarrstore.pipelines`
    mapping                                        itself, as a Store; ReadOnlyStore if it cannot be written
    zarr 3 store, Icechunk session, obstore        the bridge over it
    store, OpenDAL operator, UPath
    zarr Group or Array, of zarr 2 or 3            its store, with the node at the root
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
    opening = _Opening(mode, force, options)
    if isinstance(target, str) and not target:
        raise ValueError("cannot open an empty path; '.' is the current directory")
    if _is_pipeline(target):
        return load("zarrstore.pipelines:open_pipeline")(target, mode, storage_options, options, open_store)  # type: ignore[no-any-return]
    foreign = foreign_place(target)
    if foreign is not None:
        return opening.foreign(*foreign, storage_options)
    local = _local_path(target)
    if local is None and isinstance(target, str) and _is_url(target):
        return opening.url(target, storage_options)
    if storage_options:
        raise ValueError(f"storage_options are for URLs, and {target!r} is none")
    if target is None:
        return opening.apply_mode(KINDS["dict"].make(**options), "a new DictStore", is_there=False)
    adapter = foreign_adapter(target) if local is None else None
    if adapter is not None:
        return opening.apply_mode(adapter(target, **options), target)
    if isinstance(target, Mapping):
        return opening.apply_mode(as_store(target), target)
    if local is not None or isinstance(target, str | os.PathLike):
        return opening.path(os.fspath(target) if local is None else local)
    raise TypeError(
        f"cannot open {type(target).__name__} as a store: a path, URL, mapping, zarr 3 store, obstore store, "
        "OpenDAL operator, UPath or Icechunk session is expected"
    )


def _is_pipeline(target: object) -> bool:
    return isinstance(target, str) and "|" in target and bool(load("zarrstore.pipelines:is_pipeline")(target))


def _unquoted(text: str) -> str:
    # Imported here, as remotefile is below: a path, which most targets are, needs neither.
    from urllib.parse import unquote

    return unquote(text)


def store_class(kind: str) -> Callable[..., Any]:
    """Return the class of a kind of store ("zip", "dir" ...), imported now, for verbs, which import no store."""
    return KINDS[kind].make


def n5_directory(path: str, dimension_separator: Literal[".", "/"] = ".", **options: Any) -> Store:
    """Return the N5 hierarchy in a directory under version 2 keys; `options` are those of DirectoryStore."""
    inner = KINDS["dir"].make(path, **options)
    return load("zarrstore.wrappers.n5view:N5View")(inner, dimension_separator)  # type: ignore[no-any-return]


def _is_url(target: str) -> bool:
    """Tell a URL, or a chain of fsspec (``zip::s3://...``), from a path that holds the same signs."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(::|://)", target)
    if found is None or os.path.exists(target):
        return False
    scheme, sign = found.groups()
    if sign == "://":
        return True
    try:
        import fsspec
    except ImportError:
        return "://" in target
    return scheme in fsspec.available_protocols()


def _local_path(target: object) -> str | None:
    """Return the path on this machine that a ``file:`` URL or a local UPath names, None for all else."""
    if isinstance(target, str):
        scheme, parted, rest = target.partition("://")
        if not parted or scheme.lower() not in ("file", "local") or "::" in target:
            return None
        host, slash, path = rest.partition("/")
        # file://relative has been taken for a path here; only a host that is named so is one.
        return _unquoted(f"/{path}" if slash and host.lower() == "localhost" else rest)
    if hasattr(target, "protocol") and hasattr(target, "path") and target.protocol in ("", "file", "local"):
        return str(target.path)
    return None


class _Opening:
    """One call of `open_store`: the mode, applied to whatever is found."""

    def __init__(self, mode: str, force: bool, options: dict[str, Any]) -> None:
        self.mode = mode
        self.force = force
        self.options = options
        self.storage_options: dict[str, Any] = {}

    # Paths ---------------------------------------------------------------------------------------------------------

    def path(self, path: str) -> Store:
        path = os.path.expanduser(path)
        if _IS_WINDOWS:  # where a path that is too long looks like one at which nothing is
            load("zarrstore.longpaths:check_place")(path)
        kind = kind_of_content(path)
        if kind is None:
            kind = kind_of_suffix(path)
            if self.mode in ("r", "r+") and not os.path.exists(path):
                raise load("zarrstore.tools.nearby:absent_store")(path, LOOKED_FOR)
            if kind.is_folder and os.path.isfile(path):
                raise StoreNotFoundError(path, f"{LOOKED_FOR}; a file of another kind is there")
        if kind.name == "dir" and self._is_nested(path):
            kind = KINDS["nested"]
        return self.kind(kind, path)

    def _is_nested(self, path: str) -> bool:
        if "dimension_separator" in self.options:
            return bool(self.options["dimension_separator"] == "/")
        return os.path.isdir(path) and bool(load("zarrstore.tools.nestedtrees:looks_nested")(KINDS["dir"].make(path)))

    def kind(self, kind: Kind, path: str) -> Store:
        if _IS_WINDOWS:
            load("zarrstore.longpaths:check_place")(path)
        is_there = _is_there(kind, path)
        # An empty directory is an empty store to read, and none that `w-` would have to spare.
        if self.mode in ("r", "r+") and not (is_there or os.path.isdir(path)):
            raise load("zarrstore.tools.nearby:absent_store")(path, f"{kind.label} store there")
        if self.mode == "w-" and is_there:
            raise DestinationExistsError("", path, "open it with mode 'a', or erase it with mode 'w'")
        kwargs = {**kind.modes.get(self.mode, {}), **self.options}
        if kind.name == "lmdb" and "subdir" not in kwargs and os.path.isfile(path):
            kwargs["subdir"] = False
        if self.mode not in ("r", "r+") and not is_there and not kind.is_folder:
            # As LMDB and directories do by themselves.
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        store: Store = kind.make(path, **kwargs)
        if kind.is_folder and self.mode == "w" and is_there:
            self._check_is_hierarchy(store, path)
        return self.apply_mode(store, path, is_there=is_there and not (kind.erases and self.mode == "w"))

    # Stores of others -----------------------------------------------------------------------------------------------

    def foreign(self, kind: str, place: str, storage_options: Mapping[str, Any] | None) -> Store:
        """Open a repository of Icechunk, or a store of zarr 3."""
        store: Store = KINDS[kind].make(place, self.mode, storage_options, **self.options)
        return self.apply_mode(store, place)

    # URLs ----------------------------------------------------------------------------------------------------------

    def url(self, url: str, storage_options: Mapping[str, Any] | None) -> Store:
        scheme, _, rest = url.partition("://")
        kind = kind_of_scheme(scheme) if "::" not in url else None
        if kind is not None and kind.name == "dict":
            return self.apply_mode(kind.make(**self.options), url, is_there=False)
        if kind is not None and kind.name != "http":
            return self.kind(kind, _unquoted(rest))
        self.storage_options = dict(storage_options or {})
        by_name = kind_of_suffix(rest.partition("?")[0])
        from zarrstore import remotefile

        if by_name.is_folder or not remotefile.ends_at_file(url):
            return self._remote_folder(url, by_name)
        found = self._named_file(url, by_name)
        if found is None and by_name.name == "lmdb":  # whose environments are directories mostly
            place, question, query = url.partition("?")
            found = self._named_file(f"{place.rstrip('/')}/data.mdb{question}{query}", by_name)
        return self._folder_named_as_file(url, by_name) if found is None else found

    def _open_folder(self, place: str, **options: Any) -> Store:
        return remote_store(place, self.storage_options, options)

    def _remote_folder(self, url: str, by_name: Kind) -> Store:
        """Open what is below a URL; where nothing is and a file is at it, that one."""
        store = self._open_folder(url, **self.options)
        is_there = _holds_something(store) if self.mode != "a" else None
        if is_there is False and self.mode in ("r", "r+"):
            from zarrstore import remotefile

            file = remotefile.find(url, self._open_folder) if remotefile.ends_at_file(url) else None
            if file is None:
                raise StoreNotFoundError(url, LOOKED_FOR_AT_URL)
            return self._remote_file(file)
        # Whether anything is below is not known: an archive would be taken for a folder in which nothing is.
        if self.mode == "a" or (self.mode == "r" and not store.capabilities.listable):
            from zarrstore import remotefile

            file = remotefile.find_unnamed(url, self._open_folder)
            if file is not None:
                store.close()
                return self._remote_file(file)
        return self._below_url(store, url, by_name, is_there)

    def _folder_named_as_file(self, url: str, by_name: Kind) -> Store:
        """Open what is below a URL that ends as a file of `by_name` does; no such file is at it."""
        store = self._open_folder(url, **self.options)
        is_there = _holds_something(store) if store.capabilities.listable else _has_root_document(store)
        if not is_there and self.mode in ("r", "r+"):
            raise StoreNotFoundError(url, LOOKED_FOR_AT_URL)
        if not is_there:
            raise UnsupportedOperation(f"make {by_name.label} store", url, "make it in a local file, then upload that")
        return self._below_url(store, url, by_name, is_there)

    def _below_url(self, store: Store, url: str, by_name: Kind, is_there: bool | None) -> Store:
        if by_name.name == "reference" and is_there:
            return self._remote_tables(store, url)
        if is_there and self.mode == "w" and store.capabilities.listable:
            self._check_is_hierarchy(store, url)
        return self.apply_mode(store, url, is_there=is_there)

    def _named_file(self, url: str, by_name: Kind) -> Store | None:
        """Open the file that is at a URL and named as a store of one file; None if no file is there."""
        from zarrstore import remotefile

        if by_name.name == "zip" and self.mode in ("r", "a"):
            # Without a look at its head: an archive is proven by its end, and each request counts.
            place = remotefile.split(url)
            if place is None:
                return None
            try:
                return self._remote_zip(self._open_folder(place[0]), place[1])
            except StoreNotFoundError:
                return None
            except DamagedStoreError:
                file = remotefile.find(url, self._open_folder)
                if file is None or file.kind.name == "zip":
                    raise
                return self._remote_file(file)
        file = remotefile.find(url, self._open_folder)
        return None if file is None else self._remote_file(file)

    def _remote_zip(self, folder: Store, name: str) -> Store:
        source = load("zarrstore.stores.zip:ValueRanges")(folder, name)
        return KINDS["zip"].make(source, mode="r", **self.options)  # type: ignore[no-any-return]

    def _remote_file(self, file: RemoteFile) -> Store:
        """Open a store of one file that is at a URL, for reading."""
        if self.mode not in ("r", "a"):
            file.folder.close()
            raise UnsupportedOperation(
                f"open {file.kind.label} store in mode {self.mode!r}", file.url, "change a local copy, then upload that"
            )
        if file.kind.name == "zip":
            return self._remote_zip(file.folder, file.name)
        if file.kind.name == "reference":
            return load("zarrstore.tools.references:open_remote_references")(  # type: ignore[no-any-return]
                file.folder, file.name, file.url, self.storage_options, **self.options
            )
        path: str = load("zarrstore.remotefile:local_copy")(file)
        file.folder.close()
        return _Opening("r", False, self.options).path(path)

    def _remote_tables(self, store: Store, url: str) -> Store:
        """Open what is in a folder at a URL that is named as references in Parquet; the folder itself if it is none."""
        data = store.get(documents.ZMETADATA)
        if data is None or not is_reference_metadata(data):
            return self.apply_mode(store, url, is_there=True)
        return load("zarrstore.tools.references:open_remote_references")(  # type: ignore[no-any-return]
            store, "", url, self.storage_options, **self.options
        )

    # The mode ------------------------------------------------------------------------------------------------------

    def apply_mode(self, store: Store, target: object, is_there: bool | None = None) -> Store:
        """Bring a store that cannot be opened in a mode of its own into the wanted one."""
        if self.mode in ("w", "w-") and is_there is None:
            is_there = _holds_something(store)
        if self.mode == "w" and is_there:
            store.clear()
        if self.mode == "w-" and is_there:
            raise DestinationExistsError("", str(target), "open it with mode 'a', or erase it with mode 'w'")
        if self.mode == "r" and store.capabilities.writable:
            return load("zarrstore.wrappers.readonly:ReadOnlyStore")(store)  # type: ignore[no-any-return]
        return store

    def _check_is_hierarchy(self, store: Store, target: str) -> None:
        if not self.force and not holds_hierarchy(store):
            store.close()
            raise DestinationExistsError(
                "",
                target,
                "it holds no Zarr hierarchy, so mode 'w' would erase files of somebody else; pass force=True",
            )


def _has_root_document(store: Store) -> bool:
    """Tell whether a store that cannot be listed has a document at its root. Cost: at most five requests."""
    return any(name in store for name in sorted(documents.DOCUMENTS))


def remote_store(url: str, storage_options: Mapping[str, Any], options: Mapping[str, Any]) -> Store:
    """Return the store of what is below a URL."""
    scheme, _, rest = url.partition("://")
    if "::" not in url and scheme in KINDS["http"].schemes and not storage_options:
        return KINDS["http"].make(url, **options)  # type: ignore[no-any-return]
    bridge, plus, inner_scheme = scheme.partition("+")
    if plus and bridge == "zarrstore":
        return KINDS["http"].make(f"{inner_scheme}://{rest}", listing=True, **storage_options, **options)  # type: ignore[no-any-return]
    if plus and bridge in ("obstore", "opendal"):
        return KINDS[bridge].make(f"{inner_scheme}://{rest}", **storage_options, **options)  # type: ignore[no-any-return]
    return KINDS["fsspec"].make(url, **storage_options, **options)  # type: ignore[no-any-return]


def _holds_something(store: Store) -> bool:
    # One that cannot be listed (HTTP) is there or not when its first value is asked for.
    return bool(store) if store.capabilities.listable else True


def holds_hierarchy(store: Store) -> bool:
    """Tell whether a document is at the root, or at one of the first children. Cost: one listing for each of these."""
    names = store.listdir("")
    if not names or any(name in names for name in _DOCUMENTS):
        return True
    return any(name in _DOCUMENTS for child in names[:100] for name in store.listdir(child))


def _is_there(kind: Kind, path: str) -> bool:
    if kind.name == "dbm":
        import dbm

        return os.path.isfile(path) or bool(dbm.whichdb(path))
    if kind.is_folder:
        return os.path.isdir(path) and any(os.scandir(path))
    return os.path.exists(path)
