"""How stores are opened by the processes that `tests.support.crash` kills: one function for each, ``open(folder)``.

They stand here and not beside their tests: those import pytest, and each such process would, for a third of its time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from zarrstore.errors import DamagedStoreError
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.stores.zip import ZipStore


def plain(folder: Path) -> DirectoryStore:
    return DirectoryStore(folder / "data")


def always(folder: Path) -> DirectoryStore:
    return DirectoryStore(folder / "data", durability="always")


def nested(folder: Path) -> NestedDirectoryStore:
    return NestedDirectoryStore(folder / "data")


def lmdb(folder: Path) -> LMDBStore:
    return LMDBStore(folder / "data.lmdb")


def lmdb_with_every_call_synced(folder: Path) -> LMDBStore:
    return LMDBStore(folder / "data.lmdb", sync=True, metasync=True)


def sqlite(folder: Path) -> SQLiteStore:
    return SQLiteStore(folder / "data.sqlite")


def archive(folder: Path) -> ZipStore:
    """Open as a user would: what says that it is damaged is recovered, and then opens."""
    path = folder / "data.zip"
    with suppress(DamagedStoreError):
        return ZipStore(path)
    ZipStore.recover(path)
    return ZipStore(path)


def archive_recovered_elsewhere(folder: Path) -> ZipStore:
    path = folder / "data.zip"
    with suppress(DamagedStoreError):
        return ZipStore(path)
    ZipStore.recover(path, folder / "new.zip")
    os.replace(folder / "new.zip", path)
    return ZipStore(path)


def packed_archive(folder: Path) -> ZipStore:
    archive(folder).close()
    return ZipStore(folder / "data.zip", compression=8)


class Repacking(ZipStore):
    """Rewrites the archive at each flush."""

    def _flush(self) -> None:
        super()._flush()
        self.repack()


def repacking(folder: Path) -> ZipStore:
    archive(folder).close()
    return Repacking(folder / "data.zip")
