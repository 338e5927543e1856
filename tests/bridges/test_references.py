"""ReferenceStore: files of kerchunk, hostile ones, and ours as others read them."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zarrstore import (
    DirectoryStore,
    FSStore,
    LRUStoreCache,
    ReferenceStore,
    V3View,
    ZipStore,
    copy_store,
    open_store,
    read_array,
    tree,
    verify,
    write_references,
)
from zarrstore.cli.group import run
from zarrstore.errors import DamagedStoreError, ReadOnlyError, StoreNotFoundError, StoreReadError, UnsupportedOperation
from zarrstore.testing import CountingStore, StoreConformance

pytest.importorskip("jinja2", reason="needs jinja2: pip install zarrstore[references]")
kerchunk = pytest.importorskip("kerchunk.hdf", reason="needs kerchunk: pip install zarrstore[test]")
h5py = pytest.importorskip("h5py")
np = pytest.importorskip("numpy")

BLOB = bytes(range(256)) * 4


def over(references: Mapping[str, Any], files: Mapping[str, bytes] | None = None, **options: Any) -> ReferenceStore:
    targets = {"blob": BLOB} if files is None else files
    return ReferenceStore(references, lambda url: (targets, url), **options)


class TestReferenceStore(StoreConformance):
    """Values in turns: in the document, in one file at offsets, and whole files."""

    pickles = False  # the targets are a dict

    def make_store(self, tmp_path: Path) -> Any:
        return self.make_filled(tmp_path, {})

    def make_filled(self, tmp_path: Path, items: Mapping[str, bytes]) -> Any:
        files: dict[str, bytes] = {}
        joined = b"head"
        refs: dict[str, Any] = {}
        for n, (key, value) in enumerate(items.items()):
            if n % 3 == 0:
                refs[key] = "base64:" + base64.b64encode(bytes(value)).decode()
            elif n % 3 == 1:
                refs[key] = ["joined", len(joined), len(bytes(value))]
                joined += bytes(value) + b"gap"
            else:
                files[f"file{n}"] = bytes(value)
                refs[key] = [f"file{n}"]
        files["joined"] = joined
        return ReferenceStore({"version": 1, "refs": refs}, lambda url: (files, url))


# The formats --------------------------------------------------------------------------------------------------------


def test_both_versions_say_the_same() -> None:
    entries = {
        ".zgroup": {"zarr_format": 2},
        "text": "abc",
        "packed": "base64:AAEC",
        "part": ["blob", 3, 2],
        "whole": ["blob"],
        "default": [None, 0, 1],
    }
    for document in (entries, {"version": 1, "refs": entries}):
        store = over(document, target="blob")
        assert json.loads(store[".zgroup"]) == {"zarr_format": 2}
        assert [store[key] for key in ("text", "packed", "part", "whole", "default")] == [
            b"abc",
            b"\0\1\2",
            b"\3\4",
            BLOB,
            b"\0",
        ]
    with pytest.raises(StoreReadError, match="names no target"):
        over(entries)["default"]


SPECIFIED = {
    "version": 1,
    "templates": {"u": "server.domain/path", "f": "{{c}}"},
    "gen": [
        {
            "key": "gen_key{{i}}",
            "url": "http://{{u}}_{{i}}",
            "offset": "{{(i + 1) * 1000}}",
            "length": "1000",
            "dimensions": {"i": {"stop": 5}},
        },
        {"key": "gen_ref{{i}}", "url": "http://{{u}}_{{i}}", "dimensions": {"i": [1, 3]}},
    ],
    "refs": {
        "key0": "data",
        "key1": ["http://target_url", 10000, 100],
        "key2": ["http://{{u}}", 10000, 100],
        "key3": ["http://{{f(c='text')}}", 10000, 100],
        "key4": ["http://target_url"],
    },
}


def test_the_example_of_the_specification_is_read_as_fsspec_reads_it() -> None:
    fsspec = pytest.importorskip("fsspec")
    theirs = fsspec.filesystem("reference", fo=SPECIFIED, simple_templates=False, remote_protocol="memory").references
    store = over(SPECIFIED)
    ours = {key: store._references.find(key) for key in store}
    assert {k: [v.url, v.start, v.nbytes] for k, v in ours.items() if k != "key0"} == {
        k: [*v, 0, None][:3] if len(v) == 1 else v for k, v in theirs.items() if k != "key0"
    }
    assert store["key0"] == b"data"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "no reference file"),
        ({"a": 1}, "no reference file"),
        ({"version": 2, "refs": {}}, "version 2"),
        ({"version": 1, "templates": {"u": "x"}, "refs": {"a": ["{{v}}", 0, 1]}}, "template"),
        ({"version": 1, "templates": {"u": "x"}, "refs": {"a": ["{{ u * 10**9 }}", 0, 1]}}, "template"),
        ({"version": 1, "templates": {"u": "x"}, "refs": {"a": ["{{ u.__class__.__mro__ }}", 0, 1]}}, "template"),
        ({"version": 1, "gen": [{"key": "{{i}}", "url": "x", "dimensions": {"i": {"stop": 10**9}}}]}, "1,000,000,000"),
        ({"version": 1, "gen": [{"key": "{{i}}", "url": "x", "offset": "0", "dimensions": {"i": [1]}}]}, "both"),
        ({"version": 1, "gen": [{"key": "a"}]}, "gen"),
    ],
)
def test_what_is_no_reference_file_never_opens(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(DamagedStoreError, match=reason):
        over(document)


@pytest.mark.parametrize("value", [["blob", 1], ["blob", -1, 2], [1, 2, 3], ["blob", 0, "x"], [], "base64:?", None])
def test_an_entry_that_is_none_is_damage_and_not_absence(value: Any) -> None:
    store = over({"version": 1, "refs": {"a": value, "b": "fine"}})
    assert store["b"] == b"fine"
    with pytest.raises(DamagedStoreError, match="'a'"):
        store["a"]


def test_a_target_that_is_missing_or_too_short_is_an_error_and_not_absence() -> None:
    store = over({"version": 1, "refs": {"gone": ["lost", 0, 1], "lost": ["lost"], "short": ["blob", 1000, 100]}})
    for read in (store.__getitem__, lambda key: dict(store.getitems([key])), lambda key: store.getrange(key, 0, 50)):
        for key, reason in (("gone", "missing"), ("lost", "missing"), ("short", "ends within it")):
            with pytest.raises(StoreReadError, match=reason):
                read(key)
    assert store.get("absent") is None


def test_names_that_are_no_keys_are_absent_and_told_by_verify() -> None:
    names = ["../up", "a//b", "/etc/passwd", "", "a/./b", "a\\b"]
    store = over({"version": 1, "refs": {".zgroup": '{"zarr_format": 2}', **dict.fromkeys(names, "x")}})
    assert list(store) == [".zgroup"]
    assert not any(name in store for name in names)
    assert {problem.key for problem in verify(store).problems} == set(names)


# One target -----------------------------------------------------------------------------------------------------------


def test_a_hundred_parts_of_one_target_are_one_request() -> None:
    inner = CountingStore({"blob": BLOB})
    refs = {f"a/{n}": ["blob", 10 * n, 10] for n in range(100)}
    store = ReferenceStore(refs, lambda url: (inner, url))
    assert dict(store.getitems(list(refs))) == {f"a/{n}": BLOB[10 * n : 10 * n + 10] for n in range(100)}
    assert sum(inner.calls.values()) == 1


def test_parts_of_a_part_stay_within_it() -> None:
    store = over({"a": ["blob", 10, 20], "b": ["blob", 4, 0]})
    assert store.getranges("a", [(0, 5), (15, 99), (30, 40), (18, None)]) == [
        BLOB[10:15],
        BLOB[25:30],
        b"",
        BLOB[28:30],
    ]
    assert (store.getsuffix("a", 3), store.getsuffix("a", 99), store["b"]) == (BLOB[27:30], BLOB[10:30], b"")


# open_store -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HDF5 file with what kerchunk makes references of, and these, in JSON and in Parquet, beside it."""
    folder = tmp_path_factory.mktemp("hdf5")
    path = folder / "data.h5"
    with h5py.File(path, "w") as file:
        file["temp"] = np.arange(12, dtype="<f4").reshape(3, 4)
        file.create_dataset(
            "packed", data=np.arange(1000).reshape(10, 100), chunks=(3, 50), compression="gzip", shuffle=True
        )
        file.create_group("deep").create_dataset("counts", data=np.arange(7, dtype=">i2"), chunks=(3,))
        file["packed"].attrs["units"] = "m"
    refs = kerchunk.SingleHdf5ToZarr(str(path), inline_threshold=50).translate()
    (folder / "refs.json").write_text(json.dumps(refs))
    from fsspec.implementations.reference import LazyReferenceMapper

    tables = LazyReferenceMapper.create(str(folder / "refs.parq"), record_size=5, engine="pyarrow")
    tables.update(sorted(refs["refs"].items(), key=lambda item: ".z" not in item[0]))  # documents first
    tables.flush()
    return folder


