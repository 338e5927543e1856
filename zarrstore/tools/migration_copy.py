"""The copy within a migration: all below a path but documents that are written anew and arrays that are left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.allowance import FIRST_BATCH, MEMORY, allowed
from zarrstore.base import Store
from zarrstore.errors import DestinationExistsError
from zarrstore.targets import Target
from zarrstore.tools.copy import copy_store
from zarrstore.tools.plan import IfExists

__all__ = ["CopyOptions", "copy_chunks", "copy_into", "excludes_of"]

#: Values that are compared together.
_BATCH = 256


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


def copy_into(source: Store, dest: Target, path: str, excludes: list[str], options: CopyOptions) -> None:
    """Copy what is below a path; what stands in the way is an error that names the way out."""
    try:
        _copy(source, dest, path, excludes, "replace" if options.overwrite else "raise", options)
    except DestinationExistsError as exc:
        raise DestinationExistsError(exc.source, exc.destination, "pass overwrite=True") from None


def copy_chunks(source: Store, dest: Store, path: str, excludes: list[str], options: CopyOptions) -> None:
    """Copy what is below a path, where an earlier run may have copied a part of it.

    Raises
    ------
    DestinationExistsError
        A chunk of other content is there, and `overwrite` is False. Nothing was written.
    """
    # A journal knows what is its own. Without one, what is there already has to be equal.
    if not options.overwrite and (options.resume is None or not os.path.exists(options.resume)):
        _check_equal(source, dest, path, excludes, options.memory)
    _copy(source, dest, path, excludes, "replace" if options.overwrite else "skip", options)


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
