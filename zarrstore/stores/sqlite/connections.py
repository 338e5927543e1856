"""Connections to one SQLite file: lent to one thread at a time, and none of them open while the process forks.

SQLite's locks are POSIX locks, which belong to the process and are not inherited: a child that has its parent's
connections counts on locks that it does not hold. So all are closed before a fork, and opened on the next use after,
on both sides. For the same reason nothing here opens the file but SQLite: closing any descriptor of it would drop the
locks of all.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from zarrstore.errors import ClosedStoreError, DamagedStoreError, LockedStoreError, ReadOnlyError
from zarrstore.stores._files import sweep_folder, temporary_name
from zarrstore.stores._sync import fsync_file, fsync_folder

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Connections", "is_open_here"]

T = TypeVar("T")

#: How long a fork waits for transactions of other threads to end, in seconds.
FORK_WAITS = 5.0
#: Bytes; no database is shorter.
SMALLEST_PAGE = 512
TABLE = "CREATE TABLE IF NOT EXISTS zarr(k TEXT PRIMARY KEY, v BLOB)"


class Connections:
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
    A use puts an entry into `busy`, looks at `shut`, takes an idle connection or opens one, and puts it back before
    its entry is taken out: where `busy` is empty, every connection is idle. There are as many as threads were ever in a
    call at one time.
    """

    def __init__(self, label: str, path: str, readonly: bool, timeout: float, options: dict[str, Any]) -> None:
        self.label = label
        self.path = path
        self.readonly = readonly
        self.timeout = timeout
        self.options = options
        self.idle: list[sqlite3.Connection] = []
        self.busy: list[None] = []
        self.shut = self.closed = self.crossed_fork = False
        self.turn = threading.Lock()
        if not readonly and not os.path.exists(path):
            self._create()
        elif os.path.exists(path) and os.path.getsize(path) < SMALLEST_PAGE:
            # SQLite would take it for a new database.
            raise DamagedStoreError(path, "is empty or cut off, not even one page", "remove it to begin a new store")
        self.idle.append(self._connect())
        _open_here.add(self)

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
        told = {"timeout": self.timeout, **self.options, "isolation_level": None, "check_same_thread": False}
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(uri, uri=True, **told)
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

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no connection is in use, and keep it so."""
        with self.turn:
            self.shut = True
            try:
                while self.busy:
                    time.sleep(0.0001)
                yield
            finally:
                self.shut = self.closed

    def _close_all(self) -> Exception | None:
        """Close every connection; return what went wrong. The log is then in the database, and durable."""
        import sqlite3

        trouble: Exception | None = None
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
                trouble = exc
            finally:
                connection.close()
        return trouble

    def close(self) -> None:
        """Close for good; a second call does nothing."""
        if self.closed:
            return
        with self.alone():
            self.closed = True
            _open_here.discard(self)
            trouble = self._close_all()
        if trouble is not None:
            raise trouble

    def __del__(self) -> None:
        # Nobody closed the store. Never in a forked child: what was its parent's is not here.
        with suppress(Exception):
            while self.idle:
                self.idle.pop().close()

    # Use -----------------------------------------------------------------------------------------------------------

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return ``work(connection)``."""
        import sqlite3

        busy = self.busy
        while True:
            try:
                # Inside the try: an interrupt can neither leave the entry there nor take out another's.
                busy.append(None)
                if not self.shut:
                    try:
                        connection = self.idle.pop()
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
                            self.idle.append(connection)
            finally:
                busy.pop()
            self._wait()

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

    def _wait(self) -> None:
        with self.turn:
            if self.closed:
                raise ClosedStoreError(self.label)
            if self.crossed_fork:
                raise LockedStoreError(
                    self.path,
                    "this process was forked while another thread was in a transaction that did not end; fork when no "
                    "thread uses the store, or start processes by spawn",
                )

    def explained(self, exc: sqlite3.Error) -> Exception:
        """Return what `exc` means to a caller."""
        import sqlite3

        said = str(exc)
        if isinstance(exc, sqlite3.OperationalError):
            if "locked" in said or "busy" in said:
                return LockedStoreError(self.path, f"another process kept it for longer than {self.timeout:g} s")
            if "readonly" in said:
                return ReadOnlyError("it", self.label)
            if "unable to open" in said:
                return FileNotFoundError(errno.ENOENT, "cannot open the database, nor make it", self.path)
            if "full" in said:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        if isinstance(exc, sqlite3.DatabaseError) and ("not a database" in said or "malformed" in said):
            return DamagedStoreError(self.path, f"is damaged, or no SQLite database ({said})")
        return OSError(errno.EIO, f"SQLite cannot do it: {said}", self.path)


# Fork --------------------------------------------------------------------------------------------------------------

_open_here: weakref.WeakSet[Connections] = weakref.WeakSet()
_forking: list[Connections] = []


def is_open_here(path: str) -> bool:
    """Tell whether this process has a database open, so that nothing else in it may open and close the file."""
    try:
        return any(os.path.samefile(path, held.path) for held in list(_open_here))
    except OSError:
        return False


def _before_fork() -> None:
    _forking[:] = list(_open_here)
    for held in _forking:
        held.turn.acquire()
        held.shut = True
        patience = time.monotonic() + FORK_WAITS
        while held.busy and time.monotonic() < patience:
            time.sleep(0.0001)
        if not held.busy:
            # What could not be synced now is told by the next flush or close, which try again.
            held._close_all()


def _after_fork_in_parent() -> None:
    for held in _forking:
        held.shut = held.closed
        held.turn.release()
    _forking.clear()


def _after_fork_in_child() -> None:
    for held in _forking:
        # A transaction that did not end: its connections are the parent's, and nothing here is closed.
        held.crossed_fork = bool(held.busy)
        if held.crossed_fork:
            _inherited.append(held.idle)
            held.idle, held.busy = [], []
        held.shut = held.closed or held.crossed_fork
        held.turn.release()
    _forking.clear()


_inherited: list[list[sqlite3.Connection]] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
