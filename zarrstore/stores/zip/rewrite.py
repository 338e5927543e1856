"""A new archive, written beside the place where it is to be and put there at one stroke.

The file beside it has a reserved name that depends on the archive's only, and is locked while it is written. So whoever
comes later can tell what a dead writer left from what a living one writes, and sweeps the first.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress

from zarrstore import keys as k
from zarrstore.errors import LockedStoreError
from zarrstore.stores.zip.archive import Archive, Limits
from zarrstore.stores.zip.file import OSFile, sync_directory
from zarrstore.stores.zip.ozx import json_first
from zarrstore.stores.zip.writer import Writer

__all__ = ["discard", "lock_existing", "publish", "put", "rewrite", "sweep", "temporary"]

#: Errors by which a file system says that it has no hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EXDEV}


def temporary(path: str) -> str:
    """Return where the next archive for `path` is written: beside it, under a name as long as any other's."""
    folder, name = os.path.split(path)
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()
    return os.path.join(folder, f"{k.RESERVED}-{digest}.zip")


def sweep(path: str, dry_run: bool = False) -> list[str]:
    """Delete what a dead writer of `path` left beside it; return its name. What a living one writes is left alone."""
    place = temporary(path)
    try:
        if os.path.samefile(place, path):
            # A second name of the archive itself, of a process killed while it gave it its name. Its lock is that of
            # the archive, which the caller may hold.
            if not dry_run:
                os.unlink(place)
            return [os.path.basename(place)]
    except OSError:  # one of both is absent
        pass
    try:
        file = OSFile.open(place, "r+", place)
        file.lock()
    except (FileNotFoundError, PermissionError, LockedStoreError):
        return []
    try:
        if not dry_run and file.is_at(place):
            os.unlink(place)
    finally:
        file.unlock()
    return [os.path.basename(place)]


def rewrite(
    source: Archive, entries: Iterable[tuple[str, bytes]], path: str, *, compression: int, like: OSFile
) -> Writer:
    """Write entries (names and records of `source`) as a new archive beside `path`; return it, open, locked and synced.

    A failure leaves nothing behind. `put` gives it its name.
    """
    place = temporary(path)
    sweep(path)
    try:
        file = OSFile.open(place, "x", path)
    except FileExistsError:
        raise LockedStoreError(path, "another process is packing an archive for this place; let it end") from None
    try:
        file.lock()
        file.copy_permissions(like)
        writer = Writer.create(
            file,
            source.name,
            Limits(zip64=source.limits.zip64, ozx=source.limits.ozx),
            compression,
            source.directory.root,
        )
        if source.limits.ozx:
            records = dict(entries)
            entries = ((name, records[name]) for name in json_first(records))
        for name, record in entries:
            writer.copy_in(source, name, record)
        writer.flush()
        writer.limits = source.limits
    except BaseException:
        discard(file, path)
        raise
    return writer


def discard(file: OSFile, path: str) -> None:
    """Delete the file beside `path`, which did not become the archive there."""
    with suppress(FileNotFoundError):
        os.unlink(temporary(path))
    file.unlock()


def put(path: str) -> None:
    """Give the archive beside `path` its name, in the place of what is there; the caller holds the lock of that."""
    os.replace(temporary(path), path)
    # The rename is not durable until its directory is.
    sync_directory(os.path.dirname(path))


def lock_existing(path: str, label: str) -> OSFile | None:
    """Return the file at `path`, locked, so that no store writes to what is to be replaced; None if there is none."""
    while True:
        try:
            file = OSFile.open(path, "r+", label)
        except FileNotFoundError:
            return None
        except PermissionError:
            file = OSFile.open(path, "r", label)
        file.lock()
        if file.is_at(path):
            return file


def publish(path: str, label: str, *, overwrite: bool) -> None:
    """Give the archive beside `path` its name, where nothing is, or with `overwrite` where nobody writes.

    Raises FileExistsError, or LockedStoreError.
    """
    while True:
        old = lock_existing(path, label) if overwrite else None
        if old is not None:
            put(path)
            old.unlock()
            return
        try:
            _put_new(path)
        except FileExistsError:
            if overwrite:
                continue
            raise
        sync_directory(os.path.dirname(path))
        return


def _put_new(path: str) -> None:
    place = temporary(path)
    try:
        os.link(place, path)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
    else:
        with suppress(FileNotFoundError):  # swept by another
            os.unlink(place)
        return
    # Without hard links the name is taken by an empty file first, which is then replaced.
    claim = OSFile.open(path, "x", path)
    try:
        claim.lock()
        os.replace(place, path)
    except BaseException:
        if claim.is_at(path):
            os.unlink(path)
        raise
    finally:
        claim.unlock()
