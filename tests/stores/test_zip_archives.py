"""Archives that other tools made, that are damaged, or that mean harm."""

from __future__ import annotations

import io
import os
import random
import re
import struct
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import peers
from tests.support.world import run_readonly
from zarrstore.errors import (
    DamagedStoreError,
    LockedStoreError,
    StoreReadError,
    UnsupportedOperation,
    ValueTooLargeError,
    ZarrStoreError,
)
from zarrstore.stores.zip import Recovery, ZipStore
from zarrstore.stores.zip import directory as zip_directory
from zarrstore.stores.zip import format as fmt
from zarrstore.testing import tree

VALUES = {"a": b"1" * 1000, "b/c": bytes(range(256)) * 300, "b/empty": b"", "é": b"accent"}


def made(items: Any, compression: int = 0, *, streamed: bool = False, force_zip64: bool = False) -> bytes:
    """Return an archive as zipfile makes it, of items in order."""
    file: Any = io.BytesIO()
    if streamed:
        file.seekable = lambda: False
        file.seek = file.tell = lambda *args: (_ for _ in ()).throw(io.UnsupportedOperation)
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, value in dict(items).items() if isinstance(items, dict) else items:
            with archive.open(name, "w", force_zip64=force_zip64) as entry:
                entry.write(value)
    return file.getvalue()  # type: ignore[no-any-return]


def opened(tmp_path: Path, content: bytes, mode: str = "r", **options: Any) -> ZipStore:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    return ZipStore(path, mode=mode, **options)


# Of other tools ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [0, 8, 12, 14])
@pytest.mark.parametrize("streamed", [False, True], ids=["", "streamed"])
@pytest.mark.parametrize("force_zip64", [False, True], ids=["", "zip64"])
def test_every_method_is_read_and_written_beside(tmp_path, compression, streamed, force_zip64):
    content = made(VALUES, compression, streamed=streamed, force_zip64=force_zip64)
    with opened(tmp_path, content) as store:
        assert dict(store) == VALUES
        assert {key: store.getsize(key) for key in store} == {key: len(value) for key, value in VALUES.items()}
        for start, stop in ((0, 10), (5, None), (70_000, 80_000), (99_999, None), (7, 3)):
            assert store.getrange("b/c", start, stop) == VALUES["b/c"][start:stop]
        assert store.getsuffix("b/c", 300) == VALUES["b/c"][-300:]
        assert store.getsuffix("b/c", 1 << 20) == VALUES["b/c"]
    with opened(tmp_path, content, "a") as store:
        store["new"] = b"n"
        store.rename("b", "moved")
        expected = {"a": VALUES["a"], "moved/c": VALUES["b/c"], "moved/empty": b"", "é": b"accent", "new": b"n"}
        assert dict(store) == expected
        store.flush()
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == expected
        store.repack()
        assert dict(store) == expected
    assert dict(ZipStore(tmp_path / "a.zip", mode="r")) == expected


def test_info_zip_s_archives_are_read(tmp_path):
    peers.require("zip")
    for key, value in VALUES.items():
        (tmp_path / "d" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / key).write_bytes(value)
    subprocess.run(["zip", "-qr", "../a.zip", "."], cwd=tmp_path / "d", check=True)
    with ZipStore(tmp_path / "a.zip", mode="r") as store:
        assert dict(store) == VALUES
        assert store.describe()["entries"] == 4
    subprocess.run(["zip", "-q", "-d", "a.zip", "a"], cwd=tmp_path, check=True)
    with ZipStore(tmp_path / "a.zip") as store:
        store["x"] = b"1"
        assert sorted(store) == ["b/c", "b/empty", "x", "é"]
    subprocess.run(["zip", "-qT", "a.zip"], cwd=tmp_path, check=True)


def test_bytes_before_and_behind_the_archive_are_passed_over(tmp_path):
    content = b"#!/bin/sh\nexit\n" + bytes(100_000) + made(VALUES) + b"\n\n"
    with opened(tmp_path, content) as store:
        assert dict(store) == VALUES
    with ZipStore(tmp_path / "a.zip") as store:
        store["new"] = b"n" * 40_000
        store["a"] = b"2"
    expected = {**VALUES, "new": b"n" * 40_000, "a": b"2"}
    assert (tmp_path / "a.zip").read_bytes().startswith(b"#!/bin/sh")
    assert dict(ZipStore(tmp_path / "a.zip", mode="r")) == expected
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == expected


