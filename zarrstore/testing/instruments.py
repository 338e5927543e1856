"""Stores that count, fail or dawdle: what a test wraps around a real store instead of a mock."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zarrstore.base import DRIVER, WRITES
from zarrstore.wrappers.base import Wrapper

__all__ = ["CountingStore", "FailingStore", "Instrument", "SlowStore"]


class Instrument(Wrapper):
    """Base of the instruments: `_before` is called with the name and the arguments of every driver call.

    A value that a batch hands out late is read from `inner`'s batch, so a batch counts (fails, waits) once, when it
    is asked for.
    """

    def _before(self, method: str, *args: Any) -> None:
        """Override: what happens before `inner` is asked."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def _observed(method: str) -> Callable[..., Any]:
    def call(self: Instrument, *args: Any) -> Any:
        if method in ("_set_many", "_delete_many"):
            args = (list(args[0]),)
        self._before(method, *args)
        return getattr(self.inner, method)(*args)

    call.__name__ = method
    return call


#: What can fail unless a test says otherwise: all but closing.
_FALLIBLE = tuple(filter("_close".__ne__, DRIVER))

for _method in DRIVER:
    setattr(Instrument, _method, _observed(_method))
Instrument.__abstractmethods__ = frozenset()


class CountingStore(Instrument):
    """Count the driver calls that reach `inner`.

    Parameters
    ----------
    inner : MutableMapping
        The store observed.

    Attributes
    ----------
    calls : collections.Counter
        Number of calls by driver method (``"_get"``).
    log : list of tuple
        Every call: the method and its arguments.

    Examples
    --------
    >>> store = CountingStore({"a": b"1"})
    >>> store["a"], store.get("b"), store.calls["_get"]
    (b'1', None, 2)
    """

    def __init__(self, inner: Mapping[str, Any]) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.log: list[tuple[Any, ...]] = []
        self._lock = threading.Lock()

    def _before(self, method: str, *args: Any) -> None:
        with self._lock:
            self.calls[method] += 1
            self.log.append((method, *args))

    def reset(self) -> None:
        """Forget what was counted."""
        with self._lock:
            self.calls.clear()
            self.log.clear()

    @property
    def reads(self) -> int:
        """How often `inner` was asked for values: single reads, batches and parts."""
        return sum(self.calls[method] for method in ("_get", "_get_many", "_get_range", "_get_suffix"))

    @property
    def writes(self) -> int:
        """How often `inner` was written."""
        return sum(self.calls[method] for method in WRITES)


class SlowStore(Instrument):
    """Wait before every driver call, as a remote store makes one wait; a batch waits once.

    Parameters
    ----------
    inner : MutableMapping
        The store slowed down.
    delay : float, seconds
        How long.
    concurrent : bool
        Whether the store says of itself that a batch overlaps its waits.

    Examples
    --------
    >>> SlowStore({"a": b"1"}, delay=0.001)["a"]
    b'1'
    """

    def __init__(self, inner: Mapping[str, Any], delay: float, *, concurrent: bool = True) -> None:
        super().__init__(inner)
        self.delay = delay
        self._lock = threading.Lock()
        self.capabilities = replace(self.inner.capabilities, blocking=True, concurrent=concurrent)

    def _before(self, method: str, *args: Any) -> None:
        if method != "_close":
            time.sleep(self.delay)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        if self.capabilities.concurrent:
            time.sleep(self.delay)
            return {key: value for key, value in self.inner._get_many(keys).items()}  # noqa: C416 - read now
        return super(Wrapper, self)._get_many(keys)


class FailingStore(Instrument):
    """Raise an error of your choice where you say.

    Parameters
    ----------
    inner : MutableMapping
        The store that fails.
    error : Exception or callable
        What is raised, or ``error(method, *args)`` that returns it.
    methods : collection of str, default all that read or write
        Driver methods that may fail.
    keys : collection of str, optional
        Only calls about these keys fail.
    after : int
        So many calls succeed first.
    times : int, optional
        So many calls fail, then no more; None for ever.

    Examples
    --------
    >>> store = FailingStore({"a": b"1"}, OSError(5, "Input/output error"), methods=["_get"], times=1)
    >>> store["a"]
    Traceback (most recent call last):
    OSError: [Errno 5] Input/output error
    >>> store["a"]
    b'1'
    """

    def __init__(
        self,
        inner: Mapping[str, Any],
        error: Exception | Callable[..., Exception],
        *,
        methods: Collection[str] = _FALLIBLE,
        keys: Collection[str] | None = None,
        after: int = 0,
        times: int | None = None,
    ) -> None:
        super().__init__(inner)
        self.error = error
        self.methods = frozenset(methods)
        self.only_keys = None if keys is None else frozenset(keys)
        self.after = after
        self.times = times
        self.failures = 0
        self._lock = threading.Lock()

    def _before(self, method: str, *args: Any) -> None:
        if method not in self.methods or (self.only_keys is not None and not self.only_keys & set(_keys_in(args))):
            return
        with self._lock:
            if self.after > 0:
                self.after -= 1
                return
            if self.times is not None and self.failures >= self.times:
                return
            self.failures += 1
        raise self.error if isinstance(self.error, Exception) else self.error(method, *args)


def _keys_in(args: Iterable[Any]) -> Iterable[str]:
    for arg in args:
        if isinstance(arg, str):
            yield arg
        elif isinstance(arg, list):
            yield from (item[0] if isinstance(item, tuple) else item for item in arg)
