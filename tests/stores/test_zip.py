"""ZipStore as a store: the suite, and what is its own."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support import histories, peers
from tests.support.descriptors import files_open_below
from zarrstore.errors import (
    ClosedStoreError,
    InvalidKeyError,
    LockedStoreError,
    ReadOnlyError,
    StoreNotFoundError,
    UnsupportedOperation,
    ValueTooLargeError,
)
from zarrstore.stores.zip import ZipStore
from zarrstore.stores.zip import file as zip_file
from zarrstore.stores.zip import format as fmt
from zarrstore.testing import StoreConformance, tree

DATA = Path(__file__).parent.parent / "data" / "v2"


class TestZipStore(StoreConformance):
    def make_store(self, tmp_path: Path) -> Any:
        return ZipStore(tmp_path / "a.zip", mode="w")

    def reopen(self, store: Any, tmp_path: Path) -> Any:
        store.close()
        return ZipStore(tmp_path / "a.zip")


class TestPackedZipStore(TestZipStore):
    examples = 5

    def make_store(self, tmp_path: Path) -> Any:
        return ZipStore(tmp_path / "a.zip", mode="w", compression=8)


class TestReadingZipStore(StoreConformance):
    """Open for reading, in which every write is refused."""

    def make_store(self, tmp_path: Path) -> Any:
        return self.make_filled(tmp_path, {})

    def make_filled(self, tmp_path: Path, items: Any) -> Any:
        with ZipStore(tmp_path / "a.zip", mode="w") as store:
            store.update(items)
        return ZipStore(tmp_path / "a.zip", mode="r")


class TestWithoutPositionedCalls(TestZipStore):
    """As on Windows, which seeks and then reads."""

    examples = 5

    @pytest.fixture(autouse=True)
    def _no_positioned_calls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from zarrstore.stores.zip import archive as zip_archive
        from zarrstore.stores.zip import writer as zip_writer

        for name in ("pwritev", "posix_fallocate"):
            monkeypatch.delattr(os, name)
        for module in (zip_file, zip_archive, zip_writer):
            for name in ("pread", "pwrite"):
                if hasattr(module, name):
                    seeking = "_seek_and_read" if name == "pread" else "_seek_and_write"
                    monkeypatch.setattr(module, name, getattr(zip_file, seeking))


def names_of(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


# What others read and write ------------------------------------------------------------------------------------------


def test_an_archive_of_zarr_2_has_every_value_it_had(tmp_path):
    shutil.copy(DATA / "legacy.zip", tmp_path)
    expected = json.loads((DATA / "manifest.json").read_text())["keys"]
    for mode in ("r", "a"):
        with ZipStore(tmp_path / "legacy.zip", mode=mode) as store:
            assert {key: hashlib.sha256(value).hexdigest() for key, value in store.items()} == expected
            assert len(store) == 89
            assert store.root == ""
    assert (tmp_path / "legacy.zip").read_bytes() == (DATA / "legacy.zip").read_bytes()


@pytest.mark.parametrize("compression", [0, 8, 12, 14])
def test_zarr_2_and_zipfile_read_what_is_written_here(tmp_path, compression):
    path = tmp_path / "new.zip"
    with ZipStore(DATA / "legacy.zip", mode="r") as old, ZipStore(path, compression=compression) as new:
        new.update(old)
        for key in (".zgroup", "ocean/.zgroup"):
            new[key] = old[key]
        new["gone"] = b"x"
        del new["gone"]
        expected = {key: hashlib.sha256(value).hexdigest() for key, value in old.items()}
    assert sorted(names_of(path)) == sorted(expected)
    script = """
        import hashlib, json, sys, warnings
        warnings.simplefilter("ignore")
        import numpy as np, zarr
        store = zarr.ZipStore(sys.argv[1], mode="r")
        new, old = zarr.open(store, mode="r"), zarr.open(zarr.ZipStore(sys.argv[2], mode="r"), mode="r")
        same = []
        new.visititems(lambda path, node: same.append(str(node[...].tolist()) == str(old[path][...].tolist()))
                       if hasattr(node, "shape") else None)
        print(json.dumps([{key: hashlib.sha256(store[key]).hexdigest() for key in store}, same]))
    """
    found, same = peers.run("zarr2", script, path, DATA / "legacy.zip")
    assert found == expected
    assert same == [True] * 18


@pytest.mark.needs_peer("zip")
@pytest.mark.needs_peer("unzip")
def test_unzip_and_zip_find_no_fault_between_flushes_overwrites_and_deletes(tmp_path):
    peers.require("zip", "unzip")
    path = tmp_path / "a.zip"
    expected = tree()
    with ZipStore(path, compact=False) as store:
        for _ in range(3):
            store.update(expected)
            store["gone"] = b"x"
            store.flush()
            del store["gone"]
            store.flush()
            for command in (["unzip", "-tqq", path], ["zip", "-qT", path]):
                done = subprocess.run(command, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
            assert sorted(names_of(path)) == sorted(expected)
        assert store.describe()["dead_bytes"] > 2 << 20
    subprocess.run(["unzip", "-qq", path, "foo/*", "-d", tmp_path / "out"], check=True)
    assert (tmp_path / "out/foo/bar").read_bytes() == expected["foo/bar"]


def test_zarr_2_appends_to_an_archive_of_ours_and_ours_to_that(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.update({".zgroup": b"{}", "a": b"1", "b": b"2"})
        del store["b"]
    script = "import sys, zarr; s = zarr.ZipStore(sys.argv[1], mode='a'); s['c'] = b'3'; s['a'] = b'4'; s.close()"
    peers.run("zarr2", script, path)
    with ZipStore(path) as store:
        assert dict(store) == {".zgroup": b"{}", "a": b"4", "c": b"3"}
        store["d"] = b"5"
    assert sorted(names_of(path)) == [".zgroup", "a", "c", "d"]
    assert peers.run("zarr2", "import sys, zarr; print(len(zarr.ZipStore(sys.argv[1], mode='r')))", path) == 4


def test_entries_carry_mode_0644_and_the_time_of_the_set(tmp_path, monkeypatch):
    with ZipStore(tmp_path / "a.zip") as store:
        store["first"] = b"1"
        store["a/b"] = b"2"
        store["é"] = b"3"
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        infos = archive.infolist()
    assert {info.external_attr >> 16 for info in infos} == {stat.S_IFREG | 0o644}
    assert {info.flag_bits for info in infos} == {0, 0x800}
    for info in infos:
        assert abs(time.mktime((*info.date_time, 0, 0, -1)) - time.time()) < 10
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "315619200")
    contents = set()
    for name in ("b.zip", "c.zip"):
        with ZipStore(tmp_path / name) as store:
            store.update({"a": b"1", "b": b"2"})
        contents.add((tmp_path / name).read_bytes())
        assert {info.date_time for info in zipfile.ZipFile(tmp_path / name).infolist()} == {(1980, 1, 2, 0, 0, 0)}
    assert len(contents) == 1


# Modes ---------------------------------------------------------------------------------------------------------------


def test_modes_are_those_of_zarr(tmp_path):
    path = tmp_path / "a.zip"
    for mode in ("r", "r+"):
        with pytest.raises(StoreNotFoundError):
            ZipStore(path, mode=mode)
    assert not path.exists()
    with ZipStore(path, mode="x") as store:
        store["a"] = b"1"
    for mode in ("x", "w-"):
        with pytest.raises(FileExistsError):
            ZipStore(path, mode=mode)
    with ZipStore(path, mode="r+") as store:
        store["b"] = b"2"
    with ZipStore(path, mode="a") as store:
        assert dict(store) == {"a": b"1", "b": b"2"}
    with ZipStore(path, mode="w") as store:
        assert dict(store) == {}
    with ZipStore(path, mode="r") as store:
        assert dict(store) == {}
        with pytest.raises(ReadOnlyError, match=r"cannot write 'a': ZipStore\('.*a.zip', mode='r'\) is read-only"):
            store["a"] = b"1"
        with pytest.raises(ReadOnlyError):
            store.repack()
        with pytest.raises(ReadOnlyError):
            del store["a"]
    with pytest.raises(ValueError, match="mode is 'rw'"):
        ZipStore(path, mode="rw")
    with pytest.raises(ValueError, match="compression is 9"):
        ZipStore(path, compression=9)


def test_the_attributes_of_zarr_2_are_there(tmp_path):
    with ZipStore(tmp_path / "a.zip", 8, False, "w", "/") as store:
        assert (store.path, store.compression, store.allowZip64, store.mode) == (
            str(tmp_path / "a.zip"),
            8,
            False,
            "w",
        )
        assert store._dimension_separator == "/"
        assert store.is_writeable()
        assert store.is_erasable()


def test_two_stores_on_one_archive_are_equal(tmp_path):
    for name in ("a.zip", "b.zip"):
        ZipStore(tmp_path / name).close()
    one, two = (ZipStore(tmp_path / "a.zip", mode="r") for _ in range(2))
    assert one == two
    assert one != ZipStore(tmp_path / "b.zip", mode="r")


def test_a_closed_store_says_so(tmp_path):
    store = ZipStore(tmp_path / "a.zip")
    store["a"] = b"1"
    store.close()
    store.close()
    for act in (
        lambda: store["a"],
        lambda: "a" in store,
        lambda: store.__setitem__("a", b"2"),
        lambda: list(store),
        lambda: len(store),
        store.flush,
        store.clear,
        store.repack,
        store.describe,
        lambda: store.listdir(""),
        lambda: store.getrange("a", 0),
        lambda: store.setitems({"a": b"1"}),
    ):
        with pytest.raises(ClosedStoreError, match="is closed; open it again"):
            act()


# One writer ----------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_in_this_process_and_in_another(tmp_path):
    path = tmp_path / "a.zip"
    script = """
        import sys, json
        from zarrstore.stores.zip import ZipStore
        from zarrstore.errors import LockedStoreError
        refusals = []
        for mode in ("a", "w", "r+"):
            try:
                ZipStore(sys.argv[1], mode=mode)
            except LockedStoreError as exc:
                refusals.append(str(exc))
        print(json.dumps([refusals, dict((k, v.decode()) for k, v in ZipStore(sys.argv[1], mode="r").items())]))
    """
    with ZipStore(path) as store:
        store["a"] = b"1"
        store.flush()
        for mode in ("a", "w", "r+"):
            with pytest.raises(LockedStoreError, match="another writer has it open"):
                ZipStore(path, mode=mode)
        with pytest.raises(LockedStoreError):
            ZipStore.recover(path)
        refusals, read = peers.run("self", script, path)
        assert len(refusals) == 3
        assert read == {"a": "1"}
        store["b"] = b"2"
    with ZipStore(path) as store:
        assert dict(store) == {"a": b"1", "b": b"2"}


def test_the_lock_follows_the_archive_when_it_is_repacked(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.update({"a": b"1", "b": b"2"})
        del store["a"]
        store.repack()
        with pytest.raises(LockedStoreError):
            ZipStore(path)
        store["c"] = b"3"
    with ZipStore(path) as store:
        assert dict(store) == {"b": b"2", "c": b"3"}


def test_a_store_that_could_not_be_opened_leaves_no_lock(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"no archive")
    kept = []
    for _ in range(2):
        with pytest.raises(OSError, match="no entry in it is whole") as caught:
            ZipStore(path)
        kept.append(caught)
    ZipStore(path, mode="w").close()


# Space ---------------------------------------------------------------------------------------------------------------


def test_a_hundred_overwrites_leave_one_value_after_close(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        for i in range(100):
            store["a"] = bytes([i]) * 10_000
        assert store.describe()["dead_bytes"] > 980_000
    assert path.stat().st_size < 11_000
    assert names_of(path) == ["a"]
    with ZipStore(path) as store:
        assert store["a"] == bytes([99]) * 10_000
        assert store.describe() == {
            "implementation": "zip archive",
            "entries": 1,
            "live_bytes": 30 + 1 + 6 + 10_000,
            "directory_bytes": 46 + 1 + 6 + 22,
            "dead_bytes": 0,
            "file_bytes": path.stat().st_size,
            "root": "",
            "compression": "stored",
        }


def test_close_leaves_dead_space_that_is_the_smaller_part_or_is_to_be_left(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path, compact=False) as store:
        for _ in range(3):
            store["a"] = bytes(10_000)
    assert path.stat().st_size > 30_000
    with ZipStore(path) as store:
        store["b"] = bytes(30_000)
    assert path.stat().st_size > 60_000
    with ZipStore(path) as store:
        assert store.repack() > 19_000
        assert store.repack() == 0
        assert dict(store) == {"a": bytes(10_000), "b": bytes(30_000)}
    assert sorted(names_of(path)) == ["a", "b"]


def test_repack_keeps_mode_and_link_and_leaves_readers_their_file(tmp_path):
    path, link = tmp_path / "a.zip", tmp_path / "link.zip"
    link.symlink_to("a.zip")
    with ZipStore(link) as store:
        store.update({"a": b"1" * 1000, "b": b"2"})
        store.flush()
        os.chmod(path, 0o640)
        reader = ZipStore(path, mode="r")
        store["a"] = b"3"
        store.repack()
        assert reader["a"] == b"1" * 1000
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert dict(ZipStore(path, mode="r")) == {"a": b"3", "b": b"2"}
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "link.zip"]


def test_a_compaction_that_fails_warns_and_the_archive_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    store = ZipStore(path)
    for _ in range(3):
        store["a"] = bytes(10_000)

    def fails(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.warns(RuntimeWarning, match="closed whole, but not compacted"):
        store.close()
    assert os.listdir(tmp_path) == ["a.zip"]
    assert dict(ZipStore(path)) == {"a": bytes(10_000)}


# Failures within -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["rename", "rmdir", "setitems", "set", "set-small", "set-new", "delitems"])
def test_an_act_that_fails_half_way_changes_nothing_and_works_the_next_time(tmp_path, monkeypatch, act):
    path = tmp_path / "a.zip"
    items = {f"foo/{i}": bytes([i]) * 100 for i in range(10)} | {"foo": b"value", "other": b"x"}
    acts = {
        "rename": lambda: store.rename("foo", "bar"),
        "rmdir": lambda: store.rmdir("foo"),
        "setitems": lambda: store.setitems({f"foo/{i}": b"new" for i in range(5)}),
        "set": lambda: store.__setitem__("foo/1", b"new" * 20_000),
        "set-small": lambda: store.__setitem__("foo/1", b"new"),  # these two go the short way
        "set-new": lambda: store.__setitem__("foo/new", b"new" * 1000),
        "delitems": lambda: store.delitems(["foo/1", "foo/2"]),
    }
    counted: list[int] = []
    real = os.pwrite

    def writing(fail_at):
        def pwrite(fd, data, offset):
            counted.append(offset)
            if len(counted) == fail_at:
                real(fd, bytes(data)[: len(data) // 2], offset)  # torn, and then the error
                raise OSError(28, "No space left on device")
            return real(fd, data, offset)

        monkeypatch.setattr(zip_file, "pwrite", pwrite)
        monkeypatch.setattr("zarrstore.stores.zip.writer.pwrite", pwrite)

    monkeypatch.delattr(os, "pwritev")
    store = ZipStore(path)
    store.update(items)
    store.flush()
    fail_at = 0
    while True:
        fail_at += 1
        counted.clear()
        writing(fail_at)
        size = path.stat().st_size
        try:
            acts[act]()
        except OSError:
            assert dict(store) == items
            assert path.stat().st_size == size, "what was torn is cut off"
            continue
        break
    writing(0)
    assert fail_at > (10 if act == "rename" else 1)
    assert dict(store) != items
    expected = dict(store)
    store.close()
    assert dict(ZipStore(path)) == expected


def test_a_batch_that_ends_in_an_error_keeps_what_came_before(tmp_path):
    def items():
        yield "a", b"1"
        yield "b", b"2"
        raise RuntimeError("the source broke")

    with ZipStore(tmp_path / "a.zip") as store:
        with pytest.raises(RuntimeError, match="the source broke"):
            store.setitems(items())
        assert dict(store) == {"a": b"1", "b": b"2"}


def test_a_batch_may_read_the_store_that_it_fills(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        store["0"] = b"0"
        store.setitems((str(i), store[str(i - 1)] if i == 1 else b"x" * 2_000_000) for i in range(1, 4))
        assert [len(store[str(i)]) for i in range(4)] == [1, 1, 2_000_000, 2_000_000]


def test_names_that_do_not_fit_are_refused(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        for _ in range(2):
            for key in ("x" * 65_536, "é" * 40_000):
                with pytest.raises(InvalidKeyError, match="65,535 bytes"):
                    store[key] = b"1"
                with pytest.raises(InvalidKeyError, match="65,535 bytes"):
                    store.setitems({key: b"1"})
            store["y" * 65_535] = b"2"
    assert dict(ZipStore(tmp_path / "a.zip")) == {"y" * 65_535: b"2"}


def test_max_value_size_bounds_what_is_written_and_read(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path, max_value_size=1000) as store:
        store["a"] = bytes(1000)
        for _ in range(2):
            with pytest.raises(ValueTooLargeError, match="1,001 bytes, and 1,000 are allowed"):
                store["b"] = bytes(1001)
            with pytest.raises(ValueTooLargeError):
                store.setitems({"c": b"1", "d": bytes(5000)})
        assert dict(store) == {"a": bytes(1000)}
    with ZipStore(path, mode="r", max_value_size=999) as store, pytest.raises(ValueTooLargeError):
        store["a"]
    with pytest.raises(ValueError, match="max_value_size is -1"):
        ZipStore(path, max_value_size=-1)


# Zip64 ---------------------------------------------------------------------------------------------------------------


def _far(path: Path, nbytes: int) -> None:
    """Make an empty archive whose end lies `nbytes` from the beginning, most of which is a hole."""
    from zarrstore.stores.zip import format as fmt

    with open(path, "wb") as file:
        file.seek(nbytes)
        file.write(fmt.end_records(0, 0, nbytes))


def test_entries_past_4_gib_are_written_and_read(tmp_path):
    path = tmp_path / "a.zip"
    _far(path, (4 << 30) + 1000)
    expected = {"a": b"1", "b/c": b"2" * 100_000, "é": b"3"}
    with ZipStore(path, compact=False) as store:
        store.update(expected)
        store["gone"] = b"x"
        del store["gone"]
        store.rename("b", "d")
        expected["d/c"] = expected.pop("b/c")
        assert dict(store) == expected
    with ZipStore(path, mode="r") as store:
        assert dict(store) == expected
        assert store.getrange("d/c", 5, 7) == b"22"
    assert sorted(names_of(path)) == sorted(expected)
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == expected
    with ZipStore(path) as store:
        store.repack()
        assert dict(store) == expected
    assert path.stat().st_size < 200_000


def test_a_batch_may_cross_4_gib(tmp_path):
    path = tmp_path / "a.zip"
    # The first value has 4 MiB of space reserved behind it, the second takes most of that, and then comes the batch.
    _far(path, (4 << 30) - (4 << 20) - 300_000)
    expected = {f"k/{i}": bytes([i % 256]) * 2000 for i in range(400)}
    with ZipStore(path, compact=False) as store:
        store["first"] = b"1"
        store["large"] = bytes(4_000_000)
        assert store._archive._quick > 0
        store.setitems(expected)
        for i in range(10):
            store[f"k/{i}"] = expected[f"k/{i}"] = b"again"
        expected |= {"first": b"1", "large": bytes(4_000_000)}
        assert dict(store) == expected
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == expected


def test_without_zip64_what_needs_it_is_refused_before_it_is_written(tmp_path):
    path = tmp_path / "a.zip"
    _far(path, (4 << 30) - 100_000)
    size = path.stat().st_size
    with ZipStore(path, allowZip64=False, compact=False) as store:
        with pytest.raises(UnsupportedOperation, match="cannot grow to 4 GiB; pass allowZip64=True"):
            store["a"] = bytes(200_000)
        assert path.stat().st_size == size


def test_without_zip64_there_are_no_more_entries_than_the_end_record_counts(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.setitems((f"k/{i}", b"") for i in range(33))
    monkeypatch.setattr(fmt, "MOST_ENTRIES", 35)
    with ZipStore(path, allowZip64=False) as store:
        with pytest.raises(UnsupportedOperation, match="34 entries; pass allowZip64=True"):
            store.setitems({"a": b"1", "b": b"2"})
        store["a"] = b"3"
        with pytest.raises(UnsupportedOperation, match="34 entries; pass allowZip64=True"):
            store["b"] = b"2"
    assert len(names_of(path)) == 34


@pytest.mark.slow
def test_without_zip64_there_are_at_most_65_534_entries(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.setitems((f"k/{i}", b"") for i in range(65_533))
    with ZipStore(path, allowZip64=False) as store:
        with pytest.raises(UnsupportedOperation, match="65,534 entries; pass allowZip64=True"):
            store.setitems({"a": b"1", "b": b"2"})
        store["a"] = b"3"
    with ZipStore(path) as store:
        assert len(store) == 65_534
        assert store["a"] == b"3"
        store.update({"b": b"4", "c": b"5", "d": b"6"})
    assert len(names_of(path)) == 65_537
    with ZipStore(path, mode="r") as store:
        assert len(store) == 65_537
        assert store["k/65532"] == b""


# Copies, threads -----------------------------------------------------------------------------------------------------


def test_a_pickled_reader_never_erases(tmp_path):
    path = tmp_path / "a.zip"
    store = ZipStore(path, mode="w")
    store["a"] = b"1"
    store.close()
    copy = pickle.loads(pickle.dumps(ZipStore(path, mode="r")))
    assert copy.mode == "r"
    assert dict(copy) == {"a": b"1"}
    with pytest.raises(ReadOnlyError):
        copy["b"] = b"2"
    assert dict(pickle.loads(pickle.dumps(copy))) == {"a": b"1"}
    # Nor does the copy of a writer that began a new archive.
    assert dict(pickle.loads(pickle.dumps(store))) == {"a": b"1"}
    assert names_of(path) == ["a"]


@pytest.mark.parametrize("ops", [6_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_eight_threads_see_what_one_could_have_seen(tmp_path, ops):
    with ZipStore(tmp_path / "a.zip") as store:
        keys = [f"{folder}/{i}" for folder in "ab" for i in range(4)]

        def extra(store, chance):
            assert set(store) <= set(keys)
            assert set(store.listdir("a")) <= set("0123")
            if chance.random() < 0.2:
                store.repack()
            store.flush()

        with histories.restless():
            history = histories.play(store, ops=ops, keys=keys, extra=extra)
        assert histories.violations(history) == []


def test_a_reader_outlives_the_close_of_another_thread(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.update({f"k/{i}": bytes([i]) * 3000 for i in range(100)})
    for _ in range(10):
        store = ZipStore(path, mode="r")
        wrong: list[object] = []
        started = threading.Event()

        def read(store=store, wrong=wrong, started=started):
            try:
                while True:
                    for i in range(100):
                        if store[f"k/{i}"] != bytes([i]) * 3000:
                            wrong.append(i)
                        started.set()
            except ClosedStoreError:
                pass
            except Exception as exc:
                wrong.append(exc)

        reader = threading.Thread(target=read)
        reader.start()
        started.wait()
        store.close()
        # Would take the number of the file just closed, if it were closed under the reader.
        others = [open(os.devnull, "rb") for _ in range(5)]
        reader.join()
        for other in others:
            other.close()
        assert wrong == []


def test_files_are_closed_with_their_store(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc: run on Linux")
    for i in range(20):
        with ZipStore(tmp_path / "a.zip") as store:
            store[str(i)] = b"x"
            store.repack()
        with ZipStore(tmp_path / "a.zip", mode="r") as store:
            list(store)
    assert files_open_below(tmp_path) == []


def test_the_values_of_another_python_s_crc_are_the_same(tmp_path):
    """With isal or without, an archive is the same."""
    script = """
        import sys
        if sys.argv[2] == "without":
            sys.modules["isal"] = None
        from zarrstore.stores.zip import ZipStore
        with ZipStore(sys.argv[1]) as store:
            store.update({str(n): bytes(range(256)) * n for n in (0, 1, 10, 1000)})
    """
    contents = []
    for how in ("with", "without"):
        peers.run("self", script, tmp_path / how, how, env={"SOURCE_DATE_EPOCH": "1000000000"})
        contents.append((tmp_path / how).read_bytes())
        assert len(names_of(tmp_path / how)) == 4
    assert contents[0] == contents[1]
