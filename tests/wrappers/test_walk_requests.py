"""A walk over a wrapped store asks as few questions as one over the store itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.roster import WRAPPERS
from zarrstore import (
    ConsolidatedStore,
    DictStore,
    LRUStoreCache,
    OverlayStore,
    PrefixStore,
    SplitStore,
    consolidate_metadata,
    init_array,
    init_group,
    walk,
)
from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.wrappers.unsharded import UnshardedView
from zarrstore.wrappers.v3view import V3View


class _Remote(DictStore):
    """Counts listings, and tells with each name whether keys are below it, as a service does."""

    def __init__(self) -> None:
        super().__init__()
        self.n_listings: Counter[str] = Counter()

    def _keys(self, path: str) -> Iterable[str]:
        self.n_listings[path] += 1
        return super()._keys(path)

    def _listdir(self, path: str) -> Iterable[str]:
        return dict(self._list_children(path))

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        self.n_listings[path] += 1
        below = list(super()._keys(path))
        return [(name, any(k.is_below(key, k.join(path, name)) for key in below)) for name in k.children(below, path)]


def _fill(store: Store) -> None:
    init_group(store)
    for group in ("foo", "foo.bar", "uns"):
        init_group(store, path=group)
        init_array(store, path=f"{group}/a", shape=(4,), chunks=(2,), dtype="i4", compressor=None)
        store[f"{group}/a/0"] = bytes(8)
        # What is no node, such as a readme, must not be looked at as if it were a directory.
        store.update({f"{group}/stray{n}": b"x" for n in range(10)})


def _listings(wrap: Callable[[Any, Path], Any], path: Path) -> tuple[list[str], int]:
    remote = _Remote()
    wrapped = wrap(remote, path)
    _fill(wrapped if isinstance(wrapped, PrefixStore | SplitStore) else remote)
    wrapped = wrap(remote, path)
    remote.n_listings.clear()
    return sorted(node.path for node in walk(wrapped)), remote.n_listings.total()


NODES = ["", "foo", "foo.bar", "foo.bar/a", "foo/a", "uns", "uns/a"]


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_walk_over_a_wrapper_lists_what_a_walk_over_the_store_lists(name: str, tmp_path: Path) -> None:
    nodes, n_listings = _listings(WRAPPERS[name], tmp_path / "x")
    assert nodes == NODES
    assert n_listings <= len(NODES) * (2 if name == "SplitStore" else 1)  # which asks two stores; 37 and 74 once


def test_views_of_one_version_ask_no_more_than_the_store(tmp_path: Path) -> None:
    def consolidated(inner: Any, path: Path) -> Any:
        if inner:
            consolidate_metadata(inner)
        return ConsolidatedStore(inner) if inner else inner

    for wrap in (consolidated, lambda inner, path: V3View(inner), lambda inner, path: UnshardedView(inner)):
        nodes, n_listings = _listings(wrap, tmp_path)
        assert nodes == NODES
        assert n_listings <= len(NODES)


def test_what_a_cache_remembers_of_children_is_forgotten_when_a_value_gets_keys_below_it() -> None:
    cache = LRUStoreCache(DictStore({"g/x": b"1"}), 1e6)
    assert dict(cache._list_children("g"))["x"] in (True, False)
    remote = _Remote()
    remote.update({"g/x": b"1", "g/y/z": b"1"})
    cache = LRUStoreCache(remote, 1e6)
    assert dict(cache._list_children("g")) == {"x": False, "y": True}
    cache["g/x/deep/er"] = b"2"  # a flat store may hold both
    assert dict(cache._list_children("g")) == {"x": True, "y": True}
    remote.n_listings.clear()
    cache["g/x/deep/est"] = b"3"
    cache["g/y/z"] = b"3"
    assert dict(cache._list_children("g")) == {"x": True, "y": True}
    assert cache.listdir("g") == ["x", "y"]
    assert not remote.n_listings  # nothing changed in that directory


def test_children_of_two_stores_are_paths_where_either_has_keys_below() -> None:
    lower, upper = _Remote(), _Remote()
    lower.update({"g/x": b"1", "g/y/z": b"1", "g/gone/z": b"1", "g/both": b"1"})
    overlay = OverlayStore(lower, upper)
    overlay.update({"g/x/new": b"2", "g/own": b"2"})
    del overlay["g/gone/z"]
    found = dict(overlay._list_children("g"))
    assert {name: found[name] for name in ("x", "y", "own", "both")} == {
        "x": True,
        "y": True,
        "own": False,
        "both": False,
    }
    assert "gone" not in found
    assert set(found) == set(overlay.listdir("g"))
