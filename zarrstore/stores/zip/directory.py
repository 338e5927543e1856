"""The directory of a zip archive: found, and read no further than a look-up needs.

To look one name up among 100,000, the bytes of the directory are searched for it, which takes less than a millisecond;
building an index of all takes fifty. So the index is built for the first listing or write, or when so many names
have been looked up that it would have paid.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.errors import DamagedStoreError, InvalidKeyError
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.file import File, read_fully

__all__ = ["Directory", "End", "NotAnArchiveError", "find_end"]

#: An end may be followed by a comment of 65,535 bytes.
_TAIL = fmt.LONGEST_END + 0xFFFF
#: A directory up to so many bytes is indexed at once.
_SMALL = 1 << 16
#: Look-ups by search before the index is built.
_SEARCHES = 24
#: The longest record there can be, and what lies before it that a false one could hide in.
_LONGEST_RECORD = fmt.RECORD_SIZE + 3 * 0xFFFF
_CENTRAL = int.from_bytes(fmt.CENTRAL, "little")
#: Within a record without its signature: lengths of name, extra and comment.
_LENGTHS = struct.Struct("<24x3H")


class NotAnArchiveError(Exception):
    """The file does not end as an archive does. Turned into DamagedStoreError where the way out is known."""


class End(NamedTuple):
    """Where the directory stands.

    `start` and `size` are of its bytes in the file, `entries` is how many records it claims, `shift` what is to be
    added to the places it tells (the length of what was put before the archive), `stop` where the archive ends.
    """

    start: int
    size: int
    entries: int
    shift: int
    stop: int


def find_end(file: File) -> tuple[End, bytes]:
    """Return the end of the archive and the bytes of its directory; NotAnArchiveError if there is none.

    An end counts only if a directory stands where it says. Bytes behind it are passed over as zipfile does, unless an
    entry begins among them: then a writer was interrupted, and what it was told is safe must not vanish.
    """
    length = file.size()
    tail_start = max(0, length - _TAIL)
    tail = read_fully(file, length - tail_start, tail_start)
    at = len(tail)
    reason = "is not a zip archive that ends properly"
    while (at := tail.rfind(fmt.END, 0, at + 3 if at < len(tail) else at)) >= 0:
        end = _end_at(tail, at, tail_start)
        if end is not None:
            directory = _directory_bytes(file, end, tail, tail_start)
            if directory is not None:
                if fmt.LOCAL in tail[end.stop - tail_start :]:
                    raise NotAnArchiveError("was not closed: entries follow its last directory")
                if end.shift and read_fully(file, 4, 0) == fmt.LOCAL:
                    # The last value may be an archive itself, whose end is the end of the file; or the comment has one.
                    reason = "was not closed: its end belongs to an archive within it"
                    continue
                return end, directory
    if not length:
        raise NotAnArchiveError("is empty")
    raise NotAnArchiveError(reason)


def _end_at(tail: bytes, at: int, tail_start: int) -> End | None:
    if at + fmt.END_SIZE > len(tail):
        return None
    _, disk, its_disk, _, count, size, offset, comment = fmt.END_FIELDS.unpack_from(tail, at)
    place = tail_start + at
    stop = place + fmt.END_SIZE + comment
    if stop > tail_start + len(tail):
        return None
    directory_end = place
    wide = at - fmt.LOCATOR_FIELDS.size - fmt.END64_FIELDS.size
    if wide >= 0 and tail.startswith(fmt.LOCATOR64, at - fmt.LOCATOR_FIELDS.size) and tail.startswith(fmt.END64, wide):
        *_, disk, its_disk, _, count, size, offset = fmt.END64_FIELDS.unpack_from(tail, wide)
        directory_end = tail_start + wide
    if (disk or its_disk) and disk != fmt.MOST_ENTRIES:
        raise NotAnArchiveError("is one part of an archive that is split over several files")
    start = directory_end - size
    if start < 0 or start - offset < 0:
        return None
    return End(start, size, count, start - offset, stop)


def _directory_bytes(file: File, end: End, tail: bytes, tail_start: int) -> bytes | None:
    if end.start >= tail_start:
        directory = tail[end.start - tail_start : end.start - tail_start + end.size]
    else:
        directory = read_fully(file, end.size, end.start)
    if len(directory) != end.size:
        return None
    whole = directory.startswith(fmt.CENTRAL) if end.size else not end.entries
    return directory if whole else None


class Directory:
    """Records by name: of what names there are, the last of each counts.

    Parameters
    ----------
    label : str
        The archive, for errors.
    raw : bytes
        The directory as it stands in the file.
    end : End or None
        What the archive's end says of it; None for a new archive.

    Attributes
    ----------
    root : str
        The folder below which all keys are; ``""`` in most archives.
    deletions : int
        Grows whenever names went.
    refused : tuple of (str, str)
        Names that are not keys, with the reason. Known once the index is built.
    """

    def __init__(self, label: str, raw: bytes, end: End | None, root: str | None = None) -> None:
        self.label = label
        self.shift = end.shift if end else 0
        self.deletions = 0
        self.refused: tuple[tuple[str, str], ...] = ()
        self._count = end.entries if end else 0
        self._start = end.start if end else 0
        self._raw = raw
        self._searches = 0
        self._index: dict[str, bytes] | None = None
        self._sorted: tuple[tuple[int, int], list[str]] | None = None
        #: ``find(key)`` returns the record of a key, None if there is none. From the index on it is the dict's own.
        self.find: Callable[[str], bytes | None] = self._find
        self.root = root or ""
        if len(raw) <= _SMALL:
            _ = self.index
        if root is None:
            self.root = self._find_root()
            if self.root:
                self.find = self._find

    def _find(self, key: str) -> bytes | None:
        name = k.join(self.root, key)
        return self._search(name) if self._index is None else self._index.get(name)

    @property
    def index(self) -> dict[str, bytes]:
        """All records by name. Who changes it holds the writer's lock and counts `deletions` after."""
        if self._index is None:
            built = self._build()
            # One step of the interpreter: threads that build at once must end with one index, or what is written
            # into one of them would be lost with it.
            index = self.__dict__.setdefault("_shared", built)
            self._index = index
            self._raw = b""
            if not self.root:
                self.find = index.get
        return self._index

    # Searching -----------------------------------------------------------------------------------------------------

    def _search(self, name: str) -> bytes | None:
        raw, self._searches = self._raw, self._searches + 1
        if self._searches > _SEARCHES or not name.isascii() or not raw:
            return self.index.get(name)
        sought = name.encode()
        at = len(raw)
        while (at := raw.rfind(sought, 0, at + len(sought) - 1)) >= 0:
            start = at - fmt.RECORD_SIZE
            if start < 0 or not raw.startswith(fmt.CENTRAL, start):
                continue
            *_, name_length, extra_length, comment_length, _ = fmt.RECORD_FIELDS.unpack_from(raw, start)
            if name_length != len(sought):
                continue
            stop = at + name_length + extra_length + comment_length
            if stop > len(raw) or not self._is_in_line(raw, start):
                return self.index.get(name)
            return raw[start:stop]
        return None

    @staticmethod
    def _is_in_line(raw: bytes, start: int) -> bool:
        """Tell whether a record really begins at `start`, and not within the extra field or comment of another.

        The other would begin at most one record's length before. So every signature there must be a record that ends
        where the next begins.
        """
        before = raw[max(0, start - _LONGEST_RECORD) : start]
        first, *pieces = before.split(fmt.CENTRAL)
        if first and start <= _LONGEST_RECORD:
            return False
        try:
            return all(len(piece) == 42 + sum(_LENGTHS.unpack_from(piece)) for piece in pieces)
        except struct.error:
            return False

    # The index -----------------------------------------------------------------------------------------------------

    def _build(self) -> dict[str, bytes]:
        raw, length = self._raw, len(self._raw)
        index: dict[str, bytes] = {}
        at = found = reached = 0
        in_order = True
        shape_of, size_of, length_left = fmt.SHAPE_FIELDS.unpack_from, fmt.RECORD_SIZE, length - fmt.RECORD_SIZE
        while at <= length_left:
            signature, csize, name_length, extra_length, comment_length, offset = shape_of(raw, at)
            if signature != _CENTRAL:
                break
            stop = at + size_of + name_length + extra_length + comment_length
            raw_name = raw[at + size_of : at + size_of + name_length]
            record = raw[at:stop]
            name = raw_name.decode("ascii") if raw_name.isascii() else fmt.entry_of(record).name
            if offset < reached:
                in_order = False
            reached = offset + csize + 30 + name_length
            index[name] = record
            found += 1
            at = stop
        if at != length or (found - self._count) % (fmt.MOST_ENTRIES + 1):
            raise DamagedStoreError(
                self.label,
                f"has a damaged directory: {found:,} of {self._count:,} entries are listed properly",
                f"zarrstore.ZipStore.recover({self.label!r}) looks for entries without it",
            )
        if not in_order:
            self._refuse_overlaps(index)
        self._judge(index)
        return index

    def _refuse_overlaps(self, index: dict[str, bytes]) -> None:
        """Refuse entries that share bytes: the mark of an archive that unpacks to more than it could hold."""
        entries = sorted((entry.offset, entry) for entry in map(fmt.entry_of, index.values()))
        for (_, one), (offset, other) in pairwise(entries):
            if one.offset + fmt.LOCAL_SIZE + len(one.raw_name) + one.csize > offset:
                raise DamagedStoreError(
                    self.label,
                    f"is not to be trusted: its entries {one.name!r} and {other.name!r} share bytes",
                    f"zarrstore.ZipStore.recover({self.label!r}, dest) keeps what is whole",
                )

    def _judge(self, index: dict[str, bytes]) -> None:
        """Drop the entries of directories, and note names that are not keys."""
        if k.are_keys(list(index)):
            return
        for name in [name for name in index if name.endswith("/")]:
            del index[name]
        if not k.are_keys(list(index)):
            refused = []
            for name in index:
                try:
                    k.check_key(name)
                except InvalidKeyError as exc:
                    refused.append((name, exc.reason))
            for name, _ in refused:
                del index[name]
            self.refused = tuple(refused)

    def check_names(self) -> None:
        """Raise DamagedStoreError if a name in the archive is not a key: what is listed must be all there is."""
        _ = self.index
        if self.refused:
            name, reason = self.refused[0]
            more = f" (and {len(self.refused) - 1:,} more)" if len(self.refused) > 1 else ""
            raise DamagedStoreError(
                self.label,
                f"holds an entry whose name is not a key: {name!r}{more}, {reason}",
                f"zarrstore.ZipStore.recover({self.label!r}, dest) keeps all others; read keys by name meanwhile",
            )

    # The root ------------------------------------------------------------------------------------------------------

    def _find_root(self) -> str:
        """Return the one folder that was packed whole, with its name before every key; ``""`` if it was not so.

        An archive of ours says it. Else it is one that holds nodes of Zarr, and nothing stands beside it.
        """
        raw = self._raw or b"".join(list(self.index.values())[:1])
        if not raw:
            return ""
        *_, name_length, extra_length, _, _ = fmt.RECORD_FIELDS.unpack_from(raw)
        name_stop = fmt.RECORD_SIZE + name_length
        told = fmt.archive_root(raw[name_stop : name_stop + extra_length])
        if told is not None:
            return told if k.is_key(told) else ""
        first = raw[fmt.RECORD_SIZE : name_stop].decode("ascii", "replace")
        # Mostly the first entry stands at the top and settles it.
        folder = k.child(first, "")
        if first == folder or not folder:
            return ""
        if self._index is None and not self._may_be_wrapped(folder):
            return ""
        below = [name for name in self.index if not k.is_below(name, "__MACOSX")]
        folder = k.child(below[0], "") if below else None
        if not folder or not all(k.is_below(name, folder) for name in below):
            return ""
        return folder if any(k.join(folder, name) in self.index for name in _NODE_DOCUMENTS) else ""

    def _may_be_wrapped(self, folder: str) -> bool:
        """Tell quickly whether it is worth to look at all names."""
        if "\ufffd" in folder or folder == "__MACOSX":
            return True
        return any(k.join(folder, name).encode() in self._raw for name in _NODE_DOCUMENTS)

    # Listing -------------------------------------------------------------------------------------------------------

    def sorted_names(self) -> list[str]:
        """Return the names in order, sorted once per change."""
        # Names come one by one and go by a deletion, so these two tell every state from those before it. They are read
        # first: a list that is ahead of them, for a change made meanwhile, is just made again.
        version = self.deletions, len(self.index)
        held = self._sorted
        if held is None or held[0] != version:
            held = self._sorted = version, sorted(self.index)
        return held[1]

    def names_below(self, path: str) -> list[str]:
        """Return the names, as in the archive, below a path, as outside of it."""
        at = k.join(self.root, path)
        names = self.sorted_names()
        return names[bisect_left(names, k.prefix(at)) : bisect_left(names, k.beyond(at))] if at else names

    def children(self, path: str) -> set[str]:
        """Return the names of the children of a path. Cost: a few steps a child, whatever lies below it."""
        at = k.join(self.root, path)
        names = self.names_below(path)
        found = set()
        i = 0
        while i < len(names):
            name = k.child(names[i], at)
            assert name is not None
            found.add(name)
            whole = k.join(at, name)
            i = i + 1 if names[i] == whole else bisect_left(names, k.beyond(whole), i + 1)
        return found


_NODE_DOCUMENTS = (".zgroup", ".zarray", ".zmetadata", "zarr.json")
