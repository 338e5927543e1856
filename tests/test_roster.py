"""Every store, every wrapper over a few stores, and every wrapper over every wrapper, through the whole suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import roster
from zarrstore import as_store
from zarrstore.testing import StoreConformance


def _suite(name: str, make: roster.Maker, **attributes: Any) -> None:
    def make_store(self: Any, tmp_path: Path) -> Any:
        return make(tmp_path)

    title = "Test_" + "".join(c if c.isalnum() else "_" for c in name)
    assert title not in globals(), f"two suites named {title}"
    globals()[title] = type(
        title, (StoreConformance,), {"make_store": make_store, "__module__": __name__, **attributes}
    )


def _suite_of_a_stack(name: str, base: roster.Maker, *wraps: Any, **attributes: Any) -> None:
    def make(path: Path) -> Any:
        store = base(path)
        for wrap in wraps:
            store = wrap(store, path)
        return store

    def make_filled(self: Any, path: Path, items: Mapping[str, bytes]) -> Any:
        """Fill what cannot be written through the same stack without its walls, over the same base."""
        store = way_in = base(path)
        for wrap in wraps:
            made = wrap(store, path)
            through = made if way_in is store else wrap(way_in, path)
            way_in = through if as_store(through).capabilities.writable else way_in
            store = made
        as_store(store if as_store(store).capabilities.writable else way_in).setitems(items)
        return store

    _suite(name, make, make_filled=make_filled, **attributes)


for _name, _make in roster.STORES.items():
    _options = dict(roster.OPTIONS.get(_name, {}))
    if _name in roster.REOPEN:
        _reopen = roster.REOPEN[_name]
        _options["reopen"] = lambda self, store, path, _reopen=_reopen: _reopen(store, path)
    _suite(_name, _make, **_options)

for _outer, _wrap in roster.WRAPPERS.items():
    for _name in roster.UNDER_WRAPPERS:
        _options = {"checks_processes": False, **roster.OPTIONS.get(_name, {}), **roster.OPTIONS.get(_outer, {})}
        _suite_of_a_stack(f"{_outer} over {_name}", roster.STORES[_name], _wrap, **_options)

_base = roster.STORES[roster.UNDER_WRAPPERS[0]]
for _outer, _wrap in roster.WRAPPERS.items():
    for _inner, _under in roster.WRAPPERS.items():
        _options = {**roster.OPTIONS.get(_inner, {}), **roster.OPTIONS.get(_outer, {})}
        _options = {"checks_processes": False, "examples": 5, **_options}
        _suite_of_a_stack(f"{_outer} over {_inner}", _base, _under, _wrap, **_options)
