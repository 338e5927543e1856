"""Values by key, and parts of values, within a budget of bytes, the least recently used going first."""

from __future__ import annotations

import heapq
import itertools
import time
import weakref
from bisect import bisect_right, insort
from collections.abc import Iterator
from typing import Any

from zarrstore import keys as k

__all__ = ["Entry", "Values"]

#: Where bytes are kept: a whole value under its key; a part under its key and first byte; the last bytes of a value
#: whose size is not known under its key and `TAIL`.
Slot = str | tuple[str, int]
TAIL = -1  # a first byte that no part has
#: Parts that touch are joined while the result is no longer than this, in bytes; longer ones stay side by side, so that
#: a value that is read part after part is not copied again for each of them.
_LONGEST_JOINED = 1 << 20


class Entry:
    """Bytes, the hit that used them last, when they were true (monotonic), and where they are kept."""

    __slots__ = ("born", "slot", "used", "value")

    def __init__(self, value: bytes, used: float, born: float, slot: Slot) -> None:
        self.value = value
        self.used = used
        self.born = born
        self.slot = slot

    @property
    def start(self) -> int:
        """First byte of a part."""
        return self.slot[1]  # type: ignore[return-value]

    @property
    def stop(self) -> int:
        """Byte behind the last one of a part."""
        return self.start + len(self.value)


