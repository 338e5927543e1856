"""A copy under way: the order of its parts, results counted, the journal kept behind the destination."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

from zarrstore.base import Entry, Store
from zarrstore.errors import UnsupportedOperation
from zarrstore.tools.holding import Holding, is_document
from zarrstore.tools.plan import Paths, Plan, version_of
from zarrstore.tools.progress import Progress
from zarrstore.tools.transfer import BatchResult

if TYPE_CHECKING:
    from zarrstore.tools.journal import Journal

__all__ = ["Copying"]

#: Copies entries, and returns when the last is done.
CopyAll: TypeAlias = Callable[[Iterable[Entry]], object]

#: Keys in one call of a deletion.
_DELETED_AT_ONCE = 1000
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

    def run(self, plan: Plan, copy: CopyAll | None, documents_first: bool) -> None:
        """Copy all, make it durable, and record it; if that is interrupted, what was written until then.

        `copy` copies all entries it is given; None where there is nothing to copy.
        """
        try:
            if copy is None:
                pass
            elif documents_first:
                self._documents_first(plan, copy)
            else:
                self._documents_last(plan, copy)
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

    def _documents_last(self, plan: Plan, copy: CopyAll) -> None:
        """Copy chunks, then documents, the deepest first: no reader sees an array whose chunks are still coming."""
        copy(plan.chunks)
        for _, level in groupby(plan.levels(), itemgetter(0)):
            # All above a level waits for it, so that each document is judged by what became of all below it.
            copy(self._not_held(entry for _, entry in level))

    def _not_held(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if self.errors and self.holding.holds(entry.key):
                self.failed(entry.key, "held back, since not all below it could be copied")
            else:
                yield entry

    def _documents_first(self, plan: Plan, copy: CopyAll) -> None:
        """Copy documents, breadth first, then chunks; documents above a failed key are deleted again."""
        for _, level in groupby(plan.levels(deepest_first=False), itemgetter(0)):
            copy(entry for _, entry in level)
        copy(plan.chunks)
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
