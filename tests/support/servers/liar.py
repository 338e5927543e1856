"""A web server that misbehaves in the way that the first segment of the path names.

``GET /cut_body/root/key`` is answered with half of `VALUE`, ``GET /honest/root/key`` as it should be. Any key that
begins with ``absent`` is answered 404 by each of them. `LIES` says what each does; what it does not touch (another
method, a request without Range) is answered honestly.
"""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

VALUE = random.Random(7).randbytes(1000)

_OK = "HTTP/1.1 200 OK"
_PART = "HTTP/1.1 206 Partial Content"


class Request(NamedTuple):
    """What was asked: `span` is the range within VALUE, None without one."""

    method: str
    path: str
    span: tuple[int, int] | None
    headers: dict[str, str]


Reply = bytes | Iterator[bytes]
Lie = Callable[[Request], Reply | None]
LIES: dict[str, Lie] = {}
#: Those that take as long as the client lets them.
SLOW = frozenset({"drips_headers", "drips_body", "drips_for_ever", "never_answers", "stops_in_the_body"})


def lie(function: Lie) -> Lie:
    """Add a misbehaviour under the function's name; None leaves a request to the honest server."""
    LIES[function.__name__] = function
    return function


def message(start: str, *headers: str, body: bytes = b"") -> bytes:
    """Return an answer as it goes over the line."""
    return (
        "\r\n".join([start, 'ETag: "x"', "Last-Modified: Sat, 28 Nov 2026 12:00:00 GMT", *headers, "", ""]).encode()
        + body
    )


def honest(request: Request) -> bytes:
    """Answer as one should."""
    if request.span is None:
        body, start, more = VALUE, _OK, []
    else:
        first, stop = request.span
        if first >= len(VALUE):
            return message(
                "HTTP/1.1 416 Range Not Satisfiable", f"Content-Range: bytes */{len(VALUE)}", "Content-Length: 0"
            )
        body, start, more = VALUE[first:stop], _PART, [f"Content-Range: bytes {first}-{stop - 1}/{len(VALUE)}"]
    reply = message(start, f"Content-Length: {len(body)}", "Accept-Ranges: bytes", *more)
    return reply if request.method == "HEAD" else reply + body


def _body(request: Request) -> tuple[str, list[str], bytes]:
    """Return status line, headers but for the length, and body of the honest answer."""
    if request.span is None:
        return _OK, [], VALUE
    first, stop = request.span
    return _PART, [f"Content-Range: bytes {first}-{stop - 1}/{len(VALUE)}"], VALUE[first:stop]


def _get(reply: Callable[[str, list[str], bytes], Reply]) -> Lie:
    """Return a lie about the answers to GET, made from status line, headers and body."""

    def answer(request: Request) -> Reply | None:
        return None if request.method == "HEAD" else reply(*_body(request))

    return answer