class Values:
    """Whole values and parts of values, never more than `max_size` bytes of them.

    Parameters
    ----------
    max_size : int or None, bytes
        Budget of the values; keys and bookkeeping are not counted. None is no limit.
    max_age : float or None, seconds
        Older values are not given. None is for ever.
    clock : object, optional
        Its attribute ``_hits`` is the number of values handed out so far, and the clock of the order of use. None:
        this object itself.

    Notes
    -----
    The owner holds a lock around every method. A hit needs none: it looks `hot` up, counts one more hit and writes the
    number into the entry; no list is reordered. The order of use is found out when something
    must be evicted: a heap holds what `used` was when it was last looked at, and an entry that was used since is put
    back. Parts of one value do not overlap, and no part is held beside the whole value. Where `size` changes, no call
    stands between the change of the table and that of the size, so that no interrupt comes between them.
    """

    def __init__(self, max_size: int | None, max_age: float | None, clock: Any = None) -> None:
        self.max_size = max_size
        self.max_age = max_age
        self.size = 0
        self.evictions = 0
        self._hits = 0
        # Weak: the clock is the cache that owns this, and a circle of references would keep its values in memory until
        # the garbage collector runs.
        self._clock: Any = weakref.proxy(self if clock is None else clock)
        self._kept: dict[str, Entry] = {}
        #: What may be handed out without the lock. Ages are checked under it: with `max_age` there is nothing here.
        self.hot: dict[str, Entry] = self._kept if max_age is None else {}
        # Parts by key and first byte, in a table of their own: whoever looks `hot` up with a tuple finds nothing.
        self._kept_parts: dict[tuple[str, int], Entry] = {}
        # The same by key, sorted by first byte.
        self._parts: dict[str, list[Entry]] = {}
        self._order: list[tuple[float, int, Entry]] = []
        self._turn = itertools.count()

    @property
    def hits(self) -> int:
        """Values handed out so far."""
        return self._clock._hits  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self._kept) + len(self._kept_parts)

    def real_size(self) -> int:
        """Return the bytes that are really held, counted one by one."""
        return sum(len(entry.value) for entry in self._entries())

    def _entries(self) -> list[Entry]:
        return [*self._kept.values(), *self._kept_parts.values()]

    def _is_kept(self, entry: Entry) -> bool:
        slot = entry.slot
        return (self._kept.get(slot) if isinstance(slot, str) else self._kept_parts.get(slot)) is entry

    # Whole values

    def get(self, key: str) -> bytes | None:
        """Return a whole value, None if it is not here or too old; not a hit until it is handed out (`hit`)."""
        entry = self._young(self._kept.get(key))
        return None if entry is None else entry.value

    def hit(self, key: str) -> None:
        """Count that a value, or parts of it, are handed out: they were used last."""
        hits = self._clock._hits = self._clock._hits + 1
        entry = self._kept.get(key)
        if entry is not None:
            entry.used = hits

    def put(self, key: str, value: bytes, born: float) -> None:
        """Keep a value that was true at `born` (monotonic), evicting others first to make room."""
        self.forget(key)
        self._keep(Entry(value, 0, born, key))

    def has(self, key: str) -> bool:
        """Tell whether the value or a part of it is here, and young enough."""
        if self.get(key) is not None or self._young(self._kept_parts.get((key, TAIL))) is not None:
            return True
        return any(self._young(entry) is not None for entry in tuple(self._parts.get(key, ())))

    # Parts of values

    def part(self, key: str, start: int, stop: int | None, size: int | None) -> bytes | None:
        """Return bytes `start` to `stop` of a value, None if not all of them are here.

        Parameters
        ----------
        size : int or None, bytes
            That of the whole value if it is known; without it the end of the value is not known either.
        """
        if size is not None:
            stop = size if stop is None else min(stop, size)
        if stop is None:
            return None
        if stop <= start:
            return b"" if size is not None or self.has(key) else None
        entries = self._parts.get(key, ())
        index = bisect_right(entries, start, key=_start_of) - 1
        pieces = []
        at = start
        while at < stop:
            entry = self._young(entries[index]) if 0 <= index < len(entries) else None
            if entry is None or not entry.start <= at < entry.stop:
                return None
            pieces.append(entry.value[at - entry.start : stop - entry.start])
            entry.used = self.hits + 1
            at = entry.stop
            index += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def suffix(self, key: str, n: int, size: int | None) -> bytes | None:
        """Return the last `n` bytes of a value, None if not all of them are here."""
        if n == 0:
            return b"" if size is not None or self.has(key) else None
        entry = self._young(self._kept_parts.get((key, TAIL)))
        if entry is not None and len(entry.value) >= n:
            entry.used = self.hits + 1
            return entry.value[len(entry.value) - n :]
        return None if size is None else self.part(key, max(0, size - n), size, size)

    def put_part(self, key: str, start: int, value: bytes, born: float) -> None:
        """Keep the bytes of a value from `start` on, as far as they are not here yet, and join what touches."""
        if key in self._kept:
            return
        for entry in tuple(self._parts.get(key, ())):
            # What is newer replaces what it covers; the rest of an overlapping part stays.
            if entry.start < start + len(value) and start < entry.stop:
                self._cut_out(entry, start, start + len(value))
        if not value:
            return
        if self.max_size is not None and len(value) > self.max_size:
            return
        entry = Entry(value, 0, born, (key, start))
        if self._keep(entry):
            insort(self._parts.setdefault(key, []), entry, key=_start_of)
            self._join_around(key, entry)

    def put_suffix(self, key: str, value: bytes, born: float) -> None:
        """Keep the last bytes of a value whose size is not known."""
        if key in self._kept:
            return
        slot = key, TAIL
        if slot in self._kept_parts:
            self._drop(self._kept_parts[slot])
        self._keep(Entry(value, 0, born, slot))

    def _cut_out(self, entry: Entry, start: int, stop: int) -> None:
        assert not isinstance(entry.slot, str)
        key = entry.slot[0]
        self._drop(entry)
        for first, last in ((entry.start, start), (stop, entry.stop)):
            if first < last:
                rest = Entry(entry.value[first - entry.start : last - entry.start], 0, entry.born, (key, first))
                if self._keep(rest):
                    insort(self._parts.setdefault(key, []), rest, key=_start_of)

    def _join_around(self, key: str, entry: Entry) -> None:
        entries = self._parts.get(key, [])
        index = bisect_right(entries, entry.start, key=_start_of) - 1
        for left in (index, index - 1):
            if not 0 <= left < len(entries) - 1:
                continue
            one, two = entries[left], entries[left + 1]
            if one.stop == two.start and len(one.value) + len(two.value) <= _LONGEST_JOINED:
                value = one.value + two.value
                self._drop(one)
                self._drop(two)
                joined = Entry(value, 0, min(one.born, two.born), one.slot)
                if self._keep(joined):
                    insort(self._parts.setdefault(key, []), joined, key=_start_of)
                entries = self._parts.get(key, [])

    # Room

    def _young(self, entry: Entry | None) -> Entry | None:
        if entry is not None and self.max_age is not None and time.monotonic() - entry.born >= self.max_age:
            self._drop(entry)
            return None
        return entry

    def _keep(self, entry: Entry) -> bool:
        """Put an entry into the table, evicting others first; False if it is larger than the whole budget."""
        nbytes = len(entry.value)
        if self.max_size is not None:
            if nbytes > self.max_size:
                return False
            while self.size + nbytes > self.max_size:
                self._drop(self._least_recently_used())
                self.evictions += 1
        # After the last hit and before the next; of several put between two hits, the first one goes first.
        entry.used = self.hits + 0.5
        if self.max_size is not None:
            self._line_up(entry)
        slot = entry.slot
        if isinstance(slot, str):
            self._kept[slot] = entry
            self.size += nbytes
        else:
            self._kept_parts[slot] = entry
            self.size += nbytes
        return True

    def _line_up(self, entry: Entry) -> None:
        if len(self._order) > 2 * len(self) + 16:
            self._order = [item for item in self._order if self._is_kept(item[2])]
            heapq.heapify(self._order)
        heapq.heappush(self._order, (entry.used, next(self._turn), entry))

    def _least_recently_used(self) -> Entry:
        while self._order:
            used, _, entry = heapq.heappop(self._order)
            if not self._is_kept(entry):
                continue
            if entry.used == used:
                return entry
            self._line_up(entry)
        # An interrupt took an entry out of the order that is still in the table.
        self.recount()
        return min(self._entries(), key=lambda entry: entry.used)

    def _drop(self, entry: Entry) -> None:
        slot, nbytes = entry.slot, len(entry.value)
        if isinstance(slot, str):
            if self._kept.get(slot) is entry:
                del self._kept[slot]
                self.size -= nbytes
            return
        key, start = slot
        if start != TAIL:
            entries = [other for other in self._parts.get(key, ()) if other is not entry]
            if entries:
                self._parts[key] = entries
            else:
                self._parts.pop(key, None)
        if self._kept_parts.get(slot) is entry:
            del self._kept_parts[slot]
            self.size -= nbytes

    # Forgetting

    def forget(self, key: str) -> None:
        """Drop the value and all its parts."""
        for entry in (self._kept.get(key), self._kept_parts.get((key, TAIL)), *self._parts.get(key, ())):
            if entry is not None:
                self._drop(entry)

    def forget_tree(self, path: str) -> None:
        """Drop what stands at or below a path."""
        if not path:
            self.clear()
            return
        for key in {key for key in self.keys() if key == path or k.is_below(key, path)}:
            self.forget(key)

    def keys(self) -> Iterator[str]:
        """Yield the keys of what is held, a key once for each part."""
        yield from self._kept
        yield from (key for key, _ in self._kept_parts)

    def clear(self) -> None:
        """Drop everything."""
        # In place: `hot` is this very dict.
        self._kept.clear()
        self._kept_parts.clear()
        self.size = 0
        self._parts.clear()
        self._order.clear()

    def recount(self) -> None:
        """Bring the bookkeeping in line with what is held: a fork may have copied it half done."""
        self.size = self.real_size()
        self._parts.clear()
        self._order.clear()
        for entry in self._entries():
            if not isinstance(entry.slot, str) and entry.slot[1] != TAIL:
                insort(self._parts.setdefault(entry.slot[0], []), entry, key=_start_of)
            if self.max_size is not None:
                self._order.append((entry.used, next(self._turn), entry))
        heapq.heapify(self._order)


def _start_of(entry: Entry) -> int:
    return entry.start
