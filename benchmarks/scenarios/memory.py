"""A store in memory beside a dict: get, in, set; a small subtree that comes and goes beside many keys."""

from __future__ import annotations

from typing import Any

from benchmarks.contestants import made
from benchmarks.steps import STEPS
from benchmarks.timing import Case, timed

TITLE = "In memory"
_ALL = ("bare", "class", "zarrstore", "zarr 2")


def cases(quick: bool) -> list[Case]:
    n, rounds = (1000, 5) if quick else (10_000, 15)
    steps = [Case(step, _ALL, {"step": step, "n": n, "beside": 0}, rounds) for step in ("get", "in", "set")]
    beside = [1000] if quick else [100, 10_000, 100_000]
    return steps + [
        Case(f"subtree of 10 beside {count:,}", _ALL[2:], {"step": "subtree", "n": 10, "beside": count}, 5)
        for count in beside
    ]


def measure(contestant: str, folder: str, step: str, n: int, beside: int) -> dict[str, Any]:
    with made("memory", contestant, folder) as store:
        return _measure(store, step, n, beside)


def _measure(store: Any, step: str, n: int, beside: int) -> dict[str, Any]:
    keys = [f"foo/bar/{i // 100}.{i % 100}" for i in range(n)]
    value = b"x" * 100
    for i in range(beside):
        store[f"all/a{i // 100}/{i % 100}"] = value
    if step == "subtree":
        store.rmdir("foo")  # the first builds the index of DictStore
    if step in ("get", "in"):
        STEPS["set"](store, keys, value)
    if step != "subtree":
        return timed(lambda: STEPS[step](store, keys, value), n)

    def come_and_go() -> None:
        for _ in range(10):
            STEPS["set"](store, keys, value)
            store.rmdir("foo")

    return timed(come_and_go, 10)
