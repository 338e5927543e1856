"""Entries in batches within a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from zarrstore.tools.holding import is_document

__all__ = ["Batches"]

#: Largest number of keys in a batch.
_KEYS = 500


class _Sized(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def nbytes(self) -> int: ...


S = TypeVar("S", bound=_Sized)


class Batches:
    """Cuts entries into batches within a budget of bytes, by the sizes that a listing tells or that were met.

    Parameters
    ----------
    memory : int, bytes
        What all batches under way may hold together.
    share : int, bytes
        What one batch may hold; one larger value makes a batch of its own.
    unknown_is_large : bool
        Whether a batch holds all its values at once, so that values of unknown size need care: the first such batch
        has one key, and each next one at most four times as many. Documents are taken to be small, and tell nothing of
        the chunks that follow them.
    max_keys : int
        Largest number of keys in a batch.

    Examples
    --------
    >>> from zarrstore.base import Entry
    >>> batches = Batches(memory=100, share=50, unknown_is_large=True)
    >>> [len(entries) for entries, _ in batches.cut([Entry("a", 30), Entry("b", 30), Entry("c", 20), Entry("d", 70)])]
    [1, 2, 1]
    """

    def __init__(self, memory: int, share: int, unknown_is_large: bool, max_keys: int = _KEYS) -> None:
        self._max_keys = max_keys
        self.memory = memory
        self.share = share
        self.careful = unknown_is_large
        self.largest = -1
        self._unknown_keys = 1

    def learn(self, largest: int) -> None:
        """Take in the size of the largest chunk of a batch; -1 if it had none, which tells nothing."""
        if largest >= 0:
            self.largest = max(self.largest, largest)
            self._unknown_keys = min(self._max_keys, self._unknown_keys * 4)

    def _is_unknown(self, entry: _Sized) -> bool:
        return self.careful and entry.nbytes < 0 and not is_document(entry.key)

    def _cost(self, entry: _Sized, is_unknown: bool) -> int:
        if not is_unknown:
            return max(0, entry.nbytes)
        return self.largest if self.largest >= 0 else self.memory

    def cut(self, entries: Iterable[S]) -> Iterator[tuple[list[S], int]]:
        """Yield batches, each with the number of bytes that it may hold."""
        batch: list[S] = []
        cost = 0
        for entry in entries:
            is_unknown = self._is_unknown(entry)
            more = self._cost(entry, is_unknown)
            if batch and cost + more > self.share:
                yield batch, cost
                batch, cost = [], 0
                more = self._cost(entry, is_unknown)
            batch.append(entry)
            cost += more
            if len(batch) >= (self._unknown_keys if is_unknown else self._max_keys):
                yield batch, cost
                batch, cost = [], 0
        if batch:
            yield batch, cost
