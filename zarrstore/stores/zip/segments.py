"""Entries of an archive that other processes write: each fills a segment of the file, and the writer lists them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from zarrstore.errors import StoreReadError
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip import records
from zarrstore.stores.zip.builder import EntryBuilder
from zarrstore.stores.zip.file import OSFile, read_fully
from zarrstore.stores.zip.writer import Writer

__all__ = ["Filled", "Segment", "entry_nbytes", "list_entries", "reserve"]

#: Bytes gathered for one write.
_PIECE = 1 << 22
#: Of a header, where sizes do not fit their fields.
_WIDE_FIELD = 20


class Filled(NamedTuple):
    """What was written to a segment: the records of its entries, and whether they are the bytes that were reserved."""

    directory: bytes
    n_entries: int
    nbytes: int
    is_exact: bool


class Segment(NamedTuple):
    """A part of the file at `path`, from `start` to `stop` in bytes, for entries that carry the time `stamp`."""

    path: str
    start: int
    stop: int
    stamp: int

    def write(self, items: Iterable[tuple[str, bytes]], verify: bool = False) -> Filled:
        """Write entries, which must take exactly this segment; nothing beside it is written.

        Notes
        -----
        Twice the same items make the same bytes: a task may be done again. Returns when the disk has them.
        """
        file = OSFile.open(self.path, "r+", self.path)
        builder = EntryBuilder("", zlib.crc32, self.stamp)
        found: list[bytes] = []
        parts: list[bytes] = []
        begun = at = self.start
        nbytes = 0
        for key, value in items:
            size = len(value)
            entry = builder.build(key, fmt.STORED, zlib.crc32(value), value, size, at)
            at += len(entry.header) + size
            if at > self.stop:
                break
            parts += entry.header, value
            found.append(entry.record)
            nbytes += size
            if at - begun >= _PIECE:
                self._write(file, parts, begun, verify)
                parts, begun = [], at
        if at <= self.stop:
            self._write(file, parts, begun, verify)
        file.sync()
        return Filled(fmt.directory_of(found), len(found), nbytes, at == self.stop)

    def _write(self, file: OSFile, parts: Sequence[bytes], start: int, verify: bool) -> None:
        file.write(parts, start)
        if verify:
            written = b"".join(parts)
            if read_fully(file, len(written), start) != written:
                raise StoreReadError(
                    self.path, "the archive", f"what was written at {start:,} reads back as other bytes"
                )


def entry_nbytes(key: str, size: int) -> int:
    """Return how many bytes the entry of a value takes that is stored as it is, behind the first entry of an archive.

    Examples
    --------
    >>> entry_nbytes("a/0", 100)
    133
    """
    return fmt.LOCAL_SIZE + len(key.encode()) + (_WIDE_FIELD if size >= fmt.LIMIT else 0) + size


def reserve(writer: Writer, path: str, sizes: Sequence[int]) -> list[Segment]:
    """Let a writer leave room for entries, of which each segment takes so many bytes."""
    stamp = writer._builder.tick()
    starts = [writer.stop]
    for size in sizes:
        # The first entry of an archive names the root.
        mark = 0 if starts[-1] else len(fmt.root_mark(""))
        starts.append(starts[-1] + size + mark)
    writer.skip(starts[-1] - starts[0])
    return [Segment(path, start, stop, stamp) for start, stop in pairwise(starts)]


def list_entries(writer: Writer, filled: Filled) -> None:
    """Let a writer's next directory list the entries of a segment."""
    names, found = records.parse(writer.file.label, filled.directory, filled.n_entries)
    writer.adopt(list(zip(names, found, strict=True)))
