"""Values by key within a budget of bytes, the least recently used going first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from zarrstore import keys as k

__all__ = ["Part", "Values"]

#: A part of a value: ``("range", start, stop)`` or ``("suffix", n, None)``.
Part = tuple[str, int, int | None]
#: Where bytes are kept: a whole value under its key, a part under both.
Slot = str | tuple[str, Part]


class Values:
    """Whole values and parts of values, never more than `max_size` bytes of them.

    Parameters
    ----------
    max_size : int or None, bytes
        Budget of the values; keys and bookkeeping are not counted. None is no limit.
    max_age : float or None, seconds
        What is older is not there. None is for ever.

    Notes
    -----
    The owner holds a lock around every method. Only `find` and `touch` may be called without: each is one step of an
    OrderedDict with keys that are str, so no thread sees it half done.
    """

    def __init__(self, max_size: int | None, max_age: float | None) -> None:
        self.max_size = max_size
        self.max_age = max_age
        self.size = 0
        self.evictions = 0
        self._kept: OrderedDict[Slot, bytes] = OrderedDict()
        self._born: dict[Slot, float] = {}
        self._parts: dict[str, set[Part]] = {}
        # Ages are looked at under the lock only: with `max_age`, nothing is found without it.
        hot = self._kept if max_age is None else {}
        #: The value of a key, or None: a hit without the lock.
        self.find: Callable[[str], bytes | None] = hot.get
        #: Make a key the most recently used; KeyError if it was evicted this instant.
        self.touch: Callable[[str], None] = self._kept.move_to_end

    def __len__(self) -> int:
        return len(self._kept)

    def real_size(self) -> int:
        """Return the bytes that are really held, counted one by one."""
        return sum(map(len, self._kept.values()))

    def get(self, key: str, part: Part | None = None) -> bytes | None:
        """Return a value or a part, which becomes the most recently used; None if it is not here or too old."""
        slot = key if part is None else (key, part)
        value = self._kept.get(slot)
        if value is None:
            return None
        if self.max_age is not None and time.monotonic() - self._born[slot] >= self.max_age:
            self._drop(slot)
            return None
        self._kept.move_to_end(slot)
        return value

    def put(self, key: str, value: bytes, born: float, part: Part | None = None) -> None:
        """Keep a value or a part that was true at `born` (monotonic), evicting others first to make room."""
        if part is None:
            self.forget(key)
            slot: Slot = key
        else:
            if key in self._kept:
                return
            slot = (key, part)
            if slot in self._kept:
                self._drop(slot)
        size = len(value)
        if self.max_size is not None:
            if size > self.max_size:
                return
            while self.size + size > self.max_size:
                self._drop(next(iter(self._kept)))
                self.evictions += 1
        if self.max_age is not None:
            self._born[slot] = born
        if part is not None:
            self._parts.setdefault(key, set()).add(part)
        self._kept[slot] = value
        self.size += size

    def has(self, key: str) -> bool:
        """Tell whether the value or a part of it is here, and young enough."""
        if self.get(key) is not None:
            return True
        return any(self.get(key, part) is not None for part in tuple(self._parts.get(key, ())))

    def forget(self, key: str) -> None:
        """Drop the value and all its parts."""
        if key in self._kept:
            self._drop(key)
        for part in self._parts.pop(key, ()):
            self._drop((key, part))

    def forget_tree(self, path: str) -> None:
        """Drop what stands at or below a path."""
        if not path:
            self.clear()
            return
        for key in {key for key in self.keys() if key == path or k.is_below(key, path)}:
            self.forget(key)

    def keys(self) -> Iterator[str]:
        """Yield the keys of what is held, a key once for each part."""
        return (slot if isinstance(slot, str) else slot[0] for slot in self._kept)

    def clear(self) -> None:
        """Drop everything."""
        # In place: `find` and `touch` are bound to this very dict.
        self._kept.clear()
        self._born.clear()
        self._parts.clear()
        self.size = 0

    def recount(self) -> None:
        """Bring the bookkeeping in line with what is held: a fork may have copied it half done."""
        self.size = self.real_size()
        self._parts.clear()
        for slot in self._kept:
            if not isinstance(slot, str):
                self._parts.setdefault(slot[0], set()).add(slot[1])
            if self.max_age is not None:
                self._born.setdefault(slot, -float("inf"))

    def _drop(self, slot: Slot) -> None:
        value = self._kept.pop(slot)
        self.size -= len(value)
        self._born.pop(slot, None)
        if not isinstance(slot, str):
            key, part = slot
            parts = self._parts.get(key)
            if parts is not None:
                parts.discard(part)
                if not parts:
                    del self._parts[key]
