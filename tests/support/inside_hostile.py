"""Every hostile key through every entry point of every store, where nothing but the test's folder can be written.

Not collected unless named: `tests/test_hostile.py` runs it in the read-only world.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import zarrstore
from tests.support import roster, world
from zarrstore import as_store, copy_store, hierarchy, ops
from zarrstore.bridges.aio import AsyncMapping
from zarrstore.errors import InvalidKeyError, InvalidPathError
from zarrstore.keys import RESERVED
from zarrstore.testing import HOSTILE_KEYS, tree

ENTRY_POINTS: dict[str, Callable[[Any, Any], Any]] = {
    "get": lambda store, key: store.get(key),
    "getitem": lambda store, key: store[key],
    "in": lambda store, key: key in store,
    "set": lambda store, key: store.__setitem__(key, b"hostile"),
    "delete": lambda store, key: store.__delitem__(key),
    "pop": lambda store, key: store.pop(key),
    "setdefault": lambda store, key: store.setdefault(key, b"hostile"),
    "update": lambda store, key: store.update({key: b"hostile"}),
    "getitems": lambda store, key: dict(ops.getitems(store, [key])),
    "setitems": lambda store, key: ops.setitems(store, [(key, b"hostile")]),
    "delitems": lambda store, key: ops.delitems(store, [key]),
    "getrange": lambda store, key: ops.getrange(store, key, 0, 1),
    "getsuffix": lambda store, key: ops.getsuffix(store, key, 1),
    "listdir": lambda store, key: ops.listdir(store, key),
    "getsize": lambda store, key: ops.getsize(store, key),
    "keys_below": lambda store, key: sorted(ops.keys_below(store, key)),
    "rename to": lambda store, key: ops.rename(store, "uns/names", key),
    "init_array": lambda store, key: hierarchy.init_array(store, shape=1, path=key),
    "contains_array": lambda store, key: hierarchy.contains_array(store, key),
    "copy to": lambda store, key: copy_store({"x": b"1"}, store, dest_path=key),
    "copy from": lambda store, key: copy_store({key: b"hostile"}, store),
    "sweep": lambda store, key: store.sweep(key),
}

#: What else takes a key or a path: every verb, the wrappers that take one, and the interfaces of others.
MORE_ENTRY_POINTS: dict[str, Callable[[Any, Any], Any]] = {
    "getranges": lambda store, key: ops.getranges(store, key, [(0, 1), (2, None)]),
    "update by pairs": lambda store, key: store.update([(key, b"hostile")]),
    "or": lambda store, key: store.__ior__({key: b"hostile"}),
    "rename from": lambda store, key: ops.rename(store, key, "elsewhere"),
    "init_group": lambda store, key: hierarchy.init_group(store, path=key),
    "contains_group": lambda store, key: hierarchy.contains_group(store, key),
    "delete_node": lambda store, key: hierarchy.delete_node(store, key),
    "walk": lambda store, key: len(list(zarrstore.walk(store, key))),
    "tree": lambda store, key: bool(zarrstore.tree(store, key)),
    "du": lambda store, key: len(zarrstore.du(store, key)),
    "verify": lambda store, key: bool(zarrstore.verify(store, key)),
    "diff": lambda store, key: len(list(zarrstore.diff(store, store, key, key))),
    "check_consolidated": lambda store, key: bool(zarrstore.check_consolidated(store, path=key)),
    "metadata key": lambda store, key: bool(zarrstore.check_consolidated(store, metadata_key=key)),
    "consolidate_metadata": lambda store, key: bool(zarrstore.consolidate_metadata(store, path=key)),
    "manifest_of": lambda store, key: zarrstore.manifest_of(store, key),
    "dandi_checksum": lambda store, key: zarrstore.dandi_checksum(store, key),
    "migrate_1to2": lambda store, key: bool(zarrstore.migrate_1to2(store, key)),
    "migrate_2to3": lambda store, key: bool(zarrstore.migrate_2to3(store, path=key)),
    "migrate_to_shards": lambda store, key: bool(zarrstore.migrate_to_shards(store, {}, key)),
    "respell": lambda store, key: bool(zarrstore.respell(store, "/", key)),
    "repair": lambda store, key: bool(zarrstore.repair(store, key)),
    "clean": lambda store, key: zarrstore.clean(store, key),
    "read_array": lambda store, key: zarrstore.read_array(store, key),
    "copy part of": lambda store, key: copy_store(store, {}, source_path=key).copied,
    "prefix": lambda store, key: zarrstore.PrefixStore(store, key).__setitem__("x", b"hostile"),
    "overlay": lambda store, key: zarrstore.OverlayStore(store, {}).__setitem__(key, b"hostile"),
    "cache": lambda store, key: zarrstore.LRUStoreCache(store, 100).__setitem__(key, b"hostile"),
    "V2View": lambda store, key: zarrstore.V2View(store).__setitem__(key, b"hostile"),
    "AsyncMapping": lambda store, key: asyncio.run(AsyncMapping(store).set(key, b"hostile")),
}

#: Entry points that take a path, as "/foo//bar/" is one: only those that lead elsewhere are hostile there.
PATHS = {"listdir", "getsize", "keys_below", "rename to", "init_array", "contains_array", "copy to", "sweep"}
PATHS |= set(MORE_ENTRY_POINTS) - {
    *("getranges", "update by pairs", "or", "metadata key", "overlay", "cache", "V2View", "AsyncMapping"),
}

_NAMES = ("foo", "uns", "c", "0.0", ".zarray", "é")


def more_keys() -> list[object]:
    """Return over 800 names that no store may take: each wrong in one place of a path of up to four names."""
    wrong = ("..", ".", "", "a\\b", "\0", "x\0y", "\ud800", "C:", "c:x", "..\\..", "\\", RESERVED, f"{RESERVED}-1")
    keys: dict[object, None] = dict.fromkeys(key for key in HOSTILE_KEYS if isinstance(key, str))
    for names in itertools.product(_NAMES, repeat=2):
        for bad in wrong:
            if not bad.lower().startswith("c:"):
                keys.update(dict.fromkeys((f"{names[0]}/{bad}/{names[1]}", f"{'/'.join(names)}/{bad}")))
            keys[f"{bad}/{'/'.join(names)}"] = None
    return [*(key for key in HOSTILE_KEYS if not isinstance(key, str)), *keys]


def leads_elsewhere(key: object) -> bool:
    names = str(key).replace("\\", "/").split("/")
    return isinstance(key, str) and ("." in names or ".." in names)


def verdict(store: Any, act: Callable[[Any, Any], Any], key: object) -> str:
    """Return what came of it: the class of the error, or the value."""
    try:
        return repr(act(store, key))
    except Exception as exc:
        return type(exc).__name__


def verdicts(
    name: str, folder: Path, keys: Sequence[object], entries: Mapping[str, Callable[[Any, Any], Any]]
) -> dict[tuple[str, int], str]:
    """Throw hostile keys at entry points of a store, and see that nothing happened."""
    folder.mkdir()
    items = tree(1000)
    raw = roster.STORES[name](folder)
    found: dict[tuple[str, int], str] = {}
    with as_store(raw) as store:
        store.setitems(items)
        store.flush()
        with world.EscapeSentinel(folder) as sentinel:
            for entry, act in entries.items():
                for n, key in enumerate(keys):
                    if entry not in PATHS or leads_elsewhere(key):
                        found[entry, n] = verdict(store, act, key)
            assert list(sentinel.escapes) == []
        assert dict(store.items()) == items, name
    return found


STORES = [name for name in roster.STORES if name != "dict"]


@pytest.mark.parametrize("name", STORES)
@pytest.mark.filterwarnings("ignore")
def test_no_hostile_key_touches_anything_and_the_verdict_is_the_same_everywhere(name: str, tmp_path: Path) -> None:
    expected = check(name, tmp_path, HOSTILE_KEYS, ENTRY_POINTS)
    assert len(expected) > 200 * (len(ENTRY_POINTS) - len(PATHS & ENTRY_POINTS.keys()))
    assert {value for (entry, _), value in expected.items() if entry == "set"} == {InvalidKeyError.__name__}
    assert {value for (entry, _), value in expected.items() if entry == "listdir"} == {InvalidPathError.__name__}
    assert {value for (entry, _), value in expected.items() if entry == "in"} == {"False"}


@pytest.mark.parametrize("name", STORES)
@pytest.mark.filterwarnings("ignore")
def test_nor_does_any_of_eight_hundred_through_every_verb_and_wrapper(name: str, tmp_path: Path) -> None:
    keys = more_keys()
    assert len(keys) >= 800
    expected = check(name, tmp_path, keys, ENTRY_POINTS | MORE_ENTRY_POINTS)
    for entry in ("set", "or", "update by pairs", "cache"):
        refusals = {value for (one, n), value in expected.items() if one == entry and _is_hashable(keys[n])}
        assert refusals == {InvalidKeyError.__name__}, entry
    for entry in ("tree", "du", "prefix", "migrate_2to3", "delete_node", "rename from"):
        refusals = {value for (one, _), value in expected.items() if one == entry}
        assert refusals <= {InvalidPathError.__name__, InvalidKeyError.__name__, "KeyError"}, (entry, refusals)


def _is_hashable(key: object) -> bool:
    return not isinstance(key, list | dict | bytearray | set)


def check(
    name: str, folder: Path, keys: Sequence[object], entries: Mapping[str, Callable[[Any, Any], Any]]
) -> dict[tuple[str, int], str]:
    """Compare a store with DictStore, look at what lies beside it, and return the verdicts."""
    world.require_inside()
    outside = folder / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"precious")
    expected = verdicts("DictStore", folder / "reference", keys, entries)
    found = verdicts(name, folder / "store", keys, entries)
    differ = {place: (value, found[place]) for place, value in expected.items() if found[place] != value}
    assert {(entry, repr(keys[n])): values for (entry, n), values in differ.items()} == {}
    assert [path.name for path in sorted(folder.iterdir())] == ["outside", "reference", "store"]
    assert (outside / "x").read_bytes() == b"precious"
    return expected
