"""What threads see of any store that says thread_safe is what one after the other could have seen."""

from __future__ import annotations

import contextlib

import pytest

from tests.support import shared
from tests.support.histories import play, restless, violations
from zarrstore import DictStore, as_store
from zarrstore.stores.directory import DirectoryStore

OVER = {"DictStore": lambda path: DictStore(), "DirectoryStore": lambda path: DirectoryStore(path / "data")}

#: Name -> (maker, whether directories may go).
CASES = {name: (make, True) for name, make in shared.STORES.items()}
CASES |= {name: (make, False) for name, make in shared.VIEWS.items()}
CASES |= {
    f"{wrapper} over {name}": (lambda path, wrap=wrap, make=make: wrap(make(path), path), True)
    for wrapper, wrap in shared.WRAPPERS.items()
    for name, make in OVER.items()
}
CASES |= {f"stack {seed}": (shared.stack_of_three(seed)[1], True) for seed in range(4)}
STACKS = 60


def check(make, folder, ops, *, rmdir=True, seed=0):
    """Play on a store of a new folder; return what could not have been."""
    with contextlib.closing(as_store(make(folder))) as store:
        if not store.capabilities.thread_safe:
            return []
        with restless():
            history = play(store, ops=ops, keys=shared.CHUNKS, rmdir=rmdir, seed=seed)
        return violations(history)


@pytest.mark.parametrize("name", CASES)
def test_a_store_that_threads_may_share_is_linearizable(name, tmp_path):
    make, rmdir = CASES[name]
    assert check(make, tmp_path, 600, rmdir=rmdir) == []


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CASES)
def test_twenty_thousand_operations_are_linearizable(name, tmp_path):
    make, rmdir = CASES[name]
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        assert check(make, folder, 4_000, rmdir=rmdir, seed=seed) == [], seed


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(STACKS))
def test_stacks_of_three_wrappers_are_linearizable(seed, tmp_path):
    name, make = shared.stack_of_three(seed)
    assert check(make, tmp_path, 4_000, seed=seed) == [], name