def test_an_archive_with_a_comment_is_read_and_the_comment_may_look_like_an_end(tmp_path):
    path = tmp_path / "a.zip"
    for comment in (b"a comment", b"PK\5\6" + bytes(18), b"PK\5\6" * 100, bytes(65_535)):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", b"1")
            archive.comment = comment
        assert dict(ZipStore(path, mode="r")) == {"a": b"1"}


def test_directory_entries_are_not_keys_and_duplicates_count_once(tmp_path):
    items = [("d/", b""), ("d/x", b"1"), ("a", b"first"), ("d/", b""), ("a", b"last")]
    with pytest.warns(UserWarning, match="Duplicate"):
        content = made(items)
    with opened(tmp_path, content) as store:
        assert sorted(store) == ["a", "d/x"]
        assert len(store) == 2
        assert dict(store) == {"a": b"last", "d/x": b"1"}
        assert store.listdir() == ["a", "d"]
        assert "d/" not in store
        assert "d" not in store


def test_names_are_utf8_where_they_say_so_or_can_be_else_code_page_437(tmp_path):
    content = made({"naïve": b"1", "日本": b"2"})
    assert dict(opened(tmp_path, content)) == {"naïve": b"1", "日本": b"2"}
    for encoding, length in (("cp437", 5), ("utf-8", 6)):  # in neither case it is said which
        content = made({"x" * length: b"1"}).replace(b"x" * length, "naïve".encode(encoding))
        store = opened(tmp_path, content)
        assert store["naïve"] == b"1"
        assert list(store) == ["naïve"]


def test_what_a_file_object_reads_is_enough(tmp_path):
    content = made(VALUES, 8)
    source = io.BytesIO(content)
    with ZipStore(source) as store:
        assert dict(store) == VALUES
        assert store.mode == "r"
        assert not store.is_writeable()
        assert store.getrange("b/c", 3, 9) == VALUES["b/c"][3:9]
    assert not source.closed
    for mode in ("w", "x", "r+"):
        with pytest.raises(UnsupportedOperation, match="pass its path"):
            ZipStore(io.BytesIO(), mode=mode)
    with pytest.raises(DamagedStoreError, match="3 of its entries are whole"):
        ZipStore(io.BytesIO(made({"a": b"1", "b": b"2", "c": b"3"})[:-10]))


