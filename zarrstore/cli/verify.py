"""The verb ``verify``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import click

from zarrstore.base import Store
from zarrstore.cli.common import (
    echo_err,
    echo_questions,
    executor_options,
    json_option,
    memory_option,
    not_empty,
    opened,
    path_argument,
    print_json,
    printable,
    progress,
    questions_option,
    storage_options,
    target_argument,
    with_executor,
)
from zarrstore.keys import normalize_path
from zarrstore.tools.findings import Problem, VerifyReport
from zarrstore.tools.listing import require
from zarrstore.tools.manifest import write_manifest
from zarrstore.tools.verify import verify


def _is_dandi_checksum(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[0-9a-f]{32}-[0-9]+--[0-9]+", value):
        raise click.BadParameter(
            f"{value!r} is no checksum of a tree: it looks as MD5-COUNT--SIZE, as the DANDI archive says it"
        )
    return value


@click.command()
@target_argument()
@path_argument()
@click.option("--decode/--no-decode", default=True, show_default=True, help="Decode every chunk.")
@click.option("--manifest", type=click.Path(exists=True, dir_okay=False), help="Compare with these SHA-256 sums.")
@click.option(
    "--write-manifest",
    "write_to",
    type=click.Path(dir_okay=False),
    callback=not_empty,
    help="Write SHA-256 sums of all keys.",
)
@click.option(
    "--checksum",
    metavar="MD5-COUNT--SIZE",
    callback=_is_dandi_checksum,
    help="Compare with the DANDI archive's checksum of the tree.",
)
@click.option(
    "--report",
    "page",
    type=click.Path(dir_okay=False),
    callback=not_empty,
    help="Write an .html page with the problems, and the map of each damaged array.",
)
@click.option("--missing", type=click.Choice(["unfilled", "all", "none"]), default="unfilled", show_default=True)
@memory_option
@questions_option
@executor_options
@json_option
@storage_options
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    path: str,
    decode: bool,
    manifest: str | None,
    write_to: str | None,
    checksum: str | None,
    page: str | None,
    missing: Literal["unfilled", "all", "none"],
    memory: int,
    max_questions: int,
    jobs: int | None,
    dask: str | None,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Look at every key below PATH and print every problem.

    Exit 1 if there is one; exit 4 if there is none, and something could not be looked at: the notes say what.
    """
    with opened(target, "r", storage_option) as store, with_executor(jobs, dask) as executor:
        require(store, normalize_path(path))
        printed = echo_questions(store, path, max_questions)
        report = verify(
            store,
            path,
            decode,
            manifest,
            executor,
            missing=missing,
            max_questions=max_questions,
            memory=memory,
            progress=progress("verify"),
        )
        if checksum:
            report = _with_checksum(report, store, path, checksum)
        if write_to:
            written = write_manifest(
                store, write_to, path, max_questions=max_questions, memory=memory, executor=executor
            )
            echo_err(f"wrote {written:,} sums to {write_to}")
        if page:
            from zarrstore.cli.htmlreport import write_report

            write_report(store, report, target, page)
            echo_err(f"wrote {page}")
    if as_json:
        print_json(report.as_dict())
    else:
        for problem in report.problems:
            click.echo(printable(str(problem)))
    for note in report.notes:
        if note not in printed:
            echo_err(f"note: {note}")
    echo_err(
        f"{report.n_arrays:,} arrays, {report.n_groups:,} groups, {report.n_chunks:,} of {report.n_expected:,} chunks, "
        f"{report.n_decoded:,} decoded: {len(report.problems):,} problems"
    )
    if not report.fully_checked:
        echo_err("not fully checked: see the notes")
    ctx.exit(1 if report.problems else 0 if report.fully_checked else 4)


def _with_checksum(report: VerifyReport, store: Store, path: str, expected: str) -> VerifyReport:
    """Return the report, with a problem more if the tree has another checksum than expected."""
    from zarrstore.tools.checksums import dandi_checksum

    found = dandi_checksum(store, path)
    if found == expected:
        return report
    problem = Problem(normalize_path(path), "checksum", f"the tree has {found}, not {expected}")
    return replace(report, problems=(*report.problems, problem))
