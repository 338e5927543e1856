"""FSStore over fsspec's own filesystems, and over a real S3 server whose requests are counted."""

from __future__ import annotations

import os
import pickle
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from tests.support import peers
from tests.support.cases import each_of
from zarrstore import init_array, open_store
from zarrstore.adapt import as_store
from zarrstore.errors import (
    ConflictError,
    ContainsArrayError,
    ContainsGroupError,
    DestinationExistsError,
    ReadOnlyError,
    StoreNotFoundError,
    StoreReadError,
    UnsupportedOperation,
)
from zarrstore.stores.fsspec import FSStore
from zarrstore.testing import StoreConformance, tree
from zarrstore.wrappers.lru import LRUStoreCache


class TestOverAFilesystemWithoutARoot(StoreConformance):
    """Names on a DirFileSystem have no slash in front."""

    def make_store(self, tmp_path):
        return FSStore("", fs=fsspec.filesystem("dir", path=f"/{uuid.uuid4().hex}", fs=MemoryFileSystem()))


@pytest.fixture(scope="module")
def bucket(s3_server):
    name = s3_server.make_bucket()
    yield name
    s3_server.drop_bucket(name)


def connected(options):
    """Return options of S3, for which fsspec has a filesystem with a client that all stores of these options share.

    Each store of a filesystem without one makes its own, of 0.1 s of processor time.
    """
    FSStore("s3://any", **options).fs._twin.connect()
    return options


class OverS3(StoreConformance):
    examples = 2

    @pytest.fixture(autouse=True)
    def _server(self, s3_server, bucket):
        self.server, self.bucket = s3_server, bucket

    def url(self):
        return f"s3://{self.bucket}/{uuid.uuid4().hex}"


class TestOverS3(OverS3):
    def make_store(self, tmp_path):
        return FSStore(self.url(), **connected(self.server.storage_options()))

    # A request costs some 5 ms of both processors here, and these take hundreds and more; ObstoreStore runs them
    # against the same server each time.
    @pytest.mark.slow
    def test_random_histories_end_as_they_do_with_a_dict(self, tmp_path, tmp_path_factory):
        super().test_random_histories_end_as_they_do_with_a_dict(tmp_path, tmp_path_factory)

    @pytest.mark.slow
    def test_threads_read_whole_values_and_listings_never_raise(self, store):
        super().test_threads_read_whole_values_and_listings_never_raise(store)

    @pytest.mark.slow
    def test_setitems_and_delitems_do_all(self, store):
        super().test_setitems_and_delitems_do_all(store)

    @pytest.mark.slow
    @pytest.mark.parametrize("place", ["{}", "{}/x"], ids=["name", "directory"])
    def test_names_that_look_alike_are_kept_apart_or_refused(self, store, place):
        super().test_names_that_look_alike_are_kept_apart_or_refused(store, place)

    def reopen(self, store, tmp_path):
        return FSStore(store.url, **self.server.storage_options())


@pytest.mark.slow
class TestAPlainS3Map(OverS3):
    checks_processes = False
    examples = 1

    def make_store(self, tmp_path):
        import s3fs

        fs = s3fs.S3FileSystem(**self.server.storage_options())
        return s3fs.S3Map(self.url().removeprefix("s3://"), s3=fs)


# Requests to S3.


@pytest.fixture
def counted(s3_counted, bucket):
    server, proxy = s3_counted
    options = server.storage_options(config_kwargs={"retries": {"max_attempts": 0}})
    store = FSStore(f"s3://{bucket}/{uuid.uuid4().hex}", **connected(options))
    store.fs.retries = 1
    assert "nothing yet" not in store  # connected, and what botocore asks once is asked
    proxy.reset()
    return store, proxy


def spent(proxy):
    """Return the requests since the last look, by method."""
    found = dict(proxy.counts)
    proxy.reset()
    return found


