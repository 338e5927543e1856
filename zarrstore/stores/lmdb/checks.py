"""Whether a data file is whole: looked at before LMDB has it, because LMDB ends the process where it is not.

Commits that are synced leave a whole file whatever happens. Commits that are not (``sync=False`` here, and all of zarr
2) may leave, after a power cut, a root that names pages which were never written: keys are missing, values are those of
other keys, or LMDB aborts. LMDB's pages have no checksums, so nothing proves such a file right; what can be proven is
its structure (`lmdb.verify`), and that nobody wrote without syncs when the machine stopped (the second mark).

Two marks are extended attributes of the data file, where the file system has such:

``user.zarrstore.whole``
    The state (last transaction, size, time) in which the file was found or left whole: it is not looked at again.
``user.zarrstore.unsynced``
    The boot of the machine in which somebody opened it to write without syncs. The last one to close it removes it.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zarrstore.errors import DamagedStoreError
from zarrstore.stores.lmdb.pages import Meta, read_metas

__all__ = ["MOST_ENTRIES", "check", "mark_unsynced", "mark_whole", "state_of", "unmark_unsynced"]

#: Entries up to which every file is looked at that carries no mark. It takes about 15 microseconds for each.
MOST_ENTRIES = 50_000

#: More than the addresses of a process.
_MOST_ADDRESSES = 1 << 47

_WHOLE, _UNSYNCED = "user.zarrstore.whole", "user.zarrstore.unsynced"
_AS_IT_IS = "check=False opens it as it is, which may end the process"


def check(path: str, lock: str | None, mode: int, wanted: bool | None) -> None:
    """Raise DamagedStoreError if a data file is not whole.

    Parameters
    ----------
    path, lock : str
        The data file and its lock file; without a lock file nobody may write meanwhile.
    mode : int
        Permissions of a lock file that must be made.
    wanted : bool or None
        False: not looked at. True: always looked at. None: unless it is marked as whole, another process has it open,
        or it has more than `MOST_ENTRIES` entries and nothing tells that it was written without syncs.
    """
    if wanted is False:
        return
    with _nobody_else(lock, mode) as alone:
        if alone or wanted:
            _check_at_rest(path, bool(wanted))


def _check_at_rest(path: str, wanted: bool) -> None:
    unsynced = _attribute(path, _UNSYNCED)
    if unsynced and unsynced != _boot():
        raise DamagedStoreError(
            path,
            "was open for writing without syncs (sync=False) when the machine stopped: parts of it may never have "
            "reached the disk",
            f"restore it from a copy; {_AS_IT_IS}",
        )
    try:
        state, problem = state_of(path), _map_problem(path)
        if not (problem or wanted or unsynced) and (state == _attribute(path, _WHOLE) or _entries(path) > MOST_ENTRIES):
            return
        problem = problem or _first_problem(path)
    except (struct.error, EOFError):
        problem = "it ends within its head"
    if problem:
        raise DamagedStoreError(
            path, f"is truncated, damaged, or no LMDB file: {problem}", f"restore it from a copy; {_AS_IT_IS}"
        )
    if unsynced:
        # The machine has not stopped since, so what was written is in memory at least.
        unmark_unsynced(path, None, mode=0, sync=True)
    mark_whole(path, state)


def _first_problem(path: str) -> str:
    try:
        from lmdb.verify import VerifyError, verify
    except ImportError:  # py-lmdb before 3.0
        return ""
    try:
        problems: list[str] = verify(path, subdir=False)  # type: ignore[no-untyped-call]
    except VerifyError as exc:
        return str(exc)
    return next(_not_harmless(problems), "")


# Where one transaction writes a large value and then a smaller one under its key, LMDB keeps all pages of the first: a
# whole file, in which `lmdb.verify` finds a surplus. A page that is neither used nor free is lost space and no danger.
_SURPLUS = re.compile(r"header mp_pages (\d+) != OVPAGES\(\d+\)=(\d+)$")
_TOTAL = re.compile(r"walked (\d+) overflow pages, record says (\d+)$")
_LOST = re.compile(r"page\(s\) are neither reachable nor in the freeDB")


def _not_harmless(problems: list[str]) -> Iterator[str]:
    surplus = 0
    for problem in problems:
        if match := _SURPLUS.search(problem):
            kept, needed = map(int, match.groups())
            surplus += kept - needed
            if kept > needed:
                continue
        elif match := _TOTAL.search(problem):
            walked, recorded = map(int, match.groups())
            if recorded - walked == surplus:
                continue
        elif _LOST.search(problem):
            continue
        yield problem


# Marks --------------------------------------------------------------------------------------------------------------


def state_of(path: str) -> str:
    """Return what changes whenever a file is written to: its last transaction, size, time of change, and number."""
    status = os.stat(path)
    last = max((meta.txnid for meta in read_metas(path)), default=0)
    return f"{last} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def mark_whole(path: str, state: str) -> None:
    """Note that a file was whole, and on the disk, in the state that `state_of` returned before that was seen to."""
    _set_attribute(path, _WHOLE, state)


def mark_unsynced(path: str) -> None:
    """Note, durably, that a file is being written without syncs."""
    if _attribute(path, _UNSYNCED) != _boot() and _set_attribute(path, _UNSYNCED, _boot()):
        _fsync(path)


def unmark_unsynced(path: str, lock: str | None, mode: int, sync: bool = False) -> None:
    """Take the mark away if no other process has the file open; its content is on the disk, or else synced now."""
    if not _attribute(path, _UNSYNCED):
        return
    with _nobody_else(lock, mode) as alone, suppress(OSError):
        if alone:
            if sync:
                _fsync(path)
            os.removexattr(path, _UNSYNCED)
            _fsync(path)


def _attribute(path: str, name: str) -> str:
    try:
        return os.getxattr(path, name).decode("ascii", "replace")
    except (OSError, AttributeError):  # the file has none; the file system, or the operating system, knows none
        return ""


def _set_attribute(path: str, name: str, content: str) -> bool:
    try:
        os.setxattr(path, name, content.encode())
    except (OSError, AttributeError):
        return False
    return True


def _fsync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _boot() -> str:
    """Return what tells this run of the machine from every other; "" where that cannot be known."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _map_problem(path: str) -> str:
    # LMDB maps as much as the newer head says.
    size = max(read_metas(path), default=Meta(0, 0)).map_size
    return f"its head asks for a map of {size:,} bytes" if size >= _MOST_ADDRESSES else ""


