"""The race of `race_s3` with ten times as many values: 10,000 of 1 KiB and 200 of 16 MiB; needs 12 GB of memory."""

from __future__ import annotations

from benchmarks.scenarios import race_s3
from benchmarks.timing import Case

TITLE = race_s3.TITLE + ", at length"
measure = race_s3.measure


def cases(quick: bool) -> list[Case]:
    return race_s3.cases(quick, tuple((10 * n, nbytes) for n, nbytes in race_s3.SIZES))
