"""SHA-256 of every value: what a hierarchy was, to be checked against what it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from operator import itemgetter
from pathlib import Path

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY, check_memory
from zarrstore.base import Entry
from zarrstore.errors import DamagedStoreError, InvalidKeyError
from zarrstore.targets import Target, opens
from zarrstore.tools.cluster import travels
from zarrstore.tools.listing import MAX_QUESTIONS, listing_of
from zarrstore.tools.overlapping import refuse_file
from zarrstore.tools.streams import merge, sort_entries
from zarrstore.tools.sums import line_of, lines_elsewhere, values_among
from zarrstore.values import sha256

__all__ = [
    "compare_manifest",
    "digests_of",
    "manifest_lines",
    "manifest_of",
    "read_manifest",
    "values_of",
    "write_lines",
    "write_manifest",
]

_LINE = re.compile(r"\\?([0-9a-f]{64}) [ *](.+)")


@opens(store="r")
def manifest_of(
    store: Target, path: object = "", *, max_questions: int | None = MAX_QUESTIONS, memory: int = MEMORY
) -> dict[str, str]:
    """Return the SHA-256 of every value below a path, by its key relative to that path, in the order of the keys.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str
        Where to begin.
    max_questions : int or None, default 1,000,000
        Of a store that cannot be listed: the largest number of chunks that may be asked for by name. None sets no
        limit.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.

    Notes
    -----
    Cost: every value is read once, in batches. Memory: `memory` and one value, besides the result.

    Examples
    --------
    >>> manifest_of({"a/x": b"", "b": b"1"}, "a")
    {'x': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}
    """
    return dict(digests_of(store, path, max_questions=max_questions, memory=memory))


def digests_of(
    store: Target, path: object = "", *, max_questions: int | None = MAX_QUESTIONS, memory: int = MEMORY
) -> Iterator[tuple[str, str]]:
    """Yield the key of every value below a path, relative to it, with its SHA-256, in the order of the keys.

    Notes
    -----
    Parameters as `manifest_of`.
    Cost: every value is read once, in batches. Memory: `memory` and one value, at any number of keys.

    Examples
    --------
    >>> [key for key, digest in digests_of({"b": b"1", "a/x": b""})]
    ['a/x', 'b']
    """
    for key, value in values_of(store, path, max_questions=max_questions, memory=memory):
        yield key, sha256(value)


def values_of(
    store: Target, path: object = "", *, max_questions: int | None = MAX_QUESTIONS, memory: int = MEMORY
) -> Iterator[tuple[str, bytes]]:
    """Yield the key of every value below a path, relative to it, with the value, in the order of the keys.

    Notes
    -----
    Parameters as `manifest_of`.
    Cost: every value is read once, in batches. Memory: `memory` and one value, at any number of keys.

    Examples
    --------
    >>> list(values_of({"b": b"1", "a/x": b""}))
    [('a/x', b''), ('b', b'1')]
    """
    check_memory(memory)
    adapted = as_store(store)
    at = k.normalize_path(path)
    listing = listing_of(adapted, at, details=True, max_questions=max_questions)
    for key, value in values_among(adapted, listing.entries, memory):
        yield k.replace_root(key, at, ""), value


@opens(store="r")
def write_manifest(
    store: Target,
    file: str | os.PathLike[str],
    path: object = "",
    *,
    max_questions: int | None = MAX_QUESTIONS,
    memory: int = MEMORY,
    executor: Executor | None = None,
) -> int:
    """Write the SHA-256 of every value to a file that ``sha256sum --check`` reads; return how many there are.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    file : path-like
        Where to write, outside the store. Replaced as a whole.
    path : str
        Where to begin.
    max_questions : int or None, default 1,000,000
        As `manifest_of`.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.
    executor : concurrent.futures.Executor, optional
        Processes, or workers elsewhere: they list parts of the store and digest their values by themselves. Threads
        change nothing, nor does any executor for a store that cannot be listed or that only this process may use.

    Raises
    ------
    OverlapError
        `file` lies among the values below `path`.
    ClusterError
        `executor` has no worker, one that lacks a package, or workers that see another store.

    Examples
    --------
    >>> import tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "manifest")
    >>> write_manifest({"a/x": b""}, file)
    1
    >>> open(file).read()
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a/x\\n'
    """
    adapted = as_store(store)
    refuse_file(file, "manifest", adapted, k.normalize_path(path))
    if executor is not None and travels(executor, adapted):
        check_memory(memory)
        return write_lines(file, lines_elsewhere(adapted, k.normalize_path(path), executor, memory))
    digests = digests_of(adapted, path, max_questions=max_questions, memory=memory)
    return write_lines(file, (line_of(key, digest) for key, digest in digests))


def write_lines(file: str | os.PathLike[str], lines: Iterable[str]) -> int:
    """Replace a file of text by lines, as a whole and durably; return how many there are."""
    target = Path(file)
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    count = 0
    try:
        with open(beside, "w", encoding="utf-8", newline="") as output:
            for line in lines:
                output.write(line)
                count += 1
            output.flush()
            os.fsync(output.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return count


def read_manifest(file: str | os.PathLike[str]) -> dict[str, str]:
    """Return the digests by key that a manifest holds.

    Raises
    ------
    DamagedStoreError
        A line is no line of a manifest, or names what is no key.

    Examples
    --------
    >>> import tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "manifest")
    >>> write_manifest({"a": b""}, file)
    1
    >>> list(read_manifest(file))
    ['a']
    """
    return dict(manifest_lines(file))


def manifest_lines(file: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield key and digest of each line of a manifest, in the order of the lines. Memory: one line.

    Raises
    ------
    DamagedStoreError
        See `read_manifest`.
    """
    # newline="\n": a key may hold any other line separator, which the reader of text would otherwise split at.
    with open(file, encoding="utf-8", newline="\n") as lines:
        try:
            for number, line in enumerate(lines, 1):
                text = line.removesuffix("\n")
                if text:
                    yield _parsed(file, number, text)
        except UnicodeDecodeError as exc:
            raise DamagedStoreError(file, f"is no manifest: it is not UTF-8: {exc.reason}") from None


