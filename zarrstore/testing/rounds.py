"""A store that counts questions as an object store would, and how many of them had to wait for one another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from zarrstore.base import Entry, Store
from zarrstore.testing.instruments import Instrument
from zarrstore.threads import free_in_children

__all__ = ["RoundsStore"]

#: Names on a page of a listing, and keys of one request to delete.
_PAGE = 1000


class RoundsStore(Instrument):
    """Count the requests that an object store would get, and the longest chain of requests that followed each other.

    Parameters
    ----------
    inner : MutableMapping
        The store observed.
    delay : float, seconds
        How long each question takes, so that those asked at once are seen to overlap.
    in_flight : int
        How many requests of a batch go out at a time.
    concurrent : bool
        Whether the store says of itself that a batch overlaps its waits.

    Attributes
    ----------
    requests : int
        A batch of reads or writes is one for each key, a listing one for each 1,000 names, a batch of deletions one for
        each 1,000 keys.
    rounds : int
        Length of the longest chain of requests of which each began after the one before it had ended. With a latency of
        100 ms, `rounds` times 100 ms is what waiting costs.
    busiest : int
        The largest number of requests at a time.

    Examples
    --------
    >>> store = RoundsStore({"a": b"1"}, delay=0)
    >>> store["a"], "b" in store, store.requests, store.rounds
    (b'1', False, 2, 2)
    """

    def __init__(
        self, inner: Mapping[str, Any], delay: float = 0.01, *, in_flight: int = 64, concurrent: bool = True
    ) -> None:
        super().__init__(inner)
        self.delay = delay
        self.in_flight = self._in_flight = in_flight
        self.capabilities = replace(self.inner.capabilities, blocking=True, concurrent=concurrent)
        self._lock = free_in_children(threading.Lock())
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.requests = self.rounds = self.busiest = self._busy = 0

    def _before(self, method: str, *args: Any) -> None:
        if method not in ("_close", "_flush", "_keys", "_listdir", "_rmdir", "_clear", "_rename", "_count", "_getsize"):
            batch = list(args[0]) if method in ("_get_many", "_set_many", "_delete_many") else [None]
            pages = method == "_delete_many"
            self._wait(ceil(len(batch) / _PAGE) if pages else len(batch))

    def _wait(self, requests: int, in_turn: bool = False) -> None:
        """Let some requests pass, all at once as far as `in_flight` allows, or one after the other."""
        if not requests:
            return
        width = 1 if in_turn else min(requests, self.in_flight)
        with self._lock:
            begun = self.rounds
            self.requests += requests
            self._busy += width
            self.busiest = max(self.busiest, self._busy)
        time.sleep(self.delay)
        with self._lock:
            self._busy -= width
            self.rounds = max(self.rounds, begun + ceil(requests / width))

    def _pages(self, items: Iterable[Any]) -> Iterator[Any]:
        found = list(items)
        self._wait(max(1, ceil(len(found) / _PAGE)), in_turn=True)
        return iter(found)

    def _keys(self, path: str) -> Iterable[str]:
        return self._pages(self.inner._keys(path))

    def _details(self, path: str) -> Iterable[Entry]:
        return self._pages(self.inner._details(path))

    def _listdir(self, path: str) -> Iterable[str]:
        return self._pages(self.inner._listdir(path))

    def _entry(self, key: str) -> Entry:
        self._wait(1)
        return self.inner._entry(key)

    # An object store has none of these: they are made of the others.

    def _rmdir(self, path: str) -> None:
        self._delete_many(list(self._keys(path)))

    def _rename(self, source: str, destination: str) -> None:
        Store._rename(self, source, destination)

    def _clear(self) -> None:
        self._rmdir("")

    def _count(self) -> int:
        return sum(1 for _ in self._keys(""))

    def _getsize(self, path: str) -> int:
        return Store._getsize(self, path)
