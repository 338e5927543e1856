"""Coroutines for ordinary functions, and blocking stores for coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import socket
import threading
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest

from zarrstore import DictStore
from zarrstore.bridges.aio import AsyncMapping, Batcher, LoopThread, shared_loop
from zarrstore.errors import InvalidKeyError
from zarrstore.testing import CountingStore, FailingStore, SlowStore
from zarrstore.wrappers.base import Wrapper

pytestmark = pytest.mark.timeout(60)


async def value(result):
    await asyncio.sleep(0)
    return result


class TestLoopThread:
    def test_any_thread_gets_its_result_or_its_error(self):
        async def fail():
            raise LookupError("no")

        with LoopThread() as loop:
            results = []
            threads = [threading.Thread(target=lambda n=n: results.append(loop.run(value(n)))) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(results) == list(range(8))
            with pytest.raises(LookupError, match="no"):
                loop.run(fail())

    def test_waiting_for_oneself_is_refused_instead_of_hanging(self):
        with LoopThread() as loop:

            async def outer():
                loop.run(value(1))

            with pytest.raises(RuntimeError, match="await it instead"):
                loop.run(outer())

    def test_what_takes_too_long_is_cancelled(self):
        cancelled = threading.Event()

        async def sleep():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        with LoopThread() as loop:
            loop.run(value(1))  # the thread runs: what is asked now begins soon
            with pytest.raises(TimeoutError):
                loop.run(sleep(), timeout=0.5)
            assert cancelled.wait(20)

    def test_it_can_be_closed_twice_used_again_and_pickled(self):
        loop = LoopThread()
        assert loop.run(value(1)) == 1
        loop.close()
        loop.close()
        assert loop.run(value(2)) == 2
        assert pickle.loads(pickle.dumps(loop)).run(value(3)) == 3
        loop.close()

    def test_closing_ends_whoever_waits(self):
        loop = LoopThread()
        ended: list[BaseException | None] = []

        def wait(coroutine):
            try:
                loop.run(coroutine)
                ended.append(None)
            except RuntimeError as exc:
                ended.append(exc)

        async def stubborn():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
                return 1

        waiting = [asyncio.sleep(60) for _ in range(8)] + [stubborn()]
        threads = [threading.Thread(target=wait, args=(one,), daemon=True) for one in waiting]
        for thread in threads:
            thread.start()
        while len(loop._waited_for) < len(threads):
            time.sleep(0.001)
        loop.close()
        for thread in threads:
            thread.join(10)
        assert len(ended) == len(threads)
        assert sum(exc is None for exc in ended) == 1
        assert all("closed before" in str(exc) for exc in ended if exc is not None)
        assert loop.run(value(2)) == 2  # and may be used again
        loop.close()

    def test_closing_while_threads_come_leaves_none_waiting(self):
        loop, stop, finished = LoopThread(), threading.Event(), []

        def ask():
            while not stop.is_set():
                with contextlib.suppress(RuntimeError):
                    assert loop.run(value(7)) == 7
            finished.append(1)

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            loop.close()
        stop.set()
        for thread in threads:
            thread.join(10)
        loop.close()
        assert len(finished) == 6

    def test_it_is_not_closed_by_what_runs_on_it(self):
        with LoopThread() as loop:

            async def close():
                loop.close()

            with pytest.raises(RuntimeError, match="cannot close"):
                loop.run(close())

    def test_a_forked_child_has_a_loop_of_its_own(self):
        assert shared_loop().run(value(1)) == 1
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if shared_loop().run(value(7), timeout=10) == 7 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0

    def test_what_a_forked_child_closes_stays_open_in_the_parent(self):
        here, there = socket.socketpair()
        with there, LoopThread() as loop:
            reader, writer = loop.run(asyncio.open_connection(sock=here))
            child = os.fork()
            if child == 0:
                try:
                    writer.close()
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            there.sendall(b"1")
            assert loop.run(reader.readexactly(1), timeout=20) == b"1"
            writer.close()


class TestBatcher:
    def test_what_is_asked_at_one_moment_is_one_call(self):
        calls = []

        async def main():
            ask = Batcher(lambda items: calls.append(list(items)) or [2 * n for n in items], together=True)
            return await asyncio.gather(*(ask(n) for n in range(50)))

        assert asyncio.run(main()) == [2 * n for n in range(50)]
        assert calls == [list(range(50))]

    def test_slow_items_wait_side_by_side_and_quick_ones_share_a_call(self, monkeypatch):
        clock = [0.0]
        monkeypatch.setattr("zarrstore.bridges.batcher.time", SimpleNamespace(perf_counter=lambda: clock[0]))
        met = threading.Barrier(16)

        def make(seconds):
            calls = []

            def act(items):
                calls.append(len(items))
                clock[0] += seconds * len(items)
                if seconds == 0.05 and len(calls) > 1:
                    met.wait(20)  # for the fifteen others, who wait at the same time
                return items

            return calls, act

        async def main(act):
            ask = Batcher(act)
            await ask(0)  # from now on it is known how long one takes
            await asyncio.gather(*(ask(n) for n in range(16)))

        calls, act = make(0.05)
        asyncio.run(main(act))
        assert calls == [1] * 17
        calls, act = make(0.00001)
        asyncio.run(main(act))
        assert len(calls) <= 4

    def test_an_error_reaches_only_whom_it_concerns(self):
        calls = []

        def act(items):
            calls.append(list(items))
            if 3 in items:
                raise ValueError("3")
            return items

        async def main():
            ask = Batcher(act, together=True)
            return await asyncio.gather(*(ask(n) for n in range(5)), return_exceptions=True)

        results = asyncio.run(main())
        assert results[:3] + results[4:] == [0, 1, 2, 4]
        assert isinstance(results[3], ValueError)
        assert calls[0] == [0, 1, 2, 3, 4]
        assert sorted(calls[1:]) == [[0], [1], [2], [3], [4]]

    def test_one_who_does_not_wait_any_more_disturbs_nobody(self):
        started, go_on = threading.Event(), threading.Event()

        def act(items):
            started.set()
            go_on.wait(10)
            return items

        async def main():
            ask = Batcher(act, together=True)
            tasks = [asyncio.ensure_future(ask(n)) for n in range(3)]
            await asyncio.get_running_loop().run_in_executor(None, started.wait)
            tasks[1].cancel()
            go_on.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

        first, second, third = asyncio.run(main())
        assert (first, type(second), third) == (0, asyncio.CancelledError, 2)

    def test_several_loops_share_one_object(self):
        ask = Batcher(lambda items: [n + 1 for n in items], together=True)
        results = []

        async def main():
            return sum(await asyncio.gather(*(ask(n) for n in range(20))))

        threads = [threading.Thread(target=lambda: results.append(asyncio.run(main()))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [210] * 6


TREE = {"a/0": b"1", "a/1": b"22", "b": b"333"}


@pytest.mark.parametrize("in_thread", [True, False])
class TestAsyncMapping:
    def test_it_does_what_the_mapping_does(self, in_thread):
        held = dict(TREE)

        async def main():
            store = AsyncMapping(held, in_thread)
            assert await store.get("b") == b"333"
            assert await store.get("absent") is None
            assert await store.get("../x") is None
            assert await store.getitems(["b", "absent"]) == {"b": b"333"}
            assert await store.getrange("b", 1, 2) == b"3"
            assert await store.getrange("absent", 1) is None
            assert await store.getsuffix("a/1", 1) == b"2"
            assert (await store.nbytes("a/1"), await store.nbytes("a")) == (2, None)
            assert (await store.contains("b"), await store.contains("a")) == (True, False)
            assert sorted(await store.keys_below()) == sorted(TREE)
            assert (await store.listdir("a"), await store.is_empty("a"), await store.is_empty("x")) == (
                ["0", "1"],
                False,
                True,
            )
            await store.set("c/0", bytearray(b"new"))
            await store.setitems({"c/1": b"new"})
            await store.discard("b")
            await store.discard("b")
            await store.discard("../b")
            await store.rename("c", "d")
            await store.rmdir("a")
            assert held == {"d/0": b"new", "d/1": b"new"}
            await store.delitems(["d/0"])
            await store.flush()
            with pytest.raises(InvalidKeyError):
                await store.set("../x", b"")
            with pytest.raises(TypeError):
                await store.set("x", "text")
            await store.clear()
            assert held == {}
            await store.close()

        asyncio.run(main())

    def test_an_error_is_the_error(self, in_thread):
        async def main():
            store = AsyncMapping(FailingStore(dict(TREE), PermissionError("403")), in_thread)
            for act in (store.get("b"), store.contains("b"), store.set("b", b""), store.discard("b"), store.listdir()):
                with pytest.raises(PermissionError):
                    await act

        asyncio.run(main())

    def test_it_pickles(self, in_thread):
        copy = pickle.loads(pickle.dumps(AsyncMapping(DictStore(dict(TREE)), in_thread)))
        assert asyncio.run(copy.get("b")) == b"333"


def test_a_value_is_what_it_was_when_it_was_set():
    async def main():
        store = AsyncMapping(SlowStore({}, 0.01))
        value = bytearray(b"then")
        task = asyncio.ensure_future(store.set("a", value))
        await asyncio.sleep(0)
        value[:] = b"late"
        await task
        return await store.get("a")

    assert asyncio.run(main()) == b"then"


def test_a_hundred_reads_of_a_remote_store_are_one_batch_and_one_wait():
    inner = CountingStore({f"a/{n}": b"x" for n in range(100)})
    store = AsyncMapping(SlowStore(inner, 0))

    async def main():
        return await asyncio.gather(*(store.get(f"a/{n}") for n in range(101)))

    assert asyncio.run(main()) == [b"x"] * 100 + [None]
    assert inner.calls == {"_get_many": 1}


def test_writes_and_deletes_are_batched_too():
    inner = CountingStore({})
    store = AsyncMapping(SlowStore(inner, 0.0))

    async def main():
        await asyncio.gather(*(store.set(f"a/{n}", b"x") for n in range(30)))
        await asyncio.gather(*(store.discard(f"a/{n}") for n in range(31)))

    asyncio.run(main())
    assert inner.calls == {"_set_many": 1, "_delete_many": 1}


def test_the_event_loop_runs_on_while_a_store_waits():
    async def main():
        store = AsyncMapping(SlowStore({"a": b"1"}, 0.2))
        reading = asyncio.ensure_future(store.get("a"))
        steps = 0
        while not reading.done():
            await asyncio.sleep(0.005)
            steps += 1
        return steps

    assert asyncio.run(main()) > 5


def test_what_does_not_block_is_called_without_a_thread():
    seen = set()

    class Watching(Wrapper):
        def _get(self, key):
            seen.add(threading.current_thread())
            return super()._get(key)

    inner = Watching(DictStore())
    inner["a"] = b"1"
    asyncio.run(AsyncMapping(inner).get("a"))
    assert seen == {threading.current_thread()}
    asyncio.run(AsyncMapping(inner, in_thread=True).get("a"))
    assert len(seen) == 2
    with pytest.raises(ValueError, match="in_thread"):
        AsyncMapping(inner, in_thread="sometimes")


def test_event_loops_die_with_their_users():
    store = AsyncMapping(SlowStore({"a": b"1"}, 0))
    loops = []

    async def main():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert await store.get("a") == b"1"
        await store.set("b", b"2")

    for _ in range(3):
        asyncio.run(main())
    for _ in range(100):  # the thread that answered last may still be on its way out of the call
        gc.collect()
        if [loop() for loop in loops] == [None] * 3:
            return
        time.sleep(0.02)
    raise AssertionError(f"still alive: {[loop() for loop in loops]}")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_stores_within_stores_do_not_take_each_others_threads(depth):
    """Each level waits in a thread for a coroutine of the level within, which needs a thread too."""

    class Nested(DictStore):
        capabilities = replace(DictStore.capabilities, blocking=True)

        def __init__(self, within):
            super().__init__()
            self.within = within

        def _get(self, key):
            return shared_loop().run(self.within.get(key), timeout=30)

    store = AsyncMapping(SlowStore({str(n): b"1" for n in range(64)}, 0.001))
    for _ in range(depth):
        store = AsyncMapping(Nested(store))

    async def main():
        return await asyncio.gather(*(store.getitems([str(n)]) for n in range(64)))

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [{str(n): b"1"} for n in range(64)]
