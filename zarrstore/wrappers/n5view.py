"""An N5 hierarchy under version 2 keys, so that everything that works on Zarr works on N5."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from zarrstore import keys as k
from zarrstore.allowance import allowed
from zarrstore.base import Store
from zarrstore.batch import LazyItems, batches
from zarrstore.chunknames import chunk_coords, chunk_name, is_chunk_name
from zarrstore.errors import InvalidKeyError, ReadOnlyError, StoreReadError
from zarrstore.metadata import documents, n5, v2
from zarrstore.metadata.documents import ZARR_JSON, ZARRAY, ZATTRS, ZGROUP, ZMETADATA
from zarrstore.targets import Target
from zarrstore.wrappers._views import MAX_BATCH_BYTES, MAX_BATCH_KEYS, Shared, View

__all__ = ["N5View"]

_SHOWN = frozenset({ZARRAY, ZGROUP, ZATTRS})


class N5View(View):
    """The N5 hierarchy in `inner`, with the keys, documents and chunks of version 2, for reading and writing.

    Parameters
    ----------
    inner : Mapping
        Holds ``attributes.json`` documents and blocks, or nothing yet.
    dimension_separator : {'.', '/'}, default '.'
        How the names of chunks are spelled here. The other spelling is understood too.

    Notes
    -----
    ``.zarray``, ``.zgroup`` and ``.zattrs`` are read off ``attributes.json`` and written into it. A directory without
    one is a group if a node lies below. Axes are reversed (N5 counts from the fastest), types are shown big-endian, and
    what is absent reads as 0. The payload of a whole block is a chunk as it stands; a block that ends with the array,
    one in Java's framing of LZ4, and one of an array that was made here in another byte order or layout are decoded and
    encoded anew. Blocks are written whole at the edge too, as zarr 2's N5Store does. What N5 cannot represent (filters,
    dates, text, another fill value than 0) is refused.

    Cost: one read for a document; that of `inner` for a chunk, since the datasets are remembered (`invalidate` forgets
    them). Threads: safe, as far as `inner` is. Crash: each document is one value. Source: the N5 specification 4.0.0
    and zarr 2.18.7's N5Store; deviation: chunks come out without N5's header, so that any reader of version 2 decodes
    them.

    Examples
    --------
    >>> inner = {}
    >>> view = N5View(inner)
    >>> meta = v2.build_array(shape=(4, 10), chunks=(2, 5), dtype=">u2", compressor=None, fill_value=0)
    >>> view.update({"a/.zarray": v2.encode_array(meta), "a/1.0": bytes(20)})
    >>> sorted(inner), sorted(view)
    (['a/0/1', 'a/attributes.json'], ['.zgroup', 'a/.zarray', 'a/1.0'])
    >>> v2.decode_array(view["a/.zarray"]) == meta
    True
    """

    takes_buffers = True
    _documents_first = True
    _aliases = True
    # Beside ``attributes.json`` they would make a Zarr hierarchy of the directory, whose readers find no chunk in it.
    _refused_documents = frozenset({ZARR_JSON, ZMETADATA})
    _memories = ("_datasets",)
    _datasets: dict[str, n5.Dataset]

    def __init__(self, inner: Target, dimension_separator: Literal[".", "/"] = ".") -> None:
        super().__init__(inner, dimension_separator)
        # Parts cannot be read: where the bytes of a part lie in a block is not known.
        self.capabilities = replace(self.inner.capabilities, ranged=False)

    # Nodes ---------------------------------------------------------------------------------------------------------

    def _attributes(self, path: str, read: Callable[[str], bytes] | None = None) -> dict[str, Any] | None:
        """Return the content of a node's ``attributes.json``, None if there is none."""
        key = k.join(path, n5.ATTRIBUTES)
        try:
            attributes = documents.loads((read or self.inner._get)(key), key)
        except KeyError:
            attributes = None
        self._note(path, attributes)
        return attributes

    def _note(self, path: str, attributes: Mapping[str, Any] | None) -> None:
        if attributes is not None and n5.is_dataset(attributes):
            self._datasets[path] = n5.dataset(attributes, k.join(path, n5.ATTRIBUTES), self._dimension_separator)
        else:
            self._datasets.pop(path, None)

    def _dataset_of(self, key: str) -> str | None:
        """Return the path of the dataset that `key` lies below, None if it lies below none."""
        above = list(k.parents(key))
        known = next((path for path in above if path in self._datasets), None)
        if known is not None:
            return known
        return next((path for path in reversed(above) if self._attributes(path) and path in self._datasets), None)

    def _block_key(self, key: str) -> tuple[str, n5.Dataset] | None:
        """Return the key in `inner` of a chunk, and its dataset; None if `key` names no chunk."""
        if not k.name(key)[:1].isdigit():
            return None
        path = self._dataset_of(key)
        if path is None:
            return None
        one = self._datasets[path]
        for separator in (".", "/"):
            coords = chunk_coords(key, path, separator)
            if coords is not None and len(coords) == len(one.meta.shape):
                return k.join(path, chunk_name(coords[::-1], "/")), one
        return None

    def _shown_key(self, key: str) -> str | None:
        """Return the key under which a key of `inner` that is no document appears here; None if it does not."""
        if k.name(key) in _SHOWN:
            return None
        if not k.name(key).isdecimal():
            return key
        path = next((path for path in k.parents(key) if path in self._datasets), None)
        coords = None if path is None else chunk_coords(key, path, "/")
        if path is None or coords is None or len(coords) != len(self._datasets[path].meta.shape):
            return key
        return k.join(path, chunk_name(coords[::-1], self._dimension_separator or "."))

    def _is_group(self, path: str, attributes: Mapping[str, Any] | None) -> bool:
        if attributes is not None:
            return not n5.is_dataset(attributes)
        if path and self._dataset_of(path) is not None:
            return False
        return any(k.name(key) == n5.ATTRIBUTES for key in self.inner._keys(path))

    def _names(self, path: str, attributes: Mapping[str, Any] | None) -> set[str]:
        """Return the names of the documents that a node has here."""
        names = {ZARRAY} if path in self._datasets else {ZGROUP} if self._is_group(path, attributes) else set()
        return names | ({ZATTRS} if attributes is not None and n5.attrs_of(attributes) else set())

    def _document(self, key: str, read: Callable[[str], bytes] | None = None) -> bytes:
        path, name = k.parent(key), k.name(key)
        attributes = self._attributes(path, read)
        if name not in self._names(path, attributes):
            raise KeyError(key)
        if name == ZARRAY:
            return v2.encode_array(self._datasets[path].meta)
        return v2.encode_group() if name == ZGROUP else v2.encode_attrs(n5.attrs_of(attributes or {}))

    def _set_document(self, key: str, value: bytes) -> None:
        path, name = k.parent(key), k.name(key)
        if not self.capabilities.writable:
            raise ReadOnlyError(key, self)
        with self._lock:
            old = self._attributes(path)
            base = {"n5": n5.VERSION} if old is None else old
            if name == ZARRAY:
                new = n5.attrs_of(base) | n5.array_to_n5(v2.decode_array(value, key), key)
            elif name == ZGROUP:
                v2.decode_group(value, key)
                new = n5.without_dataset(base)
            else:
                new = n5.with_attrs(base, v2.decode_attrs(value, key), key)
            self.inner._set(k.join(path, n5.ATTRIBUTES), documents.dumps(new))
            self._note(path, new)

    def _delete_document(self, key: str) -> None:
        path, name = k.parent(key), k.name(key)
        if not self.capabilities.writable:
            raise ReadOnlyError(key, self)
        with self._lock:
            attributes = self._attributes(path)
            if attributes is None or name not in self._names(path, attributes):
                raise KeyError(key)
            if name == ZATTRS:
                self.inner._set(k.join(path, n5.ATTRIBUTES), documents.dumps(n5.with_attrs(attributes, {}, key)))
            else:
                self.inner._delete(k.join(path, n5.ATTRIBUTES))
                self._datasets.pop(path, None)

    # Reads ---------------------------------------------------------------------------------------------------------

    def _chunk(self, key: str, block: bytes, one: n5.Dataset) -> bytes:
        try:
            return n5.block_to_chunk(block, one)
        except ValueError as exc:
            raise StoreReadError(key, self, str(exc)) from exc

    def _inner_key(self, key: str) -> str:
        if k.name(key) == n5.ATTRIBUTES:
            raise KeyError(key)
        return key

    def _get(self, key: str) -> bytes:
        if k.name(key) in _SHOWN:
            return self._document(key)
        found = self._block_key(key)
        if found is None:
            return self.inner._get(self._inner_key(key))
        return self._chunk(key, self.inner._get(found[0]), found[1])

    def _contains(self, key: str) -> bool:
        if k.name(key) in _SHOWN:
            path = k.parent(key)
            return k.name(key) in self._names(path, self._attributes(path))
        if k.name(key) == n5.ATTRIBUTES:
            return False
        found = self._block_key(key)
        return self.inner._contains(key if found is None else found[0])

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        blocks = {key: found for key in keys if k.name(key) not in _SHOWN and (found := self._block_key(key))}
        others = [key for key in keys if key not in blocks]
        inner_keys = {key: found[0] for key, found in blocks.items()}
        inner_keys |= {key: k.join(k.parent(key), n5.ATTRIBUTES) for key in others if k.name(key) in _SHOWN}
        inner_keys |= {key: key for key in others if key not in inner_keys and k.name(key) != n5.ATTRIBUTES}
        values = Shared(self.inner, (inner_keys[key] for key in dict.fromkeys(keys) if key in inner_keys))

        def read(key: str) -> bytes:
            if k.name(key) in _SHOWN:
                return self._document(key, values.__getitem__)
            value = values[inner_keys[key]]
            return value if key not in blocks else self._chunk(key, value, blocks[key][1])

        return LazyItems(read, keys)

    def _keys(self, path: str) -> Iterator[str]:
        inside = self._dataset_of(path) if path and k.name(path).isdecimal() else None
        found = list(self.inner._keys(path if inside is None else inside))
        shown = self._documents_among(found, path)
        for key in found:
            name = None if k.name(key) == n5.ATTRIBUTES else self._shown_key(key)
            if name is not None and k.is_below(name, path):
                yield name
        yield from sorted(shown, key=documents.deletion_order)

    def _documents_among(self, keys: Iterable[str], path: str) -> list[str]:
        """Return the documents shown below a path, and note the datasets: by these the names of blocks are shown."""
        nodes = [k.parent(key) for key in keys if k.name(key) == n5.ATTRIBUTES]
        above = {at for node in nodes for at in k.parents(node)} - set(nodes) - set(k.parents(path))
        with allowed():  # documents are small
            found = self.inner._get_many([k.join(at, n5.ATTRIBUTES) for at in (*nodes, *above)])
        shown = [key for node in nodes for key in self._shown_at(node, self._attributes(node, found.__getitem__))]
        shown += [k.join(at, ZGROUP) for at in above if self._attributes(at, found.__getitem__) is None]
        return [key for key in shown if k.is_below(key, path)]

    def _shown_at(self, node: str, attributes: Mapping[str, Any] | None) -> list[str]:
        """Return the documents shown at a node, which is a dataset or a group unless it was deleted meanwhile."""
        named = []
        if node in self._datasets:
            named.append(ZARRAY)
        elif attributes is not None:
            named.append(ZGROUP)
        if attributes is not None and n5.attrs_of(attributes):
            named.append(ZATTRS)
        return [k.join(node, name) for name in named]

    def _listdir(self, path: str) -> Iterable[str]:
        return dict(self._list_children(path))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        attributes = self._attributes(path)
        if path in self._datasets or (path and self._dataset_of(path) is not None):
            return ((name, True) for name in k.children(self._keys(path), path))
        below = {
            name: is_path
            for name, is_path in self.inner._list_children(path)
            if name not in _SHOWN and name != n5.ATTRIBUTES
        }
        return (below | dict.fromkeys(self._names(path, attributes), False)).items()

    # Writes --------------------------------------------------------------------------------------------------------

    def _as_inner(self, key: str, value: bytes | memoryview) -> tuple[str, bytes]:
        """Return the key and value of `inner` for a key that is no document."""
        name = k.name(key)
        if name == n5.ATTRIBUTES:
            raise InvalidKeyError(key, f"{name!r} is not shown here: set .zarray, .zgroup or .zattrs")
        if name in self._refused_documents:
            raise InvalidKeyError(key, "an N5 hierarchy has no such document; copy it to a Zarr store first")
        found = self._block_key(key)
        if found is not None:
            return found[0], n5.chunk_to_block(value, found[1])
        if is_chunk_name(name):
            raise InvalidKeyError(
                key, "the array comes before its chunks, which its document names; set its .zarray first"
            )
        return key, bytes(value)

    def _set(self, key: str, value: bytes | memoryview) -> None:
        if k.name(key) in _SHOWN:
            self._set_document(key, bytes(value))
        else:
            self.inner._set(*self._as_inner(key, value))

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        early: list[tuple[str, bytes]] = []  # chunks that came before their array

        def blocks() -> Iterator[tuple[str, bytes]]:
            for key, value in items:
                if k.name(key) in _SHOWN:
                    self._set_document(key, bytes(value))
                elif is_chunk_name(k.name(key)) and self._dataset_of(key) is None:
                    if sum(len(waiting) for _, waiting in early) > MAX_BATCH_BYTES:
                        self._as_inner(key, value)
                    early.append((key, bytes(value)))
                else:
                    yield self._as_inner(key, value)
            for key, value in early:
                yield self._as_inner(key, value)

        for batch in batches(blocks(), MAX_BATCH_KEYS, MAX_BATCH_BYTES):
            self.inner._set_many(batch.items())

    def _delete(self, key: str) -> None:
        if k.name(key) in _SHOWN:
            self._delete_document(key)
            return
        found = self._block_key(key)
        self.inner._delete(self._inner_key(key) if found is None else found[0])

    def _delete_many(self, keys: Iterable[str]) -> None:
        documents_named, others = [], []
        for key in keys:
            if k.name(key) in _SHOWN:
                documents_named.append(key)
            elif k.name(key) != n5.ATTRIBUTES:
                found = self._block_key(key)
                others.append(key if found is None else found[0])
        self.inner._delete_many(others)
        Store._delete_many(self, documents_named)

    def _rmdir(self, path: str) -> None:
        if path and self._dataset_of(path) is not None:
            Store._rmdir(self, path)
        else:
            self.inner._rmdir(path)
            self.invalidate()

    def _rename(self, source: str, destination: str) -> None:
        if self._dataset_of(source) is not None or self._dataset_of(destination) is not None:
            Store._rename(self, source, destination)
        else:
            self.inner._rename(source, destination)
            self.invalidate()

    def _clear(self) -> None:
        self.inner._clear()
        self.invalidate()