def test_one_request_for_each_get_and_each_set(counted):
    store, proxy = counted
    for n in range(20):
        store[f"a/{n}"] = b"%d" % n
    assert spent(proxy) == {"PUT": 20}
    assert [store[f"a/{n}"] for n in range(20)] == [b"%d" % n for n in range(20)]
    assert spent(proxy) == {"GET": 20}
    assert store.get("a/none") is None
    assert spent(proxy) == {"GET": 1}
    assert (store.getrange("a/12", 1), store.getrange("a/12", 0, 1), store.getsuffix("a/12", 1)) == (b"2", b"1", b"2")
    assert spent(proxy) == {"GET": 3}
    assert "a/3" in store
    assert spent(proxy) == {"HEAD": 1}
    assert "a/none" not in store
    assert spent(proxy) == {"HEAD": 1}
    assert (store.getrange("a/12", 9, 20), store.getsize("a/12")) == (b"", 2)
    assert spent(proxy) == {"GET": 1, "HEAD": 2}


def test_a_batch_takes_one_request_for_each_value_and_runs_them_at_once(counted):
    store, proxy = counted
    items = {f"a/{n}": bytes(n) for n in range(100)}
    store.update(items)
    assert spent(proxy) == {"PUT": 100}
    proxy.slow(0.1)
    found = store.getitems([*items, "a/none"])
    assert {key: found[key] for key in items} == items
    assert "a/none" not in found
    assert proxy.busiest > 8
    assert spent(proxy) == {"GET": 101}


@pytest.mark.parametrize("number, pages", [(205, 1), pytest.param(1105, 2, marks=pytest.mark.slow)])
def test_deletes_go_by_the_thousand(counted, number, pages):
    store, proxy = counted
    store.update({f"a/{n}": b"1" for n in range(number)} | {"ab": b"2"})
    spent(proxy)
    store.delitems([*(f"a/{n}" for n in range(0, 200, 2)), "none"])
    assert spent(proxy) == {"POST": 1}
    assert len(store) == number - 99
    assert spent(proxy) == {"GET": pages}
    store.rmdir("a")
    assert spent(proxy) == {"GET": pages, "POST": pages}
    assert dict(store) == {"ab": b"2"}


@pytest.mark.slow
def test_a_hierarchy_of_2000_chunks_is_written_listed_renamed_and_removed(counted):
    store, proxy = counted
    chunks = {f"array/{i}.{j}": b"%d,%d" % (i, j) for i in range(40) for j in range(50)}
    store.update({".zgroup": b"{}", "array/.zarray": b"{}", **chunks})
    assert spent(proxy) == {"PUT": 2002}
    assert store.listdir() == [".zgroup", "array"]
    assert spent(proxy) == {"GET": 1}
    assert len(store.listdir("array")) == 2001
    assert spent(proxy) == {"GET": 3}
    assert store.getsize("array") == sum(map(len, chunks.values())) + 2
    spent(proxy)
    store.rename("array", "moved/here")
    # The source is listed twice, the destination once, and the server makes the copies.
    assert spent(proxy) == {"GET": 5, "HEAD": 1, "PUT": 2001, "POST": 3}
    assert sorted(store) == sorted([".zgroup", "moved/here/.zarray", *(f"moved/here/{key[6:]}" for key in chunks)])
    found = store.getitems([f"moved/here/{key[6:]}" for key in chunks])
    spent(proxy)
    assert [found[f"moved/here/{key[6:]}"] for key in chunks] == list(chunks.values())
    assert spent(proxy) == {"GET": 2000}
    store.rmdir("")
    assert spent(proxy) == {"GET": 3, "POST": 3}
    assert list(store) == []


def test_a_listing_is_never_an_old_one(counted, s3_server):
    store, _proxy = counted
    other = FSStore(store.url, **s3_server.storage_options())
    store["a/x"] = b"1"
    assert store.listdir("a") == ["x"]
    assert "a/y" not in store
    other["a/y"] = b"22"
    assert (store.listdir("a"), sorted(store), "a/y" in store) == (["x", "y"], ["a/x", "a/y"], True)
    other["a/y"] = b"333"
    assert store.getsize("a/y") == 3
    del other["a/x"]
    assert (store.listdir("a"), list(store), "a/x" in store) == (["y"], ["a/y"], False)


