"""The keys of a hierarchy that cannot be listed: documents from the one that repeats them, chunks from their grids.

A web server has no listing that can be relied on. What a reader of the hierarchy can reach there is known all the same:
the consolidated metadata (or the document of a single array) names the documents, and the documents say which chunks
there may be. Each of those is asked for by its name; one that is absent was never written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.errors import MetadataError, UnsupportedOperation
from zarrstore.metadata import chunking, documents, v2
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3
from zarrstore.spelling import spellings_of

__all__ = ["Grid", "grid_of", "regular_grid"]


@dataclass(frozen=True)
class _Array:
    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    rules: tuple[ChunkKeys, ...]

    def names(self) -> Iterator[str]:
        for position in chunking.chunk_grid(self.shape, self.chunks):
            for rule in self.rules:
                yield rule.key(self.path, position)

    @property
    def count(self) -> int:
        return chunking.n_chunks(self.shape, self.chunks) * len(self.rules)


@dataclass
class Grid:
    """What a hierarchy that cannot be listed may hold.

    Parameters
    ----------
    documents : list of str
        Keys of the documents, sorted.
    notes : list of str
        What the documents cannot tell.
    """

    documents: list[str]
    notes: list[str] = field(default_factory=list)
    _arrays: list[_Array] = field(default_factory=list)

    @property
    def n_questions(self) -> int:
        """How many chunks are asked for by name."""
        return sum(array.count for array in self._arrays)

    def chunks(self, path: str = "") -> Iterator[str]:
        """Yield the key of every chunk that there may be at and below a path."""
        for array in self._arrays:
            if not path or array.path == path or k.is_below(array.path, path):
                yield from array.names()
            elif k.is_below(path, array.path):
                yield from (key for key in array.names() if k.is_below(key, path))

    def check(self, store: Store, max_questions: int | None) -> None:
        """Raise UnsupportedOperation if more chunks would be asked for than are allowed."""
        if max_questions is not None and self.n_questions > max_questions:
            raise UnsupportedOperation(
                "be listed",
                store,
                f"its documents name {self.n_questions:,} chunks, and each of them would be asked for by name: "
                f"more than {max_questions:,} only with max_questions={self.n_questions}",
            )


def grid_of(store: Store, path: str = "") -> Grid:
    """Return what documents and chunks there may be at and below a path of a store that cannot be listed.

    Parameters
    ----------
    store : Store
        Reads of single keys are all that is asked of it.
    path : str
        A normal path.

    Raises
    ------
    UnsupportedOperation
        There is no consolidated metadata at `path` or above it, and no array at `path`.
    MetadataError
        The consolidated metadata is damaged.

    Notes
    -----
    Cost: one read for each level of `path` or less; for an array of version 2 whose document has no
    ``dimension_separator``, up to 32 questions more, since such arrays exist in both spellings.

    Examples
    --------
    >>> from zarrstore import DictStore, init_array
    >>> store = DictStore()
    >>> init_array(store, shape=4, chunks=2)
    >>> grid = grid_of(store)
    >>> grid.documents, list(grid.chunks())
    (['.zarray'], ['0', '1'])
    """
    found = _documents(store, path)
    if not found:
        raise UnsupportedOperation(
            "be listed",
            store,
            f"there is no consolidated metadata at {path or '/'!r} or above, which would name the arrays; write it "
            "where the data can be listed: zarrstore consolidate",
        )
    # The document of an array around the path is read for its grid, and lies outside of the path.
    keys = sorted(key for key in found if not path or k.is_below(key, path))
    grid = Grid(keys, [f"{store} cannot be listed: keys that no document names are not seen"])
    for key, document in sorted(found.items(), key=itemgetter(0)):
        if document is None:
            continue
        try:
            array = _array(store, key, document)
        except MetadataError as exc:
            grid.notes.append(f"{key}: its chunks cannot be named: {exc}")
            continue
        if array is not None:
            grid._arrays.append(array)
    grid._arrays = _without_repeats(grid._arrays)
    return grid


def _without_repeats(arrays: Iterable[_Array]) -> list[_Array]:
    # An array with documents of both versions stands there twice, as a rule with the same names of chunks.
    distinct: dict[_Array, None] = {}
    for array in arrays:
        same_grid = [
            other
            for other in distinct
            if (other.path, other.shape, other.chunks) == (array.path, array.shape, array.chunks)
        ]
        if any(set(array.rules) <= set(other.rules) for other in same_grid):
            continue
        distinct[array] = None
    return list(distinct)


def _documents(store: Store, path: str) -> dict[str, Mapping[str, Any] | None]:
    """Return the documents at and below a path by key; None for those that are no node (attributes, consolidated)."""
    for root in reversed([*k.parents(path), path]):
        found = _consolidated(store, root)
        if found:
            below = {key: document for key, document in found.items() if not path or k.is_below(key, path)}
            return below or _inside_an_array(found, path)
    return _single_array(store, path)


def _inside_an_array(found: Mapping[str, Mapping[str, Any] | None], path: str) -> dict[str, Mapping[str, Any] | None]:
    """Return the document of the array around a path, if it lies within one: chunks of the nested spelling."""
    names = (documents.ZARRAY, documents.ZARR_JSON)
    around = [k.join(above, name) for above in k.parents(path) for name in names]
    return {key: found[key] for key in around if key in found and _is_array(key, found[key])}


def _is_array(key: str, document: Mapping[str, Any] | None) -> bool:
    return k.name(key) == documents.ZARRAY or (document or {}).get("node_type") == "array"


def _read(store: Store, key: str) -> bytes | None:
    try:
        return store._get(key)
    except KeyError:
        return None


def _consolidated(store: Store, root: str) -> dict[str, Mapping[str, Any] | None]:
    from zarrstore.metadata import consolidated

    found: dict[str, Mapping[str, Any] | None] = {}
    key = k.join(root, documents.ZMETADATA)
    data = _read(store, key)
    if data is not None:
        found[key] = None
        for name, document in consolidated.parse(data, key, strict=False).items():
            found[k.join(root, name)] = document
    key = k.join(root, documents.ZARR_JSON)
    data = _read(store, key)
    if data is not None:
        document = documents.loads(data, key)
        nodes = consolidated.parse_inline(document, key)
        if nodes is not None or found:
            found[key] = document
        for name, node in (nodes or {}).items():
            found[k.join(root, name, documents.ZARR_JSON)] = node
    return found


def _single_array(store: Store, path: str) -> dict[str, Mapping[str, Any] | None]:
    found: dict[str, Mapping[str, Any] | None] = {}
    for name in (documents.ZARRAY, documents.ZARR_JSON):
        key = k.join(path, name)
        data = _read(store, key)
        if data is not None:
            document = documents.loads(data, key)
            if _is_array(key, document):
                found[key] = document
    attributes = k.join(path, documents.ZATTRS)
    if found and store._contains(attributes):
        found[attributes] = None
    return found


def _array(store: Store, key: str, document: Mapping[str, Any]) -> _Array | None:
    """Return the grid of an array from its document; None if it is a group, or attributes."""
    path = k.parent(key)
    if k.name(key) == documents.ZARRAY:
        meta = v2.check_array(document, key)
        return _Array(path, meta.shape, meta.chunks, _rules(store, path, meta))
    if k.name(key) != documents.ZARR_JSON or document.get("node_type") != "array":
        return None
    return _Array(path, *regular_grid(document, key), (chunk_keys_of_v3(document, key),))


def _rules(store: Store, path: str, meta: v2.ArrayMeta) -> tuple[ChunkKeys, ...]:
    """Return how an array may name its chunks: both ways, if its document and its first chunks do not tell."""
    ndim = len(meta.shape)
    separators = {meta.dimension_separator} if meta.dimension_separator else spellings_of(store, path, meta).separators
    return tuple(ChunkKeys("v2", separator, ndim) for separator in (sorted(separators) or (".", "/")[: max(1, ndim)]))


def regular_grid(document: Mapping[str, Any], key: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return shape and chunk shape of a version 3 array; of a sharded one the shape of a shard, which is one value.

    Raises
    ------
    MetadataError
        The grid is not regular, or a length is no whole number.
    """
    grid = document.get("chunk_grid")
    if not isinstance(grid, Mapping) or grid.get("name") != "regular":
        raise MetadataError(key, "chunk_grid", f"is {grid!r}, and a regular grid is expected")
    configuration = grid.get("configuration")
    lengths = configuration.get("chunk_shape") if isinstance(configuration, Mapping) else None
    shape = document.get("shape")
    if not (isinstance(shape, list) and isinstance(lengths, list) and len(shape) == len(lengths)):
        raise MetadataError(key, "chunk_grid", "does not give one length for each axis of the shape")
    try:
        return chunking.normalize_shape(shape), tuple(chunking.normalize_shape(max(1, n))[0] for n in lengths)
    except (TypeError, ValueError) as exc:
        raise MetadataError(key, "shape", str(exc)) from None
