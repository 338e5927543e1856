"""All documents of a hierarchy in one: written, used, and checked for staleness."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.metadata import consolidated, documents
from zarrstore.metadata.consolidated import Staleness
from zarrstore.wrappers.consolidated import ConsolidatedStore

__all__ = ["check_consolidated", "consolidate_metadata", "open_consolidated"]


def consolidate_metadata(
    store: MutableMapping[str, Any], metadata_key: str = documents.ZMETADATA, *, path: object = ""
) -> ConsolidatedStore:
    """Write one document that repeats all documents of a version 2 hierarchy, and return the store that reads by it.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    metadata_key : str
        Where to write, below `path`.
    path : str
        The root of the hierarchy.

    Returns
    -------
    ConsolidatedStore
        Documents from memory, chunks from `store`.

    Raises
    ------
    MetadataError
        A document cannot be parsed; nothing was written.

    Notes
    -----
    The same bytes for the same documents, in whatever order the store lists them. Cost: one listing, and one read a
    document, in batches. Source: zarr 2.18.7 ``consolidate_metadata``.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=3, path="foo")
    >>> sorted(consolidate_metadata(store).listdir())
    ['.zgroup', '.zmetadata', 'foo']
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    adapted[k.join(at, metadata_key)] = consolidated.build(_documents(adapted, at))
    return open_consolidated(adapted, metadata_key, path=at)


def open_consolidated(
    store: Mapping[str, Any], metadata_key: str = documents.ZMETADATA, *, path: object = ""
) -> ConsolidatedStore:
    """Return a store that takes documents from consolidated metadata, read once, and chunks from `store`.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping; one that cannot be listed will do.
    metadata_key : str
        The consolidated document, below `path`.
    path : str
        The root of the hierarchy, which becomes the root of what is returned.

    Raises
    ------
    KeyError
        There is no consolidated metadata.
    MetadataError
        It is damaged, or a name in it leads elsewhere.

    Notes
    -----
    Cost: one read. Staleness is not looked for: see `check_consolidated`. Source: zarr 2.18.7 ``open_consolidated``.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=3, path="foo")
    >>> consolidate_metadata(store).close()
    >>> open_consolidated(store).listdir("foo")
    ['.zarray']
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    if at:
        from zarrstore.wrappers.prefix import PrefixStore

        adapted = PrefixStore(adapted, at)
    return ConsolidatedStore(adapted, metadata_key)


def check_consolidated(
    store: Mapping[str, Any], metadata_key: str = documents.ZMETADATA, *, path: object = ""
) -> Staleness:
    """Tell how consolidated metadata differs from the documents it repeats; false if it does not.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed.
    metadata_key : str
        The consolidated document, below `path`.
    path : str
        The root of the hierarchy.

    Returns
    -------
    Staleness
        Keys below `path` that it lacks, has too much, or says differently.

    Raises
    ------
    KeyError
        There is no consolidated metadata.
    MetadataError
        It is damaged.

    Notes
    -----
    Cost: one listing, and one read a document. Source: this package.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=3, path="foo")
    >>> consolidate_metadata(store).close()
    >>> bool(check_consolidated(store))
    False
    >>> init_array(store, shape=3, path="bar")
    >>> check_consolidated(store).missing
    ('bar/.zarray',)
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    key = k.join(at, metadata_key)
    return consolidated.compare(consolidated.parse(adapted[key], key), _documents(adapted, at))


def _documents(store: Store, path: str) -> dict[str, bytes]:
    """Return the documents below a path, by their keys relative to it."""
    wanted = [key for key in store.keys_below(path) if consolidated.is_repeated(key)]
    return {k.replace_root(key, path, ""): data for key, data in store.getitems(wanted).items()}
