"""Creating, finding and deleting nodes, over any mapping."""

from __future__ import annotations

import json
from pathlib import Path

import numcodecs
import pytest

from tests.support.cases import each_of
from zarrstore import DictStore, Store
from zarrstore.errors import ContainsArrayError, ContainsGroupError, InvalidPathError, ReadOnlyError
from zarrstore.hierarchy import contains_array, contains_group, delete_node, init_array, init_group
from zarrstore.testing import CountingStore, FailingStore

GROUP = b'{\n    "zarr_format": 2\n}'


def test_the_first_example_of_the_zarr_2_2_documentation_byte_for_byte() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=(10000, 10000), chunks=(1000, 1000))
    assert list(store) == [".zarray"]
    assert store[".zarray"] == (
        b"{\n"
        b'    "chunks": [\n        1000,\n        1000\n    ],\n'
        b'    "compressor": {\n        "blocksize": 0,\n        "clevel": 5,\n        "cname": "lz4",\n'
        b'        "id": "blosc",\n        "shuffle": 1\n    },\n'
        b'    "dtype": "<f8",\n'
        b'    "fill_value": null,\n'
        b'    "filters": null,\n'
        b'    "order": "C",\n'
        b'    "shape": [\n        10000,\n        10000\n    ],\n'
        b'    "zarr_format": 2\n'
        b"}"
    )


def test_the_second_example_of_the_zarr_2_2_documentation_byte_for_byte() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=100000000, chunks=1000000, dtype="i1", path="foo")
    assert sorted(store) == [".zgroup", "foo/.zarray"]
    assert store[".zgroup"] == GROUP
    assert store["foo/.zarray"] == (
        b"{\n"
        b'    "chunks": [\n        1000000\n    ],\n'
        b'    "compressor": {\n        "blocksize": 0,\n        "clevel": 5,\n        "cname": "lz4",\n'
        b'        "id": "blosc",\n        "shuffle": 1\n    },\n'
        b'    "dtype": "|i1",\n'
        b'    "fill_value": null,\n'
        b'    "filters": null,\n'
        b'    "order": "C",\n'
        b'    "shape": [\n        100000000\n    ],\n'
        b'    "zarr_format": 2\n'
        b"}"
    )


def test_every_group_above_is_created_once_and_an_existing_one_is_left_alone() -> None:
    store: dict[str, bytes] = {".zgroup": b'{"zarr_format": 2}'}
    init_group(store, path="a/b/c")
    assert store == {
        ".zgroup": b'{"zarr_format": 2}',
        "a/.zgroup": GROUP,
        "a/b/.zgroup": GROUP,
        "a/b/c/.zgroup": GROUP,
    }


@pytest.mark.parametrize("path", ["/a/b/", "a//b", b"a/b", "a\\b"])
def test_a_path_may_be_spelled_in_zarr_s_ways(path: object) -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=1, path=path)
    assert contains_array(store, "a/b")
    assert contains_array(store, path)
    assert contains_group(store, "a")


@each_of("call", [contains_array, contains_group, delete_node, lambda s, p: init_group(s, path=p)])
@each_of("path", ["../a", "a/./b", ".", "a/.."])
def test_a_path_that_leads_elsewhere_is_refused(call, path: str) -> None:
    store: dict[str, bytes] = {}
    with pytest.raises(InvalidPathError):
        call(store, path)
    assert store == {}


def test_what_exists_is_not_replaced_unless_told() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=10, path="a")
    init_group(store, path="g")
    before = dict(store)
    for create in (lambda path: init_array(store, shape=3, path=path), lambda path: init_group(store, path=path)):
        with pytest.raises(ContainsArrayError):
            create("a")
        with pytest.raises(ContainsGroupError):
            create("g")
        with pytest.raises(ContainsArrayError) as caught:
            create("a/below/deep")
        assert caught.value.path == "a"
    assert store == before


def test_overwrite_removes_the_node_in_both_stores_and_no_neighbour() -> None:
    store: dict[str, bytes] = {"ab/0": b"neighbour"}
    chunks = {"a/0": b"chunk", "a/1": b"chunk", "ab/0": b"neighbour"}
    init_array(store, shape=10, path="a", chunk_store=chunks)
    store["a/0"] = b"old"
    init_array(store, shape=5, path="a", overwrite=True, chunk_store=chunks)
    assert sorted(store) == [".zgroup", "a/.zarray", "ab/0"]
    assert json.loads(store["a/.zarray"])["shape"] == [5]
    assert chunks == {"ab/0": b"neighbour"}


def test_overwrite_below_an_array_makes_a_group_of_it() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=10, path="a")
    store["a/0"] = b"chunk"
    init_array(store, shape=5, path="a/b", overwrite=True)
    assert sorted(store) == [".zgroup", "a/.zgroup", "a/b/.zarray"]


