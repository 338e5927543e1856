"""An open zip archive whose entries are read at their places, by any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zarrstore.errors import (
    DamagedStoreError,
    StoreReadError,
    ValueTooLargeError,
)
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.codec import METHODS, crc32_function, unpack
from zarrstore.stores.zip.directory import Directory, find_end
from zarrstore.stores.zip.file import File, OSFile, pread, read_fully

__all__ = ["Archive", "Limits"]

#: Values up to so many bytes are read together with their header, in one call.
_TOGETHER = 1 << 15
#: Up to so many bytes are read before it is known that the file has them.
_TRUSTED = 1 << 26
#: A local header without the name, and room for an extra field, whose length it tells. Info-ZIP writes 28 bytes.
_HEADER = fmt.LOCAL_SIZE + 32
#: Space asked for ahead of what is written, in bytes, so that most writes need not ask.
_LEAST_SPARE, _MOST_SPARE = 1 << 16, 1 << 22


_quick_fields = fmt.QUICK_FIELDS.unpack_from
#: Flags and method of an entry that is stored and not encrypted.
_PLAIN = (0, fmt.UTF8, fmt.DESCRIBED_LATER, fmt.DESCRIBED_LATER | fmt.UTF8)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: the largest value, and the largest one unpacked, in bytes; whether it may use Zip64."""

    value: int | None = None
    unpacked: int = 1 << 30
    zip64: bool = True

    def of(self, method: int) -> int | None:
        """Return the largest value that an entry of this method may have."""
        if method == fmt.STORED or self.value is not None:
            return self.value
        return self.unpacked


