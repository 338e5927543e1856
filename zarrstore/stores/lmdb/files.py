"""LMDB files from outside: created whole, compacted in place."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from zarrstore.errors import DamagedStoreError
from zarrstore.stores._files import is_temporary, sweep_folder, temporary_name
from zarrstore.stores._sync import fsync_file, fsync_folder

__all__ = ["compact", "create", "lock_file"]


def lock_file(path: str, subdir: bool) -> str:
    """Return where LMDB keeps the lock of a data file."""
    return os.path.join(os.path.dirname(path), "lock.mdb") if subdir else path + "-lock"


def create(lmdb: Any, path: str, options: dict[str, Any]) -> None:
    """Make an empty data file, all at once: whoever finds a file finds a whole one.

    Notes
    -----
    Durable, with its name. Where the file system has no links nothing is made, and LMDB makes its own file.
    """
    directory = os.path.dirname(path)
    if options["subdir"] and os.path.isdir(directory):
        sweep_folder(directory)
        foreign = [name for name in os.listdir(directory) if name != "lock.mdb" and not is_temporary(name)]
        if foreign:
            raise DamagedStoreError(
                directory, f"is a directory without data.mdb that holds {min(foreign)!r}", "name a new or empty one"
            )
    new = not os.path.isdir(directory)
    os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, temporary_name())
    small = {"map_size": 1 << 20, "subdir": False, "lock": False, "mode": options["mode"]}
    if "lib_version" in options:
        small["lib_version"] = options["lib_version"]
    try:
        with lmdb.open(temporary, **small) as env:
            env.sync(True)
        # A link, not a rename: it never replaces what another process has made meanwhile.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    fsync_folder(directory)
    if new:
        fsync_folder(os.path.dirname(directory))


def compact(env: Any, path: str) -> None:
    """Put a copy without dead pages in the place of the data file of `env`, which nobody else may have open."""
    directory = os.path.dirname(path)
    sweep_folder(directory)
    temporary = os.path.join(directory, temporary_name())
    try:
        env.copy(temporary, compact=True)
        os.chmod(temporary, os.stat(path).st_mode & 0o7777)
        fsync_file(temporary)
        # The copy is durable before it takes the old file's place, and its name only with its directory.
        os.replace(temporary, path)
        fsync_folder(directory)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