def test_a_file_of_fsspec_and_one_of_obstore_are_read(tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install zarrstore[fsspec]")
    obstore = pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")
    content = made(VALUES)
    memory = fsspec.filesystem("memory")
    memory.pipe("/zipstore-test.zip", content)
    with memory.open("/zipstore-test.zip", "rb") as file, ZipStore(file, mode="r") as store:
        assert dict(store) == VALUES
    memory.rm("/zipstore-test.zip")
    bucket = obstore.store.MemoryStore()
    obstore.put(bucket, "a.zip", content)
    with ZipStore(obstore.open_reader(bucket, "a.zip"), mode="r") as store:
        assert dict(store) == VALUES


# One folder around all -----------------------------------------------------------------------------------------------

WRAPPED = {"data.zarr/.zgroup": b"{}", "data.zarr/foo/.zarray": b"{}", "data.zarr/foo/0.0": b"chunk"}


@pytest.mark.parametrize("lazily", [False, True])
def test_one_folder_that_was_packed_whole_is_not_part_of_the_keys(tmp_path, monkeypatch, lazily):
    if lazily:
        monkeypatch.setattr(zip_directory, "_SMALL", 0)
    content = made({"data.zarr/": b"", **WRAPPED, "__MACOSX/data.zarr/._foo": b"fork"})
    with opened(tmp_path, content) as store:
        assert store.root == "data.zarr"
        assert store["foo/0.0"] == b"chunk"
        assert dict(store) == {".zgroup": b"{}", "foo/.zarray": b"{}", "foo/0.0": b"chunk"}
        assert len(store) == 3
        assert store.listdir() == [".zgroup", "foo"]
        assert store.listdir("foo") == [".zarray", "0.0"]
        assert store.getsize("foo") == 7
        assert "data.zarr/foo/0.0" not in store
    with ZipStore(tmp_path / "a.zip") as store:
        store["bar/0"] = b"new"
        store.rename("foo", "moved")
        del store[".zgroup"]
        store["bar/.zarray"] = b"{}"
    with ZipStore(tmp_path / "a.zip") as store:
        assert store.root == "data.zarr", "the archive says it now, whatever is in it"
        assert dict(store) == {"bar/.zarray": b"{}", "bar/0": b"new", "moved/.zarray": b"{}", "moved/0.0": b"chunk"}
        store.repack()
        store.clear()
        assert dict(store) == {}
        store["a"] = b"1"
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["__MACOSX/data.zarr/._foo", "data.zarr/a"]
    with ZipStore(tmp_path / "a.zip", mode="r", root="") as store:
        assert sorted(store) == ["__MACOSX/data.zarr/._foo", "data.zarr/a"]


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize(
    "items",
    [
        {**WRAPPED, "other": b""},
        {**WRAPPED, "other/.zarray": b"{}"},
        {".zgroup": b"{}", **WRAPPED},
        {"foo/0.0": b"", "foo/1.0": b""},
        {"foo/bar/.zgroup": b"{}"},
        {"../.zgroup": b"{}"},
        {"/.zgroup": b"{}"},
    ],
)
def test_other_archives_have_no_root(tmp_path, monkeypatch, items, lazily):
    if lazily:
        monkeypatch.setattr(zip_directory, "_SMALL", 0)
    assert opened(tmp_path, made(items)).root == ""


def test_an_archive_of_ours_says_that_its_names_are_keys(tmp_path):
    items = {"foo/.zarray": b"{}", "foo/0.0": b"1"}
    with ZipStore(tmp_path / "a.zip") as store:
        store.update(items)
    for _ in range(2):
        with ZipStore(tmp_path / "a.zip") as store:
            assert store.root == ""
            assert dict(store) == items
            store.repack()
    with ZipStore(tmp_path / "a.zip") as store:
        store.rename("foo", "bar")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content[:-30])
    ZipStore.recover(tmp_path / "a.zip")
    assert sorted(ZipStore(tmp_path / "a.zip")) == ["bar/.zarray", "bar/0.0"]


# The directory read lazily -------------------------------------------------------------------------------------------


def test_a_search_finds_what_the_index_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_directory, "_SMALL", 0)
    monkeypatch.setattr(zip_directory, "_SEARCHES", 1 << 30)
    # Names within names, at the beginning, the end and in the middle of others.
    names = ["a", "aa", "a/a", "foo", "foo/bar", "bar", "foo/bar/foo", ".zgroup", "foo/.zgroup", "PK", "é", "x" * 300]
    content = made([(name, name.encode()) for name in names])
    store = opened(tmp_path, content)
    directory = store._archive.directory
    assert directory._index is None
    for name in names:
        assert store[name] == name.encode()
        if name == "PK":
            assert directory._index is None
    for absent in ("fo", "oo", "oo/bar", "aaa", "o", "gro", "K", "zgroup", "absent"):
        assert absent not in store
    assert sorted(store) == sorted(names)


def test_many_look_ups_build_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_directory, "_SMALL", 0)
    store = opened(tmp_path, made({f"k/{i}": b"%d" % i for i in range(100)}))
    assert store["k/99"] == b"99"
    assert store._archive.directory._index is None
    for i in range(100):
        assert store[f"k/{i}"] == b"%d" % i
    assert store._archive.directory._index is not None


