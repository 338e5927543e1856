"""Replies of servers may be anybody's: mutants of status lines, headers, chunks, documents and listings."""

from __future__ import annotations

import http.client
import os
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("urllib3", reason="needs urllib3: pip install zarrstore[http]")
from tests.faults import replies
from tests.support.servers import mutant
from zarrstore.base import Store
from zarrstore.errors import StoreReadError

PACKAGES = {"FSStore http": "aiohttp", "FSStore s3": "s3fs", "FSStore webdav": "webdav4.fsspec"}


def run(client: str, count: int, first: int = 1) -> dict[str, Any]:
    package = PACKAGES.get(client, "obstore" if client.startswith("Obstore") else "urllib3")
    pytest.importorskip(package, reason="pip install zarrstore[test]")
    found = replies.run(client, count, first)
    assert found["bad"] == []
    assert found["mutants"] == count
    return found


@pytest.mark.parametrize("client", ["HTTPStore", "HTTPStore of zarrstore serve", "ConsolidatedStore"])
def test_a_hundred_mutants_are_read_without_harm(client):
    assert run(client, 100)["requests"] > 200


@pytest.mark.parametrize("client", ["FSStore http", "ObstoreStore http", "ObstoreStore s3"])
def test_twenty_mutants_are_read_without_harm(client):
    assert run(client, 20)["requests"] > 50


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", replies.CLIENTS)
def test_more_mutants_are_read_without_harm(client):
    # botocore and webdav4 take twenty times as long for one as the others.
    run(client, 30 if client in ("FSStore s3", "FSStore webdav") else 300, first=1000)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("client", replies.CLIENTS)
def test_a_hundred_thousand_mutants_of_replies_are_read_without_harm(client):
    share = float(os.environ.get("ZARRSTORE_MUTANTS", "100000")) / 100_000
    run(client, max(10, round(replies.SHARES[client] * share)))


def test_there_are_a_hundred_thousand_mutants():
    assert sum(replies.SHARES.values()) == 100_000
    assert replies.SHARES.keys() == replies.CLIENTS.keys()


