"""Every wrapper hands every driver call to the same driver of what it holds: nothing gets slow without a sound."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import zarrstore.wrappers
from tests.support.cases import each_of
from zarrstore import DictStore
from zarrstore.base import DRIVER, WRITES, Entry, Store
from zarrstore.refuse import RefuseWrites
from zarrstore.testing import CountingStore
from zarrstore.wrappers.base import Wrapper
from zarrstore.wrappers.consolidated import ConsolidatedStore
from zarrstore.wrappers.filter import FilterStore
from zarrstore.wrappers.metrics import MetricsStore
from zarrstore.wrappers.overlay import OverlayStore
from zarrstore.wrappers.prefix import PrefixStore
from zarrstore.wrappers.readonly import ReadOnlyStore
from zarrstore.wrappers.retry import RetryStore
from zarrstore.wrappers.split import SplitStore
from zarrstore.wrappers.usagelog import UsageLogStore


def wrapper_classes() -> list[type[Wrapper]]:
    """Return every public class below zarrstore.wrappers that wraps a store."""
    found = set()
    for module in pkgutil.iter_modules(zarrstore.wrappers.__path__):
        for _, cls in inspect.getmembers(importlib.import_module(f"zarrstore.wrappers.{module.name}"), inspect.isclass):
            if issubclass(cls, Wrapper) and cls is not Wrapper and not cls.__name__.startswith("_"):
                found.add(cls)
    return sorted(found, key=lambda cls: cls.__name__)


@each_of("cls", wrapper_classes(), ids=lambda cls: cls.__name__)
@each_of("method", DRIVER)
def test_no_wrapper_falls_back_to_the_slow_default_of_a_driver_method(cls: type[Wrapper], method: str) -> None:
    assert getattr(cls, method) is not getattr(Store, method)


@each_of("cls", [SplitStore, OverlayStore], ids=lambda cls: cls.__name__)
@each_of("method", DRIVER)
def test_a_wrapper_of_two_stores_overrides_every_driver_method(cls: type[Wrapper], method: str) -> None:
    # What Wrapper inherits would reach one of the two only.
    own = [base for base in cls.__mro__ if issubclass(base, Wrapper) and base is not Wrapper]
    assert any(method in vars(base) for base in own)


@each_of("method", WRITES)
def test_a_read_only_store_refuses_every_write_by_itself(method: str) -> None:
    assert method in vars(RefuseWrites)
    assert getattr(ReadOnlyStore, method) is getattr(RefuseWrites, method)


def test_a_new_name_in_the_driver_is_a_failing_test() -> None:
    # The three tests above go by these lists: a method that Wrapper forwards is in them.
    forwarded = {name for name in vars(Wrapper) if name.startswith("_") and hasattr(Store, name)}
    forwarded -= {name for name in forwarded if name.startswith("__")}
    no_driver = {"_place", "_abc_impl", "_departures", "_details", "_entry", "_extent", "_irregular", "_stored_key"}
    no_driver |= {"_folded_key", "_list_children", "_location", "_with_descriptor"}
    forwarded -= no_driver
    assert forwarded == set(DRIVER)


TREE = {"a/.zarray": b"{}", "a/0.0": b"1", "a/0.1": b"22", "b/0.0": b"333"}

#: One call of each driver method, on a store that holds TREE.
CALLS: dict[str, tuple[Any, ...]] = {
    "_get": ("a/0.0",),
    "_contains": ("a/0.0",),
    "_keys": ("a",),
    "_count": (),
    "_get_range": ("a/0.1", 0, 1),
    "_get_ranges": ("a/0.1", [(0, 1), (1, None)]),
    "_get_suffix": ("a/0.1", 1),
    "_nbytes": ("a/0.1",),
    "_get_many": (["a/0.0", "a/0.1"],),
    "_listdir": ("a",),
    "_getsize": ("a",),
    "_set": ("a/0.2", b"new"),
    "_delete": ("a/0.0",),
    "_set_many": ([("a/0.2", b"new")],),
    "_delete_many": (["a/0.0"],),
    "_rmdir": ("b",),
    "_rename": ("b", "c"),
    "_clear": (),
    "_sweep": ("a", True),
    "_flush": (),
    "_close": (),
}

#: Wrappers, and the driver methods that they cannot hand on one to one, with what reaches the store instead.
WRAPPED: dict[str, tuple[Any, dict[str, list[str]]]] = {
    "Wrapper": (Wrapper, {}),
    "MetricsStore": (MetricsStore, {}),
    "UsageLogStore": (lambda inner: UsageLogStore(inner, [].append), {}),
    "RetryStore": (RetryStore, {}),
    "PrefixStore": (
        lambda inner: PrefixStore(inner, "below"),
        {"_count": ["_keys"], "_clear": ["_rmdir"]},  # inner holds more
    ),
    "FilterStore": (
        FilterStore,
        # Junk is not counted, is looked for among the children, and does not stand in a rename's way.
        {"_count": ["_keys"], "_getsize": ["_listdir", "_getsize"], "_rename": ["_keys", "_delete_many", "_rename"]},
    ),
    "ReadOnlyStore": (ReadOnlyStore, {method: [] for method in WRITES}),
}


@each_of("method", DRIVER)
@each_of("name", WRAPPED)
def test_a_driver_call_reaches_the_same_driver_below_and_no_other(name: str, method: str) -> None:
    make, others = WRAPPED[name]
    backend = CountingStore(DictStore())
    open_ = Wrapper(backend) if name == "ReadOnlyStore" else make(backend)
    open_.update(TREE)
    store = make(backend)
    backend.reset()
    try:
        result = getattr(store, method)(*CALLS[method])
        if method in ("_keys", "_listdir", "_get_many"):
            list(result)
    except PermissionError:
        assert others.get(method) == []
    assert list(backend.calls.elements()) == others.get(method, [method])


def test_calls_exist_for_every_driver_method() -> None:
    assert sorted(CALLS) == sorted(DRIVER)


@pytest.mark.parametrize("path", ["", "a"])
def test_a_listing_through_six_wrappers_is_one_listing_below(path: str) -> None:
    backend = CountingStore(DictStore())
    backend.update({f"below/{key}": value for key, value in TREE.items()})
    store = ReadOnlyStore(
        MetricsStore(RetryStore(FilterStore(PrefixStore(UsageLogStore(backend, [].append), "below"))))
    )
    backend.reset()
    store.listdir(path)
    assert backend.calls == {"_listdir": 1}


def test_a_batch_through_six_wrappers_is_one_batch_below() -> None:
    backend = CountingStore(DictStore())
    backend.update({f"below/{key}": value for key, value in TREE.items()})
    store = ReadOnlyStore(
        MetricsStore(RetryStore(FilterStore(PrefixStore(UsageLogStore(backend, [].append), "below"))))
    )
    backend.reset()
    assert dict(store.getitems([*TREE, "absent"])) == TREE
    assert backend.calls == {"_get_many": 1}


def test_consolidated_documents_cost_nothing_and_chunks_what_they_cost_below() -> None:
    backend = CountingStore(DictStore())
    backend.update(TREE)
    backend[".zmetadata"] = b'{"zarr_consolidated_format": 1, "metadata": {"a/.zarray": {}}}'
    store = ConsolidatedStore(backend)
    backend.reset()
    assert (store["a/.zarray"], ".zgroup" in store, store.get("b/.zarray")) == (b"{}", False, None)
    assert backend.calls == {}
    assert dict(store.getitems(["a/0.0", "a/0.1"])) == {"a/0.0": b"1", "a/0.1": b"22"}
    assert store.getrange("a/0.1", 1) == b"2"
    assert backend.calls == {"_get_many": 1, "_get_range": 1}


@pytest.mark.parametrize("wrap", [Wrapper, FilterStore, MetricsStore, lambda s: PrefixStore(s, "a"), ReadOnlyStore])
def test_sizes_and_identities_of_a_listing_come_through(wrap: Any) -> None:
    class Detailed(DictStore):
        def _details(self, path: str) -> Any:
            return (Entry(key, 7, "tag") for key in self._keys(path))

    store = wrap(Detailed({"a/b": b"", "a/.DS_Store": b"", "c": b""}))
    keys = list(store)
    assert sorted(store._details("")) == [Entry(key, 7, "tag") for key in sorted(keys)]


@pytest.mark.parametrize("wrap", [Wrapper, ReadOnlyStore, lambda s: PrefixStore(s, "a")])
def test_the_identity_of_a_value_comes_through(wrap: Any) -> None:
    class Identified(DictStore):
        def _entry(self, key: str) -> Entry:
            return Entry(key, 7, "tag")

    store = wrap(Identified({"a/b": b""}))
    (key,) = store
    assert store._entry(key) == Entry(key, 7, "tag")


def test_a_wrapper_with_values_of_its_own_tells_no_identity_of_others() -> None:
    class Identified(DictStore):
        def _entry(self, key: str) -> Entry:
            return Entry(key, 7, "tag")

    class Reversed(Wrapper):
        def _get(self, key: str) -> bytes:
            return super()._get(key)[::-1]

    assert Reversed(Identified({"a": b"12"}))._entry("a") == Entry("a", 2)
    with pytest.raises(KeyError):
        FilterStore(Identified({".DS_Store": b""}))._entry(".DS_Store")
