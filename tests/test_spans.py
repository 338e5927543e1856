"""Parts of a value are read together where they lie close, and come back as they were asked for."""

from __future__ import annotations

import random
from typing import Any

import pytest

from zarrstore.spans import coalesce, read_spans


def test_every_span_gets_its_part_in_as_few_reads_as_the_gap_allows() -> None:
    rng = random.Random(0)
    value = rng.randbytes(1000)
    for _ in range(300):
        spans: list[tuple[int, int | None]] = []
        for _ in range(rng.randrange(1, 12)):
            start = rng.randrange(0, 1100)
            spans.append((start, rng.choice([None, start, start + rng.randrange(0, 200), max(0, start - 5)])))
        gap, most, reads = rng.choice([0, 10, 300]), rng.choice([1, 100, 5000]), []

        def read(start: int, stop: int | None, reads: list[Any] = reads) -> bytes:
            reads.append((start, stop))
            return value[start:stop]

        assert read_spans(read, spans, gap, most) == [value[start:stop] for start, stop in spans]
        ends = [1 << 60 if stop is None else stop for _, stop in reads]
        # In order, none overlapping the next, and more than `gap` apart unless together they were too long.
        for (start, _), (following, _), end, last in zip(reads, reads[1:], ends, ends[1:], strict=False):
            assert following >= end
            assert following - end > gap or last - start > most


def test_a_run_of_spans_ends_where_it_would_be_too_long() -> None:
    spans = [(n, n + 10) for n in range(0, 100, 10)]
    assert [run for run, _ in coalesce(spans, gap=0, most=30)] == [(0, 30), (30, 60), (60, 90), (90, 100)]
    assert coalesce([(0, 100)], gap=0, most=30) == [((0, 100), [0])]


def test_an_absent_value_is_told_by_an_empty_range_too() -> None:
    def read(start: int, stop: int | None) -> bytes:
        raise KeyError("absent")

    with pytest.raises(KeyError):
        read_spans(read, [(5, 5)])
    assert read_spans(read, []) == []
