"""Copies within one place, and files that a verb would write among what it reads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.cases import each_of
from zarrstore import (
    DBMStore,
    DictStore,
    DirectoryStore,
    FSStore,
    LMDBStore,
    LRUStoreCache,
    NestedDirectoryStore,
    ObstoreStore,
    OverlapError,
    OverlayStore,
    PrefixStore,
    ReadOnlyStore,
    SplitStore,
    SQLiteStore,
    UnsupportedOperation,
    ZipStore,
    copy_store,
    init_array,
    migrate_2to3,
    pack,
    write_bagit_manifest,
    write_manifest,
    write_references,
)
from zarrstore.cli.group import run

TREE = {"a/z0": b"A", "a/a/z0": b"B", "b": b"b"}


def filled(store: Any) -> Any:
    store.update(TREE)
    return store


def views(folder: Path) -> dict[str, Callable[[str], Any]]:
    """Return ways to open a path of one directory, all of the same values."""
    return {
        "prefix": lambda path: PrefixStore(DirectoryStore(folder), path) if path else DirectoryStore(folder),
        "directory": lambda path: DirectoryStore(folder / path),
        "nested": lambda path: NestedDirectoryStore(folder / path),
        "fsspec": lambda path: FSStore((folder / path).as_uri()),
        "obstore": lambda path: ObstoreStore.from_url((folder / path).as_uri()),
        "cache": lambda path: LRUStoreCache(ReadOnlyStore(DirectoryStore(folder / path)), 1000),
    }


@each_of(
    "options", [{"if_exists": "replace"}, {"if_exists": "differ"}, {"if_exists": "raise", "delete": True}], ids=str
)
@each_of("paths", [("a", ""), ("", "a"), ("a/a", "a"), ("a", "a/a")], ids=str)
@each_of("kind", [dict, DictStore], ids=lambda kind: kind.__name__)
def test_a_copy_never_writes_what_it_is_to_read(kind: Any, paths: tuple[str, str], options: dict[str, Any]) -> None:
    store = filled(kind())
    if paths == ("a/a", "a") and "delete" not in options:
        copy_store(store, store, *paths, **options)  # a/a/z0 goes to a/z0, which lies outside of a/a
        assert dict(store) == {**TREE, "a/z0": b"B"}
        return
    with pytest.raises(OverlapError if options["if_exists"] != "raise" else (OverlapError, FileExistsError)):
        copy_store(store, store, *paths, **options)
    assert dict(store) == TREE


def test_one_place_under_two_names_is_one_place(tmp_path: Path) -> None:
    filled(DirectoryStore(tmp_path))
    (tmp_path.parent / "link").symlink_to(tmp_path)
    ways = {**views(tmp_path), "link": lambda path: DirectoryStore(tmp_path.parent / "link" / path)}
    for name, source in ways.items():
        for other, dest in ways.items():
            if other == "cache":
                continue
            with pytest.raises(OverlapError, match="lies within"):
                copy_store(source(""), dest("a"), if_exists="differ")
            with pytest.raises(OverlapError, match="lies within"):
                copy_store(source("a"), dest(""), if_exists="replace")
            assert dict(DirectoryStore(tmp_path)) == TREE, (name, other)


def test_a_place_that_is_left_out_may_be_copied_to(tmp_path: Path) -> None:
    store = filled(DirectoryStore(tmp_path / "d"))
    for copied in (3, 0):
        dest = DirectoryStore(tmp_path / "d" / "backup")
        result = copy_store(store, dest, if_exists="differ", delete=True, exclude_globs=["backup"])
        assert (result.n_copied, dict(dest)) == (copied, TREE)


def test_what_overlaps_nothing_is_copied_within_one_store() -> None:
    store = filled({})
    assert copy_store(store, store, "a/a", "c", if_exists="replace", delete=True)[0] == 1
    assert copy_store(store, store, dest_path="all")[0] == 4  # listed before; nothing there is overwritten
    assert {key: value for key, value in store.items() if key.startswith("all/")} == {
        **{f"all/{key}": value for key, value in TREE.items()},
        "all/c/z0": b"B",
    }


def test_stores_that_are_equal_are_not_one_place() -> None:
    for kind in (dict, DictStore):
        dest = kind(dict(TREE))
        assert copy_store(kind(dict(TREE)), dest, "a", if_exists="replace")[0] == 2
        assert dict(dest) == {**TREE, "a/z0": b"B", "z0": b"A"}


def test_a_store_of_two_may_be_copied_to_from_one_of_them() -> None:
    lower = filled({})
    overlay = OverlayStore(lower, {})
    copy_store(lower, overlay, dest_path="a", if_exists="replace")
    assert (lower, overlay["a/a/z0"], overlay["a/z0"], overlay["a/b"]) == (TREE, b"A", b"A", b"b")
    split = SplitStore({}, chunks := {})
    copy_store(lower, split, "a", if_exists="replace")
    assert chunks == {"z0": b"A", "a/z0": b"B"}


def test_an_archive_or_a_database_is_no_value_of_its_own(tmp_path: Path) -> None:
    source = filled(DirectoryStore(tmp_path / "d"))
    for dest in (
        ZipStore(tmp_path / "d" / "x.zip", mode="w"),
        SQLiteStore(tmp_path / "d" / "x.db"),
        LMDBStore(tmp_path / "d" / "x.lmdb"),
        DBMStore(tmp_path / "d" / "x.dbm", open=__import__("dbm.dumb").dumb.open),
    ):
        with dest, pytest.raises(OverlapError, match=r"which is read; leave that place out \(excludes\)"):
            copy_store(source, dest)
        assert len(dest_keys(tmp_path / "d", source)) == len(TREE)
    for name in ("y.zip", "a/y.zip"):
        with pytest.raises(OverlapError, match=r"the archive .*y\.zip"):
            pack(tmp_path / "d", tmp_path / "d" / name)
        assert not (tmp_path / "d" / name).exists()


def dest_keys(folder: Path, source: DirectoryStore) -> list[str]:
    """Return the keys of a directory without those of the archives and databases that were opened in it."""
    return [key for key in source if not key.startswith("x.")]


def test_a_file_that_a_verb_writes_is_no_value_that_it_reads(tmp_path: Path) -> None:
    source = filled(DirectoryStore(tmp_path / "d"))
    file = tmp_path / "d" / "file.json"
    for write in (
        lambda: write_manifest(source, file),
        lambda: write_bagit_manifest(source, file),
        lambda: write_references(source, file),
        lambda: copy_store(source, {}, resume=file),
    ):
        with pytest.raises(OverlapError, match=r"file\.json.* lies within .*; give another place"):
            write()
        assert dict(source) == TREE
    assert write_manifest(source, file, "a") == 2  # beside what is read


def test_workers_elsewhere_do_not_list_what_others_write(tmp_path: Path) -> None:
    store = filled(DirectoryStore(tmp_path / "d"))
    with ProcessPoolExecutor(1) as pool, pytest.raises(OverlapError):
        copy_store(store, DirectoryStore(tmp_path / "d" / "b2"), if_exists="skip", executor=pool)
    assert dict(store) == TREE


def test_sync_into_its_own_source_says_so(tmp_path: Path, capsys: Any) -> None:
    filled(DirectoryStore(tmp_path / "d"))
    for source, dest in (("d", "d/backup"), ("d/a", "d")):
        assert run(["sync", str(tmp_path / source), str(tmp_path / dest), "--delete"]) == 3
        assert "which is read; leave that place out" in capsys.readouterr().err
    assert dict(DirectoryStore(tmp_path / "d")) == TREE


@each_of(
    ("make", "one", "other"),
    [
        (lambda path: DirectoryStore(path, normalize_keys=True), "A/x", "a/x"),
        (lambda path: FSStore(path.as_uri(), normalize_keys=True), "A/x", "a/x"),
        (NestedDirectoryStore, "a/0.1", "a/0/1"),
        (lambda path: NestedDirectoryStore(path, normalize_keys=True), "a/A/0/1", "a/a/0.1"),
        (lambda path: LRUStoreCache(PrefixStore(NestedDirectoryStore(path), "p"), 1000), "a/0/1.2", "a/0.1.2"),
        (lambda path: OverlayStore({}, NestedDirectoryStore(path)), "a/0.1", "a/0/1"),
        (lambda path: SplitStore({}, NestedDirectoryStore(path)), "a/0.1", "a/0/1"),
    ],
    ids=str,
)
@each_of("if_exists", ["raise", "skip", "replace", "differ"])
def test_two_keys_that_are_one_value_at_the_destination_are_refused(
    tmp_path: Path, make: Any, one: str, other: str, if_exists: Any
) -> None:
    dest = make(tmp_path / str(len(list(tmp_path.iterdir()))))
    for delete in (False, True):
        with pytest.raises(UnsupportedOperation, match=r"cannot keep .* apart; leave one of the two out"):
            copy_store({one: b"1", other: b"2", "b": b""}, dest, if_exists=if_exists, delete=delete)
        assert list(dest) == []
    assert copy_store({one: b"1", other: b"2"}, dest, if_exists=if_exists, exclude_globs=[other])[0] == 1
    assert dest[other] == b"1"


def test_workers_elsewhere_do_not_lose_one_of_two_keys(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({"A/x": b"1", "a/x": b"2"})
    dest = DirectoryStore(tmp_path / "d", normalize_keys=True)
    with ProcessPoolExecutor(1) as pool, pytest.raises(UnsupportedOperation):
        copy_store(source, dest, executor=pool)
    assert list(dest) == []


@each_of("options", [{}, {"shards": 4}, {"shards": 4, "dry_run": True}], ids=str)
def test_two_arrays_that_are_one_at_the_destination_are_not_migrated(tmp_path: Path, options: dict[str, Any]) -> None:
    source: dict[str, bytes] = {}
    for path in ("A", "a"):
        init_array(source, shape=2, chunks=2, dtype="u1", compressor=None, path=path, fill_value=0)
    dest = DirectoryStore(tmp_path, normalize_keys=True)
    with pytest.raises(UnsupportedOperation, match="cannot keep 'A' and 'a' apart"):
        migrate_2to3(source, dest, **options)
    assert list(dest) == []
