"""Every wrapper over every wrapper, and over stores of one file: each stack goes through the suite as one test."""

from __future__ import annotations

import pytest

from tests.support import roster
from tests.support.suites import failures, stack_suite

WRAPPERS = list(roster.WRAPPERS)


@pytest.mark.slow
@pytest.mark.parametrize("outer", WRAPPERS)
@pytest.mark.parametrize("base", roster.UNDER_WRAPPERS[2:])
def test_a_wrapper_over_a_store_of_one_file_keeps_the_contract(outer, base, tmp_path, tmp_path_factory):
    suite = stack_suite(outer, roster.STORES[base], roster.WRAPPERS[outer], **roster.options(outer, base))
    found = failures(suite, tmp_path, tmp_path_factory)
    assert not found, "\n".join(found)


def _pairs():
    """Every wrapper over every other and over itself; each eighth in every run, so that each wrapper meets some."""
    for i, outer in enumerate(WRAPPERS):
        for j, inner in enumerate(WRAPPERS):
            marks = [] if (i + j) % 8 == 0 else [pytest.mark.slow]
            yield pytest.param(outer, inner, marks=marks, id=f"{outer} over {inner}")


@pytest.mark.parametrize("outer, inner", _pairs())
def test_a_stack_of_two_wrappers_keeps_the_contract(outer, inner, tmp_path, tmp_path_factory):
    base = roster.STORES[roster.UNDER_WRAPPERS[0]]
    options = {"examples": 5} | roster.options(outer, inner)
    suite = stack_suite(outer, base, roster.WRAPPERS[inner], roster.WRAPPERS[outer], **options)
    found = failures(suite, tmp_path, tmp_path_factory)
    assert not found, "\n".join(found)
