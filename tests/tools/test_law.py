"""The law of all verbs: what zarr read before, zarr reads after, value by value; or it was refused and nothing changed.

Random hierarchies of both versions and both spellings meet random verbs; zarr 3.1 is the reader.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests.tools.hierarchies import random_hierarchy
from zarrstore import (
    DictStore,
    DirectoryStore,
    LMDBStore,
    NestedDirectoryStore,
    SQLiteStore,
    ZipStore,
    consolidate_metadata,
    copy_store,
    migrate_2to3,
    pack,
    rename,
    unpack,
    verify,
)
from zarrstore.errors import UnsupportedOperation, ZarrStoreError
from zarrstore.metadata import documents
from zarrstore.tools import grid, holding, plan
from zarrstore.tools import migrate_2to3 as migration
from zarrstore.tools.repair import repair
from zarrstore.tools.respell import respell
from zarrstore.wrappers.v2view import V2View
from zarrstore.wrappers.v3view import V3View

zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")

Values = dict[str, Any]


def read(items: dict[str, bytes], version: int, use_consolidated: bool | None = False) -> Values | None:
    """Return every array and the attributes of every node, as zarr reads them; None if no such hierarchy is there."""
    from zarr.core.buffer import cpu

    mark = ".zgroup" if version == 2 else "zarr.json"
    if mark not in items:
        return None
    store = zarr.storage.MemoryStore({key: cpu.Buffer.from_bytes(value) for key, value in items.items()})
    found: Values = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.open_group(store, mode="r", zarr_format=version, use_consolidated=use_consolidated)
        found[""] = dict(root.attrs)
        for path, node in sorted(root.members(max_depth=None)):
            attrs = dict(node.attrs)
            names = attrs.pop("_ARRAY_DIMENSIONS", None)
            if isinstance(node, zarr.Array):
                found[path] = (np.asarray(node[...]), names or _dimensions(node) or None, attrs)
            else:
                found[path] = attrs
    return found


def _dimensions(array: Any) -> list[str]:
    return list(getattr(array.metadata, "dimension_names", None) or ())


def equal(one: Values | None, other: Values | None) -> bool:
    """Tell whether two readings are the same; the order of bytes is not looked at."""
    if one is None or other is None or one.keys() != other.keys():
        return False
    return all(_same(one[path], other[path]) for path in one)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) or isinstance(other, dict):
        return bool(one == other)
    (first, names, attrs), (second, other_names, other_attrs) = one, other
    little = first.dtype.newbyteorder("<")
    return (
        (names, attrs) == (other_names, other_attrs)
        and first.shape == second.shape
        and little == second.dtype.newbyteorder("<")
        and first.astype(little).tobytes() == second.astype(little).tobytes()
    )


def any_version(items: dict[str, bytes], use_consolidated: bool | None = False) -> Values | None:
    values = read(items, 3, use_consolidated)
    return read(items, 2, use_consolidated) if values is None else values


def everything(store: Any) -> dict[str, bytes]:
    return {key: bytes(store[key]) for key in store}


# Verbs: each takes a hierarchy and a folder, and returns what is to be read afterwards, and in which version ---------

#: None: version 3 if it is there, else version 2. "part": nodes may be missing, what is there is as it was.
Result = list[tuple[dict[str, bytes], int | Literal["part"] | None]]
STORES: dict[str, Callable[[Path], Any]] = {
    "dict": lambda folder: DictStore(),
    "dir": lambda folder: DirectoryStore(folder / "d"),
    "nested": lambda folder: NestedDirectoryStore(folder / "n"),
    "lmdb": lambda folder: LMDBStore(folder / "l.lmdb"),
    "sqlite": lambda folder: SQLiteStore(folder / "s.sqlite"),
    "zip": lambda folder: ZipStore(folder / "z.zip", mode="w"),
}


def _copy(kind: str) -> Callable[..., Result]:
    def verb(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
        with STORES[kind](folder) as dest:
            copy_store(items, dest, verify=rng.random() < 0.5)
            return [(everything(dest), None)]

    return verb


def _pack(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    source = DirectoryStore(folder / "source")
    source.update(items)
    pack(folder / "source", folder / "a.zip")
    unpack(folder / "a.zip", folder / "again")
    with ZipStore(folder / "a.zip", mode="r") as packed:
        return [(everything(packed), None), (everything(DirectoryStore(folder / "again")), None)]


def _migrate(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    remove = rng.random() < 0.5
    migrate_2to3(items, remove_v2=remove)
    return [(items, 3), *([(items, 2)] if ".zgroup" in items and not remove else [])]


def _migrate_directory(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    store = (NestedDirectoryStore if rng.random() < 0.5 else DirectoryStore)(folder / "source")
    DirectoryStore(folder / "source").update(items)
    migrate_2to3(store, remove_v2=rng.random() < 0.5)
    return [(everything(DirectoryStore(folder / "source")), 3)]


def _migrate_to(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    with STORES[rng.choice(["dict", "dir", "zip"])](folder) as dest:
        migrate_2to3(items, dest)
        return [(everything(dest), 3)]


def _consolidate(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    consolidate_metadata(items)
    return [(items, None)]


def _repair(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    repair(items)
    return [(items, None)]


def _respell(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    respell(items, rng.choice("./"))
    return [(items, None)]


def _move(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    moved: dict[str, bytes] = {}
    copy_store(items, moved, dest_path="somewhere/else")
    rename(moved, "somewhere", "there")
    return [({key.removeprefix("there/else/"): value for key, value in moved.items()}, None)]


def _through_v3view(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    if ".zgroup" not in items:
        return [(items, None)]
    return [(everything(V3View(items)), 3)]


def _into_v2view(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    only_2 = {key: value for key, value in items.items() if key.rsplit("/", 1)[-1] != "zarr.json"}
    if ".zgroup" not in only_2:
        return [(everything(V2View(items)), 2)]
    below: dict[str, bytes] = {}
    copy_store(only_2, V2View(below))
    return [(below, 3), (everything(V2View(below)), 2)]


class _Unsteady(DirectoryStore):
    """Is interrupted at one of its writes, and cannot write some keys."""

    writes_left = -1
    refused: frozenset[str] = frozenset()

    def _set(self, key: str, value: Any) -> None:
        if self.writes_left == 0:
            raise KeyboardInterrupt
        if key in self.refused:
            raise OSError(5, "Input/output error")
        self.writes_left -= 1
        super()._set(key, value)


def _resume(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    dest = _Unsteady(folder / "d")
    dest.writes_left = rng.randrange(len(items))
    with suppress(KeyboardInterrupt):
        copy_store(items, dest, resume=folder / "journal")
    dest.writes_left = -1
    for key in rng.sample(sorted(dest), min(len(dest), rng.randrange(3))):
        del dest[key]  # somebody cleans up what looks half done
    copy_store(items, dest, resume=folder / "journal")
    return [(everything(dest), None)]


def _copy_with_failures(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    dest = _Unsteady(folder / "d")
    dest.refused = frozenset(rng.sample(sorted(items), min(len(items), 2)))
    result = copy_store(items, dest, errors="collect")
    assert result.errors.keys() >= dest.refused  # and what was held back
    return [(everything(dest), "part")]


class _Unlisted(DictStore):
    """As a web server: what is not asked for by name is not found."""

    capabilities = replace(DictStore.capabilities, listable=False)

    def _keys(self, path: str) -> Any:
        raise UnsupportedOperation("be listed", self, "ask for keys by name")

    _listdir = _keys


def _copy_from_the_web(items: dict[str, bytes], folder: Path, rng: random.Random) -> Result:
    served = dict(items)
    consolidate_metadata(served)
    dest: dict[str, bytes] = {}
    copy_store(_Unlisted(served), dest)
    return [(dest, None)]


VERBS: dict[str, Callable[..., Result]] = {
    **{f"copy to {kind}": _copy(kind) for kind in STORES},
    "copy interrupted and resumed": _resume,
    "copy with failures": _copy_with_failures,
    "copy from the web": _copy_from_the_web,
    "pack": _pack,
    "migrate": _migrate,
    "migrate a directory": _migrate_directory,
    "migrate to another store": _migrate_to,
    "consolidate": _consolidate,
    "repair": _repair,
    "respell": _respell,
    "move": _move,
    "show as version 3": _through_v3view,
    "copy into a view": _into_v2view,
}
#: Verbs whose result a plain reader reads, though the arrays do not say that their chunks are nested.
ANNOUNCING = ("migrate", "migrate a directory", "migrate to another store", "repair", "respell", "show as version 3")


def announced(items: dict[str, bytes]) -> dict[str, bytes]:
    """Return what NestedDirectoryStore of the time made of it: every array without a separator is nested."""
    out = {}
    for key, value in items.items():
        if key.endswith(".zarray"):
            document = documents.loads(value, key)
            nested = any(k.startswith(key[: -len(".zarray")]) and "/" in k[len(key) - len(".zarray") :] for k in items)
            if document.get("dimension_separator") is None and len(document["shape"]) > 1 and nested:
                value = documents.dumps({**document, "dimension_separator": "/"})
        out[key] = value
    return out


def obeys(seed: int, folder: Path, only: str | None = None) -> str:
    """Run one verb over one hierarchy; return what was done, or raise AssertionError with the law that it broke."""
    rng = random.Random(seed)
    name = only or rng.choice(list(VERBS))
    old = name in ANNOUNCING and rng.random() < 0.4
    items = random_hierarchy(rng, undeclared=old)
    before = any_version(announced(items) if old else items)
    assert before is not None
    untouched = dict(items)
    work = folder / str(seed)
    work.mkdir()
    refusal = None
    try:
        results = VERBS[name](items, work, rng)
    except ZarrStoreError as exc:
        refusal = str(exc)
    finally:
        shutil.rmtree(work)
    if refusal is not None:
        assert items == untouched, f"{seed} {name} was refused, and changed something: {refusal}"
        return f"{name}: refused"
    for after, version in results:
        if version == "part":
            found = any_version(after, None) or {}
            kept = {path: before.get(path) for path in found}
            assert equal(kept, found), f"{seed} {name}: other values in what was copied"
            continue
        found = any_version(after) if version is None else read(after, version)
        if version == 2 and old:
            continue  # the documents of version 2 still leave it to the store
        assert equal(before, found), f"{seed} {name}: other values in version {version}"
    return name


def test_every_verb_keeps_every_value_or_refuses(tmp_path: Path) -> None:
    done = [obeys(seed, tmp_path) for seed in range(60)]
    assert sum(name.endswith("refused") for name in done) < 15


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_by_itself(verb: str, tmp_path: Path) -> None:
    done = {obeys(1000 + seed, tmp_path, verb) for seed in range(4)}
    assert verb in done


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_2000_random_verbs_keep_every_value_or_refuse(tmp_path: Path) -> None:
    done = [obeys(10_000 + seed, tmp_path) for seed in range(2000)]
    assert {name.removesuffix(": refused") for name in done} == set(VERBS)
    assert sum(name.endswith("refused") for name in done) < 400


def _broken(tmp_path: Path, verb: str, tries: int = 60) -> bool:
    for seed in range(tries):
        try:
            obeys(5000 + seed, tmp_path, verb)
        except AssertionError:
            return True
    return False


def test_the_law_sees_a_migration_that_forgets_how_chunks_are_spelled(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(migration, "_visible_separator", lambda store, node, meta, in_place: meta.separator)
    assert _broken(tmp_path, "migrate")


def test_the_law_sees_a_migration_that_writes_and_then_refuses(tmp_path: Path, monkeypatch: Any) -> None:
    from zarrstore.errors import MetadataError

    exchange = migration.exchange

    def half(store: Any, writes: Any, removed: Any, later: Any, known: Any) -> None:
        exchange(store, writes, [], {})
        raise MetadataError("x", None, "refused too late")

    monkeypatch.setattr(migration, "exchange", half)
    assert _broken(tmp_path, "migrate", 10)


def test_the_law_sees_a_removal_that_takes_attributes_that_version_3_does_not_have(
    tmp_path: Path, monkeypatch: Any
) -> None:
    step = migration._step

    def without_attributes(store: Any, node: Any, attributes: Any, in_place: bool) -> Any:
        new_step = step(store, node, attributes, in_place)
        if new_step.document is not None:
            new_step.document["attributes"] = {}
        return new_step

    monkeypatch.setattr(migration, "_step", without_attributes)
    assert _broken(tmp_path, "migrate")


def test_the_law_sees_a_copy_that_drops_a_chunk(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(STORES, "dict", lambda folder: _Dropping())
    assert _broken(tmp_path, "copy to dict")


def test_the_law_sees_a_copy_that_goes_on_without_what_has_vanished(tmp_path: Path, monkeypatch: Any) -> None:
    with_journal = plan._with_journal

    def blind(states: Any, journal: Any) -> Any:
        return with_journal((state._replace(is_there=True) for state in states), journal)

    monkeypatch.setattr(plan, "_with_journal", blind)
    assert _broken(tmp_path, "copy interrupted and resumed")


def test_the_law_sees_a_document_that_is_not_held_back(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(holding.Holding, "failed", lambda self, key: None)
    assert _broken(tmp_path, "copy with failures")


def test_the_law_sees_a_consolidated_document_that_is_not_held_back(tmp_path: Path, monkeypatch: Any) -> None:
    holds = holding.Holding.holds

    def forgetful(self: Any, key: str) -> bool:
        return holds(self, key) and key != ".zmetadata" and self._kind(key, key.rpartition("/")[2]) != "consolidated"

    monkeypatch.setattr(holding.Holding, "holds", forgetful)
    assert _broken(tmp_path, "copy with failures")


def test_the_law_sees_a_copy_from_the_web_without_chunks(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(grid.Grid, "chunks", lambda self, path="": iter(()))
    assert _broken(tmp_path, "copy from the web")


class _Dropping(DictStore):
    def _set_many(self, items: Any) -> None:
        super()._set_many((key, value) for key, value in items if not key.endswith(("/0", "0.0")))


def test_verify_agrees_with_the_law(tmp_path: Path) -> None:
    for seed in range(10):
        items = random_hierarchy(random.Random(seed))
        migrate_2to3(items)
        assert verify(items).problems == ()