@pytest.mark.parametrize("hidden_in", ["comment", "extra"])
def test_a_record_hidden_in_another_is_not_found(tmp_path, monkeypatch, hidden_in):
    monkeypatch.setattr(zip_directory, "_SMALL", 0)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("real", b"real value")
        false = zipfile.ZipInfo("false")
        archive.writestr(false, b"")
    listing = (tmp_path / "b.zip").read_bytes()
    record = listing[listing.index(b"PK\1\2") : listing.index(b"PK\1\2") + 46 + 4].replace(b"real", b"fake")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("real", b"real value")
        info = zipfile.ZipInfo("carrier")
        if hidden_in == "comment":
            info.comment = record
        else:
            info.extra = struct.pack("<2H", 0x9999, len(record)) + record
        archive.writestr(info, b"")
        archive.writestr("last", b"")
    store = ZipStore(tmp_path / "a.zip", mode="r")
    assert "fake" not in store
    assert sorted(store) == ["carrier", "last", "real"]
    assert "fake" not in store


def test_opening_a_large_archive_reads_no_more_than_its_directory(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.setitems((f"foo/{i // 100}/{i % 100}", b"x" * 100) for i in range(20_000))

    class Counting(io.FileIO):
        got = 0

        def read(self, n=-1):
            data = super().read(n)
            Counting.got += len(data)
            return data

    with Counting(path) as file, ZipStore(file, mode="r") as store:
        assert store["foo/150/7"] == b"x" * 100
        assert "absent" not in store
        assert store._archive.directory._index is None
        assert Counting.got < 20_000 * (46 + 13) + 70_000 + 2000
        assert len(store) == 20_000
        assert sorted(store.listdir("foo"), key=int) == [str(i) for i in range(200)]
        assert store.listdir() == ["foo"]


# Damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"PK",
        b"\x89PNG\r\n" + bytes(1000),
        bytes(100),
        b"PK\5\6" + b"\xff" * 18,
        b"PK\3\4" * 100,
        b"PK\1\2" * 50,
    ],
)
@pytest.mark.parametrize("mode", ["r", "a", "r+"])
def test_what_is_no_archive_never_opens_and_is_left_as_it_is(tmp_path, content, mode):
    with pytest.raises(DamagedStoreError, match="no entry in it is whole; mode='w' begins a new archive"):
        opened(tmp_path, content, mode)
    assert (tmp_path / "a.zip").read_bytes() == content


def test_an_archive_cut_anywhere_never_opens_as_less_than_it_was(tmp_path):
    path = tmp_path / "a.zip"
    expected = {f"k/{i}": bytes([i]) * (i * 7) for i in range(4)}
    with ZipStore(path) as store:
        store.update(expected)
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        for mode in ("r", "a"):
            with pytest.raises(DamagedStoreError) as caught:
                ZipStore(path, mode=mode)
        assert path.read_bytes() == whole[:n]
        if "are whole" in str(caught.value):
            count = int(str(caught.value).partition(": ")[2].partition(" ")[0])
            report = ZipStore.recover(path)
            assert report.kept == count
            with ZipStore(path) as store:
                assert len(store) == count
                assert expected.items() >= store.items()
    path.write_bytes(whole)
    assert dict(ZipStore(path, mode="r")) == expected


def test_a_damaged_value_is_an_error_that_names_it_and_the_others_are_read(tmp_path):
    for compression in (0, 8):
        content = bytearray(made({"a": b"1" * 50_000, "b": b"2" * 100, "c": b"3"}, compression))
        content[35] ^= 1
        content[-1:] = b"\0"
        with opened(tmp_path, bytes(content)) as store:
            with pytest.raises(DamagedStoreError, match=r"a\.zip' has a damaged entry 'a': "):
                store["a"]
            assert "a" in store
            assert store["b"] == b"2" * 100
            assert store["c"] == b"3"


def test_a_header_that_is_not_where_the_directory_says_is_damage(tmp_path):
    content = made({"a": b"1", "b": b"2"})
    for wrong in (
        content.replace(b"PK\3\4", b"PKxx", 1).replace(b"a1PK", b"q1PK", 1),
        content.replace(b"a1PK", b"b1PK", 1),
    ):
        store = opened(tmp_path, wrong)
        with pytest.raises(DamagedStoreError, match="damaged entry 'a'"):
            store["a"]
        with pytest.raises(DamagedStoreError, match="damaged entry 'a'"):
            store.getrange("a", 0)
        assert store["b"] == b"2"


