"""Batches and verbs over a store that answers after 0 to 100 ms: wall time, and rounds of waiting."""

from __future__ import annotations

from typing import Any

from benchmarks.timing import Case, timed

TITLE = "A slow network"


def cases(quick: bool) -> list[Case]:
    delays = [10] if quick else [0, 10, 100]
    return [
        Case(f"{verb}, {delay} ms", ("zarrstore",), {"verb": verb, "delay": delay}, rounds=1)
        for verb in ("100 cold keys through a cache", "tree of 200 arrays", "rename of 1,000 keys")
        for delay in delays
    ]


def measure(contestant: str, folder: str, verb: str, delay: int) -> dict[str, Any]:
    import zarrstore
    from zarrstore.testing import CountingStore, SlowStore

    inner = zarrstore.DictStore()
    if verb.startswith("tree"):
        for i in range(200):
            zarrstore.init_array(inner, shape=4, chunks=2, dtype="i4", path=f"g{i // 20}/a{i}")
    else:
        inner.update({f"a/{i}": b"x" for i in range(1000)})
    store = CountingStore(SlowStore(inner, delay / 1000))
    if verb.startswith("100"):
        cache = zarrstore.LRUStoreCache(store, max_size=None)
        found = timed(lambda: dict(cache.getitems([f"a/{i}" for i in range(100)])))
    elif verb.startswith("tree"):
        found = timed(lambda: str(zarrstore.tree(store)))
    else:
        found = timed(lambda: zarrstore.rename(store, "a", "b"))
    return found | {"requests": sum(store.calls.values())}
