"""What was changed since the last flush, and fsync of it; files that are created whole and durable."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from zarrstore import keys as k
from zarrstore.stores._files import release_name, sweep_folder, temporary_name, with_file

__all__ = ["SyncError", "Unsynced", "create_file", "fsync_file", "fsync_folder"]

#: Threads that sync: a file system commits many files at the cost of one when they are asked for together.
THREADS = 8
#: Most keys held unsynced, a bound of memory: a set beyond it flushes.
MAX_UNSYNCED = 1 << 16

_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)

#: Which file it is: a key that was set again has another. None: no file.
Identity = tuple[int, int, int] | None


class SyncError(OSError):
    """fsync itself failed: the system may have dropped the pages, so that a second fsync would succeed in vain."""


def fsync_file(place: str) -> None:
    """Make the content of a file durable; nothing if there is no file.

    Raises
    ------
    SyncError
        The fsync failed, and the content may be lost.
    OSError
        The file could not be opened: nothing is lost, a later call may succeed.
    """
    try:
        with_file(place, _FILE, _fsync)
    except OSError as exc:
        # Deleted or moved meanwhile. The directories that the change touched are synced as well.
        if isinstance(exc, SyncError) or exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise


def fsync_folder(place: str) -> None:
    """Make the names in a directory durable; nothing if there is none, or where directories cannot be synced."""
    if os.name == "nt":  # pragma: no cover - directories cannot be opened there, and their changes are journaled
        return
    try:
        with_file(place, _FOLDER, os.fsync)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENOTSUP):
            raise


def _fsync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as exc:
        raise SyncError(exc.errno, exc.strerror) from exc


def _identity(place: str) -> Identity:
    try:
        status = os.lstat(place)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


class _Names:
    """Names to sync. One leaves only after its sync has succeeded, wherever a flush is interrupted."""

    def __init__(self) -> None:
        #: Changed since the last flush began.
        self.new: set[str] = set()
        #: What each flush took and has not synced. A set for each: the threads of an interrupted flush may go on beside
        #: the next flush, and must not remove a name that this one has taken since.
        self.batches: list[set[str]] = []

    def add(self, name: str) -> None:
        self.new.add(name)

    def take(self) -> list[tuple[set[str], str]]:
        """Return all names, each with the set from which to remove it when it is synced."""
        batch: set[str] = set()
        self.batches = [*filter(None, self.batches), batch]
        for name in list(self.new):
            # In this order, an interrupt leaves the name in one of both. A change during the sync adds it to `new`
            # again, so the next flush syncs it again.
            batch.add(name)
            self.new.discard(name)
        return [(batch, name) for batch in self.batches for name in list(batch)]

    def is_empty(self) -> bool:
        """Tell whether nothing is to be synced."""
        return not self.new and not any(self.batches)

    def __contains__(self, name: str) -> bool:
        # In this order: `take` moves names from one to the other.
        return name in self.new or any(name in batch for batch in self.batches)

    def __iter__(self) -> Iterator[str]:
        return iter([*self.new, *(name for batch in self.batches for name in list(batch))])

    def __len__(self) -> int:
        return len(self.new)


class Unsynced:
    """Keys and directories changed since the last successful `sync`.

    Parameters
    ----------
    place : callable
        ``place(name) -> str``: where a key or directory is in the file system.

    Notes
    -----
    Threads: safe, each step on a set is one step of the interpreter. Fork: a child syncs what its parent had changed.
    """

    def __init__(self, place: Callable[[str], str]) -> None:
        self.place = place
        self.files = _Names()
        self.folders = _Names()
        #: Keys and directories that were deleted or moved away: on the disk their values may still be there.
        self.removed = _Names()
        #: Keys whose fsync failed, and the file that each had then. The failure stands while that file stands there.
        self.failed: dict[str, Identity] = {}
        # One lock per process: that of a parent may be held by a thread which does not exist in the child.
        self._locks: dict[int, threading.Lock] = {}

    def sync(self) -> OSError | None:
        """Sync all, files before the directories that name them; return the first failure."""
        lock = self._locks.setdefault(os.getpid(), threading.Lock())
        # The lock: a second flush must not return before the first has synced what both found.
        with lock:
            removed = self.removed.take()
            error = _each(self.files, self.sync_file)
            folders_error = _each(self.folders, lambda name: fsync_folder(self.place(name)))
            if folders_error is None:
                for batch, name in removed:
                    batch.discard(name)
            error = folders_error or error
            if error is None and (failed := self.failures()):
                error = OSError(errno.EIO, os.strerror(errno.EIO), self.place(failed[0]))
            return error

    def sync_file(self, key: str) -> None:
        """Make the content of a value durable now. It stays among the files to sync."""
        place = self.place(key)
        try:
            fsync_file(place)
        except SyncError:
            self.failed[key] = _identity(place)
            raise

    def failures(self) -> list[str]:
        """Return the keys whose values may be lost: their fsync failed, and they were not set or removed since."""
        for key, identity in list(self.failed.items()):
            if identity is None or _identity(self.place(key)) != identity:
                self.failed.pop(key, None)
        return sorted(self.failed)

    def note_removal(self, path: str) -> None:
        """Note that a key, or all below a path, is about to be removed, and again that it was."""
        # In place of very many names stands the root: all keys count as removed.
        self.removed.add(path if len(self.removed) < MAX_UNSYNCED else "")

    def was_removed(self, key: str) -> bool:
        """Tell whether a key was removed since the last flush, so that the disk may hold its old value."""
        if self.removed.is_empty():
            return False
        return key in self.removed or any(above in self.removed for above in k.parents(key))

    def sync_before_move(self, source: str, destination: str, is_value: bool) -> None:
        """Sync values that are moved to where others were removed: a cut must find the old ones or the new."""
        if is_value:  # one value, whatever the number of names
            if source in self.files and self.was_removed(destination):
                self.sync_file(source)
        elif self.was_removed(destination) or any(k.is_below(name, destination) for name in self.removed):
            for key in self.files:
                if key == source or k.is_below(key, source):
                    self.sync_file(key)

    def copy(self, source: str, destination: str, is_value: bool) -> None:
        """Take what is known of `source` and below for `destination` too. Call it before the move.

        Parameters
        ----------
        source, destination : str
            A key or a directory.
        is_value : bool
            A value stands at `source`, so nothing is below.
        """
        if is_value:
            if source in self.files:
                self.files.add(destination)
            if source in self.failed:
                self.failed[destination] = self.failed[source]
            return
        for names in (self.files, self.folders):
            for name in names:
                if name == source or k.is_below(name, source):
                    names.add(k.replace_root(name, source, destination))
        for name, identity in list(self.failed.items()):
            if name == source or k.is_below(name, source):
                self.failed[k.replace_root(name, source, destination)] = identity


def _each(names: _Names, sync: Callable[[str], None]) -> OSError | None:
    """Sync each name and return the first failure."""

    def attempt(item: tuple[set[str], str]) -> OSError | None:
        batch, name = item
        error: OSError | None = None
        try:
            sync(name)
        except SyncError as exc:
            error = exc  # remembered by `failed`: another fsync would prove nothing
        except OSError as exc:
            return exc  # stays in its batch: the next flush tries again
        batch.discard(name)
        return error

    items = names.take()
    if len(items) < 2:
        return next(filter(None, map(attempt, items)), None)
    # Imported here: who only reads, as zarrstore ls does, need not load it.
    from zarrstore.threads import Threads

    pool = Threads(min(THREADS, len(items)), "zarrstore-sync")
    try:
        return next(filter(None, list(pool.map(attempt, items))), None)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C: do not sync the rest first


# Creation ------------------------------------------------------------------------------------------------------------


def create_file(path: str, content: bytes, mode: int = 0o666) -> bool:
    """Create a file with its whole content, durably, unless a file of that name is there.

    Parameters
    ----------
    path : str
        The file; its folder is there.
    content : bytes
        All of it.
    mode : int
        Permissions, before the umask.

    Returns
    -------
    bool
        Whether this call created it; False if somebody else was first.

    Notes
    -----
    On Linux the file has no name until it is whole and on the disk, so a killed process leaves nothing. Elsewhere it
    has a temporary name meanwhile, and the next creation in that folder removes those of dead processes.
    """
    folder = os.path.dirname(path) or "."
    fd = _open_unnamed(folder, mode)
    if fd is None:
        return _create_by_name(path, folder, content, mode)
    try:
        _write_all(fd, content)
        created = _link_unnamed(fd, path)
    finally:
        os.close(fd)
    if created is None:
        return _create_by_name(path, folder, content, mode)
    fsync_folder(folder)
    return created


def _open_unnamed(folder: str, mode: int) -> int | None:
    """Return a descriptor of a new file without a name; None where there is no such thing."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError:  # the file system knows no unnamed files; if it is full, the other way says so too
        return None


