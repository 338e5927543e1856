"""An array of 4,000 chunks through zarr 3: our stores behind MappingStore against zarr's own stores, interleaved.

::

    python benchmarks/bench_zarr3.py [ROUNDS] [FOLDER]

Runs under an interpreter that has zarr 3. FOLDER is in memory by default; on a disk, writing is the journal's pace.
Milliseconds of wall and of processor time, the fastest round of each: zarr's own loop and threads are in both, and a
busy machine is not in the second.

zarr handles each chunk by itself unless it is told otherwise, and spends 50 µs on it: its MemoryStore shows that floor,
below which no store gets. ``codec_pipeline.batch_size`` lowers it, for all stores alike.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CHUNKS = 4_000
BATCH_SIZES = (1, 64)


def timed(act: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    act()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3


def main(rounds: int = 5, folder: str = "/dev/shm") -> None:
    import numpy as np
    import zarr
    from zarr.storage import LocalStore, MemoryStore

    from zarrstore import DirectoryStore, LMDBStore
    from zarrstore.bridges.zarr3 import to_zarr3

    data = np.arange(CHUNKS * 250, dtype="<f4").reshape(CHUNKS, 250)
    makers: dict[str, Callable[[str], Any]] = {
        "LocalStore": LocalStore,
        "DirectoryStore": lambda place: to_zarr3(DirectoryStore(place)),
        "LMDBStore": lambda place: to_zarr3(LMDBStore(place)),
        "MemoryStore": lambda place: MemoryStore(),
    }
    best: dict[tuple[int, str, str], tuple[float, float]] = {}

    def note(batch_size: int, what: str, who: str, act: Callable[[], object]) -> None:
        took = timed(act)
        old = best.get((batch_size, what, who), (1e9, 1e9))
        best[batch_size, what, who] = min(old[0], took[0]), min(old[1], took[1])

    def once(batch_size: int, who: str, place: str) -> None:
        store = makers[who](place)
        array = zarr.create_array(store, shape=data.shape, chunks=(1, 250), dtype=data.dtype, compressors=None)
        os.sync()  # what the last one left to the disk is not this one's

        def write() -> None:
            array[...] = data

        def read() -> None:
            assert array[...][-1, -1] == data[-1, -1]

        note(batch_size, "write", who, write)
        note(batch_size, "read", who, read)
        store.close()
        if hasattr(store, "mapping"):
            store.mapping.close()
        shutil.rmtree(place, ignore_errors=True)

    with tempfile.TemporaryDirectory(dir=folder if Path(folder).is_dir() else None) as root:
        for n in range(rounds):
            for batch_size in BATCH_SIZES:
                with zarr.config.set({"codec_pipeline.batch_size": batch_size}):
                    for who in makers:
                        once(batch_size, who, f"{root}/{n}-{batch_size}-{who}")

    print(f"zarr {zarr.__version__}, {CHUNKS:,} chunks of 1 KB in {folder}, the fastest of {rounds} rounds")
    print("                                   wall ms   processor ms   times LocalStore")
    for batch_size in BATCH_SIZES:
        for what in ("write", "read"):
            base = best[batch_size, what, "LocalStore"]
            for who in makers:
                wall, processor = best[batch_size, what, who]
                ratios = f"{base[0] / wall:5.2f} {base[1] / processor:5.2f}"
                print(f"batch size {batch_size:2}  {what:5}  {who:14} {wall:8.0f} {processor:14.0f}   {ratios}")


if __name__ == "__main__":
    main(*(int(argument) if n == 0 else argument for n, argument in enumerate(sys.argv[1:])))
