"""A value copied from one directory to another by the system, without passing through Python."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from zarrstore.driver import Copier, Pair
from zarrstore.keys import parent
from zarrstore.stores._files import release_name, temporary_name

__all__ = ["copier"]

_CREATE = (os.O_WRONLY | os.O_CREAT | os.O_EXCL,)


class Directory(Protocol):
    """What is read here of a DirectoryStore."""

    normalize_keys: bool
    direct_io: bool
    durability: str
    _folders: Any
    _base: str
    _read_flags: int
    _unsynced: Any

    def _replace_noted(self, temporary: str, key: str, directory: str) -> None: ...


def copier(source: Directory, dest: Directory) -> Copier | None:
    """Return what copies from file to file; None where the system or an option of the stores does not allow it.

    Notes
    -----
    One ``copy_file_range``: on file systems that can share blocks between files (btrfs, XFS) nothing is copied at all.
    Only the ordinary case is done here: a regular file, and a directory that is there already. All else is left as it
    was; `_get` and `_set` then do it, and say what is wrong. Written beside the key and renamed, as `_set`.
    """
    if not hasattr(os, "copy_file_range"):
        return None
    for store in (source, dest):
        if store.normalize_keys or store.direct_io or store.durability == "always":
            return None
    check_source, dst_folders = source._folders.check, dest._folders
    src_base, dst_base = source._base, dest._base
    flags, modes = (source._read_flags,), (0o666,)
    is_noted = dest._unsynced is not None

    def copy(key: str, dest_key: str) -> int:
        if key[-8:] == ".partial" or dest_key[-8:] == ".partial":
            raise OSError("such a name may be refused")
        check_source(parent(key))
        directory = parent(dest_key)
        folder = dst_folders.check(directory)
        if dst_folders.links and dst_folders.is_link_to_directory(dest_key):
            raise IsADirectoryError(dest_key)
        name = temporary_name()
        temporary = f"{folder}/{name}" if directory else folder + name
        try:
            # Opened within `map`, as `with_file` does and for its reason; its calls would be a tenth of the work here.
            for from_fd in map(os.open, (src_base + key,), flags):
                try:
                    status = os.fstat(from_fd)
                    if not stat.S_ISREG(status.st_mode):
                        raise OSError("no regular file")
                    size = status.st_size
                    for to_fd in map(os.open, (temporary,), _CREATE, modes):
                        try:
                            _copy(from_fd, to_fd, size)
                        finally:
                            os.close(to_fd)
                finally:
                    os.close(from_fd)
            if is_noted:
                dest._replace_noted(temporary, dest_key, directory)
            else:
                os.replace(temporary, dst_base + dest_key)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            release_name(name)
        return size

    def copy_each(pairs: Sequence[Pair]) -> Iterator[int | None]:
        for key, dest_key, _ in pairs:
            try:
                yield copy(key, dest_key)
            except (OSError, KeyError):
                yield None

    return copy_each


def _copy(from_fd: int, to_fd: int, size: int) -> None:
    left = size
    while left and (count := os.copy_file_range(from_fd, to_fd, left)):
        left -= count
    if left:
        raise OSError("the file became shorter")
