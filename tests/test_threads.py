"""Threads and waiting for them: an interrupt at any point leaves nobody waiting for ever."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from concurrent.futures import CancelledError, Executor, wait
from queue import SimpleQueue

import pytest

import zarrstore
from tests.support.interrupts import each_point
from zarrstore.bridges.aio import LoopThread
from zarrstore.threads import Latch, Starter, Threads
from zarrstore.tools.copy import copy_store

# Some interrupts come in finalizers of the standard library, where Python drops them and says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_the_executor_is_free_after_an_interrupt_at_any_point_of_a_map():
    results = []

    def act():
        with Threads(2) as threads:
            results.append(threads)
            list(threads.map(pow, [2, 3, 4], [2, 2, 2]))

    for point in each_point(act):
        if results:
            threads = results.pop()
            threads.shutdown(cancel_futures=True)  # waits: a thread that hangs would end the test by its timeout
            assert threads._closed, point
            results.clear()


def test_an_interrupt_at_any_point_of_a_wait_for_one_call_lets_the_next_be_made():
    with Threads(1) as threads:

        def act():
            assert threads.submit(pow, 2, 3).result() == 8

        for _ in each_point(act):
            assert threads.submit(pow, 2, 2).result() == 4


def test_the_executor_of_the_standard_library_is_seen_to_hang():
    """Without this the tests above might see nothing."""
    script = textwrap.dedent("""
        import os, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from tests.support.interrupts import each_point

        results = []

        def act():
            pool = ThreadPoolExecutor(2)
            results.append(pool)
            list(pool.map(time.sleep, [0.01, 0.01]))

        for point in each_point(act):
            for pool in results:
                end = threading.Thread(target=pool.shutdown, daemon=True)
                end.start()
                end.join(2)
                if end.is_alive():
                    print("hangs", flush=True)
                    os._exit(0)
            results.clear()
        os._exit(1)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, cwd=os.getcwd())
    assert done.stdout == "hangs\n", done.stderr


def test_a_latch_lets_all_go_on_after_an_interrupt_at_any_point_of_a_wait_or_a_set():
    latch = Latch()
    latch.set()
    for _ in each_point(latch.wait):
        assert latch.wait(60)
    for _ in each_point(lambda: Latch().set()):
        pass
    results = []

    def act():
        results.append(Latch())
        results[-1].set()

    for _ in each_point(act):
        while results:
            latch = results.pop()
            latch.set()  # once more, as whoever cleans up does
            assert latch.is_set()
            assert latch.wait(60)


def test_a_thread_that_was_interrupted_at_its_start_is_started_by_the_next_call():
    results = []

    def act():
        ran = SimpleQueue()
        results.append((Starter(lambda: ran.put(True), "t"), ran))
        results[-1][0].start()

    for _ in each_point(act):
        while results:
            starter, ran = results.pop()
            starter.start()
            assert ran.get(timeout=60)
            starter.thread.join()
            assert ran.empty()


def test_an_event_loop_runs_on_after_an_interrupt_at_any_point_of_a_call():
    async def answer():
        return 42

    def act():
        assert loop.run(answer()) == 42

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that was not begun was never awaited
        with LoopThread() as loop:
            for _ in each_point(act):
                act()
        for _ in each_point(lambda: LoopThread().run(answer())):
            pass


def test_a_copy_by_threads_is_made_again_after_an_interrupt_at_any_point():
    source = {f"a/{i}": b"%d" % i for i in range(9)}
    dest = zarrstore.DictStore()

    def act():
        copy_store(source, dest, workers=2, if_exists="replace")

    for _ in each_point(act, step=97):
        act()
        assert dict(dest) == source
        dest.clear()


def test_a_call_is_a_future():
    with Threads(2) as threads:
        begun, go_on = Latch(), Latch()
        first = threads.submit(lambda: (begun.set(), go_on.wait(60), 1)[-1])
        assert begun.wait(60)
        assert not first.done()
        assert not first.cancel()
        with pytest.raises(TimeoutError):
            first.result(0.001)
        with pytest.raises(TimeoutError):
            first.exception(0.001)
        ended = SimpleQueue()
        first.add_done_callback(ended.put)
        go_on.set()
        assert ended.get(timeout=60) is first
        assert (first.result(), first.exception(), first.done(), first.cancel()) == (1, None, True, False)
        first.add_done_callback(ended.put)
        assert ended.get(timeout=60) is first
        failing = threads.submit(int, "x")
        with pytest.raises(ValueError, match="'x'"):
            failing.result()
        assert isinstance(failing.exception(), ValueError)
        assert wait([first, failing]).not_done == set()


def test_calls_that_have_not_begun_are_cancelled():
    go_on = Latch()
    threads = Threads(1)
    begun = Latch()
    first = threads.submit(lambda: (begun.set(), go_on.wait(60)))
    assert begun.wait(60)
    second, third = threads.submit(pow, 2, 3), threads.submit(pow, 2, 4)
    assert second.cancel()
    assert second.cancelled()
    assert second.done()
    threads.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(CancelledError):
        third.result(60)
    go_on.set()
    threads.shutdown()
    assert first.done()
    with pytest.raises(RuntimeError, match="no more calls"):
        threads.submit(pow, 2, 3)


def test_no_more_threads_than_wanted_and_none_without_a_call():
    before = set(threading.enumerate())
    with Threads(64) as threads:
        assert set(threading.enumerate()) <= before  # those of other tests may end meanwhile
        for _ in range(100):
            threads.submit(pow, 2, 3).result()
        # Calls one after the other: a thread that waits is used again.
        assert len(threads._crew.idents) < 16
    assert isinstance(threads, Executor)
    with pytest.raises(ValueError, match="at least one"):
        Threads(0)


def test_an_executor_that_nobody_holds_ends_its_threads():
    threads = Threads(1)
    threads.submit(pow, 2, 3).result()
    ended = threads._crew.ended
    del threads
    gc.collect()
    assert ended.wait(60)


def test_an_error_is_not_held_by_itself():
    class Payload:
        pass

    def fail():
        payload = Payload()
        held.append(weakref.ref(payload))
        raise ValueError

    held = []
    gc.disable()
    try:
        with Threads(1) as threads:
            try:
                threads.submit(fail).result()
            except ValueError:
                pass
        assert held[0]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_waits_nor_submits():
    with Threads(1) as threads:
        threads.submit(pow, 2, 3).result()
        pid = os.fork()
        if pid == 0:
            try:
                threads.submit(pow, 2, 3)
            except RuntimeError:
                threads.shutdown()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_worker_that_shuts_its_own_executor_down_does_not_wait_for_itself():
    threads = Threads(1)
    threads.submit(threads.shutdown).result(60)


def test_where_the_machine_has_no_more_threads_the_calls_end_with_that(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads = Threads(2)
    with pytest.raises(RuntimeError, match="can't start"):
        threads.submit(pow, 2, 3).result(60)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="can't start"):
        Starter(lambda: None, "t").start()
