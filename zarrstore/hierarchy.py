"""Nodes of a hierarchy over any mapping: create, ask for, delete.

Everything is judged before anything is deleted or written: an argument that is refused leaves the store as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import (
    ConflictError,
    ContainsArrayError,
    ContainsGroupError,
    ReadOnlyError,
    UnsupportedOperation,
)
from zarrstore.metadata import documents, v2
from zarrstore.targets import Target, opens
from zarrstore.tools.nearby import absent

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["contains_array", "contains_group", "delete_node", "init_array", "init_group"]


@opens(store="a", chunk_store="a")
def init_array(
    store: Target,
    shape: Any,
    chunks: Any = True,
    dtype: Any = None,
    compressor: Any = "default",
    fill_value: Any = None,
    order: Literal["C", "F"] = "C",
    overwrite: bool = False,
    path: object = None,
    chunk_store: Target | None = None,
    filters: Any = None,
    object_codec: Any = None,
    dimension_separator: Literal[".", "/"] | None = None,
) -> None:
    """Write the document of a new array, and of every group above it, byte for byte as zarr 2 writes them.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping.
    shape : int or tuple of int
        Length of each axis, in items.
    chunks : int, tuple of int (one per axis of `shape`) or bool, default True
        Length of a chunk along each axis. True guesses, False is one chunk; -1 or None leaves an axis whole.
    dtype : dtype-like, default float64
        Of the items. The axes of a subarray dtype are added to `shape`.
    compressor : codec, None or 'default'
        Any object with ``get_config()``. Zero-dimensional arrays have none.
    fill_value : object
        What unwritten items read as.
    order : {'C', 'F'}
        Layout of the items within a chunk.
    overwrite : bool, default False
        Replace what is at `path`: everything below it is deleted, in `chunk_store` too, and an array above it
        becomes a group.
    path : str, optional
        Where; the root if not given.
    chunk_store : MutableMapping of str to bytes, optional
        Where the caller will keep the chunks, if elsewhere. Only emptied here.
    filters : sequence of codecs, optional
        Applied before the compressor.
    object_codec : codec, optional
        Required for object dtypes (MsgPack, VLenUTF8, JSON, ...); becomes the first filter.
    dimension_separator : {'.', '/'}, optional
        Parts the numbers of a chunk's key. Not given, it is the store's own, if it has one.

    Raises
    ------
    ContainsArrayError, ContainsGroupError
        A node is there, or an array above, and `overwrite` is False.
    ConflictError
        The path lies on or below a value, in a store of files.
    ValueError, TypeError
        An argument is refused. Nothing was deleted or written.

    Notes
    -----
    Cost: two look-ups for each level of `path`, one write for each new group and one for the array. Not atomic: the
    array's document is written last. Source: zarr 2.2 ``init_array``, with the corrections of 2.18.7. Deviation:
    judged first, so a bad argument no longer empties the store.

    Examples
    --------
    >>> store = {}
    >>> init_array(store, shape=(10000, 10000), chunks=(1000, 1000), path="foo/bar", fill_value=0)
    >>> sorted(store)
    ['.zgroup', 'foo/.zgroup', 'foo/bar/.zarray']
    """
    adapted = as_store(store)
    if dimension_separator is None:
        dimension_separator = adapted._dimension_separator
    meta = v2.build_array(
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        compressor=compressor,
        fill_value=fill_value,
        order=order,
        filters=filters,
        object_codec=object_codec,
        dimension_separator=dimension_separator,
    )
    _init_node(adapted, documents.ZARRAY, v2.encode_array(meta), k.normalize_path(path), overwrite, chunk_store)


@opens(store="a", chunk_store="a")
def init_group(
    store: Target,
    overwrite: bool = False,
    path: object = None,
    chunk_store: Target | None = None,
) -> None:
    """Write the document of a new group, and of every group above it.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping.
    overwrite : bool, default False
        Replace what is at `path`: everything below it is deleted, in `chunk_store` too, and an array above it
        becomes a group.
    path : str, optional
        Where; the root if not given.
    chunk_store : MutableMapping of str to bytes, optional
        Where the caller keeps chunks, if elsewhere. Only emptied here.

    Raises
    ------
    ContainsArrayError, ContainsGroupError
        A node is there, or an array above, and `overwrite` is False.
    ConflictError
        The path lies on or below a value, in a store of files.

    Notes
    -----
    Cost and crash safety as `init_array`. Source: zarr 2.2 ``init_group``.

    Examples
    --------
    >>> store = {}
    >>> init_group(store, path="foo")
    >>> store["foo/.zgroup"]
    b'{\\n    "zarr_format": 2\\n}'
    """
    adapted = as_store(store)
    _init_node(adapted, documents.ZGROUP, v2.encode_group(), k.normalize_path(path), overwrite, chunk_store)


@opens(store="r")
def contains_array(store: Target, path: object = None) -> bool:
    """Tell whether an array is at a path.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str, optional
        Where; the root if not given.

    Notes
    -----
    Cost: one ``in``; the document is not read. Source: zarr 2.2.

    Examples
    --------
    >>> store = {}
    >>> init_array(store, shape=10, path="foo")
    >>> contains_array(store, "foo"), contains_array(store)
    (True, False)
    """
    return k.join(k.normalize_path(path), documents.ZARRAY) in as_store(store)


@opens(store="r")
def contains_group(store: Target, path: object = None) -> bool:
    """Tell whether a group is at a path.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str, optional
        Where; the root if not given.

    Notes
    -----
    Cost: one ``in``; the document is not read. Source: zarr 2.2.

    Examples
    --------
    >>> store = {}
    >>> init_array(store, shape=10, path="foo")
    >>> contains_group(store), contains_group(store, "foo")
    (True, False)
    """
    return k.join(k.normalize_path(path), documents.ZGROUP) in as_store(store)


@opens(store="r+")
def delete_node(store: Target, path: object = None, *, executor: Executor | None = None) -> None:
    """Delete the array or group at a path with everything below it, and nothing beside it.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping.
    path : str, optional
        Where; the root, which empties the store, if not given.
    executor : concurrent.futures.Executor, optional
        As `rmdir` takes it.

    Raises
    ------
    KeyError
        Neither an array nor a group is at `path`.
    ClusterError
        As `rmdir`.

    Notes
    -----
    The node's own documents go first, so that a crash leaves keys that no reader looks at, never an array that reads
    as fill values. Cost: one deletion a key. Source: zarr 2 ``Group.__delitem__``.

    Examples
    --------
    >>> store = {}
    >>> init_array(store, shape=10, path="foo")
    >>> store["foobar"] = b"stays"
    >>> delete_node(store, "foo")
    >>> sorted(store)
    ['.zgroup', 'foobar']
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    named = [k.join(at, name) for name in (documents.ZARRAY, documents.ZGROUP, documents.ZARR_JSON)]
    if not any(key in adapted for key in named):
        raise absent(adapted, at, "array or group")
    if executor is not None:
        from zarrstore.tools.deletion import delete_elsewhere, deletes_elsewhere

        if deletes_elsewhere(executor, adapted):
            return delete_elsewhere(adapted, at, executor)
    adapted.delitems(named)
    adapted.rmdir(at)


