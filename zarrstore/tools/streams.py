"""Sorted streams of keys in constant memory: what does not fit is kept in a temporary file without a name."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from operator import itemgetter
from typing import IO, Any, Self, TypeVar

from zarrstore.base import Entry

__all__ = ["Spool", "blocks", "merge", "sort_entries"]

#: Entries held in memory: about 30 MiB of keys of 60 characters.
_LIMIT = 100_000
#: Bytes read at a time from each sorted run; 1,000 runs (10**8 keys) then take 64 MiB.
_BLOCK = 1 << 16

L = TypeVar("L")
R = TypeVar("R")


class Spool:
    """Entries in the order in which they were added, read as often as wanted; in a file beyond `limit` of them.

    Parameters
    ----------
    limit : int
        Number of entries that are held in memory.

    Notes
    -----
    Reading begins after the last `add`. One thread. The file has no name, so a killed process leaves nothing.

    Examples
    --------
    >>> with Spool(limit=1) as spool:
    ...     spool.add(Entry("b", 1)), spool.add(Entry("a"))
    ...     len(spool), [entry.key for entry in spool]
    (None, None)
    (2, ['b', 'a'])
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._held: list[Entry] = []
        self._file: IO[bytes] | None = None
        self._count = 0
        self._end = 0

    def add(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._held.append(entry)
        self._count += 1
        if len(self._held) > self._limit:
            if self._file is None:
                import tempfile

                self._file = tempfile.TemporaryFile(prefix="zarrstore-")
            self._end += self._file.write(_packed(self._held))
            self._held.clear()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        if self._file is not None:
            self._file.flush()
            yield from _unpacked(self._file, 0, self._end)
        yield from self._held

    def close(self) -> None:
        """Give up memory and file."""
        self._held = []
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def sort_entries(entries: Iterable[Entry], limit: int = _LIMIT) -> Iterator[Entry]:
    """Yield entries in the order of their keys; of several with one key, the last that came.

    Parameters
    ----------
    entries : iterable of Entry
        In any order. Taken in whole before the first is yielded.
    limit : int
        Number of entries that are held in memory; more are sorted in runs, which are merged from a temporary file.

    Notes
    -----
    Cost: one comparison sort, and one write and read of each entry if there are more than `limit`.

    Examples
    --------
    >>> [tuple(entry) for entry in sort_entries([Entry("b", 1), Entry("a", 1), Entry("b", 2)], limit=1)]
    [('a', 1, '', '', -1.0), ('b', 2, '', '', -1.0)]
    """
    source = iter(entries)
    first = _run(islice(source, limit))
    if len(first) < limit:
        # Distinct keys as a rule, but a listing may meet a key twice while others write.
        yield from _last_of_each(first)
        return
    import tempfile

    with tempfile.TemporaryFile(prefix="zarrstore-") as file:
        spans: list[tuple[int, int]] = []
        run = first
        while run:
            start = file.tell()
            file.write(_packed(run))
            spans.append((start, file.tell()))
            run = _run(islice(source, limit))
        file.flush()
        # heapq.merge keeps the order of the runs among equal keys.
        runs = [_unpacked(file, start, stop) for start, stop in spans]
        yield from _last_of_each(heapq.merge(*runs, key=itemgetter(0)))


def _run(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=itemgetter(0))


def _last_of_each(entries: Iterable[Entry]) -> Iterator[Entry]:
    previous: Entry | None = None
    for entry in entries:
        if previous is not None and previous[0] != entry[0]:
            yield previous
        previous = entry
    if previous is not None:
        yield previous


def merge(
    left: Iterable[L], right: Iterable[R], left_key: Callable[[L], str], right_key: Callable[[R], str]
) -> Iterator[tuple[L | None, R | None]]:
    """Yield what two sorted streams hold, in pairs where the keys are equal, with None where one side has no such key.

    Examples
    --------
    >>> list(merge("ab", "bc", str, str))
    [('a', None), ('b', 'b'), (None, 'c')]
    """
    with closing(_closable(left)) as lefts, closing(_closable(right)) as rights:
        one, other = next(lefts, None), next(rights, None)
        while one is not None or other is not None:
            if other is None or (one is not None and left_key(one) < right_key(other)):
                yield one, None
                one = next(lefts, None)
            elif one is None or right_key(other) < left_key(one):
                yield None, other
                other = next(rights, None)
            else:
                yield one, other
                one, other = next(lefts, None), next(rights, None)


def _closable(items: Iterable[Any]) -> Any:
    """Return a generator over items, which can be closed."""
    yield from items


# A key holds no NUL, so NUL ends each of the five fields of an entry.


def _packed(entries: Iterable[Entry]) -> bytes:
    return "".join(f"{key}\0{size}\0{name}\0{digest}\0{time}\0" for key, size, name, digest, time in entries).encode()


def blocks(file: IO[bytes], start: int, stop: int, nbytes: int) -> Iterator[bytes]:
    """Yield a part of a file in blocks; others may move its position meanwhile."""
    while start < stop:
        file.seek(start)
        block = file.read(min(nbytes, stop - start))
        start += len(block)
        yield block


def _unpacked(file: IO[bytes], start: int, stop: int) -> Iterator[Entry]:
    rest = b""
    for block in blocks(file, start, stop, _BLOCK):
        *fields, rest = (rest + block).split(b"\0")
        whole = len(fields) - len(fields) % 5
        for at in range(0, whole, 5):
            key, size, name, digest, time = fields[at : at + 5]
            yield Entry(str(key, "utf-8"), int(size), str(name, "utf-8"), str(digest, "utf-8"), float(time))
        rest = b"\0".join([*fields[whole:], rest])
