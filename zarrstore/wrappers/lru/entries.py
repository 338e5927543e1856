"""How the second tier of a cache names and packs its entries; pure functions.

A whole value is ``values/<key as one name>``. Parts of a value are ``parts/<key as one name>/<first byte>-<length>``,
with ``-end`` behind it if the value ends there, and ``tail-<length>`` for the last bytes of a value whose size is not
known. Each entry checks itself: the key, the place and a CRC-32 stand in its head, so what is damaged, or belongs to
another key or place, is not used. What is read back as a name is judged: a name that is none of ours is ignored.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from typing import NamedTuple

from zarrstore import keys as k

__all__ = ["PARTS", "VALUES", "Piece", "key_of", "name_of", "pack", "unpack"]

VALUES, PARTS = "values", "parts"
#: Longer names are hashed, in bytes: LMDB takes 511 for a key, file systems 255 for a name.
_LONGEST_NAME = 200
_HASHED = re.compile(r"~[0-9a-f]{64}")
_PIECE = re.compile(r"(?:(tail)|(0|[1-9][0-9]{0,18}))-(0|[1-9][0-9]{0,18})(-end)?", re.ASCII)

_MAGIC = b"ZSC2"
# magic, CRC-32 of all that follows it, seconds since 1970, length of key and place, length of the value
_HEAD = struct.Struct("<4sIdIQ")
_CHECKED_FROM = 8


class Piece(NamedTuple):
    """Which part of a value an entry holds.

    Parameters
    ----------
    start : int or None, bytes
        First byte; None for the last bytes of a value whose size is not known.
    length : int, bytes
        How many.
    is_end : bool
        The value ends where the part ends.

    Examples
    --------
    >>> Piece(10, 5, False).name, Piece.parse("10-5"), Piece.parse("tail-7-end"), Piece.parse("../x")
    ('10-5', Piece(start=10, length=5, is_end=False), None, None)
    """

    start: int | None
    length: int
    is_end: bool

    @property
    def name(self) -> str:
        """Name of the entry."""
        return f"{'tail' if self.start is None else self.start}-{self.length}{'-end' if self.is_end else ''}"

    @classmethod
    def parse(cls, name: str) -> Piece | None:
        """Return the piece of a name, None if it names none."""
        found = _PIECE.fullmatch(name)
        if found is None or (found[1] and found[4]):
            return None
        return cls(None if found[1] else int(found[2]), int(found[3]), found[4] is not None)


def name_of(key: str) -> str:
    """Return the name under which entries of a key are kept.

    Examples
    --------
    >>> name_of("a/0.0"), len(name_of("x" * 1000))
    ('a%2F0.0', 65)
    """
    name = k.as_name(key)
    data = name.encode()
    return name if len(data) <= _LONGEST_NAME else "~" + hashlib.sha256(data).hexdigest()


def key_of(name: str) -> str | None:
    """Return the key of a name; ``""`` for a hashed one, whose key is not known; None if it is none of ours.

    Examples
    --------
    >>> key_of("a%2F0.0"), key_of("~" + "0" * 64), key_of("..%2Fx"), key_of("a%2F..%2Fx")
    ('a/0.0', '', None, None)
    """
    if _HASHED.fullmatch(name):
        return ""
    key = k.from_name(name)
    return key if k.is_key(key) and name_of(key) == name else None


def pack(key: str, place: str, value: bytes, stored: float) -> bytes:
    """Return the entry of a value, or of a part of one, that was true at `stored` (seconds since 1970)."""
    text = f"{key}\0{place}".encode()
    head = _HEAD.pack(_MAGIC, 0, stored, len(text), len(value))[_CHECKED_FROM:] + text
    return b"".join((_MAGIC, struct.pack("<I", zlib.crc32(value, zlib.crc32(head))), head, value))


def unpack(key: str, place: str, entry: bytes) -> tuple[bytes, float] | None:
    """Return the bytes and when they were true, None if the entry is damaged or of another key or place."""
    if len(entry) < _HEAD.size:
        return None
    magic, crc, stored, text_length, length = _HEAD.unpack_from(entry)
    start = _HEAD.size + text_length
    if magic != _MAGIC or len(entry) != start + length or entry[_HEAD.size : start] != f"{key}\0{place}".encode():
        return None
    if zlib.crc32(memoryview(entry)[_CHECKED_FROM:]) != crc:
        return None
    return entry[start:], stored
