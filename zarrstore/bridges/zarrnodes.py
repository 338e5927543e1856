"""The store below a Group or an Array of zarr 2 or zarr 3, from the node's own path on."""

from __future__ import annotations

from typing import Any

from zarrstore.adapt import as_store
from zarrstore.base import Store

__all__ = ["store_of_node", "store_of_path"]


def store_of_node(node: Any) -> Store:
    """Return the store in which a zarr Group or Array lies, with the node at its root.

    Parameters
    ----------
    node : zarr.Group or zarr.Array
        Of zarr 2 or zarr 3.

    Notes
    -----
    The store stays the node's: closing what is returned is for its owner. An array of zarr 2 whose chunks lie in a
    store of their own gives a SplitStore.

    Examples
    --------
    >>> import zarr
    >>> group = zarr.open_group({}, mode="w", zarr_format=2)
    >>> array = group.create_array("foo", shape=4, dtype="i4")
    >>> sorted(store_of_node(group)), sorted(store_of_node(array))
    (['.zattrs', '.zgroup', 'foo/.zarray', 'foo/.zattrs'], ['.zarray', '.zattrs'])
    """
    place = getattr(node, "store_path", None)
    if place is not None:
        return store_of_path(place)
    store = _unwrapped(node.store)
    chunks = _unwrapped(node.chunk_store)
    if chunks is not store:
        from zarrstore.wrappers.split import SplitStore

        return _below(SplitStore(store, chunks), node.path)
    return _below(as_store(store), node.path)


def store_of_path(place: Any) -> Store:
    """Return what a StorePath of zarr 3 stands for: its store from its path on.

    Parameters
    ----------
    place : zarr.storage.StorePath
        A store with a path in it.
    """
    from zarrstore.bridges.zarr3 import AsyncStoreMapping, MappingStore

    inner = place.store
    return _below(as_store(inner.mapping) if isinstance(inner, MappingStore) else AsyncStoreMapping(inner), place.path)


def _unwrapped(store: Any) -> Any:
    """Return what a KVStore of zarr 2 goes round: it knows nothing but the keys of it."""
    return getattr(store, "_mutable_mapping", store)


def _below(store: Store, path: str) -> Store:
    if not path:
        return store
    from zarrstore.wrappers.prefix import PrefixStore

    return PrefixStore(store, path)
