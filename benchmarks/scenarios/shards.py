"""Chunks of 4 KiB into shards of 1,000: packed as they are, beside zarr 3, whose ``from_array`` decodes each of them.

The chunks are of 32 x 32 whole numbers under Blosc, in a directory, as zarr 2 wrote them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.timing import Case, timed

TITLE = "Shards"

#: Chunks along the axes of one shard.
_SHARD = (10, 100)
_CHUNK = (32, 32)


def cases(quick: bool) -> list[Case]:
    n = 2_000 if quick else 100_000
    # One turn: at 100,000 zarr 3 takes 72 s of processor time.
    return [Case(f"{n:,} chunks of 4 KiB into shards", ("zarrstore", "zarr 3"), {"n": n}, rounds=1)]


def write_source(place: str, n: int) -> None:
    """Write an array of version 2 of `n` chunks, a multiple of 100."""
    import numcodecs
    import numpy as np

    Path(place).mkdir(parents=True)
    codec = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=1)
    random = np.random.default_rng(1)
    document = (
        f'{{"zarr_format": 2, "shape": [{n // 100 * 32}, 3200], "chunks": [32, 32], "dtype": "<i4", "order": "C",'
        f' "fill_value": 0, "filters": null, "compressor": {{"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1,'
        ' "blocksize": 0}}'
    )
    Path(place, ".zarray").write_text(document)
    values = [codec.encode(random.integers(0, 1 << 16, 1024, dtype="<i4") + i) for i in range(64)]
    for i in range(n // 100):
        for j in range(100):
            Path(place, f"{i}.{j}").write_bytes(values[(i * 100 + j) % 64])


def measure(contestant: str, folder: str, n: int) -> dict[str, Any]:
    shared = os.path.join(os.environ.get("ZARRSTORE_BENCHMARKS", folder), f"small-chunks-{n}")
    if not os.path.exists(shared):
        write_source(shared, n)
    dest = os.path.join(folder, "sharded")
    shape = tuple(count * items for count, items in zip(_SHARD, _CHUNK, strict=True))
    if contestant == "zarr 3":
        import zarr

        def by_zarr() -> None:
            source = zarr.open_array(shared, mode="r", zarr_format=2)
            zarr.from_array(dest, data=source, chunks=_CHUNK, shards=shape, zarr_format=3)

        return timed(by_zarr, n)
    import zarrstore

    return timed(
        lambda: zarrstore.migrate_2to3(zarrstore.DirectoryStore(shared), zarrstore.DirectoryStore(dest), shards=shape),
        n,
    )
