"""Open DBM databases: one handle per process and file, the lock on it, and what differs between implementations."""

from __future__ import annotations

import contextlib
import dbm
import errno
import importlib
import os
import sqlite3
import struct
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from zarrstore import keys as k
from zarrstore.errors import DamagedStoreError, LockedStoreError, UnsupportedOperation
from zarrstore.longpaths import absent_place
from zarrstore.stores._files import is_pipe
from zarrstore.stores.dbm.guard import SELF_LOCKING, Guard
from zarrstore.threads import Threads

__all__ = ["ERRORS", "Handle", "Opener", "acquire", "as_key", "drop", "erase", "files", "give_back"]

T = TypeVar("T")
Opener = Callable[..., Any]

#: Whatever an implementation raises of its own. Python may fail to decode what SQLite says of a damaged schema.
ERRORS: tuple[type[Exception], ...] = (*dbm.error, sqlite3.Error, UnicodeDecodeError)
#: And at opening: dumb evaluates its index.
_AT_OPENING: tuple[type[Exception], ...] = (*ERRORS, SyntaxError, ValueError)
#: Name of the implementation by the module that defines its objects and its `open`.
_NAMES = {"_gdbm": "dbm.gnu", "_dbm": "dbm.ndbm", "dbm.dumb": "dbm.dumb", "dbm.sqlite3": "dbm.sqlite3"}
#: What a database may consist of: its name with each of these behind.
_SUFFIXES = ("", ".db", ".dat", ".dir", ".pag")
#: And by its implementation, with what a killed writer leaves.
_SUFFIXES_OF = {
    "dbm.dumb": (".dat", ".dir", ".bak"),
    "dbm.gnu": ("",),
    "dbm.ndbm": (".db", ".dir", ".pag"),
    "dbm.sqlite3": ("", "-wal", "-shm", "-journal"),
}
_GNU_RECOVERY = "gdbmtool's command 'recover' may bring it back; work on a copy"


class Handle:
    """An open database, the lock on it, and how many stores of this process use it."""

    def __init__(self, path: str, flag: str, mode: int, opener: Opener | None, kwargs: dict[str, Any]) -> None:
        self.key: object = None
        self.path = path
        self.users = 0
        self.orphan = False  # in a forked child: the parent's, not to be touched
        self.writable = flag[0] != "r"
        self.lock = threading.RLock()
        self._how: tuple[Opener | None, str, str, int, dict[str, Any]] = opener, path, flag, mode, kwargs
        if any(is_pipe(path + suffix) for suffix in (*_SUFFIXES, ".bak")):
            raise DamagedStoreError(path, "is a pipe, and no database")
        self._guard = Guard(path, flag)
        # Opened in a thread of its own, because an sqlite3 object refuses all others.
        self.worker: Threads | None = Threads(1, "zarrstore-dbm")
        try:
            self.db = self.worker.submit(_open, *self._how).result()
        except BaseException:
            self.worker.shutdown()
            self._guard.release()
            raise
        self.implementation = _name(self.db)
        if self.implementation != "dbm.sqlite3":
            self.worker.shutdown()
            self.worker = None
        if self.implementation in SELF_LOCKING:
            self._guard.release()
        #: Whether `db` may be used as it is, under `lock`: by any thread of this process, for bytes.
        self.direct = self.implementation in ("dbm.dumb", "dbm.gnu", "dbm.ndbm")

    def run(self, act: Callable[[Any], T], alone: bool = True) -> T:
        """Do something with the database: in its own thread where it has one, else alone unless told otherwise."""
        if self.worker is not None:
            return self.worker.submit(lambda: act(self.db)).result()
        if not alone:
            return act(self.db)
        with self.lock:
            return act(self.db)

    def sync(self) -> None:
        """Hand to the system what the implementation still holds. Call it within `run`."""
        if hasattr(self.db, "sync"):
            self.db.sync()
        elif self.implementation != "dbm.sqlite3":  # which commits at every set
            self.reopen()

    def reopen(self, after_failure: bool = False) -> None:
        """Close and open again, never anew. Call it within `run`."""
        opener, path, flag, mode, kwargs = self._how
        self.db.close()
        if after_failure and self.implementation == "dbm.gnu":
            # The file has grown for a value that was not written; gnu takes that for damage. (199 of 199 failures
            # healed so; after a kill it is not enough, 4 of 39.)
            recorded = _gnu_length(path)
            if recorded is not None and recorded < os.path.getsize(path):
                os.truncate(path, recorded)
        self.db = _open(opener, path, ("c" if flag[0] == "n" else flag[0]) + flag[1:], mode, kwargs)

    def close(self) -> None:
        """Close the database and let the next one in."""
        try:
            self.run(lambda db: db.close())
        except (
            RuntimeError
        ):  # the interpreter ends and takes no more work for threads; sqlite3 has nothing left to write
            pass
        finally:
            if self.worker is not None:
                self.worker.shutdown()
            self._guard.release()

    def abandon(self) -> None:
        """In a forked child: let the parent's lock and database be, and never run the database's own clean-up."""
        self.orphan = True
        self.direct = False
        self._guard.abandon()
        # dumb's __del__ would write the index as it was at the fork, gnu's would give up the parent's lock.
        with contextlib.suppress(ImportError):
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.db))


