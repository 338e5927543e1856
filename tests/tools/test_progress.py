"""How far a long job is: by bytes where the listing tells all sizes, else by keys."""

from __future__ import annotations

from typing import Any

import pytest

import zarrstore
from zarrstore import DictStore, DirectoryStore
from zarrstore.cli import common
from zarrstore.testing import CountingStore
from zarrstore.tools.progress import Progress


@pytest.mark.parametrize(
    ("progress", "fraction"),
    [
        (Progress(0, 0), 1.0),
        (Progress(0, 4), 0.0),
        (Progress(1, 4), 0.25),
        (Progress(1, 4, errors=1), 0.5),
        (Progress(3, 4, 10, total_nbytes=100), 0.1),
        (Progress(3, 4, 0, total_nbytes=0), 0.75),
        (Progress(3, 4, 200, total_nbytes=100), 1.0),
        (Progress(3, 4, 10, 1, total_nbytes=100), 1.0),
    ],
)
def test_the_fraction_goes_by_bytes_where_their_sum_is_known(progress: Progress, fraction: float) -> None:
    assert progress.fraction == fraction


def test_the_time_left_is_that_of_the_bytes_left() -> None:
    # Nine small values are done in one second, and the large one has nine tenths of the bytes.
    assert Progress(9, 10, 100, total_nbytes=1000).seconds_left(1.0) == pytest.approx(9.0)
    assert Progress(9, 10, 100).seconds_left(9.0) == pytest.approx(1.0)
    assert Progress(0, 10).seconds_left(1.0) is None
    assert Progress(10, 10, 5).seconds_left(1.0) == 0


def _values() -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    zarrstore.init_array(values, shape=4, chunks=1, dtype="u1", path="a", compressor=None)
    return values | {f"a/{n}": bytes(1) for n in range(4)}


@pytest.mark.parametrize("kind", ["dict", "directory"])
def test_a_copy_knows_all_bytes_where_the_listing_tells_sizes(kind: str, tmp_path: Any) -> None:
    source = DictStore() if kind == "dict" else DirectoryStore(tmp_path / "a")
    source.update(_values())
    seen: list[Progress] = []
    zarrstore.copy_store(source, {}, progress=seen.append)
    total = sum(map(len, source.values()))
    assert {progress.total_nbytes for progress in seen} == {total}
    assert (seen[-1].nbytes, seen[-1].fraction) == (total, 1.0)


def test_a_copy_from_any_other_mapping_goes_by_keys() -> None:
    seen: list[Progress] = []
    zarrstore.copy_store(CountingStore(_values()), {}, progress=seen.append)
    assert {progress.total_nbytes for progress in seen} == {-1}
    assert seen[-1].fraction == 1.0


def test_verify_knows_all_bytes_where_the_listing_tells_sizes() -> None:
    class Remote(DictStore):
        def __init__(self, items: Any) -> None:
            super().__init__(items)
            self.capabilities = type(self.capabilities)(concurrent=True)

    for store, total in ((Remote(_values()), 4), (CountingStore(_values()), -1)):
        seen: list[Progress] = []
        zarrstore.verify(store, progress=seen.append)
        assert {progress.total_nbytes for progress in seen} == {total}
        assert (seen[-1].nbytes, seen[-1].fraction) == (4, 1.0)


def test_a_line_every_two_seconds_tells_the_time_left_by_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(common.time, "monotonic", lambda: now)
    report = common.progress("copy")
    assert callable(report)
    report(Progress(1, 10, 10, total_nbytes=1000))  # too early
    now += 2
    report(Progress(9, 10, 100, total_nbytes=1000))
    now += 1
    report(Progress(9, 10, 110, total_nbytes=1000))  # less than two seconds after the last
    now += 1
    report(Progress(9, 10, 500, total_nbytes=1000))
    now += 4
    report(Progress(9, 12, 600))
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(", ")[2] for line in lines] == ["18 s left", "4 s left", "3 s left"]
    assert lines[0].startswith("copy: 9 of 10, 100 B")
