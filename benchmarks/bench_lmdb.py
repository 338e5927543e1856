"""LMDBStore against zarr 2.18.7 and against bare py-lmdb, in one run with the rounds interleaved.

::

    python benchmarks/bench_lmdb.py [ROUNDS] [FOLDER]

Runs under the interpreter of the peer ``zarr2``. FOLDER is in memory by default: on a disk the journal sets the pace.
Processor time of the fastest of many short rounds: on memory that is the wall time of an idle machine.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.support import peers  # noqa: E402

if __name__ == "__main__" and "--inside" not in sys.argv:
    os.execv(peers.python("zarr2"), [peers.python("zarr2"), __file__, "--inside", *sys.argv[1:]])

SMALL, LARGE = os.urandom(1024), os.urandom(65536)
BELOW = 10_000
#: What the issue asks of a ratio to zarr 2: the row, and how many times faster at least.
GOALS = {"listdir of a root above 10,000 keys": 100.0, "get 1 KB": 1.0}


class Bare:
    """py-lmdb as one would call it by hand, with values copied."""

    def __init__(self, path: str) -> None:
        import lmdb

        self.env = lmdb.open(path, map_size=1 << 30, sync=False, metasync=False, max_spare_txns=2)

    def __getitem__(self, key: str) -> bytes:
        with self.env.begin() as txn:
            return txn.get(key.encode())  # type: ignore[no-any-return]

    def __setitem__(self, key: str, value: bytes) -> None:
        with self.env.begin(write=True) as txn:
            txn.put(key.encode(), value)

    def close(self) -> None:
        self.env.close()


def contenders() -> dict[str, Callable[[str], Any]]:
    from zarr.storage import LMDBStore as Zarr2

    from zarrstore.stores.lmdb import LMDBStore

    return {"bare": Bare, "zarr 2": Zarr2, "ours": LMDBStore}


class Bench:
    def __init__(self, folder: str) -> None:
        self.best: dict[tuple[str, str], float] = {}
        self.stores = {who: make(f"{folder}/{who.replace(' ', '')}") for who, make in contenders().items()}
        for store in self.stores.values():
            for i in range(BELOW):
                store[f"array/{i // 100}.{i % 100}"] = SMALL
            store[".zgroup"] = b"{}"
            for i in range(100):
                store[f"large/{i}"] = LARGE
        # On a file of its own: what a batch leaves free would be looked through by the other writes.
        self.batched = contenders()["ours"](f"{folder}/batched")

    def time(self, what: str, who: str, act: Callable[[], object], n: int) -> None:
        start = time.process_time()
        act()
        micros = (time.process_time() - start) / n * 1e6
        key = what, who
        self.best[key] = min(micros, self.best.get(key, micros))

    def round(self) -> None:
        who = list(self.stores)
        random.shuffle(who)
        for name in who:
            self.ordinary(name, self.stores[name])
            if name != "bare":
                self.listings(name, self.stores[name])
        self.batches(self.batched)

    def ordinary(self, who: str, store: Any) -> None:
        small = [f"array/{i}.{i}" for i in range(100)] * 10
        large = [f"large/{i}" for i in range(100)]

        def get(keys: list[str]) -> None:
            for key in keys:
                store[key]

        def put(keys: list[str], value: bytes) -> None:
            for key in keys:
                store[key] = value

        get(small)  # into the cache: a view costs nothing until it is looked at, a copy is looked at when it is made
        self.time("get 1 KB", who, lambda: get(small), len(small))
        self.time("get 64 KB", who, lambda: get(large), len(large))
        self.time("set 1 KB (over)", who, lambda: put(small, SMALL), len(small))
        self.time("set 64 KB (over)", who, lambda: put(large, LARGE), len(large))
        if who != "bare":
            self.time("contains", who, lambda: [key in store for key in small], len(small))

    def listings(self, who: str, store: Any) -> None:
        root = f"listdir of a root above {BELOW:,} keys"
        self.time(root, who, lambda: store.listdir(""), 1)
        self.time("listdir of 10,000 children, each", who, lambda: store.listdir("array"), BELOW)
        self.time("iterate, each", who, lambda: sum(1 for _ in store), BELOW)
        from zarr.storage import getsize  # zarr 2's LMDBStore has none of its own

        self.time("getsize of the root", who, lambda: getsize(store, ""), 1)

    def batches(self, store: Any) -> None:
        for size, value, count in (("1 KB", SMALL, 1000), ("64 KB", LARGE, 100)):
            items = {f"batch/{size}/{i}": value for i in range(count)}

            def one_by_one(items: dict[str, bytes] = items) -> None:
                for key, value in items.items():
                    store[key] = value

            def read(items: dict[str, bytes] = items) -> None:
                found = store.getitems(items)
                for key in items:
                    found[key]

            one_by_one()
            self.time(f"{count} sets of {size}, one by one", "ours", one_by_one, count)
            self.time(f"{count} sets of {size}, setitems", "ours", lambda items=items: store.setitems(items), count)
            self.time(f"{count} gets of {size}, getitems", "ours", read, count)

    def report(self) -> int:
        print(f"{'us':<38}{'bare':>9}{'zarr 2':>11}{'ours':>10}   zarr 2 / ours")
        missed = 0
        for what in dict.fromkeys(what for what, _ in self.best):
            row = [self.best.get((what, who)) for who in ("bare", "zarr 2", "ours")]
            cells = "".join(
                f"{'' if x is None else f'{x:.2f}':>{width}}" for x, width in zip(row, (9, 11, 10), strict=True)
            )
            ratio = "" if row[1] is None or row[2] is None else f"{row[1] / row[2]:.2f}"
            goal = GOALS.get(what)
            if goal is not None:
                missed += float(ratio) < goal
                ratio += f"   (goal {goal:g}{'' if float(ratio) >= goal else ': MISSED'})"
            print(f"{what:<38}{cells}   {ratio}")
        return missed

    def close(self) -> None:
        for store in (*self.stores.values(), self.batched):
            store.close()


def main() -> int:
    warnings.simplefilter("ignore")
    arguments = [a for a in sys.argv[1:] if a != "--inside"]
    rounds = int(arguments[0]) if arguments else 15
    parent = arguments[1] if len(arguments) > 1 else ("/dev/shm" if os.path.isdir("/dev/shm") else None)
    folder = tempfile.mkdtemp(dir=parent)
    try:
        bench = Bench(folder)
        for _ in range(rounds):
            bench.round()
        missed = bench.report()
        bench.close()
    finally:
        shutil.rmtree(folder)
    return missed


if __name__ == "__main__":
    sys.exit(main())
