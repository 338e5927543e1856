"""What a backend writes: driver methods, whose names begin with an underscore, and what it promises.

====================================  ======================================================================
``_get(key)``                         the bytes; KeyError only if truly absent                      required
``_set(key, value)``                  stored whole or not at all; a failure keeps the old value     required
``_delete(key)``                      gone; KeyError if absent; never a subtree                     required
``_keys(path)``                       keys below `path`, any order, safe while others write         required
``_contains(key)``                    existence                                                     via _get
``_details(path)``                    the same with sizes and identities, if a listing tells them   via _keys
``_entry(key)``                       the size and identity of one value; KeyError if absent        of _nbytes
``_with_descriptor(key, act)``        what `act` makes of the open file that is a value             None
``_count()``                          number of keys                                                via _keys
``_get_range(key, start, stop)``      the slice, clipped at the end; stop None is the end           of _get
``_get_suffix(key, n)``               the last n bytes, or all there are                            of _get
``_get_ranges(key, spans)``           a list of slices, one for each (start, stop); one question    of _get_range
``_nbytes(key)``                      size in bytes; KeyError if absent; -1 if it cannot be known   of _get
``_get_many(keys)``                   a mapping of those found, read when asked                     lazy _get
``_set_many(items)``                  all, in order                                                 a loop
``_delete_many(keys)``                all that exist                                                a loop
``_listdir(path)``                    names of the immediate children, each once, any order         via _keys
``_list_children(path)``              the same, each with whether keys may be below it             all may
``_rmdir(path)``                      every key below `path`, never a value at `path`               via _keys
``_rename(source, destination)``      moves the value and all keys below; `Store.rename` checked    copy, delete
``_getsize(path)``                    as the function `getsize`                                     via _nbytes
``_clear()``                          empty, and still usable                                       via _rmdir
``_sweep(path, dry_run)``             deletes what dead writers left; returns its names             nothing
``_flush()``, ``_close()``            durable; released. ``_close`` may be called twice             nothing
====================================  ======================================================================

Drivers receive judged keys and normal paths (``""`` is the root; any other path could be a key), and compose with
drivers. Values are `bytes`; a class that says ``takes_buffers = True`` is given any other contiguous buffer as it is,
as a flat, read-only `memoryview` of the caller's memory. It must have written or copied it before it returns, for the
caller may change it then.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from zarrstore import keys as k
from zarrstore.batch import LazyItems, checklist
from zarrstore.spans import Span, read_spans

__all__ = ["DRIVER", "WRITES", "Capabilities", "Copier", "Driver", "Entry", "Extent", "Pair"]

T = TypeVar("T")

#: Driver methods that change what is stored. A read-only wrapper refuses each of them.
WRITES = ("_set", "_delete", "_set_many", "_delete_many", "_rmdir", "_rename", "_clear", "_sweep")

#: All driver methods. A wrapper forwards each of them.
DRIVER = (
    "_get",
    "_contains",
    "_keys",
    "_count",
    "_get_range",
    "_get_ranges",
    "_get_suffix",
    "_nbytes",
    "_get_many",
    "_listdir",
    "_getsize",
    *WRITES,
    "_flush",
    "_close",
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store promises. Every flag is read by the conformance suite, which tests its negative too.

    Parameters
    ----------
    writable : bool
        Values can be set. Otherwise every write raises ReadOnlyError.
    erasable : bool
        Keys can be deleted. Otherwise a delete raises UnsupportedOperation.
    listable : bool
        Keys can be listed. Otherwise iteration, `len` and `listdir` raise UnsupportedOperation.
    hierarchical : bool
        A value cannot stand on a directory or below a value; setting one there raises ConflictError. Otherwise
        ``"a"`` and ``"a/b"`` live side by side.
    ranged : bool
        A part of a value is read without reading the whole.
    concurrent : bool
        A batch overlaps its waits: `getitems`, `setitems` and `delitems` beat a loop.
    durable_flush : bool
        What was set before `flush` returned survives a power cut.
    thread_safe : bool
        Any number of threads may use one object; reads are whole, listings never raise.
    process_safe : bool
        Other processes may open the same place at the same time and see what this one writes.
    case_sensitive : bool
        Names that differ in case only are two. Otherwise the second of them is refused, or is the first.
    blocking : bool
        A call may wait for a disk or a network. The bridges to asynchronous worlds then use threads.

    Examples
    --------
    >>> Capabilities(ranged=True).ranged
    True
    """

    writable: bool = True
    erasable: bool = True
    listable: bool = True
    hierarchical: bool = False
    ranged: bool = False
    concurrent: bool = False
    durable_flush: bool = False
    thread_safe: bool = True
    process_safe: bool = False
    case_sensitive: bool = True
    blocking: bool = True


