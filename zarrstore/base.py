"""The contract: a public face that judges, over a driver that stores.

`Store` is both, and the base of every backend and wrapper. Its public methods are a plain `MutableMapping` of `str` to
`bytes` with `listdir`, `rmdir`, `rename`, `getsize` and batches; they judge keys, normalise paths, turn values into
bytes, and are never overridden. What a backend overrides stands in `zarrstore.driver`, with the promise of each method.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex

from zarrstore import keys as k
from zarrstore.driver import DRIVER, WRITES, Capabilities, Driver, Entry
from zarrstore.errors import ConflictError, DestinationExistsError, InvalidKeyError, RenameError
from zarrstore.keys import judged
from zarrstore.values import as_buffer, as_bytes

__all__ = ["DRIVER", "WRITES", "Capabilities", "Entry", "Store"]


class Store(Driver, MutableMapping[str, bytes]):
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

    #: Separator of chunk coordinates that zarr 2 reads off a store; None leaves it to the array.
    _dimension_separator: Literal[".", "/"] | None = None

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

    def _repr_html_(self) -> str:
        # The verbs stand above this layer, and a prompt that shows no HTML does not pay for them.
        return str(importlib.import_module("zarrstore.tools.showing").html_of(self))

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

        Other writers: what a thread sets at the source meanwhile stays there or moves along, in DictStore, a dict,
        DirectoryStore, LMDBStore, SQLiteStore, ZipStore, OverlayStore and DBMStore (not over dbm.sqlite3); what another
        process sets, in DirectoryStore, LMDBStore and SQLiteStore. Elsewhere (object stores, FSStore, zarr 3 stores,
        other mappings, single chunks of NestedDirectoryStore) each key is copied and then deleted, and no service
        deletes only what is unchanged: what is set over a key between the two is lost, so let nobody write there.
        """
        src, dst = _normal_path(source), k.normalize_path(destination)
        if src is None or (not (self._rename_checks_source and src != dst) and not self._is_occupied(src)):
            raise KeyError(source or "the root")
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
