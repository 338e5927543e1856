"""Work handed to any executor, a bounded number of tasks at a time, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, NamedTuple

__all__ = ["Task", "run_ordered", "threads_of", "window"]


def threads_of(executor: Executor) -> int | None:
    """Return how many tasks an executor runs at a time; None if it does not tell.

    Examples
    --------
    >>> from zarrstore.threads import Threads
    >>> threads_of(Threads(3))
    3
    """
    number = getattr(executor, "_max_workers", None)
    if isinstance(number, int):
        return number
    # dask: the client knows how many threads its workers have now.
    ask = getattr(getattr(executor, "_client", None), "nthreads", None)
    if ask is None:
        return None
    try:
        return int(sum(ask().values()))
    except Exception:  # the scheduler does not answer: the first task will fail and say so
        return None


def window(executor: Executor) -> int:
    """Return how many tasks to hand to an executor at a time: two for each thread, so that no thread waits.

    Examples
    --------
    >>> from zarrstore.threads import Threads
    >>> window(Threads(3))
    6
    """
    return 2 * (threads_of(executor) or 16)


class Task(NamedTuple):
    """A call, and the number of bytes that its values take while it runs."""

    cost: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def run_ordered(executor: Executor, tasks: Iterable[tuple[Any, ...]], memory: int | None = None) -> Iterator[Any]:
    """Yield the result of each task, in their order; a task whose worker died is done here.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Threads, processes, or another machine's.
    tasks : iterable of tuple
        A function and its arguments, or a `Task`. Taken as workers become free, so it may be long. Each may be done
        twice.
    memory : int, optional, bytes
        What the tasks that run may take together, by their `cost`; one that takes more runs alone.

    Examples
    --------
    >>> from zarrstore.threads import Threads
    >>> with Threads(2) as executor:
    ...     list(run_ordered(executor, ((pow, 2, n) for n in range(5))))
    [1, 2, 4, 8, 16]
    """
    running: deque[tuple[Future[Any] | None, Task]] = deque()
    most = window(executor)
    under_way = 0

    def result() -> Any:
        nonlocal under_way
        future, task = running.popleft()
        under_way -= task.cost
        if future is not None:
            try:
                return future.result()
            except BrokenExecutor:
                pass
        return task.function(*task.arguments)

    try:
        for given in tasks:
            task = given if isinstance(given, Task) else Task(0, given[0], given[1:])
            while running and memory is not None and under_way + task.cost > memory:
                yield result()
            under_way += task.cost
            try:
                running.append((executor.submit(task.function, *task.arguments), task))
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
