"""Stores of one file at a URL: told by their content, read by ranges or through a local copy, never opened as empty."""

from __future__ import annotations

import logging
import os
import uuid
import zipfile
from pathlib import Path

import pytest

import zarrstore
from zarrstore import LMDBStore, ReadOnlyStore, SQLiteStore, ZipStore, open_store, remotefile
from zarrstore.errors import DamagedStoreError, ReadOnlyError, StoreNotFoundError, StoreReadError, UnsupportedOperation
from zarrstore.testing import CountingStore

V2 = Path(__file__).parent / "data" / "v2"
KINDS = {"legacy.zip": ZipStore, "legacy.lmdb/data.mdb": LMDBStore, "legacy.sqlite": SQLiteStore}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZARRSTORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def memory():
    """Yield ``put(name, data) -> URL`` of a file in fsspec's memory."""
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install zarrstore[fsspec]")
    root = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")

    def put(name, data):
        fs.pipe_file(f"{root}/{name}", data)
        return f"memory:/{root}/{name}"

    yield put
    fs.rm(root, recursive=True)


def inside(store):
    return type(store.inner if isinstance(store, ReadOnlyStore) else store)


@pytest.fixture(scope="module")
def items():
    with open_store(V2 / "legacy.zarr", mode="r") as store:
        return dict(store)


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_at_a_url_is_opened_as_what_it_is_and_to_read_only(memory, items, name, mode):
    url = memory(name.rpartition("/")[2], (V2 / name).read_bytes())
    with open_store(url, mode=mode) as store:
        assert inside(store) is KINDS[name]
        assert dict(store) == items
        with pytest.raises(ReadOnlyError):
            store["new"] = b""


@pytest.mark.parametrize("name", KINDS)
def test_its_content_tells_whatever_it_is_called(memory, items, name):
    for other in ("data", "lying.zip", "lying.sqlite"):
        with open_store(memory(other, (V2 / name).read_bytes()), mode="r") as store:
            assert inside(store) is KINDS[name]
            assert len(store) == len(items)


@pytest.mark.parametrize("name", KINDS)
def test_a_web_server_will_do(nginx, items, name):
    server = nginx(V2)
    with open_store(f"{server.url}/{name}") as store:
        assert inside(store) is KINDS[name]
        assert dict(store) == items


@pytest.mark.parametrize("mode", ["r", "a"])
def test_its_content_tells_where_nothing_can_be_listed_and_in_every_mode(nginx, http_server, memory, tmp_path, mode):
    for name in KINDS:
        data = (V2 / name).read_bytes()
        for other in ("data", "x.bin"):
            (tmp_path / other).write_bytes(data)
            for url in (f"{nginx(tmp_path).url}/{other}", f"{http_server(tmp_path)}/{other}", memory(other, data)):
                with open_store(url, mode=mode) as store:
                    assert inside(store) is KINDS[name], url
                    assert len(store) == 89


def test_a_look_for_a_file_is_one_request_and_none_for_what_is_named_as_a_hierarchy(nginx, proxy, tmp_path):
    for name in ("plain", "x.zarr", "x.n5"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".zgroup").write_bytes(b'{"zarr_format": 2}')
    counted = proxy(nginx(tmp_path).url)
    for name, most in (("plain", 2), ("x.zarr", 0), ("plain/", 0)):  # 2: nginx redirects to the directory
        counted.reset()
        with open_store(f"{counted.url}/{name}", mode="r") as store:
            assert len(counted.requests) <= most
            assert store[".zgroup"]


@pytest.mark.parametrize("entries", [50, 30_000])
def test_an_archive_at_a_url_takes_three_requests_to_open_and_one_a_chunk(nginx, proxy, tmp_path, entries):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for n in range(entries):
            archive.writestr(f"group/array/{n:06d}", bytes([n % 256]) * 20)
    counted = proxy(nginx(tmp_path).url)
    with open_store(f"{counted.url}/a.zip") as store:
        assert len(counted.requests) <= 3
        assert len(store) == entries
        assert len(counted.requests) <= 3
        before = len(counted.requests)
        assert store["group/array/000007"] == b"\7" * 20
        assert len(counted.requests) == before + 1
        before = len(counted.requests)
        keys = [f"group/array/{n:06d}" for n in range(10, 30)]
        assert dict(store.getitems(keys)) == {key: bytes([int(key[-6:])]) * 20 for key in keys}
        assert len(counted.requests) == before + 1  # they lie side by side


@pytest.mark.parametrize("mode", ["r+", "w", "w-"])
def test_it_is_not_changed_at_its_url(memory, mode):
    url = memory("a.zip", (V2 / "legacy.zip").read_bytes())
    with pytest.raises(UnsupportedOperation, match="change a local copy, then upload that"):
        open_store(url, mode=mode)
    assert len(open_store(url, mode="r")) == 89


@pytest.mark.parametrize("suffix", [".zip", ".ozx", ".lmdb", ".sqlite", ".db"])
def test_where_nothing_is_nothing_is_opened_as_empty(memory, http_server, tmp_path, suffix):
    url = memory("other", b"x").replace("other", f"missing{suffix}")
    web = f"{http_server(tmp_path)}/missing{suffix}"
    for target in (url, web):
        with pytest.raises(StoreNotFoundError):
            open_store(target, mode="r")
    for mode in ("a", "w"):
        with pytest.raises(UnsupportedOperation, match="make it in a local file"):
            open_store(url, mode=mode)


def test_a_folder_may_be_named_as_an_archive(memory):
    url = memory("folder.zip/a/b", b"1").removesuffix("/a/b")
    with open_store(url, mode="r") as store:
        assert dict(store) == {"a/b": b"1"}


