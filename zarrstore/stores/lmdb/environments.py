"""An LMDB environment that all stores on one file share, and in which no thread is while it is closed or replaced.

While it is closed, while its map grows and while the process forks, no thread may be in a transaction: see
`zarrstore.stores._process`. Uses are short: no transaction is held while a caller's code runs.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from zarrstore.errors import ClosedStoreError
from zarrstore.stores.lmdb.opening import OpenEnvironment, allocated

__all__ = ["ClosedEnvironment", "SharedEnvironment"]

T = TypeVar("T")

#: Reader slots are looked over after so many bytes or writes: a killed reader pins what is freed meanwhile.
CHECK_BYTES, CHECK_WRITES = 64 << 10, 16
#: Failures that another try can mend, in a row.
TRIES = 20


class SharedEnvironment(OpenEnvironment):
    """One open environment, and the transactions of all threads in it.

    Notes
    -----
    `begin` is the environment's own: whoever calls it is inside `use`, or writes its loop again.
    """

    #: A transaction, and how many names that are no keys the file had after it.
    _foreign_names = (-1, 0)
    _bytes_since_check = _writes_since_check = 0

    def read(self, work: Callable[[Any], T], buffers: bool = False) -> T | None:
        """Return ``work(transaction)`` in a read transaction; None for a key that is too long to be there."""

        def transaction() -> T:
            txn = self.begin(buffers=buffers)
            try:
                return work(txn)
            finally:
                txn.abort()

        attempt = 0
        while True:
            try:
                return self.use(transaction)
            except self.lmdb.BadValsizeError:
                return None
            except self.lmdb.Error as exc:
                failure = _without_frames(exc)
            attempt = self._mend(failure, attempt)

    def write(self, work: Callable[[Any], T], nbytes: int = 0, fixed: bool = False) -> T:
        """Return ``work(transaction)``, committed; whatever goes wrong, nothing of it is stored.

        Parameters
        ----------
        work : callable
            May be called again, in another transaction, after the map has grown. Returns False if it changed nothing.
        nbytes : int, bytes
            About how much is written.
        fixed : bool
            The map may not grow.
        """

        def transaction() -> T:
            self._check_readers(nbytes)
            committing = False
            txn = self.begin(write=True)
            try:
                result = work(txn)
                committing, number = True, txn.id()
                txn.commit()
                known, count = self._foreign_names
                if known == number - 1 and result is not False:
                    self._foreign_names = (number, count)  # only other programs add such names
            except BaseException:
                self._failed_commits += committing
                self._abort(txn)
                raise
            return result

        attempt = 0
        while True:
            size = self.map_size
            try:
                return self.use(transaction)
            except self.lmdb.BadValsizeError:
                raise
            except self.lmdb.Error as exc:
                failure = _without_frames(exc)
            if isinstance(failure, self.lmdb.MapFullError):
                self._grow(size, nbytes, fixed)
            else:
                attempt = self._mend(failure, attempt)

    def foreign_names(self, transaction: int) -> int | None:
        """Return how many names that are no keys the file had after a transaction, None if that is not known."""
        known, count = self._foreign_names
        return count if known == transaction else None

    def note_foreign_names(self, transaction: int, count: int) -> None:
        """Note how many names that are no keys the file had after a transaction; a negative one is never asked for."""
        self._foreign_names = (transaction, count)

    def _abort(self, txn: Any) -> None:
        # py-lmdb 3 aborts a write when no other call is under way, which busy readers can put off for ever; so they
        # are stopped. If another thread has the turn it has stopped them, and waits for this transaction to end.
        try:
            has_turn = False
            while not (has_turn or self.shut):
                has_turn = self.turn.acquire(timeout=0.001)
            if has_turn:
                self.shut = True
            with suppress(self.lmdb.Error):
                txn.abort()
        finally:
            # Not by `has_turn`: an interrupt may come between the turn and the name. No thread comes here with it.
            try:
                self.turn.release()
            except RuntimeError:  # another thread has it
                pass

    def _check_readers(self, nbytes: int) -> None:
        self._bytes_since_check += nbytes
        self._writes_since_check += 1
        if self._bytes_since_check >= CHECK_BYTES or self._writes_since_check >= CHECK_WRITES:
            self._bytes_since_check = self._writes_since_check = 0
            if self.options["lock"]:
                self.env.reader_check()

    def _mend(self, failure: Exception, attempt: int) -> int:
        """Put right what stood in the way of a transaction, or raise; return how often that was tried."""
        lmdb = self.lmdb
        if attempt >= TRIES:
            self.fail(failure)
        if isinstance(failure, lmdb.MapResizedError):  # another process has a larger map, and used it
            self._replace(self.map_size, max(2 * self.map_size, 2 * allocated(self.path)))
        elif isinstance(failure, lmdb.PanicError):  # an earlier write of the meta page failed
            self._replace(self.map_size, self.map_size)
        elif isinstance(failure, lmdb.ReadersFullError):
            self.ask(lambda env: env.reader_check())
            time.sleep(0.001 * attempt)
        else:
            self.fail(failure)
        return attempt + 1

    def _replace(self, seen: int, wanted: int) -> None:
        """Close and open with a map of `wanted` bytes, unless another thread has changed the size `seen`."""

        def replace() -> None:
            if self.env is not None and self.map_size == seen:
                self._reopen(wanted)

        self.alone(replace)

    def _grow(self, seen: int, nbytes: int, fixed: bool) -> None:
        """Make the map larger than `seen`, which was too small for `nbytes` more."""
        if self.options["lock"] and self.ask(lambda env: env.reader_check()):
            return  # a dead reader pinned pages; they can be used now
        if fixed:
            raise OSError(
                errno.ENOSPC,
                f"{self.label} is full: map_size={seen:,} bytes is the limit; open it with a larger one, or without to "
                "let it grow",
                self.path,
            )
        self._replace(seen, max(2 * seen, seen + 2 * nbytes + (1 << 20)))


def _without_frames(exc: Exception) -> Exception:
    # The frame that keeps `exc` would be in its traceback: a cycle, which held the value, and what the caller's mmap
    # exports, until the next garbage collection.
    return exc.with_traceback(None)


class ClosedEnvironment:
    """What a closed store has in the place of an environment: every use says so."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.shut = True
        self.busy: list[None] = []

    def __getattr__(self, name: str) -> NoReturn:
        raise ClosedStoreError(self.label)
