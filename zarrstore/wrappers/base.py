"""What every wrapper inherits: each driver method handed to the driver of the store it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from zarrstore.base import Entry, Store
from zarrstore.batch import MappedItems
from zarrstore.driver import Extent
from zarrstore.targets import Target, store_of

__all__ = ["Wrapper"]

T = TypeVar("T")


class Wrapper(Store):
    """A store around a store, that changes nothing; the base of those that change one thing.

    Parameters
    ----------
    inner : MutableMapping, path, URL or store object
        The store that is wrapped: any mapping, or what `open_store` takes, which is opened and closed with the wrapper.

    Notes
    -----
    Every driver method is forwarded to the driver of `inner`, so a key is judged once however many wrappers lie
    between, and the fast paths of the backend are reached. A wrapper that changes keys overrides `_to_inner` and
    `_from_inner`. Thread, process and crash safety are those of `inner`. A pickled wrapper carries `inner`.

    Examples
    --------
    >>> store = Wrapper({"a/b": b"1"})
    >>> store["a/b"], store.listdir("a")
    (b'1', ['b'])
    """

    inner: Store
    #: Values go to `inner` as they come, one by one: a buffer is handed on if `inner` takes buffers.
    passes_buffers: bool = False
    #: Whether its `_get` and `_set` pass the values of `inner` on unchanged: a copy may then bypass this wrapper.
    keeps_values: bool = False
    #: The mode of `open_store` in which a path is opened.
    opening_mode: str = "a"

    def __init__(self, inner: Target) -> None:
        self.inner = store_of(inner, self.opening_mode)
        self.takes_buffers = self.passes_buffers and self.inner.takes_buffers
        self.capabilities = self.inner.capabilities
        self._in_flight = self.inner._in_flight
        self._dimension_separator = self.inner._dimension_separator
        self._documents_first = type(self)._documents_first or self.inner._documents_first
        self._aliases = type(self)._aliases or self.inner._aliases
        self._refused_documents = type(self)._refused_documents or self.inner._refused_documents

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    def _place(self) -> object:
        place = self.inner._place()
        return None if place is None else (type(self.inner), place)

    def _to_inner(self, path: str) -> str:
        """Return the key or path of `inner` that `path` stands for."""
        return path

    def _from_inner(self, key: str) -> str:
        """Return the key under which a key of `inner` appears here."""
        return key

    def _get(self, key: str) -> bytes:
        return self.inner._get(self._to_inner(key))

    def _contains(self, key: str) -> bool:
        return self.inner._contains(self._to_inner(key))

    def _keys(self, path: str) -> Iterable[str]:
        return map(self._from_inner, self.inner._keys(self._to_inner(path)))

    def _details(self, path: str) -> Iterable[Entry]:
        # A wrapper with listings or values of its own must not pass on sizes and identities of other values.
        if type(self)._keys is not Wrapper._keys or type(self)._get is not Wrapper._get:
            return super()._details(path)
        entries = self.inner._details(self._to_inner(path))
        return (entry._replace(key=self._from_inner(entry.key)) for entry in entries)

    def _entry(self, key: str) -> Entry:
        cls = type(self)
        if cls._get is not Wrapper._get or cls._nbytes is not Wrapper._nbytes or cls._contains is not Wrapper._contains:
            return super()._entry(key)
        return self.inner._entry(self._to_inner(key))._replace(key=key)

    def _with_descriptor(self, key: str, act: Callable[[int, Entry], T]) -> T | None:
        # A wrapper with values of its own has them in no file.
        if type(self)._get is not Wrapper._get or type(self)._entry is not Wrapper._entry:
            return None
        place = self._to_inner(key)
        if place != key:
            return self.inner._with_descriptor(place, lambda fd, entry: act(fd, entry._replace(key=key)))
        return self.inner._with_descriptor(key, act)

    def _stored_key(self, key: str) -> str:
        return self._from_inner(self.inner._stored_key(self._to_inner(key)))

    def _folded_key(self, key: str) -> str:
        return self.inner._folded_key(self._to_inner(key))

    def _extent(self, key: str) -> Extent | None:
        # A wrapper with values of its own keeps them in no place.
        return self.inner._extent(self._to_inner(key)) if type(self)._get is Wrapper._get else None

    def _location(self, path: str) -> tuple[object, str]:
        return self.inner._location(self._to_inner(path))

    def _irregular(self, path: str) -> Iterable[tuple[str, str]]:
        # These names may be no keys, so a wrapper that changes keys cannot change them: they are those of `inner`.
        return self.inner._irregular(self._to_inner(path))

    def _departures(self, path: str) -> Iterable[tuple[str, str]]:
        return self.inner._departures(self._to_inner(path))

    def _count(self) -> int:
        return self.inner._count()

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self.inner._get_range(self._to_inner(key), start, stop)

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        return self.inner._get_ranges(self._to_inner(key), spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self.inner._get_suffix(self._to_inner(key), n)

    def _nbytes(self, key: str) -> int:
        return self.inner._nbytes(self._to_inner(key))

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        below = {key: self._to_inner(key) for key in keys}
        return MappedItems(self.inner._get_many(list(below.values())), below)

    def _listdir(self, path: str) -> Iterable[str]:
        return self.inner._listdir(self._to_inner(path))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        # A wrapper with listings of its own may show other directories.
        if type(self)._listdir is not Wrapper._listdir:
            return super()._list_children(path)
        return self.inner._list_children(self._to_inner(path))

    def _getsize(self, path: str) -> int:
        return self.inner._getsize(self._to_inner(path))

    def _set(self, key: str, value: bytes) -> None:
        self.inner._set(self._to_inner(key), value)

    def _delete(self, key: str) -> None:
        self.inner._delete(self._to_inner(key))

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        if type(self)._to_inner is not Wrapper._to_inner:
            items = ((self._to_inner(key), value) for key, value in items)
        self.inner._set_many(items)

    def _delete_many(self, keys: Iterable[str]) -> None:
        if type(self)._to_inner is not Wrapper._to_inner:
            keys = map(self._to_inner, keys)
        self.inner._delete_many(keys)

    def _rmdir(self, path: str) -> None:
        self.inner._rmdir(self._to_inner(path))

    def _rename(self, source: str, destination: str) -> None:
        self.inner._rename(self._to_inner(source), self._to_inner(destination))

    def _clear(self) -> None:
        self.inner._clear()

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        return map(self._from_inner, self.inner._sweep(self._to_inner(path), dry_run))

    def _flush(self) -> None:
        self.inner._flush()

    def _close(self) -> None:
        self.inner._close()
