"""Chunks read and decoded wherever an executor is, within a budget of bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from zarrstore.allowance import allowed
from zarrstore.base import Store
from zarrstore.metadata import v2
from zarrstore.metadata.chunk import decode_chunk
from zarrstore.metadata.shards import ShardLayout, shard_problems
from zarrstore.threads import Threads, are_threads
from zarrstore.tools.batches import Batches
from zarrstore.tools.executing import Task, run_ordered, window
from zarrstore.tools.findings import Problem
from zarrstore.tools.inspection import PlannedChunk
from zarrstore.tools.overlap import overlaps

__all__ = ["Checked", "Decoding", "check_batches", "check_values"]

#: Chunks in one batch at the most.
_BATCH = 64


@dataclass(frozen=True)
class _Batch:
    layout: v2.ArrayMeta | ShardLayout
    keys: Sequence[str]


class Decoding:
    """Reads and decodes chunks wherever the executor is, within a budget of bytes."""

    def __init__(self, store: Store, executor: Executor | None, memory: int, max_nbytes: int) -> None:
        self._store = store
        self._executor = executor
        self._memory = memory
        self._max_nbytes = max_nbytes
        self.n_decoded = self.nbytes = 0

    def run(self, chunks: Iterator[PlannedChunk], decode: bool) -> Iterator[tuple[list[Problem], int]]:
        """Yield the problems of some chunks, and how many were decoded so far."""
        if not decode:
            for _ in chunks:
                pass
            return
        store = self._store
        # Where a batch waits for its values, others decode theirs meanwhile.
        threads = max(4, os.cpu_count() or 1) if overlaps(store) else os.cpu_count() or 1
        own = nullcontext(self._executor) if self._executor is not None else Threads(threads)
        with own as chosen:
            # A mapping that is not safe for threads is read by this thread alone.
            in_threads = are_threads(chosen) and store.capabilities.thread_safe
            travels = in_threads or (not are_threads(chosen) and store.capabilities.process_safe)
            share = max(1, self._memory // max(1, window(chosen) // 2))
            batches = Batches(self._memory, share, store.capabilities.concurrent, max_keys=_BATCH)
            tasks = (self._task(batch, cost, share, travels) for batch, cost in batches.cut(chunks))
            for result in run_ordered(chosen, tasks, self._memory):
                batches.learn(result.largest)
                self.n_decoded += result.n_chunks
                self.nbytes += result.nbytes
                yield result.problems, self.n_decoded

    def _task(self, batch: list[PlannedChunk], cost: int, share: int, travels: bool) -> Task:
        arrays = groupby(batch, lambda chunk: id(chunk.layout))
        task = [_Batch(found[0].layout, [chunk.key for chunk in found]) for found in (list(of) for _, of in arrays)]
        if travels:
            return Task(cost, check_batches, (self._store, task, self._max_nbytes, share))
        return Task(cost, check_values, (_read_here(self._store, task, share), task, self._max_nbytes))


class Checked(NamedTuple):
    """What came of some chunks: their problems, their number, and in bytes the size of the largest and of all."""

    problems: list[Problem]
    n_chunks: int
    largest: int
    nbytes: int


def check_batches(store: Store, task: Sequence[_Batch], max_nbytes: int, share: int) -> Checked:
    """Read and decode some chunks, of which `share` bytes may be held unread; runs wherever the executor is."""
    return check_values(_read(store, task, share), task, max_nbytes)


def check_values(values: Mapping[str, bytes | Exception], task: Sequence[_Batch], max_nbytes: int) -> Checked:
    """Decode some chunks, read already or as they are asked for."""
    problems: list[Problem] = []
    largest = nbytes = 0
    for batch in task:
        found = _check_array(values, batch, max_nbytes)
        problems += found.problems
        largest = max(largest, found.largest)
        nbytes += found.nbytes
    return Checked(problems, sum(len(batch.keys) for batch in task), largest, nbytes)


def _check_array(values: Mapping[str, bytes | Exception], batch: _Batch, max_nbytes: int) -> Checked:
    problems = []
    largest = nbytes = 0
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
        nbytes += len(data)
        problems += [Problem(key, "undecodable", reason) for reason in _chunk_reasons(data, batch.layout, max_nbytes)]
        # The next value must not be read while this one is still held.
        del data
    return Checked(problems, len(batch.keys), largest, nbytes)


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
