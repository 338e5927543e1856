"""Differences: found in one pass over two sorted streams, whatever the stores tell."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarrstore import DictStore, diff
from zarrstore.base import Entry
from zarrstore.errors import InvalidKeyError
from zarrstore.testing import CountingStore
from zarrstore.tools.listing import Listing, listing_of, present, require
from zarrstore.tools.manifest import compare_manifest, manifest_of, write_manifest

SIDE = st.dictionaries(
    st.text("ab/", min_size=1, max_size=3).filter(lambda s: "//" not in f"/{s}/"), st.binary(max_size=1)
)


@given(SIDE, SIDE)
def test_every_key_is_named_once_in_order_if_and_only_if_it_differs(
    left: dict[str, bytes], right: dict[str, bytes]
) -> None:
    wanted = []
    for key in sorted(left.keys() | right.keys()):
        if key not in right:
            wanted.append(f"< {key}")
        elif key not in left:
            wanted.append(f"> {key}")
        elif left[key] != right[key]:
            wanted.append(f"! {key}")
    assert [str(found) for found in diff(left, right)] == wanted
    assert [str(found) for found in diff(CountingStore(left), CountingStore(right))] == wanted


def test_values_of_different_size_are_not_read() -> None:
    class Unread(DictStore):
        def _get(self, key: str) -> bytes:
            raise AssertionError(key)

    assert [str(found) for found in diff(Unread({"a": b"1"}), Unread({"a": b"22"}))] == ["! a"]


def test_a_path_at_which_nothing_is_is_an_error_on_either_side() -> None:
    for paths in (("typo", "a"), ("a", "typo")):
        with pytest.raises(KeyError, match="typo"):
            list(diff({"a/b": b""}, {"a/b": b""}, *paths))
    assert list(diff({}, {})) == []


def test_values_at_the_paths_themselves_are_compared() -> None:
    left, right = {"x/a": b"1", "x/a/b": b"1"}, {"y": b"2", "y/b": b"1"}
    assert [str(found) for found in diff(left, right, "x/a", "y")] == ["! a"]
    assert [str(found) for found in diff(left, right, "x/a", "x" if "x" in right else "y/b")] == ["< b"]


def test_memory_is_bounded_where_both_sides_fetch_ahead_and_tell_no_sizes() -> None:
    asked: list[int] = []

    class Far(DictStore):
        capabilities = replace(DictStore.capabilities, concurrent=True)

        def _details(self, path: str) -> Any:
            return map(Entry, self._keys(path))

        def _get_many(self, keys: Any) -> Any:
            asked.append(len(keys))
            return super()._get_many(keys)

    held = {f"a/{n:02d}": bytes(64 << 20) for n in range(2)} | {f"b/{n:02d}": b"" for n in range(40)}
    assert list(diff(Far(held), Far(held))) == []
    assert asked[:2] == [1, 1]  # one value of each side before any size is known
    assert max(asked) <= 1  # and one at a time for ever after one of 64 MiB was met


def test_a_manifest_is_compared_as_a_stream(tmp_path: Any) -> None:
    store = {"p/a": b"1", "p/b": b"2", "p/c": b"3", "other": b""}
    write_manifest(store, tmp_path / "sums", "p")
    assert list(compare_manifest(store, tmp_path / "sums", "p")) == []
    store |= {"p/b": b"changed", "p/d": b""}
    del store["p/c"]
    found = list(compare_manifest(store, tmp_path / "sums", "p"))
    assert [key for key, _, _ in found] == ["b", "c", "d"]
    assert [(wanted is None, digest is None) for _, wanted, digest in found] == [
        (False, False),
        (False, True),
        (True, False),
    ]
    assert list(compare_manifest(store, manifest_of(store, "p"), "p")) == []


def test_only_the_values_are_read_that_may_be_the_same() -> None:
    asked: list[list[str]] = []

    class Recorded(DictStore):
        def _get_many(self, keys: Any) -> Any:
            asked.append(list(keys))
            return super()._get_many(keys)

    left, right = {"a": b"1", "b": b"1", "c": b"1"}, {"a": b"22", "b": b"1", "d": b"1"}
    assert [str(found) for found in diff(Recorded(left), Recorded(right))] == ["! a", "< c", "> d"]
    assert asked == [["b"], ["b"]]


@pytest.mark.parametrize("far", ["left", "right"])
def test_one_side_that_fetches_ahead_makes_the_first_batch_small(far: str) -> None:
    asked: list[int] = []

    class Untold(DictStore):
        def _details(self, path: str) -> Any:
            return map(Entry, self._keys(path))

        def _get_many(self, keys: Any) -> Any:
            asked.append(len(keys))
            return super()._get_many(keys)

    class Far(Untold):
        capabilities = replace(DictStore.capabilities, concurrent=True)

    items = {f"a/{n}": b"" for n in range(5)}
    sides = Far(items), Untold(items)
    assert list(diff(*(sides if far == "left" else sides[::-1]))) == []
    assert asked == [1, 1, 4, 4]


def test_whether_a_value_is_at_a_path_itself_is_asked_once() -> None:
    store = CountingStore({"x": b"", "y/z": b""})
    assert [require(store, path) for path in ("x", "y", "")] == [True, False, False]
    assert store.calls["_contains"] == 2
    with pytest.raises(KeyError, match="typo"):
        require(store, "typo")


@pytest.mark.parametrize("details", [True, False])
def test_a_name_that_is_no_key_is_refused_wherever_a_store_lists_it(details: bool) -> None:
    class Foreign(DictStore):
        def _keys(self, path: str) -> Any:
            return iter(["a", "../b"])

        def _details(self, path: str) -> Any:
            return map(Entry, self._keys(path))

    with pytest.raises(InvalidKeyError, match=r"\.\./b"):
        list(listing_of(Foreign({"a": b""}), details=details).entries)


@pytest.mark.parametrize("concurrent", [False, True])
def test_the_size_of_a_value_is_asked_for_only_where_the_listing_does_not_tell(concurrent: bool) -> None:
    inner = DictStore({"a": b"", "b": b"12", "c": b"123"})
    inner.capabilities = replace(inner.capabilities, concurrent=concurrent)
    store = CountingStore(inner)
    listed = [Entry("a", 0), Entry("absent"), Entry("b", 2), Entry("c")]
    assert list(present(store, Listing(listed))) == [Entry("a", 0), Entry("b", 2), Entry("c", 3)]
    assert sorted(key for method, key in store.log if method == "_nbytes") == ["absent", "c"]


def test_sizes_are_asked_for_at_the_same_time_where_waiting_costs_nothing() -> None:
    class Far(DictStore):
        capabilities = replace(DictStore.capabilities, concurrent=True)

        def _nbytes(self, key: str) -> int:
            together.wait()
            return super()._nbytes(key)

    together = threading.Barrier(2, timeout=60)
    assert list(present(Far({"a": b"1", "b": b"22"}), Listing([Entry("a"), Entry("b")]))) == [
        Entry("a", 1),
        Entry("b", 2),
    ]
