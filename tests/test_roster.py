"""Every store through the whole suite, and every wrapper over a flat store and one of files, each as one test."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import roster
from tests.support.suites import failures, stack_suite, store_suite


def _add(suite: type[Any]) -> None:
    assert suite.__name__ not in globals(), f"two suites named {suite.__name__}"
    suite.__module__ = __name__
    globals()[suite.__name__] = suite


for _name, _make in roster.STORES.items():
    _options = dict(roster.OPTIONS.get(_name, {}))
    if _name in roster.REOPEN:
        _reopen = roster.REOPEN[_name]
        _options["reopen"] = lambda self, store, path, _reopen=_reopen: _reopen(store, path)
    _add(store_suite(_name, _make, **_options))


@pytest.mark.parametrize("outer", roster.WRAPPERS)
@pytest.mark.parametrize("base", roster.UNDER_WRAPPERS[:2])
def test_a_wrapper_keeps_the_contract(outer, base, tmp_path, tmp_path_factory):
    suite = stack_suite(outer, roster.STORES[base], roster.WRAPPERS[outer], **roster.options(outer, base))
    found = failures(suite, tmp_path, tmp_path_factory)
    assert not found, "\n".join(found)
