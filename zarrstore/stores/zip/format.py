"""The records of a zip archive, from and to bytes. Knows no file.

An archive is a row of *local headers*, each followed by its data, then the *directory* (one *record* per entry that
counts), then the *end*. Only what the directory lists is in the archive: what an append, an overwrite or a delete
leaves behind is dead bytes, and harmless. In memory a record is kept without its signature. Source: PKWARE APPNOTE 6.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "END_SIZE",
    "LIMIT",
    "LOCAL_SIZE",
    "Entry",
    "archive_root",
    "central_record",
    "directory_of",
    "encode_name",
    "end_records",
    "entry_of",
    "extra_fields",
    "is_tombstone",
    "local_header",
    "marked",
    "root_mark",
    "tombstone",
]

LOCAL = b"PK\3\4"
CENTRAL = b"PK\1\2"
END = b"PK\5\6"
END64 = b"PK\6\6"
LOCATOR64 = b"PK\6\7"
DESCRIPTOR = b"PK\7\x08"

#: From here on a number does not fit its field and moves to a Zip64 field.
LIMIT = 0xFFFFFFFF
MOST_ENTRIES = 0xFFFF
LONGEST_NAME = 0xFFFF

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
#: What a reader must know, times ten, by method.
VERSIONS = {STORED: 20, DEFLATED: 20, BZIP2: 46, LZMA: 63}

ENCRYPTED, DESCRIBED_LATER, UTF8, END_MARKED = 0x1, 0x8, 0x800, 0x2

# signature, version, flags, method, time and date, crc, size in the archive, size, length of name, of extra
LOCAL_FIELDS = struct.Struct("<4s3H4L2H")
LOCAL_SIZE = LOCAL_FIELDS.size
#: Of a local header: length of name, of extra.
LOCAL_LENGTHS = struct.Struct("<26x2H")
#: Of a record: flags, method, crc, size in the archive, size, lengths of name, extra, comment, place of local header.
RECORD_FIELDS = struct.Struct("<4x2H4x3L3H8xL")
#: Length of a record before its name.
RECORD_SIZE = RECORD_FIELDS.size
#: For a quick look: flags and method in one number, crc, both sizes, length of name, place.
QUICK_FIELDS = struct.Struct("<4xL4x3LH12xL")
#: Signature, size in the archive, lengths of name, extra and comment, place: of a record with its signature.
SHAPE_FIELDS = struct.Struct("<L16xL4x3H8xL")
#: The part of a local header and of a record that depends on the entry: crc, both sizes, lengths of name, extra.
SIZE_FIELDS = struct.Struct("<3L2H")
#: What local headers and records share: version, flags, method, time and date, crc, both sizes, lengths of name, extra.
SHARED_FIELDS = struct.Struct("<3H4L2H")
# Written on Unix (3), by the rules of version 6.3.
MADE_BY = struct.pack("<H", 3 << 8 | 63)
_ATTRIBUTES = 0o100644 << 16
#: The part of a record between the lengths and the place: no comment, first disk, no attributes but the mode.
ATTRIBUTES = struct.pack("<3HL", 0, 0, 0, _ATTRIBUTES)

END_FIELDS = struct.Struct("<4s4H2LH")
END_SIZE = END_FIELDS.size
END64_FIELDS = struct.Struct("<4sQ2H2L4Q")
LOCATOR_FIELDS = struct.Struct("<4sLQL")
#: What an end can need at most, in bytes.
LONGEST_END = END_SIZE + END64_FIELDS.size + LOCATOR_FIELDS.size

_ZIP64_FIELD, _UNICODE_NAME_FIELD = 0x0001, 0x7075
# "ZS", an extra field of our own. Other tools pass over it, and nothing is lost without it.
_OUR_FIELD = 0x535A
_ROOT, _TOMBSTONE = b"R", b"D"


class Entry(NamedTuple):
    """What a directory record says, with Zip64 fields in their places. Sizes and the place are in bytes."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    csize: int
    size: int
    offset: int
    extra: bytes

    @property
    def name(self) -> str:
        """The name as text; undecodable bytes become lone surrogates, which no key has."""
        return decode_name(self.raw_name, self.flags, self.extra)


def encode_name(key: str) -> tuple[bytes, int]:
    """Return the bytes of a name and the flag of their encoding."""
    raw = key.encode()
    return raw, (0 if len(raw) == len(key) else UTF8)


def decode_name(raw: bytes, flags: int, extra: bytes = b"") -> str:
    """Return the text of a name: UTF-8 where the entry says so, or where the bytes are valid UTF-8.

    Any other name is in code page 437, the standard's encoding for entries that say nothing. Tools on Linux and macOS
    write UTF-8 and do not say so.
    """
    if raw.isascii():
        return raw.decode("ascii")
    if flags & UTF8:
        return raw.decode("utf-8", "surrogateescape")
    field = extra_fields(extra).get(_UNICODE_NAME_FIELD, b"")
    if field[:1] == b"\1" and field[1:5] == struct.pack("<L", zlib.crc32(raw)):
        return field[5:].decode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437")


