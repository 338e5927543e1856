"""SHA-256 of many values, as lines of a manifest in the order of their keys; made here, or by workers elsewhere."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import pairwise
from typing import IO

from zarrstore import keys as k
from zarrstore.allowance import allowed
from zarrstore.base import Entry, Store
from zarrstore.tools.batches import Batches
from zarrstore.tools.cluster import check_workers, run_elsewhere
from zarrstore.tools.executing import threads_of
from zarrstore.tools.holding import is_document
from zarrstore.tools.listing import value_or_none
from zarrstore.tools.streams import blocks, sort_entries
from zarrstore.tools.subtrees import Subtree, entries_of, subtrees
from zarrstore.values import sha256

__all__ = ["key_of", "line_of", "lines_elsewhere", "lines_of_part", "values_among"]

#: Bytes read at a time of what each part gave; 4,000 parts then take 64 MiB.
_BLOCK = 1 << 14


def values_among(store: Store, entries: Iterable[Entry], memory: int) -> Iterator[tuple[str, bytes]]:
    """Yield the keys of entries that are there, each with its value, in the order of the keys."""
    batches = Batches(memory, memory, store.capabilities.concurrent)
    for batch, _ in batches.cut(sort_entries(entries)):
        with allowed(memory):
            found = store._get_many([entry.key for entry in batch])
        largest = -1
        for key, *_ in batch:
            value = value_or_none(found, key)
            if value is not None:
                if not is_document(key):
                    largest = max(largest, len(value))
                yield key, value
                del value
        batches.learn(largest)


def line_of(key: str, digest: str) -> str:
    """Return the line of a manifest that says the digest of a key.

    Examples
    --------
    >>> line_of("a/0", "ab"), line_of("a\\n", "ab")
    ('ab  a/0\\n', '\\\\ab  a\\\\n\\n')
    """
    # A backslash cannot be in a key; a line break can, and is written as sha256sum writes it.
    escaped = key.replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == key else chr(92)}{digest}  {escaped}\n"


def key_of(line: str) -> str:
    """Return the key of a line that `line_of` made of a SHA-256.

    Examples
    --------
    >>> key_of(line_of("a\\n/0", "0" * 64))
    'a\\n/0'
    """
    if line[0] != "\\":
        return line[66:-1]
    return line[67:-1].replace("\\n", "\n").replace("\\r", "\r")


def lines_elsewhere(store: Store, path: str, executor: Executor, memory: int) -> Iterator[str]:
    """Yield the lines of a manifest in the order of the keys; workers list the parts, and read and digest the values.

    Notes
    -----
    Cost here: what each key's line takes to be merged. Memory here: 64 MiB; lines wait in a temporary file.
    """
    check_workers(executor, store, path, None)
    threads = threads_of(executor) or 16
    share = max(1, memory // threads)
    tasks = ((lines_of_part, store, path, part, share) for part in subtrees(store, path, 4 * threads))
    import tempfile

    with tempfile.TemporaryFile(prefix="zarrstore-") as file:
        ends = [0]
        for lines in run_elsewhere(executor, tasks, "nothing was changed"):
            ends.append(ends[-1] + file.write(lines))
        file.flush()
        parts = [_lines(file, start, stop) for start, stop in pairwise(ends) if start < stop]
        yield from heapq.merge(*parts, key=key_of)


def lines_of_part(store: Store, path: str, part: Subtree, memory: int) -> bytes:
    """Return the lines of one part, in the order of the keys; runs on a worker."""
    entries = (entry for entry in entries_of(store, part) if part.takes(entry.key))
    return "".join(
        line_of(k.replace_root(key, path, ""), sha256(value))
        for key, value in values_among(store, entries, memory)
        if key != path
    ).encode()


def _lines(file: IO[bytes], start: int, stop: int) -> Iterator[str]:
    rest = b""
    for block in blocks(file, start, stop, _BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield f"{line.decode()}\n"
