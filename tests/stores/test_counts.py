"""What one call costs, as counts that no machine changes: system calls, and copies of the caller's bytes."""

from __future__ import annotations

import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import peers
from zarrstore import DictStore, DirectoryStore, LMDBStore, NestedDirectoryStore, SQLiteStore, Store, ZipStore

STORES: dict[str, Callable[[Path], Store]] = {
    "directory": lambda path: DirectoryStore(path / "d"),
    "nested": lambda path: NestedDirectoryStore(path / "n"),
    "zip": lambda path: ZipStore(path / "a.zip", mode="w"),
    "lmdb": lambda path: LMDBStore(path / "l.lmdb", sync=False),
    "sqlite": lambda path: SQLiteStore(path / "s.sqlite"),
}

SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.stores.test_counts import STORES

store = STORES[sys.argv[1]](Path(sys.argv[3]))
value = bytes(1000)
for name in ("first", "second", "third"):
    store[f"foo/{name}"] = value
    store[f"foo/{name}"], f"foo/{name}" in store, "foo/absent" in store
del store["foo/third"]
steps = {
    "set": lambda: store.__setitem__("foo/first", value),
    "get": lambda: store["foo/first"],
    "in": lambda: "foo/first" in store,
    "absent": lambda: "foo/absent" in store,
    "delete": lambda: store.__delitem__("foo/second"),
}
for step, act in steps.items():
    os.path.exists(f"/mark/{step}")
    act()
os.path.exists("/mark/end")
os._exit(0)
"""

#: Calls that move bytes or open a file, for keys that are there; of files in directories, see ``test_directory.py``.
CALLS: dict[str, dict[str, list[str]]] = {
    "zip": {"set": ["pwrite64"], "get": ["pread64"], "in": [], "absent": [], "delete": ["pwrite64"]},
    # Read from mapped memory; a commit is the pages and the page that names the newest.
    "lmdb": {"set": ["writev", "pwrite64"], "get": [], "in": [], "absent": [], "delete": ["writev", "pwrite64"]},
    # Two pages of the log, of the table and of its index, each with its header; read from its cache.
    "sqlite": {"set": ["pwrite64"] * 4, "get": [], "in": [], "absent": [], "delete": ["pwrite64"] * 4},
}
_MOVING = ("read", "write", "pread64", "pwrite64", "preadv", "pwritev", "readv", "writev", "openat", "open", "rename")


@pytest.mark.needs_peer("strace")
@pytest.mark.parametrize("kind", CALLS)
def test_one_call_makes_so_many_system_calls(kind: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["strace", "-o", str(log), sys.executable, "-c", SCRIPT, kind, str(peers.CHECKOUT), str(tmp_path)]
    subprocess.run(command, check=True, cwd=peers.CHECKOUT, stdin=subprocess.DEVNULL, timeout=120)
    calls: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        if found := re.search(r'"/mark/(\w+)"', line):
            calls[found[1]] = current = []
        elif calls and (call := re.match(r"(\w+)\(", line)) and call[1] in _MOVING:
            current.append(call[1])
    del calls["end"]
    assert calls == CALLS[kind]


@pytest.mark.parametrize("kind", STORES)
def test_a_chunk_is_written_without_a_copy(kind: str, tmp_path: Path) -> None:
    chunk = np.arange(1 << 18)  # 2 MiB
    with STORES[kind](tmp_path) as store:
        for n in range(3):
            store[f"foo/{n}"] = chunk
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            store["foo/0"] = chunk
            copied = (tracemalloc.get_traced_memory()[1] - before) / chunk.nbytes
        finally:
            tracemalloc.stop()
        assert copied < 0.1
        assert store["foo/0"] == chunk.tobytes()


@pytest.mark.parametrize("kind", STORES)
def test_a_chunk_is_read_into_memory_once(kind: str, tmp_path: Path) -> None:
    chunk = np.arange(1 << 18)
    with STORES[kind](tmp_path) as store:
        for n in range(3):
            store[f"foo/{n}"] = chunk
            store[f"foo/{n}"]
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            value = store["foo/0"]
            held = (tracemalloc.get_traced_memory()[1] - before) / chunk.nbytes
        finally:
            tracemalloc.stop()
        assert len(value) == chunk.nbytes
        assert held < 1.1


def test_a_value_that_a_store_keeps_is_copied_once() -> None:
    chunk = np.arange(1 << 18)
    store: Any = DictStore()
    store["foo/0"] = chunk
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        store["foo/1"] = chunk
        held = (tracemalloc.get_traced_memory()[1] - before) / chunk.nbytes
        again = store["foo/1"]
        after = (tracemalloc.get_traced_memory()[1] - before) / chunk.nbytes
    finally:
        tracemalloc.stop()
    assert 1 <= held < 1.1
    assert after == pytest.approx(held, abs=0.01)
    assert again == chunk.tobytes()


def test_the_directory_of_an_archive_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zarrstore.stores.zip.writer._RECORDS", 100)
    store = ZipStore(tmp_path / "a.zip", mode="w")
    keys = [f"foo/bar/{'long' * 20}/{n}" for n in range(5000)]
    store.setitems((key, b"1") for key in keys)
    tracemalloc.start()
    try:
        store.flush()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A reference to each record, and 100 of them joined; all of them are 700,000 bytes.
    assert peak < 5000 * 8 + 100_000
    store.close()
    with ZipStore(tmp_path / "a.zip", mode="r") as again:
        assert list(again) == keys
