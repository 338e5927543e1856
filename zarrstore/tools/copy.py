"""Everything, or a part, from one mapping to another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY, check_memory
from zarrstore.errors import ReadOnlyError, ZarrStoreError
from zarrstore.targets import Target, opens
from zarrstore.tools.copyjob import CopyJob, Filters
from zarrstore.tools.listing import MAX_QUESTIONS
from zarrstore.tools.plan import IfExists, Paths
from zarrstore.tools.progress import Progress

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["CopyError", "CopyResult", "copy_store"]


class _Counts(NamedTuple):
    n_copied: int
    n_skipped: int
    n_bytes_copied: int


class CopyResult(_Counts):
    """What was copied: zarr 2's triple of numbers, with the errors as an attribute.

    Attributes
    ----------
    n_copied, n_skipped : int
        Keys. Those that a journal says were copied before count as skipped.
    n_bytes_copied : int, bytes
        Of the values copied.
    errors : dict of str to str
        Source keys that could not be copied, and why.
    notes : list of str
        What the listing of the source cannot tell, if it is not complete; how many values were judged by time.
    n_deleted : int
        Keys that were deleted, with ``delete=True``.

    Examples
    --------
    >>> copied, skipped, nbytes = copy_store({"a": b"123"}, {})
    >>> copied, skipped, nbytes
    (1, 0, 3)
    """

    errors: dict[str, str]
    notes: list[str]
    n_deleted: int


class CopyError(ZarrStoreError, RuntimeError):
    """Some keys could not be copied; the others were. Fields: `errors`, by source key, and `result`.

    Examples
    --------
    >>> copy_store({"a": "text is no value", "b": b"1"}, {})
    Traceback (most recent call last):
    zarrstore.tools.copy.CopyError: cannot copy 'a': cannot store a value of type str: it is not bytes-like; ...
    """

    errors: dict[str, str]
    result: CopyResult

    def __init__(self, errors: Mapping[str, str], result: CopyResult) -> None:
        key, why = next(iter(errors.items()))
        more = f", and {len(errors) - 1:,} more keys" if len(errors) > 1 else ""
        super().__init__(
            f"cannot copy {key!r}: {why}{more}; the documents by which a reader would find them were held back, "
            "the rest was copied",
            errors=dict(errors),
            result=result,
        )


@opens(source="r", dest="a")
def copy_store(
    source: Target,
    dest: Target,
    source_path: object = "",
    dest_path: object = "",
    excludes: str | Sequence[str] | None = None,
    includes: str | Sequence[str] | None = None,
    flags: int = 0,
    if_exists: IfExists = "raise",
    dry_run: bool = False,
    log: Any = None,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    verify: bool = False,
    progress: bool | Callable[[Progress], object] | None = None,
    errors: Literal["raise", "collect"] = "raise",
    documents_first: bool = False,
    memory: int = MEMORY,
    max_questions: int | None = MAX_QUESTIONS,
    delete: bool = False,
    include_globs: Sequence[str] = (),
    exclude_globs: Sequence[str] = (),
    checksum: bool = False,
    manifest: str | os.PathLike[str] | Mapping[str, str] | None = None,
) -> CopyResult:
    """Copy values as they are from any mapping to any mapping, documents last.

    Parameters
    ----------
    source, dest : mapping of str to bytes
        Any mappings.
    source_path, dest_path : str
        Copy what is at and below the one to the other. If a value is at `source_path` itself and `dest_path` is the
        root, it goes to its own name there.
    excludes, includes : str or sequence of str, optional
        Regular expressions searched for in the source key: one that an exclude finds is left out, unless an include
        finds it too.
    flags : int
        For the regular expressions.
    if_exists : {'raise', 'skip', 'replace', 'differ'}
        What to do with a key that is at the destination already. 'raise' looks before anything is written. 'differ'
        replaces values that are not the same: by size and checksum, where both listings have them (the ETag of S3, the
        CRC of a zip); where one of the two stores is remote, by size and time (a chunk that was set at the destination
        after it was last set at the source counts as unchanged, and `notes` says how many did); else by reading.
    dry_run : bool, default False
        Plan and report, and write nothing.
    log : callable, path, file or None
        Takes one line a key and a summary.
    executor : concurrent.futures.Executor, optional
        Where the batches run: threads, processes, ``dask.distributed.Client.get_executor()``, ``mpi4py.futures``,
        loky. Stores travel to it by pickle unless it is a ThreadPoolExecutor. If one of the two cannot be pickled or
        may be used by one process only (`Capabilities.process_safe`), all work is done here. Of executors that are no
        threads it is made sure first that their workers see the same stores; they then list, compare and copy parts of
        the hierarchy by themselves, unless `resume`, `log`, `delete`, `manifest` or `documents_first` is given.
    workers : int, optional
        Number of threads if no executor is given. Not given, as many as the stores profit from: one, where both are
        on this machine.
    resume : path-like, optional
        A journal: what it names, is at the destination, and did not change at the source, is not copied again. Created
        when all checks have passed, deleted when all is copied, and locked meanwhile. It belongs to one source,
        destination and set of options. What `if_exists` says holds for what was at the destination before the first
        run; a key that the interrupted run wrote without recording it is copied again.
    verify : bool, default False
        Read every value back and compare.
    progress : callable or True, optional
        Called with a `Progress` as batches end; True draws a bar on a terminal (needs rich).
    errors : {'raise', 'collect'}
        Whether keys that could not be copied raise CopyError at the end, or stand in the result only.
    documents_first : bool, default False
        Copy documents before chunks, breadth first: the order that archives want, for a destination that nobody reads
        before it is whole. If a key fails, the documents above it are deleted again. Views of another version, which
        take a chunk only when they have its array, are always written so.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.
    max_questions : int or None, default 1,000,000
        Of a source that cannot be listed, as a web server: the largest number of chunks that may be asked for by name.
        None sets no limit.
    delete : bool, default False
        When all is copied without an error, delete the keys below `dest_path` that the source does not have, documents
        first. Keys that `excludes` and the globs leave out stay.
    include_globs, exclude_globs : sequence of str
        Paths and globs relative to `source_path`, see `zarrstore.tools.globs.Globs`: includes alone mean only those.
    checksum : bool, default False
        With 'differ', time proves nothing: what checksums of listings do not tell is read.
    manifest : path-like or mapping, optional
        With 'differ', the SHA-256 of what is at the destination, as `write_manifest` writes it: the destination is then
        not read.

    Returns
    -------
    CopyResult
        ``(n_copied, n_skipped, n_bytes_copied)``.

    Raises
    ------
    DestinationExistsError
        A key exists and `if_exists` is 'raise'. Nothing was written.
    KeyError
        Nothing is at `source_path`, which is not the root.
    InvalidKeyError
        A name in `source` is no key, as ``../../evil`` in an archive. Nothing was written.
    UnsupportedOperation
        `source` cannot be listed, and no consolidated metadata names its arrays, or they have more chunks than
        `max_questions`; two keys are one value at the destination (``A`` and ``a`` where names are folded, ``0.1`` and
        ``0/1`` in a NestedDirectoryStore); `delete` is True, and one of the two cannot be listed or lists a chunk in
        another spelling than the other. Nothing was written.
    OverlapError
        `dest` lies within `source`, or `source` within `dest`, and a key would be written that is to be copied, or the
        file of the journal lies within `source`. Nothing was written. Within one store, a copy with `if_exists` 'raise'
        and without `delete` and `resume` writes no key that it reads, and is done.
    DamagedStoreError, LockedStoreError
        `resume` is no journal of this copy, or another copy is using it. Nothing was written.
    ClusterError
        `executor` has no worker, one that lacks a package, or workers that see other stores; found within 60 seconds.
    CopyError
        Some keys failed. The documents of the nodes above them were held back, so that no reader takes a hole for
        fill values.
    OSError
        The destination is full, or cannot be written at all.

    Notes
    -----
    Chunks go first, then documents, the deepest first: a reader never sees an array whose chunks are still coming.
    A source that cannot be listed is copied by the grid: its consolidated metadata names the documents, these say
    which chunks there may be, each is asked for by name, and an absent one was never written.
    Memory: `memory`, and about 100 MiB at any number of keys, of which more than 100,000 are kept in temporary files.
    Cost: one listing of each side, and per key one read and one write, in batches; one request where the server copies
    (two places of one S3 service; with obstore, of one bucket), and no byte comes here. With `resume`, the journal
    follows the destination's `flush` by at most a second; whether a value changed is told by what the listing says of
    it, else it is read again. Source: zarr 2.18 ``copy_store``; deviations: all is planned first, and documents are
    last.

    Examples
    --------
    >>> source = {"foo/.zarray": b"{}", "foo/0": b"data", "bar/0": b"other"}
    >>> dest = {}
    >>> copy_store(source, dest, source_path="foo", dest_path="copied")[:2]
    (2, 0)
    >>> dest
    {'copied/0': b'data', 'copied/.zarray': b'{}'}
    """
    if if_exists not in ("raise", "skip", "replace", "differ"):
        raise ValueError(f"if_exists is {if_exists!r}; it is 'raise', 'skip', 'replace' or 'differ'")
    if errors not in ("raise", "collect"):
        raise ValueError(f"errors is {errors!r}; it is 'raise' or 'collect'")
    check_memory(memory)
    src_store, dest_store = as_store(source), as_store(dest)
    if not dest_store.capabilities.writable and not dry_run:
        raise ReadOnlyError("a copy", dest_store)
    job = CopyJob(
        src_store,
        dest_store,
        Paths(k.normalize_path(source_path), k.normalize_path(dest_path)),
        Filters(excludes, includes, flags, include_globs, exclude_globs),
        if_exists=if_exists,
        dry_run=dry_run,
        verify=verify,
        documents_first=documents_first or dest_store._documents_first,
        memory=memory,
        max_questions=max_questions,
        delete=delete,
        checksum=checksum,
        resume=resume,
        executor=executor,
        workers=workers,
        progress=progress,
        manifest=manifest,
    )
    with ExitStack() as stack:
        job.run(stack, log)
        if job.copying.log is not None:
            job.copying.log(_summary(_result(job), dry_run))
        job.close()
    result = _result(job)
    if result.errors and errors == "raise":
        raise CopyError(result.errors, result)
    return result


def _result(job: CopyJob) -> CopyResult:
    copying = job.copying
    result = CopyResult(copying.n_copied, copying.n_skipped, copying.nbytes)
    result.errors = copying.errors
    result.notes = job.notes
    result.n_deleted = copying.n_deleted
    return result


def _summary(result: CopyResult, dry_run: bool) -> str:
    verb = "dry run" if dry_run else "all done"
    parts = [f"{result.n_copied:,} copied", f"{result.n_skipped:,} skipped", f"{result.n_bytes_copied:,} bytes copied"]
    if result.n_deleted:
        parts.append(f"{result.n_deleted:,} deleted")
    if result.errors:
        parts.append(f"{len(result.errors):,} errors")
    return f"{verb}: {', '.join(parts)}"
