"""The verb ``copy``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    dry_run_option,
    echo_err,
    echo_questions,
    executor_options,
    json_option,
    not_empty,
    opened,
    opened_destination,
    path_option,
    print_json,
    printable,
    progress,
    questions_option,
    storage_options,
    target_argument,
    with_executor,
)
from zarrstore.keys import normalize_path
from zarrstore.tools.copy import MEMORY, copy_store
from zarrstore.tools.listing import require
from zarrstore.tools.plan import IfExists


@click.command()
@target_argument("source")
@target_argument("dest")
@path_option("--source-path", "Copy what is at and below this path.")
@path_option("--dest-path", "Copy it to this path.")
@click.option("--exclude", "excludes", multiple=True, metavar="REGEX", help="Leave out keys in which this is found.")
@click.option("--include", "includes", multiple=True, metavar="REGEX", help="But not those in which this is.")
@click.option(
    "--if-exists", type=click.Choice(["raise", "skip", "replace", "differ"]), default="raise", show_default=True
)
@click.option("--delete", is_flag=True, help="At the end, delete in DEST what SOURCE does not have.")
@click.option(
    "--resume", metavar="JOURNAL", callback=not_empty, help="Go on where a copy with this journal was interrupted."
)
@click.option("--verify", is_flag=True, help="Read every value back and compare.")
@click.option("--memory", type=click.IntRange(min=1), default=MEMORY >> 20, show_default=True, help="MiB for values.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each key.")
@questions_option
@executor_options
@dry_run_option
@json_option
@storage_options
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
                src_store,
                dest_store,
                source_path,
                dest_path,
                excludes=excludes,
                includes=includes,
                if_exists=if_exists,
                dry_run=dry_run,
                log=(lambda line: click.echo(printable(line))) if verbose and not as_json else None,
                executor=executor,
                resume=resume,
                verify=verify,
                progress=progress("copy"),
                errors="collect",
                memory=memory << 20,
                max_questions=max_questions,
                delete=delete,
            )
    copied, skipped, nbytes = result
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "copied": copied,
                "skipped": skipped,
                "deleted": result.n_deleted,
                "nbytes": nbytes,
                "errors": result.errors,
            }
        )
    for key, reason in result.errors.items():
        echo_err(f"error {key}: {reason}")
    verb = "would copy" if dry_run else "copied"
    deleted = f", {'would delete' if dry_run else 'deleted'} {result.n_deleted:,}" if delete else ""
    echo_err(f"{verb} {copied:,} keys ({nbytes:,} bytes), skipped {skipped:,}{deleted}, errors {len(result.errors):,}")
    ctx.exit(1 if result.errors else 0)
