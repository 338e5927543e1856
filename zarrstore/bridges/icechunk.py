"""An Icechunk repository under version 2 keys: write, commit, look at history, go back."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeVar

from zarrstore import keys as k
from zarrstore.bridges.icechunkstorage import local_folder, storage_of
from zarrstore.bridges.zarr3stores import AsyncStoreMapping
from zarrstore.errors import InvalidKeyError, ReadOnlyError, StoreNotFoundError, UnsupportedOperation
from zarrstore.metadata import documents
from zarrstore.metadata.documents import ZARR_JSON, ZARRAY, ZGROUP
from zarrstore.optional import require
from zarrstore.wrappers.v2view import V2View

require("icechunk", extra="icechunk", feature="IcechunkStore")

import icechunk  # noqa: E402

__all__ = ["IcechunkSession", "IcechunkStore", "Snapshot", "open_repository"]

T = TypeVar("T")

#: Icechunk answers so for whatever can be no key of a version 3 hierarchy, and for a chunk where no node is.
_ABSENT = ("invalid zarr key format", "node not found", "there is not an array")
#: And so for what cannot be set.
_REFUSED = (*_ABSENT, "invalid chunk index", "V2 metadata keys")
#: What chunks that come before their array may hold while they wait, in bytes.
_EARLY_NBYTES = 64 << 20


@dataclass(frozen=True)
class Snapshot:
    """One commit.

    Parameters
    ----------
    id : str
        What `IcechunkStore.at` takes.
    message : str
        The message given at the commit.
    written_at : datetime
        When it was committed.
    metadata : mapping
        Further members given at the commit.
    parent : str or None
        The commit before.
    """

    id: str
    message: str
    written_at: datetime
    metadata: Mapping[str, Any]
    parent: str | None


class IcechunkSession(AsyncStoreMapping):
    """A session of Icechunk as a mapping, under version 3 keys as they are.

    Parameters
    ----------
    session : icechunk.Session
        Read-only or writable.
    loop : {'zarr', 'own'}
        As for AsyncStoreMapping.

    Notes
    -----
    Holds ``zarr.json`` documents and chunks named ``c/0/0``, and nothing else: setting another key raises
    InvalidKeyError, reading one is absent. Deleting the document of an array deletes its chunks. Icechunk pickles
    sessions that are read-only; see `Session.allow_pickling`.

    Examples
    --------
    >>> repository = icechunk.Repository.create(icechunk.in_memory_storage())
    >>> session = IcechunkSession(repository.writable_session("main"))
    >>> session["zarr.json"] = b'{"zarr_format": 3, "node_type": "group"}'
    >>> list(session), "no such/key" in session
    (['zarr.json'], False)
    """

    _documents_first = True

    def __init__(self, session: Any, loop: str = "zarr") -> None:
        self.session = session
        super().__init__(session.store, loop)
        self.capabilities = replace(self.capabilities, ranged=session.read_only)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.session, self.loop)

    def __repr__(self) -> str:
        where = self.session.branch or self.session.snapshot_id
        return f"{type(self).__name__}(<{'read-only ' if self.session.read_only else ''}session of {where!r}>)"

    async def _or_absent(self, answer: Awaitable[T]) -> T | None:
        try:
            return await answer
        except KeyError:
            return None
        except icechunk.IcechunkError as exc:
            if any(sign in str(exc) for sign in _ABSENT):
                return None
            raise

    async def _is_value(self, key: str) -> bool:
        return bool(await self._or_absent(super()._is_value(key)))

    async def _read(self, key: str, part: Any = None) -> bytes | None:
        return await self._or_absent(super()._read(key, part))

    async def _read_range(self, key: str, start: int, stop: int | None) -> bytes:
        if self.session.read_only:
            part = await super()._read_range(key, start, stop)
            if len(part) > 1:
                return part
        # Of a part behind the end, Icechunk gives the last byte; and while a chunk is replaced, a part may panic.
        return self._found(key, await self._read(key))[start:stop]

    def _get_suffix(self, key: str, n: int) -> bytes:
        if self.session.read_only:
            return super()._get_suffix(key, n)
        value = self._get(key)
        return value[max(0, len(value) - n) :]

    async def _size(self, key: str) -> int | None:
        # Of a chunk that was never written, Icechunk says 0.
        return await super()._size(key) if await self._is_value(key) else None

    def _keys(self, path: str) -> Iterable[str]:
        # Icechunk lists what is below a node, and nothing else: not chunks alone, nor a directory without a document.
        for above in [path, *reversed(list(k.parents(path)))]:
            try:
                return [key for key in super()._keys(above) if k.is_below(key, path)]
            except icechunk.IcechunkError as exc:
                if "bad key prefix" not in str(exc):
                    raise
        return []

    def _listdir(self, path: str) -> Iterable[str]:
        return list(super()._listdir(path)) or k.children(self._keys(path), path)

    async def _write(self, item: tuple[str, bytes]) -> None:
        key, _ = item
        try:
            await super()._write(item)
        except (KeyError, icechunk.IcechunkError) as exc:
            if isinstance(exc, KeyError) or any(sign in str(exc) for sign in _REFUSED):
                raise InvalidKeyError(key, "Icechunk holds documents, and chunks within arrays that are there") from exc
            if "read-only" in str(exc):
                raise ReadOnlyError(key, self) from exc
            raise

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        # A chunk is refused before its array is there, and in order of keys it comes first.
        early: list[tuple[str, bytes]] = []
        nodes: set[str] = set()

        def ready() -> Iterator[tuple[str, bytes]]:
            waiting = 0
            for key, value in items:
                if k.name(key) == ZARR_JSON:
                    self._set(key, value)
                    continue
                if self._has_node(key, nodes):
                    yield key, value
                    continue
                early.append((key, value))
                waiting += len(value)
                if waiting > _EARLY_NBYTES:
                    raise InvalidKeyError(key, "no array is there yet: set documents before chunks")

        super()._set_many(ready())
        super()._set_many(early)

    def _has_node(self, key: str, nodes: set[str]) -> bool:
        for above in k.parents(key):
            if k.child(key, above) == "c" and (above in nodes or self._contains(k.join(above, ZARR_JSON))):
                nodes.add(above)
                return True
        return False

    def _rename(self, source: str, destination: str) -> None:
        self._may_write(source)
        moving = [*self._keys(source), source] if self._contains(source) else [*self._keys(source)]
        found = self._get_many(moving)
        # All copied before the first is deleted: whatever fails, the source is whole.
        self._set_many((k.replace_root(key, source, destination), found[key]) for key in moving)
        self._delete_many([key for key in moving if k.name(key) != ZARR_JSON])
        self._rmdir(source)

    def _may_write(self, what: str) -> None:
        # Not only what the capabilities say: a session that was committed is read-only from then on.
        if self.session.read_only:
            raise ReadOnlyError(what, self)


class IcechunkStore(V2View):
    """An Icechunk repository as a version 2 hierarchy, of which every commit can be seen again.

    Parameters
    ----------
    source : icechunk.Repository or icechunk.Session
        A repository, or one session of it.
    branch : str, default 'main'
        The branch of a repository to read or write.
    snapshot_id, tag : str, optional
        Instead of a branch: the commit to look at.
    read_only : bool, default False
        Whether to open the branch for reading only. A snapshot or tag is, in any case.
    dimension_separator : {'.', '/'}, default '.'
        As for V2View.

    Notes
    -----
    What is set is seen by this object at once, and by others after `commit`; what is not committed is lost with it.
    Documents are translated and chunks are untouched, as V2View says; other keys are refused. After `commit` a
    repository's branch is open for writing again, a session given by itself is read-only. Threads: safe. Source:
    icechunk 1.1, which itself refuses version 2 keys.

    Examples
    --------
    >>> from zarrstore.metadata import v2
    >>> store = IcechunkStore(icechunk.Repository.create(icechunk.in_memory_storage()))
    >>> meta = v2.build_array(shape=4, chunks=2, dtype="i4", compressor=None)
    >>> store.update({".zgroup": v2.encode_group(), "a/.zarray": v2.encode_array(meta), "a/0": bytes(8)})
    >>> first = store.commit("one chunk")
    >>> store["a/1"] = bytes(8)
    >>> sorted(store), sorted(store.at(first))
    (['.zgroup', 'a/.zarray', 'a/0', 'a/1'], ['.zgroup', 'a/.zarray', 'a/0'])
    >>> [snapshot.message for snapshot in store.history()]
    ['one chunk', 'Repository initialized']
    """

    def __init__(
        self,
        source: Any,
        branch: str = "main",
        *,
        snapshot_id: str | None = None,
        tag: str | None = None,
        read_only: bool = False,
        dimension_separator: Literal[".", "/"] = ".",
    ) -> None:
        self.repository: Any = None
        session = source
        if isinstance(source, icechunk.Repository):
            self.repository = source
            session = _session(source, branch, snapshot_id, tag, read_only)
        elif not isinstance(source, icechunk.Session):
            raise TypeError(f"cannot use {type(source).__name__}: an icechunk Repository or Session is expected")
        self.branch = branch
        self._message: str | None = None
        super().__init__(IcechunkSession(session), dimension_separator)

    def _place(self) -> object:
        return None

    @property
    def session(self) -> Any:
        """The session of Icechunk that is read and written now."""
        return self._held.session

    @property
    def _held(self) -> IcechunkSession:
        assert isinstance(self.inner, IcechunkSession)
        return self.inner

    @property
    def snapshot_id(self) -> str:
        """The commit that is seen, or that changes are based on."""
        return str(self.session.snapshot_id)

    @property
    def has_changes(self) -> bool:
        """Whether anything was changed since the last commit."""
        return bool(self.session.has_uncommitted_changes)

    def commit(self, message: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Make what was changed a commit, and return its id.

        Parameters
        ----------
        message : str
            Message for the history.
        metadata : mapping, optional
            Further members for the history: anything that JSON can hold.

        Raises
        ------
        ReadOnlyError
            The session cannot be written.
        icechunk.ConflictError
            Another session committed to the branch first; `session.rebase` may reconcile the two.
        """
        if self.session.read_only:
            raise ReadOnlyError("", self)
        snapshot_id = str(self.session.commit(message, dict(metadata) if metadata else None))
        if self.repository is not None:
            self.inner = IcechunkSession(self.repository.writable_session(self.branch))
        else:
            self.capabilities = replace(self.capabilities, writable=False, erasable=False)
        return snapshot_id

    def discard(self) -> None:
        """Forget what was changed since the last commit."""
        self.session.discard_changes()
        self.invalidate()

    def history(self) -> list[Snapshot]:
        """Return the commits that led to what is seen, the latest first."""
        commits = self._needs_repository("list history").ancestry(snapshot_id=self.snapshot_id)
        return [
            Snapshot(one.id, one.message, one.written_at, dict(one.metadata or {}), one.parent_id) for one in commits
        ]

    def at(self, snapshot_id: str) -> IcechunkStore:
        """Return the hierarchy as it was at a commit, read-only; this store stays where it is."""
        repository = self._needs_repository("go to another commit")
        return IcechunkStore(repository, snapshot_id=snapshot_id, dimension_separator=self._dimension_separator or ".")

    def _close(self) -> None:
        if self._message is not None and not self.session.read_only and self.has_changes:
            self.commit(self._message)
        super()._close()

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if kind is not None and self._message is not None and not self.session.read_only:
            self.discard()  # half of what was to be written is no commit
        super().__exit__(kind, value, trace)

    def _needs_repository(self, operation: str) -> Any:
        if self.repository is None:
            raise UnsupportedOperation(operation, self, "make it of a Repository instead of a Session")
        return self.repository

    def _settable(self, key: str) -> str:
        below = super()._settable(key)
        if below == key:
            raise InvalidKeyError(key, "Icechunk holds arrays and groups, and no other values")
        return below

    def _replace(self, path: str, old: Mapping[str, Any] | None, node: Mapping[str, Any]) -> None:
        key = k.join(path, ZARR_JSON)
        if old is not None and old["node_type"] != node["node_type"]:
            # Icechunk lets no array take the place of a group, nor the other way round.
            if self._holds_more(path):
                what = f"make the {old['node_type']} {path!r}, which is not empty, an {node['node_type']}"
                raise UnsupportedOperation(what, self, f"rmdir({path!r}) first")
            self.inner._delete(key)
        self.inner._set(key, documents.dumps(node))

    def _replace_all(self, nodes: Mapping[str, tuple[Mapping[str, Any] | None, Mapping[str, Any]]]) -> None:
        # One after the other: it lets no node come before the group above it.
        for path, (old, node) in nodes.items():
            self._replace(path, old, node)

    def _holds_more(self, path: str) -> bool:
        # By its keys: an array's "c" is listed even after its last chunk was deleted.
        return any(key != k.join(path, ZARR_JSON) for key in self.inner._keys(path))

    def _delete_document(self, path: str, name: str) -> None:
        if name in (ZARRAY, ZGROUP) and self._holds_more(path):
            # Icechunk would remove all below: deleting a key never removes a subtree.
            raise UnsupportedOperation(
                f"delete {k.join(path, name)!r} alone", self, f"rmdir({path!r}) removes the node"
            )
        super()._delete_document(path, name)


