"""At least 95 of 100 planted changes are noticed by the focused tests; the others are explained one by one."""

from __future__ import annotations

import pytest

from tests.mutation.named import NAMED, Named
from tests.mutation.planting import changes_of
from tests.mutation.rooms import EXPLAINED, FOCUSED, PLANTED
from tests.mutation.running import ROOT, try_change, unchanged_passes
from tests.support.cases import each_of


@pytest.mark.parametrize("module", FOCUSED)
def test_changes_can_be_planted_and_each_is_python(module: str) -> None:
    changes = changes_of(module)
    assert len(changes) >= 5
    for change in changes[:: max(1, len(changes) // 5)]:
        compile(change.source, module, "exec")


def test_every_explanation_is_of_a_change_that_can_be_planted() -> None:
    names = {change.name for module in {name.partition(":")[0] for name in EXPLAINED} for change in changes_of(module)}
    assert set(EXPLAINED) <= names


@each_of("fault", NAMED, ids=lambda fault: fault.title)
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
    fatal = next(change for what, change in changes.items() if what == "`left_key(one) < right_key(other)` with LtE")
    assert try_change(fatal).noticed
    assert not try_change(fatal, "tests/test_values.py").noticed


@pytest.mark.parametrize("module", FOCUSED)
def test_every_planted_change_can_still_be_planted(module: str) -> None:
    # Where code changes, its line of `planted.txt` is replaced by another change of the module, which must be noticed.
    wanted = [name for name in PLANTED if name.startswith(f"{module}: ")]
    assert wanted
    assert set(wanted) - {change.name for change in changes_of(module)} == set()


def test_the_list_is_of_300_changes_and_more_each_in_a_module_with_focused_tests() -> None:
    assert len(PLANTED) == len(set(PLANTED)) >= 300
    assert {name.partition(":")[0] for name in PLANTED} == set(FOCUSED)
    assert len(set(EXPLAINED) & set(PLANTED)) <= (len(PLANTED) + len(NAMED)) // 20


@each_of("tests", sorted({*FOCUSED.values(), *(fault.tests for fault in NAMED)}))
def test_focused_tests_are_there(tests: str) -> None:
    assert [path for path in tests.split() if not (ROOT / path).is_file()] == []


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("module", FOCUSED)
def test_planted_changes_are_noticed_or_explained(module: str) -> None:
    assert unchanged_passes(module)
    chosen = [change for change in changes_of(module) if change.name in PLANTED]
    survivors = [change.name for change in chosen if not try_change(change).noticed]
    assert [name for name in survivors if name not in EXPLAINED] == []
