"""Directories: list, create, prune, remove and move them while others do the same."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

from zarrstore import keys as k
from zarrstore.stores._files import ABSENT, TEMPORARY_LENGTH, is_abandoned, is_silent, is_temporary
from zarrstore.stores.directory.folders import Folders, LeavesRootError

__all__ = ["Tree"]

#: Errors of a file system without hard links, or of a system that restricts them.
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})


class Tree:
    """What a DirectoryStore does with directories.

    Parameters
    ----------
    folders : Folders
        Where directories are, and which lie within the root.
    on_change : callable, optional
        Called with the path of each directory in which names have changed.

    Notes
    -----
    What another writer deletes meanwhile counts as absent. Errors are those of the system. `on_change` stands in
    ``finally``: after Ctrl-C behind the system call, the change is still made durable by the next flush.
    """

    def __init__(self, folders: Folders, on_change: Callable[[str], None] | None = None) -> None:
        self.folders = folders
        self.base = folders.base
        self.on_change = on_change or _ignore

    def scan(self, path: str) -> tuple[list[str], list[str]]:
        """Return the names of the values and of the directories in a directory; none for what is no directory."""
        files: list[str] = []
        folders: list[str] = []
        links: list[str] = []
        try:
            # All names at once: the caller may write between two of them, and a half-read listing holds no descriptor.
            with os.scandir(self.folders.check(path)) as entries:
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
            if isinstance(exc, LeavesRootError):
                self.folders.pass_over(exc.path)
        for name in links:
            self._scan_link(k.join(path, name), name, files, folders)
        # One test of all names together: in most directories, every name is part of a key.
        if _are_plain("/".join(files)) and _are_plain("/".join(folders)):
            return files, folders
        self._sweep(path, files)
        lead = k.prefix(path)
        undecoded = _first_undecoded([*files, *folders])
        if undecoded is not None:
            self.folders.pass_over_name(lead + undecoded)
        return (
            [name for name in files if k.is_key(lead + name) and not k.is_partial(name)],
            [name for name in folders if k.is_key(lead + name)],
        )

    def regular_files(self, path: str, most: int) -> list[str]:
        """Return the names of the regular files in a directory, of no more than its first `most` entries."""
        try:
            with os.scandir(self.folders.check(path)) as entries:
                return [entry.name for entry in islice(entries, most) if entry.is_file(follow_symlinks=False)]
        except OSError:  # whatever it is, the status of each key tells
            return []

    def _scan_link(self, path: str, name: str, files: list[str], folders: list[str]) -> None:
        try:
            real = self.folders.real(path)
            if real is None:
                return self.folders.pass_over(path)
            mode = os.stat(real).st_mode
            if stat.S_ISREG(mode):
                files.append(name)
            elif stat.S_ISDIR(mode) and not self.folders.is_loop(path):
                folders.append(name)
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise
            self.folders.pass_over(path)

    def _sweep(self, path: str, names: list[str]) -> None:
        """Remove temporary files of dead writers among the files of a directory."""
        for name in names:
            place = self.base + k.join(path, name)
            if is_temporary(name) and is_abandoned(place):
                with suppress(OSError):
                    os.unlink(place)

    def leftovers(self, path: str) -> Iterator[str]:
        """Yield the files of dead writers below a directory, ours and zarr 2's, which no listing shows."""
        pending = [path]
        while pending:
            at = pending.pop()
            files: list[str] = []
            try:
                with os.scandir(self.folders.check(at)) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(k.join(at, entry.name))
                        elif is_abandoned(entry.path) or (k.is_partial(entry.name) and is_silent(entry.path)):
                            files.append(k.join(at, entry.name))
            except OSError as exc:
                if exc.errno not in ABSENT:
                    raise
            yield from files

    def make(self, path: str) -> None:
        """Create a directory and those above it; FileNotFoundError if others prune them meanwhile."""
        try:
            self._make_one(path)
        except FileNotFoundError:
            # A path too long is refused here, before the first of its directories is made.
            self._refuse_long(path)
            self.folders.renew()
            self._make_root()
            for above in k.parents(path):
                if not self._exists(above):
                    self._make_one(above)
            self._make_one(path)

    def _exists(self, path: str) -> bool:
        try:
            self.folders.check(path)
        except FileNotFoundError:
            return False
        return not self.folders.follow or os.path.isdir(self.base + path)

    def _refuse_long(self, path: str) -> None:
        try:
            os.lstat(f"{self.base}{path}/{'x' * TEMPORARY_LENGTH}")
        except OSError as exc:
            if exc.errno == errno.ENAMETOOLONG:
                raise

    def _make_one(self, path: str) -> None:
        if not path:
            return self._make_root()
        above = k.parent(path)
        # Checked first: no directory is made behind a link that leaves the root.
        self.folders.check(above)
        try:
            os.mkdir(self.base + path)
            self.folders.add(path)
        except FileExistsError:
            pass
        finally:
            self.on_change(above)

    def _make_root(self) -> None:
        self.folders.check("")  # raises after `close`: the root of a closed TempStore is not created anew
        if os.path.isdir(self.folders.root):
            return
        missing = [""]
        place = self.folders.root
        while not os.path.exists(place):
            # Named from the root, as every changed directory is.
            missing.append(os.path.join(*[".."] * len(missing)))
            place = os.path.dirname(place)
        try:
            os.makedirs(self.folders.root, exist_ok=True)
        finally:
            for path in missing:
                self.on_change(path)

    def prune(self, path: str) -> None:
        """Remove a directory and those above it, as far as they are empty; never the root."""
        check, base = self.folders.check, self.base
        while path:
            above = k.parent(path)
            try:
                check(above)  # an empty directory behind a link that leaves the root stays
                os.rmdir(base + path)
            except OSError as exc:
                if exc.errno == errno.ENOTEMPTY:
                    return
                if exc.errno not in (errno.ENOENT, errno.ENAMETOOLONG) and not isinstance(exc, LeavesRootError):
                    return
                path = self._existing(above)
            else:
                self.on_change(above)
                path = above

    def _existing(self, path: str) -> str:
        """Return the deepest directory at or above a path that exists within the root."""
        if self.folders.follow:  # nothing is checked: looking at all parents for each parent finds nothing
            return path
        deepest = ""
        for at in (*k.parents(path), path):
            try:
                self.folders.check(at)
            except OSError:
                break
            deepest = at
        return deepest

    def remove(self, path: str, keyless_only: bool = False) -> None:
        """Remove all below a path, links but never what they lead to, and no temporary file of a living writer.

        With `keyless_only`, only what holds no key: directories, and temporary files of dead writers.
        """
        if path and os.path.islink(self.base + path):
            self._unlink_link(path)
            return
        pending = [path]
        folders = []
        try:
            while pending:
                at = pending.pop()
                try:
                    with os.scandir(self.folders.check(at)) as entries:
                        folders.append(at)
                        for entry in entries:
                            if entry.is_dir(follow_symlinks=False):
                                pending.append(k.join(at, entry.name))
                            elif is_abandoned(entry.path) if keyless_only or is_temporary(entry.name) else True:
                                with suppress(FileNotFoundError):
                                    os.unlink(entry.path)
                except OSError as exc:
                    if exc.errno not in ABSENT:
                        raise
        finally:
            for at in reversed(folders):
                self.on_change(at)
        for at in reversed(folders):
            if at:
                with suppress(OSError):
                    os.rmdir(self.base + at)
        if path:
            self.on_change(k.parent(path))
            self.prune(k.parent(path))

    def _unlink_link(self, path: str) -> None:
        above = k.parent(path)
        try:
            self.folders.check(above)
            # A link that leaves the root counts as absent, and stays.
            if self.folders.real(path) is None:
                return
            os.unlink(self.base + path)
        except OSError as exc:
            if exc.errno not in ABSENT:
                raise
            return
        self.folders.renew()
        self.on_change(above)
        self.prune(above)

    def move(self, source: str, destination: str) -> None:
        """Move a file, a link or a directory to where nothing is, in a directory that exists.

        FileExistsError or another OSError if anything but an empty directory is there.
        """
        old, new = self.base + source, self.base + destination
        mode = os.lstat(old).st_mode
        try:
            if stat.S_ISDIR(mode):
                os.rename(old, new)
            elif stat.S_ISLNK(mode):
                os.symlink(self._target(old, new), new)
                os.unlink(old)
            else:
                self._move_file(old, new)
        finally:
            self.folders.renew()
            self.on_change(k.parent(source))
            self.on_change(k.parent(destination))

    @staticmethod
    def _move_file(old: str, new: str) -> None:
        # A hard link first: unlike a rename, it never replaces a value that was set meanwhile.
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
        """Return the target that a link at `new` needs to lead where the one at `old` leads."""
        target = os.readlink(old)
        if os.path.isabs(target):
            return target
        aim = os.path.join(os.path.realpath(os.path.dirname(old)), target)
        return os.path.relpath(aim, os.path.realpath(os.path.dirname(new)))


def _ignore(path: str) -> None:
    pass


def _are_plain(names: str) -> bool:
    """Tell whether each of these joined names is part of a key for certain."""
    return (
        names.isascii()
        and k.RESERVED not in names
        and ".partial" not in names
        and "\\" not in names
        and ":" not in names
    )


def _first_undecoded(names: list[str]) -> str | None:
    """Return the first name that is no text; what Python cannot decode, it gives as lone surrogates."""
    try:
        "/".join(names).encode()
    except UnicodeEncodeError:
        return next(name for name in names if any("\ud800" <= character <= "\udfff" for character in name))
    return None