_handles: dict[object, Handle] = {}
#: Held while a database is opened and closed. Its holder waits for other threads (`worker`), so no finaliser may wait
#: for it: a garbage collection can run one in any of them.
_handles_lock = threading.Lock()
#: The thread that holds it.
_holder: int | None = None
#: Handles of stores that were lost without a close; each entry counts one user less.
_dropped: deque[Handle] = deque()


def acquire(path: str, flag: str, mode: int, opener: Opener | None, kwargs: dict[str, Any]) -> Handle:
    """Return the handle of a database for one user more, opening it for the first."""
    key = os.path.realpath(path), opener, repr(sorted(kwargs.items()))
    _give_back_dropped()
    return _change(lambda: _acquire(key, path, flag, mode, opener, kwargs))


def _acquire(key: object, path: str, flag: str, mode: int, opener: Opener | None, kwargs: dict[str, Any]) -> Handle:
    handle = _handles.get(key)
    if handle is None:
        handle = Handle(path, flag, mode, opener, kwargs)
        handle.key = key
        _handles[key] = handle
    elif flag[0] == "n":
        raise LockedStoreError(path, "it is open in this process; close that store first")
    elif flag[0] != "r" and not handle.writable:
        raise LockedStoreError(path, "it is open for reading in this process; close that store first")
    handle.users += 1
    return handle


def give_back(handle: Handle) -> None:
    """Undo one `acquire`; the last one closes."""
    if _holder == threading.get_ident():  # a `__del__` of the caller's runs while this thread opens or closes another
        _dropped.append(handle)
    else:
        _change(lambda: _give_back(handle))


def _change(work: Callable[[], T]) -> T:
    """Return ``work()``, done while no other thread opens or closes a database."""
    global _holder
    try:
        with _handles_lock:
            try:
                _holder = threading.get_ident()
                return work()
            finally:
                _holder = None
    finally:
        _give_back_dropped()


def _give_back(handle: Handle) -> None:
    handle.users -= 1
    if handle.users or handle.orphan:
        return
    _handles.pop(handle.key, None)
    handle.close()


def drop(handle: Handle) -> None:
    """Undo one `acquire` from a finaliser, which may run in any thread at any step, and so must not wait."""
    _dropped.append(handle)
    _give_back_dropped()


def _give_back_dropped() -> None:
    """Give back what finalisers dropped, unless a thread opens or closes: that one does so afterwards."""
    global _holder
    held = True
    while held and _dropped:
        # As in _files.with_file: no interrupt comes between the acquisition and the `try`.
        for held in map(_handles_lock.acquire, (False,)):
            try:
                while held and _dropped:
                    _holder = threading.get_ident()
                    _give_back_one(_dropped.popleft())
            finally:
                if held:
                    _holder = None
                    _handles_lock.release()


def _give_back_one(handle: Handle) -> None:
    try:
        _give_back(handle)
    except Exception as exc:  # not raised: the caller has another store
        warnings.warn(f"{handle.path!r} was closed by nobody, and may lack what was set: {exc}", RuntimeWarning, 2)


