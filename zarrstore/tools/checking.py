"""What is wrong with a hierarchy, or with a part of one, as far as one process looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.tools.decoding import Decoding
from zarrstore.tools.findings import Counts, Problem, VerifyReport
from zarrstore.tools.inspection import Inspection
from zarrstore.tools.listed import ListedStore
from zarrstore.tools.listing import listing_of, present
from zarrstore.tools.nearby import absent
from zarrstore.tools.overlap import overlaps
from zarrstore.tools.progress import Progress, reporter
from zarrstore.tools.sortedkeys import SortedKeys
from zarrstore.tools.subtrees import Subtree

__all__ = ["CheckOptions", "Findings", "check_here", "entries_below", "oddities", "sorted_out"]


class CheckOptions(NamedTuple):
    """What is looked at, and how: see `verify`."""

    decode: bool
    missing: str
    max_chunk_nbytes: int
    memory: int


@dataclass
class Findings:
    """Problems and numbers of a hierarchy, or of a part.

    Parameters
    ----------
    listed, unlisted : list of Problem
        At keys that a listing names, and at others: these come last in a report.
    documents : list of str
        Of a part, keys of documents that lie below its node.
    """

    listed: list[Problem] = field(default_factory=list)
    unlisted: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    documents: list[str] = field(default_factory=list)

    def add(self, problem: Problem, *, is_listed: bool) -> None:
        """Take in one problem."""
        (self.listed if is_listed else self.unlisted).append(problem)

    def merge(self, other: Findings) -> None:
        """Take in what was found of another part."""
        self.listed += other.listed
        self.unlisted += other.unlisted
        self.notes += other.notes
        self.counts += other.counts
        self.documents += other.documents

    def report(self) -> VerifyReport:
        """Return all, in the order of the keys."""
        problems = [*sorted(self.listed, key=_key), *sorted(self.unlisted, key=_key)]
        return VerifyReport(tuple(problems), **asdict(self.counts), notes=tuple(self.notes))


def _key(problem: Problem) -> str:
    return problem.key


def oddities(store: Store, path: str) -> list[Problem]:
    """Return what no listing of a store shows (links, pipes), and where its file departs from its format."""
    found = [Problem(key, "irregular", reason) for key, reason in store._irregular(path)]
    return found + [Problem(key, "departure", reason) for key, reason in store._departures(path)]


def check_here(
    store: Store,
    path: str,
    options: CheckOptions,
    executor: Executor | None,
    *,
    part: Subtree | None = None,
    max_questions: int | None = None,
    progress: bool | Callable[[Progress], object] | None = None,
) -> Findings:
    """Look at every key at and below a path; the executor only decodes.

    Of a `part`, its chunks are decoded; what names and documents show is reported by the first part only.

    Raises
    ------
    KeyError
        Nothing is there.
    """
    unread: list[Problem] = []
    entries, notes = _listed(store, path, max_questions, unread)
    with SortedKeys(entries) as keys:
        if not len(keys) and not unread:
            raise absent(store, path)
        looked_at = store if unread else _without_known_questions(store, keys)
        inspection = Inspection(looked_at, path, keys, options.missing, problems=unread, notes=notes)
        if part is None:
            inspection.problems += oddities(store, path)
        inspection.check_documents()
        total = len(keys) - len(keys.documents) if options.decode else 0
        decoding = Decoding(store, executor, options.memory, options.max_chunk_nbytes)
        chunks = (chunk for chunk in inspection.chunks() if part is None or part.takes(chunk.key))
        undecoded: list[Problem] = []
        with reporter(progress, total, "verify") as report:
            for found, decoded in decoding.run(chunks, options.decode):
                undecoded += found
                report(Progress(decoded, total, decoding.nbytes, total_nbytes=keys.nbytes if part is None else -1))
        if part is not None and part.part:
            return Findings(undecoded, counts=Counts(n_decoded=decoding.n_decoded))
        inspection.problems += undecoded
        inspection.counts.n_decoded = decoding.n_decoded
        inspection.finish()
        findings = sorted_out(inspection)
        if part is not None:
            findings.documents = [key for key in keys.documents if k.parent(key) != path]
        return findings


def _listed(
    store: Store, path: str, max_questions: int | None, unread: list[Problem]
) -> tuple[Iterable[Entry], list[str]]:
    """Return the keys below a path, and what is to be known of the listing."""
    if store.capabilities.listable:
        return entries_below(store, path, unread), []
    listing = listing_of(store, path, max_questions=max_questions)
    return present(store, listing), list(listing.notes)


def _without_known_questions(store: Store, keys: SortedKeys) -> Store:
    """Return the store; if asking it takes long, one that knows already which keys are there."""
    if store.capabilities.listable and not overlaps(store):
        return store
    return ListedStore(store, keys.documents)


def sorted_out(inspection: Inspection) -> Findings:
    """Return what an inspection found."""
    findings = Findings(notes=inspection.notes, counts=inspection.counts)
    there = inspection.keys.among({problem.key for problem in inspection.problems})
    for problem in inspection.problems:
        findings.add(problem, is_listed=problem.key in there)
    return findings


def entries_below(store: Store, path: str, problems: list[Problem]) -> Iterator[Entry]:
    """Yield all keys below a path, perhaps twice; a directory that cannot be read becomes a problem."""
    try:
        # A listing over a network tells sizes at no cost; on a disk, each size would be a system call of its own.
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
