"""One value in one row: read and written without a copy in between, whole or in parts.

A bound value is copied into SQLite's memory, joined with the key to a record, and copied into pages; a large one is
therefore written by incremental I/O into the pages of a ``zeroblob``, and read from them the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from zarrstore.errors import StoreReadError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["LARGE", "NBYTES", "read", "read_part", "size", "write", "write_all"]

T = TypeVar("T")

#: From so many bytes on, incremental I/O is faster than a bound value.
LARGE = 256 << 10
#: SQL for the size of a value in bytes. LENGTH of a blob reads none of it; that of a text would count characters.
NBYTES = "CASE typeof(v) WHEN 'blob' THEN LENGTH(v) WHEN 'text' THEN LENGTH(CAST(v AS BLOB)) END"


def size(connection: sqlite3.Connection, key: str, label: str) -> int:
    """Return the size of a value in bytes, none of which is read; KeyError if absent."""
    row = connection.execute(f"SELECT {NBYTES}, typeof(v) FROM zarr WHERE k = ?", (key,)).fetchone()
    _check(row, key, label)
    return int(row[0])


def read(connection: sqlite3.Connection, key: str, label: str) -> bytes:
    """Return a value, copied once; KeyError if absent."""
    query = f"SELECT CASE WHEN LENGTH(v) < {LARGE} THEN v END, typeof(v) FROM zarr WHERE k = ?"
    row = connection.execute(query, (key,)).fetchone()
    if row is not None and row[1] == b"blob" and row[0] is not None:
        return row[0]  # type: ignore[no-any-return]
    _check(row, key, label)
    return read_part(connection, key, label, lambda value: bytes(value[:]))


def read_part(connection: sqlite3.Connection, key: str, label: str, work: Callable[[Any], T]) -> T:
    """Return ``work(value)``, where `value` has a length, and slices that are read when they are taken.

    Notes
    -----
    The row and its content belong to one state of the database: another writer may give its number to another key.
    """
    connection.execute("BEGIN")
    try:
        row = connection.execute("SELECT rowid, typeof(v) FROM zarr WHERE k = ?", (key,)).fetchone()
        _check(row, key, label)
        if row[1] == b"text":
            # Someone else wrote it: incremental I/O would give the bytes in the encoding of the database.
            return work(connection.execute("SELECT CAST(v AS BLOB) FROM zarr WHERE k = ?", (key,)).fetchone()[0] or b"")
        with connection.blobopen("zarr", "v", row[0], readonly=True) as value:
            return work(value)
    finally:
        connection.execute("ROLLBACK")


def _check(row: Sequence[Any] | None, key: str, label: str) -> None:
    if row is None:
        raise KeyError(key)
    kind = bytes(row[1]).decode()
    if kind not in ("blob", "text"):
        # Python would make zero bytes of a number, as many as it says.
        raise StoreReadError(key, label, f"its row holds a value of SQLite's type {kind}, which is no bytes")


def write(connection: sqlite3.Connection, key: str, value: bytes | memoryview) -> None:
    """Set a value, within a transaction."""
    if len(value) < LARGE:
        connection.execute("REPLACE INTO zarr(k, v) VALUES (?, ?)", (key, value))
        return
    cursor = connection.execute("REPLACE INTO zarr(k, v) VALUES (?, zeroblob(?))", (key, len(value)))
    assert cursor.lastrowid is not None
    with connection.blobopen("zarr", "v", cursor.lastrowid) as blob:
        blob.write(value)


def write_all(connection: sqlite3.Connection, items: Sequence[tuple[str, bytes]]) -> None:
    """Set several values, in order, within a transaction."""
    if all(len(value) < LARGE for _, value in items):
        connection.executemany("REPLACE INTO zarr(k, v) VALUES (?, ?)", items)
        return
    for key, value in items:
        write(connection, key, value)