def _after_fork() -> None:
    global _handles_lock, _holder
    _handles_lock, _holder = threading.Lock(), None
    _dropped.clear()
    for handle in _handles.values():
        handle.abandon()
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _open(opener: Opener | None, path: str, flag: str, mode: int, kwargs: dict[str, Any]) -> Any:
    found = None if flag[0] == "n" else _inspect(opener, path, flag)
    if flag[0] == "n":
        _remove_older(opener, path, mode, kwargs)
    try:
        db: Any = (opener or dbm.open)(path, flag, mode, **kwargs)  # type: ignore[arg-type]
    except _AT_OPENING as exc:
        if getattr(exc, "errno", None) == errno.EAGAIN and found == "dbm.gnu":
            raise LockedStoreError(path, "another store has it open") from exc
        if found is None or isinstance(exc, PermissionError):
            raise
        way_out = _GNU_RECOVERY if found == "dbm.gnu" else ""
        raise DamagedStoreError(path, f"cannot be opened by {found}: {exc}", way_out) from exc
    try:
        if found is not None:
            _check(db, path)
        elif flag[0] == "n":
            _refuse_hidden(db, path)
        if _name(db) == "dbm.ndbm":
            _prime(db, flag)
    except BaseException:
        db.close()
        raise
    return db


def _remove_older(opener: Opener | None, path: str, mode: int, kwargs: dict[str, Any]) -> None:
    """Remove the database at `path`, if it is of another implementation than the new one: it would be found first."""
    new = _NAMES.get(getattr(opener, "__module__", "")) if opener not in (None, dbm.open) else _default_name()
    for _ in _SUFFIXES_OF:  # one of each may be there
        older = dbm.whichdb(path)
        if not older or older not in _SUFFIXES_OF:
            return
        if older == "dbm.gnu":
            if new == older:
                return  # gnu itself makes it anew, and refuses while another process has it open
            try:
                importlib.import_module(older).open(path, "w", mode, **kwargs).close()
            except ERRORS as exc:
                if getattr(exc, "errno", None) == errno.EAGAIN:
                    raise LockedStoreError(path, "another store has it open") from exc
            except ImportError:
                pass
        for suffix in _SUFFIXES_OF[older]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + suffix)


def _default_name() -> str | None:
    """Return which implementation `dbm.open` makes new databases of."""
    for name in dbm._names:  # type: ignore[attr-defined]
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        return str(name)
    return None


def _refuse_hidden(db: Any, path: str) -> None:
    """Refuse a new database that the next opening would not find, for another file that it would take."""
    name = _name(db)
    if name not in _SUFFIXES_OF:
        return
    if hasattr(db, "sync"):
        db.sync()
    found = dbm.whichdb(path)
    if found and found != name:
        raise DamagedStoreError(path, f"is hidden by a {found} database of that name", "move that away")


def _inspect(opener: Opener | None, path: str, flag: str) -> str | None:
    """Return which implementation wrote what is at `path`, None if nothing is; refuse what would open as empty."""
    if os.path.isdir(path):
        raise DamagedStoreError(path, "is a directory, not a DBM database")
    pinned = _NAMES.get(getattr(opener, "__module__", ""))
    if opener not in (None, dbm.open) and pinned is None:
        return "its implementation" if files(path) else None
    _refuse_lost_index(path)
    found = dbm.whichdb(path)
    if found is None:
        _refuse_unknown_files(path)
        if flag[0] != "c":
            raise absent_place(path, "a DBM database of that name, or of that name and a suffix")
        return None
    if not found:
        base = os.path.splitext(path)[0]
        way_out = f"name it without its suffix: {base!r}" if base != path and dbm.whichdb(base) else ""
        raise DamagedStoreError(path, "is empty, damaged, or no DBM database", way_out)
    _refuse_other_implementation(found, pinned, path)
    if found == "dbm.sqlite3":
        _refuse_foreign_tables(path)
    return found


def _refuse_lost_index(path: str) -> None:
    if os.path.isfile(path + ".dat") and os.path.getsize(path + ".dat") and not os.path.exists(path + ".dir"):
        way_out = f"{path + '.bak'!r} may be the index before; copy it there" if os.path.exists(path + ".bak") else ""
        raise DamagedStoreError(path + ".dir", "is missing, the index of a dumb database", way_out)


def _refuse_unknown_files(path: str) -> None:
    others = files(path)
    if others:
        raise DamagedStoreError(others[0], "is there, and no DBM implementation of this Python knows it")


