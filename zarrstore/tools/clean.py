"""Junk, and what writers that died left behind."""

from __future__ import annotations

from collections.abc import Sequence

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.targets import Target, opens
from zarrstore.wrappers.filter import JUNK, FilterStore

__all__ = ["clean"]


@opens(store="r+")
def clean(store: Target, path: object = "", *, patterns: Sequence[str] = JUNK, dry_run: bool = False) -> list[str]:
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

    Returns
    -------
    list of str
        Keys, sorted. The leftovers of a DirectoryStore, which are no keys, are among them under the names of their
        files.

    Notes
    -----
    Leftovers of a writer that is alive are left alone. Cost: one listing of `path`. Source: this package.

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
    junk = list(FilterStore(adapted, patterns).hidden_keys(at))
    if not dry_run:
        adapted.delitems(junk)
    return sorted({*junk, *left})
