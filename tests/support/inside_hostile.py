"""Every hostile key through every entry point of every store, where nothing but the test's folder can be written.

Not collected unless named: `tests/test_hostile.py` runs it in the read-only world.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import roster, world
from zarrstore import as_store, copy_store, hierarchy, ops
from zarrstore.errors import InvalidKeyError, InvalidPathError
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

#: Entry points that take a path, as "/foo//bar/" is one: only those that lead elsewhere are hostile there.
PATHS = {"listdir", "getsize", "keys_below", "rename to", "init_array", "contains_array", "copy to", "sweep"}


def leads_elsewhere(key: object) -> bool:
    names = str(key).replace("\\", "/").split("/")
    return isinstance(key, str) and ("." in names or ".." in names)


def verdict(store: Any, act: Callable[[Any, Any], Any], key: object) -> str:
    """Return what came of it: the class of the error, or the value."""
    try:
        return repr(act(store, key))
    except Exception as exc:
        return type(exc).__name__


def verdicts(name: str, folder: Path) -> dict[tuple[str, int], str]:
    """Throw every hostile key at every entry point of a store, and see that nothing happened."""
    folder.mkdir()
    items = tree(1000)
    made = roster.STORES[name](folder)
    found: dict[tuple[str, int], str] = {}
    with as_store(made) as store:
        store.setitems(items)
        store.flush()
        with world.EscapeSentinel(folder) as sentinel:
            for entry, act in ENTRY_POINTS.items():
                for n, key in enumerate(HOSTILE_KEYS):
                    if entry not in PATHS or leads_elsewhere(key):
                        found[entry, n] = verdict(store, act, key)
            assert list(sentinel.escapes) == []
        assert dict(store.items()) == items, name
    return found


@pytest.mark.parametrize("name", [name for name in roster.STORES if name != "dict"])
@pytest.mark.filterwarnings("ignore")
def test_no_hostile_key_touches_anything_and_the_verdict_is_the_same_everywhere(name: str, tmp_path: Path) -> None:
    world.require_inside()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"precious")
    expected = verdicts("DictStore", tmp_path / "reference")
    assert len(expected) > 200 * (len(ENTRY_POINTS) - len(PATHS))
    assert {value for (entry, _), value in expected.items() if entry == "set"} == {InvalidKeyError.__name__}
    assert {value for (entry, _), value in expected.items() if entry == "listdir"} == {InvalidPathError.__name__}
    assert {value for (entry, _), value in expected.items() if entry == "in"} == {"False"}
    assert verdicts(name, tmp_path / "store") == expected
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["outside", "reference", "store"]
    assert (outside / "x").read_bytes() == b"precious"
