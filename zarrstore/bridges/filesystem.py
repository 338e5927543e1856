"""A file system of fsspec over any store: ``fsspec.open("zarrstore://a/0.0::data.lmdb")``."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import InvalidPathError
from zarrstore.optional import require
from zarrstore.registry import open_store

require("fsspec", extra="fsspec", feature="the file system of fsspec")

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem  # noqa: E402

__all__ = ["StoreFileSystem"]


class StoreFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The keys of any store as the files of a file system, to read and to write.

    Parameters
    ----------
    fo : str, mapping or store object
        What `open_store` opens. In a chain of URLs, the part behind ``zarrstore://KEY::``.
    mode : {'r', 'r+', 'a', 'w', 'w-'}, optional
        As for `open_store`. By default the store is opened to read, and again to write when something is first
        written; it is made if it is not there.
    target_protocol, target_options : str, mapping, optional
        What fsspec makes of a chain: the protocol of `fo`, and what its file system needs to be told.
    **options
        Passed to `open_store`.

    Notes
    -----
    A file that is opened to write is set as one value when it is closed, whole or not at all; one whose
    ``with fs.open`` block ends in an error is not set. A part is read without the whole where the store can
    (`capabilities.ranged`).
    Directories are what the keys say: an empty one cannot be made, and is not missed. What is no key cannot be written,
    and reading it is FileNotFoundError. `close` flushes and releases the store, and so does the end of the interpreter.

    Cost: as the store; `ls` asks for the size of each child, `find` reads one listing. Threads: as the store. Pickles
    by its arguments, so a store in memory is another one then. Source: fsspec 2026.9, whose own tests it passes.

    Examples
    --------
    >>> fs = StoreFileSystem({"a/0.0": b"chunk", "b": b""})
    >>> fs.ls("", detail=False), fs.cat("a/0.0"), fs.find("")
    (['a', 'b'], b'chunk', ['a/0.0', 'b'])
    >>> with fs.open("a/0.1", "wb") as file:
    ...     file.write(b"more")
    4
    >>> fs.info("a/0.1")["size"]
    4
    """

    protocol = "zarrstore"
    root_marker = ""
    cachable = False

    def __init__(
        self,
        fo: Any = None,
        mode: str | None = None,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._fo, self._storage = _target(fo, target_protocol, target_options)
        self._mode = mode
        self._options = {name: value for name, value in options.items() if name not in _FSSPECS}
        self._opened: Store | None = None
        self._lock = threading.RLock()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(path)
        return text.removeprefix("zarrstore://").strip("/")

    # The store -----------------------------------------------------------------------------------------------------

    def _open_store(self, mode: Any) -> Store:
        return open_store(self._fo, mode, storage_options=self._storage or None, **self._options)

    @property
    def store(self) -> Store:
        """The store, opened now if it was not."""
        with self._lock:
            if self._opened is None:
                is_mapping = isinstance(self._fo, Mapping)
                mode = self._mode or ("a" if is_mapping else "r")
                self._opened = as_store(self._fo) if is_mapping and mode == "a" else self._open_store(mode)
            return self._opened

    def _to_write(self) -> Store:
        """Return the store, opened anew if it was opened to read only because nobody had written."""
        with self._lock:
            if self._mode is None and not isinstance(self._fo, Mapping):
                if self._opened is None or not self._opened.capabilities.writable:
                    if self._opened is not None:
                        self._opened.close()
                    self._opened = self._open_store("a")
                self._mode = "a"
            return self.store

    def close(self) -> None:
        """Flush and release the store; it is opened again if it is used again."""
        with self._lock:
            store, self._opened = self._opened, None
        if store is not None and not isinstance(self._fo, Mapping):
            store.close()
        if self._mode in ("w", "w-", "x"):
            self._mode = "a"  # not to erase what was written

    def flush(self) -> None:
        """Make durable what was written, where the store promises it."""
        if self._opened is not None:
            self._opened.flush()

    # Reading -------------------------------------------------------------------------------------------------------

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return the name, size and type of a value or a directory."""
        at = self._strip_protocol(path)
        store = self.store
        if at and at in store:
            return {"name": at, "size": _size(store, at), "type": "file"}
        if not at or _names(store, at):
            return {"name": at, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """Return what is immediately below a path; of a value, itself."""
        at = self._strip_protocol(path)
        names = _names(self.store, at)
        if not names:
            found = [] if not at else [self.info(at)]
        else:
            found = [self.info(k.join(at, name)) for name in names]
        return found if detail else [one["name"] for one in found]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **options: Any
    ) -> Any:
        """Return all values below a path. Cost: one listing, unless directories are wanted."""
        if maxdepth is not None or withdirs:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **options)
        at = self._strip_protocol(path)
        store = self.store
        keys = sorted(_below(store, at))
        if at and at in store:
            keys.insert(0, at)
        return {key: self.info(key) for key in keys} if detail else keys

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Return a value, or a part of it."""
        at = self._strip_protocol(path)
        store = self.store
        try:
            if start is None and end is None:
                return store[at]
            if (start or 0) < 0 or (end or 0) < 0:
                return store[at][start:end]
            return store.getrange(at, start or 0, end)
        except KeyError:
            raise self._absent(path, at) from None

    def _absent(self, path: str, at: str) -> OSError:
        return IsADirectoryError(path) if _names(self.store, at) else FileNotFoundError(path)

    def _open(
        self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True, **options: Any
    ) -> Any:
        at = self._strip_protocol(path)
        if mode != "rb":
            return self._open_to_write(path, at, mode, autocommit)
        store = self.store
        info = self.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(path)
        if not store.capabilities.ranged or info["size"] is None:
            return io.BytesIO(self.cat_file(at))
        return _Reader(self, at, mode, block_size or "default", size=info["size"], **options)

    # Writing -------------------------------------------------------------------------------------------------------

    def _open_to_write(self, path: str, at: str, mode: str, autocommit: bool) -> _Writer:
        if mode not in ("wb", "ab", "xb"):
            raise ValueError(f"mode {mode!r} of {path!r}: rb, wb, ab or xb is wanted")
        k.check_key(at)
        store = self._to_write()
        if mode == "xb" and at in store:
            raise FileExistsError(path)
        writer = _Writer(lambda value: self.pipe_file(at, value), autocommit)
        if mode == "ab":
            writer.write(store.get(at, b""))
        return writer

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **options: Any) -> None:
        """Set a value."""
        at = self._strip_protocol(path)
        k.check_key(at)
        store = self._to_write()
        if mode == "create" and at in store:
            raise FileExistsError(path)
        store[at] = value

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy one value; of a directory there is nothing to copy but its values."""
        if self.isfile(path1):
            self.pipe_file(path2, self.cat_file(path1))
        elif not self.exists(path1):
            raise FileNotFoundError(path1)

    def rm_file(self, path: str) -> None:
        """Delete one value, never what is below it."""
        at = self._strip_protocol(path)
        try:
            del self._to_write()[at]
        except KeyError:
            raise self._absent(path, at) from None

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete values and, if `recursive`, all below."""
        if maxdepth is not None:
            for one in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
                if self.isfile(one):
                    self.rm_file(one)
            return
        for one in self.expand_path(path, recursive=False):
            if recursive and self.isdir(one):
                self._to_write().rmdir(one)
            if not recursive or self.isfile(one):
                self.rm_file(one)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Check that no value stands there; a directory comes with its first key."""
        self.makedirs(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Check that no value stands there; a directory comes with its first key."""
        at = self._strip_protocol(path)
        if at and self.isfile(at):
            raise FileExistsError(path)

    def rmdir(self, path: str) -> None:
        """Refuse to remove a directory that holds something; an empty one is not there."""
        if _names(self.store, self._strip_protocol(path)):
            raise OSError(f"{path!r} is not empty; rm(path, recursive=True) removes it with all below")


