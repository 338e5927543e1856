"""How much may be fetched ahead: an allowance for the batches that begin in a thread, and what keeps within it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.permits import Permits

__all__ = [
    "BUDGET",
    "FIRST_BATCH",
    "GROWTH",
    "MAX_BATCH",
    "MAX_UNKNOWN",
    "MEMORY",
    "Allowance",
    "Found",
    "Gate",
    "Sizes",
    "allowance",
    "allowed",
    "check_memory",
    "read_overlapped",
]

#: What a batch that fetches ahead may hold, in bytes.
BUDGET = 64 << 20
#: What the values of a verb that are under way may take together, in bytes, if its caller does not say.
MEMORY = 128 << 20
#: Keys in the first batch of which no size is known: two of 64 MiB and their store stay below 256 MiB.
FIRST_BATCH = 2
#: How many times as many keys as the last batch the next one has at most: 100 keys are 2, 16 and 82.
GROWTH = 8
#: Largest number of keys in a batch.
MAX_BATCH = 4096
#: Largest number of keys in a batch while all before were absent, so that no size is known.
MAX_UNKNOWN = 8
#: Directories whose sizes are remembered.
_MAX_DIRECTORIES = 1024


class Allowance(NamedTuple):
    """What batches that begin now may fetch ahead.

    Parameters
    ----------
    nbytes : int, bytes
        What may be held unread.
    first : int
        Keys in the first batch, where no size is known.
    """

    nbytes: int = BUDGET
    first: int = FIRST_BATCH


def check_memory(memory: int) -> None:
    """Raise ValueError if a budget of bytes allows nothing.

    Examples
    --------
    >>> check_memory(0)
    Traceback (most recent call last):
    ValueError: memory is 0; at least one byte is needed
    """
    if memory < 1:
        raise ValueError(f"memory is {memory}; at least one byte is needed")


_ALLOWANCE: ContextVar[Allowance] = ContextVar("allowance", default=Allowance())  # noqa: B039 - it is immutable


def allowance() -> Allowance:
    """Return what holds for batches that begin in this thread now."""
    return _ALLOWANCE.get()


@contextmanager
def allowed(nbytes: int = BUDGET, first: int = MAX_BATCH) -> Iterator[None]:
    """Let the batches that begin within fetch so much ahead, through every wrapper.

    Parameters
    ----------
    nbytes : int, bytes
        What may be held unread.
    first : int
        Keys in the first batch; the default is for a caller who knows that what is asked for fits into `nbytes`.

    Notes
    -----
    Holds for this thread (or task) only. A verb that knows sizes from a listing asks for each batch at once; without
    this, the first request would be for 2 keys.

    Examples
    --------
    >>> with allowed(1000):
    ...     allowance()
    Allowance(nbytes=1000, first=4096)
    """
    token = _ALLOWANCE.set(Allowance(nbytes, first))
    try:
        yield
    finally:
        _ALLOWANCE.reset(token)


class Sizes:
    """The size of the largest value that was seen in each directory, for the next batch there.

    Notes
    -----
    The values of one directory are mostly chunks of one array. Memory: 1,024 directories. Threads: safe.

    Examples
    --------
    >>> sizes = Sizes()
    >>> sizes.learn("a/0.0", 100)
    >>> sizes.largest("a/0.1"), sizes.largest("b/0.0")
    (100, None)
    """

    def __init__(self) -> None:
        self._largest: dict[str, int] = {}
        self._lock = Lock()

    def learn(self, key: str, nbytes: int) -> None:
        """Take in the size of one value."""
        directory = k.parent(key)
        with self._lock:
            known = self._largest.pop(directory, 0)
            self._largest[directory] = max(known, nbytes)
            if len(self._largest) > _MAX_DIRECTORIES:
                del self._largest[next(iter(self._largest))]

    def largest(self, key: str) -> int | None:
        """Return the size of the largest value known beside `key`, None if none is known."""
        return self._largest.get(k.parent(key))

    def __reduce__(self) -> tuple[type[Sizes], tuple[()]]:
        return Sizes, ()


class Found(dict[str, bytes]):
    """The values of a batch that exist.

    Attributes
    ----------
    unasked : collection of str
        Keys of the batch that were not asked for, since the values that came before took all the room.
    """

    unasked: Collection[str] = ()


class Gate:
    """Counts the bytes of a batch as they come, and lets no further request begin when the room is full.

    Parameters
    ----------
    room : int, bytes
        What the values of the batch may take. One value is always let through.

    Examples
    --------
    >>> gate = Gate(10)
    >>> gate.enter(), gate.leave(8), gate.enter()
    (True, None, False)
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._lock = Lock()
        self._running = self._nbytes = self._largest = 0

    def enter(self) -> bool:
        """Tell whether a request may begin: all under way are taken to be as large as the largest that came."""
        with self._lock:
            expected = self._nbytes + (self._running + 1) * self._largest
            if expected > self._room and (self._running or self._nbytes):
                return False
            self._running += 1
            return True

    def leave(self, nbytes: int) -> None:
        """Count a value that came."""
        with self._lock:
            self._running -= 1
            self._nbytes += nbytes
            self._largest = max(self._largest, nbytes)


def read_overlapped(read: Callable[[str], bytes | None], keys: Sequence[str], permits: Permits) -> Found:
    """Read values in several threads, and stop where they take more than is allowed.

    Parameters
    ----------
    read : callable
        ``read(key) -> bytes``, or None for absence.
    keys : sequence of str
        What to read.
    permits : Permits
        Each call takes place within them.

    Returns
    -------
    Found
        Those that exist, and which keys were not asked for.

    Examples
    --------
    >>> with allowed(10):
    ...     found = read_overlapped({"a": b"12345678", "b": b"12345678"}.get, ["a", "b"], Permits(1))
    >>> dict(found), found.unasked
    ({'a': b'12345678'}, ['b'])
    """
    gate = Gate(allowance().nbytes)
    unasked: list[str] = []

    def one(key: str) -> bytes | None:
        if not gate.enter():
            unasked.append(key)
            return None
        value = None
        try:
            value = read(key)
        finally:
            gate.leave(len(value or b""))
        return value

    values = permits.map(one if len(keys) > 1 else read, keys)
    found = Found((key, value) for key, value in zip(keys, values, strict=True) if value is not None)
    found.unasked = unasked
    return found
