"""What the verbs share: opening a target, tables, JSON, progress, and the question before a deletion."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY
from zarrstore.base import Store
from zarrstore.errors import StoreNotFoundError, UnsupportedOperation
from zarrstore.keys import normalize_path
from zarrstore.optional import require
from zarrstore.registry import holds_hierarchy, open_store
from zarrstore.shown import human_bytes, printable
from zarrstore.tools.listing import MAX_QUESTIONS, listing_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from click.shell_completion import CompletionItem
    from rich.console import Console

    from zarrstore.tools.progress import Progress

__all__ = [
    "SCHEMA_VERSION",
    "check_hierarchy",
    "complete_path",
    "confirm",
    "console",
    "copy_options",
    "dask_option",
    "dry_run_option",
    "echo_err",
    "echo_questions",
    "executor_options",
    "force_option",
    "json_option",
    "not_empty",
    "opened",
    "opened_destination",
    "path_argument",
    "path_option",
    "print_json",
    "print_table",
    "print_value",
    "printable",
    "progress",
    "questions_option",
    "storage_options",
    "target_argument",
    "with_executor",
    "yes_option",
]

#: Control characters beyond those that JSON escapes by itself, marks of direction, lone surrogates.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff]")

#: Characters that may take no cell of a terminal, or two; Latin letters, with their accents in one sign, take one.
_WIDE = re.compile("[^\x20-\x7e\xa0-\xac\xae-\u02ff]")

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with the version of its schema.")
dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
force_option = click.option("--force", is_flag=True, help="Also in what holds no Zarr hierarchy.")
questions_option = click.option(
    "--max-questions",
    type=click.IntRange(min=1),
    default=MAX_QUESTIONS,
    show_default=True,
    help="Of a web server, which cannot be listed: how many chunks may be asked for by name.",
)
_storage_option = click.option(
    "--storage-option",
    "storage_option",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the file system of a URL; VALUE may be JSON. Repeatable.",
)


def not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse what an unset shell variable leaves: ``""`` is neither the root nor the current directory."""
    if value == "":
        raise click.BadParameter("it is empty; '/' is the root of a store, '.' the current directory", ctx, param)
    return value


def _files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def complete_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what may follow within the store that was named before: the children of the directory typed so far.

    Notes
    -----
    Cost: the store is opened, and one directory listed. What goes wrong completes nothing.
    """
    from click.shell_completion import CompletionItem

    target = next((ctx.params[name] for name in ("target", "source", "archive") if ctx.params.get(name)), None)
    if not isinstance(target, str) or "://" in target:
        return []  # a bucket is not asked at each press of a key
    folder, slash, begun = incomplete.rpartition("/")
    try:
        with open_store(target, mode="r") as store:
            names = [name for name in store.listdir(folder) if name.startswith(begun)]
            paths = [f"{folder}{slash}{name}" for name in names]
            # A slash, to go on from there.
            return [CompletionItem(path if path in store else f"{path}/") for path in paths if printable(path) == path]
    except Exception:
        return []


def _path(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    return not_empty(ctx, param, value) or ""


def target_argument(name: str = "target") -> Callable[[F], F]:
    """A store on the command line."""
    # Named as a file, so that the shell completes it as one.
    return click.argument(name, metavar=name.upper(), callback=not_empty, shell_complete=_files)


def path_argument(name: str = "path", *, required: bool = False) -> Callable[[F], F]:
    """A path within a store; the root if it is not given."""
    return click.argument(name, required=required, callback=_path, shell_complete=complete_path)


def path_option(name: str, text: str) -> Callable[[F], F]:
    """An option that is a path within a store; the root if it is not given."""
    return click.option(name, callback=_path, help=text)


def storage_options(command: F) -> F:
    """The option that is passed to `opened`."""
    return _storage_option(command)


@contextmanager
def opened(target: str, mode: Any, storage_option: Sequence[str] = (), **options: Any) -> Iterator[Store]:
    """Open a target for the length of a verb."""
    is_url = "://" in target or "::" in target
    given = _pairs(storage_option) if is_url else {}
    with open_store(target, mode=mode, storage_options=given or None, **options) as store:
        if mode == "a" and is_url and not store.capabilities.writable:
            raise UnsupportedOperation("be written", target, "change a local copy, then upload that")
        yield store


@contextmanager
def opened_destination(dest: str, dry_run: bool, storage_option: Sequence[str]) -> Iterator[Store]:
    """Open the destination; a dry run creates nothing, and takes what is missing for an empty store."""
    if not dry_run:
        with opened(dest, "a", storage_option) as store:
            yield store
        return
    try:
        existing = opened(dest, "r", storage_option)
        store = existing.__enter__()
    except StoreNotFoundError:
        yield as_store({})
        return
    with store:
        yield store


def check_hierarchy(store: Store, target: str, force: bool) -> None:
    """Refuse to delete in what holds no Zarr hierarchy: it may be somebody's home directory."""
    if not force and not holds_hierarchy(store):
        raise click.UsageError(f"{target!r} holds no Zarr hierarchy; pass --force to delete in it all the same")