# Failures.


READS = {
    "get": lambda store: store["a/x"],
    "getitems": lambda store: dict(store.getitems(["a/x"])),
    "in": lambda store: "a/x" in store,
    "getrange": lambda store: store.getrange("a/x", 1, 3),
    "getsuffix": lambda store: store.getsuffix("a/x", 2),
    "listdir": lambda store: store.listdir("a"),
    "keys": lambda store: list(store),
    "getsize": lambda store: store.getsize("a/x"),
}


@pytest.mark.parametrize("status, says", [(403, "PermissionError"), (500, "500|InternalError|Error"), (503, "Error")])
@each_of("how", READS)
def test_a_refusal_or_failure_of_the_server_is_never_absence(status, says, how, counted):
    store, proxy = counted
    store["a/x"] = b"data"
    proxy.fail(status)
    with pytest.raises(StoreReadError, match=says):
        READS[how](store)
    proxy.heal()
    READS[how](store)


@each_of("how", ["get", "getitems", "getsuffix"])
def test_a_cut_connection_gives_no_short_value(how, counted):
    store, proxy = counted
    store["a/x"] = bytes(100_000)
    proxy.cut(20_000, "a/x")
    with pytest.raises(StoreReadError):
        {"getsuffix": lambda store: store.getsuffix("a/x", 50_000)}.get(how, READS[how])(store)
    proxy.heal()
    assert store["a/x"] == bytes(100_000)


def test_a_403_is_absence_for_those_who_say_so(counted, s3_counted):
    _, proxy = counted
    store, _ = counted
    lenient = FSStore(store.url, fs=store.fs, missing_is=(PermissionError,))
    proxy.fail(403, "a/x")
    assert "a/x" not in lenient
    assert lenient.get("a/x") is None
    assert dict(lenient.getitems(["a/x"])) == {}
    proxy.heal()
    proxy.fail(500, "a/x")
    with pytest.raises(StoreReadError):
        lenient.get("a/x")


def test_a_failed_write_says_which(counted):
    store, proxy = counted
    proxy.fail(403)
    with pytest.raises(PermissionError) as refused:
        store["a/x"] = b"1"
    assert "while setting 'a/x'" in "".join(refused.value.__notes__)
    with pytest.raises(PermissionError):
        store.setitems({"a/x": b"1"})
    with pytest.raises(PermissionError):
        store.delitems(["a/x"])


def test_keys_that_the_server_does_not_delete_are_an_error(counted, monkeypatch):
    store, _ = counted

    async def refuse(self, *args, **kwargs):
        return {"Errors": [{"Key": "root/a", "Message": "Access Denied"}]}

    monkeypatch.setattr(type(store.fs), "_call_s3", refuse)
    with pytest.raises(PermissionError, match=r"'root/a'.*Access Denied"):
        store.delitems(["a", "b"])


def test_few_keys_are_renamed_in_few_requests(counted):
    store, proxy = counted
    store.update({"a": b"1", "dir/x": b"2", "dir/y/z": b"3", "dir-other": b"4"})
    spent(proxy)
    store.rename("a", "b")
    assert spent(proxy) == {"GET": 2, "PUT": 1, "POST": 1}
    store.rename("dir", "moved")
    assert spent(proxy) == {"GET": 2, "PUT": 2, "POST": 1}
    with pytest.raises(KeyError):
        store.rename("absent", "x")
    with pytest.raises(KeyError):
        store.rename("absent", "absent")
    with pytest.raises(KeyError):
        store.rename("absent", "b")
    with pytest.raises(DestinationExistsError):
        store.rename("moved", "b")
    assert dict(store) == {"b": b"1", "moved/x": b"2", "moved/y/z": b"3", "dir-other": b"4"}


