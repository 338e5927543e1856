"""open_store: what stands behind a path, a URL or an object, and what is said when nothing does."""

from __future__ import annotations

import dbm.dumb
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from zarrstore import (
    DBMStore,
    DictStore,
    DirectoryStore,
    KVStore,
    LMDBStore,
    NestedDirectoryStore,
    ReadOnlyStore,
    SQLiteStore,
    Store,
    ZipStore,
    open_store,
    read_array,
)
from zarrstore.errors import DamagedStoreError, DestinationExistsError, ReadOnlyError, StoreNotFoundError
from zarrstore.kinds import KINDS
from zarrstore.stores.http import HTTPStore
from zarrstore.testing import CountingStore

V2 = Path(__file__).parent / "data" / "v2"


def inside(store: Store) -> type[Store]:
    return type(store.inner if isinstance(store, ReadOnlyStore) else store)


LEGACY = {
    "legacy.zarr": DirectoryStore,
    "legacy-nested.zarr": DirectoryStore,
    "legacy.zip": ZipStore,
    "legacy.lmdb": LMDBStore,
    "legacy.sqlite": SQLiteStore,
    "legacy-dumb.dbm": DBMStore,
}


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize("renamed", ["kept", "plain", "lying.zip"])
def test_what_exists_is_opened_by_its_content_whatever_it_is_called(name: str, renamed: str, tmp_path: Path) -> None:
    target = tmp_path / (name if renamed == "kept" else renamed)
    if name == "legacy-dumb.dbm":
        for suffix in (".dat", ".dir", ".bak"):
            shutil.copy(V2 / f"{name}{suffix}", f"{target}{suffix}")
    else:
        source = V2 / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    with open_store(target, mode="r") as store:
        assert inside(store) is LEGACY[name]
        assert len(store) == (88 if "nested" in name else 89)  # that one was not consolidated
        with pytest.raises(ReadOnlyError):
            store["new"] = b""


SUFFIXES = {
    "a.zip": ZipStore,
    "a.ZIP": ZipStore,
    "a.lmdb": LMDBStore,
    "a.mdb": LMDBStore,
    "a.sqlite": SQLiteStore,
    "a.sqlite3": SQLiteStore,
    "a.ozx": ZipStore,
    "a.db": SQLiteStore,
    "a.dbm": DBMStore,
    "a.zarr": DirectoryStore,
    "a": DirectoryStore,
}


@pytest.mark.filterwarnings("ignore:.*dbm.dumb")
@pytest.mark.parametrize("name", SUFFIXES)
def test_what_is_missing_is_made_by_its_suffix_and_found_again(name: str, tmp_path: Path) -> None:
    with open_store(tmp_path / name) as store:
        assert type(store) is SUFFIXES[name]
        store["a/b"] = b"1"
    with open_store(str(tmp_path / name), mode="r+") as store:
        assert type(store) is SUFFIXES[name]
        store["c"] = b"2"
    with pytest.raises(DestinationExistsError):
        open_store(tmp_path / name, mode="w-")
    with open_store(tmp_path / name, mode="w", force=True) as store:
        assert type(store) is SUFFIXES[name]
        assert dict(store) == {}
        store["new"] = b"3"
    with open_store(tmp_path / name, mode="r") as store:
        assert dict(store) == {"new": b"3"}


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("name", SUFFIXES)
def test_what_must_exist_and_does_not_is_an_error_and_is_not_made(name: str, mode: str, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="looked for"):
        open_store(tmp_path / name, mode=mode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["w-", "x"])
def test_w_minus_makes_what_is_missing(mode: str, tmp_path: Path) -> None:
    for name in ("a.zip", "a.lmdb", "a.sqlite", "a"):
        with open_store(tmp_path / name, mode=mode) as store:
            store["a"] = b"1"
            assert dict(store) == {"a": b"1"}


def test_a_file_of_another_kind_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"just a text, long enough to be none of the magic numbers")
    for mode in ("r", "r+", "a", "w"):
        with pytest.raises(StoreNotFoundError, match="a file of another kind is there"):
            open_store(tmp_path / "text", mode=mode)
    assert (tmp_path / "text").read_bytes().startswith(b"just a text")


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
def test_a_damaged_zip_is_not_taken_for_anything_else(mode: str, tmp_path: Path) -> None:
    whole = (V2 / "legacy.zip").read_bytes()
    (tmp_path / "torn.zip").write_bytes(whole[:-200])
    with pytest.raises(DamagedStoreError, match="recover"):
        open_store(tmp_path / "torn.zip", mode=mode)
    (tmp_path / "junk.zip").write_bytes(b"no archive at all" * 10)
    with pytest.raises(DamagedStoreError):
        open_store(tmp_path / "junk.zip", mode=mode)