def echo_questions(store: Store, path: str, max_questions: int) -> tuple[str, ...]:
    """Print how many chunks will be asked for by name, and what cannot be seen that way; return what was printed."""
    if store.capabilities.listable:
        return ()
    from zarrstore.cli.words import in_words

    listing = listing_of(store, normalize_path(path), max_questions=max_questions)
    for note in listing.notes:
        echo_err(f"note: {in_words(note)}")
    echo_err(f"note: {listing.n_questions:,} chunks are asked for by name")
    return listing.notes


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
    # rich is loaded when something is drawn: it takes as long to import as all the rest.
    from zarrstore.cli.drawing import console_of_stdout

    return console_of_stdout()


#: Of what ``--json`` prints, errors included; a member that changes its meaning makes another.
SCHEMA_VERSION = 1


def print_json(value: Any) -> None:
    """Print what a verb found as one JSON object with its schema version; rows are its ``entries``."""
    facts = {"entries": value} if isinstance(value, list) else value
    print_value({"schema_version": SCHEMA_VERSION, **facts})


def print_value(value: Any) -> None:
    """Print a value as JSON: NaN and infinities as text, and no character that a terminal would obey."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    click.echo(_UNPRINTABLE.sub(lambda match: json.dumps(match[0])[1:-1], text))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return value


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> None:
    """Print rows under headers; columns in `numbers` are flush right."""
    # printable: a name may hold what a terminal obeys.
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if _draws() or any(_WIDE.search(text) for row in (headers, *cells) for text in row):
        _draw_table(headers, cells, numbers)
        return
    for line in _columns([[*headers], *cells], numbers):
        click.echo(line)


def _draws() -> bool:
    """Return whether stdout is a terminal, or is to be taken for one."""
    return sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR")) or os.environ.get("TTY_COMPATIBLE") == "1"


def _columns(rows: list[list[str]], numbers: Sequence[int]) -> Iterator[str]:
    """Yield the lines of a table, as rich lays it out where no terminal is, of characters that are one cell wide."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        pairs = enumerate(zip(row, widths, strict=True))
        yield "  ".join(text.rjust(width) if n in numbers else text.ljust(width) for n, (text, width) in pairs)


def _draw_table(headers: Sequence[str], rows: list[list[str]], numbers: Sequence[int]) -> None:
    """Draw a table with rich: bold headers, and columns that know how wide a character is."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for n, header in enumerate(headers):
        table.add_column(header, justify="right" if n in numbers else "left", no_wrap=True, overflow="fold")
    for row in rows:
        # Text, since a key may look like rich's markup.
        table.add_row(*map(Text, row))
    console().print(table)


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
            seconds = state.seconds_left(now - start)
            left = f", {seconds:,.0f} s left" if seconds else ""
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


# Copies -------------------------------------------------------------------------------------------------------------


def selection_options(command: F) -> F:
    """``--include`` and ``--exclude``."""
    exclude = click.option(
        "--exclude", "excludes", multiple=True, metavar="GLOB", help="Leave out a path, or what a glob matches."
    )
    include = click.option(
        "--include", "includes", multiple=True, metavar="GLOB", help="Take only this path, or what this glob matches."
    )
    return exclude(include(command))


def transfer_options(command: F) -> F:
    """How a copy goes on, and what it prints."""
    for option in (
        click.option("--checksum", is_flag=True, help="With 'differ': time proves nothing, look at checksums."),
        click.option(
            "--manifest",
            type=click.Path(exists=True, dir_okay=False),
            help="With 'differ': SHA-256 of DEST's values.",
        ),
        click.option("--retries", type=click.IntRange(min=0), default=0, help="Try what fails so often again."),
        click.option("--bwlimit", type=click.FloatRange(min=0, min_open=True), metavar="MIB", help="MiB a second."),
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
        click.option("--json-lines", is_flag=True, help="Print one JSON object for each key, and one at the end."),
        click.option("-v", "--verbose", is_flag=True, help="Print a line for each key."),
    ):
        command = option(command)
    return command


def memory_option(command: F) -> F:
    """``--memory``, which a verb gets in bytes."""
    return click.option(
        "--memory",
        type=click.IntRange(min=1),
        default=MEMORY >> 20,
        show_default=True,
        callback=lambda _ctx, _param, mib: mib << 20,
        metavar="MIB",
        help="What the values under way may take together.",
    )(command)


def copy_options(command: F) -> F:
    """All that ``copy`` and ``sync`` share beside what is copied."""
    shared = (storage_options, json_option, dry_run_option, executor_options, questions_option, memory_option)
    for option in (*shared, transfer_options):
        command = option(command)
    return command


# Executors ----------------------------------------------------------------------------------------------------------


def executor_options(command: F) -> F:
    """``-j`` and ``--dask``."""
    command = click.option("-j", "--jobs", type=click.IntRange(min=1), help="Number of threads.")(command)
    return dask_option(command)


def dask_option(command: F) -> F:
    """``--dask``, of verbs that threads do not speed up."""
    return click.option("--dask", metavar="ADDRESS", help="Work on the dask cluster at this address.")(command)


@contextmanager
def with_executor(jobs: int | None, dask: str | None) -> Iterator[Executor | None]:
    """Open the executor of ``-j`` or ``--dask``; None leaves the choice to the verb."""
    if dask is not None:
        distributed = require("distributed", extra="dask", feature="--dask")
        with distributed.Client(dask) as client:
            yield client.get_executor()
    elif jobs is not None:
        from zarrstore.threads import Threads

        with Threads(jobs) as executor:
            yield executor
    else:
        yield None
