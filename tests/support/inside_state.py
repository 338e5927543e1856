"""Hostile state, of which every store reads a mutant, where nothing but the test's folder can be written.

Not collected unless named: `tests/faults/test_hostile_state.py` runs it in the read-only world.
"""

from __future__ import annotations

import dbm.dumb
import json
import os
import random
import resource
import shutil
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import zarrstore
from tests.support import world
from tests.support.mutants import NAMES, as_json, flipped, little_memory, ours, patience, renamed
from zarrstore import DictStore, LRUStoreCache, OverlayStore, as_store
from zarrstore.bridges.references import ReferenceStore
from zarrstore.keys import is_key
from zarrstore.metadata import v2
from zarrstore.stores.dbm import DBMStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.stores.zip import ZipStore
from zarrstore.wrappers.consolidated import ConsolidatedStore
from zarrstore.wrappers.n5view import N5View
from zarrstore.wrappers.unsharded import UnshardedView
from zarrstore.wrappers.v2view import V2View
from zarrstore.wrappers.v3view import V3View

#: How many mutants of each family, of the 10^5 of a whole run.
SHARES = {
    "zip": 11_000,
    "recovered zip": 3_000,
    "overlay": 11_000,
    "cache tier": 10_000,
    "directory": 3_000,
    "sqlite": 3_000,
    "lmdb": 3_000,
    "dbm": 3_000,
    "version 2": 16_000,
    "version 3": 16_000,
    "n5": 8_000,
    "consolidated": 6_000,
    "manifest": 3_000,
    "journal": 2_000,
    "references": 2_000,
}
ITEMS = {f"a/{n}": bytes([n]) * 30 for n in range(6)} | {"b/.zarray": b"{}", "b/0.0": b"\0" * 500, "é": b"", "x": b"1"}


def read_all(store: Any, values: Iterable[bytes] | None = None) -> None:
    """Read whatever a store lists, by every way, and see that no name leads elsewhere and no value is invented."""
    known = None if values is None else set(values)
    with as_store(store) as opened:
        keys = ours(lambda: list(opened))
        for key in keys if isinstance(keys, list) else []:
            assert is_key(key), key
            value = ours(lambda key=key: opened[key])
            assert known is None or isinstance(value, Exception) or value in known, (key, value)
        for path in ("", "a", "b"):
            ours(lambda path=path: opened.listdir(path))
            ours(lambda path=path: opened.getsize(path))
        for key in ("a/1", "x", "b/0.0"):
            value = ours(lambda key=key: opened.get(key))
            assert known is None or value is None or isinstance(value, Exception) or value in known, (key, value)
            ours(lambda key=key: (opened.getrange(key, 1, 4), opened.getsuffix(key, 2), key in opened))
        ours(lambda: dict(opened.getitems(["a/1", "x", "none"])))
        ours(lambda: len(opened))


# Files ---------------------------------------------------------------------------------------------------------------


@cache
def template(make: Callable[[Path], Any], folder: Path) -> dict[str, bytes]:
    """Return the files of a store that holds `ITEMS`."""
    folder.mkdir()
    with make(folder) as store:
        store.setitems(ITEMS)
        store["a/1"] = b"old"
        del store["a/2"]
        store.setitems(ITEMS)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mutated_files(make: Callable[[Path], Any], rng: random.Random, folder: Path) -> Path:
    """Write a copy of the files of a store, one of them changed; return the folder."""
    files = dict(template(make, folder.parent / f"template-{make.__name__}"))
    victim = rng.choice([name for name in files if not name.endswith("lock.mdb")])
    change = renamed if rng.random() < 0.3 else None
    data = files[victim]
    files[victim] = change(data, [*ITEMS, "a/"], rng) if change else flipped(data, rng)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def archive(folder: Path) -> Any:
    return ZipStore(folder / "a.zip", compression=random.Random(len(str(folder))).choice((0, 8)))


def table(folder: Path) -> Any:
    return SQLiteStore(folder / "a.sqlite")


def pages(folder: Path) -> Any:
    return LMDBStore(folder / "a.lmdb")


def records(folder: Path) -> Any:
    return DBMStore(folder / "a.dbm", open=dbm.dumb.open)


