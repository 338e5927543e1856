"""All documents of a hierarchy in one: written, used, and checked for staleness."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from itertools import chain
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import allowed
from zarrstore.base import Store
from zarrstore.errors import MetadataError
from zarrstore.metadata import consolidated, documents, v2, v3
from zarrstore.metadata.consolidated import Staleness
from zarrstore.spelling import stored_chunk_keys_of
from zarrstore.targets import Target, opens
from zarrstore.tools.cluster import run_elsewhere, travels
from zarrstore.tools.deletion import survey
from zarrstore.tools.nearby import absent
from zarrstore.tools.overlap import overlap, values_of_keys
from zarrstore.wrappers.consolidated import ConsolidatedStore

__all__ = ["check_consolidated", "consolidate_metadata", "consolidated_updates", "open_consolidated", "set_document"]

#: Arrays in one task of a worker that looks how chunks are spelled.
_ARRAYS = 64


@opens("store", store="r+")
def consolidate_metadata(
    store: Target, metadata_key: str = documents.ZMETADATA, *, path: object = "", executor: Executor | None = None
) -> Store:
    """Write one document that repeats all documents of a hierarchy, and return the store that reads by it.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    metadata_key : str
        Where to write, below `path`. Version 3 has one place, the ``zarr.json`` of the group, and does not ask.
    path : str
        The root of the hierarchy.
    executor : concurrent.futures.Executor, optional
        Processes, or workers elsewhere: they list parts of the hierarchy, and read its documents. Threads change
        nothing, nor does any executor for a store that cannot travel.

    Returns
    -------
    Store
        Of version 2 a ConsolidatedStore: documents from memory, chunks from `store`. Of version 3 the hierarchy itself,
        since its readers take what the group repeats.

    Raises
    ------
    MetadataError
        A document cannot be parsed; or an array's chunks are nested and its document does not say so, so that readers
        of consolidated metadata would not find them. Nothing was written.
    ClusterError
        `executor` has no worker, one that lacks a package, or workers that see another store. Nothing was written.

    Notes
    -----
    A hierarchy with documents of both versions gets both. The same bytes for the same documents, in whatever order the
    store lists them. Cost: one listing, and one read a document, in batches. Source: zarr 2.18.7
    ``consolidate_metadata``, zarr 3.1.6 for version 3.

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
    if executor is not None and not travels(executor, adapted):
        executor = None
    found = _documents(adapted, at, executor, adapted)
    zarr_json = k.join(at, documents.ZARR_JSON)
    repeated = _repeated(found, at)
    new: dict[str, bytes] = {}
    if zarr_json in found:
        inline = _with_inline(zarr_json, at, found)
        if inline is not None:
            new[zarr_json] = inline
    if repeated or not new:
        _check_spelling(adapted, at, repeated, executor)
        new[k.join(at, metadata_key)] = consolidated.build(repeated)
    for key, data in new.items():
        adapted[key] = data
    if k.join(at, metadata_key) in new:
        return open_consolidated(adapted, metadata_key, path=at)
    return _below(adapted, at)


def _documents(store: Store, path: str, executor: Executor | None, dest: Store | None) -> dict[str, bytes]:
    """Return all documents of a hierarchy, by their keys; `dest` is where something will be written, if anywhere."""
    if executor is not None:
        found = survey(store, path, executor, dest, values=True).documents
        return {key: value for key, value in found.items() if _is_consolidated(key)}
    wanted = [key for key in store.keys_below(path) if _is_consolidated(key)]
    with allowed():  # documents are small
        return dict(store.getitems(wanted))


def _is_consolidated(key: str) -> bool:
    return consolidated.is_repeated(key) or k.name(key) == documents.ZARR_JSON


def _with_inline(key: str, path: str, found: Mapping[str, bytes]) -> bytes | None:
    """Return the ``zarr.json`` of a group with the documents below it repeated; None if it is an array's."""
    document = documents.loads(found[key], key)
    if v3.node_type(document, key) != "group":
        return None
    inline = consolidated.build_inline(_nodes(path, found))
    return documents.dumps({**document, "consolidated_metadata": inline})