def _parsed(file: str | os.PathLike[str], number: int, line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise DamagedStoreError(file, f"is no manifest: line {number} is not a SHA-256 and a key")
    key = match[2]
    if line.startswith("\\"):
        key = key.replace("\\n", "\n").replace("\\r", "\r")
    try:
        return k.check_key(key), match[1]
    except InvalidKeyError as exc:
        raise DamagedStoreError(file, f"is no manifest: line {number}: {exc}") from None


def compare_manifest(
    store: Target,
    manifest: str | os.PathLike[str] | Mapping[str, str],
    path: object = "",
    *,
    max_questions: int | None = MAX_QUESTIONS,
    memory: int = MEMORY,
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield every key whose digest is not what a manifest says, in the order of the keys.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    manifest : path-like or mapping of str to str
        A file of `write_manifest` or ``sha256sum``, or its content.
    path : str
        Where the keys of the manifest begin.
    max_questions : int or None, default 1,000,000
        As `manifest_of`.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.

    Yields
    ------
    (str, str or None, str or None)
        Key relative to `path`, the digest that the manifest has, the digest that the value has; None where there is no
        such key.

    Notes
    -----
    A merge of two sorted streams. Cost: every value is read once. Memory: as `digests_of`.

    Examples
    --------
    >>> list(compare_manifest({"a": b""}, {"b": "0" * 64}))[1]
    ('b', '0000000000000000000000000000000000000000000000000000000000000000', None)
    """
    pairs = manifest.items() if isinstance(manifest, Mapping) else manifest_lines(manifest)
    wanted = sort_entries(Entry(key, -1, digest) for key, digest in pairs)
    digests = digests_of(store, path, max_questions=max_questions, memory=memory)
    for expected, found in merge(wanted, digests, itemgetter(0), itemgetter(0)):
        digest = expected.identity if expected is not None else None
        actual = found[1] if found is not None else None
        if digest != actual:
            yield (expected or found or ("",))[0], digest, actual
