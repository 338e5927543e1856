"""The archive that a store holds, from its opening to its end.

`HeldArchive._archive` reads, and writes if it is a `Writer`; a thread that assigns it holds `_mutex`. Here is all that
may come to it: `close`, an exchange by `repack`, the end of the object or of the interpreter, forks, copies.
"""

from __future__ import annotations

import os
import warnings
import weakref
from contextlib import suppress
from typing import Any

from zarrstore.base import Capabilities, Store
from zarrstore.errors import ClosedStoreError, LockedStoreError, ReadOnlyError, UnsupportedOperation
from zarrstore.stores._process import Resource
from zarrstore.stores.zip.archive import Archive, Limits
from zarrstore.stores.zip.end import NotAnArchiveError
from zarrstore.stores.zip.file import sync_directory
from zarrstore.stores.zip.opening import Flushed, Options, flushed_state, open_reader, open_writer
from zarrstore.stores.zip.ranges import ValueRanges
from zarrstore.stores.zip.rewrite import discard, put, rewrite
from zarrstore.stores.zip.writer import Writer

__all__ = ["HeldArchive"]


class HeldArchive(Store):
    """A store that holds an archive; `ZipStore` without the values."""

    path: Any
    compression: int
    allowZip64: bool
    mode: str
    compact: bool
    _source: Any
    _label: str
    _max_value_size: int | None
    _wanted_root: str | None

    #: What reads, and writes if it is a Writer; None when the store is closed.
    _archive: Archive | None = None
    #: While an archive is being replaced by `repack`: the old one and the new one. The name in the folder says which.
    _exchange: tuple[Writer, Writer] | None = None
    #: Whether the name of the file in its folder may not be durable.
    _name_is_new = False
    #: Of a copy, or in a forked child, the state of the archive that it reads; None if that was never flushed.
    _flushed: Flushed | None = None
    #: Whether this is the copy of a writer, which becomes one itself when it is written to and that one has closed.
    _is_copy = False
    _is_ozx = False
    _is_forked = False
    #: Where the archive ended when this writer closed it; None if it did not.
    _closed_at: int | None = None

    def _start(self, flushed: Flushed | None) -> None:
        writable = self.mode != "r"
        self._guard = _Guard(self)
        self._mutex = self._guard.turn
        # Of an archive behind requests a batch is read by a few of them.
        concurrent = hasattr(self._source, "getrange")
        self.capabilities = Capabilities(
            writable=writable,
            erasable=writable,
            ranged=True,
            concurrent=concurrent,
            durable_flush=writable,
            # A reader of a file; of a value in another store, as far as that may be opened elsewhere.
            process_safe=not writable and (self._source is None or _is_process_safe(self._source)),
            blocking=True,
        )
        self._flushed = flushed
        if writable:
            self._guard.register()
        if writable and not self._is_copy:
            self._open_to_write(self.mode)
        else:
            self._archive = open_reader(self.path, self._source, self._options(), flushed)

    def _options(self) -> Options:
        limits = Limits(self._max_value_size, zip64=self.allowZip64, ozx=self._is_ozx)
        return Options(repr(self), self._label, limits, self.compression, self._wanted_root)

    def _open_to_write(self, mode: str) -> Writer:
        writer, self._name_is_new = open_writer(self.path, mode, self._options(), must_lock=self._is_copy)
        self._archive = writer
        return writer

    def _opened(self) -> Archive:
        archive = self._archive
        if archive is None:
            raise ClosedStoreError(self)
        return archive

    def _writer(self, what: str) -> Writer:
        """Return the archive to write to, to a caller who holds the mutex; or say why there is none."""
        if self._exchange is not None:
            self._end_exchange()
        archive = self._archive
        if isinstance(archive, Writer):
            return archive
        if archive is None:
            raise ClosedStoreError(self)
        if self.mode == "r":
            raise ReadOnlyError(what, self)
        if self._is_forked:
            raise LockedStoreError(self._label, "this process was forked from its writer; let that one write")
        return self._open_to_write("r+")

    def _become_reader(self) -> None:
        """In a forked child: read on from the same file, but never write, cut or unlock what is the parent's."""
        self._mutex = self._guard.turn  # another one, if another thread of the parent held it at the fork
        archive = self._exchange[0] if self._exchange is not None else self._archive
        self._exchange = None
        if archive is None:
            return
        if isinstance(archive, Writer):
            stop = archive.whole_at
            self._flushed = Flushed(stop, -1) if stop == archive.stop and stop >= 0 else None
            archive = Archive(archive.file, archive.name, archive.directory, archive.limits)
        archive.directory.forget_changes()
        self._archive, self._is_forked = archive, True

    def _flush(self) -> None:
        if not isinstance(self._opened(), Writer) and self._exchange is None:
            return
        with self._mutex:
            self._flush_now(self._writer(""))

    def _flush_now(self, writer: Writer) -> None:
        writer.flush()
        if self._name_is_new:
            sync_directory(os.path.dirname(self.path))
            self._name_is_new = False

    def _close(self) -> None:
        if self.mode == "r":
            self._archive = None
            if isinstance(self._source, ValueRanges):
                self._source.store.close()
            return
        with self._mutex:
            if self._exchange is not None:
                self._end_exchange()
            writer = self._archive
            if isinstance(writer, Writer):
                # If the flush fails, the store stays open: what it was given is in the file, and can be flushed yet.
                self._flush_now(writer)
                if self.compact and writer.begun:
                    writer = self._compact(writer)
                self._archive = None
                self._closed_at = writer.whole_at
                writer.file.unlock()
            self._archive = None
            self._guard.unregister()

    def _compact(self, writer: Writer) -> Writer:
        sizes = writer.sizes()
        if sizes["dead_bytes"] * 2 <= sizes["file_bytes"] or writer.directory.shift:
            return writer
        try:
            self._repack()
        except OSError as exc:
            warnings.warn(f"{self} was closed whole, but not compacted: {exc}", RuntimeWarning, stacklevel=4)
        return self._writer("")

    def _end(self) -> None:
        """Flush and let the lock go, at the end of the object or of the process, where nobody closed the store."""
        with self._mutex:
            if self._exchange is not None:
                self._end_exchange()
            writer, self._archive = self._archive, None
            if isinstance(writer, Writer):
                try:
                    self._flush_now(writer)
                finally:
                    writer.file.unlock()

    def __del__(self) -> None:
        if isinstance(self._archive, Writer) or self._exchange is not None:
            self._end()

    # Another archive in the place of this one ----------------------------------------------------------------------

    def _repack(self) -> int:
        old = self._writer("the archive")
        old.directory.check_names()
        path = os.path.realpath(self.path)  # a link stays a link
        new = rewrite(old, old.live_records(), path, compression=self.compression, like=old.file)
        before = old.file.size()
        # An interrupt may come at any step. From here on the name in the folder says which of the two is the archive,
        # and whoever writes next looks there.
        self._exchange = old, new
        self._archive = Archive(old.file, old.name, old.directory, old.limits)
        self._name_is_new = True
        try:
            put(path)
            self._name_is_new = False
        finally:
            self._end_exchange()
        return before - new.file.size()

    def _end_exchange(self) -> None:
        assert self._exchange is not None
        old, new = self._exchange
        path = os.path.realpath(self.path)
        if new.file.is_at(path):
            self._archive = new
            old.file.unlock()
        else:
            self._archive = old
            discard(new.file, path)
        self._exchange = None

    # Copies of the object ------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in (
            "_archive",
            "_mutex",
            "_guard",
            "_exchange",
            "_name_is_new",
            "_is_forked",
            "_closed_at",
            "capabilities",
        ):
            state.pop(name, None)
        if self.mode == "r":
            return state
        with self._mutex:
            archive = self._archive
            if archive is None and self._exchange is None:
                return {**state, **self._closed_state()}
            if not self._is_forked and (isinstance(archive, Writer) or self._exchange is not None):
                writer = self._writer("")
                self._flush_now(writer)
                flushed = flushed_state(writer, writer.whole_at)
            elif self._flushed is None:
                raise UnsupportedOperation(
                    "be pickled in a forked process, where it has values that are not flushed",
                    self,
                    "flush it before the fork",
                )
            else:
                flushed = flushed_state(self._opened(), self._flushed.stop)
        # Never a mode that creates or erases: it would do so once more wherever the copy is made.
        return {**state, "mode": "r+", "_is_copy": True, "_flushed": flushed}

    def _closed_state(self) -> dict[str, Any]:
        """Return what the copy of a closed store begins with: as one taken before the close, if nobody wrote since."""
        if self._closed_at is not None:
            with suppress(OSError, NotAnArchiveError):
                archive = open_reader(self.path, self._source, self._options(), None)
                if archive.file.size() == self._closed_at:
                    return {"mode": "r+", "_is_copy": True, "_flushed": flushed_state(archive, self._closed_at)}
        # Another has written since, or removed it: the copy reads what it finds.
        return {"mode": "r", "_flushed": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start(self._flushed)


def _is_process_safe(source: Any) -> bool:
    """Tell whether other processes see what an archive is read from, where that is no file."""
    return isinstance(source, ValueRanges) and source.store.capabilities.process_safe


class _Guard(Resource):
    """The lock of the writers of one store, which forks and the end of the interpreter wait for."""

    def __init__(self, store: HeldArchive) -> None:
        super().__init__(repr(store), str(store.path))
        self._store = weakref.ref(store)

    def after_fork_in_child(self) -> None:
        store = self._store()
        if store is not None:
            store._become_reader()

    def at_exit(self) -> None:
        store = self._store()
        if store is not None:
            store._end()