def _nodes(path: str, found: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the version 3 documents below a path, by the paths of their nodes relative to it."""
    return {
        k.replace_root(k.parent(key), path, ""): documents.loads(data, key)
        for key, data in found.items()
        if k.name(key) == documents.ZARR_JSON and k.parent(key) != path
    }


def _repeated(found: Mapping[str, bytes], path: str) -> dict[str, bytes]:
    """Return the version 2 documents among those below a path, by their keys relative to it."""
    return {k.replace_root(key, path, ""): data for key, data in found.items() if consolidated.is_repeated(key)}


def _check_spelling(store: Store, path: str, found: Mapping[str, bytes], executor: Executor | None) -> None:
    """Refuse to repeat a document that does not say how its chunks are named: only this store knows, no reader does."""
    arrays = [(k.join(path, name), data) for name, data in found.items() if k.name(name) == documents.ZARRAY]
    if executor is None:
        errors = _spelling_errors(store, arrays)
    else:
        tasks = ((_spelling_errors, store, arrays[at : at + _ARRAYS]) for at in range(0, len(arrays), _ARRAYS))
        errors = [error for part in run_elsewhere(executor, tasks, "nothing was written") for error in part]
    for error in errors:
        raise error


def _spelling_errors(store: Store, arrays: list[tuple[str, bytes]]) -> list[MetadataError]:
    """Look at some arrays; runs wherever the executor is."""
    errors = overlap(store, lambda array: _spelling_error(store, *array), arrays)
    return [error for error in errors if error is not None]


def _spelling_error(store: Store, key: str, data: bytes) -> MetadataError | None:
    document = documents.loads(data, key)
    shape = document.get("shape")
    if document.get("dimension_separator") is not None or not isinstance(shape, list) or len(shape) < 2:
        return None
    try:
        meta = v2.check_array(document, key)
    except MetadataError:
        return None  # damaged, which consolidation repeats as it is
    if stored_chunk_keys_of(store, k.parent(key), meta).separator != "/":
        return None
    return MetadataError(
        key,
        "dimension_separator",
        "is missing, and the chunks are nested: readers of consolidated metadata would not find them; "
        "repair(store) first, or: zarrstore repair",
    )


@opens("store", store="r")
def open_consolidated(
    store: Target, metadata_key: str = documents.ZMETADATA, *, path: object = ""
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
    return ConsolidatedStore(_below(as_store(store), k.normalize_path(path)), metadata_key)


def _below(store: Store, path: str) -> Store:
    if not path:
        return store
    from zarrstore.wrappers.prefix import PrefixStore

    return PrefixStore(store, path)


@opens(store="r")
def check_consolidated(
    store: Target, metadata_key: str = documents.ZMETADATA, *, path: object = "", executor: Executor | None = None
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
    executor : concurrent.futures.Executor, optional
        As `consolidate_metadata` takes it.

    Returns
    -------
    Staleness
        Keys below `path` that it lacks, has too much, or says differently: of ``.zmetadata``, and of the inline
        consolidated metadata of a version 3 group.

    Raises
    ------
    KeyError
        There is no consolidated metadata.
    MetadataError
        It is damaged.
    ClusterError
        As `consolidate_metadata`.

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
    key, zarr_json = k.join(at, metadata_key), k.join(at, documents.ZARR_JSON)
    data, group = adapted.get(key), adapted.get(zarr_json)
    inline = None if group is None else consolidated.parse_inline(documents.loads(group, zarr_json), zarr_json)
    if data is None and inline is None:
        raise absent(adapted, key, "consolidated metadata")
    stale: list[Staleness] = []
    listed = None if data is None else consolidated.parse(data, key, strict=False)
    if executor is not None and not travels(executor, adapted):
        executor = None
    found = _documents(adapted, at, executor, None)
    if listed is not None:
        stale.append(consolidated.compare(listed, _repeated(found, at)))
    if inline is not None:
        stale.append(_inline_staleness(inline, at, found))
    return Staleness(*(tuple(chain.from_iterable(parts)) for parts in zip(*map(_parts, stale), strict=True)))


def _parts(stale: Staleness) -> tuple[tuple[str, ...], ...]:
    return stale.missing, stale.extra, stale.different


def _inline_staleness(inline: Mapping[str, Any], path: str, found: Mapping[str, bytes]) -> Staleness:
    """Compare the inline consolidated metadata of a group."""
    stale = consolidated.compare_inline(inline, _nodes(path, found))

    def keys_of(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(k.join(at, documents.ZARR_JSON) for at in paths)

    return Staleness(keys_of(stale.missing), keys_of(stale.extra), keys_of(stale.different))


def consolidated_updates(
    store: Store, changes: Mapping[str, bytes | None], known: dict[str, bytes | None] | None = None
) -> dict[str, bytes]:
    """Return the consolidated documents above some documents that change, as they are to be afterwards.

    Parameters
    ----------
    store : Store
        As it is before the changes.
    changes : mapping of str to bytes or None
        Keys of documents and their new values; None for those that are deleted.
    known : dict of str to bytes or None, optional
        Values that were read already, None where there was none; those that are read here are added.

    Returns
    -------
    dict of str to bytes
        By key; those that need no change are left out. A ``zarr.json`` that is itself among the changes is returned
        with its new value and the new repetition.

    Notes
    -----
    Only entries for the changed documents are touched: what else is stale stays so. Cost: two reads for each directory
    above a changed document but arrays, in one batch.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = as_store({})
    >>> init_array(store, shape=3, path="foo")
    >>> consolidate_metadata(store).close()
    >>> new = consolidated_updates(store, {"foo/.zattrs": b'{"a": 1}'})
    >>> list(new), b'"foo/.zattrs": {' in new[".zmetadata"]
    (['.zmetadata'], True)
    """
    held = {} if known is None else known
    updates: dict[str, bytes] = {}
    for path in _read_above(store, changes, held):
        key = k.join(path, documents.ZMETADATA)
        data = None if key in changes else held[key]
        new = None if data is None else _updated_zmetadata(data, key, path, changes)
        if new is not None and new != data:
            updates[key] = new
        key = k.join(path, documents.ZARR_JSON)
        data = changes[key] if key in changes else held[key]
        new = None if data is None else _updated_inline(data, key, path, changes)
        if new is not None and new != data:
            updates[key] = new
    return updates


def _read_above(store: Store, changes: Mapping[str, bytes | None], held: dict[str, bytes | None]) -> list[str]:
    """Return the directories above documents that change, and add to `held` what may repeat these there."""
    # Nothing is repeated at an array, and of many arrays each question would count.
    arrays = {k.parent(key) for key, data in changes.items() if _is_of_array(key, data)}
    ancestors = {path: None for key in sorted(changes) for path in k.parents(key) if path not in arrays}
    keys = [k.join(path, name) for path in ancestors for name in (documents.ZMETADATA, documents.ZARR_JSON)]
    held.update(values_of_keys(store, [key for key in keys if key not in changes and key not in held]))
    return list(ancestors)


def _is_of_array(key: str, data: bytes | None) -> bool:
    """Tell whether a document that changes is one that only arrays have."""
    if k.name(key) != documents.ZARR_JSON:
        return k.name(key) == documents.ZARRAY
    if data is None or b'"array"' not in data:
        return False
    try:
        return bool(documents.loads(data, key).get("node_type") == "array")
    except MetadataError:  # met again where it is to be repeated
        return False


def set_document(store: Store, key: str, value: bytes) -> list[str]:
    """Set a document, then what repeats it above; return the keys of the consolidated documents that were changed.

    Raises
    ------
    MetadataError
        A consolidated document above is damaged, or `value` is to be repeated and is no document. Nothing was set.

    Notes
    -----
    Cost: see `consolidated_updates`.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = as_store({})
    >>> init_array(store, shape=3, path="foo")
    >>> consolidate_metadata(store).close()
    >>> set_document(store, "foo/.zattrs", b'{"units": "K"}')
    ['.zmetadata']
    >>> bool(check_consolidated(store))
    False
    """
    updates = consolidated_updates(store, {key: value})
    store[key] = updates.pop(key, value)
    for name, data in updates.items():
        store[name] = data
    return list(updates)


def _updated_zmetadata(data: bytes, key: str, path: str, changes: Mapping[str, bytes | None]) -> bytes:
    metadata = dict(consolidated.parse(data, key, strict=False))
    for name, value in changes.items():
        if k.is_below(name, path) and consolidated.is_repeated(name):
            relative = k.replace_root(name, path, "")
            metadata.pop(relative, None)
            if value is not None:
                metadata[relative] = documents.loads(value, name)
    if metadata == consolidated.parse(data, key, strict=False):
        return data
    return documents.dumps({"zarr_consolidated_format": 1, "metadata": metadata})


def _updated_inline(data: bytes, key: str, path: str, changes: Mapping[str, bytes | None]) -> bytes | None:
    document = documents.loads(data, key)
    repeated = consolidated.parse_inline(document, key)
    if repeated is None:
        return None
    nodes = dict(repeated)
    for name, value in changes.items():
        if k.name(name) == documents.ZARR_JSON and name != key and k.is_below(name, path):
            relative = k.replace_root(k.parent(name), path, "")
            nodes.pop(relative, None)
            if value is not None:
                nodes[relative] = documents.loads(value, name)
    if not consolidated.compare_inline(repeated, nodes):
        return None
    return documents.dumps({**document, "consolidated_metadata": consolidated.build_inline(nodes)})