def _init_node(
    store: Store,
    document: str,
    data: bytes,
    path: str,
    overwrite: bool,
    chunk_store: Target | None,
) -> None:
    """Look at everything, then delete what is to be replaced, then write the groups above, then the node."""
    key = k.check_key(k.join(path, document))
    if not store.capabilities.writable:
        raise ReadOnlyError(key, store)
    if overwrite:
        emptied = _paths_to_empty(store, path)
        missing = None
    else:
        emptied, missing = [], _missing_groups(store, path)
    _check_no_value_in_the_way(store, path, emptied)
    for at in emptied:
        store.rmdir(at)
        if chunk_store is not None:
            as_store(chunk_store).rmdir(at)
    if missing is None:
        missing = [above for above in k.parents(path) if not contains_group(store, above)]
    for above in missing:
        store[k.join(above, documents.ZGROUP)] = v2.encode_group()
    store[key] = data


def _missing_groups(store: Store, path: str) -> list[str]:
    """Return the paths above that have no group yet; raise if a node is at the path, or an array above.

    On an object store each ``in`` is a request. One listing spares those about what lies below an empty place.
    """
    missing: list[str] = []
    above = list(k.parents(path))
    for at, below in zip(above, [*above[1:], path], strict=False):
        if contains_group(store, at):
            continue
        if contains_array(store, at):
            raise ContainsArrayError(at)
        missing.append(at)
        if _is_free(store, below):
            return [*missing, *above[len(k.segments(below)) :]]
    if (missing and missing[-1] == above[-1]) or not _is_free(store, path):
        if contains_array(store, path):
            raise ContainsArrayError(path)
        if contains_group(store, path):
            raise ContainsGroupError(path)
    return missing


def _is_free(store: Store, path: str) -> bool:
    """Tell whether a listing shows that nothing is at a path or below it."""
    return store.capabilities.listable and not store._is_occupied(path)


def _paths_to_empty(store: Store, path: str) -> list[str]:
    """Return the paths to be emptied first; raise if that cannot be done."""
    arrays_above = [above for above in k.parents(path) if contains_array(store, above)]
    paths = arrays_above[:1] or [path]
    if not store.capabilities.erasable and any(store.listdir(at) for at in paths):
        raise UnsupportedOperation(f"replace {path!r}", store, "it cannot erase; choose another path or another store")
    return paths


def _check_no_value_in_the_way(store: Store, path: str, paths_to_empty: list[str]) -> None:
    if not store.capabilities.hierarchical or not path:
        return
    for at in (*k.parents(path), path):
        if at and at in store and not any(k.is_below(at, emptied) for emptied in paths_to_empty):
            raise ConflictError(k.join(path, documents.ZGROUP), store, at)