def test_the_size_of_a_directory_is_one_listing(counted):
    store, proxy = counted
    store.update({"d/x": b"1", "d/y/z": b"333"})
    spent(proxy)
    assert (store.getsize("d"), store.getsize("d/y")) == (1, 3)
    assert spent(proxy) == {"HEAD": 2, "GET": 2}


def test_a_listing_tells_sizes_and_identities_without_a_request_for_each(counted):
    store, proxy = counted
    store.update({"d/x": b"1", "d/y": b"22"})
    spent(proxy)
    old = {entry.key: entry for entry in store._details("d")}
    assert {key: entry.nbytes for key, entry in old.items()} == {"d/x": 1, "d/y": 2}
    assert spent(proxy) == {"GET": 1}
    single = store._entry("d/y")
    assert 0 <= old["d/y"].modified - single.modified < 1  # a header tells whole seconds
    assert single._replace(modified=0) == old["d/y"]._replace(modified=0)
    store["d/y"] = b"33"
    new = {entry.key: entry for entry in store._details("d")}
    assert (new["d/x"] == old["d/x"], new["d/y"] == old["d/y"]) == (True, False)


def test_an_array_is_made_deep_down_in_at_most_eight_requests(counted):
    store, proxy = counted
    for path in ("a/b/c", "a/b/d", "a/e/f"):
        init_array(store, shape=4, chunks=2, path=path)
        used = spent(proxy)
        assert sum(used.values()) <= 8, (path, used)
    with pytest.raises(ContainsArrayError):
        init_array(store, shape=4, path="a/b/c/d/e")
    with pytest.raises(ContainsGroupError):
        init_array(store, shape=4, path="a/b")
    groups = [key for key in store if key.endswith(".zgroup")]
    assert sorted(groups) == [".zgroup", "a/.zgroup", "a/b/.zgroup", "a/e/.zgroup"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), TimeoutError("slow"), ValueError("nonsense")])
@pytest.mark.parametrize("how", [how for how in READS if how != "getitems"])
def test_an_error_of_the_filesystem_is_never_absence(error, how, monkeypatch):
    store = FSStore(f"memory://{uuid.uuid4().hex}")
    store["a/x"] = b"data"

    def fail(*args, **kwargs):
        raise error

    for method in ("cat_file", "info", "ls", "find"):
        monkeypatch.setattr(MemoryFileSystem, method, fail)
    with pytest.raises(StoreReadError, match=str(error)[-8:]):
        READS[how](store)


def test_a_folder_that_cannot_be_read_is_not_left_out_of_a_listing(tmp_path, monkeypatch):
    store = FSStore(str(tmp_path))
    store.update({"a/x": b"1", "b/x": b"2"})
    known = LocalFileSystem.ls

    def ls(self, path, **kwargs):
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return known(self, path, **kwargs)

    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    with pytest.raises(StoreReadError, match="Permission denied"):
        list(store)
    assert list(store.keys_below("a")) == ["a/x"]


# Keys, paths and parameters.


def test_wildcards_in_keys_are_characters(counted):
    store, _ = counted
    for place in (store, FSStore(f"memory://{uuid.uuid4().hex}")):
        place.update({"a*": b"1", "ab": b"2", "[a]": b"3", "a?": b"4", "a": b"5"})
        assert dict(place.getitems(["a*", "[a]", "a?"])) == {"a*": b"1", "[a]": b"3", "a?": b"4"}
        place.delitems(["a*", "[a]", "a?"])
        assert dict(place) == {"ab": b"2", "a": b"5"}


def test_objects_that_are_no_keys_are_not_listed(counted):
    store, _ = counted
    store["a/x"] = b"1"
    for name in ("a//b", "a/../c", "dir/"):
        store.fs.call_s3(
            "put_object", Bucket=store._lead.partition("/")[0], Key=store._lead.partition("/")[2] + name, Body=b""
        )
    assert list(store) == ["a/x"]
    assert store.getsize("a") == 1


