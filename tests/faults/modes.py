"""Every store and mode that a crash can hit, with what it promises after one."""

from __future__ import annotations

import dbm.dumb
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from zarrstore.errors import DamagedStoreError
from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.stores.zip import ZipStore


class Mode(NamedTuple):
    """One way to open a store.

    Parameters
    ----------
    open : callable
        ``open(folder)``, the same place each time, by the way that the manual names for after a crash.
    kill, power : {'acknowledged', 'flushed', 'whole', None}
        What survives the end of the process, and a power cut: every write that returned; what a `flush` that returned
        followed, while writing goes on; 'whole': no wrong value, but a refusal to open is allowed; None: nothing is
        promised.
    new_may_tear : bool
        A key that had no value at the last flush may be torn, as the store's documentation says.
    """

    open: Callable[[Path], Any]
    kill: str | None
    power: str | None
    new_may_tear: bool = False


def _zip(folder: Path) -> ZipStore:
    path = folder / "data.zip"
    try:
        return ZipStore(path)
    except DamagedStoreError:
        ZipStore.recover(path)
    return ZipStore(path)


MODES: dict[str, Mode] = {
    "DirectoryStore": Mode(lambda f: DirectoryStore(f / "data"), "acknowledged", None),
    "DirectoryStore-flush": Mode(
        lambda f: DirectoryStore(f / "data", durability="flush"), "acknowledged", "flushed", True
    ),
    "DirectoryStore-always": Mode(
        lambda f: DirectoryStore(f / "data", durability="always"), "acknowledged", "acknowledged"
    ),
    "NestedDirectoryStore-flush": Mode(
        lambda f: NestedDirectoryStore(f / "data", durability="flush"), "acknowledged", "flushed", True
    ),
    "ZipStore": Mode(_zip, "acknowledged", "flushed"),
    "LMDBStore": Mode(lambda f: LMDBStore(f / "data.lmdb"), "acknowledged", "flushed"),
    "LMDBStore-metasync": Mode(lambda f: LMDBStore(f / "data.lmdb", metasync=True), "acknowledged", "acknowledged"),
    "LMDBStore-nosync": Mode(lambda f: LMDBStore(f / "data.lmdb", sync=False), "acknowledged", "whole"),
    "SQLiteStore": Mode(lambda f: SQLiteStore(f / "data.sqlite"), "acknowledged", "flushed"),
    "DBMStore": Mode(lambda f: DBMStore(f / "data.dbm", open=dbm.dumb.open), None, None),
}
