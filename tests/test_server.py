"""``zarrstore serve``: values by HTTP, as the RFC has them, and nothing outside the stores."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
from contextlib import suppress
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest

import zarrstore
from tests.support import peers, world
from tests.support.servers.serving import ask, serving
from zarrstore import DictStore, DirectoryStore, HTTPStore, V3View, open_store
from zarrstore.errors import StoreReadError
from zarrstore.server import make_app
from zarrstore.server.ranges import Unsatisfiable, parse_ranges
from zarrstore.testing import TREE


@pytest.fixture
def store():
    held = DictStore({"a/0": bytes(range(200)), "a/empty": b""})
    zarrstore.init_array(held, shape=(4, 6), chunks=(2, 3), dtype="|u1", compressor=None, path="g/x", fill_value=0)
    held["g/x/0.1"] = bytes([1, 2, 3, 4, 5, 6])
    held["big/.zattrs"] = json.dumps({"text": "z" * 5000}).encode()
    return held


@pytest.fixture
def app(store):
    return make_app(store)


def test_a_value_is_answered_whole_with_its_length(app):
    status, headers, body = ask(app, "/a/0")
    assert (status, body, headers["content-length"]) == (200, bytes(range(200)), "200")
    assert headers["access-control-allow-origin"] == "*"
    assert ask(app, "/a/empty")[::2] == (200, b"")


def test_head_tells_the_length_and_sends_nothing(app):
    status, headers, body = ask(app, "/a/0", "HEAD")
    assert (status, headers["content-length"], body) == (200, "200", b"")


@pytest.mark.parametrize("path", ["/a", "/nothing", "/a/0/", "/a//0", "/a/../a/0", "//a/0", "/a/./0"])
def test_what_is_no_key_is_absent(app, path):
    assert ask(app, path)[0] == 404 or path == "/a/0/"


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=190-", slice(190, 200)),
        ("bytes=-7", slice(193, 200)),
        ("bytes=150-999", slice(150, 200)),
        ("bytes=-999", slice(0, 200)),
    ],
)
def test_a_range_is_answered_with_its_part(app, header, part):
    status, headers, body = ask(app, "/a/0", range=header)
    assert (status, body) == (206, bytes(range(200))[part])
    assert headers["content-range"] == f"bytes {part.start}-{part.stop - 1}/200"


def test_several_ranges_are_answered_with_their_parts(app):
    status, headers, body = ask(app, "/a/0", range="bytes=0-1, 100-102,-1")
    parsed = message_from_bytes(b"Content-Type: " + headers["content-type"].encode() + b"\r\n\r\n" + body)
    assert status == 206
    parts = [(part["Content-Range"], part.get_payload(decode=True)) for part in parsed.get_payload()]
    assert parts == [("bytes 0-1/200", b"\x00\x01"), ("bytes 100-102/200", b"def"), ("bytes 199-199/200", b"\xc7")]


@pytest.mark.parametrize("header", ["bytes=200-", "bytes=-0", "bytes=999-1000"])
def test_a_range_beyond_the_end_is_416_with_the_size(app, header):
    status, headers, body = ask(app, "/a/0", range=header)
    assert (status, headers["content-range"], body) == (416, "bytes */200", b"")


@pytest.mark.parametrize("header", ["items=0-1", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=" + 101 * "0-1,"])
def test_a_range_that_is_none_is_ignored(app, header):
    assert ask(app, "/a/0", range=header)[0] == 200


def test_ranges_that_repeat_the_value_over_and_over_are_ignored():
    assert parse_ranges("bytes=" + ",".join(["0-"] * 50), 10_000) is None
    with pytest.raises(Unsatisfiable):
        parse_ranges("bytes=0-0", 0)


def test_what_has_not_changed_is_not_sent_again(app, store):
    tag = ask(app, "/a/0")[1]["etag"]
    assert ask(app, "/a/0", if_none_match=f'"other", {tag}')[0] == 304
    assert ask(app, "/a/0", if_none_match=f"W/{tag}")[0] == 304
    assert ask(app, "/a/0", range="bytes=0-1", if_range=tag)[0] == 206
    store["a/0"] = b"new"
    assert ask(app, "/a/0", if_none_match=tag)[::2] == (200, b"new")
    assert ask(app, "/a/0", range="bytes=0-1", if_range=tag)[::2] == (200, b"new")


def test_the_etag_of_a_file_costs_no_read(tmp_path):
    held = DirectoryStore(tmp_path)
    held["a"] = b"1"
    app = make_app(held)
    first = ask(app, "/a", "HEAD")[1]["etag"]
    held["a"] = b"2"
    assert ask(app, "/a", "HEAD")[1]["etag"] != first
    held._get = None  # to read would raise
    assert ask(app, "/a", "HEAD")[0] == 200


def test_the_etag_of_a_file_costs_no_read_behind_the_wrapper_that_serve_opens(tmp_path, monkeypatch):
    DirectoryStore(tmp_path)["a/0"] = b"12"
    app = make_app(open_store(tmp_path, mode="r"))
    monkeypatch.setattr(DirectoryStore, "_get", None)
    assert ask(app, "/a/0", "HEAD")[1]["etag"]


def test_documents_are_packed_and_chunks_are_not(app):
    status, headers, body = ask(app, "/big/.zattrs", accept_encoding="gzip, br")
    assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "accept-encoding")
    assert len(body) < 500 < len(gzip.decompress(body))
    assert "content-encoding" not in ask(app, "/big/.zattrs")[1]
    assert "content-encoding" not in ask(app, "/big/.zattrs", accept_encoding="gzip;q=0")[1]
    assert "content-encoding" not in ask(app, "/a/0", accept_encoding="gzip")[1]


def test_consolidated_metadata_is_made_where_there_is_none(app, store):
    status, _, body = ask(app, "/.zmetadata")
    assert status == 200
    assert sorted(json.loads(body)["metadata"]) == [".zgroup", "big/.zattrs", "g/.zgroup", "g/x/.zarray"]
    assert ".zmetadata" not in store
    assert ask(make_app(store, consolidate=False), "/.zmetadata")[0] == 404


def test_version_2_data_is_served_under_version_3_keys(store):
    app = make_app(V3View(store))
    document = json.loads(ask(app, "/g/x/zarr.json")[2])
    assert (document["zarr_format"], document["shape"]) == (3, [4, 6])
    root = json.loads(ask(app, "/zarr.json")[2])
    assert "g/x" in root["consolidated_metadata"]["metadata"]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_nothing_can_be_written(app, store, method):
    before = dict(store)
    status, headers, _ = ask(app, "/a/0", method)
    assert (status, headers["allow"], dict(store)) == (405, "GET, HEAD, OPTIONS", before)


def test_a_browser_may_ask_for_ranges(app):
    status, headers, _ = ask(app, "/a/0", "OPTIONS", origin="http://elsewhere")
    assert status == 204
    assert "range" in headers["access-control-allow-headers"]


def test_a_token_is_asked_for(store):
    app = make_app(store, token="word")
    assert ask(app, "/a/0")[0] == 401
    assert ask(app, "/a/0", authorization="Bearer wor")[0] == 401
    assert ask(app, "/a/0", authorization="Bearer word")[0] == 200
    assert ask(app, "/a/0", query="token=word")[0] == 200
    assert ask(app, "/", query="token=wordy")[0] == 401


def test_several_stores_are_served_below_their_names():
    app = make_app({"one": {"a": b"1"}, "t w o": {"a": b"2"}})
    assert ask(app, "/one/a")[2] == b"1"
    assert ask(app, "/t w o/a")[2] == b"2"
    assert 'href="t%20w%20o/"' in ask(app, "/")[2].decode()
    assert ask(app, "/three/a")[0] == 404
    assert ask(app, "/one/../t w o/a")[0] == 404


def test_a_value_that_cannot_be_read_is_an_error_and_no_absence():
    class Broken(DictStore):
        def _get(self, key):
            raise StoreReadError(key, self, "the disk is broken")

        def _entry(self, key):
            raise StoreReadError(key, self, "the disk is broken")

    status, _, body = ask(make_app(Broken({"a": b"1"})), "/a")
    assert status == 502
    assert b"broken" not in body  # what the machine is like is not told to everybody


# Pages ----------------------------------------------------------------------------------------------------------------


def test_a_page_shows_the_tree_and_obeys_no_name(store):
    name = '<img src=x onerror="alert(1)">'
    zarrstore.init_array(store, shape=(2, 2), path=name)
    status, headers, body = ask(make_app(store), "/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "<img" not in body.decode()
    assert "&lt;img src=x" in body.decode()
    assert "g/x/" in body.decode()


def test_a_page_of_an_array_has_a_picture_of_its_first_plane(app):
    page = ask(app, "/g/x/")[2].decode()
    assert '<img src="?picture"' in page
    status, headers, body = ask(app, "/g/x/", query="picture")
    assert (status, headers["content-type"], body[:8]) == (200, "image/png", b"\x89PNG\r\n\x1a\n")


def test_a_listing_is_complete_or_no_listing(store):
    lines = ask(make_app(store), "/g/", query="list")[2].decode().splitlines()
    assert [json.loads(line) for line in lines[1:]] == [
        ["g/.zgroup", len(store["g/.zgroup"])],
        ["g/x/.zarray", len(store["g/x/.zarray"])],
        ["g/x/0.1", 6],
        {"keys": 3},
    ]


# A real server --------------------------------------------------------------------------------------------------------


def test_every_value_of_the_tree_is_read_over_a_real_socket(tmp_path):
    held = DictStore(dict(TREE))
    with serving(held) as url, open_store(f"zarrstore+{url}", mode="r") as store:
        assert dict(store) == dict(TREE)
        assert sorted(store.listdir("foo")) == sorted(held.listdir("foo"))
        assert store.getrange("big/value", 5, 9) == held["big/value"][5:9]
        assert zarrstore.copy_store(store, {}).n_copied == len(TREE)


def test_a_listing_that_was_cut_is_an_error():
    store = HTTPStore("http://127.0.0.1:1", listing=True, retries=0)
    whole = b'{"zarrstore": "list", "version": 1, "path": ""}\n["a", 1]\n{"keys": 1}\n'
    answers = iter([whole, whole[:-12], b"<html>", whole.replace(b'"a"', b'"../a"')])
    store._client.ask_listing = lambda path: type("A", (), {"status": 200, "body": next(answers)})
    assert list(store._keys("")) == ["a"]
    for _ in range(3):
        with pytest.raises(Exception, match=r"no whole listing|invalid key"):
            list(store._keys(""))


def test_zarr_3_and_xarray_read_what_is_served(tmp_path):
    import xarray
    import zarr

    values = np.arange(24, dtype="i4").reshape(4, 6)
    dataset = xarray.Dataset({"t": (("y", "x"), values)})
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False)
    with serving(DirectoryStore(tmp_path / "a.zarr")) as url:
        assert (zarr.open_array(f"{url}/t", mode="r")[:] == values).all()
        with xarray.open_zarr(url, consolidated=True) as opened:
            assert (opened.t.to_numpy() == values).all()


def test_eight_hundred_hostile_paths_lead_out_of_no_store():
    assert "1 passed" in world.run_tests_readonly("tests/support/inside_serving.py")


@pytest.mark.slow
def test_ten_thousand_requests_of_thirty_two_clients_keep_the_memory_flat(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    import urllib3

    held = DirectoryStore(tmp_path)
    values = {f"a/{n}": hashlib.sha256(str(n).encode()).digest() * 2000 for n in range(100)}
    held.update(values)
    with serving(str(tmp_path)) as url:
        pid = serving.pid
        pool = urllib3.PoolManager(maxsize=32)

        def client(n):
            return sum(
                pool.request("GET", f"{url}/a/{(n + i) % 100}").data == values[f"a/{(n + i) % 100}"] for i in range(100)
            )

        def memory():
            with open(f"/proc/{pid}/status") as status:
                return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])

        with ThreadPoolExecutor(32) as clients:
            right = sum(clients.map(client, range(20)))
            before = memory()
            right += sum(clients.map(client, range(80)))
        assert right == 10_000
        assert memory() - before < 8 << 10


def test_curl_reads_parts_of_what_is_served(tmp_path):
    peers.require("curl")
    DirectoryStore(tmp_path)["a/0"] = bytes(range(256))

    def curl(*options):
        done = subprocess.run(["curl", "-sS", *options, f"{url}/a/0"], capture_output=True, timeout=60, check=True)
        return done.stdout

    with serving(str(tmp_path)) as url:
        assert curl("-r", "10-19") == bytes(range(10, 20))
        assert curl("-r", "-5") == bytes(range(251, 256))
        assert b"Content-Range: bytes 250-255/256" in curl("-r", "250-", "-D", "-").replace(
            b"content-range", b"Content-Range"
        )
        assert b" 416 " in curl("-r", "300-400", "-D", "-")
        tag = re.search(rb"(?i)etag: (\S+)", curl("-I"))[1].decode()
        assert b" 304 " in curl("-D", "-", "-H", f"If-None-Match: {tag}")


def test_workers_answer_at_one_socket_and_end_together(tmp_path):
    import urllib3

    DirectoryStore(tmp_path)["a/0"] = b"12"
    with serving(str(tmp_path), "--workers", "2") as url:
        pid = serving.pid
        assert urllib3.request("GET", f"{url}/a/0").data == b"12"
        workers = _workers_of(pid)
        assert len(workers) == 1
    # The parent has ended (`serving` waits for it), and it waits for its workers.
    assert not any(map(_lives, workers))


def _workers_of(pid: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
