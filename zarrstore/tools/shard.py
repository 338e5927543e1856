"""Version 2 chunks packed into version 3 shards without decoding one: what `migrate_2to3` does with ``shards=``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import allowed
from zarrstore.base import Entry, Store
from zarrstore.errors import DestinationExistsError, ReadOnlyError
from zarrstore.metadata import documents, sharding
from zarrstore.nodes import walk
from zarrstore.targets import Target, opens
from zarrstore.threads import Threads, are_threads
from zarrstore.tools.cluster import check_workers, run_elsewhere
from zarrstore.tools.executing import threads_of
from zarrstore.tools.journal import Journal, place_name
from zarrstore.tools.migration import MigrationReport
from zarrstore.tools.nearby import absent
from zarrstore.tools.overlap import overlap, values_of_keys
from zarrstore.tools.shardplan import AUTO_NBYTES, ArrayShards, Part, Shards, ShardStep, consolidate_groups, step_of
from zarrstore.tools.steps import by_depth, report_of_steps
from zarrstore.tools.traffic import both_travel

__all__ = ["AUTO_NBYTES", "Shards", "migrate_to_shards"]

#: Shards that are made durable and recorded together.
_RECORDED_TOGETHER = 64
_NO_DOCUMENT = "no document was written; run it again with overwrite=True"


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
    steps = list(overlap(source, lambda node: step_of(source, node, shards), walk(source, path)))
    if not steps:
        raise absent(source, path, "array or group")
    consolidate_groups(source, steps)
    if not dry_run:
        executor = _checked_executor(executor, source, dest, path)
        with ExitStack() as stack:
            journal = None
            if resume is not None:
                journal = stack.enter_context(Journal(resume, _identity(source, dest, path, steps)))
            _prepare(dest, steps, overwrite, journal)
            pool = executor or stack.enter_context(Threads(workers))
            arrays = [step.array for step in steps if step.array is not None]
            with _documents_around(dest, steps):
                if journal is None and not are_threads(pool) and source.capabilities.listable:
                    _write_elsewhere(source, dest, arrays, pool, on_shard)
                else:
                    _Writing(source, dest, pool, journal, on_shard).run(arrays)
            if journal is not None:
                journal.remove()
    return report_of_steps(steps, dry_run)


def _checked_executor(executor: Executor | None, source: Store, dest: Store, path: str) -> Executor | None:
    """Return the executor if both stores can travel to it; its workers elsewhere see the same then."""
    if executor is None or not both_travel(executor, source, dest):
        return None
    if not are_threads(executor):
        check_workers(executor, source, path, dest, path)
    return executor


def _identity(source: Store, dest: Store, path: str, steps: list[ShardStep]) -> Any:
    """Return what a journal must have been written for, to be continued by this migration."""
    job = {
        "source": place_name(source),
        "destination": place_name(dest),
        "path": path,
        "shapes": {step.node.path: step.array.layout.shards for step in steps if step.array is not None},
    }
    return json.loads(json.dumps(job))


def _prepare(dest: Store, steps: list[ShardStep], overwrite: bool, journal: Journal | None) -> None:
    """Check the destination, begin the journal, and make room for what is replaced."""
    goes_on = journal is not None and journal.resumed
    _check_destination(dest, steps, overwrite or goes_on)
    if journal is not None:
        journal.go_on() if goes_on else journal.begin(())
    if overwrite and not goes_on:
        _make_room(dest, steps)


def _check_destination(dest: Store, steps: list[ShardStep], may_be_there: bool) -> None:
    if not dest.capabilities.writable:
        raise ReadOnlyError(steps[0].key, dest)
    if may_be_there:
        return
    there = values_of_keys(dest, (step.key for step in steps if step.document is not None))
    shards = overlap(dest, lambda step: None if step.array is None else next(step.array.shards_in(dest), None), steps)
    for step, shard in zip(steps, shards, strict=True):
        found = there.get(step.key)
        if found is not None and found != documents.dumps(step.document):
            raise DestinationExistsError(step.node.key, step.key, "pass overwrite=True")
        if shard is not None:
            raise DestinationExistsError(step.node.key, shard, "pass overwrite=True, or resume with its journal")


def _make_room(dest: Store, steps: list[ShardStep]) -> None:
    """Delete the arrays that are replaced, their documents first: a shard of another shape would be read for data."""
    for step in steps:
        if step.array is not None:
            dest.delitems([step.key])
            for shard in list(step.array.shards_in(dest)):
                dest.delitems([shard])


@contextmanager
def _documents_around(dest: Store, steps: list[ShardStep]) -> Iterator[None]:
    """Write the documents after the shards, which are durable then; before them where the destination wants that."""
    if dest._documents_first:  # it has no place for a shard before, and shows nothing before a commit
        _write_documents(dest, steps)
    yield
    dest.flush()
    if not dest._documents_first:
        _write_documents(dest, steps)
    dest.flush()


def _write_documents(dest: Store, steps: list[ShardStep]) -> None:
    written = [step for step in by_depth(steps) if step.document is not None]
    # Arrays are written together, then each level of groups; one by one where an array comes after its group.
    for _, level in groupby(written, key=lambda step: step.key if dest._documents_first else _level(step)):
        dest.setitems({step.key: documents.dumps(step.document) for step in level})


def _level(step: ShardStep) -> str:
    return "" if step.node.kind == "array" else str(len(k.segments(step.node.path)) + 1)


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

    def run(self, arrays: Iterable[ArrayShards]) -> None:
        """Write what is not done yet."""
        left = _NO_DOCUMENT if self._journal is None else "go on with the same resume="
        for key in run_elsewhere(self._executor, self._tasks(arrays), left):
            self._unrecorded.append(key)
            if len(self._unrecorded) >= _RECORDED_TOGETHER:
                self._record()
            if self._on_shard is not None:
                self._on_shard(key)
        self._record()

    def _tasks(self, arrays: Iterable[ArrayShards]) -> Iterator[tuple[Any, ...]]:
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
    source: Store, dest: Store, arrays: list[ArrayShards], executor: Executor, on_shard: Callable[[str], object] | None
) -> None:
    """Let workers list parts of the arrays and write their shards; this process sees the keys of shards."""
    wanted = max(1, 4 * (threads_of(executor) or 16) // max(1, len(arrays)))
    tasks = ((write_shards, source, dest, array, part) for array in arrays for part in array.parts(wanted))
    for keys in run_elsewhere(executor, tasks, _NO_DOCUMENT):
        if on_shard is not None:
            for key in keys:
                on_shard(key)


def write_shards(source: Store, dest: Store, array: ArrayShards, part: Part) -> list[str]:
    """Write the shards of a part of an array, on a worker, and return their keys."""
    keys = [
        write_shard(source, dest, key, members, array.layout.n_chunks) for key, members in array.tasks(source, part)
    ]
    dest.flush()
    return keys
