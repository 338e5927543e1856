"""What a hierarchy looks like, and how many bytes it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Entry
from zarrstore.nodes import Node, walk
from zarrstore.shown import STYLE, Shown, clip, escape, fold, human_bytes, printable
from zarrstore.targets import Target, opens
from zarrstore.tools.info import chunk_facts
from zarrstore.tools.listing import MAX_QUESTIONS, listing_of, present
from zarrstore.tools.overlap import overlap
from zarrstore.tools.repeated import repeated_nodes

__all__ = ["TreeNode", "Usage", "Usages", "du", "tree"]


@dataclass(frozen=True, repr=False)
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
    facts : mapping
        What ``tree(..., sizes=True)`` found of an array: `chunks_initialized`, `chunks_expected`, `nbytes` and
        `nbytes_stored`.
    """

    node: Node | None
    path: str
    children: tuple[TreeNode, ...] = field(default_factory=tuple)
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

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
        return " ".join([*parts, *self._amounts()])

    def _amounts(self) -> list[str]:
        """Bytes, ratio and how much is written, where they are known."""
        stored, written = self.facts.get("nbytes_stored", -1), self.facts.get("chunks_initialized", 0)
        if stored < 0:
            return []
        parts = [f"· {human_bytes(stored)}"]
        expected, nbytes = self.facts.get("chunks_expected"), self.facts.get("nbytes")
        if expected:
            parts.append(f"· {written / expected:.0%} written")
        if expected and nbytes and stored:
            parts.append(f"· ratio {nbytes * written / expected / stored:.1f}")
        return parts

    def __repr__(self) -> str:
        return clip("\n".join(map(printable, str(self).split("\n"))))

    def _repr_html_(self) -> str:
        return f'<div style="{STYLE}">{self._html(0)}</div>'

    def _html(self, level: int) -> str:
        is_array = self.node is not None and self.node.kind == "array"
        name = k.name(self.path) or "/"
        rest = f'<span style="opacity:.7">{escape(self.label[len(name) :])}</span>' if is_array else ""
        line = f"{'▦ ' if is_array else ''}<b>{escape(name)}</b>{rest}"
        if not self.children:
            return f'<div style="margin-left:1.2em">{line}</div>'
        inside = "".join(child._html(level + 1) for child in self.children[:_CHILDREN])
        if len(self.children) > _CHILDREN:
            inside += f'<div style="margin-left:1.2em">… and {len(self.children) - _CHILDREN:,} more</div>'
        return fold(line, inside, is_open=level < 2)

    def __str__(self) -> str:
        return "\n".join(self._lines("", ""))

    def _lines(self, first: str, rest: str) -> list[str]:
        lines = [first + self.label]
        for n, child in enumerate(self.children, 1):
            last = n == len(self.children)
            lines += child._lines(rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "))
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return the tree as values that JSON can express."""
        kind = self.node.kind if self.node else "directory"
        described: dict[str, Any] = {"path": self.path, "name": k.name(self.path), "kind": kind}
        if self.node is not None:
            described["zarr_format"] = self.node.version
            if self.node.kind == "array":
                described["metadata"] = dict(self.node.document)
        if self.children:
            described["children"] = [child.as_dict() for child in self.children]
        return described


#: Children of one group that a notebook shows.
_CHILDREN = 100


def _v3_chunks(document: Mapping[str, Any]) -> Any:
    grid = document.get("chunk_grid")
    configuration = grid.get("configuration") if isinstance(grid, Mapping) else None
    return configuration.get("chunk_shape") if isinstance(configuration, Mapping) else None


def _sizes(sizes: Any) -> str:
    return f"({', '.join(map(str, sizes))})" if isinstance(sizes, list) else "?"


@opens(store="r")
def tree(
    store: Target, path: object = "", *, depth: int | None = None, consolidated: bool = True, sizes: bool = False
) -> TreeNode:
    """Return the arrays and groups at and below a path as a tree that prints itself.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed.
    path : str
        Its root.
    depth : int, optional
        How many levels to show.
    consolidated : bool, default True
        Take the consolidated metadata at `path` for what is there, as readers do. False looks into each directory.
    sizes : bool, default False
        Look at the chunks of each array too: bytes, ratio and how much is written. Cost: one listing an array.

    Raises
    ------
    KeyError
        Neither an array nor a group is at or below `path`.

    Notes
    -----
    Cost: one read with consolidated metadata of version 2, two of version 3; else as `walk`. Source: zarr 2
    ``Group.tree``.

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
    adapted = as_store(store)
    nodes = repeated_nodes(adapted, at, depth) if consolidated else {}
    nodes = nodes or {node.path: node for node in walk(adapted, at, depth=depth)}
    if not nodes:
        from zarrstore.tools.nearby import absent

        raise absent(adapted, at, "array or group")
    children: dict[str, list[str]] = {}
    seen = {at}
    for directory in nodes:
        while directory not in seen:
            seen.add(directory)
            children.setdefault(k.parent(directory), []).append(directory)
            directory = k.parent(directory)

    arrays = [node for node in nodes.values() if sizes and node.kind == "array"]
    facts = dict(
        zip((node.path for node in arrays), overlap(adapted, partial(chunk_facts, adapted), arrays), strict=True)
    )

    def subtree(directory: str) -> TreeNode:
        ordered = sorted(children.get(directory, ()), key=k.natural_order)
        return TreeNode(nodes.get(directory), directory, tuple(map(subtree, ordered)), facts.get(directory, {}))

    return subtree(at)


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


class Usages(list[Usage], Shown):
    """What lies at and below each directory: a list that shows itself as a table."""

    def _title(self) -> str:
        return f"{human_bytes(self[0].nbytes)} in {self[0].nkeys:,} keys" if self else "nothing"

    def _headers(self) -> tuple[str, ...]:
        return ("bytes", "", "keys", "path")

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (f"{one.nbytes:,}" if one.nbytes >= 0 else "?", human_bytes(one.nbytes), f"{one.nkeys:,}", one.path or "/")
            for one in self
        ]

    __repr__ = Shown.__repr__


