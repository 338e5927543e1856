"""Everything that is wrong with a hierarchy, each with its key and its reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Literal

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY, check_memory
from zarrstore.base import Store
from zarrstore.targets import Target, opens
from zarrstore.threads import are_threads
from zarrstore.tools.checking import CheckOptions, check_here
from zarrstore.tools.cluster import check_workers, travels
from zarrstore.tools.findings import KINDS, Problem, VerifyReport
from zarrstore.tools.listing import MAX_QUESTIONS
from zarrstore.tools.manifest import compare_manifest
from zarrstore.tools.outline import check_elsewhere
from zarrstore.tools.progress import Progress

__all__ = ["KINDS", "Problem", "VerifyReport", "verify"]


@opens(store="r")
def verify(
    store: Target,
    path: object = "",
    decode: bool = True,
    manifest: str | os.PathLike[str] | Mapping[str, str] | None = None,
    executor: Executor | None = None,
    *,
    missing: Literal["unfilled", "all", "none"] = "unfilled",
    max_chunk_nbytes: int = 1 << 30,
    max_questions: int | None = MAX_QUESTIONS,
    memory: int = MEMORY,
    progress: bool | Callable[[Progress], object] | None = None,
) -> VerifyReport:
    """Look at every key of a hierarchy and return every problem, not the first.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping. One that cannot be listed is looked at by its documents and the grids of its arrays; keys that no
        document names are then a note.
    path : str
        The root of the hierarchy.
    decode : bool, default True
        Read and decode every chunk. Otherwise values are not read but for documents.
    manifest : path-like or mapping, optional
        SHA-256 by key, as `write_manifest` writes it: every value is read and compared, and a key that is missing or
        new is a problem.
    executor : concurrent.futures.Executor, optional
        Where chunks are decoded: threads, processes, ``dask.distributed``'s. Of executors that are no threads it is
        made sure first that their workers see the same store, which travels by pickle; they then list, judge and decode
        arrays, or parts of one, by themselves, and this process sees groups and documents only. A store that only this
        process may use, or that cannot be pickled or listed, is read here. Not given, as many threads as there are
        cores.
    missing : {'unfilled', 'all', 'none'}
        Which absent chunks are problems: those of arrays without a fill value some of whose chunks are there; all;
        none. Zarr does not write what equals the fill value, so an absent chunk says nothing where there is one.
    max_chunk_nbytes : int, bytes, default 1 GiB
        A chunk that needs more when decoded is a problem instead of a danger.
    max_questions : int, optional
        Of a store that cannot be listed: the largest number of chunks that may be asked for by name.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.
    progress : callable or True, optional
        Called with a `Progress` as chunks are decoded; True draws a bar (needs rich).

    Returns
    -------
    VerifyReport
        True if nothing is wrong; its `fully_checked` says whether everything was looked at.

    Raises
    ------
    KeyError
        Nothing is at or below `path`.
    UnsupportedOperation
        The store cannot be listed, and no document names its arrays; or they have more chunks than `max_questions`.

    Notes
    -----
    Cost: one listing of all keys, one of each directory of groups, one read of each document, and of each chunk if
    `decode`. Memory: `memory`, what the values under way decode to, the documents, and the problems, at any number of
    keys, of which more than 100,000 are kept in a temporary file. Pickled objects are not decoded (a pickle can run any
    program) and noted. Source: the version 2 specification; what users ask for.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=4, chunks=2, dtype="i1", fill_value=0, compressor=None, path="a")
    >>> store["a/0"] = b"12"
    >>> bool(verify(store))
    True
    >>> store["a/1"] = b"123"
    >>> print(verify(store).problems[0])
    a/1: undecodable: it has 3 bytes, and 2 are expected
    """
    if missing not in ("unfilled", "all", "none"):
        raise ValueError(f"missing is {missing!r}; it is 'unfilled', 'all' or 'none'")
    check_memory(memory)
    adapted = as_store(store)
    at = k.normalize_path(path)
    options = CheckOptions(decode, missing, max_chunk_nbytes, memory)
    elsewhere = executor is not None and not are_threads(executor)
    if executor is not None and elsewhere and adapted.capabilities.process_safe:
        check_workers(executor, adapted, at, None)
    if executor is not None and travels(executor, adapted):
        findings = check_elsewhere(adapted, at, options, executor, progress)
    else:
        findings = check_here(adapted, at, options, executor, max_questions=max_questions, progress=progress)
    if manifest is not None:
        for problem in _manifest_problems(adapted, at, manifest, max_questions, memory):
            findings.add(problem, is_listed=problem.key in adapted)
    return findings.report()


def _manifest_problems(
    store: Store,
    path: str,
    manifest: str | os.PathLike[str] | Mapping[str, str],
    max_questions: int | None,
    memory: int,
) -> Iterator[Problem]:
    found_sums = compare_manifest(store, manifest, path, max_questions=max_questions, memory=memory)
    for name, wanted, found in found_sums:
        key = k.join(path, name)
        if found is None:
            yield Problem(key, "manifest", "it is in the manifest, and not there")
        elif wanted is None:
            yield Problem(key, "manifest", "it is there, and not in the manifest")
        else:
            yield Problem(key, "manifest", f"its SHA-256 is {found}, and the manifest says {wanted}")
