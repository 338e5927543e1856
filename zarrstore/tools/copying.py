"""A copy under way: batches within a budget of bytes, results counted, the journal kept behind the destination."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from queue import SimpleQueue
from typing import TYPE_CHECKING

from zarrstore.base import Entry, Store
from zarrstore.driver import Pair
from zarrstore.errors import ClusterError, UnsupportedOperation
from zarrstore.threads import are_threads
from zarrstore.tools.batches import Batches
from zarrstore.tools.cluster import GO_ON, failure, is_of_cluster
from zarrstore.tools.executing import window
from zarrstore.tools.holding import Holding, is_document
from zarrstore.tools.plan import Paths, Plan, version_of
from zarrstore.tools.progress import Progress
from zarrstore.tools.transfer import BatchOptions, BatchResult, copy_batch

if TYPE_CHECKING:
    from zarrstore.tools.journal import Journal

__all__ = ["Copying", "Transfer", "both_travel"]

#: Keys in one call of a deletion.
_DELETED_AT_ONCE = 1000
#: Values that fail, with none that does not, before a copy on workers elsewhere gives up.
_ALL_FAILED = 64
#: Seconds between two points to which an interrupted copy can go back.
_CHECKPOINT = 1.0


@dataclass
class Copying:
    """The state of one copy: what is done, what failed, and who is informed of it."""

    source: Store
    dest: Store
    paths: Paths
    log: Callable[[str], object] | None = None
    verify: bool = False
    journal: Journal | None = None
    report: Callable[[Progress], object] = lambda progress: None
    total: int = 0
    total_nbytes: int = -1
    n_copied: int = 0
    n_skipped: int = 0
    n_absent: int = 0
    n_deleted: int = 0
    nbytes: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    _unrecorded: list[tuple[str, str]] = field(default_factory=list)
    _recorded_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.holding = Holding(self.source)

    def skipped(self, key: str) -> None:
        """Count a key that is at the destination already."""
        self.n_skipped += 1
        if self.log is not None:
            self._line("skip", key)

    def planned(self, key: str) -> None:
        """Count a key of a dry run."""
        self.n_copied += 1
        if self.log is not None:
            self._line("copy", key)

    def failed(self, key: str, reason: str) -> None:
        """Count a key that was not copied."""
        self.errors[key] = reason
        self.holding.failed(key)
        if self.log is not None:
            self._line("error", key, reason)

    def take(self, result: BatchResult, entries: Iterable[Entry], flushed: bool) -> None:
        """Count a finished batch."""
        for key, reason in result.errors.items():
            self.failed(key, reason)
        self.n_copied += len(result.done)
        self.n_absent += result.n_absent
        self.nbytes += result.nbytes
        if self.log is not None:
            for key in result.done:
                self._line("copy", key)
        if self.journal is not None:
            self._unrecorded += [
                (entry.key, version_of(entry, "" if entry.identity else result.done[entry.key]))
                for entry in entries
                if entry.key in result.done
            ]
            if time.monotonic() - self._recorded_at > _CHECKPOINT:
                self.checkpoint(flushed)
        n_wanted = self.total - self.n_absent
        self.report(Progress(self.n_copied, n_wanted, self.nbytes, len(self.errors), self.total_nbytes))

    def checkpoint(self, flushed: bool = False) -> None:
        """Make durable what was written, then record it: never the other way round."""
        if self.journal is None:
            return
        if not flushed:
            self.dest.flush()
        self.journal.record(self._unrecorded)
        self._unrecorded = []
        self._recorded_at = time.monotonic()

    def _line(self, action: str, key: str, reason: str = "", dest_key: str = "") -> None:
        """Give one event to the log: as text, or with its parts to a log that has a method `event`."""
        assert self.log is not None
        to_dest = dest_key or self.paths.to_dest(key)
        event = getattr(self.log, "event", None)
        if event is not None:
            event(action, key, to_dest, reason)
        elif action in ("error", "delete"):
            self.log(f"error {key}: {reason}" if action == "error" else f"delete {to_dest}")
        else:
            self.log(f"{action} {key}" if key == to_dest else f"{action} {key} -> {to_dest}")

    def run(self, plan: Plan, transfer: Transfer, documents_first: bool) -> None:
        """Copy all, make it durable, and record it; if that is interrupted, what was written until then."""
        try:
            if documents_first:
                self._documents_first(plan, transfer)
            else:
                self._documents_last(plan, transfer)
            self.dest.flush()
            if not self.errors:
                self._delete(plan)
            self.checkpoint(flushed=True)
        except BaseException:
            with suppress(Exception):
                self.checkpoint()
            raise

    def delete_one(self, dest_key: str) -> None:
        """Count a key that only the destination has."""
        self.n_deleted += 1
        if self.log is not None:
            self._line("delete", "", dest_key=dest_key)

    def _delete(self, plan: Plan) -> None:
        """Delete what only the destination has: documents first, so that no reader takes a deleted chunk for a fill."""
        if not plan.surplus:
            return
        for wanted in (True, False):
            keys = (entry.key for entry in plan.surplus if is_document(entry.key) is wanted)
            while part := list(islice(keys, _DELETED_AT_ONCE)):
                self.dest.delitems(part)
                for key in part:
                    self.delete_one(key)
            # The chunks go after it is durable that the documents are gone.
            self.dest.flush()

    # The two orders ------------------------------------------------------------------------------------------------

    def _documents_last(self, plan: Plan, transfer: Transfer) -> None:
        """Copy chunks, then documents, the deepest first: no reader sees an array whose chunks are still coming."""
        transfer.copy(plan.chunks)
        for _, level in groupby(plan.levels(), itemgetter(0)):
            # All above a level waits for it, so that each document is judged by what became of all below it.
            transfer.copy(self._not_held(entry for _, entry in level))

    def _not_held(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if self.errors and self.holding.holds(entry.key):
                self.failed(entry.key, "held back, since not all below it could be copied")
            else:
                yield entry

    def _documents_first(self, plan: Plan, transfer: Transfer) -> None:
        """Copy documents, breadth first, then chunks; documents above a failed key are deleted again."""
        for _, level in groupby(plan.levels(deepest_first=False), itemgetter(0)):
            transfer.copy(entry for _, entry in level)
        transfer.copy(plan.chunks)
        if not self.errors:
            return
        for _, entry in plan.levels():
            if entry.key in self.errors or not self.holding.holds(entry.key):
                continue
            reason = "deleted again, since not all below it could be copied"
            try:
                if not self.dest.capabilities.erasable:
                    raise UnsupportedOperation("delete keys", self.dest)
                self.dest.delitems([self.paths.to_dest(entry.key)])
                self.n_copied -= 1
            except UnsupportedOperation:
                # Icechunk too: it deletes no node below which something is, and whoever commits decides.
                reason = "not all below it could be copied, and the destination cannot delete it again"
            self.failed(entry.key, reason)


class Transfer:
    """Runs the batches of a copy, a bounded number at a time.

    Parameters
    ----------
    copying : Copying
        Takes in the results, in this thread.
    executor : concurrent.futures.Executor or None
        Where batches run; None is this thread.
    memory : int, bytes
        What the values under way may take together; one value more may be held.
    optional : bool
        Whether keys may be absent at the source.
    stop_early : bool
        Whether to raise ClusterError when the first 64 values all fail: what is wrong there is no single key.
    """

    def __init__(
        self, copying: Copying, executor: Executor | None, memory: int, optional: bool, *, stop_early: bool = False
    ) -> None:
        self._copying = copying
        self._stop_early = stop_early
        self._executor = executor
        here = executor is None or are_threads(executor)
        source, dest = copying.source.capabilities, copying.dest.capabilities
        parallel = 1 if executor is None else max(1, window(executor) // 2)
        self._options = BatchOptions(
            nbytes=max(1, memory // parallel),
            verify=copying.verify,
            digests=copying.journal is not None,
            # In another process the destination is another object, and only that object can make its work durable.
            flush=not here and dest.durable_flush,
            optional=optional,
        )
        self._window = 1 if executor is None else window(executor)
        self._memory = memory
        self._batches = Batches(memory, memory // parallel, source.concurrent or dest.concurrent)
        self._running: dict[Future[BatchResult], tuple[list[Entry], int]] = {}
        #: The batches that have ended. No `wait`: an interrupt within that could stop the threads for good.
        self._ended: SimpleQueue[Future[BatchResult]] = SimpleQueue()
        self._under_way = 0

    def copy(self, entries: Iterable[Entry]) -> None:
        """Copy all entries; return when the last is done."""
        try:
            for batch, cost in self._batches.cut(entries):
                while self._running and (len(self._running) >= self._window or self._under_way + cost > self._memory):
                    self._end_one()
                self._begin(batch, cost)
            while self._running:
                self._end_one()
        except BaseException:
            for future in self._running:
                future.cancel()
            wait(self._running)
            raise

    def _begin(self, batch: list[Entry], cost: int) -> None:
        if self._executor is None:
            return self._do_here(batch)
        pairs = self._pairs(batch)
        try:
            copying = self._copying
            options = self._options_of(batch)
            future = self._executor.submit(copy_batch, copying.source, copying.dest, pairs, options)
        except BrokenExecutor:
            return self._do_here(batch)
        self._running[future] = batch, cost
        self._under_way += cost
        future.add_done_callback(self._ended.put)

    def _options_of(self, batch: list[Entry]) -> BatchOptions:
        # What the listing identifies needs no digest for the journal.
        if self._options.digests and all(entry.identity for entry in batch):
            return self._options._replace(digests=False)
        return self._options

    def _pairs(self, batch: list[Entry]) -> list[Pair]:
        to_dest = self._copying.paths.to_dest
        return [Pair(entry.key, to_dest(entry.key), entry.nbytes) for entry in batch]

    def _do_here(self, batch: list[Entry]) -> None:
        options = self._options_of(batch)._replace(flush=False)
        result = copy_batch(self._copying.source, self._copying.dest, self._pairs(batch), options)
        self._take(result, batch, flushed=False)

    def _end_one(self) -> None:
        future = self._ended.get()
        batch, cost = self._running.pop(future)
        self._under_way -= cost
        try:
            result = future.result()
        except BrokenExecutor:
            # Its workers are gone. What they may have written is written again.
            return self._do_here(batch)
        except (Exception, CancelledError) as exc:
            if is_of_cluster(exc):
                raise failure(exc, GO_ON) from exc
            raise
        self._take(result, batch, flushed=self._options.flush)

    def _take(self, result: BatchResult, batch: list[Entry], flushed: bool) -> None:
        self._batches.learn(result.largest)
        self._copying.take(result, batch, flushed)
        errors = self._copying.errors
        if self._stop_early and not self._copying.n_copied and len(errors) >= _ALL_FAILED:
            key, reason = next(iter(errors.items()))
            raise ClusterError(f"the first {len(errors):,} values all failed, as {key!r}: {reason}", GO_ON)


def both_travel(executor: Executor, source: Store, dest: Store) -> bool:
    """Tell whether an executor may work with two stores: threads share them, other executors get copies by pickle.

    Notes
    -----
    A store that is not safe for threads, or that one process at a time may use, is used by the calling thread only; its
    partner then is too. To let one of them travel would send every value through the caller.
    """
    capabilities = source.capabilities, dest.capabilities
    if are_threads(executor):
        return all(flags.thread_safe for flags in capabilities)
    if not all(flags.process_safe for flags in capabilities):
        return False
    import pickle  # most copies need no other process

    try:
        pickle.dumps((source, dest))
    except Exception:
        return False
    return True
