"""Workers in each interpreter, contestants in turns, the fastest turn of each."""

from __future__ import annotations

import importlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.contestants import WORKERS
from benchmarks.timing import Case
from tests.support import peers

__all__ = ["SCENARIOS", "machine", "run"]

CHECKOUT = Path(__file__).resolve().parent.parent
SCENARIOS = sorted(path.stem for path in Path(__file__).parent.joinpath("scenarios").glob("[!_]*.py"))


class Workers:
    """One process for each interpreter, started on use; None for one that is not here."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[str] | None] = {}
        #: What scenarios make once for all contestants.
        self._shared = tempfile.TemporaryDirectory(dir=folder)

    def ask(self, interpreter: str, order: dict[str, Any]) -> dict[str, Any]:
        """Have a worker measure something."""
        if interpreter not in self._running:
            self._running[interpreter] = self._start(interpreter)
        process = self._running[interpreter]
        if process is None:
            return {"lacks": f"interpreter {interpreter}"}
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order | {"folder": self.folder}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            self._running[interpreter] = None
            return {"error": f"the worker of {interpreter} ended"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self, name: str) -> subprocess.Popen[str] | None:
        # zarrstore is measured beside zarr 2 where that is here, and alone where it is not.
        if name != "self" and peers.lacking(name):
            return self._start("self") if name == "zarr2" else None
        interpreter = sys.executable if name == "self" else peers.python(name)
        return subprocess.Popen(
            [interpreter, "-m", "benchmarks.worker", str(CHECKOUT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "ZARRSTORE_BENCHMARKS": self._shared.name},
        )

    def close(self) -> None:
        """End all workers."""
        for process in self._running.values():
            if process is not None and process.stdin is not None:
                process.stdin.close()
                process.wait(60)
        self._shared.cleanup()


def run(names: Sequence[str], quick: bool, rounds: int = 99) -> Iterator[tuple[str, Case, dict[str, dict[str, Any]]]]:
    """Yield for each case of each scenario what came of every contestant."""
    memory = "/dev/shm"
    workers = Workers(memory if os.path.isdir(memory) and os.access(memory, os.W_OK) else None)
    try:
        for name in names:
            module = importlib.import_module(f"benchmarks.scenarios.{name}")
            for case in module.cases(quick):
                yield name, case, _race(workers, name, case, rounds)
    finally:
        workers.close()


def _race(workers: Workers, name: str, case: Case, rounds: int) -> dict[str, dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    slow: set[str] = set()
    order = random.Random(0)
    for _ in range(min(rounds, case.rounds)):
        for contestant in order.sample(case.contestants, len(case.contestants)):
            if contestant in slow or "lacks" in best.get(contestant, {}) or "error" in best.get(contestant, {}):
                continue
            since = time.monotonic()
            message = {"scenario": name, "contestant": contestant, "params": case.params}
            answer = workers.ask(WORKERS[contestant], message)
            if time.monotonic() - since > case.longest:
                slow.add(contestant)
            known = best.setdefault(contestant, answer)
            for field, value in answer.items():
                known[field] = min(known.get(field, value), value)
    return {contestant: best[contestant] for contestant in case.contestants}


def machine() -> dict[str, Any]:
    """Return what the figures depend on; no names and no places."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "file_system": "memory",
        "load": round(os.getloadavg()[0], 1),
        "time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, "rev-parse", "--short", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True)
    return done.stdout.strip()
