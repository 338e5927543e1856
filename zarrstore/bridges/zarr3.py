"""Any mapping as a store of zarr 3, and (in `zarr3stores`) any store of zarr 3 as a mapping."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Self

from zarrstore.bridges.aio import AsyncMapping
from zarrstore.errors import StoreNotFoundError
from zarrstore.optional import require
from zarrstore.urls import without_secrets

# Before the imports: zarr 2 has no zarr.abc, and its own error would not name the extra to install.
require("zarr.abc.store", extra="zarr3", feature="zarrstore.bridges.zarr3")

from zarr.abc.store import (  # noqa: E402
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype  # noqa: E402
from zarr.storage import FsspecStore, LocalStore, ZipStore  # noqa: E402

from zarrstore.bridges.zarr3stores import AsyncStoreMapping  # noqa: E402

__all__ = ["AsyncStoreMapping", "MappingStore", "open_target", "to_zarr3"]


class MappingStore(Store):
    """Any mapping as a store of zarr 3, which then reads and writes version 2 and version 3 hierarchies in it.

    Parameters
    ----------
    mapping : Mapping
        One of our stores, a dict, an fsspec ``FSMap``, a class of your own.
    read_only : bool, default False
        Refuse writes. A mapping that cannot be written is read-only in any case.
    in_thread : bool or 'auto', default 'auto'
        Whether the mapping is called in threads; 'auto' asks its `capabilities.blocking`.

    Notes
    -----
    Keys pass through as they are. Byte ranges are read as such where the mapping can. What zarr asks at one moment goes
    to the mapping in few calls, in one batch if it overlaps its waits. `set_if_not_exists` looks and then sets: two
    processes may both. `close` flushes the mapping and leaves it open, since several stores may share it. Works with
    zarr 3.0 to 3.4; under 3.4's fused pipeline a mapping that does not wait for a network is called without an event
    loop. Source: zarr 3 MemoryStore and LocalStore; deviation: deleting a key never removes a subtree.

    Examples
    --------
    >>> import zarr
    >>> held = {}
    >>> array = zarr.create_array(MappingStore(held), shape=4, dtype="i4", zarr_format=2)
    >>> array[:] = 7
    >>> sorted(held), int(zarr.open_array(MappingStore(held))[2])
    (['.zarray', '.zattrs', '0'], 7)
    """

    def __init__(self, mapping: Mapping[str, Any], read_only: bool = False, in_thread: bool | str = "auto") -> None:
        self._mapping = AsyncMapping(mapping, in_thread)
        super().__init__(read_only=read_only or not self._mapping.store.capabilities.writable)

    @property
    def mapping(self) -> Mapping[str, bytes]:
        """The mapping, as one of our stores."""
        return self._mapping.store

    def __repr__(self) -> str:
        return f"MappingStore({without_secrets(repr(self.mapping))})"

    def __str__(self) -> str:
        # zarr puts this before the path of an array.
        return f"mapping://{type(self.mapping).__name__}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MappingStore):
            return False
        # The same object first: comparing two foreign mappings reads everything.
        return self.mapping is other.mapping or self.mapping == other.mapping

    # zarr's stores compare by value and are not hashed.
    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return a store over the same mapping that refuses writes, or does not; raise ValueError if it must."""
        if not read_only and not self.supports_writes:
            raise ValueError(f"{self.mapping!r} cannot be written")
        return type(self)(self.mapping, read_only, self._mapping.in_thread)

    @property
    def supports_writes(self) -> bool:
        """Whether the mapping can be written."""
        return self._mapping.store.capabilities.writable

    @property
    def supports_deletes(self) -> bool:
        """Whether keys of the mapping can be deleted."""
        return self._mapping.store.capabilities.erasable

    @property
    def supports_listing(self) -> bool:
        """Whether the mapping can be listed."""
        return self._mapping.store.capabilities.listable

    @property
    def supports_partial_writes(self) -> Any:
        """Whether a part of a value can be written: never."""
        return False

    @property
    def _supports_sync_io(self) -> bool:
        # zarr 3.4 asks. Synchronous calls come one by one: a remote store would not get its batches.
        capabilities = self._mapping.store.capabilities
        return not (capabilities.concurrent and self._mapping.threaded)

    async def _ready(self) -> None:
        if not self._is_open:
            await self._open()

    async def _ready_to_write(self) -> None:
        await self._ready()
        self._check_writable()

    # Reading -------------------------------------------------------------------------------------------------------

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a value or a part of it, None if it is absent."""
        await self._ready()
        method, *offsets = _call(byte_range)
        return _buffer(await getattr(self._mapping, method)(key, *offsets), prototype)

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], *, prototype: BufferPrototype, **limits: Any
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Yield parts of one value with their positions among `byte_ranges`; zarr 3.4 reads shards so.

        Notes
        -----
        One question to the mapping, which knows best what it reads together; `limits` are not used. As zarr expects,
        any error comes in a BaseExceptionGroup, and an absent value is FileNotFoundError.
        """
        await self._ready()
        spans, others = _spans(byte_ranges)
        try:
            parts = await self._mapping.getranges(key, list(spans.values())) if spans else []
            found = [*zip(spans, parts or (), strict=parts is not None)]
            found += [(i, await getattr(self._mapping, method)(key, n)) for i, (method, n) in others.items()]
            if parts is None or any(part is None for _, part in found):
                raise FileNotFoundError(key)
        except Exception as exc:
            raise BaseExceptionGroup(f"cannot read parts of {key!r}", [exc]) from None
        yield [(i, _buffer(part, prototype)) for i, part in found]

    def get_ranges_sync(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], *, prototype: BufferPrototype, **limits: Any
    ) -> Sequence[tuple[int, Buffer | None]]:
        """Return what `get_ranges` yields, waiting for it in the caller's thread."""
        self._is_open = True
        store = self._mapping.store
        spans, others = _spans(byte_ranges)
        try:
            found = [*zip(spans, store.getranges(key, spans.values()), strict=True)] if spans else []
            found += [(i, getattr(store, method)(key, n)) for i, (method, n) in others.items()]
        except Exception as exc:
            cause = FileNotFoundError(key) if isinstance(exc, KeyError) else exc
            raise BaseExceptionGroup(f"cannot read parts of {key!r}", [cause]) from None
        return [(i, _buffer(part, prototype)) for i, part in found]

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return many values or parts at once, in the order asked, None for those absent."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        wanted = list(requests)
        values = await asyncio.gather(*(self.get(*request) for request in wanted))
        for (key, *_), value in zip(wanted, values, strict=True):
            yield key, value

    async def exists(self, key: str) -> bool:
        """Tell whether the key exists; a directory does not."""
        await self._ready()
        return await self._mapping.contains(key)

    async def getsize(self, key: str) -> int:
        """Return the size of a value in bytes; raise FileNotFoundError if it is absent."""
        await self._ready()
        size = await self._mapping.nbytes(key)
        if size is None:
            raise FileNotFoundError(key)
        return size

    async def getsize_prefix(self, prefix: str) -> int:
        """Return the size of all values below a path in bytes."""
        await self._ready()
        store = self._mapping.store
        return await self._mapping.call(lambda: sum(map(self._mapping._nbytes_now, store.keys_below(prefix))))

    # Listing -------------------------------------------------------------------------------------------------------

    async def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        for key in await self._keys_below(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys below a path, with or without its trailing slash."""
        for key in await self._keys_below(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names of the immediate children of a path."""
        await self._ready()
        for name in await self._mapping.listdir(prefix):
            yield name

    async def _keys_below(self, prefix: str) -> Any:
        await self._ready()
        return await self._mapping.keys_below(prefix)

    async def is_empty(self, prefix: str) -> bool:
        """Tell whether nothing lies below a path."""
        await self._ready()
        return await self._mapping.is_empty(prefix)

    # Writing -------------------------------------------------------------------------------------------------------

    async def set(self, key: str, value: Buffer) -> None:
        """Set a value."""
        await self._ready_to_write()
        await self._mapping.set(key, _content(value))

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await self._ready_to_write()
        await self._mapping.setitems([(key, _content(value)) for key, value in values])

    async def set_partial_values(self, key_start_values: Any) -> None:
        """Refuse: zarr 3.0 demands that the method exists; `supports_partial_writes` is False."""
        raise NotImplementedError(f"{self!r} cannot write a part of a value")

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Set a value unless the key exists."""
        await self._ready_to_write()
        if not await self._mapping.contains(key):
            await self._mapping.set(key, _content(value))

    async def delete(self, key: str) -> None:
        """Delete a value if it exists; never a subtree."""
        await self._ready_to_write()
        await self._mapping.discard(key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove every key below a path."""
        await self._ready_to_write()
        await self._mapping.rmdir(prefix)

    async def clear(self) -> None:
        """Remove every key."""
        await self._ready_to_write()
        await self._mapping.clear()

    def close(self) -> None:
        """Flush the mapping, which stays open for whoever else holds it."""
        if self._is_open and not self.read_only:
            self._mapping.store.flush()
        super().close()

    # Without an event loop -------------------------------------------------------------------------------------------

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a value or a part of it, None if it is absent, waiting for it in the caller's thread."""
        self._is_open = True
        method, *offsets = _call(byte_range)
        try:
            return _buffer(getattr(self._mapping.store, method)(key, *offsets), prototype)
        except KeyError:
            return None

    def set_sync(self, key: str, value: Buffer) -> None:
        """Set a value in the caller's thread."""
        self._is_open = True
        self._check_writable()
        self._mapping.store[key] = _content(value)

    def delete_sync(self, key: str) -> None:
        """Delete a value if it exists, in the caller's thread."""
        self._is_open = True
        self._check_writable()
        self._mapping.store.delitems([key])


def _call(part: ByteRequest | None) -> tuple[Any, ...]:
    """Return which method of a store reads what zarr asks for, and its arguments behind the key."""
    if part is None:
        return ("get",)
    if isinstance(part, RangeByteRequest):
        return "getrange", part.start, part.end
    if isinstance(part, OffsetByteRequest):
        return "getrange", part.offset
    if isinstance(part, SuffixByteRequest):
        return "getsuffix", part.suffix
    raise ValueError(f"Unexpected byte_range, got {part}.")


def _spans(
    parts: Sequence[ByteRequest | None],
) -> tuple[dict[int, tuple[int, int | None]], dict[int, tuple[str, int]]]:
    """Return by position what can be asked for as spans from the start, and what cannot as calls."""
    spans: dict[int, tuple[int, int | None]] = {}
    others: dict[int, tuple[str, int]] = {}
    for i, part in enumerate(parts):
        method, *offsets = _call(part)
        if method == "getsuffix":
            others[i] = method, offsets[0]
        else:
            start, stop = (*offsets, None, None)[:2] if offsets else (0, None)
            spans[i] = start, stop
    return spans, others


def _buffer(value: bytes | None, prototype: BufferPrototype | None) -> Buffer | None:
    if value is None:
        return None
    return (prototype or default_buffer_prototype()).buffer.from_bytes(value)


def _content(value: Buffer) -> bytes:
    if not isinstance(value, Buffer):
        raise TypeError(f"cannot set a value of type {type(value).__name__}: zarr 3 stores take a Buffer")
    return value.to_bytes()


def to_zarr3(store: Any, read_only: bool = False) -> Store:
    """Return what zarr 3 takes as a store: a MappingStore around a mapping, a store of zarr 3 as it is.

    Parameters
    ----------
    store : Mapping or zarr.abc.store.Store
        Any mapping.
    read_only : bool, default False
        Whether writes are refused.

    Raises
    ------
    TypeError
        `store` is no mapping. (`open_store` takes paths and URLs.)

    Examples
    --------
    >>> import zarr
    >>> group = zarr.open_group(to_zarr3({}), mode="a")
    >>> group.create_array("x", shape=3, dtype="f4").shape
    (3,)
    """
    if isinstance(store, Store):
        return store.with_read_only(True) if read_only and not store.read_only else store
    if isinstance(store, AsyncStoreMapping):
        return to_zarr3(store.store, read_only)
    return MappingStore(store, read_only)


_ZIP_MODES: dict[str, Any] = {"r": "r", "r+": "a", "a": "a", "w": "w", "w-": "x"}


def open_target(
    place: str, mode: str = "a", storage_options: Mapping[str, Any] | None = None, **options: Any
) -> AsyncStoreMapping:
    """Return what zarr 3 itself makes of a path, a zip file or a URL, as a mapping under its own keys.

    Parameters
    ----------
    place : str
        A URL of fsspec (FsspecStore), a path that ends in ``.zip`` (ZipStore), or any other path (LocalStore).
    mode : str
        As for `open_store`.
    storage_options : mapping, optional
        What the file system of a URL needs to be told.
    **options
        Passed to AsyncStoreMapping.

    Raises
    ------
    StoreNotFoundError
        Nothing is at a path, and `mode` does not create.
    """
    read_only = mode == "r"
    if "://" in place:
        remote = FsspecStore.from_url(place, storage_options=dict(storage_options or {}), read_only=read_only)
        return AsyncStoreMapping(remote, **options)
    path = os.path.abspath(os.path.expanduser(place))
    if mode in ("r", "r+") and not os.path.exists(path):
        raise StoreNotFoundError(place, "what zarr 3 could open there")
    if path.lower().endswith(".zip"):
        return AsyncStoreMapping(ZipStore(path, mode=_ZIP_MODES[mode], read_only=read_only), **options)
    return AsyncStoreMapping(LocalStore(path, read_only=read_only), **options)
