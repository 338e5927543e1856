"""One file per key in a directory tree."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Capabilities, Entry, Store
from zarrstore.errors import ConflictError, DestinationExistsError, InvalidKeyError, RootIsFileError, StoreReadError
from zarrstore.keys import judged, parent
from zarrstore.stores._files import (
    ABSENT,
    USUAL,
    Pread,
    finished,
    is_busy,
    pread,
    read_part,
    read_whole,
    temporary_name,
    write_rest,
)
from zarrstore.stores._sync import MOST, THREADS, Unsynced
from zarrstore.stores.directory import direct
from zarrstore.stores.directory.folders import Folders, LeavesRootError
from zarrstore.stores.directory.irregular import irregular_entries
from zarrstore.stores.directory.tree import Tree

__all__ = ["DirectoryStore"]

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # else a FIFO would wait for a writer
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_KIND, _REGULAR, _LINK = 0o170000, stat.S_IFREG, stat.S_IFLNK

#: How often a write begins again because others prune, sweep or rename meanwhile.
_ATTEMPTS = 64
#: How many values `setitems` writes before it syncs their directories.
_BATCH = 64


class DirectoryStore(Store):
    """Keep each value in a file of its own, replaced as a whole.

    Parameters
    ----------
    path : path-like
        The root directory, made absolute here and created by the first write.
    normalize_keys : bool, default False
        Turn keys and paths to lower case, as zarr 2 does on request.
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none.
    durability : {'none', 'flush', 'always'}, default 'none'
        When a value survives a power cut: as the system pleases; once `flush` (or `close`) has returned; once the set,
        delete or rename has returned. With 'flush', a power cut before the flush may leave a key that was set since
        torn, on file systems that rename before they write.
    direct_io : bool, default False
        Read and write past the page cache (O_DIRECT), where system and file system can. This spares the cache for
        others; it is not faster.
    follow_symlinks : bool, default False
        Follow symbolic links that lead out of the root.

    Raises
    ------
    RootIsFileError
        A file is at `path`.

    Notes
    -----
    Cost in system calls: 4 a set, 3 a get, 1 an ``in``; one scan of a directory a `listdir`. Threads and processes:
    safe; a reader sees the old value or the new one, whole. Crash: a killed process leaves every acknowledged value,
    and at most one temporary file a thread, which is no key and is removed by the next listing of its directory (one of
    another machine when it is an hour old). Deleting prunes empty directories, never the root.

    Symbolic links: those that stay within the root are followed, those that leave it are not: what lies behind them is
    absent, and a write below one raises PermissionError. Directories are looked at once a second, so one that is
    swapped for a link meanwhile is followed for as long. Setting a key at which a link to a file stands replaces the
    link (and one to a directory, if the store has not met a link within the root before), and `rmdir` removes links,
    never what they lead to. Only regular files are values.

    Names that end as ``.partial`` files of killed zarr 2 writers do (a dot and 32 hexadecimal digits before it) are no
    keys: they are absent, unlisted, and cannot be set.

    Source: zarr 2.2 and 2.18.7 DirectoryStore. Deviations: a set or delete never removes a subtree (ConflictError,
    KeyError); a failure to read is no absence; empty parents are pruned; `clear` keeps the root directory.

    Examples
    --------
    >>> import tempfile
    >>> store = DirectoryStore(tempfile.mkdtemp() + "/data")
    >>> store["foo/0.0"] = b"chunk"
    >>> store["foo/0.0"], store.listdir("foo"), list(store)
    (b'chunk', ['0.0'], ['foo/0.0'])
    >>> store["foo"] = b"value"
    Traceback (most recent call last):
    zarrstore.errors.ConflictError: cannot set 'foo': DirectoryStore(...) holds 'foo/0.0' below it; rmdir('foo') first
    """

    capabilities = Capabilities(hierarchical=True, ranged=True, process_safe=True)

    def __init__(
        self,
        path: str | os.PathLike[str],
        normalize_keys: bool = False,
        dimension_separator: str | None = None,
        *,
        durability: str = "none",
        direct_io: bool = False,
        follow_symlinks: bool = False,
    ) -> None:
        if durability not in ("none", "flush", "always"):
            raise ValueError(f"durability is {durability!r}: 'none', 'flush' or 'always' is wanted")
        self.path = os.path.abspath(os.fsdecode(path))
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise RootIsFileError(self.path, type(self).__name__)
        self.normalize_keys = normalize_keys
        self._dimension_separator = dimension_separator
        self.durability = durability
        self.direct_io = direct_io
        self.follow_symlinks = follow_symlinks
        if durability != "none":
            self.capabilities = Capabilities(hierarchical=True, ranged=True, process_safe=True, durable_flush=True)
        self._unsynced = None if durability == "none" else Unsynced()
        self._folders = Folders(self.path, follow_symlinks)
        self._tree = Tree(self._folders, self._changed)
        self._base = self._folders.base
        self._read_flags = _READ if follow_symlinks else _READ | _NOFOLLOW
        self._stat = os.stat if follow_symlinks else os.lstat
        self._pread: Pread = direct.pread if direct_io else pread
        #: What the next read asks for: a little more than the last value had, so that one read meets its end.
        self._guess = USUAL

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def _place(self) -> object:
        return self.path

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "normalize_keys": self.normalize_keys,
            "dimension_separator": self._dimension_separator,
            "durability": self.durability,
            "direct_io": self.direct_io,
            "follow_symlinks": self.follow_symlinks,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        DirectoryStore.__init__(self, **state)

    # Reading ------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        if self.normalize_keys or key[-8:] == ".partial":
            key = self._own(key)
        folders = self._folders
        if monotonic() > folders.until:
            folders.renew()
        try:
            folders[parent(key)]
            fd = os.open(self._base + key, self._read_flags)
        except OSError as exc:
            fd = self._open_otherwise(key, exc)
        try:
            guess = self._guess
            value = self._pread(fd, guess, 0)
            size = len(value)
            # An empty read is an empty file or a device; a full one may have more to it.
            if size == guess or not size:
                value = read_whole(fd, self._pread)
                size = len(value)
            if size >= USUAL or guess > USUAL:
                self._guess = max(USUAL, size + 1)
            return value
        except OSError as exc:
            raise self._not_read(key, exc) from exc
        finally:
            os.close(fd)

    def _own(self, key: str) -> str:
        """Return the key that stands for `key` here; KeyError for a leftover of zarr 2."""
        if self.normalize_keys:
            key = judged[key.lower()]
        if k.is_partial(key):
            raise InvalidKeyError(key, "names that end so are what killed writers of zarr 2 left")
        return key

    def _open_otherwise(self, key: str, exc: OSError) -> int:
        """Open what a first try did not: a link within the root, a leased file. Else raise what the failure means."""
        try:
            if exc.errno in (errno.ELOOP, errno.EMLINK) and not isinstance(exc, LeavesRootError):
                real = self._folders.real(key)
                if real is not None:
                    return os.open(real, self._read_flags)
            elif exc.errno == errno.EAGAIN and stat.S_ISREG(self._stat(self._base + key).st_mode):
                return os.open(self._base + key, self._read_flags & ~getattr(os, "O_NONBLOCK", 0))
        except OSError as second:
            raise self._not_read(key, second) from second
        raise self._not_read(key, exc) from exc

    def _not_read(self, key: str, exc: OSError) -> Exception:
        """Return what a failed read means: absence, or no more than a failure."""
        if exc.errno in ABSENT:
            return KeyError(key)
        if exc.errno == errno.EACCES and os.path.isdir(self._base + key):  # Windows says so of a directory
            return KeyError(key)
        error = StoreReadError(key, self, exc.strerror or str(exc))
        error.errno = exc.errno
        return error

    def _contains(self, key: str) -> bool:
        try:
            return self._regular(key) is not None
        except InvalidKeyError:
            return False

    def _regular(self, key: str) -> os.stat_result | None:
        """Return the status of the file that holds a value, None if none does."""
        if self.normalize_keys or key[-8:] == ".partial":
            key = self._own(key)
        folders = self._folders
        if monotonic() > folders.until:
            folders.renew()
        try:
            folders[parent(key)]
            found = self._stat(self._base + key)
            if found.st_mode & _KIND == _REGULAR:
                return found
            if found.st_mode & _KIND == _LINK and (real := folders.real(key)) is not None:
                found = os.stat(real)
                return found if found.st_mode & _KIND == _REGULAR else None
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise self._not_read(key, exc) from exc
        return None

    def _nbytes(self, key: str) -> int:
        found = self._regular(key)
        if found is None:
            raise KeyError(key)
        return found.st_size

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._part(key, lambda size: (start, size if stop is None else min(stop, size)))

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self._part(key, lambda size: (max(0, size - n), size))

    def _part(self, key: str, span: Callable[[int], tuple[int, int]]) -> bytes:
        if self.normalize_keys or key[-8:] == ".partial":
            key = self._own(key)
        folders = self._folders
        if monotonic() > folders.until:
            folders.renew()
        try:
            folders[parent(key)]
            fd = os.open(self._base + key, self._read_flags)
        except OSError as exc:
            fd = self._open_otherwise(key, exc)
        try:
            return read_part(fd, span, self._pread)
        except OSError as exc:
            raise self._not_read(key, exc) from exc
        finally:
            os.close(fd)

    # Writing ------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        self._write(key, value)
        self._settle()

    def _write(self, key: str, value: bytes) -> None:
        if self.normalize_keys or key[-8:] == ".partial":
            key = self._own(key)
        try:
            self._put(key, value)
        except OSError as exc:
            self._put_again(key, value, exc)
        if self._unsynced is not None:
            self._written(key)

    def _put(self, key: str, value: bytes) -> None:
        folders = self._folders
        if monotonic() > folders.until:
            folders.renew()
        directory = parent(key)
        folder = folders[directory]
        if folders.links and folders.is_link_to_directory(key):  # which a replace would take for a value
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # In the directory of its key, where the replace is one step.
        name = temporary_name()
        temporary = f"{folder}/{name}" if directory else folder + name
        try:
            fd = os.open(temporary, _CREATE, 0o666)
            try:
                try:
                    written = direct.write(fd, value) if self.direct_io else os.write(fd, value)
                    if written != len(value):
                        write_rest(fd, value, written)
                    if self.durability == "always":
                        os.fsync(fd)
                finally:
                    os.close(fd)  # may say that the disk is full: NFS
                os.replace(temporary, self._base + key)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        finally:
            finished(name)

    def _put_again(self, key: str, value: bytes, exc: OSError) -> None:
        """Set what a first try did not, once its cause is out of the way; else raise what the cause means."""
        for attempt in range(_ATTEMPTS):
            try:
                if isinstance(exc, FileNotFoundError):
                    self._make(parent(key), key)
                elif isinstance(exc, NotADirectoryError | IsADirectoryError) or os.path.isdir(self._base + key):
                    self._make_way(key, exc, attempt)
                elif is_busy(exc) and attempt < 10:
                    time.sleep(0.001 * 2**attempt)
                else:
                    break
                return self._put(key, value)
            except OSError as again:
                exc = again
        self._tree.prune(parent(key))
        raise self._failure("set", key, exc) from exc

    def _make_way(self, key: str, exc: OSError, attempt: int) -> None:
        """Remove directories that hold no key from where a value is to stand; raise what really stands in its way."""
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise RootIsFileError(self.path, type(self).__name__) from exc
        for above in k.parents(key):
            if above and os.path.lexists(self._base + above) and not os.path.isdir(self._base + above):
                raise ConflictError(key, self, above) from exc
        below = next(iter(DirectoryStore._keys(self, key)), None)
        if below is not None:
            raise ConflictError(key, self, below) from exc
        self._tree.remove(key, only_hollow=True)
        if attempt >= 10 and os.path.isdir(self._base + key):
            # Somebody is about to set a value there, or something is there that is no value.
            raise ConflictError(key, self, k.join(key, next(iter(os.listdir(self._base + key)), "?"))) from exc

    def _make(self, path: str, key: str) -> None:
        """Make a directory in which `key` is to be."""
        self._tree.make(path)

    def _failure(self, verb: str, key: str, exc: OSError) -> Exception:
        """Return a failed write as an error that names the key and keeps what the system said."""
        if isinstance(exc, LeavesRootError):
            why = f"{exc.path!r} is a symbolic link that leaves {self}; follow_symlinks=True follows it"
            return PermissionError(errno.EPERM, f"cannot {verb} {key!r}: {why}")
        if exc.errno == errno.ENAMETOOLONG:
            return InvalidKeyError(key, f"the file system of {self} takes no name so long")
        return OSError(exc.errno, f"cannot {verb} {key!r} in {self}: {exc.strerror or exc}")

    def _delete(self, key: str) -> None:
        for directory in self._unlink(key):
            self._tree.prune(directory)
        self._settle()

    def _unlink(self, key: str) -> Iterable[str]:
        """Remove the file of a value and return the directories that may be empty now."""
        if self.normalize_keys or key[-8:] == ".partial":
            key = self._own(key)
        # Looked at first: a FIFO, or a link that leaves the root, is no key and stays.
        if self._regular(key) is None:
            raise KeyError(key)
        try:
            os.unlink(self._base + key)
        except OSError as exc:
            if exc.errno in ABSENT:
                raise KeyError(key) from exc
            raise self._failure("delete", key, exc) from exc
        directory = parent(key)
        if self._unsynced is not None:
            self._unsynced.failed.discard(key)
            self._changed(directory)
        return (directory,)

    # Listing ------------------------------------------------------------------------------------------------------

    def _scan(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of the values and of the directories in a directory."""
        if monotonic() > self._folders.until:
            self._folders.renew()
        try:
            return self._tree.scan(path)
        except OSError as exc:
            raise StoreReadError(path, self, exc.strerror or str(exc)) from exc

    def _lower(self, path: str) -> str:
        return path.lower() if self.normalize_keys else path

    def _walk(self, path: str) -> Iterator[tuple[str, list[str]]]:
        """Yield each directory at and below a path, with the names of its values."""
        pending = [self._lower(path)]
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
            status = self._regular(key)
            if status is not None:
                # A set replaces the file, so its number changes; a foreign program that writes in place moves ctime.
                times = f"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
                yield Entry(key, status.st_size, f"{status.st_ino:x}-{status.st_size:x}-{times}")

    def _count(self) -> int:
        return sum(len(files) for _, files in self._walk(""))

    def _listdir(self, path: str) -> Iterable[str]:
        files, folders = self._scan(self._lower(path))
        return files + folders

    # Trees --------------------------------------------------------------------------------------------------------

    def _rmdir(self, path: str) -> None:
        path = self._lower(path)
        try:
            self._tree.remove(path)
        except OSError as exc:
            raise self._failure("remove", path, exc) from exc
        self._settle()

    def _rename(self, source: str, destination: str) -> None:
        source, destination = self._lower(source), self._lower(destination)
        for attempt in range(_ATTEMPTS):
            try:
                self._folders[parent(source)], self._folders[parent(destination)]
                self._tree.move(source, destination)
                break
            except OSError as exc:
                try:
                    self._make_way_for_move(source, destination, exc, attempt)
                except OSError as failed:
                    self._tree.prune(parent(destination))
                    if isinstance(failed, DestinationExistsError):
                        raise
                    raise self._failure("rename", source, failed) from failed
        if self._unsynced is not None:
            self._unsynced.moved(source, destination)
        self._tree.prune(parent(source))
        self._settle()

    def _make_way_for_move(self, source: str, destination: str, exc: OSError, attempt: int) -> None:
        if not os.path.lexists(self._base + source):
            self._tree.prune(parent(destination))
            raise KeyError(source) from exc
        if isinstance(exc, FileNotFoundError) and attempt < _ATTEMPTS - 1:
            return self._make(parent(destination), destination)
        if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR):
            raise exc
        for above in k.parents(destination):
            if above and self._regular(above) is not None:
                raise ConflictError(destination, self, above) from exc
        self._tree.remove(destination, only_hollow=True)
        if os.path.lexists(self._base + destination):
            raise DestinationExistsError(source, destination) from exc

    # Durability ---------------------------------------------------------------------------------------------------

    def _changed(self, path: str) -> None:
        """Note that the names in a directory have changed."""
        if self._unsynced is not None:
            self._unsynced.folders.add(path)

    def _written(self, key: str) -> None:
        """Note that a value was set."""
        unsynced = self._unsynced
        assert unsynced is not None
        unsynced.folders.add(parent(key))
        if self.durability == "flush":
            unsynced.files.add(key)
            unsynced.failed.discard(key)
            if len(unsynced.files) > MOST:
                self._flush()

    def _settle(self) -> None:
        if self.durability == "always":
            self._flush()

    def _irregular(self, path: str) -> Iterable[tuple[str, str]]:
        return irregular_entries(self._folders.root, self._lower(path), self._folders.follow)

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        found = []
        for name in list(self._tree.leftovers(self._lower(path))):
            if not dry_run:
                with suppress(FileNotFoundError):
                    os.unlink(self._base + name)
            found.append(name)
        return found

    def _flush(self) -> None:
        if self._unsynced is None:
            return
        exc = self._unsynced.sync(lambda path: self._base + path)
        if exc is not None:
            failed = sorted(self._unsynced.failed)
            # A second fsync would succeed: the system has given up what the first could not write.
            again = f"; set {failed[0]!r} again ({len(failed)} in all)" if failed else ""
            raise OSError(exc.errno, f"cannot make {self} durable: {exc.strerror or exc}{again}") from exc

    def _close(self) -> None:
        self._flush()

    # Batches ------------------------------------------------------------------------------------------------------

    def _delete_many(self, keys: Iterable[str]) -> None:
        emptied: set[str] = set()
        try:
            for key in keys:
                with suppress(KeyError):
                    emptied.update(self._unlink(key))
        finally:
            for directory in emptied:  # once for all its keys
                self._tree.prune(directory)
        self._settle()

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        if self.durability != "always":
            return super()._set_many(items)
        pairs = iter(items)
        with ThreadPoolExecutor(THREADS, "zarrstore-set") as pool:
            # Of the same key twice, the last counts; syncs that overlap cost little more than one.
            while batch := dict(islice(pairs, _BATCH)):
                list(pool.map(self._write, batch.keys(), batch.values()))
                self._flush()
