"""Random histories with threads, copies, forks, Ctrl-C and reopening: every store ends as a dict does."""

from __future__ import annotations

import itertools
import os
import time

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from tests.support import roster, shared
from zarrstore import DictStore
from zarrstore.keys import parents
from zarrstore.testing import check_against_dict, stateful

NAMES = ("a", "b", "ab", "0", "1", ".zarray")
#: Whose copies are of another place, or none; and those whose threads do not survive a fork, or that refuse the child.
NO_COPIES = {"OpenDALStore", "ObstoreStore"}
NO_FORKS = {"OpenDALStore", "OpenDALStore-files", "ObstoreStore", "ObstoreStore-files"}
NO_FORKS |= {name for name in shared.STORES if name.startswith("DBMStore")}


def play(names, make, reopen, folder, examples, steps=20, seed=None):
    """Play histories on a stack of stores and wrappers of these names."""
    disturbances = {"threads", "interrupt"}
    disturbances |= {"pickle"} if NO_COPIES.isdisjoint(names) else set()
    disturbances |= {"fork"} if NO_FORKS.isdisjoint(names) else set()
    numbers = itertools.count()
    places = []

    def new():
        places.append(folder / str(next(numbers)))
        places[-1].mkdir()
        return make(places[-1])

    check_against_dict(
        new,
        reopen=reopen and (lambda store: reopen(store, places[-1])),
        names=NAMES,
        max_examples=examples,
        steps=steps,
        disturbances=sorted(disturbances),
        seed=seed,
    )


OVER = ("DictStore", "DirectoryStore")
CASES = {name: ([name], make, roster.REOPEN.get(name)) for name, make in shared.STORES.items()}
CASES |= {
    f"{wrapper} over {name}": (
        [name],
        lambda path, wrap=wrap, make=shared.STORES[name]: wrap(make(path), path),
        None,
    )
    for wrapper, wrap in shared.WRAPPERS.items()
    for name in OVER
}


@pytest.mark.parametrize("name", CASES)
def test_a_disturbed_history_ends_as_in_a_dict(name, tmp_path):
    play(*CASES[name], tmp_path, 3)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_many_disturbed_histories_end_as_in_a_dict(name, tmp_path):
    play(*CASES[name], tmp_path, 60, 30, seed=1)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(60))
def test_disturbed_histories_of_stacks_of_three_end_as_in_a_dict(seed, tmp_path):
    name, make = shared.stack_of_three(seed)
    play(name.split(" over "), make, None, tmp_path, 15, seed=seed)


# Bugs that the machine is to find ------------------------------------------------------------------------------------


class Racy(DictStore):
    """Loses what two threads add at once."""

    def _set(self, key, value):
        items = dict(self.root)
        time.sleep(0.0005)
        items[key] = bytes(value)
        self.root.clear()
        self.root.update(items)


class Forgetful(DictStore):
    """Pickles without its values."""

    def __getstate__(self):
        return {**super().__getstate__(), "root": {}}


class Owned(DictStore):
    """Shows nothing to a child."""

    def __init__(self):
        super().__init__()
        self.owner = os.getpid()

    def _keys(self, path):
        return super()._keys(path) if os.getpid() == self.owner else []


class Fragile(DictStore):
    """Deletes the old value before it sets the new one, and lets interrupts come between."""

    def _set(self, key, value):
        self.root.pop(key, None)
        for _ in range(20):
            list(parents(f"{key}/x"))
        super()._set(key, value)


PLANTED = {"threads": Racy, "pickle": Forgetful, "fork": Owned, "interrupt": Fragile}


@pytest.mark.slow
@pytest.mark.parametrize("disturbance", PLANTED)
def test_a_bug_planted_for_each_disturbance_is_found(disturbance):
    machine = stateful._machine(PLANTED[disturbance], ("a",), None, [disturbance])
    limits = settings(
        max_examples=150,
        stateful_step_count=15,
        phases=[Phase.generate],  # found is enough: the shortest history is not asked for
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((AssertionError, Flaky)):
        run_state_machine_as_test(machine, settings=limits)
