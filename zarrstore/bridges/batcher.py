"""Threads for blocking calls that coroutines wait for, and requests gathered into few calls."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

__all__ = ["Batcher", "in_thread"]

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

# The loop's own pool decodes chunks for zarr 3; if stores waited in it, they would stop the decoding.
#
# A call that waits in a thread may itself wait for a coroutine that needs a thread: a mapping over a store of zarr 3
# over a mapping. If both took their thread from one pool, enough outer calls would take all of them, and the inner ones
# would wait for ever. So each depth has a pool of its own. The depth goes with the context, which asyncio copies from
# the thread that submits a coroutine.
_THREADS = 32
_depth: ContextVar[int] = ContextVar("zarrstore-aio-depth", default=0)
_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _executor(depth: int) -> ThreadPoolExecutor:
    pool = _pools.get(depth)
    if pool is None:
        with _pools_lock:
            pool = _pools.get(depth)
            if pool is None:
                pool = _pools[depth] = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"zarrstore-aio-{depth}")
    return pool


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a thread of the pool of this depth; what it waits for takes threads of the next."""
    depth = _depth.get()
    return await asyncio.get_running_loop().run_in_executor(_executor(depth), _at_depth, depth + 1, function, *args)


def _at_depth(depth: int, function: Callable[..., T], *args: Any) -> T:
    token = _depth.set(depth)
    try:
        return function(*args)
    finally:
        _depth.reset(token)


def _forget_pools() -> None:
    # No thread but the one that forked runs in the child, and the lock may have been held.
    global _pools_lock
    _pools.clear()
    _pools_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


class _Lane(Generic[Item, Result]):
    """What one event loop asked of a Batcher, at one depth of threads; it keeps no event loop alive."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self.alone: list[tuple[Item, asyncio.Future[Result]]] = []
        self.running = 0
        self.due = False


class Batcher(Generic[Item, Result]):
    """Requests that coroutines make at one moment, gathered into few calls of a blocking function in threads.

    Parameters
    ----------
    act : callable
        ``act(items) -> results``, one for each item, in order.
    together : bool, default False
        A call for many items takes hardly longer than one for one: `act` overlaps its waits. Otherwise the time that
        items were seen to take decides how many go into one call: about 2 ms of work, so that the 50 µs which a thread
        costs are spread over quick items, and slow ones wait in threads side by side.

    Notes
    -----
    A call that fails is repeated for each of its items alone, so an error reaches only whom it concerns. Each event
    loop has its own queue. The items of one call are in the order in which they were asked.

    Examples
    --------
    >>> calls = []
    >>> def squares(numbers):
    ...     calls.append(numbers)
    ...     return [n * n for n in numbers]
    >>> async def main():
    ...     ask = Batcher(squares, together=True)
    ...     return await asyncio.gather(ask(1), ask(2), ask(3))
    >>> asyncio.run(main()), calls
    ([1, 4, 9], [[1, 2, 3]])
    """

    LARGEST = 256
    #: Calls at a time. Quick items wait for a call to end rather than each pay for a thread of its own.
    SIDE_BY_SIDE = 16
    QUICK_SIDE_BY_SIDE = 2
    #: Seconds below which an item is quick, and seconds of work that are worth a thread.
    QUICK = 0.0005
    WORTH = 0.002

    def __init__(self, act: Callable[[list[Item]], Sequence[Result]], *, together: bool = False) -> None:
        self._act = act
        self._together = together
        self._seconds: float | None = None  # that an item takes, as seen lately
        self._lanes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _Lane[Item, Result]]] = (
            weakref.WeakKeyDictionary()
        )

    async def __call__(self, item: Item) -> Result:
        """Ask for one item, and return its result."""
        loop = asyncio.get_running_loop()
        lanes = self._lanes.get(loop)
        if lanes is None:
            lanes = self._lanes[loop] = {}
        depth = _depth.get()
        lane = lanes.get(depth)
        if lane is None:
            lane = lanes[depth] = _Lane(depth)
        future: asyncio.Future[Result] = loop.create_future()
        lane.waiting.append((item, future))
        if not lane.due:
            lane.due = True
            # After all that is ready to run now: it may ask too.
            loop.call_soon(self._send, lane)
        return await future

    def _size_and_limit(self, waiting: int) -> tuple[int, int]:
        if self._together:
            return min(waiting, self.LARGEST), self.SIDE_BY_SIDE
        seconds = self._seconds
        if seconds is None or seconds >= self.QUICK:
            return 1 if seconds is None else max(1, int(self.WORTH / seconds)), self.SIDE_BY_SIDE
        return min(self.LARGEST, int(self.WORTH / max(seconds, 1e-6))), self.QUICK_SIDE_BY_SIDE

    def _send(self, lane: _Lane[Item, Result]) -> None:
        lane.due = False
        while lane.alone and lane.running < self.SIDE_BY_SIDE:
            self._start(lane, [lane.alone.pop(0)])
        while lane.waiting:
            size, limit = self._size_and_limit(len(lane.waiting))
            if lane.running >= limit:
                return
            batch, lane.waiting[:size] = lane.waiting[:size], []
            self._start(lane, [(item, future) for item, future in batch if not future.done()])

    def _start(self, lane: _Lane[Item, Result], batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        if not batch:
            return
        lane.running += 1
        items = [item for item, _ in batch]
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(_executor(lane.depth), _at_depth, lane.depth + 1, self._timed, items)
        call.add_done_callback(lambda done: self._deliver(lane, batch, done))

    def _timed(self, items: list[Item]) -> tuple[Sequence[Result], float]:
        begun = time.perf_counter()
        results = self._act(items)
        return results, (time.perf_counter() - begun) / len(items)

    def _deliver(
        self,
        lane: _Lane[Item, Result],
        batch: list[tuple[Item, asyncio.Future[Result]]],
        done: asyncio.Future[tuple[Sequence[Result], float]],
    ) -> None:
        lane.running -= 1
        error = None if done.cancelled() else done.exception()
        if done.cancelled():
            for _, future in batch:
                future.cancel()
        elif error is None:
            results, seconds = done.result()
            # Lately counts for half, so that one slow call is soon forgotten.
            self._seconds = seconds if self._seconds is None else (self._seconds + seconds) / 2
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():  # nobody was cancelled meanwhile
                    future.set_result(result)
        elif len(batch) == 1:
            if not batch[0][1].done():
                batch[0][1].set_exception(error)
        else:
            lane.alone.extend(batch)
        self._send(lane)
