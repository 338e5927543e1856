"""What is answered for one value: the whole, parts of it, or that it has not changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.metadata import documents
from zarrstore.server.ranges import Unsatisfiable, parse_ranges

__all__ = ["BINARY", "COMMON", "EVERYWHERE", "SMALL", "FilePart", "Reply", "etag", "is_document", "reply_with_value"]

Headers = Mapping[str, str]

#: Values up to this size are known by their content where the store tells no identity.
_HASHED = 1 << 20
#: A document below this size is not packed: it fits in one packet.
_PACKED = 1024
#: Values up to this size are sent with their headers; from a larger file the system sends itself, where it can.
SMALL = 128 << 10
#: Headers of every value, beside its type and size.
COMMON = {"accept-ranges": "bytes", "cache-control": "no-cache"}
#: The type of every value that is no document.
BINARY = "application/octet-stream"
_EXPOSED = "content-length, content-range, accept-ranges, etag, content-encoding"
#: What every answer has: any page may read it (CORS), and no browser takes it for what it is not.
EVERYWHERE = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", _EXPOSED.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class FilePart(NamedTuple):
    """Bytes of an open file, which whoever sends them closes."""

    file: io.FileIO
    start: int
    nbytes: int


class Reply(NamedTuple):
    """A status, headers by their lower-case names, and a body: bytes, or a part of a file."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    part: FilePart | None = None


def is_document(key: str) -> bool:
    """Tell whether a key is that of a JSON document."""
    return k.name(key) in documents.DOCUMENTS


def reply_with_value(
    store: Store, key: str, method: str, headers: Headers, document: bytes | None = None, *, takes_files: bool = False
) -> Reply:
    """Return the answer to GET or HEAD for a key.

    Parameters
    ----------
    store : Store
        Where the value is.
    key : str
        A judged key.
    method : {'GET', 'HEAD'}
        Of the request.
    headers : mapping
        Of the request, by lower-case names.
    document : bytes, optional
        The value, if it was made on the fly and is not in the store.
    takes_files : bool, default False
        The server can send a part of an open file: the answer holds one in place of a large body.

    Raises
    ------
    KeyError
        The key is absent.

    Notes
    -----
    Cost: one question for size and identity, and one read of what is sent. HEAD reads a value only for its ETag, if it
    is at most 1 MiB and the store tells no identity. A value in a file is opened once: ETag, size and bytes are those
    of one value, also while another writer sets the key.
    """
    with _Value(store, key, document, opens=method == "GET") as value:
        return _reply(value, key, method, headers, takes_files)


def _reply(value: _Value, key: str, method: str, headers: Headers, takes_files: bool) -> Reply:
    tag = value.tag()
    is_json = is_document(key)
    common = {"content-type": "application/json" if is_json else BINARY, **COMMON}
    if tag:
        common["etag"] = tag
    if is_json:
        common["vary"] = "accept-encoding"
    if tag and headers and _names(headers.get("if-none-match", ""), tag):
        return Reply(304, common)
    wanted = headers.get("range") if method == "GET" else None
    if wanted and headers.get("if-range", tag) == tag:
        try:
            spans = parse_ranges(wanted, value.size)
        except Unsatisfiable:
            return Reply(416, {**common, "content-range": f"bytes */{value.size}", "content-length": "0"})
        if spans is not None:
            return _partial(value, spans, common, takes_files)
    if method == "HEAD":
        return Reply(200, {**common, "content-length": str(value.size)})
    part = value.file_part(0, value.size) if takes_files and not is_json else None
    if part is not None:
        return Reply(200, {**common, "content-length": str(part.nbytes)}, part=part)
    return _whole(value.read(), key, headers, common)


class _Value:
    """One value, of which no more is read than is needed; in its file, where it has one."""

    def __init__(self, store: Store, key: str, document: bytes | None, opens: bool) -> None:
        self._store, self._key, self._data = store, key, document
        self._file: io.FileIO | None = None
        if document is not None:
            self.size, self._identity = len(document), ""
            return
        entry = store._with_descriptor(key, self._keep) if opens and hasattr(os, "pread") else None
        entry = entry or store._entry(key)
        self._identity = entry.identity
        self.size = entry.nbytes if entry.nbytes >= 0 else len(self.read())

    def __enter__(self) -> _Value:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def _keep(self, fd: int, entry: Entry) -> Entry:
        self._file = io.FileIO(os.dup(fd))
        return entry

    def read(self) -> bytes:
        if self._data is None:
            self._data = self._store[self._key] if self._file is None else _read(self._file, 0, self.size)
            self.size = len(self._data)
        return self._data

    def parts(self, spans: list[tuple[int, int]]) -> list[bytes]:
        if self._data is not None:
            return [self._data[start:stop] for start, stop in spans]
        if self._file is not None:
            return [_read(self._file, start, stop) for start, stop in spans]
        return self._store.getranges(self._key, spans)

    def file_part(self, start: int, stop: int) -> FilePart | None:
        """Return a part that is worth sending from its file, which then belongs to who asks; None if it is not."""
        if self._file is None or stop - start <= SMALL:
            return None
        part, self._file = FilePart(self._file, start, stop - start), None
        return part

    def tag(self) -> str:
        if self._identity:
            return etag(self._identity.encode())
        return "" if self.size > _HASHED else etag(self.read())


def etag(identity: bytes) -> str:
    """Return the ETag of what identifies a value: what its store tells, or all of its bytes."""
    return f'"{hashlib.blake2b(identity, digest_size=12).hexdigest()}"'


def _read(file: io.FileIO, start: int, stop: int) -> bytes:
    parts = []
    while start < stop and (part := os.pread(file.fileno(), min(stop - start, 1 << 30), start)):
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _names(header: str, tag: str) -> bool:
    """Tell whether If-None-Match names a tag; the comparison is the weak one."""
    tags = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in tags or tag in tags


def _whole(data: bytes, key: str, headers: Headers, common: dict[str, str]) -> Reply:
    if is_document(key) and len(data) > _PACKED and _accepts_gzip(headers.get("accept-encoding", "")):
        data = gzip.compress(data, 6, mtime=0)
        common["content-encoding"] = "gzip"
        if "etag" in common:
            common["etag"] = f"W/{common['etag']}"
        del common["accept-ranges"]
    return Reply(200, {**common, "content-length": str(len(data))}, data)


def _accepts_gzip(header: str) -> bool:
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _partial(value: _Value, spans: list[tuple[int, int]], common: dict[str, str], takes_files: bool) -> Reply:
    part = value.file_part(*spans[0]) if takes_files and len(spans) == 1 else None
    if part is not None:
        line = f"bytes {part.start}-{part.start + part.nbytes - 1}/{value.size}"
        return Reply(206, {**common, "content-range": line, "content-length": str(part.nbytes)}, part=part)
    parts = value.parts(spans)
    # A value that another writer cut meanwhile: what is said is what is sent.
    described = [
        f"bytes {start}-{start + len(part) - 1}/{value.size}" for (start, _), part in zip(spans, parts, strict=True)
    ]
    if len(parts) == 1:
        body = parts[0]
        return Reply(206, {**common, "content-range": described[0], "content-length": str(len(body))}, body)
    boundary = secrets.token_hex(12)
    kind = common["content-type"]
    heads = (f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {line}\r\n\r\n" for line in described)
    body = b"".join(head.encode() + part + b"\r\n" for head, part in zip(heads, parts, strict=True))
    body += f"--{boundary}--\r\n".encode()
    kind = f"multipart/byteranges; boundary={boundary}"
    return Reply(206, {**common, "content-type": kind, "content-length": str(len(body))}, body)
