"""One LMDB environment per file in a process, shared by every store on it.

LMDB forbids to open a file twice in a process: its locks are POSIX locks, and closing one descriptor drops those of
the other. So stores on one file share an environment, found by the file's identity and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from zarrstore.errors import LockedStoreError
from zarrstore.stores import _process
from zarrstore.stores.lmdb.environments import SharedEnvironment
from zarrstore.stores.lmdb.opening import identity

__all__ = ["acquire", "compact", "drop", "release"]

T = TypeVar("T")

#: Options in which stores on one file must agree, since they are the environment's.
MUST_AGREE = ("lock", "writemap", "sync", "metasync", "map_async", "meminit", "max_dbs")

#: Environments of stores that were lost without a close; each entry counts one store less.
_dropped: deque[SharedEnvironment] = deque()
_locked = False  # whether a thread is inside `_with_lock`


def _with_lock(work: Callable[[], T]) -> T:
    """Return ``work()``, done while no other thread opens or closes an environment, and none forks."""
    global _locked
    with _process.registry_lock:
        try:
            _locked = True
            _give_back_dropped()
            return work()
        finally:
            _locked = False


def acquire(
    label: str, path: str, options: dict[str, Any], given: set[str], check: bool | None = None
) -> SharedEnvironment:
    """Return the environment of a file, opening it if this process has not.

    Parameters
    ----------
    label, path, options, check
        As `SharedEnvironment` takes them.
    given : set of str
        Names of the options that the caller chose; others take what they find.
    """
    return _with_lock(lambda: _acquire(label, path, options, given, check))


def _acquire(label: str, path: str, options: dict[str, Any], given: set[str], check: bool | None) -> SharedEnvironment:
    here = identity(path)
    shared = next((env for env in _process.registered(SharedEnvironment) if env.identity == here), None)
    if shared is None:
        return SharedEnvironment(label, path, options, check)
    for name in MUST_AGREE:
        if name in given and options[name] != shared.options[name]:
            raise LockedStoreError(
                path,
                f"{shared.label} has it open in this process with {name}={shared.options[name]!r}, not "
                f"{options[name]!r}; close that one first, or pass the same",
            )
    map_size = options["map_size"] or 0
    if map_size > shared.map_size or (shared.options["readonly"] and not options["readonly"]):
        shared.widen(map_size, options["readonly"])
    shared.stores += 1
    return shared


def release(shared: SharedEnvironment) -> None:
    """Give an environment back; the last store on it closes it."""
    _with_lock(lambda: _give_back(shared))


def compact(shared: SharedEnvironment) -> None:
    """Leave out the dead pages of a file; it is another file then, which nobody may look for meanwhile."""
    _with_lock(shared.compact)


def drop(shared: SharedEnvironment) -> None:
    """Give an environment back from a finaliser, which may run in any thread at any step, and so must not wait."""
    _dropped.append(shared)
    lock = _process.registry_lock
    try:
        # Where this thread holds the lock already, and is in the middle of something, `_locked` tells.
        if lock.acquire(blocking=False) and not _locked:
            _give_back_dropped()
    finally:
        # Whatever it returned: an interrupt may come before anybody has looked.
        try:
            lock.release()
        except RuntimeError:  # another thread has it
            pass


def _give_back_dropped() -> None:
    while _dropped:
        _give_back(_dropped.popleft())


def _give_back(shared: SharedEnvironment) -> None:
    shared.stores -= 1
    if shared.stores == 0:
        shared.close()
