"""A hit of a cache: LRUStoreCache beside a bare OrderedDict, zarr 2's cache and zict's; one thread and several."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from benchmarks.timing import Case, timed

TITLE = "Hits of a cache"
_ALL = ("bare", "zarrstore", "zarr 2", "zict")


def cases(quick: bool) -> list[Case]:
    n, rounds = (2000, 5) if quick else (20_000, 15)
    threads = [1] if quick else [1, 4, 16]
    return [Case(f"hit, {count} threads", _ALL, {"threads": count, "n": n}, rounds) for count in threads]


class _Ordered:
    def __init__(self) -> None:
        self.held: OrderedDict[str, bytes] = OrderedDict()

    def __getitem__(self, key: str) -> bytes:
        value = self.held[key]
        self.held.move_to_end(key)
        return value


def _cache(contestant: str, data: dict[str, bytes]) -> Any:
    if contestant == "bare":
        ordered = _Ordered()
        ordered.held.update(data)
        return ordered
    if contestant == "zict":
        import zict

        return zict.LRU(10**9, dict(data))
    if contestant == "zarr 2":
        import zarr

        return zarr.LRUStoreCache(dict(data), max_size=None)
    import zarrstore

    return zarrstore.LRUStoreCache(data, max_size=None)


def measure(contestant: str, folder: str, threads: int, n: int) -> dict[str, Any]:
    data = {f"foo/{i}.{i}": b"x" * 100 for i in range(100)}
    cache = _cache(contestant, data)
    keys = list(data) * (n // 100)
    for key in data:
        cache[key]

    def read() -> None:
        for key in keys:
            cache[key]

    def together() -> None:
        workers = [threading.Thread(target=read) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return timed(read if threads == 1 else together, n * threads)
