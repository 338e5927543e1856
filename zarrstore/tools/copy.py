"""Everything, or a part, from one mapping to another."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zarrstore import keys as k
from zarrstore.adapt import KVStore, as_store
from zarrstore.base import Store
from zarrstore.errors import DestinationExistsError, InvalidKeyError, ReadOnlyError, ZarrStoreError
from zarrstore.metadata import documents
from zarrstore.tools.executing import window
from zarrstore.tools.journal import Journal
from zarrstore.tools.progress import Progress, reporter
from zarrstore.tools.transfer import Moved, Pair, copy_batch, read_batch, write_batch

__all__ = ["CopyError", "CopyResult", "copy_store"]

#: Keys in a batch; the bytes held at once are bounded by the stores.
_BATCH = 500
#: Seconds between two points to which an interrupted copy can go back.
_CHECKPOINT = 1.0


class _Counts(NamedTuple):
    n_copied: int
    n_skipped: int
    n_bytes_copied: int


class CopyResult(_Counts):
    """What was copied: zarr 2's triple of numbers, with the errors as an attribute.

    Attributes
    ----------
    n_copied, n_skipped : int
        Keys. Those that a journal says were copied before count as skipped.
    n_bytes_copied : int, bytes
        Of the values copied.
    errors : dict of str to str
        Source keys that could not be copied, and why.

    Examples
    --------
    >>> copied, skipped, nbytes = copy_store({"a": b"123"}, {})
    >>> copied, skipped, nbytes
    (1, 0, 3)
    """

    errors: dict[str, str]


class CopyError(ZarrStoreError, RuntimeError):
    """Some keys could not be copied; the others were. Fields: `errors`, by source key, and `result`.

    Examples
    --------
    >>> copy_store({"a": "text is no value", "b": b"1"}, {})
    Traceback (most recent call last):
    zarrstore.tools.copy.CopyError: cannot copy 'a': cannot store a value of type str: it is not bytes-like; ...
    """

    errors: dict[str, str]
    result: CopyResult

    def __init__(self, errors: Mapping[str, str], result: CopyResult) -> None:
        key, why = next(iter(errors.items()))
        more = f", and {len(errors) - 1:,} more keys" if len(errors) > 1 else ""
        super().__init__(
            f"cannot copy {key!r}: {why}{more}; the documents above them were not written, the rest was copied",
            errors=dict(errors),
            result=result,
        )


def copy_store(
    source: Mapping[str, Any],
    dest: MutableMapping[str, Any],
    source_path: object = "",
    dest_path: object = "",
    excludes: str | Sequence[str] | None = None,
    includes: str | Sequence[str] | None = None,
    flags: int = 0,
    if_exists: str = "raise",
    dry_run: bool = False,
    log: Any = None,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    verify: bool = False,
    progress: bool | Callable[[Progress], object] | None = None,
    errors: str = "raise",
    documents_first: bool = False,
) -> CopyResult:
    """Copy values as they are from any mapping to any mapping, documents last.

    Parameters
    ----------
    source, dest : mapping of str to bytes
        Any mappings.
    source_path, dest_path : str
        Copy what is below the one to below the other.
    excludes, includes : str or sequence of str, optional
        Regular expressions searched for in the source key: one that an exclude finds is left out, unless an include
        finds it too.
    flags : int
        For the regular expressions.
    if_exists : {'raise', 'skip', 'replace'}
        What to do with a key that is at the destination already. 'raise' looks before anything is written.
    dry_run : bool, default False
        Plan and report, and write nothing.
    log : callable, path, file or None
        Takes one line a key and a summary.
    executor : concurrent.futures.Executor, optional
        Where the batches run: threads, processes, ``dask.distributed.Client.get_executor()``, ``mpi4py.futures``,
        loky. Stores travel to it by pickle unless it is a ThreadPoolExecutor. A store that only one process may use
        (`Capabilities.process_safe`) stays here, and only the other half of the work travels.
    workers : int, optional
        Number of threads if no executor is given. Not given, as many as the stores profit from: one, where both are
        on this machine.
    resume : path-like, optional
        A journal: what it names, and is at the destination, is not copied again. Created if missing, deleted when all
        is copied. Where it continues an earlier run, `if_exists` 'raise' is taken for 'replace', since what is there
        is that run's.
    verify : bool, default False
        Read every value back and compare.
    progress : callable or True, optional
        Called with a `Progress` as batches end; True draws a bar on a terminal (needs rich).
    errors : {'raise', 'collect'}
        Whether keys that could not be copied raise CopyError at the end, or stand in the result only.
    documents_first : bool, default False
        Copy documents before chunks, breadth first: the order that archives want, for a destination that nobody reads
        before it is whole.

    Returns
    -------
    CopyResult
        ``(n_copied, n_skipped, n_bytes_copied)``.

    Raises
    ------
    DestinationExistsError
        A key exists and `if_exists` is 'raise'. Nothing was written.
    InvalidKeyError
        A name in `source` is no key, as ``../../evil`` in an archive. Nothing was written.
    CopyError
        Some keys failed. The documents of the nodes above them were held back, so that no reader takes a hole for
        fill values.
    OSError
        The destination is full, or cannot be written at all.

    Notes
    -----
    Chunks go first, then documents, the deepest first: a reader never sees an array whose chunks are still coming.
    Memory: what the two stores fetch ahead and gather, about 64 MiB each. Cost: one listing of each side, and per key
    one read and one write, in batches. With `resume`, the journal follows the destination's `flush` by at most a
    second. Source: zarr 2.18 ``copy_store``; deviations: all is planned first, and documents are last.

    Examples
    --------
    >>> source = {"foo/.zarray": b"{}", "foo/0": b"data", "bar/0": b"other"}
    >>> dest = {}
    >>> copy_store(source, dest, source_path="foo", dest_path="copied")[:2]
    (2, 0)
    >>> dest
    {'copied/0': b'data', 'copied/.zarray': b'{}'}
    """
    if if_exists not in ("raise", "skip", "replace"):
        raise ValueError(f"if_exists is {if_exists!r}; it is 'raise', 'skip' or 'replace'")
    if errors not in ("raise", "collect"):
        raise ValueError(f"errors is {errors!r}; it is 'raise' or 'collect'")
    below, above = as_store(source), as_store(dest)
    if not above.capabilities.writable and not dry_run:
        raise ReadOnlyError("a copy", above)
    from_path, to_path = k.normalize_path(source_path), k.normalize_path(dest_path)
    wanted = _chosen(_judged_keys(below, from_path), excludes, includes, flags)
    if to_path == from_path:
        pairs = [(key, key) for key in wanted]
    else:
        pairs = [(key, k.check_key(k.replace_root(key, from_path, to_path))) for key in wanted]
    with ExitStack() as stack:
        say = stack.enter_context(_logger(log))
        job = _Job(say=say, dry_run=dry_run, verify=verify)
        if resume is not None and not dry_run:
            job.journal = stack.enter_context(Journal(resume, {"source_path": from_path, "dest_path": to_path}))
        todo = _todo(pairs, above, to_path, if_exists, job)
        job.report = stack.enter_context(reporter(progress, len(todo)))
        if not dry_run:
            chosen = stack.enter_context(_executor(executor, workers, below, above))
            run = _run_documents_first if documents_first else _run
            run(job, chosen, below, above, todo)
        else:
            for pair in todo:
                job.copied_one(pair)
        result = job.result()
        say(_summary(result, dry_run))
        if job.journal is not None and not result.errors:
            job.journal.remove()
    if result.errors and errors == "raise":
        raise CopyError(result.errors, result)
    return result


# Plan ---------------------------------------------------------------------------------------------------------------


def _judged_keys(source: Store, path: str) -> list[str]:
    """Return the keys below a path; a foreign mapping must not have names among them that no store can hold."""
    if isinstance(source, KVStore):
        for name in source.foreign_names():
            raise InvalidKeyError(name, f"{source} holds it, and no store can; leave it out of the mapping")
    return [k.check_key(key) for key in source.keys_below(path)]


def _chosen(
    keys: Iterable[str], excludes: str | Sequence[str] | None, includes: str | Sequence[str] | None, flags: int
) -> list[str]:
    out = [re.compile(pattern, flags) for pattern in _patterns(excludes)]
    back = [re.compile(pattern, flags) for pattern in _patterns(includes)]
    if not out:
        return sorted(keys)
    return sorted(key for key in keys if not any(p.search(key) for p in out) or any(p.search(key) for p in back))


def _patterns(given: str | Sequence[str] | None) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given or ()


def _todo(pairs: list[Pair], dest: Store, path: str, if_exists: str, job: _Job) -> list[Pair]:
    """Return what is left to do, given what is at the destination and what the journal says."""
    journal = job.journal
    resumed = journal is not None and journal.resumed
    if if_exists == "replace" and not resumed:
        return pairs
    there = _those_there(dest, path, [dest_key for _, dest_key in pairs])
    # A key that was recorded and is not there any more is copied again, whatever became of it.
    done = journal.done & there if journal is not None else set()
    if if_exists == "raise" and not resumed and there:
        key, dest_key = next(pair for pair in pairs if pair[1] in there)
        raise DestinationExistsError(key, dest_key, "pass if_exists='skip' or if_exists='replace'")
    # After an interruption, what is there without a record is the last work of the run before: it is done again.
    skipped = there if if_exists == "skip" else done
    for pair in pairs:
        if pair[1] in skipped:
            job.skipped_one(pair)
    return [pair for pair in pairs if pair[1] not in skipped]


def _those_there(dest: Store, path: str, keys: list[str]) -> set[str]:
    # One listing answers for all of them, and one of an empty place costs next to nothing.
    if dest.capabilities.listable:
        return set(dest.keys_below(path)).intersection(keys)
    return {key for key in keys if key in dest}


# Do -----------------------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """The state of one copy: what is done, and who is told."""

    say: Callable[[str], object]
    dry_run: bool
    verify: bool
    journal: Journal | None = None
    report: Callable[[Progress], object] = lambda progress: None
    total: int = 0
    n_copied: int = 0
    n_skipped: int = 0
    nbytes: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    _unrecorded: list[str] = field(default_factory=list)
    _recorded_at: float = field(default_factory=time.monotonic)

    def skipped_one(self, pair: Pair) -> None:
        self.say(f"skip {_described(pair)}")
        self.n_skipped += 1

    def copied_one(self, pair: Pair) -> None:
        if self.say is not _silent:
            self.say(f"copy {_described(pair)}")
        self.n_copied += 1

    def take(self, moved: Moved, pairs: Sequence[Pair], dest: Store, flushed: bool) -> None:
        """Count a finished batch."""
        if self.say is _silent:
            self.n_copied += len(moved.done)
        else:
            done = set(moved.done)
            for pair in pairs:
                if pair[1] in done:
                    self.copied_one(pair)
        for key, why in moved.errors.items():
            self.say(f"error {key}: {why}")
        self.errors.update(moved.errors)
        self.nbytes += moved.nbytes
        if self.journal is not None:
            self._unrecorded += moved.done
            self.checkpoint(dest, flushed)
        self.report(Progress(self.n_copied, self.total, self.nbytes, len(self.errors)))

    def checkpoint(self, dest: Store, flushed: bool, now: bool = False) -> None:
        """Make durable what was written, then record it: never the other way round."""
        if self.journal is None or not (now or time.monotonic() - self._recorded_at > _CHECKPOINT):
            return
        if not flushed:
            dest.flush()
        self.journal.record(self._unrecorded)
        self._unrecorded = []
        self._recorded_at = time.monotonic()

    def result(self) -> CopyResult:
        result = CopyResult(self.n_copied, self.n_skipped, self.nbytes)
        result.errors = self.errors
        return result


def _described(pair: Pair) -> str:
    return pair[0] if pair[0] == pair[1] else f"{pair[0]} -> {pair[1]}"


def _run(job: _Job, executor: Executor | None, source: Store, dest: Store, pairs: list[Pair]) -> None:
    """Copy chunks, then documents, so that a reader never sees an array whose chunks are still coming."""
    job.total = len(pairs)
    chunks = [pair for pair in pairs if k.name(pair[0]) not in documents.DOCUMENTS]
    _transfer(job, executor, source, dest, _batches(chunks))
    # Level by level from the deepest, the consolidated document of each last.
    levels: dict[tuple[int, bool], list[Pair]] = {}
    held_back = _held_back(job.errors, {key for key, _ in pairs})
    for pair in pairs:
        if k.name(pair[0]) not in documents.DOCUMENTS:
            continue
        if pair[0] in held_back:
            job.errors[pair[0]] = "held back, since not all below it could be copied"
            continue
        level = (-len(k.segments(pair[1])), k.name(pair[0]) == documents.ZMETADATA)
        levels.setdefault(level, []).append(pair)
    for level in sorted(levels):
        _transfer(job, executor, source, dest, _batches(levels[level]))
    dest.flush()
    job.checkpoint(dest, flushed=True, now=True)


def _run_documents_first(job: _Job, executor: Executor | None, source: Store, dest: Store, pairs: list[Pair]) -> None:
    job.total = len(pairs)
    told = [pair for pair in pairs if k.name(pair[0]) in documents.DOCUMENTS]
    told.sort(key=lambda pair: (len(k.segments(pair[1])), pair[1]))
    rest = [pair for pair in pairs if k.name(pair[0]) not in documents.DOCUMENTS]
    _transfer(job, executor, source, dest, _batches(told + rest))
    dest.flush()
    job.checkpoint(dest, flushed=True, now=True)


def _held_back(failed: Iterable[str], keys: set[str]) -> set[str]:
    """Return the documents by which a reader would find the holes: of their arrays, and consolidated ones."""
    held: set[str] = set()
    for key in failed:
        above = list(k.parents(key))
        held.update(k.join(path, documents.ZMETADATA) for path in above)
        for path in reversed(above):
            marks = {k.join(path, documents.ZARRAY), k.join(path, documents.ZARR_JSON)} & keys
            if marks:
                held |= marks
                break
    return held & keys


def _batches(pairs: list[Pair]) -> Iterator[list[Pair]]:
    return (pairs[at : at + _BATCH] for at in range(0, len(pairs), _BATCH))


def _transfer(job: _Job, executor: Executor | None, source: Store, dest: Store, batches: Iterator[list[Pair]]) -> None:
    """Run batches in the executor, a bounded number at a time, and count them as they end."""
    if executor is None:
        for pairs in batches:
            job.take(copy_batch(source, dest, pairs, job.verify, flush=False), pairs, dest, flushed=False)
        return
    here = isinstance(executor, ThreadPoolExecutor)
    source_travels = here or source.capabilities.process_safe
    dest_travels = here or dest.capabilities.process_safe
    if not source_travels and not dest_travels:
        return _transfer(job, None, source, dest, batches)
    # Elsewhere the destination is another object, whose flush must come before its batch counts as done.
    flush = not here and dest.capabilities.durable_flush
    most = window(executor)
    running: dict[Future[Any], list[Pair]] = {}

    def begin(pairs: list[Pair]) -> None:
        future: Future[Any]
        if source_travels and dest_travels:
            future = executor.submit(copy_batch, source, dest, pairs, job.verify, flush)
        elif source_travels:
            future = executor.submit(read_batch, source, pairs)
        else:
            values, errors = read_batch(source, pairs)
            job.errors.update(errors)
            future = executor.submit(write_batch, dest, values, job.verify, flush)
        running[future] = pairs

    def end(future: Future[Any]) -> None:
        pairs = running.pop(future)
        try:
            moved = future.result()
        except BrokenExecutor:
            # Its workers are gone; a batch may be copied twice without harm.
            moved = copy_batch(source, dest, pairs, job.verify, flush=False)
            job.take(moved, pairs, dest, flushed=False)
            return
        if not isinstance(moved, Moved):
            values, errors = moved
            moved = write_batch(dest, values, job.verify, flush=False)
            moved.errors.update(errors)
        job.take(moved, pairs, dest, flushed=flush)

    try:
        for pairs in batches:
            try:
                begin(pairs)
            except BrokenExecutor:
                moved = copy_batch(source, dest, pairs, job.verify, flush=False)
                job.take(moved, pairs, dest, flushed=False)
            while len(running) >= most:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    end(future)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                end(future)
    except BaseException:
        for future in running:
            future.cancel()
        wait(running)
        raise


def _executor(executor: Executor | None, workers: int | None, source: Store, dest: Store) -> Any:
    if executor is not None:
        return nullcontext(executor)
    if workers is None:
        workers = _useful_workers(source, dest)
    elif workers < 1:
        raise ValueError(f"workers is {workers}; at least one is needed")
    if workers == 1 or not (source.capabilities.thread_safe and dest.capabilities.thread_safe):
        return nullcontext(None)
    return ThreadPoolExecutor(workers, thread_name_prefix="zarrstore-copy")


def _useful_workers(source: Store, dest: Store) -> int:
    # Where a batch overlaps its waits, a second batch at the same time keeps the other side busy meanwhile.
    return 4 if source.capabilities.concurrent or dest.capabilities.concurrent else 1


# Tell ---------------------------------------------------------------------------------------------------------------


def _silent(line: str) -> None:
    """Said to nobody; looked for, so that no line is made for it."""


def _logger(log: Any) -> Any:
    """Return a context manager that gives ``say(line)``."""
    if log is None:
        return nullcontext(_silent)
    if callable(log):
        return nullcontext(log)
    if hasattr(log, "write"):
        return nullcontext(lambda line: log.write(line + "\n"))
    return _LogFile(log)


class _LogFile:
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def __enter__(self) -> Callable[[str], object]:
        self.file = open(self.path, "w", encoding="utf-8")
        return lambda line: self.file.write(line + "\n")

    def __exit__(self, *exc: object) -> None:
        self.file.close()


def _summary(result: CopyResult, dry_run: bool) -> str:
    verb = "dry run" if dry_run else "all done"
    parts = [f"{result.n_copied:,} copied", f"{result.n_skipped:,} skipped", f"{result.n_bytes_copied:,} bytes copied"]
    if result.errors:
        parts.append(f"{len(result.errors):,} errors")
    return f"{verb}: {', '.join(parts)}"
