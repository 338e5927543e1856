"""The batches of a copy, a bounded number at a time, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from queue import SimpleQueue

from zarrstore.base import Entry, Store
from zarrstore.driver import Pair
from zarrstore.errors import ClusterError
from zarrstore.threads import are_threads
from zarrstore.tools.batches import Batches
from zarrstore.tools.cluster import GO_ON, failure, is_of_cluster
from zarrstore.tools.copying import Copying
from zarrstore.tools.executing import window
from zarrstore.tools.transfer import BatchOptions, BatchResult, copy_batch

__all__ = ["Transfer", "both_travel"]

#: Values that fail, with none that does not, before a copy on workers elsewhere gives up.
_ALL_FAILED = 64


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