class Entry(NamedTuple):
    """What a listing tells of one value.

    Parameters
    ----------
    key : str
        Full key.
    nbytes : int, bytes
        Size; -1 if the listing does not tell it.
    identity : str
        Differs between two values that this key had at different times (an ETag, size and times of a file, a
        checksum); ``""`` if the listing tells none.
    digest : str
        A checksum of the value alone, which another store may know too: ``"md5:..."``, ``"crc32:..."`` or
        ``"sha256:..."``, in hexadecimal digits; ``""`` if the listing tells none. Equal ones prove equal values.
    modified : float, seconds since 1970
        When it was set, by the clock of the store; -1 if the listing does not tell it.

    Examples
    --------
    >>> Entry("a/0.0")[:3]
    ('a/0.0', -1, '')
    """

    key: str
    nbytes: int = -1
    identity: str = ""
    digest: str = ""
    modified: float = -1.0


class Extent(NamedTuple):
    """Where the bytes of a value lie, for programs that know nothing of the store.

    Parameters
    ----------
    url : str
        A path of this machine, or a URL as fsspec reads it.
    start : int, bytes
        Where the value begins there.
    nbytes : int, bytes, optional
        Its length; None if it is the whole file.
    """

    url: str
    start: int = 0
    nbytes: int | None = None


class Pair(NamedTuple):
    """A value to copy.

    Parameters
    ----------
    key, dest_key : str
        Where it is, and where it goes.
    nbytes : int, bytes
        Its size; -1 if it is not known.
    """

    key: str
    dest_key: str
    nbytes: int = -1


#: Copies values and yields the size of each, in their order; None of one that it could not copy and left as it was.
Copier = Callable[[Sequence[Pair]], Iterator[int | None]]