BAD_ARGUMENTS = [
    {"dtype": "no such type"},
    {"dtype": object},
    {"compressor": "zlib"},
    {"compressor": object()},
    {"chunks": (1, 2)},
    {"chunks": 0},
    {"chunks": -5},
    {"shape": -1},
    {"shape": (3, "x")},
    {"order": "Z"},
    {"dimension_separator": "-"},
    {"fill_value": "text", "dtype": "f8"},
    {"fill_value": 300, "dtype": "u1"},
    {"filters": [object()]},
]


@each_of("bad", BAD_ARGUMENTS, ids=lambda bad: next(iter(bad)))
@each_of("overwrite", [False, True])
def test_a_bad_argument_changes_nothing_at_all(bad: dict[str, object], overwrite: bool) -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=10, path="old")
    store["old/0"] = b"chunk"
    before = dict(store)
    with pytest.raises((ValueError, TypeError)):
        init_array(store, **{"shape": 10, **bad}, path="old" if overwrite else "new/deep", overwrite=overwrite)
    assert store == before


def test_every_parameter_of_zarr_2_2_is_written() -> None:
    store: dict[str, bytes] = {}
    init_array(
        store,
        shape=(4, 6),
        chunks=(2, 3),
        dtype="<i2",
        compressor=numcodecs.Zlib(3),
        fill_value=7,
        order="F",
        overwrite=False,
        path="x",
        chunk_store=None,
        filters=[numcodecs.Delta("<i2")],
        object_codec=None,
        dimension_separator="/",
    )
    assert json.loads(store["x/.zarray"]) == {
        "chunks": [2, 3],
        "compressor": {"id": "zlib", "level": 3},
        "dimension_separator": "/",
        "dtype": "<i2",
        "fill_value": 7,
        "filters": [{"id": "delta", "dtype": "<i2", "astype": "<i2"}],
        "order": "F",
        "shape": [4, 6],
        "zarr_format": 2,
    }


def test_any_object_with_a_configuration_is_a_codec() -> None:
    class Mine:
        def get_config(self) -> dict[str, object]:
            return {"id": "mine", "level": 3}

    store: dict[str, bytes] = {}
    init_array(store, shape=3, dtype=object, compressor=Mine(), object_codec=numcodecs.MsgPack(), filters=[Mine()])
    document = json.loads(store[".zarray"])
    assert document["compressor"] == {"id": "mine", "level": 3}
    assert [codec["id"] for codec in document["filters"]] == ["msgpack2", "mine"]


def test_the_separator_of_the_store_is_recorded_when_the_caller_names_none() -> None:
    store = DictStore(dimension_separator="/")
    init_array(store, shape=3)
    assert json.loads(store[".zarray"])["dimension_separator"] == "/"


def test_delete_node_removes_the_subtree_and_nothing_else() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=10, path="a/b")
    store["a/b/0"] = b"chunk"
    store["a/b.c"] = b"neighbour"
    delete_node(store, "a/b")
    assert sorted(store) == [".zgroup", "a/.zgroup", "a/b.c"]
    for path in ("a/b", "nothing"):
        with pytest.raises(KeyError):
            delete_node(store, path)
    delete_node(store)
    assert store == {}


def test_a_node_is_found_by_one_look_and_without_reading_it() -> None:
    store = CountingStore({})
    init_array(store, shape=3, path="a")
    store.reset()
    assert contains_array(store, "a")
    assert not contains_group(store, "a")
    assert store.calls == {"_contains": 2}


def test_a_read_only_store_is_refused_before_anything() -> None:
    from types import MappingProxyType

    store = MappingProxyType({"a/.zgroup": GROUP})
    with pytest.raises(ReadOnlyError):
        init_array(store, shape=3, path="b", overwrite=True)  # type: ignore[arg-type]


def test_the_document_of_the_array_is_written_last() -> None:
    inner: Store = DictStore()
    with pytest.raises(OSError):
        init_array(FailingStore(inner, OSError(28, "full"), methods=["_set"], after=1), shape=3, path="a/b")
    assert not contains_array(inner, "a/b")
    init_array(inner, shape=3, path="a/b")
    assert contains_array(inner, "a/b")


def test_in_a_store_of_files_a_value_in_the_way_is_found_before_anything_is_written(tmp_path: Path) -> None:
    from zarrstore.errors import ConflictError
    from zarrstore.stores.directory import DirectoryStore

    store = DirectoryStore(tmp_path / "d")
    store["a/value"] = b"1"
    with pytest.raises(ConflictError):
        init_array(store, shape=3, path="a/value/b")
    with pytest.raises(ConflictError):
        init_group(store, path="a/value", overwrite=True)
    assert dict(store) == {"a/value": b"1"}
