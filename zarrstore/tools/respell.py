"""Chunks from the flat spelling to the nested one, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.chunknames import nest
from zarrstore.errors import ConflictError, MetadataError, ReadOnlyError, UnsupportedOperation
from zarrstore.metadata import documents, v2
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3
from zarrstore.nodes import Node, walk
from zarrstore.shown import Shown
from zarrstore.spelling import Spellings, spellings_of, stored_chunk_keys_of
from zarrstore.targets import Target, opens
from zarrstore.tools.consolidate import consolidated_updates

__all__ = ["RespellReport", "RespelledArray", "respell"]

_BATCH = 256


@dataclass(frozen=True)
class RespelledArray:
    """What becomes of one array.

    Parameters
    ----------
    path : str
        Where it is.
    before, after : {'.', '/'}
        What stands between the numbers of its chunks.
    n_chunks : int
        Chunks that get another name.
    """

    path: str
    before: str
    after: str
    n_chunks: int


@dataclass(frozen=True, repr=False)
class RespellReport(Shown):
    """All arrays whose chunks are renamed. True if there is any.

    Parameters
    ----------
    dry_run : bool
        Nothing was written.
    arrays : tuple of RespelledArray
        In natural order of their paths.
    notes : tuple of str
        Arrays that stay as they are, and why.
    """

    dry_run: bool
    arrays: tuple[RespelledArray, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.arrays)

    def _title(self) -> str:
        return f"the chunks of {len(self.arrays):,} arrays {'would be' if self.dry_run else 'were'} renamed"

    def _headers(self) -> tuple[str, ...]:
        return ("path", "before", "after", "chunks")

    def _rows(self) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = [
            (one.path or "/", one.before, one.after, f"{one.n_chunks:,}") for one in self.arrays
        ]
        return rows + [("", "", "note", note) for note in self.notes]

    def __iter__(self) -> Iterator[RespelledArray]:
        return iter(self.arrays)


@dataclass
class _Job:
    path: str
    before: ChunkKeys
    after: ChunkKeys
    renames: dict[str, str]
    documents: dict[str, bytes]


@opens(store="r+")
def respell(
    store: Target, separator: Literal[".", "/"], path: object = "", *, dry_run: bool = False, merge: bool = False
) -> RespellReport:
    """Rename the chunks of every array at or below a path so that `separator` stands between their numbers.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    separator : {'.', '/'}
        ``"."`` for flat names (``0.1``), ``"/"`` for nested ones.
    path : str
        The root of the hierarchy.
    dry_run : bool, default False
        Report, and write nothing.
    merge : bool, default False
        Whether an array with chunks in both spellings gets all of them. A reader then sees chunks that it did not see
        before. Otherwise such an array is refused.

    Returns
    -------
    RespellReport
        One entry for each array whose chunks get other names.

    Raises
    ------
    MetadataError
        An array has chunks in both spellings and `merge` is False; a document is damaged. Nothing was written.
    ConflictError
        Two chunks of different content would get one name. Nothing was written.
    ReadOnlyError, UnsupportedOperation
        The store cannot be written, or cannot erase, or spells chunks by itself (NestedDirectoryStore, a view of
        another format). Nothing was written.

    Notes
    -----
    For each array the chunks are written under their new names first, then the documents (``.zarray``, ``zarr.json``
    and consolidated metadata above), then the old names are deleted: a reader finds every chunk at every moment, and a
    second run goes on after a crash. Cost: one listing, and one read, write and deletion a chunk. Source: this package.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=(4, 4), chunks=(2, 2), path="a")
    >>> store["a/0.1"] = b"chunk"
    >>> respell(store, "/").arrays
    (RespelledArray(path='a', before='.', after='/', n_chunks=1),)
    >>> sorted(store)
    ['.zgroup', 'a/.zarray', 'a/0/1']
    """
    if separator not in (".", "/"):
        raise ValueError(f"separator is {separator!r}; it is '.' or '/'")
    adapted = as_store(store)
    at = k.normalize_path(path)
    notes: list[str] = []
    jobs = []
    for node in walk(adapted, at):
        if node.error is not None:
            raise node.error
        job = _plan(adapted, node, separator, merge, notes) if node.kind == "array" else None
        if job is not None:
            jobs.append(job)
    if jobs and not dry_run:
        if not adapted.capabilities.writable:
            raise ReadOnlyError(next(iter(jobs[0].documents)), adapted)
        if not adapted.capabilities.erasable:
            raise UnsupportedOperation("rename chunks", adapted, "copy it to another store first")
        for job in jobs:
            _apply(adapted, job)
    arrays = (RespelledArray(job.path, job.before.separator, job.after.separator, len(job.renames)) for job in jobs)
    return RespellReport(dry_run, tuple(arrays), tuple(notes))


def _plan(store: Store, node: Node, separator: str, merge: bool, notes: list[str]) -> _Job | None:
    new_documents: dict[str, bytes] = {}
    if node.version == 2:
        meta = v2.check_array(node.document, node.key)
        before = stored_chunk_keys_of(store, node.path, meta)
        found = spellings_of(store, node.path, meta, limit=None)
        if not merge:
            _check_unmixed(store, node, before, found)
        if before.ndim > 1 and meta.dimension_separator != separator:
            document = {**node.document, "dimension_separator": separator}
            new_documents[node.key] = documents.dumps(document)
    elif node.version == 3:
        before, found = chunk_keys_of_v3(node.document, node.key), Spellings()
    else:
        notes.append(f"{node.key}: version 1 has one spelling; migrate it first")
        return None
    after = before.respelled(separator)
    if after.ndim < 2 and after.encoding == "v2":
        return None
    _add_v3_document(store, node, after, new_documents)
    if (
        found.flat is not None
        and store._dimension_separator == "/"
        and store._stored_key(found.flat) == nest(found.flat)
    ):
        if separator == ".":
            raise UnsupportedOperation("give chunks flat names", store, "it nests all of them; open a DirectoryStore")
        renames = {}
    else:
        renames = _renames(store, node, after)
    return _Job(node.path, before, after, renames, new_documents) if renames or new_documents else None


def _check_unmixed(store: Store, node: Node, before: ChunkKeys, found: Spellings) -> None:
    """Raise if some chunk is seen only by another spelling; equal copies are what an interrupted run left."""
    if found.flat is None or found.nested is None:
        return
    unseen = before.respelled("/" if before.separator == "." else ".")
    for key in store.keys_below(node.path):
        coords = unseen.coords(key, node.path)
        if coords is None or store.get(before.key(node.path, coords)) == store[key]:
            continue
        raise MetadataError(
            node.key,
            "dimension_separator",
            f"leaves some chunks unseen: they are named in both ways, as {found.flat!r} and as {found.nested!r}; "
            "pass merge=True to show them all",
        )


def _add_v3_document(store: Store, node: Node, after: ChunkKeys, new_documents: dict[str, bytes]) -> None:
    key = k.join(node.path, documents.ZARR_JSON)
    data = store.get(key)
    if data is None:
        return
    document = documents.loads(data, key)
    rule = chunk_keys_of_v3(document, key)
    if (rule.encoding, rule.separator) != (after.encoding, after.separator):
        encoding = {"name": after.encoding, "configuration": {"separator": after.separator}}
        new_documents[key] = documents.dumps({**document, "chunk_key_encoding": encoding})


def _renames(store: Store, node: Node, after: ChunkKeys) -> dict[str, str]:
    """Return the new name of each chunk that has another; raise if two of different content would share one."""
    other = after.respelled("/" if after.separator == "." else ".")
    renames = {}
    names = set(store.keys_below(node.path))
    for key in names:
        coords = other.coords(key, node.path)
        if coords is not None and k.name(key) not in documents.DOCUMENTS:
            renames[key] = after.key(node.path, coords)
    for old, new in renames.items():
        there = store.get(new)
        if there is not None and there != store[old]:
            raise ConflictError(new, store, old)
        if there is not None and new not in names:
            what = f"give {old!r} another name"
            raise UnsupportedOperation(what, store, f"it shows the same value as {new!r}; respell the store within")
    return renames


def _apply(store: Store, job: _Job) -> None:
    old = list(job.renames)
    for at in range(0, len(old), _BATCH):
        found = store.getitems(old[at : at + _BATCH])
        store.setitems((job.renames[key], found[key]) for key in old[at : at + _BATCH])
    store.flush()
    for key, data in {**job.documents, **consolidated_updates(store, job.documents)}.items():
        store[key] = data
    store.flush()
    store.delitems(old)
