"""KeyboardInterrupt at random moments, as Ctrl-C raises it."""

from __future__ import annotations

import dis
import faulthandler
import random
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from types import CodeType, FrameType
from typing import Any, Self

__all__ = ["Interrupts", "each_point"]

#: Seconds after which a test with interrupts is taken to hang.
HANGS = 300.0
#: After these CPython looks whether a signal came, from 3.11 on; at the others an interrupt never comes.
_LOOKS_AFTER = ("CALL", "RESUME", "JUMP_BACKWARD")


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
    >>> done = []
    >>> len(list(each_point(lambda: done.append(1)))), done
    (1, [1, 1])
    """
    for number in count(first, step):
        if number > most:
            raise AssertionError(f"not done after {most} points")
        interrupt = _InterruptAt(number)
        if not interrupt.during(act):
            return
        yield number


@cache
def _may_come_between(code: CodeType, before: int, now: int) -> bool:
    looks = dis.opname[code.co_code[before]].startswith(_LOOKS_AFTER)
    return looks and _handler(code, before) == _handler(code, now)


def _handler(code: CodeType, offset: int) -> int | None:
    """Return where an error at a place in some code goes; an interrupt after a call comes as if from the call."""
    for entry in dis._parse_exception_table(code):  # type: ignore[attr-defined]
        if entry.start <= offset < entry.end:
            return int(entry.target)
    return None


class _InterruptAt:
    """Raises KeyboardInterrupt at one point, by its number, as CPython itself would."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._before: dict[FrameType, int] = {}

    def during(self, act: Callable[[], object]) -> bool:
        old = sys.gettrace()
        sys.settrace(self._trace)
        try:
            act()
        except KeyboardInterrupt:
            return True
        except RuntimeError as exc:
            if isinstance(exc.__context__, KeyboardInterrupt):  # of Condition, as below
                return True
            raise
        finally:
            sys.settrace(old)
        return self._left < 0

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and self._left >= 0:
            before = self._before.get(frame, 0)
            self._before[frame] = frame.f_lasti
            name = dis.opname[frame.f_code.co_code[before]]
            if name.startswith(_LOOKS_AFTER) and _handler(frame.f_code, before) == _handler(
                frame.f_code, frame.f_lasti
            ):
                self._left -= 1
                if self._left < 0:
                    self._before.clear()
                    raise KeyboardInterrupt
        elif event == "return":
            self._before.pop(frame, None)
        return self._trace
