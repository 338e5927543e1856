"""Copy chunks of 1 KiB, and of 16 MiB, between a directory, a zip and LMDB, beside cp, zip and zarr 2's copy_store."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.timing import Case, timed

TITLE = "Copies"


def cases(quick: bool) -> list[Case]:
    n, rounds = (500, 3) if quick else (10_000, 5)
    found = [
        Case(f"directory to directory, {n:,} x 1 KiB", ("zarrstore", "zarr 2", "cp"), {"to": "data", "n": n}, rounds),
        Case(f"directory to zip, {n:,} x 1 KiB", ("zarrstore", "zarr 2", "zip"), {"to": "data.zip", "n": n}, rounds),
        Case(f"directory to LMDB, {n:,} x 1 KiB", ("zarrstore", "zarr 2"), {"to": "data.lmdb", "n": n}, rounds),
    ]
    if not quick:
        large = {"to": "data", "n": 16, "kib": 16 << 10}
        found.append(Case("directory to directory, 16 x 16 MiB", ("zarrstore", "zarr 2", "cp"), large, rounds))
    return found


def measure(contestant: str, folder: str, to: str, n: int, kib: int = 1) -> dict[str, Any]:
    source, dest = f"{folder}/source", f"{folder}/{to}"
    Path(source, "foo").mkdir(parents=True)
    value = os.urandom(kib << 10)
    for i in range(n):
        Path(source, "foo", f"{i // 100}.{i % 100}").write_bytes(value)
    if contestant == "cp":
        found = timed(lambda: subprocess.run(["cp", "-r", source, dest], check=True), n)
    elif contestant == "zip":
        command = ["zip", "-0", "-q", "-r", dest, "."]
        found = timed(lambda: subprocess.run(command, cwd=source, check=True), n)
    elif contestant == "zarr 2":
        found = timed(lambda: _by_zarr2(source, dest), n)
    else:
        found = timed(lambda: _by_zarrstore(source, dest), n)
    if to == "data":
        assert sum(1 for path in Path(dest).rglob("*") if path.is_file()) == n
    return found


def _by_zarr2(source: str, dest: str) -> None:
    import zarr

    kinds: dict[str, Any] = {".zip": zarr.ZipStore, ".lmdb": zarr.LMDBStore}
    options = {"compression": 0} if dest.endswith(".zip") else {}
    store = kinds.get(Path(dest).suffix, zarr.DirectoryStore)(dest, **options)
    zarr.copy_store(zarr.DirectoryStore(source), store)
    if hasattr(store, "close"):
        store.close()


def _by_zarrstore(source: str, dest: str) -> None:
    import zarrstore

    with zarrstore.open_store(dest, mode="w") as store:
        zarrstore.copy_store(zarrstore.DirectoryStore(source), store)
