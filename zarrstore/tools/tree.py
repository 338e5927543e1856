"""What a hierarchy looks like, and what it weighs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.nodes import Node, walk

__all__ = ["TreeNode", "Usage", "du", "tree"]


@dataclass(frozen=True)
class TreeNode:
    """An array or group with those below it; `str` draws it.

    Parameters
    ----------
    node : Node or None
        None for a directory without a document.
    path : str
        Where it is.
    children : tuple of TreeNode
        In natural order.
    """

    node: Node | None
    path: str
    children: tuple[TreeNode, ...] = field(default_factory=tuple)

    @property
    def label(self) -> str:
        """Name, shape and dtype: one line of the drawing."""
        name = k.name(self.path) or "/"
        if self.node is None or self.node.kind == "group":
            return name
        document = self.node.document
        dtype = document.get("dtype", document.get("data_type", "?"))
        chunks = document.get("chunks") or _v3_chunks(document)
        shape = _sizes(document.get("shape"))
        parts = [name, shape, dtype if isinstance(dtype, str) else "structure"]
        if chunks:
            parts.append(f"in chunks of {_sizes(chunks)}")
        return " ".join(parts)

    def __str__(self) -> str:
        return "\n".join(self._lines("", ""))

    def _lines(self, first: str, rest: str) -> list[str]:
        lines = [first + self.label]
        for n, child in enumerate(self.children, 1):
            last = n == len(self.children)
            lines += child._lines(rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "))
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return the tree as JSON can say it."""
        kind = self.node.kind if self.node else "directory"
        described: dict[str, Any] = {"path": self.path, "name": k.name(self.path), "kind": kind}
        if self.node is not None:
            described["zarr_format"] = self.node.version
            if self.node.kind == "array":
                described["metadata"] = dict(self.node.document)
        if self.children:
            described["children"] = [child.as_dict() for child in self.children]
        return described


def _v3_chunks(document: Mapping[str, Any]) -> Any:
    grid = document.get("chunk_grid")
    configuration = grid.get("configuration") if isinstance(grid, Mapping) else None
    return configuration.get("chunk_shape") if isinstance(configuration, Mapping) else None


def _sizes(sizes: Any) -> str:
    return f"({', '.join(map(str, sizes))})" if isinstance(sizes, list) else "?"


def tree(store: Mapping[str, Any], path: object = "", *, depth: int | None = None) -> TreeNode:
    """Return the arrays and groups at and below a path as a tree that prints itself.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed.
    path : str
        Its root.
    depth : int, optional
        How many levels to show.

    Raises
    ------
    KeyError
        Neither an array nor a group is at or below `path`.

    Notes
    -----
    Cost: as `walk`. Source: zarr 2 ``Group.tree``.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=(20, 20), chunks=(10, 10), dtype="i4", path="foo/bar")
    >>> init_array(store, shape=5, dtype="f8", path="baz")
    >>> print(tree(store))
    /
    ├── baz (5) <f8 in chunks of (5)
    └── foo
        └── bar (20, 20) <i4 in chunks of (10, 10)
    """
    at = k.normalize_path(path)
    nodes = {node.path: node for node in walk(store, at, depth=depth)}
    if not nodes:
        raise KeyError(at)
    below: dict[str, list[str]] = {}
    seen = {at}
    for found in nodes:
        while found not in seen:
            seen.add(found)
            below.setdefault(k.parent(found), []).append(found)
            found = k.parent(found)

    def grow(here: str) -> TreeNode:
        children = sorted(below.get(here, ()), key=k.natural_order)
        return TreeNode(nodes.get(here), here, tuple(map(grow, children)))

    return grow(at)


@dataclass(frozen=True)
class Usage:
    """What lies at and below a path.

    Parameters
    ----------
    path : str
        The path.
    nbytes : int, bytes
        Sum of all values; -1 if one cannot be known.
    nkeys : int
        Number of keys.
    """

    path: str
    nbytes: int
    nkeys: int


def du(store: Mapping[str, Any], path: object = "", *, depth: int | None = None) -> list[Usage]:
    """Return the bytes and keys at and below a path and each directory below it, the largest first.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed.
    path : str
        Where to begin.
    depth : int, optional
        How many levels of directories to report; all are counted.

    Returns
    -------
    list of Usage
        `path` itself is the first.

    Notes
    -----
    Recursive, unlike `getsize`. Cost: one listing of the keys, and one `getsize` a directory.

    Examples
    --------
    >>> du({"a/x": b"123", "a/b/y": b"4567", "c": b""})
    [Usage(path='', nbytes=7, nkeys=3), Usage(path='a', nbytes=7, nkeys=2), Usage(path='a/b', nbytes=4, nkeys=1)]
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    counts = Counter(k.parent(key) for key in adapted.keys_below(at))
    nbytes: Counter[str] = Counter()
    nkeys: Counter[str] = Counter()
    unknown: set[str] = set()
    for directory, count in counts.items():
        size = _directly_below(adapted, directory)
        for above in (directory, *k.parents(directory)):
            if above == at or k.is_below(above, at):
                nkeys[above] += count
                nbytes[above] += max(0, size)
                if size < 0:
                    unknown.add(above)
    if at and at in adapted:
        nkeys[at] += 1
        nbytes[at] += max(0, adapted.getsize(at))
    level = len(k.segments(at))
    usages = [
        Usage(here, -1 if here in unknown else nbytes[here], nkeys[here])
        for here in nkeys
        if depth is None or len(k.segments(here)) - level <= depth
    ]
    usages = usages or [Usage(at, 0, 0)]
    return sorted(usages, key=lambda usage: (usage.path != at, -usage.nbytes, k.natural_order(usage.path)))


def _directly_below(store: Any, directory: str) -> int:
    # A value may stand beside a directory of its name, and getsize would then speak of the value.
    if directory and directory in store:
        sizes = [store.getsize(key) for name in store.listdir(directory) if (key := k.join(directory, name)) in store]
        return -1 if min(sizes, default=0) < 0 else sum(sizes)
    return int(store.getsize(directory))
