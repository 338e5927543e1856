"""LMDBStore: its file, its map, its keys and its ranges. What several processes see is in test_lmdb_sharing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import lmdb
import numpy as np
import pytest

from tests.support import peers
from tests.support.world import run_readonly
from zarrstore.errors import (
    ClosedStoreError,
    DamagedStoreError,
    InvalidKeyError,
    ReadOnlyError,
    StoreNotFoundError,
)
from zarrstore.stores import _files
from zarrstore.stores.lmdb import LMDBStore, environments
from zarrstore.testing import StoreConformance

DATA = Path(__file__).parent.parent / "data" / "v2"
MANIFEST = json.loads((DATA / "manifest.json").read_text())["keys"]


class TestLMDBStore(StoreConformance):
    def make_store(self, tmp_path):
        return LMDBStore(tmp_path / "data.lmdb")

    def reopen(self, store, tmp_path):
        store.close()
        return LMDBStore(tmp_path / "data.lmdb")


class TestLMDBStoreInOneFile(StoreConformance):
    checks_processes = False
    examples = 5

    def make_store(self, tmp_path):
        return LMDBStore(tmp_path / "data.lmdb", subdir=False)


@pytest.fixture
def store(tmp_path):
    with LMDBStore(tmp_path / "data.lmdb") as opened:
        yield opened


def _sums(store):
    return {key: hashlib.sha256(store[key]).hexdigest() for key in store}


# Files of zarr 2 ----------------------------------------------------------------------------------------------------


def test_what_zarr_2_wrote_opens_with_every_key(tmp_path):
    shutil.copytree(DATA / "legacy.lmdb", tmp_path / "legacy.lmdb")
    with LMDBStore(tmp_path / "legacy.lmdb") as store:
        assert len(store) == 89
        assert _sums(store) == MANIFEST


def test_a_data_file_opens_by_itself(tmp_path):
    shutil.copy(DATA / "legacy.lmdb" / "data.mdb", tmp_path / "legacy.mdb")
    with LMDBStore(tmp_path / "legacy.mdb") as store:
        assert _sums(store) == MANIFEST
    assert sorted(os.listdir(tmp_path)) == ["legacy.mdb", "legacy.mdb-lock"]


@pytest.mark.needs_peer("zarr2")
def test_zarr_2_reads_what_this_writes_and_this_reads_what_zarr_2_adds(tmp_path):
    shutil.copytree(DATA / "legacy.lmdb", tmp_path / "legacy.lmdb")
    with LMDBStore(tmp_path / "legacy.lmdb") as old, LMDBStore(tmp_path / "new.lmdb") as new:
        new.update(old)
    answer = peers.run(
        "zarr2",
        """
        import hashlib, json, sys, warnings
        import zarr
        warnings.simplefilter("ignore")
        store = zarr.LMDBStore(sys.argv[1])
        sums = {key: hashlib.sha256(store[key]).hexdigest() for key in store}
        group = zarr.open(store, mode="a")
        values = group["ocean/surface/temperature"][:].tolist()
        group.array("added", [1, 2, 3], chunks=2)
        store.flush()
        store.close()
        print(json.dumps([zarr.__version__, sums, values]))
        """,
        tmp_path / "new.lmdb",
        checkout=False,
    )
    assert answer[0] == "2.18.7"
    assert answer[1] == MANIFEST
    expected = np.load(DATA / "expected" / "ocean__surface__temperature.npy")
    np.testing.assert_array_equal(np.array(answer[2]), expected)
    with LMDBStore(tmp_path / "new.lmdb") as store:
        assert store.listdir("added") == [".zarray", "0", "1"]
        assert {key: value for key, value in _sums(store).items() if key in MANIFEST} == MANIFEST


def test_a_read_only_file_system_is_opened_for_reading():
    out = run_readonly(
        """
        import hashlib, json, os
        from pathlib import Path
        import tests
        from zarrstore.errors import ReadOnlyError
        from zarrstore.stores.lmdb import LMDBStore

        place = Path(tests.__file__).parent / "data" / "v2" / "legacy.lmdb"
        out = []
        for options in ({}, {"readonly": True}):
            with LMDBStore(place, **options) as store:
                try:
                    store["a"] = b""
                except ReadOnlyError:
                    out.append([store.capabilities.writable, {k: hashlib.sha256(store[k]).hexdigest() for k in store}])
        out.append(sorted(os.listdir(place)))
        print(json.dumps(out))
        """
    )
    assert out == [[False, MANIFEST], [False, MANIFEST], ["data.mdb"]]


# Opening ------------------------------------------------------------------------------------------------------------


def test_missing_directories_are_made_and_the_file_is_whole_at_once(tmp_path):
    with LMDBStore(tmp_path / "a" / "b" / "c.lmdb") as store:
        store["x"] = b"1"
    assert sorted(os.listdir(tmp_path / "a" / "b" / "c.lmdb")) == ["data.mdb", "lock.mdb"]


def test_the_file_is_as_long_as_what_was_written(store):
    store["foo"] = b"1"
    assert os.path.getsize(store.path + "/data.mdb") < 50_000  # zarr 2: 1 TiB


@pytest.mark.parametrize("options", [{"readonly": True}, {"create": False}], ids=str)
def test_what_is_not_there_is_not_made_for_a_reader(tmp_path, options):
    with pytest.raises(StoreNotFoundError, match=r"no store at .*nothing"):
        LMDBStore(tmp_path / "nothing", **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"x", b"hello world" * 1000, bytes(8192)], ids=len)
def test_a_foreign_file_never_opens(tmp_path, content):
    for place in (tmp_path / "alone.mdb", tmp_path / "d" / "data.mdb"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
        with pytest.raises(DamagedStoreError, match=r"\.mdb"):
            LMDBStore(place.parent if place.name == "data.mdb" else place)
        assert place.read_bytes() == content


def test_a_directory_of_other_things_never_opens_as_an_empty_store(tmp_path):
    (tmp_path / ".zgroup").write_bytes(b"{}")
    with pytest.raises(DamagedStoreError, match=r"holds '\.zgroup'"):
        LMDBStore(tmp_path)
    assert os.listdir(tmp_path) == [".zgroup"]


def test_a_truncated_file_is_refused_and_does_not_end_the_process(tmp_path):
    with LMDBStore(tmp_path / "a") as store:
        store.update({f"k/{i}": bytes([i]) * 5000 for i in range(100)})
    whole = (tmp_path / "a" / "data.mdb").read_bytes()
    (tmp_path / "b").mkdir()
    for pages in range(2, len(whole) // 4096, 9):
        (tmp_path / "b" / "data.mdb").write_bytes(whole[: pages * 4096])
        with pytest.raises(DamagedStoreError, match="truncated"):
            LMDBStore(tmp_path / "b")


def test_a_file_whose_last_pages_were_freed_before_they_were_written_is_not_damaged(tmp_path):
    short = 0
    for seed in range(30):
        chance = np.random.default_rng(seed)
        place = str(tmp_path / str(seed))
        with lmdb.open(place, map_size=1 << 28, sync=False) as env:
            for _ in range(20):
                with env.begin(write=True) as txn:
                    for _ in range(20):
                        txn.put(b"k%d" % chance.integers(50), bytes(int(chance.integers(60_000))))
                        txn.delete(b"k%d" % chance.integers(50))
            expected = env.stat()["entries"]
            short += os.path.getsize(place + "/data.mdb") < (env.info()["last_pgno"] + 1) * 4096
        with LMDBStore(place) as store:
            assert len(store) == expected
            assert sum(map(len, store.values())) >= 0
    assert short > 0, "no file was short: this test shows nothing"


def test_an_unknown_option_is_named(tmp_path):
    with pytest.raises(TypeError, match="mapsize"):
        LMDBStore(tmp_path / "a", mapsize=1)
    assert os.listdir(tmp_path) == []


def test_files_obey_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        LMDBStore(tmp_path / "a").close()
    finally:
        os.umask(old)
    assert [os.stat(tmp_path / "a" / name).st_mode & 0o777 for name in ("data.mdb", "lock.mdb")] == [0o640, 0o640]


# Values and keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffers", [True, False])
def test_a_value_stays_what_it_was_when_read(tmp_path, buffers):
    with LMDBStore(tmp_path / "a", buffers=buffers) as store:
        store["k"] = b"A" * 20
        held = store["k"], store.getrange("k", 2, 4), store.getsuffix("k", 3)
        for letter in b"BCDEFG":
            store["k"] = bytes([letter]) * 20
    assert held == (b"A" * 20, b"AA", b"AAA")
    assert all(type(value) is bytes for value in held)


def test_a_key_has_at_most_511_bytes(store):
    longest, long = "k" * 511, "é" * 256
    store[longest] = b"1"
    store["short"] = b"2"
    for write in (lambda: store.__setitem__(long, b""), lambda: store.setitems([("a", b"a"), (long, b"")])):
        with pytest.raises(InvalidKeyError, match="at most 511 bytes, and this has 512"):
            write()
    with pytest.raises(InvalidKeyError, match="511"):
        store.rename("short", "d/" * 300 + "d")
    assert long not in store
    assert store.get(long) is None
    assert store.listdir(long) == []
    assert store.getsize(long) == 0
    store.rmdir(long)
    store.delitems([long])
    with pytest.raises(KeyError):
        del store[long]
    assert dict(store) == {longest: b"1", "short": b"2"}


def test_a_failed_rename_leaves_every_key_where_it_was(store):
    before = {f"foo/{'n' * length}": b"v" for length in (1, 100, 400)}
    store.update(before)
    with pytest.raises(InvalidKeyError):
        store.rename("foo", "b" * 200)
    assert dict(store) == before


def test_names_that_are_no_keys_are_not_listed(tmp_path):
    names = [
        b"\xff\xfe",
        b"../x",
        b"only/\xff/x",
        b"only//y",
        b"/etc",
        b"a//b",
        b"a/b",
        b"a/\xff",
        b"c\\d",
        b"./y",
        b"e/../f",
        "é/x".encode(),
    ]
    with lmdb.open(str(tmp_path / "a")) as env, env.begin(write=True) as txn:
        for name in names:
            txn.put(name, b"1")
    with LMDBStore(tmp_path / "a") as store:
        assert sorted(store) == ["a/b", "é/x"]
        assert store.listdir("a") == ["b"]
        assert store.listdir() == ["a", "é"]
        assert len(store) == 2
        assert [entry[:2] for entry in store._details("")] == [("a/b", 1), ("é/x", 1)]
        store["c"] = b"1"
        assert len(store) == 3
        del store["c"]
        assert "../x" not in store
        store.rename("a", "moved")
        assert sorted(store) == ["moved/b", "é/x"]
        store.clear()
        assert list(store) == []
    with lmdb.open(str(tmp_path / "a")) as env:
        assert env.stat()["entries"] == 0


def test_len_looks_at_every_name_once_and_again_after_another_program_wrote(tmp_path, monkeypatch):
    with lmdb.open(str(tmp_path / "a")) as env, env.begin(write=True) as txn:
        for n in range(3000):
            txn.put(b"k%d" % n, b"1")
        txn.put(b"../x", b"1")
    with LMDBStore(tmp_path / "a") as store:
        scans = []
        read = environments.SharedEnvironment.read
        monkeypatch.setattr(
            environments.SharedEnvironment, "read", lambda self, *args, **kw: scans.append(1) or read(self, *args, **kw)
        )
        assert len(store) == 3000
        assert len(scans) >= 4
        for change, count in (
            (lambda: store.update({"new": b"1", "k1": b"2"}), 3001),
            (lambda: store.pop("k5"), 3000),
            (lambda: store.delitems(["absent", "k6"]), 2999),
            (lambda: None, 2999),
        ):
            change()
            scans.clear()
            assert len(store) == count
            assert len(scans) == 1
        script = """
        import lmdb, sys
        with lmdb.open(sys.argv[1]) as env, env.begin(write=True) as txn:
            txn.put(b"/y", b"1")
            txn.put(b"y", b"1")
        """
        peers.run("self", script, tmp_path / "a")
        assert len(store) == len(list(store)) == 3000
        store.rmdir()
        assert len(store) == 0


def test_names_on_either_side_of_the_slash_do_not_mix(store):
    store.update(
        dict.fromkeys(("foo", "foo-", "foo.bar", "foo.bar/x", "foo/x", "foo/y/z", "foo0", "foobar/x"), b"12345")
    )
    assert store.listdir() == ["foo", "foo-", "foo.bar", "foo0", "foobar"]
    assert store.listdir("foo") == ["x", "y"]
    assert sorted(store.keys_below("foo")) == ["foo/x", "foo/y/z"]
    assert (store.getsize(), store.getsize("foo/y"), store.getsize("foobar")) == (20, 5, 5)
    store.rmdir("foo")
    assert sorted(store) == ["foo", "foo-", "foo.bar", "foo.bar/x", "foo0", "foobar/x"]


def test_listing_the_root_skips_what_is_below(store, monkeypatch):
    store.setitems((f"array/{i}", b"") for i in range(3000))
    store["zebra"] = b"1"
    moves = []
    monkeypatch.setattr(environments.SharedEnvironment, "read", _counting(environments.SharedEnvironment.read, moves))
    assert store.listdir() == ["array", "zebra"]
    assert store.getsize() == 1
    assert len(moves) < 20


def _counting(read, moves):
    """Put a list between the work and its cursors, in which every move is noted."""

    class Cursor:
        def __init__(self, cursor):
            self.cursor = cursor

        def __getattr__(self, name):
            moves.append(name)
            return getattr(self.cursor, name)

    class Txn:
        def __init__(self, txn):
            self.txn = txn

        def cursor(self):
            return Cursor(self.txn.cursor())

        def __getattr__(self, name):
            return getattr(self.txn, name)

    return lambda self, work, buffers=False: read(self, lambda txn: work(Txn(txn)), buffers)


def test_a_long_listing_meets_every_key_once(store):
    names = {f"d{i % 1500}/{i}" for i in range(4000)} | {f"v{i}" for i in range(2500)}
    store.setitems((name, b"1") for name in names)
    assert sorted(store) == sorted(names)
    assert store.listdir() == sorted({f"d{i}" for i in range(1500)} | {f"v{i}" for i in range(2500)})
    assert store.getsize() == 2500


def test_a_listing_goes_on_while_keys_come_and_go(store):
    store.setitems((f"k{i:05}", b"1") for i in range(3500))
    seen = []
    for key in store:
        seen.append(key)
        if len(seen) in (900, 1000, 1001, 2000):
            store.delitems([key])
            store["k00000-new"] = b"behind"
            store["z"] = b"ahead"
    assert [key for key in seen if key != "z"] == [f"k{i:05}" for i in range(3500)]
    assert seen[-1] == "z"


# The map ------------------------------------------------------------------------------------------------------------


def test_the_map_grows_from_1_to_200_megabytes_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with LMDBStore(tmp_path / "a") as store:
            store["first"] = b"1" * (1 << 20)
            for i in range(50):
                store[f"one/{i}"] = bytes([i]) * (1 << 20)
            store.setitems((f"many/{i}", bytes([i]) * (1 << 20)) for i in range(100))
            store["large"] = b"l" * (50 << 20)
            assert store["first"] == b"1" * (1 << 20)
            assert [store[f"many/{i}"][-1] for i in range(100)] == list(range(100))
            assert len(store["large"]) == 50 << 20
        with LMDBStore(tmp_path / "a") as store:
            assert len(store) == 152
    shutil.rmtree(tmp_path / "a")


def test_a_map_size_is_a_limit_and_says_so(tmp_path):
    before = {"foo/a": b"a" * 600_000}
    with LMDBStore(tmp_path / "a", map_size=1 << 20) as store:
        store.update(before)
        for write in (
            lambda: store.__setitem__("foo/a", b"b" * 600_000),
            lambda: store.setitems({"foo/a": b"b", "foo/b": b"b" * 900_000}),
            lambda: store.rename("foo", "bar"),
        ):
            with pytest.raises(OSError, match=r"is full: map_size=1,048,576 bytes is the limit") as caught:
                write()
            assert caught.value.errno == errno.ENOSPC
            assert dict(store) == before
        del store["foo/a"]
        store["small"] = b"1"  # LMDB uses a freed page again from the second commit on
        store["foo/b"] = b"c" * 600_000


def test_a_system_without_address_space_leaves_the_store_as_it_is(tmp_path):
    answer = peers.run(
        "self",
        """
        import json, resource, sys
        from zarrstore.stores.lmdb import LMDBStore
        store = LMDBStore(sys.argv[1])
        store["a"] = b"a" * 1000
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), used + (40 << 20)))
        value = b"b" * (4 << 20)
        answer = []
        for i in range(30):
            try:
                store[f"b{i}"] = value
            except OSError as exc:
                answer = [i, exc.errno, str(exc)]
                break
        store["c"] = b"c"
        print(json.dumps([answer, sorted(store), store["a"] == b"a" * 1000, store["b0"] == value]))
        """,
        tmp_path / "a",
    )
    (count, code, message), keys, *right = answer
    assert code == errno.ENOMEM
    assert "address space" in message
    assert keys == sorted(["a", "c", *(f"b{i}" for i in range(count))])
    assert right == [True, True]


def test_an_unfinished_listing_keeps_no_dead_pages(store):
    store.setitems((f"k{i}", b"1") for i in range(2000))
    listing = iter(store)
    next(listing)
    for _ in range(40):
        store["big"] = os.urandom(200_000)
    assert os.path.getsize(store.path + "/data.mdb") < 1_500_000  # zarr 2: 32.8 MB
    assert len(list(listing)) >= 1999


def test_many_unfinished_listings_take_no_reader_slots(store):
    store.update({"a": b"1", "b": b"2"})
    listings = [iter(store) for _ in range(2000)]
    assert [next(listing) for listing in listings] == ["a"] * 2000


def test_a_batch_may_be_made_from_the_store_itself(store):
    store.update({f"a/{i}": bytes([i]) * 3000 for i in range(100)})

    def doubled():
        for key in store.keys_below("a"):
            store["last"] = key.encode()
            yield f"b/{key}", store[key] * 2

    store.setitems(doubled())
    assert {key: value for key, value in store.items() if key != "last"} == {
        **{f"a/{i}": bytes([i]) * 3000 for i in range(100)},
        **{f"b/a/{i}": bytes([i]) * 6000 for i in range(100)},
    }


def test_a_batch_is_written_in_transactions_of_about_a_megabyte(store):
    def transactions(items):
        before = store._env.env.info()["last_txnid"]
        store.setitems(items)
        return store._env.env.info()["last_txnid"] - before

    assert transactions({f"small/{i}": b"1" for i in range(900)}) == 1
    assert transactions({f"large/{i}": bytes(1 << 16) for i in range(64)}) == 4
    assert transactions({f"huge/{i}": bytes(2 << 20) for i in range(3)}) == 3


# Compaction ---------------------------------------------------------------------------------------------------------


def test_compact_gives_dead_pages_back(tmp_path, store):
    os.chmod(store.path + "/data.mdb", 0o640)
    store.setitems((f"k{i}", bytes(10_000)) for i in range(500))
    store.delitems(f"k{i}" for i in range(5, 500))
    before = dict(store)
    with LMDBStore(store.path) as other:
        freed = store.compact()
        assert freed > 4_000_000
        assert dict(store) == dict(other) == before
        other["new"] = b"1"
    assert store["new"] == b"1"
    assert os.path.getsize(store.path + "/data.mdb") < 300_000
    assert os.stat(store.path + "/data.mdb").st_mode & 0o777 == 0o640
    assert sorted(os.listdir(store.path)) == ["data.mdb", "lock.mdb"]
    with LMDBStore(store.path) as again:
        assert again["new"] == b"1"


def test_a_compaction_that_fails_changes_nothing(store, monkeypatch):
    store.update({f"k{i}": bytes(10_000) for i in range(50)})
    before = dict(store)

    def fail(*args):
        raise OSError(errno.EIO, "the disk is tired")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="tired"):
            store.compact()
    assert sorted(os.listdir(store.path)) == ["data.mdb", "lock.mdb"]
    assert dict(store) == before
    store["works"] = b"1"
    assert store.compact() >= 0
    assert dict(store) == {**before, "works": b"1"}


# Life ---------------------------------------------------------------------------------------------------------------


def test_describe_tells_live_from_dead(store):
    store["a"] = b"a" * 100_000
    full = store.describe()
    del store["a"]
    empty = store.describe()
    assert full["implementation"].startswith("LMDB 0.9")
    assert (full["entries"], empty["entries"]) == (1, 0)
    assert full["live_bytes"] > 100_000 > 20_000 > empty["live_bytes"]
    assert empty["dead_bytes"] > 100_000
    assert full["map_size"] == 16 << 20


def test_a_closed_store_says_so_whatever_is_asked(tmp_path):
    store = LMDBStore(tmp_path / "a")
    store["a"] = b"1"
    listing = iter(store)
    store.close()
    store.close()
    for use in (
        lambda: store["a"],
        lambda: "a" in store,
        lambda: store.__setitem__("a", b""),
        lambda: store.setitems({"a": b""}),
        lambda: store.pop("a"),
        lambda: list(store),
        lambda: next(listing),
        lambda: len(store),
        store.listdir,
        store.getsize,
        store.clear,
        store.flush,
        store.describe,
        store.compact,
        lambda: store.getrange("a", 0),
    ):
        with pytest.raises(ClosedStoreError, match="open it again"):
            use()


def test_a_read_only_store_refuses_every_write(tmp_path):
    with LMDBStore(tmp_path / "a") as store:
        store["a"] = b"1"
    with LMDBStore(tmp_path / "a", readonly=True) as store:
        for write in (
            lambda: store.__setitem__("a", b""),
            lambda: store.setitems({"a": b""}),
            lambda: store.__delitem__("a"),
            lambda: store.delitems(["a"]),
            lambda: store.rename("a", "b"),
            lambda: store.rmdir(),
            store.clear,
            store.compact,
        ):
            with pytest.raises(ReadOnlyError, match="is read-only"):
                write()
        store.flush()
        assert dict(store) == {"a": b"1"}


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(store):
    left = peers.run("self", "from zarrstore.stores._files import temporary_name as t; print(f'\"{t()}\"')")
    ours = _files.temporary_name()
    for name in (left, ours):
        Path(store.path, name).write_bytes(b"")
    assert store.sweep(dry_run=True) == [left]
    assert store.sweep() == [left]
    assert sorted(os.listdir(store.path)) == sorted([ours, "data.mdb", "lock.mdb"])
    store["a"] = b"1"
    assert store.sweep("a") == []
