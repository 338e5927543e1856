"""Answers from memory, or by one read below for all who ask."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from zarrstore.allowance import Sizes, allowance
from zarrstore.base import Store
from zarrstore.batch import AheadItems, LazyItems
from zarrstore.threads import Threads
from zarrstore.wrappers.lru.inflight import Fetch, InFlight, result_of
from zarrstore.wrappers.lru.memory import Memory
from zarrstore.wrappers.lru.questions import WHOLE, Question, Range, Ranges, Suffix
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
    `lock` guards `memory`, `in_flight` and `counts`, and is never held during I/O.
    """

    def __init__(self, inner: Store, memory: Memory, tier: Tier | None, workers: int) -> None:
        self.inner = inner
        self.memory = memory
        self.tier = tier
        self.workers = workers
        self.counts = Counts()
        self.sizes = Sizes()
        self.start_anew()

    def start_anew(self) -> None:
        """Begin with no reader and no writer: who held the lock in the parent of a fork is not in the child."""
        self.lock = threading.Lock()
        self.in_flight = InFlight()

    # One question --------------------------------------------------------------------------------------------------

    def answer(self, key: str, question: Question, read: Callable[[Fetch], Any]) -> Any:
        """Return what memory knows, or what one `read`, shared by all who ask meanwhile, says; KeyError for absence."""
        while True:
            fetch = Fetch(key, question, is_listing=question.is_listing)
            settled = False
            try:
                with self.lock:
                    known = self._known(key, question)
                    if known is None:
                        joined = self.in_flight.join(fetch)
                        if joined is not fetch and joined is not None:
                            self.counts.joined += 1
                if known is not None:
                    settled = True
                    return known
                if joined is fetch or joined is None:
                    # None: being written. Who asks the store itself sees what the others see, in the same order.
                    fetch.is_asked = True
                    found = read(fetch)
                    self._finish(fetch, found, None)
                    self._copy(fetch)
                    self._end_copy(fetch)
                    settled = True
                    return found
                settled = True
            finally:
                # Whatever it was, and however early it came: nobody waits for this fetch any more. Twice, because the
                # first call may be interrupted.
                if not settled:
                    try:
                        self._give_up((fetch,))
                    finally:
                        self._give_up((fetch,))
            if joined.wait():
                return self._joined_result(joined)
            with self.lock:
                self.in_flight.leave(joined)

    def _known(self, key: str, question: Question) -> Any:
        memory = self.memory
        memory.open()
        try:
            known = question.known(memory, key)
        except KeyError:
            self.counts.missing_hits += 1
            memory.close()
            raise
        if known is not None:
            question.used(memory, key)
        memory.close()
        return known

    def _give_up(self, fetches: Sequence[Fetch]) -> None:
        """Give the present error to those who wait for these fetches; what is finished is passed over."""
        error = sys.exception() or RuntimeError("the read was abandoned")
        for fetch in fetches:
            self._finish(fetch, None, error)
            self._end_copy(fetch)

    def _joined_result(self, fetch: Fetch) -> Any:
        """Return what came of another reader's fetch, an error too."""
        answer = result_of(fetch)
        if isinstance(fetch.question, Question) and fetch.question.is_of_bytes:
            with self.lock:
                self.counts.misses += 1
        return answer

    def _finish(self, fetch: Fetch, answer: Any, error: BaseException | None) -> None:
        """Remember what came of a fetch, unless a write made it old, and give it to those who wait."""
        if fetch.finished:
            return
        question = fetch.question
        assert isinstance(question, Question)
        with self.lock:
            self.in_flight.leave(fetch)
            if question.is_of_bytes and fetch.is_asked:
                self.counts.misses += error is None
                self.counts.fetches += not fetch.from_tier
            if not fetch.stale:
                self.memory.open()
                if error is None:
                    question.remember(self.memory, fetch.key, answer, fetch.born)
                    if fetch.copies:
                        self.in_flight.begin_copy(fetch)
                elif type(error) is KeyError and not fetch.is_listing:
                    self.memory.remember_missing(fetch.key, fetch.born)
                self.memory.close()
            fetch.finish(answer, error)

    # The second tier -----------------------------------------------------------------------------------------------

    def from_tier(self, fetch: Fetch, question: Question) -> bytes | None:
        """Return what the second tier has, unless the key is being written."""
        if self.tier is None or fetch.stale:
            return None
        found = self.tier.get(fetch.key, question)
        if found is None:
            return None
        value, age = found
        fetch.born = min(fetch.born, time.monotonic() - age)
        return value

    def _copy(self, fetch: Fetch) -> None:
        """Copy what was just read into the second tier; a write of the key waits for that."""
        if fetch.copying is not None and self.tier is not None:
            for question, value in fetch.copies:
                self.tier.put(fetch.key, value, time.monotonic() - fetch.born, question)

    def _end_copy(self, fetch: Fetch) -> None:
        if fetch.copying is not None:
            with self.lock:
                self.in_flight.end_copy(fetch)

    # Values and parts of values ------------------------------------------------------------------------------------

    def value(self, key: str) -> bytes:
        """Return one whole value."""
        return self.answer(key, WHOLE, lambda fetch: self._read(fetch, WHOLE, self.inner._get))  # type: ignore[no-any-return]

    def range(self, key: str, start: int, stop: int | None) -> bytes:
        """Return bytes `start` to `stop` of a value."""
        question = Range(start, stop)
        read = self.inner._get_range
        return self.answer(key, question, lambda fetch: self._read(fetch, question, read, start, stop))  # type: ignore[no-any-return]

    def suffix(self, key: str, n: int) -> bytes:
        """Return the last `n` bytes of a value."""
        question = Suffix(n)
        return self.answer(key, question, lambda fetch: self._read(fetch, question, self.inner._get_suffix, n))  # type: ignore[no-any-return]

    def ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        """Return several parts of one value; those that are not here are asked for at once."""
        question = Ranges(tuple(Range(start, stop) for start, stop in spans))
        return self.answer(key, question, lambda fetch: self._read_ranges(fetch, question))  # type: ignore[no-any-return]

    def _read(self, fetch: Fetch, question: Question, read: Callable[..., bytes], *args: Any) -> bytes:
        value = self.from_tier(fetch, question)
        if value is not None:
            fetch.from_tier = True
            return value
        value = read(fetch.key, *args)
        if self.tier is not None:
            fetch.copies = [(question, value)]
        return value

    def _read_ranges(self, fetch: Fetch, question: Ranges) -> list[bytes]:
        found: dict[Range, bytes] = {}
        with self.lock:
            for part in question.parts:
                self.memory.open()
                known = None if fetch.stale else part.known(self.memory, fetch.key)
                self.memory.close()
                if known is not None:
                    found[part] = known
        for part in dict.fromkeys(question.parts):
            if part not in found:
                value = self.from_tier(fetch, part)
                if value is not None:
                    found[part] = value
        absent = [part for part in dict.fromkeys(question.parts) if part not in found]
        fetch.from_tier = not absent
        if absent or not question.parts:
            values = self.inner._get_ranges(fetch.key, [(part.start, part.stop) for part in absent])
            found.update(zip(absent, values, strict=True))
            if self.tier is not None:
                fetch.copies = list(zip(absent, values, strict=True))
        return [found[part] for part in question.parts]

    # Many values ---------------------------------------------------------------------------------------------------

    def batch(self, keys: Sequence[str], cache: object) -> Mapping[str, bytes]:
        """Return the values of those keys that exist: what is here as it is asked for, the rest in batches below.

        `cache` is what owns the memory: it lives for as long as its values may be asked for.
        """
        return LazyItems(_BatchReader(self, keys, cache), keys)

    def to_fetch(self, keys: Iterable[str]) -> list[str]:
        """Return those keys of which nothing is known."""
        with self.lock:
            self.memory.open()
            wanted = [key for key in keys if self.memory.needs_fetch(key)]
            self.memory.close()
        return wanted

    def values(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that exist; what nobody else is reading is asked for in one batch."""
        found: dict[str, bytes] = {}
        fetches = [Fetch(key, WHOLE) for key in keys]
        mine: list[Fetch] = []
        others: list[Fetch] = []
        settled = False
        try:
            with self.lock:
                for fetch in fetches:
                    with suppress(KeyError):
                        known = self._known(fetch.key, WHOLE)
                        if known is not None:
                            found[fetch.key] = known
                            continue
                        joined = self.in_flight.join(fetch)
                        if joined is fetch or joined is None:
                            mine.append(fetch)
                        else:
                            others.append(joined)
                            self.counts.joined += 1
            for fetch in mine:
                fetch.is_asked = True
            for fetch, value in self._read_many(mine):
                self._finish(fetch, value, None)
                found[fetch.key] = value
                self._copy(fetch)
                self._end_copy(fetch)
            for fetch in mine:
                self._finish(fetch, None, KeyError(fetch.key))
            settled = True
        finally:
            if not settled:
                try:
                    self._give_up(fetches)
                finally:
                    self._give_up(fetches)
        # After its own have finished: two batches that want each other's keys do not wait for ever.
        for fetch in others:
            with suppress(KeyError):
                found[fetch.key] = self._joined_result(fetch) if fetch.wait() else self._again(fetch)
        return found

    def _again(self, interrupted: Fetch) -> bytes:
        with self.lock:
            self.in_flight.leave(interrupted)
        return self.value(interrupted.key)

    def _read_many(self, fetches: Iterable[Fetch]) -> Iterator[tuple[Fetch, bytes]]:
        below: dict[str, Fetch] = {}
        for fetch in fetches:
            value = self.from_tier(fetch, WHOLE)
            if value is None:
                below[fetch.key] = fetch
            else:
                fetch.from_tier = True
                yield fetch, value
        if not below:
            return
        for key, value in self._values_below(list(below)):
            if self.tier is not None:
                below[key].copies = [(WHOLE, value)]
            yield below[key], value

    def _values_below(self, keys: list[str]) -> Iterator[tuple[str, bytes]]:
        if self.workers < 2 or len(keys) < 2 or self.inner.capabilities.concurrent:
            yield from self.inner._get_many(keys).items()
            return
        with Threads(min(self.workers, len(keys))) as pool:
            for key, value in zip(keys, pool.map(self._value_below, keys), strict=True):
                if value is not None:
                    yield key, value

    def _value_below(self, key: str) -> bytes | None:
        try:
            return self.inner._get(key)
        except KeyError:
            return None


class _BatchReader:
    """Reads for `LazyItems`: what is in memory at once, the rest ahead."""

    def __init__(self, fetcher: Fetcher, keys: Sequence[str], cache: object) -> None:
        self._fetcher = fetcher
        self._keys = keys
        # Held, not used: ``LRUStoreCache(...).getitems(keys)`` is read after its expression has ended.
        self._cache = cache
        # Now: what is asked first may be asked when the caller has left the block that allows it.
        self._allowed = allowance()
        self._ahead: AheadItems | None = None
        self._fetched: set[str] = set()

    def __call__(self, key: str) -> bytes:
        fetcher = self._fetcher
        if self._ahead is None:
            if key in fetcher.memory.values.hot:
                return fetcher.value(key)
            wanted = fetcher.to_fetch(self._keys)
            self._fetched = set(wanted)
            self._ahead = AheadItems(fetcher.values, wanted, *self._allowed, sizes=fetcher.sizes)
        return self._ahead[key] if key in self._fetched else fetcher.value(key)
