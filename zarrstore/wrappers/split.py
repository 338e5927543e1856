"""Documents in one store, chunks in another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from zarrstore import keys as k
from zarrstore.allowance import allowed
from zarrstore.base import Entry, Store
from zarrstore.batch import LazyItems
from zarrstore.errors import ConflictError, UnsupportedOperation
from zarrstore.metadata.documents import DOCUMENTS
from zarrstore.targets import Target, store_of
from zarrstore.wrappers._reads import SidedReads
from zarrstore.wrappers.consolidated import holds_array

__all__ = ["SplitStore"]


class SplitStore(SidedReads):
    """One store out of two: metadata documents live in one, everything else in the other.

    Parameters
    ----------
    metadata : Mapping
        Holds ``.zarray``, ``.zgroup``, ``.zattrs``, ``.zmetadata`` and ``zarr.json``: small, local, fast.
    chunks : Mapping
        Holds the rest.

    Notes
    -----
    Each is to hold only its own kind: keys of the other kind are neither read nor counted, though their directories may
    be listed; both may be one store. Cost: that of the store concerned; listings ask both.
    A rename moves the documents and then the chunks; if the second fails, the first is undone, and a crash between the
    two leaves them apart. `rmdir` removes documents first, so that a crash leaves chunks that nobody sees and no array
    that reads as empty. `close` closes both. Thread and process safety are those of the weaker. Source: zarr 2's
    ``chunk_store=`` argument, as a store.

    Examples
    --------
    >>> documents, chunks = {}, {}
    >>> store = SplitStore(documents, chunks)
    >>> store.update({"a/.zarray": b"{}", "a/0.0": b"1"})
    >>> documents, chunks, store.listdir("a")
    ({'a/.zarray': b'{}'}, {'a/0.0': b'1'}, ['.zarray', '0.0'])
    """

    def __init__(self, metadata: Target, chunks: Target) -> None:
        super().__init__(metadata)
        self.chunks = store_of(chunks, "a")
        self.takes_buffers = self.inner.takes_buffers and self.chunks.takes_buffers
        self._aliases = self.inner._aliases or self.chunks._aliases
        ours, theirs = self.inner.capabilities, self.chunks.capabilities
        self._dimension_separator = self.chunks._dimension_separator or self.inner._dimension_separator
        self.capabilities = replace(
            theirs,
            writable=ours.writable and theirs.writable,
            erasable=ours.erasable and theirs.erasable,
            listable=ours.listable and theirs.listable,
            durable_flush=ours.durable_flush and theirs.durable_flush,
            thread_safe=ours.thread_safe and theirs.thread_safe,
            process_safe=ours.process_safe and theirs.process_safe,
            blocking=ours.blocking or theirs.blocking,
        )

    @property
    def metadata(self) -> Store:
        """The store of the documents."""
        return self.inner

    def __repr__(self) -> str:
        return f"SplitStore({self.inner!r}, {self.chunks!r})"

    def _place(self) -> object:
        places = [(type(store), store._place()) for store in (self.inner, self.chunks)]
        return None if any(place is None for _, place in places) else places

    def _folded_key(self, key: str) -> str:
        return self._side(key)._folded_key(key)

    def _location(self, path: str) -> tuple[object, str]:
        return id(self), path

    @staticmethod
    def _is_document(key: str) -> bool:
        return k.name(key) in DOCUMENTS

    def _side(self, key: str) -> Store:
        return self.inner if self._is_document(key) else self.chunks

    def _sorted_out(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return which of `keys` are the documents and which the rest."""
        ours: list[str] = []
        theirs: list[str] = []
        for key in keys:
            (ours if self._is_document(key) else theirs).append(key)
        return ours, theirs

    def _refuse_conflicts(self, key: str) -> None:
        """Refuse what a hierarchical store would refuse, if neither of the two stores alone sees the conflict."""
        if not self.capabilities.hierarchical:
            return
        side = self._side(key)
        for store in (self.inner, self.chunks):
            if store is side and store.capabilities.hierarchical:
                continue  # this store itself looks for conflicts
            for above in k.parents(key):
                # Only a parent that is named as a document can be in the other store of a chunk: only it is looked for.
                if above and self._side(above) is store and store._contains(above):
                    raise ConflictError(key, self, above)
            for name in store._listdir(key):
                raise ConflictError(key, self, k.join(key, name))

    # Reads ---------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterator[str]:
        # By the kind of a key and not by the store that lists it: both may be one store.
        for store, wants_documents in ((self.inner, True), (self.chunks, False)):
            for key in store._keys(path):
                if self._is_document(key) is wants_documents:
                    yield key

    def _details(self, path: str) -> Iterator[Entry]:
        for store, wants_documents in ((self.inner, True), (self.chunks, False)):
            for entry in store._details(path):
                if self._is_document(entry.key) is wants_documents:
                    yield entry

    def _count(self) -> int:
        # Not the sum of two counts: each may hold what is the other's.
        return sum(1 for _ in self._keys(""))

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        ours, theirs = self._sorted_out(keys)
        if not ours:
            return self.chunks._get_many(theirs)
        if not theirs:
            return self.inner._get_many(ours)
        documents, chunks = self.inner._get_many(ours), self.chunks._get_many(theirs)
        return LazyItems(lambda key: (documents if self._is_document(key) else chunks)[key], keys)

    def _listdir(self, path: str) -> Iterable[str]:
        if not self.chunks.capabilities.listable:
            return self._listdir_of_group(path)
        return dict(self._list_children(path))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        if not self.chunks.capabilities.listable:
            return ((name, True) for name in self._listdir(path))
        children = dict(self.chunks._list_children(path))
        for name in DOCUMENTS & children.keys():
            # A document among the chunks is out of sight; a directory of that name is not.
            if not (children[name] and any(True for _ in self.chunks._listdir(k.join(path, name)))):
                del children[name]
        for name, is_path in self.inner._list_children(path):
            children[name] = is_path or children.get(name, False)
        return children.items()

    def _listdir_of_group(self, path: str) -> set[str]:
        """Return the documents and nodes of a group; chunks cannot be listed."""
        names = set(self.inner._listdir(path))
        with allowed():  # documents are small
            found = self.inner._get_many([k.join(path, name) for name in names & DOCUMENTS])
        if not names or holds_array(found, path):
            raise UnsupportedOperation(f"list what lies below {path!r}, which may be chunks", self)
        return names

    def _getsize(self, path: str) -> int:
        if path and self._contains(path):
            return self._side(path)._getsize(path)
        if not self.capabilities.listable:
            return -1
        documents = [self._size(self.inner, k.join(path, name)) for name in DOCUMENTS & set(self.inner._listdir(path))]
        strays = [self._size(self.chunks, k.join(path, name)) for name in DOCUMENTS & set(self.chunks._listdir(path))]
        chunks = self.chunks._getsize(path)
        return -1 if -1 in (chunks, *documents, *strays) else chunks + sum(documents) - sum(strays)

    @staticmethod
    def _size(store: Store, key: str) -> int:
        try:
            return store._nbytes(key)
        except KeyError:  # a directory of that name
            return 0

    # Writes --------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        self._refuse_conflicts(key)
        self._side(key)._set(key, value)

    def _delete(self, key: str) -> None:
        self._side(key)._delete(key)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        documents: list[tuple[str, bytes]] = []

        def chunks() -> Iterator[tuple[str, bytes]]:
            for key, value in items:
                if self._is_document(key):
                    documents.append((key, bytes(value)))  # few, and small; kept until the chunks are set
                else:
                    self._refuse_conflicts(key)
                    yield key, value

        # Chunks first: whoever sees the document sees what it describes.
        self.chunks._set_many(chunks())
        for key, _ in documents:
            self._refuse_conflicts(key)
        self.inner._set_many(documents)

    def _delete_many(self, keys: Iterable[str]) -> None:
        ours, theirs = self._sorted_out(keys)
        if ours:
            self.inner._delete_many(ours)
        if theirs:
            self.chunks._delete_many(theirs)

    def _rmdir(self, path: str) -> None:
        self.inner._rmdir(path)
        self.chunks._rmdir(path)

    def _rename(self, source: str, destination: str) -> None:
        if self._side(source) is not self._side(destination) and self._contains(source):
            return Store._rename(self, source, destination)  # a document becomes none, or the other way round
        moved: list[Store] = []
        try:
            for store in (self.inner, self.chunks):
                if store._is_occupied(source):
                    store._rename(source, destination)
                    moved.append(store)
        except BaseException:
            for store in moved:
                store._rename(destination, source)
            raise

    def _clear(self) -> None:
        self.inner._clear()
        self.chunks._clear()

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        return dict.fromkeys([*self.inner._sweep(path, dry_run), *self.chunks._sweep(path, dry_run)])

    def _flush(self) -> None:
        # Chunks first, for the same reason as above.
        self.chunks._flush()
        self.inner._flush()

    def _close(self) -> None:
        try:
            self.inner._close()
        finally:
            self.chunks._close()
