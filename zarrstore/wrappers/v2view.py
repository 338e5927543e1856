"""A version 3 hierarchy under version 2 keys, so that old programs read and write new stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from zarrstore import keys as k
from zarrstore.allowance import allowed
from zarrstore.base import Store
from zarrstore.batch import LazyItems, batches
from zarrstore.chunknames import chunk_name, is_chunk_name
from zarrstore.errors import (
    InvalidKeyError,
    MetadataError,
    NotRepresentableError,
    ReadOnlyError,
    UnsupportedOperation,
)
from zarrstore.metadata import documents, v3
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3
from zarrstore.metadata.documents import ZARR_JSON, ZARRAY, ZATTRS, ZGROUP, ZMETADATA, deletion_order
from zarrstore.targets import Target
from zarrstore.wrappers._v2documents import document_of, names_of, with_attrs, with_document
from zarrstore.wrappers._views import MAX_BATCH_BYTES, MAX_BATCH_KEYS, Shared, View, may_name_a_chunk

__all__ = ["V2View"]

#: Stands for a document that cannot be parsed: it is listed as an array's, and reading that says what is wrong.
_DAMAGED: dict[str, Any] = {"node_type": "array"}
_SHOWN = frozenset({ZARRAY, ZGROUP, ZATTRS, ZMETADATA})
_HIDDEN = _SHOWN | {ZARR_JSON}


class V2View(View):
    """The version 3 hierarchy in `inner`, with the keys and documents of version 2; chunks pass through untouched.

    Parameters
    ----------
    inner : Mapping
        Holds ``zarr.json`` documents and their chunks, or nothing yet.
    dimension_separator : {'.', '/'}, default '.'
        How the names of chunks are spelled here. The other spelling is understood too.

    Notes
    -----
    ``.zarray``, ``.zgroup`` and ``.zattrs`` are read off ``zarr.json`` and written into it, ``.zmetadata`` is its
    inline form; `metadata.v3` says what becomes of each member (a null fill value becomes 0). An array that version 2
    cannot describe (sharding) is listed; reading its ``.zarray`` raises NotRepresentableError with the reason, which
    Zarr takes for absence, so that the rest can be walked; `unreadable` lists such arrays. Attributes
    that are set where no node is make a group, which a later ``.zarray`` turns into an array. A chunk is refused before
    its array is there, because its name in `inner` depends on the array's document. Keys that belong to no hierarchy
    pass through.

    Cost: one read for a document; that of `inner` for a chunk, since the naming of an array's chunks is remembered
    (`invalidate` forgets it); listing an array lists its chunks. Threads: safe, as far as `inner` is. Crash: each
    document is one value. Deleting ``.zarray`` or ``.zgroup`` deletes the attributes too, which live in one document.

    Examples
    --------
    >>> inner = {}
    >>> view = V2View(inner)
    >>> from zarrstore.metadata import v2
    >>> meta = v2.build_array(shape=(4, 4), chunks=(2, 2), dtype="i4", fill_value=0)
    >>> view.update({"a/.zarray": v2.encode_array(meta), "a/0.1": b"chunk"})
    >>> sorted(inner), sorted(view)
    (['a/c/0/1', 'a/zarr.json'], ['a/.zarray', 'a/0.1'])
    >>> v2.decode_array(view["a/.zarray"]) == meta
    True
    """

    # A chunk's key in `inner` depends on the document of its array.
    _documents_first = True
    _aliases = True
    _refused_documents = frozenset({ZARR_JSON})
    #: How `inner` names the chunks of the arrays that were read so far.
    _arrays: dict[str, ChunkKeys]

    def __init__(self, inner: Target, dimension_separator: Literal[".", "/"] = ".") -> None:
        super().__init__(inner, dimension_separator)

    # Nodes ---------------------------------------------------------------------------------------------------------

    def _node(self, path: str, data: bytes | None = None) -> dict[str, Any]:
        """Return the document of the node at `path`, read now unless it is given; raise KeyError if there is none."""
        key = k.join(path, ZARR_JSON)
        return self._judge(path, documents.loads(self.inner._get(key) if data is None else data, key))

    def _node_or_none(self, path: str) -> dict[str, Any] | None:
        try:
            return self._node(path)
        except KeyError:
            return None

    def _judge(self, path: str, node: dict[str, Any]) -> dict[str, Any]:
        key = k.join(path, ZARR_JSON)
        self._arrays.pop(path, None)
        if not isinstance(node.get("attributes") or {}, dict):
            raise MetadataError(key, "attributes", "is no object")
        if v3.node_type(node, key) == "array":
            self._arrays[path] = chunk_keys_of_v3(node, key)
        return node

    def _array_of(self, key: str) -> str | None:
        """Return the array that `key` lies below, if it lies below one."""
        ancestors = list(k.parents(key))
        for path in ancestors:
            if path in self._arrays:
                return path
        for path in reversed(ancestors):
            node = self._node_or_none(path)
            if node is not None:
                return path if path in self._arrays else None
        return None

    def _chunk_key(self, key: str, array: str) -> str | None:
        """Return the key in `inner` of a chunk key, in either spelling; None if it names no chunk."""
        inner_rule = self._arrays[array]
        for separator in (".", "/"):
            coords = ChunkKeys("v2", separator, inner_rule.ndim).coords(key, array)
            if coords is not None:
                return inner_rule.key(array, coords)
        return None

    def _is_computed(self, key: str) -> bool:
        return k.name(key) in _SHOWN

    def _inner_key(self, key: str) -> str:
        """Return the key of `inner` that is shown as `key`; raise KeyError if none can be."""
        name = k.name(key)
        if name == ZARR_JSON:
            raise KeyError(key)
        if not may_name_a_chunk(name):
            return key
        array = self._array_of(key)
        if array is None:
            if is_chunk_name(name):
                raise KeyError(key)
            return key
        inner_key = self._chunk_key(key, array)
        if inner_key is not None:
            return inner_key
        # A chunk under the name that only version 3 knows; a chunk of more axes than the array has.
        if is_chunk_name(name) or self._arrays[array].loose_coords(key, array) is not None:
            raise KeyError(key)
        return key

    def _settable(self, key: str) -> str:
        try:
            return self._inner_key(key)
        except KeyError:
            name = k.name(key)
            if name == ZARR_JSON:
                raise InvalidKeyError(key, f"{name!r} is not shown here: set .zarray, .zgroup or .zattrs") from None
            array = self._array_of(key)
            if array is None:
                raise _no_array_yet(key, self) from None
            axes = self._arrays[array].ndim
            raise InvalidKeyError(key, f"the array {array!r} has {axes} axes, and its chunks version 2 names") from None

    def _shown_key(self, key: str, array: str) -> str | None:
        """Return the key under which a key below `array` appears here, None if it does not appear."""
        if k.name(key) in _HIDDEN:
            return None
        coords = self._arrays[array].coords(key, array)
        if coords is not None:
            return k.join(array, chunk_name(coords, self._dimension_separator or "."))
        # What else is named like a chunk, of either version, cannot be distinguished from one here.
        return None if may_name_a_chunk(k.name(key)) else key

    # Documents -----------------------------------------------------------------------------------------------------

    def _document(self, path: str, name: str, data: bytes | None = None) -> bytes:
        node = self._node(path, data)
        if name not in names_of(node):
            raise KeyError(k.join(path, name))
        return document_of(node, path, name, self._dimension_separator)

    def _may_write(self, key: str) -> None:
        # Refused even if nothing would change, and before any other error.
        if not self.capabilities.writable:
            raise ReadOnlyError(key, self)

    def _set_documents(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Set documents in their order; those of all nodes are read together and written together."""
        self._may_write(items[0][0])
        keys = {path: k.join(path, ZARR_JSON) for path in dict.fromkeys(k.parent(key) for key, _ in items)}
        with self._lock:
            with allowed():  # documents are small
                found = self.inner._get_many(list(keys.values()))
            old = {path: self._node(path, found[key]) if key in found else None for path, key in keys.items()}
            new: dict[str, Any] = dict(old)
            try:
                for key, value in items:
                    path = k.parent(key)
                    new[path] = with_document(new[path], key, k.name(key), value)
            finally:  # what stands before a document that is refused is set, as in a loop
                changed = {path: (old[path], new[path]) for path in keys if new[path] != old[path]}
                if changed:
                    self._replace_all(changed)
                for path in keys:
                    if new[path] is not None:
                        self._judge(path, new[path])

    def _replace(self, path: str, old: Mapping[str, Any] | None, node: Mapping[str, Any]) -> None:
        """Write the document of a node."""
        self.inner._set(k.join(path, ZARR_JSON), documents.dumps(node))

    def _replace_all(self, nodes: Mapping[str, tuple[Mapping[str, Any] | None, Mapping[str, Any]]]) -> None:
        """Write the documents of nodes, given by their paths as they were and as they are to be."""
        self.inner._set_many((k.join(path, ZARR_JSON), documents.dumps(node)) for path, (_, node) in nodes.items())

    def _delete_document(self, path: str, name: str) -> None:
        with self._lock:
            node = self._node(path)
            if name not in names_of(node):
                raise KeyError(k.join(path, name))
            if name == ZATTRS:
                self._replace(path, node, with_attrs(dict(node), {}))
            elif name == ZMETADATA:
                self._replace(
                    path, node, {member: node[member] for member in node if member != "consolidated_metadata"}
                )
            else:
                self.inner._delete(k.join(path, ZARR_JSON))
                self._arrays.pop(path, None)

    # Reads ---------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        name = k.name(key)
        return self._document(k.parent(key), name) if name in _SHOWN else self.inner._get(self._inner_key(key))

    def _contains(self, key: str) -> bool:
        name = k.name(key)
        if name in _SHOWN:
            try:
                node = self._node_or_none(k.parent(key))
                if name == ZARRAY and node is not None and node["node_type"] == "array":
                    document_of(node, k.parent(key), name, self._dimension_separator)
                return node is not None and name in names_of(node)
            except NotRepresentableError:
                return False
            except MetadataError:
                return name == ZARRAY  # what is there is damaged, and reading it says so
        try:
            inner_key = self._inner_key(key)
        except KeyError:
            return False
        return self.inner._contains(inner_key)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        inner_keys: dict[str, str] = {}
        for key in keys:
            try:
                is_shown = k.name(key) in _SHOWN
                inner_keys[key] = k.join(k.parent(key), ZARR_JSON) if is_shown else self._inner_key(key)
            except KeyError:
                continue
        # Up to four documents are made of one, and all are asked for in the same batch as the chunks.
        found = Shared(self.inner, inner_keys.values())

        def read(key: str) -> bytes:
            value = found[inner_keys[key]]
            return self._document(k.parent(key), k.name(key), value) if k.name(key) in _SHOWN else value

        return LazyItems(read, keys)

    def _keys(self, path: str) -> Iterator[str]:
        inside = self._array_around(path)
        keys = list(self.inner._keys(path if inside is None else inside))
        nodes = self._nodes_among(keys)
        arrays = {at for at, node in nodes.items() if node["node_type"] == "array"}
        nameless = arrays - self._arrays.keys()  # no document says how their chunks are named
        for key in keys:
            array = next((path for path in k.parents(key) if path in arrays), None)
            shown = self._foreign(key) if array is None or array in nameless else self._shown_key(key, array)
            if shown is not None and k.is_below(shown, path):
                yield shown
        yield from _document_keys(nodes, path)

    def _foreign(self, key: str) -> str | None:
        return None if k.name(key) in _HIDDEN or is_chunk_name(k.name(key)) else key

    def _nodes_among(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        named = [key for key in keys if k.name(key) == ZARR_JSON]
        with allowed():  # documents are small
            found = self.inner._get_many(named)
        nodes = {}
        for key in named:
            data = found.get(key)
            if data is None:  # deleted meanwhile
                continue
            try:
                nodes[k.parent(key)] = self._judge(k.parent(key), documents.loads(data, key))
            except MetadataError:
                nodes[k.parent(key)] = _DAMAGED
        return nodes

    def unreadable(self, path: object = "") -> dict[str, str]:
        """Return the nodes below `path` whose documents cannot be shown, each with the reason.

        Examples
        --------
        >>> V2View({"a/zarr.json": b"{"}).unreadable()
        {'a': "'a/zarr.json' is not Zarr metadata: is not JSON: Expecting property name ..."}
        """
        at = k.normalize_path(path)
        reasons = {}
        for key in self.inner._keys(at):
            if k.name(key) == ZARR_JSON:
                try:
                    node = self._node(k.parent(key))
                    if node["node_type"] == "array":
                        document_of(node, k.parent(key), ZARRAY, self._dimension_separator)
                except MetadataError as exc:
                    reasons[k.parent(key)] = exc.message
        return reasons

    def _array_around(self, path: str) -> str | None:
        """Return the array that `path` lies strictly below, for a directory of chunks."""
        return self._array_of(path) if path and may_name_a_chunk(k.name(path)) else None

    def _listdir(self, path: str) -> Iterable[str]:
        return dict(self._list_children(path))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        if self._array_around(path) is not None:
            return ((name, True) for name in k.children(self._keys(path), path))
        below = dict(self.inner._list_children(path))
        try:
            node = self._node_or_none(path) if ZARR_JSON in below else None
        except MetadataError:
            node = _DAMAGED
        if node is not None and node["node_type"] == "array":
            return ((name, True) for name in k.children(self._keys(path), path))
        # Where no array is, a value that is named like a chunk is not shown; a group may be named like one.
        shown = {
            name: is_path
            for name, is_path in below.items()
            if name not in _HIDDEN and (not is_chunk_name(name) or (is_path and self._holds(k.join(path, name))))
        }
        return (shown | dict.fromkeys(names_of(node) if node is not None else (), False)).items()

    def _holds(self, path: str) -> bool:
        return any(True for _ in self.inner._listdir(path))

    # Writes --------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        if k.name(key) in _SHOWN:
            self._set_documents([(key, value)])
        else:
            self.inner._set(self._settable(key), value)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        early: list[tuple[str, bytes]] = []
        for batch in batches(self._without_documents(items, early), MAX_BATCH_KEYS, MAX_BATCH_BYTES):
            self.inner._set_many(batch.items())
        self.inner._set_many([(self._settable(key), value) for key, value in early])

    def _without_documents(
        self, items: Iterable[tuple[str, bytes]], early: list[tuple[str, bytes]]
    ) -> Iterator[tuple[str, bytes]]:
        """Set the documents and yield the rest under its keys in `inner`; chunks before their array go to `early`."""
        waiting = 0
        named: list[tuple[str, bytes]] = []  # documents, set together before the first chunk that follows them
        for key, value in items:
            name = k.name(key)
            if name in _SHOWN:
                named.append((key, value))
            if named and (name not in _SHOWN or len(named) == MAX_BATCH_KEYS):
                self._set_documents(named)
                named = []
            if name in _SHOWN:
                continue
            if is_chunk_name(name) and self._array_of(key) is None:
                waiting += len(value)
                if waiting > MAX_BATCH_BYTES:
                    raise _no_array_yet(key, self)
                early.append((key, value))
            else:
                yield self._settable(key), value
        if named:
            self._set_documents(named)

    def _delete(self, key: str) -> None:
        name = k.name(key)
        if name in _SHOWN:
            self._may_write(key)
            self._delete_document(k.parent(key), name)
        else:
            self.inner._delete(self._inner_key(key))

    def _delete_many(self, keys: Iterable[str]) -> None:
        inner_keys, named = [], []
        for key in keys:
            if k.name(key) in _SHOWN:
                named.append(key)
                continue
            try:
                inner_keys.append(self._inner_key(key))
            except KeyError:
                continue
        self.inner._delete_many(inner_keys)
        # Last, since without its document nobody knows what an array's chunks are called; and the deepest first.
        for key in sorted(named, key=lambda key: len(k.segments(key)), reverse=True):
            try:
                self._delete_document(k.parent(key), k.name(key))
            except KeyError:
                continue

    def _rmdir(self, path: str) -> None:
        if self._array_around(path) is not None:
            self._delete_many(list(self._keys(path)))
            return
        self.inner._rmdir(path)
        self._forget(path)

    def _rename(self, source: str, destination: str) -> None:
        inside = self._array_around(source) is not None or self._array_around(destination) is not None
        if inside or self._contains(source):
            return Store._rename(self, source, destination)
        self.inner._rename(source, destination)
        self._forget(source)

    def _clear(self) -> None:
        self.inner._clear()
        self.invalidate()

    def _forget(self, path: str) -> None:
        for array in list(self._arrays):
            if array == path or k.is_below(array, path):
                self._arrays.pop(array, None)


def _document_keys(nodes: Mapping[str, Mapping[str, Any]], path: str) -> list[str]:
    """Return the keys of the documents that nodes have here and that are below a path, in the order of deletion."""
    keys = (k.join(at, name) for at, node in nodes.items() for name in names_of(node))
    return sorted((key for key in keys if k.is_below(key, path)), key=deletion_order)


def _no_array_yet(key: str, store: Store) -> UnsupportedOperation:
    what = f"set {key!r}, which names a chunk where there is no array"
    return UnsupportedOperation(what, store, "set its .zarray first")
