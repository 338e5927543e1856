"""An OpenDAL operator as a mapping."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from zarrstore import keys as k
from zarrstore.base import Entry
from zarrstore.errors import InvalidKeyError, StoreReadError
from zarrstore.optional import require
from zarrstore.spans import ATTEMPTS, read_suffix
from zarrstore.stores._objects import Objects, unopened
from zarrstore.urls import without_secrets

__all__ = ["OpenDALStore"]

T = TypeVar("T")

#: Services whose values are files: a value excludes a directory of its name.
_FILES = frozenset({"alluxio", "fs", "ftp", "hdfs", "hdfs-native", "monoiofs", "seafile", "sftp", "webdav", "webhdfs"})
#: What OpenDAL trims at both ends of a name: the white space of Unicode. Its listings lose directories so.
_SPACE = "[\\t\\n\\v\\f\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]"
_TRIMMED = re.compile(rf"(?:\A|/){_SPACE}|{_SPACE}(?:/|\Z)")
#: How an operator shows its directory; a name with characters that Rust escapes is not taken.
_ROOT = re.compile(r'root="([^"\\]+)"')
#: How often a file is written whose directory another thread removes meanwhile.
_ATTEMPTS = 5


class OpenDALStore(Objects):
    """Keep each value as one file of an OpenDAL operator: memory, local files, S3, WebDAV, SQL databases and more.

    Parameters
    ----------
    operator : opendal.Operator
        ``opendal.Operator("fs", root=...)`` and the like.
    missing_is : sequence of exception classes, optional
        What else means that a key is absent: ``(opendal.exceptions.PermissionDenied,)`` for a service that answers
        403 for absence.
    workers : int, default 64
        Requests in flight at a time in a batch.

    Raises
    ------
    MissingDependencyError
        opendal is not installed.

    Notes
    -----
    Cost, in requests: get, set, `in`, `nbytes` 1; a part 1, 3 if it goes past the end, which OpenDAL refuses; the last
    bytes 2; `del` 2; `delitems` and `rmdir` 1 per key (2 on files), for Python's OpenDAL has no batches; `rename` 1 per
    key, copied by the service where it can, and those to list and to delete. OpenDAL lists without letting other
    threads run. It trims white space at both ends of a name: keys with a segment that begins or
    ends so are refused. Its threads do not survive a fork.

    A set is as whole as the service's: the service ``fs`` overwrites in place unless it is given
    ``atomic_write_dir``. Threads: safe. Processes: as the service. Pickles as the operator does; one on memory comes
    back empty. Source: this package.

    Examples
    --------
    >>> import opendal
    >>> store = OpenDALStore(opendal.Operator("memory"))
    >>> store["foo/0.0"] = b"data"
    >>> store["foo/0.0"], store.listdir("foo"), store.getrange("foo/0.0", 1, 99)
    (b'data', ['0.0'], b'ata')
    """

    def __init__(self, operator: Any, missing_is: Sequence[type[Exception]] = (), workers: int = 64) -> None:
        self._errors = require("opendal.exceptions", extra="opendal", feature="OpenDALStore")
        errors = self._errors
        absent = (errors.NotFound, errors.IsADirectory, errors.NotADirectory, *missing_is)
        # Its repr alone names the service: Operator("fs", root=...).
        self._service = repr(operator).partition('"')[2].partition('"')[0]
        super().__init__(absent, self._service in _FILES, self._service != "memory", workers)
        root = _ROOT.search(repr(operator))
        self._root = root[1] if root and self._service == "fs" else None
        self.copies = bool(operator.capability().copy) and not self.capabilities.hierarchical
        self._rename_checks_source = self.copies
        self.operator = operator
        self.missing_is = tuple(missing_is)
        self._origin: tuple[str, Mapping[str, Any]] | None = None

    @classmethod
    def from_url(cls, url: str, missing_is: Sequence[type[Exception]] = (), **options: Any) -> OpenDALStore:
        """Open the operator that a URL names, as ``opendal.Operator.from_uri`` does; it pickles by the URL."""
        opendal = require("opendal", extra="opendal", feature="OpenDALStore")
        # OpenDAL's options are text; the command line and whoever writes JSON give numbers and booleans.
        texts = {name: _text(value) for name, value in options.items()}
        try:
            operator = opendal.Operator.from_uri(url, **texts)
        except Exception as exc:
            raise unopened("OpenDAL", url, options, exc) from None
        store = cls(operator, missing_is)
        store._origin = url, options
        return store

    def __repr__(self) -> str:
        return f"OpenDALStore({without_secrets(repr(self.operator))})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is not None:
            url, options = self._origin
            return partial(type(self).from_url, **options), (url, self.missing_is)
        return type(self), (self.operator, self.missing_is, self.workers)

    def _check_name(self, key: str) -> None:
        """Raise InvalidKeyError if OpenDAL takes the name for another one."""
        if _TRIMMED.search(key):
            raise InvalidKeyError(key, "OpenDAL trims white space, and would take it for another name")

    def _ask(self, key: str, act: Callable[[], T]) -> T:
        try:
            if key:
                self._check_name(key)
        except InvalidKeyError:
            raise KeyError(key) from None
        return super()._ask(key, act)

    def _get(self, key: str) -> bytes:
        return self._ask(key, lambda: bytes(self.operator.read(key)))

    def _nbytes(self, key: str) -> int:
        found = self._ask(key, lambda: self.operator.stat(key))
        if not found.mode.is_file():
            raise KeyError(key)
        return int(found.content_length)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if stop is not None and stop <= start:
            self._nbytes(key)  # KeyError if absent
            return b""
        problem: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                return self._read_span(key, start, stop)
            except StoreReadError as exc:
                problem = exc
            end = self._nbytes(key)
            if start >= end:
                return b""
            if stop is None or stop > end:
                # Past the end. Not a span that ends at `end`: a value that replaces this one may end elsewhere.
                with suppress(StoreReadError):
                    return self._read_span(key, start, None)[: None if stop is None else stop - start]
        # Each time it was replaced meanwhile, or it cannot be read.
        raise problem or AssertionError

    def _read_span(self, key: str, start: int, stop: int | None) -> bytes:
        size = {} if stop is None else {"size": stop - start}
        return self._ask(key, lambda: bytes(self.operator.read(key, offset=start, **size)))

    def _get_suffix(self, key: str, n: int) -> bytes:
        return read_suffix(n, lambda: self._nbytes(key), lambda start, stop: self._get_range(key, start, stop))

    # Listing -------------------------------------------------------------------------------------------------------

    def _entries(self, path: str, recursive: bool) -> Iterator[tuple[str, bool, Any]]:
        """Yield the keys and directories that OpenDAL lists, whether each is a value, and its metadata."""
        entries = iter(self._listed(path, lambda: self.operator.list(k.prefix(path) or "/", recursive=recursive)))
        while entry := self._listed(path, lambda: next(entries, ())):
            # Directories end in a slash, and the one that was asked for is among them.
            at = entry.path.removesuffix("/")
            if k.is_below(at, path) and k.is_key(at) and not _TRIMMED.search(at):
                yield at, at == entry.path, entry.metadata

    def _listed(self, path: str, act: Callable[[], Any]) -> Any:
        """Return what a listing gives, nothing if nothing is there."""
        try:
            return self._ask(path, act)
        except KeyError:
            return ()

    def _keys(self, path: str) -> Iterator[str]:
        return (key for key, is_value, _ in self._entries(path, recursive=True) if is_value)

    def _details(self, path: str) -> Iterator[Entry]:
        for key, is_value, metadata in self._entries(path, recursive=True):
            if is_value:
                # A service whose listing tells no size leaves 0 there.
                yield Entry(key, int(metadata.content_length or 0) or -1, metadata.etag or "")

    def _children(self, path: str) -> Iterator[tuple[str, bool, bool]]:
        found = {(k.child(at, path) or "", is_value) for at, is_value, _ in self._entries(path, recursive=False)}
        return ((name, (name, True) in found, (name, False) in found) for name in {name for name, _ in found})

    # Writing -------------------------------------------------------------------------------------------------------

    def _copy(self, source: str, destination: str) -> None:
        self._check_name(destination)
        self._ask(source, lambda: self.operator.copy(source, destination))

    def _put(self, key: str, value: bytes) -> None:
        self._check_name(key)
        for attempt in range(_ATTEMPTS):
            try:
                self.operator.write(key, value)
                return
            except self._errors.NotFound:
                if attempt == _ATTEMPTS - 1:
                    raise
            except Exception:
                # An empty directory of that name is no conflict.
                if attempt or not self._discard_empty(key):
                    raise

    def _remove(self, key: str) -> None:
        if _TRIMMED.search(key):
            return
        # WebDAV deletes a directory with all that is in it.
        if self.capabilities.hierarchical and not self._contains(key):
            return
        with suppress(self._errors.NotFound):  # deleted by another meanwhile
            self.operator.delete(key)
        if self._root:
            # Not by the operator, which would delete a value that has taken the place of the directory.
            with suppress(OSError):
                for above in reversed(list(k.parents(key))[1:]):
                    os.rmdir(os.path.join(self._root, above))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
