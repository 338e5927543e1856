"""Every call of the operating system that a store makes, failing once or coming back short.

A small library stands before the C library (``calls.c``), so the calls of SQLite and LMDB are met too, and a round
costs a fork. In each round a store is filled, one call fails once during a row of steps, and every step that raised is
done again. A step that returned must have told the truth; one that raised may have raised nothing but OSError, and must
have left each key as it was or as it was to be; at the end, and after another opening, all must be there.

Needs a C compiler. Run one store by hand::

    $ python -m tests.faults.calls ZipStore 1
"""

from __future__ import annotations

import dbm.dumb
import errno
import functools
import json
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import crash
from zarrstore import DictStore, LRUStoreCache
from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.fsspec import FSStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.stores.zip import ZipStore
from zarrstore.wrappers.overlay import OverlayStore
from zarrstore.wrappers.split import SplitStore

#: The order is that of the numbers in calls.c.
CALLS = [
    "open",
    "read",
    "pread",
    "write",
    "pwrite",
    "pwritev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat2",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "stat",
    "fstat",
    "opendir",
    "readdir",
    "close",
    "fcntl",
    "flock",
    "copy_file_range",
    "access",
    "lseek",
]

_READS = {"EIO", "EINTR", "short"}
_WRITES = {"ENOSPC", "EIO", "EINTR", "short"}
#: What each call may fail with. No EINTR where the system never interrupts.
FAULTS: dict[str, set[str]] = {
    "open": {"EMFILE", "EIO", "ENOSPC"},
    "read": _READS,
    "pread": _READS,
    "write": _WRITES,
    "pwrite": _WRITES,
    "pwritev": _WRITES,
    "ftruncate": {"ENOSPC", "EIO", "EINTR"},
    "fallocate": {"ENOSPC", "EIO", "EINTR"},
    "fcntl": {"EINTR", "EIO"},
    "flock": {"EINTR", "EIO"},
    "opendir": {"EMFILE", "EIO"},
    "close": {"EIO"},
    "stat": {"EIO"},
    "fstat": {"EIO"},
    "access": {"EIO"},
    "readdir": {"EIO"},
    "lseek": {"EIO"},
}
_OTHERS = {"ENOSPC", "EIO"}

Opener = Callable[[Path], Any]
_KEEP: list[Any] = []


def _file_object(folder: Path) -> ZipStore:
    """Open an archive through a file object, which is read and never written."""
    path = folder / "data.zip"
    if not path.exists():
        with ZipStore(path) as store:
            store.setitems(BEFORE)
    file = open(path, "rb", buffering=0)
    _KEEP.append(file)
    return ZipStore(file, mode="r")


STORES: dict[str, Opener] = {
    "DirectoryStore": lambda f: DirectoryStore(f / "data"),
    "DirectoryStore-flush": lambda f: DirectoryStore(f / "data", durability="flush"),
    "DirectoryStore-always": lambda f: DirectoryStore(f / "data", durability="always"),
    "DirectoryStore-direct": lambda f: DirectoryStore(f / "data", direct_io=True),
    "NestedDirectoryStore-flush": lambda f: NestedDirectoryStore(f / "data", durability="flush"),
    "ZipStore": lambda f: ZipStore(f / "data.zip"),
    "ZipStore-file-object": _file_object,
    "LMDBStore": lambda f: LMDBStore(f / "data.lmdb"),
    "SQLiteStore": lambda f: SQLiteStore(f / "data.sqlite"),
    "DBMStore-dumb": lambda f: DBMStore(f / "data.dbm", open=dbm.dumb.open),
    "FSStore-files": lambda f: FSStore((f / "data").as_uri()),
    "OverlayStore": lambda f: OverlayStore(DirectoryStore(f / "lower"), DirectoryStore(f / "upper")),
    "LRUStoreCache-tier": lambda f: LRUStoreCache(
        ZipStore(f / "data.zip"), 100, cache=DirectoryStore(f / "tier"), cache_size=1e6
    ),
    "SplitStore": lambda f: SplitStore(DirectoryStore(f / "documents"), SQLiteStore(f / "chunks.sqlite")),
}

