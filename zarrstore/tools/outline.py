"""A verification that is planned where it is done: the client looks at groups and documents, workers at arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.metadata import documents
from zarrstore.nodes import Node, walk
from zarrstore.threads import Threads
from zarrstore.tools.checking import CheckOptions, Findings, check_here, oddities, sorted_out
from zarrstore.tools.cluster import run_elsewhere
from zarrstore.tools.executing import threads_of
from zarrstore.tools.findings import Problem
from zarrstore.tools.inspection import Inspection
from zarrstore.tools.listed import ListedStore
from zarrstore.tools.nearby import absent
from zarrstore.tools.overlap import found_among
from zarrstore.tools.progress import Progress, reporter
from zarrstore.tools.sortedkeys import SortedKeys
from zarrstore.tools.subtrees import Subtree

__all__ = ["check_array_parts", "check_elsewhere"]

#: What the client reads of each array: a worker looks at the rest.
_DOCUMENTS = (documents.ZARRAY, documents.ZATTRS, documents.ZGROUP, documents.ZARR_JSON)
#: Chunks of one task, about: a larger array is dealt out to several tasks, and each of these lists it.
_CHUNKS_A_TASK = 2000
#: Largest number of tasks for one array, and of arrays for one task.
_MOST_PARTS, _MOST_ARRAYS = 256, 64


def check_elsewhere(
    store: Store,
    path: str,
    options: CheckOptions,
    executor: Executor,
    progress: bool | Callable[[Progress], object] | None = None,
) -> Findings:
    """Look at every key at and below a path; workers list, judge and decode the arrays.

    Notes
    -----
    This process sees no key below an array. Cost here: one listing of each directory that is not below an
    array, and the documents of each array.
    """
    unread: list[Problem] = []

    def note(at: str, error: Exception) -> None:
        unread.append(Problem(at, "unread", str(error) or type(error).__name__))

    nodes = list(walk(store, path, on_error=note))
    arrays = {node.path: node for node in nodes if node.kind == "array"}
    groups = {node.path for node in nodes if node.kind == "group"}
    with SortedKeys(_outline(store, path, arrays, groups, unread)) as keys:
        if not len(keys) and not unread:
            raise absent(store, path)
        inspection = Inspection(
            ListedStore(store, keys.documents),
            path,
            keys,
            options.missing,
            problems=unread,
            elsewhere=frozenset(arrays),
        )
        inspection.check_documents()
        for _ in inspection.chunks():
            pass
        findings = Findings()
        share = options._replace(memory=max(1, options.memory // (threads_of(executor) or 16)))
        with reporter(progress, 0, "verify") as report:
            tasks = _tasks(store, path, list(arrays.values()), share, executor)
            for found in run_elsewhere(executor, tasks, "nothing was changed"):
                findings.merge(found)
                report(Progress(findings.counts.n_decoded, findings.counts.n_decoded))
        # Consolidated metadata repeats what workers found below arrays, too.
        keys.documents = sorted({*keys.documents, *findings.documents})
        inspection.finish()
        own = sorted_out(inspection)
    own.merge(findings)
    return own


def _outline(
    store: Store, path: str, arrays: dict[str, Node], groups: set[str], unread: list[Problem]
) -> Iterator[Entry]:
    """Yield the keys below a path that are below no array, and the documents of arrays."""
    is_flat = not store.capabilities.hierarchical
    values = [*arrays, *groups] if is_flat else []  # a value may stand there as well
    yield from map(Entry, found_among(store, dict.fromkeys(filter(None, (*_document_keys(arrays), *values)))))
    waiting = [] if path in arrays else [path]
    while waiting:
        keys = _children(store, waiting.pop(), unread)
        others = found_among(store, [key for key in keys if key not in arrays and key not in groups])
        yield from map(Entry, others)
        # What is no value is a directory without a document, below which there may be nodes.
        waiting += [key for key in keys if key in groups or (key not in arrays and (is_flat or key not in others))]


def _document_keys(arrays: dict[str, Node]) -> Iterator[str]:
    for at, node in arrays.items():
        yield from (node.key, node.attrs_key)
        yield from (k.join(at, name) for name in _DOCUMENTS)


def _children(store: Store, path: str, unread: list[Problem]) -> list[str]:
    """Return the keys and paths in a directory; one that cannot be read becomes a problem, once."""
    try:
        return [k.join(path, name) for name in store.listdir(path)]
    except OSError as exc:
        if not any(problem.key == path for problem in unread):
            unread.append(Problem(path, "unread", str(exc) or type(exc).__name__))
        return []


def _tasks(
    store: Store, path: str, arrays: list[Node], options: CheckOptions, executor: Executor
) -> Iterator[tuple[Any, ...]]:
    yield _check_oddities, store, path
    wanted = 4 * (threads_of(executor) or 16)
    most = max(1, min(_MOST_PARTS, wanted // max(1, len(arrays))))
    together = max(1, min(_MOST_ARRAYS, len(arrays) // wanted))
    batch: list[Subtree] = []
    for node in arrays:
        parts = min(most, 1 + _n_chunks(node) // _CHUNKS_A_TASK)
        if parts > 1:
            for part in range(parts):
                yield check_array_parts, store, [Subtree(node.path, part, parts)], options
            continue
        batch.append(Subtree(node.path))
        if len(batch) == together:
            yield check_array_parts, store, batch, options
            batch = []
    if batch:
        yield check_array_parts, store, batch, options


def _n_chunks(node: Node) -> int:
    """Return about how many chunks an array has, as far as its document can be understood."""
    try:
        shape = node.document["shape"]
        grid = node.document.get("chunk_grid", {"configuration": {"chunk_shape": node.document.get("chunks")}})
        count = 1
        for length, chunk in zip(shape, grid["configuration"]["chunk_shape"], strict=True):
            count *= -(-int(length) // int(chunk))
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return 1
    return count


# On a worker --------------------------------------------------------------------------------------------------------


def _check_oddities(store: Store, path: str) -> Findings:
    findings = Findings()
    for problem in oddities(store, path):
        findings.add(problem, is_listed=bool(problem.key) and store._contains(problem.key))
    return findings


def check_array_parts(store: Store, parts: Iterable[Subtree], options: CheckOptions) -> Findings:
    """Look at some arrays, or at parts of one; runs on a worker.

    Notes
    -----
    Cost: one listing of each array; its documents; the chunks of the part. What names and documents show is reported
    by the first part of an array only.
    """
    findings = Findings()
    with Threads(1) as pool:
        for part in parts:
            try:
                findings.merge(check_here(store, part.path, options, pool, part=part))
            except KeyError:
                findings.add(Problem(part.path, "unread", "it was listed, and is not there any more"), is_listed=False)
    return findings
