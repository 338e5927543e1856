"""The verb ``repair``."""

from __future__ import annotations

from typing import Literal

import click

from zarrstore.base import Store
from zarrstore.cli.common import (
    confirm,
    dry_run_option,
    echo_err,
    json_option,
    opened,
    path_argument,
    print_json,
    print_table,
    storage_options,
    target_argument,
    yes_option,
)
from zarrstore.keys import normalize_path
from zarrstore.tools.listing import require
from zarrstore.tools.repair import repair
from zarrstore.tools.respell import respell

_SEPARATORS: dict[str, Literal[".", "/"]] = {"flat": ".", "nested": "/"}


@click.command()
@target_argument()
@path_argument()
@click.option("--spelling", type=click.Choice(["flat", "nested"]), help="Rename all chunks: 0.1 is flat, 0/1 nested.")
@click.option("--merge", is_flag=True, help="With --spelling: unite the chunks of arrays that have both spellings.")
@dry_run_option
@yes_option
@json_option
@storage_options
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    path: str,
    spelling: str | None,
    merge: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Put right the documents below PATH that are provably wrong: it says what, asks, and then writes.

    Arrays whose chunks are named otherwise than their documents say (zarr 2.0 to 2.7 wrote nested chunks so), stale
    consolidated metadata, and what an interrupted removal of version 2 left. Chunks are not touched, but with
    --spelling. Exit 1 if something is wrong that cannot be decided here.
    """
    with opened(target, "r" if dry_run else "r+", storage_option) as store:
        require(store, normalize_path(path))
        if spelling is not None:
            _respell(store, target, path, spelling, merge=merge, dry_run=dry_run, yes=yes, as_json=as_json)
            return
        report = repair(store, path, dry_run=True)
        if report and not as_json:
            lines = [(one.key, "delete" if one.value is None else "write", one.reason) for one in report]
            print_table(("key", "action", "reason"), lines)
        if report and not dry_run:
            confirm(f"Change {len(report):,} documents in {target}?", yes)
            report = repair(store, path)
    if as_json:
        print_json(report.as_dict())
    for note in report.notes:
        echo_err(f"note: {note}")
    echo_err(f"{len(report):,} documents {'would be' if dry_run else 'were'} changed")
    ctx.exit(1 if report.notes else 0)


def _respell(
    store: Store, target: str, path: str, spelling: str, *, merge: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    renamed = respell(store, _SEPARATORS[spelling], path, dry_run=True, merge=merge)
    columns = ("path", "before", "after", "chunks")
    rows = [(one.path or "/", one.before, one.after, f"{one.n_chunks:,}") for one in renamed]
    if rows and not as_json:
        print_table(columns, rows, numbers=(3,))
    n_arrays = len(renamed.arrays)
    if renamed and not dry_run:
        confirm(f"Rename the chunks of {n_arrays:,} arrays in {target}?", yes)
        respell(store, _SEPARATORS[spelling], path, merge=merge)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    echo_err(f"{n_arrays:,} arrays {'would be' if dry_run else 'were'} renamed to {spelling} names")
