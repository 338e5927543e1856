"""The guard of what belongs to one process: open files with locks, connections, locks of threads.

Three things of a process end in a wrong way if nobody takes care:

- A fork copies an open file, and not its POSIX locks; it copies a lock that another thread holds, and not the thread.
- The end of the interpreter runs beside daemon threads, which may be in the middle of a write.
- An interrupt (Ctrl-C) may come between any two steps, and must leave no lock held.

`Resource` is the one answer. A class that holds something of the process derives from it, is registered when it is
made, and overrides up to four hooks. One lock (`registry_lock`) is held over every fork, so that two threads which fork
at once do so one after the other; one table has all resources; one set of hooks is known to the interpreter.

A resource is used in one of two ways:

*shared*
    Any number of threads at a time, each inside ``use(work)``. `alone(work)` stops them: it waits until no thread is
    inside, and lets none in meanwhile. Example: an LMDB environment, a pool of SQLite connections.
*exclusive*
    One thread at a time, inside ``with resource.turn``. Example: the writer of a zip archive, the index of a DictStore.

Examples
--------
>>> class Log(Resource):
...     def __init__(self, path):
...         super().__init__(f"Log({path!r})")
...         self.file = open(path, "ab")
...         self.register()
...
...     def write(self, line):
...         with self.turn:  # a fork waits for the line, and so does the end of the interpreter
...             self.check()  # after the end of the interpreter, and after `end`, it says so
...             self.file.write(line)
...
...     def before_fork(self):  # no thread is inside `use`, and none has the turn
...         self.file.flush()  # otherwise the child would write what the parent wrote
...
...     def at_exit(self):  # as before_fork; afterwards every use is refused
...         self.file.flush()
>>> log = Log("log.txt")
>>> log.write(b"data")
>>> log.end(log.file.close)
>>> log.write(b"more")
Traceback (most recent call last):
zarrstore.errors.ClosedStoreError: Log('log.txt') is closed; open it again
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from zarrstore.errors import ClosedStoreError, LockedStoreError

__all__ = ["EXIT_WAITS", "FORK_WAITS", "Resource", "Stay", "registered"]

T = TypeVar("T")
R = TypeVar("R", bound="Resource")

#: How long a fork waits for the calls of other threads to end, in seconds.
FORK_WAITS = 5.0
#: How long the end of the interpreter waits for the calls of daemon threads to end, in seconds.
EXIT_WAITS = 10.0
#: Between two looks whether the last call has ended, in seconds.
_PAUSE = 0.0001

#: Held over every fork, and by whoever registers a resource or looks for one that is open. Not for finalisers: they may
#: run in a thread that holds it. Refer to it as ``_process.registry_lock``: a forked child may have a new one.
registry_lock = threading.RLock()

_numbers = itertools.count()
_resources: weakref.WeakValueDictionary[int, Resource] = weakref.WeakValueDictionary()
#: What the thread that forks has stopped, by the number of the thread.
_stopped: dict[int, list[Resource]] = {}


class Stay:
    """A use that lasts while code of the caller runs, which may want to be alone with the resource, or fork."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Resource:
    """Something that belongs to one process: its threads use it together, no fork and no exit finds it half way.

    Parameters
    ----------
    label : str
        How errors name it: the `repr` of the store.
    path : str, optional
        The file, for errors that are about the file.

    Attributes
    ----------
    turn : threading.RLock
        Held by the thread that uses the resource exclusively. A thread may hold it and then ask for `registry_lock`
        never; the other way round it may.
    busy : list
        One entry for each call inside `use`, and a `Stay` for each thread that is inside for longer.
    shut : bool
        True where a use must first ask `admit`. `alone`, forks and the exit leave it True; `admit` makes it False.
    dead : bool
        True after `end` and after the exit of the interpreter.
    quiet : bool
        False in a forked child whose parent was in a call that did not end: the state is then unknown.

    Notes
    -----
    Hooks are called with the `turn` held and no thread inside `use`. What a hook raises is raised to nobody, except by
    `at_exit`, whose errors the interpreter prints; so keep what a later flush must report.

    Interrupts: an entry is put into `busy` by the first statement *inside* a ``try`` and taken out by the first of its
    ``finally``, and ``with lock`` is one step of the interpreter, so no interrupt leaves a lock held or a count wrong.
    Whoever writes the loop of `use` again, to save its call, keeps that order.
    """

    def __init__(self, label: str, path: str = "") -> None:
        self.label = label
        self.path = path
        self.turn = threading.RLock()
        self.busy: list[Any] = []
        self.shut = True
        self.dead = False
        self.quiet = True
        self._number = next(_numbers)

    # Hooks ---------------------------------------------------------------------------------------------------------

    def reopen(self) -> None:
        """Open what was closed; called by `admit` before the first use after `alone`, a fork, or the registration."""

    def before_fork(self) -> None:
        """Close or finish what must not be copied as it is. Not called where another thread's call did not end."""

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's. `quiet` tells whether `before_fork` was called."""

    def at_exit(self) -> None:
        """Finish what a daemon thread began: flush. No use is possible afterwards."""

    # Life ----------------------------------------------------------------------------------------------------------

    def register(self) -> None:
        """Take part in forks and in the exit, before anything is opened. Held weakly: a lost resource leaves by itself.

        Waits while another thread forks.
        """
        with registry_lock:
            _resources[self._number] = self

    def unregister(self) -> None:
        """Take no part any more: nothing of the process is held."""
        _resources.pop(self._number, None)

    def end(self, work: Callable[[], T]) -> T:
        """Return ``work()``, done alone; whatever it raises, the resource is dead and no longer registered."""

        def last() -> T:
            try:
                return work()
            finally:
                self.dead = True
                self.unregister()

        return self.alone(last)

    def check(self) -> None:
        """Raise ClosedStoreError if dead, LockedStoreError if this process was forked in the middle of a call."""
        if self.dead:
            raise ClosedStoreError(self.label)
        if not self.quiet:
            raise LockedStoreError(
                self.path or self.label,
                "this process was forked while another thread was in a call that did not end; fork when no thread uses "
                "the store, or start processes by spawn",
            )

    # Use -----------------------------------------------------------------------------------------------------------

    def use(self, work: Callable[[], T]) -> T:
        """Return ``work()``, done while other threads may be inside `use` too, and none inside `alone`."""
        busy = self.busy  # a forked child has another list
        while True:
            try:
                busy.append(None)
                if not self.shut:
                    return work()
            finally:
                busy.pop()
            self.admit()

    def admit(self) -> None:
        """Return when the resource may be used: nobody is alone with it, and what was closed is open again."""
        with self.turn:
            self.check()
            self.reopen()
            self.shut = False

    def enter(self, stay: Stay) -> list[Any]:
        """Put `stay` into `busy` once that is allowed; return the list, from which the caller removes it at the end."""
        while True:
            busy = self.busy
            entered = False
            try:
                busy.append(stay)
                entered = not self.shut
                if entered:
                    return busy
            finally:
                if not entered:
                    busy.remove(stay)
            self.admit()

    def alone(self, work: Callable[[], T]) -> T:
        """Return ``work()``, done when no thread is inside `use`; those that want to wait meanwhile.

        Raises
        ------
        LockedStoreError
            This thread itself stays inside.
        """
        with self.turn:
            self.shut = True
            if not self.wait_for_others():
                self.refuse_within_stay()
            return work()

    def refuse_within_stay(self) -> None:
        """Raise LockedStoreError if this thread itself stays inside."""
        me = threading.get_ident()
        if any(isinstance(entry, Stay) and entry.thread == me for entry in list(self.busy)):
            raise LockedStoreError(
                self.path or self.label,
                "this thread is inside a block that reads a view of it; do this after the block",
            )

    def wait_for_others(self, deadline: float = float("inf")) -> bool:
        """Wait until no other thread is inside `use`, or until `deadline`; return whether nobody is inside then."""
        me = threading.get_ident()
        while self.busy:
            if all(isinstance(entry, Stay) and entry.thread == me for entry in list(self.busy)):
                return not self.busy
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
        return True

    # Forks and the exit --------------------------------------------------------------------------------------------

    def _stop(self, deadline: float) -> bool:
        """Have the turn and nobody inside; return False if there is no time left. The turn may then be held or not."""
        if not self.turn.acquire(timeout=_seconds_until(deadline)):
            return False
        self.shut = True
        return self.wait_for_others(deadline)

    def _before_fork(self, deadline: float) -> None:
        self._fork_was_quiet = False
        if self._stop(deadline):
            self._fork_was_quiet = True
            self.before_fork()

    def _after_fork_in_child(self) -> None:
        if not self._fork_was_quiet:
            self.quiet = False
            # The threads that are inside, and the one that has the turn, are not here.
            self.busy, self.turn = [], threading.RLock()
        self.shut = True
        try:
            self.after_fork_in_child()
        finally:
            _release(self.turn)

    _fork_was_quiet = True


