"""What the answer of a web server proves about a value: its length, that it is whole, and which part it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from zarrstore import keys as k

__all__ = [
    "WHOLE",
    "Answer",
    "ContentRange",
    "Unusable",
    "ValueReader",
    "check_length",
    "content_length",
    "content_range",
    "etag_of",
    "is_plain",
    "md5_of",
    "problem_of_body",
    "redirect_target",
]

#: Statuses that come with a whole value.
WHOLE = frozenset({200, 203})

#: Encodings that leave the bytes of a value as they are. S3 keeps ``aws-chunked``, of the upload, as metadata.
_PLAIN = frozenset({"", "identity", "aws-chunked"})
_RANGE = re.compile(r"bytes\s+(?:(?P<first>[0-9]+)-(?P<last>[0-9]+)|\*)\s*/\s*(?P<total>[0-9]+|\*)", re.ASCII)
_MAX_DIGITS = 19


class Answer(NamedTuple):
    """An answer: its body is whole, and empty where none was wanted."""

    status: int
    reason: str
    headers: Mapping[str, Any]
    body: bytes


class ContentRange(NamedTuple):
    """Which bytes a part holds, `stop` excluded, of how many (None: not known); an answer 416 tells only the total."""

    start: int | None
    stop: int | None
    total: int | None


class Unusable(ValueError):
    """An answer that proves nothing; the message says why."""


def content_length(headers: Mapping[str, Any]) -> int | None:
    """Return the announced length in bytes, None if there is none.

    Raises
    ------
    Unusable
        It is no number, or several that differ.

    Examples
    --------
    >>> content_length({"Content-Length": "12"}), content_length({"Content-Length": "12, 12"}), content_length({})
    (12, 12, None)
    """
    text = headers.get("Content-Length")
    if text is None:
        return None
    numbers = {part.strip() for part in text.split(",")}
    number = numbers.pop()
    if numbers or not (number.isascii() and number.isdecimal()) or len(number) > _MAX_DIGITS:
        raise Unusable(f"Content-Length is {text!r}, which is no length")
    return int(number)


def is_plain(headers: Mapping[str, Any]) -> bool:
    """Tell whether the body is the value itself, not packed.

    Examples
    --------
    >>> is_plain({}), is_plain({"Content-Encoding": "Identity"}), is_plain({"Content-Encoding": "aws-chunked,gzip"})
    (True, True, False)
    """
    encodings = headers.get("Content-Encoding", "").lower().split(",")
    return all(encoding.strip() in _PLAIN for encoding in encodings)


def problem_of_body(headers: Mapping[str, Any]) -> str:
    """Say why the body, before it is read, cannot be proved to be a whole value; nothing if it can.

    Examples
    --------
    >>> problem_of_body({"Content-Length": "3"}), problem_of_body({"Transfer-Encoding": "chunked"})
    ('', '')
    >>> problem_of_body({})
    'the answer has neither a length nor chunks: where it breaks off, nobody can tell'
    """
    if not is_plain(headers):
        return f"the server packed the answer ({headers['Content-Encoding']}), though it was asked not to"
    transfer = headers.get("Transfer-Encoding", "").strip().lower()
    if transfer not in ("", "identity", "chunked"):
        return f"the answer has the transfer encoding {transfer!r}, which is not supported"
    try:
        length = content_length(headers)
    except Unusable as exc:
        return str(exc)
    if length is None and transfer != "chunked":
        return "the answer has neither a length nor chunks: where it breaks off, nobody can tell"
    return ""


def content_range(headers: Mapping[str, Any]) -> ContentRange | None:
    """Return what ``Content-Range`` says, None if it says nothing that can be used.

    Examples
    --------
    >>> content_range({"Content-Range": "bytes 2-5/10"}), content_range({"Content-Range": "bytes */10"})
    (ContentRange(start=2, stop=6, total=10), ContentRange(start=None, stop=None, total=10))
    >>> content_range({"Content-Range": "lines 1-2/3"})
    """
    found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None or any(len(text or "") > _MAX_DIGITS for text in found.groups()):
        return None
    total = None if found["total"] == "*" else int(found["total"])
    if found["first"] is None:
        return ContentRange(None, None, total)
    return ContentRange(int(found["first"]), int(found["last"]) + 1, total)


def check_length(headers: Mapping[str, Any], body: bytes) -> None:
    """Raise Unusable if the body has not the announced length."""
    length = content_length(headers)
    if length is not None and length != len(body):
        raise Unusable(f"{len(body):,} bytes came, and {length:,} were announced")


def redirect_target(url: str, key: str, answer: Answer) -> str:
    """Return where a redirect leads.

    Raises
    ------
    KeyError
        To a directory of the key's name, of which the server would send a listing.
    Unusable
        Nowhere, to another protocol, or to a page that is no value.
    """
    from urllib.parse import unquote, urljoin, urlsplit

    location = answer.headers.get("Location")
    if not location:
        raise Unusable(f"the server answered {answer.status} and does not say where to")
    target = str(urljoin(url, location))
    if urlsplit(target).scheme not in ("http", "https"):
        raise Unusable(f"the server sends us to {target!r}, which is no URL of HTTP")
    path = unquote(urlsplit(target).path)
    if path.endswith(f"/{k.name(key)}/"):
        raise KeyError(key)
    if path.endswith("/"):
        raise Unusable(f"the server sends us to {target!r}, which is no value")
    return target


class ValueReader:
    """Values, parts and sizes by HTTP's GET and HEAD, each of which is proved by its answer.

    Parameters
    ----------
    ask : callable
        ``ask(method, key, headers)`` returns the `Answer`; it raises KeyError for absence.
    refusal : callable
        ``refusal(key, answer)`` returns the error for a status that is no success.
    error : callable
        ``error(key, reason)`` returns the error for an answer that cannot be used.
    """

    #: One byte: its answer tells the size of the whole.
    _FIRST_BYTE: Mapping[str, str] = {"Range": "bytes=0-0"}

    def __init__(
        self,
        ask: Callable[[str, str, Mapping[str, str]], Answer],
        refusal: Callable[[str, Answer], Exception],
        error: Callable[[str, str], Exception],
    ) -> None:
        self._ask = ask
        self._refusal = refusal
        self._error = error

    def get(self, key: str) -> bytes:
        """Return the value; one request."""
        return self.whole(key, self._ask("GET", key, {}))

    def whole(self, key: str, answer: Answer) -> bytes:
        """Return the body of an answer that holds a whole value."""
        if answer.status >= 300:
            raise self._refusal(key, answer)
        if answer.status not in WHOLE or "Content-Range" in answer.headers:
            raise self._error(key, f"the server answered {answer.status}, which is no whole value")
        return answer.body

    def check_presence(self, key: str) -> None:
        """Raise KeyError if the key is absent; one request."""
        self._look(key)

    def nbytes(self, key: str) -> int:
        """Return the size in bytes; one request, two where HEAD tells none or 0."""
        return self.describe(key)[0]

    def describe(self, key: str) -> tuple[int, str]:
        """Return the size in bytes and the ETag, ``""`` if the server has none that proves anything; as `nbytes`."""
        size, answer, tag = self._look(key)
        if size:
            return size, tag
        # HEAD tells no size, or 0, as servers do that make their answers at each request.
        answer = answer or self._ask("GET", key, self._FIRST_BYTE)
        tag = etag_of(answer.headers)
        part = content_range(answer.headers)
        if answer.status in (206, 416) and part is not None and part.total is not None:
            return part.total, tag
        return len(self.whole(key, answer) if answer.status in WHOLE else self.get(key)), tag

    def _look(self, key: str) -> tuple[int | None, Answer | None, str]:
        """Return the size if HEAD tells it, the answer about the first byte if it tells nothing, and its ETag."""
        answer = self._ask("HEAD", key, {})
        if answer.status in WHOLE:
            tag = etag_of(answer.headers)
            with suppress(Unusable):
                return content_length(answer.headers) if is_plain(answer.headers) else None, None, tag
            return None, None, tag
        if answer.status >= 500 and answer.status != 501:
            raise self._refusal(key, answer)
        # No HEAD here: some servers refuse it, by one status or another, for what they send at once.
        answer = self._ask("GET", key, self._FIRST_BYTE)
        if answer.status not in WHOLE and answer.status not in (206, 416):
            raise self._refusal(key, answer)
        return None, answer, ""

    def get_range(self, key: str, start: int, stop: int | None) -> bytes:
        """Return the bytes from `start` to `stop` (None: the end), clipped; one request, two behind the end."""
        if stop is not None and stop <= start:
            self.check_presence(key)
            return b""
        return self._part(key, f"bytes={start}-{'' if stop is None else stop - 1}", slice(start, stop))

    def get_suffix(self, key: str, n: int) -> bytes:
        """Return the last `n` bytes, or all there are; one request."""
        if n == 0:
            self.check_presence(key)
            return b""
        return self._part(key, f"bytes=-{n}", slice(-n, None))

    def _part(self, key: str, wanted: str, cut: slice) -> bytes:
        answer = self._ask("GET", key, {"Range": wanted})
        if answer.status == 416:
            # Not every server that refuses a range tells the size, or the true one.
            start, stop, _ = cut.indices(self.nbytes(key))
            return b"" if start >= stop else self.get(key)[cut]
        if answer.status != 206:
            return self.whole(key, answer)[cut]  # the server ignores ranges
        part = content_range(answer.headers)
        if part is not None and part.start is not None and part.total is not None:
            start, stop, _ = cut.indices(part.total)
            if (part.start, part.stop) == (start, stop) and len(answer.body) == stop - start:
                return answer.body
        return self.get(key)[cut]  # it is not plainly the part that was asked for


_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


def etag_of(headers: Mapping[str, Any]) -> str:
    """Return the ETag of an answer, the empty string if there is none, or a weak one, which several values may share.

    Examples
    --------
    >>> etag_of({"ETag": '"5f-a"'}), etag_of({"ETag": 'W/"5f-a"'}), etag_of({})
    ('5f-a', '', '')
    """
    tag = next((str(value) for name, value in headers.items() if name.lower() == "etag"), "").strip()
    return tag[1:-1] if len(tag) > 2 and tag[0] == tag[-1] == '"' else ""


def md5_of(etag: str) -> str:
    """Return the digest that an ETag of S3 is, as a listing tells digests; the empty string if it is none.

    Notes
    -----
    The ETag of an object that was sent in one part is its MD5. One of several parts has a dash; one that was encrypted
    with a key of its own has the same form and is no MD5, and then equals no other.

    Examples
    --------
    >>> md5_of('"d41d8cd98f00b204e9800998ecf8427e"'), md5_of('"d41d8cd98f00b204e9800998ecf8427e-2"')
    ('md5:d41d8cd98f00b204e9800998ecf8427e', '')
    """
    found = _MD5.fullmatch(etag)
    return f"md5:{found[1]}" if found else ""
