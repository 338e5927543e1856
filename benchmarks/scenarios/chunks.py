"""Set and get NumPy chunks of 1 to 64 MiB; and how often their bytes are copied on the way in."""

from __future__ import annotations

import tracemalloc
from typing import Any

from benchmarks.contestants import made
from benchmarks.timing import Case, timed

TITLE = "NumPy chunks"
_KINDS = {
    "directory": ("bare", "zarrstore", "zarr 2", "zarr 3", "obstore", "tensorstore"),
    "zip": ("zarrstore", "zarr 2", "zarr 3"),
    "lmdb without sync": ("zarrstore", "zarr 2"),
    "sqlite": ("zarrstore", "zarr 2"),
}


def cases(quick: bool) -> list[Case]:
    # The smaller, the more turns: the same calls differ by a tenth from turn to turn.
    rounds = {1: 2} if quick else {1: 20, 4: 10, 64: 2}
    return [
        Case(f"{kind}: {step} {mib} MiB", names, {"kind": kind, "step": step, "mib": mib}, rounds[mib])
        for kind, names in _KINDS.items()
        for mib in rounds
        for step in ("set", "get")
        # LMDB of zarr 2 maps a file of the size that it is given; 64 MiB takes seconds a turn.
        if not (mib == 64 and kind.startswith("lmdb"))
    ]


def measure(contestant: str, folder: str, kind: str, step: str, mib: int) -> dict[str, Any]:
    with made(kind, contestant, f"{folder}/data") as store:
        return _measure(store, contestant, kind, step, mib)


def _measure(store: Any, contestant: str, kind: str, step: str, mib: int) -> dict[str, Any]:
    import numpy as np

    chunk = np.random.default_rng(0).random(mib << 17)
    n = max(2, 16 // mib)
    value: Any = chunk
    if contestant in ("bare",):
        value = memoryview(chunk).cast("B")
    store["a/first"] = value

    def write() -> None:
        for i in range(n):
            store[f"a/{i}"] = value

    if step == "set":
        found = timed(write, n)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        store["a/last"] = value
        copies = (tracemalloc.get_traced_memory()[1] - before) / chunk.nbytes
        tracemalloc.stop()
        return found | {"copies": round(copies, 2)}
    write()

    def read() -> None:
        for i in range(n):
            store[f"a/{i}"]

    return timed(read, n)
