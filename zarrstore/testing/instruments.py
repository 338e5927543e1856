"""Stores that count calls, fail, are slow, or record an order: a test wraps them around a real store, not a mock."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from zarrstore.base import DRIVER, WRITES
from zarrstore.threads import free_in_children
from zarrstore.wrappers.base import Wrapper

__all__ = ["CountingStore", "Event", "FailingStore", "Instrument", "Recorder", "RecordingStore", "SlowStore"]


class Instrument(Wrapper):
    """Base of the instruments: `_before` is called with the name and the arguments of every driver call.

    A value that a batch hands out late is read from `inner`'s batch, so a batch counts (fails, waits) once, when it
    is asked for.
    """

    def _before(self, method: str, *args: Any) -> None:
        """Override: what happens before `inner` is asked."""

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        # A subclass may list in its own way.
        if type(self)._listdir is not Instrument._listdir:
            return super()._list_children(path)
        self._before("_listdir", path)
        return self.inner._list_children(path)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = free_in_children(threading.Lock())


def _observed(method: str) -> Callable[..., Any]:
    def call(self: Instrument, *args: Any) -> Any:
        if method in ("_set_many", "_delete_many"):
            args = (args[0] if isinstance(args[0], list) else list(args[0]),)
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
        self._lock = free_in_children(threading.Lock())

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
        self._lock = free_in_children(threading.Lock())
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
        self._lock = free_in_children(threading.Lock())

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


class Event(NamedTuple):
    """One change of a store that has ended.

    Parameters
    ----------
    store : str
        Name under which the store is watched.
    action : str
        ``"set"``, ``"delete"``, ``"rmdir"``, ``"rename"``, ``"clear"``, ``"sweep"``, ``"flush"`` or ``"close"``; or
        what a test recorded by itself.
    key : str
        Key or path; a batch is one event for each key. ``""`` for ``flush`` and ``close``.
    begun : int
        Number of events that had ended when this one began.
    """

    store: str
    action: str
    key: str
    begun: int


class Recorder:
    """The order in which one or several stores were changed and flushed, as one list.

    Attributes
    ----------
    events : list of Event
        In the order in which they ended.

    Notes
    -----
    Threads: safe. Events that overlap are in no order: `require_order` fails for them.

    Examples
    --------
    >>> recorder = Recorder()
    >>> data, log = recorder.watch({}, "data"), recorder.watch({}, "log")
    >>> data["a"] = b"1"
    >>> data.flush()
    >>> log["done"] = b""
    >>> recorder.order()
    [('data', 'set', 'a'), ('data', 'flush', ''), ('log', 'set', 'done')]
    >>> recorder.require_order(("data", "set"), ("data", "flush"), ("log", "set", "done"))
    >>> recorder.require_order(("log", "set"), ("data", "flush"))
    Traceback (most recent call last):
    AssertionError: ('log', 'set', 'done') did not end before ('data', 'flush', '') began
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = free_in_children(threading.Lock())

    def __reduce__(self) -> tuple[Any, ...]:
        return Recorder, ()  # a copy in another process begins empty

    def watch(self, store: Mapping[str, Any], name: str) -> RecordingStore:
        """Return `store` as a store whose changes are recorded here under `name`."""
        return RecordingStore(store, self, name)

    def begin(self) -> int:
        """Return what `record` takes as `begun`."""
        return len(self.events)

    def record(self, store: str, action: str, key: str = "", begun: int | None = None) -> None:
        """Add an event by hand: a record of a journal, a rename of a file."""
        with self._lock:
            self.events.append(Event(store, action, key, len(self.events) if begun is None else begun))

    def order(self) -> list[tuple[str, str, str]]:
        """Return store, action and key of all events, in the order in which they ended."""
        return [(event.store, event.action, event.key) for event in self.events]

    def require_order(self, *steps: tuple[str, ...]) -> None:
        """Raise AssertionError unless every event of a step ended before any event of the next step began.

        Parameters
        ----------
        steps : tuple of str
            ``(store, action)`` for all events of this kind, or ``(store, action, key)`` for one. Each must occur.
        """
        found = [self._select(step) for step in steps]
        for step, indices in zip(steps, found, strict=True):
            assert indices, f"no event {step} among {self.order()}"
        for earlier, later in pairwise(found):
            last, first = max(earlier), min(later, key=lambda index: self.events[index].begun)
            order = self.order()
            assert last < self.events[first].begun, f"{order[last]} did not end before {order[first]} began"

    def _select(self, step: tuple[str, ...]) -> list[int]:
        return [index for index, event in enumerate(self.events) if event[: len(step)] == step]


class RecordingStore(Wrapper):
    """Record every change of `inner`, once it has ended, in a Recorder that several stores may share.

    Parameters
    ----------
    inner : MutableMapping
        The store observed.
    recorder : Recorder
        Where events go.
    name : str
        Name of the store in the events.

    Examples
    --------
    >>> recorder = Recorder()
    >>> RecordingStore({"a": b"1"}, recorder, "source").clear()
    >>> recorder.order()
    [('source', 'clear', '')]
    """

    def __init__(self, inner: Mapping[str, Any], recorder: Recorder, name: str) -> None:
        super().__init__(inner)
        self.recorder = recorder
        self.name = name

    @contextmanager
    def _recorded(self, action: str, keys: Iterable[str]) -> Iterator[None]:
        begun = self.recorder.begin()
        yield
        for key in keys:
            self.recorder.record(self.name, action, key, begun)

    def _set(self, key: str, value: bytes) -> None:
        with self._recorded("set", [key]):
            self.inner._set(key, value)

    def _delete(self, key: str) -> None:
        with self._recorded("delete", [key]):
            self.inner._delete(key)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        keys: list[str] = []

        def noted() -> Iterator[tuple[str, bytes]]:
            for key, value in items:
                keys.append(key)
                yield key, value

        with self._recorded("set", keys):
            self.inner._set_many(noted())

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        with self._recorded("delete", wanted):
            self.inner._delete_many(wanted)

    def _rmdir(self, path: str) -> None:
        with self._recorded("rmdir", [path]):
            self.inner._rmdir(path)

    def _rename(self, source: str, destination: str) -> None:
        with self._recorded("rename", [source]):
            self.inner._rename(source, destination)

    def _clear(self) -> None:
        with self._recorded("clear", [""]):
            self.inner._clear()

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        with self._recorded("sweep", [path]):
            return list(self.inner._sweep(path, dry_run))

    def _flush(self) -> None:
        with self._recorded("flush", [""]):
            self.inner._flush()

    def _close(self) -> None:
        with self._recorded("close", [""]):
            self.inner._close()


def _keys_in(args: Iterable[Any]) -> Iterable[str]:
    for arg in args:
        if isinstance(arg, str):
            yield arg
        elif isinstance(arg, list):
            yield from (item[0] if isinstance(item, tuple) else item for item in arg)
