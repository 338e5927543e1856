"""Batches and verbs over an object store 100 ms away: its requests, and how many of them follow one another.

`seconds` is what waiting takes: the rounds, 100 ms each, with 64 requests in flight. zarr 2 asks one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.timing import Case, timed

TITLE = "A slow network"
_DELAY = 0.1
_BOTH = ("zarrstore", "zarr 2")
_VERBS = {
    "100 cold keys through a cache": _BOTH,
    "tree of 200 arrays": _BOTH,
    "migrate of 200 arrays": ("zarrstore",),
    "info of 1,000 chunks": _BOTH,
    "rename of 1,000 keys": ("zarrstore",),
    "rmdir of 1,000 keys": ("zarrstore",),
}


def cases(quick: bool) -> list[Case]:
    return [Case(verb, names, {"verb": verb}, rounds=1) for verb, names in _VERBS.items()]


def _data(verb: str) -> dict[str, bytes]:
    import zarrstore

    data: dict[str, bytes] = {}
    options: dict[str, Any] = {"chunks": 2, "dtype": "i4", "compressor": None, "fill_value": 0}
    if "arrays" in verb:
        zarrstore.init_group(data)
        for i in range(20):
            zarrstore.init_group(data, path=f"g{i}")
        for i in range(200):
            zarrstore.init_array(data, shape=4, path=f"g{i // 10}/a{i}", **options)
    else:
        zarrstore.init_array(data, shape=2000, path="a", **options)
        data.update({f"a/{i}": bytes(8) for i in range(1000)})
    return data


def measure(contestant: str, folder: str, verb: str) -> dict[str, Any]:
    from zarrstore.testing import RoundsStore

    # Of requests that follow one another, the delay is known without waiting for it.
    store = RoundsStore(_data(verb), delay=0 if contestant == "zarr 2" else _DELAY)
    act = _by_zarr2(store, verb) if contestant == "zarr 2" else _ours(store, verb)
    found = timed(act)
    rounds = store.requests if contestant == "zarr 2" else store.rounds
    return found | {"requests": store.requests, "rounds": rounds, "seconds": round(rounds * _DELAY, 1)}


def _ours(store: Any, verb: str) -> Callable[[], Any]:
    import zarrstore
    from zarrstore.tools.info import describe_node

    cache = zarrstore.LRUStoreCache(store, max_size=None)
    return {
        "100": lambda: dict(cache.getitems([f"a/{i}" for i in range(100)])),
        "tree": lambda: str(zarrstore.tree(store)),
        "migrate": lambda: zarrstore.migrate_2to3(store),
        "info": lambda: describe_node(store, "a"),
        "rename": lambda: zarrstore.rename(store, "a", "b"),
        "rmdir": lambda: zarrstore.rmdir(store, "a"),
    }[verb.partition(" ")[0]]


def _by_zarr2(store: Any, verb: str) -> Callable[[], Any]:
    import zarr
    from zarr._storage.store import Store

    class Listed(Store):  # type: ignore[misc]
        """The store as zarr 2 sees one that has listings of its own, as its FSStore has."""

        def __getitem__(self, key: str) -> bytes:
            return store[key]

        def __setitem__(self, key: str, value: bytes) -> None:
            store[key] = value

        def __delitem__(self, key: str) -> None:
            del store[key]

        def __contains__(self, key: object) -> bool:
            return key in store

        def __iter__(self) -> Any:
            return iter(store)

        def __len__(self) -> int:
            return len(store)

        def listdir(self, path: str = "") -> list[str]:
            return store.listdir(path)

    seen = Listed()
    if verb.startswith("100"):
        cache = zarr.LRUStoreCache(seen, max_size=None)
        return lambda: [cache[f"a/{i}"] for i in range(100)]
    if verb.startswith("tree"):
        return lambda: str(zarr.open_group(seen, mode="r").tree())
    return lambda: str(zarr.open_array(seen, path="a", mode="r").info)
