"""How an archive is opened: found, locked, checked, or refused with the way out."""

from __future__ import annotations

import os
import zlib
from typing import Any, NamedTuple

from zarrstore.errors import DamagedStoreError, LockedStoreError
from zarrstore.longpaths import absent_place
from zarrstore.stores.zip.archive import Archive, Limits
from zarrstore.stores.zip.end import NotAnArchiveError, find_end
from zarrstore.stores.zip.file import File, OSFile, file_of, read_fully
from zarrstore.stores.zip.ranges import RangeFile
from zarrstore.stores.zip.rewrite import sweep
from zarrstore.stores.zip.scan import count_whole
from zarrstore.stores.zip.writer import Writer

__all__ = ["Flushed", "Options", "flushed_state", "is_source", "open_reader", "open_writer"]


class Options(NamedTuple):
    """What opening needs to know of a store: its name in errors, its limits, the method of packing, the wanted root."""

    name: str
    label: str
    limits: Limits
    compression: int
    root: str | None


class Flushed(NamedTuple):
    """An archive as it was when it was flushed: where it ended, and the CRC of its directory and end."""

    stop: int
    crc: int


def is_source(path: Any) -> bool:
    """Tell whether this is something to read from, rather than the path of a file."""
    return not isinstance(path, str | bytes | os.PathLike) and (hasattr(path, "read") or hasattr(path, "getrange"))


def open_reader(path: str, source: Any, options: Options, flushed: Flushed | None) -> Archive:
    """Open an archive to read: a path, or a file object or a source of ranges if there is one."""
    file: File
    if source is None:
        try:
            file = OSFile.open(path, "r", options.label)
        except FileNotFoundError:
            raise absent_place(path, "a zip archive to read") from None
    else:
        file = RangeFile(source) if hasattr(source, "getrange") else file_of(source)
    try:
        length = file.size()
        if flushed is not None and flushed.stop <= length and _directory_crc(file, flushed.stop) == flushed.crc:
            length = flushed.stop
        return Archive.open(file, options.name, options.limits, options.root, length)
    except NotAnArchiveError as exc:
        raise damaged(file, exc) from None


def open_writer(path: str, mode: str, options: Options, *, must_lock: bool) -> tuple[Writer, bool]:
    """Open an archive to write, locked; return it, and whether its name is new in its directory."""
    file_mode = {"r+": "r+", "a": "a", "w": "a"}.get(mode, "x")
    existed = os.path.exists(path)
    while True:
        try:
            file = OSFile.open(path, file_mode, options.label)
        except FileNotFoundError:
            if file_mode == "r+":
                raise absent_place(path, "a zip archive to write to") from None
            raise
        if not file.lock() and must_lock:
            raise LockedStoreError(options.label, "the file system has no locks, and the store is a copy of a writer")
        # Locked before it is looked at, let alone erased; and another writer may have replaced it meanwhile.
        if file.is_at(path):
            break
    try:
        sweep(os.path.realpath(path))  # of a writer that died while it repacked or packed
        if mode == "w":
            file.truncate(0)
        elif existed or file.size():
            return Writer.resume(file, options.name, options.limits, options.compression, options.root), False
        return Writer.create(file, options.name, options.limits, options.compression, options.root or ""), True
    except NotAnArchiveError as exc:
        error = damaged(file, exc)
        file.unlock()  # an error that somebody keeps would keep the file open
        raise error from None
    except BaseException:
        file.unlock()
        raise


def damaged(file: File, exc: NotAnArchiveError) -> DamagedStoreError:
    """Return the error for a file that does not end as an archive, with a count of what is whole in it."""
    whole, all_seen = count_whole(file)
    if not whole and all_seen:
        return DamagedStoreError(file.label, f"{exc}, and no entry in it is whole", "mode='w' begins a new archive")
    return DamagedStoreError(
        file.label,
        f"{exc}: {whole:,}{'' if all_seen else ' or more'} of its entries are whole",
        f"zarrstore.ZipStore.recover({file.label!r}) keeps them",
    )


def flushed_state(archive: Archive, stop: int) -> Flushed:
    """Return what finds the archive again as it is now, flushed, when more was written behind it."""
    return Flushed(stop, _directory_crc(archive.file, stop))


def _directory_crc(file: File, stop: int) -> int:
    """Return the CRC of the directory and end of an archive that ends at `stop`; -1 if none ends there."""
    try:
        end, _ = find_end(file, stop)
    except NotAnArchiveError:
        return -1
    return zlib.crc32(read_fully(file, stop - end.start, end.start))
