"""How often the verbs wait for a distant store, against what cannot be avoided: counted in rounds, no clock is read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.cases import each_of
from tests.support.waits import DistantStore, Waits, waits_of
from zarrstore import (
    N5View,
    UnshardedView,
    V2View,
    V3View,
    consolidate_metadata,
    copy_store,
    delete_node,
    init_array,
    migrate_1to2,
    migrate_1to3,
    migrate_2to3,
    migrate_3to2,
    rename,
    rmdir,
    tree,
    verify,
)
from zarrstore.tools.info import describe_node
from zarrstore.tools.move import move

ARRAYS = 100
#: More than this share of waits that can be avoided is a fault.
MOST = 1.5

_OLD = (
    b'{"zarr_format": 1, "shape": [4], "chunks": [2], "dtype": "<i4", "order": "C", "compression": "zlib",'
    b' "compression_opts": 1, "fill_value": 0}'
)


@functools.cache
def _built(ndim: int, groups: int, consolidated: bool, version: int) -> dict[str, bytes]:
    sample: dict[str, bytes] = {}
    init_array(sample, shape=(4,) * ndim, chunks=(2,) * ndim, dtype="i4", compressor=None)
    store = {".zgroup": b'{"zarr_format": 2}', **{f"g{n}/.zgroup": b'{"zarr_format": 2}' for n in range(groups)}}
    for n in range(ARRAYS):
        path = f"g{n % groups}/a{n}" if groups else f"a{n}"
        store |= {f"{path}/.zarray": sample[".zarray"], f"{path}/.zattrs": b'{"x": 1}'}
        store |= {f"{path}/{'.'.join([at] * ndim)}": bytes(4 * 2**ndim) for at in "01"}
    if consolidated:
        consolidate_metadata(store)
    if version == 3:
        migrate_2to3(store, remove_v2=True)
    return store


def hierarchy(ndim: int = 1, *, groups: int = 0, consolidated: bool = False, version: int = 2) -> dict[str, bytes]:
    """Return 100 arrays with attributes and two chunks each, in the root or in so many groups."""
    return dict(_built(ndim, groups, consolidated, version))


def of_version_1() -> dict[str, bytes]:
    names = {"meta": _OLD, "attrs": b"{}", "0": b"chunk"}
    return {f"a{n}/{name}": value for n in range(ARRAYS) for name, value in names.items()}


def of_n5(**options: Any) -> dict[str, bytes]:
    inner: dict[str, bytes] = {}
    items = hierarchy(**options)
    N5View(inner).update(dict(sorted(items.items(), key=lambda item: (".z" not in item[0], len(item[0])))))
    return inner


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    counter = Waits()
    counter.watch(monkeypatch)
    return counter


class Case(NamedTuple):
    """What is done with distant stores of these items, and the questions that depend on those before."""

    items: Callable[[], dict[str, bytes]]
    act: Callable[..., object]
    ideal: tuple[int, ...]


def check(waits: Waits, case: Case, *others: Any) -> None:
    """Fail if a verb waits too often."""
    store = DistantStore(waits, case.items())
    waits.reset()
    case.act(store, *others)
    assert waits.number <= MOST * waits_of(*case.ideal), "\n".join([f"{waits.number} waits", *waits.steps()])


#: Of arrays in the root: its listing, its document, theirs.
WALK = (1, 1, ARRAYS)
#: For each node its attributes and what is in the way, for each group what it repeats; then the new documents.
IN_PLACE = (*WALK, 2 * ARRAYS + 3, ARRAYS, 1)


@each_of(
    "name, case",
    {
        "in place": Case(hierarchy, migrate_2to3, IN_PLACE),
        "a dry run": Case(hierarchy, lambda store: migrate_2to3(store, dry_run=True), IN_PLACE[:-2]),
        "names of chunks": Case(lambda: hierarchy(2), migrate_2to3, (*IN_PLACE, ARRAYS)),
        "groups": Case(
            lambda: hierarchy(groups=5, consolidated=True),
            migrate_2to3,
            (1, 1, 5, 5, ARRAYS, 2 * (ARRAYS + 6) + 6, ARRAYS, 5, 1),
        ),
        "with removal": Case(
            lambda: hierarchy(consolidated=True),
            lambda store: migrate_2to3(store, remove_v2=True),
            # Four documents are looked for at each node, and compared before they are deleted, level by level.
            (*WALK, 4 * ARRAYS, ARRAYS, 1, 1, 1, 1, 1, ARRAYS, 1, ARRAYS, 1),
        ),
        "version 1": Case(of_version_1, migrate_1to2, (1, ARRAYS, 3 * ARRAYS, ARRAYS, ARRAYS, 1, 1)),
        "version 1 to 3": Case(
            of_version_1,
            migrate_1to3,
            # The second step is planned before the first is done, and again afterwards.
            (
                1,
                ARRAYS,
                3 * ARRAYS,
                1,
                ARRAYS,
                ARRAYS,
                *(ARRAYS, ARRAYS, 1, 1),
                *(1, ARRAYS, ARRAYS, 2 * ARRAYS, ARRAYS),
            ),
        ),
    }.items(),
)
def test_a_migration_asks_all_that_is_independent_at_once(waits: Waits, name: str, case: Case) -> None:
    check(waits, case)


#: The plan of a migration to elsewhere: attributes, what is in the way there, consolidated metadata.
TO_DEST = (*WALK, ARRAYS + 1, ARRAYS + 1, 1)


@each_of(
    "name, case",
    {
        # Three listings, chunks that the server copies, documents.
        "a copy": Case(hierarchy, migrate_2to3, (*TO_DEST, 1, 1, 1, 2 * ARRAYS, ARRAYS, 1)),
        "a view": Case(
            hierarchy,
            lambda store, dest: migrate_2to3(store, V2View(dest)),
            # The root is read and written, then the arrays, since a chunk's name depends on its array's document.
            (*WALK, ARRAYS + 1, 1, ARRAYS, 1, 1, 1, 1, 1, 2 * ARRAYS, ARRAYS, ARRAYS, 2 * ARRAYS, 2 * ARRAYS),
        ),
        "version 3 to 2": Case(
            lambda: hierarchy(version=3),
            migrate_3to2,
            (1, 1, 1, 3 * ARRAYS, 1, 1, ARRAYS, 2 * ARRAYS, 2 * ARRAYS, ARRAYS, ARRAYS, ARRAYS, 1),
        ),
    }.items(),
)
def test_a_migration_to_elsewhere_asks_at_once(waits: Waits, name: str, case: Case) -> None:
    check(waits, case, DistantStore(waits))


def test_a_second_migration_to_elsewhere_asks_at_once(waits: Waits) -> None:
    done: dict[str, bytes] = {}
    migrate_2to3(hierarchy(), done)
    again = Case(hierarchy, migrate_2to3, (*TO_DEST, 1, 1, 1, 1, 2 * ARRAYS, 2 * ARRAYS))
    check(waits, again, DistantStore(waits, done))


def flat() -> dict[str, bytes]:
    return {f"x/{n}": b"1" for n in range(10 * ARRAYS)}


@each_of(
    "name, case",
    {
        "sizes of chunks": Case(hierarchy, lambda store: tree(store, sizes=True), (1, 1, *WALK, ARRAYS)),
        "verify": Case(hierarchy, verify, (1, 2 * ARRAYS, 2 * ARRAYS)),
        "consolidate": Case(lambda: hierarchy(2), consolidate_metadata, (1, 2 * ARRAYS, ARRAYS, 1)),
        "info": Case(hierarchy, lambda store: describe_node(store, "a0"), (1, 1, 1)),
        "move": Case(
            lambda: hierarchy(groups=2, consolidated=True),
            lambda store: move(store, "g0", "g3"),
            # Of what repeats it; the two places; the copies; what was moved; what repeats it, anew.
            (4, 1, 1, 1, 1, 2 * ARRAYS, 1, 1, ARRAYS, 1, 1),
        ),
        "rename": Case(flat, lambda store: rename(store, "x", "y"), (1, 1, 1, 10 * ARRAYS, 1)),
        "rmdir": Case(flat, lambda store: rmdir(store, "x"), (1, 1)),
        "delete_node": Case(lambda: hierarchy(groups=1), lambda store: delete_node(store, "g0"), (3, 1, 1, 1)),
        "copy": Case(flat, lambda store: copy_store(store, {}), (1, 10 * ARRAYS)),
        "copy to a view": Case(
            hierarchy,
            lambda store: copy_store(store, V2View(DistantStore(store.waits))),
            (1, 1, 1, 1, 1, 2 * ARRAYS, ARRAYS, ARRAYS, 2 * ARRAYS, 2 * ARRAYS),
        ),
    }.items(),
)
def test_a_verb_asks_all_that_is_independent_at_once(waits: Waits, name: str, case: Case) -> None:
    check(waits, case)


@each_of(
    "name, case",
    {
        "version 2": Case(hierarchy, tree, (1, 1, *WALK)),
        # Consolidated metadata, of which there is none; at each node what would be of version 2, and zarr.json.
        "version 3": Case(lambda: hierarchy(version=3), tree, (1, 1, 1, 1, 3 * ARRAYS)),
        "groups": Case(lambda: hierarchy(groups=20), tree, (1, 1, 1, 1, 20, 20, ARRAYS)),
        "V2View": Case(lambda: hierarchy(version=3), lambda store: tree(V2View(store)), (1, 1, *WALK)),
        "V2View of groups": Case(
            lambda: hierarchy(version=3, groups=20), lambda store: tree(V2View(store)), (1, 1, 1, 1, 20, 20, ARRAYS)
        ),
        "V3View": Case(hierarchy, lambda store: tree(V3View(store)), (1, 1, 1, 1, 3 * ARRAYS)),
        "UnshardedView": Case(
            lambda: hierarchy(version=3), lambda store: tree(UnshardedView(store)), (1, 1, 1, 1, 3 * ARRAYS)
        ),
        "N5View": Case(of_n5, lambda store: tree(N5View(store)), (1, 1, *WALK)),
        "N5View of groups": Case(
            lambda: of_n5(groups=20), lambda store: tree(N5View(store)), (1, 1, 1, 1, 20, 20, ARRAYS)
        ),
    }.items(),
)
def test_a_tree_asks_for_all_children_at_once_through_every_view(waits: Waits, name: str, case: Case) -> None:
    check(waits, case)
