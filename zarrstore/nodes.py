"""Walking a hierarchy: every array and group below a path, of version 1, 2 or 3, with what its documents say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import MetadataError, UnsupportedOperation
from zarrstore.metadata import documents

__all__ = ["Node", "walk"]

# The document that makes a node, its kind and its version, in the order in which they are looked for.
_MARKS = (
    (documents.ZARRAY, "array", 2),
    (documents.ZGROUP, "group", 2),
    (documents.ZARR_JSON, "", 3),
    (documents.META, "array", 1),
)


@dataclass(frozen=True)
class Node:
    """An array or a group.

    Parameters
    ----------
    path : str
        Where it is; ``""`` is the root.
    kind : {'array', 'group'}
        What it is.
    version : {1, 2, 3}
        Of the Zarr format.
    key : str
        Of the document that makes it.
    document : dict
        What that document says, parsed and not judged; empty if it cannot be parsed.
    error : MetadataError or None
        Why it cannot be parsed.

    Examples
    --------
    >>> Node("foo/bar", "array", 2, "foo/bar/.zarray", {"shape": [3]}).attrs_key
    'foo/bar/.zattrs'
    """

    path: str
    kind: str
    version: int
    key: str
    document: Mapping[str, Any]
    error: MetadataError | None = None

    @property
    def name(self) -> str:
        """The last segment of the path."""
        return k.name(self.path)

    @property
    def attrs_key(self) -> str:
        """Of the document that holds the attributes."""
        names = {1: documents.ATTRS, 2: documents.ZATTRS, 3: documents.ZARR_JSON}
        return k.join(self.path, names[self.version])


def walk(
    store: Mapping[str, Any],
    path: object = "",
    *,
    depth: int | None = None,
    on_error: Callable[[str, Exception], object] | None = None,
) -> Iterator[Node]:
    """Yield every array and group at or below a path, each before those below it, siblings in natural order.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed.
    path : str
        Where to begin.
    depth : int, optional
        How many levels below `path` to go.
    on_error : callable, optional
        Called with the path of a directory that cannot be listed, and the error, instead of raising it. A document
        that cannot be read then gives a node with that error.

    Notes
    -----
    Cost: one listing and one read a directory; chunks are not looked at, since what is below an array is no node. A
    directory without a document is walked through. A value that happens to be named ``meta`` makes no node unless it
    is version 1 metadata.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=3, path="a/10")
    >>> init_array(store, shape=3, path="a/9")
    >>> [(node.path, node.kind) for node in walk(store)]
    [('', 'group'), ('a', 'group'), ('a/9', 'array'), ('a/10', 'array')]
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    todo = [(at, 0)]
    while todo:
        here, level = todo.pop()
        try:
            names = _names(adapted, here)
        except Exception as exc:
            if on_error is None:
                raise
            on_error(here, exc)
            continue
        node = _node(adapted, here, names, tolerant=on_error is not None)
        if node is not None:
            yield node
            if node.kind == "array":
                continue
        if depth is None or level < depth:
            below = sorted((k.join(here, name) for name in names if not _is_document(name)), key=k.natural_order)
            todo.extend((child, level + 1) for child in reversed(below))


def _names(store: Store, path: str) -> list[str]:
    """Return the names in a directory; of an array in a store that cannot be listed, those of its documents."""
    try:
        return store.listdir(path)
    except UnsupportedOperation:
        names = [name for name, kind, _ in _MARKS if kind != "group" and k.join(path, name) in store]
        if documents.ZARRAY in names or _node(store, path, names, tolerant=False) is not None:
            return names
        raise


def _is_document(name: str) -> bool:
    return name in documents.DOCUMENTS


def _node(store: Store, path: str, names: list[str], tolerant: bool) -> Node | None:
    for document_name, kind, version in _MARKS:
        if document_name not in names:
            continue
        key = k.join(path, document_name)
        try:
            data = store.get(key)
        except Exception as exc:
            if not tolerant:
                raise
            return Node(path, kind or "group", version, key, {}, MetadataError(key, None, f"cannot be read: {exc}"))
        if data is None:  # a directory of that name, or deleted meanwhile
            continue
        try:
            document = documents.loads(data, key)
        except MetadataError as exc:
            if version != 1:
                return Node(path, kind or "group", version, key, {}, exc)
            continue
        if version == 1 and document.get("zarr_format") != 1:
            continue
        return Node(path, kind or str(document.get("node_type", "group")), version, key, document)
    return None