def chunked(*parts: bytes) -> bytes:
    """Return parts as chunks, without the last chunk."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


# Answers that break off.
LIES["closes_at_once"] = lambda request: b""
LIES["cuts_the_status_line"] = lambda request: b"HTTP/1.1 20"
LIES["cuts_the_headers"] = lambda request: message(_OK)[:-12]
LIES["cuts_before_the_empty_line"] = lambda request: message(_OK)[:-2]
LIES["cuts_within_the_length"] = lambda request: message(_OK, "Content-Length: 1000")[:-7]
LIES["cuts_the_body"] = _get(
    lambda start, more, body: message(start, *more, f"Content-Length: {len(body)}", body=body[: len(body) // 2])
)
LIES["sends_no_body"] = _get(lambda start, more, body: message(start, *more, f"Content-Length: {len(body)}"))
LIES["cuts_a_body_without_length"] = _get(
    lambda start, more, body: message(start, *more, "Connection: close", body=body[: len(body) // 2])
)
LIES["sends_nothing_without_length"] = _get(lambda start, more, body: message(start, *more, "Connection: close"))
LIES["cuts_a_chunk"] = _get(
    lambda start, more, body: message(start, *more, "Transfer-Encoding: chunked", body=chunked(body)[: len(body) // 2])
)
LIES["sends_no_last_chunk"] = _get(
    lambda start, more, body: message(start, *more, "Transfer-Encoding: chunked", body=chunked(body[: len(body) // 2]))
)
LIES["cuts_the_size_of_a_padded_chunk"] = _get(
    lambda start, more, body: message(
        start, *more, "Transfer-Encoding: chunked", body=chunked(body[: len(body) // 2]) + b"0000"
    )
)
# Lengths.
LIES["announces_too_much"] = _get(
    lambda start, more, body: message(start, *more, f"Content-Length: {len(body) + 9}", body=body)
)
LIES["announces_a_negative_length"] = lambda request: message(_body(request)[0], "Content-Length: -5", body=VALUE)
LIES["announces_a_word"] = lambda request: message(_body(request)[0], "Content-Length: abc", body=VALUE)
LIES["announces_two_lengths"] = _get(
    lambda start, more, body: message(start, *more, "Content-Length: 5", f"Content-Length: {len(body)}", body=body)
)
LIES["contradicts_its_chunks"] = _get(
    lambda start, more, body: message(
        start,
        *more,
        f"Content-Length: {len(body) // 2}",
        "Transfer-Encoding: chunked",
        body=chunked(body) + b"0\r\n\r\n",
    )
)
LIES["announces_the_length_twice"] = _get(
    lambda start, more, body: message(start, *more, *[f"Content-Length: {len(body)}"] * 2, body=body)
)


# Ranges.
@lie
def ignores_ranges(request: Request) -> Reply | None:
    return honest(request._replace(span=None))


def _ranged(reply: Callable[[int, int], Reply]) -> Lie:
    """Return a lie about the answers to requests for a range."""

    def answer(request: Request) -> Reply | None:
        return None if request.span is None or request.method == "HEAD" else reply(*request.span)

    return answer


def _part(first: int, stop: int, body: bytes, *more: str) -> bytes:
    where = f"Content-Range: bytes {first}-{stop - 1}/{len(VALUE)}"
    return message(_PART, where, *more, f"Content-Length: {len(body)}", body=body)


LIES["sends_another_range"] = _ranged(lambda first, stop: _part(first + 1, stop + 1, VALUE[first + 1 : stop + 1]))
LIES["sends_a_shorter_range"] = _ranged(lambda first, stop: _part(first, stop - 1, VALUE[first : stop - 1]))
LIES["sends_less_than_the_range_it_names"] = _ranged(lambda first, stop: _part(first, stop, VALUE[first : stop - 1]))
LIES["does_not_say_which_range"] = _ranged(
    lambda first, stop: message(_PART, f"Content-Length: {stop - first - 1}", body=VALUE[first : stop - 1])
)
LIES["names_no_total"] = _ranged(
    lambda first, stop: message(
        _PART,
        f"Content-Range: bytes {first}-{stop - 2}/*",
        f"Content-Length: {stop - first - 1}",
        body=VALUE[first : stop - 1],
    )
)
LIES["refuses_a_range_within"] = _ranged(
    lambda first, stop: message("HTTP/1.1 416 Range Not Satisfiable", "Content-Length: 0")
)
LIES["says_the_value_ends_before"] = _ranged(
    lambda first, stop: message("HTTP/1.1 416 Range Not Satisfiable", "Content-Range: bytes */1", "Content-Length: 0")
)
LIES["sends_multipart"] = _ranged(
    lambda first, stop: message(
        _PART, "Content-Type: multipart/byteranges; boundary=x", "Content-Length: 11", body=b"--x\r\n\r\nab--"
    )
)
LIES["calls_a_part_a_whole"] = _get(
    lambda start, more, body: message(_OK, "Content-Range: bytes 0-9/1000", "Content-Length: 10", body=VALUE[:10])
)
LIES["sends_a_part_unasked"] = lambda request: (
    None if request.span or request.method == "HEAD" else _part(0, 500, VALUE[:500])
)


# Packed answers.
LIES["packs_the_answer"] = lambda request: (
    message(_body(request)[0], "Content-Encoding: gzip", f"Content-Length: {len(_PACKED)}")
    + (b"" if request.method == "HEAD" else _PACKED)
)
_PACKED = gzip.compress(VALUE)
LIES["packs_the_transfer"] = _get(
    lambda start, more, body: message(
        start, *more, "Transfer-Encoding: gzip, chunked", body=chunked(_PACKED) + b"0\r\n\r\n"
    )
)
LIES["says_identity_aloud"] = _get(
    lambda start, more, body: message(
        start, *more, "Content-Encoding: Identity", f"Content-Length: {len(body)}", body=body
    )
)
LIES["keeps_the_encoding_of_the_upload"] = _get(
    lambda start, more, body: message(
        start, *more, "Content-Encoding: aws-chunked", f"Content-Length: {len(body)}", body=body
    )
)


# Redirects.
@lie
def redirects_in_a_circle(request: Request) -> Reply | None:
    return message("HTTP/1.1 302 Found", f"Location: {request.path}", "Content-Length: 0")


LIES["redirects_nowhere"] = lambda request: message("HTTP/1.1 302 Found", "Content-Length: 0")
LIES["redirects_to_a_login"] = lambda request: message("HTTP/1.1 302 Found", "Location: /login/", "Content-Length: 0")
LIES["redirects_to_a_file"] = lambda request: message(
    "HTTP/1.1 302 Found", "Location: file:///etc/passwd", "Content-Length: 0"
)

# Statuses, and what is no answer.
LIES["says_accepted"] = lambda request: message("HTTP/1.1 202 Accepted", "Content-Length: 0")
LIES["says_no_content"] = lambda request: message("HTTP/1.1 204 No Content")
LIES["says_not_modified"] = lambda request: message("HTTP/1.1 304 Not Modified")
LIES["sends_an_error_page"] = lambda request: message("HTTP/1.1 503 Busy", "Content-Length: 4", body=b"busy")
LIES["forbids"] = lambda request: message("HTTP/1.1 403 Forbidden", "Content-Length: 0")
LIES["speaks_garbage"] = lambda request: b"\x16\x03\x01\x02" + VALUE
LIES["sends_headers_without_end"] = lambda request: _OK.encode() + b"\r\n" + b"X-Y: z\r\n" * 100_000
LIES["hints_before_it_answers"] = lambda request: b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + honest(request)

# HEAD.
LIES["knows_no_head"] = lambda request: (
    message("HTTP/1.1 400 Bad Request", "Content-Length: 0") if request.method == "HEAD" else None
)
LIES["tells_no_length_to_head"] = lambda request: message(_OK) if request.method == "HEAD" else None
LIES["tells_length_0_to_head"] = lambda request: message(_OK, "Content-Length: 0") if request.method == "HEAD" else None
LIES["tells_the_packed_length_to_head"] = lambda request: (
    message(_OK, "Content-Encoding: gzip", "Content-Length: 77") if request.method == "HEAD" else None
)


# Slowness: what ends when the client goes away.
def _drip(data: bytes, pause: float) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]
        time.sleep(pause)


LIES["drips_headers"] = lambda request: _drip(b"HTTP/1.1 200 OK\r\n" + b"X-Padding: " + b"x" * 10_000, 0.1)
LIES["never_answers"] = lambda request: _drip(b"", 0)
LIES["drips_body"] = _get(
    lambda start, more, body: _after(message(start, *more, f"Content-Length: {len(body)}"), _drip(body, 0.1))
)
LIES["drips_for_ever"] = _get(
    lambda start, more, body: _after(
        message(start, *more, "Transfer-Encoding: chunked"), _drip(chunked(*[b"x"] * 10_000), 0.05)
    )
)
LIES["stops_in_the_body"] = _get(
    lambda start, more, body: _after(
        message(start, *more, f"Content-Length: {len(body)}", body=body[:9]), _drip(b"", 0)
    )
)


def _after(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


# The server.


class Liar:
    """A running liar: `url` without a slash at its end, `requests` as they came."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[Request] = []
        self._open = True
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and let slow answers end."""
        self._open = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        while self._open:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := _read(lines)) is not None:
                self.requests.append(request)
                if not self._answer(connection, request):
                    return

    def _answer(self, connection: socket.socket, request: Request) -> bool:
        """Send the answer, and tell whether the connection goes on."""
        _, kind, *rest = request.path.split("/")
        if rest and rest[-1].startswith("absent"):
            connection.sendall(message("HTTP/1.1 404 Not Found", "Content-Length: 0"))
            return True
        reply = LIES[kind](request) if kind in LIES else None
        if reply is None:
            connection.sendall(honest(request))
            return True
        if isinstance(reply, bytes):
            connection.sendall(reply)
            return False
        for piece in reply:
            if not self._open:
                return False
            connection.sendall(piece)
        if kind in SLOW:
            connection.settimeout(10)
            connection.recv(1)  # until the client gives up
        return False


def _read(lines: object) -> Request | None:
    start = lines.readline().decode("latin-1").split()  # type: ignore[attr-defined]
    if len(start) < 2:
        return None
    headers = {}
    while line := lines.readline().strip():  # type: ignore[attr-defined]
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    found = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", headers.get("range", ""))
    span = None
    if found and (found[1] or found[2]):
        if found[1]:
            span = int(found[1]), min(len(VALUE), int(found[2]) + 1 if found[2] else len(VALUE))
        else:
            span = max(0, len(VALUE) - int(found[2])), len(VALUE)
    return Request(start[0], start[1], span, headers)


@contextlib.contextmanager
def liar() -> Iterator[Liar]:
    """Run one."""
    server = Liar()
    try:
        yield server
    finally:
        server.close()
