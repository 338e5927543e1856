"""A walk through a zip archive from local header to local header, whatever its directory says.

An entry counts if its CRC is right. The last of a name wins, for an archive only grows at its end; a tombstone drops
what came before it; and a whole directory on the way says which of the entries before it there are. Where nothing that
belongs to an archive stands, the next local header is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.codec import METHODS, crc32_function, inflater
from zarrstore.stores.zip.file import File, OSFile, read_fully
from zarrstore.stores.zip.names import SortedNames

__all__ = ["Checker", "Scan", "count_whole"]

#: Bytes read at a time. Never by mmap: its find crashes on some files with CPython 3.11.2.
_WINDOW = 1 << 20
#: Bytes looked through to count what is whole, for the text of an error.
_GLANCE = 1 << 28
#: How often damaged places may be read again, in lengths of the file: headers that lie could ask for any number.
_PATIENCE = 8
#: Bytes that may be unpacked or searched in vain in any file, however short.
_LEAST_SPARE = 1 << 28
#: Bytes that one entry may unpack to beyond what may be in vain.
_LARGEST = 1 << 32
#: Bytes of packed data that are read first: many headers that lie stand before no data at all.
_FIRST = 1 << 14
_SIGNATURES = (fmt.LOCAL, fmt.CENTRAL, fmt.END, fmt.END64, fmt.LOCATOR64)


class Found(NamedTuple):
    """One thing met on the way: ``kind`` is 'whole', 'damaged' or 'tombstone'; ``stop`` is where it ends."""

    kind: str
    name: str
    record: bytes
    stop: int
    extra: bytes


class Window:
    """A file read forwards in large pieces."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.length = file.size()
        self._start = 0
        self._data = b""

    def get(self, at: int, n: int) -> bytes:
        """Return `n` bytes from `at` on, fewer at the end."""
        start = at - self._start
        if start < 0 or start + n > len(self._data):
            self._start, self._data = at, read_fully(self.file, max(n, _WINDOW), at)
            start = 0
        return self._data[start : start + n]

    def find(self, sought: bytes, at: int) -> int:
        """Return where `sought` stands next, -1 if nowhere."""
        while at < self.length:
            if not self._start <= at < self._start + len(self._data) - len(sought):
                self._start, self._data = at, read_fully(self.file, _WINDOW, at)
            place = self._data.find(sought, at - self._start)
            if place >= 0:
                return self._start + place
            after = self._start + len(self._data)
            if after >= self.length or not self._data:
                break
            at = after - len(sought) + 1
        return -1

    def only_zeros_from(self, at: int) -> bool:
        """Tell whether nothing but zeros stands from `at` on."""
        while at < self.length:
            data = read_fully(self.file, _WINDOW, at)
            if not data or data.count(0) != len(data):
                return False
            at += len(data)
        return True


