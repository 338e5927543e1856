"""The keys below a path for a verb: from the store's listing, or by the grid where a store cannot be listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice

from zarrstore.adapt import KVStore
from zarrstore.base import Entry, Store
from zarrstore.errors import InvalidKeyError
from zarrstore.keys import check_key
from zarrstore.tools.overlap import overlap, overlaps

__all__ = ["MAX_QUESTIONS", "Listing", "keys_of", "listing_of", "present", "require", "value_or_none"]

#: Chunks that are asked for by name unless the caller allows more.
MAX_QUESTIONS = 1_000_000
#: Entries whose sizes are asked for together.
_AT_ONCE = 1024


@dataclass(frozen=True)
class Listing:
    """Keys below a path.

    Parameters
    ----------
    entries : iterable of Entry
        In any order; taken once.
    certain : bool
        Whether each key is there. Otherwise a key that turns out to be absent was never written.
    n_questions : int
        How many keys are not certain.
    notes : tuple of str
        What the listing cannot tell.
    """

    entries: Iterable[Entry]
    certain: bool = True
    n_questions: int = 0
    notes: tuple[str, ...] = field(default=())


def listing_of(
    store: Store, path: str = "", *, details: bool = False, max_questions: int | None = MAX_QUESTIONS
) -> Listing:
    """Return the keys below a path.

    Parameters
    ----------
    store : Store
        Any store.
    path : str
        A normal path.
    details : bool, default False
        Whether sizes and identities are wanted, where a listing tells them.
    max_questions : int, optional
        Of a store that cannot be listed: the largest number of chunks that may be asked for by name.

    Raises
    ------
    UnsupportedOperation
        The store cannot be listed, and no document names its arrays; or they have more chunks than `max_questions`.
    InvalidKeyError
        A foreign mapping holds a name that is no key. Raised when that name is met.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> [entry.key for entry in listing_of(as_store({"a/0": b"", "b": b""}), "a").entries]
    ['a/0']
    """
    if store.capabilities.listable:
        entries = store._details(path) if details else map(Entry, store.keys_below(path))
        return Listing(_judged(store, entries))
    # Imported here: it needs to know all formats of documents, and a store that can be listed does not.
    from zarrstore.tools.grid import grid_of

    grid = grid_of(store, path)
    grid.check(store, max_questions)
    chunks = map(Entry, grid.chunks(path))
    return Listing(chain(map(Entry, grid.documents), chunks), False, grid.n_questions, tuple(grid.notes))


def _judged(store: Store, entries: Iterable[Entry]) -> Iterator[Entry]:
    if isinstance(store, KVStore):
        for name in store.foreign_names():
            raise InvalidKeyError(name, f"{store} holds it, and no store can; leave it out of the mapping")
    for entry in entries:
        check_key(entry.key)
        yield entry


def present(store: Store, listing: Listing) -> Iterator[Entry]:
    """Yield the entries of a listing whose keys are there, with their sizes: -1 where a size cannot be known.

    Notes
    -----
    Cost: one question of the store for each size that the listing does not tell, overlapped where the store says that
    it is `concurrent`.
    """
    entries = iter(listing.entries)
    if not overlaps(store):
        yield from filter(None, (_with_size(store, entry) for entry in entries))
        return
    # Entries whose sizes are known must not wait in a pool: most listings tell all of them.
    while part := list(islice(entries, _AT_ONCE)):
        unknown = [entry for entry in part if entry.nbytes < 0]
        sizes = overlap(store, lambda entry: _with_size(store, entry), unknown) if unknown else iter(())
        yield from filter(None, (entry if entry.nbytes >= 0 else next(sizes) for entry in part))


def _with_size(store: Store, entry: Entry) -> Entry | None:
    if entry.nbytes >= 0:
        return entry
    try:
        return entry._replace(nbytes=store._nbytes(entry.key))
    except KeyError:
        return None


def require(store: Store, path: str) -> bool:
    """Tell whether a value is at `path` itself; KeyError if nothing is at or below it.

    Notes
    -----
    Of the root, and of a store that cannot be listed, nothing is asked: the root may be empty, and the grid raises by
    itself. Cost: one question, and one listing of a directory if there is no value.
    """
    if not path:
        return False
    if path in store:
        return True
    if store.capabilities.listable and next(iter(store._listdir(path)), None) is None:
        from zarrstore.tools.nearby import absent

        raise absent(store, path)
    return False


def value_or_none(values: Mapping[str, bytes], key: str) -> bytes | None:
    """Return the value of a key, None if it is absent; an error that refines KeyError is no absence.

    Examples
    --------
    >>> value_or_none({"a": b"1"}, "a"), value_or_none({}, "a")
    (b'1', None)
    """
    try:
        return values[key]
    except KeyError as exc:
        if type(exc) is not KeyError:
            raise
        return None


def keys_of(store: Store, path: str = "", *, max_questions: int | None = MAX_QUESTIONS) -> Iterator[str]:
    """Yield the keys below a path: those listed, or those found one by one where the store cannot be listed.

    Notes
    -----
    Cost: one listing; or one question for each document and each chunk that the documents allow.
    """
    listing = listing_of(store, path, max_questions=max_questions)
    if listing.certain:
        return (entry.key for entry in listing.entries)
    return (entry.key for entry in present(store, listing))
