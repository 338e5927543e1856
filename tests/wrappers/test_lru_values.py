"""The byte-budgeted LRU against an OrderedDict, and what a cache knows besides values."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zarrstore.wrappers.lru.listings import Listings
from zarrstore.wrappers.lru.ttl import TTLCache
from zarrstore.wrappers.lru.values import Values

KEYS = ["a", "b", "c/d", "c/e", "c/f"]
# Rare acts are rare, so that there is something to evict.
ACTS = ["put"] * 8 + ["get"] * 4 + ["hot"] * 4 + ["forget", "tree", "recount"]
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(KEYS), st.integers(0, 12)), min_size=10, max_size=60)


@settings(max_examples=settings.default.max_examples * 3)
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
                values._hits = entry.used = values._hits + 1
                model.move_to_end(key)
        elif act == "forget":
            values.forget(key)
            model.pop(key, None)
        elif act == "tree":
            values.forget_tree("c")
            for below in [other for other in model if other.startswith("c/")]:
                del model[below]
        else:
            values.recount()
        assert set(values.keys()) == set(model)
        assert values.size == values.real_size() == sum(model.values())
        assert max_size is None or values.size <= max_size


CONTENT = {key: bytes((7 * index + n) % 256 for n in range(40)) for index, key in enumerate(KEYS)}
SPANS = [None, "tail", (0, 3), (2, 9), (5, 20), (18, 40), (9, 18), (0, 40), (30, 31)]


@settings(max_examples=settings.default.max_examples * 3)
@given(
    max_size=st.sampled_from([0, 10, 30, 100, None]),
    steps=st.lists(
        st.tuples(st.sampled_from(KEYS[:3]), st.sampled_from(SPANS), st.sampled_from("ppppfr")), max_size=40
    ),
)
def test_parts_are_joined_counted_and_go_with_their_value(max_size, steps):
    values = Values(max_size, None)
    for key, span, act in steps:
        content = CONTENT[key]
        if act == "f":
            values.forget(key)
            assert not values.has(key)
            assert values.part(key, 0, 1, None) is None
        elif act == "r":
            values.recount()
        elif span is None:
            values.put(key, content, 0.0)
        elif span == "tail":
            values.put_suffix(key, content[-7:], 0.0)
        else:
            values.put_part(key, span[0], content[span[0] : span[1]], 0.0)
        for start in range(0, 40, 3):
            for stop in (start + 1, start + 5, 40):
                assert values.part(key, start, stop, None) in (None, content[start:stop])
        assert values.suffix(key, 5, None) in (None, content[-5:])
        assert values.suffix(key, 5, 40) in (None, content[-5:])
        assert values.size == values.real_size() <= (1 << 20 if max_size is None else max_size)
        assert len(list(values.keys())) == len(values)
        for parts in values._parts.values():
            assert all(one.stop < two.start for one, two in itertools.pairwise(parts)), "what touches is joined"
    values.clear()
    assert (values.size, len(values), values._parts, values._order) == (0, 0, {}, [])


def test_parts_that_touch_serve_a_range_over_both_and_evict_as_one():
    values = Values(20, None)
    values.put_part("a", 0, b"01234", 0.0)
    values.put_part("a", 10, b"abcde", 0.0)
    assert values.part("a", 3, 12, None) is None
    values.put_part("a", 4, b"456789a", 0.0)  # overlaps both
    assert values.part("a", 0, 15, None) == b"0123456789abcde"
    assert (len(values), values.size) == (1, 15)
    values.put("b", bytes(10), 0.0)
    assert (values.part("a", 0, 1, None), values.size) == (None, 10)


def test_long_parts_stay_side_by_side_and_serve_a_range_over_both():
    values = Values(None, None)
    half = bytes(600_000)
    values.put_part("a", 0, half, 0.0)
    values.put_part("a", 600_000, b"x" * 600_000, 0.0)
    assert len(values) == 2
    assert values.part("a", 599_999, 600_001, None) == b"\0x"


def test_the_end_is_known_only_with_the_size():
    values = Values(None, None)
    values.put_part("a", 5, b"56789", 0.0)
    assert values.part("a", 5, None, None) is None
    assert values.part("a", 5, None, 10) == values.part("a", 5, 99, 10) == b"56789"
    assert values.part("a", 12, 15, 10) == b""
    assert (values.suffix("a", 3, None), values.suffix("a", 3, 10)) == (None, b"789")


def test_a_part_is_not_handed_out_under_the_name_of_its_place():
    values = Values(None, None)
    values.put_part("a", 0, b"1", 0.0)
    assert dict(values.hot) == {}


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


def test_answers_are_bounded_and_fade():
    answers, now = TTLCache(3, 10.0), time.monotonic()
    for key in "abcd":
        answers.put(key, True, now)
    answers.put("old", True, now - 11)
    assert [answers.get(key) for key in ("a", "b", "c", "d", "old")] == [None, None, True, True, None]
    answers.recount()
    assert answers._weight == len(answers) == 2
    nothing = TTLCache(3, 0.0)
    nothing.put("a", True, now)
    assert nothing.get("a") is None


def test_listings_are_bounded_by_names():
    listings, now = Listings(10, None), time.monotonic()
    for path in ("a", "b", "c"):
        listings.children.put(path, dict.fromkeys("123", True), now)
    listings.children.put("large", dict.fromkeys(map(str, range(20)), True), now)
    assert [listings.children.get(path) for path in ("a", "b", "c", "large")] == [
        None,
        {"1": True, "2": True, "3": True},
        {"1": True, "2": True, "3": True},
        None,
    ]


@pytest.mark.parametrize(
    "key, deleted, forgotten", [("a/x/1", False, {"a/x"}), ("n/x", False, {"", "n"}), ("a/x/0", True, {"a/x", "a"})]
)
def test_a_write_forgets_the_listings_whose_names_change(key, deleted, forgotten):
    listings = Listings(1000, None)
    known = {"": ["a", "b"], "a": ["x"], "a/x": ["0"], "b": ["0"], "n": []}
    if deleted:
        known["a"] = ["x", "y"]
        forgotten = {"a/x", "a"}
    for path, names in known.items():
        listings.children.put(path, dict.fromkeys(names, True), 0.0)
    listings.changed(key, deleted=deleted)
    assert {path for path in known if listings.children.peek(path) is None} == forgotten
