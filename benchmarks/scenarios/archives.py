"""Zip archives of many entries: open and get one, list, work on a small subtree, an absent key; small sets and gets."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.timing import Case, timed

__all__ = ["archive_of", "cases", "measure"]

TITLE = "Zip archives"
_SUBTREES = 10
_BOTH = ("zarrstore", "zarr 2", "zarr 3")


def cases(quick: bool) -> list[Case]:
    counts = [1000] if quick else [100_000, 1_000_000]
    rounds = 3 if quick else 5
    found = [
        Case(f"{step}, {count:,} entries", _BOTH, {"step": step, "n": count}, rounds if count < 10**6 else 2)
        for count in counts
        for step in ("open and get one", "list after opening", "subtree", "absent short key")
        # zarr 2 and zarr 3 take seconds to open 10^6 entries, and have no deletion.
        if count < 10**6 or step in ("subtree", "absent short key")
    ]
    small = 200 if quick else 2000
    return [Case(f"{step} 1 KiB", _BOTH, {"step": step, "n": small}, rounds) for step in ("set", "get")] + found


def archive_of(n: int) -> str:
    """Return an archive of `n` entries, made once a machine and run."""
    path = Path(os.environ["ZARRSTORE_BENCHMARKS"]) / f"{n}.zip"
    if not path.exists():
        with zipfile.ZipFile(path.with_suffix(".new"), "w") as archive:
            for i in range(n):
                archive.writestr(f"a{i // 10_000:03d}/c/{i // 100 % 100}.{i % 100}", b"x")
        path.with_suffix(".new").rename(path)
    return str(path)


def _open(contestant: str, path: str, mode: str) -> Any:
    if contestant == "zarrstore":
        import zarrstore

        return zarrstore.ZipStore(path, mode=mode)
    if contestant == "zarr 2":
        import zarr

        return zarr.ZipStore(path, mode=mode, compression=0)
    import zarr.storage

    from benchmarks.contestants import Zarr3

    return Zarr3(zarr.storage.ZipStore(path, mode=mode))


def measure(contestant: str, folder: str, step: str, n: int) -> dict[str, Any]:
    if step in ("set", "get"):
        return _small(contestant, folder, step, n)
    path = archive_of(n)
    key = f"a{(n - 1) // 10_000:03d}/c/0.7"
    if step == "open and get one":
        return timed(lambda: _open(contestant, path, "r")[key])
    if step == "list after opening":
        store = _open(contestant, path, "r")
        store[key]
        return timed(lambda: list(store))
    if contestant != "zarrstore":
        return {"lacks": "it has no such call, or opens for seconds"}
    if step == "absent short key":
        store = _open(contestant, path, "r")
        return timed(lambda: store.get("c"))
    copy = f"{folder}/copy.zip"
    os.system(f"cp {path} {copy}")
    store = _open(contestant, copy, "a")
    store["first/0"] = b""
    store.listdir("first")  # the first listing sorts all names, once

    def subtree() -> None:
        for _ in range(_SUBTREES):
            store["new/a/0"] = b"x"
            store.listdir("new/a")
            store.rmdir("new")

    return timed(subtree, _SUBTREES)


def _small(contestant: str, folder: str, step: str, n: int) -> dict[str, Any]:
    store = _open(contestant, f"{folder}/small.zip", "w")
    value = os.urandom(1024)
    keys = [f"a/{i}" for i in range(n)]

    def write() -> None:
        for key in keys:
            store[key] = value

    if step == "set":
        return timed(write, n)
    write()
    return timed(lambda: [store[key] for key in keys], n)