def test_nested_directories_are_opened_on_request(tmp_path: Path) -> None:
    assert type(open_store(tmp_path / "n", dimension_separator="/")) is NestedDirectoryStore
    assert type(open_store(f"nested://{tmp_path}/n")) is NestedDirectoryStore


def test_schemes_of_our_own_win_over_suffixes(tmp_path: Path) -> None:
    for scheme, cls in (("zip", ZipStore), ("lmdb", LMDBStore), ("sqlite", SQLiteStore), ("dir", DirectoryStore)):
        with open_store(f"{scheme}://{tmp_path}/of-{scheme}.data") as store:
            assert type(store) is cls
    with open_store(f"file://{tmp_path}/f%20g.zip", mode="w") as store:
        assert type(store) is ZipStore
    assert (tmp_path / "f g.zip").exists()
    assert type(open_store("dict://")) is DictStore


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_store("~/a.zip") as store:
        store["a"] = b"1"
    assert (tmp_path / "a.zip").exists()


def test_urls() -> None:
    assert type(open_store("http://127.0.0.1:9/x")) is HTTPStore
    pytest.importorskip("fsspec", reason="needs fsspec: pip install zarrstore[fsspec]")
    from zarrstore.stores.fsspec import FSStore

    store = open_store("memory://registry/a")
    assert type(store) is FSStore
    store["a/b"] = b"1"
    with open_store("memory://registry/a", mode="r") as again:
        assert dict(again) == {"a/b": b"1"}
        with pytest.raises(ReadOnlyError):
            again["c"] = b""
    with pytest.raises(DestinationExistsError, match="holds no Zarr hierarchy"):
        open_store("memory://registry/a", mode="w")
    assert dict(open_store("memory://registry/a", mode="w", force=True)) == {}


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_url_below_which_nothing_is_must_exist_too(mode: str) -> None:
    pytest.importorskip("fsspec", reason="needs fsspec: pip install zarrstore[fsspec]")
    with pytest.raises(
        StoreNotFoundError, match="keys below it, or a zip, LMDB, SQLite, DBM or reference file; there is neither"
    ):
        open_store("memory://no-such-place", mode=mode)


def test_w_spares_a_folder_in_which_nothing_proves_a_hierarchy(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"the only copy")
    with pytest.raises(DestinationExistsError, match=r"files of somebody else; pass force=True"):
        open_store(tmp_path, mode="w")
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"the only copy"
    assert dict(open_store(tmp_path, mode="w", force=True)) == {}


@pytest.mark.parametrize("document", [".zgroup", ".zarray", "zarr.json", "child/.zarray", "meta"])
def test_w_erases_what_a_document_proves_to_be_a_hierarchy(document: str, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "data")
    store[document] = b"{}"
    store["child/0.0"] = b"chunk"
    assert dict(open_store(tmp_path / "data", mode="w")) == {}


def test_a_file_url_names_its_host_only_if_that_is_this_one(tmp_path: Path) -> None:
    for url in (f"file://localhost{tmp_path}/a%20b", f"file://{tmp_path}/a%20b", f"FILE://{tmp_path}/a%20b"):
        with open_store(url) as store:
            store["x"] = b"1"
    assert (tmp_path / "a b" / "x").read_bytes() == b"1"


def test_two_colons_in_a_path_are_no_chain_of_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(str(tmp_path / "run::3.zip")) as store:
        store["x"] = b"1"
    assert (tmp_path / "run::3.zip").is_file()
    monkeypatch.chdir(tmp_path)
    with open_store("run::4.zarr") as store:
        store["x"] = b"1"
    assert (tmp_path / "run::4.zarr" / "x").is_file()
    with open_store("run::3.zip", mode="r") as store:
        assert dict(store) == {"x": b"1"}


def test_a_local_upath_is_opened_by_its_content(tmp_path: Path) -> None:
    upath = pytest.importorskip("upath", reason="needs universal_pathlib: pip install zarrstore[upath]")
    with open_store(tmp_path / "x.zip") as store:
        store["a"] = b"1"
    for target in (upath.UPath(f"file://{tmp_path}/x.zip"), upath.UPath(str(tmp_path / "x.zip"))):
        with open_store(target, mode="r") as store:
            assert inside(store) is ZipStore
            assert dict(store) == {"a": b"1"}


def test_an_empty_path_is_nobody_s_current_directory() -> None:
    with pytest.raises(ValueError, match=r"cannot open an empty path; '\.' is the current directory"):
        open_store("")


def test_every_kind_has_one_row_and_no_two_share_a_sign() -> None:
    for signs in ("suffixes", "schemes", "magic"):
        claimed = [sign for kind in KINDS.values() for sign in getattr(kind, signs)]
        assert len(claimed) == len(set(claimed)), signs
    assert all(name == kind.name for name, kind in KINDS.items())


