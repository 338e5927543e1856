"""An array of 4,000 chunks through zarr 3: our stores behind MappingStore against zarr's own LocalStore, interleaved.

::

    python benchmarks/bench_zarr3.py [ROUNDS] [FOLDER]

Runs under an interpreter that has zarr 3. FOLDER is in memory by default. Processor time of the fastest round, in
milliseconds:
zarr's own loop and threads are in it, and a busy machine is not.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def timed(act: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    act()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3


def main(rounds: int = 5, folder: str = "/dev/shm") -> None:
    import numpy as np
    import zarr
    from zarr.storage import LocalStore

    from zarrstore import DirectoryStore, LMDBStore
    from zarrstore.bridges.zarr3 import to_zarr3

    data = np.arange(4_000 * 250, dtype="<f4").reshape(4_000, 250)
    makers: dict[str, Callable[[str], Any]] = {
        "LocalStore": LocalStore,
        "DirectoryStore": lambda place: to_zarr3(DirectoryStore(place)),
        "LMDBStore": lambda place: to_zarr3(LMDBStore(place)),
    }
    best: dict[tuple[str, str, str], float] = {}
    with tempfile.TemporaryDirectory(dir=folder if Path(folder).is_dir() else None) as place:
        for _ in range(rounds):
            for who, make in makers.items():
                store = make(f"{place}/data")
                array = zarr.create_array(
                    store, shape=data.shape, chunks=(1, 250), dtype=data.dtype, compressors=None, overwrite=True
                )

                def write(array: Any = array) -> None:
                    array[...] = data

                def read(array: Any = array) -> None:
                    assert array[...][-1, -1] == data[-1, -1]

                for what, act in (("write", write), ("read", read)):
                    for kind, took in zip(("wall", "cpu"), timed(act), strict=True):
                        best[what, who, kind] = min(best.get((what, who, kind), 1e9), took)
                store.close()
                shutil.rmtree(f"{place}/data")
    print(f"zarr {zarr.__version__}, 4,000 chunks of 1 KB, {rounds} rounds, fastest, milliseconds (wall, processor)")
    for what in ("write", "read"):
        for who in makers:
            wall, processor = best[what, who, "wall"], best[what, who, "cpu"]
            ratios = best[what, "LocalStore", "wall"] / wall, best[what, "LocalStore", "cpu"] / processor
            print(
                f"{what:6} {who:15} {wall:8.0f} {processor:8.0f}   {ratios[0]:5.2f} {ratios[1]:5.2f} times LocalStore"
            )


if __name__ == "__main__":
    main(*(int(argument) if n == 0 else argument for n, argument in enumerate(sys.argv[1:])))