class Archive:
    """An archive open for reading.

    Parameters
    ----------
    file : File
        The file.
    name : str
        What errors call the store.
    directory : Directory
        Its entries.
    limits : Limits
        What a value may be.
    """

    def __init__(self, file: File, name: str, directory: Directory, limits: Limits) -> None:
        self.file = file
        self.name = name
        self.directory = directory
        self.limits = limits
        self.crc32 = crc32_function()
        #: ``_pread(_place, n, offset)``: the bare system call where there is one.
        self._pread: Callable[[Any, int, int], bytes]
        self._place: Any
        if isinstance(file, OSFile):
            self._pread, self._place = pread, file.fd
        else:
            self._pread, self._place = type(file).pread, file
        self._shift = directory.shift
        self._trusted = _TRUSTED if limits.value is None else min(_TRUSTED, limits.value)

    @classmethod
    def open(cls, file: File, name: str, limits: Limits, root: str | None) -> Archive:
        """Read the end and the directory of the archive in `file`; NotAnArchiveError if there are none."""
        end, raw = find_end(file)
        return cls(file, name, Directory(file.label, raw, end, root), limits)

    def get(self, key: str) -> bytes:
        """Return a value, its CRC proven; KeyError if there is none."""
        record = self.directory.find(key)
        if record is None:
            raise KeyError(key)
        kind, crc, csize, size, name_length, offset = _quick_fields(record)
        if kind in _PLAIN and csize == size and csize <= self._trusted:
            place = offset + self._shift
            together = csize if csize <= _TOGETHER else 0
            data = self._pread(self._place, name_length + together + _HEADER, place)
            if data.startswith(record[46 : 46 + name_length], 30):
                start = 30 + name_length + (data[28] | data[29] << 8)
                value = data[start : start + csize] if together else self._pread(self._place, csize, place + start)
                if len(value) == csize and self.crc32(value) == crc:
                    return value
        # Large, packed, or something is wrong: whatever it is, it is said there.
        return self._get_carefully(key, fmt.entry_of(record))

    def get_part(self, key: str, start: int, stop: int | None) -> bytes:
        """Return a part of a value, clipped at its end; of a stored one only that part is read, and no CRC proven."""
        entry = self._entry(key)
        stop = entry.size if stop is None else min(stop, entry.size)
        if start >= stop:
            return b""
        if entry.method != fmt.STORED:
            return self.get(key)[start:stop]
        self._check(key, entry)
        data = read_fully(self.file, stop - start, self.data_place(key, entry) + start)
        if len(data) != stop - start:
            raise self._damaged(key, "the file ends within it")
        return data

    def size_of(self, key: str) -> int:
        """Return the length of a value as the directory tells it."""
        return self._entry(key).size

    def _entry(self, key: str) -> fmt.Entry:
        record = self.directory.find(key)
        if record is None:
            raise KeyError(key)
        return fmt.entry_of(record)

    def _check(self, key: str, entry: fmt.Entry) -> None:
        """Refuse what cannot or should not be read."""
        if entry.flags & fmt.ENCRYPTED:
            raise StoreReadError(
                key, self.name, "the entry is encrypted; decrypt the archive with the tool that made it"
            )
        if entry.method not in METHODS:
            raise StoreReadError(
                key,
                self.name,
                f"the entry is packed by method {entry.method}, of which nothing is known here; "
                "pack the archive anew, stored or deflated",
            )
        limit = self.limits.of(entry.method)
        if limit is not None and entry.size > limit:
            raise ValueTooLargeError(key, entry.size, limit, "pass a larger max_value_size if you trust the archive")

    def data_place(self, key: str, entry: fmt.Entry) -> int:
        """Return where the data of an entry begins, which only its local header tells."""
        place = entry.offset + self._shift
        beyond = place > self.file.size()  # which may be more than a system call takes
        head = b"" if beyond else self.file.pread(fmt.LOCAL_SIZE + len(entry.raw_name), place)
        if not head.startswith(fmt.LOCAL) or len(head) < fmt.LOCAL_SIZE:
            raise self._damaged(key, "there is no entry where the directory says")
        name_length, extra_length = fmt.LOCAL_LENGTHS.unpack_from(head)
        if head[fmt.LOCAL_SIZE : fmt.LOCAL_SIZE + name_length] != entry.raw_name:
            raise self._damaged(key, "another entry stands where the directory says")
        start: int = place + fmt.LOCAL_SIZE + name_length + extra_length
        return start

    def packed(self, key: str, entry: fmt.Entry) -> bytes:
        """Return the data of an entry as the archive keeps it."""
        place = self.data_place(key, entry)
        if entry.csize > self.file.size() - place:  # before memory is asked for
            raise self._damaged(key, f"it claims {entry.csize:,} bytes, more than the file has")
        packed = read_fully(self.file, entry.csize, place)
        if len(packed) != entry.csize:
            raise self._damaged(key, "the file ends within it")
        return packed

    def _get_carefully(self, key: str, entry: fmt.Entry) -> bytes:
        self._check(key, entry)
        try:
            value = unpack(entry.method, self.packed(key, entry), entry.size)
        except ValueError as exc:
            raise self._damaged(key, str(exc)) from exc
        if self.crc32(value) != entry.crc:
            raise self._damaged(key, "its CRC is wrong")
        return value

    def _damaged(self, key: str, reason: str) -> DamagedStoreError:
        return DamagedStoreError(
            self.file.label, f"has a damaged entry {key!r}: {reason}", "the other entries can be read; restore this one"
        )

    def live_records(self) -> list[tuple[str, bytes]]:
        """Return names and records in the order of their places, for a copy of the archive."""
        return sorted(self.directory.index.items(), key=lambda item: fmt.entry_of(item[1]).offset)

    def sizes(self) -> dict[str, int]:
        """Return how many bytes the file spends: on entries that count, on their directory, on nothing, in all.

        Local headers are taken to be as long as the directory suggests, which holds for archives of ours.
        """
        index = self.directory.index
        live = listing = 0
        for record in index.values():
            _, _, _, csize, _, name_length, extra_length, _, _ = fmt.RECORD_FIELDS.unpack_from(record)
            if csize == fmt.LIMIT or extra_length:
                csize, extra_length = fmt.entry_of(record).csize, extra_length
            live += fmt.LOCAL_SIZE + name_length + extra_length + csize
            listing += len(record)
        total = self.file.size()
        listing += fmt.END_SIZE
        return {
            "live_bytes": live,
            "directory_bytes": listing,
            "dead_bytes": max(0, total - live - listing - self._shift),
            "file_bytes": total,
        }
