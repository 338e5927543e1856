"""How an array's chunks are spelled: from its document, and from the keys that are there where it does not say.

NestedDirectoryStore of zarr 2.0 to 2.7 writes chunks as ``0/1`` and no ``dimension_separator``. Readers of today take
the missing member for ``"."``, look for ``0.1``, find nothing, and show fill values. So the verbs ask here.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.chunknames import chunk_name, nest
from zarrstore.metadata import chunking, documents, v2
from zarrstore.metadata.chunkkeys import ChunkKeys

__all__ = ["LIMIT", "Spellings", "chunk_keys_of", "spellings_of", "stored_chunk_keys_of"]

#: Number of keys of an array that are looked at to see how they are spelled.
LIMIT = 256


class Spellings(NamedTuple):
    """One key of a chunk for each separator by which chunks of an array are spelled; None where no chunk is.

    Examples
    --------
    >>> Spellings(nested="a/0/1").separators
    {'/'}
    """

    flat: str | None = None
    nested: str | None = None

    @property
    def separators(self) -> set[str]:
        """The separators that were found."""
        return {separator for separator, key in ((".", self.flat), ("/", self.nested)) if key is not None}

    @property
    def keys(self) -> list[str]:
        """The keys that were found: they stand for the listing in which they were."""
        return [key for key in self if key is not None]


def spellings_of(
    store: Store, path: str, meta: v2.ArrayMeta, limit: int | None = LIMIT, keys: Iterable[str] | None = None
) -> Spellings:
    """Return how the chunks of a version 2 array are spelled, by the keys that are there.

    Parameters
    ----------
    store : Store
        Where the array is.
    path : str
        Of the array.
    meta : v2.ArrayMeta
        What its document says.
    limit : int or None
        The largest number of keys to look at; None looks at all.
    keys : iterable of str, optional
        Keys below `path`, if they were listed already.

    Returns
    -------
    Spellings
        Nothing for an array with fewer than two axes, whose chunks have one spelling only.

    Notes
    -----
    Cost: the beginning of one listing. Of a store that cannot be listed, the first chunks of the grid are asked for by
    name in one batch.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> meta = v2.build_array(shape=(4, 4), chunks=(2, 2), dtype="u1")
    >>> spellings_of(as_store({"a/.zarray": b"", "a/0/1": b""}), "a", meta)
    Spellings(flat=None, nested='a/0/1')
    """
    if len(meta.shape) < 2:
        return Spellings()
    found: dict[str, str] = {}
    rules = {separator: ChunkKeys("v2", separator, len(meta.shape)) for separator in "./"}
    for key in islice(_candidates(store, path, meta) if keys is None else keys, limit):
        for separator, rule in rules.items():
            position = rule.coords(key, path)
            if position is not None and all(i < n for i, n in zip(position, meta.grid_shape, strict=True)):
                found.setdefault(separator, key)
        if len(found) == 2:
            break
    return Spellings(found.get("."), found.get("/"))


def _candidates(store: Store, path: str, meta: v2.ArrayMeta) -> Iterable[str]:
    if store.capabilities.listable:
        return (key for key in store.keys_below(path) if k.name(key) not in documents.DOCUMENTS)
    positions = islice(chunking.chunk_grid(meta.shape, meta.chunks), 16)
    names = [k.join(path, chunk_name(coords, separator)) for coords in positions for separator in "./"]
    return [key for key in names if key in store]


def chunk_keys_of(
    store: Store, path: str, meta: v2.ArrayMeta, limit: int | None = LIMIT, keys: Iterable[str] | None = None
) -> ChunkKeys:
    """Return the rule by which the chunks of a version 2 array are found in this store.

    Parameters
    ----------
    store, path, meta, limit, keys
        As `spellings_of`.

    Returns
    -------
    ChunkKeys
        The document's ``dimension_separator``, if it has one. Otherwise the spelling of the keys that are there; if
        none is there, or both are, the separator of the store, and at last ``"."``, as zarr 2.18.7.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> meta = v2.build_array(shape=(4, 4), chunks=(2, 2), dtype="u1")
    >>> chunk_keys_of(as_store({"a/0/1": b""}), "a", meta)
    ChunkKeys(encoding='v2', separator='/', ndim=2)
    """
    ndim = len(meta.shape)
    if meta.dimension_separator is not None:
        return ChunkKeys("v2", meta.dimension_separator, ndim)
    separators = spellings_of(store, path, meta, limit, keys).separators
    if len(separators) == 1:
        return ChunkKeys("v2", separators.pop(), ndim)
    return ChunkKeys("v2", (store._dimension_separator if ndim > 1 else None) or ".", ndim)


def stored_chunk_keys_of(
    store: Store, path: str, meta: v2.ArrayMeta, limit: int | None = LIMIT, keys: Iterable[str] | None = None
) -> ChunkKeys:
    """Return the rule by which *other programs* find the chunks at the place where this store keeps them.

    Notes
    -----
    As `chunk_keys_of`, but for a store that shows one file under both spellings: NestedDirectoryStore lists ``0.1``
    for the file ``0/1`` of an array that has no ``dimension_separator``. A document that is written beside such chunks
    must say ``"/"``.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> meta = v2.build_array(shape=(4, 4), chunks=(2, 2), dtype="u1")
    >>> stored_chunk_keys_of(as_store({"a/0.1": b""}), "a", meta).separator
    '.'
    """
    if meta.dimension_separator is not None:
        return chunk_keys_of(store, path, meta)
    found = spellings_of(store, path, meta, limit, keys)
    rule = chunk_keys_of(store, path, meta, keys=found.keys)
    if rule.separator == "." and store._dimension_separator == "/":
        if found.flat is not None and store._stored_key(found.flat) == nest(found.flat):
            return rule.respelled("/")
    return rule