@pytest.mark.parametrize("name", ["refs.json", "refs.parq"])
def test_references_of_an_hdf5_file_open_verify_and_materialise(hdf5: Path, name: str, tmp_path: Path) -> None:
    with open_store(hdf5 / name, mode="r") as store:
        assert isinstance(store, ReferenceStore)
        assert verify(store).problems == ()
        assert verify(store).n_decoded > 5
        assert "packed (10, 100)" in str(tree(store))
        copy = DirectoryStore(tmp_path / "copy")
        copy_store(store, copy)
        assert dict(copy) == dict(store)
        for each in (store, copy, LRUStoreCache(store, 1e6), pickle.loads(pickle.dumps(store))):
            assert read_array(each, "temp").tolist() == np.arange(12).reshape(3, 4).tolist()
            assert read_array(each, "packed").tolist() == np.arange(1000).reshape(10, 100).tolist()
            assert read_array(each, "deep/counts").tolist() == list(range(7))
        assert json.loads(V3View(store)["packed/zarr.json"])["attributes"]["units"] == "m"
        with pytest.raises(ReadOnlyError):
            open_store(hdf5 / name)["new"] = b"1"
    assert sorted(os.listdir(hdf5)) == ["data.h5", "refs.json", "refs.parq"]


def test_parquet_and_json_have_the_same_keys_and_chunks(hdf5: Path) -> None:
    with open_store(hdf5 / "refs.json") as plain, open_store(hdf5 / "refs.parq") as tables:
        chunks = {key for key in plain if not key.rpartition("/")[2].startswith(".z")}
        assert {key: tables[key] for key in chunks} == {key: plain[key] for key in chunks}
        assert set(tables) - {".zmetadata"} == set(plain)
        assert tables.listdir("deep/counts") == plain.listdir("deep/counts")
        assert tables.listdir() == sorted({*plain.listdir(), ".zmetadata"})
        assert "packed/9.9" not in tables
        assert "packed/00.0" not in tables


