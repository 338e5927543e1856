"""Latency is overlapped: how many requests follow one another, counted and not timed, at most 64 of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from zarrstore import DictStore, consolidate_metadata, delete_node, init_array, init_group, migrate_2to3, verify
from zarrstore.nodes import walk
from zarrstore.testing import RoundsStore
from zarrstore.tools.copy import copy_store
from zarrstore.tools.info import describe_node
from zarrstore.tools.move import move
from zarrstore.tools.tree import du, tree

#: What a round of 100 ms is to a time limit in seconds.
SECOND = 10


def arrays(count: int, **options: Any) -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    options = {"shape": 4, "chunks": 2, "dtype": "u1", "compressor": None, "fill_value": 0, **options}
    for n in range(count):
        init_array(store, path=f"group/a{n}", **options)
    return store


def chunks(count: int) -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    init_array(store, shape=2 * count, chunks=2, dtype="u1", compressor=None, fill_value=0, path="x")
    return {**store, **{f"x/{n}": b"12" for n in range(count)}}


def seen(data: dict[str, bytes], act: Callable[[Any], Any], **options: Any) -> RoundsStore:
    # Long enough that a thread which a busy machine starts late still overlaps with the others.
    store = RoundsStore(dict(data), **{"delay": 0.04, **options})
    act(store)
    return store


def test_a_tree_of_200_arrays_takes_one_request_an_array() -> None:
    data = arrays(200)
    store = seen(data, tree)
    assert store.requests <= 210
    assert store.rounds <= 3 * SECOND
    assert 32 <= store.busiest <= 64
    assert str(tree(store)) == str(tree(data))


def test_an_option_of_the_store_says_how_many_requests_are_in_flight() -> None:
    assert seen(arrays(40), lambda store: list(walk(store)), in_flight=5).busiest <= 5


def test_a_tree_of_a_consolidated_hierarchy_is_one_read() -> None:
    data = arrays(50)
    consolidate_metadata(data).close()
    store = seen(data, tree)
    assert store.requests == 1
    assert str(tree(store)) == str(tree(data, consolidated=False))
    assert str(tree(store, depth=1)) == str(tree(data, depth=1, consolidated=False))
    data["group/new/.zarray"] = data["group/a0/.zarray"]
    assert "new" not in str(tree(data))
    assert "new" in str(tree(data, consolidated=False))


def test_a_tree_of_consolidated_metadata_of_version_3_is_two_reads() -> None:
    data = arrays(50)
    consolidate_metadata(data).close()
    migrate_2to3(data, remove_v2=True)
    store = seen(data, tree)
    assert store.requests == 2
    assert str(tree(store)) == str(tree(data, consolidated=False))


def test_damaged_consolidated_metadata_does_not_hide_the_tree() -> None:
    data = arrays(2)
    data[".zmetadata"] = b"{"
    assert "a1" in str(tree(data))


@pytest.mark.parametrize("version", [2, 3])
def test_a_walk_that_overlaps_finds_what_one_that_does_not_finds(version: int) -> None:
    data = arrays(5)
    init_group(data, path="empty")
    init_array(data, shape=2, path="deep/er/est/array")
    init_array(data, shape=2, path="group/b/c")
    if version == 3:
        migrate_2to3(data, remove_v2=True)
    data["plain/below/.zarray"] = data["plain/below/zarr.json"] = b"{"
    data["v1/meta"] = b'{"zarr_format": 1}'
    data["both/.zgroup"] = b'{"zarr_format": 2}'
    data["both/zarr.json"] = b'{"zarr_format": 3, "node_type": "array"}'
    data["group/a1/below/.zarray"] = b"{}"
    for path, depth in (("", None), ("", 1), ("group", None), ("deep/er", 0), ("nothing", None)):
        alone = [
            (node.path, node.kind, node.version, node.document) for node in walk(DictStore(data), path, depth=depth)
        ]
        together = walk(RoundsStore(data, delay=0), path, depth=depth)
        assert [(node.path, node.kind, node.version, node.document) for node in together] == alone


def test_groups_below_groups_are_looked_at_together() -> None:
    data: dict[str, bytes] = {}
    for n in range(60):
        init_array(data, shape=2, path=f"g{n}/sub/array")
    assert seen(data, lambda store: list(walk(store))).rounds <= 20


def test_an_array_of_a_million_chunks_is_not_listed_to_be_found() -> None:
    data = arrays(3)
    data.update({f"group/a1/{n}": b"" for n in range(5000)})
    assert seen(data, tree).requests <= 12


def test_migrating_200_arrays() -> None:
    for options in ({}, {"shape": (4, 4)}):  # of two axes: the spelling of the chunks is looked for
        data = arrays(200, **options)
        store = seen(data, migrate_2to3)
        assert store.rounds <= 8 * SECOND
        assert store.busiest <= 65  # 64, and the walk that feeds them
        expected = dict(data)
        migrate_2to3(expected)
        assert dict(store.inner) == expected
    assert seen(data, lambda store: migrate_2to3(store, remove_v2=True)).rounds <= 12 * SECOND


def test_facts_of_an_array_of_1000_chunks_take_five_requests() -> None:
    data = chunks(1000)
    assert seen(data, lambda store: describe_node(store, "x")).requests <= 5
    init_array(data, shape=(40, 40), chunks=(2, 2), path="y")
    data.update({f"y/{n}/{m}": b"" for n in range(20) for m in range(20)})
    assert seen(data, lambda store: describe_node(store, "y")).requests <= 5
    migrate_2to3(data, remove_v2=True)
    store = RoundsStore(data)
    assert describe_node(store, "x")["chunks_initialized"] == 1000
    assert store.requests <= 5
    assert seen(data, lambda store: du(store, "x")).requests <= 3


def test_renaming_1000_keys() -> None:
    for act in (lambda store: store.rename("x", "y"), lambda store: move(store, "x", "y")):
        store = seen(chunks(1000), act)
        assert store.rounds <= 8 * SECOND
        assert len(store.inner) == 1002
        assert store.busiest <= 64


def test_deleting_1000_keys_takes_four_requests() -> None:
    data = chunks(1000)
    assert seen(data, lambda store: store.rmdir("x")).requests <= 4
    assert seen(data, lambda store: delete_node(store, "x")).requests <= 5
    assert seen(data, lambda store: store.delitems(list(data))).requests <= 2


def test_verifying_200_arrays() -> None:
    data = arrays(200)
    data |= {f"group/a{n}/{m}": b"12" for n in range(200) for m in range(2)}
    consolidate_metadata(data).close()
    for content in (data, {**data, "group/a7/1": b"123", "group/a9/.zarray": b"{", "group/a8/.DS_Store": b""}):
        store = RoundsStore(content)
        report = verify(store, missing="all")
        assert store.rounds <= 3 * SECOND
        assert [str(problem) for problem in report.problems] == [
            str(problem) for problem in verify(content, missing="all").problems
        ]


def test_consolidating_200_arrays() -> None:
    for options in ({}, {"shape": (4, 4)}):
        data = arrays(200, **options)
        store = seen(data, consolidate_metadata)
        assert store.rounds <= 2 * SECOND
        expected = dict(data)
        consolidate_metadata(expected).close()
        assert dict(store.inner) == expected


def test_copying_1000_chunks_from_and_to_a_slow_place() -> None:
    data = chunks(1000)
    source, dest = RoundsStore(dict(data), delay=0.04), RoundsStore({}, delay=0.04)
    copy_store(source, dest)
    assert dict(dest.inner) == data
    # Two listings, 1,000 values of which 64 are in flight, and two levels of documents; half as much again at the most.
    ideal = 2 + 16 + 2
    assert source.rounds <= 1.5 * ideal
    assert dest.rounds <= 1.5 * ideal


def test_a_store_that_is_not_concurrent_is_asked_one_thing_at_a_time() -> None:
    data = arrays(20)
    store = seen(data, tree, concurrent=False)
    assert (store.busiest, store.rounds) == (1, store.requests)
    assert seen(data, tree).rounds < store.rounds / 3
