"""Any store of zarr 3 as one of ours."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from zarrstore import keys as k
from zarrstore.allowance import Found, Gate, Sizes, allowance
from zarrstore.base import Capabilities, Store
from zarrstore.batch import AheadItems, batches, checklist
from zarrstore.bridges.aio import shared_loop
from zarrstore.errors import ConflictError, ReadOnlyError, UnsupportedOperation
from zarrstore.optional import require
from zarrstore.spans import coalesce, read_spans
from zarrstore.urls import without_secrets

require("zarr.abc.store", extra="zarr3", feature="AsyncStoreMapping")

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest  # noqa: E402
from zarr.abc.store import Store as ZarrStore  # noqa: E402
from zarr.core.buffer import default_buffer_prototype  # noqa: E402
from zarr.core.sync import sync  # noqa: E402
from zarr.storage import FsspecStore, LocalStore, WrapperStore, ZipStore  # noqa: E402

__all__ = ["AsyncStoreMapping"]

T = TypeVar("T")

#: Requests at a time in a batch, and what a batch of writes may hold meanwhile, in keys and in bytes.
CONCURRENCY = 64
_BATCH_KEYS = 1024
_BATCH_NBYTES = 64 << 20
_LISTED_AT_ONCE = 1000


#: What makes a name a pattern for fsspec.
_PATTERN = re.compile(r"[*?\[]")


def _base(store: ZarrStore) -> tuple[ZarrStore, bool]:
    """Return the store that wrappers (for logs, delays, caches) are around, and whether all of them are zarr's own."""
    known = True
    while isinstance(store, WrapperStore):
        known = known and type(store).__module__.startswith("zarr.")
        store = store._store
    return store, known


@contextmanager
def _absent_if_no_name() -> Iterator[None]:
    """Let nothing be found under a name that the store cannot have: too long for a file, or refused by obstore."""
    try:
        yield
    except OSError as exc:
        if exc.errno != errno.ENAMETOOLONG:
            raise
    except ValueError as exc:
        if not str(exc).startswith("Could not parse path"):
            raise