def _refuse_other_implementation(found: str, pinned: str | None, path: str) -> None:
    if pinned not in (None, found):
        raise DamagedStoreError(path, f"is a {found} database, and `open` makes those of {pinned}", "leave `open` out")
    try:
        __import__(found)
    except ImportError:
        raise UnsupportedOperation(
            f"open a {found} database", f"DBMStore({path!r})", "this Python was built without it; use one that has it"
        ) from None


def _refuse_foreign_tables(path: str) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except (sqlite3.Error, UnicodeDecodeError) as exc:
        raise DamagedStoreError(path, f"is a damaged SQLite database: {exc}") from exc
    if tables and "Dict" not in tables:
        way_out = "SQLiteStore opens it" if "zarr" in tables else ""
        raise DamagedStoreError(path, "is an SQLite database without the table Dict of dbm.sqlite3", way_out)


def _check(db: Any, path: str) -> None:
    """Refuse a database that opened, and would answer "no such key" for what it lost."""
    name = _name(db)
    if name == "dbm.gnu" and db.firstkey() is None:
        # Killed while it grew: gnu then finds no key at all, and says nothing (after 15 of 150 kills).
        if _gnu_length(path) not in (None, os.path.getsize(path)):
            raise DamagedStoreError(path, "was not written to its end and needs recovery", _GNU_RECOVERY)
    if name == "dbm.dumb":
        _check_dumb(db, path)


def _check_dumb(db: Any, path: str) -> None:
    index = getattr(db, "_index", None) or {}
    size = os.path.getsize(path + ".dat")
    for key, place in index.items():
        # What stands there is read as Python's literals, whatever they are.
        if not (isinstance(place, tuple) and len(place) == 2 and all(type(n) is int and n >= 0 for n in place)):
            raise DamagedStoreError(path + ".dir", f"says of {as_key(key)!r} that it lies at {place!r:.100}")
        position, length = place
        if position + length > size:
            raise DamagedStoreError(path + ".dat", f"ends before the value of {as_key(key)!r}")
    if not index and os.path.exists(path + ".bak"):
        # The old index becomes .bak before the new one is written. `erase` leaves one line there for the last key.
        with open(path + ".bak", "rb") as file:
            lost = sum(1 for _ in file)
        if lost > 1:
            way_out = f"{path + '.bak'!r} is the index before, of {lost:,} entries; copy it there"
            raise DamagedStoreError(path + ".dir", "is empty, cut off while it was written", way_out)


def _gnu_length(path: str) -> int | None:
    """Return how long the header says that a gnu database is, None if it cannot be read."""
    with open(path, "rb") as file:
        header = file.read(40)
    return int(struct.unpack_from("=q", header, 32)[0]) if len(header) == 40 else None


def _prime(db: Any, flag: str) -> None:
    """Let ndbm read a value that is not empty: before its first, Berkeley DB's finds empty values absent."""
    if flag[0] == "r":
        any(db.get(name) for name in db.keys())  # noqa: SIM118 - it cannot be iterated
        return
    probe = k.RESERVED.encode()  # no key, so nobody's
    db[probe] = b"1"
    assert db[probe] == b"1"
    del db[probe]


def erase(db: Any, names: Sequence[bytes]) -> None:
    """Delete records that exist."""
    if _name(db) == "dbm.dumb" and len(names) > 2:
        # It rewrites its index at each delete: 3 ms at 10,000 keys. Done for the last two only: both, so that a .bak of
        # several lines beside an empty index always means a crash.
        db._commit = lambda: None
        try:
            for name in names[:-2]:
                del db[name]
        finally:
            del db._commit
        names = names[-2:]
    for name in names:
        del db[name]


def files(path: str) -> list[str]:
    """Return the files of the database at `path`."""
    return [path + suffix for suffix in _SUFFIXES if os.path.isfile(path + suffix)]


def as_key(name: bytes | str) -> str:
    """Return a record's name as a key; if it is none, the empty string, which lies below nothing."""
    try:
        key = name if isinstance(name, str) else name.decode()
    except UnicodeDecodeError:
        return ""
    return key if k.is_key(key) else ""


def _name(db: Any) -> str:
    module = type(db).__module__
    return _NAMES.get(module) or f"{module}.{type(db).__qualname__}"
