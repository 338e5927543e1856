"""LMDB and SQLite: single sets, sets in batches, gets; LMDB's sets from several threads."""

from __future__ import annotations

import os
import threading
from typing import Any

from benchmarks.contestants import made
from benchmarks.timing import Case, timed

TITLE = "Databases"


def cases(quick: bool) -> list[Case]:
    n, rounds = (100, 3) if quick else (1000, 7)
    both = ("zarrstore", "zarr 2")
    found = [
        Case(f"{kind}: {step} 1 KiB", both, {"kind": kind, "step": step, "n": n, "threads": 1}, rounds)
        for kind in ("lmdb", "lmdb without sync", "sqlite")
        for step in ("set", "setitems", "get")
    ]
    threads = [2] if quick else [4, 16]
    return found + [
        Case(
            f"lmdb: set 1 KiB, {count} threads", both[:1], {"kind": "lmdb", "step": "set", "n": n, "threads": count}, 3
        )
        for count in threads
    ]


def measure(contestant: str, folder: str, kind: str, step: str, n: int, threads: int) -> dict[str, Any]:
    with made(kind, contestant, f"{folder}/data") as store:
        return _measure(store, kind, step, n, threads)


def _measure(store: Any, kind: str, step: str, n: int, threads: int) -> dict[str, Any]:
    value = os.urandom(1024)
    keys = [f"a/{i}" for i in range(n)]
    store["a/first"] = value

    def write(part: list[str]) -> None:
        for key in part:
            store[key] = value

    if step == "get":
        write(keys)
        return timed(lambda: [store[key] for key in keys], n)
    if step == "setitems":
        return timed(lambda: store.update(dict.fromkeys(keys, value)), n)

    def together() -> None:
        workers = [threading.Thread(target=write, args=(keys[i::threads],)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return timed(together if threads > 1 else lambda: write(keys), n)
