"""Answers from memory, or by one read below for all who ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from zarrstore.base import Store
from zarrstore.batch import AheadItems, LazyItems
from zarrstore.wrappers.lru.flights import Flight, Traffic
from zarrstore.wrappers.lru.memory import CHILDREN, WHOLE, Memory, is_of_bytes
from zarrstore.wrappers.lru.stats import Counts
from zarrstore.wrappers.lru.tier import Tier

__all__ = ["Fetcher"]


class Fetcher:
    """Memory, the second tier and the store below, asked in this order, each question once at a time.

    Parameters
    ----------
    inner : Store
        The store below.
    memory : Memory
        What is remembered of it.
    tier : Tier, optional
        What is kept of it nearer by.
    workers : int
        Threads that read a batch from a store that has no batches of its own.

    Notes
    -----
    `lock` guards `memory`, `traffic` and `counts`, and is never held during I/O.
    """

    def __init__(self, inner: Store, memory: Memory, tier: Tier | None, workers: int) -> None:
        self.inner = inner
        self.memory = memory
        self.tier = tier
        self.workers = workers
        self.counts = Counts()
        self.start_anew()

    def start_anew(self) -> None:
        """Begin with no reader and no writer: who held the lock in the parent of a fork is not in the child."""
        self.lock = threading.Lock()
        self.traffic = Traffic()

    # One question --------------------------------------------------------------------------------------------------

    def answer(self, key: str, question: object, read: Callable[[Flight], Any]) -> Any:
        """Return what memory knows, or what one `read`, shared by all who ask meanwhile, says; KeyError for absence."""
        while True:
            mine: Flight | None = None
            try:
                with self.lock:
                    known = self._known(key, question)
                    if known is not None:
                        return known
                    mine = Flight(key, question, listing=question is CHILDREN)
                    flight = self.traffic.board(mine)
                    if flight is not mine and flight is not None:
                        self.counts.joined += 1
                if flight is mine or flight is None:
                    # None: being written. Who asks the store itself sees what the others see, in the same order.
                    found = read(mine)
                    self._land(mine, found, None)
                    self._fill(mine)
                    return found
            except BaseException as exc:
                # Whatever it was, and however early it came: the flight does not stay on the board.
                self._land(mine, None, exc)
                raise
            finally:
                self._end_fill(mine)
            if flight.wait():
                return self._alighted(flight)
            with self.lock:
                self.traffic.leave(flight)

    def _known(self, key: str, question: object) -> Any:
        try:
            known = self.memory.known(key, question)
        except KeyError:
            self.counts.missing_hits += 1
            raise
        if known is not None and is_of_bytes(question):
            self.memory.values.hit(key, question if isinstance(question, tuple) else None)
        return known

    def _alighted(self, flight: Flight) -> Any:
        """Return what came of another one's flight, an error too."""
        if flight.error is not None:
            raise KeyError(flight.key) if type(flight.error) is KeyError else flight.error
        if is_of_bytes(flight.question):
            with self.lock:
                self.counts.misses += 1
        return flight.answer

    def _land(self, flight: Flight | None, answer: Any, error: BaseException | None) -> None:
        """Remember what came of a flight, unless a write made it old, and tell those who wait."""
        if flight is None or flight.landed:
            return
        with self.lock:
            self.traffic.leave(flight)
            if is_of_bytes(flight.question):
                self.counts.misses += error is None
                self.counts.fetches += not flight.from_tier
            if not flight.stale:
                if error is None:
                    self.memory.remember(flight.key, flight.question, answer, flight.born)
                    copied = self.tier is not None and flight.question is WHOLE and not flight.from_tier
                    flight.fills = copied and self.traffic.begin_fill(flight.key)
                elif type(error) is KeyError and not flight.listing:
                    self.memory.remember_missing(flight.key, flight.born)
            flight.land(answer, error)

    # The second tier -----------------------------------------------------------------------------------------------

    def from_tier(self, flight: Flight) -> bytes | None:
        """Return what the second tier has, unless the key is being written."""
        if self.tier is None or flight.stale:
            return None
        found = self.tier.get(flight.key)
        if found is None:
            return None
        value, age = found
        flight.born -= age
        flight.from_tier = True
        return value

    def _fill(self, flight: Flight) -> None:
        """Copy what was just read into the second tier; a write of the key waits for that."""
        if flight.fills and self.tier is not None:
            self.tier.put(flight.key, flight.answer, time.monotonic() - flight.born)

    def _end_fill(self, flight: Flight | None) -> None:
        if flight is not None and flight.fills:
            with self.lock:
                flight.fills = False
                self.traffic.end_fill(flight.key)

    # Many values ---------------------------------------------------------------------------------------------------

    def batch(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of those keys that exist: what is here as it is asked for, the rest in batches below."""
        return LazyItems(_BatchReader(self, keys), keys)

    def value(self, key: str) -> bytes:
        """Return one whole value."""
        return self.answer(key, WHOLE, self._read_value)  # type: ignore[no-any-return]

    def _read_value(self, flight: Flight) -> bytes:
        value = self.from_tier(flight)
        return self.inner._get(flight.key) if value is None else value

    def lacking(self, keys: Iterable[str]) -> list[str]:
        """Return those keys of which nothing is known."""
        with self.lock:
            return [key for key in keys if self.memory.lacks(key)]

    def values(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that exist; what nobody else is reading is asked for in one batch."""
        found: dict[str, bytes] = {}
        mine: list[Flight] = []
        others: list[Flight] = []
        try:
            with self.lock:
                for key in keys:
                    with suppress(KeyError):
                        known = self._known(key, WHOLE)
                        if known is not None:
                            found[key] = known
                            continue
                        mine.append(Flight(key, WHOLE))
                        flight = self.traffic.board(mine[-1])
                        if flight is not mine[-1] and flight is not None:
                            mine.pop()
                            others.append(flight)
                            self.counts.joined += 1
            for flight, value in self._read_many(mine):
                self._land(flight, value, None)
                found[flight.key] = value
            for flight in mine:
                self._land(flight, None, KeyError(flight.key))
                self._fill(flight)
        except BaseException as exc:
            for flight in mine:
                self._land(flight, None, exc)
            raise
        finally:
            for flight in mine:
                self._end_fill(flight)
        # After its own have landed: two batches that want each other's keys do not wait for ever.
        for flight in others:
            with suppress(KeyError):
                found[flight.key] = self._alighted(flight) if flight.wait() else self._again(flight)
        return found

    def _again(self, abandoned: Flight) -> bytes:
        with self.lock:
            self.traffic.leave(abandoned)
        return self.value(abandoned.key)

    def _read_many(self, flights: Iterable[Flight]) -> Iterator[tuple[Flight, bytes]]:
        below: dict[str, Flight] = {}
        for flight in flights:
            value = self.from_tier(flight)
            if value is None:
                below[flight.key] = flight
            else:
                yield flight, value
        if not below:
            return
        if self.workers > 1 and len(below) > 1 and not self.inner.capabilities.concurrent:
            with ThreadPoolExecutor(min(self.workers, len(below))) as pool:
                for key, found in zip(below, pool.map(self._value_below, below), strict=True):
                    if found is not None:
                        yield below[key], found
            return
        for key, value in self.inner._get_many(list(below)).items():
            yield below[key], value

    def _value_below(self, key: str) -> bytes | None:
        try:
            return self.inner._get(key)
        except KeyError:
            return None


class _BatchReader:
    """Reads for `LazyItems`: what is in memory at once, the rest ahead."""

    def __init__(self, fetcher: Fetcher, keys: Sequence[str]) -> None:
        self._fetcher = fetcher
        self._keys = keys
        self._ahead: AheadItems | None = None
        self._lacking: set[str] = set()

    def __call__(self, key: str) -> bytes:
        fetcher = self._fetcher
        if self._ahead is None:
            if key in fetcher.memory.values.hot:
                return fetcher.value(key)
            lacking = fetcher.lacking(self._keys)
            self._lacking = set(lacking)
            self._ahead = AheadItems(fetcher.values, lacking)
        return self._ahead[key] if key in self._lacking else fetcher.value(key)
