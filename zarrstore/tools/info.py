"""What a store is, and what a node in it is: the facts that ``zarrstore info`` prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import MetadataError
from zarrstore.metadata import chunking, documents, v2
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3
from zarrstore.nodes import Node, node_at
from zarrstore.spelling import LIMIT, chunk_keys_of
from zarrstore.targets import Target, opens
from zarrstore.tools.grid import regular_grid
from zarrstore.tools.holding import is_document
from zarrstore.tools.listing import MAX_QUESTIONS, listing_of, present
from zarrstore.wrappers.base import Wrapper

__all__ = ["chunk_facts", "describe_node", "describe_store"]


@opens(store="r")
def describe_store(store: Target) -> dict[str, Any]:
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


@opens(store="r")
def describe_node(store: Target, path: object = "", *, max_questions: int | None = MAX_QUESTIONS) -> dict[str, Any]:
    """Return what an array or a group is: its documents, its attributes, and for an array its chunks.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping. One that cannot be listed is asked for its chunks by name, see `copy_store`.
    path : str
        Where it is.
    max_questions : int or None, default 1,000,000
        Of a store that cannot be listed: the largest number of chunks that may be asked for by name. None sets no
        limit.

    Returns
    -------
    dict
        ``path``, ``kind`` ('array', 'group' or 'directory'), ``zarr_format``, ``metadata``, ``attributes``; of an
        array also ``chunks_initialized``, ``chunks_expected`` and ``nbytes_stored``; of a group ``children``.

    Raises
    ------
    KeyError
        Nothing is at `path`.
    UnsupportedOperation
        The store cannot be listed, and the array has more chunks than `max_questions`.

    Notes
    -----
    Cost: two reads, one more for each older kind of document that is not there, and for an array one listing of its
    keys, and one question for each size that the listing does not tell.

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
    node = node_at(adapted, at)
    if node is None:
        names = adapted.listdir(at)
        if not names and at:
            from zarrstore.tools.nearby import absent

            raise absent(adapted, at)
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
        described.update(chunk_facts(adapted, node, max_questions))
    return described


def _attributes(store: Store, node: Node) -> Mapping[str, Any]:
    if node.version == 3:
        found = node.document.get("attributes", {})
        return found if isinstance(found, Mapping) else {}
    data = store.get(node.attrs_key)
    return {} if data is None else documents.loads(data, node.attrs_key)


def chunk_facts(store: Store, node: Node, max_questions: int | None = MAX_QUESTIONS) -> dict[str, Any]:
    """Return what the chunks of an array are: how many of how many, and their bytes. Cost: one listing of its keys.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=4, chunks=2, path="a")
    >>> chunk_facts(as_store(store), node_at(store, "a"))["chunks_initialized"]
    0
    """
    facts: dict[str, Any] = {}
    rule, grid = None, None
    listing = listing_of(store, node.path, details=True, max_questions=max_questions)
    entries = iter(listing.entries)
    # The first of them tell how chunks are spelled where the document does not.
    first = list(islice(entries, LIMIT)) if listing.certain else []
    try:
        if node.error is None:
            rule, grid = _rule(store, node, [entry.key for entry in first] if listing.certain else None), _grid(node)
            facts.update(_expected(node, grid))
    except MetadataError as exc:
        facts["error"] = str(exc)
    there = present(store, replace(listing, entries=chain(first, entries)))
    values = (entry for entry in there if not is_document(entry.key))
    count, nbytes = _count_and_sum(entry.nbytes for entry in values if _is_chunk(rule, grid, entry.key, node.path))
    return {"chunks_initialized": count, **facts, "nbytes_stored": nbytes, **_shares(facts, count, nbytes)}


def _shares(facts: Mapping[str, Any], count: int, nbytes: int) -> dict[str, float]:
    """Return which part of the chunks is written, and how far they are compressed; what is not known is left out."""
    expected, whole = facts.get("chunks_expected"), facts.get("nbytes")
    if not expected:
        return {}
    shares = {"written_share": round(count / expected, 4)}
    if whole and nbytes > 0:
        # Of what is written: an array of which half is missing does not compress twice as well.
        shares["ratio"] = round(whole * count / expected / nbytes, 3)
    return shares


def _count_and_sum(sizes: Iterable[int]) -> tuple[int, int]:
    """Return how many sizes there are and their sum, -1 if one of them is not known."""
    count = total = 0
    unknown = False
    for size in sizes:
        count += 1
        total += max(0, size)
        unknown = unknown or size < 0
    return count, -1 if unknown else total


def _rule(store: Store, node: Node, keys: Iterable[str] | None) -> ChunkKeys:
    """Return how the chunks of an array are named, by its document and by what is there."""
    if node.version == 2:
        return chunk_keys_of(store, node.path, v2.check_array(node.document, node.key), keys=keys)
    if node.version == 3:
        return chunk_keys_of_v3(node.document, node.key)
    return ChunkKeys("v2", ".", len(node.document.get("shape", ())))


def _is_chunk(rule: ChunkKeys | None, grid: tuple[int, ...] | None, key: str, path: str) -> bool:
    """Tell whether a key is that of a chunk within the grid, and not what a desktop left. Without a rule, all are."""
    if rule is None:
        return True
    position = rule.coords(key, path)
    return position is not None and (grid is None or all(i < n for i, n in zip(position, grid, strict=True)))


def _grid(node: Node) -> tuple[int, ...] | None:
    if node.version == 2:
        return v2.check_array(node.document, node.key).grid_shape
    return chunking.grid_shape(*regular_grid(node.document, node.key)) if node.version == 3 else None


def _expected(node: Node, grid: tuple[int, ...] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {} if grid is None else {"chunks_expected": math.prod(grid)}
    if node.version == 2:
        meta = v2.check_array(node.document, node.key)
        if not meta.numpy_dtype.hasobject:
            facts["nbytes"] = math.prod(meta.shape) * meta.numpy_dtype.itemsize
    return facts
