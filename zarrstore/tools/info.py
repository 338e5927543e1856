"""What a store is, and what a node in it is: the facts that ``zarrstore info`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import MetadataError
from zarrstore.metadata import chunking, documents, v2
from zarrstore.nodes import Node, walk
from zarrstore.tools.grid import regular_grid
from zarrstore.tools.listing import listing_of, present
from zarrstore.wrappers.base import Wrapper

__all__ = ["describe_node", "describe_store"]


def describe_store(store: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a store is: its class, what it can do, and what its backend describes.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping. Of a wrapper, the store within is described.

    Returns
    -------
    dict
        ``store`` (class), ``capabilities`` (those that hold), and what the backend's ``describe()`` returns:
        ``implementation``, ``entries``, ``live_bytes``, ``dead_bytes`` and others.

    Examples
    --------
    >>> describe_store({"a": b"1"})["store"]
    'KVStore'
    """
    inner: Store = as_store(store)
    while isinstance(inner, Wrapper):
        inner = inner.inner
    flags = inner.capabilities
    described: dict[str, Any] = {
        "store": type(inner).__name__,
        "capabilities": [name for name in flags.__slots__ if getattr(flags, name)],
    }
    describe = getattr(inner, "describe", None)
    if describe is not None:
        described.update(describe())
    return described


def describe_node(store: Mapping[str, Any], path: object = "") -> dict[str, Any]:
    """Return what an array or a group is: its documents, its attributes, and for an array its chunks.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping. One that cannot be listed is asked for its chunks by name, see `copy_store`.
    path : str
        Where it is.

    Returns
    -------
    dict
        ``path``, ``kind`` ('array', 'group' or 'directory'), ``zarr_format``, ``metadata``, ``attributes``; of an
        array also ``chunks_initialized``, ``chunks_expected`` and ``nbytes_stored``; of a group ``children``.

    Raises
    ------
    KeyError
        Nothing is at `path`.

    Notes
    -----
    Cost: two reads, and for an array one listing of its keys, and one question for each size that the listing does not
    tell.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=4, chunks=2, path="a")
    >>> store["a/0"] = b"data"
    >>> facts = describe_node(store, "a")
    >>> facts["kind"], facts["chunks_initialized"], facts["chunks_expected"], facts["nbytes_stored"]
    ('array', 1, 2, 4)
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    node = next(walk(adapted, at, depth=0), None)
    if node is None:
        names = adapted.listdir(at)
        if not names and at:
            raise KeyError(at)
        return {"path": at, "kind": "directory", "children": names}
    described: dict[str, Any] = {
        "path": at,
        "kind": node.kind,
        "zarr_format": node.version,
        "metadata": {name: value for name, value in node.document.items() if name != "attributes"},
        "attributes": _attributes(adapted, node),
    }
    if node.error is not None:
        described["error"] = str(node.error)
    if node.kind == "group":
        described["children"] = [name for name in adapted.listdir(at) if name not in documents.DOCUMENTS]
    else:
        described.update(_chunks(adapted, node))
    return described


def _attributes(store: Store, node: Node) -> Mapping[str, Any]:
    if node.version == 3:
        found = node.document.get("attributes", {})
        return found if isinstance(found, Mapping) else {}
    data = store.get(node.attrs_key)
    return {} if data is None else documents.loads(data, node.attrs_key)


def _chunks(store: Store, node: Node) -> dict[str, Any]:
    count = nbytes = 0
    unknown = False
    for entry in present(store, listing_of(store, node.path, details=True)):
        if _is_chunk(entry.key, node):
            count += 1
            nbytes += max(0, entry.nbytes)
            unknown = unknown or entry.nbytes < 0
    facts: dict[str, Any] = {"chunks_initialized": count}
    try:
        if node.error is None:
            facts.update(_expected(node))
    except MetadataError as exc:
        facts["error"] = str(exc)
    facts["nbytes_stored"] = -1 if unknown else nbytes
    return facts


def _is_chunk(key: str, node: Node) -> bool:
    """Tell whether a key has the name of a chunk: neither a document nor what a desktop left."""
    if any(k.chunk_coords(key, node.path, separator) is not None for separator in "./"):
        return True
    below = k.replace_root(key, node.path, "")
    return node.version == 3 and (below == "c" or k.is_below(below, "c") or below.startswith("c."))


def _expected(node: Node) -> dict[str, Any]:
    if node.version == 2:
        meta = v2.check_array(node.document, node.key)
        facts: dict[str, Any] = {"chunks_expected": meta.n_chunks}
        if not meta.numpy_dtype.hasobject:
            facts["nbytes"] = math.prod(meta.shape) * meta.numpy_dtype.itemsize
        return facts
    if node.version == 3:
        shape, lengths = regular_grid(node.document, node.key)
        return {"chunks_expected": chunking.n_chunks(shape, lengths)}
    return {}