def mutant_of_zip(rng: random.Random, folder: Path) -> None:
    path = mutated_files(archive, rng, folder) / "a.zip"
    store = ours(lambda: ZipStore(path, mode="r"))
    if not isinstance(store, Exception):
        read_all(store, [*ITEMS.values(), b"old"])


def mutant_of_recovered_zip(rng: random.Random, folder: Path) -> None:
    path = mutated_files(archive, rng, folder) / "a.zip"
    out = folder / "out.zip"
    if not isinstance(ours(lambda: ZipStore.recover(path, out)), Exception):
        read_all(ZipStore(out, mode="r"), [*ITEMS.values(), b"old"])


def mutant_of_sqlite(rng: random.Random, folder: Path) -> None:
    path = mutated_files(table, rng, folder) / "a.sqlite"
    store = ours(lambda: SQLiteStore(path, readonly=rng.random() < 0.5))
    if not isinstance(store, Exception):
        read_all(store)


def mutant_of_lmdb(rng: random.Random, folder: Path) -> None:
    # In a child: a database that LMDB takes may still end the process.
    mutated_files(pages, rng, folder)
    child = os.fork()
    if not child:
        code = 1
        try:
            # Its map takes addresses, not memory.
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            store = ours(lambda: LMDBStore(folder / "a.lmdb", readonly=True))
            if not isinstance(store, Exception):
                read_all(store)
            code = 0
        except BaseException as exc:
            (folder / "trace").write_text(f"{exc!r} at {list(_frames(exc))[-2:]}")
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    trace = folder / "trace"
    assert code == 0, (code, trace.read_text() if trace.exists() else "")


def mutant_of_dbm(rng: random.Random, folder: Path) -> None:
    path = mutated_files(records, rng, folder) / "a.dbm"
    store = ours(lambda: DBMStore(path, flag="r", open=dbm.dumb.open))
    if not isinstance(store, Exception):
        read_all(store)


def mutant_of_directory(rng: random.Random, folder: Path) -> None:
    """Files and links of odd names, which others put there."""
    make = rng.choice((DirectoryStore, NestedDirectoryStore))
    folder.mkdir()
    with make(folder / "root") as store:
        store.setitems(ITEMS)
    places = [folder / "root", *(path for path in (folder / "root").rglob("*") if path.is_dir())]
    for _ in range(rng.randrange(1, 4)):
        at, name = os.fsencode(rng.choice(places)), os.urandom(3).replace(b"/", b"").replace(b"\0", b"") or b"_"
        name = rng.choice((name, b".zarrstore-0", b"a\\b", b"c:x", b"\xff", b".__zarrstore-x", b"0", b"0.0", b"1"))
        target = os.path.join(at, name)
        if os.path.lexists(target):
            continue
        way = rng.randrange(4)
        if way == 0:
            Path(os.fsdecode(target)).write_bytes(b"foreign")
        elif way == 1:
            os.symlink(rng.choice(("/etc", "/etc/passwd", "..", "nowhere", ".")), target)
        elif way == 2:
            os.mkdir(target)
        else:
            os.mkfifo(target)
    values = [*ITEMS.values(), b"foreign"]
    if any(path.is_symlink() for path in (folder / "root").rglob("*")):
        values = None  # links are followed where they lead to a value; where they may lead is the sentinel's to say
    read_all(make(folder / "root"), values)


# State within a store ------------------------------------------------------------------------------------------------


def mutant_of_overlay(rng: random.Random, folder: Path) -> None:
    folder.mkdir()
    (folder / "precious").write_bytes(b"precious")
    lower = DirectoryStore(folder / "store")
    lower.setitems(ITEMS)
    upper: dict[str, bytes] = {}
    with OverlayStore(lower, upper) as overlay:
        overlay["a/1"] = b"new"
        overlay.rmdir("b")
        del overlay["x"]
    for _ in range(rng.randrange(1, 4)):
        evil = rng.choice(NAMES)
        parts = "/".join(f"d{part}" for part in evil.split("/")[:-1])
        forged = (
            f".zarrstore-overlay/{evil}",
            f".zarrstore-overlay/{parts}/k{evil.split('/')[-1]}",
            f".zarrstore-overlay/d../d../k{rng.choice(('precious', 'store', ''))}",
            f".zarrstore-overlay/d{evil}/below",
            f".zarrstore-overlay/long/{rng.randbytes(32).hex()}",
            f"{evil}",
        )
        value = rng.choice((b"", b"key ../../precious", b"below ..", b"key /etc/passwd", b"\xff\xff"))
        upper[rng.choice(forged)] = value
    overlay = ours(lambda: OverlayStore(lower, upper))
    if isinstance(overlay, Exception):
        return
    known = {*ITEMS.values(), b"new", *upper.values()}
    for key in ours(lambda: list(overlay)):
        assert is_key(key)
        assert lower.get(key) in known or upper.get(key) in known
    ours(overlay.commit)
    assert (folder / "precious").read_bytes() == b"precious"
    read_all(lower, known)


