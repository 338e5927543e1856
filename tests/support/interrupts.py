"""KeyboardInterrupt at random moments, as Ctrl-C raises it."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupts"]


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
        signal.signal(signal.SIGALRM, self.old)
