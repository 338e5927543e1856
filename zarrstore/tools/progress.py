"""How far a long job is: a value for callbacks, and a bar for terminals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from zarrstore.optional import require
from zarrstore.shown import human_bytes

__all__ = ["Progress", "human_bytes", "reporter"]


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Parameters
    ----------
    done, total : int
        Keys (or nodes, as the job counts).
    nbytes : int, bytes
        Of the values handled so far.
    errors : int
        Keys that failed.
    total_nbytes : int, bytes
        Of all values that are to be handled; -1 if the listing does not tell it.

    Examples
    --------
    >>> Progress(5, 10).fraction
    0.5

    Where values differ in size, bytes tell more than keys:

    >>> Progress(9, 10, 100, total_nbytes=1000).fraction
    0.1
    """

    done: int
    total: int
    nbytes: int = 0
    errors: int = 0
    total_nbytes: int = -1

    @property
    def fraction(self) -> float:
        """Between 0 and 1: of the bytes where all sizes are known, else of the keys."""
        handled = self.done + self.errors
        if handled >= self.total:
            return 1.0
        if self.total_nbytes > 0:
            return min(self.nbytes / self.total_nbytes, 1.0)
        return handled / self.total

    def seconds_left(self, seconds: float) -> float | None:
        """Return how long the rest takes if it goes on as in so many seconds; None before anything was done.

        Examples
        --------
        >>> Progress(9, 10, 100, total_nbytes=1000).seconds_left(2.0)
        18.0
        """
        fraction = self.fraction
        return seconds * (1 - fraction) / fraction if fraction else None


def reporter(
    progress: bool | Callable[[Progress], object] | None, total: int, label: str = "copy"
) -> AbstractContextManager[Callable[[Progress], object]]:
    """Return a context manager that gives the function to call with each `Progress`.

    Parameters
    ----------
    progress : callable, bool or None
        A callback; True for a bar on a terminal; None or False for nothing.
    total : int
        What there is to do.
    label : str
        Stands before the bar.

    Examples
    --------
    >>> seen = []
    >>> with reporter(seen.append, total=3) as report:
    ...     report(Progress(3, 3))
    >>> seen
    [Progress(done=3, total=3, nbytes=0, errors=0, total_nbytes=-1)]
    """
    if not progress:
        return nullcontext(lambda progress: None)
    if callable(progress):
        return nullcontext(progress)
    return _bar(total, label)


@contextmanager
def _bar(total: int, label: str) -> Iterator[Callable[[Progress], object]]:
    console = require("rich.console", extra="cli", feature="a progress bar").Console(stderr=True)
    bars = require("rich.progress", extra="cli", feature="a progress bar")
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn("{task.fields[keys]}"),
        bars.TextColumn("{task.fields[nbytes]}"),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    # Where there is no terminal rich draws nothing until the end.
    with bars.Progress(*columns, console=console, transient=False, disable=not console.is_terminal) as bar:
        # Bar and time left go by the fraction, which is one of bytes or of keys.
        task = bar.add_task(label, total=1.0, keys=f"0/{total}", nbytes="", rate="")
        start = time.monotonic()

        def report(progress: Progress) -> None:
            seconds = time.monotonic() - start
            handled = progress.done + progress.errors
            bar.update(
                task,
                completed=progress.fraction,
                keys=f"{handled}/{progress.total}",
                nbytes=_sizes(progress),
                rate=f"{handled / seconds:,.0f}/s" if seconds > 0 else "",
            )

        yield report


def _sizes(progress: Progress) -> str:
    if progress.total_nbytes > 0:
        return f"{human_bytes(progress.nbytes)} of {human_bytes(progress.total_nbytes)}"
    return human_bytes(progress.nbytes) if progress.nbytes else ""
