"""Sorted streams: the same result in memory and from files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from zarrstore.base import Entry
from zarrstore.tools.streams import Spool, merge, sort_entries

ENTRIES = st.lists(
    st.builds(
        Entry,
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=4),
        st.integers(-1, 5),
        st.text("ab\n", max_size=2),
        st.sampled_from(["", "md5:0a"]),
        st.sampled_from([-1.0, 0.0, 1790000000.123456]),
    )
)


@given(ENTRIES, st.integers(1, 8))
def test_entries_are_sorted_by_key_and_the_last_of_equal_keys_counts(entries: list[Entry], limit: int) -> None:
    wanted = {entry.key: entry for entry in entries}
    assert list(sort_entries(iter(entries), limit)) == [wanted[key] for key in sorted(wanted)]


@given(ENTRIES, st.integers(1, 8))
def test_a_spool_gives_back_what_it_took_as_often_as_asked(entries: list[Entry], limit: int) -> None:
    with Spool(limit) as spool:
        for entry in entries:
            spool.add(entry)
        assert len(spool) == len(entries)
        assert list(spool) == list(spool) == entries


@given(st.sets(st.text(max_size=2)), st.sets(st.text(max_size=2)))
def test_a_merge_pairs_equal_keys(left: set[str], right: set[str]) -> None:
    wanted = [(key if key in left else None, key if key in right else None) for key in sorted(left | right)]
    assert list(merge(sorted(left), sorted(right), str, str)) == wanted


def test_a_merge_that_is_left_early_closes_both_streams() -> None:
    closed = []

    def stream(name: str) -> Iterator[str]:
        try:
            yield from "abc"
        finally:
            closed.append(name)

    merged = merge(stream("left"), stream("right"), str, str)
    next(merged)
    merged.close()  # type: ignore[attr-defined]
    assert sorted(closed) == ["left", "right"]


def test_memory_is_that_of_one_run_and_a_block_of_each() -> None:
    def keys(count: int) -> Iterator[Entry]:
        return (Entry(f"data/temperature/{n * 7919 % 1_000_003:07d}.0.0", 1000, "etag") for n in range(count))

    peaks = []
    for count in (20_000, 60_000):
        tracemalloc.start()
        assert sum(1 for _ in sort_entries(keys(count), limit=5_000)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Eight runs more: a block of 64 KiB each, as entries about 400 KiB.
    assert peaks[1] - peaks[0] < 8 << 20
