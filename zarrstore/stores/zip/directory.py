"""The directory of a zip archive, read no further than a call needs.

To look one name up among 100,000, the bytes of the directory are searched for it, which takes 2 ms; a list of all names
takes ten times that, and an index of them twice as long again. So the index is built when a value is written, or when
so many names have been looked up that it would have paid; names in order are kept from the first listing of a path on.
"""

from __future__ import annotations

import re
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from zarrstore import keys as k
from zarrstore.errors import DamagedStoreError, InvalidKeyError
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.end import End
from zarrstore.stores.zip.names import SortedNames
from zarrstore.stores.zip.records import parse, refuse_overlaps

__all__ = ["Directory"]

#: A directory up to so many bytes is indexed at once.
_SMALL = 1 << 16
#: Look-ups by search before the index is built.
_SEARCHES = 12
#: Places that a quick search may try in vain before an exact one begins.
_TRIES = 256
#: The longest record there can be, and so how far before a place another record could begin that has it within.
_LONGEST_RECORD = 4 + fmt.RECORD_SIZE + 3 * 0xFFFF
#: Of a record without its signature: the lengths of name, extra and comment.
_LENGTHS = struct.Struct("<24x3H")
#: Names that were added or dropped are sorted in one by one up to this share of all; above it all are sorted anew.
_FEW = 1 / 16
_NODE_DOCUMENTS = (".zgroup", ".zarray", ".zmetadata", "zarr.json")

_T = TypeVar("_T")


