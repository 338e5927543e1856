"""A hierarchy as one file, and back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zarrstore.errors import DestinationExistsError
from zarrstore.keys import RESERVED
from zarrstore.registry import open_store, store_class
from zarrstore.tools.copy import CopyResult, copy_store
from zarrstore.tools.progress import Progress

__all__ = ["pack", "unpack"]


def pack(
    source: Any,
    archive: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    verify: bool = False,
    progress: bool | Callable[[Progress], object] | None = None,
) -> CopyResult:
    """Put a whole store into one zip archive, which appears at once and whole, or not at all.

    Parameters
    ----------
    source : anything that `open_store` opens
        A directory as a rule. It is read and kept.
    archive : path-like
        Where the archive is to be.
    overwrite : bool, default False
        Replace a file that is there.
    verify : bool, default False
        Read every entry back and compare.
    progress : callable or True, optional
        See `copy_store`.

    Returns
    -------
    CopyResult
        ``(n_copied, n_skipped, n_bytes_copied)``.

    Raises
    ------
    DestinationExistsError
        A file is there and `overwrite` is False.
    StoreNotFoundError
        There is no `source`.
    CopyError
        A value could not be copied. No archive was made.

    Notes
    -----
    Entries are stored as they are, documents first and breadth first from the root, as the proposal for zipped Zarr
    (RFC-9 of OME-Zarr) wants, so that a reader finds all metadata in one read. Written beside `archive` under a
    reserved name, synced, then renamed. Source: this package.

    Examples
    --------
    >>> import tempfile, zarrstore
    >>> folder = tempfile.TemporaryDirectory()
    >>> source = {"0": b"chunk", ".zarray": b"{}", ".zattrs": b"{}"}
    >>> pack(source, f"{folder.name}/a.zip")[:2]
    (3, 0)
    >>> list(zarrstore.open_store(f"{folder.name}/a.zip", mode="r"))
    ['.zarray', '.zattrs', '0']
    >>> folder.cleanup()
    """
    path = Path(archive)
    if path.exists() and not overwrite:
        raise DestinationExistsError(str(source), str(path), "pass overwrite=True")
    with open_store(source, mode="r") as opened:
        folder = path.absolute().parent
        handle, name = tempfile.mkstemp(prefix=f"{RESERVED}-pack-", suffix=".zip", dir=folder)
        os.close(handle)
        os.unlink(name)  # only the name is wanted: the store makes the file, under the user's umask
        try:
            with store_class("zip")(name, mode="x") as packed:
                result = copy_store(opened, packed, verify=verify, progress=progress, documents_first=True)
            os.replace(name, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
    _sync(folder)
    return result


def unpack(
    archive: Any,
    dest: str | os.PathLike[str],
    *,
    if_exists: str = "raise",
    verify: bool = False,
    progress: bool | Callable[[Progress], object] | None = None,
) -> CopyResult:
    """Put every entry of an archive into a directory, and nothing beside it.

    Parameters
    ----------
    archive : anything that `open_store` opens
        A zip archive as a rule. It is read and kept.
    dest : path-like
        The directory. Created if it is missing.
    if_exists : {'raise', 'skip', 'replace'}
        What to do with keys that are there already.
    verify : bool, default False
        Read every file back and compare.
    progress : callable or True, optional
        See `copy_store`.

    Returns
    -------
    CopyResult
        ``(n_copied, n_skipped, n_bytes_copied)``.

    Raises
    ------
    DamagedStoreError
        The archive is damaged, or a name in it is no key, as ``../../evil``. Nothing was written.
    DestinationExistsError
        A key is there and `if_exists` is 'raise'. Nothing was written.

    Notes
    -----
    Documents last, as in every copy. Source: this package.

    Examples
    --------
    >>> import tempfile, zarrstore
    >>> folder = tempfile.TemporaryDirectory()
    >>> pack({"a/0": b"chunk"}, f"{folder.name}/a.zip")[0]
    1
    >>> unpack(f"{folder.name}/a.zip", f"{folder.name}/d")[0]
    1
    >>> zarrstore.open_store(f"{folder.name}/d")["a/0"]
    b'chunk'
    >>> folder.cleanup()
    """
    with open_store(archive, mode="r") as opened, store_class("dir")(dest) as files:
        return copy_store(opened, files, if_exists=if_exists, verify=verify, progress=progress)


def _sync(folder: Path) -> None:
    # The rename is durable when its directory is; not every system lets a directory be opened.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
