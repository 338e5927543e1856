"""The race of `race_s3` with ten times as many values: 10,000 of 1 KiB and 200 of 16 MiB.

Needs 12 GiB of memory, and about 12 minutes on two processors: a contestant whose turn took longer than 40 seconds has
one, the others three.
"""

from __future__ import annotations

from benchmarks.scenarios import race_s3
from benchmarks.timing import Case

TITLE = race_s3.TITLE + ", at length"
measure = race_s3.measure


def cases(quick: bool) -> list[Case]:
    return race_s3.cases(quick, tuple((10 * n, nbytes) for n, nbytes in race_s3.SIZES), longest=40.0)
