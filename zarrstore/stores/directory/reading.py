"""Reading and listing of a directory tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.errors import InvalidKeyError, StoreReadError
from zarrstore.keys import judged, parent
from zarrstore.stores._files import ABSENT, FIRST_READ, MAX_CALL, Pread, pread, read_part, read_whole, with_file
from zarrstore.stores.directory.folders import Folders, LeavesRootError
from zarrstore.stores.directory.names import Names
from zarrstore.stores.directory.tree import Tree

__all__ = ["READ_FLAGS", "DirectoryReader"]

T = TypeVar("T")

# O_NONBLOCK: opening a FIFO would otherwise block until a writer opens it.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_KIND, _REGULAR, _LINK = 0o170000, stat.S_IFREG, stat.S_IFLNK


class DirectoryReader(Store):
    """The half of `DirectoryStore` that changes nothing. Its attributes are set there."""

    path: str
    normalize_keys: bool
    #: Whether a key may be one that is kept under another name, or not at all.
    _judges_names: bool
    _names: Names
    _base: str
    _folders: Folders
    _tree: Tree
    _read_flags: int
    _pread: Pread
    _stat: Callable[[str], os.stat_result]
    #: Bytes asked for by the next read: one more than the last value had, so that one read finds its end.
    _next_read = FIRST_READ

    #: Whether a value is a file's content as it is; not in a subclass with a `_get` of its own.
    _values_are_files = True

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "_get" in vars(cls):
            cls._values_are_files = "_with_descriptor" in vars(cls)

    # One value ----------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        return self._with_value(key, self._read_whole)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        def span(size: int) -> tuple[int, int]:
            return start, size if stop is None else min(stop, size)

        return self._with_value(key, lambda fd: read_part(fd, span, self._pread))

    def _get_suffix(self, key: str, n: int) -> bytes:
        def span(size: int) -> tuple[int, int]:
            return max(0, size - n), size

        return self._with_value(key, lambda fd: read_part(fd, span, self._pread))

    def _with_value(self, key: str, read: Callable[[int], T]) -> T:
        """Return what `read` returns for the open file of a value; KeyError only if there is none."""
        if self._judges_names or key[-8:] == ".partial":
            key = self._own_key(key)
        try:
            self._folders.check(parent(key))
            return with_file(self._base + key, self._read_flags, read)
        except OSError as exc:
            return self._retry_read(key, exc, read)

    def _read_whole(self, fd: int) -> bytes:
        count = self._next_read
        value = self._pread(fd, count, 0)
        size = len(value)
        # A read is short not only at the end: also above 2 GiB, on FUSE and NFS, and before a damaged sector.
        # An empty one may come from a device.
        if not size or size != os.lseek(fd, 0, os.SEEK_END):
            value = read_whole(fd, self._pread)
            size = len(value)
        if size >= FIRST_READ or count > FIRST_READ:
            self._next_read = size + 1 if FIRST_READ <= size < MAX_CALL else FIRST_READ
        return value

    def _own_key(self, key: str) -> str:
        """Return the key under which this store keeps `key`; InvalidKeyError if it keeps no such name.

        StoreReadError if the system would not say whether it is there.
        """
        if self.normalize_keys:
            key = judged[key.lower()]
        if k.is_partial(key):
            raise InvalidKeyError(key, "killed writers of zarr 2 leave files with such names")
        self._names.check(key)
        self._check_length(key)
        return key

    def _check_length(self, key: str) -> None:
        """Raise StoreReadError if the system opens no path so long: a value may be there all the same."""
        if problem := self._names.length_problem(key):
            raise StoreReadError(key, self, problem, permanent=True)

    def _retry_read(self, key: str, exc: OSError, read: Callable[[int], T]) -> T:
        """Read what a first try could not open: a link within the root, a file with a lease. Else raise the error."""
        try:
            if exc.errno in (errno.ELOOP, errno.EMLINK) and not isinstance(exc, LeavesRootError):
                real = self._folders.real(key)
                if real is not None:
                    return with_file(real, self._read_flags, read)
                self._folders.pass_over(key)
            elif exc.errno == errno.EAGAIN and stat.S_ISREG(self._stat(self._base + key).st_mode):
                return with_file(self._base + key, self._read_flags & ~getattr(os, "O_NONBLOCK", 0), read)
        except OSError as second:
            self._pass_over_link(key, second, exc.errno != errno.EAGAIN)
            raise self._read_error(key, second) from second
        self._pass_over_link(key, exc, False)
        raise self._read_error(key, exc) from exc

    def _pass_over_link(self, key: str, exc: OSError, is_link: bool) -> None:
        """Warn if a key is absent because of a link: a plain miss costs a look only where links are followed."""
        if isinstance(exc, LeavesRootError):
            self._folders.pass_over(exc.path)
        elif (self._folders.follow or is_link) and exc.errno in ABSENT and not self._folders.warned:
            if os.path.islink(self._base + key):
                self._folders.pass_over(key)

    def _read_error(self, key: str, exc: OSError) -> Exception:
        """Return KeyError if a failed read means absence, else StoreReadError."""
        if exc.errno in ABSENT:
            return KeyError(key)
        if exc.errno == errno.EACCES and os.path.isdir(self._base + key):  # what Windows raises for a directory
            return KeyError(key)
        error = StoreReadError(key, self, exc.strerror or str(exc))
        error.errno = exc.errno
        return error

    def _contains(self, key: str) -> bool:
        try:
            return self._status(key) is not None
        except InvalidKeyError:
            return False

    def _nbytes(self, key: str) -> int:
        status = self._status(key)
        if status is None:
            raise KeyError(key)
        return status.st_size

    def _entry(self, key: str) -> Entry:
        status = self._status(key)
        if status is None:
            raise KeyError(key)
        return _entry_of(key, status)

    def _with_descriptor(self, key: str, act: Callable[[int, Entry], T]) -> T | None:
        def within(fd: int) -> T:
            status = os.fstat(fd)
            if status.st_mode & _KIND != _REGULAR:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return act(fd, _entry_of(key, status))

        # With `direct_io` nothing is to be read by way of the page cache.
        return self._with_value(key, within) if self._values_are_files and self._pread is pread else None

    def _status(self, key: str) -> os.stat_result | None:
        """Return the status of the file that holds a value, None if there is none."""
        if self._judges_names or key[-8:] == ".partial":
            key = self._own_key(key)
        is_link = False
        try:
            self._folders.check(parent(key))
            status = self._stat(self._base + key)
            if status.st_mode & _KIND == _REGULAR:
                return status
            if is_link := status.st_mode & _KIND == _LINK:
                real = self._folders.real(key)
                if real is None:
                    self._folders.pass_over(key)
                    return None
                status = os.stat(real)
                return status if status.st_mode & _KIND == _REGULAR else None
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise self._read_error(key, exc) from exc
            self._pass_over_link(key, exc, is_link)
        return None

    # Listing ------------------------------------------------------------------------------------------------------

    def _own_path(self, path: str) -> str:
        """Return the directory for which this store takes `path`; one that never is where it keeps no such name."""
        if not self._judges_names:
            return path
        path = path.lower() if self.normalize_keys else path
        try:
            self._names.check(path)
        except InvalidKeyError:
            return k.RESERVED
        self._check_length(path)
        return path

    def _scan(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of the values and of the directories in a directory."""
        try:
            return self._tree.scan(path)
        except OSError as exc:
            raise StoreReadError(path, self, exc.strerror or str(exc)) from exc

    def _walk(self, path: str) -> Iterator[tuple[str, list[str]]]:
        """Yield each directory at and below a path, with the names of its values."""
        pending = [self._own_path(path)]
        while pending:
            at = pending.pop()
            files, folders = self._scan(at)
            yield at, files
            pending.extend([k.join(at, name) for name in folders])

    def _keys(self, path: str) -> Iterator[str]:
        for at, files in self._walk(path):
            lead = k.prefix(at)
            for name in files:
                yield lead + name

    def _details(self, path: str) -> Iterator[Entry]:
        for key in self._keys(path):
            try:
                yield self._entry(key)
            except KeyError:  # deleted meanwhile
                continue

    def _count(self) -> int:
        return sum(len(files) for _, files in self._walk(""))

    def _listdir(self, path: str) -> Iterable[str]:
        files, folders = self._scan(self._own_path(path))
        return files + folders


def _entry_of(key: str, status: os.stat_result) -> Entry:
    # A set replaces the file, so its number changes; a foreign program that writes in place moves ctime.
    times = f"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
    identity = f"{status.st_ino:x}-{status.st_size:x}-{times}"
    return Entry(key, status.st_size, identity, modified=status.st_mtime)