#: What fsspec itself adds to the arguments of a file system.
_FSSPECS = frozenset(
    {"skip_instance_cache", "use_listings_cache", "listings_expiry_time", "max_paths", "asynchronous", "loop"}
)


def _target(fo: Any, protocol: str | None, options: Mapping[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """Return what `open_store` is given for what fsspec makes of a chain: a target, and its storage options."""
    given = dict(options or {})
    if not isinstance(fo, str) or protocol is None:
        return fo, given
    inner, inner_protocol = given.pop("fo", None), given.pop("target_protocol", None)
    if inner is not None:
        further, deeper = _target(inner, inner_protocol, given.pop("target_options", None))
        return f"{protocol}://{fo}::{further}", deeper | ({protocol: given} if given else {})
    if protocol in ("file", "local") or fo.startswith(f"{protocol}://"):
        return fo, given
    return f"{protocol}://{fo}", given


def _names(store: Store, at: str) -> list[str]:
    try:
        return store.listdir(at)
    except InvalidPathError:  # with '..' in it, nothing can be there
        return []


def _below(store: Store, at: str) -> list[str]:
    try:
        return list(store.keys_below(at))
    except InvalidPathError:
        return []


def _size(store: Store, key: str) -> int | None:
    size = store.getsize(key)
    return size if size >= 0 else None


class _Reader(AbstractBufferedFile):  # type: ignore[misc]
    """A value that is read by parts."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.cat_file(self.path, start, end)  # type: ignore[no-any-return]


class _Writer(io.BytesIO):
    """What becomes one value when it is closed."""

    def __init__(self, put: Callable[[bytes], None], autocommit: bool) -> None:
        super().__init__()
        self._put = put
        self._autocommit = autocommit
        self._is_wanted = True
        self._value: bytes | None = None

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if kind is not None:
            self.discard()
        super().__exit__(kind, value, trace)

    def close(self) -> None:
        """Set the value, unless it is discarded or waits for the end of a transaction."""
        if self.closed:
            return
        self._value = self.getvalue() if self._is_wanted else None
        super().close()
        if self._autocommit:
            self.commit()

    def __del__(self) -> None:
        self.discard()  # nobody closed it, so nobody knows that it is whole

    def commit(self) -> None:
        """Set the value."""
        if self._value is not None:
            value, self._value = self._value, None
            self._put(value)

    def discard(self) -> None:
        """Set nothing."""
        self._is_wanted = False
        self._value = None
