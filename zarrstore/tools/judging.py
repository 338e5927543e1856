"""Whether two values are the same: by what listings tell of them, and only else by their bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from zarrstore.allowance import allowed
from zarrstore.base import Entry, Store
from zarrstore.tools.batches import Batches
from zarrstore.tools.holding import is_document
from zarrstore.tools.overlap import overlaps
from zarrstore.values import md5, sha256

__all__ = ["Candidate", "Judge", "sort_out"]

_DIGESTS: Mapping[str, Callable[[bytes], str]] = {
    "md5": md5,
    "crc32": lambda value: f"{zlib.crc32(value):08x}",
    "sha256": sha256,
}


class Judge:
    """Tells by listings whether two values are the same.

    Parameters
    ----------
    source, dest : Store
        Where the values are.
    checksum : bool
        Whether time proves nothing.
    manifest : mapping of str to str, optional
        The SHA-256 of values at the destination, by key relative to the path that is copied to.

    Attributes
    ----------
    n_by_time : int
        How many were taken for unchanged by size and time alone.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> judge = Judge(as_store({}), as_store({}))
    >>> judge.same(Entry("a", 3), Entry("a", 4)), judge.same(Entry("a", 3), Entry("a", 3))
    (False, None)
    >>> judge.same(Entry("a", 3, "", "crc32:00000007"), Entry("a", 3, "", "crc32:00000007"))
    True
    """

    def __init__(
        self, source: Store, dest: Store, *, checksum: bool = False, manifest: Mapping[str, str] | None = None
    ) -> None:
        # On this machine a look at the bytes costs little and proves more.
        self._trusts_time = not checksum and (_is_remote(source) or _is_remote(dest))
        self._manifest = manifest
        self.n_by_time = 0

    def known(self, entry: Entry, name: str) -> Entry:
        """Return the entry of a value at the destination with the digest that the manifest has for it."""
        digest = None if self._manifest is None else self._manifest.get(name)
        return entry if digest is None else entry._replace(digest=f"sha256:{digest}")

    def same(self, source: Entry, dest: Entry) -> bool | None:
        """Tell whether two values are the same; None if listings do not tell."""
        if -1 not in (source.nbytes, dest.nbytes) and source.nbytes != dest.nbytes:
            return False
        algorithm = source.digest.partition(":")[0]
        if algorithm and algorithm == dest.digest.partition(":")[0]:
            return source.digest == dest.digest
        # Set at the destination after it was last set at the source. A document is small, and hides or shows an array.
        is_later = 0 <= source.modified < dest.modified and source.nbytes == dest.nbytes >= 0
        if self._trusts_time and is_later and not is_document(source.key):
            self.n_by_time += 1
            return True
        return None


def _is_remote(store: Store) -> bool:
    # A batch from files of this machine may overlap its waits too, as obstore's do.
    return overlaps(store) and store._location("")[0] != "files"


class _Question(NamedTuple):
    """Two values that have to be looked at: the digest says which side need not be read."""

    entry: Entry
    dest_key: str
    digest: str = ""
    side: str = ""


class Candidate(NamedTuple):
    """A value of the source, the key that it has at the destination, and what the listing there tells.

    Parameters
    ----------
    entry : Entry
        Of the source.
    dest_key : str
        At the destination.
    name : str
        Relative to the path that is copied.
    found : Entry or None
        At the destination; None if nothing is there.
    """

    entry: Entry
    dest_key: str
    name: str
    found: Entry | None


def sort_out(
    candidates: Iterable[Candidate],
    source: Store,
    dest: Store,
    judge: Judge,
    memory: int,
    differs: Callable[[Entry], object],
    equals: Callable[[str], object],
) -> None:
    """Call `differs` with the entry of each value that has to be copied, and `equals` with the key of each other.

    Notes
    -----
    What listings do not tell is read: on the side that has a digest, nothing.
    """
    questions: dict[str, _Question] = {}

    def unsure() -> Iterator[Entry]:
        for entry, dest_key, name, there in candidates:
            found = None if there is None else judge.known(there, name)
            verdict = False if found is None else judge.same(entry, found)
            if verdict:
                equals(entry.key)
            elif verdict is False or found is None:
                differs(entry)
            else:
                side = "dest" if found.digest else "source" if entry.digest else ""
                questions[entry.key] = _Question(entry, dest_key, found.digest or entry.digest, side)
                yield entry

    careful = source.capabilities.concurrent or dest.capabilities.concurrent
    batches = Batches(memory // 2, memory // 2, careful)
    for batch, _ in batches.cut(unsure()):
        asked = [questions.pop(entry.key) for entry in batch]
        largest = -1
        with allowed(max(1, memory // 2)):
            mine = _values(source, [one.entry.key for one in asked if one.side != "source"])
            theirs = _values(dest, [one.dest_key for one in asked if one.side != "dest"])
        for one in asked:
            is_same, size = _compared(one, mine, theirs)
            if not is_document(one.entry.key):
                largest = max(largest, size)
            if is_same:
                equals(one.entry.key)
            else:
                differs(one.entry)
        batches.learn(largest)


def _values(store: Store, keys: list[str]) -> Mapping[str, bytes]:
    return store._get_many(keys) if keys else {}


def _compared(one: _Question, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[bool, int]:
    """Return whether two values are the same, and the larger size that was read."""
    try:
        value: bytes = b"" if one.side == "source" else mine[one.entry.key]
        other: bytes = b"" if one.side == "dest" else theirs[one.dest_key]
    except Exception:
        return False, 0  # the copy meets the same error, and reports it
    if not one.side:
        return value == other, max(len(value), len(other))
    data = other if one.side == "source" else value
    algorithm, _, digits = one.digest.partition(":")
    return _DIGESTS[algorithm](data) == digits, len(data)
