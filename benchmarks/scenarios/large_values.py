"""Peak memory of verbs over 60 values of 64 MiB, with a source that fetches ahead, in 1 and 4 threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.timing import Case

TITLE = "Large values"
VERBS = ("copy", "verify", "getitems", "diff", "prefetch", "manifest")


def cases(quick: bool) -> list[Case]:
    mib, count = (1, 60) if quick else (64, 60)
    verbs = VERBS[2:3] if quick else VERBS
    return [
        Case(f"{verb} {count} x {mib} MiB, {threads} threads", ("zarrstore",), params, rounds=1)
        for verb in verbs
        for threads in ((1, 4) if verb in ("copy", "verify") else (1,))
        for params in [{"verb": verb, "mib": mib, "count": count, "threads": threads}]
    ]


def measure(contestant: str, folder: str, verb: str, mib: int, count: int, threads: int) -> dict[str, Any]:
    checkout = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "benchmarks.verbs", f"large {verb}", str(count), folder, str(mib), str(threads)]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])