def test_a_value_and_a_directory_of_one_name_stand_together_on_s3_and_exclude_each_other_on_files(counted, tmp_path):
    flat, _ = counted
    flat.update({"a": b"1", "a/b": b"2"})
    assert (dict(flat), flat.listdir(), flat.getsize("a")) == ({"a": b"1", "a/b": b"2"}, ["a"], 1)
    for store in (FSStore(str(tmp_path)), FSStore(f"memory://{uuid.uuid4().hex}")):
        store["a/b"] = b"2"
        with pytest.raises(ConflictError, match="holds 'a/b' below it"):
            store["a"] = b"1"
        with pytest.raises(ConflictError, match="a value at 'a/b'"):
            store["a/b/c"] = b"1"
        assert dict(store) == {"a/b": b"2"}
    assert os.listdir(tmp_path) == ["a"]


def test_an_empty_directory_does_not_hinder_a_value(tmp_path):
    (tmp_path / "a").mkdir()
    store = FSStore(str(tmp_path))
    store["a"] = b"1"
    assert dict(store) == {"a": b"1"}


def test_the_parameters_are_those_of_zarr_2(tmp_path):
    store = FSStore(str(tmp_path), True, "/", "r", (PermissionError,))
    assert store._dimension_separator == "/"
    assert store.missing_is == (PermissionError,)
    with pytest.raises(ReadOnlyError, match="mode='r'"):
        store["a"] = b"1"
    with pytest.raises(ReadOnlyError):
        store.rmdir("")
    lower = FSStore(str(tmp_path), normalize_keys=True)
    lower["Foo/BAR"] = b"1"
    assert (lower["fOO/bar"], list(lower)) == (b"1", ["foo/bar"])
    with pytest.raises(ValueError, match="mode is 'x'"):
        FSStore(str(tmp_path), mode="x")
    with pytest.raises(ValueError, match="exclude each other"):
        FSStore(str(tmp_path), fs=LocalFileSystem(), auto_mkdir=True)


def test_check_and_create(tmp_path):
    with pytest.raises(StoreNotFoundError, match="create=True"):
        FSStore(str(tmp_path / "a"), check=True)
    FSStore(str(tmp_path / "a"), check=True, create=True)
    assert os.listdir(tmp_path / "a") == []


def test_equality_is_that_of_the_place(tmp_path):
    assert FSStore(str(tmp_path)) == FSStore(tmp_path.as_uri())
    assert FSStore(str(tmp_path)) != FSStore(str(tmp_path / "a"))


def test_a_pickle_of_an_s3_store_names_the_server_and_not_the_connection(counted):
    store, _ = counted
    store["a"] = b"1"
    assert pickle.loads(pickle.dumps(store))["a"] == b"1"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_reads_from_s3_by_a_connection_of_its_own(s3_server, bucket):
    script = """
        import gc, json, os, sys
        from zarrstore.stores.fsspec import FSStore
        url, options = sys.argv[1], json.loads(sys.argv[2])
        # What is not answered in time is not asked again, but fails.
        once = {"retries": {"max_attempts": 0}, "read_timeout": 20}
        store = FSStore(url, config_kwargs=once, **options)
        store.fs.retries = 1
        store.update({str(n): b"%d" % n for n in range(50)})
        child = os.fork()
        if not child:
            ok = all(store[str(n)] == b"%d" % n for n in range(50)) and len(store.getitems(map(str, range(50)))) == 50
            gc.collect()  # of what the parent asked with
            os._exit(0 if ok else 1)
        status = os.waitpid(child, 0)[1]
        ok = all(store[str(n)] == b"%d" % n for n in range(50))
        print(json.dumps([ok, status]))
    """
    import json

    url = f"s3://{bucket}/forked"
    assert peers.run("self", script, url, json.dumps(s3_server.storage_options()), timeout=60) == [True, 0]


# zarr 2 over it, and the plain maps of fsspec.


