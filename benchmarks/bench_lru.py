"""LRUStoreCache against zarr 2.18.7's and a bare OrderedDict, interleaved; and what reaches a slow store, counted.

::

    python benchmarks/bench_lru.py [ROUNDS]

Runs under the interpreter of the peer ``zarr2``. Processor time of the fastest round, in nanoseconds a call.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.support import peers  # noqa: E402

if __name__ == "__main__" and "--inside" not in sys.argv:
    os.execv(peers.python("zarr2"), [peers.python("zarr2"), __file__, "--inside", *sys.argv[1:]])

KEYS = [f"foo/bar/{i // 100}.{i % 100}" for i in range(1000)]
REPEAT = 20


def timed(act: Callable[[], object]) -> float:
    start = time.process_time()
    act()
    return (time.process_time() - start) / (len(KEYS) * REPEAT) * 1e9


def main(rounds: int = 15) -> None:
    import zarr

    from zarrstore import LRUStoreCache
    from zarrstore.testing import CountingStore, SlowStore

    warnings.simplefilter("ignore")
    data = {key: bytes(100) for key in KEYS}
    bare = OrderedDict(data)
    ours, theirs = LRUStoreCache(data, 2**28), zarr.LRUStoreCache(dict(data), 2**28)

    def hit(cache: object) -> Callable[[], None]:
        def run() -> None:
            for _ in range(REPEAT):
                for key in KEYS:
                    cache[key]  # type: ignore[index]

        return run

    def hit_bare() -> None:
        for _ in range(REPEAT):
            for key in KEYS:
                bare[key]
                bare.move_to_end(key)

    runs = {"OrderedDict and move_to_end": hit_bare, "ours": hit(ours), "zarr2": hit(theirs)}
    best: dict[str, float] = {}
    for _ in range(rounds):
        for who, run in runs.items():
            best[who] = min(best.get(who, 1e9), timed(run))
    print(f"a hit, {rounds} rounds, fastest, nanoseconds of processor time")
    for who, nanos in best.items():
        print(f"  {who:30}{nanos:8.0f}")
    print(f"  ours is {best['zarr2'] / best['ours']:.1f} times as fast as zarr 2's")

    print("requests that reach a store of 50 ms")
    for who, make in {"ours": LRUStoreCache, "zarr2": zarr.LRUStoreCache}.items():
        remote = CountingStore(SlowStore(dict(data), delay=0.05))
        cache = make(remote, 2**28)
        threads = [threading.Thread(target=lambda cache=cache: cache[KEYS[0]]) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sixteen = remote.reads
        remote.reset()
        for _ in range(5):
            cache.get("absent")
        missing = remote.reads
        remote.reset()
        start = time.perf_counter()
        cold = dict(cache.getitems(KEYS[1:101], contexts={}))
        took = time.perf_counter() - start
        assert len(cold) == 100
        print(
            f"  {who:6} 16 threads on one cold key: {sixteen:2}; 5 reads of a missing key: {missing};"
            f" 100 cold keys in a batch: {remote.reads:3}, {took:.3f} s"
        )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:] if argument != "--inside"))
