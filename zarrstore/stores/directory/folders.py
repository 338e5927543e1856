"""Which directories lie within the root, when symbolic links may lead out of it."""

from __future__ import annotations

import errno
import os
import stat
from math import inf
from time import monotonic

from zarrstore import keys as k

__all__ = ["Folders", "LeavesRootError"]

#: For how long, in seconds, a directory that was seen to be none of those links is believed to be none.
FRESH = 1.0
_MOST = 1 << 16


class LeavesRootError(OSError):
    """A symbolic link at `path` leads out of the root. The errno is ELOOP, as of a link met with O_NOFOLLOW."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ELOOP, "a symbolic link that leaves the root", path)
        self.path = path


class Folders(dict[str, str]):
    """Where directories stand in the file system, by path, each looked at before it is used the first time.

    Parameters
    ----------
    root : str
        Absolute path of the root, which may itself be reached through links.
    follow : bool
        Look at nothing: links are followed wherever they lead.

    Notes
    -----
    ``folders[path]`` raises what the file system says (FileNotFoundError, NotADirectoryError), or `LeavesRootError`. A
    verdict stands until `until`; whoever comes later calls `renew`. So a chunk costs no look at its directory (an
    ``openat2`` that looks itself costs a third of a read more, through ctypes), and a link that somebody puts in the
    place of a directory is followed for a second at most. Threads: safe, steps on a dict are whole.
    """

    def __init__(self, root: str, follow: bool) -> None:
        super().__init__()
        self.root = root
        self.base = root if root.endswith(os.sep) else root + os.sep
        self.follow = follow
        #: Whether a link that may be followed was ever met: until then, nobody pays for the question.
        self.links = follow
        self.closed: Exception | None = None
        self.until = 0.0
        self.renew()

    def renew(self) -> None:
        """Forget all verdicts."""
        self.clear()
        self.until = inf if self.follow else monotonic() + FRESH

    def close(self, error: Exception) -> None:
        """Raise `error` for every directory from now on."""
        self.closed = error
        self.renew()

    def __missing__(self, path: str) -> str:
        if self.closed is not None:
            raise self.closed
        if len(self) > _MOST:
            self.clear()
        if not self.follow:
            for above in (*k.parents(path), path):
                if above and above not in self:
                    self._look(above)
                    self[above] = self.base + above
        self[path] = place = self.base + path
        return place

    def _look(self, path: str) -> None:
        place = self.base + path
        found = os.lstat(place)
        # A junction of Windows has a reparse tag, and calls itself a directory.
        if stat.S_ISDIR(found.st_mode) and not getattr(found, "st_reparse_tag", 0):
            return
        if stat.S_ISREG(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)
        if self.real(path) is None:
            raise LeavesRootError(path)
        if not os.path.isdir(place):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)

    def real(self, path: str) -> str | None:
        """Return where a path really is, None if that is outside of the root; OSError if it is nowhere."""
        real = os.path.realpath(self.base + path, strict=True)
        root = os.path.realpath(self.root)
        if self.follow or os.path.commonpath([root, real]) == root:
            self.links = True
            return real
        return None

    def is_link_to_directory(self, path: str) -> bool:
        """Tell whether keys lie below a link."""
        if not os.path.islink(self.base + path):
            return False
        try:
            real = self.real(path)
        except OSError:
            return False
        return real is not None and os.path.isdir(real)

    def is_loop(self, path: str) -> bool:
        """Tell whether the directory that a link leads to holds the link, so that a listing would never end."""
        real = os.path.realpath(self.base + path)
        return any(os.path.realpath(self.base + above) == real for above in k.parents(path))
