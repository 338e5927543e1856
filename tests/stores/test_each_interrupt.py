"""An interrupt at each point of a call: the value is the old or the new one, and nobody else is kept waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import zarrstore
from tests.support.interrupts import each_point
from tests.support.roster import STORES, WRAPPERS
from zarrstore.threads import Latch, Starter

#: What is interrupted: for each call, what it does to a store.
CALLS: dict[str, Callable[[Any], object]] = {
    "set": lambda store: store.__setitem__("a/b", b"new"),
    "get": lambda store: store["a/b"],
    "delete": lambda store: store.pop("a/b", None),
    "in and list": lambda store: ("a/b" in store, zarrstore.listdir(store, "a"), list(store)),
    "batch": lambda store: zarrstore.as_store(store).setitems({"a/b": b"new", "a/c": b"new", "d": b"new"}),
    "read a batch": lambda store: dict(zarrstore.as_store(store).getitems(["a/b", "a/c", "d"])),
    "rename": lambda store: zarrstore.rename(store, "a", "e"),
    "rmdir and flush": lambda store: (zarrstore.rmdir(store, "a"), getattr(store, "flush", int)()),
}

KINDS = [kind for kind in (*STORES, *WRAPPERS) if kind != "ReadOnlyStore"]


def make(kind: str, path: Any) -> Any:
    if kind in STORES:
        return STORES[kind](path)
    return WRAPPERS[kind](zarrstore.DictStore(), path)


def use(store: Any) -> None:
    """Use a store in another thread, which must not have to wait for what an interrupt left."""
    done, errors = Latch(), []

    def use_all() -> None:
        try:
            for path in ("a", "e"):
                zarrstore.rmdir(store, path)
            store["a/b"] = b"old"
            store["a/c"] = b"old"
            assert store["a/b"] == b"old"
            assert {"a/b", "a/c"} <= set(store)
        except BaseException as exc:
            errors.append(exc)
        finally:
            done.set()

    Starter(use_all, "other").start()
    assert done.wait(60), "another thread waits for ever"
    if errors:
        raise errors[0]


# Below FSStore lie event loops: a hundred times the points.
@pytest.mark.parametrize(
    ("kind", "step"),
    [(kind, 211 if kind.startswith("FSStore") else 23) for kind in KINDS]
    + [
        pytest.param(
            kind, 17 if kind.startswith("FSStore") else 1, marks=[pytest.mark.nightly, pytest.mark.timeout(900)]
        )
        for kind in KINDS
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_an_interrupt_at_each_point_leaves_old_or_new_and_no_lock(tmp_path, kind, step):
    store = make(kind, tmp_path)
    use(store)
    for number, (name, call) in enumerate(CALLS.items()):
        for point in each_point(lambda call=call: call(store), step=step, first=number % step):
            for key in ("a/b", "a/c", "e/b", "e/c"):
                assert store.get(key) in (b"old", b"new", None), (name, point, key)
            assert name != "set" or store["a/b"] in (b"old", b"new"), (name, point)
            use(store)
