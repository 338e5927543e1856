"""Writes limited to a number of bytes a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zarrstore.wrappers.base import Wrapper

__all__ = ["ThrottledStore"]


class ThrottledStore(Wrapper):
    """Write at most so many bytes a second to `inner`, in all threads together.

    Parameters
    ----------
    inner : MutableMapping
        The store that is written to.
    rate : float, bytes a second
        What may be written. A copy reads no faster than it writes.
    sleep, clock : callable
        Instead of those of `time`.

    Notes
    -----
    Threads: safe. A pickled copy, in another process, has the same rate for itself.

    Examples
    --------
    >>> waits = []
    >>> store = ThrottledStore({}, rate=10, sleep=waits.append, clock=lambda: 0.0)
    >>> store.update({"a": b"12345", "b": b"1234567890"})
    >>> waits
    [0.5, 1.5]
    """

    def __init__(
        self,
        inner: Mapping[str, Any],
        rate: float,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        if rate <= 0:
            raise ValueError(f"rate is {rate}; it is a number of bytes a second")
        self.rate = rate
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self.inner, self.rate)

    def _pass(self, nbytes: int) -> None:
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + nbytes / self.rate
            wait = self._free_at - now
        self._sleep(wait)

    def _set(self, key: str, value: bytes) -> None:
        self._pass(len(value))
        super()._set(key, value)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        def passed() -> Iterable[tuple[str, bytes]]:
            for key, value in items:
                self._pass(len(value))
                yield key, value

        super()._set_many(passed())


def _made_again(inner: Mapping[str, Any], rate: float) -> ThrottledStore:
    return ThrottledStore(inner, rate)
