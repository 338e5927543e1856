"""HTTPStore against a real nginx and Python's http.server, which ignores ranges; and against servers that misbehave."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import pickle
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import peers
from tests.support.servers import proxy as proxies
from tests.support.servers import static
from zarrstore import ConsolidatedStore, DirectoryStore, read_array
from zarrstore.errors import ReadOnlyError, StoreReadError, UnsupportedOperation
from zarrstore.stores.http import HTTPStore
from zarrstore.testing import tree

pytest.importorskip("urllib3", reason="needs urllib3: pip install zarrstore[http]")

LEGACY = Path(__file__).parent.parent / "data" / "v2" / "legacy.zarr"


def plain() -> dict[str, bytes]:
    """The tree, without what a folder that is served cannot be asked for."""
    return {key: value for key, value in tree(100_000).items() if "\n" not in key}


@pytest.fixture(params=["nginx", "http.server"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, bytes]]:
    root = tmp_path / "served"
    DirectoryStore(root).update(plain())
    if request.param == "nginx":
        return request.getfixturevalue("nginx")(root).url, plain()
    return request.getfixturevalue("http_server")(root), plain()


def test_every_value_and_every_part_is_right(served: tuple[str, dict[str, bytes]]) -> None:
    url, items = served
    with HTTPStore(url) as store:
        assert {key: store[key] for key in items} == items
        assert dict(store.getitems([*items, "absent", "foo"])) == items
        for start, stop in ((0, 10), (5, 6), (10, 10), (250, 300), (300, 400), (0, None), (100, None)):
            assert store.getrange("c/9.10", start, stop) == items["c/9.10"][start:stop], (start, stop)
        for n in (0, 1, 10, 256, 1000):
            assert store.getsuffix("c/9.10", n) == (items["c/9.10"][-n:] if n else b""), n
        assert store.getrange("c/0.0", 0, 10) == b""
        assert store.getsuffix("c/0.0", 10) == b""
        assert store.getsize("big/value") == 100_000
        assert store.getsize("absent") == -1  # it may be a directory, of which no server tells


def test_absence_is_a_keyerror_and_so_is_a_directory(served: tuple[str, dict[str, bytes]]) -> None:
    url, _ = served
    store = HTTPStore(url)
    for key in ("absent", "foo/absent", "foo", "deep/1/2"):
        assert key not in store, key
        for read in (store.__getitem__, lambda key: store.getrange(key, 0, 1), lambda key: store.getsuffix(key, 0)):
            with pytest.raises(KeyError):
                read(key)
    assert "foo/bar" in store


def test_a_get_is_one_request_and_a_batch_one_a_key(nginx: Any, tmp_path: Path) -> None:
    root = tmp_path / "served"
    DirectoryStore(root).update({f"k{n}": b"v" for n in range(50)})
    server = nginx(root)
    store = HTTPStore(server.url)
    store["k0"]
    assert [line.split('"')[1].split()[0] for line in server.log()] == ["GET"]
    assert len(dict(store.getitems([f"k{n}" for n in range(50)]))) == 50
    assert "k1" in store
    methods = [line.split('"')[1].split()[0] for line in server.log()]
    assert (methods.count("GET"), methods.count("HEAD")) == (51, 1)


def test_a_consolidated_hierarchy_can_be_walked_and_read(nginx: Any, http_server: Any) -> None:
    for url in (nginx(LEGACY).url, http_server(LEGACY)):
        with ConsolidatedStore(HTTPStore(url)) as store:
            assert "ocean" in store.listdir()
            assert store.listdir("ocean") == [".zgroup", "deep", "surface"]
            local = DirectoryStore(LEGACY)
            for path in ("ocean/surface/temperature", "sparse", "scalar", "ocean/deep/density_F"):
                assert read_array(store, path).tobytes() == read_array(local, path).tobytes()
        assert ".zmetadata" in HTTPStore(url).listdir()


def test_zarr_2_reads_it(nginx: Any) -> None:
    script = (
        "import sys, zarrstore, zarr, numpy\n"
        "store = zarrstore.ConsolidatedStore(zarrstore.HTTPStore(sys.argv[1]))\n"
        "group = zarr.open_group(store, mode='r')\n"
        "assert group['ocean/surface/temperature'][:].shape == (24, 18, 30)\n"
        "assert numpy.array_equal(group['ocean/deep/raw'][:], numpy.load(sys.argv[2] + '/ocean__deep__raw.npy'))\n"
    )
    root = Path(__file__).parent.parent.parent
    env = {**os.environ, "PYTHONPATH": str(root)}
    expected = str(LEGACY.parent / "expected")
    command = [peers.python("zarr2"), "-W", "ignore", "-c", script, nginx(LEGACY).url, expected]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_without_consolidated_metadata_it_cannot_be_listed_and_says_the_way_out(served: Any) -> None:
    store = HTTPStore(served[0])
    for look in (lambda: list(store), lambda: len(store), store.listdir):
        with pytest.raises(UnsupportedOperation, match="consolidate"):
            look()


def test_nothing_can_be_written(served: Any) -> None:
    store = HTTPStore(served[0])
    for write in (
        lambda: store.__setitem__("a", b""),
        lambda: store.__delitem__("foo/bar"),
        lambda: store.setitems({"a": b""}),
        lambda: store.delitems(["foo/bar"]),
        lambda: store.rmdir("foo"),
        store.clear,
    ):
        with pytest.raises(ReadOnlyError):
            write()


def test_hostile_keys_are_absent_and_never_asked_for(nginx: Any, tmp_path: Path) -> None:
    from zarrstore.testing import HOSTILE_KEYS

    (tmp_path / "a").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    server = nginx(tmp_path / "a")
    store = HTTPStore(server.url)
    assert [key for key in HOSTILE_KEYS if store.get(key) is not None or key in store] == []  # type: ignore[call-overload]
    assert server.log() == []


Proxied = Callable[[str], proxies.Proxy]


@pytest.mark.parametrize("status", [400, 401, 403, 405, 500, 502, 503, 504, 429])
def test_what_is_no_absence_is_an_error_that_says_so(
    http_server: Any, proxy: Proxied, tmp_path: Path, status: int
) -> None:
    DirectoryStore(tmp_path / "d")["a/0"] = b"data"
    between = proxy(http_server(tmp_path / "d"))
    store = HTTPStore(between.url, retries=0)
    assert store["a/0"] == b"data"
    between.fail(status)
    for read in (
        lambda: store["a/0"],
        lambda: store.get("a/0"),
        lambda: "a/0" in store,
        lambda: store.getrange("a/0", 0, 1),
        lambda: dict(store.getitems(["a/0"])),
    ):
        with pytest.raises(StoreReadError, match=str(status)):
            read()


def test_a_passing_fault_is_asked_again_and_a_lasting_one_is_an_error(
    http_server: Any, proxy: Proxied, tmp_path: Path
) -> None:
    DirectoryStore(tmp_path / "d")["a"] = b"data"
    between = proxy(http_server(tmp_path / "d"))
    between.fail(503, times=2)
    assert HTTPStore(between.url)["a"] == b"data"
    between.fail(503)
    between.reset()
    with pytest.raises(StoreReadError, match="503"):
        HTTPStore(between.url, retries=1)["a"]
    assert sum(between.counts().values() if callable(between.counts) else between.counts.values()) == 2


def test_a_connection_that_is_cut_never_gives_a_short_value(http_server: Any, proxy: Proxied, tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "d")["a"] = bytes(100_000)
    between = proxy(http_server(tmp_path / "d"))
    between.cut(50_000)
    store = HTTPStore(between.url, retries=1)
    for read in (lambda: store["a"], lambda: store.getrange("a", 0, 90_000), lambda: dict(store.getitems(["a"]))):
        with pytest.raises(StoreReadError):
            read()
    between.heal()
    assert store["a"] == bytes(100_000)


def test_a_service_may_answer_403_for_absence(http_server: Any, proxy: Proxied, tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "d")["a"] = b"1"
    between = proxy(http_server(tmp_path / "d"))
    between.fail(403)
    store = HTTPStore(between.url, missing_is={403})
    assert "a" not in store
    assert store.get("a") is None


def test_a_dead_server_is_an_error_and_not_an_empty_store() -> None:
    with static.refusing_port() as port, pytest.raises(StoreReadError, match="no answer"):
        HTTPStore(f"http://127.0.0.1:{port}/", retries=0, timeout=2)["a"]


def test_nginx_that_packs_answers_is_asked_not_to(nginx: Any, tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "d")["a.json"] = b'{"a": 1}' * 5000
    url = nginx(tmp_path / "d", "gzip on; gzip_types *; gzip_min_length 1;").url
    store = HTTPStore(url)
    assert store["a.json"] == b'{"a": 1}' * 5000
    assert store.getrange("a.json", 8, 16) == b'{"a": 1}'


def test_a_server_that_forbids_ranges_is_cut_here(nginx: Any, tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "d")["a"] = bytes(range(256))
    store = HTTPStore(nginx(tmp_path / "d", "max_ranges 0;").url)
    assert store.getrange("a", 10, 20) == bytes(range(10, 20))
    assert store.getsuffix("a", 3) == bytes([253, 254, 255])


def test_it_pickles_and_survives_a_fork(served: Any) -> None:
    url, items = served
    store = HTTPStore(url, missing_is={403}, retries=1)
    assert store["foo/bar"] == b"1"
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert (copy.missing_is, copy["foo/bar"]) == (frozenset({403}), b"1")
    pid = os.fork()
    if not pid:
        os._exit(0 if store["foo/oof/x"] == items["foo/oof/x"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert store["foo/bar"] == b"1"


class Answers(http.server.BaseHTTPRequestHandler):
    """Answer as `answers` says, by path: status, headers, body; and remember what was asked."""

    protocol_version = "HTTP/1.1"
    answers: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, dict(self.headers)))
        status, headers, body = self.answers.get(self.path, (404, {}, b""))
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET


@pytest.fixture
def scripted() -> Iterator[Callable[[dict[str, tuple[int, dict[str, str], bytes]]], tuple[str, list[Any]]]]:
    """Yield ``scripted(answers)``, which starts such a server and returns its URL and what it was asked."""
    with contextlib.ExitStack() as stack:

        def start(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> tuple[str, list[Any]]:
            asked: list[Any] = []
            handler = type("Handler", (Answers,), {"answers": answers, "asked": asked})
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}", asked

        yield start


def test_secrets_are_not_sent_to_the_server_that_a_redirect_leads_to(scripted: Any) -> None:
    there, asked_there = scripted({"/there/a": (200, {}, b"data")})
    answers = {"/a": (302, {"Location": f"{there}/there/a"}, b""), "/b": (302, {"Location": "/c"}, b"")}
    here, asked_here = scripted({**answers, "/c": (200, {}, b"here")})
    store = HTTPStore(here, headers={"Authorization": "secret", "Cookie": "secret", "X-Plain": "x"})
    assert (store["a"], store["b"]) == (b"data", b"here")
    assert [asked["Authorization"] for _, _, asked in asked_here] == ["secret"] * 3
    for _, _, asked in asked_there:
        assert ("secret" in asked.values(), asked["X-Plain"]) == (False, "x")


def test_a_redirect_to_a_login_or_in_a_circle_is_no_absence_and_no_value(scripted: Any) -> None:
    away = {"/foo": (301, {"Location": "/foo/"}, b""), "/a": (302, {"Location": "/login/?back=/a"}, b"")}
    url, _ = scripted({**away, "/b": (302, {"Location": "/b"}, b""), "/c": (302, {}, b"")})
    store = HTTPStore(url)
    assert store.get("foo") is None
    for key, why in (("a", "/login/"), ("b", "more than"), ("c", "does not say")):
        with pytest.raises(StoreReadError, match=why):
            store[key]


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_a_success_that_brings_no_whole_value_is_no_value(status: int, scripted: Any) -> None:
    url, _ = scripted({"/a": (status, {"Content-Range": "bytes 0-3/9"} if status == 206 else {}, b"")})
    with pytest.raises(StoreReadError, match=f"{status}, which is no whole value"):
        HTTPStore(url)["a"]


@pytest.mark.parametrize(
    "content_range, body",
    [
        ("bytes 2-4/10", b"234"),  # shorter than asked
        ("bytes 0-4/10", b"01234"),  # another one
        ("bytes 2-5/10", b"23"),  # not what it says
        ("bytes 2-5/*", b"2345"),  # who knows
        ("", b"2345"),
    ],
)
def test_a_part_that_is_not_plainly_the_one_asked_for_is_not_handed_out(
    content_range: str, body: bytes, scripted: Any
) -> None:
    class Whole(dict[str, Any]):
        """The part at the first request, the whole value at the second."""

        def get(self, path: str, default: Any = None) -> Any:
            return self[path].pop(0) if path in self else default

    url, asked = scripted(Whole({"/a": [(206, {"Content-Range": content_range}, body), (200, {}, b"0123456789")]}))
    assert HTTPStore(url).getrange("a", 2, 6) == b"2345"
    assert len(asked) == 2


def test_a_long_retry_after_is_not_obeyed_to_the_hour(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    for wish, pause in (("86400", 60), ("2", 2), ("Fri, 31 Dec 1999 23:59:59 GMT", 0)):
        url, _ = scripted({"/a": (503, {"Retry-After": wish}, b"")})
        with pytest.raises(StoreReadError, match="503"):
            HTTPStore(url, retries=1)["a"]
        assert pauses.pop() == pause
    url, asked = scripted({"/a": (503, {"Retry-After": "soon"}, b"")})
    with pytest.raises(StoreReadError, match="503"):
        HTTPStore(url, retries=3)["a"]
    assert len(asked) == 4
    for pause, most in zip(pauses, (0.2, 0.4, 0.8), strict=True):
        assert most / 2 <= pause <= most


# Credentials.


def test_user_and_password_of_the_url_are_sent_and_never_shown(scripted: Any) -> None:
    url, asked = scripted({"/d/a?sig=s1gn": (200, {}, b"data"), "/d/b?sig=s1gn": (403, {}, b"")})
    store = HTTPStore(url.replace("//", "//me:hunter2%40x@") + "/d?sig=s1gn")
    assert store["a"] == b"data"
    expected = "Basic " + base64.b64encode(b"me:hunter2@x").decode()
    assert asked[-1][2]["Authorization"] == expected
    with pytest.raises(StoreReadError, match="403 Forbidden to a request as the user 'me'") as refused:
        store["b"]
    with pytest.raises(ReadOnlyError) as read_only:
        store["a"] = b""
    with static.refusing_port() as port, pytest.raises(StoreReadError) as dead:
        HTTPStore(f"http://me:hunter2%40x@127.0.0.1:{port}/?sig=s1gn", retries=0)["a"]
    for exc in (refused.value, read_only.value, dead.value):
        for each in (exc, exc.__cause__, exc.__context__):
            assert not any(secret in repr(each) for secret in ("hunter2", expected, "s1gn"))
    assert not any(secret in f"{store!r} {store.url.partition('?')[0]}" for secret in ("hunter2", "s1gn"))
    copy = pickle.loads(pickle.dumps(store))
    assert (copy["a"], asked[-1][2]["Authorization"], copy) == (b"data", expected, store)


@pytest.mark.parametrize(
    "options, identity",
    [
        ({}, "without credentials"),
        ({"headers": {"authorization": "Bearer t0ken"}}, "with an Authorization header"),
        ({"headers": {"Cookie": "t0ken"}}, "with a cookie"),
    ],
)
def test_a_refusal_says_who_asked_and_how_to_ask_as_somebody(
    options: dict[str, Any], identity: str, scripted: Any
) -> None:
    url, _ = scripted({"/a": (403, {}, b"")})
    with pytest.raises(
        StoreReadError, match=f"403 Forbidden to a request {identity}; .*headers=.*missing_is=.403"
    ) as refused:
        HTTPStore(url, **options)["a"]
    assert "t0ken" not in str(refused.value)
    assert refused.value.permanent


def test_a_header_given_by_the_caller_wins_over_the_url(scripted: Any) -> None:
    url, asked = scripted({"/a": (200, {}, b"")})
    HTTPStore(url.replace("//", "//me:pw@"), headers={"authorization": "Bearer x"})["a"]
    assert asked[-1][2]["authorization"] == "Bearer x"


def test_user_and_password_in_a_redirect_are_neither_sent_nor_shown(scripted: Any) -> None:
    url, _ = scripted({"/a": (302, {"Location": "http://me:pw@127.0.0.1:1/login/"}, b"")})
    with pytest.raises(StoreReadError, match=r"http://me:\*\*\*@127"):
        HTTPStore(url)["a"]


# What can be listed.


def test_a_group_lists_what_its_documents_name_and_an_array_refuses(nginx: Any) -> None:
    with HTTPStore(nginx(LEGACY).url) as store:
        assert not store.capabilities.listable
        assert store.listdir("ocean") == [".zgroup", "deep", "surface"]
        assert store.listdir("ocean/.zgroup") == []
        for path in ("ocean/surface/temperature", "ocean/surface/temperature/0", "sparse"):
            with pytest.raises(UnsupportedOperation, match="is an array, and no document names its chunks"):
                store.listdir(path)
        with pytest.raises(UnsupportedOperation, match="no document names a group at 'absent'"):
            store.listdir("absent")
        for look in (
            lambda: list(store),
            lambda: len(store),
            lambda: list(store.keys_below("ocean")),
            lambda: bool(store),
        ):
            with pytest.raises(UnsupportedOperation, match="cannot be listed"):
                look()
        assert store.getsize("ocean") == -1


def test_documents_of_version_3_are_listed_in_the_same_way(http_server: Any, tmp_path: Path) -> None:
    inline = {
        "kind": "inline",
        "must_understand": False,
        "metadata": {"g": {"node_type": "group"}, "g/a": {"node_type": "array"}},
    }
    root = {"zarr_format": 3, "node_type": "group", "consolidated_metadata": inline}
    DirectoryStore(tmp_path / "d")["zarr.json"] = json.dumps(root).encode()
    store = HTTPStore(http_server(tmp_path / "d"))
    assert (store.listdir(), store.listdir("g")) == (["g", "zarr.json"], ["a", "zarr.json"])
    with pytest.raises(UnsupportedOperation, match="'g/a' is an array"):
        store.listdir("g/a")


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_a_server_that_refuses_head_is_asked_for_one_byte(
    status: int, http_server: Any, proxy: Proxied, tmp_path: Path
) -> None:
    DirectoryStore(tmp_path / "d").update({"a": bytes(1234), "e": b""})
    between = proxy(http_server(tmp_path / "d"))
    between.faults.append(proxies.Fault(lambda method, path: method == "HEAD", status=status))
    store = HTTPStore(between.url)
    assert ("a" in store, "e" in store, "x" in store) == (True, True, False)
    assert (store.getsize("a"), store.getsize("e")) == (1234, 0)


def test_zarr_3_reads_it(nginx: Any) -> None:
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    import numpy

    from zarrstore.bridges.zarr3 import to_zarr3

    store = ConsolidatedStore(HTTPStore(nginx(LEGACY).url))
    group = zarr.open_group(to_zarr3(store), mode="r", use_consolidated=False)
    expected = numpy.load(LEGACY.parent / "expected" / "ocean__deep__raw.npy")
    assert numpy.array_equal(group["ocean/deep/raw"][:], expected)


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///x", "host/x", ""])
def test_what_is_no_url_of_http_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL of HTTP"):
        HTTPStore(url)
