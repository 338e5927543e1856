"""Which directories lie within the root, when symbolic links may lead out of it."""

from __future__ import annotations

import errno
import os
import stat
import sys
import warnings
from math import inf
from time import monotonic

from zarrstore import keys as k
from zarrstore.longpaths import PathLengthError, length_problem

__all__ = ["Folders", "LeavesRootError"]

#: Seconds for which a directory counts as checked.
FRESH = 1.0
_MOST = 1 << 16


class LeavesRootError(OSError):
    """A symbolic link at `path` leads out of the root. The errno is ELOOP, as for a link met with O_NOFOLLOW."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ELOOP, "a symbolic link that leaves the root", path)
        self.path = path


class Folders:
    """Directories that were checked to lie within the root, and where they are in the file system.

    Parameters
    ----------
    root : str
        Absolute path of the root, which may itself be reached through links.
    follow : bool
        Check nothing: links are followed wherever they lead.
    limit : int, optional
        Characters that a path may have, where the system answers a longer one as if nothing were there.

    Notes
    -----
    A check counts for `FRESH` seconds, so a chunk costs no look at its directory (``openat2``, which checks by itself,
    costs a third of a read more through ctypes), and a link that replaces a directory is followed for a second at
    most. Threads: safe, each step on a dict is one step of the interpreter.
    """

    def __init__(self, root: str, follow: bool, limit: int | None = None) -> None:
        self.root = root
        self.base = root if root.endswith(os.sep) else root + os.sep
        self.follow = follow
        self.limit = limit
        #: Whether a link that may be followed was ever met. Until then, a write does not look for links.
        self.links = follow
        #: Whether the user was warned of a link that leads to no value.
        self.warned = False
        self._warned_of_names = False
        self._closed: Exception | None = None
        self._places: dict[str, str] = {}
        self._until = 0.0
        self.renew()

    def check(self, path: str) -> str:
        """Return where a directory is in the file system.

        Raises
        ------
        LeavesRootError
            A link that leaves the root is on the way.
        PathLengthError
            The system opens no path so long.
        OSError
            No directory is there (FileNotFoundError, NotADirectoryError), or the system failed.
        """
        if monotonic() > self._until:
            self.renew()
        return self._places.get(path) or self._check_parents(path)

    def add(self, path: str) -> None:
        """Count a directory as checked that was created in this moment, in one that is checked."""
        self._places[path] = self.base + path

    def renew(self) -> None:
        """Forget all checks."""
        self._places.clear()
        self._until = inf if self.follow else monotonic() + FRESH

    def close(self, error: Exception) -> None:
        """Raise `error` at every check from now on."""
        self._closed = error
        self.renew()

    @property
    def closed(self) -> bool:
        """Tell whether `close` was called."""
        return self._closed is not None

    def _check_parents(self, path: str) -> str:
        if self._closed is not None:
            raise self._closed
        # Room for what a listing puts behind it.
        if self.limit is not None and (problem := length_problem(self.base + path, self.limit, 2)):
            raise PathLengthError(path, problem)
        if len(self._places) > _MOST:
            self._places.clear()
        if not self.follow:
            if k.parent(path) not in self._places:
                self._check_from_root(path)
            self._look(path)
        self._places[path] = place = self.base + path
        return place

    def _check_from_root(self, path: str) -> None:
        """Check what is above a path; the first directory that is absent ends it."""
        first = not self._places
        for above in k.parents(path):
            if above not in self._places:
                self._look(above)
        if first:
            # From here, not from before: the checks of a very deep path could otherwise expire while they are made.
            self._until = monotonic() + FRESH

    def _look(self, path: str) -> None:
        """Check one directory, whose parents are checked."""
        if path:
            self._refuse_others(path)
        self._places[path] = self.base + path

    def _refuse_others(self, path: str) -> None:
        """Raise if a path is no directory, or is a link that leaves the root."""
        place = self.base + path
        status = os.lstat(place)
        # st_reparse_tag: a junction of Windows counts as a directory in st_mode.
        if stat.S_ISDIR(status.st_mode) and not getattr(status, "st_reparse_tag", 0):
            return
        if stat.S_ISREG(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)
        if self.real(path) is None:
            raise LeavesRootError(path)
        if not os.path.isdir(place):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)

    def real(self, path: str) -> str | None:
        """Return the path without links, None if it is outside of the root; OSError if nothing is there."""
        real = os.path.realpath(self.base + path, strict=True)
        root = os.path.realpath(self.root)
        if self.follow or os.path.commonpath([root, real]) == root:
            self.links = True
            return real
        return None

    def pass_over(self, path: str) -> None:
        """Warn, once, that what is behind a link counts as absent: a reader takes an absent chunk for fill values."""
        if self.warned or not k.is_key(path):
            return
        self.warned = True
        try:
            target = os.readlink(self.base + path)
        except OSError:  # another writer has replaced it
            return
        leads = "nowhere" if self.follow or not os.path.exists(self.base + path) else "out of the root"
        hint = "" if leads == "nowhere" else "; follow_symlinks=True follows it"
        warnings.warn(
            f"{path!r} in {self.root!r} is a link to {target!r}, which leads {leads}: what is behind it, and behind "
            f"other links like it, counts as absent{hint}",
            RuntimeWarning,
            stacklevel=2,
        )

    def pass_over_name(self, path: str) -> None:
        """Warn, once, that a file has a name that is no text, so that no key names it."""
        if self._warned_of_names:
            return
        self._warned_of_names = True
        encoding = sys.getfilesystemencoding()
        hint = "" if encoding.replace("-", "").lower() == "utf8" else "; PYTHONUTF8=1 reads names as UTF-8"
        warnings.warn(
            f"{path!r} in {self.root!r} is a name that is no text in {encoding}: no key names it or what is below it, "
            f"and no listing or copy shows it{hint}",
            RuntimeWarning,
            stacklevel=2,
        )

    def is_link_to_directory(self, path: str) -> bool:
        """Tell whether `path` is a link with keys below it."""
        if not os.path.islink(self.base + path):
            return False
        try:
            real = self.real(path)
        except OSError:
            return False
        return real is not None and os.path.isdir(real)

    def is_loop(self, path: str) -> bool:
        """Tell whether a link leads to a directory that holds the link: a listing would never end."""
        real = os.path.realpath(self.base + path)
        return any(os.path.realpath(self.base + above) == real for above in k.parents(path))
