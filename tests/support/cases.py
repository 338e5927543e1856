"""Thousands of small cases in a few tests: each item of pytest costs 5 ms, in three workers, whatever it does."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import settings

__all__ = ["each_of", "in_rows", "share_histories"]

_PARAM = type(pytest.param())


def each_of(
    names: str | tuple[str, ...], cases: Iterable[Any], ids: Callable[[Any], object] | Iterable[object] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run every case in one test, which fails after the last with all that failed, each with its name.

    Written as ``pytest.mark.parametrize`` is, and for cases that are quick and leave nothing behind: they share the
    fixtures of the test and its timeout.

    Examples
    --------
    >>> @each_of("number, square", [(2, 4), (3, 10), (4, 17)])
    ... def test_squares(number, square):
    ...     assert number**2 == square
    >>> try:
    ...     test_squares()
    ... except ExceptionGroup as exc:
    ...     print(exc, *(note for failure in exc.exceptions for note in failure.__notes__), sep="; ")
    test_squares: 2 of 3 cases failed (2 sub-exceptions); the case 3-10; the case 4-17
    """
    arguments = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    cases = list(cases)
    assert cases, f"no cases of {names}"
    table = [_values(case, len(arguments)) for case in cases]
    labels = [str(label) for label in ids] if ids and not callable(ids) else [_label(case, ids) for case in cases]

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(test)
        others = [parameter for name, parameter in signature.parameters.items() if name not in arguments]
        assert len(others) == len(signature.parameters) - len(arguments), f"{test.__name__} takes no {names}"

        rows = [(dict(zip(arguments, values, strict=True)), label) for values, label in zip(table, labels, strict=True)]

        @functools.wraps(test)
        def all_cases(*args: Any, **kwargs: Any) -> None:
            failures = _Failures()
            for values, label in rows:
                with failures.of(label):
                    test(*args, **kwargs, **values)
            failures.end(test.__name__, len(table))

        @functools.wraps(test)
        async def all_coroutines(*args: Any, **kwargs: Any) -> None:
            failures = _Failures()
            for values, label in rows:
                with failures.of(label):
                    await test(*args, **kwargs, **values)
            failures.end(test.__name__, len(table))

        whole: Any = all_coroutines if inspect.iscoroutinefunction(test) else all_cases
        whole.__signature__ = signature.replace(parameters=others)
        return whole  # type: ignore[no-any-return]

    return decorate


def in_rows(test: Callable[..., Any]) -> Callable[..., Any]:
    """Return a test of another suite as one, which runs the cases of its ``parametrize`` as `each_of` does.

    Notes
    -----
    For a method that leaves its fixtures as it found them, or overwrites what it left there.
    """
    whole, marks = test, list(getattr(test, "pytestmark", ()))
    for mark in marks:
        if mark.name == "parametrize":
            whole = each_of(*mark.args, **mark.kwargs)(whole)
    whole.pytestmark = [mark for mark in marks if mark.name != "parametrize"]  # type: ignore[attr-defined]
    return whole


class _Failures:
    """The cases that failed, each with its name."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    @contextlib.contextmanager
    def of(self, label: str) -> Iterator[None]:
        """Keep the failure of a case, so that the next is run."""
        try:
            yield
        except pytest.skip.Exception as exc:
            raise RuntimeError(f"the case {label} was skipped: such cases are tests of their own") from exc
        except (Exception, pytest.fail.Exception) as exc:
            if str(exc).startswith("Timeout"):  # of pytest-timeout, whose timer has run out for all of them
                raise
            exc.add_note(f"the case {label}")
            self.errors.append(exc)

    def end(self, name: str, count: int) -> None:
        """Raise what has failed."""
        if self.errors:
            raise BaseExceptionGroup(f"{name}: {len(self.errors)} of {count} cases failed", self.errors)


def _values(case: Any, count: int) -> tuple[Any, ...]:
    """Return the values of a case, one for each argument."""
    if isinstance(case, _PARAM):
        assert not case.marks, f"{case} has marks: such cases are tests of their own"
        return tuple(case.values)
    values = case if count > 1 else (case,)
    assert len(values) == count, f"{case!r} has {len(values)} values, and there are {count} arguments"
    return tuple(values)


def _label(case: Any, ids: Callable[[Any], object] | None) -> str:
    if isinstance(case, _PARAM):
        if case.id is not None:
            return str(case.id)
        case = case.values
    values = case if isinstance(case, tuple) else (case,)
    texts = [str(getattr(shown, "__name__", shown)) for shown in (ids(value) if ids else value for value in values)]
    return "-".join(text if len(text) <= 60 else f"{text[:57]}..." for text in texts)


def share_histories(suites: Iterable[type[Any]]) -> None:
    """Let conformance suites play the share of their histories that the profile of hypothesis asks for."""
    share = settings.default.max_examples / 100
    for suite, examples in [(suite, suite.examples) for suite in suites]:
        suite.examples = max(1, round(examples * share))
