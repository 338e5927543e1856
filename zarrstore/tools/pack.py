"""A hierarchy as one file, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Literal

from zarrstore import keys as k
from zarrstore.allowance import MEMORY, check_memory
from zarrstore.base import Store
from zarrstore.errors import DestinationExistsError, MetadataError
from zarrstore.metadata import documents
from zarrstore.registry import open_store, store_class
from zarrstore.tools.cluster import travels
from zarrstore.tools.copy import CopyResult, copy_store
from zarrstore.tools.listing import MAX_QUESTIONS, keys_of
from zarrstore.tools.overlapping import refuse_file
from zarrstore.tools.packing import pack_elsewhere
from zarrstore.tools.progress import Progress

__all__ = ["pack", "unpack"]


def pack(
    source: Any,
    archive: str | bytes | os.PathLike[str],
    *,
    overwrite: bool = False,
    verify: bool = False,
    dry_run: bool = False,
    max_questions: int | None = MAX_QUESTIONS,
    memory: int = MEMORY,
    progress: bool | Callable[[Progress], object] | None = None,
    executor: Executor | None = None,
) -> CopyResult:
    """Put a whole store into one zip archive, which appears at once and whole, or not at all.

    Parameters
    ----------
    source : anything that `open_store` opens
        A directory as a rule. It is read and kept; a store stays open.
    archive : path-like
        Where the archive is to be. A link is followed.
    overwrite : bool, default False
        Replace a file that is there.
    verify : bool, default False
        Read every entry back and compare.
    dry_run : bool, default False
        Plan and report, and write nothing. Chunks of a source that cannot be listed all count, also those never
        written.
    max_questions : int or None, default 1,000,000
        Of a source that cannot be listed: the largest number of chunks that may be asked for by name. None sets no
        limit.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.
    progress : callable or True, optional
        See `copy_store`.
    executor : concurrent.futures.Executor, optional
        Processes, or workers elsewhere, which see the folder of `archive` at the same path: each writes parts of
        `source` into segments of the one file, at places that are reserved for them; this process writes the documents
        and the directory. Threads change nothing, nor does any executor for a source that cannot travel.

    Returns
    -------
    CopyResult
        ``(n_copied, n_skipped, n_bytes_copied)``.

    Raises
    ------
    ClusterError
        `executor` has no worker, one that lacks a package, or workers that see another source or another folder; or it
        ended. No archive was made.
    MetadataError
        The archive's name ends in ``.ozx``, and the root has no ``zarr.json`` that states a version of OME-Zarr.
    DestinationExistsError
        A file is there, at the beginning or at the end, and `overwrite` is False.
    LockedStoreError
        A ZipStore has the archive open for writing, or another `pack` writes it.
    OverlapError
        `archive` lies within the directory `source`, and would be a value of what it holds. Nothing was written.
    StoreNotFoundError
        There is no `source`.
    UnsupportedOperation
        `source` cannot be listed, and no document names its arrays, or they have more chunks than `max_questions`.
    CopyError
        A value could not be copied. No archive was made.

    Notes
    -----
    Entries are stored as they are, documents first and breadth first from the root, as the proposal for zipped Zarr
    (RFC-9 of OME-Zarr) wants, so that a reader finds all metadata in one read. If the
    name ends in ``.ozx``, all ``zarr.json`` come before all else, the archive ends in the format ZIP64, and its comment
    states the version of OME-Zarr, as that proposal has it in March 2026. Written by
    `ZipStore.create_atomically`: beside `archive` under a reserved name, synced, then linked or renamed. After a kill,
    the next `pack` to the same place, or opening it for writing, deletes what was left. Source: this package.

    Examples
    --------
    >>> import tempfile, zarrstore
    >>> folder = tempfile.TemporaryDirectory()
    >>> source = {"0": b"chunk", ".zarray": b"{}", ".zattrs": b"{}"}
    >>> pack(source, f"{folder.name}/a.zip")[:2]
    (3, 0)
    >>> list(zarrstore.open_store(f"{folder.name}/a.zip", mode="r"))
    ['.zarray', '.zattrs', '0']
    >>> folder.cleanup()
    """
    check_memory(memory)
    path = os.fsdecode(archive)
    zip_store: Any = store_class("zip")
    is_ozx = path.lower().endswith(".ozx")
    with _opened(source) as src_store:
        refuse_file(path, "archive", src_store, "")
        if dry_run:
            if os.path.lexists(path) and not overwrite:
                raise DestinationExistsError(str(source), path, "pass overwrite=True")
            if is_ozx:
                _check_ome(src_store)
            return copy_store(src_store, {}, dry_run=True, max_questions=max_questions)
        try:
            with zip_store.create_atomically(path, overwrite=overwrite) as dest_store:
                if executor is not None and travels(executor, src_store):
                    if is_ozx:
                        _check_ome(src_store)
                    return pack_elsewhere(
                        src_store, dest_store, executor, verify=verify, memory=memory, progress=progress
                    )
                first = _set_documents(src_store, dest_store, max_questions) if is_ozx else (0, 0)
                result = copy_store(
                    src_store,
                    dest_store,
                    verify=verify,
                    progress=progress,
                    documents_first=True,
                    max_questions=max_questions,
                    memory=memory,
                    if_exists="skip" if is_ozx else "raise",
                )
            counted = CopyResult(result[0] + first[0], result[1] - first[0], result[2] + first[1])
            counted.errors, counted.notes, counted.n_deleted = result.errors, result.notes, result.n_deleted
            return counted
        except FileExistsError as exc:
            if isinstance(exc, DestinationExistsError):
                raise
            raise DestinationExistsError(str(source), path, "pass overwrite=True") from None


def _set_documents(source: Store, dest: Store, max_questions: int | None) -> tuple[int, int]:
    """Set every ``zarr.json`` of an OME-Zarr, breadth first, before all else; return their number and bytes."""
    _check_ome(source)
    keys = [key for key in keys_of(source, max_questions=max_questions) if k.name(key) == documents.ZARR_JSON]
    values = source.getitems(sorted(keys, key=lambda key: (len(k.segments(key)), key)))
    n_bytes = 0
    for key, value in values.items():
        dest[key] = value
        n_bytes += len(value)
    return len(keys), n_bytes


def _check_ome(source: Store) -> None:
    """Raise if what is to be packed as OME-Zarr is none."""
    try:
        document = documents.loads(source[documents.ZARR_JSON], documents.ZARR_JSON)
        version = document["attributes"]["ome"]["version"]
    except (KeyError, TypeError):
        version = None
    if not isinstance(version, str):
        raise MetadataError(
            documents.ZARR_JSON,
            None,
            "of the root states no version of OME-Zarr (0.5 or later), and .ozx holds nothing else; "
            "migrate to version 3 first, or pack it as .zip",
        )


def unpack(
    archive: Any,
    dest: str | bytes | os.PathLike[str],
    *,
    if_exists: Literal["raise", "skip", "replace"] = "raise",
    verify: bool = False,
    memory: int = MEMORY,
    progress: bool | Callable[[Progress], object] | None = None,
) -> CopyResult:
    """Put every entry of an archive into a directory, and nothing beside it.

    Parameters
    ----------
    archive : anything that `open_store` opens
        A zip archive as a rule. It is read and kept; a store stays open.
    dest : path-like
        The directory. Created if it is missing.
    if_exists : {'raise', 'skip', 'replace'}
        What to do with keys that are there already.
    verify : bool, default False
        Read every file back and compare.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.
    progress : callable or True, optional
        See `copy_store`.

    Returns
    -------
    CopyResult
        ``(n_copied, n_skipped, n_bytes_copied)``.

    Raises
    ------
    DamagedStoreError
        The archive is damaged, or a name in it is no key, as ``../../evil``. Nothing was written.
    DestinationExistsError
        A key is there and `if_exists` is 'raise'. Nothing was written.

    Notes
    -----
    Documents last, as in every copy. Source: this package.

    Examples
    --------
    >>> import tempfile, zarrstore
    >>> folder = tempfile.TemporaryDirectory()
    >>> pack({"a/0": b"chunk"}, f"{folder.name}/a.zip")[0]
    1
    >>> unpack(f"{folder.name}/a.zip", f"{folder.name}/d")[0]
    1
    >>> zarrstore.open_store(f"{folder.name}/d")["a/0"]
    b'chunk'
    >>> folder.cleanup()
    """
    check_memory(memory)
    with _opened(archive) as src_store, store_class("dir")(os.fsdecode(dest)) as dest_store:
        return copy_store(src_store, dest_store, if_exists=if_exists, verify=verify, memory=memory, progress=progress)


@contextmanager
def _opened(source: Any) -> Iterator[Store]:
    """Open a source to read, and close it afterwards; what the caller opened stays open."""
    if isinstance(source, bytes):
        source = os.fsdecode(source)
    store = open_store(source, mode="r")
    try:
        yield store
    finally:
        if isinstance(source, str | os.PathLike):
            store.close()
