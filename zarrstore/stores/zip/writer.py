"""An open zip archive that grows: entries appended behind the last directory, and listed by a new one.

What is written stays where it is: an append never touches a byte that a directory on the disk speaks of. So there is
always one whole directory in the file, and what came after it is found by `recover`.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.errors import InvalidKeyError, StoreReadError, UnsupportedOperation, ValueTooLargeError
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.archive import Archive, Limits
from zarrstore.stores.zip.codec import pack
from zarrstore.stores.zip.directory import Directory, find_end
from zarrstore.stores.zip.file import OSFile, pwrite, read_fully

__all__ = ["Writer"]

#: Space asked for ahead of what is written, in bytes, so that most writes need not ask.
_LEAST_SPARE, _MOST_SPARE = 1 << 18, 1 << 22
#: Bytes copied at a time.
_PIECE = 1 << 20
#: Values up to so many bytes are joined to their header, and written by the short way.
_QUICK = 1 << 15

_size_fields = fmt.SIZE_FIELDS.pack
_clock = time.time


class Prepared(NamedTuple):
    """An entry ready to be written."""

    name: str
    header: bytes
    data: bytes
    record: bytes


class Writer(Archive):
    """An archive open for writing, by one thread at a time (the store holds the lock).

    Parameters
    ----------
    file : OSFile
        The file, locked.
    compression : int
        The method by which values are packed.
    stop : int
        Where the archive ends now, in bytes: what comes next is written there.

    whole : bool
        Whether the file ends there as an archive does.
    """

    file: OSFile

    def __init__(
        self, file: OSFile, name: str, directory: Directory, limits: Limits, compression: int, stop: int, whole: bool
    ) -> None:
        super().__init__(file, name, directory, limits)
        self.compression = compression
        self.stop = stop
        #: Where the file would be an archive that ends properly, if nothing were appended; -1 if nowhere.
        self._whole_at = stop if whole else -1
        #: Whether a failed write may have left bytes behind the last good one.
        self._torn = False
        #: Up to where the disk has what was written, as far as a sync has told.
        self._synced = stop
        self._sync_failed = False
        #: Whether anything was written, or tried to be.
        self.begun = False
        #: Up to where the space of the file is sure; and up to where entries may go, with the records they add, so that
        #: there is space behind them for the directory of all others.
        self._reserved = self._ceiling = stop
        #: What closes the archive beside the records: the mark of the root, and the end.
        self._closing = len(fmt.root_mark(directory.root)) + fmt.LONGEST_END
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        self._fixed_stamp = _stamp(int(epoch), utc=True) if epoch.isdecimal() else None
        #: What entries carry as their time, and until when.
        self._stamp, self._stamp_until = 0, 0.0
        #: Largest value, in bytes, that goes the short way; none at the beginning.
        self._quick = -1
        self._plain = limits.zip64 and not compression and not directory.root and not directory.shift
        self._local_lead = self._record_lead = b""
        self._index: dict[str, bytes] = {}

    @classmethod
    def create(cls, file: OSFile, name: str, limits: Limits, compression: int, root: str = "") -> Writer:
        """Begin a new archive in an empty file."""
        return cls(file, name, Directory(file.label, b"", None, root), limits, compression, 0, False)

    @classmethod
    def resume(cls, file: OSFile, name: str, limits: Limits, compression: int, root: str | None) -> Writer:
        """Open the archive in `file` to append to it; NotAnArchiveError if it does not end as one."""
        end, raw = find_end(file)
        return cls(file, name, Directory(file.label, raw, end, root), limits, compression, file.size(), True)

    # Appending -----------------------------------------------------------------------------------------------------

    def set(self, key: str, value: bytes) -> None:
        """Append one entry."""
        stop, size = self.stop, len(value)
        if size > self._quick or not key.isascii():
            self._append(self._prepare(key, value, stop))
            return
        # The same as there and in _write, for an entry that needs nothing special, in half the time.
        if _clock() >= self._stamp_until:
            self._now()
        raw = key.encode()
        try:
            fields = _size_fields(self.crc32(value), size, size, len(raw), 0)
        except struct.error:
            raise _too_long(key) from None
        record = b"".join((self._record_lead, fields, fmt.ATTRIBUTES, stop.to_bytes(4, "little"), raw))
        entry = b"".join((self._local_lead, fields, raw, value))
        length = len(entry)
        try:
            if stop + length + len(record) > self._ceiling:
                self._reserve(length, len(record))
            done = pwrite(self._place, entry, stop)
            if done < length:
                self.file.write((entry[done:],), stop + done)
        except BaseException:
            self._roll_back()
            raise
        self.stop = stop + length
        index = self._index
        known = len(index)
        index[key] = record
        if len(index) != known:  # else it takes the place of a record that is no shorter
            self._ceiling -= len(record)

    def set_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Append entries in one write: all of them or none."""
        if not self.limits.zip64 or not self.begun:  # entries are counted as they come; the first is special
            for key, value in items:
                self.set(key, value)
            return
        stop, listed = self.stop, 0
        parts: list[bytes] = []
        records: list[tuple[str, bytes]] = []
        crc32, quick = self.crc32, self._quick
        self._now()
        local_lead, record_lead, attributes = self._local_lead, self._record_lead, fmt.ATTRIBUTES
        for key, value in items:
            size = len(value)
            if size <= quick and key.isascii() and len(key) <= fmt.LONGEST_NAME and stop < fmt.LIMIT:
                name, raw = key, key.encode()
                fields = _size_fields(crc32(value), size, size, len(raw), 0)
                record = b"".join((record_lead, fields, attributes, stop.to_bytes(4, "little"), raw))
                parts += local_lead, fields, raw, value
                stop += fmt.LOCAL_SIZE + len(raw) + size
            else:
                name, header, data, record = self._prepare(key, value, stop)
                parts += header, data
                stop += len(header) + len(data)
            listed += len(record)
            records.append((name, record))
        self._write(b"".join(parts), listed)
        for name, record in records:
            self._note(name, record)

    def _append(self, entry: Prepared) -> None:
        if len(entry.data) <= _QUICK:
            self._write(entry.header + entry.data, len(entry.record))
        else:
            self._write(entry.header, len(entry.record), entry.data)
        self._note(entry.name, entry.record)
        if self._plain and self._reserved < fmt.LIMIT:  # and from here on, not the first in the file
            self._quick = _QUICK if self.limits.value is None else min(_QUICK, self.limits.value)

    def _prepare(self, key: str, value: bytes, offset: int) -> Prepared:
        size = len(value)
        method = self.compression
        data = value
        if method:
            limit = self.limits.of(method)
            if limit is not None and size > limit:
                raise ValueTooLargeError(key, size, limit, "pass a larger max_value_size, to the reader too")
            data = pack(method, value)
        elif self.limits.value is not None and size > self.limits.value:
            raise ValueTooLargeError(key, size, self.limits.value, "pass a larger max_value_size, to the reader too")
        return self._make(k.join(self.directory.root, key), method, self.crc32(value), data, size, offset)

    def _make(self, name: str, method: int, crc: int, data: bytes, size: int, offset: int) -> Prepared:
        raw, flags = fmt.encode_name(name)
        if len(raw) > fmt.LONGEST_NAME:
            raise _too_long(name)
        csize = len(data)
        if method == fmt.LZMA:
            flags |= fmt.END_MARKED
        offset -= self._shift
        if not self.limits.zip64:
            self._refuse_zip64(name, max(size, csize), offset + csize)
        if offset:
            header = fmt.local_header(raw, flags, method, self._now(), crc, csize, size)
            return Prepared(name, header, data, fmt.central_record(header, raw, csize, size, offset))
        # The first entry says whose the archive is, should no directory get written.
        root = self.directory.root
        header = fmt.local_header(raw, flags, method, self._now(), crc, csize, size, fmt.root_mark(root))
        return Prepared(name, header, data, fmt.marked(fmt.central_record(header, raw, csize, size, 0), root))

    def _refuse_zip64(self, name: str, size: int, reached: int) -> None:
        """Raise if this entry, or the directory behind it, would need Zip64."""
        if size >= fmt.LIMIT:
            raise ValueTooLargeError(name, size, fmt.LIMIT - 1, "pass allowZip64=True")
        if reached + len(name) + (self._reserved - self._ceiling) + (1 << 17) >= fmt.LIMIT:
            raise UnsupportedOperation("grow to 4 GiB", self.name, "pass allowZip64=True")
        index = self.directory.index
        if len(index) >= fmt.MOST_ENTRIES - 1 and name not in index:
            raise UnsupportedOperation(
                f"hold more than {fmt.MOST_ENTRIES - 1:,} entries", self.name, "pass allowZip64=True"
            )

    def _note(self, name: str, record: bytes) -> None:
        """Let the index say what the file now has."""
        index = self._index
        self._ceiling -= len(record) - len(index.get(name, b""))
        index[name] = record

    def delete(self, names: Iterable[str]) -> None:
        """Drop entries by their names in the archive, which are there, and say so behind them."""
        gone = list(names)
        now = self._now()
        self._write(b"".join(fmt.tombstone(*fmt.encode_name(name), now) for name in gone), 0)
        self._forget(gone)

    def delete_below(self, path: str) -> None:
        """Drop all entries below a path, with one mark for all."""
        gone = self.directory.names_below(path)
        if not gone:
            return
        at = k.prefix(k.join(self.directory.root, path))
        self._write(fmt.tombstone(*fmt.encode_name(at), self._now()), 0)
        self._forget(gone)

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._ceiling += len(self._index.pop(name))
        self.directory.deletions += 1

    def move(self, names: Iterable[tuple[str, str]]) -> None:
        """Give entries other names (pairs of old and new): their data is copied as it is, then the old ones dropped.

        All or none: what was copied before a failure is cut off again.
        """
        start, copies, pairs = self.stop, list[Prepared](), list(names)
        index, listed = self.directory.index, 0
        try:
            for old, new in pairs:
                made = self._copy(self, new, index[old], listed)
                listed += len(made.record)
                copies.append(made)
            now = self._now()
            self._write(b"".join(fmt.tombstone(*fmt.encode_name(old), now) for old, _ in pairs), listed)
        except BaseException:
            self.stop = start
            self._roll_back()
            raise
        for copy in copies:
            self._note(copy.name, copy.record)
        self._forget(old for old, _ in pairs)

    def copy_in(self, source: Archive, name: str, record: bytes) -> None:
        """Append an entry of an archive under a name, its data as it is, unpacked nowhere."""
        made = self._copy(source, name, record, 0)
        self._note(name, made.record)

    def _copy(self, source: Archive, name: str, record: bytes, listed: int) -> Prepared:
        entry = fmt.entry_of(record)
        if entry.flags & fmt.ENCRYPTED:
            raise StoreReadError(entry.name, source.name, "the entry is encrypted; decrypt the archive first")
        data = source.packed(entry.name, entry)
        made = self._make(name, entry.method, entry.crc, data, entry.size, self.stop)
        self._write(made.header, listed + len(made.record), made.data)
        return made._replace(data=b"")

    def _begin(self) -> None:
        """Make ready for the first write: all entries must be known by then, since the next directory lists them."""
        self.directory.check_names()
        self._index = self.directory.index
        self._ceiling = self._reserved - self._closing - sum(map(len, self._index.values()))
        self.begun = True

    def _write(self, data: bytes, listed: int, more: bytes = b"") -> None:
        """Write bytes, whole or not at all. `listed` is by how much the directory may grow."""
        if not self.begun:
            self._begin()
        stop, size = self.stop, len(data) + len(more)
        try:
            if stop + size + listed > self._ceiling:
                self._reserve(size, listed)
            self.file.write((data, more) if more else (data,), stop)
        except BaseException:
            self._roll_back()
            raise
        self.stop = stop + size

    def _reserve(self, size: int, listed: int) -> None:
        """Have space for `size` bytes, and for the directory that will list them: a flush must not fail for that."""
        needed = self.stop + size + listed + (self._reserved - self._ceiling)
        spare = min(max(needed >> 3, _LEAST_SPARE), _MOST_SPARE)
        self._set_reserved(self.file.reserve(self.stop, needed, spare))
        if self._reserved >= fmt.LIMIT:
            self._quick = -1

    def _set_reserved(self, stop: int) -> None:
        self._ceiling += stop - self._reserved
        self._reserved = stop

    def _roll_back(self) -> None:
        """Cut off what came behind the last good entry. If even that fails, the next write or flush covers it."""
        self._set_reserved(self.stop)
        self._torn = True
        with suppress(OSError):
            self.file.truncate(self.stop)
            self._torn = False

    def _now(self) -> int:
        """Return the time that entries carry, with what begins them made ready for it."""
        now = _clock()
        if not self._stamp_until - 1 <= now < self._stamp_until:
            self._stamp = _stamp(int(now)) if self._fixed_stamp is None else self._fixed_stamp
            self._stamp_until = int(now) + 1.0
            lead = struct.pack("<3HL", fmt.VERSIONS[fmt.STORED], 0, fmt.STORED, self._stamp)
            self._local_lead, self._record_lead = fmt.LOCAL + lead, fmt.MADE_BY + lead
        return self._stamp

    # Flushing ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write a directory of all entries behind them, and return when the disk has both.

        The end, which makes the directory count, is written only after all before it is on the disk. Until then
        the file has no proper end, and the last directory is whole.
        """
        if self.stop == self._whole_at and not self._torn:
            return
        if self._sync_failed:
            self._write_again()
        records = self._records()
        directory = b"".join(records)
        end = fmt.end_records(len(records), len(directory), self.stop - self._shift)
        end_at = self.stop + len(directory)
        try:
            self.file.write((directory,), self.stop)
            # The length is final before the first sync, and what was reserved and is not needed goes back.
            self.file.truncate(end_at + len(end))
            self._sync()
            self.file.write((end,), end_at)
            self._sync()
        except BaseException:
            self._roll_back()
            raise
        self.stop = self._synced = self._whole_at = end_at + len(end)
        self._set_reserved(self.stop)
        self._torn = False

    def _records(self) -> list[bytes]:
        records = list(self.directory.index.values())
        if records:
            records[0] = fmt.marked(records[0], self.directory.root)
        return records

    def _sync(self) -> None:
        try:
            self.file.sync()
        except OSError:
            self._sync_failed = True
            raise

    def _write_again(self) -> None:
        """Write what the disk may lack once more: after a failed sync the system may take it for written."""
        for at in range(self._synced, self.stop, _PIECE):
            self.file.write((read_fully(self.file, min(_PIECE, self.stop - at), at),), at)
        self._sync_failed = False


def _too_long(name: str) -> InvalidKeyError:
    return InvalidKeyError(name, f"a name in a zip archive has at most {fmt.LONGEST_NAME:,} bytes")


def _stamp(second: float, utc: bool = False) -> int:
    """Return a time as MS-DOS has it, local time in steps of two seconds from 1980 on."""
    year, month, day, hour, minute, sec, *_ = time.gmtime(second) if utc else time.localtime(second)
    if year < 1980:
        return 1 << 21 | 1 << 16
    date = min(year - 1980, 127) << 9 | month << 5 | day
    return date << 16 | hour << 11 | minute << 5 | sec // 2
