"""The copy within a migration: all below a path but documents that are written anew and arrays that are left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import chain, islice
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import FIRST_BATCH, MAX_BATCH, MEMORY, allowed
from zarrstore.base import Entry, Store
from zarrstore.errors import DestinationExistsError
from zarrstore.targets import Target
from zarrstore.tools.copy import copy_store
from zarrstore.tools.judging import Judge
from zarrstore.tools.overlap import found_among
from zarrstore.tools.plan import IfExists
from zarrstore.tools.streams import merge, sort_entries

__all__ = ["CopyOptions", "copy_chunks", "copy_into", "excludes_of", "without_other_chunks"]

#: Values that are compared together.
_BATCH = 256

#: The name of a chunk relative to its array: ``0.1``, ``0/1``, ``c/0/1``, ``c.0.1``, ``c``.
_CHUNK = re.compile(r"c|(c[./])?[0-9]+([./][0-9]+)*", re.ASCII)


class CopyOptions(NamedTuple):
    """How a migration copies: the parameters of `migrate_2to3` with these names."""

    overwrite: bool = False
    dry_run: bool = False
    resume: str | os.PathLike[str] | None = None
    memory: int = MEMORY
    executor: Executor | None = None


def excludes_of(names: Iterable[str], arrays: Iterable[str]) -> list[str]:
    r"""Return the patterns of what is not copied: the documents with these names, and all keys below these arrays.

    Examples
    --------
    >>> excludes_of([".zgroup"], ["a"])
    ['(^|/)(\\.zgroup)$', '^a/']
    """
    documents = "|".join(map(re.escape, names))
    patterns = [rf"(^|/)({documents})$"] if documents else []
    return patterns + [f"^{re.escape(k.prefix(array))}" for array in arrays]


def copy_into(
    source: Store, dest: Target, path: str, excludes: list[str], arrays: Iterable[str], options: CopyOptions
) -> None:
    """Copy what is below a path; what stands in the way is an error that names the way out.

    Parameters
    ----------
    arrays : iterable of str
        The paths of the arrays that are copied: see `without_other_chunks`.

    Raises
    ------
    DestinationExistsError
        A key, or a chunk that the source lacks, is there, and `overwrite` is False. Nothing was written.
    """
    without_other_chunks(source, as_store(dest), path, arrays, options)
    try:
        _copy(source, dest, path, excludes, "replace" if options.overwrite else "raise", options)
    except DestinationExistsError as exc:
        raise DestinationExistsError(exc.source, exc.destination, "pass overwrite=True") from None


def copy_chunks(
    source: Store, dest: Store, path: str, excludes: list[str], arrays: Iterable[str], options: CopyOptions
) -> None:
    """Copy what is below a path, where an earlier run may have copied a part of it.

    Parameters
    ----------
    arrays : iterable of str
        The paths of the arrays that are copied: see `without_other_chunks`.

    Raises
    ------
    DestinationExistsError
        A chunk of other content, or one that the source lacks, is there, and `overwrite` is False. Nothing was written.
    """
    without_other_chunks(source, dest, path, arrays, options)
    # A journal knows what is its own. Without one, what is there already has to be equal.
    if not options.overwrite and (options.resume is None or not os.path.exists(options.resume)):
        _check_equal(source, dest, path, excludes, options.memory)
    _copy(source, dest, path, excludes, "replace" if options.overwrite else "skip", options)


def without_other_chunks(source: Store, dest: Store, path: str, arrays: Iterable[str], options: CopyOptions) -> None:
    """Delete chunks at the destination that the source lacks, or refuse them: a reader would see their values.

    Notes
    -----
    Only a destination that can be listed shows them. Cost: one listing of it, and one of the source if anything is
    there.
    """
    if not dest.capabilities.listable:
        return
    paths = frozenset(arrays)
    pairs = _pairs(source, dest, path, details=False)
    others = (there.key for mine, there in pairs if mine is None and _is_chunk(there.key, paths))
    while keys := list(islice(others, _BATCH)):
        # A value may answer to another name than the listing shows.
        here = found_among(source, keys) if source._aliases or not source.capabilities.listable else set()
        doomed = [key for key in keys if key not in here]
        if doomed and not options.overwrite:
            raise DestinationExistsError(doomed[0], doomed[0], "it is no chunk of the source; pass overwrite=True")
        if doomed and not options.dry_run:
            dest.delitems(doomed)


def _pairs(source: Store, dest: Store, path: str, *, details: bool = True) -> Iterator[tuple[Entry | None, Entry]]:
    """Yield what is at a destination, in the order of the keys, each with what the listing of the source has there."""

    def entries(store: Store) -> Iterable[Entry]:
        return store._details(path) if details else map(Entry, store._keys(path))

    theirs = sort_entries(entries(dest))
    first = next(theirs, None)
    if first is None:  # so that a source of a million keys is not listed for nothing
        return
    mine = sort_entries(entries(source) if source.capabilities.listable else ())
    for entry, there in merge(mine, chain([first], theirs), _key, _key):
        if there is not None:
            yield entry, there


def _key(entry: Entry) -> str:
    return entry.key


def _is_chunk(key: str, arrays: frozenset[str]) -> bool:
    """Tell whether a key is that of a chunk, in any spelling, of one of some arrays."""
    return any(
        array in arrays and _CHUNK.fullmatch(k.replace_root(key, array, "")) is not None for array in k.parents(key)
    )


def _copy(
    source: Store, dest: Target, path: str, excludes: list[str], if_exists: IfExists, options: CopyOptions
) -> None:
    copy_store(
        source,
        dest,
        path,
        path,
        excludes=excludes,
        if_exists=if_exists,
        dry_run=options.dry_run,
        resume=options.resume,
        memory=options.memory,
        executor=options.executor,
    )


def _check_equal(source: Store, dest: Store, path: str, excludes: Iterable[str], memory: int) -> None:
    """Raise if the destination holds another value under the key of a chunk; equal ones are of an earlier run.

    Notes
    -----
    Cost: one listing of both, and the values of which these show no checksum.
    """
    patterns = [re.compile(pattern) for pattern in excludes]
    judge = Judge(source, dest, checksum=True)
    common = (pair for pair in _common(source, dest, path) if not any(one.search(pair[0].key) for one in patterns))
    while pairs := list(islice(common, _BATCH)):
        verdicts = {mine.key: judge.same(mine, there) for mine, there in pairs}
        unknown = [key for key, same in verdicts.items() if same is None]
        sizes = [mine.nbytes for mine, _ in pairs if verdicts[mine.key] is None]
        fits = min(sizes, default=0) >= 0 and sum(sizes) <= memory // 2
        with allowed(max(1, memory // 2), MAX_BATCH if fits else FIRST_BATCH):
            ours, theirs = source.getitems(unknown), dest.getitems(unknown)
        for key, same in verdicts.items():
            if same is False or (same is None and ours[key] != theirs[key]):
                raise DestinationExistsError(key, key, "it holds another value there; pass overwrite=True")


def _common(source: Store, dest: Store, path: str) -> Iterator[tuple[Entry, Entry]]:
    """Yield what both have, as far as their listings describe it."""
    if dest.capabilities.listable:
        for mine, there in _pairs(source, dest, path):
            if mine is not None:
                yield mine, there
            elif (source._aliases or not source.capabilities.listable) and there.key in source:
                yield Entry(there.key), there
    else:
        yield from ((mine, Entry(mine.key)) for mine in source._details(path) if mine.key in dest)
