"""Calls that overlap, within a number of permits that all batches share."""

from __future__ import annotations

import threading

import pytest

from tests.support.interrupts import each_point
from zarrstore.permits import Permits
from zarrstore.threads import Threads


def test_a_permit_comes_back_after_an_interrupt_at_any_point():
    permits = Permits(1)
    for _ in each_point(lambda: permits.run(lambda: len("abc"))):
        assert permits._tokens.qsize() == 1


def test_all_permits_come_back_after_an_interrupt_at_any_point_of_a_batch():
    permits = Permits(2)

    def act():
        assert permits.map(len, ["a", "bc", ""]) == [1, 2, 0]

    for _ in each_point(act, step=7):
        act()
        assert permits._tokens.qsize() == 2


def test_results_stand_in_the_order_of_the_things_whatever_call_ends_first():
    gates = [threading.Event() for _ in range(4)]

    def act(n):
        if n < 3:
            assert gates[n + 1].wait(60)
        gates[n].set()
        return n

    assert Permits(4).map(act, range(4)) == [0, 1, 2, 3]


def test_the_error_of_a_batch_is_that_of_its_first_thing_and_what_had_not_begun_is_left():
    both = threading.Barrier(2)
    begun = []

    def act(n):
        begun.append(n)
        both.wait(60)
        raise ValueError(n)

    with pytest.raises(ValueError, match=r"^0$") as found:
        Permits(2).map(act, range(1000))
    assert sorted(begun) == [0, 1]
    assert found.value.__context__ is None


def test_two_batches_share_the_permits():
    permits = Permits(3)
    lock = threading.Lock()
    running = most = 0

    def act(n):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return n

    with Threads(2) as threads:
        calls = [threads.submit(permits.map, act, range(300)) for _ in range(2)]
        assert [call.result(60) for call in calls] == [list(range(300))] * 2
    assert most <= 3


def test_a_long_batch_gives_its_permit_back_between():
    class Counted(Permits):
        __slots__ = ("n_taken",)

        def run(self, act, *args):
            self.n_taken += 1
            return super().run(act, *args)

    permits = Counted(1)
    permits.n_taken = 0
    assert permits.map(len, ["ab"] * 20) == [2] * 20
    assert permits.n_taken == 3  # once for eight calls, so that another batch comes in between


def test_a_batch_is_one_task_a_thread_and_not_one_a_call(monkeypatch):
    tasks = []
    submit = Threads.submit
    monkeypatch.setattr(Threads, "submit", lambda self, *args: tasks.append(args) or submit(self, *args))
    assert Permits(4).map(len, ["ab"] * 500) == [2] * 500
    assert len(tasks) == 4