def test_a_directory_with_a_hole_is_damage_and_not_absence(tmp_path):
    path = tmp_path / "a.zip"
    with ZipStore(path) as store:
        store.setitems((f"k/{i}", b"%d" % i) for i in range(3000))
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\1\2")
    content[start + 80_000 : start + 84_096] = bytes(4096)  # a page that never reached the disk
    path.write_bytes(content)
    with pytest.raises(DamagedStoreError, match=r"damaged directory: .*recover\(.* looks for entries without it"):
        list(ZipStore(path, mode="r"))
    with pytest.raises(DamagedStoreError):
        with ZipStore(path) as store:
            store["new"] = b"1"
    assert path.read_bytes() == content
    assert ZipStore.recover(path).kept == 3000
    assert len(ZipStore(path)) == 3000


# Recovery ------------------------------------------------------------------------------------------------------------


def test_recover_keeps_all_that_is_whole_and_names_what_is_not(tmp_path):
    path = tmp_path / "a.zip"
    items = {f"k/{i}": bytes([i]) * 3000 for i in range(10)}
    with ZipStore(path) as store:
        store.update(items)
    content = bytearray(path.read_bytes())
    content[3 * 3035 + 100] ^= 1
    path.write_bytes(content[:-40])
    with pytest.raises(DamagedStoreError, match="9 of its entries are whole"):
        ZipStore(path)
    report = ZipStore.recover(path, tmp_path / "b.zip")
    assert report == Recovery(str(tmp_path / "b.zip"), 9, ("k/3",), (), True)
    assert path.read_bytes() == content[:-40]
    with pytest.raises(FileExistsError, match="remove it first"):
        ZipStore.recover(path, tmp_path / "b.zip")
    assert ZipStore.recover(path) == Recovery(str(path), 9, ("k/3",), (), True)
    del items["k/3"]
    for name in ("a.zip", "b.zip"):
        assert dict(ZipStore(tmp_path / name)) == items
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert archive.testzip() is None
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "b.zip"]


@pytest.mark.parametrize("compression", [0, 8, 12])
def test_recover_reads_sizes_that_stand_behind_the_data(tmp_path, compression):
    items = {"a": b"1" * 100_000, "b": os.urandom(5000) + b"PK\7\x08" * 10 + b"PK\3\4", "c": b""}
    content = made(items, compression, streamed=True)
    with pytest.raises(DamagedStoreError, match="3 of its entries are whole"):
        opened(tmp_path, content[:-5])
    assert ZipStore.recover(tmp_path / "a.zip").kept == 3
    assert dict(ZipStore(tmp_path / "a.zip")) == items


def test_recover_of_a_whole_archive_checks_it_and_changes_nothing(tmp_path):
    content = made(VALUES, 8)
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert ZipStore.recover(path) == Recovery(str(path), 4, (), (), False)
    broken = bytearray(content)
    broken[33] ^= 1
    path.write_bytes(broken)
    assert ZipStore.recover(path) == Recovery(str(path), 3, ("a",), (), False)
    assert path.read_bytes() == broken
    assert ZipStore.recover(path, tmp_path / "b.zip") == Recovery(str(tmp_path / "b.zip"), 3, ("a",), (), True)
    assert dict(ZipStore(tmp_path / "b.zip")) == {key: value for key, value in VALUES.items() if key != "a"}


def test_recover_leaves_what_is_no_archive_alone(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8" + os.urandom(5000))
    before = path.read_bytes()
    with pytest.raises(DamagedStoreError, match="is not a zip archive: nothing in it is an entry"):
        ZipStore.recover(path)
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError):
        ZipStore.recover(tmp_path / "absent.zip")