BEFORE: dict[str, bytes] = {
    "over/small": b"old",
    "over/large": b"o" * 50_000,
    "gone": b"g" * 100,
    "moved": b"m" * 3000,
    **{f"tree/{n}": bytes([n]) * 700 for n in range(4)},
    **{f"doomed/{n}": bytes([n]) * 10 for n in range(3)},
    **{f"kept/0.{n}": bytes([n]) * 3000 for n in range(5)},
    "kept/.zarray": b"{}",
}
_BATCH = {f"batch/{n}": bytes([n]) * 2000 for n in range(4)} | {"over/small": b"newer"}

Change = dict[str, bytes | None]
_TREE: Change = {f"tree/{n}": None for n in range(4)} | {f"new/tree/{n}": BEFORE[f"tree/{n}"] for n in range(4)}
#: Steps that change something: what to do, and what each key holds then.
CHANGES: list[tuple[str, Callable[[Any], object], Change]] = [
    ("set", lambda s: s.__setitem__("over/small", b"new"), {"over/small": b"new"}),
    ("set of many bytes", lambda s: s.__setitem__("over/large", b"n" * 60_000), {"over/large": b"n" * 60_000}),
    ("set of a key in a new directory", lambda s: s.__setitem__("fresh/a", b"f" * 9000), {"fresh/a": b"f" * 9000}),
    ("setitems", lambda s: s.setitems(_BATCH), dict(_BATCH)),
    ("flush", lambda s: s.flush(), {}),
    ("del", lambda s: s.pop("gone", None), {"gone": None}),
    ("delitems", lambda s: s.delitems(["kept/0.0", "kept/0.1"]), {"kept/0.0": None, "kept/0.1": None}),
    ("rename", lambda s: s.rename("moved", "moved2"), {"moved": None, "moved2": BEFORE["moved"]}),
    ("rename of a directory", lambda s: s.rename("tree", "new/tree"), _TREE),
    ("rmdir", lambda s: s.rmdir("doomed"), {f"doomed/{n}": None for n in range(3)}),
    ("last set", lambda s: s.__setitem__("last", b"l"), {"last": b"l"}),
]
#: Steps that read: what to do, and what it returns over a dict of what the store holds.
READS: list[tuple[str, Callable[[Any], object]]] = [
    ("get", lambda s: s["over/large"]),
    ("get of none", lambda s: s.get("none")),
    ("in", lambda s: ("kept/0.2" in s, "none" in s)),
    ("getrange", lambda s: s.getrange("over/large", 10, 30_000)),
    ("getsuffix", lambda s: s.getsuffix("kept/0.3", 100)),
    ("getitems", lambda s: dict(s.getitems(["kept/0.2", "kept/0.3", "none"]))),
    ("getsize", lambda s: s.getsize("kept/0.4")),
    ("listdir", lambda s: sorted(s.listdir("kept"))),
    ("list", lambda s: sorted(s)),
    ("len", lambda s: len(s)),
]


