"""What differs between two stores, by key and by byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY, allowed, check_memory
from zarrstore.base import Entry, Store
from zarrstore.targets import Target, opens
from zarrstore.tools.batches import Batches
from zarrstore.tools.holding import is_document
from zarrstore.tools.listing import MAX_QUESTIONS, listing_of, require, value_or_none
from zarrstore.tools.streams import merge, sort_entries

__all__ = ["Difference", "diff"]

_MARKS = {"left": "<", "right": ">", "different": "!"}


@dataclass(frozen=True)
class Difference:
    """One key that is not the same on both sides.

    Parameters
    ----------
    key : str
        Relative to the two paths; a value that stands at the path itself goes by the name of the left one.
    kind : {'left', 'right', 'different'}
        On one side only, or on both with other bytes.

    Examples
    --------
    >>> str(Difference("a/0", "left"))
    '< a/0'
    """

    key: str
    kind: str

    def __str__(self) -> str:
        return f"{_MARKS[self.kind]} {self.key}"


@opens("iterator", left="r", right="r")
def diff(
    left: Target,
    right: Target,
    left_path: object = "",
    right_path: object = "",
    *,
    max_questions: int | None = MAX_QUESTIONS,
    memory: int = MEMORY,
) -> Iterator[Difference]:
    """Yield every key that is on one side only, or has other bytes on the other, in the order of the keys.

    Parameters
    ----------
    left, right : Mapping of str to bytes
        Any mappings.
    left_path, right_path : str
        What is compared: the keys at and below the one with those at and below the other.
    max_questions : int or None
        See `copy_store`.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.

    Raises
    ------
    KeyError
        Nothing is at a path that is not the root.

    Notes
    -----
    Cost: one listing of each side; values that both hold are read in batches, unless the listings tell that their sizes
    differ. A side that cannot be listed is compared by the grid, see `copy_store`. Memory: `memory` and one value of
    each side, at any number of keys. Nothing is yielded for equal stores. Source: this package.

    Examples
    --------
    >>> [str(found) for found in diff({"a": b"1", "b": b"2"}, {"b": b"3", "c": b"4"})]
    ['< a', '! b', '> c']
    """
    check_memory(memory)
    # Of each key two values are held.
    share = max(1, memory // 2)
    one = _Side(as_store(left), k.normalize_path(left_path), max_questions, share)
    other = _Side(as_store(right), k.normalize_path(right_path), max_questions, share)
    careful = one.store.capabilities.concurrent or other.store.capabilities.concurrent
    batches = Batches(share, share, careful)
    for batch, _ in batches.cut(_compared(one, other)):
        both = [entry.key for entry in batch if not entry.identity]
        mine, yours = one.values(both), other.values(both)
        largest = -1
        for name, _, kind, *_ in batch:
            if not kind:
                value, counterpart = mine(name), yours(name)
                kind = _kind(value, counterpart)
                if not is_document(name):
                    largest = max(largest, len(value or b""), len(counterpart or b""))
                del value, counterpart
            elif kind != "different" and not (one if kind == "left" else other).is_there(name):
                kind = ""
            if kind:
                yield Difference(name or k.name(one.path), kind)
        batches.learn(largest)


def _kind(value: bytes | None, counterpart: bytes | None) -> str:
    if value == counterpart:
        return ""
    if value is None or counterpart is None:
        return "right" if value is None else "left"
    return "different"


def _compared(one: _Side, other: _Side) -> Iterator[Entry]:
    """Yield each name with the larger size and, instead of an identity, the kind of difference if it is known."""
    for mine, yours in merge(one.entries(), other.entries(), _name, _name):
        if mine is None or yours is None:
            name = (mine or yours or Entry("")).key
            yield Entry(name, 0, "left" if yours is None else "right")
        elif -1 not in (mine.nbytes, yours.nbytes) and mine.nbytes != yours.nbytes:
            yield Entry(mine.key, 0, "different")
        else:
            yield Entry(mine.key, max(mine.nbytes, yours.nbytes))


def _name(entry: Entry) -> str:
    return entry.key


class _Side:
    """One of the two stores, with names relative to its path."""

    def __init__(self, store: Store, path: str, max_questions: int | None, share: int) -> None:
        self.store = store
        self.share = share
        self.path = path
        self._at_path = [Entry("")] if require(store, path) else []
        self.listing = listing_of(store, path, details=True, max_questions=max_questions)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries at and below the path, sorted by name."""
        below = (entry._replace(key=k.replace_root(entry.key, self.path, "")) for entry in self.listing.entries)
        return sort_entries(chain(self._at_path, below))

    def values(self, names: Iterable[str]) -> Any:
        """Return a function from name to value, None if it is absent."""
        keys = {name: k.join(self.path, name) for name in names}
        with allowed(self.share):
            found = self.store._get_many(list(keys.values()))
        return lambda name: value_or_none(found, keys[name])

    def is_there(self, name: str) -> bool:
        """Tell whether a name of the listing is there."""
        return self.listing.certain or k.join(self.path, name) in self.store
