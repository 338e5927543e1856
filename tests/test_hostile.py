"""Hostile keys in a world where an escape would be refused, and is looked for."""

from __future__ import annotations

from tests.support import roster, world
from zarrstore.testing import HOSTILE_KEYS


def test_two_hundred_hostile_keys_through_every_entry_point_of_every_store() -> None:
    assert len(HOSTILE_KEYS) >= 200
    said = world.run_tests_readonly("tests/support/inside_hostile.py")
    assert f"{len(roster.STORES) - 1} passed" in said
