"""Any mapping as a Store: the one place that looks for what a foreign mapping can do by itself."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from zarrstore import keys as k
from zarrstore.allowance import Sizes
from zarrstore.base import Capabilities, Entry, Store
from zarrstore.batch import AheadItems, LazyItems
from zarrstore.errors import ReadOnlyError
from zarrstore.values import as_bytes, nbytes

__all__ = ["KVStore", "as_store"]

#: Foreign mappings behind which a bridge does better than their own methods -> what makes it, imported on use. FSMap
#: lists all below its root, asks S3 twice per value, takes "*" in a key for a pattern, and a failed delete for absence.
_BRIDGES = {("fsspec.mapping", "FSMap"): ("zarrstore.stores.fsspec", "from_map")}

#: Classes of zarr 2 and 3 that look like mappings, of names to nodes: their store is what is meant.
_NODES = ("Group", "Array")


class KVStore(Store):
    """Any mapping of `str` to bytes-like values, as a Store that uses whatever the mapping can do by itself.

    Parameters
    ----------
    mapping : Mapping
        A dict, a zarr 2 store, a class of your own. Its own ``listdir``, ``rmdir``, ``rename``, ``getsize``,
        ``getitems``, ``setitems``, ``delitems``, ``getrange``, ``getranges``, ``getsuffix``, ``keys_below``, ``flush``
        and ``close`` are used where it has them. One that cannot be written (no ``__setitem__``)
        makes a read-only store.

    Notes
    -----
    Keys of the mapping that are no keys here (``"a//b"``, ``1``) are left out of listings; values come out as
    `bytes`. Thread and process safety are the mapping's. zarr 2's generic ``rename`` strips characters instead of the
    prefix and is not used.

    Examples
    --------
    >>> store = KVStore({"foo/0.0": bytearray(b"data"), "foo/.zarray": b"{}"})
    >>> store["foo/0.0"], store.listdir("foo")
    (b'data', ['.zarray', '0.0'])
    """

    def __init__(self, mapping: Any) -> None:
        if not (isinstance(mapping, Mapping) or (hasattr(mapping, "__getitem__") and hasattr(mapping, "keys"))):
            raise TypeError(f"cannot use {type(mapping).__name__} as a store: it is not a mapping of str to bytes")
        self.mapping: Any = mapping
        writable = hasattr(mapping, "__setitem__")
        own_items = self._own("getitems")
        self.capabilities = Capabilities(
            writable=writable,
            erasable=writable and hasattr(mapping, "__delitem__"),
            concurrent=own_items is not None,
            ranged=self._own("getrange") is not None,
            thread_safe=isinstance(mapping, dict),
            blocking=not isinstance(mapping, dict),
        )
        self._dimension_separator = getattr(mapping, "_dimension_separator", None)
        self._value_sizes = Sizes()
        self._getitems = _batch_reader(own_items) if own_items is not None else None

    def __repr__(self) -> str:
        return f"KVStore(<{type(self.mapping).__name__}>)"

    def _place(self) -> object:
        return self.mapping

    def _location(self, path: str) -> tuple[object, str]:
        return id(self.mapping), path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.mapping,)

    def _own(self, name: str) -> Callable[..., Any] | None:
        """Return the mapping's own method of that name, if it has one that can be trusted."""
        method = getattr(self.mapping, name, None)
        if not callable(method):
            return None
        if getattr(method, "__module__", None) == "zarr._storage.store" and name == "rename":
            return None
        return method  # type: ignore[no-any-return]

    def _get(self, key: str) -> bytes:
        return as_bytes(self.mapping[key])

    def _set(self, key: str, value: bytes) -> None:
        if not self.capabilities.writable:
            raise ReadOnlyError(key, self)
        self.mapping[key] = value

    def _delete(self, key: str) -> None:
        if not self.capabilities.erasable:
            raise ReadOnlyError(key, self)
        # zarr 2 and zict delete a whole directory for its name; here only a value can be deleted.
        if key not in self.mapping:
            raise KeyError(key)
        del self.mapping[key]

    def _contains(self, key: str) -> bool:
        return key in self.mapping

    def _keys(self, path: str) -> Iterable[str]:
        below = self._own("keys_below")
        found = below(path) if below is not None else self._snapshot()
        return (key for key in found if isinstance(key, str) and k.is_below(key, path) and k.is_key(key))

    def _details(self, path: str) -> Iterable[Entry]:
        if not isinstance(self.mapping, dict):
            return super()._details(path)
        return (Entry(key, nbytes(self.mapping.get(key))) for key in self._keys(path))

    def foreign_names(self) -> Iterable[object]:
        """Yield the names in the mapping that are no keys, which listings leave out."""
        return (name for name in self._snapshot() if not k.is_key(name))

    def _snapshot(self) -> Iterable[Any]:
        # A dict must not change while it is iterated; list() of one is a single step of the interpreter.
        return list(self.mapping) if isinstance(self.mapping, dict) else self.mapping.keys()

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        own = self._own("getrange")
        return as_bytes(own(key, start, stop)) if own is not None else super()._get_range(key, start, stop)

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        own = self._own("getranges")
        return [as_bytes(part) for part in own(key, spans)] if own is not None else super()._get_ranges(key, spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        own = self._own("getsuffix")
        return as_bytes(own(key, n)) if own is not None else super()._get_suffix(key, n)

    def _nbytes(self, key: str) -> int:
        if not self._contains(key):
            raise KeyError(key)
        own = self._own("getsize")
        return int(own(key)) if own is not None else nbytes(self.mapping[key])

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        if self._getitems is None:
            return LazyItems(self._get, keys)
        return AheadItems(self._getitems, keys, sizes=self._value_sizes)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        own = self._own("setitems")
        if own is None:
            return super()._set_many(items)
        own(dict(items))

    def _delete_many(self, keys: Iterable[str]) -> None:
        own = self._own("delitems")
        if own is None:
            return super()._delete_many(keys)
        own([key for key in dict.fromkeys(keys) if key in self.mapping])

    def _listdir(self, path: str) -> Iterable[str]:
        own = self._own("listdir")
        if own is None:
            return super()._listdir(path)
        try:
            return {name for name in own(path) if k.is_key(name)}
        except (KeyError, FileNotFoundError, NotADirectoryError):
            return ()

    def _rmdir(self, path: str) -> None:
        own = self._own("rmdir")
        if own is None or not path:
            return super()._rmdir(path)
        own(path)

    def _rename(self, source: str, destination: str) -> None:
        own = self._own("rename")
        if own is not None:
            own(source, destination)
        elif isinstance(self.mapping, dict) and self.capabilities.erasable:
            self._move(source, destination)
        else:
            super()._rename(source, destination)

    def _move(self, source: str, destination: str) -> None:
        """Move values of a dict; what another thread sets meanwhile stays, or comes along."""
        held = [(key, self.mapping.get(key)) for key in (*self._keys(source), source)]
        moving = {key: value for key, value in held if value is not None}
        targets = {key: k.replace_root(key, source, destination) for key in moving}
        for key, value in moving.items():
            self._set(targets[key], as_bytes(value))
        for key, value in moving.items():
            last = self.mapping.pop(key, value)
            if last is not value:  # set since it was copied
                self._set(targets[key], as_bytes(last))

    def _getsize(self, path: str) -> int:
        own = self._own("getsize")
        return int(own(path)) if own is not None else super()._getsize(path)

    def _clear(self) -> None:
        if isinstance(self.mapping, MutableMapping):
            self.mapping.clear()
        else:
            super()._clear()

    def _flush(self) -> None:
        own = self._own("flush")
        if own is not None:
            own()

    def _close(self) -> None:
        own = self._own("close")
        if own is not None:
            own()


def as_store(mapping: Any) -> Store:
    """Return `mapping` itself if it is a Store, else a KVStore over it.

    An fsspec ``FSMap`` becomes an FSStore; a zarr Group or Array, the part of its store that it stands for.

    Raises
    ------
    TypeError
        `mapping` is no mapping. (`open_store` takes paths, URLs and foreign store objects.)

    Examples
    --------
    >>> as_store({"a": b"1"}).listdir("")
    ['a']
    """
    if isinstance(mapping, Store):
        return mapping
    bridge = _BRIDGES.get((type(mapping).__module__, type(mapping).__qualname__))
    if any(cls.__name__ in _NODES and cls.__module__.partition(".")[0] == "zarr" for cls in type(mapping).__mro__):
        bridge = ("zarrstore.bridges.zarrnodes", "store_of_node")
    if bridge is not None:
        module, maker = bridge
        return getattr(importlib.import_module(module), maker)(mapping)  # type: ignore[no-any-return]
    return KVStore(mapping)


def _batch_reader(getitems: Callable[..., Any]) -> Callable[[Sequence[str]], Mapping[str, bytes]]:
    """Return ``read(keys) -> those found`` over a foreign `getitems`, of which two dialects are about."""
    try:
        parameters = inspect.signature(getitems).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    # fsspec's raises for a missing key unless told to return the error ("omit" leaves every error out, a 403 too);
    # zarr 2's stores want contexts.
    dialect: dict[str, Any] = {}
    if "on_error" in parameters:
        dialect = {"on_error": "return"}
    elif "contexts" in parameters:
        dialect = {"contexts": {}}

    def read(keys: Sequence[str]) -> Mapping[str, bytes]:
        found = getitems(list(keys), **dialect)
        for value in found.values():
            if isinstance(value, Exception) and not isinstance(value, KeyError):
                raise value
        return {key: as_bytes(value) for key, value in found.items() if not isinstance(value, KeyError | None)}

    return read