def test_the_adversarial_tree_through_plain_maps(s3_server, bucket, tmp_path):
    for root, fs in (
        (f"{bucket}/map-{uuid.uuid4().hex}", fsspec.filesystem("s3", **s3_server.storage_options())),
        (str(tmp_path / "map"), LocalFileSystem(auto_mkdir=True)),
    ):
        store = as_store(fs.get_mapper(root))
        expected = tree(1000)
        store.update(expected)
        assert dict(store) == expected
        assert store.listdir("foo") == ["bar", "foo", "oof"]
        assert sorted(store.keys_below("foo")) == ["foo/bar", "foo/foo/foo", "foo/oof/x"]
        assert store.getsize("foo") == 1
        store.rmdir("foo")
        assert dict(store) == {key: value for key, value in expected.items() if not key.startswith("foo/")}


@pytest.fixture
def plain_map(s3_counted, bucket):
    server, proxy = s3_counted
    once = {"retries": {"max_attempts": 0}}
    fs = fsspec.filesystem("s3", skip_instance_cache=True, config_kwargs=once, **server.storage_options())
    fs.retries = 1
    store = as_store(fs.get_mapper(f"{bucket}/map-{uuid.uuid4().hex}"))
    assert "nothing yet" not in store
    proxy.reset()
    return store, proxy


@pytest.mark.parametrize("number, pages", [(205, 1), pytest.param(1200, 2, marks=pytest.mark.slow)])
def test_a_plain_map_lists_what_is_asked_and_deletes_by_the_thousand(plain_map, number, pages):
    store, proxy = plain_map
    store.update({f"a/{n}": b"1" for n in range(number)} | {"b/x": b"2"})
    assert spent(proxy) == {"PUT": number + 1}
    assert list(store.keys_below("b")) == ["b/x"]
    assert store.listdir() == ["a", "b"]
    assert spent(proxy) == {"GET": 2}
    store.rmdir("a")
    assert spent(proxy) == {"GET": pages, "POST": pages}
    assert dict(store) == {"b/x": b"2"}


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusal_or_failure_is_no_absence_in_a_batch_of_a_plain_map(status, plain_map):
    store, proxy = plain_map
    store["a"] = b"1"
    proxy.fail(status, "/a")
    with pytest.raises(OSError):
        dict(store.getitems(["a"]))
    with pytest.raises(OSError):
        store.get("a")


def test_the_second_pass_through_the_cache_makes_no_request(plain_map):
    store, proxy = plain_map
    items = {f"a/{n}": b"%d" % n for n in range(60)}
    store.update(items)
    for mapping in (store, store.fs.get_mapper(store.url)):
        cache = LRUStoreCache(mapping, max_size=10**6)
        spent(proxy)
        assert dict(cache.getitems([*items, "a/none"])) == items
        assert spent(proxy) == {"GET": 61}
        assert dict(cache.getitems([*items, "a/none"])) == items
        assert [cache[key] for key in items] == list(items.values())
        assert spent(proxy) == {}


# Chains that keep copies ---------------------------------------------------------------------------------------------

KEPT = {"a/0": b"0123456789", "a/1": b"", "b/.zgroup": b"{}"}


def targets(tmp_path, http_server):
    """Return URLs of places that hold `KEPT`: in memory, on the disk, behind a web server."""
    memory = FSStore(f"memory://{uuid.uuid4().hex}")
    files = FSStore(str(tmp_path / "files"))
    for store in (memory, files):
        store.setitems(KEPT)
    return {"memory": memory.url, "file": (tmp_path / "files").as_uri(), "http": http_server(tmp_path / "files")}


#: fsspec's blocks need files that tell their block size, which those in memory do not, and a size, which a web server
#: of its own pages need not tell.
CHAINS = [(chain, place) for chain in ("simplecache", "filecache") for place in ("memory", "file", "http")]
CHAINS.append(("blockcache", "file"))


