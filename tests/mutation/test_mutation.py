"""Ninety-five of a hundred planted changes are noticed by the focused tests; the others are explained one by one."""

from __future__ import annotations

import pytest

from tests.mutation.named import NAMED, Named
from tests.mutation.planting import changes_of
from tests.mutation.rooms import EXPLAINED, FOCUSED
from tests.mutation.running import sample, try_change, unchanged_passes

#: Changes that are planted in each module in one night.
COUNT = 40


@pytest.mark.parametrize("module", FOCUSED)
def test_changes_can_be_planted_and_each_is_python(module: str) -> None:
    changes = list(changes_of(module))
    assert len(changes) >= 5
    for change in changes[:: max(1, len(changes) // 5)]:
        compile(change.source, module, "exec")


def test_every_explanation_is_of_a_change_that_can_be_planted() -> None:
    names = {change.name for module in {name.partition(":")[0] for name in EXPLAINED} for change in changes_of(module)}
    assert set(EXPLAINED) <= names


@pytest.mark.parametrize("fault", NAMED, ids=lambda fault: fault.title)
def test_every_named_fault_can_be_planted(fault: Named) -> None:
    compile(fault.source, fault.module, "exec")


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", NAMED, ids=lambda fault: fault.title)
def test_named_faults_are_noticed(fault: Named) -> None:
    assert try_change(fault).noticed


@pytest.mark.slow
def test_a_trial_notices_what_a_test_notices_and_nothing_else() -> None:
    assert unchanged_passes("tools.streams")
    changes = {change.what: change for change in changes_of("tools.streams")}
    fatal = next(change for what, change in changes.items() if "left_key(one) < right_key(other)" in what)
    assert try_change(fatal).noticed
    assert not try_change(fatal, "tests/test_values.py").noticed


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("module", FOCUSED)
def test_planted_changes_are_noticed(module: str) -> None:
    assert unchanged_passes(module)
    trials = [try_change(change) for change in sample(module, COUNT)]
    survivors = [trial.change.name for trial in trials if not trial.noticed and trial.change.name not in EXPLAINED]
    assert len(survivors) <= len(trials) // 20, survivors
