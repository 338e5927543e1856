"""Reads and writes past the page cache: O_DIRECT wants offsets, lengths and memory in whole pages."""

from __future__ import annotations

import errno
import mmap
import os
import threading

__all__ = ["pread", "write"]

_DIRECT = getattr(os, "O_DIRECT", 0)
_PAGE = max(4096, mmap.PAGESIZE)
#: Moved in one call, bytes.
_WINDOW = 8 << 20
_REFUSED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

_held = threading.local()


def _buffer(size: int) -> mmap.mmap:
    """Return memory that begins on a page, this thread's own."""
    held: mmap.mmap | None = getattr(_held, "buffer", None)
    if held is None or len(held) < size:
        # Private: a forked child must not read into its parent's memory.
        held = _held.buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return held


def _arm(fd: int, direct: bool = True) -> bool:
    """Switch an open file to O_DIRECT or back; False where the file system has none.

    After the open, not in it: a refused open may have created the file.
    """
    if not _DIRECT:
        return False
    import fcntl  # not on Windows

    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | _DIRECT if direct else flags & ~_DIRECT)
    except OSError as exc:
        if exc.errno in _REFUSED:
            return False
        raise
    return True


def _rounded(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def pread(fd: int, n: int, offset: int) -> bytes:
    """Do `os.pread` past the page cache, buffered where that is refused; short at the end of the file only."""
    if not _arm(fd):
        return os.pread(fd, n, offset)
    parts = []
    stop = offset + n
    while offset < stop:
        skip = offset % _PAGE
        length = min(_rounded(stop - offset + skip), _WINDOW)
        buffer = _buffer(length)
        try:
            with memoryview(buffer) as view:
                count = os.preadv(fd, [view[:length]], offset - skip)
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise
            _arm(fd, False)
            parts.append(os.pread(fd, stop - offset, offset))
            break
        if 0 < count <= skip:
            # A short read that ended before `offset`: an empty part would look like the end of the file.
            _arm(fd, False)
            parts.append(os.pread(fd, stop - offset, offset))
            break
        part = buffer[skip : min(count, skip + stop - offset)]
        parts.append(part)
        offset += len(part)
        if count < length:
            break
    return b"".join(parts)


def write(fd: int, value: bytes | memoryview) -> int:
    """Write a value at the start of an empty file past the page cache; return how many bytes went so."""
    if not len(value) or not _arm(fd):
        return 0
    done = 0
    while done < len(value):
        piece = value[done : done + _WINDOW]
        length = _rounded(len(piece))
        buffer = _buffer(length)
        buffer[: len(piece)] = piece
        buffer[len(piece) : length] = bytes(length - len(piece))
        try:
            with memoryview(buffer) as view:
                count = os.write(fd, view[:length])
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise
            break
        done = min(done + count, len(value))
        if count < length:
            break
    _arm(fd, False)
    os.ftruncate(fd, done)
    os.lseek(fd, done, os.SEEK_SET)
    return done
