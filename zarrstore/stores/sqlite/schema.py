"""The table of a database, which anyone may have made: it keeps one value under each key, and does nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zarrstore.errors import DamagedStoreError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["TABLE", "check_schema"]

TABLE = "CREATE TABLE IF NOT EXISTS zarr(k TEXT PRIMARY KEY, v BLOB)"


def check_schema(connection: sqlite3.Connection, path: str, readonly: bool) -> bool:
    """Tell whether there is a table; DamagedStoreError if it is no store's, or if there are others and not that one.

    Notes
    -----
    A virtual table, a generated column or a trigger runs what its maker wrote: without an end, or with a value of any
    size. A key that is not unique, or is compared by another collation, is listed twice or found under other names.
    Incremental I/O goes by the number of a row, which a column named rowid hides.
    """
    tables: dict[str, int] = {}
    has_triggers = False
    for kind, name, table, page in connection.execute("SELECT type, name, tbl_name, rootpage FROM sqlite_master"):
        if kind == b"table":
            tables[name.decode("utf-8", "replace")] = page
        has_triggers = has_triggers or (kind == b"trigger" and table.lower() == b"zarr")
    if "zarr" not in tables:
        if tables or readonly:
            names = ", ".join(sorted(tables)) or "nothing"
            raise DamagedStoreError(path, f"is no store of Zarr: it has no table 'zarr', but {names}")
        return False
    if not tables["zarr"]:
        raise DamagedStoreError(path, "is no store of Zarr: its table 'zarr' is a virtual one")
    _check_columns(connection, path)
    if has_triggers and not readonly:
        raise DamagedStoreError(
            path, "has triggers, which each write would run", "drop them, or open it with readonly=True"
        )
    return True


def _check_columns(connection: sqlite3.Connection, path: str) -> None:
    columns = {row[1].lower(): row[6] for row in connection.execute("PRAGMA table_xinfo(zarr)")}
    if columns.get(b"k") != 0 or columns.get(b"v") != 0:
        raise DamagedStoreError(path, "is no store of Zarr: its table 'zarr' has no columns k and v of its own")
    if b"rowid" in columns or not _has_rowids(connection):
        raise DamagedStoreError(path, "is no store of Zarr: the rows of its table 'zarr' have no numbers")
    query = (
        "SELECT x.name, x.coll FROM pragma_index_list('zarr') AS i, pragma_index_xinfo(i.name) AS x "
        'WHERE i."unique" AND NOT i.partial AND x.key GROUP BY i.name HAVING COUNT(*) = 1'
    )
    if not any(name and name.lower() == b"k" and order == b"BINARY" for name, order in connection.execute(query)):
        raise DamagedStoreError(
            path, "is no store of Zarr: the column k of its table 'zarr' is no unique key, byte by byte"
        )


def _has_rowids(connection: sqlite3.Connection) -> bool:
    import sqlite3

    try:
        connection.execute("SELECT rowid FROM zarr LIMIT 0")
    except sqlite3.OperationalError as exc:
        if "no such column" not in str(exc):
            raise
        return False
    return True
