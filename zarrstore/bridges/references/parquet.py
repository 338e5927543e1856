"""Reference files in Parquet: a folder with ``.zmetadata`` and, for each array, tables of so many references each.

The format is that of fsspec's `LazyReferenceMapper`. It is read here, because there a table that is damaged or cannot
be read says that its chunks are absent.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.bridges.references.document import Reference
from zarrstore.chunknames import is_number
from zarrstore.errors import DamagedStoreError
from zarrstore.metadata import documents
from zarrstore.metadata.documents import ZARRAY, ZMETADATA
from zarrstore.optional import require

__all__ = ["ParquetReferences"]

#: Tables that are kept, of 10,000 references each as a rule.
_MOST_TABLES = 32
#: Tables of one array that are asked for one by one, where they cannot be listed.
_MOST_ASKED = 100_000
_TABLE = re.compile(r"refs\.(0|[1-9][0-9]{0,17})\.parq", re.ASCII)


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
            self._metadata: dict[str, Any] = document["metadata"]
            self._record_size: int = document["record_size"]
        except (KeyError, ValueError) as exc:
            raise DamagedStoreError(label, f"is no folder of references: {exc}") from exc
        if not isinstance(self._metadata, dict):
            raise DamagedStoreError(label, "is no folder of references: its metadata is no object")
        if not _is_count(self._record_size) or self._record_size < 1:
            raise DamagedStoreError(label, f"is no folder of references: its record_size is {self._record_size!r:.80}")
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
        found = self._row(array, *divmod(number, self._record_size))
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
        total = math.prod(counts)
        for record in self._records(array, -(-total // self._record_size)):
            first = record * self._record_size
            rows = min(self._record_size, total - first, _length(self._table(array, record)))
            for row in range(rows):
                if self._row(array, record, row) is not None:
                    coordinates = _coordinates(first + row, counts)
                    yield k.join(array, separator.join(map(str, coordinates)) or "0")

    def _records(self, array: str, count: int) -> Iterable[int]:
        """Return the numbers of the tables of an array that there may be, of those that its shape asks for."""
        if self.files.capabilities.listable:
            # A shape may be any number, and most of its chunks may never have been written.
            found = map(_TABLE.fullmatch, self.files._listdir(array))
            return sorted(number for match in found if match and (number := int(match[1])) < count)
        if count > _MOST_ASKED:
            reason = f"has no listing, and {count:,} tables of {array!r} are too many to ask for one by one"
            raise DamagedStoreError(self.label, reason)
        return range(count)

    def _row(self, array: str, record: int, row: int) -> bytes | Reference | None:
        table = self._table(array, record)
        try:
            return None if table is None else _found(table, row)
        except (ArithmeticError, ValueError, TypeError) as exc:
            name = k.join(array, f"refs.{record}.parq")
            raise DamagedStoreError(self.label, f"has a table {name!r} whose row {row} is no reference: {exc}") from exc

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
        shape, chunks, separator = meta["shape"], meta["chunks"], meta.get("dimension_separator") or "."
        if not all(map(_is_count, [*shape, *chunks])) or 0 in chunks:
            raise ValueError("shape and chunks are no sizes")
        if separator not in (".", "/"):
            raise ValueError(f"dimension_separator is {separator!r:.80}")
        counts = [-(-n // chunk) for n, chunk in zip(shape, chunks, strict=True)]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise DamagedStoreError(label, f"has a document {key!r} that is none: {exc!r}") from exc
    return counts, separator


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _coordinates(number: int, counts: Sequence[int]) -> list[int]:
    """Return where the chunk of a number stands, in the order of C."""
    coordinates = []
    for count in reversed(counts):
        number, coordinate = divmod(number, count)
        coordinates.append(coordinate)
    return coordinates[::-1]


def _number(name: str, counts: Sequence[int], separator: str) -> int | None:
    """Return the number of a chunk in the order of C, None if it is no chunk of the array."""
    parts = name.split(separator)
    if not counts:
        return 0 if name == "0" else None
    if len(parts) != len(counts) or not all(map(is_number, parts)):
        return None
    number = 0
    for part, count in zip(parts, counts, strict=True):
        # The length first: Python reads no number of more than 4,300 digits.
        if len(part) > len(str(count)) or int(part) >= count or part != str(int(part)):
            return None
        number = number * count + int(part)
    return number


def _columns(data: bytes, name: str, label: str) -> dict[str, Any]:
    pyarrow = require("pyarrow", extra="references", feature="a reference file in Parquet")
    parquet = require("pyarrow.parquet", extra="references", feature="a reference file in Parquet")
    try:
        table = parquet.read_table(pyarrow.BufferReader(data))
        names = [column for column in table.schema.names if column in ("path", "offset", "size", "raw")]
    except (pyarrow.ArrowException, OSError, ValueError) as exc:
        raise DamagedStoreError(label, f"has a table {name!r} that cannot be read: {exc}") from exc
    if "path" not in names and "raw" not in names:
        raise DamagedStoreError(label, f"has a table {name!r} without the columns path and raw")
    return {column: table.column(column) for column in names}


def _length(table: dict[str, Any] | None) -> int:
    return 0 if table is None else max(map(len, table.values()))


def _found(table: dict[str, Any], row: int) -> bytes | Reference | None:
    """Return what a row says, None if there is no such chunk; an error of Python if it is no reference."""
    values = {name: column[row].as_py() if row < len(column) else None for name, column in table.items()}
    raw, path = values.get("raw"), values.get("path")
    if raw is not None:
        return raw if isinstance(raw, bytes) else str(raw).encode()
    if path is None:
        return None
    start, nbytes = values.get("offset") or 0, values.get("size") or 0
    if not isinstance(path, str) or not _is_count(start) or not _is_count(nbytes):
        raise ValueError(f"{path!r:.80}, {start!r:.80}, {nbytes!r:.80}")
    # The format has no other way to say "the whole file".
    return Reference(path, start, nbytes) if start or nbytes else Reference(path)
