"""A deletion that is planned where it is done: workers list and delete parts, this process deletes the documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import groupby, islice

from zarrstore import keys as k
from zarrstore.allowance import allowed
from zarrstore.base import Store
from zarrstore.tools.cluster import check_workers, run_elsewhere, travels
from zarrstore.tools.exchange import removal_order
from zarrstore.tools.executing import threads_of
from zarrstore.tools.holding import is_document
from zarrstore.tools.subtrees import Subtree, subtrees

__all__ = ["Survey", "delete_elsewhere", "delete_parts", "deletes_elsewhere", "keys_of_part", "parts_of", "survey"]

#: Keys in one call of a deletion.
_AT_ONCE = 1000
_LEFT = "what was deleted is gone, documents before chunks; run it again to delete the rest"


@dataclass
class Survey:
    """What workers saw below a path.

    Parameters
    ----------
    n_keys : int
        How many keys there are.
    documents : dict of str to bytes
        Keys of the documents among them, and their values; ``b""`` where values were not asked for.
    """

    n_keys: int = 0
    documents: dict[str, bytes] = field(default_factory=dict)


def deletes_elsewhere(executor: Executor | None, store: Store) -> bool:
    """Tell whether the workers of an executor can delete in a store; views delete documents in their own order."""
    return executor is not None and travels(executor, store) and not store._documents_first


def parts_of(executor: Executor, store: Store, path: str) -> Iterator[Subtree]:
    """Yield the parts of what is at and below a path, four for each thread of an executor."""
    return subtrees(store, path, 4 * (threads_of(executor) or 16))


def delete_elsewhere(store: Store, path: str, executor: Executor) -> None:
    """Delete every key below a path, documents first; workers list parts, and delete what is in them.

    Raises
    ------
    ClusterError
        `executor` has no worker, one that lacks a package, or workers that see another store: nothing was changed.
        Or it ended in the middle: the same call deletes the rest.

    Notes
    -----
    Cost: two listings, one deletion a key. Of each chunk this process sees nothing; documents pass through its hands.
    Crash, dead workers: no document stands whose chunks are being deleted, so that no reader takes them for fill
    values. What a dead worker left is deleted by another.
    """
    delete_parts(store, path, executor, survey(store, path, executor, store).documents)


def survey(store: Store, path: str, executor: Executor, dest: Store | None, *, values: bool = False) -> Survey:
    """Check the workers; return how many keys are below a path and which are documents, with their values if wanted.

    `dest` is the same store if something will be written or deleted in it.
    """
    check_workers(executor, store, path, dest, k.parent(path) if path and store._contains(path) else path)
    found = Survey()
    tasks = ((_survey_part, store, path, part, values) for part in parts_of(executor, store, path))
    for one in run_elsewhere(executor, tasks, "nothing was changed"):
        found.n_keys += one.n_keys
        found.documents |= one.documents
    return found


def delete_parts(store: Store, path: str, executor: Executor, documents: Iterable[str]) -> None:
    """Delete documents here, then all else that is below a path on workers that were checked."""
    for _, level in groupby(sorted(documents, key=removal_order), key=removal_order):
        while batch := list(islice(level, _AT_ONCE)):
            store._delete_many(batch)
    # The chunks go after it is durable that the documents are gone.
    store.flush()
    tasks = ((_delete_part, store, path, part) for part in parts_of(executor, store, path))
    for _ in run_elsewhere(executor, tasks, _LEFT):
        pass
    store._rmdir(path)  # what was set meanwhile, and directories


# On a worker --------------------------------------------------------------------------------------------------------


def keys_of_part(store: Store, path: str, part: Subtree) -> Iterator[str]:
    """Yield the keys of a part that are below a path; one at the path itself is not."""
    if not part.is_alone:
        yield from filter(part.takes, store._keys(part.path))
    if part.path not in ("", path) and part.takes(part.path) and store._contains(part.path):
        yield part.path


def _survey_part(store: Store, path: str, part: Subtree, values: bool) -> Survey:
    found = Survey()
    for key in keys_of_part(store, path, part):
        found.n_keys += 1
        if is_document(key):
            found.documents[key] = b""
    if values:
        with allowed():  # documents are small
            found.documents = dict(store._get_many(list(found.documents)))
    return found


def _delete_part(store: Store, path: str, part: Subtree) -> None:
    if part.parts == 1 and not part.is_alone:
        store._rmdir(part.path)
        if part.path != path and part.path:
            store._delete_many([part.path])
    else:
        keys = keys_of_part(store, path, part)
        while batch := list(islice(keys, _AT_ONCE)):
            store._delete_many(batch)
    store.flush()
