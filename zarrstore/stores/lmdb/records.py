"""The values of an LMDB file, one record each: the driver methods that read and write them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from zarrstore.errors import ClosedStoreError, InvalidKeyError, ReadOnlyError, ValueTooLargeError
from zarrstore.spans import Span
from zarrstore.stores.lmdb.listing import KeyRanges
from zarrstore.stores.lmdb.ranges import as_text
from zarrstore.stores.lmdb.view import View

__all__ = ["Records"]

#: What one transaction of a batch writes, in bytes and in keys: beyond it, batches get slower than single values.
BATCH_BYTES, BATCH_KEYS = 1 << 20, 1000
#: A buffer of the caller's of so many bytes is a transaction of its own; a smaller one is copied into a batch.
ALONE_BYTES = 256 << 10
#: LMDB counts the bytes of a value in 32 bits.
LARGEST_VALUE = 0xFFFFFFFF


class Records(KeyRanges):
    """The records of the file that is open; `LMDBStore` without its opening and its end."""

    takes_buffers = True

    _lmdb: Any
    _fixed: bool
    _writable: bool
    _finalizer: weakref.finalize[..., Any]

    def _get(self, key: str) -> bytes:
        # `read` written again without its inner calls: this is the method that is called a million times.
        env = self._env
        busy = env.busy
        try:
            busy.append(None)
            if not env.shut:
                txn = env.begin()
                value: bytes | None = txn.get(key.encode())
                txn.abort()
                if value is None:
                    raise KeyError(key)
                return value
        except self._lmdb.Error:
            txn = None  # ended by its destructor; tried again below, where what is wrong is put right
        finally:
            busy.pop()
        name = key.encode()
        value = self._env.read(lambda txn: txn.get(name))
        if value is None:
            raise KeyError(key)
        return value

    def _part(self, key: str, work: Any) -> Any:
        """Return ``work(view of the value)``."""
        name = key.encode()

        def look(txn: Any) -> Any:
            view = txn.get(name)
            return None if view is None else work(view)

        part = self._env.read(look, buffers=True)
        if part is None:
            raise KeyError(key)
        return part

    def _contains(self, key: str) -> bool:
        name = key.encode()
        return bool(self._env.read(lambda txn: txn.get(name) is not None, buffers=True))

    def _nbytes(self, key: str) -> int:
        return int(self._part(key, len))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return bytes(self._part(key, lambda view: bytes(view[start:stop])))

    def _get_ranges(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        parts: list[bytes] = self._part(key, lambda view: [bytes(view[start:stop]) for start, stop in spans])
        return parts

    def _get_suffix(self, key: str, n: int) -> bytes:
        return bytes(self._part(key, lambda view: bytes(view[max(0, len(view) - n) :])))

    def reading(self) -> View:
        """Return one state of the store as a read-only mapping whose values are views of the file: nothing is copied.

        Returns
        -------
        View
            A mapping of str to memoryview, to be used as ``with store.reading() as view``. At the end of the block its
            values are released: using one raises ValueError.

        Raises
        ------
        BufferError
            At the end of the block: an object made of a value (a part of it, a NumPy array) is in use still.
        LockedStoreError
            Within the block, this thread does what must be alone with the file: it closes the store, compacts it, or
            writes more than the map holds, which has to grow then (see `map_size`).

        Notes
        -----
        For short blocks of one thread: pages that others free meanwhile are not used again before the end; closing and
        growth of the map in other threads wait for it. A child forked within a block cannot use the store.

        Examples
        --------
        >>> from zarrstore import LMDBStore
        >>> store = LMDBStore("data.mdb")
        >>> store["foo"] = b"data"
        >>> with store.reading() as view:
        ...     value = view["foo"]
        ...     bytes(value[1:3])
        b'at'
        >>> store.close()
        >>> value[0]
        Traceback (most recent call last):
        ValueError: operation forbidden on released memoryview object
        """
        return View(self._env, self)

    def _write(self, work: Any, what: str, nbytes: int = 0) -> Any:
        if not self._writable:
            if not self._finalizer.alive:
                raise ClosedStoreError(self)
            raise ReadOnlyError(what, self)
        return self._env.write(work, nbytes, self._fixed)

    def _set(self, key: str, value: bytes | memoryview) -> None:
        name = key.encode()
        try:
            self._write(lambda txn: txn.put(name, value), key, len(value))
        except self._lmdb.BadValsizeError:
            raise self._too_large(key, len(value)) from None

    def _too_large(self, key: str, nbytes: int) -> Exception:
        size, limit = len(key.encode()), self._env.max_key_size
        if size > limit:
            return InvalidKeyError(key, f"{self!r} takes keys of at most {limit} bytes, and this has {size}")
        return ValueTooLargeError(key, nbytes, LARGEST_VALUE)

    def _set_many(self, items: Iterable[tuple[str, bytes | memoryview]]) -> None:
        # Drawn before the transaction begins: the caller's iterator may use this store.
        batch: list[tuple[str, bytes]] = []
        size = 0
        for key, value in items:
            if type(value) is not bytes:
                if len(value) >= ALONE_BYTES:
                    # Written before the next item is drawn, which may be in the same memory.
                    if batch:
                        self._set_batch(batch, size)
                        batch, size = [], 0
                    self._set(key, value)
                    continue
                value = bytes(value)
            batch.append((key, value))
            size += len(value)
            if size >= BATCH_BYTES or len(batch) >= BATCH_KEYS:
                self._set_batch(batch, size)
                batch, size = [], 0
        if batch:
            self._set_batch(batch, size)

    def _set_batch(self, batch: list[tuple[str, bytes]], size: int) -> None:
        item = ("", b"")

        def put_all(txn: Any) -> None:
            nonlocal item
            put = txn.put
            for item in batch:
                put(item[0].encode(), item[1])

        try:
            self._write(put_all, batch[0][0], size)
        except self._lmdb.BadValsizeError:
            raise self._too_large(item[0], len(item[1])) from None

    def _delete(self, key: str) -> None:
        name = key.encode()
        try:
            deleted = self._write(lambda txn: txn.delete(name), key)
        except self._lmdb.BadValsizeError:
            deleted = False
        if not deleted:
            raise KeyError(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        names = (key.encode() for key in keys)
        while batch := list(islice(names, BATCH_KEYS)):

            def delete_all(txn: Any, batch: list[bytes] = batch) -> bool:
                deleted = False
                for name in batch:
                    with suppress(self._lmdb.BadValsizeError):
                        deleted |= txn.delete(name)
                return deleted

            self._write(delete_all, as_text(batch[0]))
