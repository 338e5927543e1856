"""What a web server's answer proves about a value: its length, that it is whole, and which part it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Answer", "ContentRange", "Unusable", "content_length", "content_range", "is_plain", "problem_of_body"]

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
