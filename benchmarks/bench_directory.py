"""DirectoryStore and NestedDirectoryStore against zarr 2.18.7 and the bare system calls, rounds interleaved.

::

    python benchmarks/bench_directory.py [ROUNDS] [FOLDER]

Runs under the interpreter of the peer ``zarr2``. FOLDER is in memory by default: on a disk the journal sets the pace.
Processor time of the fastest of many short rounds, in microseconds a call.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.support import peers  # noqa: E402

if __name__ == "__main__" and "--inside" not in sys.argv:
    os.execv(peers.python("zarr2"), [peers.python("zarr2"), __file__, "--inside", *sys.argv[1:]])

N = 400
SMALL, LARGE = os.urandom(1024), os.urandom(65536)
KEYS = [f"foo/bar/{i // 20}.{i % 20}" for i in range(N)]


class Raw:
    """The calls themselves."""

    def __init__(self, root: str) -> None:
        self.root = root + "/"
        os.makedirs(root + "/foo/bar", exist_ok=True)

    def __setitem__(self, key: str, value: bytes) -> None:
        fd = os.open(self.root + key + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.write(fd, value)
        os.close(fd)
        os.replace(self.root + key + ".new", self.root + key)

    def __getitem__(self, key: str) -> bytes:
        fd = os.open(self.root + key, os.O_RDONLY)
        value = os.read(fd, 70_000)
        os.close(fd)
        return value

    def __contains__(self, key: str) -> bool:
        os.stat(self.root + key)
        return True

    def __delitem__(self, key: str) -> None:
        os.unlink(self.root + key)

    def __iter__(self):
        for entry in os.scandir(self.root + "foo/bar"):
            yield "foo/bar/" + entry.name


def timed(act: Callable[[], object]) -> float:
    start = time.process_time()
    act()
    return (time.process_time() - start) / N * 1e6


def each(store, act: Callable[..., object]) -> Callable[[], None]:
    def run() -> None:
        for key in KEYS:
            act(store, key)

    return run


def main(rounds: int = 40, folder: str = "/dev/shm") -> None:
    import zarr

    from zarrstore import DirectoryStore, NestedDirectoryStore

    warnings.simplefilter("ignore")
    makers = {
        "raw": Raw,
        "ours": DirectoryStore,
        "ours nested": NestedDirectoryStore,
        "zarr2": zarr.DirectoryStore,
        "zarr2 nested": zarr.NestedDirectoryStore,
    }
    steps: dict[str, Callable[..., object]] = {
        "set new 1 KB": lambda s, k: s.__setitem__(k, SMALL),
        "set over 1 KB": lambda s, k: s.__setitem__(k, SMALL),
        "get 1 KB": lambda s, k: s[k],
        "in": lambda s, k: k in s,
        "set 64 KB": lambda s, k: s.__setitem__(k, LARGE),
        "get 64 KB": lambda s, k: s[k],
    }
    best: dict[tuple[str, str], float] = {}

    def note(step: str, who: str, micros: float) -> None:
        best[step, who] = min(best.get((step, who), 1e9), micros)

    for _ in range(rounds):
        for who, make in makers.items():
            with tempfile.TemporaryDirectory(dir=folder if os.path.isdir(folder) else None) as place:
                store = make(f"{place}/data")
                for step, act in steps.items():
                    note(step, who, timed(each(store, act)))
                note("iterate, a key", who, timed(lambda store=store: list(store)))
                note("delete", who, timed(each(store, lambda s, k: s.__delitem__(k))))
    print(f"{N} keys, {rounds} rounds, fastest, microseconds of processor time a call")
    print(f"{'':16}{''.join(f'{who:>14}' for who in makers)}   ours/raw  zarr2/ours  nested/ours")
    for step in dict.fromkeys(step for step, _ in best):
        found = {who: best[step, who] for who in makers}
        print(
            f"{step:16}{''.join(f'{micros:14.2f}' for micros in found.values())}"
            f"{found['ours'] / found['raw']:11.2f}{found['zarr2'] / found['ours']:12.2f}"
            f"{found['ours nested'] / found['ours']:13.2f}"
        )


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--inside"]
    main(*(int(argument) if n == 0 else argument for n, argument in enumerate(arguments)))