class AsyncStoreMapping(Store):
    """Any store of zarr 3 (Local, Zip, Fsspec, Memory, Object, Icechunk's) as a mapping, with concurrent batches.

    Parameters
    ----------
    store : zarr.abc.store.Store
        It is opened if it is not open yet.
    loop : {'zarr', 'own'}
        Where its coroutines run. 'zarr': on zarr's event loop, the only one on which a store may be used that zarr
        itself uses too (the sessions of network clients belong to a loop). 'own': on one of ours, so that a coroutine
        on zarr's loop may wait for this mapping.

    Notes
    -----
    Cost: about 60 µs a call on top of the store's; batches make 64 requests at a time. What zarr's stores do otherwise
    is put right: deleting a key never removes a directory, a missing key is KeyError, an empty range is empty, a
    directory is no key. Threads: safe as far as the store is. Source: zarr 3.1 and 3.4.

    Examples
    --------
    >>> from zarr.storage import MemoryStore
    >>> store = AsyncStoreMapping(MemoryStore())
    >>> store.update({"a/0": b"1", "a/1": b"22"})
    >>> store["a/1"], store.listdir("a"), store.getrange("a/1", 1)
    (b'22', ['0', '1'], b'2')
    """

    def __init__(self, store: ZarrStore, loop: str = "zarr") -> None:
        if not isinstance(store, ZarrStore):
            raise TypeError(f"cannot use {type(store).__name__} as a store of zarr 3: it is no zarr.abc.store.Store")
        if loop not in ("zarr", "own"):
            raise ValueError(f"loop {loop!r}: 'zarr' or 'own' is expected")
        if type(store) is LocalStore and not store.root.is_absolute():
            # Up to zarr 3.2 a relative root is cut out of the middle of keys too.
            store = LocalStore(store.root.absolute(), read_only=store.read_only)
        self.store = store
        self.loop = loop
        self._pid = os.getpid()
        self._value_sizes = Sizes()
        base, known = _base(store)
        # A wrapper that is not zarr's own may have other keys than the store within: only its own methods are used.
        self._base = base if known else store
        self._opaque = not known
        self._wrapped = base is not store
        self._local = known and isinstance(base, LocalStore)
        self._fsspec = known and isinstance(base, FsspecStore)
        self._takes_patterns = isinstance(base, FsspecStore)
        self._zip = isinstance(base, ZipStore)
        self._has_native_threads = type(base).__name__ == "ObjectStore"
        writable = store.supports_writes and not store.read_only
        self.capabilities = Capabilities(
            writable=writable,
            erasable=writable and store.supports_deletes,
            listable=store.supports_listing,
            hierarchical=self._local,
            ranged=True,
            concurrent=True,
            process_safe=self._local,
        )
        self._run(store._ensure_open())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self.loop)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({without_secrets(repr(self.store))})"

    def _place(self) -> object:
        return self.store

    # Running -------------------------------------------------------------------------------------------------------

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._pid != os.getpid() and self._has_native_threads:
            coroutine.close()
            raise UnsupportedOperation(
                "be used in a forked child, which lacks obstore's threads", self, "open it there"
            )
        return sync(coroutine) if self.loop == "zarr" else shared_loop().run(coroutine)

    def _gather(self, act: Callable[[Any], Awaitable[T]], items: Iterable[Any]) -> list[T]:
        """Do something for each item, so many at a time; raise the first error after all have ended."""

        async def run() -> list[Any]:
            free = asyncio.Semaphore(CONCURRENCY)

            async def one(item: Any) -> T:
                async with free:
                    return await act(item)

            return await asyncio.gather(*map(one, items), return_exceptions=True)

        results = self._run(run())
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def _steps(self, list_: Callable[[str], AsyncIterator[str]], path: str) -> Iterator[str]:
        """Yield from a listing, some steps at a time."""
        listing: AsyncIterator[str] | None = None

        async def take() -> list[str]:
            nonlocal listing
            if listing is None:
                listing = list_(path)  # here, since obstore wants a running loop already
            taken: list[str] = []
            with _absent_if_no_name():
                async for item in listing:
                    taken.append(item)
                    if len(taken) == _LISTED_AT_ONCE:
                        break
            return taken

        while found := self._run(take()):
            yield from found

    # What differs from store to store ------------------------------------------------------------------------------

    async def _is_value(self, key: str) -> bool:
        if self._fsspec:
            # exists() of a FsspecStore is true for directories.
            return bool(await self._base.fs._isfile(self._fsspec_path(key)))  # type: ignore[attr-defined]
        if self._opaque:
            # exists() may be true for a directory, and delete() then removes it.
            return await self._read(key) is not None
        found = False
        with _absent_if_no_name():
            found = await self.store.exists(key)
        return found

    def _fsspec_path(self, key: str) -> str:
        return f"{self._base.path}/{key}"  # type: ignore[attr-defined]

    async def _read(self, key: str, part: Any = None) -> bytes | None:
        value = None
        with _absent_if_no_name():
            value = await self.store.get(key, default_buffer_prototype(), part)
        return None if value is None else value.to_bytes()

    async def _size(self, key: str) -> int | None:
        # getsize() of a directory is that of its inode, or 0.
        if (self._local or self._fsspec or self._opaque) and not await self._is_value(key):
            return None
        try:
            return await self.store.getsize(key)
        except FileNotFoundError:
            return None

    async def _remove(self, key: str) -> bool:
        # delete() of a LocalStore takes whole directories, and nobody says whether there was anything.
        if not await self._is_value(key):
            return False
        if self._takes_patterns and _PATTERN.search(key):
            # delete() of a FsspecStore takes "*" and "[" for patterns, and removes what they match.
            if self._wrapped:
                raise UnsupportedOperation(f"delete {key!r}", self, "fsspec takes '*', '?' and '[' in it for patterns")
            await self._base.fs._rm_file(self._fsspec_path(key))  # type: ignore[attr-defined]
        else:
            await self.store.delete(key)
        return True

    def _prune(self, path: str) -> None:
        """Remove directories that hold nothing any more: only files of a LocalStore leave them."""
        if not self._local:
            return
        for above in [path, *reversed(list(k.parents(path)))]:
            if not above:
                return
            try:
                os.rmdir(self._base.root / above)  # type: ignore[attr-defined]
            except FileNotFoundError:
                continue
            except OSError:
                return

    # Reading -------------------------------------------------------------------------------------------------------

    def _found(self, key: str, value: bytes | None) -> bytes:
        if value is None:
            raise KeyError(key)
        return value

    def _get(self, key: str) -> bytes:
        return self._found(key, self._run(self._read(key)))

    def _contains(self, key: str) -> bool:
        return self._run(self._is_value(key))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._run(self._read_range(key, start, stop))

    async def _read_range(self, key: str, start: int, stop: int | None) -> bytes:
        if stop is not None and stop <= start:
            if not await self._is_value(key):
                raise KeyError(key)
            return b""
        part = OffsetByteRequest(start) if stop is None else RangeByteRequest(start, stop)
        for is_last in (False, True):
            try:
                return self._found(key, await self._read(key, part))
            except KeyError:
                raise
            except Exception:
                # Some stores refuse a part that begins behind the end. Where the value has more bytes by now, it was
                # replaced meanwhile.
                size = await self._size(key)
                if size is not None and start >= size:
                    return b""
                if size is None or is_last:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _get_suffix(self, key: str, n: int) -> bytes:
        if n == 0:  # "-0" means everything to some
            return self._empty(key)
        try:
            part = self._found(key, self._run(self._read(key, SuffixByteRequest(n))))
        except KeyError:
            raise
        except Exception:  # some refuse more than the value has, or the end of an empty one
            size = self._run(self._size(key))
            if size is None or n < size:
                raise
            part = b""
        if len(part) == n:
            return part
        # Shorter than asked for: zarr's MemoryStore gives b"3" for the last 4 bytes of b"123".
        value = self._get(key)
        return value[max(0, len(value) - n) :]

    def _empty(self, key: str) -> bytes:
        if not self._contains(key):
            raise KeyError(key)
        return b""

    def _nbytes(self, key: str) -> int:
        size = self._run(self._size(key))
        if size is None:
            raise KeyError(key)
        return size

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        runs = [run for run, _ in coalesce(spans)]
        if len(runs) < 2:
            return super()._get_ranges(key, spans)
        parts = dict(zip(runs, self._gather(lambda run: self._read_range(key, *run), runs), strict=True))
        return read_spans(lambda start, stop: parts[start, stop], spans)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return AheadItems(self._fetch, keys, sizes=self._value_sizes)

    def _fetch(self, keys: Sequence[str]) -> Found:
        gate = Gate(allowance().nbytes)
        unasked: list[str] = []

        async def read(key: str) -> bytes | None:
            if not gate.enter():
                unasked.append(key)
                return None
            value = None
            try:
                value = await self._read(key)
            finally:
                gate.leave(len(value or b""))
            return value

        values = self._gather(read, keys)
        found = Found((key, value) for key, value in zip(keys, values, strict=True) if value is not None)
        found.unasked = unasked
        return found

    def _keys(self, path: str) -> Iterable[str]:
        self._listable()
        below = self._steps(self.store.list_prefix, k.prefix(path))
        found: Iterable[str] = (
            key for key in below if k.is_below(key, path) and k.is_key(key) and not k.is_partial(key)
        )
        # A zip written twice lists twice.
        return dict.fromkeys(found) if self._zip else found

    def _listdir(self, path: str) -> Iterable[str]:
        self._listable()
        names = self._steps(self.store.list_dir, path)
        # fsspec lists a value as its own only child, under its whole name.
        return {name for name in names if k.is_key(name) and not k.parent(name) and not k.is_partial(name)}

    def _getsize(self, path: str) -> int:
        if path:
            size = self._run(self._size(path))
            if size is not None:
                return size
        children = [k.join(path, name) for name in self._listdir(path)]
        return sum(size for size in self._gather(self._size, children) if size is not None)

    def _listable(self) -> None:
        if not self.capabilities.listable:
            raise UnsupportedOperation("list", self)

    # Writing -------------------------------------------------------------------------------------------------------

    def _may_write(self, what: str) -> None:
        if not self.capabilities.writable:
            raise ReadOnlyError(what, self)

    def _may_erase(self, what: str) -> None:
        self._may_write(what)
        if not self.capabilities.erasable:
            raise UnsupportedOperation("delete", self)

    async def _write(self, item: tuple[str, bytes]) -> None:
        key, value = item
        try:
            await self.store.set(key, default_buffer_prototype().buffer.from_bytes(value))
        except (IsADirectoryError, NotADirectoryError, FileExistsError):
            raise ConflictError(key, self, await self._in_the_way(key)) from None

    async def _in_the_way(self, key: str) -> str:
        for above in k.parents(key):
            if above and await self._is_value(above):
                return above
        async for below in self.store.list_prefix(k.prefix(key)):
            return below
        return k.join(key, "")

    def _set(self, key: str, value: bytes) -> None:
        self._may_write(key)
        self._run(self._write((key, value)))

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        # Of two values for one key in a batch the last one counts, whatever the order in which requests end.
        done = checklist(items)

        async def write(item: tuple[str, bytes]) -> None:
            await self._write(item)
            done.add(item[0])

        for batch in batches(items, _BATCH_KEYS, _BATCH_NBYTES):
            self._may_write(next(iter(batch)))
            self._gather(write, batch.items())
        self._may_write("")

    def _delete(self, key: str) -> None:
        self._may_erase(key)
        if not self._run(self._remove(key)):
            raise KeyError(key)
        self._prune(k.parent(key))

    def _delete_many(self, keys: Iterable[str]) -> None:
        self._may_write("")
        remaining = iter(keys)
        while batch := list(dict.fromkeys(islice(remaining, _BATCH_KEYS))):
            self._may_erase(batch[0])
            self._gather(self._remove, batch)
            for directory in {k.parent(key) for key in batch}:
                self._prune(directory)

    def _rmdir(self, path: str) -> None:
        self._may_erase(path)
        if self._fsspec:
            # delete_dir() of a FsspecStore takes a value at the path too.
            return super()._rmdir(path)
        if not path:
            self._run(self.store.clear())
        elif not self._local:
            self._run(self.store.delete_dir(path))
        elif not self._contains(path):  # delete_dir() of a LocalStore refuses a file
            with _absent_if_no_name():
                self._run(self.store.delete_dir(path))
            self._prune(k.parent(path))

    def _rename(self, source: str, destination: str) -> None:
        self._may_erase(source)
        super()._rename(source, destination)

    def _clear(self) -> None:
        self._rmdir("")

    def _close(self) -> None:
        self.store.close()
