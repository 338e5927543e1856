"""The nodes of a hierarchy as its consolidated metadata repeats them: one read instead of a walk."""

from __future__ import annotations

from collections.abc import Iterator

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents
from zarrstore.nodes import Node

__all__ = ["repeated_nodes"]


def repeated_nodes(store: Store, path: str = "", depth: int | None = None) -> dict[str, Node]:
    """Return the nodes at and below a path by their paths; none where no consolidated metadata can be used.

    Parameters
    ----------
    store : Store
        Any store.
    path : str
        A normal path, where the consolidated metadata is.
    depth : int, optional
        How many levels below `path` are wanted.

    Notes
    -----
    Cost: one read, and a second if there is none of version 2. Whether it is stale is not looked for: see
    `check_consolidated`.

    Examples
    --------
    >>> from zarrstore import consolidate_metadata, init_array
    >>> from zarrstore.adapt import as_store
    >>> store = as_store({})
    >>> init_array(store, shape=3, path="a")
    >>> consolidate_metadata(store).close()
    >>> list(repeated_nodes(store))
    ['', 'a']
    """
    try:
        found = {node.path: node for node in _of_version_2(store, path) or _of_version_3(store, path)}
    except MetadataError:
        return {}
    level = len(k.segments(path))
    return {
        at: found[at]
        for at in sorted(found, key=k.natural_order)
        if depth is None or len(k.segments(at)) - level <= depth
    }


def _of_version_2(store: Store, path: str) -> list[Node]:
    key = k.join(path, documents.ZMETADATA)
    data = store.get(key)
    return [] if data is None else list(_nodes_of_version_2(data, key, path))


def _nodes_of_version_2(data: bytes, key: str, path: str) -> Iterator[Node]:
    from zarrstore.metadata import consolidated

    kinds = {documents.ZARRAY: "array", documents.ZGROUP: "group"}
    held = consolidated.parse(data, key)
    # An array before a group at the same path, as a walk takes them.
    for name in sorted(held, key=lambda name: k.name(name) == documents.ZARRAY):
        if (kind := kinds.get(k.name(name))) is not None:
            yield Node(k.join(path, k.parent(name)), kind, 2, k.join(path, name), held[name])


def _of_version_3(store: Store, path: str) -> list[Node]:
    key = k.join(path, documents.ZARR_JSON)
    data = store.get(key)
    if data is None:
        return []
    from zarrstore.metadata import consolidated

    document = documents.loads(data, key)
    repeated = consolidated.parse_inline(document, key)
    if repeated is None:
        return []
    nodes = [Node(path, "group", 3, key, document)]
    for name, node in repeated.items():
        at = k.join(path, name)
        nodes.append(Node(at, str(node.get("node_type", "group")), 3, k.join(at, documents.ZARR_JSON), node))
    return nodes
