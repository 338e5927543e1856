"""What was written since the last flush, and how it is made to survive a power cut."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from zarrstore import keys as k

__all__ = ["Unsynced", "fsync_file", "fsync_folder"]

#: A file system commits many files at the price of one when they are asked for together.
THREADS = 8
#: With more than this unsynced, a set syncs them first: memory is bounded.
MOST = 1 << 16


def fsync_file(place: str) -> None:
    """Make the content of a file durable; nothing if it is gone."""
    try:
        fd = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as exc:
        # Deleted or moved since: its directory tells, and that is synced too.
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_folder(place: str) -> None:
    """Make the names in a directory durable; nothing if it is gone, or where directories cannot be synced."""
    if os.name == "nt":  # pragma: no cover - its file systems keep names in a journal, and open no directories
        return
    try:
        fd = os.open(place, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        os.fsync(fd)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


class Unsynced:
    """Keys and directories changed since the last `sync`.

    Notes
    -----
    Sets are filled and emptied by single steps of the interpreter, so that no lock is held when a process forks.
    """

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()
        # Keys whose sync failed: the system has then dropped their pages, and a second fsync would lie.
        self.failed: set[str] = set()
        self._turn = threading.Lock()
        self._pid = os.getpid()

    def sync(self, place: Callable[[str], str]) -> OSError | None:
        """Sync all, files before the directories that name them; return the first failure."""
        if self._pid != os.getpid():  # a thread of the parent may have been here when it forked
            self._turn, self._pid = threading.Lock(), os.getpid()
        with self._turn:
            # The lock, since who flushes second must not return before the first is done.
            error = _each(self.files, fsync_file, place, self.failed)
            error = _each(self.folders, fsync_folder, place, self.folders) or error
            if self.failed and error is None:
                error = OSError(errno.EIO, os.strerror(errno.EIO), place(min(self.failed)))
            return error

    def moved(self, source: str, destination: str) -> None:
        """Take what lies below `source` for what now lies below `destination`."""
        for names in (self.files, self.folders, self.failed):
            for name in list(names):
                if name == source or k.is_below(name, source):
                    names.discard(name)
                    names.add(k.replace_root(name, source, destination))


def _each(
    names: set[str], sync: Callable[[str], None], place: Callable[[str], str], failed: set[str]
) -> OSError | None:
    taken = set(_drain(names))

    def attempt(name: str) -> OSError | None:
        try:
            sync(place(name))
        except OSError as exc:
            failed.add(name)
            return exc
        return None

    if len(taken) < 2:
        return next(filter(None, map(attempt, taken)), None)
    with ThreadPoolExecutor(min(THREADS, len(taken)), "zarrstore-sync") as pool:
        return next(filter(None, list(pool.map(attempt, taken))), None)


def _drain(names: set[str]) -> Iterable[str]:
    while names:
        try:
            yield names.pop()
        except KeyError:  # another thread took the last
            return