def mutant_of_cache_tier(rng: random.Random, folder: Path) -> None:
    inner = DictStore(dict(ITEMS))
    tier: dict[str, bytes] = {}
    with LRUStoreCache(DictStore(dict(ITEMS)), 0, cache=tier) as cache_:
        cache_.prefetch("")
        cache_.getrange("b/0.0", 10, 20)
        list(cache_)
    for _ in range(rng.randrange(1, 4)):
        key = rng.choice(list(tier))
        way = rng.randrange(4)
        if way == 0:
            tier[key] = flipped(tier[key], rng)
        elif way == 1:
            tier[rng.choice((*NAMES, *tier))] = tier[key]
        elif way == 2:
            tier[key + rng.choice(("x", "/..", "/x", "\\"))] = tier.pop(key)
        else:
            tier[key] = rng.randbytes(rng.randrange(60))
    with LRUStoreCache(inner, rng.choice((0, 1000)), cache=tier) as again:
        assert {key: again[key] for key in again} == ITEMS
        assert again.getrange("b/0.0", 5, 30) == ITEMS["b/0.0"][5:30]
        assert again.getsuffix("a/3", 3) == ITEMS["a/3"][-3:]
        ours(lambda: again.sweep())


# Documents -----------------------------------------------------------------------------------------------------------


def hierarchy_of_v2() -> dict[str, bytes]:
    store: dict[str, bytes] = {".zgroup": v2.encode_group(), ".zattrs": b'{"title": "x", "n": [1, 2.5, null]}'}
    plain = v2.build_array(shape=(4, 6), chunks=(2, 3), dtype="<f4", compressor=None, fill_value=0)
    packed = v2.build_array(shape=40, chunks=10, dtype="<M8[ns]", compressor={"id": "zlib", "level": 1}, fill_value=0)
    text = v2.build_array(shape=4, chunks=2, dtype="<U3", compressor=None, fill_value="", dimension_separator="/")
    for name, meta in (("a", plain), ("b", packed), ("g/t", text)):
        store[f"{name}/.zarray"] = v2.encode_array(meta)
    store |= {"g/.zgroup": v2.encode_group(), "a/.zattrs": b'{"_ARRAY_DIMENSIONS": ["y", "x"]}'}
    store |= {"a/0.0": bytes(24), "a/1.1": bytes(range(24)), "b/0": b"no zlib", "g/t/0": bytes(24)}
    return store


@cache
def hierarchies() -> dict[str, dict[str, bytes]]:
    """Return valid trees of each format."""
    old = hierarchy_of_v2()
    new: dict[str, bytes] = {}
    sharded: dict[str, bytes] = {}
    zarrstore.migrate_2to3(dict(old), new)
    whole = {key: value for key, value in old.items() if not key.startswith("b/")}
    zarrstore.migrate_to_shards(whole, sharded)
    new |= {f"s/{key}": value for key, value in sharded.items()}
    n5: dict[str, bytes] = {}
    view = N5View(n5)
    zarray = v2.encode_array(v2.build_array(shape=(4, 6), chunks=(2, 3), dtype=">u2", compressor=None))
    view.update({"a/.zarray": zarray, "a/0.0": bytes(12), "a/1.1": bytes(12)})
    consolidated = dict(old)
    zarrstore.consolidate_metadata(consolidated)
    return {"version 2": old, "version 3": new, "n5": n5, "consolidated": consolidated}


