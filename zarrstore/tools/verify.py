"""Everything that is wrong with a hierarchy, each with its key and its reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, NamedTuple

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY, allowed, check_memory
from zarrstore.base import Entry, Store
from zarrstore.metadata import v2
from zarrstore.metadata.chunk import decode_chunk
from zarrstore.metadata.shards import ShardLayout, shard_problems
from zarrstore.targets import Target, opens
from zarrstore.tools.batches import Batches
from zarrstore.tools.cluster import check_workers
from zarrstore.tools.executing import Task, run_ordered, window
from zarrstore.tools.findings import KINDS, Problem, VerifyReport
from zarrstore.tools.inspection import Inspection, PlannedChunk
from zarrstore.tools.listed import ListedStore
from zarrstore.tools.listing import MAX_QUESTIONS, listing_of, present
from zarrstore.tools.manifest import compare_manifest
from zarrstore.tools.nearby import absent
from zarrstore.tools.overlap import overlaps
from zarrstore.tools.progress import Progress, reporter
from zarrstore.tools.sortedkeys import SortedKeys

__all__ = ["KINDS", "Problem", "VerifyReport", "verify"]

_BATCH = 64


@opens(store="r")
def verify(
    store: Target,
    path: object = "",
    decode: bool = True,
    manifest: str | os.PathLike[str] | Mapping[str, str] | None = None,
    executor: Executor | None = None,
    *,
    missing: Literal["unfilled", "all", "none"] = "unfilled",
    max_chunk_nbytes: int = 1 << 30,
    max_questions: int | None = MAX_QUESTIONS,
    memory: int = MEMORY,
    progress: bool | Callable[[Progress], object] | None = None,
) -> VerifyReport:
    """Look at every key of a hierarchy and return every problem, not the first.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping. One that cannot be listed is looked at by its documents and the grids of its arrays; keys that no
        document names are then a note.
    path : str
        The root of the hierarchy.
    decode : bool, default True
        Read and decode every chunk. Otherwise values are not read but for documents.
    manifest : path-like or mapping, optional
        SHA-256 by key, as `write_manifest` writes it: every value is read and compared, and a key that is missing or
        new is a problem.
    executor : concurrent.futures.Executor, optional
        Where chunks are decoded: threads, processes, ``dask.distributed``'s. Stores travel to it by pickle unless it
        is a ThreadPoolExecutor; one that only this process may use is read here. Not given, as many threads as there
        are cores.
    missing : {'unfilled', 'all', 'none'}
        Which absent chunks are problems: those of arrays without a fill value some of whose chunks are there; all;
        none. Zarr does not write what equals the fill value, so an absent chunk says nothing where there is one.
    max_chunk_nbytes : int, bytes, default 1 GiB
        A chunk that needs more when decoded is a problem instead of a danger.
    max_questions : int, optional
        Of a store that cannot be listed: the largest number of chunks that may be asked for by name.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.
    progress : callable or True, optional
        Called with a `Progress` as chunks are decoded; True draws a bar (needs rich).

    Returns
    -------
    VerifyReport
        True if nothing is wrong; its `fully_checked` says whether everything was looked at.

    Raises
    ------
    KeyError
        Nothing is at or below `path`.
    UnsupportedOperation
        The store cannot be listed, and no document names its arrays; or they have more chunks than `max_questions`.

    Notes
    -----
    Cost: one listing of all keys, one of each directory of groups, one read of each document, and of each chunk if
    `decode`. Memory: `memory`, what the values under way decode to, the documents, and the problems, at any number of
    keys, of which more than 100,000 are kept in a temporary file. Pickled objects are not decoded (a pickle can run any
    program) and noted. Source: the version 2 specification; what users ask for.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=4, chunks=2, dtype="i1", fill_value=0, compressor=None, path="a")
    >>> store["a/0"] = b"12"
    >>> bool(verify(store))
    True
    >>> store["a/1"] = b"123"
    >>> print(verify(store).problems[0])
    a/1: undecodable: it has 3 bytes, and 2 are expected
    """
    if missing not in ("unfilled", "all", "none"):
        raise ValueError(f"missing is {missing!r}; it is 'unfilled', 'all' or 'none'")
    check_memory(memory)
    adapted = as_store(store)
    at = k.normalize_path(path)
    if executor is not None and not isinstance(executor, ThreadPoolExecutor) and adapted.capabilities.process_safe:
        check_workers(executor, adapted, at, None)
    unlisted: list[Problem] = []
    notes: tuple[str, ...] = ()
    if adapted.capabilities.listable:
        entries = _entries(adapted, at, unlisted)
    else:
        listing = listing_of(adapted, at, max_questions=max_questions)
        notes = listing.notes
        entries = present(adapted, listing)
    with SortedKeys(entries) as keys:
        if not len(keys) and not unlisted:
            raise absent(adapted, at)
        looked_at: Store = adapted
        if not unlisted and (not adapted.capabilities.listable or overlaps(adapted)):
            # Known already: the names in every directory, and which keys are documents.
            looked_at = ListedStore(adapted, keys.documents)
        inspection = Inspection(looked_at, at, keys, missing, problems=unlisted, notes=list(notes))
        for key, reason in adapted._irregular(at):
            inspection.problem(key, "irregular", reason)
        for key, reason in adapted._departures(at):
            inspection.problem(key, "departure", reason)
        inspection.check_documents()
        total = len(keys) - len(keys.documents) if decode else 0
        decoding = _Decoding(adapted, executor, memory, max_chunk_nbytes)
        with reporter(progress, total, "verify") as report:
            for found, decoded in decoding.run(inspection.chunks(), decode):
                inspection.problems += found
                report(Progress(decoded, total, errors=0))
        inspection.finish()
        if manifest is not None:
            inspection.problems += _manifest_problems(adapted, at, manifest, max_questions, memory)
        there = keys.among({problem.key for problem in inspection.problems})
        inspection.problems.sort(key=lambda problem: (problem.key not in there, problem.key))
        return replace(inspection.report(), n_decoded=decoding.n_decoded)


@dataclass(frozen=True)
class _Batch:
    layout: v2.ArrayMeta | ShardLayout
    keys: Sequence[str]


class _Decoding:
    """Reads and decodes chunks wherever the executor is, within a budget of bytes."""

    def __init__(self, store: Store, executor: Executor | None, memory: int, max_nbytes: int) -> None:
        self._store = store
        self._executor = executor
        self._memory = memory
        self._max_nbytes = max_nbytes
        self.n_decoded = 0

    def run(self, chunks: Iterator[PlannedChunk], decode: bool) -> Iterator[tuple[list[Problem], int]]:
        """Yield the problems of some chunks, and how many were decoded so far."""
        if not decode:
            for _ in chunks:
                pass
            return
        store = self._store
        # Where a batch waits for its values, others decode theirs meanwhile.
        threads = max(4, os.cpu_count() or 1) if overlaps(store) else os.cpu_count() or 1
        own = nullcontext(self._executor) if self._executor is not None else ThreadPoolExecutor(threads)
        with own as chosen:
            # A mapping that is not safe for threads is read by this thread alone.
            in_threads = isinstance(chosen, ThreadPoolExecutor) and store.capabilities.thread_safe
            travels = in_threads or (not isinstance(chosen, ThreadPoolExecutor) and store.capabilities.process_safe)
            share = max(1, self._memory // max(1, window(chosen) // 2))
            batches = Batches(self._memory, share, store.capabilities.concurrent, max_keys=_BATCH)
            tasks = (self._task(batch, cost, share, travels) for batch, cost in batches.cut(chunks))
            for result in run_ordered(chosen, tasks, self._memory):
                batches.learn(result.largest)
                self.n_decoded += result.n_chunks
                yield result.problems, self.n_decoded

    def _task(self, batch: list[PlannedChunk], cost: int, share: int, travels: bool) -> Task:
        arrays = groupby(batch, lambda chunk: id(chunk.layout))
        task = [_Batch(found[0].layout, [chunk.key for chunk in found]) for found in (list(of) for _, of in arrays)]
        if travels:
            return Task(cost, check_batches, (self._store, task, self._max_nbytes, share))
        return Task(cost, check_values, (_read_here(self._store, task, share), task, self._max_nbytes))


class Checked(NamedTuple):
    """What came of some chunks: their problems, their number, and the size of the largest in bytes."""

    problems: list[Problem]
    n_chunks: int
    largest: int


def check_batches(store: Store, task: Sequence[_Batch], max_nbytes: int, share: int) -> Checked:
    """Read and decode some chunks, of which `share` bytes may be held unread; runs wherever the executor is."""
    return check_values(_read(store, task, share), task, max_nbytes)


def check_values(values: Mapping[str, bytes | Exception], task: Sequence[_Batch], max_nbytes: int) -> Checked:
    """Decode some chunks, read already or as they are asked for."""
    problems: list[Problem] = []
    largest = 0
    for batch in task:
        found, size = _check_array(values, batch, max_nbytes)
        problems += found
        largest = max(largest, size)
    return Checked(problems, sum(len(batch.keys) for batch in task), largest)


def _check_array(values: Mapping[str, bytes | Exception], batch: _Batch, max_nbytes: int) -> tuple[list[Problem], int]:
    problems = []
    largest = 0
    for key in batch.keys:
        try:
            data = values[key]
        except KeyError:
            problems.append(Problem(key, "unread", "it was listed, and is not there any more"))
            continue
        except Exception as exc:
            data = exc
        if isinstance(data, Exception):
            problems.append(Problem(key, "unread", str(data) or type(data).__name__))
            continue
        largest = max(largest, len(data))
        problems += [Problem(key, "undecodable", reason) for reason in _chunk_reasons(data, batch.layout, max_nbytes)]
        # The next value must not be read while this one is still held.
        del data
    return problems, largest


def _chunk_reasons(data: bytes, layout: v2.ArrayMeta | ShardLayout, max_nbytes: int) -> list[str]:
    if isinstance(layout, ShardLayout):
        return shard_problems(data, layout, max_nbytes=max_nbytes, strict=True)
    try:
        decode_chunk(data, layout, max_nbytes=max_nbytes, strict=True)
    except (ValueError, MemoryError) as exc:
        return [str(exc) or "not enough memory"]
    return []


def _read(store: Store, task: Sequence[_Batch], share: int) -> _Values:
    with allowed(share):
        return _Values(store, [key for batch in task for key in batch.keys])


class _Values(Mapping[str, bytes]):
    """The values of a batch; where reading them together fails, each is read alone, so that only the bad one fails."""

    def __init__(self, store: Store, keys: Sequence[str]) -> None:
        self.store = store
        self.keys_ = keys
        self.found: Mapping[str, bytes] | None = None
        try:
            self.found = store.getitems(keys)
        except Exception:
            self.found = None

    def __getitem__(self, key: str) -> bytes:
        if self.found is not None:
            try:
                return self.found[key]
            except KeyError:
                raise
            except Exception:
                self.found = None
        return self.store[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_)

    def __len__(self) -> int:
        return len(self.keys_)


def _read_here(store: Store, task: Sequence[_Batch], share: int) -> dict[str, bytes | Exception]:
    """Read the chunks of a task in this thread, for a store that no other may touch."""
    values: dict[str, bytes | Exception] = {}
    found = _read(store, task, share)
    for key in found.keys_:
        try:
            values[key] = found[key]
        except KeyError:
            continue
        except Exception as exc:
            values[key] = exc
    return values


def _entries(store: Store, path: str, problems: list[Problem]) -> Iterator[Entry]:
    """Yield all keys below a path, perhaps twice; a directory that cannot be read becomes a problem."""
    try:
        # A listing over a network tells sizes; of files, each would be a question.
        yield from store._details(path) if overlaps(store) else map(Entry, store.keys_below(path))
        return
    except OSError:
        pass
    # Directory by directory, to name the one that fails and to see the others.
    waiting = [path]
    while waiting:
        at = waiting.pop()
        try:
            names = store.listdir(at)
        except OSError as exc:
            problems.append(Problem(at, "unread", str(exc) or type(exc).__name__))
            continue
        for name in names:
            key = k.join(at, name)
            if key in store:
                yield Entry(key)
            else:
                waiting.append(key)


def _manifest_problems(
    store: Store,
    path: str,
    manifest: str | os.PathLike[str] | Mapping[str, str],
    max_questions: int | None,
    memory: int,
) -> Iterator[Problem]:
    found_sums = compare_manifest(store, manifest, path, max_questions=max_questions, memory=memory)
    for name, wanted, found in found_sums:
        key = k.join(path, name)
        if found is None:
            yield Problem(key, "manifest", "it is in the manifest, and not there")
        elif wanted is None:
            yield Problem(key, "manifest", "it is there, and not in the manifest")
        else:
            yield Problem(key, "manifest", f"its SHA-256 is {found}, and the manifest says {wanted}")
