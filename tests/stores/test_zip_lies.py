"""Archives made so that a recovery would read them thousands of times, or unpack without end."""

from __future__ import annotations

import struct
import zlib

import pytest

from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip import scan
from zarrstore.stores.zip.scan import Scan


class Counted:
    """A file in memory that counts the bytes that are read."""

    label = "counted"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.nbytes = 0

    def size(self) -> int:
        return len(self.data)

    def pread(self, n: int, offset: int) -> bytes:
        part = self.data[offset : offset + n]
        self.nbytes += len(part)
        return part


@pytest.fixture
def unpacked(monkeypatch):
    """Return the sizes of what CRCs are taken of, with bounds so low that small files reach them."""
    sizes: list[int] = []

    def crc32(data: bytes, before: int = 0) -> int:
        sizes.append(len(data))
        return zlib.crc32(data, before)

    monkeypatch.setattr(scan, "crc32_function", lambda: crc32)
    for name, number in (("_WINDOW", 1 << 12), ("_LEAST_SPARE", 1 << 16), ("_FIRST", 1 << 9), ("_LARGEST", 1 << 16)):
        monkeypatch.setattr(scan, name, number, raising=False)
    return sizes


def header(flags: int, method: int, csize: int = 0, size: int = 0) -> bytes:
    return fmt.local_header(b"a", flags, method, 0, 7 if size else 0, csize, size)


LATER = header(fmt.DESCRIBED_LATER, fmt.DEFLATED)
#: A header, then a block of deflate that has the next header for its data: each stream has all that come after it.
LINK = LATER + b"\0" + struct.pack("<2H", len(LATER), len(LATER) ^ 0xFFFF)


@pytest.mark.parametrize(
    "link",
    [LINK, header(fmt.DESCRIBED_LATER, fmt.STORED), LATER + b"\xff" * 5],
    ids=["streams within streams", "no descriptor", "no stream"],
)
def test_headers_that_lead_nowhere_are_followed_a_few_times_only(unpacked, link):
    file = Counted(link * 3000)
    found = Scan(file)
    assert found.kept == {}
    assert list(found.damaged) == ["a"]
    assert file.nbytes < 40 * file.size()
    assert sum(unpacked) < 40 * file.size()


def test_what_unpacks_to_more_than_it_may_is_unpacked_a_few_times_only(unpacked):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(1 << 20)) + packer.flush()
    for size in (1 << 20, 1 << 40):
        file = Counted((header(0, fmt.DEFLATED, len(bomb), size) + bomb) * 100)
        assert list(Scan(file).damaged) == ["a"]
        assert sum(unpacked) < 1 << 22
        unpacked.clear()


def test_whole_entries_behind_damaged_ones_are_found():
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b"data" * 9999) + packer.flush()
    whole = fmt.local_header(b"b", 0, fmt.DEFLATED, 0, zlib.crc32(b"data" * 9999), len(packed), 39996) + packed
    damaged = header(0, fmt.DEFLATED, len(packed), 39997) + packed
    found = Scan(Counted((damaged + LATER + header(fmt.DESCRIBED_LATER, fmt.STORED)) * 300 + whole))
    assert list(found.kept) == ["b"]


def test_any_number_of_damaged_entries_leaves_whole_ones_that_a_descriptor_ends():
    def entry(name: bytes, crc: int) -> bytes:
        data = bytes(5000)
        descriptor = fmt.DESCRIPTOR + struct.pack("<3L", crc, len(data), len(data))
        return fmt.local_header(name, fmt.DESCRIBED_LATER, fmt.STORED, 0, 0, 0, 0) + data + descriptor

    right = zlib.crc32(bytes(5000))
    file = Counted(entry(b"a", 5) * 500 + entry(b"b", right) + entry(b"c", 5) + entry(b"d", right))
    assert list(Scan(file).kept) == ["b", "d"]


class Names(dict[str, bytes]):
    """Names that are looked through, counted."""

    looks = 0

    def __iter__(self):
        for name in super().__iter__():
            Names.looks += 1
            yield name


def test_a_tombstone_of_a_path_looks_at_what_is_below_it_and_at_nothing_else(monkeypatch):
    names = [f"{letter}/{n}" for letter in "abc" for n in range(500)]
    entries = b"".join(fmt.local_header(name.encode(), 0, fmt.STORED, 0, 0, 0, 0) for name in names)
    graves = b"".join(fmt.tombstone(path, 0, 0) for path in (b"b/", b"/", b"none/") * 100)
    again = fmt.local_header(b"b/5", 0, fmt.STORED, 0, 0, 0, 0)
    monkeypatch.setattr(Names, "looks", 0)
    found = Scan.__new__(Scan)
    take = Scan._take

    def counted(self: Scan, one: scan.Found) -> None:
        if not isinstance(self.kept, Names):
            self.kept = Names(self.kept)
        take(self, one)

    monkeypatch.setattr(Scan, "_take", counted)
    found.__init__(Counted(entries + graves + again))
    assert sorted(found.kept) == sorted([name for name in names if name[0] != "b"] + ["b/5"])
    assert Names.looks < 10 * len(names)
    found = Scan(Counted(entries + fmt.tombstone(b"", 0, 0) + again + fmt.tombstone(b"b/", 0, 0)))
    assert found.kept == {}
