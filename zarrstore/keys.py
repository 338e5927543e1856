"""Keys and paths: the one place where they are judged, split, joined and rewritten.

A *key* is the full name of a value (``"foo/bar/0.0"``). It is exact: judged, never changed. A *path* names a place,
perhaps a directory, and is normalised as Zarr does; ``""`` is the root. A *prefix* is what the keys below a path begin
with (``"foo/bar/"``, or ``""`` for the root). A *name* is one segment. All functions here are pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from zarrstore.errors import InvalidKeyError, InvalidPathError

__all__ = [
    "RESERVED",
    "are_keys",
    "beyond",
    "check_key",
    "child",
    "children",
    "from_name",
    "is_below",
    "is_key",
    "is_partial",
    "join",
    "judged",
    "name",
    "natural_order",
    "normalize_path",
    "parent",
    "parents",
    "prefix",
    "replace_root",
    "segments",
]

#: Segments that begin so belong to the stores themselves (temporary files and the like) and are never keys.
RESERVED = ".__zarrstore"

_MEMO_ENTRIES = 1 << 16
_MEMO_LONGEST = 512


def _judge(key: object) -> str:
    """Return `key` as a plain str, or raise InvalidKeyError with the reason."""
    if not isinstance(key, str):
        raise InvalidKeyError(key, f"a key is a str, not {type(key).__name__}")
    text = str.__str__(key)
    if not text:
        raise InvalidKeyError(key, "a key is not empty")
    if "\0" in text:
        raise InvalidKeyError(key, "NUL is not allowed")
    if "\\" in text:
        raise InvalidKeyError(key, "a backslash is not allowed, segments are parted by '/'")
    if text[1:2] == ":" and text[0].isascii() and text[0].isalpha():
        raise InvalidKeyError(key, f"{text[:2]!r} is a drive letter")
    fenced = f"/{text}/"
    if "//" in fenced:
        if text[0] == "/":
            raise InvalidKeyError(key, "a key does not begin with '/'")
        if text[-1] == "/":
            raise InvalidKeyError(key, "a key does not end with '/'")
        raise InvalidKeyError(key, "'' is not a segment")
    if "/../" in fenced:
        raise InvalidKeyError(key, "'..' is not a segment")
    if "/./" in fenced:
        raise InvalidKeyError(key, "'.' is not a segment")
    if "/" + RESERVED in fenced:
        raise InvalidKeyError(key, f"segments that begin with {RESERVED!r} are reserved for the stores")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidKeyError(key, "a lone surrogate is not text") from None
    return text


class _Judged(dict[Any, str]):
    """Keys already judged: a lookup costs a fifth of a judgement. Bounded, and no key is worth keeping for ever."""

    def __missing__(self, key: object) -> str:
        text = _judge(key)
        if len(text) <= _MEMO_LONGEST:
            if len(self) >= _MEMO_ENTRIES:
                self.clear()
            self[text] = text
        return text


#: ``judged[key]`` is `check_key` without a Python frame around it, for the public face of Store. An unhashable key
#: raises TypeError there.
judged = _Judged()


def check_key(key: object) -> str:
    """Return `key` unchanged if it is a key, else raise with the reason.

    Parameters
    ----------
    key : object
        What a caller offers as the full name of a value.

    Returns
    -------
    str
        The same text, as a plain ``str``.

    Raises
    ------
    InvalidKeyError
        `key` is not a ``str``, is empty, has an empty, ``.`` or ``..`` segment (so a leading or trailing slash too),
        NUL, a lone surrogate, a backslash, a drive letter, or a segment reserved for the stores.

    Notes
    -----
    About 50 ns for a key seen before, 300 ns for a new one; no I/O. Thread-safe. Deviation from zarr 2, which judges
    no key.

    Examples
    --------
    >>> check_key("foo/bar/0.0")
    'foo/bar/0.0'
    >>> check_key("../x")
    Traceback (most recent call last):
    zarrstore.errors.InvalidKeyError: invalid key '../x': '..' is not a segment
    """
    try:
        return judged[key]
    except TypeError:
        refuse_unhashable(key)


def refuse_unhashable(key: object) -> NoReturn:
    """Raise InvalidKeyError for what could not even be looked up."""
    raise InvalidKeyError(key, f"a key is a str, not {type(key).__name__}") from None


def is_key(key: object) -> bool:
    """Tell whether `check_key` accepts `key`.

    Examples
    --------
    >>> is_key("foo/0.0"), is_key("/foo"), is_key(b"foo")
    (True, False, False)
    """
    try:
        check_key(key)
    except InvalidKeyError:
        return False
    return True


def are_keys(names: Sequence[str]) -> bool:
    """Tell whether all of many names are keys, at a twentieth of the cost of judging one by one.

    Examples
    --------
    >>> are_keys(["foo/0.0", "bar"]), are_keys(["foo/0.0", "../bar"]), are_keys([])
    (True, False, True)
    """
    if not names:
        return True
    fenced = f"/{'/'.join(names)}/"
    signs = ("//", "/./", "/../", "\0", "\\", ":", "/" + RESERVED)
    if fenced.isascii() and not any(sign in fenced for sign in signs):
        return True
    return all(map(is_key, names))


_PARTIAL = re.compile(r".*\.[0-9a-f]{32}\.partial", re.DOTALL)


def is_partial(key: str) -> bool:
    """Tell whether a key is named as the temporary files that zarr 2 and 3 leave when they are killed.

    Examples
    --------
    >>> is_partial("foo/0.0.0123456789abcdef0123456789abcdef.partial"), is_partial("foo/x.partial")
    (True, False)
    """
    return key.endswith(".partial") and _PARTIAL.fullmatch(key) is not None


def normalize_path(path: object) -> str:
    r"""Return the normal spelling of a path: no slash at either end, none doubled, ``""`` for the root.

    Parameters
    ----------
    path : str, bytes, os.PathLike or None
        None is the root; bytes are read as ascii; a backslash counts as a slash.

    Returns
    -------
    str
        Segments joined by single slashes.

    Raises
    ------
    InvalidPathError
        A segment is ``.`` or ``..``, or bytes are not ascii.

    Notes
    -----
    Source: zarr 2 ``normalize_storage_path``, with the same result for every path it accepts.

    Examples
    --------
    >>> normalize_path("/foo//bar/"), normalize_path(b"a\\b"), normalize_path(None)
    ('foo/bar', 'a/b', '')
    """
    if path is None:
        return ""
    if isinstance(path, bytes):
        try:
            text = path.decode("ascii")
        except UnicodeDecodeError:
            raise InvalidPathError(path, "bytes that are not ascii") from None
    else:
        text = str(path)
    parts = [part for part in text.replace("\\", "/").split("/") if part]
    for part in parts:
        if part in (".", ".."):
            raise InvalidPathError(path, f"{part!r} is not a segment")
    return "/".join(parts)


def segments(path: str) -> list[str]:
    """Return the names along a key or normal path; none for the root.

    Examples
    --------
    >>> segments("foo/bar/0.0"), segments("")
    (['foo', 'bar', '0.0'], [])
    """
    return path.split("/") if path else []


def join(*parts: str) -> str:
    """Join normal paths and names, leaving empty ones out.

    Examples
    --------
    >>> join("foo", "", "bar", ".zarray"), join("", "")
    ('foo/bar/.zarray', '')
    """
    return "/".join(filter(None, parts))


def prefix(path: str) -> str:
    """Return what every key below `path` begins with.

    Examples
    --------
    >>> prefix("foo"), prefix("")
    ('foo/', '')
    """
    return path + "/" if path else ""


def beyond(path: str) -> str:
    """Return the first text, in the order of code points, that sorts behind every key below `path`.

    Notes
    -----
    The keys below `path` are those from ``prefix(path)`` up to it; nothing sorts behind all keys below the root.

    Examples
    --------
    >>> sorted(["foo-", "foo.bar", "foo/x", "foo/é/y", beyond("foo"), "foobar"])
    ['foo-', 'foo.bar', 'foo/x', 'foo/é/y', 'foo0', 'foobar']
    """
    if not path:
        raise ValueError("nothing sorts behind all keys below the root")
    return path + chr(ord("/") + 1)


def parent(path: str) -> str:
    """Return the directory of a key or path; the root's is the root.

    Examples
    --------
    >>> parent("foo/bar/0.0"), parent("foo"), parent("")
    ('foo/bar', '', '')
    """
    return path.rpartition("/")[0]


def name(path: str) -> str:
    """Return the last segment.

    Examples
    --------
    >>> name("foo/bar/0.0"), name("")
    ('0.0', '')
    """
    return path.rpartition("/")[2]


def parents(path: str) -> Iterator[str]:
    """Yield every directory above `path`, the root first, `path` itself not.

    Examples
    --------
    >>> list(parents("a/b/c")), list(parents(""))
    (['', 'a', 'a/b'], [])
    """
    if not path:
        return
    yield ""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def as_name(key: str) -> str:
    """Return one segment that stands for a whole key; `from_name` is the inverse.

    Examples
    --------
    >>> as_name("foo/0.0"), as_name("100%"), as_name("~x")
    ('foo%2F0.0', '100%25', '%7Ex')
    """
    text = key.replace("%", "%25").replace("/", "%2F")
    return "%7E" + text[1:] if text[:1] == "~" else text


def from_name(name: str) -> str:
    """Return the key that a segment made by `as_name` stands for.

    Examples
    --------
    >>> from_name("foo%2F0.0"), from_name("100%25"), from_name("%252F")
    ('foo/0.0', '100%', '%2F')
    """
    return name.replace("%2F", "/").replace("%7E", "~").replace("%25", "%")


def is_below(key: str, path: str) -> bool:
    """Tell whether `key` lies below `path` (``"foobar"`` and ``"foo"`` itself do not lie below ``"foo"``).

    Examples
    --------
    >>> is_below("foo/x", "foo"), is_below("foobar/x", "foo"), is_below("foo", "foo"), is_below("foo", "")
    (True, False, False, True)
    """
    return key.startswith(path + "/") if path else bool(key)


def child(key: str, path: str) -> str | None:
    """Return the name of the child of `path` that is or holds `key`, None if `key` is not below.

    Examples
    --------
    >>> child("foo/bar/0.0", "foo"), child("foo", ""), child("foobar/x", "foo")
    ('bar', 'foo', None)
    """
    if not is_below(key, path):
        return None
    return key[len(path) + 1 if path else 0 :].partition("/")[0]


def children(keys: Iterable[str], path: str) -> set[str]:
    """Return the names of the immediate children of `path` among `keys`.

    Examples
    --------
    >>> sorted(children(["foo/a", "foo/b/c", "foo/b/d", "foobar/e"], "foo"))
    ['a', 'b']
    """
    lead = prefix(path)
    start = len(lead)
    return {key[start:].partition("/")[0] for key in keys if key.startswith(lead)}


def replace_root(key: str, source: str, destination: str) -> str:
    """Return `key`, which is `source` or lies below it, moved to `destination`. The root is sliced off, never stripped.

    Examples
    --------
    >>> replace_root("uns/names", "uns", "b"), replace_root("foo", "foo", "bar"), replace_root("x/y", "", "a")
    ('b/names', 'bar', 'a/x/y')
    """
    if key == source:
        return destination
    if not is_below(key, source):
        raise ValueError(f"{key!r} does not lie below {source!r}")
    return join(destination, key[len(source) + 1 if source else 0 :])


_NUMBERS = re.compile(r"([0-9]+)")


def natural_order(key: str) -> tuple[tuple[tuple[bool, int, str, str], ...], ...]:
    """Return a sort key that takes digits for numbers, segment by segment.

    Examples
    --------
    >>> sorted(["a/10.0", "a/9.0", "a/.zarray", "b", "a/9.10", "a/9.9"], key=natural_order)
    ['a/.zarray', 'a/9.0', 'a/9.9', 'a/9.10', 'a/10.0', 'b']
    """
    return tuple(tuple(map(_part_order, filter(None, _NUMBERS.split(segment)))) for segment in key.split("/"))


def _part_order(part: str) -> tuple[bool, int, str, str]:
    # By the number of digits, and then by the digits: int() refuses more than 4,300 of them.
    is_number = part[0] in "0123456789"
    digits = part.lstrip("0") if is_number else ""
    return is_number, len(digits), digits, part
