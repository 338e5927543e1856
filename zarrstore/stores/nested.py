"""Chunks in nested directories, under either spelling of their keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.errors import ConflictError, DestinationExistsError, InvalidKeyError, MetadataError
from zarrstore.keys import parent
from zarrstore.metadata.documents import ZARRAY, loads
from zarrstore.stores.directory import DirectoryStore

__all__ = ["NestedDirectoryStore"]

T = TypeVar("T")

#: For how long, in seconds, an array that was seen is believed to be there.
_FRESH = 1.0
_MOST = 1 << 16


class _Array(NamedTuple):
    """What was seen of an array, and until when it is believed."""

    until: float
    #: Directories that have the name of a chunk: its key would be a value where a directory is.
    taken: frozenset[str]


class _Nested(dict[str, str]):
    """The nested spelling of keys seen before: a look-up costs a tenth of `keys.nest`."""

    def __missing__(self, key: str) -> str:
        if len(self) >= _MOST:
            self.clear()
        self[key] = nested = k.nest(key)
        return nested


_nested = _Nested()


class NestedDirectoryStore(DirectoryStore):
    """Keep chunk ``foo/0.1`` in the file ``foo/0/1``, and find it as ``foo/0.1`` and as ``foo/0/1``.

    Parameters
    ----------
    path : path-like
        The root directory, made absolute here and created by the first write.
    normalize_keys : bool, default False
        As `DirectoryStore`.
    dimension_separator : {'/'}
        None means '/' too.
    **options
        Further keywords of `DirectoryStore`.

    Raises
    ------
    ValueError
        `dimension_separator` is another.

    Notes
    -----
    A key whose last segment is numbers parted by dots, and the same with slashes, are one record. Below an array (a
    directory with ``.zarray``) its file is nested, and it is listed as the array's
    ``dimension_separator`` says: ``foo/0.1`` if there is none, as in the trees of zarr 2.2; ``foo/0/1`` if it is '/',
    as in those of zarr 2.18. Elsewhere it is listed as it was set. Flat files that other stores wrote are read too, and
    nested once their ``.zarray`` is set. A directory of chunks whose keys are flat holds no keys of its own: listdir
    of ``foo/0`` is empty.

    Cost: that of `DirectoryStore`, and for an absent chunk one more system call a spelling. Threads, processes and
    crash: as `DirectoryStore`. Source: zarr 2.2, which nests every such key, and 2.18.7, which nests none but tells
    arrays to; deviation: `listdir` gives immediate children (zarr 2.18.7 gives ``0/1``).

    Examples
    --------
    >>> import os, tempfile
    >>> store = NestedDirectoryStore(tempfile.mkdtemp())
    >>> store["foo/.zarray"] = b"{}"
    >>> store["foo/0.1"] = b"chunk"
    >>> store["foo/0/1"], sorted(store), os.path.exists(os.path.join(store.path, "foo", "0", "1"))
    (b'chunk', ['foo/.zarray', 'foo/0.1'], True)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        normalize_keys: bool = False,
        dimension_separator: str | None = "/",
        **options: Any,
    ) -> None:
        if dimension_separator not in (None, "/"):
            raise ValueError(f"dimension_separator is {dimension_separator!r}: a NestedDirectoryStore has '/'")
        super().__init__(path, normalize_keys, "/", **options)
        self._arrays: dict[str, _Array] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._arrays = {}

    # One value --------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        try:
            return super()._get(_nested[key])
        except KeyError as exc:
            return self._read_flat(super()._get, key, exc)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        get = super()._get_range
        try:
            return get(_nested[key], start, stop)
        except KeyError as exc:
            return self._read_flat(lambda flat: get(flat, start, stop), key, exc)

    def _get_suffix(self, key: str, n: int) -> bytes:
        get = super()._get_suffix
        try:
            return get(_nested[key], n)
        except KeyError as exc:
            return self._read_flat(lambda flat: get(flat, n), key, exc)

    def _nbytes(self, key: str) -> int:
        try:
            return super()._nbytes(_nested[key])
        except KeyError as exc:
            return self._read_flat(super()._nbytes, key, exc)

    def _contains(self, key: str) -> bool:
        if super()._contains(_nested[key]):
            return True
        return any(map(super()._contains, _flat(key)))

    def _stored_key(self, key: str) -> str:
        here = super()._contains
        return next((name for name in (_nested[key], *_flat(key)) if here(name)), key)

    def _read_flat(self, read: Callable[[str], T], key: str, exc: KeyError) -> T:
        """Read a value that is not where it should be from a flat file."""
        if isinstance(exc, InvalidKeyError):
            raise exc
        for flat in _flat(key):
            with suppress(KeyError):
                return read(flat)
        raise KeyError(key)

    def _write(self, key: str, value: bytes | memoryview) -> None:
        nested = _nested[key]
        if nested == key:
            super()._write(key, value)
            if k.name(key) == ZARRAY:
                self._nest_chunks(parent(key))
            return
        array = self._array(parent(key))
        if array is not None and array.taken and k.name(key) in array.taken:
            super()._write(key, value)  # which says what is in the way
        elif array is not None or self._status(nested) is not None:
            super()._write(nested, value)
        else:
            super()._write(key, value)
            if self._is_array(parent(key)):
                # Made meanwhile, by one who may have moved an older value to where it is read first.
                super()._write(nested, value)
                with suppress(KeyError):
                    super()._unlink(key)

    def _unlink(self, key: str) -> Iterable[str]:
        emptied: list[str] = []
        for place in (_nested[key], *_flat(key)):
            with suppress(KeyError):
                emptied.extend(super()._unlink(place))
        if not emptied:
            raise KeyError(key)
        if k.name(key) == ZARRAY:
            self._arrays.clear()
        return emptied

    # Arrays -------------------------------------------------------------------------------------------------------

    def _is_array(self, path: str) -> bool:
        return self._array(path) is not None

    def _array(self, path: str) -> _Array | None:
        now = monotonic()
        seen = self._arrays.get(path)
        if seen is not None and seen.until > now:
            return seen
        if self._status(k.join(path, ZARRAY)) is None:
            return None  # not remembered: the next chunk may come after its array
        if len(self._arrays) >= _MOST:
            self._arrays.clear()
        taken = frozenset(name for name in self._scan(path)[1] if k.nest(name) != name)
        self._arrays[path] = seen = _Array(now + _FRESH, taken)
        return seen

    def _make(self, path: str, key: str) -> None:
        for at in (*k.parents(path), path):
            nested = _nested[at]
            if nested != at and self._is_array(parent(at)):
                if self._status(nested) is not None:
                    raise ConflictError(key, self, at)
                self._arrays.clear()
        super()._make(path, key)

    def _separator(self, array: str) -> str:
        """Return the separator of the keys of an array's chunks."""
        key = k.join(array, ZARRAY)
        try:
            found = loads(DirectoryStore._get(self, key), key).get("dimension_separator")
        except (KeyError, MetadataError):
            return "."
        return "/" if found == "/" else "."

    def _array_around(self, path: str) -> str | None:
        """Return the array of whose chunk directories `path` is one, None if it is none."""
        while path and _is_number(k.name(path)):
            path = parent(path)
            if self._status(k.join(path, ZARRAY)) is not None:
                return path
        return None

    def _is_hidden(self, path: str) -> bool:
        """Tell whether `path` holds chunks whose keys do not lie below it."""
        array = self._array_around(path)
        return array is not None and self._separator(array) == "."

    def _nest_chunks(self, array: str) -> None:
        """Move to their places the chunks that were set before their array."""
        for name in self._scan(array)[0]:
            flat = k.join(array, name)
            nested = k.nest(flat)
            if nested == flat:
                continue
            try:
                super()._rename(flat, nested)
            except DestinationExistsError:  # which is read first
                with suppress(KeyError):
                    super()._unlink(flat)
            except KeyError:  # deleted meanwhile, or a value is in the way; a flat file is found too
                self._tree.prune(parent(nested))

    # Listing ------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterator[str]:
        path = self._lower(path)
        array = self._array_around(path)
        if array is not None and self._separator(array) == ".":
            return
        pending = [(path, array, "/")]
        while pending:
            at, array, separator = pending.pop()
            files, folders = self._scan(at)
            if ZARRAY in files:
                array, separator = at, self._separator(at)
            lead = k.prefix(at)
            for name in files:
                key = lead + name
                if _nested[key] != key and self._is_shadowed(key, folders):
                    continue
                if array is not None:
                    key = k.flatten(key, array) if separator == "." else _nested[key]
                yield key
            pending.extend((lead + name, array if _is_number(name) else None, separator) for name in folders)

    def _is_shadowed(self, flat: str, folders: list[str]) -> bool:
        """Tell whether a flat file stands beside the nested file of the same chunk."""
        nested = k.nest(flat)
        return k.child(nested, parent(flat)) in folders and self._status(nested) is not None

    def _count(self) -> int:
        return Store._count(self)

    def _listdir(self, path: str) -> Iterable[str]:
        path = self._lower(path)
        if self._is_hidden(path):
            return ()
        files, folders = self._scan(path)
        lead = k.prefix(path)
        flat = [name for name in files if k.nest(name) != name]
        if ZARRAY in files and (flat or any(map(_is_number, folders))):
            # A walk, as in zarr 2.2: below here are the chunks that are listed as children of the array.
            return folders + files if not flat and self._separator(path) == "/" else k.children(self._keys(path), path)
        hidden = {name for name in flat if self._is_shadowed(lead + name, folders)}
        return [name for name in files if name not in hidden] + folders

    def _getsize(self, path: str) -> int:
        return Store._getsize(self, path)

    # Trees --------------------------------------------------------------------------------------------------------

    def _rmdir(self, path: str) -> None:
        if not self._is_hidden(self._lower(path)):
            self._arrays.clear()
            super()._rmdir(path)

    def _rename(self, source: str, destination: str) -> None:
        self._arrays.clear()
        one_file = _nested[source] != source or _nested[destination] != destination or _is_number(k.name(source))
        if one_file or ZARRAY in (k.name(source), k.name(destination)):
            Store._rename(self, source, destination)  # to wherever its new name says
        else:
            super()._rename(source, destination)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _flat(key: str) -> Iterator[str]:
    """Yield the flat spellings of a chunk key, `key` itself too if it is one."""
    return k.flat_spellings(_nested[key]) if key[-1:].isdecimal() else iter(())
