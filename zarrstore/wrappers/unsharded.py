"""A version 3 hierarchy whose sharded arrays are shown with their inner chunks as chunks of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from zarrstore import keys as k
from zarrstore.allowance import allowance, allowed
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
#: Keys of a listing that are looked at together: their indices have to fit.
_LISTED_TOGETHER = 1000


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

    _memories = ("_arrays", "_plain", "_indices")
    _arrays: dict[str, _Sharded | None]
    #: Arrays among them that have no shards.
    _plain: dict[str, bool]
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
            self._note(path, document)
        return self._arrays[path]

    def _note(self, path: str, document: Mapping[str, Any]) -> None:
        self._arrays[path] = found = _sharded(document, k.join(path, ZARR_JSON))
        if found is None and document.get("node_type") == "array":
            self._plain[path] = True

    def _array_of(self, key: str) -> tuple[str, _Sharded] | None:
        """Return the sharded array that `key` lies below, and its path."""
        for path in k.parents(key):
            found = self._array(path)
            if found is not None:
                return path, found
            if path in self._plain:  # so that nothing is asked of the directories of its chunks
                return None
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
        self._note(k.parent(key), document)
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
        order = list(spans)
        room = allowance().nbytes

        def read(key: str) -> bytes:
            if key not in shard_of:
                return self._document(key, passed[key]) if k.name(key) == ZARR_JSON else passed[key]
            if key not in ready:
                start = order.index(shard_of[key])
                wanted = _within(room, order[start : start + self.inner._in_flight], spans)
                for members in self._at_once(lambda shard: self._parts(shard, spans[shard]), wanted):
                    ready.update(members)
            return ready.pop(key)

        asked = shard_of.keys() | set(others)
        return LazyItems(read, [key for key in keys if key in asked])

    def _parts(self, shard_key: str, members: Sequence[tuple[str, int, int]]) -> dict[str, bytes]:
        """Return chunks of one shard, each given by its key and where it lies."""
        parts = self.inner._get_ranges(shard_key, [(start, stop) for _, start, stop in members])
        for (member, start, stop), part in zip(members, parts, strict=True):
            if len(part) != stop - start:
                raise StoreReadError(member, self, f"the shard {shard_key!r} ends within it")
        return {member: part for (member, _, _), part in zip(members, parts, strict=True)}

    def _keys(self, path: str) -> Iterator[str]:
        around = self._array_of(path) if path else None
        keys = iter(self.inner._keys(path if around is None else around[0]))
        empty: set[str] = set()
        while block := list(islice(keys, _LISTED_TOGETHER)):
            self._learn_arrays(block, empty)
            shards = {key: found[1] for key in block if (found := self._shard(key)) is not None}
            self._at_once(lambda item: self._index(*item), list(shards.items()))
            for key in block:
                for shown in self._shown(key):
                    if k.is_below(shown, path):
                        yield shown

    def _learn_arrays(self, keys: Sequence[str], empty: set[str]) -> None:
        """Read the documents above some keys, all of a level at once; `empty` are paths at which there is none."""
        while unknown := {path for key in keys if (path := self._unknown_above(key, empty)) is not None}:
            with allowed():  # documents are small
                found = self.inner._get_many([k.join(path, ZARR_JSON) for path in unknown])
            for path in unknown:
                key = k.join(path, ZARR_JSON)
                if key in found:
                    self._note(path, documents.loads(found[key], key))
                else:
                    empty.add(path)

    def _unknown_above(self, key: str, empty: set[str]) -> str | None:
        """Return the highest path above a key of which it is not known what is there; below an array is no other."""
        for path in k.parents(key):
            if path in empty:
                continue
            if path not in self._arrays:
                return path
            if path in self._plain or self._arrays[path] is not None:
                return None
        return None

    def _known_above(self, key: str) -> tuple[str, _Sharded] | None:
        """Return the sharded array above a key and its path, as far as documents were read."""
        found = ((path, self._arrays.get(path)) for path in k.parents(key))
        return next(((path, array) for path, array in found if array is not None), None)

    def _shard(self, key: str) -> tuple[str, _Sharded, tuple[int, ...]] | None:
        """Return the sharded array that a key of `inner` is a shard of: its path, it, and where the shard is."""
        found = None if k.name(key) == ZARR_JSON else self._known_above(key)
        coords = None if found is None else found[1].keys.coords(key, found[0])
        return None if found is None or coords is None else (*found, coords)

    def _shown(self, key: str) -> Iterable[str]:
        shard = self._shard(key)
        if shard is not None:
            path, array, coords = shard
            index = self._index(key, array) or ()
            chunks = zip(array.grid.chunks_of(coords), index, strict=False)
            return (array.keys.key(path, at) for at, entry in chunks if entry is not None)
        found = None if k.name(key) == ZARR_JSON else self._known_above(key)
        is_foreign = found is None or found[1].keys.loose_coords(key, found[0]) is None
        return (key,) if is_foreign else ()

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
        self._forget(k.parent(key))

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        for key, value in items:
            self._set(key, value)

    def _delete(self, key: str) -> None:
        self.inner._delete(self._writable(key))
        self._forget(k.parent(key))

    def _forget(self, path: str) -> None:
        self._arrays.pop(path, None)
        self._plain.pop(path, None)

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


def _within(room: int, shards: Sequence[str], spans: Mapping[str, Sequence[tuple[str, int, int]]]) -> list[str]:
    """Return the first of some shards, and as many of the next as chunks fit into so many bytes."""
    wanted: list[str] = []
    for shard in shards:
        room -= sum(stop - start for _, start, stop in spans[shard])
        if wanted and room < 0:
            break
        wanted.append(shard)
    return wanted


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
