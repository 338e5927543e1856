"""Independent questions of one store asked at once, so that their waits overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from zarrstore.allowance import allowed
from zarrstore.base import Store

__all__ = ["found_among", "overlap", "overlaps", "values_of_keys"]

T = TypeVar("T")
R = TypeVar("R")


def overlaps(store: Store) -> bool:
    """Tell whether several threads that wait for a store wait at the same time.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> overlaps(as_store({}))
    False
    """
    flags = store.capabilities
    return flags.concurrent and flags.thread_safe


def overlap(store: Store, act: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what `act` returns for each item, in their order; several at a time where the store profits from it.

    Parameters
    ----------
    store : Store
        What `act` asks. At most its `_in_flight` calls run at a time; where it is not `concurrent`, one.
    act : callable
        ``act(item)``. The first error is raised, and nothing new is begun after it.
    items : iterable
        Taken as calls end, so it may be long.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> store = as_store({"a": b"1", "b": b"2"})
    >>> list(overlap(store, store.get, ["a", "b"]))
    [b'1', b'2']
    """
    if not overlaps(store):
        yield from map(act, items)
        return
    # Imported here: a store of local files, which is not overlapped, opens in half the time.
    from zarrstore.threads import Threads
    from zarrstore.tools.executing import run_ordered

    with Threads(store._in_flight, "zarrstore-overlap") as pool:
        yield from run_ordered(pool, ((act, item) for item in items))


def found_among(store: Store, keys: Iterable[str]) -> set[str]:
    """Return those of some keys that exist.

    Notes
    -----
    Cost: one question a key, overlapped. Where a store is `concurrent`, a question costs what a wait costs.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> found_among(as_store({"a": b"1"}), ["a", "b"])
    {'a'}
    """
    names: Sequence[str] = list(keys)
    return {key for key, there in zip(names, overlap(store, store._contains, names), strict=True) if there}


def values_of_keys(store: Store, keys: Iterable[str]) -> dict[str, bytes | None]:
    """Return the value of each of some keys, None where there is none: for documents, since all are held.

    Notes
    -----
    Cost: one batch. An error that refines KeyError is no absence, and is raised.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> values_of_keys(as_store({"a": b"1"}), ["a", "b"])
    {'a': b'1', 'b': None}
    """
    names = list(dict.fromkeys(keys))
    with allowed():
        found = store._get_many(names)
    values: dict[str, bytes | None] = {}
    for name in names:
        try:
            values[name] = found[name]
        except KeyError as exc:
            if type(exc) is not KeyError:
                raise
            values[name] = None
    return values
