"""One object, or file, per key on any fsspec filesystem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from zarrstore import keys as k
from zarrstore.chunknames import whole_names
from zarrstore.errors import StoreNotFoundError
from zarrstore.metadata.documents import ZARRAY
from zarrstore.optional import require
from zarrstore.stores.fsspec.options import refusal
from zarrstore.stores.fsspec.place import ABSENT, temporary
from zarrstore.stores.fsspec.traits import S3
from zarrstore.stores.fsspec.writing import Writing
from zarrstore.urls import without_secrets

__all__ = ["FSStore", "from_map"]


class FSStore(Writing):
    """Keep each value as one object or file of an fsspec filesystem, with one request per get and per set.

    Parameters
    ----------
    url : str
        Any URL that fsspec knows, chains included (``"s3://bucket/root"``, ``"simplecache::s3://bucket/root"``); with
        `fs`, a path within that filesystem.
    normalize_keys : bool, default False
        Lower-case every key, as zarr 2 did on request.
    key_separator : {'.', '/'}, optional
        zarr 2's other name of `dimension_separator`.
    mode : {'w', 'r'}, default 'w'
        ``'r'`` refuses to write. ``'w'`` writes and, as in zarr 2, erases nothing.
    exceptions, missing_exceptions : sequence of exception classes, optional
        zarr 2's names of `missing_is`.
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none. Keys are not rewritten.
    fs : fsspec.spec.AbstractFileSystem, optional
        A filesystem, instead of `storage_options`.
    check : bool, default False
        Find out at once whether the root is there and, unless `mode` is ``'r'``, whether it can be written.
    create : bool, default False
        Make the root.
    missing_is : sequence of exception classes, optional
        What else means that a key is absent. S3 without the permission to list answers 403 for absence:
        ``missing_is=(PermissionError,)``. By default only FileNotFoundError, IsADirectoryError and NotADirectoryError
        do.
    workers : int, default 64
        Requests in flight at a time in a batch. For an ``s3://`` URL, as many connections are opened; a filesystem
        that is given as `fs` has its own limit, which is 10 in s3fs (``config_kwargs={"max_pool_connections": 64}``).
    **storage_options
        Passed to the filesystem.

    Notes
    -----
    Cost on S3, in requests: get, part of a value, set, `in`, `nbytes` 1; `delitems` and `rmdir` 1 per 1,000 keys;
    `del` 2, because S3 deletes what is missing without a word; `listdir` 1 per 1,000 children; `rename` 1 per key and
    1 per 1,000 keys to list and to delete, and the values stay at the server; `copy_store` between buckets of one
    endpoint, with the same options, likewise 1 per key.

    An answer of S3 or of a web server counts if it has the announced length or ends with its last chunk, and a part if
    it is the one that was asked for. Over HTTP nothing can be written or listed; `HTTPStore` does the same without
    aiohttp. ``simplecache::`` and its like keep what they have read: such a store is read only, and shows no change
    that others make.

    Directories that a delete empties are removed where the filesystem refuses to remove others (local, memory, SFTP,
    FTP, SMB); elsewhere `rmdir` removes them, each after an empty listing, and listings leave empty ones out. fsspec's
    cache of listings is not used, and that of the caller's own `fs` forgets what is written here. Values are written to
    a local disk under another name first; on other filesystems a set is as whole as theirs. A delete that the server
    refuses for single keys of a batch is an error.

    Threads: safe; where a set writes in place (WebDAV, FTP, SFTP, pyarrow's), the calls of a store that is not opened
    with ``mode="r"`` come one at a time. Processes: each sees what the server has. Forked children
    make a filesystem of their own. Pickles with its `storage_options`, secrets included; neither repr nor errors show
    them. Source: zarr 2.18 FSStore. Deviations: a 403, a 500 or a time-out is an error and never absence; deleting or
    setting a key removes no subtree.

    Examples
    --------
    >>> store = FSStore("memory://example")
    >>> store["foo/0.0"] = b"data"
    >>> store["foo/0.0"], store.listdir("foo"), store.getrange("foo/0.0", 1, 3)
    (b'data', ['0.0'], b'at')
    """

    def __init__(
        self,
        url: str,
        normalize_keys: bool = False,
        key_separator: Literal[".", "/"] | None = None,
        mode: Literal["r", "r+", "a", "w"] = "w",
        exceptions: Sequence[type[Exception]] = (),
        dimension_separator: Literal[".", "/"] | None = None,
        fs: Any = None,
        check: bool = False,
        create: bool = False,
        missing_exceptions: Sequence[type[Exception]] | None = None,
        missing_is: Sequence[type[Exception]] = (),
        workers: int = 64,
        **storage_options: Any,
    ) -> None:
        if mode not in ("r", "r+", "a", "w"):
            raise ValueError(f"mode is {mode!r}: 'r' or 'w' is wanted")
        if fs is None:
            fs, path = _open(url, workers, storage_options)
        elif storage_options:
            raise ValueError("fs and storage_options exclude each other: make the filesystem with the options")
        else:
            path = fs._strip_protocol(url)
        self.url = url
        self._dimension_separator = dimension_separator or key_separator
        absent = (*exceptions, *(missing_exceptions or ()), *missing_is)
        super().__init__(fs, path, mode, normalize_keys, absent, workers)
        if create:
            self.fs.makedirs(self._root, exist_ok=True)
        if check:
            self._probe()

    @classmethod
    def from_upath(cls, path: Any, **options: Any) -> FSStore:
        """Return the store at the place of a ``UPath``, on its filesystem."""
        return cls(path.path, fs=path.fs, **options)

    def __repr__(self) -> str:
        mode = ", mode='r'" if self.mode == "r" else ""
        return f"FSStore({without_secrets(self.url)!r}{mode})"

    # Overrides the public face, as in DirectoryStore: drivers and wrappers know children only.
    def listdir(self, path: object = "") -> list[str]:
        """Return the sorted names of the immediate children of `path`; none for a value or a missing path.

        Where the store's separator is '/', chunks of an array are given by their whole names (``0/1``): zarr 2.18.7
        counts them by these in `nchunks_initialized`. That costs a listing for each name that is a number.
        """
        names = super().listdir(path)
        if self._dimension_separator != "/" or ZARRAY not in names:
            return names
        return whole_names(names, k.normalize_path(path), self._keys)

    def _probe(self) -> None:
        if not self.fs.exists(self._root):
            raise StoreNotFoundError(without_secrets(self.url), "the root of an FSStore; pass create=True to make it")
        if self.mode != "r":
            probe = self._lead + temporary()
            self.fs.pipe_file(probe, b"")
            self.fs.rm_file(probe)


def _open(url: str, workers: int, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the filesystem of a URL, and the path on it."""
    core = require("fsspec.core", extra="fsspec", feature="FSStore")
    if url.partition("://")[0] in S3:
        # The client's own limit is 10 connections, whatever is asked at once.
        config = {"max_pool_connections": workers, **(options.get("config_kwargs") or {})}
        options = {**options, "config_kwargs": config}
    try:
        fs, path = core.url_to_fs(url, **options)
    except ImportError as exc:  # fsspec names the package that the protocol needs
        raise ImportError(f"FSStore({without_secrets(url)!r}) needs a package that is not installed: {exc}") from exc
    except TypeError as exc:
        raise refusal(url, options, exc) or exc from None
    except OSError as exc:
        if exc.filename is None:  # FTP connects here, and does not say with whom
            exc.filename = without_secrets(url)
        raise
    return fs, str(path)


def from_map(mapping: Any, **options: Any) -> FSStore:
    """Return the store at the place of an fsspec ``FSMap``, on its filesystem; what it takes for absence is kept.

    Examples
    --------
    >>> import fsspec
    >>> from_map(fsspec.get_mapper("memory://example", missing_exceptions=(PermissionError,)))
    FSStore('memory:///example')
    """
    more = tuple(exc for exc in mapping.missing_exceptions if exc not in (*ABSENT, KeyError))
    return FSStore(mapping.fs.unstrip_protocol(mapping.root), fs=mapping.fs, missing_is=more, **options)
