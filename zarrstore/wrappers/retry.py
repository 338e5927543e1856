"""Try again what failed for the moment."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

from zarrstore.base import Entry
from zarrstore.batch import Checklist, LazyItems, batches
from zarrstore.errors import (
    DamagedStoreError,
    DestinationExistsError,
    LockedStoreError,
    ReadOnlyError,
    StoreReadError,
)
from zarrstore.targets import Target
from zarrstore.wrappers.base import Wrapper

__all__ = ["PERMANENT_ERRNOS", "RetryStore"]

T = TypeVar("T")

#: Errors of the operating system that a second attempt cannot cure.
PERMANENT_ERRNOS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ENOENT,
        errno.EEXIST,
        errno.EXDEV,
    }
)
_PERMANENT = (
    KeyError,
    PermissionError,
    ReadOnlyError,
    DamagedStoreError,
    LockedStoreError,
    DestinationExistsError,
)

# What is not done of a batch is tried again, so it is held meanwhile: this much of it, in bytes and in keys.
_BATCH_NBYTES = 16 << 20
_BATCH_KEYS = 4096


class RetryStore(Wrapper):
    """`inner`, whose passing errors are tried again, and whose last error is raised as it is.

    Parameters
    ----------
    inner : Mapping
        The store that fails now and then, or any mapping.
    attempts : int, default 4
        How often a call is tried in all.
    backoff : float, seconds, default 0.1
        Longest pause after the first failure; doubled after each further one.
    retry_on : tuple of exception classes, default (OSError,)
        What is tried again, unless it is permanent.
    max_backoff : float, seconds, default 10
        Longest pause of all.
    jitter : float, 0 to 1, default 0.5
        The share of a pause that is random. Many clients that failed together then do not return together; with 0
        every pause has its full length.
    deadline : float, seconds, optional
        No attempt begins later than this after the call began: the error is raised instead of a pause that would end
        too late. An attempt under way is not cut off. A listing has one deadline in all.
    sleep : callable, default time.sleep
        ``sleep(seconds)``.
    clock : callable, default time.monotonic
        ``clock()`` in seconds.

    Notes
    -----
    Never tried again: KeyError, which is an answer; a refused permission, a request that the server calls wrong (400,
    401, 403 and the like), a full disk or quota, a read-only, damaged or locked store, whether it was raised or is the
    cause of what was raised. A write that failed after it took effect is simply done twice; a delete that finds nothing
    on a later attempt has happened. A listing that breaks off is begun again, and keys already given are not given
    twice (they are remembered until then). `setitems` and `delitems` go in batches of at most 4,096 keys and 16 MiB. Of
    one that fails, the keys that the store has done are not repeated: files and object stores say which these are, a
    database does all or none; an attempt that did some begins to count anew, and the notes of the last error name a key
    that is not done. Threads: safe, as far as `inner` is. Source: zarrstore; ``OSError`` covers time-outs, broken
    connections and StoreReadError.

    Examples
    --------
    >>> from zarrstore.testing import FailingStore
    >>> flaky = FailingStore({"a": b"1"}, TimeoutError("slow today"), times=2)
    >>> RetryStore(flaky, sleep=lambda seconds: None)["a"], flaky.failures
    (b'1', 2)
    """

    keeps_values = True

    def __init__(
        self,
        inner: Target,
        attempts: int = 4,
        backoff: float = 0.1,
        retry_on: tuple[type[Exception], ...] = (OSError,),
        *,
        max_backoff: float = 10.0,
        jitter: float = 0.5,
        deadline: float | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        if attempts < 1:
            raise ValueError(f"attempts is {attempts}: the first one counts")
        if backoff < 0:
            raise ValueError(f"backoff is {backoff}: a pause in seconds is not negative")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter is {jitter}: a share lies between 0 and 1")
        if deadline is not None and deadline < 0:
            raise ValueError(f"deadline is {deadline}: a time in seconds is not negative")
        self.attempts = attempts
        self.backoff = backoff
        self.retry_on = tuple(retry_on)
        self.max_backoff = max_backoff
        self.jitter = jitter
        self.deadline = deadline
        self.sleep = sleep
        self.clock = clock
        self.capabilities = replace(self.inner.capabilities, blocking=True)  # it may sleep

    def is_permanent(self, exc: BaseException) -> bool:
        """Tell whether another attempt cannot help: by the error, or by what caused it."""
        if not isinstance(exc, self.retry_on):
            return True
        at: BaseException | None = exc
        while at is not None:
            if isinstance(at, _PERMANENT) or (isinstance(at, OSError) and at.errno in PERMANENT_ERRNOS):
                return True
            if isinstance(at, StoreReadError) and at.permanent:
                return True
            at = at.__cause__
        return False

    def _again(self, act: Callable[..., T], *args: Any) -> T:
        call = _Call(self)
        while True:
            try:
                return act(*args)
            except Exception as exc:
                call.pause(exc)

    # Reads ---------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        return self._again(self.inner._get, key)

    def _contains(self, key: str) -> bool:
        return self._again(self.inner._contains, key)

    def _keys(self, path: str) -> Iterator[str]:
        given: set[str] = set()
        call = _Call(self)
        while True:
            try:
                for key in self.inner._keys(path):
                    if key not in given:
                        given.add(key)
                        yield key
                return
            except Exception as exc:
                call.pause(exc)

    def _count(self) -> int:
        return self._again(self.inner._count)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._again(self.inner._get_range, key, start, stop)

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        return self._again(self.inner._get_ranges, key, spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self._again(self.inner._get_suffix, key, n)

    def _nbytes(self, key: str) -> int:
        return self._again(self.inner._nbytes, key)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        found = self._again(self.inner._get_many, keys)
        # A batch is read late: the error comes when the value is asked for.
        return LazyItems(lambda key: self._again(found.__getitem__, key), keys)

    def _listdir(self, path: str) -> Iterable[str]:
        # list(): the backend may list as it is iterated.
        return self._again(lambda: list(self.inner._listdir(path)))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        return self._again(lambda: list(self.inner._list_children(path)))

    def _details(self, path: str) -> Iterable[Entry]:
        return self._again(lambda: list(self.inner._details(path)))

    def _entry(self, key: str) -> Entry:
        return self._again(self.inner._entry, key)

    def _getsize(self, path: str) -> int:
        return self._again(self.inner._getsize, path)

    # Writes --------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        self._again(self.inner._set, key, value)

    def _delete(self, key: str) -> None:
        call = _Call(self)
        while True:
            try:
                return self.inner._delete(key)
            except KeyError:
                if call.failures:  # the attempt that failed had deleted it
                    return None
                raise
            except Exception as exc:
                call.pause(exc)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        for batch in batches(items, _BATCH_KEYS, _BATCH_NBYTES):
            self._until_done(self.inner._set_many, Checklist(batch.items()), itemgetter(0))

    def _delete_many(self, keys: Iterable[str]) -> None:
        remaining = iter(dict.fromkeys(keys))
        while batch := Checklist(islice(remaining, _BATCH_KEYS)):
            self._until_done(self.inner._delete_many, batch, str)

    def _until_done(
        self, act: Callable[[Checklist[T]], object], batch: Checklist[T], key_of: Callable[[T], str]
    ) -> None:
        """Repeat what is not done; after an attempt that did a part of it, failures are counted from zero."""
        call, total = _Call(self), len(batch)
        while True:
            try:
                act(batch)
                return
            except Exception as exc:
                left = Checklist(item for item in batch if key_of(item) not in batch.done)
                if not left:  # all are done, and what failed came after the last: all are repeated
                    left = Checklist(batch)
                elif batch.done:
                    call.failures = 0
                try:
                    call.pause(exc)
                except Exception:
                    if len(left) < total:
                        first = key_of(left[0])
                        exc.add_note(f"{len(left):,} of {total:,} keys of the batch are not done, as {first!r}")
                    raise
                batch = left

    def _rmdir(self, path: str) -> None:
        self._again(self.inner._rmdir, path)

    def _rename(self, source: str, destination: str) -> None:
        call = _Call(self)
        while True:
            try:
                return self.inner._rename(source, destination)
            except Exception as exc:
                if call.failures and not self._is_occupied(source) and self._is_occupied(destination):
                    return None  # the attempt that failed had moved it
                call.pause(exc)

    def _clear(self) -> None:
        self._again(self.inner._clear)

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        return self._again(lambda: list(self.inner._sweep(path, dry_run)))

    def _flush(self) -> None:
        self._again(self.inner._flush)


class _Call:
    """One call: how often it failed, and since when it is tried."""

    def __init__(self, store: RetryStore) -> None:
        self.failures = 0
        self._store = store
        self._begun = store.clock() if store.deadline is not None else 0.0

    def pause(self, exc: Exception) -> None:
        """Count a failure and wait before the next attempt; raise `exc` if there is none."""
        store = self._store
        if store.is_permanent(exc):
            raise exc
        self.failures += 1
        longest = min(store.max_backoff, store.backoff * 2.0 ** (self.failures - 1))
        seconds = longest * (1 - store.jitter * random.random())
        if self.failures >= store.attempts:
            if store.attempts > 1:
                exc.add_note(f"after {self.failures} attempts")
            raise exc
        if store.deadline is not None and store.clock() - self._begun + seconds > store.deadline:
            exc.add_note(f"after {self.failures} attempts: the next one would begin after {store.deadline} seconds")
            raise exc
        store.sleep(seconds)
