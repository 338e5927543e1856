"""Which files of a test this process has open: others come and go, with the servers and the loops of other tests."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["files_open_below"]


def files_open_below(folder: str | Path) -> list[str]:
    """Return the files below a folder that this process has open, removed ones too (Linux)."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile: this listing's own
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.startswith(f"{folder}/"):
                found.append(path)
    return found