def _session(repository: Any, branch: str, snapshot_id: str | None, tag: str | None, read_only: bool) -> Any:
    if snapshot_id is not None:
        return repository.readonly_session(snapshot_id=snapshot_id)
    if tag is not None:
        return repository.readonly_session(tag=tag)
    return repository.readonly_session(branch) if read_only else repository.writable_session(branch)


def open_repository(
    place: str,
    mode: str = "a",
    storage_options: Mapping[str, Any] | None = None,
    *,
    message: str = "written through zarrstore",
    **options: Any,
) -> IcechunkStore:
    """Return the repository at a path or URL, made now if it is not there and `mode` creates.

    Parameters
    ----------
    place : str
        A path, or a URL of S3 or Google Cloud (``s3://bucket/prefix``).
    mode : str
        As for `open_store`.
    storage_options : mapping, optional
        As s3fs takes them (``key``, ``secret``, ``token``, ``anon``, ``endpoint_url``, ``client_kwargs``), or as
        Icechunk's own storage does. By default the environment tells.
    message : str
        Of the commit that `close` makes of what was changed. A ``with`` block that ends in an error commits nothing.
    **options
        Passed to `IcechunkStore`.

    Raises
    ------
    StoreNotFoundError
        No repository is there, and `mode` does not create.
    """
    folder = local_folder(place)
    if folder is not None and mode in ("r", "r+") and not os.path.isdir(folder):
        raise StoreNotFoundError(place, "a repository of Icechunk")  # Icechunk would make the directory
    storage = storage_of(place, dict(storage_options or {}))
    if mode in ("r", "r+") or icechunk.Repository.exists(storage):
        try:
            repository = icechunk.Repository.open(storage)
        except icechunk.IcechunkError as exc:
            if icechunk.Repository.exists(storage):
                raise
            raise StoreNotFoundError(place, "a repository of Icechunk") from exc
    else:
        repository = icechunk.Repository.create(storage)
    store = IcechunkStore(repository, read_only=mode == "r", **options)
    store._message = message
    return store
