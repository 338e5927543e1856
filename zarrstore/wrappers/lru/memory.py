"""All that a cache remembers of the store below: values, sizes, what is missing, what is listed."""

from __future__ import annotations

import math
import time

from zarrstore.wrappers.lru.listings import Listings
from zarrstore.wrappers.lru.ttl import TTLCache
from zarrstore.wrappers.lru.values import Values

__all__ = ["MAX_NAMES", "UNKNOWN_SIZE", "Memory"]

#: Names that all remembered listings of a kind together may hold.
MAX_NAMES = 1 << 20
#: Size of a value that is known to exist and no more.
UNKNOWN_SIZE = -2


class Memory:
    """What is known of the store below; the owner holds a lock around every method. `questions` look things up here.

    Parameters
    ----------
    clock : object
        As for Values.
    max_size : int or None, bytes
        Budget of the values.
    max_age, missing_ttl : float or None, seconds
        How long anything, and what is missing, is remembered.
    max_missing : int
        How many missing keys are remembered, and the sizes of how many others.
    """

    def __init__(
        self, clock: object, max_size: int | None, max_age: float | None, missing_ttl: float | None, max_missing: int
    ) -> None:
        self.values = Values(max_size, max_age, clock)
        lifetimes = [age for age in (missing_ttl, max_age) if age is not None]
        self.missing: TTLCache[bool] = TTLCache(max_missing, min(lifetimes, default=None))
        #: Sizes of values; `UNKNOWN_SIZE` for those only known to exist.
        self.sizes: TTLCache[int] = TTLCache(max_missing, max_age)
        self.listings = Listings(MAX_NAMES, max_age)
        # Listings from before this moment prove no absence.
        self._absence_since = -math.inf
        self._is_open = False

    def open(self) -> None:
        """Begin to use what is held; if an earlier use was interrupted, first bring the bookkeeping in line.

        Notes
        -----
        `close` is not called by an interrupted use: no ``finally``, so that the next `open` sees it.
        """
        if self._is_open:
            self.recount()
        self._is_open = True

    def close(self) -> None:
        """End a use begun by `open`."""
        self._is_open = False

    def size(self, key: str) -> int | None:
        """Return the size of a value that is not here as a whole, None if it is not known."""
        size = self.sizes.get(key)
        return None if size is None or size == UNKNOWN_SIZE or size < 0 else size

    def is_missing(self, key: str) -> bool:
        """Tell whether the key is known to be missing: by itself, or because a listing lacks it."""
        return bool(self.missing.get(key)) or self.is_listed(key) is False

    def is_listed(self, key: str) -> bool | None:
        """Tell whether a remembered listing says that the key exists, or that it does not; None if none does."""
        if not len(self.listings):
            return None
        lifetime = self.missing.lifetime
        since = self._absence_since if lifetime is None else max(self._absence_since, time.monotonic() - lifetime)
        return self.listings.has_key(key, since)

    def refuse_missing(self, key: str) -> None:
        """Raise KeyError if the key is known to be missing."""
        if self.is_missing(key):
            raise KeyError(key)

    def needs_fetch(self, key: str) -> bool:
        """Tell whether neither the value of a key is here, nor its absence known."""
        return self.values.get(key) is None and not self.is_missing(key)

    def remember_missing(self, key: str, born: float) -> None:
        """Keep that a key was missing at `born`."""
        self.values.forget(key)
        self.sizes.pop(key)
        self.missing.put(key, True, born)

    def forget(self, key: str, *, deleted: bool) -> None:
        """Forget what setting a key, or deleting it, makes untrue."""
        self.values.forget(key)
        self.missing.pop(key)
        self.sizes.pop(key)
        self.listings.changed(key, deleted=deleted)

    def forget_tree(self, path: str, *, listings: bool = True) -> None:
        """Forget what stands at and below a path, and the listings above it."""
        self.values.forget_tree(path)
        self.missing.forget_tree(path)
        self.sizes.forget_tree(path)
        if listings:
            self.listings.forget_around(path)
        else:
            self._absence_since = time.monotonic()

    def forget_keys(self) -> None:
        """Forget everything but the values."""
        self.missing.clear()
        self.sizes.clear()
        self.listings.clear()

    def recount(self) -> None:
        """Bring all bookkeeping in line with what is held: a fork may have copied it half done."""
        self.values.recount()
        self.missing.recount()
        self.sizes.recount()
        self.listings.recount()