def extra_fields(extra: bytes) -> dict[int, bytes]:
    """Return the extra fields by their number; what is cut short is left out."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        number, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if at + length > len(extra):
            break
        fields.setdefault(number, extra[at : at + length])
        at += length
    return fields


def entry_of(record: bytes) -> Entry:
    """Read a directory record; ValueError if a Zip64 number is missing."""
    flags, method, crc, csize, size, name_length, extra_length, _, offset = RECORD_FIELDS.unpack_from(record)
    data = RECORD_SIZE + name_length
    extra = record[data : data + extra_length]
    if LIMIT in (csize, size, offset):
        size, csize, offset = widened(extra, size, csize, offset)
    return Entry(record[RECORD_SIZE:data], flags, method, crc, csize, size, offset, extra)


def widened(extra: bytes, *numbers: int) -> list[int]:
    """Replace each number that did not fit by the next of the Zip64 field."""
    field = extra_fields(extra).get(_ZIP64_FIELD, b"")
    wide = []
    for number in numbers:
        if number == LIMIT and len(field) >= 8:
            number, field = int.from_bytes(field[:8], "little"), field[8:]
        wide.append(number)
    return wide


def directory_of(records: Iterable[bytes]) -> bytes:
    """Return the bytes of a directory that has these records."""
    joined = CENTRAL.join(records)
    return CENTRAL + joined if joined else b""


def local_header(
    name: bytes, flags: int, method: int, stamp: int, crc: int, csize: int, size: int, extra: bytes = b""
) -> bytes:
    """Return the header that stands before an entry's data."""
    version = VERSIONS.get(method, 20)
    if size >= LIMIT or csize >= LIMIT:
        extra = struct.pack("<2H2Q", _ZIP64_FIELD, 16, size, csize) + extra
        version, size, csize = max(version, 45), LIMIT, LIMIT
    return (
        LOCAL_FIELDS.pack(LOCAL, version, flags, method, stamp, crc, csize, size, len(name), len(extra)) + name + extra
    )


def central_record(header: bytes, name: bytes, csize: int, size: int, offset: int) -> bytes:
    """Return the directory record of the entry whose local header begins with `header` and stands at `offset`."""
    if csize < LIMIT and size < LIMIT and offset < LIMIT:
        # The fields from the version to the length of the name are the same in both.
        return b"".join((MADE_BY, header[4:28], b"\0\0", ATTRIBUTES, offset.to_bytes(4, "little"), name))
    wide = b"".join(struct.pack("<Q", number) for number in (size, csize, offset) if number >= LIMIT)
    extra = struct.pack("<2H", _ZIP64_FIELD, len(wide)) + wide
    _, version, flags, method, stamp, crc, *_ = LOCAL_FIELDS.unpack_from(header)
    fields = SHARED_FIELDS.pack(
        max(version, 45),
        flags,
        method,
        stamp,
        crc,
        min(csize, LIMIT),
        min(size, LIMIT),
        len(name),
        len(extra),
    )
    return b"".join((MADE_BY, fields, ATTRIBUTES, min(offset, LIMIT).to_bytes(4, "little"), name, extra))


def end_records(count: int, size: int, offset: int, comment: bytes = b"", *, wide: bool = False) -> bytes:
    """Return what closes an archive, whose directory has `count` records in `size` bytes from `offset` on.

    In the format ZIP64 where the numbers need it, or if `wide`.
    """
    end = END_FIELDS.pack(
        END,
        0,
        0,
        min(count, MOST_ENTRIES),
        min(count, MOST_ENTRIES),
        min(size, LIMIT),
        min(offset, LIMIT),
        len(comment),
    )
    end += comment
    if not wide and count < MOST_ENTRIES and size < LIMIT and offset < LIMIT:
        return end
    end64 = END64_FIELDS.pack(END64, END64_FIELDS.size - 12, 45, 45, 0, 0, count, count, size, offset)
    return end64 + LOCATOR_FIELDS.pack(LOCATOR64, 0, offset + size, 1) + end


# Fields of our own ---------------------------------------------------------------------------------------------------


def _our_field(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<2H", _OUR_FIELD, 2 + len(data)) + b"\1" + kind + data


def _our_data(extra: bytes, kind: bytes) -> bytes | None:
    field = extra_fields(extra).get(_OUR_FIELD, b"")
    return field[2:] if field[:2] == b"\1" + kind else None


def root_mark(root: str) -> bytes:
    """Return the extra field that names the folder below which the keys of an archive of ours are (mostly none)."""
    return _our_field(_ROOT, root.encode())


def archive_root(extra: bytes) -> str | None:
    """Return the root that a mark names, None if there is no mark."""
    name = _our_data(extra, _ROOT)
    return None if name is None else name.decode("utf-8", "replace")


def marked(record: bytes, root: str) -> bytes:
    """Return a directory record with the mark, unless it has one."""
    *_, name_length, extra_length, _, _ = RECORD_FIELDS.unpack_from(record)
    start = RECORD_SIZE + name_length
    extra = record[start : start + extra_length]
    mark = root_mark(root)
    if archive_root(extra) is not None or len(extra) + len(mark) > 0xFFFF:
        return record
    length = struct.pack("<H", extra_length + len(mark))
    return record[:26] + length + record[28 : start + extra_length] + mark + record[start + extra_length :]


def tombstone(name: bytes, flags: int, stamp: int) -> bytes:
    """Return a local header that says: deleted. A `name` that is empty or ends with a slash means all keys below it.

    No directory lists it. Only `recover` reads it, for which a directory is missing.
    """
    return local_header(name, flags, STORED, stamp, 0, 0, 0, _our_field(_TOMBSTONE))


def is_tombstone(extra: bytes) -> bool:
    """Tell whether a local header with this extra field is a tombstone."""
    return _our_data(extra, _TOMBSTONE) is not None
