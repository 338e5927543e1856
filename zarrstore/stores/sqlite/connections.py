"""Connections to one SQLite file: lent to one thread at a time, and none of them open while the process forks.

SQLite's locks are POSIX locks, which belong to the process and are not inherited: a child that has its parent's
connections counts on locks that it does not hold. So all are closed before a fork, and opened on the next use after,
on both sides (see `zarrstore.stores._process`). For the same reason nothing here opens the file but SQLite: closing any
descriptor of it would drop the locks of all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from zarrstore.errors import DamagedStoreError, LockedStoreError, ReadOnlyError
from zarrstore.stores._files import sweep_folder, temporary_name
from zarrstore.stores._process import Resource, registered
from zarrstore.stores._sync import fsync_file, fsync_folder

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Connections", "is_open_here"]

T = TypeVar("T")

#: Bytes; no database is shorter.
SMALLEST_PAGE = 512
TABLE = "CREATE TABLE IF NOT EXISTS zarr(k TEXT PRIMARY KEY, v BLOB)"


class Connections(Resource):
    """The connections of one store.

    Parameters
    ----------
    label : str
        How errors name the store.
    path : str
        The database file.
    readonly : bool
        Nothing is written, not even the files that WAL keeps beside the database.
    timeout : float, seconds
        How long to wait for another writer.
    options : dict
        More arguments of `sqlite3.connect`.

    Notes
    -----
    A call takes an idle connection or opens one, and puts it back before it leaves `use`: where no thread is inside,
    every connection is idle. There are as many as threads were ever in a call at one time.
    """

    def __init__(self, label: str, path: str, readonly: bool, timeout: float, options: dict[str, Any]) -> None:
        super().__init__(label, path)
        self.readonly = readonly
        self.timeout = timeout
        self.options = options
        self.idle: list[sqlite3.Connection] = []
        self._of_the_parent: list[sqlite3.Connection] = []
        self.register()
        try:
            self.alone(self._open_first)
        except BaseException:
            self.unregister()
            raise

    def _open_first(self) -> None:
        if not self.readonly and not os.path.exists(self.path):
            self._create()
        elif os.path.exists(self.path) and os.path.getsize(self.path) < SMALLEST_PAGE:
            # SQLite would take it for a new database.
            raise DamagedStoreError(self.path, "is empty or cut off, not even one page", "remove it to begin anew")
        self.idle.append(self._connect())

    # Open and closed -----------------------------------------------------------------------------------------------

    def _create(self) -> None:
        """Make an empty database, all at once: whoever finds a file finds one with a table."""
        import sqlite3

        folder = os.path.dirname(self.path)
        temporary = os.path.join(folder, temporary_name())
        try:
            sweep_folder(folder)
            connection = sqlite3.connect(temporary)
            try:
                connection.execute(TABLE)
                connection.commit()
            finally:
                connection.close()
            fsync_file(temporary)
            # A link, not a rename: it never replaces what another process has made meanwhile. Where the file system
            # has no links, SQLite makes its own file.
            with suppress(OSError):
                os.link(temporary, self.path)
        except sqlite3.Error as exc:
            raise self.explained(exc) from exc
        finally:
            for name in (temporary, temporary + "-journal"):
                with suppress(FileNotFoundError):
                    os.unlink(name)
        fsync_folder(folder)

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        uri = f"file:{quote(self.path)}"
        if self.readonly:
            uri += "?mode=ro"
            if not os.access(os.path.dirname(self.path), os.W_OK) and not os.path.exists(self.path + "-wal"):
                uri += "&immutable=1"  # WAL would have to make files beside it
        arguments = {"timeout": self.timeout, **self.options, "isolation_level": None, "check_same_thread": False}
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(uri, uri=True, **arguments)
            self._prepare(connection)
        except BaseException as exc:
            if connection is not None:
                connection.close()
            if isinstance(exc, sqlite3.Error):
                raise self.explained(exc) from exc
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "zarr" not in tables and (tables or self.readonly):
            held = ", ".join(sorted(tables)) or "nothing"
            raise DamagedStoreError(self.path, f"is no store of Zarr: it has no table 'zarr', but {held}")
        if not self.readonly:
            connection.execute("PRAGMA journal_mode = WAL")
            if "zarr" not in tables:
                connection.execute(TABLE)
        # NORMAL: a commit is with the operating system; `flush` brings the log to the disk.
        connection.execute("PRAGMA synchronous = NORMAL")

    def _close_all(self) -> Exception | None:
        """Close every connection; return what went wrong. The log is then in the database, and durable."""
        import sqlite3

        failure: Exception | None = None
        while self.idle:
            connection = self.idle.pop()
            try:
                if not self.idle and not self.readonly:
                    self._checkpoint(connection)
                    # One file again, which other programs read on read-only places; refused while others have it open.
                    with suppress(sqlite3.Error):
                        connection.execute("PRAGMA busy_timeout = 0")
                        connection.execute("PRAGMA journal_mode = DELETE")
            except OSError as exc:
                failure = exc
            finally:
                connection.close()
        return failure

    def close(self) -> None:
        """Close for good; a second call does nothing."""
        if self.dead:
            return
        failure = self.end(self._close_all)
        if failure is not None:
            raise failure

    def __del__(self) -> None:
        # Nobody closed the store. Never in a forked child: what was its parent's is not here.
        with suppress(Exception):
            while self.idle:
                self.idle.pop().close()

    # Fork and exit -------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close all connections. What cannot be synced now is reported by the next flush or close, which try again."""
        self._close_all()

    def after_fork_in_child(self) -> None:
        """Keep what is the parent's, unused."""
        self._of_the_parent += self.idle
        self.idle = []

    def at_exit(self) -> None:
        """Close all connections beside daemon threads, as `close` does."""
        self._close_all()

    # Use -----------------------------------------------------------------------------------------------------------

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return ``work(connection)``."""
        import sqlite3

        def call() -> T:
            idle = self.idle
            try:
                connection = idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                return work(connection)
            except sqlite3.Error as exc:
                raise self.explained(exc) from exc
            finally:
                if connection.in_transaction:  # not even the rollback could be done
                    connection.close()
                else:
                    idle.append(connection)

        return self.use(call)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return ``work(connection)`` in a transaction: all of it is stored, or nothing."""

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

        return self.run(transaction)

    def flush(self) -> None:
        """Make durable what was committed before."""
        if not self.readonly:
            self.run(self._checkpoint)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        import sqlite3

        try:
            # Syncs the log before it is copied, and the database after.
            busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as exc:
            raise self.explained(exc) from exc
        if busy or frames != copied:
            # A reader needs an old state, or another process is at it: then SQLite may not even have synced the log.
            fsync_file(self.path + "-wal")

    def explained(self, exc: sqlite3.Error) -> Exception:
        """Return what `exc` means to a caller."""
        import sqlite3

        reason = str(exc)
        if isinstance(exc, sqlite3.OperationalError):
            if "locked" in reason or "busy" in reason:
                return LockedStoreError(self.path, f"another process kept it for longer than {self.timeout:g} s")
            if "readonly" in reason:
                return ReadOnlyError("it", self.label)
            if "unable to open" in reason:
                return FileNotFoundError(errno.ENOENT, "cannot open the database, nor make it", self.path)
            if "full" in reason:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        if isinstance(exc, sqlite3.DatabaseError) and ("not a database" in reason or "malformed" in reason):
            return DamagedStoreError(self.path, f"is damaged, or no SQLite database ({reason})")
        return OSError(errno.EIO, f"SQLite cannot do it: {reason}", self.path)


def is_open_here(path: str) -> bool:
    """Tell whether this process has a database open, so that nothing else in it may open and close the file."""
    try:
        return any(os.path.samefile(path, connections.path) for connections in registered(Connections))
    except OSError:
        return False
