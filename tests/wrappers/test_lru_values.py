"""The byte-budgeted LRU against an OrderedDict, and what a cache knows besides values."""

from __future__ import annotations

import time
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zarrstore.wrappers.lru.facts import Facts, Listings, as_names
from zarrstore.wrappers.lru.values import Values

KEYS = ["a", "b", "c/d", "c/e", "c/f"]
# Rare acts are rare, so that there is something to evict.
ACTS = ["put"] * 8 + ["get"] * 4 + ["hot"] * 4 + ["forget", "tree", "recount"]
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(KEYS), st.integers(0, 12)), min_size=10, max_size=60)


@settings(max_examples=300, deadline=None)
@given(max_size=st.sampled_from([None, 0, 10, 25, 25, 25, 1000]), steps=STEPS)
def test_values_are_kept_and_evicted_as_an_ordered_dict_would(max_size, steps):
    values, model = Values(max_size, None), OrderedDict()
    for act, key, size in steps:
        if act == "put":
            model.pop(key, None)
            if max_size is None or size <= max_size:
                while max_size is not None and sum(model.values()) + size > max_size:
                    model.popitem(last=False)
                model[key] = size
            values.put(key, bytes(size), 0.0)
        elif act == "get":
            found = values.get(key)
            assert (None if found is None else len(found)) == model.get(key)
            if found is not None:
                values.hit(key)
                model.move_to_end(key)
        elif act == "hot":
            entry = values.hot.get(key)
            assert (entry is None) == (key not in model)
            if entry is not None:
                values.hits = entry.used = values.hits + 1
                model.move_to_end(key)
        elif act == "forget":
            values.forget(key)
            model.pop(key, None)
        elif act == "tree":
            values.forget_tree("c")
            for gone in [other for other in model if other.startswith("c/")]:
                del model[gone]
        else:
            values.recount()
        assert set(values.keys()) == set(model)
        assert values.size == values.real_size() == sum(model.values())
        assert max_size is None or values.size <= max_size


@given(
    steps=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([None, (0, 3), (2, 9), (5, None)]), st.booleans()))
)
def test_parts_are_counted_and_go_with_their_value(steps):
    values = Values(30, None)
    for key, span, forget in steps:
        part = None if span is None else ("range", *span)
        if forget:
            values.forget(key)
            assert not values.has(key)
        else:
            values.put(key, bytes(7), 0.0, part)
            assert values.has(key)
        assert values.size == values.real_size() <= 30
        assert len(list(values.keys())) == len(values)
    values.clear()
    assert (values.size, len(values), values._parts, values._order) == (0, 0, {}, [])


def test_the_order_of_use_takes_no_more_memory_than_the_values():
    values = Values(100, None)
    for turn in range(5000):
        values.put(f"k{turn % 3}", b"x" * 10, 0.0)
    assert len(values._order) < 40


def test_old_values_are_not_there():
    values, now = Values(None, 10.0), time.monotonic()
    values.put("young", b"1", now - 9)
    values.put("old", b"2", now - 11)
    assert (values.get("young"), values.get("old"), values.size, dict(values.hot)) == (b"1", None, 1, {})


def test_facts_are_bounded_and_fade():
    facts, now = Facts(3, 10.0), time.monotonic()
    for key in "abcd":
        facts.put(key, True, now)
    facts.put("old", True, now - 11)
    assert [facts.get(key) for key in ("a", "b", "c", "d", "old")] == [None, None, True, True, None]
    facts.recount()
    assert facts._weight == len(facts) == 2
    nothing = Facts(3, 0.0)
    nothing.put("a", True, now)
    assert nothing.get("a") is None


def test_listings_are_bounded_by_names():
    listings, now = Listings(10, None), time.monotonic()
    for path in ("a", "b", "c"):
        listings.children.put(path, as_names(["2", "1", "3"]), now)
    listings.children.put("large", as_names(map(str, range(20))), now)
    assert [listings.children.get(path) for path in ("a", "b", "c", "large")] == [
        None,
        {"1": None, "2": None, "3": None},
        {"1": None, "2": None, "3": None},
        None,
    ]


@pytest.mark.parametrize(
    "key, gone, forgotten", [("a/x/1", False, {"a/x"}), ("n/x", False, {"", "n"}), ("a/x/0", True, {"a/x", "a"})]
)
def test_a_write_forgets_the_listings_whose_names_change(key, gone, forgotten):
    listings = Listings(1000, None)
    known = {"": ["a", "b"], "a": ["x"], "a/x": ["0"], "b": ["0"], "n": []}
    if gone:
        known["a"] = ["x", "y"]
        forgotten = {"a/x", "a"}
    for path, names in known.items():
        listings.children.put(path, as_names(names), 0.0)
    listings.changed(key, gone=gone)
    assert {path for path in known if listings.children.peek(path) is None} == forgotten
