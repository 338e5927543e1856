"""The verb ``migrate``."""

from __future__ import annotations

import click

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
from zarrstore.nodes import walk
from zarrstore.tools.listing import require
from zarrstore.tools.migrate_1to2 import migrate_1to2
from zarrstore.tools.migrate_2to3 import migrate_1to3, migrate_2to3
from zarrstore.tools.migration import MigrationReport


@click.command()
@target_argument()
@path_argument()
@click.option("--to", "version", type=click.Choice(["2", "3"]), help="The version wanted; by default the next one.")
@click.option("--remove-v2", is_flag=True, help="Delete the documents of version 2 once those of version 3 stand.")
@dry_run_option
@yes_option
@json_option
@storage_options
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    path: str,
    version: str | None,
    remove_v2: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Bring the hierarchy at PATH to the next version of Zarr, in place: documents only, chunks are not touched.

    What is version 1 becomes version 2; what is version 2 becomes version 3, beside which the documents of version 2
    stay unless --remove-v2. Exit 1 if a node cannot be expressed in the new version.
    """
    with opened(target, "r" if dry_run else "r+", storage_option) as store:
        require(store, normalize_path(path))
        found = {node.version for node in walk(store, path)}
        if remove_v2 and not dry_run:
            confirm(f"Delete the version 2 documents of {target}?", yes)
        if 1 in found and version != "3":
            report = migrate_1to2(store, path, dry_run=dry_run)
        elif 1 in found:
            report = migrate_1to3(store, path=path, dry_run=dry_run, remove_v2=remove_v2)
        elif version == "2":
            report = migrate_1to2(store, path, dry_run=dry_run)
        else:
            report = migrate_2to3(store, path=path, dry_run=dry_run, remove_v2=remove_v2)
    _show(report, as_json)
    ctx.exit(1 if report.counts().get("impossible") else 0)


def _show(report: MigrationReport, as_json: bool) -> None:
    if as_json:
        print_json(report.as_dict())
        return
    rows = [(node.path or "/", node.kind, node.action, "; ".join(node.notes)) for node in report]
    if rows:
        print_table(("path", "kind", "action", "notes"), rows)
    counts = ", ".join(f"{count:,} {action}" for action, count in report.counts().items()) or "nothing to do"
    echo_err(f"version {report.source} to {report.target}: {counts}")
