"""How many connections may be opened at once: a few at first, more as the server answers on them."""

from __future__ import annotations

from _thread import allocate_lock
from weakref import WeakKeyDictionary

from zarrstore.threads import Latch

__all__ = ["FIRST", "LOST", "SlowStart"]

#: Connections that are opened at once to a server that has not answered yet. Python's own server queues 5.
FIRST = 4
#: Seconds after which a connection that came at last was refused a place in the server's queue: the system asks again
#: after 1, 3 and 7 seconds.
LOST = 0.9
#: Seconds after which a waiting thread looks again, in case a connection was dropped without being closed.
_LOOK_AGAIN = 1.0


class SlowStart:
    """Limits the connections to one server that are open and not answered yet, as TCP limits its packets.

    Parameters
    ----------
    most : int
        Largest limit.

    Notes
    -----
    A server takes connections from a queue of the system, which may hold as few as 5. What does not fit is dropped
    without a word, and the system of the client asks again a second later. So the first connections are `FIRST`; each
    that is answered and kept open lets one more begin at a time, and `limit` answers together where the server closes
    each. The limit does not grow while a connection waits that many later ones have overtaken, and one that took
    longer than `LOST` to be opened halves it for good. Connections that were answered do not count: their requests are
    as many as the caller's threads. Threads: safe. Source: the slow start of TCP (RFC 5681).

    Examples
    --------
    >>> import threading
    >>> start = SlowStart(32)
    >>> start.limit, start.leave(start.enter(threading.Event()), kept_open=True), start.limit
    (4, None, 5)
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._room = float(min(FIRST, most))
        self._n_opened = 0
        #: Each with its place in the order of opening.
        self._pending: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._lock = allocate_lock()
        #: Set, and replaced, when there may be room again.
        self._room_came = Latch()

    @property
    def limit(self) -> int:
        """Connections that may wait for their first answer now."""
        return int(self._room)

    @property
    def pending(self) -> int:
        """Connections that wait for their first answer."""
        return len(self._pending)

    def enter(self, connection: object) -> object:
        """Wait until one more connection may be opened, and count it; return it."""
        while True:
            with self._lock:
                if len(self._pending) < self.limit:
                    self._n_opened += 1
                    self._pending[connection] = self._n_opened
                    return connection
                room_came = self._room_came
            room_came.wait(_LOOK_AGAIN)

    def slow(self) -> None:
        """Take in that the server's queue was full."""
        with self._lock:
            self._room = self._most = max(1, min(FIRST, self._most), self.limit // 2)

    def leave(self, connection: object, *, kept_open: bool | None = None) -> None:
        """Count a connection no longer, which was answered, or closed without an answer (None). May be called twice."""
        with self._lock:
            place = self._pending.pop(connection, None)
            if place is None:
                return
            if kept_open is not None and place - min(self._pending.values(), default=place) < self._overtaken():
                self._room = min(float(self._most), self._room + (1.0 if kept_open else 1.0 / self.limit))
            room_came, self._room_came = self._room_came, Latch()
        room_came.set()

    def _overtaken(self) -> int:
        """Return how far answers may be out of order before the oldest connection is taken for dropped."""
        return max(2 * FIRST, self.limit // 2)