def read_small(store: Any, path: str) -> Any:
    """Read an array; return the plain ValueError that `read_array` promises for one too large or a damaged chunk."""
    try:
        return zarrstore.read_array(store, path, max_nbytes=1 << 20)
    except ValueError as exc:
        if type(exc) is not ValueError or not str(exc).startswith(("array", "chunk")):
            raise
        return exc


VERBS: tuple[Callable[[Any], Any], ...] = (
    lambda store: zarrstore.verify(store),
    lambda store: zarrstore.tree(store),
    lambda store: list(zarrstore.walk(store)),
    lambda store: zarrstore.du(store),
    lambda store: zarrstore.check_consolidated(store),
    lambda store: zarrstore.consolidate_metadata(dict(store)),
    lambda store: zarrstore.migrate_2to3(store, {}),
    lambda store: zarrstore.migrate_3to2(store, {}),
    lambda store: zarrstore.migrate_1to2(dict(store)),
    lambda store: zarrstore.migrate_to_shards(store, {}),
    lambda store: zarrstore.repair(dict(store)),
    lambda store: zarrstore.respell(dict(store), "/"),
    lambda store: read_small(store, "a"),
    lambda store: read_small(store, "s/a"),
    lambda store: zarrstore.dandi_checksum(store),
    lambda store: zarrstore.contains_array(store, "a"),
    lambda store: zarrstore.init_array(dict(store), shape=2, path="a/b/c"),
)
VIEWS: tuple[Callable[[Any], Any], ...] = (
    V2View,
    V3View,
    N5View,
    UnshardedView,
    ConsolidatedStore,
    lambda store: V2View(UnshardedView(store)),
    lambda store: V3View(N5View(store)),
)


def mutant_of_documents(kind: str, rng: random.Random, folder: Path) -> None:
    items = dict(hierarchies()[kind])
    documents = [key for key in items if key.rpartition("/")[2] in _DOCUMENTS]
    for key in rng.sample(documents, min(len(documents), rng.choice((1, 1, 2)))):
        items[key] = as_json(json.loads(items[key]), rng)
    store = DictStore(items)
    # A few of each for one mutant: every verb would make too few mutants.
    for verb in rng.sample(VERBS, 4):
        ours(lambda verb=verb: verb(store))
    for view in rng.sample(VIEWS, 2):
        seen = ours(lambda view=view: view(store))
        if not isinstance(seen, Exception):
            read_all(seen)


_DOCUMENTS = {".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json", "attributes.json"}


# Files beside a store ------------------------------------------------------------------------------------------------


def mutant_of_manifest(rng: random.Random, folder: Path) -> None:
    folder.mkdir()
    path = folder / "manifest"
    zarrstore.write_manifest(ITEMS, path)
    change = renamed(path.read_bytes(), [*ITEMS], rng) if rng.random() < 0.4 else flipped(path.read_bytes(), rng)
    path.write_bytes(change)
    found = ours(lambda: zarrstore.read_manifest(path))
    assert isinstance(found, Exception) or all(map(is_key, found)), found
    ours(lambda: zarrstore.verify(ITEMS, manifest=path))


def mutant_of_journal(rng: random.Random, folder: Path) -> None:
    folder.mkdir()
    path = folder / "journal"
    source, dest = DirectoryStore(folder / "source"), DirectoryStore(folder / "dest")
    source.setitems(ITEMS)

    def stop(*_: Any) -> None:
        raise InterruptedError

    try:
        zarrstore.copy_store(source, dest, resume=path, progress=stop)
    except InterruptedError:
        pass
    data = path.read_bytes() if path.exists() else b""
    path.write_bytes(renamed(data, [*ITEMS], rng) if rng.random() < 0.4 else flipped(data, rng))
    done = ours(lambda: zarrstore.copy_store(source, dest, resume=path, if_exists="replace"))
    assert isinstance(done, Exception) or dict(dest) == ITEMS


#: A reference file of each way to name a value; its target is `TARGET`.
REFERENCES: dict[str, Any] = {
    "version": 1,
    "templates": {"u": "data/target"},
    "gen": [{"key": "c/{{i}}", "url": "{{u}}", "offset": "{{i * 8}}", "length": "8", "dimensions": {"i": {"stop": 3}}}],
    "refs": {
        ".zgroup": '{"zarr_format": 2}',
        "a/1": "base64:AAEC",
        "a/3": ["{{u}}", 5, 20],
        "b/0.0": ["data/target"],
        "x": ["data/target", 500, 12],
        "doc/.zattrs": {"title": "x"},
    },
}
TARGET = random.Random(0).randbytes(512)


