"""All keys of a hierarchy in order, in constant memory but for its documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

from zarrstore import keys as k
from zarrstore.base import Entry
from zarrstore.metadata import documents
from zarrstore.tools.holding import is_document
from zarrstore.tools.streams import Spool, sort_entries

__all__ = ["SortedKeys"]

#: Chunk keys that are kept of each array and spelling, to see how its chunks are named.
_SAMPLE = 4


class SortedKeys:
    """The keys of a hierarchy, sorted; more than 100,000 are kept in a temporary file.

    Parameters
    ----------
    entries : iterable of Entry
        In any order; a key may come twice.

    Attributes
    ----------
    documents : list of str
        Keys of documents, sorted. In memory, as are all that describe nodes.
    nbytes : int, bytes
        Of all values that are no documents; -1 if the size of one is not known.

    Examples
    --------
    >>> with SortedKeys([Entry("a/0", 2), Entry("a/.zarray")]) as keys:
    ...     len(keys), keys.documents, [entry.key for entry in keys], keys.sample("a")
    (2, ['a/.zarray'], ['a/.zarray', 'a/0'], ['a/0'])
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.documents: list[str] = []
        self.nbytes = 0
        self._spool = Spool()
        self._samples: dict[str, tuple[list[str], list[str]]] = {}
        array = ""
        try:
            for entry in sort_entries(entries):
                self._spool.add(entry)
                if is_document(entry.key):
                    self.documents.append(entry.key)
                    if k.name(entry.key) == documents.ZARRAY:
                        # "." sorts before every digit, so the document comes before the chunks.
                        array = k.parent(entry.key)
                        self._samples[array] = ([], [])
                    continue
                self.nbytes = -1 if self.nbytes < 0 or entry.nbytes < 0 else self.nbytes + entry.nbytes
                if self._samples and k.is_below(entry.key, array):
                    sample = self._samples[array][k.parent(entry.key) != array]
                    if len(sample) < _SAMPLE:
                        sample.append(entry.key)
        except BaseException:
            self._spool.close()
            raise

    def __len__(self) -> int:
        return len(self._spool)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._spool)

    def sample(self, array: str) -> list[str]:
        """Return some keys below an array of version 2: of each way to name chunks, the first ones."""
        flat, nested = self._samples.get(array, ([], []))
        return flat + nested

    def among(self, keys: set[str]) -> set[str]:
        """Return those of `keys` that are here. Cost: one pass."""
        return {entry.key for entry in self if entry.key in keys} if keys else set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._spool.close()
