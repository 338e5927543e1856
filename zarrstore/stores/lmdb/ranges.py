"""Ranges of names in an LMDB file, in pieces that one short transaction reads."""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from typing import Any

from zarrstore import keys as k

__all__ = ["SCAN", "as_name", "as_text", "bounds", "some_children", "some_keys"]

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


def some_keys(txn: Any, start: bytes, end: bytes, last: bytes | None) -> list[bytes]:
    """Return up to SCAN names from `start` on, or behind `last`, below `end`."""
    cursor = txn.cursor()
    found = _seek(cursor, start if last is None else last)
    if found and last is not None and cursor.key() == last:
        found = cursor.next()
    if not found:
        return []
    names = list(islice(cursor.iternext(keys=True, values=False), SCAN))
    if names[-1] < end:
        return names
    return names[: bisect_left(names, end)]


def some_children(txn: Any, at: bytes, end: bytes, path: str) -> tuple[list[tuple[str, int | None]], bytes]:
    """Return up to SCAN children from `at` on, and where to go on; nowhere is empty."""
    cursor = txn.cursor()
    found: list[tuple[str, int | None]] = []
    here = _seek(cursor, at)
    while here:
        raw = bytes(cursor.key())
        if raw >= end:
            break
        if len(found) >= SCAN:
            return found, raw
        key = as_text(raw)
        name = k.child(key, path)
        if not name:  # 'a//b' is below 'a', and no key
            here = cursor.next()
            continue
        whole = k.join(path, name)
        if whole == key:
            if k.is_key(name):
                found.append((name, len(cursor.value())))
            here = cursor.next()
            continue
        if k.is_key(name):
            found.append((name, None))
        here = cursor.set_range(as_name(k.beyond(whole)))
    return found, b""
