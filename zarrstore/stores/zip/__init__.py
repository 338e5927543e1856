"""Values in a zip archive that any zip tool reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

from zarrstore import keys as k
from zarrstore.errors import LockedStoreError, UnsupportedOperation
from zarrstore.stores._files import location
from zarrstore.stores.zip import segments
from zarrstore.stores.zip.codec import METHODS
from zarrstore.stores.zip.end import find_end
from zarrstore.stores.zip.opening import is_source
from zarrstore.stores.zip.ozx import SUFFIX, departures
from zarrstore.stores.zip.ranges import RangeSource, ValueRanges
from zarrstore.stores.zip.recover import Recovery, recover
from zarrstore.stores.zip.rewrite import discard, lock_existing, publish, sweep, temporary
from zarrstore.stores.zip.segments import Filled, Segment
from zarrstore.stores.zip.values import ArchiveValues
from zarrstore.stores.zip.writer import Writer

__all__ = ["RangeSource", "Recovery", "ValueRanges", "ZipStore"]

_MODES = ("r", "r+", "a", "w", "x", "w-")


class ZipStore(ArchiveValues):
    """Keep each value as one entry of a zip archive, which any zip tool reads; nothing acknowledged is lost.

    Parameters
    ----------
    path : path-like, binary file object or source of ranges
        The archive; or an open file object (of fsspec, obstore, io), which is read and stays open; or an object with
        ``size()`` and ``getrange(start, stop)`` as `RangeSource` describes, which is read. For an archive that is a
        value of another store see `from_store`.
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
        of Zarr was packed whole, and nothing is beside it, its name is not part of the keys. ``""`` takes all
        names as they are. Archives that this class began name their root.
    ozx : bool, optional
        Whether the archive is one of OME-Zarr in one file (RFC-9): its directory names documents first, breadth first,
        it ends in the format ZIP64, and its comment states the version of OME-Zarr that the root ``zarr.json`` states.
        By default it is if its name ends in ``.ozx``. `pack` puts the entries themselves in that order too, and
        `verify` says what departs from the RFC.

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
    Cost: a value is read in one call, up to 32 KiB, or two, and written in one, from the caller's memory if it is
    larger than that. Opening reads the directory; the first dozen names are searched in its bytes (2 ms among 100,000),
    a list of all keys takes 30 ms and an index of them twice as long. From the first listing of a path on, names are
    kept in order, and work on one subtree costs what is in it. `rename` copies data. Memory: 200 bytes a key.

    Crash: a value is with the operating system when the set returns, and with the disk, listed and readable by any
    tool, when `flush` or `close` returns. Writing goes behind the last directory and never over it. If the process is
    killed before the next flush, opening says so, and `recover` returns every value that was set, also the unflushed
    ones, and honours every delete. A write that fails is cut off; the store remains usable. An interrupted call
    (Ctrl-C) was done whole or not at all, a batch up to some item. Space for the directory is reserved before a value
    is taken, so a full disk fails the set and not the flush. `rename` is all or nothing, but after a kill during it
    `recover` may find copies beside the originals. A store that nobody closed is flushed when it is deleted, and at
    the exit of the interpreter, beside daemon threads too, whose later writes raise ClosedStoreError.

    Threads: any number; readers take no lock. Do not change a buffer while it is being set. Processes: one writer, held
    by a lock on the file (where the file system has locks); readers see the state of the last flush before they opened.
    A forked child may read, and is refused to write.

    Pickling: by path. A writer is flushed, and its copy reads the archive as it was at that flush, also when the writer
    goes on. A write to the copy raises LockedStoreError until the writer has closed; then the copy becomes the writer,
    and has all that was written. A copy of a closed store is one as of its close, and only reads if another has written
    since. A copy of a reader reads.

    Reading: the CRC is checked, except by `getrange` of stored entries. What other tools write is read: Zip64, data
    descriptors, bytes before the archive, names in UTF-8 without its flag (all others are in code page 437). Of entries
    with one name the last counts. Directory entries are not keys. When a name in the archive is not a key, listing and
    writing raise DamagedStoreError and name it. Encrypted entries, unknown methods, wrong sizes and entries that share
    bytes raise an error that says so.

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
        path: str | bytes | os.PathLike[str] | Any,
        compression: int = 0,
        allowZip64: bool = True,
        mode: Literal["r", "r+", "a", "w", "x", "w-"] = "a",
        dimension_separator: Literal[".", "/"] | None = None,
        *,
        max_value_size: int | None = None,
        compact: bool = True,
        root: str | None = None,
        ozx: bool | None = None,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode is {mode!r}; it can be {', '.join(map(repr, _MODES))}")
        if compression not in METHODS:
            raise ValueError(f"compression is {compression!r}; it can be {', '.join(map(str, METHODS))}")
        if max_value_size is not None and max_value_size < 0:
            raise ValueError(f"max_value_size is {max_value_size}; it is a number of bytes")
        self._source: Any = None
        if is_source(path):
            if mode not in ("r", "a"):
                raise UnsupportedOperation("write to an open file object", f"ZipStore({path!r})", "pass its path")
            self._source, mode = path, "r"
        self.path: Any = path if self._source is not None else os.path.abspath(os.fsdecode(path))
        self._label = repr(path) if self._source is not None else os.fsdecode(path)
        self.compression = compression
        self.allowZip64 = allowZip64
        self.mode = mode
        self.compact = compact
        self._dimension_separator = dimension_separator
        self._max_value_size = max_value_size
        label = str(getattr(path, "key", self._label))
        self._is_ozx = label.lower().endswith(SUFFIX) if ozx is None else ozx
        self._wanted_root = root if root is None else k.normalize_path(root)
        self._start(None)

    def __repr__(self) -> str:
        label = self._label if self._source is not None else repr(self._label)
        return f"{type(self).__name__}({label}, mode={self.mode!r})"

    @property
    def root(self) -> str:
        """The folder of the archive below which all keys are; ``""`` in most archives."""
        return self._opened().directory.root

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
            given_back = self._repack()
        return given_back

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        if path or self.mode == "r" or self._source is not None:
            return ()
        return sweep(os.path.realpath(self.path), dry_run)

    @classmethod
    @contextmanager
    def create_atomically(
        cls, path: str | bytes | os.PathLike[str], *, overwrite: bool = False, **options: Any
    ) -> Iterator[Self]:
        """Write a new archive that appears at its place at once and whole, when the block ends, or not at all.

        Parameters
        ----------
        path : path-like
            Where the archive is to be. A link is followed.
        overwrite : bool, default False
            Replace a file that is there.
        **options
            As for the class, but for `mode`.

        Yields
        ------
        ZipStore
            Open for writing.

        Raises
        ------
        FileExistsError
            Something is at `path`, at the beginning or at the end, and `overwrite` is False.
        LockedStoreError
            A store has the archive at `path` open for writing, or another process writes a new one for it.

        Notes
        -----
        Written beside `path` under a reserved name, synced, then linked (or, to overwrite, renamed) to its name. Crash:
        a kill leaves the file under the reserved name, which the next call, or opening `path` for writing, deletes.
        Where the file system has no hard links, an empty file takes the name first.

        Examples
        --------
        >>> import os, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = os.path.join(folder.name, "a.zip")
        >>> with ZipStore.create_atomically(path) as store:
        ...     store["foo"] = b"data"
        ...     os.path.exists(path)
        False
        >>> dict(ZipStore(path, mode="r"))
        {'foo': b'data'}
        >>> folder.cleanup()
        """
        label = os.fsdecode(path)
        target = os.path.realpath(label)
        if not overwrite and os.path.lexists(target):
            raise FileExistsError(f"{label!r} exists; pass overwrite=True to replace it")
        # Locked all the time: nobody begins to write to what will be replaced.
        old = lock_existing(target, label) if overwrite else None
        store = None
        try:
            sweep(target)
            try:
                store = cls(temporary(target), mode="x", **{"ozx": target.lower().endswith(SUFFIX)} | options)
            except FileExistsError:
                raise LockedStoreError(label, "another process packs an archive for this place; let it end") from None
            yield store
            store.flush()
            if old is not None:
                old.unlock()
            publish(target, label, overwrite=overwrite)
        finally:
            if store is not None:
                archive, store._archive = store._archive, None
                if isinstance(archive, Writer):
                    discard(archive.file, target)
                store.close()
            sweep(target)
            if old is not None:
                old.unlock()  # an error that somebody keeps would keep the file open

    #: How many bytes the entry of a key takes, for a value of so many bytes.
    entry_nbytes = staticmethod(segments.entry_nbytes)

    def _reserve_segments(self, sizes: Sequence[int]) -> list[Segment]:
        """Leave room in the file for entries that other processes write, which see it at the same path."""
        with self._mutex:
            return segments.reserve(self._writer("entries"), self.path, sizes)

    def _list_segment(self, filled: Filled) -> None:
        """Take in the entries that another process wrote to a segment."""
        with self._mutex:
            segments.list_entries(self._writer("entries"), filled)

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
    def from_store(cls, inner: Mapping[str, Any], key: str, **options: Any) -> Self:
        """Open, to read, the archive that is one value of another store, without reading the whole of it.

        Parameters
        ----------
        inner : mapping
            Holds the archive: a remote store as a rule. It is closed with this store.
        key : str
            The archive's key.
        **options
            As for the class: `max_value_size`, `root`, `dimension_separator`.

        Raises
        ------
        StoreNotFoundError
            `inner` has no such key.
        StoreReadError
            `inner` cannot tell the size of the value.
        DamagedStoreError
            The value is no archive that ends properly.

        Notes
        -----
        Cost: opening takes one question for the size, one for the last 1 MiB, and one for the rest of a directory that
        is larger (about 15,000 entries). A value takes one, or none: `getitems` reads values that lie close together by
        one. A part of a value takes one, and the first part of each value one more. Threads, processes and pickling: as
        `inner`. For a source that is no store, pass an object as `RangeSource` describes to the class.

        Examples
        --------
        >>> import io, zipfile
        >>> file = io.BytesIO()
        >>> with zipfile.ZipFile(file, "w") as archive:
        ...     archive.writestr("foo/0.0", b"data")
        >>> dict(ZipStore.from_store({"a.zip": file.getvalue()}, "a.zip"))
        {'foo/0.0': b'data'}
        """
        return cls(ValueRanges(inner, key), mode="r", **options)

    @classmethod
    def recover(
        cls, path: str | bytes | os.PathLike[str], dest: str | bytes | os.PathLike[str] | None = None
    ) -> Recovery:
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
        label = os.fsdecode(path)
        return recover(os.path.abspath(label), label, None if dest is None else os.path.abspath(os.fsdecode(dest)))

    def _departures(self, path: str) -> Iterable[tuple[str, str]]:
        archive = self._opened()
        if path or (isinstance(archive, Writer) and archive.stop != archive.whole_at):
            return ()  # of an archive that is not flushed, nothing can be said
        stop = archive.whole_at if isinstance(archive, Writer) else archive.file.size()
        label = self._label if self._source is None else str(getattr(self._source, "key", ""))
        return departures(archive, find_end(archive.file, stop)[0], label)

    # Copies of the object ------------------------------------------------------------------------------------------

    def _place(self) -> object:
        return None if self._source is not None else (self.path, self.compression, self.allowZip64)

    def _location(self, path: str) -> tuple[object, str]:
        return location(self.path, path) if self._source is None else super()._location(path)
