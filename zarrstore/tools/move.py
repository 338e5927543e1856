"""A node moved within its store, and the consolidated metadata above it kept true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.metadata import consolidated, documents
from zarrstore.targets import Target, opens
from zarrstore.tools.overlap import values_of_keys

__all__ = ["move"]


@opens(store="r+")
def move(store: Target, source: object, dest: object) -> None:
    """Move a node, a directory or a value to where nothing stands, and keep consolidated metadata true.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    source, dest : str
        Paths.

    Raises
    ------
    KeyError, DestinationExistsError, RenameError, ConflictError
        As `rename`. Nothing was moved.
    MetadataError
        A consolidated document above is damaged. Nothing was moved.

    Notes
    -----
    ``.zmetadata`` and inline consolidated metadata at every level above `source` and `dest` are rewritten. The moved
    documents leave them before the keys are moved, and enter them afterwards: a reader that goes by them never looks
    for chunks where they are not, at a crash either, and so never takes them for fill values. Cost: as `rename`, a
    look-up of two documents for each level, and one listing of `dest`. Source: this package.

    Examples
    --------
    >>> from zarrstore import consolidate_metadata, init_array
    >>> from zarrstore.tools.consolidate import check_consolidated
    >>> store = {}
    >>> init_array(store, shape=3, path="a")
    >>> consolidate_metadata(store).close()
    >>> move(store, "a", "b")
    >>> sorted(store), bool(check_consolidated(store))
    (['.zgroup', '.zmetadata', 'b/.zarray'], False)
    """
    adapted = as_store(store)
    src, dst = k.normalize_path(source), k.normalize_path(dest)
    if src == dst:
        return adapted.rename(source, dest)
    before = _consolidated_above(adapted, {*k.parents(src), *k.parents(dst)})
    try:
        for key, data in before.items():
            without = _without(key, data, src)
            if without != data:
                adapted[key] = without
        if before:
            adapted.flush()
        adapted.rename(source, dest)
    except BaseException:
        # Written back even if it was not changed: a set that failed may have been stored.
        for key, data in before.items():
            if adapted.get(key) != data:
                adapted[key] = data
        raise
    if not before:
        return
    adapted.flush()
    named = [key for key in adapted.keys_below(dst) if k.name(key) in documents.DOCUMENTS]
    moved = {key: data for key, data in values_of_keys(adapted, named).items() if data is not None}
    for key in before:
        data = adapted[key]
        with_moved = _with(key, data, moved)
        if with_moved != data:
            adapted[key] = with_moved


def _consolidated_above(store: Store, paths: Iterable[str]) -> dict[str, bytes]:
    named = [k.join(path, name) for path in sorted(paths) for name in (documents.ZMETADATA, documents.ZARR_JSON)]
    return {
        key: data
        for key, data in values_of_keys(store, named).items()
        if data is not None and (k.name(key) == documents.ZMETADATA or b'"consolidated_metadata"' in data)
    }


def _without(key: str, data: bytes, path: str) -> bytes:
    """Return a consolidated document without what is at and below a path."""
    root = k.parent(key)

    def stays(name: str) -> bool:
        full = k.join(root, name)
        return full != path and not k.is_below(full, path)

    if k.name(key) == documents.ZMETADATA:
        held = consolidated.parse(data, key)
        kept = {name: document for name, document in held.items() if stays(name)}
        return data if len(kept) == len(held) else _zmetadata(kept)
    document = documents.loads(data, key)
    nodes = consolidated.parse_inline(document, key)
    kept = {name: node for name, node in (nodes or {}).items() if stays(name)}
    return data if nodes is None or len(kept) == len(nodes) else _inline(document, kept)


def _with(key: str, data: bytes, moved: Mapping[str, bytes]) -> bytes:
    """Return a consolidated document with the documents that were moved to below its directory."""
    root = k.parent(key)
    below = {name: value for name, value in moved.items() if k.is_below(name, root)}
    if k.name(key) == documents.ZMETADATA:
        added = {
            k.replace_root(name, root, ""): documents.loads(value, name)
            for name, value in below.items()
            if consolidated.is_repeated(name)
        }
        return _zmetadata({**consolidated.parse(data, key), **added}) if added else data
    document = documents.loads(data, key)
    nodes = consolidated.parse_inline(document, key)
    added = {
        k.replace_root(k.parent(name), root, ""): documents.loads(value, name)
        for name, value in below.items()
        if k.name(name) == documents.ZARR_JSON
    }
    return data if nodes is None or not added else _inline(document, {**nodes, **added})


def _zmetadata(metadata: Mapping[str, Any]) -> bytes:
    return documents.dumps({"zarr_consolidated_format": 1, "metadata": dict(metadata)})


def _inline(document: Mapping[str, Any], nodes: Mapping[str, Any]) -> bytes:
    return documents.dumps({**document, "consolidated_metadata": consolidated.build_inline(nodes)})
