"""The copy within a migration: all below a path but documents that are written anew and arrays that are left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import FIRST_BATCH, MEMORY, allowed
from zarrstore.base import Store
from zarrstore.errors import DestinationExistsError
from zarrstore.targets import Target
from zarrstore.tools.copy import copy_store
from zarrstore.tools.overlap import found_among
from zarrstore.tools.plan import IfExists

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
    Only a destination that can be listed shows them. Cost: one listing of it, and a question for each chunk there.
    """
    if not dest.capabilities.listable:
        return
    paths = frozenset(arrays)
    chunks = (key for key in dest.keys_below(path) if _is_chunk(key, paths))
    while keys := list(islice(chunks, _BATCH)):
        here = found_among(source, keys)
        others = [key for key in keys if key not in here]
        if others and not options.overwrite:
            raise DestinationExistsError(others[0], others[0], "it is no chunk of the source; pass overwrite=True")
        if others and not options.dry_run:
            dest.delitems(others)


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
    """Raise if the destination holds another value under the key of a chunk; equal ones are of an earlier run."""
    patterns = [re.compile(pattern) for pattern in excludes]
    common = _common_keys(source, dest, path)
    while keys := list(islice(common, _BATCH)):
        wanted = [key for key in keys if not any(pattern.search(key) for pattern in patterns)]
        with allowed(max(1, memory // 2), FIRST_BATCH):
            ours, theirs = source.getitems(wanted), dest.getitems(wanted)
        for key in wanted:
            if ours[key] != theirs[key]:
                raise DestinationExistsError(key, key, "it holds another value there; pass overwrite=True")


def _common_keys(source: Store, dest: Store, path: str) -> Iterator[str]:
    if dest.capabilities.listable:
        return (key for key in dest.keys_below(path) if key in source)
    return (key for key in source.keys_below(path) if key in dest)
