"""Threads, and waiting for them, where an interrupt leaves nothing locked.

Ctrl-C raises KeyboardInterrupt in the main thread, after any call. `threading.Condition`, and what is made of it
(Event, Semaphore, Future, Thread.start, ThreadPoolExecutor), is Python code: an interrupt within it can leave its lock
taken, and whoever needs that lock waits for ever. Here the thread of the caller waits in single calls of C, and an
interrupt comes before such a call or after it.
"""

from __future__ import annotations

import os
import sys
import weakref
from _thread import allocate_lock, get_ident, start_new_thread
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["Latch", "Starter", "Threads", "are_threads", "free_in_children", "separate_at_fork"]

P = ParamSpec("P")
T = TypeVar("T")


class Latch:
    """An event that happens once.

    Notes
    -----
    Any thread may set it and wait for it, in finalizers too. Source: `threading.Event`, without its lock.

    Examples
    --------
    >>> latch = Latch()
    >>> latch.wait(0.001), latch.set(), latch.is_set(), latch.wait()
    (False, None, True, True)
    """

    __slots__ = ("_happened", "_tokens")

    def __init__(self) -> None:
        self._happened = False
        self._tokens: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Let all go on who wait."""
        self._happened = True
        self._tokens.put(None)

    def is_set(self) -> bool:
        """Tell whether it has happened."""
        return self._happened

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it happens; return False if that took longer than `timeout` seconds."""
        tokens = self._tokens
        try:
            # One call: whoever takes the token gives it back, for the next who waits.
            any(map(tokens.put, map(tokens.get, (True,), (timeout,))))
        except Empty:
            return self._happened
        return True


def _begin(target: Callable[[], object], begun: list[int]) -> None:
    """Run something in a thread; its identifier comes into `begun` in the same call of C that starts it."""
    begun.extend(map(start_new_thread, (target,), ((),)))


class Starter:
    """Starts a daemon thread, once, whatever interrupts come between.

    Parameters
    ----------
    target : callable
        What the thread runs.
    name : str
        Its name.

    Examples
    --------
    >>> from queue import SimpleQueue
    >>> queue = SimpleQueue()
    >>> starter = Starter(lambda: queue.put(1), "example")
    >>> starter.start(), starter.start(), queue.get(timeout=60), queue.empty()
    (None, None, 1, True)
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        self.thread = Thread(target=target, name=name, daemon=True)
        self._begun: list[int] = []
        self._started = Latch()
        self._error: BaseException | None = None

    def start(self) -> None:
        """Return when the thread runs. After an interrupt it is to be called again."""
        if not self._begun:
            _begin(self._start, self._begun)
        self._started.wait()
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        # Thread.start waits, in Python, for the thread; no interrupt comes to this one.
        try:
            self.thread.start()
        except BaseException as exc:
            self._error = exc
        finally:
            self._started.set()


class Call(Future[T], Generic[T]):
    """A call that a thread of `Threads` makes, as a Future for which any thread may wait."""

    def __init__(self, function: Callable[..., T], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self._task: tuple[Callable[..., T], Sequence[Any], dict[str, Any]] | None = function, args, kwargs
        #: Who pops it makes the call or cancels it.
        self._claim = [True]
        self._ended = Latch()
        self._callbacks: SimpleQueue[Callable[[Future[T]], object]] = SimpleQueue()

    def _take_claim(self) -> bool:
        """Return whether this is the first to ask, who makes the call or ends it."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def run(self) -> None:
        """Make the call, in a thread to which no interrupt comes."""
        if not self._take_claim():
            return
        assert self._task is not None
        function, args, kwargs = self._task
        self.set_running_or_notify_cancel()
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            self.set_exception(exc)
            self._end()
            # The traceback holds this frame: let that not hold the error in turn.
            self = None  # type: ignore[assignment]
        else:
            self.set_result(result)
            self._end()

    def refuse(self, error: BaseException) -> None:
        """End with an error: the call cannot be made."""
        if self._take_claim():
            self.set_exception(error)
            self._end()

    def _end(self) -> None:
        self._task = None
        self._ended.set()
        self._tell()

    def _tell(self) -> None:
        while True:
            try:
                callback = self._callbacks.get_nowait()
            except Empty:
                return
            callback(self)

    def cancel(self) -> bool:
        """Let the call not be made, unless it has begun."""
        if self._take_claim():
            super().cancel()
            self.set_running_or_notify_cancel()
            self._end()
        return self._ended.is_set() and super().cancelled()

    def done(self) -> bool:
        """Tell whether the call has ended or was cancelled."""
        return self._ended.is_set()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call, and return its result or raise its error."""
        try:
            if not self._ended.wait(timeout):
                raise TimeoutError
            return super().result(0)  # no other thread needs its lock any more
        finally:
            self = None  # type: ignore[assignment]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the call, and return its error or None."""
        if not self._ended.wait(timeout):
            raise TimeoutError
        return super().exception(0)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call something with this object once the call has ended: in the thread that made it, or in this one."""
        self._callbacks.put(fn)
        if self._ended.is_set():
            self._tell()


class Threads(Executor):
    """An executor of threads.

    Parameters
    ----------
    workers : int
        Threads at most; each is started by a call that is submitted.
    name : str
        What their names begin with.

    Notes
    -----
    Leaving its ``with`` block waits for the calls that have begun. Interrupted meanwhile, the threads end after their
    present call; as daemon threads they hold up no exit. In a forked child it is of no use, and left without waiting.
    Cost: one thread more than an executor of the standard library, which it imitates.

    Examples
    --------
    >>> with Threads(2) as threads:
    ...     list(threads.map(pow, [2, 2], [3, 4]))
    [8, 16]
    """

    def __init__(self, workers: int, name: str = "zarrstore") -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; at least one is needed")
        self._max_workers = workers
        self._pid = os.getpid()
        self._lock = allocate_lock()
        self._n_wanted = 0
        self._closed = False
        self._crew = crew = _Crew(name, workers)
        # Where nobody holds this executor any more: calls of C, since an interrupt in Python's own would be dropped.
        crew.losses = weakref.ref(self, crew.calls.put), weakref.ref(self, crew.wanted.put)
        self._hosts: list[int] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """Have a call made by the next thread that is free.

        Raises
        ------
        RuntimeError
            After `shutdown`, in a forked child, and while the interpreter ends: no thread would make the call.
        """
        if self._closed or self._pid != os.getpid() or sys.is_finalizing():
            raise RuntimeError("these threads have ended, and take no more calls")
        call = Call(fn, args, kwargs)
        self._crew.calls.put(call)
        with self._lock:
            if self._n_wanted < self._max_workers and not self._crew.take_idle():
                self._n_wanted += 1
                self._crew.wanted.put(True)
            if not self._hosts:
                _begin(self._crew.host, self._hosts)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and wait for those that there are; without those not begun if `cancel_futures`."""
        self._closed = True
        if self._pid != os.getpid():
            return
        crew = self._crew
        if cancel_futures:
            crew.cancel_rest()
        crew.calls.put(None)
        crew.wanted.put(False)
        if wait and self._hosts and get_ident() not in crew.idents and not sys.is_finalizing():
            crew.ended.wait()


