"""Work handed to any executor, a bounded number of tasks at a time, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

__all__ = ["run_ordered", "window"]


def window(executor: Executor) -> int:
    """Return how many tasks to keep in an executor's hands: enough that no worker waits.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> window(ThreadPoolExecutor(3))
    6
    """
    # Not all executors tell how many workers they have; dask's has a client that grows and shrinks.
    return 2 * (getattr(executor, "_max_workers", None) or 16)


def run_ordered(executor: Executor, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield the result of each task, in their order; a task whose worker died is done here.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Threads, processes, or another machine's.
    tasks : iterable of tuple
        A function and its arguments. Taken as workers become free, so it may be long. Each may be done twice.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as executor:
    ...     list(run_ordered(executor, ((pow, 2, n) for n in range(5))))
    [1, 2, 4, 8, 16]
    """
    running: deque[tuple[Future[Any] | None, tuple[Any, ...]]] = deque()
    most = window(executor)

    def result() -> Any:
        future, (function, *args) = running.popleft()
        if future is not None:
            try:
                return future.result()
            except BrokenExecutor:
                pass
        return function(*args)

    try:
        for task in tasks:
            try:
                running.append((executor.submit(*task), task))
            except BrokenExecutor:
                running.append((None, task))
            if len(running) >= most:
                yield result()
        while running:
            yield result()
    finally:
        for future, _ in running:
            if future is not None:
                future.cancel()
