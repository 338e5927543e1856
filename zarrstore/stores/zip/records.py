"""The records of a directory, from its bytes: all at once where it is as plain as most are, else one by one.

Reading one record takes a step of Python for each of its numbers, which is 120 ms for 100,000 of them. Nearly all
directories have records of one shape, a name and nothing else; there the bytes are split at the signatures, and the
lengths and places are compared for all records in a few operations on long integers, whose every 8 bytes are one
number. What does not compare equal is read one by one, and refused there.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from itertools import pairwise
from operator import itemgetter

from zarrstore.errors import DamagedStoreError
from zarrstore.stores.zip import format as fmt

__all__ = ["parse", "refuse_overlaps"]

_CENTRAL = int.from_bytes(fmt.CENTRAL, "little")
#: Of a record: the lengths of its name, extra field and comment; and what follows its fixed part.
_lengths = itemgetter(slice(24, 30))
_rest = itemgetter(slice(fmt.RECORD_SIZE, None))
#: Of a record: from its size in the archive to its place, and where the numbers are in that.
_numbers = itemgetter(slice(16, 42))
_STRIDE, _SIZE_AT, _NAME_AT, _PLACE_AT = 26, 0, 8, 22


def parse(label: str, raw: bytes, count: int) -> tuple[list[str], list[bytes]]:
    """Return the names and the records (without signatures) of a directory, in its order; DamagedStoreError if broken.

    Parameters
    ----------
    label : str
        The archive, for errors.
    raw : bytes
        The directory.
    count : int
        How many records there are, as the end says; modulo 65,536 where it has no Zip64 form.
    """
    return _parse_plain(raw, count) or _parse_each(label, raw, count)


def _parse_plain(raw: bytes, count: int) -> tuple[list[str], list[bytes]] | None:
    """Return names and records if every record but the first is a name and nothing else; None if that is not so."""
    before, *records = raw.split(fmt.CENTRAL)
    if before or len(records) < 2 or (len(records) - count) % (fmt.MOST_ENTRIES + 1):
        return None
    first = records[0]  # in archives of ours it has an extra field
    if len(first) < fmt.RECORD_SIZE:
        return None
    *_, name_length, extra_length, comment_length, _ = fmt.RECORD_FIELDS.unpack_from(first)
    if len(first) != fmt.RECORD_SIZE + name_length + extra_length + comment_length:
        return None
    others = records[1:]
    lengths = b"".join(map(_lengths, others))
    if len(lengths) != 6 * len(others) or any(lengths[at::6].strip(b"\0") for at in (2, 3, 4, 5)):
        return None
    sizes = array("Q", map(len, others))
    if sys.byteorder == "big":
        sizes.byteswap()
    expected = int.from_bytes(_lanes(lengths, 0, 2, stride=6), "little") + fmt.RECORD_SIZE * _ones(len(others))
    if int.from_bytes(sizes, "little") != expected:
        return None
    joined = b"\0".join(map(_rest, others))
    if not joined.isascii():
        names = [fmt.entry_of(record).name for record in others]
    else:
        names = joined.decode("ascii").split("\0")
        if len(names) != len(others):  # a name with NUL in it
            return None
    return [fmt.entry_of(first).name, *names], records


def _parse_each(label: str, raw: bytes, count: int) -> tuple[list[str], list[bytes]]:
    names: list[str] = []
    records: list[bytes] = []
    at, length = 0, len(raw)
    size = 4 + fmt.RECORD_SIZE
    shape_of = fmt.SHAPE_FIELDS.unpack_from
    while at <= length - size:
        signature, _, name_length, extra_length, comment_length, _ = shape_of(raw, at)
        if signature != _CENTRAL:
            break
        stop = at + size + name_length + extra_length + comment_length
        raw_name, record = raw[at + size : at + size + name_length], raw[at + 4 : stop]
        names.append(raw_name.decode("ascii") if raw_name.isascii() else fmt.entry_of(record).name)
        records.append(record)
        at = stop
    if at != length or (len(records) - count) % (fmt.MOST_ENTRIES + 1):
        raise DamagedStoreError(
            label,
            f"has a damaged directory: {len(records):,} of {count:,} entries are listed properly",
            f"zarrstore.ZipStore.recover({label!r}) looks for entries without it",
        )
    return names, records


def refuse_overlaps(label: str, records: Iterable[bytes]) -> None:
    """Refuse entries that share bytes: an archive that has them may unpack to more than it could hold."""
    records = list(records)
    if _are_in_order(records):
        return
    entries = sorted((entry.offset, entry) for entry in map(fmt.entry_of, records))
    for (_, one), (offset, other) in pairwise(entries):
        if one.offset + fmt.LOCAL_SIZE + len(one.raw_name) + one.csize > offset:
            raise DamagedStoreError(
                label,
                f"is not to be trusted: its entries {one.name!r} and {other.name!r} share bytes",
                f"zarrstore.ZipStore.recover({label!r}, dest) keeps what is whole",
            )


def _are_in_order(records: list[bytes]) -> bool:
    """Tell whether each entry begins behind the end of the one before, as in all archives that were written once."""
    count = len(records)
    numbers = b"".join(map(_numbers, records))
    sizes, places = _lanes(numbers, _SIZE_AT, 4, _STRIDE), _lanes(numbers, _PLACE_AT, 4, _STRIDE)
    if b"\xff\xff\xff\xff" in sizes or b"\xff\xff\xff\xff" in places:
        return False  # numbers that are in Zip64 fields
    ones = _ones(count)
    starts = int.from_bytes(places, "little")
    stops = starts + int.from_bytes(sizes, "little") + fmt.LOCAL_SIZE * ones
    stops += int.from_bytes(_lanes(numbers, _NAME_AT, 2, _STRIDE), "little")
    # Each start of a next entry with its highest bit set, less the stop before: the bit stays where start >= stop.
    highest = ones << 63
    following = (starts >> 64) | (1 << 62 + 64 * (count - 1) if count else 0)
    return ((following | highest) - stops) & highest == highest


def _lanes(numbers: bytes, at: int, width: int, stride: int) -> bytearray:
    """Return one number of each record, each in 8 bytes."""
    lanes = bytearray(8 * (len(numbers) // stride))
    for byte in range(width):
        lanes[byte::8] = numbers[at + byte :: stride]
    return lanes


def _ones(count: int) -> int:
    """Return the number that has 1 in each 8 of its bytes."""
    return int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")
