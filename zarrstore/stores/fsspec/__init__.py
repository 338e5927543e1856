"""One object, or file, per key on any fsspec filesystem."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from zarrstore import keys as k
from zarrstore.allowance import Found, Sizes, allowance
from zarrstore.answers import Answer, Unusable, ValueReader
from zarrstore.base import Capabilities, Entry, Store
from zarrstore.batch import AheadItems, LazyItems, batches
from zarrstore.driver import Extent
from zarrstore.errors import (
    ConflictError,
    InvalidKeyError,
    ReadOnlyError,
    StoreNotFoundError,
    StoreReadError,
    UnsupportedOperation,
)
from zarrstore.optional import require
from zarrstore.spans import read_suffix
from zarrstore.stores.fsspec import filesystems
from zarrstore.stores.fsspec.requests import S3Requests, WebRequests
from zarrstore.urls import without_secrets
from zarrstore.values import as_bytes

__all__ = ["FSStore", "from_map"]

#: What says that nothing is there; whatever else is raised says nothing about it.
_ABSENT: tuple[type[Exception], ...] = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
#: Protocols of object stores, where a value may stand beside a directory of its name, and directories need no making.
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "obs", "cos", "tos"})
_S3 = frozenset({"s3", "s3a"})
_WEB = frozenset({"http", "https"})
#: Protocols whose deletion of a file refuses a directory, and whose deletion of a directory refuses one that is not
#: empty. Elsewhere (WebDAV, pyarrow's) either may erase all that is below.
_CAREFUL = frozenset({"file", "local", "memory", "sftp", "ssh", "ftp", "smb"})
#: Of these, those that refuse a value on a directory and below a value: memory does not.
_REFUSING = _CAREFUL - {"memory"}
#: Protocols with one connection, on which one command runs at a time.
_ONE_AT_A_TIME = frozenset({"ftp"})
#: Values of one batch of writes, in bytes and in number.
_BATCH_BYTES, _BATCH_KEYS = 64 << 20, 1000
#: How often a file is written whose directory another thread removes meanwhile.
_ATTEMPTS = 5


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
    workers : int, default 64
        Requests in flight at a time in a batch. For an ``s3://`` URL, as many connections are opened; a filesystem
        that is given as `fs` has its own limit, which is 10 in s3fs (``config_kwargs={"max_pool_connections": 64}``).
    **storage_options
        Passed to the filesystem.

    Notes
    -----
    Cost on S3, in requests: get, part of a value, set, `in`, `nbytes` 1; `delitems` and `rmdir` 1 per 1,000 keys;
    `del` 2, because S3 deletes what is missing without a word; `listdir` 1 per 1,000 children; `rename` 1 per key and
    1 per 1,000 keys to list and to delete, and the values stay at the server.

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
        key_separator: str | None = None,
        mode: str = "w",
        exceptions: Sequence[type[Exception]] = (),
        dimension_separator: str | None = None,
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
        self.mode = mode
        self.normalize_keys = self._aliases = normalize_keys
        self.workers = self._in_flight = workers
        self._value_sizes = Sizes()
        self.missing_is = (*exceptions, *(missing_exceptions or ()), *missing_is)
        self._pid = os.getpid()
        self._root = path
        # Asked from the filesystem, for the root of some is "" and of others "/".
        self._lead: str = fs._strip_protocol(f"{path.rstrip('/')}/x" if path else "x")[:-1]
        self._missing = (*_ABSENT, *self.missing_is)
        self._dimension_separator = dimension_separator or key_separator
        known = filesystems.protocols(fs)
        outer = filesystems.names(fs)
        is_cache = filesystems.is_cache(fs)
        self._flat = not known.isdisjoint(_FLAT)
        self._local = "file" in outer
        is_foreign = filesystems.wraps_foreign(fs)
        self._careful = not known.isdisjoint(_CAREFUL) and known <= _CAREFUL | {"dir"} and not is_foreign
        self._remote = bool(getattr(fs, "async_impl", False)) and not is_cache
        is_whole = self._flat or self._remote or (known <= {"file", "local", "memory", "dir"} and not is_foreign)
        # Where a set writes in place, a reader in another thread could see half of it.
        self._serial = not known.isdisjoint(_ONE_AT_A_TIME) or not (is_whole or mode == "r")
        # Whether a value that would stand on a directory, or below a value, is refused without a look before each set.
        self._refuses = known <= _REFUSING and not is_foreign
        self._unsafe = filesystems.unsafe_names(fs)
        # SFTP's files do not know where they end.
        self._counts_from_the_end = self._remote or known <= {"file", "local", "memory", "dir"}
        self._fs = self._adopted(fs)
        is_web = not known.isdisjoint(_WEB)
        is_writable = mode != "r" and not is_web and not is_cache
        self.capabilities = Capabilities(
            writable=is_writable,
            erasable=is_writable,
            listable=not is_web,
            hierarchical=not (self._flat or is_web),
            ranged=self._remote or not (is_web or is_foreign),  # pyarrow's files are streams
            concurrent=self._remote,
            process_safe="memory" not in known and not is_cache,
        )
        self._rename_checks_source = self._remote and self._flat
        self._requests: S3Requests | WebRequests | None = None
        if self._remote and outer <= _S3 and hasattr(fs, "_call_s3"):
            self._requests = S3Requests(self._filesystem, self._lead, workers)
        elif self._remote and outer <= _WEB:
            self._requests = WebRequests(self._filesystem, self._lead, workers)
        self._reader = None if self._requests is None else ValueReader(self._ask, self._refusal, self._read_error)
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

    def _place(self) -> object:
        return self._lead, filesystems.unlocked(self._fs), self.normalize_keys

    @property
    def fs(self) -> Any:
        """The filesystem."""
        if self._pid != os.getpid():
            # An asynchronous filesystem holds a thread, which a forked child has not; unpickling makes a new one.
            self._fs, self._pid = self._adopted(pickle.loads(pickle.dumps(self._fs))), os.getpid()
        return self._fs

    def _filesystem(self) -> Any:
        return self.fs

    def _adopted(self, fs: Any) -> Any:
        """Return the twin of a filesystem that this store works with."""
        twin = filesystems.uncached(filesystems.unlocked(fs))
        return filesystems.locked(twin) if self._serial else twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _pid=os.getpid())
        self._fs = self._adopted(state["_fs"])

    def _probe(self) -> None:
        if not self.fs.exists(self._root):
            raise StoreNotFoundError(without_secrets(self.url), "the root of an FSStore; pass create=True to make it")
        if self.mode != "r":
            probe = self._lead + _temporary()
            self.fs.pipe_file(probe, b"")
            self.fs.rm_file(probe)

    def _path(self, key: str) -> str:
        """Return where the value of a key, or a directory, is on the filesystem."""
        if not key:
            return str(self._root)
        if self._unsafe is not None and self._unsafe.search(key):
            raise InvalidKeyError(key, f"{self} does not keep it apart from other names")
        return self._lead + (key.lower() if self.normalize_keys else key)

    def _key(self, path: str) -> str:
        """Return the key of what is at a place of the filesystem; the empty string, below nothing, if it has none."""
        key = path[len(self._lead) :] if path.startswith(self._lead) else ""
        if self._unsafe is not None and self._unsafe.search(key):
            return ""
        return key if k.is_key(key) else ""

    def _name(self, key: str) -> str:
        return key.lower() if self.normalize_keys else key

    def _error(self, key: str, exc: BaseException) -> Exception:
        """Return what to raise for a failed read: KeyError if it says that nothing is there."""
        if isinstance(exc, (*self._missing, InvalidKeyError)) or self._is_too_long(key, exc):
            return KeyError(key)
        if isinstance(exc, Unusable):
            return self._read_error(key, str(exc))
        reason = without_secrets(f"{type(exc).__name__}: {exc}")
        if isinstance(exc, PermissionError):
            reason += f"; {self._identity()}"
        error = StoreReadError(key, self, reason, permanent=isinstance(exc, PermissionError))
        error.__cause__ = exc
        return error

    def _read_error(self, key: str, reason: str) -> StoreReadError:
        return StoreReadError(key, self, without_secrets(reason), permanent=True)

    def _identity(self) -> str:
        """Say who asked, and which options change that; nothing secret."""
        return filesystems.identity(self.fs)

    def _ask(self, method: str, key: str, headers: Mapping[str, str]) -> Answer:
        assert self._requests is not None
        try:
            return self._requests.ask(method, self._name(key), headers)
        except Exception as exc:
            raise self._error(key, exc)  # noqa: B904 - it has its cause

    def _refusal(self, key: str, answer: Answer) -> Exception:
        """Return the error for an answer whose status is no success."""
        kind = PermissionError if answer.status in (401, 403, 407) else OSError
        error = self._error(key, kind(f"the server answered {answer.status} {answer.reason}".rstrip()))
        if isinstance(error, StoreReadError) and 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
            error.permanent = True
        return error

    def _is_too_long(self, key: str, exc: BaseException) -> bool:
        """Tell whether nothing can have this name: too long for the disk, or, on object stores, above 1,024 bytes."""
        name = (self._lead + key).partition("/")[2]
        return getattr(exc, "errno", None) == errno.ENAMETOOLONG or (self._flat and len(name.encode()) > 1024)

    def _refuse_if_read_only(self, what: str) -> None:
        if not self.capabilities.writable:
            raise ReadOnlyError(what, self)

    # Reading. Never fs.cat or fs.rm: they take "*" and "[" in a key for a pattern.

    def _get(self, key: str) -> bytes:
        return self._reader.get(key) if self._reader is not None else self._cat(key)

    def _cat(self, key: str, **span: int | None) -> bytes:
        try:
            return as_bytes(self.fs.cat_file(self._path(key), **span))
        except Exception as exc:
            error = self._error(key, exc)
            # pyarrow's have no class of their own for what is a directory.
            if isinstance(error, StoreReadError) and not (self._flat or self._remote):
                self._info(key)
            raise error  # noqa: B904 - it has its cause

    def _extent(self, key: str) -> Extent | None:
        path = self._path(key)
        return Extent(path if self._local else str(self.fs.unstrip_protocol(path)))

    def _info(self, key: str) -> dict[str, Any]:
        """Return what the filesystem knows of a value; KeyError if there is no value."""
        try:
            info: dict[str, Any] = self.fs.info(self._path(key))
        except Exception as exc:
            raise self._error(key, exc)  # noqa: B904 - it has its cause
        if info["type"] != "file":
            raise KeyError(key)
        return info

    def _check_presence(self, key: str) -> None:
        """Raise KeyError if there is no value."""
        # Not fs.isfile: it takes every failure for absence.
        if self._reader is not None:
            self._reader.check_presence(key)
        else:
            self._info(key)

    def _contains(self, key: str) -> bool:
        try:
            self._check_presence(key)
        except KeyError:
            return False
        return True

    def _nbytes(self, key: str) -> int:
        if self._reader is not None:
            return self._reader.nbytes(key)
        size = self._info(key).get("size")
        return -1 if size is None else int(size)

    def _entry(self, key: str) -> Entry:
        if isinstance(self._requests, S3Requests):
            answer = self._ask("HEAD", key, {})
            size, etag = answer.headers.get("Content-Length"), answer.headers.get("Etag", "")
            return Entry(key, -1 if size is None else int(size), etag.strip('"'))
        if self._reader is not None:
            return super()._entry(key)
        return _described(key, self._info(key))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if not self.capabilities.ranged:
            return super()._get_range(key, start, stop)
        if self._reader is not None:
            return self._reader.get_range(key, start, stop)
        return self._part(key, stop is not None and stop <= start, start, start=start, end=stop)

    def _get_suffix(self, key: str, n: int) -> bytes:
        if not self.capabilities.ranged:
            return super()._get_suffix(key, n)
        if self._reader is not None:
            return self._reader.get_suffix(key, n)
        if self._counts_from_the_end:
            return self._part(key, n == 0, 0, start=-n)
        return read_suffix(n, lambda: self._nbytes(key), lambda start, stop: self._get_range(key, start, stop))

    def _part(self, key: str, nothing: bool, first: int, **span: int | None) -> bytes:
        if nothing:
            self._info(key)
            return b""
        for is_last in (False, True):
            try:
                return self._cat(key, **span)
            except StoreReadError as exc:
                # A range that begins at the end of the value or behind it is an error to most servers. Where the value
                # has more bytes by now, it was replaced meanwhile.
                if self._nbytes(key) <= first:
                    return b""
                if exc.permanent or is_last:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        if not self._remote:
            return LazyItems(self._get, keys)
        return AheadItems(self._fetch, keys, sizes=self._value_sizes)

    def _fetch(self, keys: Sequence[str]) -> Found:
        found = Found()
        answers = self._answers(keys)
        found.unasked = [key for key, answer in zip(keys, answers, strict=True) if answer is None]
        for key, answer in zip(keys, answers, strict=True):
            if answer is None:
                continue
            try:
                if isinstance(answer, BaseException):
                    raise self._error(key, answer)
                found[key] = answer if isinstance(answer, bytes) else self._whole(key, answer)
            except KeyError:
                continue
        return found

    def _answers(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return for each key an answer, a value, the error that was met, or None where no room was left to ask."""
        if self._requests is not None:
            return self._requests.ask_many([self._name(key) for key in keys], allowance().nbytes)
        paths = [self._path(key) for key in keys]
        return list(self.fs.cat_ranges(paths, None, None, on_error="return", batch_size=self.workers))

    def _whole(self, key: str, answer: Any) -> bytes:
        if isinstance(answer, Answer) and self._reader is not None:
            return self._reader.whole(key, answer)
        return as_bytes(answer)

    # Listing -------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterator[str]:
        return (entry.key for entry in self._details(path))

    def _details(self, path: str) -> Iterator[Entry]:
        self._refuse_unlistable()
        return self._objects(path) if isinstance(self._requests, S3Requests) else self._files(path)

    def _refuse_unlistable(self) -> None:
        if not self.capabilities.listable:
            raise UnsupportedOperation("be listed", self, "a web server has no listing that can be relied on")

    def _objects(self, path: str) -> Iterator[Entry]:
        for page in self._pages(path, k.prefix(path)):
            for item in page.get("Contents", ()):
                if key := self._object_key(item):
                    yield Entry(key, int(item["Size"]), str(item.get("ETag", "")).strip('"'))

    def _object_key(self, item: Mapping[str, Any]) -> str:
        assert isinstance(self._requests, S3Requests)
        return self._requests.key_of(item["Key"])

    def _pages(self, path: str, prefix: str, delimiter: str = "", limit: int = 1000) -> Iterator[Mapping[str, Any]]:
        assert isinstance(self._requests, S3Requests)
        try:
            yield from self._requests.pages(self._name(prefix), delimiter, limit)
        except Exception as exc:
            error = self._error(path, exc)
            if not isinstance(error, KeyError):
                raise error  # noqa: B904 - it has its cause

    def _files(self, path: str) -> Iterator[Entry]:
        if filesystems.lists_whole(self.fs):
            found = self._listing("find", path, detail=True)
            infos: Iterable[Any] = found.values() if isinstance(found, dict) else ()
        else:
            infos = self._walk(path)
        for info in infos:
            key = self._key(info["name"])
            if info["type"] != "directory" and k.is_below(key, path):
                yield _described(key, info)

    def _walk(self, path: str) -> Iterator[dict[str, Any]]:
        waiting = [path]
        while waiting:
            at = waiting.pop()
            for info in self._infos(at):
                if info["type"] != "directory":
                    yield info
                elif child := k.child(info["name"][len(self._lead) :], at):
                    waiting.append(k.join(at, child))

    def _infos(self, path: str) -> list[dict[str, Any]]:
        infos = list(self._listing("ls", path, detail=True))
        # FTP lists a file as its own only child.
        if (
            path
            and len(infos) == 1
            and infos[0]["name"] == f"{self._path(path)}/{k.name(path)}"
            and self._contains(path)
        ):
            return []
        return infos

    def _listing(self, method: str, path: str, **options: Any) -> Iterable[Any]:
        """Return what the filesystem lists at a path; nothing if nothing is there."""
        for attempt in range(_ATTEMPTS):
            try:
                found: Iterable[Any] = getattr(self.fs, method)(self._path(path), **options)
                return found
            except InvalidKeyError:
                return ()
            except KeyError as exc:
                # fsspec's memory trips over what another thread deletes meanwhile; that is no absence.
                if attempt == _ATTEMPTS - 1:
                    raise self._error(path, exc)  # noqa: B904 - it has its cause
            except Exception as exc:
                error = self._error(path, exc)
                # FTP has no class of its own for what is missing.
                if isinstance(error, KeyError) or self._is_missing(self._path(path)):
                    return ()
                raise error  # noqa: B904 - it has its cause
        raise AssertionError

    def _is_missing(self, path: str) -> bool:
        """Tell whether the listing of a place above shows that there is no directory at a place of the filesystem."""
        if self._flat or self._remote:
            return False
        above = self.fs._parent(path)
        if above.rstrip("/") == path.rstrip("/"):
            return False
        try:
            infos = self.fs.ls(above, detail=True)
        except Exception:
            return self._is_missing(above)
        found = [info for info in infos if info["name"].strip("/") == path.strip("/")]
        return all(info["type"] != "directory" for info in found)

    def _listdir(self, path: str) -> Iterable[str]:
        self._refuse_unlistable()
        if isinstance(self._requests, S3Requests):
            return self._object_names(path)
        return self._file_names(path)

    def _object_names(self, path: str) -> set[str]:
        found: set[str] = set()
        assert isinstance(self._requests, S3Requests)
        for page in self._pages(path, k.prefix(path), "/"):
            names = [item["Key"] for item in page.get("Contents", ())]
            names += [item["Prefix"].removesuffix("/") for item in page.get("CommonPrefixes", ())]
            found.update(k.child(key, path) or "" for name in names if (key := self._requests.key_of(name)))
        return found - {""}

    def _file_names(self, path: str) -> set[str]:
        found = set()
        for info in self._infos(path):
            name = k.child(info["name"][len(self._lead) :].rstrip("/"), path)
            if not name or not self._key(info["name"].rstrip("/")) or name in found:
                continue
            # Empty directories stay behind where they cannot be removed safely, and are no children.
            if self._careful or self._flat or info["type"] != "directory" or self._is_filled(k.join(path, name)):
                found.add(name)
        return found

    def _is_filled(self, path: str) -> bool:
        return next(self._files(path), None) is not None

    def _getsize(self, path: str) -> int:
        if path:
            try:
                return self._nbytes(path)
            except KeyError:
                pass
        if not self.capabilities.listable:
            return -1  # whether values lie below it, nobody can tell
        if isinstance(self._requests, S3Requests):
            pages = self._pages(path, k.prefix(path), "/")
            return sum(
                int(item["Size"]) for page in pages for item in page.get("Contents", ()) if self._object_key(item)
            )
        sizes = [info["size"] for info in self._infos(path) if info["type"] == "file"]
        return -1 if None in sizes else sum(sizes)

    # Writing -------------------------------------------------------------------------------------------------------

    def _changed(self, *keys: str) -> None:
        """Let the caller's own filesystem forget what it remembers of these places."""
        filesystems.forget(filesystems.unlocked(self._fs), [self._lead + self._name(key) for key in keys])

    def _set(self, key: str, value: bytes) -> None:
        self._refuse_if_read_only(key)
        try:
            if isinstance(self._requests, S3Requests):
                self._requests.put(self._name(key), value)
            else:
                self._write(key, value)
        except BaseException as exc:
            self._explain(exc, key)
            raise
        finally:
            self._changed(key)

    def _explain(self, exc: BaseException, key: str) -> None:
        if not isinstance(exc, ConflictError):
            exc.add_note(f"while setting {key!r} in {self}")
        if isinstance(exc, PermissionError):
            exc.add_note(self._identity())

    def _write(self, key: str, value: bytes) -> None:
        path = self._path(key)
        if not (self._flat or self._refuses):
            self._refuse_if_conflict(key)
        target = self._path(k.join(k.parent(key), _temporary())) if self._local else path
        for attempt in range(_ATTEMPTS):
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
                self._remove_empty(self._path(key))  # an empty directory is no conflict
            except Exception as exc:
                # FTP and others have no class of their own for a missing directory.
                problem = exc
                self._discard(target)
                if not self._flat:
                    self._refuse_if_conflict(key)
                if attempt or self._flat or self._local or self.fs.isdir(self._path(k.parent(key))):
                    raise
                self._make_directory(key)
            except BaseException:
                self._discard(target)
                raise
        if not self._flat:
            self._refuse_if_conflict(key)
        raise problem

    def _make_directory(self, key: str) -> None:
        try:
            self.fs.makedirs(self._path(k.parent(key)), exist_ok=True)
        except (NotADirectoryError, FileExistsError):
            self._refuse_if_conflict(key)
        except Exception:
            self._refuse_if_conflict(key)
            raise

    def _refuse_if_conflict(self, key: str) -> None:
        """Raise ConflictError if a value stands above `key`, or a directory with values at it."""
        for above in k.parents(key):
            if above and not self._flat and self._contains(above):
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
            try:
                if isinstance(self._requests, S3Requests):
                    self._requests.put_many([(self._name(key), value) for key, value in batch.items()])
                else:
                    self.fs.pipe({self._path(key): value for key, value in batch.items()}, batch_size=self.workers)
            except PermissionError as exc:
                exc.add_note(self._identity())
                raise
            finally:
                self._changed(*batch)

    def _delete(self, key: str) -> None:
        self._refuse_if_read_only(key)
        # An object store deletes what is missing without a word.
        if self._flat:
            self._check_presence(key)
        if isinstance(self._requests, S3Requests):
            self._delete_objects([key])
        else:
            self._erase(key)
            self._changed(key)

    def _erase(self, key: str) -> None:
        if not (self._careful or self._flat):
            self._info(key)  # WebDAV deletes a directory with all that is in it
        try:
            self.fs.rm_file(self._path(key))
        except _ABSENT:
            raise KeyError(key) from None
        except Exception:
            # FTP and pyarrow's have no classes of their own for what is missing or a directory.
            if self._flat or self._contains(key):
                raise
            raise KeyError(key) from None
        if self._careful:
            self._prune(key)

    def _prune(self, key: str) -> None:
        """Remove the directories above `key` that it left empty, where the filesystem refuses to remove others."""
        for above in reversed(list(k.parents(key))[1:]):
            try:
                self.fs.rmdir(self._path(above))
            except Exception:  # not empty, or nothing the filesystem knows
                return

    def _remove_empty(self, path: str) -> bool:
        """Remove a directory of the filesystem and what is empty in it, each after an empty listing."""
        try:
            inside = self.fs.ls(path, detail=True)
        except Exception:
            return False
        if any(info["type"] != "directory" for info in inside):
            return False
        # Some list a directory as its own first child.
        below = [info["name"] for info in inside if info["name"].rstrip("/") != path.rstrip("/")]
        if False in [self._remove_empty(name) for name in below]:
            return False
        try:
            self.fs.rmdir(path)
        except Exception:
            return False
        return True

    def _delete_many(self, keys: Iterable[str]) -> None:
        names = list(dict.fromkeys(keys))
        if not names:
            return
        self._refuse_if_read_only(names[0])
        try:
            if isinstance(self._requests, S3Requests):
                self._delete_objects(names)
            elif self._remote and self._flat:
                self._delete_flat(names)
            else:
                self._delete_files(names)
        finally:
            self._changed(*names)

    def _delete_files(self, keys: Iterable[str]) -> None:
        for key in keys:
            try:
                self._erase(key)
            except KeyError:
                continue

    def _delete_flat(self, keys: Sequence[str]) -> None:
        plain = [key for key in keys if not set(key) & set("*?[]")]
        for at in range(0, len(plain), _BATCH_KEYS):
            self.fs.rm([self._path(key) for key in plain[at : at + _BATCH_KEYS]])
        for key in set(keys).difference(plain):
            self.fs.rm_file(self._path(key))

    def _delete_objects(self, keys: Sequence[str]) -> None:
        assert isinstance(self._requests, S3Requests)
        try:
            refused = self._requests.delete_many([self._name(key) for key in keys])
        except PermissionError as exc:
            exc.add_note(self._identity())
            raise
        finally:
            self._changed(*keys)
        for error in refused:
            problem = PermissionError(f"cannot delete {error.get('Key')!r} from {self}: {error.get('Message')}")
            problem.add_note(self._identity())
            raise problem

    def _rename(self, source: str, destination: str) -> None:
        self._refuse_if_read_only(source)
        if not (self._remote and self._flat):
            super()._rename(source, destination)
            if not self._careful and not self._flat:
                self._remove_empty(self._path(source))
            return
        moving = self._subtree(source)
        if not moving:
            raise KeyError(source)
        # All copied before the first is deleted: whatever fails, the source is whole.
        targets = [k.replace_root(entry.key, source, destination) for entry in moving]
        if isinstance(self._requests, S3Requests):
            pairs = [
                (self._name(entry.key), self._name(key), entry.nbytes)
                for entry, key in zip(moving, targets, strict=True)
            ]
            self._requests.copy_many(pairs)
        else:
            paths = [self._path(entry.key) for entry in moving]
            self.fs.copy(paths, list(map(self._path, targets)), on_error="raise", batch_size=self.workers)
        self._changed(*targets)
        self._delete_many([entry.key for entry in moving])

    def _subtree(self, path: str) -> list[Entry]:
        """Return the value at a path and those below it. On S3, one request if 1,000 names begin so at the most."""
        if isinstance(self._requests, S3Requests):
            page = next(self._pages(path, path), None)
            if page is not None and not page.get("IsTruncated"):
                found = [(self._object_key(item), item) for item in page.get("Contents", ())]
                return [
                    Entry(key, int(item["Size"]))
                    for key, item in found
                    if key and (key == self._name(path) or k.is_below(key, self._name(path)))
                ]
        below = list(self._details(path))
        return below if not path or not self._contains(path) else [*below, self._entry(path)]

    def _is_occupied(self, path: str) -> bool:
        if not path or not isinstance(self._requests, S3Requests):
            return super()._is_occupied(path)
        page = next(self._pages(path, path), None) or {}
        name = self._name(path)
        keys = [self._object_key(item) for item in page.get("Contents", ())]
        if any(key == name or k.is_below(key, name) for key in keys):
            return True
        return bool(page.get("IsTruncated")) and super()._is_occupied(path)

    def _rmdir(self, path: str) -> None:
        self._refuse_if_read_only(path)
        super()._rmdir(path)
        if not (self._careful or self._flat) and not (path and self._contains(path)):
            for info in self._infos(path) if not path else [{"name": self._path(path), "type": "directory"}]:
                if info["type"] == "directory":
                    self._remove_empty(info["name"])


def _open(url: str, workers: int, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the filesystem of a URL, and the path on it."""
    core = require("fsspec.core", extra="fsspec", feature="FSStore")
    if url.partition("://")[0] in _S3:
        # The client's own limit is 10 connections, whatever is asked at once.
        config = {"max_pool_connections": workers, **(options.get("config_kwargs") or {})}
        options = {**options, "config_kwargs": config}
    try:
        fs, path = core.url_to_fs(url, **options)
    except ImportError as exc:  # fsspec names the package that the protocol needs
        raise ImportError(f"FSStore({without_secrets(url)!r}): {exc}") from exc
    return fs, str(path)


def _described(key: str, info: Mapping[str, Any]) -> Entry:
    """Return the entry of a file that a filesystem describes."""
    size = info.get("size")
    nbytes = -1 if size is None else int(size)
    for name in ("ETag", "etag", "md5", "md5Hash", "content_md5", "checksum"):
        if isinstance(mark := info.get(name), str) and mark:
            return Entry(key, nbytes, mark.strip('"'))
    for name in ("mtime", "last_modified", "LastModified", "modified", "created"):
        if (time := info.get(name)) is not None:
            return Entry(key, nbytes, f"{time}-{nbytes}")
    return Entry(key, nbytes)


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
