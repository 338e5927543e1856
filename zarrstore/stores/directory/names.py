"""Which names a file system takes for one another, or takes for something else."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator

from zarrstore import keys as k
from zarrstore.errors import InvalidKeyError, InvalidPathError
from zarrstore.longpaths import length_problem, path_limit, root_problem

__all__ = ["Names", "windows_problem"]

#: What Windows opens as a device, with any extension and whatever its case; the last three are superscript digits.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\.|$)", re.IGNORECASE)
_SIGNS = re.compile(r'[<>:"|?*\x00-\x1f]')
#: Entries of a directory that are looked at before it counts as having no name with a letter.
_SAMPLE = 256


def windows_problem(segment: str) -> str:
    """Return why Windows keeps no file under one segment of a key, the empty string if it does.

    Notes
    -----
    Source: Microsoft, Naming Files, Paths, and Namespaces.

    Examples
    --------
    >>> windows_problem("a:b"), windows_problem("nul.txt"), windows_problem("a."), windows_problem(".zarray")
    ("Windows takes no ':' in a name", "'nul.txt' is a device there", "Windows drops a '.' at the end of a name", '')
    """
    if sign := _SIGNS.search(segment):
        return f"Windows takes no {sign[0]!r} in a name"
    if _DEVICES.match(segment):
        return f"{segment!r} is a device there"
    if segment[-1] in ". ":
        return f"Windows drops a {segment[-1]!r} at the end of a name"
    return ""


class Names:
    """The names in a directory tree, on a file system that may not keep all of them apart.

    Parameters
    ----------
    root : str
        Absolute path, which need not exist yet.
    windows : bool, optional
        Judge names as Windows does; by default whether this is Windows.
    limit : int, optional
        Characters that a path may have on Windows; by default what it allows this process.

    Raises
    ------
    InvalidPathError
        Windows takes no ``/`` below the root, or opens no path as long as the root.

    Attributes
    ----------
    limit : int or None
        Characters that a path may have. None: the system says so itself, by an error of its own.
    folds : bool or None
        Whether names that differ in case only are one. None: no name with a letter was met yet.

    Notes
    -----
    Cost: one look into the nearest directory that exists, when it is made. After that nothing, but in a place that
    folds one listing for each directory in a key whose name has a letter: what a file system compares (case, accents
    in two spellings) only its own listing shows.
    """

    def __init__(self, root: str, windows: bool = os.name == "nt", limit: int | None = None) -> None:
        self.root = root
        self.windows = windows
        self.limit = (limit or path_limit()) if windows else None
        if windows and (problem := root_problem(root) or self.length_problem("")):
            raise InvalidPathError(root, problem)
        self.folds: bool | None = None
        self._look()

    @property
    def restricts(self) -> bool:
        """Whether there are keys that this place does not keep."""
        return self.windows or bool(self.folds)

    def learn(self, key: str) -> None:
        """Find out, from a value that was just set, whether the place folds case."""
        if self.folds is None:
            self._try(self.root, key)

    def check(self, key: str) -> None:
        """Raise InvalidKeyError if a key, or a path, cannot be kept apart from others here."""
        if self.windows:
            for segment in k.segments(key):
                if problem := windows_problem(segment):
                    raise InvalidKeyError(key, problem)
        if self.folds and (twin := self._twin(key)):
            raise InvalidKeyError(
                key, f"{twin!r} is there, and the file system of {self.root!r} keeps only one of them"
            )

    def length_problem(self, key: str, room: int = 0) -> str:
        """Return why the system opens nothing under a key, or a path, so long; the empty string if it does."""
        return "" if self.limit is None else length_problem(os.path.join(self.root, key), self.limit, room)

    def _twin(self, key: str) -> str:
        """Return what stands under another spelling of a key or of a directory above it, else the empty string."""
        for path in _paths(key):
            name = k.name(path)
            # What has neither letters nor accents has one spelling: chunks cost no listing.
            if name == name.swapcase() and name.isascii():
                continue
            place = os.path.join(self.root, path)
            if not os.path.lexists(place):
                return ""
            names = _names_in(os.path.dirname(place))
            if name not in names:
                # None: it went away between the look and the listing.
                twin = next((other for other in names if _folded(other) == _folded(name)), None)
                return "" if twin is None else k.join(k.parent(path), twin)
        return ""

    def _look(self) -> None:
        folder = self.root
        while not os.path.isdir(folder):
            above = os.path.dirname(folder)
            if above == folder:
                return
            folder = above
        try:
            with os.scandir(folder) as entries:
                for _, entry in zip(range(_SAMPLE), entries, strict=False):
                    self._try(folder, entry.name)
                    if self.folds is not None:
                        return
        except OSError:  # not ours to list: the first set tells
            return

    def _try(self, folder: str, key: str) -> None:
        """Ask for something that is there under its name with the other case."""
        name = k.name(key)
        if name == name.swapcase():
            return
        place = os.path.join(folder, key)
        above = os.path.dirname(place)
        if os.path.lexists(place):
            # Both may be there, on a file system that keeps them apart.
            other = name.swapcase()
            self.folds = os.path.lexists(os.path.join(above, other)) and other not in _names_in(above)


def _names_in(folder: str) -> list[str]:
    """Return the names in a folder; none if another thread or process has just removed it."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _paths(key: str) -> Iterator[str]:
    yield from (above for above in k.parents(key) if above)
    yield key


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
