"""Everything that is wrong with a hierarchy, each with its key and its reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.metadata import v2
from zarrstore.metadata.chunk import decode_chunk
from zarrstore.metadata.shards import ShardLayout, shard_problems
from zarrstore.targets import Target, opens
from zarrstore.tools.executing import run_ordered
from zarrstore.tools.findings import KINDS, Problem, VerifyReport
from zarrstore.tools.grid import MAX_QUESTIONS
from zarrstore.tools.inspection import ChunkPlan, Inspection
from zarrstore.tools.listed import ListedStore
from zarrstore.tools.listing import listing_of, present
from zarrstore.tools.manifest import manifest_of, read_manifest
from zarrstore.tools.nearby import absent
from zarrstore.tools.overlap import overlaps
from zarrstore.tools.progress import Progress, reporter

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
    `decode`. Memory: the names of the keys, and a batch of 64 chunks a worker. Pickled objects are not decoded (a
    pickle can run any program) and noted. Source: the version 2 specification; what users ask for.

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
    adapted = as_store(store)
    at = k.normalize_path(path)
    unlisted: list[Problem] = []
    notes: tuple[str, ...] = ()
    if adapted.capabilities.listable:
        keys = _list_keys(adapted, at, unlisted)
    else:
        listing = listing_of(adapted, at, max_questions=max_questions)
        notes = listing.notes
        keys = sorted(entry.key for entry in present(adapted, listing))
    looked_at: Store = adapted
    if not unlisted and (not adapted.capabilities.listable or overlaps(adapted)):
        # Known already: the names in every directory, and which keys are documents.
        looked_at = ListedStore(adapted, keys)
    if not keys and not unlisted:
        raise absent(adapted, at)
    inspection = Inspection(looked_at, at, keys, missing, problems=unlisted, notes=list(notes))
    for key, reason in adapted._irregular(at):
        inspection.problem(key, "irregular", reason)
    for key, reason in adapted._departures(at):
        inspection.problem(key, "departure", reason)
    inspection.run()
    work = list(_tasks_of(inspection.plans)) if decode else []
    decoded = 0
    total = sum(len(batch.keys) for task in work for batch in task)
    # Where a batch waits for its values, others decode theirs meanwhile.
    threads = max(4, os.cpu_count() or 1) if overlaps(adapted) else os.cpu_count() or 1
    own = nullcontext(executor) if executor is not None else ThreadPoolExecutor(threads)
    with own as chosen, reporter(progress, total, "verify") as report:
        # A mapping that is not safe for threads is read by this thread alone.
        in_threads = isinstance(chosen, ThreadPoolExecutor) and adapted.capabilities.thread_safe
        travels = in_threads or (not isinstance(chosen, ThreadPoolExecutor) and adapted.capabilities.process_safe)
        tasks: Iterable[tuple[Any, ...]]
        if travels:
            tasks = ((check_batches, adapted, task, max_chunk_nbytes) for task in work)
        else:
            tasks = ((check_values, _read_here(adapted, task), task, max_chunk_nbytes) for task in work)
        for task, found in zip(work, run_ordered(chosen, tasks), strict=True):
            inspection.problems += found
            decoded += sum(len(batch.keys) for batch in task)
            report(Progress(decoded, total, errors=0))
    if manifest is not None:
        inspection.problems += _manifest_problems(adapted if adapted.capabilities.listable else looked_at, at, manifest)
    order = {key: n for n, key in enumerate(keys)}
    inspection.problems.sort(key=lambda problem: (order.get(problem.key, len(order)), problem.key))
    return replace(inspection.report(), n_decoded=decoded)


@dataclass(frozen=True)
class _Batch:
    layout: v2.ArrayMeta | ShardLayout
    keys: Sequence[str]


def _tasks_of(plans: Iterable[ChunkPlan]) -> Iterator[list[_Batch]]:
    """Yield tasks of up to 64 chunks: of one array, or of several small ones, which are then read together."""
    task: list[_Batch] = []
    count = 0
    for plan in plans:
        for at in range(0, len(plan.keys), _BATCH):
            batch = _Batch(plan.layout, plan.keys[at : at + _BATCH])
            if count + len(batch.keys) > _BATCH:
                yield task
                task, count = [], 0
            task.append(batch)
            count += len(batch.keys)
    if task:
        yield task


def check_batches(store: Store, task: Sequence[_Batch], max_nbytes: int) -> list[Problem]:
    """Read and decode some chunks; runs wherever the executor is."""
    return check_values(_read(store, task), task, max_nbytes)


def check_values(values: Mapping[str, bytes | Exception], task: Sequence[_Batch], max_nbytes: int) -> list[Problem]:
    """Decode some chunks, read already or as they are asked for."""
    return [problem for batch in task for problem in _check_array(values, batch, max_nbytes)]


def _check_array(values: Mapping[str, bytes | Exception], batch: _Batch, max_nbytes: int) -> list[Problem]:
    problems = []
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
        problems += [Problem(key, "undecodable", reason) for reason in _chunk_reasons(data, batch.layout, max_nbytes)]
    return problems


def _chunk_reasons(data: bytes, layout: v2.ArrayMeta | ShardLayout, max_nbytes: int) -> list[str]:
    if isinstance(layout, ShardLayout):
        return shard_problems(data, layout, max_nbytes=max_nbytes, strict=True)
    try:
        decode_chunk(data, layout, max_nbytes=max_nbytes, strict=True)
    except (ValueError, MemoryError) as exc:
        return [str(exc) or "not enough memory"]
    return []


def _read(store: Store, task: Sequence[_Batch]) -> _Values:
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


def _read_here(store: Store, task: Sequence[_Batch]) -> dict[str, bytes | Exception]:
    """Read the chunks of a task in this thread, for a store that no other may touch."""
    values: dict[str, bytes | Exception] = {}
    found = _read(store, task)
    for key in found.keys_:
        try:
            values[key] = found[key]
        except KeyError:
            continue
        except Exception as exc:
            values[key] = exc
    return values


def _list_keys(store: Store, path: str, problems: list[Problem]) -> list[str]:
    """Return all keys below a path, sorted; a directory that cannot be read becomes a problem."""
    try:
        return sorted(store.keys_below(path))
    except OSError:
        pass
    # Directory by directory, to name the one that fails and to see the others.
    keys: list[str] = []
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
                keys.append(key)
            else:
                waiting.append(key)
    return sorted(keys)


def _manifest_problems(
    store: Store, path: str, manifest: str | os.PathLike[str] | Mapping[str, str]
) -> Iterator[Problem]:
    wanted = manifest if isinstance(manifest, Mapping) else read_manifest(manifest)
    found = manifest_of(store, path)
    for name in sorted({*wanted, *found}):
        key = k.join(path, name)
        if name not in found:
            yield Problem(key, "manifest", "it is in the manifest, and not there")
        elif name not in wanted:
            yield Problem(key, "manifest", "it is there, and not in the manifest")
        elif wanted[name] != found[name]:
            yield Problem(key, "manifest", f"its SHA-256 is {found[name]}, and the manifest says {wanted[name]}")