class Checker:
    """Says whether data is whole, a window at a time, with a bound on what it reads and unpacks in vain."""

    def __init__(self, file: File) -> None:
        self.window = Window(file)
        self._crc32 = crc32_function()
        self._patience = _PATIENCE * self.window.length
        #: The same for what headers do not say beforehand: how much is unpacked, and searched for an end.
        self._spare = max(_LEAST_SPARE, self._patience)
        #: Bytes that the last call of `_unpacked` read and unpacked.
        self._work = 0

    def is_whole(self, start: int, method: int, crc: int, csize: int, size: int) -> bool:
        """Tell whether the data from `start` on is what a header says of it."""
        if start + csize > self.window.length or csize > self._patience:
            return False
        if method == fmt.STORED and csize == size <= _WINDOW:
            whole = self._crc32(self.window.get(start, csize)) == crc
        elif method != fmt.STORED and self._spare <= 0:
            whole = False
        else:
            try:
                whole = self._unpacked(start, method, csize, size)[:3] == (crc, csize, size)
            except ValueError:
                whole = False
            self._spare -= 0 if whole else self._work
        if not whole:
            self._patience -= csize
        return whole

    def _unpacked(self, start: int, method: int, csize: int, size: int) -> tuple[int, int, int, bool]:
        """Return the CRC, both sizes, and whether the data came to an end of its own."""
        file, at, stop = self.window.file, start, start + csize
        crc = size_so_far = self._work = 0
        if method == fmt.STORED:
            while at < stop and (data := read_fully(file, min(_WINDOW, stop - at), at)):
                crc = self._crc32(data, crc)
                at += len(data)
            self._work = at - start
            return crc, at - start, at - start, True
        worker = inflater(method, read_fully(file, 9, at), size)
        at += 9 if method == fmt.LZMA else 0
        left, step = b"", _FIRST
        most = min(size, max(0, self._spare) + _LARGEST)
        while not worker.eof and size_so_far <= most:
            if not left and getattr(worker, "needs_input", True):
                left = read_fully(file, max(0, min(step, stop - at)), at)
                at, step = at + len(left), min(2 * step, _WINDOW)
                self._work += len(left)
            fed = left
            try:
                data = worker.decompress(fed, _WINDOW)
            except Exception as exc:  # zlib.error, OSError, LZMAError, EOFError
                raise ValueError("its data cannot be unpacked") from exc
            left = getattr(worker, "unconsumed_tail", b"")
            crc, size_so_far = self._crc32(data, crc), size_so_far + len(data)
            self._work += len(data)
            if not fed and not data:
                break
        return crc, at - start - len(left) - len(worker.unused_data), size_so_far, bool(worker.eof)

    def described_later(self, start: int, method: int) -> tuple[int, int, int, int] | None:
        """Return CRC, both sizes and the stop of an entry whose sizes stand behind its data, None if it is damaged."""
        if method == fmt.LZMA or self._spare <= 0:
            return None  # nobody writes LZMA so, and its dictionary could be of any size
        if method == fmt.STORED:
            return self._stored_described_later(start)
        length = self.window.length
        found = None
        try:
            crc, csize, size, ended = self._unpacked(start, method, length - start, length << 11)
            found = self._described(start + csize, crc, csize, size) if ended else None
        except ValueError:
            pass
        if found is None:
            self._spare -= self._work
        return found

    def _stored_described_later(self, start: int) -> tuple[int, int, int, int] | None:
        at, last = start, self.window.length
        while at < last and (at := self.window.find(fmt.DESCRIPTOR, at)) >= 0:
            data = self.window.get(at, 24)
            csize = at - start
            sizes = csize.to_bytes(8, "little")
            if (data[8:12] == sizes[:4] or data[8:16] == sizes) and csize <= self._patience:
                found = self._described(at, self._unpacked(start, fmt.STORED, csize, csize)[0], csize, csize)
                if found is not None:
                    return found
                self._patience -= csize
                # Most likely its own, and the data damaged: all others would otherwise be looked at for each such.
                last = min(last, at + csize)
            at += 1
        self._spare -= (self.window.length if at < 0 else at) - start
        return None

    def _described(self, at: int, crc: int, csize: int, size: int) -> tuple[int, int, int, int] | None:
        data = self.window.get(at, 24)
        lead = 4 if data.startswith(fmt.DESCRIPTOR) else 0
        for width in (4, 8):
            if max(csize, size) >> 8 * width:
                continue
            sizes = csize.to_bytes(width, "little") + size.to_bytes(width, "little")
            descriptor = crc.to_bytes(4, "little") + sizes
            if data.startswith(descriptor, lead):
                return crc, csize, size, at + lead + len(descriptor)
        return None


