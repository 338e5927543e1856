"""Many cases in one test: all are run, and each that fails is named."""

from __future__ import annotations

import inspect

import pytest

from tests.support.cases import each_of, in_rows


def test_all_cases_are_run_and_those_that_fail_are_named():
    seen = []

    @each_of("case", [pytest.param("a", id="A"), "b", "c"], ids=str.upper)
    def test(case):
        seen.append(case)
        if case == "a":
            pytest.fail("the first")  # which is no Exception, as that of pytest.raises is none
        assert case == "b"

    with pytest.raises(BaseExceptionGroup, match="2 of 3 cases failed") as caught:
        test()
    assert seen == ["a", "b", "c"]
    assert [failure.__notes__ for failure in caught.value.exceptions] == [["the case A"], ["the case C"]]


def test_decorators_are_multiplied_and_fixtures_are_left_to_pytest():
    seen = []

    @each_of("one", [1, 2])
    @each_of("two, three", [(3, 4), (5, 6)], ids=["x", "y"])
    def test(tmp_path, one, two, three):
        seen.append((tmp_path, one, two, three))

    assert list(inspect.signature(test).parameters) == ["tmp_path"]
    test(tmp_path=0)
    assert seen == [(0, 1, 3, 4), (0, 1, 5, 6), (0, 2, 3, 4), (0, 2, 5, 6)]


async def test_a_test_of_another_suite_becomes_one_whose_marks_are_rows():
    seen = []

    class Suite:
        @pytest.mark.slow
        @pytest.mark.parametrize("one", [1, 2])
        @pytest.mark.parametrize(("two", "three"), [(3, 4), pytest.param(5, 6, id="x")])
        async def test(self, tmp_path, one, two, three):
            seen.append((tmp_path, one, two, three))
            assert two == 3

    whole = in_rows(Suite.test)
    assert list(inspect.signature(whole).parameters) == ["self", "tmp_path"]
    assert [mark.name for mark in whole.pytestmark] == ["slow"]
    assert [mark.name for mark in Suite.test.pytestmark] == ["parametrize", "parametrize", "slow"]
    with pytest.raises(ExceptionGroup, match="test: 2 of 2 cases failed") as caught:
        await whole(Suite(), tmp_path=0)
    assert sorted(seen) == [(0, 1, 3, 4), (0, 1, 5, 6), (0, 2, 3, 4), (0, 2, 5, 6)]
    inner = [failure for case in caught.value.exceptions for failure in case.exceptions]
    assert all(failure.__notes__ for failure in inner)


def test_no_cases_a_missing_argument_and_a_short_case_are_refused():
    for names, cases in (("case", []), ("other", [1]), ("case, other", [(1, 2), (3,)]), ("case, other", [(1, 2)])):
        with pytest.raises(AssertionError):

            @each_of(names, cases)
            def test(case):
                pass


def test_a_skipped_case_is_a_failure_and_a_timeout_ends_all():
    @each_of("case", [1, 2])
    def test_skip(case):
        pytest.skip("not here")

    with pytest.raises(RuntimeError, match="tests of their own"):
        test_skip()
    seen = []

    @each_of("case", [1, 2])
    def test_timeout(case):
        seen.append(case)
        pytest.fail("Timeout (>120.0s) from pytest-timeout.")

    with pytest.raises(pytest.fail.Exception):
        test_timeout()
    assert seen == [1]
