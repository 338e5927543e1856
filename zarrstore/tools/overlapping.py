"""Whether a copy writes where it reads (a directory copied into itself), or writes two values in one place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.errors import OverlapError, UnsupportedOperation
from zarrstore.tools.streams import sort_entries

if TYPE_CHECKING:
    from zarrstore.tools.plan import Paths, Selection

__all__ = ["SourceName", "refuse_file", "refuse_merging", "refuse_overlap", "source_name"]

#: Returns the source key at whose place a destination key lies; None if it lies outside of the source.
SourceName: TypeAlias = Callable[[str], str | None]


def source_name(source: Store, dest: Store, paths: Paths) -> SourceName | None:
    """Return what names a destination key within the source; None if neither of the two lies within the other.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> from zarrstore.tools.plan import Paths
    >>> data = as_store({})
    >>> source_name(data, data, Paths("", "backup"))("backup/0"), source_name(data, data, Paths("a", "b"))
    ('backup/0', None)
    >>> inner = source_name(data, data, Paths("a", ""))
    >>> inner("a/0"), inner("b")
    ('a/0', None)
    """
    (space, place), (dest_space, dest_place) = source._location(paths.source), dest._location(paths.dest)
    if space != dest_space or place == dest_place:
        return None
    if k.is_below(dest_place, place):
        root = k.replace_root(dest_place, place, paths.source)
        return lambda key: k.replace_root(key, paths.dest, root)
    if not k.is_below(place, dest_place):
        return None
    root = k.replace_root(place, dest_place, paths.dest)
    return lambda key: k.replace_root(key, root, paths.source) if key == root or k.is_below(key, root) else None


def refuse_overlap(keys: Iterable[str], name: SourceName, selection: Selection, source: Store, dest: Store) -> None:
    """Raise OverlapError if one of the destination keys that a copy sets or deletes is one that it would copy."""
    for key in keys:
        own = name(key)
        if own is not None and selection.takes(own):
            raise OverlapError(f"{key!r} of {dest}", source, "leave that place out (excludes), or copy to another")


def refuse_merging(keys: Iterable[str], store: Store) -> None:
    """Raise UnsupportedOperation if two keys are one value in a store: the second would replace the first."""
    # Behind a NUL, which no key has, the key itself: of equal entries, `sort_entries` keeps one.
    folded = sort_entries(Entry(f"{store._folded_key(key)}\0{key}") for key in keys)
    for (one, _, key), (other, _, following) in pairwise(entry.key.partition("\0") for entry in folded):
        if one == other:
            way_out = "leave one of the two out (excludes), or rename it"
            raise UnsupportedOperation(f"keep {key!r} and {following!r} apart", store, way_out)


def refuse_file(file: str | os.PathLike[str], what: str, store: Store, path: str) -> None:
    """Raise OverlapError if a file that a verb writes lies among the values that it reads.

    Parameters
    ----------
    file : path-like
        Where it is to be.
    what : str
        What it is, for the error.
    store, path
        What is read.
    """
    space, place = store._location(path)
    if space != "files":
        return
    written = os.path.realpath(os.fsdecode(file)).replace(os.sep, "/").strip("/")
    if k.is_below(written, place):
        raise OverlapError(f"the {what} {os.fsdecode(file)!r}", store, "give another place")
