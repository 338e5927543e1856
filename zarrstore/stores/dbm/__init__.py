"""One record per key in a DBM database, whichever implementation this Python has."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias, TypeVar

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.errors import (
    ClosedStoreError,
    DamagedStoreError,
    LockedStoreError,
    ReadOnlyError,
    StoreReadError,
    ValueTooLargeError,
)
from zarrstore.stores._files import location
from zarrstore.stores.dbm.handles import ERRORS, Handle, Opener, acquire, as_key, drop, erase, files, give_back

__all__ = ["DBMStore"]

T = TypeVar("T")

#: A letter that says how to open, and those that gnu takes after it: fast, synchronised, unlocked.
# fmt: off
Flag: TypeAlias = Literal[
    "r", "rf", "rs", "ru", "rfs", "rfu", "rsu", "rfsu",
    "w", "wf", "ws", "wu", "wfs", "wfu", "wsu", "wfsu",
    "c", "cf", "cs", "cu", "cfs", "cfu", "csu", "cfsu",
    "n", "nf", "ns", "nu", "nfs", "nfu", "nsu", "nfsu",
]
# fmt: on

#: What ndbm is sure to hold in one record, key and value together, in bytes.
_NDBM_LIMIT = 1000

_warned_of_dumb = False


class DBMStore(Store):
    """Keep each value as one record of a DBM database, opened once per process and by one writer.

    Parameters
    ----------
    path : path-like
        The database; some implementations append a suffix of their own (ndbm ``.db``, dumb ``.dat`` and ``.dir``).
    flag : {'c', 'n', 'w', 'r'}, default 'c'
        Create if missing, always create anew, must exist, must exist and stays unchanged. gnu takes a second letter.
    mode : int, default 0o666
        Permissions of a new file, before the umask.
    open : callable, optional
        ``open(path, flag, mode, **open_kwargs)``, such as ``dbm.dumb.open``, to pin an implementation. By default an
        existing database is opened by the implementation that wrote it, and a new one is of the first kind that this
        Python has: sqlite3 (from 3.13), gnu, ndbm, dumb. Their files are not interchangeable.
    write_lock : bool, default True
        Serialise threads, readers too: dumb gives torn values to a reader beside a writer.
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none.
    **open_kwargs
        Passed to `open`.

    Attributes
    ----------
    implementation : str
        What the database is: ``"dbm.gnu"``, ``"dbm.ndbm"``, ``"dbm.dumb"``, ``"dbm.sqlite3"``, or the class of its
        objects.

    Raises
    ------
    LockedStoreError
        Another process writes it, or reads it and this one is to write. (sqlite3 needs no such lock and has none.)
    DamagedStoreError
        The file is damaged, or is none that `open` makes: it never opens as an empty store.
    StoreNotFoundError
        `flag` is 'r' or 'w', and there is no database.

    Notes
    -----
    Cost: one record a call, except that `listdir`, `rmdir`, `rename` and `len` go over all keys; dumb rewrites its
    whole index at each delete (3 ms at 10,000 keys), and twice for a batch of deletes. Values are read whole.

    Threads: safe with `write_lock`; sqlite3 objects serve one thread only, so calls go to a thread of their own.
    Processes: one writer, or any number of readers, enforced by a lock on ``<path>.lock`` (gnu locks its own file;
    sqlite3 allows many). A store of another package does not know the lock. A forked child opens anew, which a writing
    parent refuses.

    Crash: as the implementation promises. sqlite3 keeps every set that returned. gnu, ndbm and dumb overwrite in
    place: a kill may tear or lose values, flushed ones too. What can be recognised then is an error at opening.
    `flush` calls ``sync()`` where there is one, else closes and opens; neither is durable against a power cut.

    ndbm may refuse records above about 1 KB. Keys are UTF-8. Pickles by path: flushed before, and a flag 'n' becomes
    'c'. Source: zarr 2.2 DBMStore. Deviations: locks; keys beyond ASCII; two stores of one process share one database.

    Examples
    --------
    >>> import dbm.dumb
    >>> store = DBMStore("example", open=dbm.dumb.open)
    >>> store["foo/0.0"] = b"data"
    >>> store.implementation, store["foo/0.0"], store.listdir("foo")
    ('dbm.dumb', b'data', ['0.0'])
    >>> store.close()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        flag: Flag = "c",
        mode: int = 0o666,
        open: Opener | None = None,
        write_lock: bool = True,
        dimension_separator: Literal[".", "/"] | None = None,
        **open_kwargs: Any,
    ) -> None:
        if flag[:1] not in ("r", "w", "c", "n"):
            raise ValueError(f"flag is {flag!r}: 'r', 'w', 'c' or 'n' is wanted")
        self.path = os.path.abspath(os.fsdecode(path))
        self.flag: str = flag
        self.mode = mode
        self.open = open
        self.write_lock = bool(write_lock)
        self.open_kwargs = open_kwargs
        self._dimension_separator = dimension_separator
        self._connect()

    def _connect(self) -> None:
        self._handle: Handle | None = acquire(self.path, self.flag, self.mode, self.open, self.open_kwargs)
        # A store that is dropped without close() lets go too, at exit at the latest.
        self._release = weakref.finalize(self, drop, self._handle)
        self.implementation = self._handle.implementation
        if self.flag[0] == "n":  # once is enough: whoever reopens wants what was written
            self.flag = "c" + self.flag[1:]
        writable = self.flag[0] != "r"
        if writable and self.open is None and self.implementation == "dbm.dumb":
            _warn_of_dumb(self)
        self.capabilities = Capabilities(
            writable=writable,
            erasable=writable,
            thread_safe=self.write_lock or self._handle.worker is not None,
            process_safe=self.implementation == "dbm.sqlite3",
        )

    def __repr__(self) -> str:
        return f"DBMStore({self.path!r})" if self.flag[0] != "r" else f"DBMStore({self.path!r}, flag='r')"

    def _place(self) -> object:
        return self.path, self.open, self.open_kwargs

    def _location(self, path: str) -> tuple[object, str]:
        return location(self.path, path)

    def __getstate__(self) -> dict[str, Any]:
        if self._handle is not None:
            self._flush()
        per_process = ("_handle", "_release", "capabilities", "implementation")
        return {name: value for name, value in self.__dict__.items() if name not in per_process}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def _run(self, act: Callable[[Any], T]) -> T:
        if self._handle is not None and self._handle.orphan:  # the child of a fork opens for itself
            self._release.detach()
            self._connect()
        if self._handle is None:
            raise ClosedStoreError(self)
        return self._handle.run(act, self.write_lock)

    def _try(self, key: str, act: Callable[[Any], T]) -> T:
        try:
            return self._run(act)
        except (KeyError, ClosedStoreError, LockedStoreError, DamagedStoreError):
            raise
        except ERRORS as exc:
            raise StoreReadError(key, self, str(exc)) from exc

    def _get(self, key: str) -> bytes:
        handle = self._handle
        name = key.encode()
        if handle is None or not handle.direct:
            return self._try(key, lambda db: bytes(db[name]))
        try:
            with handle.lock:
                return handle.db[name]  # type: ignore[no-any-return]
        except KeyError:
            raise
        except ERRORS:
            return self._try(key, lambda db: bytes(db[name]))  # which says what failed

    def _contains(self, key: str) -> bool:
        name = key.encode()
        return self._try(key, lambda db: name in db)

    def _keys(self, path: str) -> Iterable[str]:
        # Not iterated: gnu and ndbm objects cannot be, and gnu's walk goes astray when a record is deleted meanwhile.
        names = self._try(path, lambda db: list(db.keys()))
        return [key for key in map(as_key, names) if k.is_below(key, path)]

    def _set(self, key: str, value: bytes) -> None:
        handle = self._handle
        if handle is None or not (handle.direct and self.capabilities.writable):
            return self._set_many(((key, value),))
        with handle.lock:
            try:
                handle.db[key.encode()] = value
            except ERRORS as exc:
                self._refused(key, value, exc)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        for batch in _batches(items):
            self._refuse_if_read_only(batch[0][0])

            def store(db: Any, batch: list[tuple[str, bytes]] = batch) -> None:
                for key, value in batch:
                    try:
                        db[key.encode()] = value
                    except ERRORS as exc:
                        self._refused(key, value, exc)

            self._run(store)

    def _refused(self, key: str, value: bytes, exc: Exception) -> None:
        """Raise for a value that the database did not take."""
        # After a failed write gnu finds nothing more, without a word, until it is opened again.
        if self.implementation == "dbm.gnu" and self._handle is not None:
            self._handle.reopen(after_failure=True)
        name = key.encode()
        if self.implementation == "dbm.ndbm" and len(name) + len(value) > _NDBM_LIMIT:
            way_out = "ndbm may hold no more in one record; pass open=dbm.gnu.open or open=dbm.dumb.open"
            raise ValueTooLargeError(key, len(value), _NDBM_LIMIT - len(name), way_out) from exc
        raise OSError(getattr(exc, "errno", None), f"cannot set {key!r} in {self}: {exc}") from exc

    def _delete(self, key: str) -> None:
        self._refuse_if_read_only(key)
        name = key.encode()
        self._try(key, lambda db: erase(db, [name]))

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        if wanted:
            self._refuse_if_read_only(wanted[0])
            names = dict.fromkeys(key.encode() for key in wanted)
            self._try(wanted[0], lambda db: erase(db, [name for name in names if name in db]))

    def _rmdir(self, path: str) -> None:
        self._refuse_if_read_only(path)
        super()._rmdir(path)

    def _refuse_if_read_only(self, key: str) -> None:
        if self.flag[0] == "r":
            raise ReadOnlyError(key, self)

    def _flush(self) -> None:
        self._run(lambda db: self._handle.sync() if self._handle and self._handle.writable else None)

    def _rename(self, source: str, destination: str) -> None:
        handle = self._handle
        if handle is None or not handle.direct:
            return super()._rename(source, destination)
        with handle.lock:  # what another thread set after its key was copied would be deleted
            super()._rename(source, destination)

    def _close(self) -> None:
        self._handle = None
        if alive := self._release.detach():
            give_back(alive[2][0])

    def describe(self) -> dict[str, object]:
        """Return what the database is and how much room it takes.

        Returns
        -------
        dict
            ``implementation`` (str), ``entries`` (int), ``live_bytes`` (of all values) and ``dead_bytes`` (the rest of
            the files: keys, index, gaps).

        Notes
        -----
        Cost: reads every value.
        """
        keys = list(self._keys(""))
        live = sum(len(self._get(key)) for key in keys)
        total = sum(map(os.path.getsize, files(self.path)))
        return {
            "implementation": self.implementation,
            "entries": len(keys),
            "live_bytes": live,
            "dead_bytes": max(0, total - live),
        }


def _warn_of_dumb(store: DBMStore) -> None:
    global _warned_of_dumb
    if _warned_of_dumb:
        return
    _warned_of_dumb = True
    text = (
        f"{store} is a dbm.dumb database, of which a crash can lose everything; ZipStore, LMDBStore and SQLiteStore "
        "lose nothing that was flushed. Pass open=dbm.dumb.open to choose it without this warning."
    )
    warnings.warn(text, RuntimeWarning, stacklevel=4)


def _batches(items: Iterable[tuple[str, bytes]], size: int = 1 << 20) -> Iterator[list[tuple[str, bytes]]]:
    """Yield items in lists of about `size` bytes: each list takes the lock, or changes threads, once."""
    batch: list[tuple[str, bytes]] = []
    held = 0
    for key, value in items:
        batch.append((key, value))
        held += len(value)
        if held >= size or len(batch) >= 1000:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