def _link_unnamed(fd: int, path: str) -> bool | None:
    """Give a file its name; return False if that is taken, None if it cannot be done this way."""
    try:
        # With `src_dir_fd`, which an absolute path does not need, Python calls linkat, which follows the link in /proc.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    except FileExistsError:
        return False
    except OSError:  # no /proc, or a file system without links
        return None
    return True


def _create_by_name(path: str, folder: str, content: bytes, mode: int) -> bool:
    sweep_folder(folder)
    name = temporary_name()
    temporary = os.path.join(folder, name)
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        try:
            _write_all(fd, content)
        finally:
            os.close(fd)
        created = _give_name(temporary, path, folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        release_name(name)
    fsync_folder(folder)
    return created


def _give_name(temporary: str, path: str, folder: str) -> bool:
    try:
        # A link, not a rename: it never replaces what another process has created meanwhile.
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links (FAT, some network shares)
        return _rename_locked(temporary, path, folder)
    return True


def _rename_locked(temporary: str, path: str, folder: str) -> bool:
    """Rename while no other process that creates a file here is between its look and its rename."""
    lock = _lock_folder(folder)
    try:
        if os.path.lexists(path):
            return False
        os.rename(temporary, path)
    finally:
        if lock is not None:
            os.close(lock)
    return True


def _lock_folder(folder: str) -> int | None:
    try:
        import fcntl

        fd = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows, where a rename never replaces
        return None
    with suppress(OSError):  # a file system without locks: the look alone must do
        fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)
