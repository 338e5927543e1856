"""The lock file beside a DBM database."""

from __future__ import annotations

import contextlib
import dbm
import os
import sys
import time

from zarrstore.errors import LockedStoreError

if sys.platform != "win32":
    import fcntl

__all__ = ["SELF_LOCKING", "Guard"]

#: Implementations that lock by themselves: the guard is held only while they open.
SELF_LOCKING = frozenset({"dbm.gnu", "dbm.sqlite3"})
#: Seconds to wait for another process that opens such a database.
_WAIT = 30.0
_WAIT_FOR_KIND = 1.0
_PAUSE = 0.002


class Guard:
    """A lock on ``<path>.lock``, shared by readers; the last holder removes the file."""

    _descriptor: int | None = None

    def __init__(self, path: str, flag: str) -> None:
        self._file = path + ".lock"
        if sys.platform == "win32" or "u" in flag[1:]:  # "u": gnu locks nothing
            return
        start = time.monotonic()
        while self._descriptor is None:
            try:
                self._acquire(fcntl.LOCK_SH if flag[0] == "r" else fcntl.LOCK_EX)
            except BlockingIOError:
                if time.monotonic() > start + _patience(path):
                    raise LockedStoreError(path, f"another store holds {self._file!r}") from None
                time.sleep(_PAUSE)
            except FileNotFoundError:
                # The last holder has removed the file between two calls, unless there is no place for one.
                if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
                    raise
            except OSError:
                if flag[0] == "r":  # on a medium without write access
                    return
                raise

    def __del__(self) -> None:
        self.abandon()

    def _acquire(self, how: int) -> None:
        if sys.platform == "win32":
            return
        # As in _files.with_file: after Ctrl-C, no descriptor with a lock is left without a name.
        for descriptor in map(os.open, (self._file,), (os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,), (0o666,)):
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                # The last holder may have removed the file since the open, and another store created a new one.
                if os.path.samestat(os.fstat(descriptor), os.stat(self._file)):
                    self._descriptor = descriptor
            finally:
                if self._descriptor != descriptor:
                    os.close(descriptor)

    def release(self) -> None:
        if self._descriptor is not None and sys.platform != "win32":
            with contextlib.suppress(OSError):  # the last holder removes it while it has the exclusive lock
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(self._file)
        self.abandon()

    def abandon(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _patience(path: str) -> float:
    """Return for how long to wait for the guard, in seconds: it is given back at once where the database locks."""
    kind = dbm.whichdb(path)
    if kind in SELF_LOCKING:
        return _WAIT
    # None or "": it is being created, and its kind is not known yet.
    return 0.0 if kind else _WAIT_FOR_KIND