@functools.cache
def lacking() -> str:
    """Return why this machine cannot make calls fail; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "the library that makes calls fail is for Linux"
    return "" if shutil.which("cc") else "no C compiler (cc) on this machine"


def failing(stores: str, most: int) -> dict[str, Any]:
    """Make calls of some stores fail; return what was wrong, and how much was tried.

    Parameters
    ----------
    stores : str
        Names in `STORES`, parted by commas.
    most : int
        The largest number of rounds for each store, spread over all its calls and faults; 0 for all of them.
    """
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="zarrstore-calls-", dir=memory) as name:
        library, state = Path(name, "calls.so"), Path(name, "state")
        source = Path(__file__).with_suffix(".c")
        flags = ["-shared", "-fPIC", "-O1", "-w", "-fno-builtin"]
        subprocess.run(["cc", *flags, "-o", library, source, "-ldl"], check=True)
        state.write_bytes(bytes(4096))
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.calls", "inside", stores, str(most), name],
            env=os.environ | {"LD_PRELOAD": str(library), "ZARRSTORE_FAULTS": str(state)},
            capture_output=True,
            text=True,
            timeout=3000,
            cwd=Path(__file__).parent.parent.parent,
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


class _State:
    """What the test tells the library, and what that counted."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)

    def arm(self, call: int, nth: int, fault: str) -> None:
        code = 0 if fault == "short" else getattr(errno, fault)
        self._map[4 : 4 * 70] = struct.pack("=5i", call, nth, fault == "short", code, 0) + bytes(4 * 64)
        self._map[:4] = struct.pack("=i", 1)

    def disarm(self) -> tuple[int, list[int]]:
        """Return how often the fault came, and how often each call was made."""
        self._map[:4] = bytes(4)
        return struct.unpack_from("=i", self._map, 20)[0], list(struct.unpack_from(f"={len(CALLS)}i", self._map, 24))


def _inside(stores: str, most: str, name: str) -> dict[str, Any]:
    state = _State(os.path.join(name, "state"))
    found: dict[str, Any] = {"bad": [], "rounds": 0, "hits": 0, "raised": 0, "calls": {}}
    for store in stores.split(","):
        folder = Path(name, store)
        folder.mkdir()
        _warm(store, folder)
        counted = _round(store, folder, state, 0, 0, "EIO")  # no call is the 0th
        assert counted["bad"] == [], counted["bad"]
        calls = {call: count for call, count in zip(CALLS, counted["calls"], strict=True) if count}
        found["calls"][store] = sum(calls.values())
        for call, nth, fault in _chosen(calls, int(most)):
            looked = _round(store, folder, state, CALLS.index(call), nth, fault)
            title = f"{store}: {call} {nth} of {calls[call]}, {fault}"
            found["bad"] += [f"{title}: {line}" for line in looked["bad"]]
            found["rounds"] += 1
            found["hits"] += looked["hits"] > 0
            found["raised"] += bool(looked["raised"])
    return found


