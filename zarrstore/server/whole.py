"""The answer for a whole value of a local store as the bytes that are sent, made in one step."""

from __future__ import annotations

import io
import os

from zarrstore.base import Entry, Store
from zarrstore.server.replies import BINARY, COMMON, EVERYWHERE, SMALL, FilePart, etag

__all__ = ["whole_value"]

_HAS_PREAD = hasattr(os, "pread")
#: All headers but the two that depend on the value, as they are sent.
_FIXED = "".join(
    f"{name}: {value}\r\n"
    for name, value in [
        ("content-type", BINARY),
        *COMMON.items(),
        *((name.decode(), value.decode()) for name, value in EVERYWHERE),
    ]
)


def whole_value(store: Store, key: str, method: bytes, takes_files: bool) -> tuple[bytes, bytes | FilePart] | None:
    """Return the header block and the body of the answer to GET or HEAD; None for what takes more than one step.

    Parameters
    ----------
    store : Store
        A local one.
    key : str
        A judged key, of no document.
    method : {b'GET', b'HEAD'}
        Of the request.
    takes_files : bool
        For a value above 128 KiB that lies in a file, that file, open, is the body. Otherwise None is returned.

    Raises
    ------
    KeyError
        The key is absent.

    Notes
    -----
    Cost for a file: one open, one fstat, one read.
    """
    if method == b"HEAD":
        entry = store._entry(key)
        return (_block(entry.identity.encode(), entry.nbytes), b"") if entry.identity else None
    found = store._with_descriptor(key, _read) if _HAS_PREAD else None
    entry, body = found or _ask(store, key)
    if isinstance(body, bytes):
        return _block(entry.identity.encode() or body, len(body)), body
    if body is None:
        return None
    if not takes_files:
        body.file.close()
        return None
    return _block(entry.identity.encode(), body.nbytes), body


def _read(fd: int, entry: Entry) -> tuple[Entry, bytes | FilePart]:
    if entry.nbytes <= SMALL:
        return entry, os.pread(fd, entry.nbytes, 0)
    return entry, FilePart(io.FileIO(os.dup(fd)), 0, entry.nbytes)


def _ask(store: Store, key: str) -> tuple[Entry, bytes | FilePart | None]:
    entry = store._entry(key)
    return entry, store._get(key) if 0 <= entry.nbytes <= SMALL else None


def _block(identity: bytes, nbytes: int) -> bytes:
    return f"{_FIXED}etag: {etag(identity)}\r\ncontent-length: {nbytes}\r\n\r\n".encode("ascii")
