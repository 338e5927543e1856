"""An LMDB environment that stands still when it must.

While it is closed, while its map grows and while the process forks, nobody may be in a transaction. So every use puts
an entry into `busy` for as long as it lasts, and `alone` waits until there is none. Uses are short: no transaction is
ever held while a caller's code runs.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

from zarrstore.errors import ClosedStoreError, DamagedStoreError, LockedStoreError
from zarrstore.stores.lmdb.files import compact, lacks_pages, lock_file

__all__ = ["ClosedEnvironment", "SharedEnvironment", "identity"]

T = TypeVar("T")

#: The first map, in bytes. Only address space: without writemap the file is as long as what was written.
SMALLEST_MAP = 16 << 20
#: Reader slots are looked over after so many bytes or writes: a killed reader pins what is freed meanwhile.
CHECK_BYTES, CHECK_WRITES = 64 << 10, 16
#: Failures that another try can mend, in a row.
TRIES = 20


def identity(path: str) -> tuple[int, int]:
    """Return what tells a file from every other, whatever path leads to it."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


class SharedEnvironment:
    """One open environment, and the rules under which threads use it.

    Parameters
    ----------
    label : str
        How errors name the store.
    path : str
        The data file.
    options : dict
        Arguments of ``lmdb.open``; a `map_size` of None lets the map start small. With `subdir` the data file is
        ``data.mdb`` of a directory, and its lock file ``lock.mdb``.

    Notes
    -----
    `begin` is the environment's own; whoever uses it first puts an entry into `busy` and then looks at `shut`, in this
    order, and takes the entry out last. Putting the entry in is the first statement *inside* the ``try``, so that an
    interrupt can neither leave it there nor take out another's.
    """

    def __init__(self, label: str, path: str, options: dict[str, Any]) -> None:
        import lmdb

        self.lmdb: Any = lmdb
        self.label = label
        self.path = path
        self.options = dict(options)
        self.stores = 1
        self.busy: list[None] = []
        self.shut = True
        self.dead = False
        self.turn = threading.Lock()
        self.map_size = 0
        self._inherited: list[Any] = []
        self._bytes_since_check = self._writes_since_check = 0
        self._open()
        if self._lacks_pages():
            self._release()
            raise DamagedStoreError(path, "is truncated: pages in use lie behind its end", "no value was read from it")
        self.shut = False

    # Open and closed -----------------------------------------------------------------------------------------------

    def _open(self, map_size: int | None = None) -> None:
        wanted = map_size or self.options["map_size"] or max(SMALLEST_MAP, 2 * _allocated(self.path))
        place = os.path.dirname(self.path) if self.options["subdir"] else self.path
        try:
            self.env: Any = self.lmdb.open(place, **{**self.options, "map_size": wanted, "create": False})
        except self.lmdb.Error as exc:
            self.fail(exc)
        self.begin: Callable[..., Any] = self.env.begin
        self.map_size = self.env.info()["map_size"]
        self.max_key_size: int = self.env.max_key_size()
        self.identity = identity(self.path)
        if self.options["lock"] and not self.options["readonly"]:
            self.env.reader_check()

    def _lacks_pages(self) -> bool:
        """Tell whether the file ends too early. Not asked again later: LMDB writes pages before it names them."""
        page_size = self.env.stat()["psize"]
        while True:
            txn = self.begin()
            try:
                info = self.env.info()
                if info["last_txnid"] == txn.id():  # else another process has just written
                    return lacks_pages(self.path, txn.id(), page_size, info["last_pgno"] + 1)
            finally:
                txn.abort()

    def _release(self) -> None:
        """Close; whoever has the turn may open it again."""
        self.shut = True
        env, self.env = self.env, None
        if env is not None:
            env.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody uses the environment, and keep it so."""
        with self.turn:
            self.shut = True
            try:
                while self.busy:
                    time.sleep(0.0001)
                yield
            finally:
                self.shut = self.env is None

    def _reopen(self, map_size: int) -> None:
        """Close and open with another map. Not ``set_mapsize``: where that fails, the old map is gone."""
        old = self.map_size
        self._release()
        try:
            self._open(map_size)
        except OSError as exc:
            self._open(old)
            if exc.errno != errno.ENOMEM:
                raise
            raise OSError(
                errno.ENOMEM,
                f"{self.label} needs a map of {map_size:,} bytes, and the system gives no address space for it",
                self.path,
            ) from None

    def end(self) -> None:
        """Close for good."""
        with self.alone():
            self._release()
            self.dead = True

    def _wait(self) -> None:
        """Come back when the environment can be used again, opening it if it was closed for a fork."""
        with self.turn:
            if self.dead:
                raise ClosedStoreError(self.label)
            if self.env is None and self._inherited:
                raise LockedStoreError(
                    self.path,
                    "this process was forked while another thread was in a transaction that did not end; fork when no "
                    "thread uses the store, or start processes by spawn",
                )
            if self.env is None:
                self._open(self.map_size)
            self.shut = False

    # Use -----------------------------------------------------------------------------------------------------------

    def read(self, work: Callable[[Any], T], buffers: bool = False) -> T | None:
        """Return ``work(transaction)`` in a read transaction; None for a key that is too long to be there."""
        attempt = 0
        while True:
            busy = self.busy
            trouble = None
            try:
                busy.append(None)
                if not self.shut:
                    txn = self.begin(buffers=buffers)
                    try:
                        return work(txn)
                    finally:
                        txn.abort()
            except self.lmdb.BadValsizeError:
                return None
            except self.lmdb.Error as exc:
                trouble = exc
            finally:
                busy.pop()
            attempt = self._mend(trouble, attempt)

    def write(self, work: Callable[[Any], T], nbytes: int = 0, fixed: bool = False) -> T:
        """Return ``work(transaction)``, committed; whatever goes wrong, nothing of it is stored.

        Parameters
        ----------
        work : callable
            May be called again, in another transaction, after the map has grown.
        nbytes : int, bytes
            About how much is written.
        fixed : bool
            The map may not grow.
        """
        attempt = 0
        while True:
            busy, size = self.busy, self.map_size
            trouble = None
            try:
                busy.append(None)
                if not self.shut:
                    self._check_readers(nbytes)
                    txn = self.begin(write=True)
                    try:
                        result = work(txn)
                        txn.commit()
                    except BaseException:
                        self._abort(txn)
                        raise
                    return result
            except self.lmdb.BadValsizeError:
                raise
            except self.lmdb.Error as exc:
                trouble = exc
            finally:
                busy.pop()
            if isinstance(trouble, self.lmdb.MapFullError):
                self._grow(size, nbytes, fixed)
            else:
                attempt = self._mend(trouble, attempt)

    def use(self, work: Callable[[Any], T]) -> T:
        """Return ``work(environment)``."""
        while True:
            busy = self.busy
            try:
                busy.append(None)
                if not self.shut:
                    return work(self.env)
            except self.lmdb.Error as exc:
                self.fail(exc)
            finally:
                busy.pop()
            self._wait()

    def _abort(self, txn: Any) -> None:
        # py-lmdb 3 aborts a write when no other call is under way, which busy readers can put off for ever; so they
        # are stopped. If another thread has the turn it has stopped them, and waits for this transaction to end.
        mine = False
        while not (mine or self.shut):
            mine = self.turn.acquire(timeout=0.001)
        if mine:
            self.shut = True
        try:
            with suppress(self.lmdb.Error):
                txn.abort()
        finally:
            if mine:
                self.shut = self.env is None
                self.turn.release()

    def _check_readers(self, nbytes: int) -> None:
        self._bytes_since_check += nbytes
        self._writes_since_check += 1
        if self._bytes_since_check >= CHECK_BYTES or self._writes_since_check >= CHECK_WRITES:
            self._bytes_since_check = self._writes_since_check = 0
            if self.options["lock"]:
                self.env.reader_check()

    def _mend(self, trouble: Exception | None, attempt: int) -> int:
        """Put right what stood in the way of a transaction, or raise; return how often that was tried."""
        lmdb = self.lmdb
        if trouble is None:
            self._wait()
            return attempt
        if attempt >= TRIES:
            self.fail(trouble)
        if isinstance(trouble, lmdb.MapResizedError):  # another process has a larger map, and used it
            seen = self.map_size
            with self.alone():
                if self.env is not None and self.map_size == seen:
                    self._reopen(max(2 * seen, 2 * _allocated(self.path)))
        elif isinstance(trouble, lmdb.PanicError):  # an earlier write of the meta page failed
            with self.alone():
                if self.env is not None:
                    self._reopen(self.map_size)
        elif isinstance(trouble, lmdb.ReadersFullError):
            self.use(lambda env: env.reader_check())
            time.sleep(0.001 * attempt)
        else:
            self.fail(trouble)
        return attempt + 1

    def _grow(self, seen: int, nbytes: int, fixed: bool) -> None:
        """Make the map larger than `seen`, which was too small for `nbytes` more."""
        if self.options["lock"] and self.use(lambda env: env.reader_check()):
            return  # a dead reader pinned pages; they can be used now
        if fixed:
            raise OSError(
                errno.ENOSPC,
                f"{self.label} is full: map_size={seen:,} bytes is the limit; open it with a larger one, or without to "
                "let it grow",
                self.path,
            )
        with self.alone():
            if self.env is not None and self.map_size <= seen:
                self._reopen(max(2 * seen, seen + 2 * nbytes + (1 << 20)))

    def compact(self) -> None:
        """Leave out the dead pages while neither this process nor another has the file open."""
        with self.alone():
            if self.dead:
                raise ClosedStoreError(self.label)
            self._release()
            try:
                with self._locked_out():
                    arguments = {"subdir": False, "lock": False, "readonly": True, "map_size": self.map_size}
                    with self.lmdb.open(self.path, **arguments) as env:
                        compact(env, self.path)
            except self.lmdb.Error as exc:
                self.fail(exc)
            finally:
                self._open(self.map_size)

    @contextmanager
    def _locked_out(self) -> Iterator[None]:
        """Keep other processes from opening; refuse if one has it open."""
        if not self.options["lock"]:
            yield
            return
        import fcntl

        with open(lock_file(self.path, self.options["subdir"]), "r+b") as lock:
            try:
                # LMDB holds a shared lock on the first byte wherever an environment is open, and waits for one to open.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
            except OSError:
                raise LockedStoreError(self.path, "another process has it open; close it there first") from None
            yield

    def fail(self, exc: Exception) -> NoReturn:
        """Raise what `exc` means to a caller."""
        lmdb = self.lmdb
        damage = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)
        if isinstance(exc, damage):
            raise DamagedStoreError(self.path, f"is damaged, or no LMDB file: {exc}") from exc
        code = max(0, getattr(exc, "code", 0))
        reason = getattr(exc, "reason", exc) if code else exc
        if isinstance(exc, lmdb.ReadersFullError):
            code = errno.EAGAIN
        elif code == errno.EIO and _disk_is_full(self.path):
            # LMDB calls it an I/O error when the disk took only a part of a write.
            code, reason = errno.ENOSPC, os.strerror(errno.ENOSPC)
        raise OSError(code or errno.EIO, f"{self.label}: {reason}", self.path) from exc


class ClosedEnvironment:
    """What a closed store has in the place of an environment: every use says so."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.shut = True
        self.busy: list[None] = []

    def __getattr__(self, name: str) -> NoReturn:
        raise ClosedStoreError(self.label)


def _allocated(path: str) -> int:
    """Return the bytes that a file has on disk: the apparent size of what zarr 2 wrote is 1 TiB."""
    found = os.stat(path)
    blocks = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else min(found.st_size, blocks * 512)


def _disk_is_full(path: str) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize < 1 << 20
