"""ZipStore against zarr 2.18.7 and against the bare calls, in one run with the rounds interleaved.

::

    python benchmarks/bench_zip.py [ROUNDS] [FOLDER]

Runs under the interpreter of the peer ``zarr2``. FOLDER is in memory by default: on a disk the journal sets the pace.
Processor time of the fastest of many short rounds: the ratios then hold on a busy machine too.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.support import peers  # noqa: E402

if __name__ == "__main__" and "--inside" not in sys.argv:
    os.execv(peers.python("zarr2"), [peers.python("zarr2"), __file__, "--inside", *sys.argv[1:]])

SMALL, LARGE = os.urandom(1024), os.urandom(65536)
MANY = 100_000


def name(i: int) -> str:
    return f"foo/bar/{i // 300}.{i % 300}"


def timed(act: Callable[[], None], n: int) -> float:
    """Return microseconds of processor time a call: on memory that is the wall time of an idle machine."""
    start = time.process_time()
    act()
    return (time.process_time() - start) / n * 1e6


class Bench:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.best: dict[tuple[str, str], float] = {}

    def note(self, what: str, who: str, micros: float) -> None:
        key = what, who
        self.best[key] = min(micros, self.best.get(key, micros))

    def stores(self) -> dict[str, Callable[..., object]]:
        from zarr.storage import ZipStore as Zarr2

        from zarrstore.stores.zip import ZipStore

        return {"zarr2": Zarr2, "ours": ZipStore}

    def round(self) -> None:
        self.raw(1024, SMALL, 1000)
        self.raw(65536, LARGE, 100)
        for who, make in self.stores().items():
            for value, n, size in ((SMALL, 1000, "1 KB"), (LARGE, 100, "64 KB")):
                self.write_and_read(who, make, value, n, size)
            self.batch(who, make)

    def raw(self, size: int, value: bytes, n: int) -> None:
        label = f"{size // 1024} KB"
        path = f"{self.folder}/raw"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        length = len(value)

        def write() -> None:
            for i in range(n):
                zlib.crc32(value)
                os.pwrite(fd, value, i * length)

        def read() -> None:
            for i in range(n):
                zlib.crc32(os.pread(fd, length, i * length))

        self.note(f"set {label}", "raw", timed(write, n))
        self.note(f"get {label}", "raw", timed(read, n))
        os.close(fd)
        os.unlink(path)

    def write_and_read(self, who: str, make: Callable[..., object], value: bytes, n: int, size: str) -> None:
        path = f"{self.folder}/{who}.zip"
        keys = [name(i) for i in range(n)]
        store = make(path, mode="w")

        def write() -> None:
            for key in keys:
                store[key] = value

        def read() -> None:
            for key in keys:
                store[key]

        self.note(f"set {size}", who, timed(write, n))
        store.close()
        store = make(path, mode="r")
        len(list(store))
        self.note(f"get {size}", who, timed(read, n))

        def threads() -> None:
            workers = [threading.Thread(target=read) for _ in range(8)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        if size == "1 KB":
            self.note("get 1 KB, 8 threads", who, timed(threads, 8 * n))
        store.close()
        os.unlink(path)

    def batch(self, who: str, make: Callable[..., object]) -> None:
        path = f"{self.folder}/{who}.zip"
        with make(path, mode="w") as store:
            items = {name(i): SMALL for i in range(1000)}
            self.note("update with 1,000 x 1 KB", who, timed(lambda: store.update(items), 1000))
        os.unlink(path)

    def arrays(self, rounds: int) -> None:
        """Chunks as they come from NumPy: what of the set is a copy of them."""
        import numpy as np

        for megabytes in (1, 4):
            array = np.frombuffer(os.urandom(megabytes << 20), dtype="f8")
            what = f"set {megabytes} MB NumPy array"
            for _ in range(rounds):
                path = f"{self.folder}/raw"
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

                def raw(fd=fd, array=array) -> None:
                    for i in range(8):
                        zlib.crc32(array)
                        os.pwrite(fd, array, i * array.nbytes)

                self.note(what, "raw", timed(raw, 8))
                os.close(fd)
                os.unlink(path)
                for who, make in self.stores().items():
                    store = make(f"{self.folder}/{who}.zip", mode="w")
                    store["first"] = b"1"

                    def write(store=store, array=array) -> None:
                        for i in range(8):
                            store[f"foo/{i}"] = array

                    self.note(what, who, timed(write, 8))
                    store.close()
                    os.unlink(f"{self.folder}/{who}.zip")

    def subtrees(self, rounds: int) -> None:
        """A small subtree made, listed and removed beside a million keys; zarr 2's archives delete nothing."""
        path = f"{self.folder}/million.zip"
        with self.stores()["ours"](path, mode="w", compact=False) as store:
            store.setitems((f"foo/{i // 1000}/{i % 1000}", b"x") for i in range(1_000_000))
            store.listdir("foo/7")

            def work() -> None:
                store["bar/x"] = b"1"
                store.listdir("bar")
                store.rmdir("bar")

            for _ in range(10 * rounds):
                self.note("a subtree of one beside 1,000,000 keys", "ours", timed(work, 1))
        os.unlink(path)

    def copying(self, rounds: int) -> None:
        import zarr
        from zarr.storage import DirectoryStore as Zarr2Directory

        from zarrstore import DirectoryStore, copy_store

        files, path = f"{self.folder}/files", f"{self.folder}/copy.zip"
        DirectoryStore(files).setitems((name(i), SMALL) for i in range(3000))
        makers = self.stores()
        for _ in range(rounds):
            for who, source, copy in (
                ("zarr2", Zarr2Directory(files), zarr.copy_store),
                ("ours", DirectoryStore(files), copy_store),
            ):

                def use(who=who, source=source, copy=copy) -> None:
                    with makers[who](path, mode="w") as store:
                        copy(source, store)

                self.note("copy a directory, 3,000 x 1 KB", who, timed(use, 3000))
                os.unlink(path)

    def opening(self, rounds: int) -> None:
        path = f"{self.folder}/many.zip"
        ours = self.stores()["ours"]
        with ours(path, mode="w") as store:
            store.setitems((name(i), b"x") for i in range(MANY))
        for _ in range(rounds):
            for who, make in self.stores().items():
                for what, act in (
                    ("open 100,000 entries, get one", lambda store: store[name(MANY // 2)]),
                    ("open 100,000 entries, one absent", lambda store: store.get("foo/.zarray")),
                    ("open 100,000 entries, 'foo' absent", lambda store: store.get("foo")),
                    ("open 100,000 entries, list all", lambda store: list(store)),
                    ("open 100,000 entries, listdir", lambda store: store.listdir("foo")),
                ):
                    opened: list[object] = []

                    def use(make=make, act=act, opened=opened) -> None:
                        store = make(path, mode="r")
                        act(store)
                        opened.append(store)

                    self.note(what, who, timed(use, 1))
                    opened[0].close()
        os.unlink(path)

    def table(self) -> None:
        heads = f"{'raw':>10} {'zarr 2':>10} {'ours':>10} {'faster':>8} {'of raw':>7}"
        print(f"{'microseconds (processor) a call':38} {heads}")
        for what in dict.fromkeys(what for what, _ in self.best):
            raw, zarr2, ours = (self.best.get((what, who), 0.0) for who in ("raw", "zarr2", "ours"))
            print(
                f"{what:38} {raw:10.2f} {zarr2:10.2f} {ours:10.2f} {zarr2 / ours:7.1f}x"
                + (f" {ours / raw:6.2f}x" if raw else "")
            )


def main(rounds: int = 30, folder: str = "/dev/shm") -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=folder if os.path.isdir(folder) else None) as scratch:
        bench = Bench(scratch)
        for _ in range(rounds):
            bench.round()
        bench.arrays(max(2, rounds // 3))
        bench.subtrees(max(2, rounds // 6))
        bench.copying(max(2, rounds // 6))
        bench.opening(max(2, rounds // 6))
        bench.table()


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--inside"]
    main(*([int(given[0])] if given else []), *given[1:2])
