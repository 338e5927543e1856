"""A zip archive that any zip tool reads, and that loses nothing it was given."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.errors import (
    ClosedStoreError,
    DamagedStoreError,
    LockedStoreError,
    ReadOnlyError,
    StoreNotFoundError,
    UnsupportedOperation,
)
from zarrstore.stores.zip.archive import Archive, Limits
from zarrstore.stores.zip.codec import METHODS
from zarrstore.stores.zip.directory import NotAnArchiveError
from zarrstore.stores.zip.file import ObjectFile, OSFile, sync_directory
from zarrstore.stores.zip.recover import Recovery, recover
from zarrstore.stores.zip.rewrite import rewrite, temporary
from zarrstore.stores.zip.scan import count_whole
from zarrstore.stores.zip.writer import Writer

__all__ = ["Recovery", "ZipStore"]

_MODES = ("r", "r+", "a", "w", "x", "w-")
#: Bytes of a batch that are written at a time.
_BATCH = 1 << 20


class ZipStore(Store):
    """Keep each value as one entry of a zip archive; nothing acknowledged is lost, and any zip tool reads it.

    Parameters
    ----------
    path : path-like or binary file object
        The archive; or an open file object (of fsspec, obstore, io), which is read and stays open.
    compression : {0, 8, 12, 14}, default 0
        How values are packed: stored, deflated, bzip2, LZMA (the numbers of `zipfile`). Chunks of Zarr are compressed
        already. Entries of all four are read whatever it is.
    allowZip64 : bool, default True
        Whether the archive may pass 4 GiB or 65,534 entries. If not, the write that would do so is refused.
    mode : {'r', 'r+', 'a', 'w', 'x'}, default 'a'
        Read; read and write what exists; the same or create; erase and create; create what must not exist (``'w-'``
        is another spelling).
    dimension_separator : {'.', '/'}, optional
        What `init_array` records where the caller names none.
    max_value_size : int, optional, bytes
        The largest value that is read or written. By default packed entries may unpack to 1 GiB, and stored ones,
        which cannot be larger than the file, are not limited.
    compact : bool, default True
        Whether `close` rewrites an archive that was written to, when more than half of it is dead. See `repack`.
    root : str, optional
        The folder of the archive below which all keys are. By default it is found: when one folder that holds a node
        of Zarr was packed whole, and nothing stands beside it, its name is not part of the keys. ``""`` takes all
        names as they are. Archives that this class began say it themselves.

    Raises
    ------
    DamagedStoreError
        The file is damaged, cut short, empty or no archive at all: it never opens as an empty store. The message
        counts the entries that are whole; `recover` keeps them.
    LockedStoreError
        Another store has it open for writing, in this process or in another one.
    StoreNotFoundError
        Mode 'r' or 'r+', and there is no file.
    FileExistsError
        Mode 'x', and there is one.

    Notes
    -----
    Cost: a value is read in one call, up to 32 KiB, or two, and written in one. Opening reads the directory and looks
    a name up in it by search; the first listing indexes it (50 ms for 100,000 entries). `rename` copies data.

    Crash: a value is with the operating system when the set returns, and with the disk, listed and readable by any
    tool, when `flush` or `close` returns. Writing goes behind the last directory and never over it. If the process is
    killed before the next flush, opening says so, and `recover` returns every value that was set, also the unflushed
    ones, and honours every delete. A write that fails is cut off; the store remains usable. Space for the directory
    is reserved before a value is taken, so a full disk fails the set and not the flush. `rename` is all or nothing,
    but after a kill in its midst `recover` may find copies beside the originals.

    Threads: any number; readers take no lock. Processes: one writer, held by a lock on the file (where the file system
    has locks); readers see the state of the last flush before they opened. A forked child may read, and is refused
    to write. Pickling: by path, and opened again for reading; refused while open for writing.

    Reading: the CRC is proven, but for `getrange` of stored entries. What other tools write is read: Zip64, data
    descriptors, bytes before the archive, names in UTF-8 that do not say so (else code page 437). Of duplicate entries
    the last counts. Directory entries are not keys. When a name in the archive is not a key, listing and writing raise
    DamagedStoreError and name it. Encrypted entries, unknown methods, sizes that lie, entries that share bytes: a
    clear error.

    Source: zarr 2.18 ZipStore. Deviations: keys are overwritten and deleted; `getsize` is the size of values, as in
    every store, where zarr gave that of packed entries; entries carry mode 0644 and the time of the set, or
    ``SOURCE_DATE_EPOCH`` if the environment has it.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "a.zip")
    >>> with ZipStore(path) as store:
    ...     store["foo/0.0"] = b"first"
    ...     store["foo/0.0"] = b"data"
    >>> with ZipStore(path, mode="r") as store:
    ...     dict(store)
    {'foo/0.0': b'data'}
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Any,
        compression: int = 0,
        allowZip64: bool = True,
        mode: str = "a",
        dimension_separator: str | None = None,
        *,
        max_value_size: int | None = None,
        compact: bool = True,
        root: str | None = None,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode is {mode!r}; it can be {', '.join(map(repr, _MODES))}")
        if compression not in METHODS:
            raise ValueError(f"compression is {compression!r}; it can be {', '.join(map(str, METHODS))}")
        self._source: Any = None
        if hasattr(path, "read") and not isinstance(path, os.PathLike):
            if mode not in ("r", "a"):
                raise UnsupportedOperation("write to an open file object", f"ZipStore({path!r})", "pass its path")
            self._source, mode = path, "r"
        self.path: Any = path if self._source is not None else os.path.abspath(os.fspath(path))
        self._label = repr(path) if self._source is not None else os.fspath(path)
        self.compression = compression
        self.allowZip64 = allowZip64
        self.mode = mode
        self.compact = compact
        self._dimension_separator = dimension_separator
        self._max_value_size = max_value_size
        self._wanted_root = root if root is None else k.normalize_path(root)
        self._start()

    def __repr__(self) -> str:
        label = self._label if self._source is not None else repr(self._label)
        return f"{type(self).__name__}({label}, mode={self.mode!r})"

    @property
    def root(self) -> str:
        """The folder of the archive below which all keys are; ``""`` in most archives."""
        return self._opened().directory.root

    # Opening and closing -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._mutex = threading.RLock()
        writable = self.mode != "r"
        self.capabilities = Capabilities(
            writable=writable, erasable=writable, ranged=True, durable_flush=writable, blocking=True
        )
        self._limits = Limits(self._max_value_size, zip64=self.allowZip64)
        if self._max_value_size is not None and self._max_value_size < 0:
            raise ValueError(f"max_value_size is {self._max_value_size}; it is a number of bytes")
        self._archive: Archive | None = self._open_writer() if writable else self._open_reader()
        if isinstance(self._archive, Writer):
            self._at_exit = weakref.finalize(self, _let_go, self._archive, os.getpid())
            _writers[id(self)] = self

    def _open_reader(self) -> Archive:
        if self._source is not None:
            file: Any = ObjectFile(self._source)
        else:
            try:
                file = OSFile(self.path, os.O_RDONLY, self._label)
            except FileNotFoundError:
                raise StoreNotFoundError(self._label, "a zip archive to read") from None
        try:
            return Archive.open(file, repr(self), self._limits, self._wanted_root)
        except NotAnArchiveError as exc:
            raise self._damaged(file, exc) from None

    def _open_writer(self) -> Writer:
        create = {"r+": 0, "a": os.O_CREAT, "w": os.O_CREAT}.get(self.mode, os.O_CREAT | os.O_EXCL)
        existed = os.path.exists(self.path)
        while True:
            try:
                file = OSFile(self.path, os.O_RDWR | create, self._label)
            except FileNotFoundError:
                if not create:
                    raise StoreNotFoundError(self._label, "a zip archive to write to") from None
                raise
            file.lock()
            # Locked before it is looked at, let alone erased; and the writer before may have replaced it meanwhile.
            if _is_at(file, self.path):
                break
        try:
            with suppress(FileNotFoundError):
                os.unlink(temporary(os.path.realpath(self.path)))  # of a writer that died while it repacked
            if self.mode == "w":
                file.truncate(0)
            elif existed or file.size():
                return Writer.resume(file, repr(self), self._limits, self.compression, self._wanted_root)
            self._new = True
            return Writer.create(file, repr(self), self._limits, self.compression, self._wanted_root or "")
        except NotAnArchiveError as exc:
            error = self._damaged(file, exc)
            file.unlock()  # an error that is looked at keeps the file open
            raise error from None
        except BaseException:
            file.unlock()
            raise

    def _damaged(self, file: OSFile | ObjectFile, exc: NotAnArchiveError) -> DamagedStoreError:
        whole, all_seen = count_whole(file)
        if not whole and all_seen:
            return DamagedStoreError(file.label, f"{exc}, and no entry in it is whole", "mode='w' begins a new archive")
        return DamagedStoreError(
            file.label,
            f"{exc}: {whole:,}{'' if all_seen else ' or more'} of its entries are whole",
            f"zarrstore.ZipStore.recover({file.label!r}) keeps them",
        )

    def _opened(self) -> Archive:
        archive = self._archive
        if archive is None:
            raise ClosedStoreError(self)
        return archive

    def _writer(self, what: str) -> Writer:
        """Return the archive to write to, to who holds the mutex; or say why there is none."""
        archive = self._archive
        if isinstance(archive, Writer):
            return archive
        if archive is None:
            raise ClosedStoreError(self)
        if self.mode == "r":
            raise ReadOnlyError(what, self)
        raise LockedStoreError(self._label, "this process was forked from its writer; let that one write")

    def _become_reader(self) -> None:
        """In a forked child: read on from the same file, but never write, cut or close what is the parent's."""
        self._mutex = threading.RLock()  # at the fork, another thread may have held it
        archive = self._archive
        if isinstance(archive, Writer):
            self._archive = Archive(archive.file, archive.name, archive.directory, archive.limits)
            self._at_exit.detach()

    def _flush(self) -> None:
        if not isinstance(self._opened(), Writer):
            return
        with self._mutex:
            self._flush_now(self._writer(""))

    def _flush_now(self, writer: Writer) -> None:
        writer.flush()
        if self._new:
            sync_directory(os.path.dirname(self.path))
            self._new = False

    _new = False

    def _close(self) -> None:
        if self._archive is None:
            return
        if not isinstance(self._archive, Writer):
            self._archive = None
            return
        with self._mutex:
            try:
                writer = self._writer("")
            except ClosedStoreError:  # by another thread meanwhile
                return
            # If the flush fails, the store stays open: what it was told is in the file, and can be flushed yet.
            self._flush_now(writer)
            if self.compact and writer.begun:
                self._compact(writer)
            writer = self._writer("")
            self._archive = None
            self._at_exit.detach()
            writer.file.unlock()

    def _compact(self, writer: Writer) -> None:
        sizes = writer.sizes()
        if sizes["dead_bytes"] * 2 <= sizes["file_bytes"] or writer.directory.shift:
            return
        try:
            self._repack()
        except OSError as exc:
            warnings.warn(f"{self} was closed whole, but not compacted: {exc}", RuntimeWarning, stacklevel=4)

    # Reading -------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        archive = self._archive
        if archive is None:
            raise ClosedStoreError(self)
        return archive.get(key)

    def _contains(self, key: str) -> bool:
        return self._opened().directory.find(key) is not None

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._opened().get_part(key, start, stop)

    def _get_suffix(self, key: str, n: int) -> bytes:
        archive = self._opened()
        size = archive.size_of(key)
        return archive.get_part(key, max(0, size - n), size)

    def _nbytes(self, key: str) -> int:
        return self._opened().size_of(key)

    def _keys(self, path: str) -> Iterable[str]:
        directory = self._opened().directory
        directory.check_names()
        names = directory.names_below(path)
        root = directory.root
        return [k.replace_root(name, root, "") for name in names] if root else iter(names)

    def _count(self) -> int:
        directory = self._opened().directory
        directory.check_names()
        return len(directory.names_below("")) if directory.root else len(directory.index)

    def _listdir(self, path: str) -> Iterable[str]:
        directory = self._opened().directory
        directory.check_names()
        return directory.children(path)

    # Writing -------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        mutex = self._mutex
        # Not `with`, which takes twice the time here. Acquired within the try: an interrupt right behind the call finds
        # the lock given back, and one that came before it has nothing to give back.
        try:
            mutex.acquire()
            archive = self._archive
            if type(archive) is not Writer:
                archive = self._writer(key)
            archive.set(key, value)
        finally:
            try:
                mutex.release()
            except RuntimeError:
                pass

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        batch: list[tuple[str, bytes]] = []
        size = 0
        self._writer("values")
        try:
            # Values are drawn without the lock: where they come from may be slow, or this store itself.
            for key, value in items:
                if len(value) > _BATCH:
                    self._set_batch(batch)
                    batch, size = [], 0
                    self._set(key, value)
                    continue
                batch.append((key, value))
                size += len(value) + 100
                if size > _BATCH:
                    self._set_batch(batch)
                    batch, size = [], 0
        finally:
            self._set_batch(batch)

    def _set_batch(self, batch: list[tuple[str, bytes]]) -> None:
        if batch:
            with self._mutex:
                self._writer(batch[0][0]).set_many(batch)

    def _delete(self, key: str) -> None:
        with self._mutex:
            writer = self._writer(key)
            if writer.directory.find(key) is None:
                raise KeyError(key)
            writer.delete([k.join(writer.directory.root, key)])

    def _delete_many(self, keys: Iterable[str]) -> None:
        wanted = dict.fromkeys(keys)
        with self._mutex:
            writer = self._writer("values")
            root = writer.directory.root
            gone = [k.join(root, key) for key in wanted if writer.directory.find(key) is not None]
            if gone:
                writer.delete(gone)

    def _rmdir(self, path: str) -> None:
        with self._mutex:
            self._writer(path).delete_below(path)

    def _rename(self, source: str, destination: str) -> None:
        with self._mutex:
            writer = self._writer(source)
            moving = [(key, k.replace_root(key, source, destination)) for key in self._keys(source)]
            if writer.directory.find(source) is not None:
                moving.append((source, destination))
            root = writer.directory.root
            writer.move((k.join(root, old), k.join(root, new)) for old, new in moving)

    # The archive as such -------------------------------------------------------------------------------------------

    def repack(self) -> int:
        """Give dead space back: write the live entries to a new file, and put it in this one's place.

        Returns
        -------
        int
            Bytes given back.

        Raises
        ------
        ReadOnlyError
            The store is not open for writing.

        Notes
        -----
        Flushes first. Atomic: at any moment, after a kill or a power cut too, the path holds the old archive or the
        new one, and both have everything. Needs space for the live entries beside the old file. Data is copied as it
        is, unpacked nowhere. Readers that have the old file open keep it. What was put before an archive
        (a self-extractor's program) is not copied.

        Examples
        --------
        >>> import os, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with ZipStore(os.path.join(folder.name, "a.zip")) as store:
        ...     for _ in range(10):
        ...         store["foo/0.0"] = bytes(1000)
        ...     store.repack() > 8000
        True
        >>> folder.cleanup()
        """
        with self._mutex:
            self._flush_now(self._writer("the archive"))
            return self._repack()

    def _repack(self) -> int:
        old = self._writer("the archive")
        old.directory.check_names()
        place = os.path.realpath(self.path)  # a link stays a link
        new = rewrite(old, old.live_records(), place, label=self._label, compression=self.compression, like=old.file)
        self._archive = new
        self._at_exit.detach()
        self._at_exit = weakref.finalize(self, _let_go, new, os.getpid())
        given_back = old.file.size() - new.file.size()
        old.file.unlock()
        return given_back

    def describe(self) -> dict[str, object]:
        """Return what the archive is: its entries, and how many of its bytes are live and dead.

        Returns
        -------
        dict
            ``implementation``, ``entries``, ``live_bytes`` (entries with their headers), ``directory_bytes``,
            ``dead_bytes`` (what `repack` gives back), ``file_bytes``, ``root``, ``compression`` (of new entries).

        Notes
        -----
        Cost: one pass over the directory. In archives of other tools some dead bytes may be extra fields of headers.

        Examples
        --------
        >>> import io, zipfile
        >>> file = io.BytesIO()
        >>> with zipfile.ZipFile(file, "w") as archive:
        ...     archive.writestr("foo", b"data")
        >>> ZipStore(file).describe()["entries"]
        1
        """
        archive = self._opened()
        return {
            "implementation": "zip archive",
            "entries": self._count(),
            **archive.sizes(),
            "root": archive.directory.root,
            "compression": METHODS[self.compression],
        }

    @classmethod
    def recover(cls, path: str | os.PathLike[str], dest: str | os.PathLike[str] | None = None) -> Recovery:
        """Make a damaged archive whole again with every entry of it that is whole.

        Parameters
        ----------
        path : path-like
            The archive: cut short, not closed, its directory damaged.
        dest : path-like, optional
            Where to write the entries as a new archive, whose dead space is gone. By default a new directory is
            appended to the file at `path` itself: nothing in it is overwritten, and no second copy needed.

        Returns
        -------
        Recovery
            What was kept, what was damaged, what was refused.

        Raises
        ------
        DamagedStoreError
            The file is no zip archive: nothing in it is an entry. It is left as it is.
        LockedStoreError
            A writer has it open (only asked when the file itself is to be changed).
        FileExistsError
            Something is at `dest`.

        Notes
        -----
        Reads the whole file, and takes every entry whose CRC is right, the last of each name; of an archive that
        ZipStore wrote that is every value that was set, flushed or not, and none that was deleted. An archive that
        ends properly is only checked, and with `dest` its whole entries are copied. Atomic: after a kill,
        recover again.

        Examples
        --------
        >>> import os, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = os.path.join(folder.name, "a.zip")
        >>> with ZipStore(path) as store:
        ...     store.update({"foo/0.0": b"data", "foo/0.1": b"more"})
        >>> os.truncate(path, os.path.getsize(path) - 100)
        >>> ZipStore(path)
        Traceback (most recent call last):
        zarrstore.errors.DamagedStoreError: ... 2 of its entries are whole; zarrstore.ZipStore.recover(...) keeps them
        >>> ZipStore.recover(path).kept
        2
        >>> folder.cleanup()
        """
        label = os.fspath(path)
        return recover(os.path.abspath(label), label, None if dest is None else os.path.abspath(os.fspath(dest)))

    # Copies of the object ------------------------------------------------------------------------------------------

    def _place(self) -> object:
        return None if self._source is not None else (self.path, self.compression, self.allowZip64)

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self._archive, Writer):
            raise UnsupportedOperation(
                "be pickled while it is open for writing", self, "close it first, or open it with mode='r'"
            )
        state = dict(self.__dict__)
        for name in ("_archive", "_mutex", "_at_exit", "_limits", "capabilities"):
            state.pop(name, None)
        # A copy reads: a mode that creates or erases would do so once more wherever it is unpickled.
        return {**state, "mode": "r"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _is_at(file: OSFile, path: str) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == file.identity()


#: Stores open for writing, to be told of a fork. By identity, since stores are unhashable.
_writers: weakref.WeakValueDictionary[int, ZipStore] = weakref.WeakValueDictionary()


def _after_fork() -> None:
    for store in list(_writers.values()):
        store._become_reader()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _let_go(archive: Archive, pid: int) -> None:
    """Close what nobody closed, at the end of the object or of the process."""
    if isinstance(archive, Writer) and os.getpid() == pid:
        try:
            archive.flush()
        finally:
            archive.file.unlock()
