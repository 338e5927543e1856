r"""How long a path may be on Windows, and which roots take no ``/`` between the names below them.

Windows opens paths of up to 259 characters, longer ones only where long paths are on (the value ``LongPathsEnabled`` in
its registry, version 1607 of Windows 10 and later) or behind ``\\?\``, where ``/`` stands for itself. A path that it
does not open is answered like one at which nothing is, so it is judged before it is asked for.

Source: Microsoft, Maximum Path Length Limitation; Naming Files, Paths, and Namespaces.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from zarrstore.errors import InvalidPathError, StoreNotFoundError

__all__ = [
    "LONG",
    "SHORT",
    "PathLengthError",
    "absent_place",
    "check_place",
    "length_problem",
    "path_limit",
    "root_problem",
]

_IS_WINDOWS = os.name == "nt"
#: Characters of a path, without and with long paths.
SHORT, LONG = 259, 32_766
_VERBATIM = ("\\\\?\\", "\\??\\")
_SETTING = "turn on long paths (LongPathsEnabled in the registry, Windows 10 version 1607 and later)"


class PathLengthError(OSError):
    """A path that the system does not open, so that nobody knows whether something is there.

    The errno is none of those that mean absence.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.EOVERFLOW, reason, path)
        self.path = path
        self.reason = reason


def path_limit(library: Any = None) -> int:
    """Return how many characters a path may have for this process on Windows.

    Parameters
    ----------
    library : object, optional
        ``ntdll``, whose ``RtlAreLongPathsEnabled`` knows the registry and the program's manifest. Versions of Windows
        before long paths have no such function.
    """
    try:
        if library is None:
            import ctypes

            library = vars(ctypes)["WinDLL"]("ntdll")
        # A byte: what stands above it in the register is of no meaning.
        return LONG if library.RtlAreLongPathsEnabled() & 0xFF else SHORT
    except (AttributeError, ImportError, KeyError, OSError):
        return SHORT


def length_problem(path: str, limit: int, room: int = 0) -> str:
    """Return why Windows opens no path so long, the empty string if it does.

    Parameters
    ----------
    path : str
        Absolute.
    limit : int
        As `path_limit` returns it.
    room : int, default 0
        Characters that are put behind the path.

    Examples
    --------
    >>> length_problem("C:/data/" + "a" * 300, 259)
    'its path needs 308 characters, and Windows opens none of more than 259 here: choose a shorter root, or turn on ...'
    >>> length_problem("C:/data/a", 259)
    ''
    """
    if 2 * len(path) + room <= limit:
        return ""
    # Windows counts units of UTF-16.
    needed = len(path.encode("utf-16-le", "surrogatepass")) // 2 + room
    if needed <= limit:
        return ""
    setting = "" if limit >= LONG else f", or {_SETTING}"
    return (
        f"its path needs {needed:,} characters, and Windows opens none of more than {limit:,} here: "
        f"choose a shorter root{setting}"
    )


def root_problem(path: str) -> str:
    r"""Return why keys cannot be put below a root on Windows, the empty string if they can.

    Examples
    --------
    >>> root_problem("C:\\data")
    ''
    >>> print(root_problem("\\\\?\\C:\\data"))
    behind \\?\ Windows takes no '/' between names, and keys have it: give it as C:\data; for paths of more than ...
    """
    if not path.startswith(_VERBATIM):
        return ""
    rest = path[4:]
    if rest[:4].upper() == "UNC\\":
        plain = f"it as \\\\{rest[4:]}"
    elif rest[1:3] == ":\\":
        plain = f"it as {rest}"
    else:
        plain = "the letter of its drive"
    return (
        f"behind {path[:4]} Windows takes no '/' between names, and keys have it: give {plain}; "
        f"for paths of more than {SHORT} characters, {_SETTING}"
    )


def check_place(path: str, limit: int | None = None) -> None:
    """Raise InvalidPathError if Windows does not open what is at a path, so that it would be taken for absent."""
    if problem := length_problem(os.path.abspath(path), limit or path_limit()):
        raise InvalidPathError(path, problem)


def absent_place(path: str, looked_for: str) -> InvalidPathError | StoreNotFoundError:
    """Return the error for a path at which the system finds nothing, which on Windows may mean that it is too long.

    Examples
    --------
    >>> raise absent_place("no/such.zip", "a zip archive to read")
    Traceback (most recent call last):
    zarrstore.errors.StoreNotFoundError: no store at 'no/such.zip': looked for a zip archive to read
    """
    if _IS_WINDOWS and (problem := length_problem(os.path.abspath(path), path_limit())):
        return InvalidPathError(path, problem)
    return StoreNotFoundError(path, looked_for)
