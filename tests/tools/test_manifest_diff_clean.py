"""Manifests that sha256sum reads, differences by key and byte, and junk that goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zarrstore import DirectoryStore, FilterStore, OverlayStore, clean, diff, manifest_of, read_manifest, write_manifest
from zarrstore.errors import DamagedStoreError
from zarrstore.testing import tree
from zarrstore.tools.info import describe_node, describe_store

PARTIAL = "0.0.0123456789abcdef0123456789abcdef.partial"


def test_sha256sum_checks_a_manifest_in_the_folder_of_the_store(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "d")
    store.update(tree(1000))
    assert write_manifest(store, tmp_path / "sums") == len(tree())
    check = ["sha256sum", "--check", "--quiet", str(tmp_path / "sums")]
    assert subprocess.run(check, cwd=tmp_path / "d", capture_output=True).returncode == 0
    store["foo/bar"] = b"changed"
    assert subprocess.run(check, cwd=tmp_path / "d", capture_output=True).returncode == 1
    assert read_manifest(tmp_path / "sums") != manifest_of(store)


def test_a_manifest_comes_back_with_names_that_hold_line_breaks(tmp_path: Path) -> None:
    items = {"line\nbreak": b"1", "car\rriage": b"2", "é": b"3", "u2028\u2028x": b"4", " lead": b"5"}
    write_manifest(items, tmp_path / "sums")
    assert read_manifest(tmp_path / "sums") == manifest_of(items)


@pytest.mark.parametrize("text", ["nonsense", "0" * 64 + "  ../x", "0" * 63 + "  a", "0" * 64 + "a"])
def test_what_is_no_manifest_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "sums").write_text(f"{'0' * 64}  fine\n{text}\n")
    with pytest.raises(DamagedStoreError, match="line 2"):
        read_manifest(tmp_path / "sums")


def test_diff_finds_each_difference_once_and_below_paths(tmp_path: Path) -> None:
    left = {"p/a": b"1", "p/b": b"2", "p/c": b"", "other": b""}
    right = {"q/r/b": b"2", "q/r/a": b"changed", "q/r/d": b"4"}
    assert [str(found) for found in diff(left, right, "p", "q/r")] == ["! a", "< c", "> d"]
    assert list(diff(left, dict(left))) == []


def test_clean_takes_junk_and_leaves_the_rest() -> None:
    store = {"a/0": b"1", "a/.DS_Store": b"", "._x": b"", "b/Thumbs.db": b"", "a/.zarray": b"{}", PARTIAL: b""}
    assert clean(store, dry_run=True) == sorted([PARTIAL, "._x", "a/.DS_Store", "b/Thumbs.db"])
    assert len(store) == 6
    assert clean(store, "a") == ["a/.DS_Store"]
    clean(store)
    assert store == {"a/0": b"1", "a/.zarray": b"{}"}
    assert clean(store) == []


def test_clean_takes_what_dead_writers_left_in_a_directory_and_nothing_of_the_living(tmp_path: Path) -> None:
    root = tmp_path / "d"
    store = DirectoryStore(root)
    store["a/0.0"] = b"1"
    script = (
        "import os, sys\n"
        "import zarrstore.stores.directory as d\n"
        "d.os.replace = lambda *a: os._exit(9)\n"
        "d.DirectoryStore(sys.argv[1])['a/0.1'] = b'half'\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(root)]).returncode == 9
    left = [name for name in os.listdir(root / "a") if name != "0.0"]
    assert len(left) == 1
    old, fresh = root / "a" / PARTIAL, root / "a" / PARTIAL.replace("0123", "3210")
    old.write_bytes(b"")
    fresh.write_bytes(b"")
    long_ago = time.time() - 10 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    assert store.sweep(dry_run=True) == sorted([f"a/{left[0]}", f"a/{PARTIAL}"])
    assert clean(store) == sorted([f"a/{left[0]}", f"a/{PARTIAL}"])
    assert sorted(os.listdir(root / "a")) == ["0.0", fresh.name]
    assert dict(store) == {"a/0.0": b"1"}


def test_sweeping_reaches_the_backend_through_wrappers(tmp_path: Path) -> None:
    root = tmp_path / "d"
    (root / "a").mkdir(parents=True)
    old = root / "a" / PARTIAL
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    lower = FilterStore(DirectoryStore(root))
    assert OverlayStore(lower, {}).sweep() == []  # what lies below is not touched before a commit
    assert lower.sweep(dry_run=True) == [f"a/{PARTIAL}"]
    assert lower.sweep("b") == []
    assert lower.sweep("a") == [f"a/{PARTIAL}"]
    assert not old.exists()


def test_info_of_nodes_that_are_odd() -> None:
    assert describe_node({}) == {"path": "", "kind": "directory", "children": []}
    assert describe_node({"x/y": b""}, "x") == {"path": "x", "kind": "directory", "children": ["y"]}
    with pytest.raises(KeyError):
        describe_node({"x/y": b""}, "z")
    description = describe_node({"a/.zarray": b"{"}, "a")
    assert description["kind"] == "array"
    assert "error" in description
    assert describe_store(FilterStore({}))["store"] == "KVStore"
