"""What the verbs cost on a real S3 server, in requests, counted by a proxy, through fsspec and through obstore."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from zarrstore import FSStore, clean, delete_node, init_array, migrate_2to3
from zarrstore.cli.group import run
from zarrstore.nodes import walk
from zarrstore.tools.info import describe_node
from zarrstore.tools.tree import du, tree

pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")

from tests.stores.test_fsspec import connected
from tests.stores.test_object_stores import on_s3

CHUNKS = 150


@pytest.fixture(scope="module")
def bucket(s3_server: Any) -> Any:
    name = s3_server.make_bucket()
    yield name
    s3_server.drop_bucket(name)


@pytest.fixture(params=["fsspec", "obstore"])
def store(request: pytest.FixtureRequest, s3_counted: Any, bucket: str) -> Any:
    server, _ = s3_counted
    if request.param == "fsspec":
        return FSStore(f"s3://{bucket}/{uuid.uuid4().hex}", **connected(server.storage_options()))
    return on_s3("obstore", server, bucket, uuid.uuid4().hex)


@pytest.fixture
def cost(s3_counted: Any) -> Callable[[Callable[[], Any]], dict[str, int]]:
    _, proxy = s3_counted

    def counted(act: Callable[[], Any]) -> dict[str, int]:
        proxy.reset()
        act()
        return dict(proxy.counts)

    return counted


def test_what_each_verb_costs(store: Any, cost: Any, s3_counted: Any) -> None:
    options: dict[str, Any] = {"dtype": "u1", "compressor": None, "fill_value": 0, "chunks": 2}
    assert sum(cost(lambda: init_array(store, shape=2 * CHUNKS, path="a/b/c", **options)).values()) <= 8
    assert sum(cost(lambda: init_array(store, shape=4, path="a/b/d", **options)).values()) <= 8
    assert cost(lambda: store.setitems({f"a/b/c/{n}": b"12" for n in range(CHUNKS)})) == {"PUT": CHUNKS}
    # One listing instead of one request a chunk.
    assert sum(cost(lambda: describe_node(store, "a/b/c")).values()) <= 5
    assert describe_node(store, "a/b/c")["nbytes_stored"] == 2 * CHUNKS
    assert cost(lambda: du(store)) == {"GET": 1}
    assert sum(cost(lambda: tree(store)).values()) <= 12
    # A rename is copied by the server: no value comes here.
    assert sum(cost(lambda: store.rename("a/b/c/7", "a/b/c/x")).values()) <= 4
    spent = cost(lambda: store.rename("a/b/c", "a/b/e"))
    assert CHUNKS + 1 <= spent["PUT"] <= CHUNKS + 2
    assert spent["POST"] == 1
    assert spent["GET"] + spent.get("HEAD", 0) <= 4
    assert store["a/b/e/x"] == b"12"
    assert "a/b/c/x" not in store
    spent = cost(lambda: store.getsize("a/b/e"))
    assert (spent["GET"], spent["HEAD"]) == (1, 1)
    assert cost(lambda: "zz/y" in store) == {"HEAD": 1}
    # S3 deletes what is missing without a word, so KeyError costs a look; a batch needs none.
    assert sum(cost(lambda: store.pop("a/b/e/5")).values()) == 3
    assert sum(cost(lambda: store.pop("a/b/e/5", None)).values()) == 1
    spent = cost(lambda: store.__delitem__("a/b/e/6"))
    assert (spent["HEAD"], sum(spent.values())) == (1, 2)
    assert cost(lambda: store.delitems(["a/b/e/4"])) == {"POST": 1}
    assert "a/b/e/4" not in store
    store["a/b/d/.DS_Store"] = b""
    store["other/.DS_Store"] = b""
    assert cost(lambda: clean(store, "a/b/d", dry_run=True)) == {"GET": 1}
    assert clean(store, "a/b/d") == ["a/b/d/.DS_Store"]
    assert "other/.DS_Store" in store
    assert cost(lambda: store.rmdir("a/b/e")) == {"GET": 1, "POST": 1}
    assert sum(cost(lambda: delete_node(store, "a")).values()) <= 5
    _, proxy = s3_counted
    assert proxy.busiest <= 64


def test_a_walk_asks_nothing_of_stray_values(store: Any, cost: Any) -> None:
    init_array(store, shape=4, path="g/a", dtype="u1")
    spent = cost(lambda: tree(store))
    store.setitems({f"g/{name}": b"" for name in ("README.md", ".DS_Store", "run-1.log", "x", "y")})
    store["g/x/b/.zarray"] = store["g/a/.zarray"]  # below a value: flat stores hold both
    found = cost(lambda: tree(store))
    assert [node.path for node in walk(store)] == ["", "g", "g/a", "g/x/b"]
    # Of "x" a guess and a listing, of the array below it one read.
    assert sum(found.values()) <= sum(spent.values()) + 3


def test_a_place_is_occupied_by_what_stands_at_or_below_it_and_by_nothing_beside_it(store: Any) -> None:
    names = ["d/x", "d.x/y", "dx", "d-/z", "e0", "é/x", "deep/er/one", "deep/er.x"]
    store.setitems(dict.fromkeys(names, b"1"))
    for path, wanted in (
        *(("d", True), ("e", False), ("é", True), ("deep", True), ("deep/er", True)),
        *(("deep/e", False), ("dx", True), ("d.x", True), ("d.", False), ("f", False), ("deep/er/one/x", False)),
    ):
        assert store._is_occupied(path) is wanted, path


@pytest.mark.slow
def test_a_full_page_before_a_directory_does_not_hide_it(store: Any) -> None:
    store.setitems({f"d-{n}": b"" for n in range(1000)})
    assert not store._is_occupied("d")
    store["d/x"] = b"1"
    assert store._is_occupied("d")


def test_listings_of_the_command_line_ask_for_no_key(
    s3_counted: Any, bucket: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = s3_counted
    root = f"s3://{bucket}/{uuid.uuid4().hex}"
    FSStore(root, **server.storage_options()).setitems({f"a/{n}": b"12" for n in range(50)})
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    for arguments, most in ((["ls", "-r", root], 4), (["ls", "-r", "-l", root], 4), (["du", root], 4)):
        proxy.reset()
        assert run(arguments) == 0
        assert sum(proxy.counts.values()) <= most, (arguments, proxy.requests)
    assert "a/49" in capsys.readouterr().out


@pytest.mark.slow
def test_a_zip_of_100000_entries_opens_in_three_requests_and_a_chunk_is_one(
    s3_counted: Any, bucket: str, nginx: Any, tmp_path: Any
) -> None:
    from tests.support.servers.proxy import Proxy
    from zarrstore import ZipStore, open_store

    count = 100_000
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    xarray = pytest.importorskip("xarray", reason="needs xarray: pip install xarray")
    from zarrstore.bridges.zarr3 import MappingStore

    with ZipStore(tmp_path / "big.zip", mode="w") as archive:
        init_array(archive, shape=count, chunks=1, dtype="u1", compressor=None, fill_value=0, path="v")
        archive["v/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["x"]}'
        archive.setitems((f"v/{n}", bytes([n % 251])) for n in range(count))
    server, proxy = s3_counted
    client = server.client()
    client.put_object(Bucket=bucket, Key="zips/big.zip", Body=(tmp_path / "big.zip").read_bytes())
    client.close()
    web = nginx(tmp_path)
    with Proxy(web.url) as web_proxy:
        for url, options, at in (
            (f"s3://{bucket}/zips/big.zip", server.storage_options(), proxy),
            (f"{web_proxy.url}/big.zip", None, web_proxy),
        ):
            at.reset()
            with open_store(url, mode="r", storage_options=options) as store:
                assert len(store) == count + 3
                assert len(at.requests) <= 3, at.requests
                at.reset()
                assert (store["v/777"], store["v/99999"]) == (bytes([777 % 251]), bytes([99999 % 251]))
                assert len(at.requests) == 2
                at.reset()
                array = zarr.open_array(MappingStore(store), path="v", mode="r", zarr_format=2)
                assert len(at.requests) <= 2  # .zarray and .zattrs; the directory tells what is absent
                at.reset()
                assert array[778] == 778 % 251
                assert len(at.requests) == 1
                at.reset()
                dataset = xarray.open_zarr(MappingStore(store), consolidated=False, chunks=None, mask_and_scale=False)
                assert len(at.requests) <= 8, at.requests
                at.reset()
                assert dataset["v"].isel(x=779).load() == 779 % 251
                assert len(at.requests) == 1


def test_a_migration_reads_each_document_once(store: Any, cost: Any) -> None:
    items = _hierarchy_of(20)
    store.setitems(items)
    # Of each array: what version 2 says of it, its attributes, and that nothing is in the way.
    spent = cost(lambda: migrate_2to3(store))
    assert spent["PUT"] == 21
    assert spent["GET"] + spent.get("HEAD", 0) <= 3 * 20 + 6


def test_a_migration_on_the_command_line_walks_once(
    s3_counted: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = s3_counted
    root = f"s3://{bucket}/{uuid.uuid4().hex}"
    FSStore(root, **server.storage_options()).setitems(_hierarchy_of(20))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    proxy.reset()
    assert run(["migrate", root]) == 0
    assert proxy.counts["PUT"] == 21
    assert proxy.counts["GET"] + proxy.counts["HEAD"] <= 3 * 20 + 8, proxy.requests


def _hierarchy_of(n_arrays: int) -> dict[str, bytes]:
    sample: dict[str, bytes] = {}
    init_array(sample, shape=4, chunks=2, dtype="u1")
    items = {".zgroup": b'{"zarr_format": 2}'}
    for n in range(n_arrays):
        items |= {f"a{n}/.zarray": sample[".zarray"], f"a{n}/.zattrs": b'{"x": 1}', f"a{n}/0": b"12"}
    return items