class Driver:
    """The driver methods, each with its default: what it does where a backend knows no better.

    Notes
    -----
    `Store` adds the public face and is what backends and wrappers inherit. Only the first four methods are required; a
    class without them cannot be instantiated (the metaclass comes with `MutableMapping`).
    """

    capabilities: Capabilities = Capabilities()
    #: Whether `_set` and `_set_many` take buffers of the caller's memory beside `bytes`, and keep none of them.
    takes_buffers: bool = False
    #: Requests that verbs which ask many independent questions keep in flight, where the store is `concurrent`.
    _in_flight: int = 64
    #: Whether an array's document must be set before its chunks, because their names in the backend depend on it.
    _documents_first: bool = False
    #: Whether a value answers to a name that no listing shows: a chunk in the other spelling, a key in capitals.
    _aliases: bool = False
    #: Names of documents that cannot be set here, since what is stored has another form than what is shown.
    _refused_documents: frozenset[str] = frozenset()
    #: Whether `_rename` itself raises KeyError where nothing is at its source, so that `rename` need not look first.
    _rename_checks_source: bool = False

    @abstractmethod
    def _get(self, key: str) -> bytes: ...

    @abstractmethod
    def _set(self, key: str, value: bytes) -> None: ...

    @abstractmethod
    def _delete(self, key: str) -> None: ...

    @abstractmethod
    def _keys(self, path: str) -> Iterable[str]: ...

    def _details(self, path: str) -> Iterable[Entry]:
        """Yield the keys below `path` with what a listing tells of them; no request is made for a single value."""
        # Not in DRIVER: a wrapper or backend that does not override it stays right, and its callers do without sizes.
        return map(Entry, self._keys(path))

    def _copier(self, source: Driver) -> Copier | None:
        """Return what copies values of `source` here without their bytes coming through Python; None if nothing does.

        The system does it from file to file, the server within one service. What it cannot copy, the caller gets and
        sets. Sizes are those of the pairs where the copier does not see any.
        """
        return None

    def _copier_to(self, write: Callable[[str, memoryview], object]) -> Copier | None:
        """Return what gives values to `write` as the buffers that they came in; None if they are bytes anyway.

        `write` is safe for threads and keeps no buffer. What is better read in a batch, the copier leaves.
        """
        return None

    def _entry(self, key: str) -> Entry:
        """Return what the store tells of one value, in one request; KeyError if absent."""
        return Entry(key, self._nbytes(key))

    def _with_descriptor(self, key: str, act: Callable[[int, Entry], T]) -> T | None:
        """Return what `act` makes of the open file that is a value, and of its entry; None if values are no files.

        File and entry are one: a set meanwhile makes another file. KeyError if absent.
        """
        return None

    def _stored_key(self, key: str) -> str:
        """Return the name under which other programs find the value at the place of this store."""
        return key

    def _folded_key(self, key: str) -> str:
        """Return what two keys have in common if they are one value here, and no others have."""
        # Not in DRIVER: it differs from the key only where `_aliases` says so.
        return key

    def _extent(self, key: str) -> Extent | None:
        """Return where a value that is there lies as it is; None if it lies nowhere so. No request is made."""
        return None

    def _location(self, path: str) -> tuple[object, str]:
        """Return the space in which values lie, and where what is at and below `path` lies in it.

        What lies at or below equal places of equal spaces may be the same. ``"files"`` are those of this machine.
        """
        # Not in DRIVER: a backend that does not override it shares what it holds with itself only.
        return id(self), path

    def _irregular(self, path: str) -> Iterable[tuple[str, str]]:
        """Yield what lies below `path`, is no value, and no listing shows: its name and what is odd about it."""
        # Not in DRIVER either: where nothing can be told, nothing is.
        return ()

    def _departures(self, path: str) -> Iterable[tuple[str, str]]:
        """Yield how what is stored departs from what its name or form promises: a key or ``""``, and how."""
        return ()

    def _contains(self, key: str) -> bool:
        try:
            self._get(key)
        except KeyError:
            return False
        return True

    def _count(self) -> int:
        return sum(1 for _ in self._keys(""))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._get(key)[start:stop]

    def _get_ranges(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        if not self.capabilities.ranged:
            value = self._get(key)
            return [value[start:stop] for start, stop in spans]
        return read_spans(lambda start, stop: self._get_range(key, start, stop), spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        value = self._get(key)
        return value[max(0, len(value) - n) :]

    def _nbytes(self, key: str) -> int:
        return len(self._get(key))

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return LazyItems(self._get, keys)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        done = checklist(items)
        for key, value in items:
            self._set(key, value)
            done.add(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        done = checklist(keys)
        for key in keys:
            with suppress(KeyError):
                self._delete(key)
            done.add(key)

    def _listdir(self, path: str) -> Iterable[str]:
        return k.children(self._keys(path), path)

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        """Yield what `_listdir` does, each name with whether keys may be below it: False saves whoever walks a look."""
        # Not in DRIVER: without it each name is looked at, and nothing is missed.
        return ((name, True) for name in self._listdir(path))

    def _rmdir(self, path: str) -> None:
        self._delete_many(list(self._keys(path)))

    def _rename(self, source: str, destination: str) -> None:
        moving = list(self._keys(source))
        if self._contains(source):
            moving.append(source)
        # All copied before the first is deleted: whatever fails, the source is whole.
        read = self._get_many(moving).__getitem__ if self.capabilities.concurrent else self._get
        self._set_many((k.replace_root(key, source, destination), read(key)) for key in moving)
        self._delete_many(moving)

    def _getsize(self, path: str) -> int:
        if path:
            with suppress(KeyError):
                return self._nbytes(path)
        total = 0
        for name in self._listdir(path):
            try:
                size = self._nbytes(k.join(path, name))
            except KeyError:  # a directory, or deleted meanwhile
                continue
            if size < 0:
                return -1
            total += size
        return total

    def _clear(self) -> None:
        self._rmdir("")

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        return ()

    def _flush(self) -> None:
        """Nothing to flush unless a backend buffers or promises durability."""

    def _close(self) -> None:
        """Nothing to release unless a backend holds something."""
