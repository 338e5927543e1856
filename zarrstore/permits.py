"""How many calls may run at a time, in all threads together, and the calls of a batch within that."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

__all__ = ["Permits"]

P = ParamSpec("P")
T = TypeVar("T")

#: Calls that a thread makes with one permit, before another batch that waits for one may have it.
_TURN = 8


class Permits:
    """A number of calls that may run at a time.

    Parameters
    ----------
    number : int
        How many.

    Examples
    --------
    >>> Permits(2).run(pow, 2, 3)
    8
    """

    __slots__ = ("_number", "_tokens")

    def __init__(self, number: int) -> None:
        self._number = number
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        for _ in range(number):
            self._tokens.put(True)

    def run(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something as soon as it may run."""
        taken: list[bool] = []
        return_all = map(self._tokens.put, taken)  # made here, so that in the end one call does it
        try:
            taken.extend(map(self._tokens.get, (True,)))
            result = act(*args, **kwargs)
            return result
        finally:
            any(return_all)

    def map(self, act: Callable[[Any], T], things: Sequence[Any]) -> list[T]:
        """Call something with each thing, as many at a time as there are permits; return the results in their order.

        Raises
        ------
        Exception
            That of the first thing, in their order, whose call failed. Calls that had not begun by then are not made.

        Notes
        -----
        A thread takes the next thing by itself, and waits for a permit once for several: to hand it each call as a task
        of its own takes half as long again as to ask S3 for a value of 1 KiB.

        Examples
        --------
        >>> Permits(2).map(len, ["a", "bc", ""])
        [1, 2, 0]
        """
        if len(things) < 2:
            return [self.run(act, thing) for thing in things]
        from zarrstore.threads import Threads  # loads logging, and much else: here, where threads are needed

        results: list[Any] = [None] * len(things)
        errors: list[tuple[int, BaseException]] = []
        waiting = deque(range(len(things)))

        def turn() -> None:
            for _ in range(_TURN):
                try:
                    index = waiting.popleft()
                except IndexError:
                    return
                try:
                    results[index] = act(things[index])
                except BaseException as exc:
                    waiting.clear()
                    errors.append((index, exc))
                    return

        def work() -> None:
            while waiting:
                self.run(turn)

        count = min(self._number, len(things))
        with Threads(count) as pool:
            try:
                for call in [pool.submit(work) for _ in range(count)]:
                    call.result()
            finally:
                waiting.clear()  # after an interrupt too: the threads end after their present call
        try:
            if errors:
                raise min(errors, key=itemgetter(0))[1]
        finally:
            errors.clear()  # the traceback of each holds what it stands in
        return results
