"""One object, or file, per key on any fsspec filesystem."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.batch import AheadItems, LazyItems, batches
from zarrstore.errors import ConflictError, ReadOnlyError, StoreNotFoundError, StoreReadError
from zarrstore.optional import require
from zarrstore.stores.fsspec.filesystems import lists_whole, names, parameters, protocols, uncached
from zarrstore.values import as_bytes

__all__ = ["FSStore", "from_map"]

#: What says that nothing is there; whatever else is raised says nothing about it.
_ABSENT: tuple[type[Exception], ...] = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
#: Protocols of object stores, where a value may stand beside a directory of its name, and directories need no making.
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "obs", "cos", "tos"})
#: Values of one batch of writes, in bytes and in number.
_BATCH_BYTES, _BATCH_KEYS = 64 << 20, 1000


class FSStore(Store):
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
    **storage_options
        Passed to the filesystem.

    Notes
    -----
    Cost on S3, in requests: get, part of a value, set 1; `in` and `nbytes` 1, of a missing key 2; `delitems` and
    `rmdir` 1 per 1,000 keys; `del` 2, because S3 deletes what is missing without a word; `listdir` 1 per 1,000
    children; `rename` 2 per key, and the values stay at the server. Batches run as many requests at once as the
    filesystem's ``batch_size``.

    Directories that a delete empties are removed. fsspec's cache of listings is not used. Values are written to
    a local disk under another name first; on other filesystems a set is as whole as theirs. A delete that the server
    refuses for single keys of a batch is an error.

    Threads: safe where the filesystem is. Processes: each sees what the server has. Forked children make a
    filesystem of their own. Pickles with its `storage_options`, secrets included. Source: zarr 2.18 FSStore.
    Deviations: a 403, a 500 or a time-out is an error and never absence; deleting or setting a key removes no
    subtree.

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
        key_separator: str | None = None,
        mode: str = "w",
        exceptions: Sequence[type[Exception]] = (),
        dimension_separator: str | None = None,
        fs: Any = None,
        check: bool = False,
        create: bool = False,
        missing_exceptions: Sequence[type[Exception]] | None = None,
        missing_is: Sequence[type[Exception]] = (),
        **storage_options: Any,
    ) -> None:
        if fs is None:
            core = require("fsspec.core", extra="fsspec", feature="FSStore")
            try:
                fs, path = core.url_to_fs(url, **storage_options)
            except ImportError as exc:  # fsspec names the package that the protocol needs
                raise ImportError(f"FSStore({url!r}): {exc}") from exc
        elif storage_options:
            raise ValueError("fs and storage_options exclude each other: make the filesystem with the options")
        else:
            path = fs._strip_protocol(url)
        if mode not in ("r", "r+", "a", "w"):
            raise ValueError(f"mode is {mode!r}: 'r' or 'w' is wanted")
        self.url = url
        self.mode = mode
        self.normalize_keys = normalize_keys
        self.missing_is = (*exceptions, *(missing_exceptions or ()), *missing_is)
        self._fs = uncached(fs)
        self._pid = os.getpid()
        self._root = path
        # Asked from the filesystem, for the root of some is "" and of others "/".
        self._lead: str = fs._strip_protocol(f"{path.rstrip('/')}/x" if path else "x")[:-1]
        self._missing = (*_ABSENT, *self.missing_is)
        self._dimension_separator = dimension_separator or key_separator
        known = protocols(fs)
        self._flat = not known.isdisjoint(_FLAT)
        self._local = "file" in names(fs)
        self._remote = bool(getattr(fs, "async_impl", False))
        # s3fs asks for the size first, unless it may not fetch a large object in parts.
        one_request = "max_concurrency" in parameters(getattr(fs, "_cat_file", None))
        self._whole: dict[str, Any] = {"max_concurrency": 1} if one_request else {}
        self.capabilities = Capabilities(
            writable=mode != "r",
            erasable=mode != "r",
            hierarchical=not self._flat,
            ranged=known.isdisjoint({"http", "https"}),  # fsspec does not notice a server that ignores ranges
            concurrent=self._remote,
            process_safe="memory" not in known,
        )
        if create:
            fs.makedirs(self._root, exist_ok=True)
        if check:
            self._probe()

    @classmethod
    def from_upath(cls, path: Any, **options: Any) -> FSStore:
        """Return the store at the place of a ``UPath``, on its filesystem."""
        return cls(path.path, fs=path.fs, **options)

    def __repr__(self) -> str:
        return f"FSStore({self.url!r})" if self.mode != "r" else f"FSStore({self.url!r}, mode='r')"

    def _place(self) -> object:
        return self._lead, self.fs, self.normalize_keys

    @property
    def fs(self) -> Any:
        """The filesystem."""
        if self._pid != os.getpid():
            # An asynchronous filesystem holds a thread, which a forked child has not; unpickling makes a new one.
            self._fs, self._pid = uncached(pickle.loads(pickle.dumps(self._fs))), os.getpid()
        return self._fs

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _fs=uncached(state["_fs"]), _pid=os.getpid())

    def _probe(self) -> None:
        if not self.fs.exists(self._root):
            raise StoreNotFoundError(self.url, "the root of an FSStore; pass create=True to make it")
        if self.mode != "r":
            probe = self._lead + _temporary()
            self.fs.pipe_file(probe, b"")
            self.fs.rm_file(probe)

    def _path(self, key: str) -> str:
        """Return where the value of a key, or a directory, is on the filesystem."""
        if not key:
            return str(self._root)
        return self._lead + (key.lower() if self.normalize_keys else key)

    def _key(self, path: str) -> str:
        """Return the key of what is at a place of the filesystem; the empty string, below nothing, if it has none."""
        key = path[len(self._lead) :] if path.startswith(self._lead) else ""
        return key if k.is_key(key) else ""

    def _error(self, key: str, exc: BaseException) -> Exception:
        """Return what to raise for a failed read: KeyError if it says that nothing is there."""
        if isinstance(exc, self._missing) or self._is_too_long(key, exc):
            return KeyError(key)
        error = StoreReadError(key, self, f"{type(exc).__name__}: {exc}")
        error.__cause__ = exc
        return error

    def _is_too_long(self, key: str, exc: BaseException) -> bool:
        """Tell whether nothing can have this name: too long for the disk, or, on object stores, above 1,024 bytes."""
        name = self._path(key).partition("/")[2]
        return getattr(exc, "errno", None) == errno.ENAMETOOLONG or (self._flat and len(name.encode()) > 1024)

    def _refuse_if_read_only(self, what: str) -> None:
        if self.mode == "r":
            raise ReadOnlyError(what, self)

    # Reading. Never fs.cat or fs.rm: they take "*" and "[" in a key for a pattern.

    def _get(self, key: str) -> bytes:
        return self._cat(key)

    def _cat(self, key: str, **span: int | None) -> bytes:
        try:
            return as_bytes(self.fs.cat_file(self._path(key), **span, **self._whole))
        except Exception as exc:
            raise self._error(key, exc)  # noqa: B904 - it has its cause

    def _info(self, key: str) -> dict[str, Any]:
        """Return what the filesystem knows of a value; KeyError if there is no value."""
        try:
            info: dict[str, Any] = self.fs.info(self._path(key))
        except Exception as exc:
            raise self._error(key, exc)  # noqa: B904 - it has its cause
        if info["type"] != "file":
            raise KeyError(key)
        return info

    def _contains(self, key: str) -> bool:
        # Not fs.isfile: it takes every failure for absence.
        try:
            self._info(key)
        except KeyError:
            return False
        return True

    def _nbytes(self, key: str) -> int:
        size = self._info(key).get("size")
        return -1 if size is None else int(size)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if not self.capabilities.ranged:
            return super()._get_range(key, start, stop)
        return self._part(key, stop is not None and stop <= start, start, start=start, end=stop)

    def _get_suffix(self, key: str, n: int) -> bytes:
        if not self.capabilities.ranged:
            return super()._get_suffix(key, n)
        return self._part(key, n == 0, 0, start=-n)

    def _part(self, key: str, nothing: bool, first: int, **span: int | None) -> bytes:
        if nothing:
            self._info(key)
            return b""
        try:
            return self._cat(key, **span)
        except StoreReadError:
            # A range that begins at the end of the value or behind it is an error to most servers.
            if self._nbytes(key) <= first:
                return b""
            raise

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return AheadItems(self._fetch, keys) if self._remote else LazyItems(self._get, keys)

    def _fetch(self, keys: Sequence[str]) -> dict[str, bytes]:
        answers = self.fs.cat_ranges([self._path(key) for key in keys], None, None, on_error="return", **self._whole)
        found = {}
        for key, answer in zip(keys, answers, strict=True):
            if not isinstance(answer, BaseException):
                found[key] = as_bytes(answer)
            elif not isinstance(error := self._error(key, answer), KeyError):
                raise error
        return found

    # Listing -------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterator[str]:
        found = self._listing("find", path) if lists_whole(self.fs) else self._walk(path)
        return (key for key in map(self._key, found) if k.is_below(key, path))

    def _walk(self, path: str) -> Iterator[str]:
        waiting = [path]
        while waiting:
            at = waiting.pop()
            for entry in self._entries(at):
                if entry["type"] != "directory":
                    yield entry["name"]
                elif child := k.child(entry["name"][len(self._lead) :], at):
                    waiting.append(k.join(at, child))

    def _entries(self, path: str) -> list[dict[str, Any]]:
        return list(self._listing("ls", path, detail=True))

    def _listing(self, method: str, path: str, **options: Any) -> Iterable[Any]:
        """Return what the filesystem lists at a path; nothing if nothing is there."""
        try:
            found: Iterable[Any] = getattr(self.fs, method)(self._path(path), **options)
        except Exception as exc:
            error = self._error(path, exc)
            if isinstance(error, KeyError):
                return ()
            raise error  # noqa: B904 - it has its cause
        return found

    def _listdir(self, path: str) -> Iterable[str]:
        relative = (entry["name"][len(self._lead) :] for entry in self._entries(path))
        return {name for name in k.children(relative, path) if k.is_key(name)}

    def _getsize(self, path: str) -> int:
        if path:
            try:
                return self._nbytes(path)
            except KeyError:
                pass
        sizes = [entry["size"] for entry in self._entries(path) if entry["type"] == "file"]
        return -1 if None in sizes else sum(sizes)

    # Writing -------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        self._refuse_if_read_only(key)
        if not (self._flat or self._local):  # a local disk refuses by itself
            self._refuse_if_conflict(key)
        path = self._path(key)
        target = self._path(k.join(k.parent(key), _temporary())) if self._local else path
        for _ in range(5):
            try:
                self.fs.pipe_file(target, value)
                if self._local:
                    os.replace(target, path)
                return
            except FileNotFoundError as exc:
                # The directory is missing, or a delete has just emptied and removed it.
                problem: Exception = exc
                self._make_directory(key)
            except (IsADirectoryError, NotADirectoryError, FileExistsError) as exc:
                problem = exc
                self._discard(target)
                self._refuse_if_conflict(key)
                self._prune(k.join(key, "x"))  # an empty directory is no conflict
            except BaseException as exc:
                self._discard(target)
                exc.add_note(f"while setting {key!r} in {self}")
                raise
        raise problem

    def _make_directory(self, key: str) -> None:
        try:
            self.fs.makedirs(self._path(k.parent(key)), exist_ok=True)
        except (NotADirectoryError, FileExistsError):
            self._refuse_if_conflict(key)

    def _refuse_if_conflict(self, key: str) -> None:
        """Raise ConflictError if a value stands above `key`, or a directory at it."""
        for above in k.parents(key):
            if above and not self._flat and self.fs.isfile(self._path(above)):
                raise ConflictError(key, self, above)
        below = next(iter(self._listdir(key)), None)
        if below is not None:
            raise ConflictError(key, self, k.join(key, below))

    def _discard(self, target: str) -> None:
        if self._local:
            try:
                os.unlink(target)
            except OSError:
                pass

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        if not (self._remote and self._flat):
            return super()._set_many(items)
        for batch in batches(items, _BATCH_KEYS, _BATCH_BYTES):
            self._refuse_if_read_only(next(iter(batch)))
            self.fs.pipe({self._path(key): value for key, value in batch.items()})

    def _delete(self, key: str) -> None:
        self._refuse_if_read_only(key)
        # An object store deletes what is missing without a word.
        if self._flat and not self._contains(key):
            raise KeyError(key)
        self._erase(key)

    def _erase(self, key: str) -> None:
        try:
            self.fs.rm_file(self._path(key))
        except _ABSENT:
            raise KeyError(key) from None
        if not self._flat:
            self._prune(key)

    def _prune(self, key: str) -> None:
        """Remove the directories above `key` that it left empty."""
        for above in reversed(list(k.parents(key))[1:]):
            try:
                self.fs.rmdir(self._path(above))
            except Exception:  # not empty, or nothing the filesystem knows
                return

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return
        self._refuse_if_read_only(wanted[0])
        if not (self._remote and self._flat):
            for key in wanted:
                try:
                    self._erase(key)
                except KeyError:
                    continue
        elif hasattr(self.fs, "call_s3"):
            self._delete_many_from_s3(wanted)
        else:
            plain = [key for key in wanted if not set(key) & set("*?[]")]
            for at in range(0, len(plain), _BATCH_KEYS):
                self.fs.rm([self._path(key) for key in plain[at : at + _BATCH_KEYS]])
            for key in set(wanted).difference(plain):
                self.fs.rm_file(self._path(key))

    def _delete_many_from_s3(self, keys: Sequence[str]) -> None:
        # Not fs.rm: it drops what the server says of single keys that it would not delete.
        fs = self.fs
        for at in range(0, len(keys), 1000):
            paths = [self._path(key) for key in keys[at : at + 1000]]
            bucket = fs.split_path(paths[0])[0]
            objects = [{"Key": fs.split_path(path)[1]} for path in paths]
            answer = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise PermissionError(f"cannot delete {error.get('Key')!r} from {self}: {error.get('Message')}")

    def _rename(self, source: str, destination: str) -> None:
        self._refuse_if_read_only(source)
        if not (self._remote and self._flat):
            return super()._rename(source, destination)
        moving = list(self._keys(source))
        if self._contains(source):
            moving.append(source)
        # All copied before the first is deleted: whatever fails, the source is whole.
        for at in range(0, len(moving), _BATCH_KEYS):
            batch = moving[at : at + _BATCH_KEYS]
            targets = [self._path(k.replace_root(key, source, destination)) for key in batch]
            self.fs.copy([self._path(key) for key in batch], targets, on_error="raise")
        self._delete_many(moving)

    def _rmdir(self, path: str) -> None:
        self._refuse_if_read_only(path)
        super()._rmdir(path)


def from_map(mapping: Any, **options: Any) -> FSStore:
    """Return the store at the place of an fsspec ``FSMap``, on its filesystem; what it takes for absence is kept.

    Examples
    --------
    >>> import fsspec
    >>> from_map(fsspec.get_mapper("memory://example", missing_exceptions=(PermissionError,)))
    FSStore('memory:///example')
    """
    more = tuple(exc for exc in mapping.missing_exceptions if exc not in (*_ABSENT, KeyError))
    return FSStore(mapping.fs.unstrip_protocol(mapping.root), fs=mapping.fs, missing_is=more, **options)


def _temporary() -> str:
    return f"{k.RESERVED}-{os.getpid()}-{threading.get_ident()}-{os.urandom(4).hex()}"