class _Crew:
    """What the threads share. They do not hold the executor, so that one which nobody holds any more ends."""

    def __init__(self, name: str, workers: int) -> None:
        self.name = name
        self.workers = workers
        #: What is no call ends a thread.
        self.calls: SimpleQueue[object] = SimpleQueue()
        #: True for each thread to start; all else is the end.
        self.wanted: SimpleQueue[object] = SimpleQueue()
        self.losses: tuple[object, ...] = ()
        #: One for each call that was made, less those that came afterwards: not more than threads that wait.
        self.idle: SimpleQueue[None] = SimpleQueue()
        self.idents: set[int] = set()
        self.ended = Latch()

    def host(self) -> None:
        """Start the threads that are wanted, and wait for their end: what an interrupt must not come to."""
        threads: list[Thread] = []
        try:
            while self.wanted.get() is True:
                thread = Thread(target=self._work, name=f"{self.name}_{len(threads)}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as exc:  # the machine has no more threads
                    if not threads:
                        self._refuse_rest(exc)
                else:
                    threads.append(thread)
            for thread in threads:
                thread.join()
        finally:
            self.ended.set()

    def _work(self) -> None:
        self.idents.add(get_ident())
        while isinstance(call := self.calls.get(), Call):
            call.run()
            del call
            if self.idle.qsize() < self.workers:
                self.idle.put(None)
        self.calls.put(None)  # for the next

    def take_idle(self) -> bool:
        """Count a thread that waits for a call as busy; return whether there was one."""
        try:
            self.idle.get_nowait()
        except Empty:
            return False
        return True

    def _rest(self) -> list[Call[Any]]:
        rest: list[Call[Any]] = []
        while True:
            try:
                call = self.calls.get_nowait()
            except Empty:
                return rest
            if isinstance(call, Call):
                rest.append(call)

    def cancel_rest(self) -> None:
        """Cancel the calls that have not begun."""
        for call in self._rest():
            call.cancel()

    def _refuse_rest(self, error: RuntimeError) -> None:
        for call in self._rest():
            call.refuse(error)


def are_threads(executor: Executor | None) -> bool:
    """Tell whether an executor works in threads of this process, which share its stores.

    Examples
    --------
    >>> are_threads(Threads(1)), are_threads(ThreadPoolExecutor(1)), are_threads(None)
    (True, True, False)
    """
    return isinstance(executor, Threads | ThreadPoolExecutor)


#: Event loops on threads of this process.
_loops: weakref.WeakSet[Any] = weakref.WeakSet()


def separate_at_fork(loop: Any) -> None:
    """Keep what a forked child does with the connections of an event loop from its parent, whose loop it is.

    Notes
    -----
    Child and parent share one epoll, which knows which connections the parent waits for. A connection that the child
    closes, or drops, would be taken out of it, and the parent would never hear of the answer that comes on it: it would
    wait for its time-out. In the child the loop runs on no thread.
    """
    if hasattr(loop, "_selector"):  # one of asyncio's own; uvloop has its own way of forking
        _loops.add(loop)


#: Locks that a forked child finds free.
_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def free_in_children(lock: T) -> T:
    """Return a `threading` lock, which a forked child will find free.

    Notes
    -----
    A fork copies the lock of a thread that is inside it, and not the thread: the child would wait for ever. Only for
    locks whose data are whole between any two steps of their holder, such as counts and the lines of a log.

    Examples
    --------
    >>> import threading
    >>> with free_in_children(threading.Lock()) as taken:
    ...     taken
    True
    """
    _locks.add(lock)
    return lock


def _after_fork_in_child() -> None:
    import selectors

    for lock in list(_locks):
        lock._at_fork_reinit()  # as the standard library frees its own

    for loop in list(_loops):
        loop._selector = selectors.SelectSelector()  # which knows no connection, and holds nothing open
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