class Credulous(Store):
    """A store that takes each failure for absence, and what came for the value."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/web"

    def _get(self, key: str) -> bytes:
        try:
            with urllib.request.urlopen(f"{self.url}/{key}", timeout=20) as reply:
                return reply.read()
        except (OSError, http.client.HTTPException):
            raise KeyError(key) from None

    def _keys(self, path: str) -> Iterator[str]:
        with urllib.request.urlopen(f"{self.url}/?list", timeout=20) as reply:
            yield from (line.split(b'"')[1].decode() for line in reply if line.startswith(b"["))


def test_a_store_that_believes_everything_is_seen(monkeypatch):
    monkeypatch.setitem(replies.CLIENTS, "credulous", Credulous)
    text = str(replies.run("credulous", 120)["bad"])
    for sign in ("absent, and no reply says so", "no reply frames as a whole", "is no key", "cut listing"):
        assert sign in text, sign


# What mutants have found, each as its own test ------------------------------------------------------------------------


class Scripted(mutant.Mutants):
    """A server that answers whatever is asked by one reply; with a listing of S3, by `pages` in a circle."""

    def __init__(self, *pages: bytes) -> None:
        self.pages = pages
        super().__init__()

    def _answer(self, connection: socket.socket, request: mutant.Request) -> bool:
        page = self.pages[len(self.raw) % len(self.pages)]
        # Each connection is closed: unless that is said, the next request may be sent on a closed one.
        self.raw.append(page.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        connection.sendall(self.raw[-1])
        return False


def read_from(client: str, *pages: bytes) -> tuple[Any, Scripted]:
    server = Scripted(*pages)
    return replies.CLIENTS[client](server.url), server


@pytest.mark.parametrize("announced", [b"10000000000", b"999999999999999999", b"9223372036854775808"])
def test_a_length_that_is_merely_announced_takes_no_memory(announced):
    for framing in (
        b"Content-Length: %s\r\n\r\n" % announced,
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % int(announced),
    ):
        store, server = read_from("HTTPStore", b"HTTP/1.1 200 OK\r\n" + framing + b"short")
        with replies.bounded_memory(), pytest.raises(StoreReadError, match="no answer"):
            store["v"]
        server.close()


@pytest.mark.parametrize("size", [b"-1", b"-5", b"+5", b"0x5", b"0_5"])
def test_a_size_of_a_chunk_is_hexadecimal_digits_only(size):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    store, server = read_from("HTTPStore", head + size + b"\r\nabcde\r\n0\r\n\r\n")
    with pytest.raises(StoreReadError):
        store["v"]
    server.close()


def test_a_server_that_refuses_the_method_says_nothing_of_absence():
    pytest.importorskip("obstore")
    store, server = read_from("ObstoreStore http", b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(StoreReadError, match="405"):
        store["v"]
    with pytest.raises(StoreReadError, match="405"):
        store.get("v")
    server.close()


def page(*parts: str) -> bytes:
    body = f'<?xml version="1.0"?><ListBucketResult>{"".join(parts)}</ListBucketResult>'.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def more(token: str) -> str:
    return f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"


def test_a_listing_that_goes_in_a_circle_ends():
    pytest.importorskip("s3fs")
    store, server = read_from("FSStore s3", *(page(more(token)) for token in "abc"))
    with pytest.raises(StoreReadError, match="not where"):
        list(store)
    assert len(server.raw) < 12
    server.close()


@pytest.mark.parametrize("item", ["<Size>1</Size>", "<Key>root/a</Key>", "<Key>root/a</Key><Key>b</Key><Size>1</Size>"])
def test_an_object_without_a_name_or_a_size_is_an_error_and_no_absence(item):
    pytest.importorskip("s3fs")
    store, server = read_from("FSStore s3", page(f"<Contents>{item}</Contents>"))
    with pytest.raises(StoreReadError, match="the listing has an object without"):
        list(store)
    server.close()


@pytest.mark.parametrize("size", ["1e999", "NaN", "1.5", "true", "-2", '"7"', "null"])
def test_a_size_in_a_listing_of_zarrstore_serve_is_a_number_of_bytes(size):
    body = f'{{"zarrstore": "list"}}\n["a", {size}]\n{{"keys": 1}}\n'.encode()
    store, server = read_from(
        "HTTPStore of zarrstore serve", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    with pytest.raises(StoreReadError, match="no whole listing"):
        list(store)
    server.close()


def test_a_date_that_is_none_leaves_an_entry_without_one():
    pytest.importorskip("s3fs")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nLast-Modified: Sat, 28 Nov 1.0 12:00:00 GMT\r\n\r\n"
    store, server = read_from("FSStore s3", head)
    assert (store._entry("v").nbytes, store._entry("v").modified) == (9, -1.0)
    server.close()


WHOLE = b"HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\n\r\n"


def propfind(size: str, kind: str = "<D:resourcetype></D:resourcetype>") -> bytes:
    found = f"<D:propstat><D:prop>{kind}{size}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
    response = f"<D:response><D:href>/dav/v</D:href>{found}</D:response>"
    body = f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{response}</D:multistatus>'.encode()
    return b"HTTP/1.1 207 Multi-Status\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Dav(Scripted):
    """WebDAV: the first reply is that to PROPFIND, the second any other."""

    def _answer(self, connection: socket.socket, request: mutant.Request) -> bool:
        connection.sendall(self.pages[request.method != "PROPFIND"])
        return False


@pytest.mark.parametrize(
    ("described", "read"),
    [
        (propfind("<D:getcontentlength>9</D:getcontentlength>"), lambda store: store["v"]),
        (propfind("<D:getcontentlength>9</D:getcontentlength>"), lambda store: store.getrange("v", 2, 9)),
        (propfind(""), lambda store: store["v"]),
        (propfind(""), lambda store: store.getsuffix("v", 3)),
        (propfind("", kind=""), lambda store: store["v"]),
        (propfind("", kind=""), lambda store: "v" in store),
    ],
    ids=["cut", "cut part", "no size", "end of no size", "no kind", "no kind, looked for"],
)
def test_webdav_values_are_proved_by_their_size(described, read):
    pytest.importorskip("webdav4.fsspec")
    server = Dav(described, WHOLE + b"short")
    with pytest.raises(StoreReadError):
        read(replies.CLIENTS["FSStore webdav"](server.url))
    server.close()
