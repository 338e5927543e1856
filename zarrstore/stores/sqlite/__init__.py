"""One row per key in a table of an SQLite database."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from zarrstore import keys as k
from zarrstore.base import Capabilities, Entry, Store
from zarrstore.errors import ReadOnlyError, ValueTooLargeError
from zarrstore.spans import Span
from zarrstore.stores._files import location, sweep_folder
from zarrstore.stores.sqlite import rows
from zarrstore.stores.sqlite.connections import IN_MEMORY, Connections, is_open_here

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore", "is_open_here"]

T = TypeVar("T")

#: Rows of a listing read at a time, so that no reader keeps an old state of the database alive.
_PAGE = 1000
#: Bytes of a batch written in one transaction.
_BATCH = 4 << 20
#: Rows deleted in one transaction where the disk is too full for all of them.
_FEW = 20
#: A row has at most a billion bytes, unless SQLite was built otherwise.
_LARGEST = 1_000_000_000 - 10_000


class SQLiteStore(Store):
    """Keep each value as one row of an SQLite database; every write is a transaction.

    Parameters
    ----------
    path : path-like
        The database file; zarr 2's are read and written as they are. ``":memory:"`` is a database in memory, which only
        this object has.
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none.
    readonly : bool, default False
        Open for reading only; the file must exist.
    immutable : bool, default False
        Open for reading a file that nobody writes to as long as this store is open, without locks: the way to read a
        database in WAL mode in a place that cannot be written to. If somebody does write, reads are wrong.
    timeout : float, seconds, default 60
        How long to wait for another writer.
    **kwargs
        Passed to `sqlite3.connect`.

    Raises
    ------
    StoreNotFoundError
        Nothing is there, and `readonly` was given.
    DamagedStoreError
        The file is no SQLite database, is damaged, or has no table of Zarr.
    LockedStoreError
        Another process kept the database for longer than `timeout`.
    StoreReadError
        A row holds a number or NULL, which another program wrote.
    PermissionError
        The database is in WAL mode, its folder cannot be written to, and `immutable` was not given.

    Notes
    -----
    Cost: a get is one look-up in an index, a set one transaction, `setitems` one transaction for each 4 MiB; `len`
    looks at every name; `listdir` skips subtrees. A value above 256 KiB is written and read by incremental I/O, without
    a copy. A range reads the pages up to its end and copies only itself; a size reads no value. A value has at most
    1 GB.

    Threads: any number; each call has a connection to itself. Processes: any number; one writes at a time, the others
    wait. All connections are closed before a fork, and opened on the next use on both sides. Pickles by path; a
    database in memory does not (PicklingError), as in zarr 2.

    Crash: a set that returned survives the death of the process; one that `flush` or `close` followed survives a power
    cut. The database is in WAL mode and stays so; the last `close` removes the files beside it. A full disk is an error
    and leaves the old value; 512 KiB of the disk are kept free, without which SQLite could not delete. A place that
    cannot be written to is opened for reading.

    Source: zarr 2.18 SQLiteStore, the same table (``zarr(k TEXT PRIMARY KEY, v BLOB)``). Deviations: prefixes are
    ranges, where zarr 2 used LIKE, which took ``_`` and ``%`` for wildcards; new databases have pages of 16 KiB.

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
    takes_buffers = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        dimension_separator: Literal[".", "/"] | None = None,
        *,
        readonly: bool = False,
        immutable: bool = False,
        timeout: float = 60.0,
        **kwargs: Any,
    ) -> None:
        name = os.fsdecode(path)
        self.path = name if name == IN_MEMORY else os.path.abspath(name)
        self.readonly = readonly or immutable
        self.immutable = immutable
        self.timeout = timeout
        self.kwargs = kwargs
        self._dimension_separator = dimension_separator
        self._set_capabilities()
        self._connections = Connections(repr(self), self.path, self.readonly, immutable, timeout, kwargs)

    def _set_capabilities(self) -> None:
        if self.path == IN_MEMORY:
            self.capabilities = Capabilities(ranged=True)
            return
        if not self.readonly and os.path.exists(self.path):
            # A place that cannot be written to is opened for reading: the first write says so.
            self.readonly = not (os.access(self.path, os.W_OK) and os.access(os.path.dirname(self.path), os.W_OK))
        if self.readonly:
            self.capabilities = Capabilities(
                writable=False, erasable=False, ranged=True, durable_flush=True, process_safe=not self.immutable
            )

    def __repr__(self) -> str:
        mode = ", immutable=True" if self.immutable else ", readonly=True" if self.readonly else ""
        return f"SQLiteStore({self.path!r}{mode})"

    def _place(self) -> object:
        return None if self.path == IN_MEMORY else self.path

    def _location(self, path: str) -> tuple[object, str]:
        return super()._location(path) if self.path == IN_MEMORY else location(self.path, path)

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "readonly", "immutable", "timeout", "kwargs", "_dimension_separator")
        state = {name: getattr(self, name) for name in names}
        if self.path == IN_MEMORY:
            raise PicklingError(
                f"{self} cannot be pickled: a copy would be another database; dict(store) is its content"
            )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = dict(state)
        kwargs, separator = options.pop("kwargs"), options.pop("_dimension_separator")
        SQLiteStore.__init__(self, dimension_separator=separator, **options, **kwargs)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self._connections.run(work)

    def _write(self, what: str, work: Callable[[sqlite3.Connection], T], nbytes: int = 0) -> T:
        if self.readonly and not self._connections.dead:
            raise ReadOnlyError(what, self)
        return self._connections.write(work, nbytes)

    # Reading -------------------------------------------------------------------------------------------------------

    def _row(self, query: str, *values: object) -> Any:
        return self._run(lambda connection: connection.execute(query, values).fetchone())

    def _rows(self, query: str, *values: object) -> list[Any]:
        return self._run(lambda connection: connection.execute(query, values).fetchall())

    def _get(self, key: str) -> bytes:
        return self._run(lambda connection: rows.read(connection, key, repr(self)))

    def _contains(self, key: str) -> bool:
        return self._row("SELECT 1 FROM zarr WHERE k = ?", key) is not None

    def _count(self) -> int:
        # Not COUNT(*): what another program put there under a name that is no key does not count.
        return sum(1 for _ in self._keys(""))

    def _nbytes(self, key: str) -> int:
        return self._run(lambda connection: rows.size(connection, key, repr(self)))

    def _part(self, key: str, work: Callable[[Any], T]) -> T:
        return self._run(lambda connection: rows.read_part(connection, key, repr(self), work))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._part(key, lambda value: bytes(value[start:stop]))

    def _get_ranges(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        return self._part(key, lambda value: [bytes(value[start:stop]) for start, stop in spans])

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self._part(key, lambda value: bytes(value[max(0, len(value) - n) :]))

    def _pages(self, columns: str, path: str) -> Iterator[list[Any]]:
        """Yield the rows below a path, a page at a time; the first column is the name, in bytes."""
        after, end = _bounds(path)
        query = f"SELECT {columns} FROM zarr WHERE k > {_TEXT} AND k < ? ORDER BY k LIMIT {_PAGE}"
        while True:
            page = self._rows(query, after, end)
            yield page
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def _keys(self, path: str) -> Iterator[str]:
        for page in self._pages("k", path):
            names = [_as_text(name) for (name,) in page]
            # What another program put there under a name that is no key is not shown.
            yield from names if k.are_keys(names) else filter(k.is_key, names)

    def _details(self, path: str) -> Iterator[Entry]:
        for page in self._pages(f"k, {rows.NBYTES}", path):
            for name, nbytes in page:
                key = _as_text(name)
                if k.is_key(key):
                    yield Entry(key, -1 if nbytes is None else nbytes)

    def _listdir(self, path: str) -> Iterator[str]:
        """One look-up for each child: what is below a child is jumped over."""
        after, end = _bounds(path)
        values = set()
        first = f"SELECT k FROM zarr WHERE k > {_TEXT} AND k < ? ORDER BY k LIMIT 1"
        beyond = f"SELECT k FROM zarr WHERE k >= {_TEXT} AND k < ? ORDER BY k LIMIT 1"
        query = first
        while (row := self._row(query, after, end)) is not None:
            key = _as_text(row[0])
            name = k.child(key, path)
            query, after = first, row[0]
            if not name or not k.is_key(key):
                continue
            if k.join(path, name) == key:
                values.add(name)
                yield name
                continue
            if name not in values:
                yield name
            query, after = beyond, k.beyond(k.join(path, name)).encode()  # past all that begins with "name/"

    def _getsize(self, path: str) -> int:
        if path:
            with suppress(KeyError):
                return self._nbytes(path)
        where, values = _below(path)
        lead = len(k.prefix(path))
        row = self._row(
            f"SELECT SUM({rows.NBYTES}) FROM zarr WHERE {where} AND INSTR(SUBSTR(k, ?), '/') = 0", *values, lead + 1
        )
        return int(row[0] or 0)

    # Writing -------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes | memoryview) -> None:
        if len(value) > _LARGEST:
            raise ValueTooLargeError(key, len(value), _LARGEST)
        self._write(key, lambda connection: rows.write(connection, key, value), len(value) + 1)

    def _set_many(self, items: Iterable[tuple[str, bytes | memoryview]]) -> None:
        batch: list[tuple[str, bytes]] = []
        size = 0
        empty = True
        for key, value in items:
            empty = False
            if len(value) > _LARGEST:
                raise ValueTooLargeError(key, len(value), _LARGEST)
            if type(value) is not bytes:
                if len(value) >= rows.LARGE:
                    # Written before the next item is drawn, which may be in the same memory.
                    self._set_batch(batch, size)
                    batch, size = [], 0
                    self._set(key, value)
                    continue
                value = bytes(value)
            batch.append((key, value))
            size += len(value) + 256
            if size >= _BATCH:
                self._set_batch(batch, size)
                batch, size = [], 0
        self._set_batch(batch, size)
        if empty and self.readonly:
            raise ReadOnlyError("", self)

    def _set_batch(self, batch: list[tuple[str, bytes]], size: int) -> None:
        if batch:
            self._write(batch[0][0], lambda connection: rows.write_all(connection, batch), size)

    def _delete(self, key: str) -> None:
        query = "DELETE FROM zarr WHERE k = ?"
        if not self._write(key, lambda connection: connection.execute(query, (key,)).rowcount):
            raise KeyError(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        names = [(key,) for key in keys]
        what = names[0][0] if names else ""

        def delete(some: list[tuple[str]]) -> None:
            self._write(what, lambda connection: connection.executemany("DELETE FROM zarr WHERE k = ?", some))

        try:
            delete(names)
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            # Less needs less room in the log, which is emptied in between.
            for start in range(0, len(names), _FEW):
                delete(names[start : start + _FEW])

    def _rmdir(self, path: str) -> None:
        where, values = _below(path)
        try:
            self._write(path, lambda connection: connection.execute(f"DELETE FROM zarr WHERE {where}", values))
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            some = f"DELETE FROM zarr WHERE rowid IN (SELECT rowid FROM zarr WHERE {where} LIMIT {_FEW})"
            while self._write(path, lambda connection: connection.execute(some, values).rowcount):
                pass

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
        return () if path or self.path == IN_MEMORY else sweep_folder(os.path.dirname(self.path), dry_run)

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

        live = self._row(f"SELECT SUM({rows.NBYTES}) FROM zarr")[0] or 0
        page = int(self._row("PRAGMA page_size")[0])
        return {
            "implementation": f"SQLite {sqlite3.sqlite_version}",
            "entries": self._count(),
            "live_bytes": int(live),
            "dead_bytes": int(self._row("PRAGMA freelist_count")[0]) * page,
            "file_bytes": int(self._row("PRAGMA page_count")[0]) * page,
            "journal_mode": bytes(self._row("PRAGMA journal_mode")[0]).decode(),
        }


#: A name as a parameter in bytes, since not every name in a table is UTF-8.
_TEXT = "CAST(? AS TEXT)"


def _as_text(name: bytes) -> str:
    # What is not UTF-8 becomes lone surrogates, which no key has.
    return name.decode("utf-8", "surrogateescape")


def _bounds(path: str) -> tuple[bytes, str | bytes]:
    """Return what the keys below a path sort after, and what they all sort before."""
    # SQLite sorts every text before every blob. The empty text is no key.
    return k.prefix(path).encode(), k.beyond(path) if path else b""


def _below(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the condition for the keys below a path: a range, since LIKE has wildcards and folds case."""
    return ("k >= ? AND k < ?", (k.prefix(path), k.beyond(path))) if path else ("1", ())
