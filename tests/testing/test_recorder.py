from __future__ import annotations

import threading

import pytest

from zarrstore import DictStore
from zarrstore.testing import FailingStore, Recorder


def test_a_batch_is_one_event_for_each_key_and_all_began_together() -> None:
    recorder = Recorder()
    store = recorder.watch({}, "s")
    store.setitems({"a": b"1", "b": b"2"})
    store.delitems(["a", "b"])
    assert recorder.order() == [("s", "set", "a"), ("s", "set", "b"), ("s", "delete", "a"), ("s", "delete", "b")]
    assert [event.begun for event in recorder.events] == [0, 0, 2, 2]


def test_a_change_that_failed_is_no_event() -> None:
    recorder = Recorder()
    store = recorder.watch(FailingStore({}, OSError("no")), "s")
    for act in (lambda: store.__setitem__("a", b"1"), lambda: store.setitems({"a": b"1"}), store.flush):
        with pytest.raises(OSError, match="no"):
            act()
    assert recorder.events == []


def test_an_order_that_was_not_kept_fails() -> None:
    recorder = Recorder()
    first, second = recorder.watch({}, "first"), recorder.watch({}, "second")
    first.flush()
    second["x"] = b"1"
    first["y"] = b"1"
    recorder.require_order(("first", "flush"), ("second", "set"), ("first", "set"))
    for steps in [(("second", "set"), ("first", "flush")), (("first", "set"), ("second", "set"))]:
        with pytest.raises(AssertionError, match="did not end before"):
            recorder.require_order(*steps)
    with pytest.raises(AssertionError, match="no event"):
        recorder.require_order(("first", "flush"), ("second", "close"))


def test_two_changes_that_overlap_are_in_no_order() -> None:
    recorder = Recorder()
    begun, ended = threading.Event(), threading.Event()

    class Waiting(DictStore):
        def _set(self, key: str, value: bytes) -> None:
            begun.set()
            assert ended.wait(10)
            super()._set(key, value)

    slow, quick = recorder.watch(Waiting(), "slow"), recorder.watch({}, "quick")
    thread = threading.Thread(target=slow.__setitem__, args=("a", b"1"))
    thread.start()
    assert begun.wait(10)
    quick["a"] = b"1"
    ended.set()
    thread.join()
    with pytest.raises(AssertionError, match="did not end before"):
        recorder.require_order(("quick", "set"), ("slow", "set"))
