"""The two builders of one zip entry: any entry, and a plain one in half the time.

A value is set by a local header, the data, and a record that the next directory will have. `EntryBuilder.build` makes
both for any entry: packed, with a name that is not ASCII, beyond 4 GiB, below a root, the first of the file.
`EntryBuilder.build_plain` makes byte for byte the same for an entry that is none of that, as nearly all are: its fields
from the version to the time are the same for all entries of one second, and are kept ready. For a value of 1 KB the
general way costs as much as all the rest of a set. A test compares the two. Writing is `Writer`'s part, in one place.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from zarrstore.errors import InvalidKeyError
from zarrstore.stores.zip import format as fmt

__all__ = ["EntryBuilder", "Prepared", "clock"]

_size_fields = fmt.SIZE_FIELDS.pack
clock = time.time


class Prepared(NamedTuple):
    """An entry ready to be written."""

    name: str
    header: bytes
    data: bytes
    record: bytes


class EntryBuilder:
    """Makes the headers and records of new entries.

    Parameters
    ----------
    root : str
        The folder below which all keys are; the first entry names it.
    crc32 : callable
        The CRC-32 of a buffer.
    stamp : int, optional
        The time that all entries carry, as MS-DOS has it; by default that of the call.

    Attributes
    ----------
    stamp_until : float
        Until when, as `clock` counts, new entries carry the time that is kept ready. A caller of `build_plain` calls
        `tick` after that.
    """

    def __init__(self, root: str, crc32: Callable[..., int], stamp: int | None = None) -> None:
        self.root = root
        self.crc32 = crc32
        self.stamp_until = 0.0
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        self._fixed_stamp = _dos_time(int(epoch), utc=True) if epoch.isdecimal() else None
        if stamp is not None:
            self._fixed_stamp = stamp
        self._stamp = 0
        self._local_lead = self._record_lead = b""

    def tick(self) -> int:
        """Return the time that entries carry now."""
        now = clock()
        if not self.stamp_until - 1 <= now < self.stamp_until:
            self._stamp = _dos_time(int(now)) if self._fixed_stamp is None else self._fixed_stamp
            lead = struct.pack("<3HL", fmt.VERSIONS[fmt.STORED], 0, fmt.STORED, self._stamp)
            self._local_lead, self._record_lead = fmt.LOCAL + lead, fmt.MADE_BY + lead
            self.stamp_until = int(now) + 1.0
        return self._stamp

    def build(self, name: str, method: int, crc: int, data: bytes, size: int, offset: int) -> Prepared:
        """Return an entry at `offset`, of `data` packed by `method` from a value of `size` bytes."""
        raw, flags = fmt.encode_name(name)
        if len(raw) > fmt.LONGEST_NAME:
            raise _too_long(name)
        csize = len(data)
        if method == fmt.LZMA:
            flags |= fmt.END_MARKED
        if offset:
            header = fmt.local_header(raw, flags, method, self.tick(), crc, csize, size)
            return Prepared(name, header, data, fmt.central_record(header, raw, csize, size, offset))
        # The first entry names the root, for a file to which no directory was ever written.
        header = fmt.local_header(raw, flags, method, self.tick(), crc, csize, size, fmt.root_mark(self.root))
        record = fmt.marked(fmt.central_record(header, raw, csize, size, 0), self.root)
        return Prepared(name, header, data, record)

    def build_plain(self, key: str, value: bytes, size: int, offset: int) -> tuple[bytes, bytes, bytes, bytes]:
        """Return the header, in three parts, and the record of a value that is stored as it is.

        The key is ASCII, the root ``""``, `offset` neither 0 nor beyond 4 GiB, as `size` is; `tick` was called.
        """
        raw = key.encode()
        try:
            fields = _size_fields(self.crc32(value), size, size, len(raw), 0)
        except struct.error:
            raise _too_long(key) from None
        record = b"".join((self._record_lead, fields, fmt.ATTRIBUTES, offset.to_bytes(4, "little"), raw))
        return self._local_lead, fields, raw, record


def _too_long(name: str) -> InvalidKeyError:
    return InvalidKeyError(name, f"a name in a zip archive has at most {fmt.LONGEST_NAME:,} bytes")


def _dos_time(second: float, utc: bool = False) -> int:
    """Return a time as MS-DOS has it: local time from 1980 on, in steps of two seconds."""
    year, month, day, hour, minute, sec, *_ = time.gmtime(second) if utc else time.localtime(second)
    if year < 1980:
        return 1 << 21 | 1 << 16
    date = min(year - 1980, 127) << 9 | month << 5 | day
    return date << 16 | hour << 11 | minute << 5 | sec // 2
