"""Batches that read late, or ahead within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from zarrstore.batch import AheadItems, LazyItems, MappedItems

DATA = {f"k{n}": bytes(10) for n in range(1000)}


class Source:
    def __init__(self, data: Mapping[str, bytes]) -> None:
        self.data = data
        self.reads: list[str] = []
        self.batches: list[int] = []

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return self.data[key]

    def fetch(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        self.batches.append(len(keys))
        return {key: self.data[key] for key in keys if key in self.data}


def test_nothing_is_read_before_it_is_asked_for() -> None:
    source = Source(DATA)
    items = LazyItems(source.read, ["k1", "k2", "absent"])
    assert source.reads == []
    assert items["k2"] == DATA["k2"]
    assert source.reads == ["k2"]


def test_in_followed_by_a_look_up_is_one_read() -> None:
    source = Source(DATA)
    items = LazyItems(source.read, ["k1", "k2", "absent"])
    for key in ("k1", "absent", "k2"):
        if key in items:
            items[key]
    assert source.reads == ["k1", "absent", "k2"]


def test_dict_of_a_batch_reads_each_value_once() -> None:
    source = Source(DATA)
    assert dict(LazyItems(source.read, ["k1", "absent", "k2", "k1"])) == {"k1": DATA["k1"], "k2": DATA["k2"]}
    assert source.reads == ["k1", "absent", "k2"]


def test_what_was_not_asked_for_is_not_there() -> None:
    items = LazyItems(Source(DATA).read, ["k1"])
    with pytest.raises(KeyError):
        items["k2"]
    assert "k2" not in items
    assert items.get("k2") is None
    assert len(items) == 1


def test_a_hundred_keys_are_one_batch() -> None:
    source = Source(DATA)
    keys = [f"k{n}" for n in range(100)]
    items = AheadItems(source.fetch, keys)
    assert {key: items[key] for key in keys} == {key: DATA[key] for key in keys}
    assert source.batches == [100]


def test_the_budget_bounds_what_is_held_once_the_size_is_known() -> None:
    big = {f"k{n}": bytes(1000) for n in range(100)}
    source = Source(big)
    items = AheadItems(source.fetch, list(big), budget=5000, first=10)
    for key in big:
        assert items[key] == big[key]
        assert items._ready_bytes <= 10_000
    assert source.batches[0] == 10
    assert set(source.batches[1:]) == {5}


def test_reading_backwards_is_right_and_bounded() -> None:
    big = {f"k{n}": bytes(1000) for n in range(60)}
    source = Source(big)
    items = AheadItems(source.fetch, list(big), budget=5000, first=5)
    for key in reversed(big):
        assert items[key] == big[key]
        assert items._ready_bytes <= 10_000


def test_a_value_read_twice_is_fetched_again_and_absence_is_remembered() -> None:
    source = Source(DATA)
    items = AheadItems(source.fetch, ["k1", "absent"])
    assert items["k1"] == items["k1"] == DATA["k1"]
    batches = len(source.batches)
    assert "absent" not in items
    assert "absent" not in items
    assert len(source.batches) == batches
    assert dict(items) == {"k1": DATA["k1"]}


def test_items_under_other_names() -> None:
    items = MappedItems({"p/a": b"1"}, {"a": "p/a", "b": "p/b"})
    assert dict(items) == {"a": b"1"}
    with pytest.raises(KeyError):
        items["p/a"]