def test_a_table_that_is_damaged_is_an_error_and_a_table_that_was_never_written_is_absence(
    hdf5: Path, tmp_path: Path
) -> None:
    files = dict(DirectoryStore(hdf5 / "refs.parq"))
    whole = DirectoryStore(tmp_path / "a.parq")
    whole.update(files)
    del whole["packed/refs.1.parq"]
    whole["packed/refs.0.parq"] = files["packed/refs.0.parq"][:100]
    with open_store(whole.path) as store:
        with pytest.raises(DamagedStoreError, match=r"refs\.0\.parq"):
            store["packed/0.0"]
        assert "packed/3.1" not in store


def test_targets_are_found_beside_the_reference_file_when_both_are_moved(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    (tmp_path / "refs.json").write_text(json.dumps({"a": ["blob", 1, 2], "b": [str(tmp_path / "blob"), 0, 1]}))
    assert dict(open_store(tmp_path / "refs.json")) == {"a": b"\1\2", "b": b"\0"}
    assert dict(open_store(f"references://{tmp_path}/refs.json")) == {"a": b"\1\2", "b": b"\0"}


def test_references_open_by_content_and_other_json_does_not(tmp_path: Path) -> None:
    (tmp_path / "noname").write_text('{"version": 1, "refs": {"a": "x"}}')
    assert dict(open_store(tmp_path / "noname", "r")) == {"a": b"x"}
    for text in ('{"name": 1}', "{", '{"a": {"b": 1}, "c": 2}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(DamagedStoreError, match="JSON"):
            open_store(tmp_path / "other.json")
    with pytest.raises(StoreNotFoundError, match="zarrstore refs"):
        open_store(tmp_path / "none.json")
    assert sorted(os.listdir(tmp_path)) == ["noname", "other.json"]


def test_targets_in_memory_and_on_the_web_are_read_and_a_remote_file_reads_none_of_this_machine(
    tmp_path: Path, nginx: Any
) -> None:
    FSStore("memory://references")["blob"] = BLOB
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "blob").write_bytes(BLOB)
    (tmp_path / "secret").write_bytes(b"secret")
    url = nginx(tmp_path / "served").url
    refs = {"m": ["memory://references/blob", 1, 2], "w": [f"{url}/blob", 2, 2], "r": ["blob", 3, 2]}
    secret = str(tmp_path / "secret")
    evil = {
        "path": secret,
        "url": f"file://{secret}",
        "cached": f"simplecache::file://{secret}",
        "chain": f"zip://x::{secret}",
    }
    refs |= {name: [target] for name, target in evil.items()}
    (tmp_path / "served" / "refs.json").write_text(json.dumps(refs))
    with open_store(f"{url}/refs.json") as store:
        assert [store[key] for key in "mwr"] == [b"\1\2", b"\2\3", b"\3\4"]
        for name in evil:
            with pytest.raises(StoreReadError, match="local_targets=True"):
                store[name]
    with open_store(f"{url}/refs.json", local_targets=True) as store:
        assert [store[name] for name in ("path", "url", "cached")] == [b"secret"] * 3


def test_parquet_opens_at_a_url(hdf5: Path) -> None:
    for key, value in DirectoryStore(hdf5 / "refs.parq").items():
        FSStore("memory://tables/refs.parq")[key] = value
    with open_store("memory://tables/refs.parq", "r", local_targets=True) as store:
        assert read_array(store, "packed").tolist() == np.arange(1000).reshape(10, 100).tolist()


# Writing --------------------------------------------------------------------------------------------------------------

TREE = {".zgroup": b'{"zarr_format": 2}', "a/0.0": b"chunk", "a/1 0": b"\xff" * 300, "é/x": b""}


def read_by_fsspec(file: Path, **options: Any) -> dict[str, bytes]:
    fsspec = pytest.importorskip("fsspec")
    fs = fsspec.filesystem("reference", fo=str(file), **options)
    return {key: fs.cat_file(key) for key in fs.find("")}


@pytest.mark.parametrize("kind", ["dir", "zip", "zip in a directory"])
def test_references_of_a_zip_and_a_directory_are_read_by_fsspec(kind: str, tmp_path: Path) -> None:
    if kind == "dir":
        source: Any = DirectoryStore(tmp_path / "data")
        source.update(TREE)
    else:
        with ZipStore(tmp_path / "data.zip") as archive:
            archive.update(TREE)
        folder = DirectoryStore(tmp_path)
        source = ZipStore(tmp_path / "data.zip", mode="r") if kind == "zip" else ZipStore.from_store(folder, "data.zip")
    assert write_references(source, tmp_path / "refs.json") == len(TREE)
    assert read_by_fsspec(tmp_path / "refs.json") == TREE
    assert dict(open_store(tmp_path / "refs.json")) == TREE
    assert write_references(source, tmp_path / "part.json", "a") == 2
    assert set(read_by_fsspec(tmp_path / "part.json")) == {"0.0", "1 0"}


@pytest.mark.needs_peer("ceph")
def test_references_of_an_s3_directory_are_read_by_fsspec(s3_server: Any, s3_bucket: str, tmp_path: Path) -> None:
    options = s3_server.storage_options()
    url = f"s3://{s3_bucket}/some/where"
    FSStore(url, **options).update(TREE)
    with open_store(url, "r", storage_options=options) as store:
        write_references(store, tmp_path / "refs.json")
    assert read_by_fsspec(tmp_path / "refs.json", remote_protocol="s3", remote_options=options) == TREE
    assert dict(open_store(tmp_path / "refs.json", remote_options=options)) == TREE


def test_values_that_lie_nowhere_as_they_are_cannot_be_referred_to(tmp_path: Path) -> None:
    with ZipStore(tmp_path / "data.zip", compression=8) as packed:
        packed["a/0"] = bytes(1000)
    for source in ({"a/0": b"x"}, ZipStore(tmp_path / "data.zip", mode="r")):
        with pytest.raises(UnsupportedOperation, match="zarrstore pack"):
            write_references(source, tmp_path / "refs.json")
    assert sorted(os.listdir(tmp_path)) == ["data.zip"]


def test_the_command_writes_a_reference_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DirectoryStore(tmp_path / "data").update(TREE)
    assert run(["refs", "write", str(tmp_path / "data"), str(tmp_path / "refs.json")]) == 0
    assert "wrote 4 references" in capsys.readouterr().err
    assert dict(open_store(tmp_path / "refs.json")) == TREE
    assert run(["refs", "write", str(tmp_path / "none"), str(tmp_path / "x.json")]) == 3


@pytest.mark.parametrize(
    "document",
    [
        {"version": 1, "refs": 5},
        {"version": 1, "refs": {}, "templates": "u"},
        {"version": 1, "refs": {"a": ["{{u}}"]}, "templates": {"u": 5}},
        {"version": 1, "refs": {}, "gen": 7},
        {"version": 1, "refs": {}, "gen": [{"key": "a", "url": "u", "dimensions": {"i": "x"}}]},
        {
            "version": 1,
            "refs": {},
            "gen": [{"key": "a", "url": "u", "offset": "0.5", "length": "1", "dimensions": {"i": [1]}}],
        },
        {"version": 1, "refs": {}, "gen": [{"key": "a", "url": "u", "dimensions": {"i": {"stop": 10**30}}}]},
    ],
)
def test_a_document_whose_members_are_of_another_kind_is_damaged(document):
    with pytest.raises(DamagedStoreError, match="references"):
        ReferenceStore(document, lambda url: ({}, url))
