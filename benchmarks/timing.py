"""One measurement, and one case of a scenario."""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Case", "peak_mib", "timed"]


@dataclass(frozen=True)
class Case:
    """What several contestants do in turns.

    Parameters
    ----------
    name : str
        Stands in the results: ``"set 1 KiB"``.
    contestants : sequence of str
        Names in `contestants.WORKERS`; those whose interpreter or package lacks are left out, and named.
    params : dict
        Handed to `measure` as they are.
    rounds : int
        Turns; the fastest counts.
    longest : float, seconds
        A contestant whose turn took longer has no further one.
    """

    name: str
    contestants: tuple[str, ...]
    params: dict[str, Any] = field(default_factory=dict)
    rounds: int = 5
    longest: float = float("inf")


def timed(act: Callable[[], object], n: int = 1) -> dict[str, float]:
    """Return the processor time of `act` (and of its child processes) and the wall time, in microseconds, a `n`-th."""
    gc.collect()
    gc.disable()
    try:
        start, before = time.perf_counter(), _processor()
        act()
        cpu, wall = _processor() - before, time.perf_counter() - start
    finally:
        gc.enable()
    return {"cpu_us": cpu / n * 1e6, "wall_us": wall / n * 1e6}


def _processor() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_mib() -> float:
    """Return the largest memory that this process has had, in MiB."""
    with open(f"/proc/{os.getpid()}/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
