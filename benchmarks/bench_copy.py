"""copy_store against zarr 2.18.7's and against `cp -r`, in one run with the rounds interleaved.

::

    python benchmarks/bench_copy.py [ROUNDS] [FOLDER]

Runs under the interpreter of the peer ``zarr2``. 10,000 chunks of 1 KB; FOLDER is in memory by default.
Processor time of the fastest round: the ratios then hold on a busy machine too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.support import peers  # noqa: E402

if __name__ == "__main__" and "--inside" not in sys.argv:
    os.execv(peers.python("zarr2"), [peers.python("zarr2"), __file__, "--inside", *sys.argv[1:]])

CHUNKS = 10_000


def processor(act: Callable[[], object]) -> float:
    """Return seconds of processor time, children included: on memory that is the wall time of an idle machine."""
    before = os.times()
    act()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def main(rounds: int = 5, folder: str = "/dev/shm") -> None:
    import zarr

    import zarrstore

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=folder if os.path.isdir(folder) else None) as place:
        source, archive, target = f"{place}/source", f"{place}/source.zip", f"{place}/target"
        files = zarrstore.DirectoryStore(source)
        files.update({f"foo/bar/{i // 100}.{i % 100}": os.urandom(1024) for i in range(CHUNKS)})
        files[".zgroup"] = b'{"zarr_format": 2}'
        zarrstore.pack(source, archive)

        def closing(copy: Callable[..., object], one: Callable[[], object], other: Callable[[], object]) -> None:
            below, above = one(), other()
            copy(below, above)
            for store in (above, below):
                if hasattr(store, "close"):
                    store.close()

        ours, theirs = zarrstore.copy_store, zarr.copy_store
        runs: dict[tuple[str, str], Callable[[], object]] = {
            ("dir to dir", "cp -r"): lambda: subprocess.run(["cp", "-r", source, target], check=True),
            ("dir to dir", "ours"): lambda: closing(
                ours, lambda: zarrstore.DirectoryStore(source), lambda: zarrstore.DirectoryStore(target)
            ),
            ("dir to dir", "zarr2"): lambda: closing(
                theirs, lambda: zarr.DirectoryStore(source), lambda: zarr.DirectoryStore(target)
            ),
            ("dir to zip", "ours"): lambda: closing(
                ours, lambda: zarrstore.DirectoryStore(source), lambda: zarrstore.ZipStore(target, mode="w")
            ),
            ("dir to zip", "zarr2"): lambda: closing(
                theirs, lambda: zarr.DirectoryStore(source), lambda: zarr.ZipStore(target, mode="w")
            ),
            ("zip to dir", "ours"): lambda: closing(
                ours, lambda: zarrstore.ZipStore(archive, mode="r"), lambda: zarrstore.DirectoryStore(target)
            ),
            ("zip to dir", "zarr2"): lambda: closing(
                theirs, lambda: zarr.ZipStore(archive, mode="r"), lambda: zarr.DirectoryStore(target)
            ),
            ("dir to lmdb", "ours"): lambda: closing(
                ours, lambda: zarrstore.DirectoryStore(source), lambda: zarrstore.LMDBStore(target)
            ),
            ("dir to lmdb", "zarr2"): lambda: closing(
                theirs, lambda: zarr.DirectoryStore(source), lambda: zarr.LMDBStore(target)
            ),
        }
        best: dict[tuple[str, str], float] = {}
        for _ in range(rounds):
            for what, run in runs.items():
                best[what] = min(best.get(what, 1e9), processor(run))
                shutil.rmtree(target, ignore_errors=True)
                Path(target).unlink(missing_ok=True)
    print(f"{CHUNKS:,} chunks of 1 KB, {rounds} rounds, fastest, milliseconds")
    for way in dict.fromkeys(what for what, _ in best):
        mine, old = best[way, "ours"], best[way, "zarr2"]
        line = f"{way:12} ours {mine * 1e3:7.1f}   zarr 2 {old * 1e3:7.1f}   {old / mine:4.1f} times"
        if (way, "cp -r") in best:
            line += f"   cp -r {best[way, 'cp -r'] * 1e3:7.1f}, {mine / best[way, 'cp -r']:.2f} of it"
        print(line)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--inside"]
    main(*(int(arguments[0]) if n == 0 else arguments[n] for n in range(len(arguments))))
