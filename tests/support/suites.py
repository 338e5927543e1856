"""The conformance suite in one call, for stacks: there are hundreds, and a pytest item costs more than most checks."""

from __future__ import annotations

import inspect
import itertools
import shutil
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support import roster
from tests.support.cases import share_histories
from zarrstore import as_store
from zarrstore.testing import StoreConformance


def store_suite(name: str, make: roster.Maker, **attributes: Any) -> type[StoreConformance]:
    """Return the suite over the stores that `make(folder)` returns."""

    def make_store(self: Any, tmp_path: Path) -> Any:
        return make(tmp_path)

    title = "Test_" + "".join(c if c.isalnum() else "_" for c in name)
    return type(title, (StoreConformance,), {"make_store": make_store, **attributes})


def stack_suite(name: str, base: roster.Maker, *wraps: Any, **attributes: Any) -> type[StoreConformance]:
    """Return the suite over a stack: `wraps` from the innermost to the outermost, over what `base(folder)` returns."""

    def make(path: Path) -> Any:
        store = base(path)
        for wrap in wraps:
            store = wrap(store, path)
        return store

    def make_filled(self: Any, path: Path, items: Mapping[str, bytes]) -> Any:
        """Fill what cannot be written through the same stack without its walls, over the same base."""
        store = way_in = base(path)
        for wrap in wraps:
            wrapped = wrap(store, path)
            through = wrapped if way_in is store else wrap(way_in, path)
            way_in = through if as_store(through).capabilities.writable else way_in
            store = wrapped
        as_store(store if as_store(store).capabilities.writable else way_in).setitems(items)
        return store

    return store_suite(name, make, make_filled=make_filled, **attributes)


def failures(suite: type[StoreConformance], folder: Path, factory: Any) -> list[str]:
    """Run every test of a suite, each in a folder of its own; return the names and traces of those that fail."""
    share_histories([suite])
    methods = inspect.getmembers(suite, inspect.isfunction)
    cases = [
        (method, case) for name, method in methods if name.startswith("test_") for case in _parameters(name, method)
    ]
    assert len(cases) >= 37, f"the suite has {len(cases)} tests only"
    found = []
    for number, (method, (title, chosen)) in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        try:
            _call(suite(), method, chosen, place, factory)
        except Exception:
            found.append(f"{title}\n{traceback.format_exc()}")
        shutil.rmtree(place, ignore_errors=True)
    return found


def _parameters(name: str, method: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the title and the arguments of each test that `pytest.mark.parametrize` makes of a method."""
    marks = [mark.args for mark in getattr(method, "pytestmark", []) if mark.name == "parametrize"]
    for values in itertools.product(*(values for _, values in marks)):
        chosen = {argument: value for (argument, _), value in zip(marks, values, strict=True)}
        yield f"{name}{list(chosen.values()) or ''}", chosen


def _call(test: Any, method: Any, chosen: dict[str, Any], place: Path, factory: Any) -> None:
    opened: list[Any] = []

    def filled(items: Mapping[str, bytes]) -> Any:
        opened.append(as_store(test.make_filled(place, items)))
        return opened[-1]

    fixtures = {
        "tmp_path": lambda: place,
        "tmp_path_factory": lambda: factory,
        "filled": lambda: filled,
        "store": lambda: filled({}),
        "full": lambda: filled(test.tree()),
    }
    try:
        wanted = [name for name in inspect.signature(method).parameters if name != "self"]
        method(test, **{name: chosen[name] if name in chosen else fixtures[name]() for name in wanted})
    finally:
        for store in opened:
            store.close()
