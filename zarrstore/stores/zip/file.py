"""A file that is read and written at positions, by any number of threads, and locked against a second writer."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from zarrstore.errors import DamagedStoreError, LockedStoreError, StoreReadError
from zarrstore.stores._files import is_pipe

__all__ = ["File", "OSFile", "ObjectFile", "file_of", "read_fully", "sync_directory"]

#: Errors by which a file system says that it cannot reserve space.
_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}
#: Errors by which it says that there is none left.
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
#: Errors by which it says that it knows no locks.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF}
#: Bytes read or written by one call: not every system takes 2 GiB or more.
_MOST = 1 << 30
#: Buffers written by one call.
_MOST_PARTS = 64


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


_FILE_MODES = {"r": "rb", "r+": "r+b", "x": "x+b"}


class File(Protocol):
    """What reading needs. ``pread`` may come back short; with nothing, only at the end of the file."""

    #: How errors name it.
    label: str

    def pread(self, n: int, offset: int, /) -> bytes:
        """Return `n` bytes from `offset` on."""

    def size(self) -> int:
        """Return the length in bytes."""


class OSFile:
    """A file of this machine, closed when nobody reads it any more.

    Parameters
    ----------
    handle : io.FileIO
        The open file.
    label : str
        How errors name it.

    Notes
    -----
    Readers take no lock. So the descriptor is closed by the last reference and never by a call: a number closed under
    a reader could by then be another file. FileIO opens it, because an interrupt behind `os.open` would lose the number
    and leave the file open.
    """

    def __init__(self, handle: io.FileIO, label: str) -> None:
        self._handle = handle
        self.fd = handle.fileno()
        self.label = label

    @classmethod
    def open(cls, path: str, mode: str, label: str) -> OSFile:
        """Open a file: 'r' to read, 'r+' to write too, 'x' to create, 'a' to write or create."""
        if is_pipe(path):
            # Opening it would wait for a writer, and an archive is read from its end.
            raise DamagedStoreError(label, "is a pipe, and no zip archive")
        if mode != "a":
            return cls(io.FileIO(path, _FILE_MODES[mode]), label)
        while True:
            try:
                return cls(io.FileIO(path, "r+b"), label)
            except FileNotFoundError:
                with suppress(FileExistsError):  # another process creates it now
                    # The real path: "x" refuses a link that leads nowhere, and "r+" does not find it.
                    return cls(io.FileIO(os.path.realpath(path), "x+b"), label)

    def __del__(self) -> None:
        with suppress(OSError):  # what mattered was synced before
            self._handle.close()

    def pread(self, n: int, offset: int) -> bytes:
        """Return `n` bytes from `offset` on, fewer at the end."""
        return pread(self.fd, n, offset)

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def copy_permissions(self, other: OSFile) -> None:
        """Take the mode of another file, and its owner where the user may give files away."""
        status = os.fstat(other.fd)
        if hasattr(os, "fchown"):
            with suppress(PermissionError):
                os.fchown(self.fd, status.st_uid, status.st_gid)
            os.fchmod(self.fd, status.st_mode & 0o7777)

    def identity(self) -> tuple[int, int]:
        """Return the numbers by which this file differs from every other."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def is_at(self, path: str) -> bool:
        """Tell whether this is the file at a path now."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self.identity()

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        """Write all parts, one behind the other, or raise; the operating system has them when this returns."""
        together = 1 < len(parts) <= _MOST_PARTS and sum(map(len, parts)) <= _MOST
        done = os.pwritev(self.fd, parts, offset) if together and hasattr(os, "pwritev") else 0
        for part in parts:
            while done < len(part):
                # Short writes are rare: a signal, or a disk that is full and says so next time.
                step = pwrite(self.fd, memoryview(part)[done : done + _MOST], offset + done)
                if not step:
                    raise OSError(errno.EIO, "the file takes no more", self.label)
                done += step
            done -= len(part)
            offset += len(part)

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long."""
        os.ftruncate(self.fd, size)

    def reserve(self, start: int, stop: int, spare: int) -> int:
        """Reserve space up to `stop`, and `spare` bytes more if the disk has them; return where the space ends.

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

    def lock(self) -> bool:
        """Become the only writer, or raise LockedStoreError; return False where the file system has no locks."""
        try:
            _lock(self.fd)
        except OSError as exc:
            if exc.errno in _NO_LOCKS:
                return False
            if exc.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                raise LockedStoreError(
                    self.label, "another writer has it open; close that one, or read with mode='r'"
                ) from None
            raise
        return True

    def unlock(self) -> None:
        """Let the next writer in, even if a forked child has this file open still."""
        with suppress(OSError):  # closing unlocks too
            _unlock(self.fd)


def file_of(source: Any) -> File:
    """Return an open file object as a File: by positioned calls where it is a plain file, else by seek and read."""
    raw = source.raw if type(source) is io.BufferedReader else source
    if type(raw) is not io.FileIO or not hasattr(os, "pread"):
        return ObjectFile(source)
    # A descriptor of our own for the same open file: its owner may close his, and the number be another file's then.
    # Chained in C, so that no interrupt comes between the number and the object that closes it.
    return OSFile(next(map(io.FileIO, map(os.dup, (raw.fileno(),)))), _label_of(source))


def _label_of(source: Any) -> str:
    return str(getattr(source, "path", None) or getattr(source, "name", None) or repr(source))


class ObjectFile:
    """An open binary file object (of fsspec, obstore, io), read one thread at a time. Its owner closes it.

    Parameters
    ----------
    source : binary file object
        Has ``read`` and ``seek``.

    Notes
    -----
    A fork copies an object, and with it a position that Python keeps. A position that the system keeps, as that of
    every file with a descriptor, is shared with the child: a read there could return other bytes, so it is refused.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.label = _label_of(source)
        self._pid = os.getpid()
        self._has_descriptor = _has_descriptor(source)
        #: One lock for each process: a fork copies a lock that another thread holds, and not the thread.
        self._locks = {self._pid: threading.Lock()}

    @property
    def _position(self) -> threading.Lock:
        pid = os.getpid()
        if pid != self._pid and self._has_descriptor:
            raise StoreReadError(
                "the archive",
                self.label,
                "the position of an open file object is shared with the parent process; open the archive by its path, "
                "or open the file object in this process",
            )
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.Lock())

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


def _has_descriptor(source: Any) -> bool:
    try:
        source.fileno()
    except (AttributeError, OSError, ValueError):  # io.UnsupportedOperation is both of the latter
        return False
    return True


def read_fully(file: File, n: int, offset: int) -> bytes:
    """Return `n` bytes from `offset` on, fewer only where the file ends."""
    data = file.pread(min(n, _MOST), offset)
    if len(data) == n:
        return data
    parts = [data]
    read = len(data)
    while data and read < n:  # a signal, a network, or more than one call can read
        data = file.pread(min(n - read, _MOST), offset + read)
        parts.append(data)
        read += len(data)
    return b"".join(parts)


def sync_directory(path: str) -> None:
    """Make a new name in a directory durable."""
    opened: list[int] = []
    try:
        # By extend, so that no interrupt comes between the opening and the place that remembers the number.
        opened.extend(map(os.open, (path or ".",), (os.O_RDONLY | getattr(os, "O_DIRECTORY", 0),)))
        os.fsync(opened[0])
    except PermissionError:  # Windows opens no directories; elsewhere one may be written to and not read
        pass
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that sync no directories
            raise
    finally:
        for fd in opened:
            os.close(fd)
