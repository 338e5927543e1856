"""The pages of LMDB 0.9 on 64 bits, as far as it takes to read heads and free pages, and to begin a file."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Meta", "empty_file", "lacks_pages", "read_metas"]

_META = struct.Struct("<IIQQ48s48sQQ")  # magic, version, address, map size, free records, main records, last page, txn
_TREE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # low, high, flags, size of the key
_HEADER = 16
_MAGIC = 0xBEEFC0DE
_BRANCH, _LEAF, _HEAD, _BIG = 1, 2, 8, 1
_INTEGER_KEYS = 8
_NO_ROOT = (1 << 64) - 1


class Meta(NamedTuple):
    """What one of the two heads of a file says: its transaction, the number of entries, and the size of its map."""

    txnid: int
    entries: int
    map_size: int = 0


def read_metas(path: str) -> list[Meta]:
    """Return both heads of a data file, none if it has another format; struct.error if it ends too early."""
    with open(path, "rb") as file:
        first = file.read(_HEADER + _META.size)
        meta = _META.unpack_from(first, _HEADER)
        if meta[:2] != (_MAGIC, 1):
            return []
        page_size = _TREE.unpack(meta[4])[0]
        file.seek(page_size)
        metas = [meta, _META.unpack_from(file.read(_HEADER + _META.size), _HEADER)]
    # LMDB maps up to the last page at least.
    return [Meta(meta[7], _TREE.unpack(meta[5])[6], max(meta[3], (meta[6] + 1) * page_size)) for meta in metas]


def empty_file(page_size: int = min(mmap.PAGESIZE, 0x8000)) -> bytes:
    """Return the data file that LMDB writes for an environment without a transaction: two heads."""
    free = _TREE.pack(page_size, _INTEGER_KEYS, 0, 0, 0, 0, 0, _NO_ROOT)
    main = _TREE.pack(0, 0, 0, 0, 0, 0, 0, _NO_ROOT)
    head = _META.pack(_MAGIC, 1, 0, 1 << 20, free, main, 1, 0)
    return b"".join((_PAGE.pack(number, 0, _HEAD, 0, 0) + head).ljust(page_size, b"\0") for number in (0, 1))


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
