"""Many values at once, without holding many values at once.

What `getitems` returns is a mapping that reads when it is asked. A reader of whole arrays looks a chunk up, decodes
it and lets it go; when every value is read before the first is used, each lands in fresh memory, and for chunks of 1
MB the page faults cost more than the reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["AheadItems", "LazyItems", "MappedItems", "batches"]

#: What a batch that fetches ahead may hold, in bytes, once the size of the values is known.
BUDGET = 64 << 20
#: Keys in the first batch, before any size is known.
FIRST_BATCH = 128


class _Items(Mapping[str, bytes]):
    """Values by key; one found by ``in`` or by iteration is held, within the budget, for the look-up that follows."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._names = dict.fromkeys(keys)
        self._peeked: dict[str, bytes] = {}
        self._peeked_nbytes = 0

    def _read(self, key: str) -> bytes:
        raise NotImplementedError

    def __getitem__(self, key: str) -> bytes:
        if self._peeked:
            value = self._peeked.pop(key, None)
            if value is not None:
                self._peeked_nbytes -= len(value)
                return value
        if key not in self._names:
            raise KeyError(key)
        return self._read(key)

    def __contains__(self, key: object) -> bool:
        if key in self._peeked:
            return True
        try:
            value = self[key]  # type: ignore[index]
        except KeyError:
            return False
        if self._peeked_nbytes + len(value) <= BUDGET:
            self._peeked[key] = value  # type: ignore[index]
            self._peeked_nbytes += len(value)
        return True

    def __iter__(self) -> Iterator[str]:
        # dict(items) lists all keys before it looks the first one up.
        return (key for key in self._names if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._names)} keys>"


class LazyItems(_Items):
    """The values of `keys`, each read when it is asked for and not kept; absent ones are simply not there.

    Parameters
    ----------
    read : callable
        ``read(key) -> bytes``; raises KeyError for absence.
    keys : sequence of str
        What may be asked for.

    Notes
    -----
    One read per look-up (an ``in`` followed by ``[]`` is one). `len` and iteration read every value.
    """

    def __init__(self, read: Callable[[str], bytes], keys: Sequence[str]) -> None:
        super().__init__(keys)
        self._read = read  # type: ignore[method-assign,assignment]


class AheadItems(_Items):
    """The values of `keys`, fetched in batches ahead of the reader, within a budget of bytes.

    Parameters
    ----------
    fetch : callable
        ``fetch(keys) -> Mapping`` of those found, at once.
    keys : sequence of str
        What may be asked for, in the order in which it probably will be.
    budget : int, bytes
        What may be held unread. The first batch, of at most `first` keys, tells how large values are.

    Notes
    -----
    A value is handed out once and then forgotten; asking again fetches again.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[str]], Mapping[str, bytes]],
        keys: Sequence[str],
        budget: int = BUDGET,
        first: int = FIRST_BATCH,
    ) -> None:
        super().__init__(keys)
        self._fetch = fetch
        self._order = list(self._names)
        self._position = {key: index for index, key in enumerate(self._order)}
        self._budget = budget
        self._batch = max(1, first)
        self._fetched: dict[str, bytes | None] = {}
        self._fetched_nbytes = 0

    def _read(self, key: str) -> bytes:
        if key not in self._fetched:
            self._fetch_from(key)
        value = self._fetched.pop(key)
        if value is None:
            self._fetched[key] = None  # absence costs nothing to remember
            raise KeyError(key)
        self._fetched_nbytes -= len(value)
        return value

    def _fetch_from(self, key: str) -> None:
        start = self._position[key]
        count = self._batch if self._fetched_nbytes < self._budget else 1
        batch = [key, *(k for k in self._order[start + 1 : start + count] if k not in self._fetched)]
        found = dict(self._fetch(batch))
        for wanted in batch:
            self._fetched[wanted] = found.get(wanted)
        size = sum(map(len, found.values()))
        self._fetched_nbytes += size
        if found:
            self._batch = max(1, min(4096, self._budget // max(1, size // len(found))))


class MappedItems(_Items):
    """Items of a store below, under the keys of the store above."""

    def __init__(self, inner: Mapping[str, bytes], keys: Mapping[str, str]) -> None:
        super().__init__(tuple(keys))
        self._inner = inner
        self._inner_keys = keys

    def _read(self, key: str) -> bytes:
        return self._inner[self._inner_keys[key]]


def batches(items: Iterable[tuple[str, bytes]], max_keys: int, max_bytes: int) -> Iterator[dict[str, bytes]]:
    """Yield the items in batches, each within a number of keys and a number of bytes.

    Parameters
    ----------
    items : iterable of (key, value)
        Read as far as one batch needs, and no further.
    max_keys : int
        The largest number of keys in one batch.
    max_bytes : int, bytes
        The largest total size of the values in one batch. A value larger than this travels alone.

    Yields
    ------
    dict of str to bytes
        Never empty. In each batch a key stands once, with its last value, at the place where that came: requests of
        one batch may end in any order. The batches together hold the items in the order of `items`.

    Notes
    -----
    Cost: holds one batch, and the item that did not fit into it. Pure: no I/O of its own.

    Examples
    --------
    >>> [list(batch) for batch in batches([("a", b"12"), ("b", b"3456"), ("c", b"7"), ("d", b"8")], 2, 4)]
    [['a'], ['b'], ['c', 'd']]
    """
    batch: dict[str, bytes] = {}
    size = 0
    for key, value in items:
        size -= len(batch.pop(key, b""))
        if batch and size + len(value) > max_bytes:
            yield batch
            batch, size = {}, 0
        batch[key] = value
        size += len(value)
        if len(batch) >= max_keys or size >= max_bytes:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch
