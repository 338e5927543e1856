"""What is answered for one value: the whole, parts of it, or that it has not changed."""

from __future__ import annotations

import gzip
import hashlib
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.metadata import documents
from zarrstore.server.ranges import Unsatisfiable, parse_ranges

__all__ = ["Reply", "reply_with_value"]

Headers = Mapping[str, str]

#: Values up to this size are known by their content where the store tells no identity.
_HASHED = 1 << 20
#: A document below this size is not packed: it fits in one packet.
_PACKED = 1024
_ANY = "application/octet-stream"


class Reply(NamedTuple):
    """A status, headers by their lower-case names, and a body."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


def is_document(key: str) -> bool:
    """Tell whether a key is that of a JSON document."""
    return k.name(key) in documents.DOCUMENTS


def reply_with_value(store: Store, key: str, method: str, headers: Headers, document: bytes | None = None) -> Reply:
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

    Raises
    ------
    KeyError
        The key is absent.

    Notes
    -----
    Cost: one question for size and identity, and one read of what is sent. HEAD reads a value only for its ETag, if it
    is at most 1 MiB and the store tells no identity.
    """
    value = _Value(store, key, document)
    tag = value.tag()
    is_json = is_document(key)
    kind = "application/json" if is_json else _ANY
    common = {"content-type": kind, "accept-ranges": "bytes", "cache-control": "no-cache"}
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
            return _partial(value, spans, common)
    if method == "HEAD":
        return Reply(200, {**common, "content-length": str(value.size)})
    return _whole(value.read(), key, headers, common)


class _Value:
    """One value, of which no more is read than is needed."""

    def __init__(self, store: Store, key: str, document: bytes | None) -> None:
        self._store, self._key, self._data = store, key, document
        if document is not None:
            self.size, self._identity = len(document), ""
            return
        entry = store._entry(key)
        self._identity = entry.identity
        self.size = entry.nbytes if entry.nbytes >= 0 else len(self.read())

    def read(self) -> bytes:
        if self._data is None:
            self._data = self._store[self._key]
            self.size = len(self._data)
        return self._data

    def parts(self, spans: list[tuple[int, int]]) -> list[bytes]:
        if self._data is None:
            return self._store.getranges(self._key, spans)
        return [self._data[start:stop] for start, stop in spans]

    def tag(self) -> str:
        if self._identity:
            return f'"{hashlib.blake2b(self._identity.encode(), digest_size=12).hexdigest()}"'
        if self.size > _HASHED:
            return ""
        return f'"{hashlib.blake2b(self.read(), digest_size=12).hexdigest()}"'


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


def _partial(value: _Value, spans: list[tuple[int, int]], common: dict[str, str]) -> Reply:
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
