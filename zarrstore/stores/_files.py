"""Files as values: names of temporary files and their owners, whole reads and whole writes."""

from __future__ import annotations

import errno
import functools
import io
import itertools
import os
import re
import stat
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from zarrstore.keys import RESERVED

__all__ = [
    "ABSENT",
    "FIRST_READ",
    "MAX_CALL",
    "TEMPORARY_LENGTH",
    "Pread",
    "is_abandoned",
    "is_busy",
    "is_pipe",
    "is_temporary",
    "location",
    "pread",
    "read_part",
    "read_whole",
    "release_name",
    "remove_tree",
    "rename_new",
    "sweep_folder",
    "temporary_name",
    "with_file",
    "write_rest",
]

T = TypeVar("T")

#: Errors that mean: no regular file has this name, or none could.
ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ESPIPE}
    # O_NOFOLLOW at a link: ELOOP on Linux, EMLINK on FreeBSD, EFTYPE on NetBSD. EILSEQ, EINVAL: a name that the file
    # system cannot hold.
    | {getattr(errno, "EFTYPE", errno.ELOOP), errno.EMLINK, errno.EILSEQ}
    | ({errno.EINVAL} if os.name == "nt" else set())
)

#: Seconds without a write after which a temporary file of another host is abandoned. For this host's processes, whether
#: the process lives decides.
ABANDONED_AFTER = 3600.0
#: Most bytes that one system call reads or writes on Linux.
MAX_CALL = 0x7FFFF000
#: Bytes asked for by a read that does not know the size: a larger buffer would cost page faults.
FIRST_READ = 1 << 16

_TEMPORARY = re.compile(
    re.escape(RESERVED) + r"-(?P<host>[0-9a-f]{8})-(?P<pid>[0-9a-f]{8})-(?P<start>[0-9a-f]{16})-[0-9a-f]{8}"
)


# Temporary files ----------------------------------------------------------------------------------------------------
#
# A name holds its writer: the running system and process namespace, the process and its start time, a serial number.
# The length is fixed and independent of the key, so every key that the file system accepts can be written.


def _host() -> str:
    """Return a mark of this boot of this machine and this process namespace, within which a process id is unique."""
    parts = [os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")]
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        parts.append(file.read())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(repr(parts).encode('utf-8', 'surrogateescape')):08x}"


