"""What another thread writes during a commit or a rename of an overlay is neither lost nor undone."""

from __future__ import annotations

import os
import pickle
import threading

import pytest

from tests.support import crash
from zarrstore import DictStore
from zarrstore.errors import UnsupportedOperation
from zarrstore.wrappers.base import Wrapper
from zarrstore.wrappers.overlay import OverlayStore

LOWER = {"a/0": b"0", "a/1": b"1", "a/2": b"2", "b/0": b"3", "b/1": b"4"}


class Stepping(Wrapper):
    """Calls ``step(method)`` before each call that a commit makes."""

    step = staticmethod(lambda method: None)

    def _passed(self, method, *args):
        self.step(method)
        return getattr(self.inner, method)(*args)

    def _set_many(self, items):
        return self._passed("_set_many", items)

    def _get_many(self, keys):
        return self._passed("_get_many", keys)

    def _delete_many(self, keys):
        return self._passed("_delete_many", list(keys))

    def _rmdir(self, path):
        return self._passed("_rmdir", path)

    def _listdir(self, path):
        return self._passed("_listdir", path)

    def _flush(self):
        return self._passed("_flush")


def overlay():
    """Return an overlay with changes, and the two stores below and above."""
    lower, upper = Stepping(DictStore(dict(LOWER))), Stepping(DictStore())
    store = OverlayStore(lower, upper)
    store["a/0"] = b"new"
    store["c/0"] = b"new"
    del store["a/1"]
    store.rmdir("b")
    return store, lower, upper


def steps_of(act):
    """Return how many steps `act` takes."""
    store, lower, upper = overlay()
    calls = []
    lower.step = upper.step = calls.append
    act(store)
    return len(calls)


def writes_during_step(store, lower, upper, act, number, write):
    """Let another thread write at a step of `act`. It may wait for the end of `act`, or be done before."""
    count = 0
    thread = threading.Thread(target=write)

    def step(method):
        nonlocal count
        count += 1
        if count == number and threading.current_thread() is not thread:
            thread.start()
            thread.join(0.05)  # where it waits for the end of `act`, waiting longer here would show nothing more

    lower.step = upper.step = step
    act(store)
    lower.step = upper.step = lambda method: None
    thread.join(60)
    assert not thread.is_alive()


def commit(store):
    store.commit()


@pytest.mark.parametrize("number", range(1, steps_of(commit) + 1))
def test_what_is_written_during_a_commit_stays(number):
    store, lower, upper = overlay()

    def write():
        store["late"] = b"late"
        store["c/0"] = b"newer"
        store["b/1"] = b"again"
        del store["a/2"]
        store.setitems({"a/0": b"newer"})

    writes_during_step(store, lower, upper, commit, number, write)
    expected = {"late": b"late", "c/0": b"newer", "b/1": b"again", "a/0": b"newer"}
    assert dict(store) == expected
    assert dict(OverlayStore(lower, upper)) == expected
    store.commit()
    assert (dict(lower), dict(upper)) == (expected, {})


def rename(store):
    store.rename("a", "moved")


@pytest.mark.parametrize("number", range(1, steps_of(rename) + 1))
def test_what_is_written_below_the_source_of_a_rename_is_at_one_of_both_places(number):
    store, lower, upper = overlay()

    def write():
        store["a/late"] = b"late"
        store["a/0"] = b"newer"

    writes_during_step(store, lower, upper, rename, number, write)
    found = dict(store)
    for name, value in {"late": b"late", "0": b"newer"}.items():
        assert value in (found.get(f"a/{name}"), found.get(f"moved/{name}"))


def test_a_rollback_beside_a_batch_takes_back_all_or_nothing_of_it():
    store, _lower, _upper = overlay()
    begun, rolled_back = threading.Event(), threading.Event()

    def items():
        yield "d/0", b"0"
        begun.set()
        rolled_back.wait(0.05)
        yield "d/1", b"1"

    thread = threading.Thread(target=lambda: store.setitems(items()))
    thread.start()
    assert begun.wait(60)
    store.rollback()
    rolled_back.set()
    thread.join(60)
    assert dict(store) == LOWER


def test_a_commit_within_a_write_of_the_same_thread_is_refused():
    store, lower, _upper = overlay()

    def items():
        yield "d/0", b"0"
        store["d/2"] = b"2"  # a write within a write is an ordinary thing
        with pytest.raises(UnsupportedOperation, match="when the write has returned"):
            store.commit()
        yield "d/1", b"1"

    store.setitems(items())
    assert dict(lower) == LOWER
    assert store.listdir("d") == ["0", "1", "2"]
    store.commit()
    assert lower.listdir("d") == ["0", "1", "2"]


def test_a_write_within_a_write_does_not_wait_for_a_commit_that_waits_for_both():
    store, lower, _upper = overlay()
    waiting = threading.Event()

    def items():
        yield "d/0", b"0"
        committing.start()
        assert waiting.wait(60)
        store["d/1"] = b"1"

    def commit_alone():
        waiting.set()
        store.commit()

    committing = threading.Thread(target=commit_alone)
    store.setitems(items())
    committing.join(60)
    assert not committing.is_alive()
    assert lower.listdir("d") == ["0", "1"]


def test_a_copy_and_a_forked_child_do_not_wait_for_the_threads_of_others():
    store = OverlayStore(DictStore(dict(LOWER)), DictStore())
    found = {}

    def items():
        yield "d/0", b"0"
        other = pickle.loads(pickle.dumps(store))
        other["e"] = b"1"
        other.commit()
        found["pickle"] = other.lower["e"]
        if hasattr(os, "fork"):
            found["child"] = crash._in_child(commit_in_child)

    def commit_in_child():
        store["f"] = b"1"
        store.commit()
        return {"keys": sorted(store.lower.listdir())}

    store.setitems(items())
    assert found["pickle"] == b"1"
    assert "f" in found.get("child", {"keys": ["f"]})["keys"]
