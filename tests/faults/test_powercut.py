"""Power cuts lose nothing that was promised, in every mode; and the harness sees a mode that promises nothing."""

from __future__ import annotations

import pytest

from tests.faults import powercut
from tests.faults.modes import MODES
from tests.support import peers

PROMISING = [name for name, mode in MODES.items() if mode.power is not None]


def run(mode: str, fs: str, rounds: int) -> None:
    if reason := powercut.lacking(fs):
        peers.refuse("mkfs.xfs", reason)
    found = powercut.cuts(mode, fs, rounds)
    assert found["bad"] == []
    assert found["rounds"] == rounds
    assert found["cut"] > rounds // 2, "the writer had ended before the cut, so this shows little"
    assert found["promised"] >= powercut.KEYS * rounds // 2


@pytest.mark.parametrize("mode", PROMISING)
def test_a_few_power_cuts_lose_nothing_that_was_promised(mode):
    run(mode, "ext4", 3)


@pytest.mark.slow
@pytest.mark.parametrize("fs", ["ext4", "xfs"])
@pytest.mark.parametrize("mode", PROMISING)
def test_20_power_cuts_lose_nothing_that_was_promised(mode, fs):
    run(mode, fs, 20)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fs", ["ext4", "xfs"])
@pytest.mark.parametrize("mode", PROMISING)
def test_500_power_cuts_lose_nothing_that_was_promised(mode, fs):
    run(mode, fs, 500)


def test_a_store_that_syncs_nothing_is_seen_to_lose():
    if reason := powercut.lacking("xfs"):
        peers.refuse("mkfs.xfs", reason)
    # As many as it takes: on a busy machine the system may have written everything back before each of twenty cuts.
    seen = any(powercut.cuts("DirectoryStore", "xfs", 20, seed=seed)["bad"] for seed in range(10))
    assert seen, "torn values are to be expected, and none was seen in 200 cuts"
