"""What a copy has to do, decided before anything is written: merges of sorted streams, in constant memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from zarrstore import keys as k
from zarrstore.allowance import MEMORY
from zarrstore.base import Entry, Store
from zarrstore.errors import DestinationExistsError, UnsupportedOperation
from zarrstore.tools.globs import Globs
from zarrstore.tools.holding import document_order, is_document
from zarrstore.tools.judging import Candidate, Judge, sort_out
from zarrstore.tools.listing import Listing
from zarrstore.tools.overlap import found_among
from zarrstore.tools.streams import Spool, merge, sort_entries
from zarrstore.values import sha256

if TYPE_CHECKING:
    from zarrstore.tools.journal import Journal

__all__ = ["Paths", "Plan", "Selection", "make_plan", "version_of"]

#: Keys that the destination is asked for together, where its listing does not tell.
_ASKED_TOGETHER = 1024
#: Values that are read at a time to find out whether they are still those of the journal.
_BATCH = 500


@dataclass(frozen=True)
class Paths:
    """Where a copy takes its keys from, and where it takes them to.

    Examples
    --------
    >>> Paths("foo", "a/b").to_dest("foo/0.0"), Paths("foo", "a/b").to_source("a/b/0.0")
    ('a/b/0.0', 'foo/0.0')
    """

    source: str
    dest: str

    def to_dest(self, key: str) -> str:
        """Return the destination key of a source key; InvalidKeyError if it is none."""
        if self.source == self.dest:
            return key
        if key == self.source:
            return self.dest
        return k.check_key(k.replace_root(key, self.source, self.dest))

    def relative(self, key: str) -> str:
        """Return the name of a source key relative to the path that is copied."""
        return key if not self.source or key == self.source else k.replace_root(key, self.source, "")

    def to_source(self, key: str) -> str:
        """Return the source key of a destination key."""
        return key if self.source == self.dest else k.replace_root(key, self.dest, self.source)


class Selection:
    """Which keys are copied: those in which no exclude is found, or in which an include is found too; of these, those
    that the globs take.

    Examples
    --------
    >>> selection = Selection(excludes="^a/", includes=["zarray$"])
    >>> [selection.takes(key) for key in ("a/0", "a/.zarray", "b/0")]
    [False, True, True]
    """

    def __init__(
        self,
        excludes: str | Sequence[str] | None = None,
        includes: str | Sequence[str] | None = None,
        flags: int = 0,
        globs: Globs | None = None,
        path: str = "",
    ) -> None:
        self.excludes = [re.compile(pattern, flags) for pattern in _patterns(excludes)]
        self.includes = [re.compile(pattern, flags) for pattern in _patterns(includes)]
        self.globs = globs
        self._lead = len(k.prefix(path))

    def takes(self, key: str) -> bool:
        """Tell whether a key is copied."""
        if self.globs is not None and not self.globs.take(key[self._lead :]):
            return False
        if not any(pattern.search(key) for pattern in self.excludes):
            return True
        return any(pattern.search(key) for pattern in self.includes)

    def filter(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        """Return the entries that are copied."""
        if not self.excludes and self.globs is None:
            return entries
        return filter(lambda entry: self.takes(entry.key), entries)


def _patterns(given: str | Sequence[str] | None) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given or ()


#: What to do with a key that is at the destination already.
IfExists: TypeAlias = Literal["raise", "skip", "replace", "differ"]


@dataclass
class Plan:
    """What is to be copied.

    Parameters
    ----------
    chunks, documents : Spool
        Source keys, the documents by `document_order`.
    kept : Spool
        Source keys whose values at the destination stay as they are.
    surplus : Spool
        Destination keys that the source does not have.
    """

    chunks: Spool = field(default_factory=Spool)
    documents: Spool = field(default_factory=Spool)
    kept: Spool = field(default_factory=Spool)
    surplus: Spool = field(default_factory=Spool)
    #: Of all values to be copied; -1 if a listing leaves out a size.
    nbytes: int = 0

    def __len__(self) -> int:
        return len(self.chunks) + len(self.documents)

    def add(self, entry: Entry) -> None:
        """Add what is to be copied."""
        (self.documents if is_document(entry.key) else self.chunks).add(entry)
        self.nbytes = -1 if self.nbytes < 0 or entry.nbytes < 0 else self.nbytes + entry.nbytes

    def __iter__(self) -> Iterator[Entry]:
        yield from self.chunks
        for _, entry in self.levels():
            yield entry

    def levels(self, deepest_first: bool = True) -> Iterator[tuple[str, Entry]]:
        """Yield the documents, each with its level; the levels in the order in which they are copied."""
        size = len(document_order(""))
        if not deepest_first:
            shallow = (entry._replace(key=f"{len(k.segments(entry.key)):05d}{entry.key}") for entry in self.documents)
            yield from ((entry.key[:5], entry._replace(key=entry.key[5:])) for entry in sort_entries(shallow))
            return
        ordered = (entry._replace(key=document_order(entry.key) + entry.key) for entry in self.documents)
        for entry in sort_entries(ordered):
            yield entry.key[:size], entry._replace(key=entry.key[size:])

    def close(self) -> None:
        """Give up temporary files."""
        for spool in (self.chunks, self.documents, self.kept, self.surplus):
            spool.close()


class _State(NamedTuple):
    """A source key and what is known of it: whether it is at the destination, and what a journal says."""

    entry: Entry
    is_there: bool = False
    found: Entry | None = None  # what the listing of the destination tells
    done: str = ""
    kept: bool = False


def make_plan(
    listing: Listing,
    source: Store,
    dest: Store,
    paths: Paths,
    selection: Selection,
    if_exists: IfExists,
    journal: Journal | None,
    skipped: Callable[[str], object],
    *,
    delete: bool = False,
    memory: int = MEMORY,
    judge: Judge | None = None,
) -> Plan:
    """Decide what to copy.

    Parameters
    ----------
    skipped : callable
        Called with each source key that is not copied because it is at the destination.
    delete : bool
        Whether to plan what is at the destination and not at the source: keys that the selection leaves out stay.
    memory : int, bytes
        What the values that are compared may take together.
    judge : Judge, optional
        With `if_exists` 'differ', tells what listings prove.

    Raises
    ------
    DestinationExistsError
        A key exists and `if_exists` is 'raise', and it is not the work of a copy that is continued.
    InvalidKeyError
        A name in the source is no key.
    UnsupportedOperation
        `delete` is True, and the destination lists a value of the source under another name.
    """
    plan = Plan()
    resumed = journal is not None and journal.resumed
    wanted = sort_entries(selection.filter(listing.entries))
    states: Iterator[_State] = map(_State, wanted)
    if if_exists != "replace" or resumed or delete:
        surplus = plan.surplus if delete else None
        states = _at_destination(states, dest, paths, selection, surplus, if_exists == "differ")
    if journal is not None and resumed:
        states = _with_journal(states, journal)
        _plan_the_rest(plan, states, source, skipped)
        return plan
    if if_exists == "differ":
        candidates = (_candidate(state, paths) for state in states)
        sort_out(candidates, source, dest, judge or Judge(source, dest), memory, plan.add, skipped)
        return plan
    for state in states:
        if not state.is_there or if_exists == "replace":
            plan.add(state.entry)
            continue
        if not listing.certain and state.entry.key not in source:
            continue
        if if_exists == "raise":
            key = state.entry.key
            plan.close()
            raise DestinationExistsError(key, paths.to_dest(key), "pass if_exists='skip' or if_exists='replace'")
        skipped(state.entry.key)
        if journal is not None:
            plan.kept.add(state.entry)
    return plan


def _at_destination(
    states: Iterator[_State], dest: Store, paths: Paths, selection: Selection, surplus: Spool | None, details: bool
) -> Iterator[_State]:
    """Add whether each key is at the destination, and note what else is there. One listing answers for all of them."""
    if not dest.capabilities.listable:
        yield from _asked_for(states, dest, paths)
        return
    pairs, has_aliases = _paired(states, dest, paths, details)
    while part := list(islice(pairs, _ASKED_TOGETHER)):
        asked = [state.entry.key for state, found in part if has_aliases and state is not None and found is None]
        known = _aliases_among(dest, [paths.to_dest(key) for key in asked], delete=surplus is not None)
        for state, found in part:
            if state is not None:
                yield _found_there(state, found, paths, known)
            elif found is not None and surplus is not None and selection.takes(found.key):
                surplus.add(Entry(paths.to_dest(found.key)))


def _asked_for(states: Iterator[_State], dest: Store, paths: Paths) -> Iterator[_State]:
    """Add whether each key is at a destination that cannot be listed: many questions at once."""
    while batch := list(islice(states, _ASKED_TOGETHER)):
        known = found_among(dest, [paths.to_dest(state.entry.key) for state in batch])
        yield from (state._replace(is_there=paths.to_dest(state.entry.key) in known) for state in batch)


def _paired(
    states: Iterator[_State], dest: Store, paths: Paths, details: bool
) -> tuple[Iterator[tuple[_State | None, Entry | None]], bool]:
    """Return the keys beside what the listing of the destination has there, and whether it may have other names."""
    entries = _entries_at(dest, paths, details)
    if paths.source != paths.dest:
        entries = (entry._replace(key=paths.to_source(entry.key)) for entry in entries)
    there = sort_entries(entries)
    first = next(there, None)
    pairs = merge(states, there if first is None else chain([first], there), _key, lambda entry: entry.key)
    # Most stores list every key under its own name; and where nothing is, nothing has another name.
    return pairs, dest._aliases and not (first is None and not paths.dest)


def _found_there(state: _State, found: Entry | None, paths: Paths, known: set[str]) -> _State:
    if found is not None:
        # Not `_replace`, which takes three times as long; what a journal says is added later.
        return _State(state.entry, True, found)
    if known and paths.to_dest(state.entry.key) in known:
        return state._replace(is_there=True)
    return state


def _aliases_among(dest: Store, keys: list[str], delete: bool) -> set[str]:
    """Return the keys that are there and that no listing shows; raise if their values would be deleted."""
    found = found_among(dest, keys) if keys else set()
    if found and delete:
        raise UnsupportedOperation(
            "delete what the source does not have",
            dest,
            f"it lists {min(found)!r} in another spelling; copy without delete",
        )
    return found


def _entries_at(dest: Store, paths: Paths, details: bool) -> Iterator[Entry]:
    yield from dest._details(paths.dest) if details else map(Entry, dest.keys_below(paths.dest))
    if paths.dest and paths.dest in dest:
        yield Entry(paths.dest)


def _candidate(state: _State, paths: Paths) -> Candidate:
    dest_key = paths.to_dest(state.entry.key)
    found = (state.found or Entry(dest_key)) if state.is_there else None
    return Candidate(state.entry, dest_key, paths.relative(state.entry.key), found)


def _key(state: _State) -> str:
    return state.entry.key


def _with_journal(states: Iterator[_State], journal: Journal) -> Iterator[_State]:
    with_done = (
        state._replace(done=done[1] if done is not None else "")
        for state, done in merge(states, journal.done(), _key, lambda done: done[0])
        if state is not None
    )
    merged = merge(with_done, journal.kept(), _key, str)
    return (state._replace(kept=kept is not None) for state, kept in merged if state is not None)


def _plan_the_rest(plan: Plan, states: Iterator[_State], source: Store, skipped: Callable[[str], object]) -> None:
    """Plan what an interrupted copy left to do.

    A key at the destination without a record is the last work of that copy: it is copied again. So is a recorded key
    that is not at the destination any more, and one whose value at the source is another by now.
    """
    unsure: list[_State] = []
    for state in states:
        if state.is_there and state.kept:
            skipped(state.entry.key)
        elif not state.is_there or not state.done:
            plan.add(state.entry)
        elif state.done.startswith("sha256 "):
            unsure.append(state)
            if len(unsure) == _BATCH:
                _compare(plan, unsure, source, skipped)
        elif state.done == version_of(state.entry):
            skipped(state.entry.key)
        else:
            plan.add(state.entry)
    _compare(plan, unsure, source, skipped)


def _compare(plan: Plan, states: list[_State], source: Store, skipped: Callable[[str], object]) -> None:
    """Read the values of which the listing tells no identity, and plan those that changed."""
    values = source._get_many([state.entry.key for state in states])
    for state in states:
        try:
            same = state.done == version_of(state.entry, sha256(values[state.entry.key]))
        except Exception:
            same = False  # the copy meets the same error, and reports it
        if same:
            skipped(state.entry.key)
        else:
            plan.add(state.entry)
    states.clear()


def version_of(entry: Entry, digest: str = "") -> str:
    """Return what a journal records of a value: its SHA-256 if there is one, else what the listing tells.

    Examples
    --------
    >>> version_of(Entry("a", 3, "etag")), version_of(Entry("a", 3), "e3b0")
    ('listed etag', 'sha256 e3b0')
    """
    return f"sha256 {digest}" if digest else f"listed {entry.identity}"