def test_headers_that_lie_cannot_make_a_recovery_read_for_ever(tmp_path, monkeypatch):
    hashed = []

    def crc32(data, crc=0):
        hashed.append(len(data))
        return 1

    monkeypatch.setattr("zarrstore.stores.zip.scan.crc32_function", lambda: crc32)
    header = fmt.local_header(b"a", 0, 0, 0, 5, 500_000, 500_000)
    content = header * (1_000_000 // len(header))
    with pytest.raises(DamagedStoreError):
        opened(tmp_path, content)
    assert sum(hashed) < 10 * len(content)


def test_recover_waits_for_no_writer(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        store["a"] = b"1"
        with pytest.raises(LockedStoreError):
            ZipStore.recover(tmp_path / "a.zip")
        assert ZipStore.recover(tmp_path / "a.zip", tmp_path / "copy.zip").kept == 1
    assert dict(ZipStore(tmp_path / "copy.zip")) == {"a": b"1"}


# Harm ----------------------------------------------------------------------------------------------------------------

EVIL = ["../../evil", "/etc/evil", "a//b", "./a", "..", "a\\..\\b", "C:evil", "foo/../../evil", ".__zarrstore-x"]


@pytest.mark.parametrize("name", EVIL)
def test_a_name_that_is_not_a_key_is_refused_by_name_and_the_rest_is_read(tmp_path, name):
    content = made([("good", b"1"), ("Xevil", b"2"), ("other/key", b"3")])
    content = made([("good", b"1"), (name.replace("\\", "Q"), b"2"), ("other/key", b"3")]).replace(b"Q", b"\\")
    store = opened(tmp_path, content)
    assert store["good"] == b"1"
    for act in (lambda: list(store), lambda: len(store), lambda: store.listdir(), lambda: dict(store.items())):
        with pytest.raises(DamagedStoreError) as caught:
            act()
        assert repr(name) in str(caught.value)
        assert "name is not a key" in str(caught.value)
    assert store["other/key"] == b"3"
    assert store.get(name) is None
    assert name not in store
    before = (tmp_path / "a.zip").read_bytes()
    with pytest.raises(DamagedStoreError, match="not a key"), ZipStore(tmp_path / "a.zip") as writer:
        writer["new"] = b"1"
    assert (tmp_path / "a.zip").read_bytes() == before
    report = ZipStore.recover(tmp_path / "a.zip", tmp_path / "b.zip")
    assert report.refused == (name,)
    assert dict(ZipStore(tmp_path / "b.zip")) == {"good": b"1", "other/key": b"3"}


def test_nothing_is_written_outside_when_a_hostile_archive_is_copied():
    script = """
        import json, os, zipfile
        from zarrstore import DirectoryStore, ZipStore, copy_store
        from zarrstore.errors import ZarrStoreError
        with zipfile.ZipFile("evil.zip", "w") as archive:
            archive.writestr("good", b"1")
            archive.writestr("../../evil", b"2")
        os.makedirs("deep/deeper/d")
        try:
            copy_store(ZipStore("evil.zip", mode="r"), DirectoryStore("deep/deeper/d"))
        except ZarrStoreError as exc:
            print(json.dumps([str(exc), sorted(os.listdir(".")), os.listdir("deep"), os.listdir("deep/deeper/d")]))
    """
    message, here, deep, _ = run_readonly(script)
    assert "'../../evil'" in message
    assert here == ["deep", "evil.zip"]
    assert deep == ["deeper"]


def test_an_undecodable_name_is_refused_and_not_a_crash(tmp_path):
    content = made({"é": b"1", "b": b"2"}).replace("é".encode(), b"\xff\xfe")
    store = opened(tmp_path, content)
    with pytest.raises(DamagedStoreError, match="not a key"):
        list(store)
    assert store["b"] == b"2"


def _bomb(nbytes: int, claimed: int | None = None, method: int = 8) -> bytes:
    content = bytearray(made({"bomb": bytes(nbytes)}, method))
    if claimed is not None:
        at = content.index(b"PK\1\2")
        content[at + 24 : at + 28] = struct.pack("<L", claimed)
    return bytes(content)


def test_a_bomb_is_refused_before_it_goes_off(tmp_path):
    store = opened(tmp_path, _bomb(50_000_000), max_value_size=1_000_000)
    tracemalloc.start()
    with pytest.raises(ValueTooLargeError, match="50,000,000 bytes, and 1,000,000 are allowed"):
        store["bomb"]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert store.getsize("bomb") == 50_000_000
    content = _bomb(1000, claimed=(1 << 30) + 1)
    with pytest.raises(ValueTooLargeError):  # without any limit of the caller's
        opened(tmp_path, content)["bomb"]


@pytest.mark.parametrize("method", [8, 12, 14])
def test_a_size_that_lies_is_found_within_what_it_claims(tmp_path, method):
    store = opened(tmp_path, _bomb(50_000_000, claimed=1000, method=method))
    tracemalloc.start()
    with pytest.raises(DamagedStoreError, match="claims 1,000 bytes and has more"):
        store["bomb"]
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()
    with pytest.raises(DamagedStoreError, match="claims 60,000 bytes and has 50,000"):
        opened(tmp_path, _bomb(50_000, claimed=60_000, method=method))["bomb"]


@pytest.mark.parametrize("claimed", [100_000, 1 << 30, 0xFFFFFFFE])
def test_a_stored_size_that_lies_asks_for_no_memory(tmp_path, claimed):
    content = bytearray(made({"b": b"2", "a": b"12345"}))
    at = content.rindex(b"PK\1\2")
    content[at + 20 : at + 28] = struct.pack("<2L", claimed, claimed)
    store = opened(tmp_path, bytes(content))
    tracemalloc.start()
    with pytest.raises(DamagedStoreError):
        store["a"]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_entries_that_share_bytes_are_refused(tmp_path):
    content = bytearray(made({"a": b"1" * 5000, "b": b"2" * 5000}))
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    content[second + 42 : second + 46] = struct.pack("<L", 100)
    with pytest.raises(DamagedStoreError, match="its entries 'a' and 'b' share bytes"):
        list(opened(tmp_path, bytes(content)))


def test_an_encrypted_entry_says_so(tmp_path):
    peers.require("zip")
    (tmp_path / "a").write_bytes(b"secret")
    subprocess.run(["zip", "-q", "-P", "word", "a.zip", "a"], cwd=tmp_path, check=True)
    store = ZipStore(tmp_path / "a.zip", mode="r")
    for act in (lambda: store["a"], lambda: store.getrange("a", 0, 1)):
        with pytest.raises(StoreReadError, match="the entry is encrypted; decrypt the archive"):
            act()
    assert "a" in store


def test_an_unknown_method_says_so(tmp_path):
    content = bytearray(made({"a": b"1"}))
    content[content.index(b"PK\1\2") + 10] = 93
    with pytest.raises(StoreReadError, match="packed by method 93"):
        opened(tmp_path, bytes(content))["a"]


def test_an_lzma_entry_cannot_ask_for_a_dictionary_of_4_gib(tmp_path):
    content = bytearray(made({"a": b"1" * 100}, 14))
    content[31 + 5 : 31 + 9] = b"\xff\xff\xff\xff"
    script = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        from zarrstore.stores.zip import ZipStore
        print(len(ZipStore(sys.argv[1], mode="r")["a"]))
    """
    (tmp_path / "a.zip").write_bytes(content)
    assert peers.run("self", script, tmp_path / "a.zip") == 100


def _use(path: Path) -> None:
    with ZipStore(path, mode="r", max_value_size=1 << 20) as store:
        for key in ("a", "b/c", "absent"):
            _quietly(lambda key=key: store.get(key))
        names: list[str] = []
        _quietly(lambda: names.extend(store))
        for key in names:
            _quietly(lambda key=key: store[key])
            _quietly(lambda key=key: store.getrange(key, 1, 100))
        _quietly(lambda: store.describe())


def _quietly(act: Callable[[], object]) -> None:
    try:
        act()
    except (KeyError, ZarrStoreError):
        pass


def _mutated(content: bytes, chance: random.Random) -> bytes:
    mutant = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(mutant))
        if chance.random() < 0.5:  # where it hurts: a record or the end
            at = chance.choice([found.start() for found in re.finditer(b"PK", mutant)] or [0])
            at = min(len(mutant) - 1, at + chance.randrange(50))
        dice = chance.random()
        if dice < 0.5:
            mutant[at] = chance.choice((0, 1, 0xFF, 0x7F, chance.randrange(256)))
        elif dice < 0.7:
            mutant[at : at + 4] = chance.choice((b"\xff" * 4, bytes(4), b"PK\1\2", b"PK\3\4", b"PK\5\6"))
        elif dice < 0.85:
            del mutant[at : at + chance.randrange(60)]
        else:
            mutant[at:at] = mutant[chance.randrange(len(mutant)) :][: chance.randrange(80)]
    return bytes(mutant)


def fuzz(folder: Path, count: int, seed: int) -> int:
    """Use and recover mutants of archives; only errors of ours may come. Returns how many opened."""
    chance = random.Random(seed)
    values = {key: value[:400] for key, value in VALUES.items()}
    with ZipStore(folder / "ours.zip", compact=False) as store:
        store.update(values)
        store["a"] = b"again"
        del store["é"]
        store.flush()
        store["a"] = b"and again"
    seeds = [made(values, method, streamed=streamed) for method in (0, 8, 12, 14) for streamed in (False, True)]
    seeds += [made(values, force_zip64=True), (folder / "ours.zip").read_bytes()]
    path, works = folder / "mutant.zip", 0
    for _ in range(count):
        path.write_bytes(_mutated(chance.choice(seeds), chance))
        try:
            _use(path)
            works += 1
        except ZarrStoreError:
            pass
        try:
            with ZipStore(path, compact=False) as store:
                _quietly(lambda store=store: store.update({"new": b"1", "a": b"2"}))
        except ZarrStoreError:
            pass
        try:
            ZipStore.recover(path)
            ZipStore(path).close()
        except ZarrStoreError:
            pass
    return works


@pytest.fixture
def no_sync(monkeypatch):
    """What is thrown away at once need not reach the disk."""
    monkeypatch.setattr("zarrstore.stores.zip.file._sync", lambda fd: None)


def test_mutated_archives_raise_nothing_but_our_own_errors(tmp_path, no_sync):
    assert 50 < fuzz(tmp_path, 700, seed=0) < 700


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_100_000_mutated_archives_raise_nothing_but_our_own_errors(tmp_path, no_sync):
    fuzz(tmp_path, 100_000, seed=1)


def test_the_adversarial_tree_survives_a_recovery(tmp_path):
    expected = tree()
    with ZipStore(tmp_path / "a.zip", compression=8) as store:
        store.update(expected)
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content[:-100])
    ZipStore.recover(tmp_path / "a.zip")
    assert dict(ZipStore(tmp_path / "a.zip")) == expected


def test_entries_carry_local_time_or_that_of_a_reproducible_build(tmp_path, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        before = time.localtime(time.time() - 4)
        ZipStore(tmp_path / "a.zip", mode="w").update({"a": b"1"})
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            found = archive.getinfo("a").date_time
        assert tuple(before)[:6] <= found <= tuple(time.localtime(time.time() + 4))[:6]
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        with ZipStore(tmp_path / "b.zip", mode="w") as store:
            store["b"] = b"1"
        with zipfile.ZipFile(tmp_path / "b.zip") as archive:
            assert archive.getinfo("b").date_time == (2001, 9, 9, 1, 46, 40)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_lzma_entries_say_that_their_end_is_marked(tmp_path):
    with ZipStore(tmp_path / "a.zip", mode="w", compression=zipfile.ZIP_LZMA) as store:
        store.update({"a": b"1" * 1000, "b": b"2" * 1000})
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert [info.flag_bits & 2 for info in archive.infolist()] == [2, 2]


@pytest.mark.parametrize("damage", ["count", "signature"])
def test_a_directory_that_does_not_list_what_it_counts_is_damaged(tmp_path, damage):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a", "b", "c"):
            archive.writestr(name, name * 10)
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\5\6")
    if damage == "count":
        data[end + 8 : end + 12] = b"\4\0\4\0"
    else:
        second = data.find(b"PK\1\2", data.find(b"PK\1\2") + 4)
        data[second + 3] = 3
    path.write_bytes(data)
    with pytest.raises(DamagedStoreError):
        dict(ZipStore(path, mode="r"))
