"""Which keys and directories of the store below an OverlayStore hides, and how its upper store keeps that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from zarrstore import keys as k

__all__ = ["BELOW", "KEY", "MARKS", "Marks", "decode_mark", "encode_mark"]

#: Where the upper store keeps the marks. An ordinary key and not a reserved one, so that any store can hold it and any
#: tool can copy it.
MARKS = ".zarrstore-overlay"
#: Kinds of marks: one key is deleted; every key below a path is deleted.
KEY, BELOW = "key", "below"

# A mark must not stand in the way of another one in a store where a value cannot stand on a directory. So directories
# begin with "d", the mark of one key with "k", and the mark of all keys below a path is "below".
_DIRECTORY, _KEY_NAME = "d", "k"
#: Marks with a longer name, or longer as a whole, are kept under a hash, in bytes: file systems take 255 for a name,
#: LMDB takes 511 for a key.
_LONGEST_NAME, _LONGEST_MARK = 200, 400
_HASHED = "long"


def encode_mark(kind: str, path: str) -> tuple[str, bytes]:
    """Return the key and the value of a mark.

    Parameters
    ----------
    kind : {'key', 'below'}
        What is deleted: the value at `path`, or every key below it.
    path : str
        The key, or a normal path.

    Examples
    --------
    >>> encode_mark("key", "a/b"), encode_mark("below", "")
    (('.zarrstore-overlay/da/kb', b''), ('.zarrstore-overlay/below', b''))
    """
    if kind == KEY:
        directories, last = k.segments(k.parent(path)), _KEY_NAME + k.name(path)
    else:
        directories, last = k.segments(path), BELOW
    names = [MARKS, *(_DIRECTORY + name for name in directories), last]
    mark = "/".join(names)
    if len(mark.encode()) <= _LONGEST_MARK and max(len(name.encode()) for name in names) <= _LONGEST_NAME:
        return mark, b""
    return _hashed(kind, path)


def _hashed(kind: str, path: str) -> tuple[str, bytes]:
    content = f"{kind} {path}".encode()
    return f"{MARKS}/{_HASHED}/{hashlib.sha256(content).hexdigest()}", content


def decode_mark(mark: str, read: Callable[[], bytes]) -> tuple[str, str] | None:
    """Return the kind and the path of a mark, None if it is none that `encode_mark` makes.

    Parameters
    ----------
    mark : str
        A key below `MARKS`.
    read : callable
        Returns its value; asked only for a mark that is kept under a hash.

    Notes
    -----
    The path that is returned was judged as a key (or is ``""`` for all keys), and does not lie below `MARKS`: a file
    that someone else put among the marks cannot name anything outside the store.

    Examples
    --------
    >>> decode_mark(".zarrstore-overlay/da/kb", bytes), decode_mark(".zarrstore-overlay/d../kb", bytes)
    (('key', 'a/b'), None)
    """
    names = k.segments(mark)[1:]
    found = _hashed_content(read) if len(names) == 2 and names[0] == _HASHED else _spelled_out(names)
    if found is None:
        return None
    kind, path = found
    is_root = kind == BELOW and not path
    if not is_root and (not k.is_key(path) or path == MARKS or k.is_below(path, MARKS)):
        return None
    if kind not in (KEY, BELOW) or (names[0] == _HASHED and _hashed(kind, path)[0] != mark):
        return None
    return kind, path


def _hashed_content(read: Callable[[], bytes]) -> tuple[str, str] | None:
    try:
        kind, _, path = read().decode().partition(" ")
    except UnicodeDecodeError:
        return None
    return kind, path


def _spelled_out(names: Sequence[str]) -> tuple[str, str] | None:
    """Return what the names of a mark spell out; not yet judged."""
    if not names or not all(name.startswith(_DIRECTORY) for name in names[:-1]):
        return None
    directories = [name[len(_DIRECTORY) :] for name in names[:-1]]
    kind = BELOW if names[-1] == BELOW else KEY
    if kind == KEY:
        if not names[-1].startswith(_KEY_NAME):
            return None
        directories.append(names[-1][len(_KEY_NAME) :])
    return kind, "/".join(directories)


class Marks:
    """The keys and directories that are hidden, as sets.

    Attributes
    ----------
    keys, directories : set of str
        Deleted keys, and paths below which everything is deleted.
    """

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.directories: set[str] = set()
        # Marked keys and paths, and everything above them: where a listing of the store below needs a second look.
        self._around: set[str] = set()

    def add(self, kind: str, path: str) -> None:
        """Remember a mark."""
        (self.keys if kind == KEY else self.directories).add(path)
        self._around.add(path)
        self._around.update(k.parents(path))

    def hides(self, key: str) -> bool:
        """Tell whether the value of the store below at `key` is deleted."""
        return key in self.keys or self._hides_above(key)

    def hides_below(self, path: str) -> bool:
        """Tell whether everything of the store below that lies below `path` is deleted."""
        return path in self.directories or self._hides_above(path)

    def _hides_above(self, path: str) -> bool:
        return bool(self.directories) and any(above in self.directories for above in k.parents(path))

    def may_hide(self, path: str) -> bool:
        """Tell whether anything at or below `path` is deleted, or all of it."""
        return path in self._around or self._hides_above(path)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield from ((KEY, key) for key in self.keys)
        yield from ((BELOW, path) for path in self.directories)