class Directory:
    """Records by name; of records with one name the last counts.

    Parameters
    ----------
    label : str
        The archive, for errors.
    raw : bytes
        The directory as it stands in the file.
    end : End or None
        What the archive's end says of it; None for a new archive.
    root : str or None
        The folder below which all keys are; None to find it.

    Attributes
    ----------
    root : str
        The folder below which all keys are; ``""`` in most archives.
    refused : tuple of (str, str)
        Names that are not keys, with the reason. Known once the index is built.
    """

    def __init__(self, label: str, raw: bytes, end: End | None, root: str | None = None) -> None:
        self.label = label
        self.shift = end.shift if end else 0
        self.refused: tuple[tuple[str, str], ...] = ()
        self._count = end.entries if end else 0
        #: The bytes, then the names and records read from them, then nothing, when the index has all.
        self._held: bytes | tuple[list[str], list[bytes]] = raw
        self._all_are_keys: bool | None = None
        self._searches = 0
        self._index: dict[str, bytes] | None = None
        self._sorted: SortedNames | None = None
        #: Whether a writer changes the index.
        self.changes = False
        #: Held by whoever changes `_sorted`. A forked child does without, by `forget_changes`.
        self._order = threading.Lock()
        #: Names whose record was added or dropped since; the index says which. None while nothing is sorted.
        self._touched: deque[str] | None = None
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
        """All records by name. Who changes it holds the writer's lock, and calls `touch` after."""
        held = self._held  # read before the index: what is held is let go after the index is there
        if self._index is None:
            built = self._build(held)
            # setdefault is one step of the interpreter: threads that build at once must end with one index, or what is
            # written into one of them would be lost with it.
            index = self.__dict__.setdefault("_shared", built)
            self._index = index
            self._held = b""
            if not self.root:
                self.find = index.get
        return self._index

    # Searching -----------------------------------------------------------------------------------------------------

    def _search(self, name: str) -> bytes | None:
        raw, self._searches = self._held, self._searches + 1
        if self._searches > _SEARCHES or not name.isascii() or type(raw) is not bytes or not raw:
            return self.index.get(name)
        sought = name.encode()
        # From the end, since of records with one name the last counts. Most names stand in no other name.
        at = len(raw)
        for _ in range(_TRIES):
            at = raw.rfind(sought, 0, at + len(sought) - 1)
            if at < 0:
                return None
            start = at - fmt.RECORD_SIZE - 4
            if start >= 0 and raw.startswith(fmt.CENTRAL, start):
                lengths = _LENGTHS.unpack_from(raw, start + 4)
                if lengths[0] == len(sought):
                    return self._record_at(raw, start, at + sum(lengths), name)
        # One that does, as "0" or "foo", is searched with its length and the signature that must precede it.
        last = -1
        pattern = re.compile(
            b"(?s:%b.{24}%b.{16}%b)"
            % (re.escape(fmt.CENTRAL), re.escape(struct.pack("<H", len(sought))), re.escape(sought))
        )
        while found := pattern.search(raw, last + 1):
            last = found.start()
        if last < 0:
            return None
        lengths = _LENGTHS.unpack_from(raw, last + 4)
        return self._record_at(raw, last, last + 4 + fmt.RECORD_SIZE + sum(lengths), name)

    def _record_at(self, raw: bytes, start: int, stop: int, name: str) -> bytes | None:
        if stop > len(raw) or not self._is_in_line(raw, start):
            return self.index.get(name)
        return raw[start + 4 : stop]

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
            return all(len(piece) == fmt.RECORD_SIZE + sum(_LENGTHS.unpack_from(piece)) for piece in pieces)
        except struct.error:
            return False

    # The index -----------------------------------------------------------------------------------------------------

    def _parse(self, held: bytes | tuple[list[str], list[bytes]]) -> tuple[list[str], list[bytes]]:
        if isinstance(held, tuple):
            return held
        parsed = parse(self.label, held, self._count)
        if self._index is None:
            self._held = parsed
        return parsed

    def _build(self, held: bytes | tuple[list[str], list[bytes]]) -> dict[str, bytes]:
        index = dict(zip(*self._parse(held), strict=True))
        refuse_overlaps(self.label, index.values())
        self._judge(index)
        return index

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
        """Return the one folder that was packed whole, with its name before every key; ``""`` if there is none.

        An archive of ours names it. In others it is a folder that holds a node of Zarr and has nothing beside it.
        """
        raw = self._held if isinstance(self._held, bytes) else b""
        record = raw[4 : 4 + _LONGEST_RECORD] or next(iter(self.index.values()), b"")
        if not record:
            return ""
        *_, name_length, extra_length, _, _ = fmt.RECORD_FIELDS.unpack_from(record)
        name_stop = fmt.RECORD_SIZE + name_length
        root = fmt.archive_root(record[name_stop : name_stop + extra_length])
        if root is not None:
            return root if k.is_key(root) else ""
        first = record[fmt.RECORD_SIZE : name_stop].decode("ascii", "replace")
        # Mostly the first entry stands at the top and settles it.
        folder = k.child(first, "")
        if first == folder or not folder:
            return ""
        if self._index is None and not _may_be_wrapped(raw, folder):
            return ""
        below = [name for name in self.index if not k.is_below(name, "__MACOSX")]
        folder = k.child(below[0], "") if below else None
        if not folder or not all(k.is_below(name, folder) for name in below):
            return ""
        return folder if any(k.join(folder, name) in self.index for name in _NODE_DOCUMENTS) else ""

    # Listing -------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return all names, in the order of the directory; DamagedStoreError if one of them is not a key."""
        held = self._held
        if self._index is None and self._all_are_keys is not False:
            # Without the index, which takes longer than the list, where each name is a key and there once.
            names = self._parse(held)[0]
            if self._all_are_keys is None:
                self._all_are_keys = len(set(names)) == len(names) and k.are_keys(names)
            if self._all_are_keys:
                return names.copy()
        self.check_names()
        return list(self.index)

    def names_below(self, path: str) -> list[str]:
        """Return the names, as in the archive, below a path, as outside of it."""
        at = k.join(self.root, path)
        return self._in_order(lambda ordered: ordered.below(at)) if at else self.names()

    def children(self, path: str) -> set[str]:
        """Return the names of the children of a path. Cost: a few steps a child, whatever is below it."""
        return self._in_order(lambda ordered: ordered.children(k.join(self.root, path)))

    def touch(self, names: Iterable[str]) -> None:
        """Have listings look again at names whose record was added or dropped, after the index was changed."""
        touched = self._touched
        if touched is None:
            return
        touched.extend(names)
        if len(touched) > len(self.index) + 1000:
            self._touched = None  # the next listing sorts all names, which takes less

    def forget_changes(self) -> None:
        """In a forked child, start listings anew: another thread of the parent may have been sorting."""
        self.changes = False
        self._sorted = self._touched = None

    def _in_order(self, read: Callable[[SortedNames], _T]) -> _T:
        """Return ``read(names in order)``, of the names that the index has now."""
        self.check_names()
        if not self.changes:
            fixed = self._sorted
            if fixed is None:
                fixed = self._sorted = SortedNames(list(self.index))
            return read(fixed)
        with self._order:
            # Taken away while it is changed: an interrupt then leaves nothing, instead of half a change.
            ordered, self._sorted = self._sorted, None
            touched = self._touched
            if ordered is None or touched is None or len(touched) > len(self.index) * _FEW:
                self._touched = deque()  # before the names are read: what is written meanwhile is looked at again
                ordered = SortedNames(list(self.index))
            else:
                while touched:
                    name = touched[0]
                    ordered.put(name, name in self.index)
                    touched.popleft()
            self._sorted = ordered
            found = read(ordered)
        return found


def _may_be_wrapped(raw: bytes, folder: str) -> bool:
    """Tell quickly whether `folder` could be the root, before all names are looked at."""
    if "\ufffd" in folder or folder == "__MACOSX":
        return True
    return any(k.join(folder, name).encode() in raw for name in _NODE_DOCUMENTS)