def test_a_file_that_is_no_archive_is_damaged_and_not_empty(memory):
    with pytest.raises(DamagedStoreError):
        open_store(memory("junk.zip", b"no archive at all" * 20), mode="r")


# Local copies -------------------------------------------------------------------------------------------------------


class Versioned(CountingStore):
    """A store that tells an identity of its values: their content."""

    def _entry(self, key):
        return super()._entry(key)._replace(identity=str(hash(self.inner._get(key))))


def a_file(store, name="a.sqlite"):
    found = remotefile.find(f"test://bucket/{name}", lambda url: store)
    assert found is not None
    return found


def database(tmp_path, **values):
    path = tmp_path / f"{uuid.uuid4().hex}.sqlite"
    with SQLiteStore(path) as store:
        store.update({key: value.encode() for key, value in values.items()})
    return path.read_bytes()


def test_a_copy_is_made_once_and_again_when_the_file_changed(tmp_path, caplog):
    def notices() -> int:
        # Threads of other tests may log meanwhile.
        return sum(record.name.startswith("zarrstore") for record in caplog.records)

    store = Versioned({"a.sqlite": database(tmp_path, a="1")})
    with caplog.at_level(logging.WARNING, "zarrstore"):
        first = remotefile.local_copy(a_file(store))
        assert notices() == 1
        assert remotefile.local_copy(a_file(store)) == first
        assert notices() == 1
        store["a.sqlite"] = database(tmp_path, a="2")
        second = remotefile.local_copy(a_file(store))
    assert notices() == 2
    assert second != first
    assert not Path(first).exists()  # one version is kept
    assert dict(SQLiteStore(second)) == {"a": b"2"}


def test_a_copy_of_what_a_web_server_has_is_made_once_and_again_when_its_etag_changed(nginx, proxy, tmp_path, caplog):
    place = tmp_path / "x.sqlite"
    place.write_bytes((V2 / "legacy.sqlite").read_bytes())
    os.utime(place, (10**9, 10**9))  # of which nginx makes its ETag, with the size
    counted = proxy(nginx(tmp_path).url)

    def copies():
        caplog.clear()
        with open_store(f"{counted.url}/x.sqlite", mode="r") as store:
            assert len(store) == 89
        return [record.getMessage() for record in caplog.records if "copying" in record.getMessage()]

    assert len(copies()) == 1
    counted.reset()
    assert copies() == []
    assert len(counted.requests) <= 2  # its head and its ETag
    with SQLiteStore(place) as store:
        store["t"] = b"1"
        del store["t"]
    os.utime(place, (10**9 + 5, 10**9 + 5))
    assert len(copies()) == 1


def test_a_directory_of_lmdb_at_a_url_is_opened_through_a_copy_of_its_file(nginx, http_server, memory, items):
    memory_url = memory("legacy.lmdb/data.mdb", (V2 / "legacy.lmdb/data.mdb").read_bytes()).removesuffix("/data.mdb")
    for url in (f"{nginx(V2).url}/legacy.lmdb", f"{http_server(V2)}/legacy.lmdb/", memory_url):
        with open_store(url, mode="r") as store:
            assert inside(store) is LMDBStore
            assert dict(store) == items


def test_without_an_identity_it_is_copied_each_time_and_so_never_stale(tmp_path):
    store = CountingStore({"a.sqlite": database(tmp_path, a="1")})
    path = remotefile.local_copy(a_file(store))
    store["a.sqlite"] = database(tmp_path, a="2")
    assert dict(SQLiteStore(remotefile.local_copy(a_file(store)))) == {"a": b"2"}
    assert path


def test_a_file_that_changes_or_ends_while_it_is_copied_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    data = database(tmp_path, a="1")

    class Changing(Versioned):
        def _get_range(self, key, start, stop):
            if stop > 64:
                self.inner[key] = data + b"more"
            return super()._get_range(key, start, stop)

    class Ending(Versioned):
        def _get_range(self, key, start, stop):
            return b"" if start >= 4096 else super()._get_range(key, start, min(stop, 4096))

    for cls, reason in ((Changing, "changed while"), (Ending, "ended while")):
        with pytest.raises(StoreReadError, match=reason):
            remotefile.local_copy(a_file(cls({"a.sqlite": data})))
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_large_files_are_copied_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(remotefile, "_STEP", 1000)
    store = Versioned({"a.sqlite": database(tmp_path, a="1" * 5000)})
    assert Path(remotefile.local_copy(a_file(store))).read_bytes() == store["a.sqlite"]
    assert store.calls["_get_range"] > 5


def test_the_cache_is_where_it_is_said(tmp_path, monkeypatch):
    assert remotefile.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ZARRSTORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert remotefile.cache_folder() == tmp_path / "xdg" / "zarrstore"


def test_a_url_without_a_directory_above_is_no_file():
    assert remotefile.find("s3://bucket", lambda url: zarrstore.DictStore()) is None
    assert remotefile.find("s3://bucket/..", lambda url: zarrstore.DictStore()) is None


@pytest.mark.parametrize("cache", ["simplecache", "filecache", "blockcache", "simplecache::blockcache"])
def test_a_file_behind_a_cache_of_fsspec_is_opened_as_what_it_is(tmp_path, items, cache):
    from zarrstore import ZipStore, open_store

    with ZipStore(tmp_path / "x.zip", mode="w") as archive:
        archive.update(items)
    with open_store(f"{cache}::{(tmp_path / 'x.zip').as_uri()}", mode="r") as store:
        assert dict(store) == items
