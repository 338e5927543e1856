"""Ranges of names in an LMDB file, in pieces that one short transaction reads."""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from typing import Any

from zarrstore import keys as k

__all__ = ["SCAN", "as_name", "as_text", "bounds", "some_children", "some_keys", "some_sizes"]

#: Keys read in one transaction of a listing. A longer one would keep freed pages from being used again.
SCAN = 1000


def as_text(name: bytes) -> str:
    # Names that are not UTF-8 become lone surrogates, which no key has; and they come back as they were.
    return name.decode("utf-8", "surrogateescape")


def as_name(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def bounds(path: str) -> tuple[bytes, bytes]:
    """Return the first name that may be below `path`, and the first beyond."""
    # No UTF-8 begins with 0xff.
    return (k.prefix(path).encode(), k.beyond(path).encode()) if path else (b"", b"\xff")


def _seek(cursor: Any, start: bytes) -> bool:
    return bool(cursor.set_range(start) if start else cursor.first())


def _seek_behind(cursor: Any, start: bytes, last: bytes | None) -> bool:
    """Move to the first name from `start` on, or behind `last`; return whether there is one."""
    found = _seek(cursor, start if last is None else last)
    if found and last is not None and bytes(cursor.key()) == last:
        return bool(cursor.next())
    return found


def some_keys(txn: Any, start: bytes, end: bytes, last: bytes | None) -> list[bytes]:
    """Return up to SCAN names from `start` on, or behind `last`, below `end`."""
    cursor = txn.cursor()
    if not _seek_behind(cursor, start, last):
        return []
    names = list(islice(cursor.iternext(keys=True, values=False), SCAN))
    if names[-1] < end:
        return names
    return names[: bisect_left(names, end)]


def some_sizes(txn: Any, start: bytes, end: bytes, last: bytes | None) -> list[tuple[bytes, int]]:
    """Return up to SCAN names as `some_keys` does, each with the size of its value in bytes."""
    cursor = txn.cursor()
    if not _seek_behind(cursor, start, last):
        return []
    sizes = []
    for name, value in islice(cursor.iternext(), SCAN):
        if bytes(name) >= end:
            break
        sizes.append((bytes(name), len(value)))
    return sizes


def some_children(txn: Any, start: bytes, end: bytes, path: str) -> tuple[list[tuple[str, int | None]], bytes]:
    """Return up to SCAN children from `start` on, and where to go on; nowhere is empty.

    A child comes with the size of its value in bytes, or None for a directory.
    """
    cursor = txn.cursor()
    children: list[tuple[str, int | None]] = []
    found = _seek(cursor, start)
    while found:
        raw = bytes(cursor.key())
        if raw >= end:
            break
        if len(children) >= SCAN:
            return children, raw
        key = as_text(raw)
        name = k.child(key, path)
        if not name or not k.is_key(key):  # another program put it there: 'a//b' makes no directory 'a'
            found = cursor.next()
            continue
        whole = k.join(path, name)
        if whole == key:
            children.append((name, len(cursor.value())))
            found = cursor.next()
            continue
        children.append((name, None))
        found = cursor.set_range(as_name(k.beyond(whole)))
    return children, b""