def _entries(path: str) -> int:
    return max(read_metas(path), default=Meta(0, 0)).entries


# The lock -----------------------------------------------------------------------------------------------------------


@contextmanager
def _nobody_else(lock: str | None, mode: int) -> Iterator[bool]:
    """Yield True while no other process has the file open nor can open it; False if one has.

    Notes
    -----
    LMDB holds a shared lock on the first byte of the lock file wherever an environment is open, an exclusive one while
    it looks for others, and waits for one to open. Where this process itself has it open, by a store or by
    ``lmdb.open``, nothing is done: closing the lock file here would drop the locks of LMDB.
    """
    if lock is not None and _is_open_here(lock):
        yield False
        return
    fd = -1 if lock is None else _open_lock(lock, mode)
    if fd < 0:
        yield True
        return
    try:
        yield _lock_out(fd)
    finally:
        os.close(fd)


def _is_open_here(path: str) -> bool:
    """Tell whether a descriptor of this process is open on a file."""
    try:
        status = os.stat(path)
        descriptors = os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd")
    except OSError:
        return False
    for descriptor in descriptors:
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(descriptor)), status):
                return True
    return False


def _open_lock(lock: str, mode: int) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT, mode)
    except OSError:  # a read-only file system, where nobody writes
        return -1


def _lock_out(fd: int) -> bool:
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows
        return True

    def locked(kind: int) -> bool:
        try:
            fcntl.lockf(fd, kind | fcntl.LOCK_NB, 1, 0)
        except OSError:
            return False
        return True

    while not locked(fcntl.LOCK_EX):
        if locked(fcntl.LOCK_SH):
            return False
        time.sleep(0.001)  # another process is opening the file, or looks whether it is whole
    return True
