"""Verbs over many synthetic keys, each in a process of its own: time, and bytes of memory a key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.scenarios.archives import archive_of
from benchmarks.timing import Case

TITLE = "Many keys"
VERBS = (
    "copy",
    "copy with skip",
    "copy with differ",
    "diff",
    "manifest",
    "verify",
    "rename",
    "rmdir",
    "pack",
    "open zip",
)


def cases(quick: bool) -> list[Case]:
    counts = [10_000] if quick else [100_000, 1_000_000]
    verbs = VERBS[:1] if quick else VERBS
    return [Case(f"{verb} {n:,}", ("zarrstore",), {"verb": verb, "n": n}, rounds=1) for n in counts for verb in verbs]


def measure(contestant: str, folder: str, verb: str, n: int) -> dict[str, Any]:
    if verb == "open zip":
        archive_of(n)  # made here: what that takes is no cost of opening
    # In a process of its own, whose largest memory is the verb's.
    checkout = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "benchmarks.verbs", verb, str(n), folder]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])
