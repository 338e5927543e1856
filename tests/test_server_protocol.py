"""The short ways of ``zarrstore serve``, a value in one step and a file sent by the system, answer as the long one."""

from __future__ import annotations

import http.client
import os
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.support.servers.serving import ask, serving
from zarrstore import DictStore, DirectoryStore, NestedDirectoryStore, PrefixStore, ReadOnlyStore
from zarrstore.server import make_app
from zarrstore.server.replies import SMALL, FilePart, reply_with_value

VALUES = {"a/0": bytes(range(200)), "a/empty": b"", "a/0.1": b"nested", "b/.zattrs": b"{}", "b/large": b"x" * SMALL * 3}


def _parsed(block: bytes) -> dict[str, str]:
    lines = block.decode().removesuffix("\r\n\r\n").split("\r\n")
    return dict(line.split(": ", 1) for line in lines)


@pytest.fixture(params=["directory", "nested", "wrapped", "dict"])
def filled(request, tmp_path):
    store = {
        "directory": lambda: DirectoryStore(tmp_path),
        "nested": lambda: NestedDirectoryStore(tmp_path),
        "wrapped": lambda: ReadOnlyStore(PrefixStore(DirectoryStore(tmp_path), "p/q")),
        "dict": DictStore,
    }[request.param]()
    target = store.inner if request.param == "wrapped" else store
    target.update(VALUES)
    return store


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("key", ["a/0", "a/empty", "a/0.1"])
def test_both_ways_answer_the_same(filled, method, key):
    app = make_app(filled)
    found = app.immediate(method.encode(), f"/{key}".encode(), [(b"host", b"x"), (b"accept-encoding", b"gzip")])
    status, headers, body = ask(app, f"/{key}", method, accept_encoding="gzip")
    if found is None:  # a dict tells no identity, and HEAD would have to read the value
        assert (method, type(filled)) == ("HEAD", DictStore)
    else:
        assert (200, headers, body) == (status, _parsed(found[0]), found[1])


@pytest.mark.parametrize(
    "header", [b"range", b"if-none-match", b"if-range", b"content-length", b"transfer-encoding", b"upgrade", b"expect"]
)
def test_a_request_that_takes_more_than_the_value_goes_the_long_way(header):
    app = make_app(DictStore(VALUES))
    assert app.immediate(b"GET", b"/a/0", [(b"accept", b"*/*")]) is not None
    assert app.immediate(b"GET", b"/a/0", [(header, b"1")]) is None


@pytest.mark.parametrize(
    "url",
    [
        *(b"/", b"/a", b"/a/", b"//a/0", b"/a//0", b"/a/../a/0", b"/a/%30", b"/a/0?list", b"/a/0#x", b"a/0", b"*"),
        *(b"http://host/a/0", b"/b/.zattrs", b"/.zmetadata", b"/absent", b"/a/\xc3\xa9", b"/a/0\x00", b"/a/0\\"),
    ],
)
def test_what_is_not_plainly_the_key_of_a_chunk_goes_the_long_way(url, tmp_path):
    store = DirectoryStore(tmp_path)
    store.update(VALUES)
    for _ in range(2):  # also when it is remembered
        assert make_app(store).immediate(b"GET", url, []) is None


def test_with_a_token_or_over_a_network_nothing_goes_the_short_way():
    assert make_app(DictStore(VALUES), token="word").immediate(b"GET", b"/a/0", []) is None

    class Remote(DictStore):
        def __init__(self, items: Any) -> None:
            super().__init__(items)
            self.capabilities = type(self.capabilities)(concurrent=True)

    assert make_app(Remote(VALUES)).immediate(b"GET", b"/a/0", []) is None


def test_several_stores_go_the_short_way_below_their_names():
    app = make_app({"one": DictStore({"a": b"1"}), "two": DictStore({"a": b"2"})})
    assert app.immediate(b"GET", b"/two/a", [])[1] == b"2"
    assert app.immediate(b"GET", b"/three/a", []) is None


def test_no_more_urls_are_remembered_than_fit(monkeypatch):
    monkeypatch.setattr("zarrstore.server.app._MOST", 10)
    app = make_app(DictStore({f"a/{n}": b"1" for n in range(100)}))
    for n in range(100):
        assert app.immediate(b"GET", f"/a/{n}".encode(), [])[1] == b"1"
        assert len(app._local) <= 10


def test_a_value_in_a_file_costs_one_open_and_one_read(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path)
    store["a/0"] = b"12"
    app = make_app(ReadOnlyStore(store))
    calls = []
    for name in ("open", "stat", "lstat", "fstat", "pread", "read"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, real=real, name=name, **kw: (calls.append(name), real(*args, **kw))[1]
        )
    app.immediate(b"GET", b"/a/0", [])
    calls.clear()
    assert app.immediate(b"GET", b"/a/0", [])[1] == b"12"
    assert calls == ["open", "fstat", "pread"]


