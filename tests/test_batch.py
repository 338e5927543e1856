"""Batches that read late, or ahead within a budget."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zarrstore import DictStore, LRUStoreCache, PrefixStore, RetryStore
from zarrstore.allowance import Allowance, Sizes, allowance, allowed, read_overlapped
from zarrstore.batch import AheadItems, LazyItems, MappedItems, batches
from zarrstore.permits import Permits

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


def test_the_first_batch_has_two_keys_and_each_next_one_eight_times_as_many() -> None:
    source = Source(DATA)
    keys = [f"k{n}" for n in range(100)]
    items = AheadItems(source.fetch, keys)
    assert {key: items[key] for key in keys} == {key: DATA[key] for key in keys}
    assert source.batches == [2, 16, 82]


def test_a_directory_whose_sizes_are_known_is_one_batch() -> None:
    source, sizes = Source(DATA), Sizes()
    keys = [f"k{n}" for n in range(100)]
    for expected in ([2, 16, 82], [100]):
        source.batches.clear()
        assert dict(AheadItems(source.fetch, keys, sizes=sizes)) == {key: DATA[key] for key in keys}
        assert source.batches == expected


def test_a_caller_who_knows_the_sizes_gets_all_at_once_through_every_wrapper() -> None:
    class Far(DictStore):
        def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
            return AheadItems(source.fetch, keys)

    source = Source(DATA)
    store = PrefixStore(RetryStore(LRUStoreCache(Far(), max_size=None)), "")
    keys = [f"k{n}" for n in range(100)]
    with allowed(10_000):
        found = store.getitems(keys)
    assert dict(found) == {key: DATA[key] for key in keys}
    assert source.batches == [100]
    assert allowance() == Allowance()


def test_dict_of_a_batch_larger_than_any_budget_reads_each_value_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zarrstore.batch.BUDGET", 25)
    source = Source(DATA)
    assert dict(LazyItems(source.read, list(DATA))) == DATA
    assert source.reads == list(DATA)
    assert dict(AheadItems(source.fetch, list(DATA), budget=25)) == DATA
    assert sum(source.batches) == len(DATA)


def test_small_values_before_large_ones_do_not_let_the_large_ones_in_all_at_once() -> None:
    values = {f"k{n:03d}": bytes(10 if n < 300 else 10_000) for n in range(600)}
    held = most = 0
    lock = threading.Lock()

    def read(key: str) -> bytes:
        nonlocal held, most
        with lock:
            held += len(values[key])
            most = max(most, held)
        return values[key]

    items = AheadItems(lambda keys: read_overlapped(read, keys, Permits(4)), list(values), budget=50_000)
    for key, value in values.items():
        assert items[key] == value
        held -= len(value)
    # The budget, what four threads had asked for before the first large value came, and the one in the reader's hands.
    assert most <= 50_000 + 5 * 10_000


def test_a_fetch_that_stops_early_is_asked_again_and_loses_nothing() -> None:
    values = {f"k{n}": bytes(n * 10) for n in range(1, 60)}
    asked: list[str] = []

    def read(key: str) -> bytes | None:
        asked.append(key)
        return values.get(key)

    keys = ["absent", *values, "absent, too"]
    items = AheadItems(lambda wanted: read_overlapped(read, wanted, Permits(3)), keys, budget=100)
    assert dict(items) == values
    assert sorted(asked) == sorted(keys)


def test_the_budget_bounds_what_is_held_once_the_size_is_known() -> None:
    big = {f"k{n}": bytes(1000) for n in range(100)}
    source = Source(big)
    items = AheadItems(source.fetch, list(big), budget=5000, first=10)
    for key in big:
        assert items[key] == big[key]
        assert items._fetched_nbytes <= 10_000
    assert source.batches[0] == 10
    assert set(source.batches[1:]) == {5}


def test_reading_backwards_is_right_and_bounded() -> None:
    big = {f"k{n}": bytes(1000) for n in range(60)}
    source = Source(big)
    items = AheadItems(source.fetch, list(big), budget=5000, first=5)
    for key in reversed(big):
        assert items[key] == big[key]
        assert items._fetched_nbytes <= 10_000


def test_a_value_read_twice_is_fetched_again_and_absence_is_remembered() -> None:
    source = Source(DATA)
    items = AheadItems(source.fetch, ["k1", "absent"])
    assert items["k1"] == items["k1"] == DATA["k1"]
    batches = len(source.batches)
    assert "absent" not in items
    assert "absent" not in items
    assert len(source.batches) == batches
    assert dict(items) == {"k1": DATA["k1"]}


def test_absent_keys_are_asked_for_8_at_a_time_and_the_first_value_tells_the_size() -> None:
    absent = [f"absent{i}" for i in range(30)]
    source = Source({"z1": bytes(10), "z2": bytes(10)})
    items = AheadItems(source.fetch, [*absent, "z1", "z2"], budget=100)
    assert dict(items) == {"z1": bytes(10), "z2": bytes(10)}
    assert source.batches == [2, 4, 8, 8, 8, 2]


def test_items_under_other_names() -> None:
    items = MappedItems({"p/a": b"1"}, {"a": "p/a", "b": "p/b"})
    assert dict(items) == {"a": b"1"}
    with pytest.raises(KeyError):
        items["p/a"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.binary(max_size=12))), st.integers(1, 5), st.integers(1, 20))
def test_batches_keep_their_limits_and_lose_nothing(items: list[tuple[str, bytes]], keys: int, size: int) -> None:
    found = list(batches(iter(items), keys, size))
    for batch in found:
        assert 1 <= len(batch) <= keys
        assert len(batch) == 1 or sum(map(len, batch.values())) <= size
    result: dict[str, bytes] = {}
    for batch in found:
        result.update(batch)
    assert result == dict(items)
    if len({key for key, _ in items}) == len(items):
        assert [pair for batch in found for pair in batch.items()] == items


def test_a_value_larger_than_the_budget_travels_alone() -> None:
    items = [("a", b"1"), ("big", bytes(100)), ("b", b"2"), ("c", b"3")]
    assert [list(batch) for batch in batches(items, 10, 50)] == [["a"], ["big"], ["b", "c"]]


def test_a_full_batch_does_not_wait_for_the_next_item() -> None:
    taken = []

    def source() -> Iterator[tuple[str, bytes]]:
        for n in range(6):
            taken.append(n)
            yield f"k{n}", bytes(10)

    by_keys = batches(source(), 2, 1000)
    assert (list(next(by_keys)), taken) == (["k0", "k1"], [0, 1])
    taken.clear()
    by_bytes = batches(source(), 100, 20)
    assert (list(next(by_bytes)), taken) == (["k0", "k1"], [0, 1])


def test_of_two_values_for_one_key_in_a_batch_the_last_one_counts_and_the_first_takes_no_room() -> None:
    items = [("a", bytes(9)), ("b", b"1"), ("a", b"2"), ("c", bytes(7))]
    assert [list(batch.items()) for batch in batches(items, 10, 11)] == [[("b", b"1"), ("a", b"2"), ("c", bytes(7))]]


def test_nothing_gives_no_batch() -> None:
    assert list(batches([], 1, 1)) == []
