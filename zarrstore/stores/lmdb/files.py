"""LMDB files from outside: made whole, compacted in place, found to lack a part."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from zarrstore.errors import DamagedStoreError
from zarrstore.stores._files import is_temporary, sweep_folder, temporary_name
from zarrstore.stores._sync import fsync_file, fsync_folder

__all__ = ["compact", "create", "lacks_pages", "lock_file"]


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


# The format of LMDB 0.9 on 64 bits, as far as it takes to read the list of free pages.

_META = struct.Struct("<IIQQ48s48sQQ")  # magic, version, address, map size, free records, main records, last page, txn
_TREE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # low, high, flags, size of the key
_HEADER = 16
_BRANCH, _LEAF, _BIG = 1, 2, 1
_NO_ROOT = (1 << 64) - 1


def lacks_pages(path: str, txnid: int, page_size: int, pages: int) -> bool:
    """Tell whether a file ends before a page that is in use: reading that would end the process by SIGBUS.

    Parameters
    ----------
    path : str
        The data file.
    txnid : int
        The transaction whose pages are meant; it must be held meanwhile.
    page_size, pages : int
        Bytes in a page, and how many pages the transaction knows.

    Notes
    -----
    A file that is short is not always damaged: LMDB leaves out pages at the end that were freed before they were ever
    written. Those are in its list of free pages, and all others must be there.
    """
    there = os.path.getsize(path) // page_size
    if there >= pages:
        return False
    with open(path, "rb") as file:

        def read(page: int, count: int = 1) -> bytes:
            if page + count > there:
                raise EOFError
            return os.pread(file.fileno(), count * page_size, page * page_size)

        try:
            metas = [_META.unpack_from(read(number), _HEADER) for number in (0, 1)]
            if any(meta[1] != 1 for meta in metas):
                return False  # another format, and no way to tell
            root = next((_TREE.unpack(meta[4])[7] for meta in metas if meta[7] == txnid), _NO_ROOT)
            free = {page for record in _records(read, root, page_size) for page in record if page >= there}
        except (EOFError, struct.error):
            return True
    return len(free) < pages - there


def _records(read: Callable[..., bytes], root: int, page_size: int) -> Iterator[tuple[int, ...]]:
    """Yield the page numbers in each record of the list of free pages."""
    if root == _NO_ROOT:
        return
    page = read(root)
    _, _, flags, lower, _ = _PAGE.unpack_from(page)
    for offset in struct.unpack_from(f"<{(lower - _HEADER) // 2}H", page, _HEADER):
        low, high, node_flags, key_size = _NODE.unpack_from(page, offset)
        if flags & _BRANCH:
            yield from _records(read, low | high << 16 | node_flags << 32, page_size)
            continue
        size = low | high << 16
        start = offset + _NODE.size + key_size
        if node_flags & _BIG:
            (number,) = struct.unpack_from("<Q", page, start)
            value = read(number, -(-(_HEADER + size) // page_size))[_HEADER : _HEADER + size]
        else:
            value = page[start : start + size]
        (count,) = struct.unpack_from("<Q", value)
        yield struct.unpack_from(f"<{count}Q", value, 8)