def test_a_store_with_values_of_its_own_is_not_read_past_it(tmp_path):
    class Reversed(DirectoryStore):
        def _get(self, key):
            return super()._get(key)[::-1]

    store = Reversed(tmp_path)
    store["a/0"] = b"12"
    app = make_app(store)
    assert app.immediate(b"GET", b"/a/0", [])[1] == b"21"
    assert ask(app, "/a/0")[2] == b"21"
    assert ask(make_app(DirectoryStore(tmp_path, direct_io=True)), "/a/0")[2] == b"12"


def test_etag_and_body_are_of_one_value_while_another_is_set(tmp_path):
    store = DirectoryStore(tmp_path)
    store["a"] = b"1" * SMALL * 2
    tag = ask(make_app(store), "/a", "HEAD")[1]["etag"]
    reply = reply_with_value(store, "a", "GET", {}, takes_files=True)
    store["a"] = b"2" * 10
    assert reply.headers["etag"] == tag
    assert isinstance(reply.part, FilePart)
    with reply.part.file as file:
        assert os.pread(file.fileno(), reply.part.nbytes, reply.part.start) == b"1" * SMALL * 2


# Over a socket --------------------------------------------------------------------------------------------------------

LARGE = np.arange(4 << 20, dtype=">u4").tobytes()  # 16 MiB, more than a socket takes at once


@pytest.fixture
def large(tmp_path):
    store = DirectoryStore(tmp_path)
    store.update({"l": LARGE, "s": b"small", "m": LARGE[: 1 << 20]})
    return store


@pytest.fixture
def sendfiles(monkeypatch):
    if not hasattr(os, "sendfile"):
        pytest.skip("this system has no sendfile")
    sizes = []
    real = os.sendfile

    def counted(out, source, offset, count):
        sent = real(out, source, offset, count)
        sizes.append(sent)
        return sent

    monkeypatch.setattr(os, "sendfile", counted)
    return sizes


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)


def test_a_large_file_is_sent_by_the_system_and_never_read(large, sendfiles, monkeypatch):
    monkeypatch.setattr(DirectoryStore, "_get", None)
    monkeypatch.setattr(os, "pread", None)
    with serving(large) as url:
        connection = _connection(url)
        for start, stop in ((0, len(LARGE)), (12345, 12345 + (3 << 20))):
            connection.request("GET", "/l", headers={} if not start else {"Range": f"bytes={start}-{stop - 1}"})
            answer = connection.getresponse()
            assert answer.status == (206 if start else 200)
            assert answer.read() == LARGE[start:stop]
        connection.close()
    assert sum(sendfiles) == len(LARGE) + (3 << 20)


def test_requests_sent_before_their_answers_are_answered_in_order(large):
    parts = []
    with serving(large) as url:
        where = urlsplit(url)
        with socket.create_connection((where.hostname, where.port), 60) as sock:
            names = ["s", "l", "s", "m", "s", "absent", "m", "s", "l", "s"]
            for name in names:
                last = name == names[-1] and len(parts) == len(names) - 1
                parts.append(f"GET /{name} HTTP/1.1\r\nHost: x\r\n{'Connection: close' if last else 'X: y'}\r\n\r\n")
            sock.sendall("".join(parts).encode())
            received = b"".join(iter(lambda: sock.recv(1 << 20), b""))
    bodies = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        n = int(re.search(rb"content-length: (\d+)", head)[1])
        bodies.append(received[:n])
        received = received[n:]
    known = {"s": b"small", "l": LARGE, "m": LARGE[: 1 << 20], "absent": b'{"error": "nothing is there"}\n'}
    assert bodies == [known[name] for name in names]


def test_a_file_that_another_program_cuts_ends_the_connection_and_not_the_server(large, tmp_path):
    with serving(large) as url:
        connection = _connection(url)
        connection.request("GET", "/l")
        answer = connection.getresponse()
        os.truncate(tmp_path / "l", 0)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        connection.close()
        connection = _connection(url)
        connection.request("GET", "/s")
        assert connection.getresponse().read() == b"small"
        connection.close()


def test_a_reader_that_leaves_in_the_middle_leaves_no_open_file(large):
    with serving(large) as url:
        before = None
        for _ in range(10):
            connection = _connection(url)
            connection.request("GET", "/l")
            connection.getresponse().read(100)
            connection.close()
            connection = _connection(url)
            connection.request("GET", "/m")
            assert connection.getresponse().read() == LARGE[: 1 << 20]
            connection.close()
            before = before or len(os.listdir("/proc/self/fd"))
        # Closed within a few turns of the loop: at most those of the last reader are open still.
        assert len(os.listdir("/proc/self/fd")) <= before + 8
