"""A new archive from entries of an old one, put in its place at one stroke."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress

from zarrstore import keys as k
from zarrstore.stores.zip.archive import Archive, Limits
from zarrstore.stores.zip.file import OSFile, sync_directory
from zarrstore.stores.zip.writer import Writer

__all__ = ["rewrite", "temporary"]


def temporary(path: str) -> str:
    """Return where the new archive for `path` is written: beside it, and always the same, so that one is swept.

    Only who holds the lock of `path` writes it. Its length does not depend on that of the name.
    """
    folder, name = os.path.split(path)
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()
    return os.path.join(folder, f"{k.RESERVED}-{digest}.zip")


def rewrite(
    source: Archive, entries: Iterable[tuple[str, bytes]], path: str, *, label: str, compression: int, like: OSFile
) -> Writer:
    """Write entries (names and records of `source`) as a new archive at `path`; return it, open, locked and durable.

    Atomic: until the very end `path` is what it was. A failure leaves nothing behind.
    """
    folder = os.path.dirname(path)
    place = temporary(path)
    with suppress(FileNotFoundError):
        os.unlink(place)
    file = OSFile(place, os.O_RDWR | os.O_CREAT | os.O_EXCL, label)
    try:
        # Locked before it has its name, so that no other writer comes between.
        file.lock()
        file.copy_permissions(like)
        writer = Writer.create(file, source.name, Limits(zip64=source.limits.zip64), compression, source.directory.root)
        for name, record in entries:
            writer.copy_in(source, name, record)
        writer.flush()
        os.replace(place, path)
        writer.limits = source.limits
    except BaseException:
        file.unlock()
        with suppress(FileNotFoundError):
            os.unlink(place)
        raise
    # The rename is not durable until its directory is.
    sync_directory(folder)
    return writer