def _start_time(pid: int) -> int:
    """Return when a process started, in ticks since boot; 0 where that is unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the command's name in parentheses, may hold spaces and parentheses itself.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


_HOST = _host()
_lead = ""
_numbers = itertools.count()
#: Names in use: from `temporary_name` until `release_name`.
_writing: set[str] = set()


def _identify() -> None:
    global _lead
    _writing.clear()
    pid = os.getpid()
    _lead = f"{RESERVED}-{_HOST}-{pid:08x}-{_start_time(pid):016x}-"


_identify()
#: Characters of a temporary name.
TEMPORARY_LENGTH = len(_lead) + 8
if hasattr(os, "register_at_fork"):
    # Not asked at each write: os.getpid is a system call.
    os.register_at_fork(after_in_child=_identify)


def temporary_name() -> str:
    """Return a name that no key has and no other writer takes. Call `release_name` when no such file is left."""
    name = f"{_lead}{next(_numbers) & 0xFFFFFFFF:08x}"
    _writing.add(name)
    return name


#: Take back a temporary name whose file was renamed or deleted. A file that still has the name (its directory was moved
#: meanwhile) is abandoned from then on.
release_name = _writing.discard


def location(path: str, within: str = "") -> tuple[object, str]:
    """Return where a file or directory lies among those of this machine, as `Driver._location` does.

    Examples
    --------
    >>> location("/", "a/b")
    ('files', 'a/b')
    """
    place = os.path.realpath(path).replace(os.sep, "/").strip("/")
    return "files", "/".join(filter(None, (place, within)))


def is_temporary(name: str) -> bool:
    """Tell whether a name is that of a temporary file."""
    return _TEMPORARY.fullmatch(name) is not None


def is_abandoned(place: str) -> bool:
    """Tell whether the writer of the temporary file at `place` is dead, or on another host and silent for an hour."""
    match = _TEMPORARY.fullmatch(os.path.basename(place))
    if match is None:
        return False
    if match[0].startswith(_lead):
        return match[0] not in _writing
    if match["host"] == _HOST and os.name == "posix":
        return not _lives(int(match["pid"], 16), int(match["start"], 16))
    return is_silent(place)


def sweep_folder(folder: str, dry_run: bool = False) -> list[str]:
    """Delete the temporary files of dead writers directly in a directory; return their names."""
    names = [name for name in os.listdir(folder) if is_abandoned(os.path.join(folder, name))]
    for name in () if dry_run else names:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    return names


def remove_tree(root: str) -> None:
    """Delete a directory and all below it, as far as possible; links are deleted, what they lead to is not.

    Not `shutil.rmtree`: Python 3.11's recurses, and a tree may be deeper than the recursion limit.
    """
    pending, folders = [root], []
    while pending:
        folder = pending.pop()
        folders.append(folder)
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)
    for folder in reversed(folders):
        with suppress(OSError):
            os.rmdir(folder)


def is_silent(place: str) -> bool:
    """Tell whether the last write to a file is more than `ABANDONED_AFTER` ago."""
    try:
        return time.time() - os.lstat(place).st_mtime > ABANDONED_AFTER
    except OSError:
        return False


def _lives(pid: int, start: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # the process exists and belongs to another user
        pass
    now = _start_time(pid)
    return now == 0 or start == 0 or now == start


# Whole values -------------------------------------------------------------------------------------------------------

Pread = Callable[[int, int, int], bytes]

if hasattr(os, "pread"):
    pread = os.pread
else:  # pragma: no cover - Windows

    def pread(fd: int, n: int, offset: int, /) -> bytes:
        """Read at an offset of a descriptor that nobody else uses."""
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, n)


_buffered = pread


def with_file(path: str, flags: int, act: Callable[[int], T], mode: int = 0o666) -> T:
    """Open a file, return what `act(descriptor)` returns, close the file."""
    # A loop over `map` stores the descriptor in the step of the interpreter that opens the file. After a plain call of
    # os.open, Ctrl-C could raise before the descriptor has a name, and nobody would close it.
    for fd in map(os.open, (path,), (flags,), (mode,)):
        try:
            return act(fd)
        finally:
            os.close(fd)
    raise AssertionError("unreachable: os.open returns or raises")


def read_whole(fd: int, pread: Pread = pread) -> bytes:
    """Return all of a regular file up to its end; OSError with ENXIO for anything else."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    if pread is _buffered:
        os.lseek(fd, 0, os.SEEK_SET)
        with io.FileIO(fd, closefd=False) as file:
            return file.readall()  # repeats until a read returns nothing, and holds the value once
    parts: list[bytes] = []
    size = 0
    while part := pread(fd, min(max(status.st_size - size, 0) + 1, MAX_CALL), size):
        parts.append(part)
        size += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_rest(fd: int, value: bytes | memoryview, count: int) -> None:
    """Write the rest of a value after a write of `count` bytes: the disk is nearly full, or the value above 2 GiB."""
    view = memoryview(value)
    while count < len(value):
        step = os.write(fd, view[count:])
        if step == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count += step


def read_part(fd: int, span: Callable[[int], tuple[int, int]], pread: Pread = pread) -> bytes:
    """Return the bytes of a regular file within ``span(size)``, a start and a stop."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    start, stop = span(status.st_size)
    parts: list[bytes] = []
    while start < stop and (part := pread(fd, min(stop - start, MAX_CALL), start)):
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def is_pipe(path: str) -> bool:
    """Tell whether a path is a named pipe: to open one waits for another process."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):  # the opening says which
        return False


def is_busy(exc: OSError) -> bool:
    """Tell whether Windows refused to replace a file because a program, such as a virus scanner, has it open."""
    return getattr(exc, "winerror", None) in (5, 32)  # access denied, sharing violation


# A rename that replaces nothing -----------------------------------------------------------------------------------

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
#: A system or a file system without such a call.
_NO_CALL = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})
#: A file system without hard links, or a system that restricts them.
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})


def rename_new(source: str, dest: str) -> bool:
    """Rename a file; return False, with nothing changed, if something has the new name already.

    Notes
    -----
    One ``renameat2`` on Linux. Where the system or the file system has none: a hard link and an unlink, which replace
    nothing either; without links a look and a rename, between which another process may set the name.
    """
    call = _renameat2()
    if call is not None:
        code = call(source, dest)
        if code == 0:
            return True
        if code == errno.EEXIST:
            return False
        if code not in _NO_CALL:
            raise OSError(code, os.strerror(code), source, None, dest)
    return _link(source, dest)


def _link(source: str, dest: str) -> bool:
    try:
        os.link(source, dest, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        if os.path.lexists(dest):
            return False
        os.replace(source, dest)
    else:
        with suppress(OSError):  # the file has its name; a second one is swept like those of dead writers
            os.unlink(source)
    return True


@functools.cache
def _renameat2() -> Callable[[str, str], int] | None:
    """Return a function that renames and returns 0 or an errno; None where the C library has no such call."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (ImportError, OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    encode, get_errno = os.fsencode, ctypes.get_errno

    def rename(source: str, dest: str) -> int:
        if call(_AT_FDCWD, encode(source), _AT_FDCWD, encode(dest), _RENAME_NOREPLACE) == 0:
            return 0
        return get_errno()

    return rename
