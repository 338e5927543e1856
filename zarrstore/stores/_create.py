"""A new file, all at once: whoever finds it finds it whole, and a creation that is killed leaves nothing."""

from __future__ import annotations

import os
from contextlib import suppress

from zarrstore.stores._files import release_name, sweep_folder, temporary_name
from zarrstore.stores._sync import fsync_folder

__all__ = ["create_file"]


def create_file(path: str, content: bytes, mode: int = 0o666) -> bool:
    """Create a file with its whole content, durably, unless a file of that name is there.

    Parameters
    ----------
    path : str
        The file; its folder is there.
    content : bytes
        All of it.
    mode : int
        Permissions, before the umask.

    Returns
    -------
    bool
        Whether this call created it; False if somebody else was first.

    Notes
    -----
    On Linux the file has no name until it is whole and on the disk, so a killed process leaves nothing. Elsewhere it
    has a temporary name meanwhile, and the next creation in that folder removes those of dead processes.
    """
    folder = os.path.dirname(path) or "."
    fd = _open_unnamed(folder, mode)
    if fd is None:
        return _create_by_name(path, folder, content, mode)
    try:
        _write_all(fd, content)
        created = _link_unnamed(fd, path)
    finally:
        os.close(fd)
    if created is None:
        return _create_by_name(path, folder, content, mode)
    fsync_folder(folder)
    return created


def _open_unnamed(folder: str, mode: int) -> int | None:
    """Return a descriptor of a new file without a name; None where there is no such thing."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError:  # the file system knows no unnamed files; if it is full, the other way says so too
        return None


def _link_unnamed(fd: int, path: str) -> bool | None:
    """Give a file its name; return False if that is taken, None if it cannot be done this way."""
    try:
        # With `src_dir_fd`, which an absolute path does not need, Python calls linkat, which follows the link in /proc.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    except FileExistsError:
        return False
    except OSError:  # no /proc, or a file system without links
        return None
    return True


def _create_by_name(path: str, folder: str, content: bytes, mode: int) -> bool:
    sweep_folder(folder)
    name = temporary_name()
    temporary = os.path.join(folder, name)
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        try:
            _write_all(fd, content)
        finally:
            os.close(fd)
        created = _give_name(temporary, path, folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        release_name(name)
    fsync_folder(folder)
    return created


def _give_name(temporary: str, path: str, folder: str) -> bool:
    try:
        # A link, not a rename: it never replaces what another process has created meanwhile.
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links (FAT, some network shares)
        return _rename_locked(temporary, path, folder)
    return True


def _rename_locked(temporary: str, path: str, folder: str) -> bool:
    """Rename while no other process that creates a file here is between its look and its rename."""
    lock = _lock_folder(folder)
    try:
        if os.path.lexists(path):
            return False
        os.rename(temporary, path)
    finally:
        if lock is not None:
            os.close(lock)
    return True


def _lock_folder(folder: str) -> int | None:
    try:
        import fcntl

        fd = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows, where a rename never replaces
        return None
    with suppress(OSError):  # a file system without locks: the look alone must do
        fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)
