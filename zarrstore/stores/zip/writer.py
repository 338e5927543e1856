"""An open zip archive that grows: entries appended behind the last directory, and listed by a new one.

What is written stays where it is: an append never touches a byte that a directory on the disk speaks of. So there is
always one whole directory in the file, and what came after it is found by `recover`.

A change has two halves, bytes in the file and names in memory, and an interrupt or an error may come at any step of
either. `Writer._unfinished` says how far it came: `_TORN` while bytes are written, which are cut off again; then the
`Change` itself. That is assigned in one step of the interpreter, and from there on the change happens, in this call or
at the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from zarrstore import keys as k
from zarrstore.errors import StoreReadError, UnsupportedOperation, ValueTooLargeError
from zarrstore.metadata.documents import ZARR_JSON
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip import ozx
from zarrstore.stores.zip.archive import Archive, Limits
from zarrstore.stores.zip.builder import EntryBuilder, Prepared, clock
from zarrstore.stores.zip.codec import pack
from zarrstore.stores.zip.directory import Directory
from zarrstore.stores.zip.end import find_end
from zarrstore.stores.zip.file import OSFile, pwrite, read_fully

__all__ = ["Writer"]

#: Space asked for ahead of what is written, in bytes, so that most writes need not ask.
_LEAST_SPARE, _MOST_SPARE = 1 << 18, 1 << 22
#: Bytes copied at a time.
_PIECE = 1 << 20
#: Records of a directory that are joined and written at a time.
_RECORDS = 1 << 14
#: Bytes that a record has in the file and not in memory.
_SIGNATURE = 4
#: Values up to so many bytes are joined to their header, and written by the short way.
QUICK = 1 << 15


#: What a call does to the archive when its bytes are in the file: where the archive ends then; new records with their
#: names; the names that are dropped; whether the disk has all of it, ended by a directory. A bare tuple, since a
#: NamedTuple takes as long to make as a tenth of a set.
Change = tuple[int, Sequence[tuple[str, bytes]], Sequence[str], bool]
#: In the place of a Change: bytes may stand behind the end of the archive.
_TORN: Change = (-1, (), (), False)


class Writer(Archive):
    """An archive open for writing, by one thread at a time (the store holds the lock).

    Parameters
    ----------
    file : OSFile
        The file, locked.
    name : str
        What errors call the store.
    directory : Directory
        Its entries.
    limits : Limits
        What a value may be.
    compression : int
        The method by which values are packed.
    stop : int, bytes
        Where the archive ends now: what comes next is written there.
    whole : bool
        Whether the file ends there as an archive does.
    """

    file: OSFile

    def __init__(
        self, file: OSFile, name: str, directory: Directory, limits: Limits, compression: int, stop: int, whole: bool
    ) -> None:
        super().__init__(file, name, directory, limits)
        directory.changes = True
        self.compression = compression
        self.stop = stop
        #: Where the file would be an archive that ends properly, if nothing were appended; -1 if nowhere.
        self.whole_at = stop if whole else -1
        self._unfinished: Change | None = None
        #: The disk has what was written up to here.
        self._synced = stop
        self._sync_failed = False
        #: Whether anything was written, or tried to be.
        self.begun = False
        #: Space is reserved up to here; entries may go up to `_ceiling`, with the records they add, so that the
        #: directory of all others has space behind them.
        self._reserved = self._ceiling = stop
        #: What closes the archive beside the records: the mark of the root, and the end.
        self._closing = len(fmt.root_mark(directory.root)) + fmt.LONGEST_END + ozx.LONGEST_COMMENT
        self._builder = EntryBuilder(directory.root, self.crc32)
        #: Largest value, in bytes, that goes the short way; -1 while none does.
        self._quick = -1
        self._plain = limits.zip64 and not compression and not directory.root and not directory.shift
        self._index: dict[str, bytes] = {}
        #: The comment that the archive had, which stays.
        self.comment = b""

    @classmethod
    def create(cls, file: OSFile, name: str, limits: Limits, compression: int, root: str = "") -> Writer:
        """Begin a new archive in an empty file."""
        return cls(file, name, Directory(file.label, b"", None, root), limits, compression, 0, False)

    @classmethod
    def resume(cls, file: OSFile, name: str, limits: Limits, compression: int, root: str | None) -> Writer:
        """Open the archive in `file` to append to it; NotAnArchiveError if it does not end as one."""
        length = file.size()
        end, raw = find_end(file, length)
        if b'"jsonFirst"' in end.comment:  # what it says of the order has to stay true
            limits = replace(limits, ozx=True)
        writer = cls(file, name, Directory(file.label, raw, end, root), limits, compression, length, True)
        writer.comment = end.comment
        writer._closing += len(end.comment)
        return writer

    # Changes -------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Finish what an interrupt or an error left half done: all of it, or nothing of it."""
        change = self._unfinished
        if change is None:
            return
        if change is _TORN:
            self.file.truncate(self.stop)
            self._reserved = self.stop
        else:
            self._apply(change)
        # Counted anew: whoever was interrupted may have counted already.
        self._ceiling = self._reserved - self._closing - _listed(self._index.values())
        self._unfinished = None

    def _apply(self, change: Change) -> int:
        """Let memory say what the file says; return by how much the directory grew. May be called twice."""
        index, grown = self._index, 0
        stop, records, dropped, synced = change
        for name, record in records:
            old = index.get(name)
            grown += len(record) - len(old) if old is not None else _SIGNATURE + len(record)
            index[name] = record
        for name in dropped:
            old = index.pop(name, None)
            grown -= _SIGNATURE + len(old) if old is not None else 0
        self.directory.touch([name for name, _ in records])
        self.directory.touch(dropped)
        self.stop = stop
        if synced:
            self._synced = self.whole_at = self._reserved = stop
        return grown

    def _commit(self, change: Change) -> None:
        self._unfinished = change  # from here on it happens, be it in the next call
        self._ceiling -= self._apply(change)
        self._unfinished = None

    def _settle_after_error(self) -> None:
        # The error that is being raised says why; if the disk takes no cut either, the next call tries it again first.
        with suppress(OSError):
            self.settle()

    def _write(self, parts: Sequence[bytes], records: Sequence[tuple[str, bytes]], dropped: Sequence[str]) -> None:
        """Write bytes behind the archive, whole or not at all, and change the index by what they say."""
        self._begin()
        stop, size = self.stop, sum(map(len, parts))
        listed = _listed([record for _, record in records])
        self._unfinished = _TORN
        try:
            if stop + size + listed > self._ceiling:
                self._reserve(stop, size + listed, size)
            self.file.write(parts, stop)
            self._commit((stop + size, records, dropped, False))
        except BaseException:
            self._settle_after_error()
            raise

    def _begin(self) -> None:
        """Make ready to write: before the first time all entries must be known, since the next directory lists them."""
        self.settle()
        if self.begun:
            return
        self.directory.check_names()
        self._index = self.directory.index
        self._ceiling = self._reserved - self._closing - _listed(self._index.values())
        self.begun = True

    def _reserve(self, start: int, size: int, written: int = 0) -> None:
        """Reserve `size` bytes from `start` on, and those of the directory: a flush must not fail for space.

        The first `written` of them are written next, which takes their space: to reserve it before, a file system in
        memory would fill them with zeros.
        """
        needed = start + size + (self._reserved - self._ceiling)
        spare = min(max(needed >> 3, _LEAST_SPARE), _MOST_SPARE)
        reserved = self.file.reserve(start + written, needed, spare)
        self._ceiling += reserved - self._reserved
        self._reserved = reserved
        if reserved >= fmt.LIMIT:
            self._quick = -1

    # Values --------------------------------------------------------------------------------------------------------

    def set(self, key: str, value: bytes) -> None:
        """Append one entry."""
        size = len(value)
        if self._unfinished is not None or size > self._quick or not key.isascii():
            self._set_any(key, value, size)
            return
        # The same as _set_any and _write do for an entry that needs nothing special, in half the time.
        stop, builder, index = self.stop, self._builder, self._index
        if clock() >= builder.stamp_until:
            builder.tick()
        lead, fields, raw, record = builder.build_plain(key, value, size, stop)
        entry = b"".join((lead, fields, raw, value))
        length = len(entry)
        self._unfinished = _TORN
        try:
            if stop + length + _SIGNATURE + len(record) > self._ceiling:
                self._reserve(stop, length + _SIGNATURE + len(record))
            done = pwrite(self._place, entry, stop)
            if done < length:
                self.file.write((entry[done:],), stop + done)
            stop += length
            self._unfinished = (stop, ((key, record),), (), False)
            known = len(index)
            index[key] = record
            if len(index) != known:  # else it takes the place of a record that is no shorter
                self._ceiling -= _SIGNATURE + len(record)
                self.directory.touch((key,))
            self.stop = stop
            self._unfinished = None
        except BaseException:
            self._settle_after_error()
            raise

    def _set_any(self, key: str, value: bytes, size: int) -> None:
        self.settle()
        entry = self._prepare(key, value, size, self.stop)
        parts = (entry.header + entry.data,) if len(entry.data) <= QUICK else (entry.header, entry.data)
        self._write(parts, ((entry.name, entry.record),), ())
        if self._plain and self._reserved < fmt.LIMIT:  # and from here on, not the first in the file
            self._quick = QUICK if self.limits.value is None else min(QUICK, self.limits.value)

    def set_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Append entries in one write: all of them or none."""
        self.settle()
        if not self.limits.zip64 or not self.begun:  # entries are counted as they come; the first is special
            for key, value in items:
                self.set(key, value)
            return
        stop, quick, builder = self.stop, self._quick, self._builder
        builder.tick()
        parts: list[bytes] = []
        small: list[bytes] = []  # joined; large values are written from where they are
        records: list[tuple[str, bytes]] = []
        for key, value in items:
            size = len(value)
            if size <= quick and key.isascii() and stop < fmt.LIMIT:
                lead, fields, raw, record = builder.build_plain(key, value, size, stop)
                small += lead, fields, raw, value
                stop += fmt.LOCAL_SIZE + len(raw) + size
                records.append((key, record))
                continue
            name, header, data, record = self._prepare(key, value, size, stop)
            small.append(header)
            if len(data) <= QUICK:
                small.append(data)
            else:
                parts += b"".join(small), data
                small = []
            stop += len(header) + len(data)
            records.append((name, record))
        if small:
            parts.append(b"".join(small))
        self._write(parts, records, ())

    def _prepare(self, key: str, value: bytes, size: int, stop: int) -> Prepared:
        method = self.compression
        limit = self.limits.of(method)
        if limit is not None and size > limit:
            raise ValueTooLargeError(key, size, limit, "pass a larger max_value_size, to the reader too")
        data = pack(method, value)
        return self._build(k.join(self.directory.root, key), method, self.crc32(value), data, size, stop)

    def _build(self, name: str, method: int, crc: int, data: bytes, size: int, stop: int) -> Prepared:
        offset = stop - self._shift
        if not self.limits.zip64:
            self._refuse_zip64(name, max(size, len(data)), offset + len(data))
        return self._builder.build(name, method, crc, data, size, offset)

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

    # Deleting, moving, copying -------------------------------------------------------------------------------------

    def delete(self, names: Iterable[str]) -> None:
        """Drop entries by their names in the archive, which are there, and say so behind them."""
        dropped = list(names)
        self._write((self._tombstones(dropped),), (), dropped)

    def delete_below(self, path: str) -> None:
        """Drop all entries below a path, with one mark for all."""
        dropped = self.directory.names_below(path)
        if dropped:
            at = k.prefix(k.join(self.directory.root, path))
            self._write((self._tombstones([at]),), (), dropped)

    def _tombstones(self, names: Iterable[str]) -> bytes:
        now = self._builder.tick()
        return b"".join(fmt.tombstone(*fmt.encode_name(name), now) for name in names)

    def move(self, names: Iterable[tuple[str, str]]) -> None:
        """Give entries other names (pairs of old and new): their data is copied as it is, then the old ones dropped.

        All or none: what was copied before a failure is cut off again.
        """
        self._begin()
        pairs = list(names)
        records: list[tuple[str, bytes]] = []
        stop, listed = self.stop, 0
        self._unfinished = _TORN
        try:
            for old, new in pairs:
                entry = self._copy_of(self, new, self._index[old], stop)
                listed += _SIGNATURE + len(entry.record)
                stop = self._write_at(stop, (entry.header, entry.data), listed)
                records.append((new, entry.record))
            dropped = [old for old, _ in pairs]
            stop = self._write_at(stop, (self._tombstones(dropped),), listed)
            self._commit((stop, records, dropped, False))
        except BaseException:
            self._settle_after_error()
            raise

    def _write_at(self, start: int, parts: Sequence[bytes], listed: int) -> int:
        size = sum(map(len, parts))
        if start + size + listed > self._ceiling:
            self._reserve(start, size + listed, size)
        self.file.write(parts, start)
        return start + size

    def skip(self, size: int) -> None:
        """Leave room for `size` bytes of entries, which `adopt` lists later."""
        self._begin()
        if self.stop + size > self._ceiling:
            self._reserve(self.stop, size)
        self._commit((self.stop + size, (), (), False))

    def adopt(self, records: Sequence[tuple[str, bytes]]) -> None:
        """List entries, by their names and records, that lie in room which was left for them."""
        self.settle()
        self._commit((self.stop, records, (), False))
        if self.stop > self._ceiling:
            self._reserve(self.stop, 0)

    def copy_in(self, source: Archive, name: str, record: bytes) -> None:
        """Append an entry of an archive under a name, its data as it is, unpacked nowhere."""
        entry = self._copy_of(source, name, record, self.stop)
        self._write((entry.header, entry.data), ((name, entry.record),), ())

    def _copy_of(self, source: Archive, name: str, record: bytes, stop: int) -> Prepared:
        entry = fmt.entry_of(record)
        if entry.flags & fmt.ENCRYPTED:
            raise StoreReadError(entry.name, source.name, "the entry is encrypted; decrypt the archive first")
        data = source.packed(entry.name, entry)
        return self._build(name, entry.method, entry.crc, data, entry.size, stop)

    # Flushing ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write a directory of all entries behind them, and return when the disk has both.

        The end, which makes the directory count, is written only after all before it is on the disk. Until then
        the file has no proper end, and the last directory is whole.
        """
        self.settle()
        if self.stop == self.whole_at:
            return
        self._unfinished = _TORN
        try:
            if self._sync_failed:
                self._write_again()
            records, comment = self._records(), self.comment
            if self.limits.ozx:
                comment = ozx.comment_of(self._root_document())
            end_at = self._write_directory(records, self.stop)
            place = self.stop - self._shift
            end = fmt.end_records(len(records), end_at - self.stop, place, comment, wide=self.limits.ozx)
            # The length is final before the first sync, and what was reserved and is not needed goes back.
            self.file.truncate(end_at + len(end))
            self._sync()
            self.file.write((end,), end_at)
            self._sync()
            self._unfinished = (end_at + len(end), (), (), True)
        finally:
            self._settle_after_error()

    def _write_directory(self, records: Sequence[bytes], place: int) -> int:
        """Write records piece by piece, since those of 10**6 entries together take 70 MB; return where they end."""
        for at in range(0, len(records), _RECORDS):
            piece = fmt.directory_of(records[at : at + _RECORDS])
            self.file.write((piece,), place)
            place += len(piece)
        return place

    def _records(self) -> list[bytes]:
        index = self.directory.index
        records = list(map(index.__getitem__, ozx.json_first(index)) if self.limits.ozx else index.values())
        if records:
            records[0] = fmt.marked(records[0], self.directory.root)
        return records

    def _root_document(self) -> bytes | None:
        try:
            return None if self.directory.root else self.get(ZARR_JSON)
        except (KeyError, OSError, ValueTooLargeError):
            return None

    def _sync(self) -> None:
        self._sync_failed = True
        self.file.sync()
        self._sync_failed = False

    def _write_again(self) -> None:
        """Write what the disk may lack once more: after a failed sync the system may take it for written."""
        for at in range(self._synced, self.stop, _PIECE):
            self.file.write((read_fully(self.file, min(_PIECE, self.stop - at), at),), at)
        self._sync_failed = False


def _listed(records: Collection[bytes]) -> int:
    """Return how many bytes of a directory the records take."""
    return sum(map(len, records)) + _SIGNATURE * len(records)