@pytest.mark.parametrize("chain, place", CHAINS)
@pytest.mark.parametrize("opening", [FSStore, open_store])
def test_a_chain_that_keeps_copies_reads_all_and_says_that_it_writes_nothing(
    chain, place, opening, tmp_path, http_server
):
    url = targets(tmp_path, http_server)[place]
    options = {chain: {"cache_storage": str(tmp_path / "copies")}}
    mode = {"mode": "r"} if opening is open_store else {}
    with opening(f"{chain}::{url}", **mode, **options) as store:
        for _ in range(2):  # the second from the copies
            assert {key: store[key] for key in KEPT} == KEPT
            assert dict(store.getitems([*KEPT, "none"])) == KEPT
            assert (store.getrange("a/0", 2, 5), store.getrange("a/0", 8, 99), store.getsuffix("a/0", 3)) == (
                b"234",
                b"89",
                b"789",
            )
            assert ("a/0" in store, "none" in store, store.get("none")) == (True, False, None)
            # A web server answers for a directory with a page, and its size may be unknown once it is kept.
            if place != "http":
                assert ("a" in store, store.getsize("a/0")) == (False, 10)
        assert store.capabilities.listable == (place != "http")
        if store.capabilities.listable:
            assert (sorted(store), len(store), store.listdir("a")) == (sorted(KEPT), 3, ["0", "1"])
        assert not store.capabilities.writable
        assert not store.capabilities.erasable
        for write in (
            lambda: store.__setitem__("a/0", b"new"),
            lambda: store.setitems({"c": b"new"}),
            lambda: store.__delitem__("a/0"),
            lambda: store.delitems(["a/0"]),
            lambda: store.rmdir("a"),
            lambda: store.rename("a", "c"),
            lambda: store.clear(),
        ):
            with pytest.raises((ReadOnlyError, UnsupportedOperation)):
                write()
    assert (tmp_path / "files" / "a" / "0").read_bytes() == KEPT["a/0"]


@pytest.mark.parametrize("chain", ["", "simplecache::", "filecache::", "blockcache::"])
@pytest.mark.parametrize("failure", [None, 403, 500])
def test_a_server_that_is_down_or_fails_is_never_absence(chain, failure, tmp_path):
    class Failing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404 if self.path.endswith("none") else failure)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        if failure is not None:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        else:
            server.server_close()  # nobody listens there now
        url = f"{chain}http://127.0.0.1:{server.server_port}/x.zarr"
        options = {chain[:-2]: {"cache_storage": str(tmp_path / "copies")}} if chain else {}
        store = FSStore(url, mode="r", **options)
        for ask in (
            lambda: store["a/0"],
            lambda: store.get("a/0"),
            lambda: "a/0" in store,
            lambda: dict(store.getitems(["a/0", "a/1"])),
            lambda: store.getrange("a/0", 0, 3),
            lambda: store.getsuffix("a/0", 3),
            lambda: store.getsize("a/0"),
        ):
            with pytest.raises(StoreReadError):
                ask()
        if failure is not None:
            assert ("none" in store, store.get("none"), dict(store.getitems(["none"]))) == (False, None, {})
            server.shutdown()


def test_blocks_kept_of_files_in_memory_are_refused_in_words_and_never_wrong(tmp_path):
    memory = FSStore(f"memory://{uuid.uuid4().hex}")
    memory.setitems(KEPT)
    with FSStore(f"blockcache::{memory.url}", blockcache={"cache_storage": str(tmp_path / "copies")}) as store:
        with pytest.raises(StoreReadError, match="blocksize"):
            store["a/0"]
        assert sorted(store) == sorted(KEPT)


@pytest.mark.parametrize("failure", [RuntimeError("dictionary changed size during iteration"), KeyError("/x")])
def test_a_listing_of_files_in_memory_that_change_meanwhile_is_made_again(failure, monkeypatch):
    store = FSStore(f"memory://{uuid.uuid4().hex}")
    store["a/0"] = b"1"
    failures, find = [failure] * 2, store.fs.find

    def find_later(*args, **kwargs):
        if failures:
            raise failures.pop()
        return find(*args, **kwargs)

    monkeypatch.setattr(store.fs, "find", find_later)
    assert list(store) == ["a/0"]
    failures[:] = [failure] * 100
    with pytest.raises(StoreReadError):
        list(store)
