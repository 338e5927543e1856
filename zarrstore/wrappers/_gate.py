"""Writes that any number of threads do together, and steps that one thread does while none of them is under way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Gate"]

T = TypeVar("T")

#: Seconds from one look to the next whether the last write has ended.
_PAUSE = 0.0001


class Gate:
    """Lets writes pass together, and stops them while one thread is alone.

    Notes
    -----
    A thread that is inside may pass again, and so may the one that is alone. Interrupts leave no entry behind: it is
    removed by one call of C, with which the ``finally`` begins. A forked child and a copy begin with
    nobody inside.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._pid = os.getpid()
        self._turn = threading.RLock()
        self._owner: int | None = None
        #: The writes under way, and the thread of each.
        self._inside: dict[object, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (Gate, ())

    def shared(self, work: Callable[[], T]) -> T:
        """Return ``work()``, done beside other writes; waits while another thread is alone."""
        if self._pid != os.getpid():
            self._restart()
        me = threading.get_ident()
        entry, inside = object(), self._inside
        try:
            is_nested = self.is_inside()
            inside[entry] = me
            # The entry first, then the look: the other way round, `alone` could begin between the two.
            while not is_nested and self._owner not in (None, me):
                inside.pop(entry, None)
                with self._turn:
                    pass
                inside[entry] = me
            return work()
        finally:
            inside.pop(entry, None)

    def is_inside(self) -> bool:
        """Tell whether this thread is in a write, for which it cannot wait."""
        me = threading.get_ident()
        return me in list(self._inside.values())

    def alone(self, work: Callable[[], T]) -> T:
        """Return ``work()``, done while no write is under way; not for a thread that `is_inside`."""
        if self._pid != os.getpid():
            self._restart()
        with self._turn:
            outer = self._owner
            try:
                self._owner = threading.get_ident()
                while outer is None and self._inside:
                    time.sleep(_PAUSE)
                return work()
            finally:
                self._owner = outer
