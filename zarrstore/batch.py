"""Many values at once, without holding many values at once.

What `getitems` returns is a mapping that reads when it is asked. A reader of whole arrays looks a chunk up, decodes
it and lets it go; when every value is read before the first is used, each lands in fresh memory, and for chunks of 1
MB the page faults cost more than the reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from typing import TypeVar

from zarrstore.allowance import BUDGET, GROWTH, MAX_BATCH, MAX_UNKNOWN, Found, Sizes, allowance, allowed

__all__ = ["AheadItems", "Checklist", "LazyItems", "MappedItems", "batches", "checklist"]


T = TypeVar("T")


class Checklist(list[T]):
    """What one call of `_set_many` or `_delete_many` is given, and which of it is done when that call fails.

    Attributes
    ----------
    done : set of str
        Keys that the store has ticked off. A store that does all of a batch or none of it ticks nothing off.

    Notes
    -----
    A retry repeats what is not ticked off. A wrapper that changes keys hands on an ordinary iterable, and the whole
    batch is then repeated. Each key stands in the list once. Threads: a store may tick off in several.

    Examples
    --------
    >>> items = Checklist([("a", b"1"), ("b", b"2")])
    >>> checklist(items).add("a")
    >>> items.done
    {'a'}
    """

    def __init__(self, items: Iterable[T]) -> None:
        super().__init__(items)
        self.done: set[str] = set()


class _NoList(set[str]):
    """Ticks that nobody looks at, so that nothing is held."""

    def add(self, key: str) -> None:
        pass


_NO_LIST = _NoList()


def checklist(items: object) -> set[str]:
    """Return the set to which a store adds each key that it has dealt with, whether its caller looks at it or not."""
    return items.done if isinstance(items, Checklist) else _NO_LIST


class _Names(KeysView[str]):
    """What ``dict(items)`` goes over before it looks the first value up."""

    def __init__(self, items: _Items) -> None:
        super().__init__(items)
        self._items = items

    def __iter__(self) -> Iterator[str]:
        # All are held, whatever they take: so the dict that is being made reads each once.
        return (key for key in self._items._names if self._items._holds(key, limit=None))


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
        return self._holds(key, limit=BUDGET)

    def _holds(self, key: object, limit: int | None) -> bool:
        """Tell whether a key is there, and hold its value for the look-up that follows, within a limit of bytes."""
        if key in self._peeked:
            return True
        try:
            value = self[key]  # type: ignore[index]
        except KeyError:
            return False
        if limit is None or self._peeked_nbytes + len(value) <= limit:
            self._peeked[key] = value  # type: ignore[index]
            self._peeked_nbytes += len(value)
        return True

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._names if key in self)

    def keys(self) -> KeysView[str]:
        """Return a view of the keys that exist; to go over it reads every value, and holds it until it is taken."""
        return _Names(self)

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
        ``fetch(keys) -> Mapping`` of those found, at once; a `Found` tells which it did not ask for.
    keys : sequence of str
        What may be asked for, in the order in which it probably will be.
    budget : int, optional, bytes
        What may be held unread; one value more may be. Not given, what is `allowed`.
    first : int, optional
        Keys in the first batch, if no size is known.
    sizes : Sizes, optional
        What earlier batches of the same store found, and what this one tells the next.

    Notes
    -----
    A value is handed out once and then forgotten; asking again fetches again. The first batch has 2 keys, and each next
    one as many as fit into the budget if all are as large as the largest that came, but at most eight times as many
    as the last: 100 keys are 3 batches, and 1 where `sizes` knows their directory. While all keys are absent, batches
    double up to 8 keys: so many values of any size may then come at once.
    """

    def __init__(
        self,
        fetch: Callable[[Sequence[str]], Mapping[str, bytes]],
        keys: Sequence[str],
        budget: int | None = None,
        first: int | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        super().__init__(keys)
        permitted = allowance()
        self._fetch = fetch
        self._order = list(self._names)
        self._position = {key: index for index, key in enumerate(self._order)}
        self._budget = permitted.nbytes if budget is None else budget
        self._batch = max(1, permitted.first if first is None else first)
        self._sizes = sizes
        self._largest = 0
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

    def _count(self, key: str, room: int) -> int:
        """Return how many keys the next batch may have."""
        largest = self._largest
        if not largest and self._sizes is not None:
            largest = self._sizes.largest(key) or 0
            if largest:
                self._batch = MAX_BATCH
        return min(self._batch, room // largest) if largest else self._batch

    def _fetch_from(self, key: str) -> None:
        start = self._position[key]
        room = max(0, self._budget - self._fetched_nbytes)
        count = self._count(key, room)
        batch = [key, *(name for name in self._order[start + 1 : start + count] if name not in self._fetched)]
        # Who is asked below need not try with few keys again.
        with allowed(max(1, room), MAX_BATCH):
            found = self._fetch(batch)
            values = found if isinstance(found, Found) else Found(found)
        if key in values.unasked:  # another thread of the fetch was faster
            values.update(self._fetch([key]))
        for wanted in batch:
            if wanted not in values.unasked or wanted == key:
                self._fetched[wanted] = values.get(wanted)
        self._learn(values, len(batch))

    def _learn(self, values: Found, n_asked: int) -> None:
        self._fetched_nbytes += sum(map(len, values.values()))
        if not values:
            # Absent keys tell no size, and an array that is hardly written has many.
            self._batch = max(self._batch, min(MAX_UNKNOWN, 2 * n_asked))
            return
        name = max(values, key=lambda name: len(values[name]))
        self._largest = max(self._largest, len(values[name]))
        if self._sizes is not None:
            self._sizes.learn(name, len(values[name]))
        self._batch = min(MAX_BATCH, GROWTH * max(n_asked, self._batch))


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
