"""A new directory for a damaged archive, of every entry that is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from zarrstore.errors import DamagedStoreError
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.archive import Archive, Limits
from zarrstore.stores.zip.codec import METHODS
from zarrstore.stores.zip.directory import Directory
from zarrstore.stores.zip.end import End, NotAnArchiveError
from zarrstore.stores.zip.file import OSFile
from zarrstore.stores.zip.rewrite import discard, publish, rewrite
from zarrstore.stores.zip.scan import Checker, Scan
from zarrstore.stores.zip.writer import Writer

__all__ = ["Recovery", "recover"]


@dataclass(frozen=True)
class Recovery:
    """What `ZipStore.recover` did.

    Parameters
    ----------
    path : str
        The archive that has the entries now.
    kept : int
        Its entries.
    damaged : tuple of str
        Names whose last entry is not whole. If an earlier one was, that is kept.
    refused : tuple of str
        Names that are not keys. Not kept.
    changed : bool
        Whether anything was written. An archive that ends properly is left as it is.
    """

    path: str
    kept: int
    damaged: tuple[str, ...]
    refused: tuple[str, ...]
    changed: bool


def recover(path: str, label: str, dest: str | None) -> Recovery:
    """Do what `ZipStore.recover` promises."""
    if dest is not None and os.path.lexists(dest):
        raise _in_the_way(label, dest)
    file = OSFile.open(path, "r+" if dest is None else "r", label)
    try:
        if dest is None:
            file.lock()
        try:
            archive = Archive.open(file, f"ZipStore({label!r})", Limits(), None)
            _ = archive.directory.index
        except (NotAnArchiveError, DamagedStoreError):
            return _rebuild(file, path, dest)
        return _check(archive, file, path, dest)
    finally:
        if dest is None:
            file.unlock()


def _check(archive: Archive, file: OSFile, path: str, dest: str | None) -> Recovery:
    """Look through an archive that ends properly, and copy what is whole if it is to go elsewhere."""
    checker = Checker(file)
    kept: list[tuple[str, bytes]] = []
    damaged: list[tuple[str, bytes]] = []
    for name, record in archive.live_records():
        (kept if _is_whole(archive, checker, name, fmt.entry_of(record)) else damaged).append((name, record))
    report = Recovery(
        dest or path,
        len(kept),
        tuple(name for name, _ in damaged),
        tuple(name for name, _ in archive.directory.refused),
        dest is not None,
    )
    if dest is not None:
        _write_anew(archive, kept, dest, file)
    return report


def _is_whole(archive: Archive, checker: Checker, name: str, entry: fmt.Entry) -> bool:
    if entry.flags & fmt.ENCRYPTED:
        return False
    try:
        place = archive.data_place(name, entry)
    except DamagedStoreError:
        return False
    return entry.method not in METHODS or checker.is_whole(place, entry.method, entry.crc, entry.csize, entry.size)


def _rebuild(file: OSFile, path: str, dest: str | None) -> Recovery:
    """List what a walk through the file finds."""
    scan = Scan(file)
    stop = scan.stop
    if not scan.is_archive and stop:
        raise DamagedStoreError(
            file.label, "is not a zip archive: nothing in it is an entry", "look for what it is; it was left as it is"
        )
    raw = fmt.directory_of(scan.kept.values())
    directory = Directory(file.label, raw, End(0, len(raw), len(scan.kept), 0, 0), scan.root)
    report = Recovery(dest or path, len(scan.kept), tuple(scan.damaged), tuple(scan.refused), True)
    name = f"ZipStore({file.label!r})"
    if dest is None:
        # Behind everything: nothing in the file is overwritten, so a kill here leaves what there was.
        Writer(file, name, directory, Limits(), fmt.STORED, stop, False).flush()
        return report
    archive = Archive(file, name, directory, Limits())
    _write_anew(archive, archive.live_records(), dest, file)
    return report


def _write_anew(archive: Archive, entries: Iterable[tuple[str, bytes]], dest: str, like: OSFile) -> None:
    writer = rewrite(archive, entries, dest, compression=fmt.STORED, like=like)
    try:
        publish(dest, dest, overwrite=False)
    except FileExistsError:
        raise _in_the_way(like.label, dest) from None
    finally:
        discard(writer.file, dest)


def _in_the_way(label: str, dest: str) -> FileExistsError:
    return FileExistsError(f"cannot recover {label!r} to {dest!r}: something is there; remove it first")
