"""A distant store that counts requests, and how often a caller waits for one after another; no clock is read.

Each thread has a number: how many answers it had to wait for, one after the other, to be where it is. A request adds 1;
a call handed to `Threads` begins with the number of who hands it over, and whoever takes its result has at least the
number with which it ended. Requests with the same number may be under way at the same time, `IN_FLIGHT` of them.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from zarrstore import keys as k
from zarrstore.base import Entry
from zarrstore.driver import Driver
from zarrstore.permits import Permits
from zarrstore.stores._objects import Objects
from zarrstore.threads import Call, Threads

__all__ = ["IN_FLIGHT", "PAGE", "DistantStore", "Waits", "waits_of"]

#: Requests that are under way at a time.
IN_FLIGHT = 64
#: Keys on one page of a listing, and in one request to delete.
PAGE = 1000


class Waits:
    """Requests that were made, by the number of answers that had to be there before.

    Attributes
    ----------
    log : list of (int, str, str)
        For each request that number, what was asked, and of which key or path.
    """

    def __init__(self) -> None:
        self.log: list[tuple[int, str, str]] = []
        self._thread = threading.local()

    @property
    def now(self) -> int:
        """Answers that the present thread has waited for."""
        return getattr(self._thread, "now", 0)

    @now.setter
    def now(self, number: int) -> None:
        self._thread.now = number

    def ask(self, what: str, name: str) -> None:
        """Count a request, and wait for its answer."""
        self.log.append((self.now, what, name))
        self.now += 1

    def reset(self) -> None:
        """Forget all."""
        self.log.clear()
        self.now = 0

    @property
    def requests(self) -> Counter[str]:
        """How many there were of each kind."""
        return Counter(what for _, what, _ in self.log)

    @property
    def number(self) -> int:
        """How often somebody waits, if as many requests as possible are under way at a time."""
        return waits_of(*Counter(number for number, _, _ in self.log).values())

    def steps(self) -> list[str]:
        """Return what was asked at each number, for a message."""
        found: dict[int, Counter[str]] = {}
        for number, what, name in self.log:
            found.setdefault(number, Counter())[f"{what} {k.name(name) or '/'}"] += 1
        return [f"{number}: {dict(found[number].most_common(4))}" for number in sorted(found)]

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Follow what is handed to threads, until `monkeypatch` is undone."""
        submit, result, map_all = Threads.submit, Call.result, Permits.map

        def submit_counted(pool: Threads, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            ends = [begin := self.now]

            def call(*args: Any, **kwargs: Any) -> Any:
                self.now = begin
                try:
                    return function(*args, **kwargs)
                finally:
                    ends[0] = self.now

            future = submit(pool, call, *args, **kwargs)
            future.ends = ends  # type: ignore[attr-defined]
            return future

        def result_counted(future: Any, timeout: float | None = None) -> Any:
            try:
                return result(future, timeout)
            finally:
                self.now = max(self.now, getattr(future, "ends", [0])[0])

        def map_counted(permits: Permits, act: Callable[[Any], Any], things: Sequence[Any]) -> list[Any]:
            # One thread calls it for one thing after the other; each might as well have been the first.
            begin, ends = self.now, [self.now]

            def call(thing: Any) -> Any:
                self.now = begin
                try:
                    return act(thing)
                finally:
                    ends.append(self.now)

            try:
                return map_all(permits, call, things)
            finally:
                self.now = max(ends)

        monkeypatch.setattr(Permits, "map", map_counted)
        monkeypatch.setattr(Threads, "submit", submit_counted)
        monkeypatch.setattr(Call, "result", result_counted)


def waits_of(*counts: int) -> int:
    """Return how often somebody waits for so many requests, those of each count under way at a time.

    Examples
    --------
    >>> waits_of(1, 200, 64)
    6
    """
    return sum(math.ceil(count / IN_FLIGHT) for count in counts)


class DistantStore(Objects):
    """Objects in memory, asked for as those of a service are: with pages of listings, and requests that overlap."""

    copies = _rename_checks_source = True

    def __init__(self, waits: Waits, data: dict[str, bytes] | None = None, *, copies: bool = True) -> None:
        super().__init__((), False, False, IN_FLIGHT)
        self.waits = waits
        self.data = {} if data is None else data
        self.copies = self._rename_checks_source = copies

    def _place(self) -> object:
        return "distant", id(self.data)

    def _get(self, key: str) -> bytes:
        self.waits.ask("get", key)
        return self.data[key]

    def _nbytes(self, key: str) -> int:
        self.waits.ask("head", key)
        return len(self.data[key])

    def _put(self, key: str, value: bytes) -> None:
        self.waits.ask("put", key)
        self.data[key] = bytes(value)

    def _remove(self, key: str) -> None:
        self.waits.ask("delete", key)
        self.data.pop(key, None)

    def _copy(self, source: str, destination: str) -> None:
        self.waits.ask("copy", source)
        self.data[destination] = self.data[source]

    def _delete_many(self, keys: Any) -> None:
        doomed = list(dict.fromkeys(keys))
        for at in range(0, len(doomed), PAGE):
            self.waits.ask("delete many", "")
            for key in doomed[at : at + PAGE]:
                self.data.pop(key, None)

    def _keys(self, path: str) -> Iterator[str]:
        return (entry.key for entry in self._details(path))

    def _details(self, path: str) -> Iterator[Entry]:
        below = sorted(key for key in self.data if k.is_below(key, path))
        for at in range(0, len(below) or 1, PAGE):
            self.waits.ask("list", path)
            for key in below[at : at + PAGE]:
                yield Entry(key, len(self.data[key]), f"{hash(self.data[key]):x}")

    def _children(self, path: str) -> Iterator[tuple[str, bool, bool]]:
        below = [key for key in self.data if k.is_below(key, path)]
        names = sorted(set(k.children(below, path)))
        for at in range(0, len(names) or 1, PAGE):
            self.waits.ask("list", path)
            for name in names[at : at + PAGE]:
                full = k.join(path, name)
                yield name, full in self.data, any(k.is_below(key, full) for key in below)

    def _copying_from(self, source: Driver) -> Callable[[str, str], None] | None:
        other = source.data if isinstance(source, DistantStore) else None

        def copy(key: str, dest_key: str) -> None:
            assert other is not None
            self.waits.ask("copy", key)
            self.data[dest_key] = other[key]

        return copy if other is not None else None
