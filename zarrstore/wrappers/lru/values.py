"""Values by key within a budget of bytes, the least recently used going first."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator

from zarrstore import keys as k

__all__ = ["Part", "Values"]

#: A part of a value: ``("range", start, stop)`` or ``("suffix", n, None)``.
Part = tuple[str, int, int | None]
#: Where bytes are kept: a whole value under its key, a part under both.
Slot = str | tuple[str, Part]


class Entry:
    """One value: its bytes, the hit that used it last, when it was true (monotonic), and where it is kept."""

    __slots__ = ("born", "slot", "used", "value")

    def __init__(self, value: bytes, used: float, born: float, slot: Slot) -> None:
        self.value = value
        self.used = used
        self.born = born
        self.slot = slot


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
    The owner holds a lock around every method. A hit needs none: it looks `hot` up and writes into the entry the
    number of the hit, in two additions and no list that is reordered. The order of use is found out when something
    must go: a heap holds what `used` was when it was last looked at, and an entry that was used since is put back.
    """

    def __init__(self, max_size: int | None, max_age: float | None) -> None:
        self.max_size = max_size
        self.max_age = max_age
        self.size = 0
        self.evictions = 0
        #: Values handed out so far, which is also the time of day for the order of use.
        self.hits = 0
        self._kept: dict[Slot, Entry] = {}
        #: What may be handed out without the lock. Ages are looked at under it: with `max_age` there is nothing here.
        self.hot: dict[Slot, Entry] = self._kept if max_age is None else {}
        self._parts: dict[str, set[Part]] = {}
        self._order: list[tuple[float, int, Entry]] = []
        self._turn = itertools.count()

    def __len__(self) -> int:
        return len(self._kept)

    def real_size(self) -> int:
        """Return the bytes that are really held, counted one by one."""
        return sum(len(entry.value) for entry in self._kept.values())

    def get(self, key: str, part: Part | None = None) -> bytes | None:
        """Return a value or a part, None if it is not here or too old; not a hit until it is handed out (`hit`)."""
        slot = key if part is None else (key, part)
        entry = self._kept.get(slot)
        if entry is None:
            return None
        if self.max_age is not None and time.monotonic() - entry.born >= self.max_age:
            self._drop(entry)
            return None
        return entry.value

    def hit(self, key: str, part: Part | None = None) -> None:
        """Count that a value, or a part, or for want of it the whole, is handed out: it was used last."""
        self.hits += 1
        entry = self._kept.get(key if part is None else (key, part)) or self._kept.get(key)
        if entry is not None:
            entry.used = self.hits

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
                self._drop(self._kept[slot])
        if self.max_size is not None:
            if len(value) > self.max_size:
                return
            while self.size + len(value) > self.max_size:
                self._drop(self._least_recently_used())
                self.evictions += 1
        # After the last hit and before the next; of several put between two hits, the first one goes first.
        entry = Entry(value, self.hits + 0.5, born, slot)
        if self.max_size is not None:
            self._line_up(entry)
        if part is not None:
            self._parts.setdefault(key, set()).add(part)
        self._kept[slot] = entry
        self.size += len(value)

    def _line_up(self, entry: Entry) -> None:
        if len(self._order) > 2 * len(self._kept) + 16:
            self._order = [item for item in self._order if self._kept.get(item[2].slot) is item[2]]
            heapq.heapify(self._order)
        heapq.heappush(self._order, (entry.used, next(self._turn), entry))

    def _least_recently_used(self) -> Entry:
        while True:
            used, _, entry = heapq.heappop(self._order)
            if self._kept.get(entry.slot) is not entry:
                continue
            if entry.used == used:
                return entry
            self._line_up(entry)

    def has(self, key: str) -> bool:
        """Tell whether the value or a part of it is here, and young enough."""
        if self.get(key) is not None:
            return True
        return any(self.get(key, part) is not None for part in tuple(self._parts.get(key, ())))

    def forget(self, key: str) -> None:
        """Drop the value and all its parts."""
        if key in self._kept:
            self._drop(self._kept[key])
        for part in tuple(self._parts.get(key, ())):
            self._drop(self._kept[key, part])

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
        # In place: `hot` is this very dict.
        self._kept.clear()
        self._parts.clear()
        self._order.clear()
        self.size = 0

    def recount(self) -> None:
        """Bring the bookkeeping in line with what is held: a fork may have copied it half done."""
        self.size = self.real_size()
        self._parts.clear()
        self._order.clear()
        for entry in self._kept.values():
            if not isinstance(entry.slot, str):
                self._parts.setdefault(entry.slot[0], set()).add(entry.slot[1])
            if self.max_size is not None:
                self._order.append((entry.used, next(self._turn), entry))
        heapq.heapify(self._order)

    def _drop(self, entry: Entry) -> None:
        del self._kept[entry.slot]
        self.size -= len(entry.value)
        if not isinstance(entry.slot, str):
            key, part = entry.slot
            self._parts[key].discard(part)
            if not self._parts[key]:
                del self._parts[key]