def test_mappings_are_themselves() -> None:
    store = DictStore()
    assert open_store(store) is store
    data = {"a": b"1"}
    opened = open_store(data)
    assert isinstance(opened, KVStore)
    opened["b"] = b"2"
    assert data == {"a": b"1", "b": b"2"}
    assert type(open_store(data, mode="r")) is ReadOnlyStore
    assert not open_store(MappingProxyType(data)).capabilities.writable
    with pytest.raises(DestinationExistsError):
        open_store(data, mode="w-")
    assert dict(open_store(data, mode="w")) == {}
    assert type(open_store()) is DictStore


def test_foreign_store_objects_are_adapted() -> None:
    zarr_storage = pytest.importorskip("zarr.storage", reason="needs zarr 3: pip install zarrstore[zarr3]")
    if not hasattr(zarr_storage, "LocalStore"):
        pytest.skip("needs zarr 3: pip install zarrstore[zarr3]")
    store = open_store(zarr_storage.MemoryStore())
    store["a/b"] = b"1"
    assert store.listdir("a") == ["b"]


def test_an_obstore_and_an_opendal_store_are_adapted() -> None:
    obstore = pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")
    opendal = pytest.importorskip("opendal", reason="needs opendal: pip install zarrstore[opendal]")
    for foreign in (obstore.store.MemoryStore(), opendal.Operator("memory")):
        store = open_store(foreign)
        store["a/b"] = b"1"
        assert dict(store) == {"a/b": b"1"}


@pytest.mark.parametrize("target", [3, 2.5, b"bytes", object(), ["list"]])
def test_what_is_none_of_these_is_a_typeerror(target: Any) -> None:
    with pytest.raises(TypeError, match="cannot open"):
        open_store(target)


def test_a_wrong_mode_and_options_for_no_url_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode is 'rw'"):
        open_store(tmp_path, mode="rw")
    with pytest.raises(ValueError, match="storage_options are for URLs"):
        open_store(tmp_path, storage_options={"anon": True})


def test_options_reach_the_class(tmp_path: Path) -> None:
    assert open_store(tmp_path / "d", durability="always").durability == "always"  # type: ignore[attr-defined]
    with open_store(tmp_path / "a.zip", compression=8) as store:
        assert store.compression == 8  # type: ignore[attr-defined]
    with open_store(tmp_path / "d.dbm", open=dbm.dumb.open) as store:
        store["a"] = b"1"


def test_an_empty_directory_is_an_empty_store_to_read(tmp_path: Path) -> None:
    assert dict(open_store(tmp_path, mode="r")) == {}
    counted = CountingStore(open_store(tmp_path, mode="w-"))
    counted["a"] = b"1"
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("release", ["2.4.0", "2.11.3"])
def test_a_nested_tree_is_opened_as_what_it_is_whether_its_documents_say_so_or_not(release: str) -> None:
    expected = np.load(V2.parent / "old" / release / "expected.npz")
    with open_store(V2.parent / "old" / release / "nested.zarr", mode="r") as store:
        for name in expected.files:
            if not name.startswith("n5__"):
                np.testing.assert_array_equal(read_array(store, name.replace("__", "/")), expected[name])
    assert inside(open_store(V2.parent / "old" / release / "dir.zarr", mode="r")) is DirectoryStore


@pytest.mark.filterwarnings("ignore:DBMStore:RuntimeWarning")
@pytest.mark.parametrize("mode", ["a", "w", "w-"])
@pytest.mark.parametrize("name", ["x.zip", "x.db", "x.sqlite", "x.dbm", "x.lmdb", "x.zarr"])
def test_the_directories_above_a_new_store_are_made(tmp_path, name, mode):
    place = tmp_path / "not" / "yet" / name
    with pytest.raises(StoreNotFoundError):
        open_store(place, mode="r")
    assert list(tmp_path.iterdir()) == []
    with open_store(place, mode=mode) as store:
        store["a"] = b"1"
    with open_store(place, mode="r") as store:
        assert dict(store) == {"a": b"1"}


def test_a_path_at_which_nothing_is_names_what_may_be_meant(tmp_path, monkeypatch):
    DirectoryStore(tmp_path / "data.zarr")["a"] = b"1"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreNotFoundError, match=r"did you mean 'data\.zarr'\?$"):
        open_store("dat.zarr", mode="r")
    for absent in ("nothing/alike", "unlike", "data.zarr/b"):
        with pytest.raises(StoreNotFoundError) as raised:
            open_store(absent, mode="r")
        assert "did you mean" not in str(raised.value)
