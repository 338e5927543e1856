"""A file that is read and written at positions, by any number of threads, and locked against a second writer."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from zarrstore.errors import LockedStoreError

__all__ = ["File", "OSFile", "ObjectFile", "sync_directory"]

#: Errors by which a file system says that it cannot reserve space.
_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}
#: Errors by which it says that there is none left.
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
#: Errors by which it says that it knows no locks.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    # Locks are mandatory there: one byte, where no archive has any.
    _FAR = (1 << 62) - 1

    def _lock(fd: int) -> None:
        os.lseek(fd, _FAR, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int) -> None:
        os.lseek(fd, _FAR, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

    _sync = os.fsync
else:
    import fcntl

    def _lock(fd: int) -> None:
        # flock and not lockf: it belongs to the open file, so it works within a process and survives other closes.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    if sys.platform == "darwin":  # pragma: no cover - fsync stops at the drive's cache there

        def _sync(fd: int) -> None:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        _sync = os.fdatasync


_position = threading.Lock()


def _seek_and_read(fd: int, n: int, offset: int) -> bytes:
    with _position:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, n)


def _seek_and_write(fd: int, data: Any, offset: int) -> int:
    with _position:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, data)


#: Read and write at a place, of a file's number; Windows has no such calls.
pread: Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)
pwrite: Callable[[int, Any, int], int] = getattr(os, "pwrite", _seek_and_write)


class File(Protocol):
    """What reading needs: ``pread`` may come back short only at the end of the file."""

    label: str

    def pread(self, n: int, offset: int, /) -> bytes:
        """Return `n` bytes from `offset` on."""

    def size(self) -> int:
        """Return the length in bytes."""


class OSFile:
    """A file of this machine, closed when nobody reads it any more.

    Parameters
    ----------
    path : str
        The file.
    flags : int
        As for ``os.open``.
    label : str
        What errors call it.

    Notes
    -----
    Readers take no lock. So the descriptor is closed by the last reference and never by a call: a number closed under
    a reader could by then be another file.
    """

    def __init__(self, path: str, flags: int, label: str) -> None:
        self.fd = -1
        self.fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
        self.label = label

    def __del__(self) -> None:
        if self.fd >= 0:
            try:
                os.close(self.fd)
            except OSError:
                pass  # what mattered was synced before

    def pread(self, n: int, offset: int) -> bytes:
        """Return `n` bytes from `offset` on, fewer at the end."""
        return pread(self.fd, n, offset)

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def copy_permissions(self, other: OSFile) -> None:
        """Have the mode of another file, and its owner if that can be."""
        told = os.fstat(other.fd)
        if hasattr(os, "fchown"):
            try:
                os.fchown(self.fd, told.st_uid, told.st_gid)
            except PermissionError:
                pass
            os.fchmod(self.fd, told.st_mode & 0o7777)

    def identity(self) -> tuple[int, int]:
        """Return what tells this file from every other."""
        told = os.fstat(self.fd)
        return told.st_dev, told.st_ino

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        """Write all parts, one behind the other, or raise; the operating system has them when this returns."""
        done = os.pwritev(self.fd, parts, offset) if len(parts) > 1 and hasattr(os, "pwritev") else 0
        for part in parts:
            while done < len(part):
                # Short writes are rare: a signal, more than 2 GiB, or a disk that is full and says so next time.
                step = pwrite(self.fd, memoryview(part)[done:], offset + done)
                if not step:
                    raise OSError(errno.EIO, "the file takes no more", self.label)
                done += step
            done -= len(part)
            offset += len(part)

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long."""
        os.ftruncate(self.fd, size)

    def reserve(self, start: int, stop: int, spare: int) -> int:
        """Have the space of the file up to `stop`, and `spare` bytes more if there are; return up to where.

        Raises OSError if there is no space up to `stop`. A file system that cannot reserve counts as one with space.
        """
        if not hasattr(os, "posix_fallocate"):
            return stop + spare
        for end in (stop + spare, stop):
            try:
                os.posix_fallocate(self.fd, start, end - start)
            except OSError as exc:
                if exc.errno in _CANNOT_RESERVE:
                    return end
                if exc.errno not in _NO_SPACE or end == stop:
                    raise
            else:
                return end
        raise AssertionError("not reached")

    def sync(self) -> None:
        """Return when the content, and the length, are on the disk."""
        _sync(self.fd)

    def lock(self) -> None:
        """Become the only writer, or raise LockedStoreError. Where the file system has no locks, nothing is done."""
        try:
            _lock(self.fd)
        except OSError as exc:
            if exc.errno in _NO_LOCKS:
                return
            if exc.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                raise LockedStoreError(
                    self.label, "another writer has it open; close that one, or read with mode='r'"
                ) from None
            raise

    def unlock(self) -> None:
        """Let the next writer in, even if a forked child has this file open still."""
        try:
            _unlock(self.fd)
        except OSError:
            pass  # closing unlocks too


class ObjectFile:
    """An open binary file object (of fsspec, obstore, io), read one thread at a time. It stays its owner's to close.

    Parameters
    ----------
    source : binary file object
        Has ``read`` and ``seek``.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.label = str(getattr(source, "path", None) or getattr(source, "name", None) or repr(source))
        self._position = threading.Lock()

    def pread(self, n: int, offset: int) -> bytes:
        """Return `n` bytes from `offset` on, fewer at the end."""
        parts: list[bytes] = []
        with self._position:
            self.source.seek(offset)
            while n > 0:
                part = bytes(self.source.read(n))
                if not part:
                    break
                parts.append(part)
                n -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self) -> int:
        with self._position:
            end = self.source.seek(0, os.SEEK_END)
            return int(self.source.tell() if end is None else end)


def read_fully(file: File, n: int, offset: int) -> bytes:
    """Return `n` bytes from `offset` on, fewer only where the file ends."""
    data = file.pread(n, offset)
    if len(data) == n:
        return data
    parts = [data]
    got = len(data)
    while data and got < n:  # one call reads 2 GiB at most
        data = file.pread(n - got, offset + got)
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def sync_directory(path: str) -> None:
    """Make a new name in a directory durable."""
    try:
        fd = os.open(path or ".", os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except PermissionError:  # Windows opens no directories; elsewhere one may be written to and not read
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
