"""Directories as paths: listed, made, pruned, removed and moved while others do the same."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

from zarrstore import keys as k
from zarrstore.stores._files import ABSENT, is_abandoned, is_silent, is_temporary
from zarrstore.stores.directory.folders import Folders, LeavesRootError

__all__ = ["Tree"]

#: What hard links are refused with, by a file system that has none or a rule of the system.
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})


class Tree:
    """What a DirectoryStore does with directories.

    Parameters
    ----------
    folders : Folders
        Where directories are, and which lie within the root.
    changed : callable
        Told the path of each directory whose names have changed.

    Notes
    -----
    Every method works on what it meets, and takes what vanished meanwhile for gone. Errors are the system's own.
    """

    def __init__(self, folders: Folders, changed: Callable[[str], None]) -> None:
        self.folders = folders
        self.base = folders.base
        self.changed = changed

    def scan(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of the values and of the directories in a directory; none for what is no directory."""
        files: list[str] = []
        folders: list[str] = []
        links: list[str] = []
        try:
            # Read to its end at once: the caller may write while it iterates, and holds no descriptor.
            with os.scandir(self.folders[path]) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_symlink():
                        links.append(entry.name)
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise
        for name in links:
            self._scan_link(k.join(path, name), name, files, folders)
        # One look at all names together: most directories hold nothing that is no key.
        if _are_plain("/".join(files)) and _are_plain("/".join(folders)):
            return files, folders
        self._sweep(path, files)
        lead = k.prefix(path)
        return (
            [name for name in files if k.is_key(lead + name) and not k.is_partial(name)],
            [name for name in folders if k.is_key(lead + name)],
        )

    def _scan_link(self, path: str, name: str, files: list[str], folders: list[str]) -> None:
        try:
            real = self.folders.real(path)
            if real is None:
                return
            mode = os.stat(real).st_mode
            if stat.S_ISREG(mode):
                files.append(name)
            elif stat.S_ISDIR(mode) and not self.folders.is_loop(path):
                folders.append(name)
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise

    def _sweep(self, path: str, names: list[str]) -> None:
        """Remove what dead writers left among the files of a directory."""
        for name in names:
            place = self.base + k.join(path, name)
            if is_temporary(name) and is_abandoned(place):
                with suppress(OSError):
                    os.unlink(place)

    def leftovers(self, path: str) -> Iterator[str]:
        """Yield the files below a directory that dead writers left, ours and zarr 2's, which no listing shows."""
        try:
            start = self.folders[path]
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise
            return
        for place, _, names in os.walk(start):
            at = os.path.relpath(place, self.folders.root).replace(os.sep, "/")
            for name in names:
                file = os.path.join(place, name)
                if is_abandoned(file) or (k.is_partial(name) and is_silent(file)):
                    yield name if at == "." else k.join(at, name)

    def make(self, path: str) -> None:
        """Make a directory and those above it; NotADirectoryError if a file is in the way."""
        missing = [path]
        while missing:
            at = missing[-1]
            if not at:
                self._make_root()
                missing.pop()
                continue
            above = k.parent(at)
            try:
                # Looked at before, so that nothing is made behind a link that leaves the root.
                self.folders[above]
                os.mkdir(self.base + at)
                self.changed(above)
                missing.pop()
            except FileExistsError:
                missing.pop()
            except FileNotFoundError:
                if len(missing) > 8192:  # others prune as fast as we make
                    raise
                missing.append(above)

    def _make_root(self) -> None:
        outside = ""
        place = self.folders.root
        while not os.path.exists(place):
            self.changed(outside)
            # Named from the root, as all that has changed is.
            outside = os.path.join("..", outside) if outside else ".."
            place = os.path.dirname(place)
        self.changed(outside)
        os.makedirs(self.folders.root, exist_ok=True)

    def prune(self, path: str) -> None:
        """Remove a directory and those above it, as far as they are empty; never the root."""
        while path:
            try:
                self.folders[k.parent(path)]  # behind a link that leaves the root, even an empty directory stays
                os.rmdir(self.base + path)
            except OSError as exc:
                # What is not there, or never could be, says nothing about those above it.
                if exc.errno not in (errno.ENOENT, errno.ENAMETOOLONG) and not isinstance(exc, LeavesRootError):
                    return
                path = k.parent(path)
            else:
                path = k.parent(path)
                self.changed(path)

    def remove(self, path: str, only_hollow: bool = False) -> None:
        """Remove all below a path, links but never what they lead to, and no file that a living writer is writing.

        With `only_hollow`, only what is left when all keys are gone: directories, and files of dead writers.
        """
        if path and os.path.islink(self.base + path):
            self._unlink_link(path)
            return
        pending = [path]
        found = []
        while pending:
            at = pending.pop()
            try:
                with os.scandir(self.folders[at]) as entries:
                    found.append(at)
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(k.join(at, entry.name))
                        elif is_abandoned(entry.path) if only_hollow or is_temporary(entry.name) else True:
                            with suppress(FileNotFoundError):
                                os.unlink(entry.path)
            except OSError as exc:
                if exc.errno not in ABSENT:
                    raise
        for at in reversed(found):
            self.changed(at)
            if at:
                with suppress(OSError):
                    os.rmdir(self.base + at)
        if path:
            self.changed(k.parent(path))
            self.prune(k.parent(path))

    def _unlink_link(self, path: str) -> None:
        above = k.parent(path)
        try:
            self.folders[above]
            # One that leaves the root is out of sight, and stays as it is.
            if self.folders.real(path) is None:
                return
            os.unlink(self.base + path)
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise
            return
        self.folders.renew()
        self.changed(above)
        self.prune(above)

    def move(self, source: str, destination: str) -> None:
        """Move a file, a link or a directory to where nothing is, in a directory that exists.

        FileExistsError or another OSError if anything but an empty directory is there.
        """
        old, new = self.base + source, self.base + destination
        mode = os.lstat(old).st_mode
        if stat.S_ISDIR(mode):
            os.rename(old, new)
        elif stat.S_ISLNK(mode):
            os.symlink(self._target(old, new), new)
            os.unlink(old)
        else:
            self._move_file(old, new)
        self.folders.renew()
        self.changed(k.parent(source))
        self.changed(k.parent(destination))

    @staticmethod
    def _move_file(old: str, new: str) -> None:
        # A second name first: unlike a rename, it never overwrites what somebody set meanwhile.
        try:
            os.link(old, new, follow_symlinks=False)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            if os.path.lexists(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from exc
            os.rename(old, new)
        else:
            os.unlink(old)

    @staticmethod
    def _target(old: str, new: str) -> str:
        """Return what a link at `new` must say to lead where the one at `old` does."""
        target = os.readlink(old)
        if os.path.isabs(target):
            return target
        aim = os.path.join(os.path.realpath(os.path.dirname(old)), target)
        return os.path.relpath(aim, os.path.realpath(os.path.dirname(new)))


def _are_plain(names: str) -> bool:
    """Tell that none of these names, joined, can be other than part of a key."""
    return (
        names.isascii()
        and k.RESERVED not in names
        and ".partial" not in names
        and "\\" not in names
        and ":" not in names
    )
