"""Files as values: names of temporary files and their owners, whole reads and whole writes."""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

from zarrstore.keys import RESERVED

__all__ = [
    "ABSENT",
    "USUAL",
    "Pread",
    "finished",
    "is_abandoned",
    "is_busy",
    "is_temporary",
    "pread",
    "read_part",
    "read_whole",
    "sweep_folder",
    "temporary_name",
    "write_rest",
]

#: What the file system says of a name at which no regular file stands, or could.
ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ESPIPE}
    # FreeBSD and NetBSD say of a link met with O_NOFOLLOW what Linux says with ELOOP; Windows of a name it cannot hold.
    | {getattr(errno, "EFTYPE", errno.ELOOP), errno.EMLINK, errno.EILSEQ}
    | ({errno.EINVAL} if os.name == "nt" else set())
)

#: What another host left counts as abandoned after so many seconds; of this host's processes we know who lives.
ABANDONED_AFTER = 3600.0
#: The most that one call of the system reads or writes on Linux.
_LARGEST = 0x7FFFF000
#: Below this a generous buffer costs nothing; above it, fresh pages do.
USUAL = 1 << 16

_TEMPORARY = re.compile(
    re.escape(RESERVED) + r"-(?P<host>[0-9a-f]{8})-(?P<pid>[0-9a-f]{8})-(?P<start>[0-9a-f]{16})-[0-9a-f]{8}"
)


# Temporary files ----------------------------------------------------------------------------------------------------
#
# A name says who writes it: the running system and its process namespace, the process and when it started, a number.
# Its length is fixed and owes nothing to the key, so every key that the file system takes can be written.


def _host() -> str:
    """Return a mark of this boot of this machine and this process namespace, within which a process id is unique."""
    parts = [os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")]
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        parts.append(file.read())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(repr(parts).encode('utf-8', 'surrogateescape')):08x}"


def _started(pid: int) -> int:
    """Return when a process started, in ticks since boot; 0 where that cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name stands in parentheses and may hold anything, spaces and parentheses too.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


_HOST = _host()
_lead = ""
_numbers = itertools.count()
#: Names that this process gave out, until it says that the file has its final name or is gone.
_writing: set[str] = set()


def _identify() -> None:
    global _lead
    _writing.clear()
    pid = os.getpid()
    _lead = f"{RESERVED}-{_HOST}-{pid:08x}-{_started(pid):016x}-"


_identify()
if hasattr(os, "register_at_fork"):
    # Not asked at each write: os.getpid is a system call.
    os.register_at_fork(after_in_child=_identify)


def temporary_name() -> str:
    """Return a name that no key has and no other writer takes; tell `finished` when no such file is being written."""
    name = f"{_lead}{next(_numbers) & 0xFFFFFFFF:08x}"
    _writing.add(name)
    return name


#: Told of a temporary name whose file was renamed or deleted. If it was moved away with its directory before that, what
#: stands there now is abandoned, although its writer lives.
finished = _writing.discard


def is_temporary(name: str) -> bool:
    """Tell whether a file of this name is one that a store was writing."""
    return _TEMPORARY.fullmatch(name) is not None


def is_abandoned(place: str) -> bool:
    """Tell whether the writer of the temporary file at `place` is dead, or far away and long silent."""
    match = _TEMPORARY.fullmatch(os.path.basename(place))
    if match is None:
        return False
    if match[0].startswith(_lead):
        return match[0] not in _writing
    if match["host"] == _HOST and os.name == "posix":
        return not _lives(int(match["pid"], 16), int(match["start"], 16))
    return is_silent(place)


def sweep_folder(folder: str, dry_run: bool = False) -> list[str]:
    """Delete the temporary files of dead writers that stand in a directory itself; return their names."""
    found = [name for name in os.listdir(folder) if is_abandoned(os.path.join(folder, name))]
    for name in () if dry_run else found:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    return found


def is_silent(place: str) -> bool:
    """Tell whether a file was not written for so long that its writer can be taken for dead."""
    try:
        return time.time() - os.lstat(place).st_mtime > ABANDONED_AFTER
    except OSError:
        return False


def _lives(pid: int, start: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's, and it is there
        pass
    now = _started(pid)
    return now == 0 or start == 0 or now == start


# Whole values -------------------------------------------------------------------------------------------------------

Pread = Callable[[int, int, int], bytes]

if hasattr(os, "pread"):
    pread = os.pread
else:  # pragma: no cover - Windows

    def pread(fd: int, n: int, offset: int, /) -> bytes:
        """Read at an offset; the descriptor is the caller's alone."""
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, n)


def read_whole(fd: int, pread: Pread = pread) -> bytes:
    """Return all of a regular file, in one read where the system can; OSError with ENXIO for anything else."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    # One byte more than there is: a read that comes back short has met the end.
    value = pread(fd, min(found.st_size + 1, _LARGEST), 0)
    if len(value) == found.st_size:
        return value
    parts = [value]
    at = len(value)
    while part := pread(fd, 1 << 24, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def write_rest(fd: int, value: bytes, written: int) -> None:
    """Write what a first, short write left: a disk that is nearly full, a signal, or more than 2 GiB."""
    view = memoryview(value)
    while written < len(value):
        count = os.write(fd, view[written:])
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += count


def read_part(fd: int, span: Callable[[int], tuple[int, int]], pread: Pread = pread) -> bytes:
    """Return the bytes of a regular file from where to where `span` says, which is told the size."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    at, stop = span(found.st_size)
    parts = []
    while at < stop:
        part = pread(fd, min(stop - at, _LARGEST), at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def is_busy(exc: OSError) -> bool:
    """Tell whether Windows denies a replace because somebody, a virus scanner perhaps, has the destination open."""
    return getattr(exc, "winerror", None) in (5, 32)  # access denied, sharing violation
