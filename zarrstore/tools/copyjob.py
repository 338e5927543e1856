"""One call of `copy_store`: what was asked, and the steps to its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.errors import StoreNotFoundError, UnsupportedOperation
from zarrstore.tools.copying import Copying
from zarrstore.tools.globs import Globs
from zarrstore.tools.judging import Judge
from zarrstore.tools.listing import Listing, listing_of, require
from zarrstore.tools.overlapping import SourceName, refuse_file, refuse_merging, refuse_overlap, source_name
from zarrstore.tools.plan import IfExists, Paths, Plan, Selection, make_plan
from zarrstore.tools.progress import Progress, reporter
from zarrstore.tools.streams import Spool

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["CopyJob", "Filters"]


class Filters(NamedTuple):
    """What says which keys are copied, as `copy_store` takes it."""

    excludes: str | Sequence[str] | None = None
    includes: str | Sequence[str] | None = None
    flags: int = 0
    include_globs: Sequence[str] = ()
    exclude_globs: Sequence[str] = ()

    def selection(self, path: str) -> Selection:
        """Return what tells of a source key whether it is copied; `path` is where the copy begins."""
        globs = Globs(self.include_globs, self.exclude_globs) if self.include_globs or self.exclude_globs else None
        return Selection(self.excludes, self.includes, self.flags, globs, path)


@dataclass
class CopyJob:
    """A copy from the first look to the last record; the fields are the parameters of `copy_store`."""

    source: Store
    dest: Store
    paths: Paths
    filters: Filters
    if_exists: IfExists
    dry_run: bool
    verify: bool
    documents_first: bool
    memory: int
    max_questions: int | None
    delete: bool
    checksum: bool
    resume: str | os.PathLike[str] | None
    executor: Executor | None
    workers: int | None
    progress: bool | Callable[[Progress], object] | None
    manifest: str | os.PathLike[str] | Mapping[str, str] | None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; at least one is needed")
        self.selection = self.filters.selection(self.paths.source)
        self.is_key = require(self.source, self.paths.source)
        if self.is_key and not self.paths.dest:
            self.paths = Paths(self.paths.source, k.name(self.paths.source))
        self.copying = Copying(self.source, self.dest, self.paths, verify=self.verify)
        self.source_name = None if self.is_key else self._source_name()

    def run(self, stack: ExitStack, log: Any) -> None:
        """Do it all; what failed stands in `copying`, what a caller should know in `notes`."""
        copying = self.copying
        copying.log = stack.enter_context(_logger(log))
        if self.resume is not None and not self.dry_run:
            from zarrstore.tools.journal import Journal

            refuse_file(self.resume, "journal", self.source, self.paths.source)
            copying.journal = stack.enter_context(Journal(self.resume, self._identity(self.resume)))
        elsewhere = self._checked_workers()
        if elsewhere is not None and self._goes_by_subtrees():
            self._copy_subtrees(stack, elsewhere)
            return
        listing = self._listing()
        judge = Judge(self.source, self.dest, checksum=self.checksum, manifest=self._manifest())
        plan = stack.enter_context(closing(self._plan(listing, judge)))
        self._refuse_overlap(plan)
        self._note(_time_notes(judge.n_by_time))
        if plan.surplus and not plan and not copying.n_skipped:
            raise StoreNotFoundError(
                self.source, "keys to copy: there is none, and delete=True would empty the destination"
            )
        if self.dry_run:
            self._show(plan)
        else:
            self._carry_out(stack, plan, listing, stop_early=elsewhere is not None)

    def close(self) -> None:
        """Remove the journal of a copy that has nothing left to do."""
        copying = self.copying
        if copying.journal is not None and not copying.errors:
            copying.journal.remove()

    # Before anything is written ----------------------------------------------------------------------------------

    def _source_name(self) -> SourceName | None:
        """Return what names a destination key within the source; None if the copy writes nothing that it reads."""
        same_root = self.source._location("") == self.dest._location("")
        if same_root and self.if_exists == "raise" and not self.delete and self.resume is None:
            return None  # all keys are listed before, and none of them is written
        return source_name(self.source, self.dest, self.paths)

    def _refuse_overlap(self, plan: Plan) -> None:
        if self.source_name is None:
            return
        written = (self.paths.to_dest(entry.key) for entry in chain(plan.chunks, plan.documents))
        keys = chain(written, (entry.key for entry in plan.surplus))
        refuse_overlap(keys, self.source_name, self.selection, self.source, self.dest)

    def _identity(self, resume: str | os.PathLike[str]) -> dict[str, Any]:
        """Return what a journal must have been written for, to be continued by this copy."""
        from zarrstore.tools.journal import place_name

        filters = self.filters
        identity = {
            "source": place_name(self.source),
            "destination": place_name(self.dest),
            "source_path": self.paths.source,
            "dest_path": self.paths.dest,
            "excludes": [pattern.pattern for pattern in self.selection.excludes],
            "includes": [pattern.pattern for pattern in self.selection.includes],
            "flags": int(filters.flags),
            "if_exists": self.if_exists,
            "verify": self.verify,
            "documents_first": self.documents_first,
            "delete": self.delete,
        }
        if self.selection.globs is not None:
            identity["globs"] = [list(filters.include_globs), list(filters.exclude_globs)]
        return identity

    def _checked_workers(self) -> Executor | None:
        """Return the executor whose workers are processes elsewhere, None if it has none; they see both stores."""
        executor = self.executor
        if executor is None or self.dry_run:
            return None
        from zarrstore.threads import are_threads
        from zarrstore.tools.traffic import both_travel

        if are_threads(executor):
            return None
        if not both_travel(executor, self.source, self.dest):
            return None
        from zarrstore.tools.cluster import check_workers

        check_workers(executor, self.source, self.paths.source, self.dest, self.paths.dest)
        return executor

    def _listing(self) -> Listing:
        """Return the keys of the source; UnsupportedOperation where the copy needs more than a store can tell."""
        concurrent = self.source.capabilities.concurrent or self.dest.capabilities.concurrent
        # With sizes, the time left goes by bytes.
        details = self.resume is not None or self.if_exists == "differ" or concurrent or bool(self.progress)
        listing = listing_of(self.source, self.paths.source, details=details, max_questions=self.max_questions)
        if self.delete:
            self._check_deletion(listing)
        if self.is_key:
            # A listing names what is below a path; the size of this one value is not known.
            listing = replace(listing, entries=chain([Entry(self.paths.source)], listing.entries))
        self._note(listing.notes)
        if not listing.certain and self.copying.log is not None:
            self.copying.log(f"note: {listing.n_questions:,} chunks are asked for by name")
        return listing

    def _check_deletion(self, listing: Listing) -> None:
        if not (listing.certain and self.dest.capabilities.listable):
            blind = self.dest if listing.certain else self.source
            raise UnsupportedOperation("be listed", blind, "what to delete cannot be known")
        if not (self.dry_run or self.dest.capabilities.erasable):
            raise UnsupportedOperation("delete keys", self.dest, "copy without delete=True")

    def _manifest(self) -> Mapping[str, str] | None:
        if not isinstance(self.manifest, str | os.PathLike):
            return self.manifest
        from zarrstore.tools.manifest import read_manifest

        return read_manifest(self.manifest)

    def _plan(self, listing: Listing, judge: Judge) -> Plan:
        if not self.dest._aliases:
            return self._plan_of(listing, judge)
        with closing(Spool()) as wanted:
            plan = self._plan_of(
                replace(listing, entries=_noting(self.selection.filter(listing.entries), wanted)), judge
            )
            try:
                refuse_merging((self.paths.to_dest(entry.key) for entry in wanted), self.dest)
            except BaseException:
                plan.close()
                raise
        return plan

    def _plan_of(self, listing: Listing, judge: Judge) -> Plan:
        return make_plan(
            listing,
            self.source,
            self.dest,
            self.paths,
            self.selection,
            self.if_exists,
            self.copying.journal,
            self.copying.skipped,
            delete=self.delete,
            memory=self.memory,
            judge=judge,
        )

    def _note(self, notes: Sequence[str]) -> None:
        self.notes += notes
        if self.copying.log is not None:
            for note in notes:
                self.copying.log(f"note: {note}")

    # The work --------------------------------------------------------------------------------------------------

    def _goes_by_subtrees(self) -> bool:
        """Tell whether workers can list and judge parts by themselves: nothing is kept in order, or in one place."""
        if self.resume is not None or self.copying.log is not None or self.manifest is not None:
            return False
        if self.delete or self.is_key or self.documents_first or self.source_name is not None:
            return False
        if self.dest._aliases:  # of two keys that are one value there, no worker would see both
            return False
        return self.source.capabilities.listable and self.dest.capabilities.listable

    def _copy_subtrees(self, stack: ExitStack, executor: Executor) -> None:
        from zarrstore.tools.executing import threads_of
        from zarrstore.tools.subtrees import SubtreeOptions, copy_subtrees
        from zarrstore.tools.traffic import Transfer

        part_memory = max(1, self.memory // (threads_of(executor) or 16))
        options = SubtreeOptions(self.paths, self.selection, self.if_exists, self.verify, part_memory, self.checksum)
        self.copying.report = stack.enter_context(reporter(self.progress, 0))
        transfer = Transfer(self.copying, executor, self.memory, False, stop_early=True)
        self._note(_time_notes(copy_subtrees(self.copying, executor, options, transfer)))

    def _show(self, plan: Plan) -> None:
        """Count and log what would be done."""
        for entry in plan:
            self.copying.planned(entry.key)
        for entry in plan.surplus:
            self.copying.delete_one(entry.key)

    def _carry_out(self, stack: ExitStack, plan: Plan, listing: Listing, *, stop_early: bool) -> None:
        copying = self.copying
        if copying.journal is not None and copying.journal.resumed:
            copying.journal.go_on()
        elif copying.journal is not None:
            copying.journal.begin(entry.key for entry in plan.kept)
        copying.total, copying.total_nbytes = len(plan), plan.nbytes
        copying.report = stack.enter_context(reporter(self.progress, len(plan)))
        if not plan:
            copying.run(plan, None, self.documents_first)
            return
        # Here, as threads below: a copy that has nothing to do starts in half the time without them.
        from zarrstore.tools.traffic import Transfer

        executor = stack.enter_context(self._working())
        transfer = Transfer(copying, executor, self.memory, not listing.certain, stop_early=stop_early)
        copying.run(plan, transfer.copy, self.documents_first)

    @contextmanager
    def _working(self) -> Iterator[Executor | None]:
        """Give where the batches run: the caller's executor, threads of our own, or None for here."""
        from zarrstore.threads import Threads
        from zarrstore.tools.traffic import both_travel

        workers, source, dest = self.workers, self.source, self.dest
        if self.executor is not None:
            yield self.executor if both_travel(self.executor, source, dest) else None
            return
        if workers is None:
            # Where a batch overlaps its waits, a second batch at the same time keeps the other side busy meanwhile.
            workers = 4 if source.capabilities.concurrent or dest.capabilities.concurrent else 1
        if workers == 1:
            yield None
            return
        with Threads(workers, "zarrstore-copy") as pool:
            yield pool if both_travel(pool, source, dest) else None


def _noting(entries: Iterable[Entry], wanted: Spool) -> Iterator[Entry]:
    for entry in entries:
        wanted.add(Entry(entry.key))
        yield entry


def _time_notes(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count:,} chunks were taken for unchanged by size and time; checksum=True looks at all"]


@contextmanager
def _logger(log: Any) -> Iterator[Callable[[str], object] | None]:
    """Give what takes the lines of the log; None if there is none, so that no line is made for it."""
    if log is None or callable(log):
        yield log
    elif hasattr(log, "write"):
        yield lambda line: log.write(line + "\n")
    else:
        with open(os.fspath(log), "w", encoding="utf-8") as file:
            yield lambda line: file.write(line + "\n")
