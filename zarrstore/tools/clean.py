"""Junk, and what writers that died left behind."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import chain

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.targets import Target, opens
from zarrstore.tools.cluster import check_workers, run_elsewhere
from zarrstore.tools.deletion import deletes_elsewhere, keys_of_part, parts_of
from zarrstore.tools.subtrees import Subtree
from zarrstore.wrappers.filter import JUNK, FilterStore

__all__ = ["clean"]


@opens(store="r+")
def clean(
    store: Target,
    path: object = "",
    *,
    patterns: Sequence[str] = JUNK,
    dry_run: bool = False,
    executor: Executor | None = None,
) -> list[str]:
    """Delete the keys below a path that are junk, and what killed writers left, and return their names.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    path : str
        Where to look.
    patterns : sequence of str
        Shell patterns of names, case ignored: a key with such a segment is junk. By default what desktops and file
        systems leave, and the ``.partial`` files of zarr 2.
    dry_run : bool, default False
        Delete nothing.
    executor : concurrent.futures.Executor, optional
        Processes, or workers elsewhere: they look for junk in parts of the store, and delete it. Threads change
        nothing, nor does any executor for a store that cannot travel.

    Returns
    -------
    list of str
        Keys, sorted. The leftovers of a DirectoryStore, which are no keys, are among them under the names of their
        files.

    Raises
    ------
    ClusterError
        `executor` has no worker, one that lacks a package, or workers that see another store: nothing was deleted. Or
        it ended in the middle: the same call deletes the rest.

    Notes
    -----
    Leftovers of a writer that is alive are left alone. Cost: one listing of `path`; with an `executor`, leftovers are
    looked for by this process, in a listing of its own, where the store has any. Source: this package.

    Examples
    --------
    >>> store = {"a/0": b"1", "a/.DS_Store": b"", "a/._0": b""}
    >>> clean(store)
    ['a/.DS_Store', 'a/._0']
    >>> store
    {'a/0': b'1'}
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    # First, since a DirectoryStore sweeps by itself what a listing meets, and then could not tell of it.
    left = adapted.sweep(at, dry_run=dry_run)
    if executor is None or not deletes_elsewhere(executor, adapted):
        junk = list(FilterStore(adapted, patterns).hidden_keys(at))
        if not dry_run:
            adapted.delitems(junk)
    else:
        check_workers(executor, adapted, at, None if dry_run else adapted, at)
        tasks = ((clean_part, adapted, at, part, patterns, dry_run) for part in parts_of(executor, adapted, at))
        junk = list(chain.from_iterable(run_elsewhere(executor, tasks, "run it again to delete the rest")))
    return sorted({*junk, *left})


def clean_part(store: Store, path: str, part: Subtree, patterns: Sequence[str], dry_run: bool) -> list[str]:
    """Delete the junk of one part, on a worker, and return its keys."""
    is_hidden = FilterStore(store, patterns).is_hidden
    junk = list(filter(is_hidden, keys_of_part(store, path, part)))
    if not dry_run:
        store._delete_many(junk)
        store.flush()
    return junk