class Scan:
    """A walk through a file.

    Parameters
    ----------
    file : File
        The file.
    glance : int, optional
        Bytes after which to stop.

    Attributes
    ----------
    kept : dict of str to bytes
        Directory records of the entries that are whole, by name.
    damaged, refused : dict
        Names, in order.
    root : str or None
        The root that the archive tells.
    reached : int
        Where the last thing ends that belongs to an archive.
    is_archive : bool
        Whether anything of an archive was met.
    complete : bool
        Whether all was seen.
    """

    def __init__(self, file: File, glance: int | None = None) -> None:
        self._checker = Checker(file)
        self._window = self._checker.window
        self.kept: dict[str, bytes] = {}
        self.damaged: dict[str, None] = {}
        self.refused: dict[str, None] = {}
        self._whole_places: set[int] = set()
        #: Records that stand in one row: where the row begins and ends, and their places with their signatures.
        self._row_start = self._row_stop = -1
        self._row: list[bytes] = []
        #: The names of both in order, from the first tombstone of a path on.
        self._ordered: SortedNames | None = None
        self.root: str | None = None
        self.reached = 0
        self.is_archive = False
        self.complete = True
        for found in self._walk(glance):
            self._take(found)

    def _take(self, found: Found) -> None:
        name = found.name
        if self.root is None:
            self.root = fmt.archive_root(found.extra)
        if found.kind == "tombstone":
            if name and not name.endswith("/"):
                self.kept.pop(name, None)
                self.damaged.pop(name, None)
                return
            if name != "/":  # below which no key is
                self._drop_below(name[:-1])
        elif name.endswith("/"):
            pass  # the entry of a directory
        elif not k.is_key(name):
            self.refused[name] = None
        elif found.kind == "whole":
            self.kept[name] = found.record
            self._whole_places.add(fmt.entry_of(found.record).offset)
            self.damaged.pop(name, None)
        else:
            self.damaged[name] = None
        if self._ordered is not None and (name in self.kept or name in self.damaged):
            self._ordered.put(name, True)

    def _drop_below(self, path: str) -> None:
        if self._ordered is None:
            self._ordered = SortedNames(self.kept.keys() | self.damaged.keys())
        # Names that a tombstone of their own dropped may still be in order.
        for name in self._ordered.below(path):
            self._ordered.put(name, False)
            self.kept.pop(name, None)
            self.damaged.pop(name, None)

    def _note_record(self, at: int, stop: int) -> None:
        if at != self._row_stop:
            self._row, self._row_start = [], at
        self._row.append(self._window.get(at, stop - at))
        self._row_stop = stop

    def _note_end(self, at: int, head: bytes) -> None:
        """Obey the directory that stands before an end, if it is whole and this end is its own."""
        if at != self._row_stop or not head.startswith((fmt.END, fmt.END64)):
            return
        wide = head.startswith(fmt.END64)
        fields = fmt.END64_FIELDS if wide else fmt.END_FIELDS
        raw = self._window.get(at, fields.size)
        if len(raw) < fields.size:
            return
        count, size, offset = fields.unpack(raw)[-3:] if wide else fields.unpack(raw)[-4:-1]
        if (count, size, offset) != (len(self._row), at - self._row_start, self._row_start):
            return
        kept: dict[str, bytes] = {}
        damaged: dict[str, None] = {}
        for signed in self._row:
            record = signed[4:]
            entry = fmt.entry_of(record)
            name = entry.name
            if name.endswith("/") or not k.is_key(name):
                continue
            if entry.offset in self._whole_places:
                kept[name] = record
                damaged.pop(name, None)
                continue
            damaged[name] = None
            if name in self.kept:  # an earlier value
                kept[name] = self.kept[name]
        self.kept, self.damaged, self._ordered = kept, damaged, None

    def _walk(self, glance: int | None) -> Iterator[Found]:
        window = self._window
        at = 0
        while 0 <= at < window.length:
            if glance is not None and at > glance:
                self.complete = False
                return
            head = window.get(at, 4 + fmt.RECORD_SIZE)
            stop = self._stop_of_other(head, at)
            if stop is None and head.startswith(fmt.LOCAL):
                found = self._entry(at)
                if found is not None:
                    self.is_archive = True
                    yield found
                    stop = found.stop
                    if found.kind == "damaged" and not self._begins_something(stop):
                        stop = None
            elif stop is not None:
                if head.startswith(fmt.CENTRAL):
                    self._note_record(at, stop)
                else:
                    self._note_end(at, head)
            if stop is not None and not head.startswith(fmt.LOCAL) and not self._begins_something(stop):
                self.reached = max(self.reached, stop)
                stop = None
            if stop is None:
                stop = window.find(fmt.LOCAL, at + 1)
            else:
                self.is_archive = True
                self.reached = max(self.reached, stop)
            at = stop

    def _stop_of_other(self, head: bytes, at: int) -> int | None:
        """Return where a record of the directory, or a part of the end, stops; None if it is neither."""
        stop = None
        if head.startswith(fmt.CENTRAL) and len(head) == 4 + fmt.RECORD_SIZE:
            *_, name_length, extra_length, comment_length, _ = fmt.RECORD_FIELDS.unpack_from(head, 4)
            stop = at + 4 + fmt.RECORD_SIZE + name_length + extra_length + comment_length
        elif head.startswith(fmt.END) and len(head) >= fmt.END_SIZE:
            stop = at + fmt.END_SIZE + int.from_bytes(head[20:22], "little")
        elif head.startswith(fmt.END64) and len(head) >= 12:
            stop = at + 12 + int.from_bytes(head[4:12], "little")
        elif head.startswith(fmt.LOCATOR64):
            stop = at + fmt.LOCATOR_FIELDS.size
        return stop if stop is not None and stop <= self._window.length else None

    def _begins_something(self, at: int) -> bool:
        return at == self._window.length or (at < self._window.length and self._window.get(at, 4) in _SIGNATURES)

    def _entry(self, at: int) -> Found | None:
        """Read the entry at `at`; None if it is cut short before its data."""
        head = self._window.get(at, fmt.LOCAL_SIZE)
        if len(head) < fmt.LOCAL_SIZE:
            return None
        _, _, flags, method, stamp, crc, csize, size, name_length, extra_length = fmt.LOCAL_FIELDS.unpack(head)
        rest = self._window.get(at + fmt.LOCAL_SIZE, name_length + extra_length)
        if len(rest) < name_length + extra_length:
            return None
        raw, extra = rest[:name_length], rest[name_length:]
        name = fmt.decode_name(raw, flags, extra)
        start = at + fmt.LOCAL_SIZE + len(rest)
        if fmt.is_tombstone(extra):
            return Found("tombstone", name, b"", start, extra)
        if fmt.LIMIT in (csize, size):
            size, csize = fmt.widened(extra, size, csize)
        described_later = bool(flags & fmt.DESCRIBED_LATER) and not (crc or csize or size)
        stop = start + csize
        if flags & fmt.ENCRYPTED or method not in METHODS:
            return Found("damaged", name, b"", stop, extra)
        if described_later:
            later = self._checker.described_later(start, method)
            if later is None:
                return Found("damaged", name, b"", start, extra)
            crc, csize, size, stop = later
        elif not self._checker.is_whole(start, method, crc, csize, size):
            return Found("damaged", name, b"", stop, extra)
        header = fmt.local_header(raw, flags, method, stamp, crc, csize, size)
        return Found("whole", name, fmt.central_record(header, raw, csize, size, at), stop, extra)

    @property
    def stop(self) -> int:
        """Where the archive may go on: behind all that is in the file, but for space reserved and not written."""
        return self.reached if self._window.only_zeros_from(self.reached) else self._window.length


def count_whole(file: File) -> tuple[int, bool]:
    """Return how many entries are whole in a damaged archive, and whether all of it was looked at."""
    scan = Scan(file, _GLANCE if isinstance(file, OSFile) else _GLANCE >> 4)
    return len(scan.kept), scan.complete
