"""Every store, and every wrapper over a flat store and one of files, through the whole suite."""

from __future__ import annotations

from typing import Any

from tests.support import roster
from tests.support.suites import stack_suite, store_suite


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

for _outer, _wrap in roster.WRAPPERS.items():
    for _name in roster.UNDER_WRAPPERS[:2]:
        _add(stack_suite(f"{_outer} over {_name}", roster.STORES[_name], _wrap, **roster.options(_outer, _name)))
