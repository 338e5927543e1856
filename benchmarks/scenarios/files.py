"""Values of 1 KiB and 64 KiB in a directory tree: set, get, in, delete (one by one, and in one call), list."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.contestants import made
from benchmarks.steps import STEPS
from benchmarks.timing import Case, timed

TITLE = "One file a key"
_ALL = ("bare", "zarrstore", "zarrstore nested", "zarr 2", "zarr 3", "zict", "diskcache", "obstore", "tensorstore")


def cases(quick: bool) -> list[Case]:
    n, rounds = (100, 4) if quick else (400, 15)
    steps = [("set", 1), ("replace", 1), ("get", 1), ("in", 1), ("delete", 1), ("delete a batch", 1), ("list", 1)]
    steps += [] if quick else [("set", 64), ("get", 64)]
    return [
        Case(f"{step} {kib} KiB" if step in ("set", "get") else step, _ALL, {"step": step, "kib": kib, "n": n}, rounds)
        for step, kib in steps
    ]


def measure(contestant: str, folder: str, step: str, kib: int, n: int) -> dict[str, Any]:
    with made("directory", contestant, f"{folder}/data") as store:
        return _measure(store, step, kib, n)


def _measure(store: Any, step: str, kib: int, n: int) -> dict[str, Any]:
    value = os.urandom(kib << 10)
    keys = [f"foo/bar/{i // 20}.{i % 20}" for i in range(n)]
    if step == "set":
        # The first key makes the directory: what is measured is the values.
        store["foo/bar/first"] = value
    else:
        STEPS["set"](store, keys, value)
    return timed(lambda: STEPS[step](store, keys, value), n)
