"""A copy that is planned where it is done: each worker lists, compares and copies a part of the hierarchy by itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.tools.cluster import GO_ON, run_elsewhere
from zarrstore.tools.copying import Copying
from zarrstore.tools.executing import threads_of
from zarrstore.tools.judging import Judge
from zarrstore.tools.listing import Listing
from zarrstore.tools.plan import IfExists, Paths, Plan, Selection, make_plan
from zarrstore.tools.progress import Progress
from zarrstore.tools.traffic import Transfer

__all__ = ["Subtree", "SubtreeOptions", "SubtreeResult", "copy_subtree", "copy_subtrees", "entries_of", "subtrees"]

#: If a directory has more names than this for each task that is wanted, its keys are dealt out one by one.
_MOST_NAMES = 4
#: Largest number of tasks that share the keys of one directory: each of them lists it.
_MOST_PARTS = 256
#: Errors of one task that are reported one by one.
_ERRORS = 1000


class Subtree(NamedTuple):
    """The keys at and below a path; of these, each `n`-th.

    Parameters
    ----------
    path : str
        At the source.
    part, parts : int
        Keys whose CRC-32 leaves `part` when it is divided by `parts`.
    is_alone : bool
        Only the key at the path: what is below it is of other parts. In a flat store a value may stand there.
    """

    path: str
    part: int = 0
    parts: int = 1
    is_alone: bool = False

    def takes(self, key: str) -> bool:
        """Tell whether a key is of this part."""
        if self.is_alone:
            return key == self.path
        return self.parts == 1 or zlib.crc32(key.encode()) % self.parts == self.part


class SubtreeOptions(NamedTuple):
    """How each part is copied: see `copy_store`."""

    paths: Paths
    selection: Selection
    if_exists: IfExists
    verify: bool
    memory: int
    checksum: bool
    plan_only: bool = False


@dataclass
class SubtreeResult:
    """What became of a part: its documents are left to the caller."""

    n_copied: int = 0
    n_skipped: int = 0
    nbytes: int = 0
    n_by_time: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    failed_places: list[str] = field(default_factory=list)
    documents: list[Entry] = field(default_factory=list)


def subtrees(store: Store, path: str, wanted: int) -> Iterator[Subtree]:
    """Yield parts of what is at and below a path, about as many as are wanted or more.

    Notes
    -----
    Cost: one listing of `path`, and of each directory in it if these are fewer than are wanted.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> store = as_store({"a/x/0": b"", "a/y/0": b"", "b": b""})
    >>> [part.path for part in subtrees(store, "", 3)]
    ['a/x', 'a/y', 'b']
    >>> list(subtrees(store, "a/x", 2))
    [Subtree(path='a/x/0', part=0, parts=2, is_alone=False), Subtree(path='a/x/0', part=1, parts=2, is_alone=False)]
    """
    found, whole = [path], set[str]()
    is_flat = not store.capabilities.hierarchical
    while len(found) < wanted and not whole.issuperset(found):
        expanded: list[str] = []
        for at in found:
            names = [] if at in whole else store.listdir(at)
            if 0 < len(names) <= _MOST_NAMES * wanted - len(expanded):
                expanded += [k.join(at, name) for name in names]
                if is_flat and at and store._contains(at):
                    yield Subtree(at, is_alone=True)
            else:
                whole.add(at)
                expanded.append(at)
        found = expanded
    parts = min(_MOST_PARTS, -(-wanted // len(found)))
    for at in found:
        for part in range(parts):
            yield Subtree(at, part, parts)


def copy_subtree(source: Store, dest: Store, subtree: Subtree, options: SubtreeOptions) -> SubtreeResult:
    """Copy the chunks of one part, on a worker; nothing is written with `plan_only`.

    Notes
    -----
    Cost: a listing of the part on both sides; one read and one write for each chunk that is copied.
    """
    paths = Paths(subtree.path, options.paths.to_dest(subtree.path) if subtree.path else options.paths.dest)
    copying = Copying(source, dest, paths, None, options.verify)
    judge = Judge(source, dest, checksum=options.checksum)
    listing = Listing(entry for entry in entries_of(source, subtree) if subtree.takes(entry.key))
    arguments = (listing, source, dest, paths, options.selection, options.if_exists, None, copying.skipped)
    result = SubtreeResult()
    with closing(make_plan(*arguments, memory=options.memory, judge=judge)) as plan:
        if not options.plan_only:
            Transfer(copying, None, options.memory, False, stop_early=True).copy(plan.chunks)
            result.documents = list(plan.documents)
            dest.flush()
    result.n_copied, result.n_skipped, result.nbytes = copying.n_copied, copying.n_skipped, copying.nbytes
    result.n_by_time = judge.n_by_time
    result.errors = dict(list(copying.errors.items())[:_ERRORS])
    result.failed_places = list({k.parent(key): key for key in copying.errors}.values())
    return result


def entries_of(store: Store, part: Subtree) -> Iterator[Entry]:
    """Yield the keys at and below the path of a part, with what a listing tells of each."""
    if not part.is_alone:
        yield from store._details(part.path)
    if part.path and store._contains(part.path):
        yield Entry(part.path)


def copy_subtrees(copying: Copying, executor: Executor, options: SubtreeOptions, transfer: Transfer) -> int:
    """Copy everything, documents last; return how many values were taken for unchanged by time.

    Notes
    -----
    This process sees no chunk; it copies the documents itself.
    """
    source, dest = copying.source, copying.dest
    parts = list(subtrees(source, options.paths.source, 4 * (threads_of(executor) or 16)))

    def run(options: SubtreeOptions) -> Iterator[SubtreeResult]:
        return run_elsewhere(executor, ((copy_subtree, source, dest, part, options) for part in parts), GO_ON)

    if options.if_exists == "raise":
        # All parts are looked at before the first one is written.
        for _ in run(options._replace(plan_only=True)):
            pass
        options = options._replace(if_exists="replace")
    by_time = 0
    with closing(Plan()) as plan:
        for result in run(options):
            copying.n_copied += result.n_copied
            copying.n_skipped += result.n_skipped
            copying.nbytes += result.nbytes
            copying.errors |= result.errors
            for key in result.failed_places:
                copying.holding.failed(key)
            by_time += result.n_by_time
            for entry in result.documents:
                plan.documents.add(entry)
            copying.report(Progress(copying.n_copied, copying.n_copied, copying.nbytes, len(copying.errors)))
        copying.total = copying.n_copied + len(plan)
        copying.run(plan, transfer.copy, False)
    return by_time
