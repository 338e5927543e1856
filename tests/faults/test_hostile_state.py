"""What a store reads back may be anybody's: mutants of archives, databases, overlays, tiers, documents and journals."""

from __future__ import annotations

import os

import pytest

from tests.support import world

INSIDE = "tests/support/inside_state.py"
TEST = f"{INSIDE}::test_no_mutant_escapes_hangs_or_is_believed"
FAMILIES = 15


def test_a_few_hundred_mutants_are_read_without_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZARRSTORE_MUTANTS", "150")
    assert f"{FAMILIES} passed" in world.run_tests_readonly(TEST)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_thousand_mutants_are_read_without_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZARRSTORE_MUTANTS", "5000")
    assert f"{FAMILIES} passed" in world.run_tests_readonly(TEST, timeout=880)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_mutants_are_read_without_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZARRSTORE_MUTANTS", os.environ.get("ZARRSTORE_MUTANTS", "100000"))
    assert f"{FAMILIES} passed" in world.run_tests_readonly(TEST, timeout=7000)


def test_planted_bugs_are_found() -> None:
    with pytest.raises(AssertionError, match="4 failed") as failure:
        world.run_tests_readonly(f"{INSIDE}::test_planted")
    for sign in ("EscapeError", "TypeError", "AssertionError", "Hang"):
        assert f" {sign} at " in str(failure.value)
