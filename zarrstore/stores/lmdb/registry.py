"""One LMDB environment per file in a process, shared by every store on it, and closed while the process forks.

LMDB forbids to open a file twice in a process: its locks are POSIX locks, and closing one descriptor drops those of
the other. So stores on one file share an environment, found by the file's identity and counted.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Any

from zarrstore.errors import LockedStoreError
from zarrstore.stores.lmdb.environments import SharedEnvironment, identity

__all__ = ["acquire", "compact", "drop", "release"]

#: Options in which stores on one file must agree, since they are the environment's.
MUST_AGREE = ("lock", "writemap", "sync", "metasync", "map_async", "meminit", "max_dbs")
#: How long a fork waits for transactions of other threads to end, in seconds.
FORK_WAITS = 5.0

_registry = threading.Lock()
_open_here: list[SharedEnvironment] = []
_dropped: deque[SharedEnvironment] = deque()


def acquire(label: str, path: str, options: dict[str, Any], given: set[str]) -> SharedEnvironment:
    """Return the environment of a file, opening it if this process has not.

    Parameters
    ----------
    label, path, options
        As `SharedEnvironment` takes them.
    given : set of str
        Names of the options that the caller chose; others take what they find.
    """
    with _registry:
        _let_go_of_dropped()
        here = identity(path)
        shared = next((env for env in _open_here if env.identity == here), None)
        if shared is None:
            shared = SharedEnvironment(label, path, options)
            _open_here.append(shared)
            return shared
        for name in MUST_AGREE:
            if name in given and options[name] != shared.options[name]:
                raise LockedStoreError(
                    path,
                    f"{shared.label} has it open in this process with {name}={shared.options[name]!r}, not "
                    f"{options[name]!r}; close that one first, or pass the same",
                )
        larger = (options["map_size"] or 0) > shared.map_size
        writable = shared.options["readonly"] and not options["readonly"]
        if larger or writable:
            before = dict(shared.options)
            shared.options["readonly"] &= options["readonly"]
            with shared.alone():
                try:
                    shared._reopen(max(shared.map_size, options["map_size"] or 0))
                except BaseException:
                    shared.options = before
                    if shared.env is None:
                        shared._open(shared.map_size)
                    raise
        shared.stores += 1
        return shared


def release(shared: SharedEnvironment) -> None:
    """Give an environment back; the last store on it closes it."""
    with _registry:
        _let_go(shared)
        _let_go_of_dropped()


def compact(shared: SharedEnvironment) -> None:
    """Leave out the dead pages of a file; it is another file then, which nobody may look for meanwhile."""
    with _registry:
        shared.compact()


def drop(shared: SharedEnvironment) -> None:
    """Give an environment back from a finaliser, which may run anywhere, and so must not wait."""
    _dropped.append(shared)
    if _registry.acquire(blocking=False):
        try:
            _let_go_of_dropped()
        finally:
            _registry.release()


def _let_go_of_dropped() -> None:
    while _dropped:
        _let_go(_dropped.popleft())


def _let_go(shared: SharedEnvironment) -> None:
    shared.stores -= 1
    if shared.stores == 0:
        _open_here.remove(shared)
        shared.end()


# Fork --------------------------------------------------------------------------------------------------------------
# An environment must not cross a fork: the child would share the parent's lock slots, and closing it there would clear
# them. So it is closed before, and opened on its next use after, on both sides.


def _before_fork() -> None:
    _registry.acquire()
    for shared in _open_here:
        shared.turn.acquire()
        shared.shut = True
        patience = time.monotonic() + FORK_WAITS
        while shared.busy and time.monotonic() < patience:
            time.sleep(0.0001)
        if not shared.busy:
            shared._release()


def _after_fork_in_parent() -> None:
    for shared in _open_here:
        shared.shut = shared.env is None
        shared.turn.release()
    _registry.release()


def _after_fork_in_child() -> None:
    for shared in _open_here:
        if shared.env is not None:
            # A transaction would not end. The child keeps its hands off, even from freeing it.
            shared._inherited.append(shared.env)
            shared.env, shared.busy = None, []
        shared.turn.release()
    _registry.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