def registered(kind: type[R]) -> list[R]:
    """Return the resources of a class that are registered in this process."""
    found = [reference() for reference in _resources.valuerefs()]
    return [resource for resource in found if isinstance(resource, kind)]


# Hooks of the interpreter -------------------------------------------------------------------------------------------
# The interpreter goes on with a fork whatever a hook raises (an interrupt, for one). So what is acquired is noted
# before, and what was not acquired is not released: an RLock refuses a thread that does not hold it.


def _seconds_until(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _release(lock: threading.RLock) -> None:
    try:
        lock.release()
    except RuntimeError:
        pass


def _before_fork() -> None:
    deadline = time.monotonic() + FORK_WAITS
    stopped = _stopped[threading.get_ident()] = []
    registry_lock.acquire(timeout=FORK_WAITS)
    for resource in registered(Resource):
        stopped.append(resource)
        resource._before_fork(deadline)


def _after_fork_in_parent() -> None:
    try:
        for resource in _stopped.pop(threading.get_ident(), ()):
            _release(resource.turn)
    finally:
        _release(registry_lock)


def _after_fork_in_child() -> None:
    global registry_lock
    stopped = _stopped.pop(threading.get_ident(), ())
    registry_lock = threading.RLock()  # another thread of the parent may have held it all the time
    _stopped.clear()
    for resource in stopped:
        resource._after_fork_in_child()


def _at_exit() -> None:
    """Finish every resource beside daemon threads, which find it dead afterwards."""
    deadline = time.monotonic() + EXIT_WAITS
    failure: BaseException | None = None
    for resource in registered(Resource):
        try:
            if resource._stop(deadline):
                resource.at_exit()
        except BaseException as exc:
            failure = failure or exc
        finally:
            resource.shut = resource.dead = True
            _release(resource.turn)
    if failure is not None:
        raise failure


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
