"""Walking a hierarchy: every array and group below a path, of version 1, 2 or 3, with what its documents say."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import allowed
from zarrstore.base import Store
from zarrstore.errors import MetadataError, UnsupportedOperation
from zarrstore.metadata import documents
from zarrstore.targets import Target, opens
from zarrstore.tools.overlap import overlap, overlaps

__all__ = ["Node", "node_at", "walk"]

# The document that makes a node, its kind and its version, in the order in which they are looked for.
_MARKS = (
    (documents.ZARRAY, "array", 2),
    (documents.ZGROUP, "group", 2),
    (documents.ZARR_JSON, "", 3),
    (documents.META, "array", 1),
)
#: Which documents are asked for by name below a node of a version: all that come before what is probably there.
_GUESSES: dict[int | None, tuple[str, ...]] = {
    2: (documents.ZARRAY,),
    3: (documents.ZARRAY, documents.ZGROUP, documents.ZARR_JSON),
}
#: Directories that are looked at together, and places of the stack among which they are.
_AT_ONCE, _WINDOW = 512, 2048


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


@opens("iterator", store="r")
def walk(
    store: Target,
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
    Cost: one listing and one read a directory; chunks are not looked at, since what is below an array is no node. Where
    the store is `concurrent`, up to 512 directories are looked at together, and below a group the documents are asked
    for by name first, so that an array is one request (of version 3, three) and is never listed. A directory without a
    document is walked through; a stray value is asked nothing where the listing tells that nothing is below it. A value
    that happens to be named ``meta`` makes no node unless it is version 1 metadata.

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
    look = _Look(adapted, depth, tolerant=on_error is not None)
    todo: list[_Place | _Failure | Node] = [_Place(k.normalize_path(path), 0)]
    while todo:
        top = todo[-1]
        if isinstance(top, _Place):
            look.expand(todo)
            continue
        todo.pop()
        if isinstance(top, Node):
            yield top
        elif on_error is None:
            raise top.error
        else:
            on_error(top.path, top.error)


def node_at(store: Mapping[str, Any], path: object = "") -> Node | None:
    """Return the array or group at a path, None if neither is there. Cost: one read a document that may make it.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=3, path="a")
    >>> node_at(store).kind, node_at(store, "a").kind, node_at(store, "b")
    ('group', 'array', None)
    """
    return _node(k.normalize_path(path), [name for name, *_ in _MARKS], as_store(store).get, tolerant=False)


class _Place(NamedTuple):
    """A directory that was not looked at yet."""

    path: str
    level: int
    version: int | None = None  # of the nearest node above


class _Failure(NamedTuple):
    """A directory that cannot be listed, or a document that cannot be read."""

    path: str
    error: Exception


class _Look:
    """Looks at directories, several together where their waits overlap."""

    def __init__(self, store: Store, depth: int | None, tolerant: bool) -> None:
        self._store = store
        self._depth = depth
        self._tolerant = tolerant
        self._together = overlaps(store)

    def expand(self, todo: list[_Place | _Failure | Node]) -> None:
        """Put in the place of the last directories of a stack what is in them: the node last, which is taken first."""
        start = max(0, len(todo) - (_WINDOW if self._together else 1))
        window = todo[start:]
        del todo[start:]
        places = [item for item in reversed(window) if isinstance(item, _Place)][:_AT_ONCE]
        known = self._guess(places)
        results = overlap(self._store, lambda place: self._look_at(place, known), places)
        found = dict(zip(places, results, strict=True))
        for item in window:
            todo.extend(found.get(item, (item,)) if isinstance(item, _Place) else (item,))

    def _guess(self, places: Sequence[_Place]) -> dict[str, bytes | None]:
        """Read the documents that there probably are; what cannot be read is left out, and met again later."""
        if not self._together:
            return {}
        keys = [k.join(place.path, name) for place in places for name in _GUESSES.get(place.version, ())]
        known: dict[str, bytes | None] = {}
        # Documents are small. Where most are absent, no size is learned, and two would be asked for at a time.
        with allowed():
            found = self._store._get_many(keys)
        for key in keys:
            try:
                known[key] = found[key]
            except Exception as exc:
                if type(exc) is KeyError:
                    known[key] = None
        return known

    def _look_at(self, place: _Place, known: Mapping[str, bytes | None]) -> list[_Place | _Failure | Node]:
        """Return what is in a directory, in the order of a stack."""

        def read(key: str) -> bytes | None:
            return known[key] if key in known else self._store.get(key)

        path = place.path
        try:
            guessed = [name for name, *_ in _MARKS if known.get(k.join(path, name)) is not None]
            node = _node(path, guessed, read, self._tolerant) if guessed else None
            if node is not None and node.kind == "array":
                return [node]
            names = _names(self._store, path)
            node = _node(path, names, read, self._tolerant)
        except Exception as exc:
            return [_Failure(path, exc)]
        if node is not None and node.kind == "array":
            return [node]
        below = self._below(place, names, node)
        return [*below] if node is None else [*below, node]

    def _below(self, place: _Place, names: Mapping[str, bool], node: Node | None) -> list[_Place]:
        """Return the directories in one that holds no array, in the order of a stack."""
        if self._depth is not None and place.level >= self._depth:
            return []
        paths = (k.join(place.path, name) for name, is_path in names.items() if is_path and not _is_document(name))
        version = place.version if node is None else node.version
        below = [_Place(path, place.level + 1, version) for path in sorted(paths, key=k.natural_order)]
        return below[::-1]


def _names(store: Store, path: str) -> dict[str, bool]:
    """Return the names in a directory, and whether keys may be below each.

    Of an array in a store that cannot be listed, those of its documents.
    """
    try:
        return dict(store._list_children(path))
    except UnsupportedOperation:
        names = [name for name, kind, _ in _MARKS if kind != "group" and k.join(path, name) in store]
        if documents.ZARRAY in names or _node(path, names, store.get, tolerant=False) is not None:
            return dict.fromkeys(names, False)
        raise


def _is_document(name: str) -> bool:
    return name in documents.DOCUMENTS


def _node(path: str, names: Container[str], read: Callable[[str], bytes | None], tolerant: bool) -> Node | None:
    for document_name, kind, version in _MARKS:
        if document_name not in names:
            continue
        key = k.join(path, document_name)
        try:
            data = read(key)
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
