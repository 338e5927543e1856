"""An LMDB environment while it is open, closed for a moment, or given back; and what its errors mean."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, Protocol, TypeVar

from zarrstore.errors import DamagedStoreError, LockedStoreError
from zarrstore.stores._process import Resource
from zarrstore.stores.lmdb import checks
from zarrstore.stores.lmdb.files import compact, lock_file
from zarrstore.stores.lmdb.pages import lacks_pages

__all__ = ["Kept", "OpenEnvironment", "allocated", "identity"]

T = TypeVar("T")

#: The first map, in bytes. Only address space: without writemap the file is as long as what was written.
SMALLEST_MAP = 16 << 20


def identity(path: str) -> tuple[int, int]:
    """Return what tells a file from every other, whatever path leads to it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


class Kept(Protocol):
    """A transaction whose values cannot be taken away from who uses them."""

    def release(self) -> bool:
        """Return whether nobody uses a value any more."""

    def abort(self) -> None:
        """End the transaction."""


class OpenEnvironment(Resource):
    """An environment from its opening to its end; it is closed and opened again for forks and for a larger map.

    Parameters
    ----------
    label : str
        How errors name the store.
    path : str
        The data file.
    options : dict
        Arguments of ``lmdb.open``; a `map_size` of None lets the map start small. With `subdir` the data file is
        ``data.mdb`` of a directory, and its lock file ``lock.mdb``.
    check : bool or None
        Whether the structure of the file is looked at first: see `checks.check`.
    """

    def __init__(self, label: str, path: str, options: dict[str, Any], check: bool | None = None) -> None:
        import lmdb

        super().__init__(label, path)
        self.lmdb: Any = lmdb
        self.options = dict(options)
        self.lock = lock_file(path, options["subdir"]) if options["lock"] else None
        self.stores = 1
        self.map_size = 0
        self.env: Any = None
        self.identity = (0, 0)
        self._of_the_parent: list[Any] = []
        #: Transactions of views, and the map, for what was made of their values and cannot be taken away.
        self.kept_views: list[Kept] = []
        # Commits that failed, and how many of them a later sync has repaired.
        self._failed_commits = self._settled_commits = 0
        self._synced_transaction = -1
        self.register()
        try:
            self.alone(lambda: self._open_first(check))
        except BaseException:
            self.unregister()
            raise

    def _open_first(self, check: bool | None) -> None:
        checks.check(self.path, self.lock, self.options["mode"], check)
        self._mark_unsynced()
        self._open()
        if self._lacks_pages():
            self._release()
            raise DamagedStoreError(
                self.path, "is truncated: pages in use lie behind its end", "no value was read from it"
            )

    def _mark_unsynced(self) -> None:
        if not (self.options["readonly"] or self.options["sync"]):
            checks.mark_unsynced(self.path)

    # Open and closed -----------------------------------------------------------------------------------------------

    def _open(self, map_size: int | None = None) -> None:
        wanted = map_size or self.options["map_size"] or max(SMALLEST_MAP, 2 * allocated(self.path))
        place = os.path.dirname(self.path) if self.options["subdir"] else self.path
        try:
            self.env = self.lmdb.open(os.fsencode(place), **{**self.options, "map_size": wanted, "create": False})
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
        if self.env is None:
            return
        if not self._kept_views_end():
            raise BufferError(f"{self.label}: an object made of a value of a view is still in use; let go of it first")
        env, self.env = self.env, None
        env.close()

    def _kept_views_end(self) -> bool:
        """End the transactions of which nobody uses a value any more; return whether that is all of them."""
        if self.quiet:  # otherwise they are the parent's
            for view in [view for view in self.kept_views if view.release()]:
                view.abort()
                self.kept_views.remove(view)
        return not self.kept_views

    def reopen(self) -> None:
        """Open again what was closed for a fork."""
        if self.env is None:
            self._open(self.map_size)

    def before_fork(self) -> None:
        """Close: the child would share the slot of the parent in the lock file, and clear it when it closes."""
        with suppress(BufferError):
            self._release()

    def after_fork_in_child(self) -> None:
        """Keep what is the parent's, unused: freeing it here would end its transactions there."""
        if self.env is not None:
            self._of_the_parent.append((self.env, self.begin))
            self.env, self.quiet = None, False

    def at_exit(self) -> None:
        """Close beside daemon threads; what they have committed is in the file, and on the disk."""
        with suppress(BufferError):
            self._finish()

    def _reopen(self, map_size: int) -> None:
        """Close and open with another map. Not ``set_mapsize``: where that fails, there is no map at all."""
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

    def widen(self, map_size: int, readonly: bool) -> None:
        """Open with a map of at least `map_size` bytes, for writing unless `readonly`; a failure changes nothing."""
        before = self.options["readonly"]

        def reopen() -> None:
            self.options["readonly"] = before and readonly
            self._mark_unsynced()
            try:
                self._reopen(max(self.map_size, map_size))
            except BaseException:
                self.options["readonly"] = before
                self.reopen()
                raise

        self.alone(reopen)

    def close(self) -> None:
        """Close for good, all on the disk."""
        self.end(self._finish)

    def _finish(self) -> None:
        """Close, and note that the file is whole."""
        if self.env is None or self.options["readonly"]:
            self._release()
            return
        try:
            state = checks.state_of(self.path) if os.path.exists(self.path) else None
            self._sync(self.env)
        except self.lmdb.Error as exc:
            self.fail(exc)
        finally:
            self._release()
        if state is None:  # removed while it was open: nothing is left to be marked
            return
        checks.mark_whole(self.path, state)
        checks.unmark_unsynced(self.path, self.lock, self.options["mode"])

    # Durable and small ---------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Return when all that was committed before is on the disk; an error says that it may not be."""
        self.ask(self._sync)

    def _sync(self, env: Any) -> None:
        last, failed = env.info()["last_txnid"], self._failed_commits
        if last == self._synced_transaction and failed == self._settled_commits:
            return
        if failed != self._settled_commits:
            # The operating system has dropped what an earlier sync could not write, maybe a head, and a second sync
            # would find nothing to do. Another commit writes another head, which names the same content.
            name = b"\xff" + os.urandom(16)
            with env.begin(write=True) as txn:
                txn.put(name, b"")
                txn.delete(name)
        try:
            # force=True: without it LMDB leaves out the sync of the head, and with sync=False every sync.
            env.sync(True)
        except BaseException:
            self._failed_commits += 1
            raise
        self._settled_commits = failed
        self._synced_transaction = last

    def ask(self, question: Callable[[Any], T]) -> T:
        """Return ``question(environment)``."""
        try:
            return self.use(lambda: question(self.env))
        except self.lmdb.Error as exc:
            self.fail(exc)

    def compact(self) -> None:
        """Leave out the dead pages while neither this process nor another has the file open."""

        def compact_closed() -> None:
            self.check()
            self._release()
            try:
                with self._locked_out():
                    arguments = {"subdir": False, "lock": False, "readonly": True, "map_size": self.map_size}
                    with self.lmdb.open(os.fsencode(self.path), **arguments) as env:
                        compact(env, self.path)
            except self.lmdb.Error as exc:
                self.fail(exc)
            finally:
                self._open(self.map_size)

        self.alone(compact_closed)

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


def allocated(path: str) -> int:
    """Return the bytes that a file has on disk: the apparent size of what zarr 2 wrote is 1 TiB."""
    status = os.stat(path)
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)


def _disk_is_full(path: str) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize < 1 << 20
