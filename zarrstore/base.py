"""The contract: a public face that judges, over a driver that stores.

`Store` is both. Its public methods are a plain `MutableMapping` of `str` to `bytes` with `listdir`, `rmdir`, `rename`,
`getsize` and batches; they judge keys, normalise paths, turn values into bytes, and are never overridden. A backend
overrides *driver* methods, whose names begin with an underscore:

====================================  ======================================================================
``_get(key)``                         the bytes; KeyError only if truly absent                      required
``_set(key, value)``                  stored whole or not at all; a failure keeps the old value     required
``_delete(key)``                      gone; KeyError if absent; never a subtree                     required
``_keys(path)``                       keys below `path`, any order, safe while others write         required
``_contains(key)``                    existence                                                     via _get
``_details(path)``                    the same with sizes and identities, if a listing tells them   via _keys
``_entry(key)``                       the size and identity of one value; KeyError if absent        of _nbytes
``_count()``                          number of keys                                                via _keys
``_get_range(key, start, stop)``      the slice, clipped at the end; stop None is the end           of _get
``_get_suffix(key, n)``               the last n bytes, or all there are                            of _get
``_get_ranges(key, spans)``           a list of slices, one for each (start, stop); one question    of _get_range
``_nbytes(key)``                      size in bytes; KeyError if absent; -1 if it cannot be known   of _get
``_get_many(keys)``                   a mapping of those found, read when asked                     lazy _get
``_set_many(items)``                  all, in order                                                 a loop
``_delete_many(keys)``                all that exist                                                a loop
``_listdir(path)``                    names of the immediate children, each once, any order         via _keys
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

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self, SupportsIndex

from zarrstore import keys as k
from zarrstore.batch import LazyItems
from zarrstore.errors import ConflictError, DestinationExistsError, InvalidKeyError, RenameError
from zarrstore.keys import judged
from zarrstore.spans import Span, read_spans
from zarrstore.values import as_buffer, as_bytes

__all__ = ["DRIVER", "WRITES", "Capabilities", "Entry", "Store"]

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

    Examples
    --------
    >>> Entry("a/0.0")
    Entry(key='a/0.0', nbytes=-1, identity='')
    """

    key: str
    nbytes: int = -1
    identity: str = ""


