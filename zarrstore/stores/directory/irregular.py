"""What lies in the folder of a DirectoryStore and is neither a value nor a directory of values."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from zarrstore import keys as k
from zarrstore.stores._files import is_temporary

__all__ = ["irregular_entries"]


def irregular_entries(root: str, path: str, follow: bool) -> Iterator[tuple[str, str]]:
    """Yield the key-like name of each odd entry below a directory, and what is odd about it.

    Parameters
    ----------
    root : str
        Absolute path of the store's root.
    path : str
        Where to look, below the root.
    follow : bool
        Whether the store follows links that lead out of the root.

    Notes
    -----
    Cost: one scan of each directory. Directories that cannot be read are passed over: listing them fails elsewhere.
    """
    real_root = os.path.realpath(root)
    for place, folders, files in os.walk(os.path.join(root, path) if path else root):
        at = os.path.relpath(place, root).replace(os.sep, "/")
        for name in (*folders, *files):
            key = name if at == "." else f"{at}/{name}"
            reason = _reason(os.path.join(place, name), real_root, follow)
            if reason is None and not k.is_key(key) and not is_temporary(name):
                reason = "its name is no key, so no store shows it"
            if reason is not None:
                yield key, reason


def _reason(place: str, real_root: str, follow: bool) -> str | None:
    try:
        mode = os.lstat(place).st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    if not stat.S_ISLNK(mode):
        return "it is a pipe, a socket or a device"
    real = os.path.realpath(place)
    try:
        target = os.stat(place).st_mode
    except OSError as exc:
        return f"it is a link to {os.readlink(place)!r}, which leads nowhere ({exc.strerror})"
    if not follow and os.path.commonpath([real, real_root]) != real_root:
        return f"it is a link to {os.readlink(place)!r}, which leads out of the root and is not followed"
    if not (stat.S_ISREG(target) or stat.S_ISDIR(target)):
        return "it is a link to a pipe, a socket or a device"
    return None
