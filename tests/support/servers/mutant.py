"""A web server whose replies are mutants: status line, headers, chunk sizes and body changed byte by byte.

One site in three dialects: plain HTTP with the listing of ``zarrstore serve`` (``/web/...``), S3 (``/s3/root/...``) and
WebDAV (``/dav/...``). What a reply becomes depends on the mutant's number and on the request, not on their order.
"""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import zarrstore
from tests.support.mutants import NAMES, as_json, flipped
from tests.support.servers.liar import VALUE, Liar, Request, message
from zarrstore.metadata import v2

#: More requests than any read of so small a site needs: who asks more goes in a circle.
MOST = 60
_CUT = "cut"


def _site() -> dict[str, bytes]:
    meta = v2.build_array(shape=(4, 6), chunks=(2, 3), dtype="<f4", compressor=None, fill_value=0)
    items = {".zgroup": v2.encode_group(), "a/.zarray": v2.encode_array(meta), "a/.zattrs": b'{"n": [1, null]}'}
    inline: dict[str, bytes] = {}
    zarrstore.migrate_2to3(dict(items), inline)
    zarrstore.consolidate_metadata(items)
    zarrstore.consolidate_metadata(inline)
    return items | {"v": VALUE, "b/0.0": b"x" * 30, "e": b""} | {f"inline/{key}": inline[key] for key in inline}


SITE = _site()

Change = Callable[[random.Random, bytes, bytes], tuple[bytes, bytes]]

_NUMBERS = (
    *(b"0", b"1", b"-1", b"-0", b"5", b"999", b"1001", b"2000", b"65536", b"4294967295", b"4294967296", b"10000000000"),
    *(
        b"1000000000000000",
        b"999999999999999999",
        b"9223372036854775807",
        b"9223372036854775808",
        b"9" * 30,
        b"9" * 5000,
    ),
    *(b"abc", b"", b" ", b"+5", b"1_0", b"0x10", b"1e3", b"5 5", b"5,5", b"5, 6", b"\xd9\xa3", b"1.0", b"NaN", b"*"),
)
_STATUSES = (
    *(b"100", b"101", b"103", b"199", b"200", b"201", b"202", b"203", b"204", b"205", b"206", b"207", b"226", b"299"),
    *(b"300", b"301", b"302", b"303", b"304", b"305", b"307", b"308", b"400", b"401", b"403", b"404", b"405", b"407"),
    *(b"409", b"410", b"412", b"416", b"418", b"429", b"451", b"500", b"501", b"503", b"505", b"599", b"600", b"999"),
    *(b"0", b"000", b"-1", b"99", b"1000", b"20", b"2OO", b"9" * 40, b""),
)
_HEADERS = (
    *(
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: identity",
        b"Content-Encoding: gzip",
    ),
    *(b"Content-Encoding: zstd", b"Content-Length: 1000", b"Content-Length: 7", b"Content-Range: bytes 0-999/1000"),
    *(b"Content-Range: bytes */1000", b"Content-Range: bytes 5-4/3", b"Location: file:///etc/passwd", b"Location: //"),
    *(
        b"Location: /web/v/",
        b"Location: http://[::1",
        b"Location: ../../..",
        b"Set-Cookie: x=y",
        b": nothing",
        b" folded",
    ),
    *(b"no colon", b"X: " + b"x" * 70_000, b"\0: \0", b"\xff\xfe: \xff", b"Date: nonsense", b"Last-Modified: nonsense"),
    *(b"Last-Modified: Sat, 99 Foo 99999 99:99:99 GMT", b"ETag: x", b'ETag: "', b"Content-Type: multipart/byteranges"),
    *(b"Content-Type: text/html; charset=nonsense", b"Connection: upgrade", b"Retry-After: 1e99", b"Retry-After: -5"),
)
_SIZES = (b"0", b"1", b"3e8", b"3e9", b"7fffffff", b"ffffffff", b"7fffffffffffffff", b"ffffffffffffffff", b"f" * 60)
_SIZES = (*_SIZES, b"-5", b"-1", b"+3e8", b"0x3e8", b" 3e8", b"3_e8", b"3e8;x=y", b"", b"g", b"\xd9\xa3", b"2540be400")
_TEXTS = (*NAMES, "true", "false", "True", "0", "-5", "1e5", "9" * 40, "nonsense", "1970-13-99T99:99:99Z", "x" * 3000)


