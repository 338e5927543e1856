"""The command line: one command a file, each a few lines over a verb of `zarrstore.tools`.

Data goes to stdout, everything else to stderr. Exit 0: fine; 1: something was found (a problem, a difference); 2:
misuse; 3: it could not be done; 4: nothing was found, but not everything could be looked at (verify); 130 and 143:
ended by Ctrl-C and by SIGTERM, with a line that says what is left. A traceback appears with ``--debug`` only.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from zarrstore.errors import MissingDependencyError
from zarrstore.optional import require

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit code.

    Parameters
    ----------
    args : sequence of str, optional
        Instead of the process's own.

    Examples
    --------
    >>> main(["cat", "--help"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    if args is not None:
        _main(args)
    # What start-up makes lives as long as the process. The collector would look through it time after time, and once
    # more at the end: a fifth of the processor time of a command that does little. The group starts it with the verb.
    gc.disable()
    # aiobotocore, below s3fs, imports httpx where it is installed, and httpx a command line of its own with rich and
    # pygments: a fifth of the time to the first request. Where that module cannot be imported, httpx does without.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    try:
        _main(None)
    finally:
        gc.freeze()


def _main(args: Sequence[str] | None) -> NoReturn:
    _open_closed_streams()
    try:
        require("click", extra="cli", feature="the command line")
        require("rich", extra="cli", feature="the command line")
    except MissingDependencyError as exc:
        print(f"zarrstore: {exc}", file=sys.stderr)
        raise SystemExit(3) from None
    from zarrstore.cli.group import run

    raise SystemExit(run(args))


def _open_closed_streams() -> None:
    """Give the process the standard streams that its caller closed, so that no file of a store takes their numbers.

    What a library prints to descriptor 1 or 2 would otherwise go into an archive or a database. stdin and stdout are
    opened the wrong way round: reading what was never given and writing what nobody gets are errors, not silence.
    """
    for name, mode, flags in (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode, encoding="utf-8"))
