"""The names of chunks below an array, in the flat spelling (``0.1``) and the nested one (``0/1``); pure ``str``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from zarrstore.keys import is_below, join, prefix, replace_root

__all__ = [
    "chunk_coords",
    "chunk_name",
    "flat_spellings",
    "flatten",
    "is_chunk_name",
    "is_number",
    "nest",
    "whole_names",
]

#: Digits of a coordinate; no array reaches so far.
_MOST_DIGITS = 600
_CHUNK_NAME = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_FLAT_CHUNK_NAME = re.compile(r"[0-9]+(?:\.[0-9]+)+", re.ASCII)


def is_number(name: str) -> bool:
    """Tell whether a name is one coordinate of a chunk.

    Examples
    --------
    >>> is_number("20"), is_number("0.1"), is_number("٣"), is_number("")
    (True, False, False, False)
    """
    return name.isascii() and name.isdecimal()


def is_chunk_name(name: str) -> bool:
    """Tell whether a name is that of a chunk in the flat spelling.

    Examples
    --------
    >>> is_chunk_name("0.1.2"), is_chunk_name("7"), is_chunk_name(".zarray"), is_chunk_name("0.")
    (True, True, False, False)
    """
    return _CHUNK_NAME.fullmatch(name) is not None


def chunk_coords(key: str, array: str, separator: str = ".") -> tuple[int, ...] | None:
    """Return the grid position that a key below `array` names, None if it names no chunk.

    Parameters
    ----------
    key, array : str
        The key, and the path of the array.
    separator : {'.', '/'}
        The array's dimension separator.

    Examples
    --------
    >>> chunk_coords("foo/1.20", "foo"), chunk_coords("foo/1/20", "foo", "/"), chunk_coords("foo/.zarray", "foo")
    ((1, 20), (1, 20), None)
    """
    if not is_below(key, array):
        return None
    parts = key[len(array) + 1 if array else 0 :].split(separator)
    # Python reads no number of more than 4,300 digits, or 640 where it is told so.
    if all(map(is_number, parts)) and max(map(len, parts)) <= _MOST_DIGITS:
        return tuple(map(int, parts))
    return None


def chunk_name(coords: Iterable[int], separator: str = ".") -> str:
    """Return the name of the chunk at a grid position; the one chunk of an array without axes is ``"0"``.

    Examples
    --------
    >>> chunk_name((1, 20)), chunk_name((1, 20), "/"), chunk_name(())
    ('1.20', '1/20', '0')
    """
    return separator.join(map(str, coords)) or "0"


def nest(key: str) -> str:
    """Return a chunk key in the nested spelling; other keys unchanged.

    Examples
    --------
    >>> nest("foo/0.1.2"), nest("foo/7"), nest("foo/.zarray"), nest("v1.2/x")
    ('foo/0/1/2', 'foo/7', 'foo/.zarray', 'v1.2/x')
    """
    directory, slash, last = key.rpartition("/")
    if _FLAT_CHUNK_NAME.fullmatch(last) is None:
        return key
    return directory + slash + last.replace(".", "/")


def flat_spellings(key: str) -> Iterator[str]:
    """Yield every key that `nest` turns into `key`, the one with the fewest coordinates first; `key` itself is none.

    Examples
    --------
    >>> list(flat_spellings("foo/0/1/2")), list(flat_spellings("foo/7")), list(flat_spellings("foo/.zarray"))
    (['foo/0/1.2', 'foo/0.1.2'], [], [])
    """
    directory, _, last = key.rpartition("/")
    while directory and is_number(last.replace(".", "")):
        directory, _, number = directory.rpartition("/")
        if not is_number(number):
            return
        last = f"{number}.{last}"
        yield f"{directory}/{last}" if directory else last


def flatten(key: str, array: str) -> str:
    """Return a chunk key of `array` in the flat spelling; other keys unchanged.

    Examples
    --------
    >>> flatten("foo/0/1/2", "foo"), flatten("0/0/1", "0"), flatten("foo/.zarray", "foo"), flatten("bar/0/1", "foo")
    ('foo/0.1.2', '0/0.1', 'foo/.zarray', 'bar/0/1')
    """
    coords = chunk_coords(key, array, "/")
    if coords is None:
        return key
    start = len(prefix(array))
    return key[:start] + key[start:].replace("/", ".")


def whole_names(names: Iterable[str], array: str, keys: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the sorted names below an array whose chunks are nested, those of chunks whole: ``0/1`` instead of ``0``.

    Parameters
    ----------
    names : iterable of str
        The immediate children of the array.
    array : str
        Its path.
    keys : callable
        Returns the keys below a path. Asked for each name that is a number.

    Examples
    --------
    >>> whole_names([".zarray", "0"], "foo", lambda path: ["foo/0/0", "foo/0/1"])
    ['.zarray', '0/0', '0/1']
    """
    whole: list[str] = []
    for name in names:
        below = keys(join(array, name)) if is_number(name) else ()
        whole.extend([replace_root(key, array, "") for key in below] or [name])
    return sorted(whole)
