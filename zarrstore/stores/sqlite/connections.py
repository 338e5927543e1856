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
from zarrstore.longpaths import absent_place
from zarrstore.stores._files import sweep_folder
from zarrstore.stores._process import Resource, registered
from zarrstore.stores._sync import create_file, fsync_file
from zarrstore.stores.sqlite.schema import TABLE, check_schema

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Connections", "is_open_here"]

T = TypeVar("T")


class _StuckLockError(LockedStoreError):
    """An unlock failed, so that SQLite counts a lock which nobody holds; closing every connection forgets it."""


#: Bytes; no database is shorter.
SMALLEST_PAGE = 512
#: Bytes in a page of a new database. With SQLite's 4 KiB a large value costs twice as much as in zarr 2, whose journal
#: does not hold it; with 64 KiB a small one costs three times as much as here.
PAGE_SIZE = 16 << 10
#: Bytes in the log after which it is brought into the database.
LOG_BYTES = 4 << 20
#: Bytes that a set leaves free on the disk: a delete on a full disk needs room in the log.
RESERVE = 512 << 10
#: The name under which zarr 2, and SQLite itself, keep a database in memory.
IN_MEMORY = ":memory:"


class Connections(Resource):
    """The connections of one store.

    Parameters
    ----------
    label : str
        How errors name the store.
    path : str
        The database file, or ``":memory:"``.
    readonly : bool
        Nothing is written.
    immutable : bool
        Nobody writes: no locks are taken, and no files are looked for or made beside the database.
    timeout : float, seconds
        How long to wait for another writer.
    options : dict
        More arguments of `sqlite3.connect`.

    Notes
    -----
    A call takes an idle connection or opens one, and puts it back before it leaves `use`: where no thread is inside,
    every connection is idle. There are as many as threads were ever in a call at one time.
    """

    def __init__(
        self, label: str, path: str, readonly: bool, immutable: bool, timeout: float, options: dict[str, Any]
    ) -> None:
        super().__init__(label, path)
        self.readonly = readonly
        self.immutable = immutable
        self.timeout = timeout
        self.options = options
        self.in_memory = path == IN_MEMORY
        self.idle: list[sqlite3.Connection] = []
        self._of_the_parent: list[sqlite3.Connection] = []
        self.register()
        try:
            self.alone(self._open_first)
        except BaseException:
            self.unregister()
            raise

    def _open_first(self) -> None:
        if not self.in_memory:
            if not os.path.exists(self.path):
                if self.readonly:
                    raise absent_place(self.path, "an SQLite database to read")
                self._create()
            elif os.path.getsize(self.path) < SMALLEST_PAGE:
                # SQLite would take it for a new database.
                raise DamagedStoreError(self.path, "is empty or cut off, not even one page", "remove it to begin anew")
        self.idle.append(self._connect())

    # Open and closed -----------------------------------------------------------------------------------------------

    def _create(self) -> None:
        """Create a database with its table, all at once: whoever finds a file finds a table in it."""
        import sqlite3

        sweep_folder(os.path.dirname(self.path))
        connection = sqlite3.connect(IN_MEMORY)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute(TABLE)
            connection.commit()
            content = connection.serialize()
        finally:
            connection.close()
        create_file(self.path, content, 0o644)

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        arguments = {"timeout": self.timeout, **self.options, "isolation_level": None, "check_same_thread": False}
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self._uri(), uri=True, **arguments)
            # Names and texts that another program wrote need not be UTF-8.
            connection.text_factory = bytes
            self._prepare(connection)
        except BaseException as exc:
            if connection is not None:
                connection.close()
            if isinstance(exc, (sqlite3.Error, UnicodeDecodeError)):
                raise self.explained(exc) from exc
            raise
        return connection

    def _uri(self) -> str:
        if self.in_memory:
            return f"file:{IN_MEMORY}"
        mode = "ro" if self.readonly else "rw"  # never created here
        return f"file:{quote(os.fsencode(self.path))}?mode={mode}{'&immutable=1' if self.immutable else ''}"

    def _prepare(self, connection: sqlite3.Connection) -> None:
        has_table = check_schema(connection, self.path, self.readonly)
        if not self.readonly:
            connection.execute("PRAGMA journal_mode = WAL")
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // page_size}")
            # Otherwise SQLite as Debian builds it writes every page of a deleted value once more, as zeros.
            connection.execute("PRAGMA secure_delete = FAST")
            if not has_table:
                connection.execute(TABLE)
        # NORMAL: a commit is with the operating system; `flush` brings the log to the disk.
        connection.execute("PRAGMA synchronous = NORMAL")

    def _close_all(self) -> Exception | None:
        """Close every connection; return what went wrong. The log is then in the database, and durable."""
        failure: Exception | None = None
        while self.idle:
            connection = self.idle.pop()
            try:
                if not (self.idle or self.readonly or self.in_memory):
                    self._checkpoint(connection)
            except OSError as exc:
                failure = exc
            finally:
                # The last one to close the database, in any process, removes the files of the log.
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
        # Nobody closed the store. Never in a forked child: what was its parent's is kept in `_of_the_parent`.
        with suppress(Exception):
            while self.idle:
                self.idle.pop().close()

    # Fork and exit -------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close all connections. What cannot be synced now is reported by the next flush or close, which try again."""
        if not self.in_memory:
            self._close_all()

    def after_fork_in_child(self) -> None:
        """Keep what is the parent's, unused. A database in memory was copied, and is the child's own."""
        if not self.in_memory:
            self._of_the_parent += self.idle
            self.idle = []

    def at_exit(self) -> None:
        """Close all connections beside daemon threads, as `close` does."""
        failure = self._close_all()
        if failure is not None:
            raise failure

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
            except (sqlite3.Error, UnicodeDecodeError) as exc:
                raise self.explained(exc) from exc
            finally:
                if connection.in_transaction:  # not even the rollback could be done
                    connection.close()
                else:
                    idle.append(connection)

        if self.in_memory:  # there is one connection, which is the database
            with self.turn:
                self.check()
                return call()
        try:
            return self.use(call)
        except _StuckLockError:
            self.alone(self._close_all)
            return self.use(call)

    def write(self, work: Callable[[sqlite3.Connection], T], nbytes: int = 0) -> T:
        """Return ``work(connection)`` in a transaction: all of it is stored, or nothing.

        Parameters
        ----------
        nbytes : int, bytes
            About how much more is stored; 0 for what makes room.
        """

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

        if nbytes:
            self._check_space(nbytes)
        try:
            return self.run(transaction)
        except OSError as exc:
            if nbytes or exc.errno != errno.ENOSPC or self.in_memory:
                raise
        self._empty_log()
        return self.run(transaction)

    def _check_space(self, nbytes: int) -> None:
        """Raise OSError unless the disk has room for `nbytes` in the log, then in the database, and for deletes."""
        if self.in_memory or self._space() >= 2 * nbytes + RESERVE:
            return
        self._empty_log()
        # In a database with free pages only the log grows.
        fits_inside = self.run(_free_bytes) >= nbytes
        if self._space() < (nbytes + RESERVE // 2 if fits_inside else 2 * nbytes + RESERVE):
            reason = f"{os.strerror(errno.ENOSPC)} ({RESERVE >> 10} KiB of it are kept for deletes)"
            raise OSError(errno.ENOSPC, reason, self.path)

    def _space(self) -> int:
        """Return the bytes that are free when the log will have been brought into the database."""
        try:
            disk = os.statvfs(self.path)
        except (AttributeError, OSError):  # Windows; or there is no file any more, which the write reports
            return 1 << 62
        free = disk.f_bavail * disk.f_frsize
        try:
            return free - os.stat(self.path + "-wal").st_size
        except OSError:
            return free

    def _empty_log(self) -> None:
        with suppress(OSError):
            self.run(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())

    def flush(self) -> None:
        """Make durable what was committed before."""
        if self.readonly or self.in_memory:
            self.run(lambda connection: None)  # which says so if the store is closed
            return
        self.run(self._checkpoint)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        import sqlite3

        try:
            # Syncs the log before it is copied, and the database after.
            busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            raise self.explained(exc) from exc
        if busy or frames != copied:
            # A reader needs an old state, or another process is at it: then SQLite may not even have synced the log.
            fsync_file(self.path + "-wal")

    def explained(self, exc: sqlite3.Error | UnicodeDecodeError) -> Exception:
        """Return what `exc` means to a caller."""
        import sqlite3

        reason = str(exc)
        if isinstance(exc, UnicodeDecodeError):
            # Python could not decode what SQLite says of a damaged schema, with the names in it.
            reason = exc.object.decode("utf-8", "replace")
            exc = sqlite3.DatabaseError(reason)
        if isinstance(exc, sqlite3.OperationalError):
            if "locked" in reason or "busy" in reason:
                return LockedStoreError(self.path, f"another process kept it for longer than {self.timeout:g} s")
            if "locking protocol" in reason:
                return _StuckLockError(self.path, "a lock of this process could not be given up")
            if "readonly" in reason and self.readonly and not self.immutable:
                return self._cannot_open()  # a reader writes nothing but the files beside it
            if "readonly" in reason:
                return ReadOnlyError("the database", self.label)
            if "unable to open" in reason:
                return self._cannot_open()
            if "full" in reason:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        if isinstance(exc, sqlite3.DatabaseError) and ("not a database" in reason or "malformed" in reason):
            return DamagedStoreError(self.path, f"is damaged, or no SQLite database ({reason})")
        return OSError(errno.EIO, f"SQLite reports: {reason}", self.path)

    def _cannot_open(self) -> Exception:
        if not os.path.exists(self.path):
            return FileNotFoundError(errno.ENOENT, "cannot open the database, nor create it", self.path)
        if self.readonly and not self.immutable:
            return PermissionError(
                errno.EACCES,
                f"{self.label}: SQLite must make files beside a database in WAL mode, even to read it, and this folder "
                "cannot be written to; where nobody writes to the database meanwhile, immutable=True opens it",
                self.path,
            )
        return PermissionError(errno.EACCES, "SQLite cannot open the database, or the files beside it", self.path)


def _free_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the pages of a database that hold nothing."""
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_size)


def is_open_here(path: str) -> bool:
    """Tell whether this process has a database open, so that nothing else in it may open and close the file."""
    return any(_is_same_file(path, pool.path) for pool in registered(Connections) if not pool.in_memory)


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there
        return False
