"""A version 2 hierarchy under version 3 keys, so that programs that know nothing else read old stores."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from zarrstore import keys as k
from zarrstore.allowance import allowed
from zarrstore.base import Store
from zarrstore.batch import LazyItems, batches
from zarrstore.errors import InvalidKeyError, MetadataError, NotRepresentableError, UnsupportedOperation
from zarrstore.metadata import documents, v2, v3
from zarrstore.metadata.chunkkeys import ChunkKeys
from zarrstore.metadata.documents import DOCUMENTS, ZARR_JSON, ZARRAY, ZATTRS, ZGROUP, deletion_order
from zarrstore.spelling import chunk_keys_of
from zarrstore.targets import Target
from zarrstore.threads import free_in_children
from zarrstore.wrappers._reads import ComputedReads
from zarrstore.wrappers._views import MAX_BATCH_BYTES, MAX_BATCH_KEYS, may_name_a_chunk

__all__ = ["V3View"]


class V3View(ComputedReads):
    """The version 2 hierarchy in `inner`, with the documents of version 3; chunks pass through under their own names.

    Parameters
    ----------
    inner : Mapping
        Holds ``.zarray`` and ``.zgroup`` documents and their chunks, or nothing yet.

    Notes
    -----
    ``zarr.json`` is read off ``.zarray`` or ``.zgroup`` and ``.zattrs``, and written into them; `metadata.v3` says what
    becomes of each member. Its arrays say that their chunks are named as in version 2, and so they are listed; version
    3's own names (``c/0/0``) are understood where an array is. An array that version 3 cannot describe is listed;
    reading its ``zarr.json`` raises NotRepresentableError with the reason, which Zarr takes for absence, so that the
    rest can be walked; `unreadable` lists such arrays. Consolidated metadata is not shown, and not kept
    when a group is written. Cost: up to three reads for a document, in one batch; that of `inner` for a chunk. Threads:
    safe, as far as `inner` is. Crash: a document is up to two values, the attributes first.

    Examples
    --------
    >>> inner = {".zgroup": v2.encode_group(), ".zattrs": b'{"title": "old"}'}
    >>> view = V3View(inner)
    >>> documents.loads(view["zarr.json"], "zarr.json")
    {'attributes': {'title': 'old'}, 'node_type': 'group', 'zarr_format': 3}
    >>> sorted(view)
    ['zarr.json']
    """

    # A chunk's key in `inner` depends on the document of its array.
    _documents_first = True
    _aliases = True

    def __init__(self, inner: Target) -> None:
        super().__init__(inner)
        self._lock = free_in_children(threading.RLock())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=free_in_children(threading.RLock()))

    # Documents -----------------------------------------------------------------------------------------------------

    def _document(self, path: str, found: Mapping[str, bytes] | None = None) -> bytes:
        keys = {name: k.join(path, name) for name in (ZARRAY, ZGROUP, ZATTRS)}
        if found is None:
            with allowed():  # documents are small
                found = self.inner._get_many(list(keys.values()))
        held = {key: found[key] for key in keys.values() if key in found}
        data = held.get(keys[ZATTRS])
        attrs = v2.decode_attrs(data, keys[ZATTRS]) if data is not None else {}
        if keys[ZARRAY] in held:
            meta = v2.decode_array(held[keys[ZARRAY]], keys[ZARRAY])
            translation = v3.array_v2_to_v3(meta, attrs, separator=chunk_keys_of(self.inner, path, meta).separator)
        elif keys[ZGROUP] in held:
            v2.decode_group(held[keys[ZGROUP]], keys[ZGROUP])
            translation = v3.group_v2_to_v3(attrs)
        else:
            raise KeyError(k.join(path, ZARR_JSON))
        if translation.document is None:
            raise NotRepresentableError(k.join(path, ZARR_JSON), 3, "; ".join(translation.problems))
        return documents.dumps(translation.document)

    def unreadable(self, path: object = "") -> dict[str, str]:
        """Return the nodes below `path` whose documents cannot be shown, each with the reason.

        Examples
        --------
        >>> V3View({"a/.zarray": b"{"}).unreadable()
        {'a': "'a/.zarray' is not Zarr metadata: is not JSON: Expecting property name ..."}
        """
        reasons = {}
        for key in self._keys(k.normalize_path(path)):
            if k.name(key) == ZARR_JSON:
                try:
                    self._document(k.parent(key))
                except MetadataError as exc:
                    reasons[k.parent(key)] = exc.message
        return reasons

    def _is_node(self, path: str) -> bool:
        return any(self.inner._contains(k.join(path, name)) for name in (ZARRAY, ZGROUP))

    def _set_document(self, path: str, value: bytes) -> None:
        key = k.join(path, ZARR_JSON)
        document = documents.loads(value, key)
        is_array = v3.node_type(document, key) == "array"
        with self._lock:
            if is_array:
                # The chunks of an array that is there already have their names.
                rule = self._chunk_keys(path)
                translation = v3.array_v3_to_v2(document, key, separator=None if rule is None else rule.separator)
            else:
                translation = v3.group_v3_to_v2(document, key)
            if translation.document is None:
                raise MetadataError(key, None, f"version 2 cannot represent it: {'; '.join(translation.problems)}")
            lost = v3.losses(document, key) if is_array else _unknown_members(document)
            if lost:
                raise MetadataError(key, None, f"version 2 would lose of it: {'; '.join(lost)}")
            name, other = (ZARRAY, ZGROUP) if is_array else (ZGROUP, ZARRAY)
            if translation.attrs:
                self.inner._set(k.join(path, ZATTRS), v2.encode_attrs(translation.attrs))
            else:
                self.inner._delete_many([k.join(path, ZATTRS)])
            self.inner._set(k.join(path, name), documents.dumps(translation.document))
            self.inner._delete_many([k.join(path, other)])

    def _delete_document(self, path: str) -> None:
        if not self._is_node(path):
            raise KeyError(k.join(path, ZARR_JSON))
        self.inner._delete_many([k.join(path, name) for name in (ZARRAY, ZGROUP, ZATTRS)])

    def _chunk_keys(self, path: str) -> ChunkKeys | None:
        """Return how `inner` names the chunks of the array at a path, None if no array is there."""
        key = k.join(path, ZARRAY)
        try:
            data = self.inner._get(key)
        except KeyError:
            return None
        return chunk_keys_of(self.inner, path, v2.decode_array(data, key))

    # Keys ----------------------------------------------------------------------------------------------------------

    def _to_inner(self, path: str) -> str:
        """Return the key of `inner` for a key of no document; raise KeyError if nothing can be there."""
        name = k.name(path)
        if name in DOCUMENTS:
            raise KeyError(path)
        if not may_name_a_chunk(name) or not ("c" in k.segments(path) or name[:2] == "c."):
            return path
        for array in reversed(list(k.parents(path))):
            rule = self._chunk_keys(array)
            if rule is None:
                continue
            for separator in ("/", "."):
                coords = ChunkKeys("default", separator, rule.ndim).coords(path, array)
                if coords is not None:
                    return rule.key(array, coords)
            return path
        return path

    def _folded_key(self, key: str) -> str:
        # A document is several values of `inner`, and a chunk's name there is asked for; both fold as they are here.
        return self.inner._folded_key(key)

    def _settable(self, key: str) -> str:
        if k.name(key) in DOCUMENTS:
            raise InvalidKeyError(key, "documents of version 2 are not shown here: set zarr.json")
        inner_key = self._to_inner(key)
        if inner_key == key and _is_v3_chunk_name(key) and not self._is_in_an_array(key):
            what = f"set {key!r}, which names a chunk where there is no array"
            raise UnsupportedOperation(what, self, "set its zarr.json first")
        return inner_key

    def _is_in_an_array(self, key: str) -> bool:
        return any(self.inner._contains(k.join(above, ZARRAY)) for above in k.parents(key))

    # Reads ---------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        if k.name(key) == ZARR_JSON:
            return self._document(k.parent(key))
        return self.inner._get(self._to_inner(key))

    def _contains(self, key: str) -> bool:
        if k.name(key) == ZARR_JSON:
            try:
                self._document(k.parent(key))
            except MetadataError as exc:
                # What is damaged is there, and reading it says so.
                return not isinstance(exc, NotRepresentableError)
            except KeyError:
                return False
            return True
        return k.name(key) not in DOCUMENTS and self.inner._contains(self._to_inner(key))

    def _is_computed(self, key: str) -> bool:
        return k.name(key) == ZARR_JSON

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        inner_keys = {key: self._to_inner(key) for key in keys if k.name(key) not in DOCUMENTS}
        paths = dict.fromkeys(k.parent(key) for key in keys if k.name(key) == ZARR_JSON)
        named = [k.join(path, name) for path in paths for name in (ZARRAY, ZGROUP, ZATTRS)]
        # Documents and chunks in one batch, so that the waits for all of them overlap.
        found = self.inner._get_many([*named, *inner_keys.values()])

        def read(key: str) -> bytes:
            if key in inner_keys:
                return found[inner_keys[key]]
            return self._document(k.parent(key), found) if k.name(key) == ZARR_JSON else self._get(key)

        return LazyItems(read, keys)

    def _keys(self, path: str) -> Iterator[str]:
        nodes = set()
        for key in self.inner._keys(path):
            name = k.name(key)
            if name in (ZARRAY, ZGROUP):
                nodes.add(k.join(k.parent(key), ZARR_JSON))
            elif name not in DOCUMENTS:
                yield key
        yield from sorted(nodes, key=deletion_order)

    def _count(self) -> int:
        return sum(1 for _ in self._keys(""))

    def _listdir(self, path: str) -> Iterable[str]:
        names = set(self.inner._listdir(path))
        shown = names - DOCUMENTS
        return shown | {ZARR_JSON} if names & {ZARRAY, ZGROUP} else shown

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        below = dict(self.inner._list_children(path))
        children = {name: is_path for name, is_path in below.items() if name not in DOCUMENTS}
        return (children | {ZARR_JSON: False} if below.keys() & {ZARRAY, ZGROUP} else children).items()

    def _getsize(self, path: str) -> int:
        return Store._getsize(self, path)

    # Writes --------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        if k.name(key) == ZARR_JSON:
            self._set_document(k.parent(key), value)
        else:
            self.inner._set(self._settable(key), value)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        # Documents at once and chunks in batches between them: a batch that is being written may hold a transaction.
        for batch in batches(self._without_documents(items), MAX_BATCH_KEYS, MAX_BATCH_BYTES):
            self.inner._set_many([(self._settable(key), value) for key, value in batch.items()])

    def _without_documents(self, items: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """Set the documents and yield the rest."""
        for key, value in items:
            if k.name(key) == ZARR_JSON:
                self._set_document(k.parent(key), value)
            else:
                yield key, value

    def _delete(self, key: str) -> None:
        if k.name(key) == ZARR_JSON:
            self._delete_document(k.parent(key))
        else:
            self.inner._delete(self._to_inner(key))

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        self.inner._delete_many([self._to_inner(key) for key in wanted if k.name(key) not in DOCUMENTS])
        for key in wanted:
            if k.name(key) == ZARR_JSON and self._is_node(k.parent(key)):
                self._delete_document(k.parent(key))

    def _rmdir(self, path: str) -> None:
        self.inner._rmdir(path)

    def _rename(self, source: str, destination: str) -> None:
        if self._contains(source):
            return Store._rename(self, source, destination)
        self.inner._rename(source, destination)


def _unknown_members(group: Mapping[str, Any]) -> list[str]:
    known = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}
    return [f"member {member!r}" for member in sorted(group.keys() - known)]


def _is_v3_chunk_name(key: str) -> bool:
    return may_name_a_chunk(k.name(key)) and ("c" in k.segments(key) or k.name(key)[:2] == "c.")
