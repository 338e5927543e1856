"""Who reads what, who writes what: one read for all who want the same, and none that an own write overtakes.

A *flight* is one read below, that all who ask the same question while it lasts share. A write *grounds* the flights
of its key when it begins: those who are aboard get the answer (they asked before the write began), nobody else boards,
and the answer is not remembered. While a key is being written, each reader asks the store itself, for nobody can know
which value another one has seen. So the generation of a key is the identity of its flight, and costs no memory when
nobody reads or writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from zarrstore import keys as k

__all__ = ["Flight", "Traffic", "Write"]

#: How often a waiting thread looks whether the leader is still alive, in seconds.
_LOOK = 1.0


class Flight:
    """One read below: who leads it, what came of it, whether that may be remembered."""

    __slots__ = (
        "answer",
        "born",
        "done",
        "error",
        "fills",
        "from_tier",
        "key",
        "landed",
        "listing",
        "owner",
        "question",
        "stale",
    )

    def __init__(self, key: str, question: object, listing: bool = False) -> None:
        #: The key, or the path of a listing.
        self.key = key
        self.question = question
        self.listing = listing
        self.owner = threading.current_thread()
        self.born = time.monotonic()
        #: Not to be remembered: it never was on the board, or was grounded by a write or an `invalidate`.
        self.stale = True
        self.answer: Any = None
        self.error: BaseException | None = None
        self.landed = False
        #: The answer came from the second tier; it is being copied there.
        self.from_tier = self.fills = False
        # Made when the second reader boards: most flights carry one.
        self.done: threading.Event | None = None

    def land(self, answer: Any, error: BaseException | None) -> None:
        """Tell everybody aboard what came of it."""
        self.answer, self.error = answer, error
        self.landed = True
        if self.done is not None:
            self.done.set()

    def wait(self) -> bool:
        """Wait for the leader; False if it died, or was stopped, without an answer."""
        if self.owner is threading.current_thread():
            return False  # this very thread was interrupted on its way to the landing
        assert self.done is not None
        while not self.done.wait(_LOOK):
            if not self.owner.is_alive() and not self.landed:
                return False
        # What stopped the leader (KeyboardInterrupt, cancellation) was meant for the leader alone.
        return self.error is None or isinstance(self.error, Exception)


class Write:
    """A write in progress, of one key or of a whole subtree."""

    __slots__ = ("alone", "at", "born", "tree")

    def __init__(self, at: str, tree: bool) -> None:
        self.at = at
        self.tree = tree
        #: No other write of what this one writes overlapped it, so its outcome is known.
        self.alone = True
        self.born = time.monotonic()

    def covers(self, key: str) -> bool:
        """Tell whether `key` is what is written."""
        return key == self.at or (self.tree and k.is_below(key, self.at))


class Traffic:
    """All flights and writes of a cache; its owner holds a lock around every method."""

    def __init__(self) -> None:
        self._flights: dict[str, dict[tuple[str, object], Flight]] = {}
        self._listings: dict[tuple[str, object], Flight] = {}
        self._writes: dict[str, list[Write]] = {}
        self._sweeps: list[Write] = []
        self._fills: dict[str, threading.Event] = {}

    # Readers

    def board(self, mine: Flight) -> Flight | None:
        """Return the flight to lead (`mine`) or to wait for; None while what is asked for is being written."""
        if self._is_written(mine):
            return None
        board = self._listings if mine.listing else self._flights.setdefault(mine.key, {})
        flight = board.setdefault((mine.key, mine.question), mine)
        if flight is mine:
            mine.stale = False
        elif flight.done is None:
            flight.done = threading.Event()
        return flight

    def _is_written(self, flight: Flight) -> bool:
        key = flight.key
        if flight.listing:
            return any(k.is_below(written, key) for written in self._writes) or any(
                _near(sweep.at, key) for sweep in self._sweeps
            )
        return key in self._writes or any(sweep.covers(key) for sweep in self._sweeps)

    def leave(self, flight: Flight) -> None:
        """Take a flight off the board, if a write has not done so already."""
        board = self._listings if flight.listing else self._flights.get(flight.key, {})
        if board.get((flight.key, flight.question)) is flight:
            del board[flight.key, flight.question]
            if not board and not flight.listing:
                del self._flights[flight.key]

    # Writers

    def begin(self, key: str) -> Write:
        """Begin to write one key."""
        write = Write(key, tree=False)
        others = self._writes.setdefault(key, [])
        for other in (*others, *(sweep for sweep in self._sweeps if sweep.covers(key))):
            other.alone = write.alone = False
        others.append(write)
        self._ground(list(self._flights.get(key, {}).values()))
        self._ground([flight for flight in self._listings.values() if k.is_below(key, flight.key)])
        return write

    def begin_tree(self, path: str) -> Write:
        """Begin to write what stands at and below a path."""
        sweep = Write(path, tree=True)
        for others in self._writes.values():
            for other in others:
                if sweep.covers(other.at):
                    other.alone = sweep.alone = False
        self._sweeps.append(sweep)
        for flights in [flights for key, flights in self._flights.items() if sweep.covers(key)]:
            self._ground(list(flights.values()))
        self._ground([flight for flight in self._listings.values() if _near(path, flight.key)])
        return sweep

    def end(self, write: Write) -> None:
        """End a write begun by either."""
        if write.tree:
            self._sweeps.remove(write)
            return
        others = self._writes[write.at]
        others.remove(write)
        if not others:
            del self._writes[write.at]

    def _ground(self, flights: Iterable[Flight]) -> None:
        for flight in flights:
            flight.stale = True
            self.leave(flight)

    # Those who copy a value into the second tier

    def begin_fill(self, key: str) -> bool:
        """Announce that what was just read is being copied; False if another thread does so."""
        if key in self._fills:
            return False
        self._fills[key] = threading.Event()
        return True

    def end_fill(self, key: str) -> None:
        """Tell those who wait that the copy stands, or will not."""
        self._fills.pop(key).set()

    def fills(self, write: Write) -> list[threading.Event]:
        """Return what a write must wait for: copies of what it is about to make old."""
        if write.tree:
            return [event for key, event in self._fills.items() if write.covers(key)]
        event = self._fills.get(write.at)
        return [] if event is None else [event]


def _near(path: str, other: str) -> bool:
    """Tell whether one path is, or lies within, the other."""
    return path == other or k.is_below(path, other) or k.is_below(other, path) or not path or not other
