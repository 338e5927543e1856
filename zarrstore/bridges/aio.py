"""Between stores that block and code that must not, in both directions.

`LoopThread` runs coroutines for ordinary functions; `AsyncMapping` runs any mapping for coroutines, and gathers what
they ask at one moment into few calls. Needs nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, Generic, TypeVar

from zarrstore.adapt import as_store
from zarrstore.bridges.batcher import Batcher, in_thread
from zarrstore.keys import check_key, is_key
from zarrstore.threads import Latch, Starter, separate_at_fork
from zarrstore.urls import without_secrets
from zarrstore.values import as_bytes

__all__ = ["AsyncMapping", "Batcher", "LoopThread", "shared_loop"]

T = TypeVar("T")

#: Seconds that cancelled coroutines have to clean up when their loop is closed.
_CLEAN_UP = 5.0


_loop_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()


class _Reply(Generic[T]):
    """A coroutine on a loop, for which a thread waits; no Future: an interrupt of that thread could stop the loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self.ended = Latch()

    def begin(self) -> None:
        """Run the coroutine. To be called on the loop."""
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(lambda _: self.ended.set())

    def result(self, timeout: float | None) -> T:
        """Wait for the result; CancelledError also where the loop was closed meanwhile."""
        if not self.ended.wait(timeout):
            raise TimeoutError
        task = self._task
        if task is None or not task.done() or task.cancelled():
            raise CancelledError
        return task.result()

    def cancel(self) -> None:
        """Cancel the coroutine, if it still runs."""
        with suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())


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
        self._starter: Starter | None = None
        #: What callers wait for on the present loop.
        self._waited_for: set[_Reply[Any]] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return LoopThread, ()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> _Reply[T]:
        with self._lock:
            if self._loop is None or self._starter is None:
                loop = asyncio.new_event_loop()
                separate_at_fork(loop)
                self._starter = Starter(loop.run_forever, "zarrstore-loop")
                self._loop = loop
            self._starter.start()
            if threading.current_thread() is self._starter.thread:
                coroutine.close()
                raise RuntimeError("cannot wait for this event loop from a coroutine that runs on it: await it instead")
            # Under the lock, so that `close` ends every coroutine that reaches this loop.
            reply = _Reply(coroutine, self._loop)
            self._waited_for.add(reply)
            self._loop.call_soon_threadsafe(reply.begin)
            return reply

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
        reply = self._submit(coroutine)
        waited_for = self._waited_for
        try:
            return reply.result(timeout)
        except CancelledError:
            if reply in waited_for:
                raise  # the coroutine cancelled itself
            raise RuntimeError("the LoopThread was closed before the coroutine had ended") from None
        except BaseException:
            # Also if the caller was interrupted: nobody waits for it any more. Done already, this does nothing.
            reply.cancel()
            raise
        finally:
            waited_for.discard(reply)

    def close(self) -> None:
        """Stop the thread and end whoever waits in `run` with RuntimeError. A later `run` starts another thread.

        Notes
        -----
        Coroutines are cancelled first, and have 5 seconds to clean up.
        """
        with self._lock:
            loop, starter, waited_for = self._loop, self._starter, self._waited_for
            if starter is not None and threading.current_thread() is starter.thread:
                raise RuntimeError("cannot close this event loop from a coroutine that runs on it")
            self._loop, self._starter, self._waited_for = None, None, set()
        if loop is None or starter is None:
            return
        abandoned = list(waited_for)
        waited_for.clear()
        asyncio.run_coroutine_threadsafe(_end_tasks(loop), loop)
        starter.start()  # it may have been interrupted
        starter.thread.join()
        loop.close()
        for reply in abandoned:
            reply.ended.set()  # which it may be already

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


def _reset_after_fork() -> None:
    # No thread but the one that forked runs in the child, and any lock may have been held.
    for loop_thread in list(_loop_threads):
        loop_thread._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


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
        return f"AsyncMapping({without_secrets(repr(self.store))})"

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
        return await in_thread(function, *args)

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
