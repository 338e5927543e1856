"""Reference files in Parquet: a folder with ``.zmetadata`` and, for each array, tables of so many references each.

The format is that of fsspec's `LazyReferenceMapper`. It is read here, because there a table that is damaged or cannot
be read says that its chunks are absent.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.bridges.references.document import Reference
from zarrstore.errors import DamagedStoreError
from zarrstore.metadata import documents
from zarrstore.metadata.documents import ZARRAY, ZMETADATA
from zarrstore.optional import require

__all__ = ["ParquetReferences"]

#: Tables that are kept, of 10,000 references each as a rule.
_MOST_TABLES = 32


class ParquetReferences:
    """The references in a folder of Parquet tables, each read when it is asked for.

    Parameters
    ----------
    files : Store
        The folder.
    label : str
        What errors call it.
    """

    def __init__(self, files: Store, label: str) -> None:
        self.files = files
        self.label = label
        require("pyarrow.parquet", extra="references", feature="a reference file in Parquet")
        try:
            document = documents.loads(files[ZMETADATA], ZMETADATA)
            self._metadata: dict[str, Any] = dict(document["metadata"])
            self._record_size = int(document["record_size"])
        except (KeyError, TypeError, ValueError) as exc:
            raise DamagedStoreError(label, f"is no folder of references: {exc}") from exc
        if self._record_size < 1:
            raise DamagedStoreError(label, f"is no folder of references: its record_size is {self._record_size}")
        self._grids = {
            k.parent(key): _grid(meta, key, label)
            for key, meta in self._metadata.items()
            if k.is_key(key) and k.name(key) == ZARRAY
        }
        self._forget()

    def _forget(self) -> None:
        self._tables: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_tables", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def find(self, key: str) -> bytes | Reference:
        """Return the value, or where it is; KeyError if there is none."""
        if key in self._metadata:
            return documents.dumps(self._metadata[key])
        if key == ZMETADATA:
            return documents.dumps({"metadata": self._metadata, "zarr_consolidated_format": 1})
        array = k.parent(key)
        while array and array not in self._grids:  # names of chunks may have slashes
            array = k.parent(array)
        return self._chunk(array, key)

    def _chunk(self, array: str, key: str) -> bytes | Reference:
        counts, separator = self._grids[array]  # KeyError: there is no array
        number = _number(k.replace_root(key, array, ""), counts, separator)
        if number is None:
            raise KeyError(key)
        table = self._table(array, number // self._record_size)
        found = _row(table, number % self._record_size)
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: str) -> bool:
        try:
            self.find(key)
        except KeyError:
            return False
        return True

    def _table(self, array: str, record: int) -> dict[str, Any] | None:
        at = array, record
        with self._lock:
            if at in self._tables:
                self._tables.move_to_end(at)
                return self._tables[at]  # type: ignore[no-any-return]
        name = k.join(array, f"refs.{record}.parq")
        table: dict[str, Any] | None = None
        try:
            data = self.files._get(name)
        except KeyError:  # none of its chunks was ever written
            pass
        else:
            table = _columns(data, name, self.label)
        with self._lock:
            self._tables[at] = table
            while len(self._tables) > _MOST_TABLES:
                self._tables.popitem(last=False)
        return table

    def keys(self, path: str) -> Iterator[str]:
        """Yield the keys below a path. Cost: each table of an array there is read."""
        for key in (ZMETADATA, *self._metadata):
            if k.is_key(key) and k.is_below(key, path) and not (key == ZMETADATA and key in self._metadata):
                yield key
        for array in self._grids:
            if not path or array == path or k.is_below(array, path):
                yield from self._chunks(array)
            elif k.is_below(path, array):
                yield from (key for key in self._chunks(array) if k.is_below(key, path))

    def _chunks(self, array: str) -> Iterator[str]:
        counts, separator = self._grids[array]
        names: Iterator[tuple[int, ...]] = itertools.product(*map(range, counts))
        for number, coordinates in enumerate(names):
            if _row(self._table(array, number // self._record_size), number % self._record_size) is not None:
                yield k.join(array, separator.join(map(str, coordinates)) or "0")

    def children(self, path: str) -> Iterable[str]:
        """Yield the names of the immediate children of a path."""
        is_within_array = any(path == array or k.is_below(path, array) for array in self._grids if array or not path)
        shown = (ZMETADATA, *self._metadata)
        return k.children(
            self.keys(path) if is_within_array else (key for key in shown if k.is_key(key) and k.is_below(key, path)),
            path,
        )

    def refused(self) -> Iterator[str]:
        """Yield the names of the metadata that are no keys."""
        return (name for name in self._metadata if not k.is_key(name))


def _grid(meta: Any, key: str, label: str) -> tuple[list[int], str]:
    """Return the number of chunks of an array along each axis, and the separator in their names."""
    try:
        counts = [math.ceil(n / chunk) for n, chunk in zip(meta["shape"], meta["chunks"], strict=True)]
        separator = meta.get("dimension_separator") or "."
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as exc:
        raise DamagedStoreError(label, f"has a document {key!r} that is none: {exc!r}") from exc
    return counts, separator


def _number(name: str, counts: Sequence[int], separator: str) -> int | None:
    """Return the number of a chunk in the order of C, None if it is no chunk of the array."""
    parts = name.split(separator)
    if not counts:
        return 0 if name == "0" else None
    if len(parts) != len(counts) or not all(part.isascii() and part.isdecimal() for part in parts):
        return None
    number = 0
    for part, count in zip(parts, counts, strict=True):
        if int(part) >= count or part != str(int(part)):
            return None
        number = number * count + int(part)
    return number


def _columns(data: bytes, name: str, label: str) -> dict[str, Any]:
    pyarrow = require("pyarrow", extra="references", feature="a reference file in Parquet")
    parquet = require("pyarrow.parquet", extra="references", feature="a reference file in Parquet")
    try:
        table = parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError, ValueError) as exc:
        raise DamagedStoreError(label, f"has a table {name!r} that cannot be read: {exc}") from exc
    columns = {
        column: table.column(column) for column in ("path", "offset", "size", "raw") if column in table.schema.names
    }
    if "path" not in columns and "raw" not in columns:
        raise DamagedStoreError(label, f"has a table {name!r} without the columns path and raw")
    return columns


def _row(table: dict[str, Any] | None, row: int) -> bytes | Reference | None:
    if table is None:
        return None
    values = {name: column[row].as_py() if row < len(column) else None for name, column in table.items()}
    raw = values.get("raw")
    if raw is not None:
        return raw if isinstance(raw, bytes) else str(raw).encode()
    if not isinstance(values.get("path"), str):
        return None
    start, nbytes = values.get("offset") or 0, values.get("size") or 0
    # The format has no other way to say "the whole file".
    return Reference(values["path"], int(start), int(nbytes)) if start or nbytes else Reference(values["path"])
