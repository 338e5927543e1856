"""Documents from the one that repeats them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from zarrstore import keys as k
from zarrstore.allowance import allowed
from zarrstore.base import Entry, Store
from zarrstore.batch import LazyItems
from zarrstore.errors import MetadataError, ReadOnlyError, UnsupportedOperation
from zarrstore.metadata import consolidated, documents
from zarrstore.metadata.consolidated import Staleness
from zarrstore.targets import Target
from zarrstore.wrappers._reads import ComputedReads

__all__ = ["ConsolidatedStore", "holds_array"]


class ConsolidatedStore(ComputedReads):
    """`inner`, whose documents are read once, from its consolidated metadata; chunks are read from `inner`.

    Parameters
    ----------
    inner : Mapping
        A hierarchy that was consolidated.
    metadata_key : str, default '.zmetadata'
        The document that repeats all others: version 2's, or a ``zarr.json`` with inline ``consolidated_metadata``.
        Where ``.zmetadata`` is absent, ``zarr.json`` is tried.
    write_chunks : bool, default False
        Let values that are no documents be set and deleted in `inner`. Documents never can: the next reader would not
        see the change.

    Raises
    ------
    KeyError
        There is no consolidated metadata.
    MetadataError
        It cannot be parsed, or names what is no key or no document.

    Notes
    -----
    One read of `inner` at the start; then no document costs a request, present or absent. Where `inner` cannot be
    listed (HTTP), neither can this store: iteration, `len` and `keys_below` are refused. `listdir` still lists the
    documents and nodes of a group, which is what a reader of hierarchies looks for, and is refused for an array, whose
    chunks nobody can list. What others change is seen after `reload`. Threads: safe as far as `inner` is. Source: zarr
    2.18 ConsolidatedMetadataStore, with the chunks in one mapping; the documents' bytes are written anew, as zarr
    writes them.

    Examples
    --------
    >>> held = {".zmetadata": b'{"zarr_consolidated_format": 1, "metadata": {".zgroup": {"zarr_format": 2}}}'}
    >>> store = ConsolidatedStore(held)
    >>> store[".zgroup"], store.listdir()
    (b'{\\n    "zarr_format": 2\\n}', ['.zgroup', '.zmetadata'])
    """

    passes_buffers = True

    opening_mode = "r"

    def __init__(self, inner: Target, metadata_key: str = documents.ZMETADATA, write_chunks: bool = False) -> None:
        super().__init__(inner)
        self.metadata_key = self._source = k.check_key(metadata_key)
        self.write_chunks = write_chunks
        below = self.inner.capabilities
        self.capabilities = replace(
            below,
            writable=below.writable and write_chunks,
            erasable=below.erasable and write_chunks,
        )
        self.reload()

    def _place(self) -> object:
        place = super()._place()
        return None if place is None else (place, self.metadata_key)

    def reload(self) -> None:
        """Read the consolidated metadata again. If that fails, what was read before stays."""
        key, data = self._read()
        found = dict(_inline(data, key) if k.name(key) == documents.ZARR_JSON else _format_1(data, key))
        found[key] = data
        children: dict[str, set[str]] = {}
        for name in found:
            for above in k.parents(name):
                children.setdefault(above, set()).add(k.child(name, above) or "")
        self._documents, self._children, self._source = found, children, key

    def _read(self) -> tuple[str, bytes]:
        inline = k.join(k.parent(self.metadata_key), documents.ZARR_JSON)
        for key in dict.fromkeys((self.metadata_key, inline)):
            try:
                data = self.inner._get(key)
            except KeyError:
                continue
            if key == self.metadata_key or b'"consolidated_metadata"' in data:
                return key, data
        raise KeyError(f"{self.inner!r} has no {self.metadata_key!r}; consolidate_metadata(store) writes it")

    def staleness(self) -> Staleness:
        """Return how the consolidated metadata differs from the documents that `inner` holds now; false if it does not.

        Notes
        -----
        Cost: one listing of `inner`, and one read for each document.
        """
        root = k.parent(self._source)
        repeated = {key: data for key, data in self._documents.items() if key != self._source}
        if k.name(self._source) != documents.ZARR_JSON:
            keys = [key for key in self.inner._keys(root) if consolidated.is_repeated(key)]
            parsed = {key: documents.loads(data, key) for key, data in repeated.items()}
            return consolidated.compare(parsed, dict(self._documents_below(keys)))
        keys = [key for key in self.inner._keys(root) if k.name(key) == documents.ZARR_JSON and key != self._source]
        found = {key: _as_repeated(data, key) for key, data in self._documents_below(keys).items()}
        return Staleness(
            missing=tuple(sorted(found.keys() - repeated.keys())),
            extra=tuple(sorted(repeated.keys() - found.keys())),
            different=tuple(sorted(key for key in found.keys() & repeated.keys() if found[key] != repeated[key])),
        )

    def _documents_below(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        with allowed():  # documents are small
            return self.inner._get_many(keys)

    def _is_document(self, key: str) -> bool:
        # The consolidated document may have a name of its own.
        return k.name(key) in documents.DOCUMENTS or key in (self.metadata_key, self._source)

    def _refuse_documents(self, key: str) -> None:
        if not self.write_chunks or self._is_document(key):
            raise ReadOnlyError(key, self)

    # Reads ---------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        return self._documents[key] if self._is_document(key) else self.inner._get(key)

    def _contains(self, key: str) -> bool:
        return key in self._documents if self._is_document(key) else self.inner._contains(key)

    def _keys(self, path: str) -> Iterable[str]:
        if not self.inner.capabilities.listable:
            raise UnsupportedOperation("list its keys", self, "listdir(path) lists the documents of a group")
        return self._all_keys(path)

    def _all_keys(self, path: str) -> Iterator[str]:
        for key in self._documents:
            if k.is_below(key, path):
                yield key
        for key in self.inner._keys(path):
            if not self._is_document(key):
                yield key

    def _details(self, path: str) -> Iterable[Entry]:
        if not self.inner.capabilities.listable:
            return map(Entry, self._keys(path))  # raises, and tells the way out
        repeated = (Entry(key, len(data)) for key, data in self._documents.items() if k.is_below(key, path))
        return chain(repeated, (entry for entry in self.inner._details(path) if not self._is_document(entry.key)))

    def _count(self) -> int:
        return sum(1 for _ in self._keys(""))

    def _is_computed(self, key: str) -> bool:
        return self._is_document(key)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        chunks = [key for key in keys if not self._is_document(key)]
        found = self.inner._get_many(chunks)
        if len(chunks) == len(keys):
            return found
        return LazyItems(lambda key: (self._documents if self._is_document(key) else found)[key], keys)

    def _listdir(self, path: str) -> Iterable[str]:
        return dict(self._list_children(path))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        # What keys are below stands in `_children` itself.
        children = {name: k.join(path, name) in self._children for name in self._children.get(path, ())}
        if self.inner.capabilities.listable:
            for name, is_path in self.inner._list_children(path):
                # A document that only `inner` has is not shown.
                if not self._is_document(k.join(path, name)):
                    children[name] = is_path or children.get(name, False)
        elif not children or holds_array(self._documents, path):
            what = f"list what lies below {path!r}, which may be chunks"
            raise UnsupportedOperation(what, self, "names of chunks follow from the array's document")
        return children.items()

    def _getsize(self, path: str) -> int:
        if path and self._is_document(path):
            return Store._getsize(self, path)
        if not self.inner.capabilities.listable:
            try:
                return self.inner._nbytes(path) if path else -1
            except KeyError:
                return -1 if path in self._children else 0
        return Store._getsize(self, path) if self._children.get(path) else self.inner._getsize(path)

    # Writes: chunks if allowed, documents never ----------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        self._refuse_documents(key)
        self.inner._set(key, value)

    def _delete(self, key: str) -> None:
        self._refuse_documents(key)
        self.inner._delete(key)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        def chunks() -> Iterator[tuple[str, bytes]]:
            for key, value in items:
                self._refuse_documents(key)
                yield key, value

        if not self.write_chunks:
            raise ReadOnlyError(next((key for key, _ in items), ""), self)
        self.inner._set_many(chunks())

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        for key in wanted or [""]:
            self._refuse_documents(key)
        self.inner._delete_many(wanted)

    def _rmdir(self, path: str) -> None:
        self._refuse_subtree(path)
        self.inner._rmdir(path)

    def _rename(self, source: str, destination: str) -> None:
        self._refuse_subtree(source)
        self._refuse_documents(destination)
        self.inner._rename(source, destination)

    def _clear(self) -> None:
        self._refuse_subtree("")
        self.inner._clear()

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        if not self.write_chunks:
            raise ReadOnlyError(path, self)
        return self.inner._sweep(path, dry_run)

    def _refuse_subtree(self, path: str) -> None:
        """Refuse to touch what holds a document, or is one."""
        self._refuse_documents(path)
        for name in self._children.get(path, ()):
            raise ReadOnlyError(k.join(path, name), self)


def holds_array(found: Mapping[str, bytes], path: str) -> bool:
    """Tell whether the documents say that an array stands at a path.

    Parameters
    ----------
    found : mapping of str to bytes
        Documents by their full keys.
    path : str
        A normal path.

    Examples
    --------
    >>> holds_array({"a/.zarray": b"{}", "g/zarr.json": b'{"node_type": "group"}'}, "a")
    True
    """
    if k.join(path, documents.ZARRAY) in found:
        return True
    key = k.join(path, documents.ZARR_JSON)
    try:
        return key in found and documents.loads(found[key], key).get("node_type") == "array"
    except MetadataError:
        return True  # it may be one, whose chunks nobody can list


def _format_1(data: bytes, key: str) -> Iterator[tuple[str, bytes]]:
    for name, document in consolidated.parse(data, key, strict=False).items():
        yield k.join(k.parent(key), name), documents.dumps(document)


def _inline(data: bytes, key: str) -> Iterator[tuple[str, bytes]]:
    """Yield the documents that a version 3 group repeats."""
    nodes = consolidated.parse_inline(documents.loads(data, key), key)
    if nodes is None:
        raise MetadataError(key, "consolidated_metadata", "is missing")
    for path, document in nodes.items():
        yield k.join(k.parent(key), path, documents.ZARR_JSON), documents.dumps(_alone(document))


def _alone(document: Mapping[str, Any]) -> dict[str, Any]:
    # The groups below have this member too, but empty: it would say that they hold nothing.
    return {name: value for name, value in document.items() if name != "consolidated_metadata"}


def _as_repeated(data: bytes, key: str) -> bytes | None:
    """Return a document of version 3 as `_inline` would; None if it cannot be parsed."""
    try:
        return documents.dumps(_alone(documents.loads(data, key)))
    except MetadataError:
        return None
