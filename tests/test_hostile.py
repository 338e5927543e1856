"""Hostile keys in a world where an escape would be refused, and is looked for."""

from __future__ import annotations

import pytest

from tests.support import roster, world
from zarrstore.testing import HOSTILE_KEYS

INSIDE = "tests/support/inside_hostile.py"


def test_two_hundred_hostile_keys_through_every_entry_point_of_every_store() -> None:
    assert len(HOSTILE_KEYS) >= 200
    output = world.run_tests_readonly(
        f"{INSIDE}::test_no_hostile_key_touches_anything_and_the_verdict_is_the_same_everywhere"
    )
    assert f"{len(roster.STORES) - 1} passed" in output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_hundred_hostile_keys_through_every_verb_and_wrapper_over_every_store() -> None:
    output = world.run_tests_readonly(
        f"{INSIDE}::test_nor_does_any_of_eight_hundred_through_every_verb_and_wrapper", timeout=580
    )
    assert f"{len(roster.STORES) - 1} passed" in output
