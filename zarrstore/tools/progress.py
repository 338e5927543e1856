"""How far a long job is: a value for callbacks, and a bar for terminals."""

from __future__ import annotations

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

    Examples
    --------
    >>> Progress(5, 10).fraction
    0.5
    """

    done: int
    total: int
    nbytes: int = 0
    errors: int = 0

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return self.done / self.total if self.total else 1.0


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
    [Progress(done=3, total=3, nbytes=0, errors=0)]
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
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[nbytes]}"),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    # Where there is no terminal rich draws nothing until the end.
    with bars.Progress(*columns, console=console, transient=False, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total, nbytes="", rate="")

        def report(progress: Progress) -> None:
            speed = bar.tasks[0].speed
            bar.update(
                task,
                completed=progress.done + progress.errors,
                nbytes=human_bytes(progress.nbytes) if progress.nbytes else "",
                rate=f"{speed:,.0f}/s" if speed else "",
            )

        yield report
