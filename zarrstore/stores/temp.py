"""A directory tree that ends with its store."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, Literal

from zarrstore.errors import ClosedStoreError
from zarrstore.stores._files import remove_tree
from zarrstore.stores.directory import DirectoryStore

__all__ = ["TempStore"]

#: How often a removal begins again while threads that were writing at the close finish their files.
_ATTEMPTS = 100


class TempStore(DirectoryStore):
    """A `DirectoryStore` in a new temporary directory, which is removed when the store is closed, dropped, or at exit.

    Parameters
    ----------
    suffix, prefix : str, defaults '' and 'zarr'
        How the directory's name ends and begins.
    dir : path-like, optional
        Where the directory is created; by default where temporary files go.
    normalize_keys : bool, default False
        As `DirectoryStore`.
    dimension_separator : {'.', '/'}, optional
        As `DirectoryStore`.
    **options
        Further keywords of `DirectoryStore`.

    Notes
    -----
    Only the process that created the directory removes it: a forked child and a pickled copy use it while it lasts.
    Once the store was pickled, a copy may be in use: the directory is then removed at the exit of the process that
    created it, and not before. After `close` every call raises ClosedStoreError. A killed process leaves the directory.
    Source: zarr 2 TempStore; deviations: `dimension_separator` is kept, a store that was never pickled removes its
    directory early, and no child removes its parent's data.

    Examples
    --------
    >>> import os
    >>> with TempStore() as store:
    ...     store["foo"] = b"bar"
    ...     os.path.exists(os.path.join(store.path, "foo"))
    True
    >>> os.path.exists(store.path)
    False
    """

    #: Removes the directory; None in a copy, which does not own it.
    _removal: weakref.finalize[Any, Any] | None = None

    def __init__(
        self,
        suffix: str = "",
        prefix: str = "zarr",
        dir: str | os.PathLike[str] | None = None,
        normalize_keys: bool = False,
        dimension_separator: Literal[".", "/"] | None = None,
        **options: Any,
    ) -> None:
        parent = None if dir is None else os.fsdecode(dir)
        path = tempfile.mkdtemp(os.fsdecode(suffix), os.fsdecode(prefix), parent)
        stops: list[Callable[[Exception], None]] = []
        # Registered before anything else can fail: the directory is removed in any case.
        self._removal = weakref.finalize(self, _remove, path, os.getpid(), stops)
        super().__init__(path, normalize_keys, dimension_separator, **options)
        stops.append(self._folders.close)
        for folder in ("", ".."):  # the directory and its name are new, and no set made them
            self._note_change(folder)

    def __getstate__(self) -> dict[str, Any]:
        removal = self._removal and self._removal.detach()
        if removal:
            # Tied to a class instead of the store: called at the exit of this process, whatever becomes of the store.
            _, act, args, _ = removal
            self._removal = None
            weakref.finalize(TempStore, act, *args)
        return super().__getstate__()

    def _close(self) -> None:
        if self._folders.closed:
            return
        if self._removal is None or not self._removal.alive:
            super()._close()
        else:
            self._removal()
        self._folders.close(ClosedStoreError(self))


def _remove(path: str, pid: int, stops: list[Callable[[Exception], None]]) -> None:
    if os.getpid() != pid:
        return
    # No thread begins a write from here on. One that has begun may still create a file.
    for stop in stops:
        stop(ClosedStoreError(f"TempStore({path!r})"))
    for _ in range(_ATTEMPTS):
        remove_tree(path)
        if not os.path.lexists(path):
            return
