"""Walking, drawing and weighing hierarchies, and consolidating them."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import pytest

from zarrstore import DictStore, DirectoryStore, init_array, init_group, read_array
from zarrstore.errors import MetadataError
from zarrstore.nodes import walk
from zarrstore.testing import CountingStore
from zarrstore.tools.consolidate import check_consolidated, consolidate_metadata, open_consolidated
from zarrstore.tools.info import describe_node
from zarrstore.tools.tree import Usage, du, tree

V2 = Path(__file__).parent.parent / "data" / "v2"


def legacy() -> dict[str, bytes]:
    with zipfile.ZipFile(V2 / "legacy.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_node_of_a_genuine_hierarchy_is_found_and_no_chunk_is_read() -> None:
    store = CountingStore(DictStore(legacy()))
    arrays = json.loads((V2 / "manifest.json").read_text())["arrays"]
    found = list(walk(store))
    assert sorted(node.path for node in found if node.kind == "array") == sorted(arrays)
    assert {node.path for node in found if node.kind == "group"} == {
        "",
        "ocean",
        "ocean/deep",
        "ocean/surface",
        "stations",
    }
    assert store.calls["_get"] == len(found)
    assert not store.calls["_keys"]


def test_a_directory_without_a_document_is_walked_through_and_an_array_is_not() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=3, path="a/b")
    del store["a/.zgroup"], store[".zgroup"]
    store["a/b/below/.zarray"] = b"{}"
    assert [node.path for node in walk(store)] == ["a/b"]
    assert [node.path for node in walk(store, depth=1)] == []


def test_versions_are_told_apart() -> None:
    store = {
        "one/meta": b'{"zarr_format": 1}',
        "two/.zarray": b'{"zarr_format": 2}',
        "three/zarr.json": b'{"zarr_format": 3, "node_type": "array"}',
        "group/zarr.json": b'{"zarr_format": 3, "node_type": "group"}',
        "plain/meta": b'{"zarr_format": 7}',
        "junk/meta": b"not json",
    }
    assert {(node.path, node.kind, node.version) for node in walk(store)} == {
        ("one", "array", 1),
        ("two", "array", 2),
        ("three", "array", 3),
        ("group", "group", 3),
    }


def test_a_damaged_document_is_a_node_with_its_error() -> None:
    (node,) = walk({"a/.zarray": b"{"})
    assert (node.path, node.kind) == ("a", "array")
    assert isinstance(node.error, MetadataError)


def test_a_tree_draws_what_cannot_be_parsed_as_well() -> None:
    assert str(tree({"a/.zarray": b"{", ".zgroup": b"{}"})) == "/\n└── a ? ?"


def test_a_tree_of_nothing_is_a_keyerror() -> None:
    with pytest.raises(KeyError):
        tree({}, "foo")


def test_a_tree_as_json() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=3, path="a")
    described = tree(store).as_dict()
    assert [child["path"] for child in described["children"]] == ["a"]
    assert described["children"][0]["metadata"]["shape"] == [3]
    assert json.loads(json.dumps(described)) == described


def test_du_is_recursive_and_counts_a_value_beside_a_directory_of_its_name() -> None:
    store = {"a": b"12345", "a/x": b"1", "a/b/y": b"22", "ab/z": b"333"}
    assert du(store) == [Usage("", 11, 4), Usage("a", 3, 2), Usage("ab", 3, 1), Usage("a/b", 2, 1)]
    assert du(store, depth=0) == [Usage("", 11, 4)]
    assert du(store, "a") == [Usage("a", 8, 3), Usage("a/b", 2, 1)]
    assert du(store, "absent") == [Usage("absent", 0, 0)]
    assert du({}) == [Usage("", 0, 0)]


def test_du_of_a_genuine_hierarchy_is_the_sum_of_its_values() -> None:
    data = legacy()
    assert du(data)[0] == Usage("", sum(map(len, data.values())), len(data))


def test_consolidated_metadata_is_the_same_whatever_the_order_of_the_keys() -> None:
    data = legacy()
    written = set()
    for seed in range(5):
        keys = list(data)
        random.Random(seed).shuffle(keys)
        store = {key: data[key] for key in keys}
        consolidate_metadata(store)
        written.add(store[".zmetadata"])
    assert len(written) == 1


def test_consolidated_metadata_serves_documents_without_the_store() -> None:
    store = CountingStore(DictStore(legacy()))
    reading = consolidate_metadata(store)
    store.reset()
    documents = [key for key in legacy() if key.endswith((".zarray", ".zgroup", ".zattrs"))]
    assert {key: json.loads(reading[key]) for key in documents} == {key: json.loads(legacy()[key]) for key in documents}
    assert "absent/.zarray" not in reading
    assert store.calls == {}
    assert reading["scalar/0"] == legacy()["scalar/0"]


def test_every_kind_of_staleness_is_found() -> None:
    store = DictStore(legacy())
    consolidate_metadata(store)
    assert not check_consolidated(store)
    init_group(store, path="new")
    del store["scalar/.zarray"]
    store["sparse/.zattrs"] = b'{"changed": true}'
    stale = check_consolidated(store)
    assert "new/.zgroup" in stale.missing
    assert stale.extra == ("scalar/.zarray",)
    assert "sparse/.zattrs" in (*stale.different, *stale.missing)


def test_a_part_of_a_store_is_consolidated_by_itself() -> None:
    store = {f"part/{key}": value for key, value in legacy().items()}
    store["other/.zgroup"] = b"{}"
    consolidate_metadata(store, path="part")
    assert "other/.zgroup" not in json.loads(store["part/.zmetadata"])["metadata"]
    assert open_consolidated(store, path="part").listdir("ocean") == [".zgroup", "deep", "surface"]
    assert not check_consolidated(store, path="part")


def test_a_damaged_document_stops_it_before_anything_is_written() -> None:
    store = {".zgroup": b"{}", "a/.zarray": b"{"}
    with pytest.raises(MetadataError, match=r"a/\.zarray"):
        consolidate_metadata(store)
    assert ".zmetadata" not in store


def test_without_consolidated_metadata_it_is_a_keyerror() -> None:
    for call in (open_consolidated, check_consolidated):
        with pytest.raises(KeyError):
            call({".zgroup": b"{}"})


def test_du_asks_for_no_size_that_the_listing_tells(tmp_path: Path) -> None:
    class Told(DirectoryStore):
        def _nbytes(self, key: str) -> int:
            raise AssertionError(key)

    store = Told(tmp_path)
    store.update({"a/0": b"12", "a/b/1": b"3", "c": b""})
    assert du(store) == [Usage("", 3, 3), Usage("a", 3, 2), Usage("a/b", 1, 1)]
    assert du(store, depth=0) == [Usage("", 3, 3)]


def test_read_array_and_info_find_the_chunks_of_an_old_nested_tree() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=(2, 2), chunks=(1, 1), dtype="u1", compressor=None, path="a", fill_value=0)
    document = json.loads(store["a/.zarray"])
    document.pop("dimension_separator", None)
    store["a/.zarray"] = json.dumps(document).encode()
    store |= {"a/0/1": b"\x07", "a/.DS_Store": b"junk", "a/7/7": b"outside"}
    assert read_array(store, "a").tolist() == [[0, 7], [0, 0]]
    assert describe_node(store, "a")["chunks_initialized"] == 1
