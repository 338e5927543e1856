"""Values in an LMDB file: one B-tree, many readers, one writer at a time."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable
from typing import Any, Literal

from zarrstore.base import Capabilities
from zarrstore.errors import (
    ClosedStoreError,
    DamagedStoreError,
    ReadOnlyError,
)
from zarrstore.longpaths import absent_place
from zarrstore.optional import require
from zarrstore.stores._files import location, sweep_folder
from zarrstore.stores.lmdb import registry
from zarrstore.stores.lmdb.environments import ClosedEnvironment
from zarrstore.stores.lmdb.files import create
from zarrstore.stores.lmdb.records import Records

__all__ = ["LMDBStore"]

_DEFAULTS: dict[str, Any] = {
    "map_size": None,
    "subdir": True,
    "readonly": False,
    "metasync": False,
    "sync": True,
    "map_async": False,
    "mode": 0o666,
    "create": True,
    "readahead": True,
    "writemap": False,
    "meminit": False,
    "max_readers": 1024,
    "max_dbs": 0,
    "max_spare_txns": os.cpu_count() or 1,
    "lock": True,
}


class LMDBStore(Records):
    """Keep each value as one record of an LMDB file, stored whole or not at all.

    Parameters
    ----------
    path : path-like
        A directory that holds ``data.mdb`` (whatever its name ends in), or an LMDB file of its own. Made, with the
        directories above it, if it does not exist.
    buffers : bool
        Taken and not used: values are always `bytes`. In zarr 2 they were views, which changed under the reader; for
        views that hold as long as they are used see `reading`.
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none.
    check : bool, optional
        Whether the structure of the file is looked at before LMDB has it, which costs about 15 microseconds an entry.
        None: once for a file of at most 50,000 entries, and for a larger one if it was written without syncs and never
        closed. False: not at all; a damaged file may then give wrong values or end the process.
    **kwargs
        Options of ``lmdb.open``. `map_size` (bytes) fixes how large the file may become; without it the map grows.
        `readonly` refuses writes and needs the file to exist. `lock=False` leaves out the lock file: only for what
        nobody writes to meanwhile. `metasync=True` makes every single write durable, not only what a `flush` follows;
        `sync=False` makes nothing durable, not even a `flush`; `writemap=True` neither, and gives up the safety against
        full disks: see Notes.

    Raises
    ------
    DamagedStoreError
        The file is no LMDB file, is damaged, or a part of it is missing; or the directory holds something else.
    StoreNotFoundError
        Nothing is there, and `readonly` or ``create=False`` was given.
    LockedStoreError
        The file is open in this process with other options that all must share.

    Notes
    -----
    Cost: a read is one short transaction, a write one commit; `setitems` writes about 1 MiB a transaction; `listdir`
    and `getsize` skip from child to child, whatever is below. A key has at most 511 bytes in UTF-8, a value 4 GiB.

    Threads and processes: any number, on one file; a read sees the last commit before it and waits for nobody. Stores
    on one file in a process share one environment. It is closed before a fork, and opened on its next use on both
    sides. A place that cannot be written to (a read-only file system) is opened for reading. Never on a network file
    system. A full disk or a failed write is an error and leaves the old value.

    Crash: a killed process loses nothing that was set. After a power cut:

    ============================  ==========================================================  =====================
    mode                          what is there                                               syncs for each commit
    ============================  ==========================================================  =====================
    default                       all before the last `flush` or `close`, and all but the     1
                                  last commit of what came after
    ``metasync=True``             all that was set                                            2
    ``sync=False``                nothing is promised (`durable_flush` is False): the next    0
                                  opening refuses the file, as its pages have no checksums
    ============================  ==========================================================  =====================

    A set of 1 KB takes 0.39 ms by default, 0.53 ms with `metasync`, 0.02 ms with ``sync=False`` (ext4 on a virtual
    disk); batches by `setitems` take 7 microseconds a value in each of the three.

    Source: zarr 2.2 LMDBStore, whose files open unchanged. Deviations: commits are synced, since LMDB writes its heads
    over those of the last flush, which a `flush` without them therefore does not keep; ``writemap=False``; values are
    copies; the map starts small and grows; keys are UTF-8.

    Examples
    --------
    >>> with LMDBStore("data.mdb") as store:
    ...     store["foo/é"] = b"data"
    ...     store["foo/é"], store.listdir("foo")
    (b'data', ['é'])
    """

    capabilities = Capabilities(ranged=True, durable_flush=True, process_safe=True, blocking=False)

    def __init__(
        self,
        path: str | os.PathLike[str],
        buffers: bool = True,
        dimension_separator: Literal[".", "/"] | None = None,
        *,
        check: bool | None = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs:
            if name not in _DEFAULTS and name != "lib_version":
                raise TypeError(
                    f"LMDBStore() got an unexpected keyword argument {name!r}; lmdb.open takes no such option"
                )
        self._lmdb: Any = require("lmdb", extra="lmdb", feature="LMDBStore")
        self.path = os.path.abspath(os.fsdecode(path))
        self.buffers = buffers
        self.check = check
        self.kwargs = kwargs
        self._dimension_separator = dimension_separator
        self._open()

    def _open(self) -> None:
        options = {**_DEFAULTS, **self.kwargs}
        if "subdir" not in self.kwargs and os.path.isfile(self.path):
            options["subdir"] = False
        self._data = os.path.join(self.path, "data.mdb") if options["subdir"] else self.path
        self._fixed = options["map_size"] is not None
        if not os.path.exists(self._data):
            self._create(options)
        elif os.path.getsize(self._data) == 0:
            raise DamagedStoreError(self._data, "is empty, not even a header", "remove it to begin a new store")
        given = set(self.kwargs)
        try:
            env = registry.acquire(repr(self), self._data, options, given, self.check)
        except OSError as exc:
            if exc.errno != errno.EROFS or options["readonly"]:
                raise
            options["readonly"] = True
            env = registry.acquire(repr(self), self._data, options, given, self.check)
        self._env: Any = env
        self._writable = not options["readonly"]
        self.capabilities = Capabilities(
            writable=self._writable,
            erasable=self._writable,
            ranged=True,
            # Of what this store itself has written there is nothing to flush if it only reads.
            durable_flush=options["readonly"] or (bool(env.options["sync"]) and not env.options["writemap"]),
            process_safe=bool(options["lock"]),
            blocking=False,
        )
        self._finalizer = weakref.finalize(self, registry.drop, env)
        self._finalizer.atexit = False

    def _create(self, options: dict[str, Any]) -> None:
        if options["readonly"] or not options["create"]:
            raise absent_place(self.path, "an LMDB file, or a directory with data.mdb")
        try:
            create(self._lmdb, self._data, options)
        except self._lmdb.Error as exc:
            code = getattr(exc, "code", 0)
            raise OSError(code if code > 0 else errno.EIO, f"cannot make {self!r}: {exc}", self._data) from exc

    def __repr__(self) -> str:
        readonly = ", readonly=True" if self.kwargs.get("readonly") else ""
        return f"{type(self).__name__}({self.path!r}{readonly})"

    def _place(self) -> object:
        return os.path.realpath(self._data)

    def _location(self, path: str) -> tuple[object, str]:
        return location(self._data, path)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "buffers": self.buffers,
            "kwargs": self.kwargs,
            "_dimension_separator": self._dimension_separator,
            "check": self.check,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lmdb = require("lmdb", extra="lmdb", feature="LMDBStore")
        self._open()

    # Life ----------------------------------------------------------------------------------------------------------

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        return () if path else sweep_folder(os.path.dirname(self._data), dry_run)

    def _flush(self) -> None:
        if not self._writable and self._finalizer.alive:
            return
        try:
            self._env.sync()
        except OSError as exc:
            # Without syncs the system has given up what it could not write, and a second sync would find nothing to do.
            way_out = (
                "flush again" if self.capabilities.durable_flush else "set again what was set since the last flush"
            )
            raise OSError(exc.errno, f"cannot make {self!r} durable: {exc.strerror}; {way_out}", self._data) from exc

    def _close(self) -> None:
        if not self._finalizer.alive:
            return
        env = self._env
        env.refuse_within_stay()
        try:
            if not env.dead:  # the end of the interpreter has closed it
                self._flush()
        finally:
            if self._finalizer.detach():
                self._env = ClosedEnvironment(repr(self))
                registry.release(env)

    def describe(self) -> dict[str, object]:
        """Return what the file is and how much of it is in use.

        Returns
        -------
        dict
            `implementation`; `entries`; `live_bytes` and `dead_bytes` (pages in use, pages that are free or waste);
            `map_size` (bytes), `readers` (slots in use) and `max_readers`.

        Examples
        --------
        >>> with LMDBStore("data.mdb") as store:
        ...     store["foo"] = b"data"
        ...     store.describe()["entries"], store.describe()["dead_bytes"] < 50_000
        (1, True)
        """
        stat, info = self._env.ask(lambda env: (env.stat(), env.info()))
        page = stat["psize"]
        used = 2 + stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        version = ".".join(map(str, self._lmdb.version()))
        return {
            "implementation": f"LMDB {version} (py-lmdb {self._lmdb.__version__})",
            "entries": stat["entries"],
            "live_bytes": used * page,
            "dead_bytes": max(0, info["last_pgno"] + 1 - used) * page,
            "map_size": info["map_size"],
            "readers": info["num_readers"],
            "max_readers": info["max_readers"],
        }

    def compact(self) -> int:
        """Write the file anew without its dead pages, in the place of the old one; return the bytes given back.

        Raises
        ------
        LockedStoreError
            Another process has the file open. Nothing was changed.
        ReadOnlyError
            The store is read-only.

        Notes
        -----
        Needs room for the live pages once more. Other stores on the file in this process wait meanwhile, and so do
        other processes that open it. A crash leaves the old file or the new one. With ``lock=False`` nobody can tell
        whether another process has it open: what that writes is lost.
        """
        if not self._writable:
            raise ClosedStoreError(self) if not self._finalizer.alive else ReadOnlyError("", self)
        before = os.path.getsize(self._data)
        registry.compact(self._env)
        return max(0, before - os.path.getsize(self._data))
