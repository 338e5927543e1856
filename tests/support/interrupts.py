"""KeyboardInterrupt at random moments, as Ctrl-C raises it."""

from __future__ import annotations

import faulthandler
import random
import signal
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any, Self

from zarrstore.testing.interrupts import interrupted

__all__ = ["Interrupts", "each_point"]

#: Seconds after which a test with interrupts is taken to hang.
HANGS = 300.0


class Interrupts:
    """Raise KeyboardInterrupt in the main thread while something is done.

    Examples
    --------
    >>> with Interrupts() as interrupts:
    ...     interrupts.during(lambda: [i for i in range(10**9)], 0.01)
    True
    """

    def __enter__(self) -> Self:
        self.old = signal.signal(signal.SIGALRM, self._interrupt)
        # pytest's timeout waits for the same timer, and would never come: so a hang ends the process, with its stacks.
        self.left = signal.getitimer(signal.ITIMER_REAL)
        faulthandler.dump_traceback_later(HANGS, exit=True)
        return self

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def during(self, act: Callable[[], object], most: float) -> bool:
        """Do something; return whether it was interrupted, at a moment within the first `most` seconds."""
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, most))
            act()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            return True
        except RuntimeError as exc:
            # Python's own Condition releases a lock that an interrupt kept it from taking.
            if isinstance(exc.__context__, KeyboardInterrupt):
                return True
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False

    def __exit__(self, *exc: Any) -> None:
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, self.old)
        signal.setitimer(signal.ITIMER_REAL, *self.left)


def each_point(act: Callable[[], object], *, step: int = 1, first: int = 0, most: int = 100_000) -> Iterator[int]:
    """Do something again and again, each time with a KeyboardInterrupt at the next point at which one can come.

    Parameters
    ----------
    act : callable
        What to do. Interrupts come in the thread that calls it; in all Python code, that of libraries too.
    step, first : int
        Leave out all points but every so many, from the first on.
    most : int
        The number of the point after which it is taken for endless.

    Yields
    ------
    int
        The number of the point, after each time.

    Examples
    --------
    >>> import textwrap
    >>> len(list(each_point(lambda: textwrap.indent("a", "  ")))) > 5
    True
    """
    for number in count(first, step):
        if number > most:
            raise AssertionError(f"not done after {most} points")
        try:
            if not interrupted(act, number, package=""):
                return
        except RuntimeError as exc:
            if not isinstance(exc.__context__, KeyboardInterrupt):  # of Condition, as above
                raise
        yield number
