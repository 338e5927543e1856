"""What the verbs share: opening a target, tables, JSON, progress, and the question before a deletion."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zarrstore.base import Store
from zarrstore.optional import require
from zarrstore.registry import open_store
from zarrstore.tools.progress import Progress, human_bytes

__all__ = [
    "confirm",
    "console",
    "dry_run_option",
    "echo_err",
    "executor_options",
    "json_option",
    "opened",
    "print_json",
    "print_table",
    "progress",
    "storage_options",
    "target_argument",
    "with_executor",
    "yes_option",
]

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, stable across releases.")
dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_storage_option = click.option(
    "--storage-option",
    "storage_option",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the file system of a URL; VALUE may be JSON. Repeatable.",
)


def target_argument(name: str = "target") -> Callable[[F], F]:
    """A store on the command line."""
    return click.argument(name, metavar=name.upper())


def storage_options(command: F) -> F:
    """The option that is passed to `opened`."""
    return _storage_option(command)


@contextmanager
def opened(target: str, mode: str, storage_option: Sequence[str] = (), **options: Any) -> Iterator[Store]:
    """Open a target for the length of a verb."""
    is_url = "://" in target or "::" in target
    given = _pairs(storage_option) if is_url else {}
    with open_store(target, mode=mode, storage_options=given or None, **options) as store:
        yield store


def _pairs(given: Sequence[str]) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise click.BadParameter(f"{item!r} is not KEY=VALUE", param_hint="--storage-option")
        try:
            pairs[key] = json.loads(value)
        except ValueError:
            pairs[key] = value
    return pairs


# Output -------------------------------------------------------------------------------------------------------------


def console() -> Console:
    """Return the console of stdout. Without a terminal its width is not limited, so that no cell is cut."""
    wide = Console(highlight=False, soft_wrap=True)
    return wide if wide.is_terminal else Console(highlight=False, soft_wrap=True, width=10_000, color_system=None)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> None:
    """Print rows under headers; columns in `numbers` are flush right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for n, header in enumerate(headers):
        table.add_column(header, justify="right" if n in numbers else "left", no_wrap=True, overflow="fold")
    for row in rows:
        # Text, since a key may look like rich's markup.
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console().print(table)


def printable(text: str) -> str:
    """Return a key with control characters escaped: a name must not move the cursor of a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def echo_err(line: str) -> None:
    """Print a line that is not data to stderr."""
    click.echo(printable(line), err=True)


def progress(label: str) -> bool | Callable[[Progress], None]:
    """Return what reports progress: a bar on a terminal, elsewhere a line on stderr every two seconds."""
    if sys.stderr.isatty():
        return True
    start = last = time.monotonic()

    def report(state: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 2:
            last = now
            rate = state.done / (now - start)
            left = f", {(state.total - state.done) / rate:,.0f} s left" if rate else ""
            echo_err(f"{label}: {state.done:,} of {state.total:,}, {human_bytes(state.nbytes)}, {rate:,.0f}/s{left}")

    return report


# Asking -------------------------------------------------------------------------------------------------------------


def confirm(question: str, yes: bool) -> None:
    """Ask before something is destroyed; if stdin is no terminal, ``--yes`` is required."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{question} stdin is no terminal, so nobody can answer: pass --yes, or --dry-run to look first."
        )
    click.confirm(question, abort=True, err=True)


# Executors ----------------------------------------------------------------------------------------------------------


def executor_options(command: F) -> F:
    """``-j`` and ``--dask``."""
    command = click.option("-j", "--jobs", type=click.IntRange(min=1), help="Number of threads.")(command)
    return click.option("--dask", metavar="ADDRESS", help="Work on the dask cluster at this address.")(command)


@contextmanager
def with_executor(jobs: int | None, dask: str | None) -> Iterator[Executor | None]:
    """Open the executor of ``-j`` or ``--dask``; None leaves the choice to the verb."""
    if dask is not None:
        distributed = require("distributed", extra="dask", feature="--dask")
        with distributed.Client(dask) as client:
            yield client.get_executor()
    elif jobs is not None:
        with ThreadPoolExecutor(jobs) as executor:
            yield executor
    else:
        yield None
