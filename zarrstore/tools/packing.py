"""A hierarchy packed by workers: each writes a part of it into its own segment of one archive."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.metadata import documents
from zarrstore.registry import store_class
from zarrstore.tools.cluster import run_elsewhere
from zarrstore.tools.copy import CopyError, CopyResult
from zarrstore.tools.deletion import parts_of, survey
from zarrstore.tools.executing import threads_of
from zarrstore.tools.holding import is_document
from zarrstore.tools.progress import Progress, reporter
from zarrstore.tools.subtrees import Subtree, entries_of
from zarrstore.tools.sums import values_among

__all__ = ["pack_elsewhere"]

_LEFT = "no archive was made; run it again"
#: Documents set in one call.
_AT_ONCE = 500


def pack_elsewhere(
    source: Store,
    archive: Any,
    executor: Executor,
    *,
    verify: bool,
    memory: int,
    progress: bool | Callable[[Progress], object] | None,
) -> CopyResult:
    """Write all entries of a source to a new archive: documents here, breadth first, then the others on workers.

    Parameters
    ----------
    archive : ZipStore
        Empty, as `ZipStore.create_atomically` gives it; in a folder that workers see at the same path.

    Raises
    ------
    ClusterError
        The workers cannot work, or see another source or another folder.
    CopyError
        Values changed while they were packed.

    Notes
    -----
    Workers tell how many bytes their parts take; each part gets a segment of the file, and only its worker writes
    there; this process then lists the entries. Nothing is written twice, and a part of a dead worker is done again. The
    file system must keep apart what several machines write to different places of one file.
    Cost: two listings, one read a value. Here: the record of each entry.
    """
    # Made before: a store that was just opened may make its folder, which workers then see.
    folder = store_class("dir")(os.path.dirname(archive.path))
    found = survey(source, "", executor, folder, values=True).documents
    counts = [len(found), sum(map(len, found.values()))]
    # All zarr.json first, as the proposal for zipped OME-Zarr wants, then the documents of version 2.
    ordered = iter(sorted(found, key=lambda key: (k.name(key) != documents.ZARR_JSON, len(k.segments(key)), key)))
    while batch := list(islice(ordered, _AT_ONCE)):
        archive.setitems({key: found[key] for key in batch})
    parts = list(parts_of(executor, source, ""))
    sizes = run_elsewhere(executor, ((measure_part, archive.entry_nbytes, source, part) for part in parts), _LEFT)
    measured = [(part, size) for part, size in zip(parts, sizes, strict=True) if size]
    segments = archive._reserve_segments([size for _, size in measured])
    share = max(1, memory // (threads_of(executor) or 16))
    tasks = (
        (pack_part, source, part, segment, share, verify) for (part, _), segment in zip(measured, segments, strict=True)
    )
    errors: dict[str, str] = {}
    with reporter(progress, 0, "pack") as report:
        for (part, _), filled in zip(measured, run_elsewhere(executor, tasks, _LEFT), strict=True):
            if not filled.is_exact:
                errors[part.path or "/"] = "values at or below it changed while they were packed; no archive was made"
                continue
            archive._list_segment(filled)
            counts = [counts[0] + filled.n_entries, counts[1] + filled.nbytes]
            report(Progress(counts[0], counts[0], counts[1]))
    result = CopyResult(counts[0], 0, counts[1])
    result.errors, result.notes, result.n_deleted = errors, [], 0
    if errors:
        raise CopyError(errors, result)
    return result


# On a worker --------------------------------------------------------------------------------------------------------


def measure_part(entry_nbytes: Callable[[str, int], int], source: Store, part: Subtree) -> int:
    """Return how many bytes the entries of a part take in an archive."""
    total = 0
    for entry in _entries(source, part):
        total += entry_nbytes(entry.key, entry.nbytes if entry.nbytes >= 0 else source._nbytes(entry.key))
    return total


def pack_part(source: Store, part: Subtree, segment: Any, memory: int, verify: bool) -> Any:
    """Write the entries of a part to its segment, in the order of their keys."""
    return segment.write(values_among(source, _entries(source, part), memory), verify)


def _entries(source: Store, part: Subtree) -> Iterator[Entry]:
    return (entry for entry in entries_of(source, part) if part.takes(entry.key) and not is_document(entry.key))
