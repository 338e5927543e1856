"""Between stores that block and code that must not, in both directions.

`LoopThread` runs coroutines for ordinary functions; `AsyncMapping` runs any mapping for coroutines, and gathers what
they ask at one moment into few calls. Needs nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from zarrstore.adapt import as_store
from zarrstore.keys import check_key, is_key
from zarrstore.values import as_bytes

__all__ = ["AsyncMapping", "Batcher", "LoopThread", "shared_loop"]

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

#: Seconds that cancelled coroutines have to clean up when their loop is closed.
_CLEAN_UP = 5.0


_loop_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()


class LoopThread:
    """An event loop in a daemon thread of its own, on which ordinary functions run coroutines.

    Notes
    -----
    The thread is started by the first coroutine, and anew in a forked child. Any number of threads may call `run`.
    Source: the loop threads of fsspec and zarr 3, as an object.

    Examples
    --------
    >>> async def answer():
    ...     return 42
    >>> with LoopThread() as loop:
    ...     loop.run(answer())
    42
    """

    def __init__(self) -> None:
        self._reset()
        _loop_threads.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        #: What callers wait for on the present loop.
        self._waited_for: set[Future[Any]] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return LoopThread, ()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="zarrstore-loop", daemon=True)
                thread.start()
                self._loop, self._thread = loop, thread
            if threading.current_thread() is self._thread:
                coroutine.close()
                raise RuntimeError("cannot wait for this event loop from a coroutine that runs on it: await it instead")
            # Under the lock, so that `close` ends every coroutine that reaches this loop.
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._waited_for.add(future)
            return future

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine to its end and return its result, or raise its error.

        Parameters
        ----------
        coroutine : coroutine
            Runs on the loop of this object.
        timeout : float, seconds, optional
            After which it is cancelled.

        Raises
        ------
        RuntimeError
            The caller itself runs on this loop, and would wait for itself; or `close` was called meanwhile.
        TimeoutError
            It took longer than `timeout`.
        """
        future = self._submit(coroutine)
        waited_for = self._waited_for
        try:
            return future.result(timeout)
        except CancelledError:
            if future in waited_for:
                raise  # the coroutine cancelled itself
            raise RuntimeError("the LoopThread was closed before the coroutine had ended") from None
        except BaseException:
            # Also if the caller was interrupted: nobody waits for it any more. Done already, this does nothing.
            future.cancel()
            raise
        finally:
            waited_for.discard(future)

    def close(self) -> None:
        """Stop the thread and end whoever waits in `run` with RuntimeError. A later `run` starts another thread.

        Notes
        -----
        Coroutines are cancelled first, and have 5 seconds to clean up.
        """
        with self._lock:
            loop, thread, waited_for = self._loop, self._thread, self._waited_for
            if threading.current_thread() is thread:
                raise RuntimeError("cannot close this event loop from a coroutine that runs on it")
            self._loop, self._thread, self._waited_for = None, None, set()
        if loop is None or thread is None:
            return
        abandoned = list(waited_for)
        waited_for.clear()
        asyncio.run_coroutine_threadsafe(_end_tasks(loop), loop)
        thread.join()
        loop.close()
        for future in abandoned:
            future.cancel()  # done already, this does nothing

    def __enter__(self) -> LoopThread:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel all other coroutines of the loop, wait for them a while, and stop the loop."""
    try:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLEAN_UP)
        await loop.shutdown_asyncgens()
    finally:
        loop.stop()


_shared = LoopThread()


def shared_loop() -> LoopThread:
    """Return the loop thread that this process shares.

    Examples
    --------
    >>> shared_loop() is shared_loop()
    True
    """
    return _shared


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


async def _in_thread(depth: int, function: Callable[..., T], *args: Any) -> T:
    """Call a function in a thread of the pool of this depth; what it waits for takes threads of the next."""
    return await asyncio.get_running_loop().run_in_executor(_executor(depth), _at_depth, depth + 1, function, *args)


def _at_depth(depth: int, function: Callable[..., T], *args: Any) -> T:
    token = _depth.set(depth)
    try:
        return function(*args)
    finally:
        _depth.reset(token)


def _start_anew_after_fork() -> None:
    # No thread but the one that forked runs in the child, and any lock may have been held.
    global _pools_lock
    for loop_thread in list(_loop_threads):
        loop_thread._reset()
    _pools.clear()
    _pools_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_after_fork)


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


class AsyncMapping:
    """Any mapping for coroutines: the methods of a Store, to be awaited, and the event loop is never stalled.

    Parameters
    ----------
    mapping : Mapping
        Any mapping.
    in_thread : bool or 'auto', default 'auto'
        Whether calls are made in threads. 'auto': yes if the store says that it may wait for a disk or a network
        (`capabilities.blocking`); a dict or an LMDB file answers before a thread is woken.

    Notes
    -----
    In threads, single reads, writes and deletes that coroutines ask for at one moment become few calls, and one batch
    where the store overlaps its waits (`capabilities.concurrent`). Order between two requests that are not awaited one
    after the other is not kept. Any number of event loops may use one object. Pickles with the mapping.

    Examples
    --------
    >>> async def main():
    ...     store = AsyncMapping({})
    ...     await asyncio.gather(store.set("a/0", b"1"), store.set("a/1", b"22"))
    ...     return await store.get("a/1"), await store.get("absent"), await store.listdir("a")
    >>> asyncio.run(main())
    (b'22', None, ['0', '1'])
    """

    def __init__(self, mapping: Mapping[str, Any], in_thread: bool | str = "auto") -> None:
        if in_thread not in (True, False, "auto"):
            raise ValueError(f"in_thread {in_thread!r}: True, False or 'auto' is expected")
        self.store = as_store(mapping)
        self.in_thread = in_thread
        capabilities = self.store.capabilities
        self.threaded = capabilities.blocking if in_thread == "auto" else bool(in_thread)
        together = capabilities.concurrent
        self._together = together
        self._gets: Batcher[str, bytes | None] = Batcher(self._get_now, together=together)
        self._sets: Batcher[tuple[str, bytes], None] = Batcher(self._set_now, together=together)
        self._discards: Batcher[str, None] = Batcher(self._discard_now, together=together)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self.in_thread)

    def __repr__(self) -> str:
        return f"AsyncMapping({self.store!r})"

    def _get_now(self, keys: list[str]) -> list[bytes | None]:
        if self._together and len(keys) > 1:
            found = self.store._get_many(keys)
            return [found.get(key) for key in keys]
        return [self.store.get(key) for key in keys]

    def _set_now(self, items: list[tuple[str, bytes]]) -> list[None]:
        if len(items) == 1:
            self.store._set(*items[0])
        else:
            self.store._set_many(items)
        return [None] * len(items)

    def _discard_now(self, keys: list[str]) -> list[None]:
        self.store._delete_many(keys)
        return [None] * len(keys)

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of the store where the store's own methods are called: in a thread, if any are."""
        if not self.threaded:
            return function(*args)
        return await _in_thread(_depth.get(), function, *args)

    async def get(self, key: str) -> bytes | None:
        """Return the value, None if it is absent."""
        if not self.threaded:
            return self.store.get(key)
        return await self._gets(key) if is_key(key) else None

    async def getitems(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those of `keys` that exist, all at once."""
        wanted = list(keys)
        return await self.call(lambda: dict(self.store.getitems(wanted)))

    async def getrange(self, key: str, start: int, stop: int | None = None) -> bytes | None:
        """Return a part of a value, None if it is absent."""
        return await self._unless_absent(self.store.getrange, key, start, stop)

    async def getsuffix(self, key: str, n: int) -> bytes | None:
        """Return the last bytes of a value, None if it is absent."""
        return await self._unless_absent(self.store.getsuffix, key, n)

    async def getranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes] | None:
        """Return parts of a value, one for each ``(start, stop)``, None if it is absent."""
        return await self._unless_absent(self.store.getranges, key, spans)

    async def nbytes(self, key: str) -> int | None:
        """Return the size of a value in bytes, None if it is absent."""
        return await self._unless_absent(self._nbytes_now, key)

    def _nbytes_now(self, key: str) -> int:
        size = self.store._nbytes(check_key(key))
        return size if size >= 0 else len(self.store[key])

    async def _unless_absent(self, method: Callable[..., T], *args: Any) -> T | None:
        def read() -> T | None:
            # A StopIteration or the like does not leave a thread well; absence is an answer.
            try:
                return method(*args)
            except KeyError:
                return None

        return await self.call(read)

    async def contains(self, key: object) -> bool:
        """Tell whether the key exists."""
        return await self.call(self.store.__contains__, key)

    async def set(self, key: str, value: Any) -> None:
        """Set a value, any buffer; it is copied before this returns to the event loop."""
        item = check_key(key), as_bytes(value)
        if not self.threaded:
            return self.store._set(*item)
        await self._sets(item)

    async def setitems(self, items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Set all items as one batch."""
        await self.call(self.store.setitems, items)

    async def discard(self, key: str) -> None:
        """Delete a key if it exists."""
        if not is_key(key):
            return
        if not self.threaded:
            return self.store._delete_many([key])
        await self._discards(key)

    async def delitems(self, keys: Iterable[str]) -> None:
        """Delete those of `keys` that exist."""
        await self.call(self.store.delitems, keys)

    async def keys_below(self, path: object = "") -> list[str]:
        """Return the keys below a path, read at once."""
        # In one call: a listing may not be continued in another thread (sqlite3), nor held open while nobody reads.
        return await self.call(lambda: [*self.store.keys_below(path)])

    async def is_empty(self, path: object = "") -> bool:
        """Tell whether no key lies below a path."""
        return await self.call(lambda: next(iter(self.store.keys_below(path)), None) is None)

    async def listdir(self, path: object = "") -> list[str]:
        """Return the sorted names of the immediate children of a path."""
        return await self.call(self.store.listdir, path)

    async def rmdir(self, path: object = "") -> None:
        """Remove every key below a path."""
        await self.call(self.store.rmdir, path)

    async def rename(self, source: object, destination: object) -> None:
        """Move a value, a directory, or both."""
        await self.call(self.store.rename, source, destination)

    async def clear(self) -> None:
        """Remove every key."""
        await self.call(self.store.clear)

    async def flush(self) -> None:
        """Make durable what was set before."""
        await self.call(self.store.flush)

    async def close(self) -> None:
        """Flush and release."""
        await self.call(self.store.close)
