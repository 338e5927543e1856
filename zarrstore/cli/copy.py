"""The verb ``copy``."""

from __future__ import annotations

import json

import click

from zarrstore.base import Store
from zarrstore.cli.common import (
    copy_options,
    echo_err,
    echo_questions,
    not_empty,
    opened,
    opened_destination,
    path_option,
    print_json,
    printable,
    progress,
    selection_options,
    target_argument,
    with_executor,
)
from zarrstore.cli.words import in_words
from zarrstore.keys import normalize_path
from zarrstore.tools.copy import CopyResult, copy_store
from zarrstore.tools.listing import require
from zarrstore.tools.plan import IfExists


@click.command()
@target_argument("source")
@target_argument("dest")
@path_option("--source-path", "Copy what is at and below this path.")
@path_option("--dest-path", "Copy it to this path.")
@selection_options
@click.option(
    "--if-exists", type=click.Choice(["raise", "skip", "replace", "differ"]), default="raise", show_default=True
)
@click.option("--delete", is_flag=True, help="At the end, delete in DEST what SOURCE does not have.")
@click.option(
    "--resume", metavar="JOURNAL", callback=not_empty, help="Go on where a copy with this journal was interrupted."
)
@click.option("--verify", is_flag=True, help="Read every value back and compare.")
@copy_options
@click.pass_context
def command(
    ctx: click.Context,
    source: str,
    dest: str,
    source_path: str,
    dest_path: str,
    excludes: tuple[str, ...],
    includes: tuple[str, ...],
    if_exists: IfExists,
    delete: bool,
    resume: str | None,
    verify: bool,
    memory: int,
    verbose: bool,
    quiet: bool,
    json_lines: bool,
    checksum: bool,
    manifest: str | None,
    retries: int,
    bwlimit: float | None,
    max_questions: int,
    jobs: int | None,
    dask: str | None,
    dry_run: bool,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Copy every key of SOURCE to DEST, documents last. Exit 1 if some could not be copied."""
    with opened(source, "r", storage_option) as src_store:
        # Before DEST is opened, which creates it: what is refused here leaves nothing behind.
        require(src_store, normalize_path(source_path))
        echo_questions(src_store, source_path, max_questions)
        with opened_destination(dest, dry_run, storage_option) as dest_store, with_executor(jobs, dask) as executor:
            result = copy_store(
                _retrying(src_store, retries),
                _limited(dest_store, retries, bwlimit),
                source_path,
                dest_path,
                include_globs=includes,
                exclude_globs=excludes,
                checksum=checksum,
                manifest=manifest,
                if_exists=if_exists,
                dry_run=dry_run,
                log=_JsonLines() if json_lines else _echo if verbose and not as_json else None,
                executor=executor,
                resume=resume,
                verify=verify,
                progress=None if quiet else progress("copy"),
                errors="collect",
                memory=memory,
                max_questions=max_questions,
                delete=delete,
            )
    facts = _facts(result, dry_run)
    if json_lines:
        click.echo(json.dumps({"action": "end", **facts}))
    elif as_json:
        print_json(facts)
    for key, reason in result.errors.items():
        echo_err(f"error {key}: {reason}")
    if not quiet:
        _echo_summary(result, dry_run, delete)
    ctx.exit(1 if result.errors else 0)


def _facts(result: CopyResult, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "copied": result.n_copied,
        "skipped": result.n_skipped,
        "deleted": result.n_deleted,
        "nbytes": result.n_bytes_copied,
        "errors": result.errors,
        "notes": result.notes,
    }


def _echo_summary(result: CopyResult, dry_run: bool, delete: bool) -> None:
    for note in result.notes:
        if "by size and time" in note:
            echo_err(f"note: {in_words(note)}")
    copied, skipped, nbytes = result
    verb = "would copy" if dry_run else "copied"
    deleted = f", {'would delete' if dry_run else 'deleted'} {result.n_deleted:,}" if delete else ""
    echo_err(f"{verb} {copied:,} keys ({nbytes:,} bytes), skipped {skipped:,}{deleted}, errors {len(result.errors):,}")


def _echo(line: str) -> None:
    # A line of a key is left as it is, whatever the key looks like.
    click.echo(printable(in_words(line) if line.startswith("note: ") else line))


class _JsonLines:
    """Takes each event of a copy as one line of JSON."""

    def __call__(self, line: str) -> None:
        """Pass over the lines of text, which the last object repeats."""

    def event(self, action: str, key: str, dest_key: str, reason: str) -> None:
        """Print one event."""
        parts = {"action": action, "key": key, "dest_key": dest_key, "reason": reason}
        click.echo(json.dumps({name: part for name, part in parts.items() if part}))


def _limited(dest: Store, retries: int, bwlimit: float | None) -> Store:
    """Return the destination with what it may take and how often a failure is tried again."""
    store = _retrying(dest, retries)
    if bwlimit is None:
        return store
    from zarrstore.tools.throttle import ThrottledStore

    return ThrottledStore(store, bwlimit * (1 << 20))


def _retrying(store: Store, retries: int) -> Store:
    if not retries:
        return store
    from zarrstore.wrappers.retry import RetryStore

    return RetryStore(store, retries + 1)
