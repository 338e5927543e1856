"""The verb ``pack``."""

from __future__ import annotations

import click

from zarrstore.cli.common import (
    dask_option,
    dry_run_option,
    echo_err,
    echo_questions,
    json_option,
    memory_option,
    not_empty,
    opened,
    print_json,
    progress,
    questions_option,
    storage_options,
    target_argument,
    with_executor,
)
from zarrstore.tools.pack import pack


@click.command()
@target_argument("source")
@click.argument("archive", type=click.Path(dir_okay=False), callback=not_empty)
@click.option("--overwrite", is_flag=True, help="Replace an archive that is there.")
@click.option("--verify", is_flag=True, help="Read every entry back and compare.")
@dask_option
@memory_option
@questions_option
@dry_run_option
@json_option
@storage_options
def command(
    source: str,
    archive: str,
    overwrite: bool,
    verify: bool,
    dask: str | None,
    memory: int,
    max_questions: int,
    dry_run: bool,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Put SOURCE, as a rule a directory, into one zip ARCHIVE, documents first. SOURCE is kept."""
    with opened(source, "r", storage_option) as store, with_executor(None, dask) as executor:
        echo_questions(store, "", max_questions)
        copied, _, nbytes = pack(
            store,
            archive,
            overwrite=overwrite,
            verify=verify,
            dry_run=dry_run,
            max_questions=max_questions,
            memory=memory,
            progress=progress("pack"),
            executor=executor,
        )
    if as_json:
        print_json({"dry_run": dry_run, "copied": copied, "nbytes": nbytes})
    echo_err(f"{'would pack' if dry_run else 'packed'} {copied:,} keys ({nbytes:,} bytes) into {archive}")
