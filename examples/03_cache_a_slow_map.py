"""A cache in front of a slow map: what reaches the map before and after.

The map waits 50 ms for every request, as a remote one does; a batch waits once.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zarrstore
from zarrstore.testing import CountingStore, SlowStore

KEYS = [f"foo/{i}.{j}" for i in range(10) for j in range(10)]


def timed(label: str, remote: CountingStore, act: object) -> None:
    """Do it, and print how long it took and what reached the map."""
    remote.reset()
    start = time.perf_counter()
    act()  # type: ignore[operator]
    took = time.perf_counter() - start
    print(f"{label:44} {took * 1000:7.1f} ms   {sum(remote.calls.values()):3} requests")


def main() -> None:
    """Read the same map with and without a cache, from one thread and from sixteen."""
    remote = CountingStore(SlowStore({key: bytes(10_000) for key in KEYS}, delay=0.05))
    with tempfile.TemporaryDirectory() as folder:
        tier = zarrstore.DirectoryStore(Path(folder) / "cache")
        cache = zarrstore.LRUStoreCache(remote, max_size=2e9, cache=tier, cache_size=1e9)

        timed("3 reads of one key, no cache", remote, lambda: [remote["foo/0.0"] for _ in range(3)])
        assert remote.reads == 3

        def sixteen() -> None:
            with ThreadPoolExecutor(16) as threads:
                list(threads.map(cache.get, ["foo/0.0"] * 16))

        timed("16 threads read one cold key, cached", remote, sixteen)
        assert remote.reads == 1
        # Batches of 2, 16 and the rest: the first ones show how large values are.
        timed("100 keys in batches, 99 of them cold", remote, lambda: dict(cache.getitems(KEYS)))
        assert remote.reads == 3
        timed("the same 100 again", remote, lambda: dict(cache.getitems(KEYS)))
        assert remote.reads == 0
        timed("5 looks for a key that is not there", remote, lambda: [cache.get("foo/absent") for _ in range(5)])
        assert sum(remote.calls.values()) == 1
        tomorrow = zarrstore.LRUStoreCache(remote, max_size=2e9, cache=tier, cache_size=1e9)
        timed("100 keys in a new process, from the tier", remote, lambda: [tomorrow[key] for key in KEYS])
        assert remote.reads == 0

        print(cache.stats())
        assert cache.stats().fetches == 101


if __name__ == "__main__":
    main()
