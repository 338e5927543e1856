"""What becomes of each node when chunks are packed into shards, and which chunks lie in which shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.chunknames import is_chunk_name
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents, sharding, v2, v3
from zarrstore.metadata.chunkkeys import ChunkKeys
from zarrstore.nodes import Node
from zarrstore.spelling import spellings_of
from zarrstore.tools.listing import listing_of
from zarrstore.tools.overlap import found_among
from zarrstore.tools.steps import Step, attrs_of, consolidate
from zarrstore.tools.streams import sort_entries

__all__ = ["AUTO_NBYTES", "ArrayShards", "Part", "ShardStep", "Shards", "consolidate_groups", "step_of"]

#: What ``shards="auto"`` aims at, in bytes.
AUTO_NBYTES = 64 << 20
#: Chunks of an array whose sizes are looked at to know how large they are when stored.
_SAMPLE = 32

#: How large a shard is to be: a size in bytes, "auto", or a shape.
Shards = int | str | tuple[int, ...]


class Part(NamedTuple):
    """The shards of an array whose place along one axis leaves `part` when it is divided by `parts`."""

    axis: int
    part: int
    parts: int


@dataclass(frozen=True)
class ArrayShards:
    """One array: how its chunks are named in the source and lie in the shards of the destination."""

    path: str
    layout: sharding.Sharding
    source_keys: ChunkKeys
    shard_keys: ChunkKeys

    def tasks(self, source: Store, part: Part | None = None) -> Iterator[tuple[str, list[tuple[int, Entry]]]]:
        """Yield each shard that has a chunk: its key, and the places and entries of its chunks, in order."""
        if part is None:
            listed: Iterable[Entry] = listing_of(source, self.path, details=True).entries
        else:
            listed = map(Entry, self._keys_of(source, part))
        entries = sort_entries(self._placed(listed))
        for shard_key, members in groupby(entries, key=lambda entry: entry.key.partition("\n")[0]):
            yield shard_key, [_unplaced(entry) for entry in members]

    def parts(self, wanted: int) -> Iterator[Part]:
        """Yield parts of the array, of whole shards each; about as many as are wanted, if it has as many shards."""
        counts = [-(-size // shard) for size, shard in zip(self.layout.shape, self.layout.shards, strict=True)]
        axis = max(range(len(counts)), key=counts.__getitem__, default=0)
        number = min(wanted, counts[axis]) if counts else 1
        for part in range(max(1, number)):
            yield Part(axis, part, max(1, number))

    def _keys_of(self, source: Store, part: Part) -> Iterator[str]:
        """Yield the keys of a part; others that are not its chunks may be among them."""
        if part.parts == 1:
            return iter(source._keys(self.path))
        axis, separator = part.axis, self.source_keys.separator
        chunk, shard = self.layout.chunks[axis], self.layout.shards[axis]
        if axis == 0 and separator == "/" and len(self.layout.shape) > 1:
            # The part has directories of its own: nothing of other parts is listed.
            n_chunks = -(-self.layout.shape[0] // chunk)
            rows = (row for row in range(n_chunks) if row * chunk // shard % part.parts == part.part)
            return chain.from_iterable(source._keys(k.join(self.path, str(row))) for row in rows)
        start = len(k.prefix(self.path))

        def is_wanted(key: str) -> bool:
            words = key[start:].split(separator, axis + 1)
            if len(words) <= axis or not words[axis].isdecimal():
                return False
            return int(words[axis]) * chunk // shard % part.parts == part.part

        return filter(is_wanted, source._keys(self.path))

    def shards_in(self, dest: Store) -> Iterator[str]:
        """Yield the keys in `dest` that name a shard of this array."""
        return (key for key in dest._keys(self.path) if self.shard_keys.coords(key, self.path) is not None)

    def _placed(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the chunks under names that sort by shard, then by place."""
        grid = [-(-size // chunk) for size, chunk in zip(self.layout.shape, self.layout.chunks, strict=True)]
        for entry in entries:
            coords = self.source_keys.coords(entry.key, self.path)
            if coords is not None and all(at < count for at, count in zip(coords, grid, strict=True)):
                shard_key = self.shard_keys.key(self.path, self.layout.shard_of(coords))
                yield entry._replace(key=f"{shard_key}\n{self.layout.place_of(coords):020d}\n{entry.key}")


def _unplaced(entry: Entry) -> tuple[int, Entry]:
    _, place, key = entry.key.split("\n", 2)
    return int(place), entry._replace(key=key)


@dataclass
class ShardStep(Step):
    """What becomes of one node, and of the chunks of an array."""

    array: ArrayShards | None = None


# Plan ---------------------------------------------------------------------------------------------------------------


def step_of(source: Store, node: Node, wanted: Shards) -> ShardStep:
    if node.error is not None:
        raise node.error
    if node.version != 2:
        return _impossible(node, f"is version {node.version}: only version 2 is packed into shards")
    attrs = attrs_of(source, node)
    if node.kind == "group":
        v2.check_group(node.document, node.key)
        found = v3.group_v2_to_v3(attrs)
        return ShardStep(node, found.document, [*found.problems, *found.notes])
    meta = v2.check_array(node.document, node.key)
    found = v3.array_v2_to_v3(meta, attrs, chunk_keys="default", separator="/")
    if found.document is None:
        return _impossible(node, *found.problems, *found.notes)
    separators = spellings_of(source, node.path, meta).separators
    if len(separators) > 1:
        raise MetadataError(
            node.key, None, "describes chunks that are spelled in two ways; zarrstore.repair says which"
        )
    source_keys = ChunkKeys("v2", next(iter(separators), meta.separator), len(meta.shape))
    if not meta.shape:  # one value, and no axis along which to pack
        array = ArrayShards(node.path, sharding.Sharding((), (), ()), source_keys, ChunkKeys("default", "/", 0))
        return ShardStep(node, sharding.sharded_document(found.document, ()), list(found.notes), array=array)
    shape = _shard_shape(source, node.path, meta, wanted)
    array = ArrayShards(
        node.path,
        sharding.Sharding(meta.shape, meta.chunks, shape),
        source_keys,
        ChunkKeys("default", "/", len(meta.shape)),
    )
    document = sharding.sharded_document(found.document, shape, node.key)
    note = f"{array.layout.n_chunks:,} chunks to a shard of {'x'.join(map(str, shape))}"
    return ShardStep(node, document, [*found.notes, note], array=array)


def _impossible(node: Node, *notes: str) -> ShardStep:
    return ShardStep(node, None, list(notes), action="impossible")


def _shard_shape(source: Store, path: str, meta: v2.ArrayMeta, wanted: Shards) -> tuple[int, ...]:
    if isinstance(wanted, tuple):
        return wanted
    if wanted != "auto" and not isinstance(wanted, int):
        raise ValueError(f"shards is {wanted!r}; it is 'auto', a number of bytes, or a shape")
    target = AUTO_NBYTES if wanted == "auto" else int(wanted)
    return sharding.chosen_shape(meta.shape, meta.chunks, _typical_nbytes(source, path, meta), target)


def _typical_nbytes(source: Store, path: str, meta: v2.ArrayMeta) -> int:
    """Return the mean size of the first chunks as they are stored, or of a decoded chunk if none is there."""
    sizes = []
    for entry in listing_of(source, path, details=True).entries:
        if is_chunk_name(k.name(entry.key)):
            sizes.append(entry.nbytes if entry.nbytes >= 0 else source._nbytes(entry.key))
        if len(sizes) == _SAMPLE:
            break
    return max(1, sum(sizes) // len(sizes)) if sizes else max(1, meta.chunk_nbytes)


def consolidate_groups(source: Store, steps: list[ShardStep]) -> None:
    groups = [step for step in steps if step.node.kind == "group" and step.document is not None]
    there = found_among(source, (k.join(step.node.path, documents.ZMETADATA) for step in groups))
    for step in groups:
        if k.join(step.node.path, documents.ZMETADATA) in there:
            consolidate(step, steps)