@opens(store="r")
def du(
    store: Target,
    path: object = "",
    *,
    depth: int | None = None,
    max_questions: int | None = MAX_QUESTIONS,
) -> Usages:
    """Return the bytes and keys at and below a path and each directory below it, the largest first.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str
        Where to begin.
    depth : int, optional
        How many levels of directories to report; all are counted.
    max_questions : int or None
        See `copy_store`.

    Returns
    -------
    list of Usage
        `path` itself is the first.

    Notes
    -----
    Recursive, unlike `getsize`. Cost: one listing; one question for each size that the listing does not
    tell, overlapped where the store can. A store that cannot be listed is counted by the grid, see `copy_store`.
    Memory: the directories that are reported.

    Examples
    --------
    >>> du({"a/x": b"123", "a/b/y": b"4567", "c": b""})
    7 B in 3 keys
      bytes       keys  path
      7      7 B  3     /
      7      7 B  2     a
      4      4 B  1     a/b
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    listing = listing_of(adapted, at, details=True, max_questions=max_questions)
    if at and at in adapted:
        listing = replace(listing, entries=chain([Entry(at)], listing.entries))
    nbytes: Counter[str] = Counter()
    nkeys: Counter[str] = Counter()
    unknown: set[str] = set()
    level = len(k.segments(at))
    for entry in present(adapted, listing):
        for directory in (at, *_between(entry.key, level, depth)):
            nkeys[directory] += 1
            nbytes[directory] += max(0, entry.nbytes)
            if entry.nbytes < 0:
                unknown.add(directory)
    usages = [Usage(here, -1 if here in unknown else nbytes[here], nkeys[here]) for here in nkeys]
    usages = usages or [Usage(at, 0, 0)]
    return Usages(sorted(usages, key=lambda usage: (usage.path != at, -usage.nbytes, k.natural_order(usage.path))))


def _between(key: str, level: int, depth: int | None) -> Iterator[str]:
    """Yield the directories of a key that lie below the level of the path, as many levels as are reported."""
    return islice(k.parents(key), level + 1, None if depth is None else level + 1 + depth)
