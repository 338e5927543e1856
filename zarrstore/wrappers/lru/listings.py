"""Listings that a cache remembers: a write forgets those that it changes and no other."""

from __future__ import annotations

from collections.abc import Mapping

from zarrstore import keys as k
from zarrstore.wrappers.lru.ttl import TTLCache

__all__ = ["Children", "Listings", "Names"]

#: Names in a dict: in order, and fast to look one up.
Names = dict[str, None]
#: Names of children, sorted, and whether keys may be below each.
Children = dict[str, bool]


class Listings:
    """Names of children, and keys below, by path; the owner holds a lock around every method.

    Parameters
    ----------
    max_names : int
        Names that the remembered listings of each kind may hold together.
    lifetime : float or None, seconds
        How long a listing is remembered.
    """

    def __init__(self, max_names: int, lifetime: float | None) -> None:
        def weigh(names: Mapping[str, object]) -> int:
            return len(names) + 1

        #: Names of the immediate children of a path.
        self.children: TTLCache[Children] = TTLCache(max_names, lifetime, weigh)
        #: Keys below a path.
        self.below: TTLCache[Names] = TTLCache(max_names, lifetime, weigh)
        self.max_names = max_names

    def __len__(self) -> int:
        return len(self.children) + len(self.below)

    def has_key(self, key: str, since: float) -> bool | None:
        """Tell whether a key exists, None if no remembered listing tells.

        Parameters
        ----------
        key : str
            A judged key.
        since : float, seconds (monotonic)
            A listing from before does not prove that a key is missing.
        """
        for path in k.parents(key) if len(self.below) else ():
            names = self.below.get(path)
            if names is not None and key in names:
                return True
            if names is not None and self.below.get(path, since) is not None:
                return False
        if len(self.children):
            # A name that is listed may be that of a directory.
            children = self.children.get(k.parent(key), since)
            if children is not None and k.name(key) not in children:
                return False
        return None

    def changed(self, key: str, *, deleted: bool) -> None:
        """Forget what setting or deleting `key` makes untrue."""
        for path in k.parents(key) if len(self.below) else ():
            names = self.below.peek(path)
            if names is not None and (deleted or key not in names):
                self.below.pop(path)
        if not len(self.children):
            return
        path, is_value = key, True
        while path:
            name, path = k.name(path), k.parent(path)
            children = self.children.peek(path)
            # A directory that lists the child exists already; one that keeps other children goes on existing.
            if children is not None and name in children and (not deleted or len(children) > 1):
                if deleted or not (is_value or children[name]):
                    self.children.pop(path)
                return
            self.children.pop(path)
            is_value = False

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