def mutant_of_references(rng: random.Random, folder: Path) -> None:
    document = json.dumps(REFERENCES).encode()
    names = [*REFERENCES["refs"], "data/target"]
    data = renamed(document, names, rng) if rng.random() < 0.3 else as_json(REFERENCES, rng)

    def target(url: str) -> tuple[DictStore, str]:
        return DictStore({"data/target": TARGET}), url

    store = ours(lambda: ReferenceStore(data, target))
    if isinstance(store, Exception):
        return
    read_all(store)
    ours(lambda: zarrstore.verify(store))
    ours(lambda: zarrstore.tree(store))


FAMILIES: dict[str, Callable[[random.Random, Path], None]] = {
    "zip": mutant_of_zip,
    "recovered zip": mutant_of_recovered_zip,
    "overlay": mutant_of_overlay,
    "cache tier": mutant_of_cache_tier,
    "directory": mutant_of_directory,
    "sqlite": mutant_of_sqlite,
    "lmdb": mutant_of_lmdb,
    "dbm": mutant_of_dbm,
    "manifest": mutant_of_manifest,
    "journal": mutant_of_journal,
    "references": mutant_of_references,
}
FAMILIES |= {
    kind: lambda rng, folder, kind=kind: mutant_of_documents(kind, rng, folder)
    for kind in ("version 2", "version 3", "n5", "consolidated")
}


def play(family: str, count: int, folder: Path, first: int = 0) -> dict[str, int]:
    """Let `count` mutants of a family be read; return how many fell in each way, by the error and its place."""
    falls: dict[str, int] = {}
    for number in range(first, first + count):
        rng = random.Random(f"{family} {number}")
        place = folder / "mutant"
        try:
            with patience():
                FAMILIES[family](rng, place)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt):
                raise
            frames = list(_frames(exc))
            fall = f"{type(exc).__name__} at {frames[-1]}"
            falls[fall] = falls.get(fall, 0) + 1
            if falls[fall] == 1:
                print("FALL", family, number, fall, str(exc)[-900:], " < ".join(reversed(frames[-6:])), flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return falls


def _frames(exc: BaseException) -> Iterable[str]:
    trace = exc.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        yield f"{Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.timeout(3600)
def test_no_mutant_escapes_hangs_or_is_believed(family: str, tmp_path: Path) -> None:
    world.require_inside()
    share = float(os.environ.get("ZARRSTORE_MUTANTS", "1000")) / 100_000
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    count = max(10, round(SHARES[family] * share))
    little_memory()
    warnings.simplefilter("ignore")
    with world.EscapeSentinel(tmp_path / "root", ["/proc"]) as sentinel:
        falls = play(family, count, tmp_path / "root")
    assert falls == {}
    assert sentinel.escapes == []
    assert outside.read_bytes() == b"precious"


class Planted(DictStore):
    """A store with one bug."""

    bug = ""

    def _get(self, key: str) -> bytes:
        if self.bug == "an escape":
            return Path("/etc/passwd").read_bytes()
        if self.bug == "an error of Python":
            raise TypeError("'int' object is not iterable")
        return super()._get(key) if self.bug == "a hang" else b"invented"

    def _listdir(self, path: str) -> Iterable[str]:
        while self.bug == "a hang":
            pass
        return super()._listdir(path)

    __getitem__ = zarrstore.Store.__getitem__
    get = zarrstore.Store.get


@pytest.mark.parametrize("bug", ["an escape", "an error of Python", "a value invented", "a hang"])
def test_planted(bug: str, tmp_path: Path) -> None:
    """Fail, as `tests/faults/test_hostile_state.py` expects."""
    world.require_inside()

    def family(rng: random.Random, folder: Path) -> None:
        store = Planted(ITEMS)
        store.bug = bug
        with patience(1):
            read_all(store, ITEMS.values())

    FAMILIES["planted"] = family
    with world.EscapeSentinel(tmp_path / "root"):
        assert play("planted", 1, tmp_path / "root") == {}
