"""The second tier of a cache: values in any mapping, that outlive the process, within a budget that several may share.

`entries` says how they are named and packed, `claims` how several processes keep to one budget.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.wrappers.lru.claims import Claim
from zarrstore.wrappers.lru.entries import PARTS, VALUES, Piece, key_of, name_of, pack, unpack
from zarrstore.wrappers.lru.questions import WHOLE, Question, Range, Suffix

__all__ = ["Tier"]

#: A claim asks for this part of the budget: so much is listed once.
_SHARE = 16


class Tier:
    """Values of a slow store, kept in a faster one; none of its errors fails a read.

    Parameters
    ----------
    store : Store
        Where the entries are kept.
    budget : int or None, bytes
        What all entries together may take, heads included; None is no limit.
    max_age : float or None, seconds
        Older entries are not used.

    Notes
    -----
    Threads: safe. Processes: the budget is shared by all that use the same place, if `store` says that it is safe for
    processes. Eviction is least recently used as far as this process knows; what it found at the opening counts as
    older than what it used.
    """

    def __init__(self, store: Store, budget: int | None, max_age: float | None) -> None:
        self.store = store
        self.budget = budget
        self.max_age = max_age
        self.hits = self.errors = self.evictions = 0
        # Sizes by place (``values/<name>``, ``parts/<name>/<piece>``), the least recently used first.
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self.restart()

    def restart(self) -> None:
        """Begin a session of its own: at the opening, and in the child after a fork."""
        self._lock = threading.Lock()
        self._room = 0
        self._pending = 0
        self.claim = Claim(self.store)

    def open(self) -> None:
        """Find what earlier sessions left, and bring it within the budget."""
        if self._safely(self._find_all) and self.budget is not None and self.size > self.budget:
            if self._safely(lambda: self._evict(0, 0)):
                self._safely(self._find_all)

    @property
    def size(self) -> int:
        """Bytes of the entries, as last seen."""
        return sum(list(self._sizes.values()))

    def __len__(self) -> int:
        return len(self._sizes)

    # Reading

    def holds(self, key: str) -> bool:
        """Tell whether an entry of the whole value is known."""
        return k.join(VALUES, name_of(key)) in self._sizes

    def get(self, key: str, question: Question = WHOLE) -> tuple[bytes, float] | None:
        """Return what is asked for and its age in seconds, None if there is none that can be trusted."""
        if isinstance(question, Range):
            found = self._part(key, question)
        elif isinstance(question, Suffix):
            found = self._suffix(key, question.n)
        else:
            found = self._entry(key, k.join(VALUES, name_of(key)))
        if found is None:
            return None
        self.hits += 1
        value, stored = found
        return value, max(0.0, time.time() - stored)

    def _entry(self, key: str, place: str) -> tuple[bytes, float] | None:
        """Return the bytes of one entry and the time at which they were true."""
        try:
            entry = self.store._get(place)
        except KeyError:
            self._sizes.pop(place, None)
            return None
        except Exception:
            self.errors += 1
            return None
        found = unpack(key, place, entry)
        if found is None:
            self.errors += 1
            self._safely(lambda: self._remove(place))
            return None
        if self.max_age is not None and not -self.max_age < time.time() - found[1] < self.max_age:
            return None
        with suppress(KeyError):
            self._sizes.move_to_end(place)
        return found

    def _part(self, key: str, part: Range) -> tuple[bytes, float] | None:
        pieces = self._pieces(key)
        ends = [piece.start + piece.length for piece in pieces if piece.is_end and piece.start is not None]
        stop = part.stop
        if ends:
            stop = ends[0] if stop is None else min(stop, ends[0])
        if stop is None or stop <= part.start:
            return None
        values, times = [], []
        at = part.start
        while at < stop:
            covering = [piece for piece in pieces if piece.start is not None and piece.start <= at < _stop(piece)]
            best = max(covering, key=_stop, default=None)
            found = None if best is None else self._entry(key, self._place_of(key, best))
            if best is None or best.start is None or found is None:
                return None
            values.append(found[0][at - best.start : stop - best.start])
            times.append(found[1])
            at = _stop(best)
        return b"".join(values), min(times)

    def _suffix(self, key: str, n: int) -> tuple[bytes, float] | None:
        for piece in self._pieces(key):
            if piece.start is None or piece.is_end:
                if piece.length >= n > 0:
                    found = self._entry(key, self._place_of(key, piece))
                    if found is not None:
                        return found[0][len(found[0]) - n :], found[1]
        return None

    def _place_of(self, key: str, piece: Piece) -> str:
        return k.join(PARTS, name_of(key), piece.name)

    def _pieces(self, key: str) -> list[Piece]:
        """Return which parts of a value are stored; other processes may have added some."""
        found: list[Piece] = []
        try:
            for name in self._names_below(k.join(PARTS, name_of(key))):
                piece = Piece.parse(name)
                if piece is not None:
                    found.append(piece)
        except Exception:
            self.errors += 1
            return []
        return found

    def _names_below(self, path: str) -> Iterable[str]:
        if not self.claim.is_shared and not any(True for _ in self._known_below(path)):
            return ()
        return list(self.store._listdir(path))

    def _known_below(self, path: str) -> Iterator[str]:
        return (place for place in list(self._sizes) if k.is_below(place, path))

    # Adding

    def put(self, key: str, value: bytes, age: float, question: Question = WHOLE) -> None:
        """Keep a value, or a part of one, that was true `age` seconds ago, if the budget allows."""
        place = self._place_for(key, value, question)
        if place is None or not self.store.capabilities.writable:
            return
        entry = pack(key, place, value, time.time() - age)
        if not self._reserve(len(entry)):
            return
        try:
            stored = self._safely(lambda: self.store._set(place, entry))
        finally:
            with self._lock:
                self._pending -= len(entry)
        if stored:
            self._sizes[place] = len(entry)
            with suppress(KeyError):
                self._sizes.move_to_end(place)

    def _place_for(self, key: str, value: bytes, question: Question) -> str | None:
        if isinstance(question, Suffix) and not question.is_whole(value):
            return self._place_of(key, Piece(None, len(value), False)) if value else None
        if isinstance(question, Range) and not (question.start == 0 and question.reaches_end(value)):
            if not value:
                return None
            return self._place_of(key, Piece(question.start, len(value), question.reaches_end(value)))
        return k.join(VALUES, name_of(key))

    def _reserve(self, size: int) -> bool:
        """Tell whether `size` bytes may be added now; they count as pending until they are stored."""
        with self._lock:
            if self.budget is not None:
                if size > self.budget:
                    return False
                if self._room < size or self.claim.needs_renewal():
                    self._room = 0
                    if not (self._safely(lambda: self._claim_room(size)) and self._room >= size):
                        return False
                self._room -= size
            self._pending += size
            return True

    def _claim_room(self, size: int) -> None:
        """Set `_room` to what may be added, at least `size`, evicting to make room; 0 if there is none."""
        assert self.budget is not None
        for wanted in dict.fromkeys((max(size, self.budget // _SHARE), size)):
            # The order matters: see `claims`.
            self.claim.write(wanted + self._pending)
            others = self.claim.others()
            self._find_all()
            self._evict(others, wanted + self._pending)
            if self.size + others + wanted + self._pending <= self.budget:
                self._room = wanted
                return
        self.claim.write(self._pending)

    def _find_all(self) -> None:
        """Bring `_sizes` in line with what is stored, keeping the order of use."""
        found: dict[str, int] = {}
        for place in self._stored_places():
            with suppress(KeyError):
                found[place] = self.store._nbytes(place)
        # list() is one step: readers, who take no lock, reorder places meanwhile.
        for place in list(self._sizes):
            if place not in found:
                self._sizes.pop(place, None)
        self._sizes.update(found)

    def _stored_places(self) -> Iterator[str]:
        """Yield the places of all entries; what is none of ours is left alone."""
        for name in list(self.store._listdir(VALUES)):
            if key_of(name) is not None:
                yield k.join(VALUES, name)
        for place in list(self.store._keys(PARTS)):
            names = k.segments(place)
            if len(names) == 3 and key_of(names[1]) is not None and Piece.parse(names[2]) is not None:
                yield place

    def _evict(self, others: int, wanted: int) -> None:
        """Remove the least recently used until `wanted` bytes fit beside the claims of others."""
        assert self.budget is not None
        excess = self.size + others + wanted - self.budget
        # Evict nothing if evicting everything would not be enough.
        if excess <= 0 or others + wanted > self.budget:
            return
        for place, size in list(self._sizes.items()):
            if excess <= 0:
                return
            self._remove(place)
            self.evictions += 1
            excess -= size

    # Removing

    def forget(self, key: str) -> None:
        """Remove the entries of a key that is about to change.

        Unlike all else here this may raise: an entry that cannot be removed would come back when the tier is next
        opened.
        """
        name = name_of(key)
        self._must_remove(k.join(VALUES, name))
        path = k.join(PARTS, name)
        for piece in self._names_below(path):
            self._must_remove(k.join(path, piece))

    def forget_tree(self, path: str) -> None:
        """Remove the entries of all keys at or below a path, also those that other processes added."""
        for place in list(self._stored_places()):
            key = key_of(k.segments(place)[1])
            if not key or not path or key == path or k.is_below(key, path):
                self._must_remove(place)

    def _remove(self, place: str) -> None:
        with suppress(KeyError):
            self.store._delete(place)
        self._sizes.pop(place, None)

    def _must_remove(self, place: str) -> None:
        # A tier that cannot be written is no hindrance as long as it holds nothing of the key.
        if not self.store.capabilities.erasable or not self.store.capabilities.writable:
            if not self.store._contains(place):
                return
        try:
            self._remove(place)
        except Exception as exc:
            self.errors += 1
            exc.add_note(f"the cache {self.store!r} could not forget the old value; nothing was written")
            raise

    def close(self) -> None:
        """Withdraw the claim; the entries stay, and so does the store, which others may use."""
        with self._lock:
            self._room = 0
            self._safely(self.claim.withdraw)
        self._safely(self.store._flush)

    def _safely(self, act: Callable[[], object]) -> bool:
        """Do it; count an error and tell that it failed."""
        try:
            act()
        except Exception:
            self.errors += 1
            return False
        return True


def _stop(piece: Piece) -> int:
    assert piece.start is not None
    return piece.start + piece.length