class Store(MutableMapping[str, bytes]):
    """A mapping of `str` keys to `bytes`, and the base of every store and wrapper here.

    Notes
    -----
    What holds for every store: a key is judged before any I/O (see `keys.check_key`); reading a refused key is simply
    absent, writing one raises InvalidKeyError; a value is any buffer and comes back as `bytes`; deleting a key never
    removes a subtree; only true absence is KeyError. Two stores are equal when they are of one class and stand on one
    place; a store equals another kind of mapping when it holds the same items (which reads them all). Stores are
    unhashable, as all mutable mappings.

    Examples
    --------
    >>> from zarrstore import DictStore
    >>> store = DictStore()
    >>> store["foo/0.0"] = b"data"
    >>> store["foo/0.0"], "foo" in store, store.listdir("foo"), store.getsize("foo")
    (b'data', False, ['0.0'], 4)
    """

    capabilities: Capabilities = Capabilities()
    #: Separator of chunk coordinates that zarr 2 reads off a store; None leaves it to the array.
    _dimension_separator: str | None = None
    #: Whether `_set` and `_set_many` take buffers of the caller's memory beside `bytes`, and keep none of them.
    takes_buffers: bool = False
    #: Whether an array's document must be set before its chunks, because their names in the backend depend on it.
    _documents_first: bool = False
    #: Whether `_rename` itself raises KeyError where nothing is at its source, so that `rename` need not look first.
    _rename_checks_source: bool = False

    # The mapping ---------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> bytes:
        try:
            return self._get(judged[key])
        except (KeyError, TypeError) as exc:
            raise _in_the_callers_spelling(exc, key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        try:
            name = judged[key]
        except TypeError:
            k.refuse_unhashable(key)
        if type(value) is not bytes:
            value = as_buffer(value) if self.takes_buffers else as_bytes(value)
        self._set(name, value)

    def __delitem__(self, key: str) -> None:
        try:
            self._delete(judged[key])
        except (KeyError, TypeError) as exc:
            raise _in_the_callers_spelling(exc, key) from None

    def __contains__(self, key: object) -> bool:
        try:
            name = judged[key]
        except (InvalidKeyError, TypeError):
            return False
        return self._contains(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys(""))

    def __len__(self) -> int:
        return self._count()

    def __bool__(self) -> bool:
        # Not inherited: truth by len() would count every key.
        return next(iter(self._keys("")), None) is not None

    def clear(self) -> None:
        """Remove every key; the store stays usable. Cost: one pass, or less where the backend can."""
        self._clear()

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Set all items of a mapping, of anything with ``keys()``, or of an iterable of pairs, as one batch."""
        self.setitems(other)
        if more:
            self.setitems(more)

    def __or__(self, other: Any) -> dict[str, Any]:
        """Return a new dict of all items of both, `other`'s in the place of those here. Cost: reads every value."""
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[str, Any]:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        """Set all items of `other`, as `update` does."""
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Store):
            place = self._place()
            return type(self) is type(other) and place is not None and place == other._place()
        if isinstance(other, Mapping):
            return dict(self.items()) == dict(other.items())
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _place(self) -> object:
        """What makes two stores of this class equal; None if only identity does."""
        return None

    # Hierarchy -----------------------------------------------------------------------------------------------------

    def listdir(self, path: object = "") -> list[str]:
        """Return the sorted names of the immediate children of `path`; none for a value or a missing path."""
        at = _normal_path(path)
        return [] if at is None else sorted(self._listdir(at))

    def rmdir(self, path: object = "") -> None:
        """Remove every key below `path`, never a value at it; no error if nothing is there; the root empties all."""
        at = _normal_path(path)
        if at is not None:
            self._rmdir(at)

    def rename(self, source: object, destination: object) -> None:
        """Move a value, a directory, or both, to where nothing stands.

        Parameters
        ----------
        source, destination : str
            Paths. A `source` that equals `destination` is left as it is.

        Raises
        ------
        KeyError
            Nothing is at `source`.
        DestinationExistsError
            Something is at `destination`. Nothing was moved.
        RenameError
            `destination` lies within `source`. Nothing was moved.
        ConflictError
            `destination` lies below a value, and the store is hierarchical. Nothing was moved.

        Notes
        -----
        One contract for every store. Deviation from zarr 2, where the outcome differed by store and could lose data.
        """
        src, dst = _normal_path(source), k.normalize_path(destination)
        if src is None or (not (self._rename_checks_source and src != dst) and not self._is_occupied(src)):
            raise KeyError(source)
        if src == dst:
            return
        if dst:
            k.check_key(dst)
        if k.is_below(dst, src):
            raise self._unmovable(src, source, RenameError(src, dst))
        if not dst or self._is_occupied(dst):
            raise self._unmovable(src, source, DestinationExistsError(src, dst))
        if self.capabilities.hierarchical:
            for above in k.parents(dst):
                if above and self._contains(above):
                    raise self._unmovable(src, source, ConflictError(dst, self, above))
        try:
            self._rename(src, dst)
        except KeyError as exc:
            raise _in_the_callers_spelling(exc, source) from None

    def _unmovable(self, src: str, source: object, error: Exception) -> Exception:
        """Return why `src` cannot be moved: that nothing is there comes first."""
        return KeyError(source) if self._rename_checks_source and not self._is_occupied(src) else error

    def _is_occupied(self, path: str) -> bool:
        """Tell whether a value or a directory is at `path`."""
        if path and self._contains(path):
            return True
        return next(iter(self._listdir(path)), None) is not None

    def getsize(self, path: object = "") -> int:
        """Return the bytes of the value at `path`, or of those immediately below it; 0 if nothing, -1 if unknown."""
        at = _normal_path(path)
        return 0 if at is None else self._getsize(at)

    def sweep(self, path: object = "", *, dry_run: bool = False) -> list[str]:
        """Delete what writers that died left below `path` and is no key; return its names, sorted."""
        at = _normal_path(path)
        return [] if at is None else sorted(self._sweep(at, dry_run))

    def keys_below(self, path: object = "") -> Iterator[str]:
        """Yield the full keys below `path`, in any order, without listing the rest of the store."""
        at = _normal_path(path)
        return iter(()) if at is None else iter(self._keys(at))

    # Batches and parts ---------------------------------------------------------------------------------------------

    def getitems(self, keys: Iterable[str], *, contexts: object = None) -> Mapping[str, bytes]:
        """Return a mapping of those of `keys` that exist, whose values are read when they are asked for.

        Parameters
        ----------
        keys : iterable of str
            Refused keys are simply absent.
        contexts : mapping, optional
            Taken and not used: zarr 2 passes one.

        Returns
        -------
        Mapping of str to bytes
            A backend that gains from concurrency fetches ahead, within a budget of bytes. Values handed out are not
            kept.
        """
        return self._get_many(_keys_among(keys))

    def setitems(self, items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Set all items of a mapping, or of an iterable of pairs.

        Parameters
        ----------
        items : mapping, object with ``keys()``, or iterable of pairs
            Whatever `dict.update` takes. The keys of the first two are all judged before the first value is written.
        """
        pairs: Iterable[tuple[str, Any]]
        if isinstance(items, Mapping):
            for key in items:
                k.check_key(key)
            pairs = items.items()
        elif hasattr(items, "keys"):  # as dict.update asks; multiprocessing's dict is no Mapping
            mapping: Any = items
            names = [k.check_key(key) for key in mapping.keys()]  # noqa: SIM118
            pairs = ((name, mapping[name]) for name in names)
        else:
            pairs = items
        as_value: Callable[[Any], Any] = as_buffer if self.takes_buffers else as_bytes
        self._set_many((k.check_key(key), as_value(value)) for key, value in pairs)

    def delitems(self, keys: Iterable[str]) -> None:
        """Delete those of `keys` that exist."""
        self._delete_many(_keys_among(keys))

    def getrange(self, key: str, start: SupportsIndex, stop: SupportsIndex | None = None) -> bytes:
        """Return bytes `start` to `stop` (None: the end) of a value, clipped at its end; KeyError if absent."""
        first = _offset("start", start)
        last = None if stop is None else _offset("stop", stop)
        try:
            return self._get_range(judged[key], first, last)
        except (KeyError, TypeError) as exc:
            raise _in_the_callers_spelling(exc, key) from None

    def getranges(self, key: str, spans: Iterable[tuple[SupportsIndex, SupportsIndex | None]]) -> list[bytes]:
        """Return several parts of one value, each clipped at its end; KeyError if absent.

        Parameters
        ----------
        key : str
            The value.
        spans : iterable of (start, stop), bytes
            Offsets as `getrange` takes them, in any order; parts may overlap.

        Returns
        -------
        list of bytes
            One part for each span, in the order of `spans`.

        Notes
        -----
        One question where the backend can; elsewhere one `getrange` for each run of spans that lie close together
        (`spans.coalesce`). A value that changes meanwhile may give parts of both.
        """
        offsets = [(_offset("start", start), None if stop is None else _offset("stop", stop)) for start, stop in spans]
        try:
            return self._get_ranges(judged[key], offsets)
        except (KeyError, TypeError) as exc:
            raise _in_the_callers_spelling(exc, key) from None

    def getsuffix(self, key: str, n: SupportsIndex) -> bytes:
        """Return the last `n` bytes of a value, or all there are; KeyError if absent."""
        count = _offset("n", n)
        try:
            return self._get_suffix(judged[key], count)
        except (KeyError, TypeError) as exc:
            raise _in_the_callers_spelling(exc, key) from None

    # Life ----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make durable what was set before, where `capabilities.durable_flush` promises it."""
        self._flush()

    def close(self) -> None:
        """Flush and release; a second call does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # zarr 2 asks these of a store.
    _store_version = 2

    def is_readable(self) -> bool:
        """Tell that values can be read: always True."""
        return True

    def is_writeable(self) -> bool:
        """Tell whether values can be set (zarr 2's spelling)."""
        return self.capabilities.writable

    def is_erasable(self) -> bool:
        """Tell whether keys can be deleted."""
        return self.capabilities.erasable

    def is_listable(self) -> bool:
        """Tell whether keys can be listed."""
        return self.capabilities.listable

    # The driver ----------------------------------------------------------------------------------------------------

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

    def _copier(self, source: Store) -> Callable[[str, str], int] | None:
        """Return ``copy(key of source, key) -> bytes`` that copies past Python; None if these two stores cannot.

        Where it raises OSError or KeyError, nothing was changed, and the caller goes through `_get` and `_set`.
        """
        return None

    def _entry(self, key: str) -> Entry:
        """Return what the store tells of one value, in one request; KeyError if absent."""
        return Entry(key, self._nbytes(key))

    def _stored_key(self, key: str) -> str:
        """Return the name under which other programs find the value at the place of this store."""
        return key

    def _irregular(self, path: str) -> Iterable[tuple[str, str]]:
        """Yield what lies below `path`, is no value, and no listing shows: its name and what is odd about it."""
        # Not in DRIVER either: where nothing can be told, nothing is.
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
        for key, value in items:
            self._set(key, value)

    def _delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            with suppress(KeyError):
                self._delete(key)

    def _listdir(self, path: str) -> Iterable[str]:
        return k.children(self._keys(path), path)

    def _rmdir(self, path: str) -> None:
        self._delete_many(list(self._keys(path)))

    def _rename(self, source: str, destination: str) -> None:
        moving = list(self._keys(source))
        if self._contains(source):
            moving.append(source)
        # All copied before the first is deleted: whatever fails, the source is whole.
        self._set_many((k.replace_root(key, source, destination), self._get(key)) for key in moving)
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


def _normal_path(path: object) -> str | None:
    """Return a path in its normal spelling, None where nothing can be: no key begins so."""
    at = k.normalize_path(path)
    return None if at and not k.is_key(at) else at


def _keys_among(keys: Iterable[object]) -> list[str]:
    """Return those of `keys` that are keys: the others are absent in every store."""
    names = []
    for key in keys:
        try:
            names.append(judged[key])
        except (InvalidKeyError, TypeError):
            continue
    return names


def _in_the_callers_spelling(exc: Exception, key: object) -> Exception:
    """Return the error to raise for `key` in the caller's own spelling, whatever a driver below made of it."""
    if type(exc) is KeyError:
        return KeyError(key)
    if isinstance(exc, TypeError) and not isinstance(key, str):
        return InvalidKeyError(key, f"a key is a str, not {type(key).__name__}")
    return exc


def _offset(name: str, value: SupportsIndex) -> int:
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{name} is {number}: offsets count from the start; getsuffix(key, n) gives the last n bytes")
    return number
