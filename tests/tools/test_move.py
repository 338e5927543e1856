"""A move: nothing is lost or overwritten, and the consolidated metadata above stays true at every step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zarrstore import LMDBStore, init_array
from zarrstore.tools.consolidate import check_consolidated, consolidate_metadata
from zarrstore.tools.move import move


def inline(nodes: dict[str, str]) -> dict[str, bytes]:
    group = {"zarr_format": 3, "node_type": "group"}
    found = {path: {"zarr_format": 3, "node_type": kind} for path, kind in nodes.items()}
    root = {**group, "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": found}}
    return {"zarr.json": json.dumps(root).encode()} | {
        f"{path}/zarr.json": json.dumps(node).encode() for path, node in found.items()
    }


def test_a_move_keeps_inline_consolidated_metadata_true() -> None:
    store = inline({"a": "group", "a/b": "array", "ab": "array"}) | {"a/b/c/0": b"1"}
    move(store, "a", "x/y")
    assert set(json.loads(store["zarr.json"])["consolidated_metadata"]["metadata"]) == {"ab", "x/y", "x/y/b"}
    assert store["x/y/b/c/0"] == b"1"


def test_a_move_that_is_refused_or_fails_changes_nothing() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=3, path="a")
    init_array(store, shape=3, path="b")
    consolidate_metadata(store)
    store |= inline({"a": "array", "b": "array"})
    before = dict(store)
    for source, dest, error in (("a", "b", FileExistsError), ("a", "a/b", ValueError), ("typo", "c", KeyError)):
        with pytest.raises(error):
            move(store, source, dest)
        assert store == before
    move(store, "a", "a")
    assert store == before


def test_a_move_never_lets_a_reader_look_where_the_chunks_are_not(tmp_path: Path) -> None:
    from zarrstore.testing import Recorder

    with LMDBStore(tmp_path / "a.lmdb") as inner:
        init_array(inner, shape=3, path="a")
        consolidate_metadata(inner)
        recorder = Recorder()
        move(recorder.watch(inner, "store"), "a", "b")
        actions = [event for event in recorder.order() if event[1] != "close"]
        assert actions == [
            ("store", "set", ".zmetadata"),
            ("store", "flush", ""),
            ("store", "rename", "a"),
            ("store", "flush", ""),
            ("store", "set", ".zmetadata"),
        ]
        assert not check_consolidated(inner)


def test_consolidated_metadata_of_version_3_repeats_documents_of_version_3_only() -> None:
    store = inline({"a": "array", "b": "group"})
    store |= {"a/.zarray": b"{}", "a/.zattrs": b"{}", "a/c/0": b"1"}
    move(store, "a", "b/a")
    repeated = json.loads(store["zarr.json"])["consolidated_metadata"]["metadata"]
    assert repeated.keys() == {"b", "b/a"}
    assert repeated["b/a"] == json.loads(store["b/a/zarr.json"])


def test_a_document_whose_consolidated_metadata_is_null_has_none() -> None:
    root = {"zarr_format": 3, "node_type": "group", "consolidated_metadata": None}
    store = {"zarr.json": json.dumps(root).encode(), "a/0": b"1"}
    before = store["zarr.json"]
    move(store, "a", "b")
    assert store == {"zarr.json": before, "b/0": b"1"}
