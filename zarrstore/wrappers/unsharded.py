"""A version 3 hierarchy whose sharded arrays are shown with their inner chunks as chunks of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.batch import LazyItems
from zarrstore.errors import MetadataError, StoreReadError, UnsupportedOperation
from zarrstore.metadata import consolidated, documents, sharding
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3
from zarrstore.metadata.documents import DOCUMENTS, ZARR_JSON
from zarrstore.metadata.shards import ShardLayout, read_index, shard_layout
from zarrstore.metadata.v3types import NotRepresentable
from zarrstore.spans import read_suffix
from zarrstore.targets import Target
from zarrstore.wrappers._views import View

__all__ = ["UnshardedView"]

#: Indices of shards that are kept, at the most.
_MOST_INDICES = 1024


class _Sharded(NamedTuple):
    """A sharded array: how its shards are named, and how its chunks lie in them."""

    keys: ChunkKeys
    layout: ShardLayout
    grid: sharding.Sharding


class UnshardedView(View):
    """The version 3 hierarchy in `inner`, each sharded array as one without shards, for reading.

    Parameters
    ----------
    inner : Mapping
        Holds ``zarr.json`` documents, chunks and shards.

    Notes
    -----
    The document of a sharded array shows the chunk shape and the codecs of its inner chunks; its shards are not shown.
    A chunk is one read of a part of its shard; the index of a shard is read once and kept (`invalidate` forgets it,
    after another writer changed shards). Everything else passes through, to be written too; what lies in shards cannot
    be written here. An array whose shards lie among other codecs, or whose inner chunks no version 2 codec decodes, is
    shown as it is. `V2View` over this view gives sharded arrays to programs that know version 2 only.

    Cost: two reads for the first chunk of a shard, one for each further one, in one question for a batch; a listing of
    an array reads the index of each shard. Threads: safe, as far as `inner` is. Source: the sharding codec of version
    3.

    Examples
    --------
    >>> from zarrstore import init_array, migrate_to_shards
    >>> old, new = {}, {}
    >>> init_array(old, shape=4, chunks=2, dtype="|u1", compressor=None, path="a")
    >>> old.update({"a/0": b"12", "a/1": b"34"})
    >>> report = migrate_to_shards(old, new)
    >>> view = UnshardedView(new)
    >>> sorted(new), sorted(view), view["a/c/1"]
    (['a/c/0', 'a/zarr.json', 'zarr.json'], ['a/c/0', 'a/c/1', 'a/zarr.json', 'zarr.json'], b'34')
    """

    _memories = ("_arrays", "_indices")
    _arrays: dict[str, _Sharded | None]
    _indices: dict[str, list[tuple[int, int] | None] | None]

    def __init__(self, inner: Target) -> None:
        super().__init__(inner)
        self.capabilities = replace(self.inner.capabilities, ranged=True)

    # Arrays --------------------------------------------------------------------------------------------------------

    def _array(self, path: str) -> _Sharded | None:
        """Return the sharded array at `path`, None if there is none."""
        if path not in self._arrays:
            key = k.join(path, ZARR_JSON)
            try:
                document = documents.loads(self.inner._get(key), key)
            except KeyError:
                return None  # not remembered: it may be written yet
            self._arrays[path] = _sharded(document, key)
        return self._arrays[path]

    def _array_of(self, key: str) -> tuple[str, _Sharded] | None:
        """Return the sharded array that `key` lies below, and its path."""
        for path in k.parents(key):
            found = self._array(path)
            if found is not None:
                return path, found
        return None

    def _chunk(self, key: str) -> tuple[str, int, int] | None:
        """Return where a chunk lies: shard key, offset and size; None if `key` lies in no sharded array.

        Raises
        ------
        KeyError
            It lies in one, and is not there.
        """
        if k.name(key) in DOCUMENTS:
            return None
        found = self._array_of(key)
        if found is None:
            return None
        path, array = found
        coords = array.keys.coords(key, path)
        if coords is None:
            if array.keys.loose_coords(key, path) is None:
                return None  # foreign: no name of a chunk
            raise KeyError(key)
        shard_key = array.keys.key(path, array.grid.shard_of(coords))
        index = self._index(shard_key, array)
        entry = None if index is None else index[array.grid.place_of(coords)]
        if entry is None:
            raise KeyError(key)
        return shard_key, entry[0], entry[1]

    def _index(self, shard_key: str, array: _Sharded) -> list[tuple[int, int] | None] | None:
        if shard_key in self._indices:
            return self._indices[shard_key]
        size = array.layout.index_nbytes
        try:
            if array.layout.index_location == "start":
                data = self.inner._get_range(shard_key, 0, size)
            else:
                data = self.inner._get_suffix(shard_key, size)
            index = read_index(data, array.layout)
        except KeyError:
            return None  # not remembered: it may be written yet
        except ValueError as exc:
            raise StoreReadError(shard_key, self, f"its index: {exc}") from exc
        with self._lock:
            if len(self._indices) >= _MOST_INDICES:
                self._indices.clear()
            self._indices[shard_key] = index
        return index

    def _document(self, key: str, data: bytes | None = None) -> bytes:
        if data is None:
            data = self.inner._get(key)
        document = documents.loads(data, key)
        self._arrays[k.parent(key)] = _sharded(document, key)
        shown = _unsharded(document, key)
        return data if shown is None else documents.dumps(shown)

    # Reads ---------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        if k.name(key) == ZARR_JSON:
            return self._document(key)
        found = self._chunk(key)
        if found is None:
            return self.inner._get(key)
        shard_key, offset, size = found
        return self._part(key, shard_key, offset, offset + size)

    def _part(self, key: str, shard_key: str, start: int, stop: int) -> bytes:
        try:
            part = self.inner._get_range(shard_key, start, stop)
        except KeyError:
            self._indices.pop(shard_key, None)  # the shard was deleted since its index was read
            raise KeyError(key) from None
        if len(part) != stop - start:
            raise StoreReadError(key, self, f"the shard {shard_key!r} ends within it")
        return part

    def _contains(self, key: str) -> bool:
        try:
            found = self._chunk(key)
        except KeyError:
            return False
        return found is not None or self.inner._contains(key)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        found = None if k.name(key) == ZARR_JSON else self._chunk(key)
        if found is None:
            return self._get(key)[start:stop] if k.name(key) == ZARR_JSON else self.inner._get_range(key, start, stop)
        shard_key, offset, size = found
        last = size if stop is None else min(stop, size)
        return self._part(key, shard_key, offset + start, offset + last) if start < last else b""

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        return [self._get_range(key, start, stop) for start, stop in spans]

    def _get_suffix(self, key: str, n: int) -> bytes:
        if k.name(key) != ZARR_JSON and self._chunk(key) is None:
            return self.inner._get_suffix(key, n)
        return read_suffix(n, lambda: self._nbytes(key), lambda start, stop: self._get_range(key, start, stop))

    def _nbytes(self, key: str) -> int:
        if k.name(key) == ZARR_JSON:
            return len(self._document(key))
        found = self._chunk(key)
        return self.inner._nbytes(key) if found is None else found[2]

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        spans: dict[str, list[tuple[str, int, int]]] = {}
        others = []
        for key in keys:
            try:
                found = None if k.name(key) == ZARR_JSON else self._chunk(key)
            except KeyError:
                continue
            if found is None:
                others.append(key)
            else:
                spans.setdefault(found[0], []).append((key, found[1], found[1] + found[2]))
        shard_of = {key: shard_key for shard_key, members in spans.items() for key, _, _ in members}
        passed = self.inner._get_many(others)
        ready: dict[str, bytes] = {}

        def read(key: str) -> bytes:
            if key not in shard_of:
                return self._document(key, passed[key]) if k.name(key) == ZARR_JSON else passed[key]
            if key not in ready:
                members = spans[shard_of[key]]
                parts = self.inner._get_ranges(shard_of[key], [(start, stop) for _, start, stop in members])
                for (member, start, stop), part in zip(members, parts, strict=True):
                    if len(part) != stop - start:
                        raise StoreReadError(member, self, f"the shard {shard_of[key]!r} ends within it")
                    ready[member] = part
            return ready.pop(key)

        asked = shard_of.keys() | set(others)
        return LazyItems(read, [key for key in keys if key in asked])

    def _keys(self, path: str) -> Iterator[str]:
        around = self._array_of(path) if path else None
        for key in self.inner._keys(path if around is None else around[0]):
            for shown in self._shown(key):
                if k.is_below(shown, path):
                    yield shown

    def _shown(self, key: str) -> Iterable[str]:
        found = None if k.name(key) == ZARR_JSON else self._array_of(key)
        if found is None:
            return (key,)
        path, array = found
        shard = array.keys.coords(key, path)
        if shard is None:
            return (key,) if array.keys.loose_coords(key, path) is None else ()
        index = self._index(key, array) or ()
        chunks = zip(array.grid.chunks_of(shard), index, strict=False)
        return (array.keys.key(path, coords) for coords, entry in chunks if entry is not None)

    def _listdir(self, path: str) -> Iterable[str]:
        if self._array(path) is not None or (path and self._array_of(path) is not None):
            return k.children(self._keys(path), path)
        return self.inner._listdir(path)

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        if self._array(path) is not None or (path and self._array_of(path) is not None):
            return ((name, True) for name in self._listdir(path))
        return self.inner._list_children(path)

    # Writes --------------------------------------------------------------------------------------------------------

    def _writable(self, key: str) -> str:
        if self._array(k.parent(key)) if k.name(key) == ZARR_JSON else self._array_of(key):
            raise UnsupportedOperation(f"write {key!r}, which belongs to a sharded array", self, "write through zarr 3")
        return key

    def _set(self, key: str, value: bytes) -> None:
        self.inner._set(self._writable(key), value)
        self._arrays.pop(k.parent(key), None)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        for key, value in items:
            self._set(key, value)

    def _delete(self, key: str) -> None:
        self.inner._delete(self._writable(key))
        self._arrays.pop(k.parent(key), None)

    def _delete_many(self, keys: Iterable[str]) -> None:
        Store._delete_many(self, keys)

    def _rmdir(self, path: str) -> None:
        if path and self._array_of(path) is not None:
            self._writable(k.join(path, "0"))
        self.inner._rmdir(path)
        self.invalidate()

    def _rename(self, source: str, destination: str) -> None:
        if self._array_of(source) is not None:
            self._writable(source)
        self.inner._rename(source, destination)
        self.invalidate()

    def _clear(self) -> None:
        self.inner._clear()
        self.invalidate()


def _sharded(document: Mapping[str, Any], key: str) -> _Sharded | None:
    if document.get("node_type") != "array":
        return None
    try:
        layout = shard_layout(document, key)
    except NotRepresentable:
        return None
    if layout is None:
        return None
    chunk_keys = chunk_keys_of_v3(document, key)
    shape = tuple(document["shape"])
    if len(shape) != len(layout.inner.shape) or not all(type(n) is int and n >= 0 for n in shape):
        raise MetadataError(key, "shape", f"is no list of {len(layout.inner.shape)} sizes")
    return _Sharded(chunk_keys, layout, sharding.Sharding(shape, layout.inner.chunks, layout.inner.shape))


def _unsharded(document: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return the document as it is shown, None if it is shown as it is."""
    inline = document.get("consolidated_metadata")
    if document.get("node_type") == "group" and inline:
        nodes = consolidated.parse_inline(document, key) or {}
        return {
            **document,
            "consolidated_metadata": consolidated.build_inline(
                {path: _unsharded(node, key) or node for path, node in nodes.items()}
            ),
        }
    if _sharded(document, key) is None:
        return None
    configuration = document["codecs"][0]["configuration"]
    grid = {"name": "regular", "configuration": {"chunk_shape": configuration["chunk_shape"]}}
    return {**document, "chunk_grid": grid, "codecs": configuration["codecs"]}
