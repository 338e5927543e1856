"""SHA-256 of every value: what a hierarchy was, to be checked against what it is."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.errors import DamagedStoreError, InvalidKeyError

__all__ = ["manifest_of", "read_manifest", "write_manifest"]

_LINE = re.compile(r"\\?([0-9a-f]{64}) [ *](.+)")


def manifest_of(store: Mapping[str, Any], path: object = "") -> dict[str, str]:
    """Return the SHA-256 of every value below a path, by its key relative to that path, in the order of the keys.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed.
    path : str
        Where to begin.

    Notes
    -----
    Cost: every value is read once, in batches. Memory: one batch.

    Examples
    --------
    >>> manifest_of({"a/x": b"", "b": b"1"}, "a")
    {'x': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    names = sorted(adapted.keys_below(at))
    found = adapted.getitems(names)
    return {k.replace_root(key, at, ""): hashlib.sha256(found[key]).hexdigest() for key in names if key in found}


def write_manifest(store: Mapping[str, Any], file: str | os.PathLike[str], path: object = "") -> int:
    """Write the SHA-256 of every value to a file that ``sha256sum --check`` reads; return how many there are.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed.
    file : path-like
        Where to write, outside the store. Replaced as a whole.
    path : str
        Where to begin.

    Examples
    --------
    >>> import tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "manifest")
    >>> write_manifest({"a/x": b""}, file)
    1
    >>> open(file).read()
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a/x\\n'
    """
    digests = manifest_of(store, path)
    target = Path(file)
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        beside.write_text("".join(_line(key, digest) for key, digest in digests.items()), encoding="utf-8")
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return len(digests)


def _line(key: str, digest: str) -> str:
    # A backslash cannot be in a key; a line break can, and is written as sha256sum writes it.
    escaped = key.replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == key else chr(92)}{digest}  {escaped}\n"


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
    digests: dict[str, str] = {}
    for number, line in enumerate(_lines(file), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DamagedStoreError(file, f"is no manifest: line {number} is not a SHA-256 and a key")
        key = match[2]
        if line.startswith("\\"):
            key = key.replace("\\n", "\n").replace("\\r", "\r")
        try:
            digests[k.check_key(key)] = match[1]
        except InvalidKeyError as exc:
            raise DamagedStoreError(file, f"is no manifest: line {number}: {exc}") from None
    return digests


def _lines(file: str | os.PathLike[str]) -> Iterable[str]:
    # Not splitlines(): a key may hold any other line separator of Unicode.
    return filter(None, Path(file).read_text(encoding="utf-8").split("\n"))
