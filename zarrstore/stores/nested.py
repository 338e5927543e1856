"""Chunks in nested directories, under either spelling of their keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, Literal, NamedTuple, TypeVar

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.chunknames import flat_spellings, flatten, is_number, nest
from zarrstore.errors import ConflictError, DestinationExistsError, InvalidKeyError, MetadataError
from zarrstore.keys import parent
from zarrstore.metadata.documents import ZARRAY, loads
from zarrstore.stores.directory import DirectoryStore

__all__ = ["NestedDirectoryStore"]

T = TypeVar("T")

#: Seconds for which counts what was seen of a directory.
_FRESH = 1.0
_MOST = 1 << 16
#: In place of a separator: what stands before it is a key.
_AS_IT_IS = "key"


class _Array(NamedTuple):
    """What was seen of an array, and until when it counts."""

    until: float
    #: Directories with the name of a chunk: its key would be a value where a directory is.
    taken: frozenset[str]
    #: Whether chunks lie in flat files, as other stores write them.
    has_flat_files: bool


class _Spelling(NamedTuple):
    """Where a key is looked for."""

    #: The nested spelling; the key itself if it is no flat chunk key.
    nested: str
    #: The directory beside the flat file in which the nested file lies, however deep; "" if both are one.
    first: str


class _Spellings(dict[str, _Spelling]):
    """By key, of keys seen before: a look-up costs a tenth of `nest`."""

    def __missing__(self, key: str) -> _Spelling:
        if len(self) >= _MOST:
            self.clear()
        nested = nest(key)
        at = parent(key)
        first = "" if nested == key else k.join(at, k.child(nested, at) or "")
        self[key] = spelling = _Spelling(nested, first)
        return spelling


_spellings = _Spellings()


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

    When ``.zarray`` is deleted, chunks that were listed flat are moved to flat files, so no key changes its name: one
    rename for each. Iteration yields it after the chunks. `listdir` of an array whose separator is '/' gives names such
    as ``0/1``, as zarr 2.18.7, which counts them (`nchunks_initialized`).

    Cost: that of `DirectoryStore`; where no ``.zarray`` is near, a set has two system calls more and a delete one.
    Threads, processes and crash: as `DirectoryStore`. Source: zarr 2.2, which nests every such key, and 2.18.7, which
    nests none but names '/' to arrays.

    Examples
    --------
    >>> import os, tempfile
    >>> store = NestedDirectoryStore(tempfile.mkdtemp())
    >>> store["foo/.zarray"] = b"{}"
    >>> store["foo/0.1"] = b"chunk"
    >>> store["foo/0/1"], sorted(store), os.path.exists(os.path.join(store.path, "foo", "0", "1"))
    (b'chunk', ['foo/.zarray', 'foo/0.1'], True)
    """

    _aliases = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        normalize_keys: bool = False,
        dimension_separator: Literal["/"] | None = "/",
        **options: Any,
    ) -> None:
        if dimension_separator not in (None, "/"):
            raise ValueError(f"dimension_separator is {dimension_separator!r}: a NestedDirectoryStore has '/'")
        super().__init__(path, normalize_keys, "/", **options)
        self._forget()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        self._arrays: dict[str, _Array] = {}
        #: Directories without an array, and until when that counts.
        self._plain: dict[str, float] = {}
        #: For the first directory of nested chunks: until when what was seen counts, and whether it was absent.
        self._firsts: dict[str, tuple[float, bool]] = {}

    # One value --------------------------------------------------------------------------------------------------------
    #
    # After a set has returned, at most one file of a chunk is left, so it does not matter in which order they are
    # looked for. The memos below only choose the order; they may be a second behind.

    def _get(self, key: str) -> bytes:
        return self._find(super()._get, key)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        get = super()._get_range
        return self._find(lambda place: get(place, start, stop), key)

    def _get_suffix(self, key: str, n: int) -> bytes:
        get = super()._get_suffix
        return self._find(lambda place: get(place, n), key)

    def _nbytes(self, key: str) -> int:
        return self._find(super()._nbytes, key)

    def _entry(self, key: str) -> Entry:
        return self._find(super()._entry, key)._replace(key=key)

    def _with_descriptor(self, key: str, act: Callable[[int, Entry], T]) -> T | None:
        within = super()._with_descriptor
        return self._find(lambda place: within(place, lambda fd, entry: act(fd, entry._replace(key=key))), key)

    def _contains(self, key: str) -> bool:
        contains = super()._contains
        nested, first = _spellings[key]
        if first and self._is_absent(first) and contains(key):
            return True
        return contains(nested) or any(map(contains, _flat(key))) or (self._was_moved(key) and contains(nested))

    def _stored_key(self, key: str) -> str:
        here = super()._contains
        return next((name for name in (_spellings[key].nested, *_flat(key)) if here(name)), key)

    def _folded_key(self, key: str) -> str:
        return nest(super()._folded_key(key))

    def _find(self, read: Callable[[str], T], key: str) -> T:
        """Return what `read` returns for the file in which a chunk is found."""
        nested, first = _spellings[key]
        if first and self._is_absent(first):
            try:
                return read(key)
            except InvalidKeyError:
                raise
            except KeyError:
                pass
        try:
            return read(nested)
        except InvalidKeyError:
            raise
        except KeyError:
            for flat in _flat(key):
                with suppress(KeyError):
                    return read(flat)
        if self._was_moved(key):
            return read(nested)
        raise KeyError(key)

    def _is_absent(self, first: str) -> bool:
        """Tell whether a directory of nested chunks was absent when it was looked for within the last second."""
        now = monotonic()
        until, absent = self._firsts.get(first, (0.0, False))
        if until > now:
            return absent
        if len(self._firsts) >= _MOST:
            self._firsts.clear()
        absent = not self._exists(first)
        self._firsts[first] = (now + _FRESH, absent)
        return absent

    def _exists(self, path: str) -> bool:
        # os.access: unlike os.stat, it raises nothing where the path is absent, which costs half.
        return os.access(self._base + self._own_path(path), os.F_OK)

    def _is_value(self, path: str) -> bool:
        return self._exists(path) and self._status(path) is not None

    def _was_moved(self, key: str) -> bool:
        """Tell whether a chunk that was found nowhere may have been moved meanwhile."""
        return next(_flat(key), None) is not None and self._exists(_spellings[key].nested)

    def _write(self, key: str, value: bytes | memoryview) -> None:
        nested, first = _spellings[key]
        if nested == key:
            self._write_over_flat(key, value)
            if k.name(key) == ZARRAY:
                self._plain.pop(parent(key), None)
                self._nest_chunks(parent(key))
            return
        array = self._array(parent(key))
        if array is not None and array.taken and k.name(key) in array.taken:
            super()._write(key, value)  # raises, and names what is in the way
        elif array is not None and array.has_flat_files:
            self._write_over_flat(key, value)
        elif array is not None or (not self._is_absent(first) and self._status(nested) is not None):
            super()._write(nested, value)
        else:
            super()._write(key, value)
            # The array, or the nested file, may have come meanwhile, with an older value that is read first.
            if self._is_value(k.join(parent(key), ZARRAY)) or self._is_value(nested):
                self._forget()
                self._write_over_flat(key, value)

    def _write_over_flat(self, key: str, value: bytes | memoryview) -> None:
        """Write the nested file of a chunk, and remove its flat ones."""
        nested = _spellings[key].nested
        if self._unsynced is not None and any(map(self._exists, _flat(key))):
            self._note_removal(self._own_path(nested))  # the value of the chunk goes: the new one is synced first
        super()._write(nested, value)
        for flat in filter(self._exists, _flat(key)):
            with suppress(KeyError):
                super()._unlink(flat)

    def _unlink(self, key: str, is_value: bool = False) -> Iterable[str]:
        if k.name(key) == ZARRAY and self._status(key) is not None:
            self._flatten_chunks(parent(key))
            self._forget()
        nested, first = _spellings[key]
        emptied: list[str] = []
        if first and self._is_absent(first):
            with suppress(KeyError):
                emptied.extend(super()._unlink(key))
                if not self._exists(nested):
                    return emptied
        for place in (nested, *_flat(key)):
            with suppress(KeyError):
                emptied.extend(super()._unlink(place))
        if not emptied:
            raise KeyError(key)
        return emptied

    def _values_among(self, keys: list[str]) -> set[str]:
        # Each key has several places.
        return set()

    def _delete_many(self, keys: Iterable[str]) -> None:
        # Documents of arrays last: before, each of them would move the chunks that are deleted next.
        super()._delete_many(sorted(keys, key=lambda key: k.name(key) == ZARRAY))

    # Arrays -------------------------------------------------------------------------------------------------------

    def _array(self, path: str) -> _Array | None:
        """Return what is known of the array at a path, None if there is none, or was none within the last second."""
        now = monotonic()
        array = self._arrays.get(path)
        if array is not None and array.until > now:
            return array
        if self._plain.get(path, 0.0) > now:
            return None
        if len(self._arrays) + len(self._plain) >= _MOST:
            self._forget()
        if self._status(k.join(path, ZARRAY)) is None:
            self._plain[path] = now + _FRESH
            return None
        files, folders = self._scan(path)
        taken = frozenset(name for name in folders if nest(name) != name)
        has_flat_files = any(nest(name) != name for name in files)
        # The more names there are, the longer the scan counts: it takes at most a fiftieth of the time.
        until = now + max(_FRESH, 50 * (monotonic() - now))
        self._arrays[path] = array = _Array(until, taken, has_flat_files)
        return array

    def _make(self, path: str, key: str) -> None:
        for at in (*k.parents(path), path):
            nested = _spellings[at].nested
            if nested != at and self._array(parent(at)) is not None:
                if self._status(nested) is not None:
                    raise ConflictError(key, self, at)
                self._arrays.clear()  # `taken` has a new member
        super()._make(path, key)
        self._firsts.clear()

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
        while path and is_number(k.name(path)):
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
            nested = nest(flat)
            if nested == flat:
                continue
            try:
                super()._rename_noted(flat, nested)
            except DestinationExistsError:  # which is read first
                with suppress(KeyError):
                    super()._unlink(flat)
            except KeyError:  # deleted meanwhile, or a value is in the way; a flat file is found too
                self._tree.prune(parent(nested))

    def _flatten_chunks(self, array: str) -> None:
        """Move to flat files the chunks that are listed flat: without ``.zarray`` they would be listed nested."""
        if self._separator(array) != ".":
            return
        pending = [k.join(array, name) for name in self._scan(array)[1] if is_number(name)]
        while pending:
            at = pending.pop()
            files, folders = self._scan(at)
            if ZARRAY in files:  # an array of its own
                continue
            pending.extend(k.join(at, name) for name in folders if is_number(name))
            for name in files:
                nested = k.join(at, name)
                flat = flatten(nested, array)
                if flat != nested:
                    self._move_over(nested, flat)

    def _move_over(self, nested: str, flat: str) -> None:
        try:
            super()._rename_noted(nested, flat)
        except DestinationExistsError:  # an older value: the nested file is read first
            with suppress(KeyError):
                super()._unlink(flat)
            with suppress(KeyError, DestinationExistsError):
                super()._rename_noted(nested, flat)
        except KeyError:  # deleted meanwhile
            pass

    # Listing ------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterator[str]:
        path = self._own_path(path)
        array = self._array_around(path)
        if array is not None and self._separator(array) == ".":
            return
        pending: list[tuple[str, str | None, str]] = [(path, array, "/")]
        while pending:
            at, array, separator = pending.pop()
            if separator == _AS_IT_IS:
                yield at
                continue
            files, folders = self._scan(at)
            lead = k.prefix(at)
            if ZARRAY in files:
                array, separator = at, self._separator(at)
                # After the chunks: whoever deletes what is listed, key by key, would change their names.
                files.remove(ZARRAY)
                pending.append((lead + ZARRAY, None, _AS_IT_IS))
            numbered = any(map(is_number, folders))
            for name in files:
                key = lead + name
                if numbered and _spellings[key].first and self._is_shadowed(key, folders):
                    continue
                if array is not None:
                    key = flatten(key, array) if separator == "." else _spellings[key].nested
                yield key
            pending.extend((lead + name, array if is_number(name) else None, separator) for name in folders)

    def _is_shadowed(self, flat: str, folders: list[str]) -> bool:
        """Tell whether a flat file stands beside the nested file of the same chunk."""
        nested = nest(flat)
        return k.child(nested, parent(flat)) in folders and self._status(nested) is not None

    # By the keys, and not by the files as in DirectoryStore: a chunk may have two.
    _count = Store._count
    _getsize = Store._getsize

    def _listdir(self, path: str) -> Iterable[str]:
        path = self._own_path(path)
        if self._is_hidden(path):
            return ()
        files, folders = self._scan(path)
        lead = k.prefix(path)
        flat = [name for name in files if nest(name) != name]
        if ZARRAY in files and (flat or any(map(is_number, folders))):
            # A walk, as in zarr 2.2: below here are the chunks that are listed as children of the array.
            return folders + files if not flat and self._separator(path) == "/" else k.children(self._keys(path), path)
        hidden = {name for name in flat if self._is_shadowed(lead + name, folders)}
        return [name for name in files if name not in hidden] + folders

    # Trees --------------------------------------------------------------------------------------------------------

    def _rmdir(self, path: str) -> None:
        if not self._is_hidden(self._own_path(path)):
            self._forget()
            super()._rmdir(path)
            self._forget()

    def _rename(self, source: str, destination: str) -> None:
        self._forget()
        one_file = bool(_spellings[source].first or _spellings[destination].first) or is_number(k.name(source))
        if one_file or ZARRAY in (k.name(source), k.name(destination)):
            Store._rename(self, source, destination)  # to wherever its new name says
        else:
            super()._rename(source, destination)
        self._forget()


def _flat(key: str) -> Iterator[str]:
    """Yield the flat spellings of a chunk key, `key` itself too if it is one."""
    return flat_spellings(_spellings[key].nested) if key[-1:].isdecimal() else iter(())
