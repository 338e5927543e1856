"""LMDB files from outside: created whole, compacted in place."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from typing import Any

from zarrstore.errors import DamagedStoreError
from zarrstore.stores._files import is_temporary, sweep_folder, temporary_name
from zarrstore.stores._sync import create_file, fsync_file, fsync_folder
from zarrstore.stores.lmdb.pages import empty_file

__all__ = ["compact", "create", "lock_file"]


def lock_file(path: str, subdir: bool) -> str:
    """Return where LMDB keeps the lock of a data file."""
    return os.path.join(os.path.dirname(path), "lock.mdb") if subdir else path + "-lock"


def create(lmdb: Any, path: str, options: dict[str, Any]) -> None:
    """Create an empty data file, all at once and durably, and its directory, unless another process is faster."""
    directory = os.path.dirname(path)
    if options["subdir"] and os.path.isdir(directory):
        sweep_folder(directory)
        foreign = [name for name in os.listdir(directory) if name != "lock.mdb" and not is_temporary(name)]
        if foreign and "data.mdb" not in foreign:
            raise DamagedStoreError(
                directory, f"is a directory without data.mdb that holds {min(foreign)!r}", "name a new or empty one"
            )
    new = not os.path.isdir(directory)
    os.makedirs(directory, exist_ok=True)
    content = _written_by(lmdb, options["lib_version"]) if "lib_version" in options else empty_file()
    create_file(path, content, options["mode"])
    if new:
        fsync_folder(os.path.dirname(directory))


def _written_by(lmdb: Any, lib_version: Any) -> bytes:
    """Return an empty data file as another version of the library writes it."""
    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=1 << 20, lock=False, lib_version=lib_version) as env:
            env.sync(True)
        with open(os.path.join(folder, "data.mdb"), "rb") as file:
            return file.read()


def compact(env: Any, path: str) -> None:
    """Put a copy without dead pages in the place of the data file of `env`, which nobody else may have open."""
    directory = os.path.dirname(path)
    sweep_folder(directory)
    temporary = os.path.join(directory, temporary_name())
    try:
        env.copy(os.fsencode(temporary), compact=True)
        os.chmod(temporary, os.stat(path).st_mode & 0o7777)
        fsync_file(temporary)
        # The copy is durable before it takes the old file's place, and its name only with its directory.
        os.replace(temporary, path)
        fsync_folder(directory)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