def _bytes_of_the_head(rng: random.Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    return flipped(head, rng), body


def _number(rng: random.Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    places = list(re.finditer(rb"(?<![\w-])[0-9]+", head))
    at = rng.choice(places)
    return head[: at.start()] + rng.choice(_NUMBERS) + head[at.end() :], body


def _status(rng: random.Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    line = rng.choice((b"HTTP/1.1 %s OK", b"HTTP/1.1 %s", b"HTTP/1.0 %s OK", b"HTTP/2 %s x")) % rng.choice(_STATUSES)
    return line + b"\r\n" + head.partition(b"\r\n")[2], body


def _header(rng: random.Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    start, *headers = head[:-4].split(b"\r\n")
    way = rng.randrange(4)
    at = rng.randrange(len(headers))
    if way == 0:
        del headers[at]
    elif way == 1:
        headers.insert(at, headers[rng.randrange(len(headers))])
    elif way == 2:
        headers.insert(at, rng.choice(_HEADERS))
    else:
        headers[at] = rng.choice(_HEADERS)
    return b"\r\n".join([start, *headers, b"", b""]), body


def _chunk_size(rng: random.Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    head = re.sub(rb"Content-Length: [0-9]+", b"Transfer-Encoding: chunked", head)
    middle = rng.randrange(len(body) + 1)
    sizes = [len(part) for part in (body[:middle], body[middle:]) if part]
    lines = [b"%x" % size for size in sizes] + [b"0"]
    lines[rng.randrange(len(lines))] = rng.choice(_SIZES)
    parts = [body[:middle], body[middle:]] if len(sizes) == 2 else [body] * len(sizes)
    out = b"".join(line + b"\r\n" + part + b"\r\n" for line, part in zip(lines, parts, strict=False))
    return head, out + lines[-1] + rng.choice((b"\r\n\r\n", b"\r\n", b"", b"\r\nX: y\r\n\r\n", b"\n\n"))


def _is_text(body: bytes) -> bool:
    return body[:1] in (b"<", b"{")


def _body(rng: random.Random, head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Change a document or a listing; the bytes of a value prove nothing, so they stay."""
    if not _is_text(body):
        return _bytes_of_the_head(rng, head, body)
    if body[:1] == b"<":
        body = _bent_xml(rng, body)
    else:
        lines = body.splitlines()
        if len(lines) > 1 and json_of(lines[0]):
            at = rng.randrange(len(lines))
            lines[at] = as_json(json.loads(lines[at]), rng)
            body = b"\n".join(lines)
        else:
            body = as_json(json.loads(body), rng)
    return re.sub(rb"Content-Length: [0-9]+", b"Content-Length: %d" % len(body), head), body


def json_of(line: bytes) -> bool:
    """Tell whether a line is JSON by itself, as those of a listing are."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


_BOMB = b'<!DOCTYPE x [<!ENTITY a "%s">%s]>' % (
    b"x" * 1000,
    b"".join(b'<!ENTITY %c "%s">' % (97 + n, b"&%c;" % (96 + n) * 10) for n in range(1, 12)),
)


def _bent_xml(rng: random.Random, body: bytes) -> bytes:
    way = rng.randrange(8)
    if way <= 2:
        places = list(re.finditer(rb">([^<>]+)<", body))
        at = rng.choice(places)
        text = escape(rng.choice(_TEXTS)).encode("utf-8", "surrogateescape")
        return body[: at.start(1)] + text + body[at.end(1) :]
    if way <= 4:
        places = list(re.finditer(rb"<([\w:]+)>[^<>]*</\1>", body))
        at = rng.choice(places)
        return body[: at.start()] + at[0] * rng.choice((0, 0, 2, 300)) + body[at.end() :]
    if way == 5:
        place = rng.choice((b"Contents", b"CommonPrefixes", b"D:response", b"D:propstat", b"D:prop"))
        return re.sub(rb"<(/?)" + place + rb">", rb"<\1" + rng.choice((b"x", b"Key", b"D:href")) + b">", body)
    if way == 6:
        declaration, _, rest = body.partition(b"?>")
        bomb = _BOMB if rng.random() < 0.5 else b'<!DOCTYPE x [<!ENTITY l SYSTEM "file:///etc/passwd">]>'
        return declaration + b"?>" + bomb + rest.replace(b">root/v<", b">&l;<").replace(b">/dav/v<", b">&l;<")
    return rng.choice((flipped(body, rng), b"<a>" * 50_000, body.replace(b"</", b"<"), b"", body + body))


CHANGES: dict[str, Change] = {
    "bytes of the head": _bytes_of_the_head,
    "number": _number,
    "status": _status,
    "header": _header,
    "chunk size": _chunk_size,
    "body": _body,
    _CUT: lambda rng, head, body: (head, body),
}


class Mutants(Liar):
    """A server of mutants: `play` says which, `raw` has what was sent since, `change` what it is changed in."""

    def __init__(self) -> None:
        self.play("", 0)
        super().__init__()

    def play(self, family: str, number: int) -> None:
        """Let all replies from now on be those of a mutant; number 0 is honest."""
        rng = random.Random(f"{family} {number}")
        self._seed = f"{family} {number}" if number else ""
        self.change = rng.choice([*CHANGES, "body", "number"])
        self._chosen = rng.choice(("all", "all", "ranged", "plain", "HEAD"))
        self.raw: list[bytes] = []

    def _answer(self, connection: socket.socket, request: Request) -> bool:
        head, body = honest(request)
        if len(self.raw) > MOST:
            head, body = message("HTTP/1.1 410 Gone", "Content-Length: 0"), b""
        elif self._seed and self._chosen in ("all", _kind(request)):
            head, body = self._mutated(request, head, body)
        reply = head if request.method == "HEAD" else head + body
        self.raw.append(reply)
        with suppress(OSError):
            connection.sendall(reply)
        return not self._seed

    def _mutated(self, request: Request, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        rng = random.Random(f"{self._seed} {request.method} {request.path} {request.span}")
        if self.change == _CUT:
            whole = head + body
            at = rng.randrange(len(whole)) if rng.random() < 0.3 or not body else len(head) + rng.randrange(len(body))
            return whole[:at], b""
        return CHANGES[self.change](rng, head, body)


def _kind(request: Request) -> str:
    return "HEAD" if request.method == "HEAD" else "ranged" if request.span else "plain"


def honest(request: Request) -> tuple[bytes, bytes]:
    """Return head and body of the true answer."""
    url = urlsplit(request.path)
    dialect, _, key = unquote(url.path).lstrip("/").partition("/")
    if dialect == "s3" and "list-type" in parse_qs(url.query):
        return _reply("200 OK", _s3_page(parse_qs(url.query)), "Content-Type: application/xml")
    if dialect == "s3":
        key = key.removeprefix("root/")
    elif request.method == "PROPFIND":
        return _propfind(key.rstrip("/"), request.headers.get("depth", "1"))
    elif url.query == "list":
        return _reply("200 OK", _listing(key), "Content-Type: application/x-ndjson")
    if key not in SITE:
        return _reply("404 Not Found", _ABSENT if dialect == "s3" else b"")
    value = SITE[key]
    if request.span is None:
        return _reply("200 OK", value, "Accept-Ranges: bytes")
    # The server reads the spans of all requests as those of a value of 1,000 bytes.
    asked = request.headers["range"].removeprefix("bytes=").partition("-")
    first = int(asked[0]) if asked[0] else max(0, len(value) - int(asked[2]))
    stop = min(len(value), int(asked[2]) + 1) if asked[0] and asked[2] else len(value)
    if first >= len(value):
        return _reply("416 Range Not Satisfiable", b"", f"Content-Range: bytes */{len(value)}")
    return _reply("206 Partial Content", value[first:stop], f"Content-Range: bytes {first}-{stop - 1}/{len(value)}")


def _reply(status: str, body: bytes, *headers: str) -> tuple[bytes, bytes]:
    return message(f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers), body


_ABSENT = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>x</Message><Resource>v</Resource></Error>'


def _listing(path: str) -> bytes:
    rows = [[key, len(value)] for key, value in SITE.items() if key.startswith(path)]
    lines = [{"zarrstore": "list"}, *rows, {"keys": len(rows)}]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _s3_page(query: dict[str, list[str]]) -> bytes:
    """Return a page of a listing, of at most three names."""
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    token = query.get("continuation-token", query.get("start-after", [""]))[0]
    names: dict[str, int] = {}
    for key in sorted(SITE):
        name = f"root/{key}"
        if name.startswith(prefix):
            end = name.find(delimiter, len(prefix)) if delimiter else -1
            names[name if end < 0 else name[: end + 1]] = len(SITE[key]) if end < 0 else -1
    left = [name for name in names if name > token]
    page = left[:3]
    parts = [f"<Name>s3</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>3</MaxKeys>"]
    parts.append(f"<IsTruncated>{'true' if len(left) > 3 else 'false'}</IsTruncated>")
    if len(left) > 3:
        parts.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
    for name in page:
        if names[name] < 0:
            parts.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
        else:
            parts.append(
                f"<Contents><Key>{escape(name)}</Key><LastModified>2026-11-28T12:00:00.000Z</LastModified>"
                f"<ETag>&quot;x&quot;</ETag><Size>{names[name]}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
    space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return f'<?xml version="1.0"?>\n<ListBucketResult {space}>{"".join(parts)}</ListBucketResult>'.encode()


def _propfind(path: str, depth: str) -> tuple[bytes, bytes]:
    lead = f"{path}/" if path else ""
    below = sorted(key for key in SITE if key.startswith(lead))
    if path not in SITE and not below:
        return _reply("404 Not Found", b"")
    children = sorted({lead + key[len(lead) :].partition("/")[0] for key in below}) if depth != "0" else []
    parts = [_described(name) for name in [path, *children]]
    body = f'<?xml version="1.0"?>\n<D:multistatus xmlns:D="DAV:">{"".join(parts)}</D:multistatus>'.encode()
    return _reply("207 Multi-Status", body, "Content-Type: application/xml")


def _described(name: str) -> str:
    is_value = name in SITE
    kind = "" if is_value else "<D:collection/>"
    size = f"<D:getcontentlength>{len(SITE[name])}</D:getcontentlength>" if is_value else ""
    return (
        f"<D:response><D:href>/dav/{escape(name)}{'' if is_value else '/'}</D:href><D:propstat><D:prop>"
        f"<D:resourcetype>{kind}</D:resourcetype>{size}<D:getetag>&quot;x&quot;</D:getetag>"
        "<D:getlastmodified>Sat, 28 Nov 2026 12:00:00 GMT</D:getlastmodified></D:prop>"
        "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
    )


def wholes(raw: list[bytes]) -> Iterator[bytes]:
    """Yield each body that a reply, as it was sent, frames as a whole: by a length or by chunks to the last one."""
    for reply in raw:
        for end in list(re.finditer(rb"\n\r?\n", reply[:90_000]))[:3]:
            head, body = reply[: end.end()], reply[end.end() :]
            for number in re.findall(rb"content-length\s*:[\s\0]*\+?([0-9]+)", head, re.IGNORECASE):
                if len(number) < 10 and int(number) <= len(body):
                    yield body[: int(number)]
            if (decoded := _unchunked(body)) is not None:
                yield decoded


def sizes(raw: list[bytes]) -> set[int]:
    """Return the sizes of the value that the heads of replies tell, as far as they are small."""
    heads = b"".join(re.split(rb"\n\r?\n", reply[:90_000], maxsplit=1)[0] + b"\n" for reply in raw)
    numbers = re.findall(rb"content-(?:length|range)\s*:[^\n]*?([0-9]+)\s*\n", heads, re.IGNORECASE)
    return {int(number) for number in numbers if len(number) < 6}


def _unchunked(body: bytes) -> bytes | None:
    out = b""
    while True:
        line, newline, rest = body.partition(b"\n")
        text = line.partition(b";")[0].strip()
        if not newline or not re.fullmatch(rb"(0x)?[0-9a-fA-F_]{1,9}", text):
            return None
        size = int(text, 16)
        if size == 0:
            return out
        if len(rest) < size:
            return None
        out += rest[:size]
        body = rest[size:].removeprefix(b"\r").removeprefix(b"\n")


@contextmanager
def mutants() -> Iterator[Mutants]:
    """Run one."""
    server = Mutants()
    try:
        yield server
    finally:
        server.close()
