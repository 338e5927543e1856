"""A cache in front of a slow store: one read for all who ask, within an exact budget of bytes."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from zarrstore import keys as k
from zarrstore.allowance import FIRST_BATCH, MEMORY, allowed, check_memory
from zarrstore.base import Capabilities
from zarrstore.targets import Target, store_of
from zarrstore.values import parse_nbytes
from zarrstore.wrappers.lru.fetch import Fetcher
from zarrstore.wrappers.lru.inflight import Fetch
from zarrstore.wrappers.lru.listings import Children, Names
from zarrstore.wrappers.lru.memory import MAX_NAMES, Memory
from zarrstore.wrappers.lru.questions import CHILDREN, PRESENCE, SIZE
from zarrstore.wrappers.lru.stats import CacheStats
from zarrstore.wrappers.lru.tier import Tier
from zarrstore.wrappers.lru.writes import WritesThrough

__all__ = ["CacheStats", "LRUStoreCache"]

#: Threads that read a batch from a store that waits and has no batches of its own.
_WORKERS = 16
#: Keys in a batch of `prefetch` at the most.
_PREFETCH = 128


class LRUStoreCache(WritesThrough):
    """Keep the values used last in memory: a key is read below once, whoever asks, until it is evicted or written.

    Parameters
    ----------
    store : MutableMapping, path, URL or store object
        The slow store: any mapping, or what `open_store` takes.
    max_size : int, float, str or None, bytes
        What the values held may take together, at every moment; keys and bookkeeping (about 230 bytes a value) are
        not counted. A larger value passes through. ``"2GB"`` is 2e9, ``"2GiB"`` is 2**31. None is no limit.
    max_age : float, seconds, optional
        What was read longer ago is read again. None: only `invalidate` and own writes end what is remembered.
    missing_ttl : float or None, seconds
        How long a missing key is known to be missing (never longer than `max_age`). 0 remembers none.
    max_missing : int
        How many missing keys are remembered, and the sizes of how many others.
    cache : MutableMapping or path, optional
        A second tier that outlives the process, such as a DirectoryStore on a local disk: what is fetched is kept
        there too, and looked for there first. It belongs to one store: give each of several a PrefixStore of its own.
    cache_size : int, float, str or None, bytes
        What the second tier may take, whichever processes use it.
    max_workers : int, optional
        Threads that read a batch below. None: 16 if the store waits, has no batches of its own and says that it is
        safe for threads (a foreign mapping does not say so), else 1.

    Attributes
    ----------
    hits, misses : int
        Values handed out from memory, and not from memory; absent keys are not counted (see `stats`).

    Raises
    ------
    ValueError
        A size, age or number is negative.

    Notes
    -----
    **Reading.** A hit takes no lock and waits for nobody. Of many threads that want one key, the first reads it and
    the others get what came of that, an error too; a reader that was interrupted (KeyboardInterrupt, a dead thread)
    is replaced by one of those who wait. `in` is answered from what is known (a listing that is remembered, too) or by
    asking for the key. A batch asks below once for what is not here. Parts of values are remembered, joined where they
    touch, and served from the whole value if that is here; a store that cannot read parts is asked for the whole. Parts
    that were read at different times serve one range together: another writer's change between the two goes unseen
    until one of the `invalidate` methods, or `max_age`.

    **Writing** goes through, and is never overtaken by an older read. A value that was set is held. What another
    writer changes below is seen after `invalidate`, `invalidate_values` (values), `invalidate_keys` (presence,
    listings), or `max_age`.

    **The second tier** holds values and parts of values, and fails no read: its errors (a full disk, a damaged entry)
    are counted, and the store below is asked. A write does fail, before anything is written, when the tier cannot
    forget the old value, which would come back otherwise. Missing keys are not kept there. Entries carry the time at
    which they were read, so `max_age` holds across restarts. See `wrappers.lru.claims` for how processes share the
    budget: they must share a store that says it is safe for processes, else each has a budget of its own.

    Threads: safe, if `store` is. Processes: each has its own memory; a fork keeps what is held. Pickles its
    configuration, not its contents. `close` closes `store`, and leaves the second tier open.
    Source: zarr 2.18.7 LRUStoreCache. Deviations: that the budget, the listings and the values are true after
    `invalidate_values`, a deleted key stays deleted, missing keys are remembered for a minute, `close` closes.

    Examples
    --------
    >>> from zarrstore.testing import CountingStore
    >>> remote = CountingStore({"foo/0.0": b"data"})
    >>> cache = LRUStoreCache(remote, max_size=2e9)
    >>> cache["foo/0.0"], cache["foo/0.0"], "foo/0.1" in cache, cache.get("foo/0.1")
    (b'data', b'data', False, None)
    >>> remote.reads, cache.hits, cache.misses
    (1, 1, 1)
    """

    passes_buffers = True  # what is kept is copied

    def __init__(
        self,
        store: Target,
        max_size: float | str | None,
        *,
        max_age: float | None = None,
        missing_ttl: float | None = 60.0,
        max_missing: int = 1 << 16,
        cache: Target | None = None,
        cache_size: float | str | None = None,
        max_workers: int | None = None,
    ) -> None:
        super().__init__(store)
        self.max_size = _bytes("max_size", max_size)
        self.max_age = _at_least_0("max_age", max_age)
        self.missing_ttl = _at_least_0("missing_ttl", missing_ttl)
        self.max_missing = int(_at_least_0("max_missing", max_missing) or 0)
        self.cache = None if cache is None else store_of(cache, "a")
        self.cache_size = _bytes("cache_size", cache_size)
        self.max_workers = max_workers
        below = self.inner.capabilities
        workers = _workers(below) if max_workers is None else max_workers
        # Another process's writes are below, and what is remembered here does not know them.
        self.capabilities = replace(below, process_safe=False, concurrent=below.concurrent or workers > 1)

        tier = None if self.cache is None else Tier(self.cache, self.cache_size, self.max_age)
        if tier is not None:
            tier.open()
        self._tier = tier
        self._hits = 0
        self._memory = Memory(self, self.max_size, self.max_age, self.missing_ttl, self.max_missing)
        self._fetcher = Fetcher(self.inner, self._memory, tier, workers)
        self._values = self._memory.values
        self._hot = self._values.hot
        _ALIVE[id(self)] = self

    def __repr__(self) -> str:
        return f"LRUStoreCache({self.inner!r}, max_size={self.max_size})"

    def __getstate__(self) -> dict[str, Any]:
        names = ("max_size", "max_age", "missing_ttl", "max_missing", "cache", "cache_size", "max_workers")
        return {"store": self.inner, **{name: getattr(self, name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _start_anew_after_fork(self) -> None:
        self._fetcher.start_anew()
        self._memory.recount()
        if self._tier is not None:
            self._tier.restart()

    # What is asked of a cache ---------------------------------------------------------------------------------------

    @property
    def hits(self) -> int:
        """Values and parts handed out from memory."""
        return self._hits

    @property
    def misses(self) -> int:
        """Values and parts handed out that were not in memory."""
        return self._fetcher.counts.misses

    def stats(self) -> CacheStats:
        """Return the counters, and what is held, as of one moment. No I/O."""
        tier, memory, counts = self._tier, self._memory, self._fetcher.counts
        with self._fetcher.lock:
            memory.open()
            memory.close()
            return CacheStats(
                hits=memory.values.hits,
                misses=counts.misses,
                missing_hits=counts.missing_hits,
                fetches=counts.fetches,
                joined=counts.joined,
                entries=len(memory.values),
                evictions=memory.values.evictions,
                size=memory.values.size,
                max_size=self.max_size,
                missing=len(memory.missing),
                listings=len(memory.listings),
                tier_hits=0 if tier is None else tier.hits,
                tier_entries=0 if tier is None else len(tier),
                tier_size=0 if tier is None else tier.size,
                tier_evictions=0 if tier is None else tier.evictions,
                tier_errors=0 if tier is None else tier.errors,
            )

    def invalidate(self) -> None:
        """Forget everything, in the second tier too; a read that began before is not remembered either."""
        self._write_trees(_nothing, "")

    def invalidate_values(self) -> None:
        """Forget all values, in the second tier too, and which keys are missing; listings stay."""
        self._write_trees(_nothing, "", listings=False)

    def invalidate_keys(self) -> None:
        """Forget which keys are missing or there, and all listings; values stay."""
        with self._fetcher.lock:
            self._memory.open()
            self._mark_all_stale()
            self._memory.forget_keys()
            self._memory.close()

    def prefetch(self, keys: object, *, memory: int = MEMORY) -> int:
        """Read values ahead, so that whoever comes next finds them.

        Parameters
        ----------
        keys : str or iterable of str
            A path, of which all keys below are meant (one listing), or a value; or keys.
        memory : int, bytes, default 128 MiB
            What the values under way in all threads may take together; one value more may be held.

        Returns
        -------
        int
            Values that were fetched. It ends when as much was fetched as the larger of the two tiers may hold.

        Notes
        -----
        Cost: one batch below for every 128 keys that are not here, or fewer so that a batch takes about `memory`; the
        first batch, of 2 keys, shows how large values are.
        """
        check_memory(memory)
        if isinstance(keys, str):
            path = k.normalize_path(keys)
            wanted = list(self._keys(path)) or [path]
        else:
            wanted = list(keys)  # type: ignore[call-overload]
        wanted = [key for key in dict.fromkeys(wanted) if k.is_key(key)]
        sizes = [self.max_size] + ([] if self._tier is None else [self.cache_size])
        most = math.inf if None in sizes else max(size for size in sizes if size is not None)
        fetched = nbytes = 0
        size = FIRST_BATCH
        while wanted and nbytes < most:
            batch, wanted = self._fetcher.to_fetch(wanted[:size]), wanted[size:]
            with allowed(memory):
                lengths = [len(value) for value in self._fetcher.values(batch).values()]
            fetched += len(lengths)
            nbytes += sum(lengths)
            size = min(_PREFETCH, max(1, memory // max(1, *lengths))) if lengths else size
        return fetched

    # Reading --------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> bytes:
        # The one face that is overridden: a key that is here was judged when it came in, and a hit that is judged
        # again, and handed from the face to the driver, takes half as long again.
        try:
            entry = self._hot[key]
        except (KeyError, TypeError):
            return super().__getitem__(key)
        # Exact on an interpreter with a GIL: threads do not change between the two halves of an addition.
        self._hits = entry.used = self._hits + 1
        return entry.value

    def _get(self, key: str) -> bytes:
        try:
            entry = self._hot[key]
        except KeyError:
            entry = None
        if entry is None:
            return self._fetcher.value(key)
        self._hits = entry.used = self._hits + 1
        return entry.value

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._fetcher.range(key, start, stop) if self._reads_parts(key) else self._get(key)[start:stop]

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        if self._reads_parts(key):
            return self._fetcher.ranges(key, spans)
        value = self._get(key)
        return [value[start:stop] for start, stop in spans]

    def _get_suffix(self, key: str, n: int) -> bytes:
        if self._reads_parts(key):
            return self._fetcher.suffix(key, n)
        value = self._get(key)
        return value[max(0, len(value) - n) :]

    def _reads_parts(self, key: str) -> bool:
        """Tell whether parts of a value are asked for as such; otherwise the whole is here, or must be read."""
        if key in self._hot or not self.inner.capabilities.ranged:
            return False
        return self._tier is None or not self._tier.holds(key)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return self._fetcher.batch(keys, self)

    def _contains(self, key: str) -> bool:
        if key in self._hot:
            return True
        return self._fetcher.answer(key, PRESENCE, self._read_presence)  # type: ignore[no-any-return]

    def _read_presence(self, fetch: Fetch) -> bool:
        if self._tier is not None and not fetch.stale and self._tier.holds(fetch.key):
            # What was stored is probably wanted next; and a damaged entry is no proof.
            with suppress(KeyError):
                self._get(fetch.key)
                return True
            return False
        return self.inner._contains(fetch.key)

    def _nbytes(self, key: str) -> int:
        return self._fetcher.answer(  # type: ignore[no-any-return]
            key, SIZE, lambda fetch: self.inner._nbytes(fetch.key)
        )

    def _getsize(self, path: str) -> int:
        entry = self._hot.get(path)
        return self.inner._getsize(path) if entry is None else len(entry.value)

    def _listdir(self, path: str) -> Iterable[str]:
        return self._children(path)

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        return list(self._children(path).items())

    def _children(self, path: str) -> Children:
        return self._fetcher.answer(  # type: ignore[no-any-return]
            path, CHILDREN, lambda fetch: dict(sorted(self.inner._list_children(fetch.key)))
        )

    def _keys(self, path: str) -> Iterator[str]:
        """Yield keys as they come, and remember them if all came and none was written meanwhile."""
        fetcher, listings = self._fetcher, self._memory.listings.below
        fetch = Fetch(path, object(), is_listing=True)  # a question that nobody else asks
        found: Names | None = {}
        try:
            with fetcher.lock:
                self._memory.open()
                known = listings.get(path)
                self._memory.close()
                if known is None:
                    fetcher.in_flight.join(fetch)
            if known is not None:
                yield from known
                return
            for key in self.inner._keys(path):
                if found is not None:
                    found[key] = None
                    if len(found) > MAX_NAMES:
                        found = None
                yield key
            with fetcher.lock:
                if found is not None and not fetch.stale:
                    self._memory.open()
                    listings.put(path, found, fetch.born)
                    self._memory.close()
        finally:
            # Without the lock: a listing that is not read to its end is closed by the garbage collector, which may run
            # in a thread that holds the lock. Twice: the first call may be interrupted.
            try:
                fetcher.in_flight.abandon(fetch)
            finally:
                fetcher.in_flight.abandon(fetch)

    def _count(self) -> int:
        with self._fetcher.lock:
            self._memory.open()
            known = self._memory.listings.below.get("")
            self._memory.close()
        if known is not None:
            return len(known)
        # list(store) asks for the length before the first key: a slow store is listed once for both.
        return sum(1 for _ in self._keys("")) if self.inner.capabilities.blocking else self.inner._count()


def _nothing() -> None:
    """Change nothing below."""


def _bytes(name: str, size: float | str | None) -> int | None:
    """Return a size as whole bytes; an infinite one is no limit."""
    size = _at_least_0(name, parse_nbytes(name, size))
    return None if size is None or math.isinf(size) else int(size)


def _at_least_0(name: str, number: float | None) -> float | None:
    if number is not None and not number >= 0:
        raise ValueError(f"{name} is {number}: it must not be negative; None is no limit")
    return number


def _workers(flags: Capabilities) -> int:
    return _WORKERS if flags.blocking and flags.thread_safe and not flags.concurrent else 1


_ALIVE: weakref.WeakValueDictionary[int, LRUStoreCache] = weakref.WeakValueDictionary()


def _after_fork_in_child() -> None:
    for cache in list(_ALIVE.values()):
        cache._start_anew_after_fork()


if os.name == "posix":
    os.register_at_fork(after_in_child=_after_fork_in_child)
