"""Version 2 chunks packed into version 3 shards without decoding one: what `migrate_2to3` does with ``shards=``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, NamedTuple

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import allowed
from zarrstore.base import Entry, Store
from zarrstore.chunknames import is_chunk_name
from zarrstore.errors import DestinationExistsError, MetadataError, ReadOnlyError
from zarrstore.metadata import documents, sharding, v2, v3
from zarrstore.metadata.chunkkeys import ChunkKeys
from zarrstore.nodes import Node, walk
from zarrstore.spelling import spellings_of
from zarrstore.targets import Target, opens
from zarrstore.threads import Threads, are_threads
from zarrstore.tools.cluster import check_workers, run_elsewhere
from zarrstore.tools.copying import both_travel
from zarrstore.tools.executing import threads_of
from zarrstore.tools.journal import Journal, place_name
from zarrstore.tools.listing import listing_of
from zarrstore.tools.migration import MigrationReport
from zarrstore.tools.nearby import absent
from zarrstore.tools.steps import Step, attrs_of, by_depth, consolidate, report_of_steps
from zarrstore.tools.streams import sort_entries

__all__ = ["AUTO_NBYTES", "Shards", "migrate_to_shards"]

#: What ``shards="auto"`` aims at, in bytes.
AUTO_NBYTES = 64 << 20
#: Shards that are made durable and recorded together.
_RECORDED_TOGETHER = 64
_NO_DOCUMENT = "no document was written; run it again with overwrite=True"
#: Chunks of an array whose sizes are looked at to know how large they are when stored.
_SAMPLE = 32

#: What a shard is told by: a size in bytes, "auto", or a shape.
Shards = int | str | tuple[int, ...]


@opens(store="r", dest="a")
def migrate_to_shards(
    store: Target,
    dest: Target,
    path: object = "",
    shards: Shards = "auto",
    *,
    dry_run: bool = False,
    overwrite: bool = False,
    resume: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    workers: int = 4,
    on_shard: Callable[[str], object] | None = None,
) -> MigrationReport:
    """Write the version 2 hierarchy below a path as version 3 with shards.

    Parameters
    ----------
    store, dest : mapping of str to bytes
        Where it is, and where it is to be.
    path : str
        The root of the hierarchy, in both.
    shards : 'auto', int (bytes) or tuple of int (items)
        About how large a shard is to be as it is stored ('auto' is 64 MiB), or its shape, for every array of as many
        axes.
    dry_run : bool, default False
        Plan, and write nothing.
    overwrite : bool, default False
        Replace what is in `dest`: the document of an array is deleted first, then its shards, then written anew.
    resume : path-like, optional
        A journal: shards that an interrupted run finished are not made again, unless their chunks changed since (size
        and what identity `store` has of them). Deleted at the end.
    executor : concurrent.futures.Executor, optional
        Where shards are put together. To workers elsewhere both stores travel, and it is made sure first that they see
        the same; they list parts of the arrays by themselves, unless `resume` is given. Stores that cannot travel are
        used by threads of this process, as by default.
    workers : int, default 4
        Threads, where no executor is given. So many shards are in memory at a time, twice.
    on_shard : callable, optional
        Called with the key of each shard that was written or kept.

    Returns
    -------
    MigrationReport
        A node for each array and group: 'migrated' (or 'planned'), or 'impossible' with the reason.

    Raises
    ------
    DestinationExistsError
        A shard or another document is in `dest`, and `overwrite` is False. Nothing was written.
    ClusterError
        `executor` has no worker, one that lacks a package, or workers that see other stores. Nothing was written.
    DamagedStoreError, LockedStoreError
        `resume` is the journal of other work, or of a run that goes on.
    MetadataError
        A document is damaged, or a shape of `shards` is no multiple of a chunk's. Nothing was written.
    KeyError
        Neither an array nor a group is at or below `path`.

    Notes
    -----
    No chunk is decoded: the codecs of an array become the inner codecs of its shards, whose index carries a CRC-32C.
    Documents are written last, arrays before the groups above them, so that a reader finds whole arrays or none. Cost:
    each chunk is read once, each shard written once; one listing an array. Memory: the shards under way.
    Threads, processes, crash: shards are set one by one; a killed run leaves no document. A shard is recorded in the
    journal after a flush of `dest`.
    Source: the sharding codec of version 3; zarr 3.4's ``from_array(shards=)`` decodes and encodes every chunk.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store, dest = {}, {}
    >>> init_array(store, shape=4, chunks=2, dtype="|u1", compressor=None, path="a")
    >>> store.update({"a/0": bytes([1, 2]), "a/1": bytes([3, 4])})
    >>> migrate_to_shards(store, dest).counts()
    {'migrated': 2}
    >>> sorted(dest), list(dest["a/c/0"][:4])
    (['a/c/0', 'a/zarr.json', 'zarr.json'], [1, 2, 3, 4])
    """
    source, dest, path = as_store(store), as_store(dest), k.normalize_path(path)
    steps = [_step(source, node, shards) for node in walk(source, path)]
    if not steps:
        raise absent(source, path, "array or group")
    _consolidate(source, steps)
    if not dry_run:
        if executor is not None and not both_travel(executor, source, dest):
            executor = None
        elif executor is not None and not are_threads(executor):
            check_workers(executor, source, path, dest, path)
        with ExitStack() as stack:
            journal = None
            if resume is not None:
                job = {
                    "source": place_name(source),
                    "destination": place_name(dest),
                    "path": path,
                    "shapes": {step.node.path: step.array.layout.shards for step in steps if step.array is not None},
                }
                journal = stack.enter_context(Journal(resume, json.loads(json.dumps(job))))
            goes_on = journal is not None and journal.resumed
            _check_destination(dest, steps, overwrite or goes_on)
            if journal is not None:
                journal.go_on() if goes_on else journal.begin(())
            if overwrite and not goes_on:
                _make_room(dest, steps)
            pool = executor or stack.enter_context(Threads(workers))
            if dest._documents_first:  # it has no place for a shard before, and shows nothing before a commit
                _write_documents(dest, steps)
            arrays = [step.array for step in steps if step.array is not None]
            if journal is None and not are_threads(pool) and source.capabilities.listable:
                _write_elsewhere(source, dest, arrays, pool, on_shard)
            else:
                _Writing(source, dest, pool, journal, on_shard).run(arrays)
            dest.flush()
            if not dest._documents_first:
                _write_documents(dest, steps)
            dest.flush()
            if journal is not None:
                journal.remove()
    return report_of_steps(steps, dry_run)


class _Part(NamedTuple):
    """The shards of an array whose place along one axis leaves `part` when it is divided by `parts`."""

    axis: int
    part: int
    parts: int


@dataclass(frozen=True)
class _Array:
    """One array: how its chunks are named in the source and lie in the shards of the destination."""

    path: str
    layout: sharding.Sharding
    source_keys: ChunkKeys
    shard_keys: ChunkKeys

    def tasks(self, source: Store, part: _Part | None = None) -> Iterator[tuple[str, list[tuple[int, Entry]]]]:
        """Yield each shard that has a chunk: its key, and the places and entries of its chunks, in order."""
        if part is None:
            listed: Iterable[Entry] = listing_of(source, self.path, details=True).entries
        else:
            listed = map(Entry, self._keys_of(source, part))
        entries = sort_entries(self._placed(listed))
        for shard_key, members in groupby(entries, key=lambda entry: entry.key.partition("\n")[0]):
            yield shard_key, [_unplaced(entry) for entry in members]

    def parts(self, wanted: int) -> Iterator[_Part]:
        """Yield parts of the array, of whole shards each; about as many as are wanted, if it has as many shards."""
        counts = [-(-size // shard) for size, shard in zip(self.layout.shape, self.layout.shards, strict=True)]
        axis = max(range(len(counts)), key=counts.__getitem__, default=0)
        number = min(wanted, counts[axis]) if counts else 1
        for part in range(max(1, number)):
            yield _Part(axis, part, max(1, number))

    def _keys_of(self, source: Store, part: _Part) -> Iterator[str]:
        """Yield the keys of a part, and others that are none of its chunks."""
        if part.parts == 1:
            return iter(source._keys(self.path))
        axis, separator = part.axis, self.source_keys.separator
        chunk, shard = self.layout.chunks[axis], self.layout.shards[axis]
        if axis == 0 and separator == "/" and len(self.layout.shape) > 1:
            # Directories of its own: nothing of other parts is listed.
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
class _Step(Step):
    """What becomes of one node, and of the chunks of an array."""

    array: _Array | None = None


# Plan ---------------------------------------------------------------------------------------------------------------


def _step(source: Store, node: Node, wanted: Shards) -> _Step:
    if node.error is not None:
        raise node.error
    if node.version != 2:
        return _impossible(node, f"is version {node.version}: only version 2 is packed into shards")
    attrs = attrs_of(source, node)
    if node.kind == "group":
        v2.check_group(node.document, node.key)
        found = v3.group_v2_to_v3(attrs)
        return _Step(node, found.document, [*found.problems, *found.notes])
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
        array = _Array(node.path, sharding.Sharding((), (), ()), source_keys, ChunkKeys("default", "/", 0))
        return _Step(node, sharding.sharded_document(found.document, ()), list(found.notes), array=array)
    shape = _shard_shape(source, node.path, meta, wanted)
    array = _Array(
        node.path,
        sharding.Sharding(meta.shape, meta.chunks, shape),
        source_keys,
        ChunkKeys("default", "/", len(meta.shape)),
    )
    document = sharding.sharded_document(found.document, shape, node.key)
    note = f"{array.layout.n_chunks:,} chunks to a shard of {'x'.join(map(str, shape))}"
    return _Step(node, document, [*found.notes, note], array=array)


def _impossible(node: Node, *notes: str) -> _Step:
    return _Step(node, None, list(notes), action="impossible")


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


def _consolidate(source: Store, steps: list[_Step]) -> None:
    for step in steps:
        if step.node.kind == "group" and step.document is not None:
            if k.join(step.node.path, documents.ZMETADATA) in source:
                consolidate(step, steps)


def _check_destination(dest: Store, steps: list[_Step], may_be_there: bool) -> None:
    if not dest.capabilities.writable:
        raise ReadOnlyError(steps[0].key, dest)
    if may_be_there:
        return
    for step in steps:
        found = None if step.document is None else dest.get(step.key)
        if found is not None and found != documents.dumps(step.document):
            raise DestinationExistsError(step.node.key, step.key, "pass overwrite=True")
        shard = None if step.array is None else next(iter(step.array.shards_in(dest)), None)
        if shard is not None:
            raise DestinationExistsError(step.node.key, shard, "pass overwrite=True, or resume with its journal")


def _make_room(dest: Store, steps: list[_Step]) -> None:
    """Delete the arrays that are replaced, their documents first: a shard of another shape would be read for data."""
    for step in steps:
        if step.array is not None:
            dest.delitems([step.key])
            for shard in list(step.array.shards_in(dest)):
                dest.delitems([shard])


def _write_documents(dest: Store, steps: list[_Step]) -> None:
    for step in by_depth(steps):
        if step.document is not None:
            dest[step.key] = documents.dumps(step.document)


# Do -----------------------------------------------------------------------------------------------------------------


class _Writing:
    """The shards of all arrays: written by an executor, recorded when they are durable."""

    def __init__(
        self,
        source: Store,
        dest: Store,
        executor: Executor,
        journal: Journal | None,
        on_shard: Callable[[str], object] | None,
    ) -> None:
        self._source = source
        self._dest = dest
        self._executor = executor
        self._journal = journal
        self._on_shard = on_shard
        self._done = dict(journal.done()) if journal is not None and journal.resumed else {}
        self._versions: dict[str, str] = {}
        self._unrecorded: list[str] = []

    def run(self, arrays: Iterable[_Array]) -> None:
        """Write what is not done yet."""
        left = _NO_DOCUMENT if self._journal is None else "go on with the same resume="
        for key in run_elsewhere(self._executor, self._tasks(arrays), left):
            self._unrecorded.append(key)
            if len(self._unrecorded) >= _RECORDED_TOGETHER:
                self._record()
            if self._on_shard is not None:
                self._on_shard(key)
        self._record()

    def _tasks(self, arrays: Iterable[_Array]) -> Iterator[tuple[Any, ...]]:
        for array in arrays:
            for key, members in array.tasks(self._source):
                if self._journal is not None:
                    version = _version(members)
                    if self._done.get(key) == version and self._dest._contains(key):
                        continue
                    self._versions[key] = version
                yield write_shard, self._source, self._dest, key, members, array.layout.n_chunks

    def _record(self) -> None:
        if self._journal is not None and self._unrecorded:
            self._dest.flush()  # before the record: what is recorded is not written again
            self._journal.record((key, self._versions.pop(key)) for key in self._unrecorded)
        self._unrecorded.clear()


def _version(members: list[tuple[int, Entry]]) -> str:
    """Return what differs when a chunk of a shard changed, came or went, as far as a listing tells."""
    text = json.dumps([[place, *entry] for place, entry in members])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_shard(source: Store, dest: Store, key: str, members: list[tuple[int, Entry]], n_chunks: int) -> str:
    """Read the chunks of one shard, in one batch, and write it; return its key."""
    with allowed():  # all of them are held at once in any case
        found = source._get_many([entry.key for _, entry in members])
    sizes: list[int | None] = [None] * n_chunks
    parts = []
    for place, entry in members:
        value = found.get(entry.key)
        if value is not None:  # deleted since it was listed
            sizes[place] = len(value)
            parts.append(value)
    if parts:
        dest._set(key, b"".join((*parts, sharding.pack_index(sizes))))
    return key


def _write_elsewhere(
    source: Store, dest: Store, arrays: list[_Array], executor: Executor, on_shard: Callable[[str], object] | None
) -> None:
    """Let workers list parts of the arrays and write their shards; this process sees the keys of shards."""
    wanted = max(1, 4 * (threads_of(executor) or 16) // max(1, len(arrays)))
    tasks = ((write_shards, source, dest, array, part) for array in arrays for part in array.parts(wanted))
    for keys in run_elsewhere(executor, tasks, _NO_DOCUMENT):
        if on_shard is not None:
            for key in keys:
                on_shard(key)


def write_shards(source: Store, dest: Store, array: _Array, part: _Part) -> list[str]:
    """Write the shards of a part of an array, on a worker, and return their keys."""
    keys = [
        write_shard(source, dest, key, members, array.layout.n_chunks) for key, members in array.tasks(source, part)
    ]
    dest.flush()
    return keys
