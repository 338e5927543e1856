"""One row per key in a table of an SQLite database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.errors import ReadOnlyError, ValueTooLargeError
from zarrstore.stores._files import sweep_folder
from zarrstore.stores.sqlite.connections import Connections, is_open_here

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore", "is_open_here"]

T = TypeVar("T")

#: Rows of a listing read at a time, so that no reader keeps an old state of the database alive.
_PAGE = 1000
#: Bytes of a batch written in one transaction.
_BATCH = 4 << 20
#: A row has at most a billion bytes, unless SQLite was built otherwise.
_LARGEST = 1_000_000_000 - 10_000


class SQLiteStore(Store):
    """Keep each value as one row of an SQLite database; every write is a transaction.

    Parameters
    ----------
    path : path-like
        The database file. zarr 2's are read and written as they are.
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none.
    readonly : bool, default False
        Open for reading only; the file must exist.
    timeout : float, seconds, default 60
        How long to wait for another writer.
    **kwargs
        Passed to `sqlite3.connect`.

    Raises
    ------
    DamagedStoreError
        The file is no SQLite database, is damaged, or has no table of Zarr.
    LockedStoreError
        Another process kept the database for longer than `timeout`.

    Notes
    -----
    Cost: a get is one look-up in an index, a set one transaction, `setitems` one transaction for each 4 MiB;
    `listdir` skips subtrees. Crash: a set that returned survives the death of the process; one that `flush` or
    `close` followed survives a power cut. Threads: any number; each call has a connection to itself. Processes: any
    number; one writes at a time, the others wait. All connections are closed before a fork, and opened on the next
    use on both sides. Pickles by path. The database is in WAL mode while it is open for writing, and one single file
    again after the last `close`. A place that cannot be written to is opened for reading. A value has at most 1 GB.
    Source: zarr 2.18 SQLiteStore, the same table (``zarr(k TEXT PRIMARY KEY, v BLOB)``). Deviation: prefixes are
    ranges, where zarr 2 used LIKE, which took ``_`` and ``%`` for wildcards.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with SQLiteStore(os.path.join(folder.name, "a.sqlite")) as store:
    ...     store["foo/0.0"] = b"data"
    ...     store["foo/0.0"], store.listdir("foo")
    (b'data', ['0.0'])
    >>> folder.cleanup()
    """

    capabilities = Capabilities(ranged=True, durable_flush=True, process_safe=True)

    def __init__(
        self,
        path: str | os.PathLike[str],
        dimension_separator: str | None = None,
        *,
        readonly: bool = False,
        timeout: float = 60.0,
        **kwargs: Any,
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.readonly = readonly
        self.timeout = timeout
        self.kwargs = kwargs
        self._dimension_separator = dimension_separator
        self._connections = Connections(repr(self), self.path, self._reads_only(), timeout, kwargs)

    def _reads_only(self) -> bool:
        if not self.readonly and os.path.exists(self.path):
            # A place that cannot be written is opened for reading: the first write says so.
            self.readonly = not (os.access(self.path, os.W_OK) and os.access(os.path.dirname(self.path), os.W_OK))
        if self.readonly:
            self.capabilities = Capabilities(
                writable=False, erasable=False, ranged=True, durable_flush=True, process_safe=True
            )
        return self.readonly

    def __repr__(self) -> str:
        return f"SQLiteStore({self.path!r}{', readonly=True' if self.readonly else ''})"

    def _place(self) -> object:
        return self.path

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "readonly", "timeout", "kwargs", "_dimension_separator")
        return {**{name: getattr(self, name) for name in names}, "closed": self._connections.dead}

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = dict(state)
        kwargs, separator, closed = (options.pop(name) for name in ("kwargs", "_dimension_separator", "closed"))
        SQLiteStore.__init__(self, dimension_separator=separator, **options, **kwargs)
        if closed:
            self.close()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self._connections.run(work)

    def _write(self, what: str, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.readonly and not self._connections.dead:
            raise ReadOnlyError(what, self)
        return self._connections.write(work)

    # Reading -------------------------------------------------------------------------------------------------------

    def _row(self, query: str, *values: object) -> Any:
        return self._run(lambda connection: connection.execute(query, values).fetchone())

    def _rows(self, query: str, *values: object) -> list[Any]:
        return self._run(lambda connection: connection.execute(query, values).fetchall())

    def _get(self, key: str) -> bytes:
        row = self._row("SELECT v FROM zarr WHERE k = ?", key)
        if row is None:
            raise KeyError(key)
        return _bytes(row[0])

    def _contains(self, key: str) -> bool:
        return self._row("SELECT 1 FROM zarr WHERE k = ?", key) is not None

    def _count(self) -> int:
        return int(self._row("SELECT COUNT(*) FROM zarr")[0])

    def _nbytes(self, key: str) -> int:
        row = self._row("SELECT LENGTH(CAST(v AS BLOB)) FROM zarr WHERE k = ?", key)
        if row is None:
            raise KeyError(key)
        return int(row[0] or 0)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if stop is None:
            row = self._row("SELECT SUBSTR(CAST(v AS BLOB), ?) FROM zarr WHERE k = ?", start + 1, key)
        else:
            length = max(0, stop - start)
            row = self._row("SELECT SUBSTR(CAST(v AS BLOB), ?, ?) FROM zarr WHERE k = ?", start + 1, length, key)
        if row is None:
            raise KeyError(key)
        return _bytes(row[0])

    def _get_suffix(self, key: str, n: int) -> bytes:
        row = self._row("SELECT SUBSTR(CAST(v AS BLOB), ?, ?) FROM zarr WHERE k = ?", -n, n, key)
        if row is None:
            raise KeyError(key)
        return _bytes(row[0])

    def _keys(self, path: str) -> Iterator[str]:
        after, end = _bounds(path)
        query = f"SELECT k FROM zarr WHERE k >= ? AND k < ? ORDER BY k LIMIT {_PAGE}"
        while True:
            names = [name for (name,) in self._rows(query, after, end)]
            # What another program put there under a name that is no key is not shown.
            yield from names if k.are_keys(names) else filter(k.is_key, names)
            if len(names) < _PAGE:
                return
            after = names[-1] + "\0"  # the next text in the order

    def _listdir(self, path: str) -> Iterator[str]:
        """One look-up for each child: what is below a child is jumped over."""
        after, end = _bounds(path)
        values = set()
        query = "SELECT k FROM zarr WHERE k >= ? AND k < ? ORDER BY k LIMIT 1"
        while (row := self._row(query, after, end)) is not None:
            key = row[0]
            name = k.child(key, path)
            if not name or not k.is_key(name):
                after = key + "\0"
                continue
            if k.join(path, name) == key:
                values.add(name)
                yield name
                after = key + "\0"
                continue
            if name not in values:
                yield name
            after = k.beyond(k.join(path, name))  # past all that begins with "name/"

    def _getsize(self, path: str) -> int:
        if path:
            with suppress(KeyError):
                return self._nbytes(path)
        where, values = _below(path)
        lead = len(k.prefix(path))
        row = self._row(
            f"SELECT SUM(LENGTH(CAST(v AS BLOB))) FROM zarr WHERE {where} AND INSTR(SUBSTR(k, ?), '/') = 0",
            *values,
            lead + 1,
        )
        return int(row[0] or 0)

    # Writing -------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        if len(value) > _LARGEST:
            raise ValueTooLargeError(key, len(value), _LARGEST)
        self._write(key, lambda connection: connection.execute("REPLACE INTO zarr VALUES (?, ?)", (key, value)))

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        batch: list[tuple[str, bytes]] = []
        size = 0
        for key, value in items:
            if len(value) > _LARGEST:
                raise ValueTooLargeError(key, len(value), _LARGEST)
            batch.append((key, value))
            size += len(value) + 256
            if size >= _BATCH:
                self._set_batch(batch)
                batch, size = [], 0
        if batch:
            self._set_batch(batch)
        elif self.readonly:
            raise ReadOnlyError("", self)

    def _set_batch(self, batch: list[tuple[str, bytes]]) -> None:
        self._write(batch[0][0], lambda connection: connection.executemany("REPLACE INTO zarr VALUES (?, ?)", batch))

    def _delete(self, key: str) -> None:
        query = "DELETE FROM zarr WHERE k = ?"
        if not self._write(key, lambda connection: connection.execute(query, (key,)).rowcount):
            raise KeyError(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        doomed = [(key,) for key in keys]
        what = doomed[0][0] if doomed else ""
        self._write(what, lambda connection: connection.executemany("DELETE FROM zarr WHERE k = ?", doomed))

    def _rmdir(self, path: str) -> None:
        where, values = _below(path)
        self._write(path, lambda connection: connection.execute(f"DELETE FROM zarr WHERE {where}", values))

    def _rename(self, source: str, destination: str) -> None:
        where, values = _below(source)

        def move(connection: sqlite3.Connection) -> None:
            # SUBSTR counts characters, as Python does. All in one transaction.
            connection.execute(
                f"UPDATE zarr SET k = ? || SUBSTR(k, ?) WHERE {where}", (destination, len(source) + 1, *values)
            )
            connection.execute("UPDATE zarr SET k = ? WHERE k = ?", (destination, source))

        self._write(source, move)

    def _clear(self) -> None:
        self._write("", lambda connection: connection.execute("DELETE FROM zarr"))

    # Life ----------------------------------------------------------------------------------------------------------

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        return () if path else sweep_folder(os.path.dirname(self.path), dry_run)

    def _flush(self) -> None:
        self._connections.flush()

    def _close(self) -> None:
        self._connections.close()

    def compact(self) -> None:
        """Give the free space of the file back. Cost: the file is written once more."""
        if self.readonly:
            raise ReadOnlyError("", self)
        self._run(lambda connection: connection.execute("VACUUM"))
        self._flush()

    def describe(self) -> dict[str, object]:
        """Return what the file is: implementation, entries, live and dead bytes. Cost: one pass over the rows."""
        import sqlite3

        live = self._row("SELECT SUM(LENGTH(CAST(v AS BLOB))) FROM zarr")[0] or 0
        page = int(self._row("PRAGMA page_size")[0])
        return {
            "implementation": f"SQLite {sqlite3.sqlite_version}",
            "entries": self._count(),
            "live_bytes": int(live),
            "dead_bytes": int(self._row("PRAGMA freelist_count")[0]) * page,
            "file_bytes": int(self._row("PRAGMA page_count")[0]) * page,
            "journal_mode": str(self._row("PRAGMA journal_mode")[0]),
        }


def _bytes(value: Any) -> bytes:
    # zarr 2 wrote what it was given, so text may stand where bytes should.
    if isinstance(value, str):
        return value.encode()
    return b"" if value is None else bytes(value)


def _bounds(path: str) -> tuple[str, str | bytes]:
    """Return where the keys below a path begin, and what they all sort before."""
    # SQLite sorts every text before every blob.
    return k.prefix(path), k.beyond(path) if path else b""


def _below(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the condition for the keys below a path: a range, since LIKE has wildcards and folds case."""
    return ("k >= ? AND k < ?", (k.prefix(path), k.beyond(path))) if path else ("1", ())
