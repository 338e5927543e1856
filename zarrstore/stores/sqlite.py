"""One row per key in a table of an SQLite database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.errors import ClosedStoreError, DamagedStoreError, LockedStoreError, ReadOnlyError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore"]

T = TypeVar("T")

#: Rows of a listing read at a time, so that no reader keeps an old state of the database alive.
_PAGE = 1000
#: Bytes of a batch written in one transaction.
_BATCH = 4 << 20


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
    `listdir` skips subtrees.
    Crash: a set that returned survives the death of the process; one that `flush` or `close` followed survives a
    power cut. Threads: any number, each
    with a connection of its own. Processes: any number; one writes at a time, the others wait. A forked child opens
    its own connections. Pickles by path.
    The database is in WAL mode while it is open for writing, and one single file again after the last `close`.
    Source: zarr 2.18 SQLiteStore, the same table
    (``zarr(k TEXT PRIMARY KEY, v BLOB)``). Deviation: prefixes are ranges, where zarr 2 used LIKE, which took ``_``
    and ``%`` for wildcards.

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
        if readonly:
            self.capabilities = Capabilities(
                writable=False, erasable=False, ranged=True, durable_flush=True, process_safe=True
            )
        self._start()
        self._connection()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"SQLiteStore({self.path!r}{', readonly=True' if self.readonly else ''})"

    def _place(self) -> object:
        return self.path

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "readonly", "timeout", "kwargs", "_dimension_separator")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = dict(state)
        kwargs = options.pop("kwargs")
        separator = options.pop("_dimension_separator")
        SQLiteStore.__init__(self, dimension_separator=separator, **options, **kwargs)

    # Connections ---------------------------------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection; SQLite's must not be used by a forked child, which gets its own."""
        if self._pid != os.getpid():
            # The parent's connections are left as they are: closing one would undo the parent's locks.
            abandoned = self._opened
            closed = self._closed
            self._start()
            self._closed = closed
            _ABANDONED.append(abandoned)
        if self._closed:
            raise ClosedStoreError(self)
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._connect()
            with self._lock:
                shut: bool = self._closed  # by another thread, meanwhile
                if not shut:
                    self._opened.append(found)
            if shut:
                found.close()
                raise ClosedStoreError(self)
            self._local.connection = found
        return found

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        uri = f"file:{quote(self.path)}"
        if self.readonly:
            uri += "?mode=ro"
            if not os.access(os.path.dirname(self.path), os.W_OK) and not os.path.exists(self.path + "-wal"):
                uri += "&immutable=1"  # WAL would have to make files beside it
        told = {"timeout": self.timeout, "isolation_level": None, "check_same_thread": False, **self.kwargs}
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(uri, uri=True, **told)
            self._prepare(connection)
        except sqlite3.Error as exc:
            if connection is not None:
                connection.close()
            raise self._explained(exc) from exc
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "zarr" not in tables:
            if tables or self.readonly:
                held = ", ".join(sorted(tables)) or "nothing"
                raise DamagedStoreError(self.path, f"is no store of Zarr: it has no table 'zarr', but {held}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS zarr(k TEXT PRIMARY KEY, v BLOB)")
        elif not self.readonly:
            connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL: a commit is with the operating system; `flush` brings the log to the disk.
        connection.execute("PRAGMA synchronous = NORMAL")

    def _explained(self, exc: sqlite3.Error) -> Exception:
        import sqlite3

        said = str(exc)
        if isinstance(exc, sqlite3.OperationalError) and ("locked" in said or "busy" in said):
            return LockedStoreError(self.path, f"another process kept it for longer than {self.timeout:g} s")
        if isinstance(exc, sqlite3.OperationalError) and "readonly" in said:
            return ReadOnlyError("it", self)
        if isinstance(exc, sqlite3.OperationalError) and "unable to open" in said:
            return FileNotFoundError(2, "cannot open the database, nor make it", self.path)
        if isinstance(exc, sqlite3.OperationalError) and "full" in said:
            return OSError(28, "No space left on device", self.path)
        if isinstance(exc, sqlite3.DatabaseError) and ("not a database" in said or "malformed" in said):
            return DamagedStoreError(self.path, f"is damaged, or no SQLite database ({said})")
        return OSError(5, f"SQLite cannot do it: {said}", self.path)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        import sqlite3

        connection = self._connection()
        try:
            return work(connection)
        except sqlite3.ProgrammingError as exc:
            if self._closed:  # by another thread, meanwhile
                raise ClosedStoreError(self) from None
            raise OSError(5, f"SQLite cannot do it: {exc}", self.path) from exc
        except sqlite3.Error as exc:
            raise self._explained(exc) from exc

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction: all of it is stored, or nothing."""
        if self.readonly:
            raise ReadOnlyError("it", self)

        def transaction(connection: sqlite3.Connection) -> T:
            # IMMEDIATE: a transaction that began by reading could not wait for another writer.
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(Exception):
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._run(transaction)

    # Reading -------------------------------------------------------------------------------------------------------

    def _row(self, query: str, *values: object) -> Any:
        return self._run(lambda connection: connection.execute(query, values).fetchone())

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
        return self._get_range(key, max(0, self._nbytes(key) - n), None)

    def _keys(self, path: str) -> Iterator[str]:
        return self._names_between(k.prefix(path), k.beyond(path) if path else None)

    def _names_between(self, first: str, end: str | None) -> Iterator[str]:
        """Yield the keys from `first` to before `end`, a page at a time, in the order of their bytes."""
        after = first
        at_start = True
        while True:
            rows = self._page(after, end, at_start)
            for (name,) in rows:
                # What another program put there under a name that is no key is not shown.
                if k.is_key(name):
                    yield name
            if len(rows) < _PAGE:
                return
            after, at_start = rows[-1][0], False

    def _page(self, after: str, end: str | None, inclusive: bool) -> list[Any]:
        query = f"SELECT k FROM zarr WHERE k {'>=' if inclusive else '>'} ?"
        values: tuple[object, ...] = (after,)
        if end is not None:
            query += " AND k < ?"
            values = (after, end)
        return self._run(lambda connection: connection.execute(f"{query} ORDER BY k LIMIT {_PAGE}", values).fetchall())

    def _listdir(self, path: str) -> set[str]:
        """One look-up for each child: what is below a child is jumped over."""
        lead = k.prefix(path)
        end = k.beyond(path) if path else None
        names: set[str] = set()
        after = lead
        while True:
            row = self._first(after, end)
            if row is None:
                return names
            key = row[0]
            child = k.child(key, path)
            if child is not None and k.is_key(key):
                names.add(child)
            if child is not None and key != lead + child:
                after = k.beyond(lead + child)  # past all that begins with "child/"
            else:
                after = key + "\0"

    def _first(self, after: str, end: str | None) -> Any:
        if end is None:
            return self._row("SELECT k FROM zarr WHERE k >= ? ORDER BY k LIMIT 1", after)
        return self._row("SELECT k FROM zarr WHERE k >= ? AND k < ? ORDER BY k LIMIT 1", after, end)

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
        self._write(lambda connection: connection.execute("REPLACE INTO zarr VALUES (?, ?)", (key, value)))

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        batch: list[tuple[str, bytes]] = []
        size = 0
        for key, value in items:
            batch.append((key, value))
            size += len(value) + 256
            if size >= _BATCH:
                self._set_batch(batch)
                batch, size = [], 0
        if batch:
            self._set_batch(batch)
        elif self.readonly:
            raise ReadOnlyError("it", self)

    def _set_batch(self, batch: list[tuple[str, bytes]]) -> None:
        self._write(lambda connection: connection.executemany("REPLACE INTO zarr VALUES (?, ?)", batch))

    def _delete(self, key: str) -> None:
        if not self._write(lambda connection: connection.execute("DELETE FROM zarr WHERE k = ?", (key,)).rowcount):
            raise KeyError(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        doomed = [(key,) for key in keys]
        self._write(lambda connection: connection.executemany("DELETE FROM zarr WHERE k = ?", doomed))

    def _rmdir(self, path: str) -> None:
        where, values = _below(path)
        self._write(lambda connection: connection.execute(f"DELETE FROM zarr WHERE {where}", values))

    def _rename(self, source: str, destination: str) -> None:
        where, values = _below(source)

        def move(connection: sqlite3.Connection) -> None:
            # SUBSTR counts characters, as Python does. All in one transaction.
            connection.execute(
                f"UPDATE zarr SET k = ? || SUBSTR(k, ?) WHERE {where}", (destination, len(source) + 1, *values)
            )
            connection.execute("UPDATE zarr SET k = ? WHERE k = ?", (destination, source))

        self._write(move)

    def _clear(self) -> None:
        self._write(lambda connection: connection.execute("DELETE FROM zarr"))

    # Life ----------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        connection = self._connection()
        if self.readonly:
            return
        import sqlite3

        try:
            # A checkpoint syncs the log before it is copied, and the database after.
            connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        except sqlite3.Error as exc:
            raise self._explained(exc) from exc

    def _close(self) -> None:
        if self._closed or self._pid != os.getpid():
            self._closed = True
            return
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, []
        import sqlite3

        trouble: Exception | None = None
        for n, connection in enumerate(opened):
            try:
                if not self.readonly and n == len(opened) - 1:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    # One file again, which other programs read on read-only places; refused while others have it open.
                    with suppress(sqlite3.Error):
                        connection.execute("PRAGMA busy_timeout = 0")
                        connection.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.Error as exc:
                trouble = self._explained(exc)
            finally:
                connection.close()
        if trouble is not None:
            raise trouble

    def compact(self) -> None:
        """Give the free space of the file back. Cost: the file is written once more."""
        if self.readonly:
            raise ReadOnlyError("it", self)
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


#: Connections of parents, kept from being closed by a child's garbage collection.
_ABANDONED: list[list[sqlite3.Connection]] = []


def _bytes(value: Any) -> bytes:
    # zarr 2 wrote what it was given, so text may stand where bytes should.
    if isinstance(value, str):
        return value.encode()
    return b"" if value is None else bytes(value)


def _below(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the condition for the keys below a path: a range, since LIKE has wildcards and folds case."""
    return ("k >= ? AND k < ?", (k.prefix(path), k.beyond(path))) if path else ("1", ())
