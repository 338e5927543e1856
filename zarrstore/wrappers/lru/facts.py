"""What is known of a store besides its values: what is missing, what is there, what is listed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from zarrstore import keys as k

__all__ = ["Facts", "Listings"]

T = TypeVar("T")
Names = dict[str, None]


class Facts(Generic[T]):
    """Bounded, fading facts by key; the owner holds a lock around every method.

    Parameters
    ----------
    most : int
        What all facts together may weigh.
    lifetime : float or None, seconds
        What is older is not known; None is for ever, 0 remembers nothing.
    weigh : callable, default one each
        Weight of a fact.
    """

    def __init__(self, most: int, lifetime: float | None, weigh: Callable[[T], int] = lambda fact: 1) -> None:
        self._most = most
        self._lifetime = lifetime
        self._weigh = weigh
        self._weight = 0
        self._facts: OrderedDict[str, tuple[T, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._facts)

    def get(self, key: str) -> T | None:
        """Return what is known of `key`, None if nothing is."""
        entry = self._facts.get(key)
        if entry is None:
            return None
        fact, born = entry
        if self._lifetime is not None and time.monotonic() - born >= self._lifetime:
            self.pop(key)
            return None
        self._facts.move_to_end(key)
        return fact

    def put(self, key: str, fact: T, born: float) -> None:
        """Remember what was true at `born` (monotonic), forgetting the least recently used to make room."""
        self.pop(key)
        weight = self._weigh(fact)
        if weight > self._most:
            return
        while self._weight + weight > self._most:
            self.pop(next(iter(self._facts)))
        self._facts[key] = (fact, born)
        self._weight += weight

    def pop(self, key: str) -> T | None:
        """Forget `key` and return what was known of it, however old."""
        entry = self._facts.pop(key, None)
        if entry is None:
            return None
        self._weight -= self._weigh(entry[0])
        return entry[0]

    def peek(self, key: str) -> T | None:
        """Return what was known of `key`, however old."""
        entry = self._facts.get(key)
        return None if entry is None else entry[0]

    def forget_tree(self, path: str) -> None:
        """Forget what stands at or below a path."""
        if not path:
            self.clear()
            return
        for key in [key for key in self._facts if key == path or k.is_below(key, path)]:
            self.pop(key)

    def clear(self) -> None:
        """Forget everything."""
        self._facts.clear()
        self._weight = 0

    def recount(self) -> None:
        """Bring the weight in line with what is held: a fork may have copied it half done."""
        self._weight = sum(self._weigh(fact) for fact, _ in self._facts.values())


class Listings:
    """Names of children, and keys below, by path: a write forgets those that it changes and no other."""

    def __init__(self, most: int, lifetime: float | None) -> None:
        def weigh(names: Names) -> int:
            return len(names) + 1

        #: Names of the immediate children of a path.
        self.children: Facts[Names] = Facts(most, lifetime, weigh)
        #: Keys below a path.
        self.below: Facts[Names] = Facts(most, lifetime, weigh)
        self.most = most

    def __len__(self) -> int:
        return len(self.children) + len(self.below)

    def changed(self, key: str, *, gone: bool) -> None:
        """Forget what a write of `key` makes untrue."""
        for path in k.parents(key) if len(self.below) else ():
            names = self.below.peek(path)
            if names is not None and (gone or key not in names):
                self.below.pop(path)
        if not len(self.children):
            return
        at = key
        while at:
            name, at = k.name(at), k.parent(at)
            known = self.children.peek(at)
            # A directory that lists the child stands already; one that keeps other children goes on standing.
            if known is not None and name in known and (not gone or len(known) > 1):
                if gone:
                    self.children.pop(at)
                return
            self.children.pop(at)

    def forget_around(self, path: str) -> None:
        """Forget all listings at, below and above a path."""
        for listings in (self.children, self.below):
            listings.forget_tree(path)
            for above in k.parents(path):
                listings.pop(above)

    def clear(self) -> None:
        """Forget everything."""
        self.children.clear()
        self.below.clear()

    def recount(self) -> None:
        """Bring the weights in line with what is held."""
        self.children.recount()
        self.below.recount()


def as_names(names: Iterable[str]) -> Names:
    """Return names as what `Listings` keeps: sorted, and fast to look one up in."""
    return dict.fromkeys(sorted(names))
