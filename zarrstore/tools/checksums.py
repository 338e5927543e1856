"""Checksums that archives use: DANDI's for a whole hierarchy, and the payload manifest of a BagIt bag."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import unquote

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.errors import DamagedStoreError, InvalidKeyError
from zarrstore.targets import Target, opens
from zarrstore.tools.manifest import values_of, write_lines
from zarrstore.tools.overlapping import refuse_file

__all__ = ["bagit_lines", "compare_bagit", "dandi_checksum", "write_bagit_manifest"]

#: Of the files of one directory, what is held in memory; more goes into a temporary file.
_SPOOLED = 8 << 20


@opens(store="r")
def dandi_checksum(store: Target, path: object = "") -> str:
    """Return DANDI's checksum of the hierarchy below a path.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str
        Where to begin.

    Returns
    -------
    str
        ``"MD5-COUNT--SIZE"``: the MD5 of the tree, the number of values, and their size in bytes.

    Notes
    -----
    The checksum of a directory is the MD5 of a JSON text that lists its directories and its files with names, sizes and
    checksums (of a file, the MD5 of its content). Cost: every value is read once, in batches. Memory: 128 MiB and one
    value, besides the names of the directories within one directory. Source: the checksum of the DANDI archive, as
    zarr_checksum 0.4 computes it, byte for byte.

    Examples
    --------
    >>> dandi_checksum({})
    '481a2f77ab786a0f45aafd5db0971caa-0--0'
    >>> dandi_checksum({"a/.zarray": b"{}", "a/0": b"chunk"})
    'd85d4ba5424f991d7f920a760cd0a7a5-2--7'
    """
    return str(_tree_of((key, hashlib.md5(value).hexdigest(), len(value)) for key, value in values_of(store, path)))


class _Directory:
    """One directory while its content passes by, in the order of the keys."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        self.size = 0
        self.directories: list[tuple[str, str]] = []
        self.files: IO[bytes] = SpooledTemporaryFile(_SPOOLED)

    def add_file(self, name: str, digest: str, size: int) -> None:
        # Files come in the order of their names, for that is the order of the keys within one directory.
        self.files.write((b"," if self.files.tell() else b"") + _entry(name, digest, size).encode())
        self.count += 1
        self.size += size

    def add_directory(self, other: _Directory) -> None:
        name = k.name(other.path)
        # Not in order: "a-/x" comes before "a/x", and "a" before "a-".
        self.directories.append((name, _entry(name, str(other), other.size)))
        self.count += other.count
        self.size += other.size

    def __str__(self) -> str:
        md5 = hashlib.md5(b'{"directories":[')
        md5.update(",".join(entry for _, entry in sorted(self.directories)).encode())
        md5.update(b'],"files":[')
        self.files.seek(0)
        for part in iter(lambda: self.files.read(1 << 20), b""):
            md5.update(part)
        md5.update(b"]}")
        self.files.seek(0, os.SEEK_END)
        return f"{md5.hexdigest()}-{self.count}--{self.size}"


def _entry(name: str, digest: str, size: int) -> str:
    return json.dumps({"digest": digest, "name": name, "size": size}, separators=(",", ":"))


def _tree_of(files: Iterable[tuple[str, str, int]]) -> _Directory:
    """Return the root directory of files, each a (key, digest, size), in the order of the keys."""
    stack = [_Directory("")]

    def close_down_to(path: str) -> None:
        while stack[-1].path != path and not k.is_below(path, stack[-1].path):
            child = stack.pop()
            stack[-1].add_directory(child)
            child.files.close()

    for key, digest, size in files:
        folder = k.parent(key)
        close_down_to(folder)
        for path in (*k.parents(folder), folder):
            if path != stack[-1].path and k.is_below(path, stack[-1].path):
                stack.append(_Directory(path))
        stack[-1].add_file(k.name(key), digest, size)
    close_down_to("")
    return stack[0]


# BagIt --------------------------------------------------------------------------------------------------------------


@opens(store="r")
def write_bagit_manifest(
    store: Target, file: str | os.PathLike[str], path: object = "", algorithm: str = "sha512"
) -> int:
    """Write the payload manifest of a bag whose payload is a hierarchy; return how many values it lists.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    file : path-like
        Where to write: ``manifest-ALGORITHM.txt`` of the bag. Replaced as a whole.
    path : str
        Where the payload begins. A key ``a/0`` below it is the payload file ``data/a/0``.
    algorithm : str, default 'sha512'
        Name of a digest of hashlib, as ``'sha256'`` or ``'md5'``.

    Raises
    ------
    OverlapError
        `file` lies among the values below `path`.

    Notes
    -----
    Cost: every value is read once, in batches. Memory: 128 MiB and one value. Source: RFC 8493.

    Examples
    --------
    >>> import os, tempfile
    >>> file = os.path.join(tempfile.mkdtemp(), "manifest-md5.txt")
    >>> write_bagit_manifest({"a/0": b"chunk"}, file, algorithm="md5")
    1
    >>> open(file).read()
    '5a8f4fa2aeab5431888ee8a18ce3bcea  data/a/0\\n'
    """
    refuse_file(file, "manifest", as_store(store), k.normalize_path(path))
    return write_lines(
        file,
        (
            f"{hashlib.new(algorithm, value).hexdigest()}  data/{_escaped(key)}\n"
            for key, value in values_of(store, path)
        ),
    )


def _escaped(key: str) -> str:
    # These three only, says RFC 8493.
    return key.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D")


def bagit_lines(file: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield key and digest of each line of a payload manifest. Memory: one line.

    Raises
    ------
    DamagedStoreError
        A line is no line of a manifest, or names no key below ``data/``.
    """
    with open(file, encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            digest, _, name = line.rstrip("\r\n").partition(" ")
            name = unquote(name.lstrip(" *"))
            if not name:
                raise DamagedStoreError(file, f"is no manifest of a bag: line {number} is not a digest and a name")
            try:
                yield k.replace_root(k.check_key(name), "data", ""), digest.lower()
            except (InvalidKeyError, ValueError):
                raise DamagedStoreError(
                    file, f"is no manifest of a bag: line {number} names {name!r}, which is no key below 'data/'"
                ) from None


def compare_bagit(
    store: Mapping[str, Any], file: str | os.PathLike[str], path: object = "", algorithm: str | None = None
) -> Iterator[tuple[str, str]]:
    """Yield ``(key, what)`` for every value that is not as a payload manifest says: missing, foreign, or different.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    file : path-like
        A payload manifest; its name says the algorithm (``manifest-sha256.txt``), unless `algorithm` does.
    path : str
        Where the payload begins.

    Notes
    -----
    Cost: every value is read once. Memory: the manifest, and 128 MiB.
    """
    if algorithm is None:
        algorithm = Path(file).stem.partition("-")[2] or "sha512"
    expected = dict(bagit_lines(file))
    for key, value in values_of(store, path):
        digest = expected.pop(key, None)
        if digest is None:
            yield key, "foreign"
        elif hashlib.new(algorithm, value).hexdigest() != digest:
            yield key, "different"
    for key in sorted(expected):
        yield key, "missing"
