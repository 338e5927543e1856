"""What zarr 2.18.7 wrote, opened by our stores: name -> maker, which takes a folder and opens a copy there."""

from __future__ import annotations

import dbm.dumb
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.stores.zip import ZipStore

DATA = Path(__file__).resolve().parent.parent / "data" / "v2"
ARRAYS: dict[str, Any] = json.loads((DATA / "manifest.json").read_text())["arrays"]
#: zarr 3 has no codec for it.
NOT_ZARR_3 = {"stations/meta"}


def _copy(folder: Path, *names: str) -> Path:
    for name in names:
        source = DATA / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder / names[0]


def _dumb(folder: Path) -> DBMStore:
    _copy(folder, "legacy-dumb.dbm.dat", "legacy-dumb.dbm.dir", "legacy-dumb.dbm.bak")
    return DBMStore(folder / "legacy-dumb.dbm", flag="r", open=dbm.dumb.open)


LEGACY: dict[str, Callable[[Path], Any]] = {
    "DirectoryStore": lambda folder: DirectoryStore(_copy(folder, "legacy.zarr")),
    "NestedDirectoryStore": lambda folder: NestedDirectoryStore(_copy(folder, "legacy-nested.zarr")),
    "ZipStore": lambda folder: ZipStore(_copy(folder, "legacy.zip"), mode="r"),
    "LMDBStore": lambda folder: LMDBStore(_copy(folder, "legacy.lmdb")),
    "SQLiteStore": lambda folder: SQLiteStore(_copy(folder, "legacy.sqlite")),
    "DBMStore": _dumb,
}


def expected(name: str) -> Any:
    """Return what zarr 2.18.7 read back."""
    entry = ARRAYS[name]
    if entry["file"]:
        return np.load(DATA / "expected" / entry["file"])
    values = np.empty(len(entry["values"]), dtype=object)
    values[:] = entry["values"]
    return values


def same(got: Any, wanted: Any) -> bool:
    """Tell whether two arrays hold the same values: NaN and NaT are equal to themselves here."""
    got = np.asarray(got)
    if wanted.dtype == object or got.dtype.kind in "OT":
        return got.shape == wanted.shape and list(got.ravel()) == list(wanted.ravel())
    return got.shape == wanted.shape and got.astype(wanted.dtype).tobytes() == wanted.tobytes()
