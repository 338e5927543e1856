"""An open zip archive whose entries are read at their places, by any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from zarrstore.errors import (
    DamagedStoreError,
    StoreReadError,
    ValueTooLargeError,
)
from zarrstore.spans import Span, read_spans
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.codec import METHODS, crc32_function, unpack
from zarrstore.stores.zip.directory import Directory
from zarrstore.stores.zip.end import find_end
from zarrstore.stores.zip.file import File, OSFile, pread, read_fully
from zarrstore.stores.zip.ranges import TAIL, RangeFile

__all__ = ["Archive", "Limits"]

#: Values up to so many bytes are read together with their header, in one call.
_TOGETHER = 1 << 15
#: Largest size taken from the directory without comparing it with the file's length.
_TRUSTED = 1 << 26
#: A local header without the name, and room for an extra field, whose length only it tells. Info-ZIP writes 28 bytes.
_HEADER = fmt.LOCAL_SIZE + 32
#: Places of data that are remembered, where each costs a request.
_MOST_PLACES = 1 << 16

_quick_fields = fmt.QUICK_FIELDS.unpack_from
#: Flags and method of an entry that is stored and not encrypted.
_PLAIN = (0, fmt.UTF8, fmt.DESCRIBED_LATER, fmt.DESCRIBED_LATER | fmt.UTF8)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, and how it is laid out.

    The largest value, and the largest one unpacked, in bytes; whether it may use Zip64; whether it is one of ``.ozx``.
    """

    value: int | None = None
    unpacked: int = 1 << 30
    zip64: bool = True
    ozx: bool = False

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
        #: Whether each read is a request.
        self.is_remote = isinstance(file, RangeFile)
        self._together = _TRUSTED if self.is_remote else _TOGETHER
        #: Where the data of entries begins, by their places; kept where it takes a request to ask.
        self._data_places: dict[int, int] | None = {} if self.is_remote else None
        self._shift = directory.shift
        self._trusted = _TRUSTED if limits.value is None else min(_TRUSTED, limits.value)

    @classmethod
    def open(cls, file: File, name: str, limits: Limits, root: str | None, length: int | None = None) -> Archive:
        """Read the end and the directory of the archive in `file`; NotAnArchiveError if there are none.

        `length` is less than that of the file to see the archive as it was when it ended there.
        """
        length = file.size() if length is None else length
        end, raw = find_end(file, length, *((TAIL,) if isinstance(file, RangeFile) else ()))
        return cls(file, name, Directory(file.label, raw, end, root), limits)

    def get(self, key: str) -> bytes:
        """Return a value, its CRC proven; KeyError if there is none."""
        record = self.directory.find(key)
        if record is None:
            raise KeyError(key)
        kind, crc, csize, size, name_length, offset = _quick_fields(record)
        if kind in _PLAIN and csize == size and csize <= self._trusted:
            if offset == fmt.LIMIT:
                offset = fmt.entry_of(record).offset
            place = offset + self._shift
            together = csize if csize <= self._together else 0
            data = self._pread(self._place, name_length + together + _HEADER, place)
            if data.startswith(record[42 : 42 + name_length], 30):
                start = 30 + name_length + (data[28] | data[29] << 8)
                value = data[start : start + csize] if together else self._pread(self._place, csize, place + start)
                if len(value) == csize and self.crc32(value) == crc:
                    return value
        # Very large, packed, or damaged: that way tells which.
        return self._get_carefully(key, fmt.entry_of(record))

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return those values that there are, of a file behind requests: what lies close together takes one request."""
        assert isinstance(self.file, RangeFile)
        entries = {}
        for key in keys:
            with suppress(KeyError):
                entries[key] = self.entry(key)
        starts = {key: entry.offset + self._shift for key, entry in entries.items()}
        spans = [(starts[key], starts[key] + _HEADER + len(e.raw_name) + e.csize) for key, e in entries.items()]
        heads = dict(zip(entries, self.file.pread_many(spans), strict=True))
        return {key: self._get_carefully(key, entry, heads[key]) for key, entry in entries.items()}

    def get_part(self, key: str, start: int, stop: int | None) -> bytes:
        """Return a part of a value, clipped at its end; of a stored one only that part is read, and no CRC proven."""
        return self._part(key, self.entry(key), start, stop)

    def get_parts(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        """Return parts of one value, clipped at its end."""
        entry = self.entry(key)
        if entry.method != fmt.STORED:
            value = self._get_carefully(key, entry)
            return [value[start:stop] for start, stop in spans]
        return read_spans(lambda start, stop: self._part(key, entry, start, stop), spans)

    def get_suffix(self, key: str, n: int) -> bytes:
        """Return the last bytes of a value, or all there are."""
        entry = self.entry(key)  # once: the value may be replaced meanwhile
        return self._part(key, entry, max(0, entry.size - n), entry.size)

    def _part(self, key: str, entry: fmt.Entry, start: int, stop: int | None) -> bytes:
        stop = entry.size if stop is None else min(stop, entry.size)
        if start >= stop:
            return b""
        if entry.method != fmt.STORED:
            return self._get_carefully(key, entry)[start:stop]
        self._check(key, entry)
        data = read_fully(self.file, stop - start, self.data_place(key, entry) + start)
        if len(data) != stop - start:
            raise self._damaged(key, "the file ends within it")
        return data

    def size_of(self, key: str) -> int:
        """Return the length of a value as the directory has it."""
        return self.entry(key).size

    def entry(self, key: str) -> fmt.Entry:
        """Return what the directory says of a key; KeyError if there is none."""
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
                f"the entry is packed by method {entry.method}, which is not supported; "
                "pack the archive anew, stored or deflated",
            )
        limit = self.limits.of(entry.method)
        if limit is not None and entry.size > limit:
            raise ValueTooLargeError(key, entry.size, limit, "pass a larger max_value_size if you trust the archive")

    def data_place(self, key: str, entry: fmt.Entry) -> int:
        """Return where the data of an entry begins, which only its local header tells."""
        known = self._data_places
        if known is not None and entry.offset in known:
            return known[entry.offset]
        place = entry.offset + self._shift
        beyond = place > self.file.size()  # which may be more than a system call takes
        head = b"" if beyond else read_fully(self.file, fmt.LOCAL_SIZE + len(entry.raw_name), place)
        if not head.startswith(fmt.LOCAL) or len(head) < fmt.LOCAL_SIZE:
            raise self._damaged(key, "there is no entry where the directory says")
        name_length, extra_length = fmt.LOCAL_LENGTHS.unpack_from(head)
        if head[fmt.LOCAL_SIZE : fmt.LOCAL_SIZE + name_length] != entry.raw_name:
            raise self._damaged(key, "another entry stands where the directory says")
        start: int = place + fmt.LOCAL_SIZE + name_length + extra_length
        if known is not None:
            if len(known) >= _MOST_PLACES:
                known.clear()
            known[entry.offset] = start
        return start

    def stored_place(self, key: str) -> tuple[int, int] | None:
        """Return where a value begins in the file, and its length; None if it is packed or encrypted."""
        entry = self.entry(key)
        if entry.method != fmt.STORED or entry.flags & fmt.ENCRYPTED:
            return None
        return self.data_place(key, entry), entry.size

    def packed(self, key: str, entry: fmt.Entry) -> bytes:
        """Return the data of an entry as the archive keeps it."""
        if self._data_places is not None and entry.csize <= _TRUSTED:  # header and data by one request
            size = _HEADER + len(entry.raw_name) + entry.csize
            data = self._data_in(read_fully(self.file, size, entry.offset + self._shift), entry)
            if data is not None:
                return data
        place = self.data_place(key, entry)
        if entry.csize > self.file.size() - place:  # before memory is asked for
            raise self._damaged(key, f"it claims {entry.csize:,} bytes, more than the file has")
        packed = read_fully(self.file, entry.csize, place)
        if len(packed) != entry.csize:
            raise self._damaged(key, "the file ends within it")
        return packed

    @staticmethod
    def _data_in(head: bytes, entry: fmt.Entry) -> bytes | None:
        """Return the data of an entry from bytes that begin with its header; None if that is not so or too few."""
        if not head.startswith(fmt.LOCAL) or not head.startswith(entry.raw_name, fmt.LOCAL_SIZE):
            return None
        start = fmt.LOCAL_SIZE + sum(fmt.LOCAL_LENGTHS.unpack_from(head))
        data = head[start : start + entry.csize]
        return data if len(data) == entry.csize else None

    def _get_carefully(self, key: str, entry: fmt.Entry, head: bytes = b"") -> bytes:
        """Return a value; `head` is what was read at its place already."""
        self._check(key, entry)
        data = self._data_in(head, entry)
        try:
            value = unpack(entry.method, self.packed(key, entry) if data is None else data, entry.size)
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
        live = listing = 0
        for record in list(self.directory.index.values()):  # a list: a writer may be adding to it
            _, _, _, csize, _, name_length, extra_length, _, _ = fmt.RECORD_FIELDS.unpack_from(record)
            if csize == fmt.LIMIT or extra_length:
                csize = fmt.entry_of(record).csize
            live += fmt.LOCAL_SIZE + name_length + extra_length + csize
            listing += 4 + len(record)
        total = self.file.size()
        listing += fmt.END_SIZE
        return {
            "live_bytes": live,
            "directory_bytes": listing,
            "dead_bytes": max(0, total - live - listing - self._shift),
            "file_bytes": total,
        }
