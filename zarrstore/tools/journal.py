"""A journal of finished work, so that an interrupted copy goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.errors import DamagedStoreError, LockedStoreError
from zarrstore.tools.streams import sort_entries
from zarrstore.urls import without_secrets
from zarrstore.wrappers.base import Wrapper

__all__ = ["Journal", "place_name"]

#: Keys in one line.
_LINE = 1000
#: Journals that this process has open: a lock of the system excludes other processes only.
_open_here: set[str] = set()
_open_lock = threading.Lock()


class Journal:
    """Keys that are done and the version of each, in lines with checksums; what was recorded survives a kill.

    Parameters
    ----------
    path : path-like
        The file. Locked while the journal is open.
    job : mapping of str to JSON values
        What the work is: source, destination and options. A journal of other work is refused.

    Raises
    ------
    DamagedStoreError
        The file is no journal, is one of other work, or has a damaged line before its last.
    LockedStoreError
        A copy that uses it is running.

    Notes
    -----
    The first line is the job. Then come the keys that were at the destination before the work began (`begin`), a mark
    that this list is complete, and the keys that are done. A file without that mark is taken for empty, since nothing
    was written to the destination before it. A last line that a crash cut short is removed at the next opening.
    Memory: constant, whatever the number of keys.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "journal"
    >>> with Journal(path, {"from": "a"}) as journal:
    ...     journal.begin([])
    ...     journal.record([("x", "v1"), ("y", "v1")])
    >>> with Journal(path, {"from": "a"}) as journal:
    ...     journal.resumed, list(journal.done())
    (True, [('x', 'v1'), ('y', 'v1')])
    """

    def __init__(self, path: str | os.PathLike[str], job: Mapping[str, Any]) -> None:
        self.path = Path(path).absolute()
        self._header: dict[str, Any] = {"zarrstore journal": 2, **job}
        self._file = _open_locked(self.path)
        self._is_open = True
        #: Whether earlier work is continued.
        self.resumed = False
        try:
            self._whole = self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> int:
        """Read every line once; return where the last whole one ends, 0 if no work was begun."""
        end = 0
        begun = False
        for number, (line, stop) in enumerate(self._lines(), 1):
            record = _parsed(line)
            if number == 1 and (record is None or "zarrstore journal" not in record):
                if not line.endswith(b"\n") and _line(self._header).startswith(line):
                    return 0
                raise DamagedStoreError(self.path, "is no journal", "give another path, or delete it to begin anew")
            if number == 1 and record != self._header:
                raise DamagedStoreError(
                    self.path,
                    f"is the journal of another copy: {_difference(record or {}, self._header)}",
                    "give another path, or delete it to begin anew",
                )
            if record is None:
                if self._file.read(1):
                    raise DamagedStoreError(
                        self.path, f"is damaged in line {number}", "delete it to begin anew, with if_exists='replace'"
                    )
                break
            begun = begun or "begun" in record
            end = stop
        self.resumed = begun
        return end if begun else 0

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        self._file.seek(0)
        stop = 0
        while line := self._file.readline():
            stop += len(line)
            yield line, stop

    def _records(self) -> Iterator[dict[str, Any]]:
        """Yield the records that were whole when the journal was opened."""
        if not self.resumed:
            return
        for line, stop in self._lines():
            if stop > self._whole:
                break
            yield _parsed(line) or {}

    def begin(self, kept: Iterable[str]) -> None:
        """Start anew, after all checks: write the job, and the keys that the work found and must not touch.

        Parameters
        ----------
        kept : iterable of str
            Source keys whose destination had a value before the work began and keeps it.
        """
        self._file.truncate(0)
        self._append([_line(self._header)])
        self._append(_line({"kept": keys}) for keys in _in_lines(kept))
        self._append([_line({"begun": True})])
        _sync_folder(self.path.parent)

    def go_on(self) -> None:
        """Continue earlier work: cut off what a crash left of a last line."""
        self._file.truncate(self._whole)

    def done(self) -> Iterator[tuple[str, str]]:
        """Yield each key that is done with its version, in the order of the keys."""
        return ((entry.key, entry.identity) for entry in sort_entries(self._done()))

    def _done(self) -> Iterator[Entry]:
        for record in self._records():
            for key, version in record.get("done", ()):
                yield Entry(key, -1, version)

    def kept(self) -> Iterator[str]:
        """Yield the keys that `begin` was given, in the order of the keys."""
        entries = (Entry(key) for record in self._records() for key in record.get("kept", ()))
        return (entry.key for entry in sort_entries(entries))

    def record(self, versions: Iterable[tuple[str, str]]) -> None:
        """Add keys that are done, each with the version of the value that was copied. Durable when it returns."""
        lines = [_line({"done": pairs}) for pairs in _in_lines(versions)]
        if lines:
            self._append(lines)

    def _append(self, lines: Iterable[bytes]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.writelines(lines)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Release the file, which stays unless it is empty."""
        if not self._is_open:
            return
        self._is_open = False
        with suppress(OSError):
            if os.fstat(self._file.fileno()).st_size == 0:
                self.path.unlink(missing_ok=True)
        self._release()

    def remove(self) -> None:
        """Delete the file and release it: the work is done."""
        self._is_open = False
        self.path.unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        self._file.close()
        with _open_lock:
            _open_here.discard(str(self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def place_name(store: Store) -> str:
    """Return what a journal calls a store: the same in every process that opens the same place.

    Examples
    --------
    >>> from zarrstore import DirectoryStore, ReadOnlyStore
    >>> place_name(ReadOnlyStore(DirectoryStore("/data/a.zarr")))
    'DirectoryStore /data/a.zarr'
    """
    while (
        isinstance(store, Wrapper) and type(store)._get is Wrapper._get and type(store)._to_inner is Wrapper._to_inner
    ):
        store = store.inner
    parts = list(_parts(store._place()))
    if not parts and not isinstance(store._place(), Mapping | tuple):
        # A class without a repr of its own is named by an address in memory.
        parts = [re.sub(r" at 0x[0-9a-fA-F]+", "", repr(store))]
    # It stands in a file. A signature in a URL may be another one when the copy goes on.
    return " ".join([type(store).__name__, *map(without_secrets, parts)])


def _parts(place: object) -> Iterator[str]:
    if isinstance(place, str):
        yield place
    elif isinstance(place, type):
        yield place.__name__
    elif isinstance(place, tuple):
        for part in place:
            yield from _parts(part)


def _open_locked(path: Path) -> IO[bytes]:
    with _open_lock:
        if str(path) in _open_here:
            raise LockedStoreError(path, "a copy of this process is using this journal")
        _open_here.add(str(path))
    try:
        while True:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666), "r+b")
            try:
                _lock(file, path)
                # The other process may have finished, and deleted the file, after it was opened here.
                if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()
    except BaseException:
        with _open_lock:
            _open_here.discard(str(path))
        raise


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows
        return
    try:
        # lockf, not flock: a child that was forked meanwhile would hold the lock of flock after this process died.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise LockedStoreError(path, "another process is copying with this journal") from None


def _in_lines(items: Iterable[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) == _LINE:
            yield part
            part = []
    if part:
        yield part


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if the line is not whole."""
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):  # the checksum proves the bytes, not who wrote them
        return None
    return record if isinstance(record, dict) and _is_record(record) else None


def _is_record(record: dict[str, Any]) -> bool:
    kept, done = record.get("kept", []), record.get("done", [])
    return (
        isinstance(kept, list)
        and isinstance(done, list)
        and all(map(k.is_key, kept))
        and all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str) for pair in done)
        and all(k.is_key(pair[0]) for pair in done)
    )


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            return f"its {name} is {found.get(name)!r}, and here it is {wanted.get(name)!r}"
    return "its options differ"


def _sync_folder(folder: Path) -> None:
    # The file is durable when its directory is; not every system can open a directory.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
