"""One verb over synthetic keys or large values, alone in a process: its time and largest memory, as a line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import zarrstore
from benchmarks.scenarios.archives import archive_of
from benchmarks.timing import peak_mib, timed
from zarrstore.base import Capabilities, Entry, Store
from zarrstore.batch import AheadItems
from zarrstore.tools.manifest import digests_of

_DOCUMENT = (
    b'{"zarr_format": 2, "shape": [%d], "chunks": [1], "dtype": "|u1", "compressor": null, "fill_value": 0,'
    b' "order": "C", "filters": null}'
)


class Synthetic(Store):
    """Arrays of 100,000 chunks of one byte each, made when they are read: a store that takes no memory."""

    capabilities = Capabilities(process_safe=True, blocking=False)

    def __init__(self, n: int) -> None:
        self.n = n
        self.array = min(n, 100_000)

    def _get(self, key: str) -> bytes:
        path, _, name = key.rpartition("/")
        if name == ".zarray" and path:
            return _DOCUMENT % self.array
        if key == ".zgroup":
            return b'{"zarr_format": 2}'
        if not (path.startswith("a") and name.isdigit()):
            raise KeyError(key)
        return b"\1"

    def _contains(self, key: str) -> bool:
        path, _, name = key.rpartition("/")
        return key == ".zgroup" or (len(path) == 4 and path[0] == "a" and (name == ".zarray" or name.isdigit()))

    def _keys(self, path: str) -> Iterator[str]:
        arrays = [f"a{i:03d}" for i in range(-(-self.n // self.array))]
        if not path:
            yield ".zgroup"
        for name in arrays:
            if path in ("", name):
                yield f"{name}/.zarray"
                yield from (f"{name}/{i}" for i in range(self.array))

    def _details(self, path: str) -> Iterator[Entry]:
        return (Entry(key, 1 if key[-1].isdigit() else -1) for key in self._keys(path))

    def _listdir(self, path: str) -> list[str]:
        if not path:
            return [".zgroup", *(f"a{i:03d}" for i in range(-(-self.n // self.array)))]
        return [".zarray", *map(str, range(self.array))] if path[0] == "a" and len(path) == 4 else []

    def _set(self, key: str, value: bytes) -> None: ...

    def _delete(self, key: str) -> None: ...

    def _delete_many(self, keys: Any) -> None:
        for _ in keys:
            pass


class Empty(Synthetic):
    """Takes everything, holds nothing."""

    def __init__(self) -> None:
        super().__init__(1)
        self.n = 0

    def _get(self, key: str) -> bytes:
        raise KeyError(key)

    def _contains(self, key: str) -> bool:
        return False

    def _keys(self, path: str) -> Iterator[str]:
        return iter(())

    def _listdir(self, path: str) -> list[str]:
        return []


class Large(Synthetic):
    """So many values of so many bytes, fetched ahead as a store on a network would."""

    capabilities = Capabilities(process_safe=True, concurrent=True)

    def __init__(self, n: int, nbytes: int) -> None:
        super().__init__(n)
        self.nbytes = nbytes

    def _get(self, key: str) -> bytes:
        if key.endswith(".zarray"):
            shape, chunk = str(self.n * self.nbytes).encode(), str(self.nbytes).encode()
            return _DOCUMENT.replace(b"%d", shape).replace(b"[1]", b"[" + chunk + b"]")
        return super()._get(key) if key == ".zgroup" else b"\1" * self.nbytes

    def _details(self, path: str) -> Iterator[Entry]:
        return map(Entry, self._keys(path))

    def _get_many(self, keys: Sequence[str]) -> AheadItems:
        return AheadItems(lambda wanted: {key: self._get(key) for key in wanted}, keys)


def _small(verb: str, n: int, folder: str) -> Any:
    source = Synthetic(n)
    verbs = {
        "copy": lambda: zarrstore.copy_store(source, Empty()),
        "copy with skip": lambda: zarrstore.copy_store(source, Synthetic(n), if_exists="skip"),
        "copy with differ": lambda: zarrstore.copy_store(source, Synthetic(n), if_exists="differ"),
        "diff": lambda: sum(1 for _ in zarrstore.diff(source, Synthetic(n))),
        "manifest": lambda: zarrstore.write_manifest(source, f"{folder}/manifest"),
        "verify": lambda: zarrstore.verify(source),
        "rename": lambda: source._rename("a000", "b"),
        "rmdir": lambda: source.rmdir(""),
        "pack": lambda: zarrstore.pack(source, f"{folder}/packed.zip"),
        "open zip": lambda: _first_of(archive_of(n)),
    }
    return verbs[verb]


def _first_of(archive: str) -> bytes:
    with zarrstore.ZipStore(archive, mode="r") as store:
        return store["a000/c/0.7"]


def _of_large(verb: str, count: int, mib: int, threads: int) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    source = Large(count, mib << 20)
    keys = [f"a000/{i}" for i in range(count)]
    pool = ThreadPoolExecutor(threads)

    def getitems() -> None:
        found = source.getitems(keys)
        for key in keys:
            found[key]

    return {
        "copy": lambda: zarrstore.copy_store(source, Empty(), executor=pool),
        "verify": lambda: zarrstore.verify(source, executor=pool),
        "getitems": getitems,
        "diff": lambda: sum(1 for _ in zarrstore.diff(source, Large(count, mib << 20))),
        "prefetch": lambda: zarrstore.LRUStoreCache(source, max_size=0, cache=Empty()).prefetch(keys),
        "manifest": lambda: sum(1 for _ in digests_of(source)),
    }[verb]


def main() -> None:
    """Do what the arguments say."""
    verb, n, folder, *rest = sys.argv[1:]
    count = int(n)
    act = _of_large(verb.removeprefix("large "), count, *map(int, rest)) if rest else _small(verb, count, folder)
    before = peak_mib()
    found = timed(act, count)
    peak = peak_mib()
    print(json.dumps(found | {"peak_mib": round(peak, 1), "bytes_a_key": round((peak - before) * 2**20 / count, 1)}))


if __name__ == "__main__":
    main()
