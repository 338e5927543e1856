"""What this process does a key while a pool of processes copies, verifies or sums up; their work is not in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.timing import Case, timed

TITLE = "The client's share"
_ARRAYS = 4


def cases(quick: bool) -> list[Case]:
    n, rounds = (400, 1) if quick else (20_000, 3)
    return [
        Case(f"{verb} of {n:,} keys", ("zarrstore",), {"verb": verb, "n": n}, rounds)
        for verb in ("copy", "verify", "manifest")
    ]


def measure(contestant: str, folder: str, verb: str, n: int) -> dict[str, Any]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    import zarrstore

    source = zarrstore.DirectoryStore(f"{folder}/source")
    for i in range(_ARRAYS):
        zarrstore.init_array(
            source, shape=n // _ARRAYS, chunks=1, dtype="u1", compressor=None, fill_value=0, path=f"a{i}"
        )
        source.setitems((f"a{i}/{j}", b"1") for j in range(n // _ARRAYS))
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        pool.submit(int).result()  # a process that has been started is no work of the verb
        verbs: dict[str, Callable[[], Any]] = {
            "copy": lambda: zarrstore.copy_store(source, zarrstore.DirectoryStore(f"{folder}/dest"), executor=pool),
            "verify": lambda: zarrstore.verify(source, executor=pool),
            "manifest": lambda: zarrstore.write_manifest(source, f"{folder}/manifest", executor=pool),
        }
        return timed(verbs[verb], n)
