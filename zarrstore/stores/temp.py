"""A directory tree that ends with its store."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from typing import Any

from zarrstore.errors import ClosedStoreError
from zarrstore.stores.directory import DirectoryStore

__all__ = ["TempStore"]


class TempStore(DirectoryStore):
    """A `DirectoryStore` in a new temporary directory, which is removed when the store is closed, dropped, or at exit.

    Parameters
    ----------
    suffix, prefix : str, defaults '' and 'zarr'
        How the directory's name ends and begins.
    dir : path-like, optional
        Where the directory is made; by default where temporary files go.
    normalize_keys : bool, default False
        As `DirectoryStore`.
    dimension_separator : {'.', '/'}, optional
        As `DirectoryStore`.
    **options
        Further keywords of `DirectoryStore`.

    Notes
    -----
    Only the object that made the directory, in the process that made it, removes it: a forked child and a pickled copy
    use it while it lasts. After `close` every call raises ClosedStoreError. A killed process leaves the directory.
    Source: zarr 2 TempStore; deviations: `dimension_separator` is kept, and no child removes its parent's data.

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

    def __init__(
        self,
        suffix: str = "",
        prefix: str = "zarr",
        dir: str | os.PathLike[str] | None = None,
        normalize_keys: bool = False,
        dimension_separator: str | None = None,
        **options: Any,
    ) -> None:
        path = tempfile.mkdtemp(suffix=suffix, prefix=prefix, dir=dir)
        # Before all else: whatever fails from here on, the directory goes.
        self._removal = weakref.finalize(self, _remove, path, os.getpid())
        super().__init__(path, normalize_keys, dimension_separator, **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._removal = None  # a copy: the directory is not its own

    _removal: Any = None

    def _close(self) -> None:
        if self._folders.closed is not None:
            return
        if self._removal is None or self._removal.peek() is None:
            super()._close()
        else:
            self._removal()
        self._folders.close(ClosedStoreError(self))


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(path, ignore_errors=True)
