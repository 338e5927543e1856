"""Every store, every wrapper over a few stores, and every wrapper over every wrapper, through the whole suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import roster
from zarrstore.testing import StoreConformance


def _suite(name: str, make: roster.Maker, **attributes: Any) -> None:
    def make_store(self: Any, tmp_path: Path) -> Any:
        return make(tmp_path)

    title = "Test_" + "".join(c if c.isalnum() else "_" for c in name)
    assert title not in globals(), f"two suites named {title}"
    globals()[title] = type(
        title, (StoreConformance,), {"make_store": make_store, "__module__": __name__, **attributes}
    )


for _name, _make in roster.STORES.items():
    _options = dict(roster.OPTIONS.get(_name, {}))
    if _name in roster.REOPEN:
        _reopen = roster.REOPEN[_name]
        _options["reopen"] = lambda self, store, path, _reopen=_reopen: _reopen(store, path)
    _suite(_name, _make, **_options)

for _outer, _wrap in roster.WRAPPERS.items():
    for _name in roster.UNDER_WRAPPERS:
        _options = {"checks_processes": False, **roster.OPTIONS.get(_name, {}), **roster.OPTIONS.get(_outer, {})}
        _suite(
            f"{_outer} over {_name}",
            lambda path, _wrap=_wrap, _make=roster.STORES[_name]: _wrap(_make(path), path),
            **_options,
        )

_base = roster.STORES[roster.UNDER_WRAPPERS[0]]
for _outer, _wrap in roster.WRAPPERS.items():
    for _inner, _under in roster.WRAPPERS.items():
        _options = {**roster.OPTIONS.get(_inner, {}), **roster.OPTIONS.get(_outer, {})}
        _suite(
            f"{_outer} over {_inner}",
            lambda path, _wrap=_wrap, _under=_under: _wrap(_under(_base(path), path), path),
            **{"checks_processes": False, "examples": 5, **_options},
        )
