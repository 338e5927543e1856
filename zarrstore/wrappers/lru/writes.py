"""What a cache does around a write of the store below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from zarrstore.wrappers.base import Wrapper
from zarrstore.wrappers.lru.fetch import Fetcher
from zarrstore.wrappers.lru.inflight import Write
from zarrstore.wrappers.lru.memory import Memory
from zarrstore.wrappers.lru.tier import Tier

__all__ = ["WritesThrough"]


class WritesThrough(Wrapper):
    """A cache's writes: each is announced, forgotten by memory and second tier, done in the store below, remembered.

    Notes
    -----
    Announced first: what is read of the key from then on is not remembered. The second tier forgets the old value
    before the store below changes, so that a crash between the two leaves no old value that comes back.
    """

    max_size: int | None
    _fetcher: Fetcher
    _memory: Memory
    _tier: Tier | None

    def _write(self, writes: list[tuple[Write, bytes | None]], act: Callable[[], None], *, deletes: bool) -> None:
        """Make writes of single keys: after `act`, a key is the given value (None: not known), or is deleted.

        `act` may begin further writes and add them to `writes`.
        """
        is_known = False
        try:
            for write, _ in writes:
                self._begin(write, deletes=deletes)
            for write, _ in writes:
                self._forget_in_tier(write)
            act()
            is_known = True
        except KeyError as exc:
            is_known = deletes and type(exc) is KeyError
            raise
        finally:
            # Twice: the first call may be interrupted. What has ended is passed over.
            try:
                self._end(writes, is_known=is_known, deletes=deletes)
            finally:
                self._end(writes, is_known=is_known, deletes=deletes)

    def _begin(self, write: Write, *, deletes: bool) -> None:
        """Announce a write of one key, and forget all that is known of it."""
        with self._fetcher.lock:
            self._fetcher.in_flight.begin(write)
            self._memory.open()
            self._memory.forget(write.path, deleted=deletes)
            self._memory.close()

    def _forget_in_tier(self, write: Write) -> None:
        """Make the second tier forget what is about to change; raises if it cannot."""
        if self._tier is None:
            return
        with self._fetcher.lock:
            copies = self._fetcher.in_flight.copies_of(write)
        for fetch in copies:
            while fetch.copying is not None and not fetch.copying.wait(1.0) and fetch.owner.is_alive():
                pass  # a thread that died makes no copy any more
        if write.is_tree:
            self._tier.forget_tree(write.path)
        else:
            self._tier.forget(write.path)

    def _end(self, writes: Sequence[tuple[Write, bytes | None]], *, is_known: bool, deletes: bool) -> None:
        """End writes, and remember what the keys are from now on, if that is known."""
        for write, value in writes:
            if write.has_ended:
                continue
            with self._fetcher.lock:
                if is_known and write.is_alone and (deletes or value is not None):
                    self._memory.open()
                    if value is None:
                        self._memory.remember_missing(write.path, write.born)
                    else:
                        self._memory.values.put(write.path, value, write.born)
                    self._memory.close()
                self._fetcher.in_flight.end(write)
                write.has_ended = True

    def _keepable(self, nbytes: int) -> bool:
        return self.max_size is None or nbytes <= self.max_size

    def _set(self, key: str, value: bytes | memoryview) -> None:
        kept = bytes(value) if self._keepable(len(value)) else None  # what is kept is no view of the caller's memory
        self._write([(Write(key), kept)], lambda: self.inner._set(key, value if kept is None else kept), deletes=False)  # type: ignore[arg-type]

    def _delete(self, key: str) -> None:
        self._write([(Write(key), None)], lambda: self.inner._delete(key), deletes=True)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        writes: list[tuple[Write, bytes | None]] = []

        def announced() -> Iterator[tuple[str, bytes]]:
            nbytes = 0
            for key, value in items:
                # Of a batch larger than the cache, what comes first is held: nothing is copied twice for nothing.
                nbytes += len(value)
                kept = bytes(value) if self._keepable(nbytes) else None
                write = Write(key)
                writes.append((write, kept))
                self._begin(write, deletes=False)
                self._forget_in_tier(write)
                yield key, value if kept is None else kept

        self._write(writes, lambda: self.inner._set_many(announced()), deletes=False)

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        self._write([(Write(key), None) for key in wanted], lambda: self.inner._delete_many(wanted), deletes=True)

    def _write_trees(self, act: Callable[[], None], *paths: str, listings: bool = True) -> None:
        """Forget all at, below and above some paths, and change what stands there."""
        trees = [(Write(path, is_tree=True), None) for path in paths]
        try:
            with self._fetcher.lock:
                self._memory.open()
                for tree, _ in trees:
                    self._fetcher.in_flight.begin(tree)
                    self._memory.forget_tree(tree.path, listings=listings)
                self._memory.close()
            for tree, _ in trees:
                self._forget_in_tier(tree)
            act()
        finally:
            try:
                self._end(trees, is_known=False, deletes=False)
            finally:
                self._end(trees, is_known=False, deletes=False)

    def _rmdir(self, path: str) -> None:
        self._write_trees(lambda: self.inner._rmdir(path), path)

    def _rename(self, source: str, destination: str) -> None:
        self._write_trees(lambda: self.inner._rename(source, destination), source, destination)

    def _clear(self) -> None:
        self._write_trees(self.inner._clear, "")

    def _flush(self) -> None:
        self.inner._flush()

    def _close(self) -> None:
        with self._fetcher.lock:
            self._memory.open()
            self._mark_all_stale()
            self._memory.forget_tree("")
            self._memory.close()
        if self._tier is not None:
            self._tier.close()
        self.inner._close()

    def _mark_all_stale(self) -> None:
        """Let nothing be remembered that is being read just now; the caller holds the lock."""
        self._fetcher.in_flight.mark_all_stale()