def _chosen(calls: dict[str, int], most: int) -> list[tuple[str, int, str]]:
    """Return which call is to fail in which way: all, or a part spread over them."""
    found = [
        (call, nth, fault)
        for call, count in calls.items()
        for fault in sorted(FAULTS.get(call, _OTHERS))
        for nth in range(1, count + 1)
    ]
    step = max(1, len(found) // most) if most else 1
    return found[step // 2 :: step]


def _warm(store: str, name: Path) -> None:
    """Do all once in this process, so that its children import nothing while a call fails."""
    folder = name / "warm"
    folder.mkdir()
    opened = _opened(store, folder)
    for _, act, _ in CHANGES if opened.capabilities.writable else ():
        act(opened)
    for _, read in READS:
        read(opened)
    opened.close()
    _KEEP.clear()


def _opened(store: str, folder: Path) -> Any:
    opened = STORES[store](folder)
    if opened.capabilities.writable:
        opened.setitems(BEFORE)
        opened.flush()
    return opened


def _round(store: str, name: Path, state: _State, call: int, nth: int, fault: str) -> dict[str, Any]:
    folder = name / "work"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    found = crash._in_child(lambda: _work(store, folder, state, call, nth, fault))
    if "panic" not in found:
        again = crash._in_child(lambda: _look(store, folder))
        found["bad"] += [f"opened again: {line}" for line in again["bad"]]
    return {"hits": 0, "raised": [], "calls": [0] * len(CALLS), **found}


def _work(store: str, folder: Path, state: _State, call: int, nth: int, fault: str) -> dict[str, Any]:
    opened = _opened(store, folder)
    held: dict[str, bytes] = dict(BEFORE)
    bad: list[str] = []
    raised: list[str] = []
    state.arm(call, nth, fault)
    if not opened.capabilities.writable:
        bad += _read_all(opened, held, raised)
    for title, act, change in CHANGES if opened.capabilities.writable else ():
        bad += _change(opened, title, act, held, change, raised)
        held = {key: value for key, value in (held | change).items() if value is not None}
        if title in ("flush", "last set"):
            bad += _read_all(opened, held, raised)
    hits, calls = state.disarm()
    try:
        opened.close()
    except Exception as exc:
        bad.append(f"close: {type(exc).__name__}: {exc}")
    return {"bad": bad, "raised": raised, "hits": hits, "calls": calls}


def _change(
    opened: Any, title: str, act: Callable[[Any], object], held: dict[str, bytes], change: Change, raised: list[str]
) -> list[str]:
    """Do a step until it is done; return what was wrong meanwhile."""
    bad = []
    for attempt in range(2):
        try:
            act(opened)
        except OSError as exc:
            raised.append(f"{title}: {exc}")
            bad += [f"after a failed {title} ({exc}): {line}" for line in _halves(opened, held, change)]
            if attempt:
                bad.append(f"{title} fails for good: {type(exc).__name__}: {exc}")
            if title.startswith("rename"):
                _complete(opened, change)
                break
            if title == "flush":  # what the system may have dropped is set again, as the error says
                opened.setitems(held)
        except Exception as exc:
            bad.append(f"{title}: {type(exc).__name__}: {exc}")
            break
        else:
            break
    return bad


def _read_all(opened: Any, held: dict[str, bytes], raised: list[str]) -> list[str]:
    model = DictStore()
    model.setitems(held)
    bad = []
    for title, read in READS:
        expected = read(model)
        for attempt in range(2):
            try:
                found = read(opened)
            except OSError as exc:
                raised.append(f"{title}: {exc}")
                if attempt:
                    bad.append(f"{title} fails for good: {type(exc).__name__}: {exc}")
            except Exception as exc:
                bad.append(f"{title}: {type(exc).__name__}: {exc}")
                break
            else:
                if found != expected:
                    bad.append(f"{title} returns {str(found)[:80]}, and not {str(expected)[:80]}")
                break
    return bad


def _halves(opened: Any, held: dict[str, bytes], change: Change) -> list[str]:
    """Return what is wrong after a step that failed: each key holds the old value or the new."""
    bad = []
    for key in sorted({*held, *change}):
        found = opened.get(key)
        allowed = {held.get(key), change.get(key, held.get(key))}
        if found not in allowed:
            bad.append(f"{key!r} holds {str(found)[:40]}")
    for source, value in held.items():
        if change.get(source, value) is None and value in change.values():
            places = [key for key in (source, *change) if opened.get(key) == value]
            if not places:
                bad.append(f"the value of {source!r} is lost")
    return bad


def _complete(opened: Any, change: Change) -> None:
    """Bring about what a rename that failed half way was to bring about."""
    for key, value in change.items():
        if value is None:
            opened.pop(key, None)
        else:
            opened[key] = value


def _look(store: str, folder: Path) -> dict[str, Any]:
    expected = dict(BEFORE)
    opened = STORES[store](folder)
    for _, _, change in CHANGES if opened.capabilities.writable else ():
        expected = {key: value for key, value in (expected | change).items() if value is not None}
    found = dict(opened.items())
    opened.close()
    return {
        "bad": [
            f"{key!r} holds {str(found.get(key))[:40]} and not {str(expected.get(key))[:40]}"
            for key in sorted({*found, *expected})
            if found.get(key) != expected.get(key)
        ]
    }


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "inside":
        print(json.dumps(_inside(*arguments[1:])))
    else:
        print(json.dumps(failing(arguments[0], int(arguments[1])), indent=1))
