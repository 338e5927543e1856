"""HTTPStore against a real nginx and Python's http.server, which ignores ranges; and against servers that misbehave."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.servers import proxy as proxies
from tests.servers import static
from zarrstore import ConsolidatedStore, DirectoryStore, read_array
from zarrstore.errors import ReadOnlyError, StoreReadError, UnsupportedOperation
from zarrstore.stores.http import HTTPStore
from zarrstore.testing import tree

urllib3 = pytest.importorskip("urllib3", reason="needs urllib3: pip install zarrstore[http]")

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
    assert [line.split('"')[1].split()[0] for line in _settled(server, 1)] == ["GET"]
    assert len(dict(store.getitems([f"k{n}" for n in range(50)]))) == 50
    assert "k1" in store
    methods = [line.split('"')[1].split()[0] for line in _settled(server, 52)]
    assert (methods.count("GET"), methods.count("HEAD")) == (51, 1)


def _settled(server: static.Nginx, count: int) -> list[str]:
    import time

    for _ in range(100):
        if len(server.log()) >= count:
            break
        time.sleep(0.02)
    return server.log()


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


def test_a_service_that_answers_403_for_absence_can_be_told_so(
    http_server: Any, proxy: Proxied, tmp_path: Path
) -> None:
    DirectoryStore(tmp_path / "d")["a"] = b"1"
    between = proxy(http_server(tmp_path / "d"))
    between.fail(403)
    store = HTTPStore(between.url, missing_is={403})
    assert "a" not in store
    assert store.get("a") is None


def test_a_dead_server_is_an_error_and_not_an_empty_store() -> None:
    with pytest.raises(StoreReadError, match="no answer"):
        HTTPStore(f"http://127.0.0.1:{static.free_port()}/", retries=0, timeout=2)["a"]


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


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///x", "host/x", ""])
def test_what_is_no_url_of_http_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL of HTTP"):
        HTTPStore(url)
