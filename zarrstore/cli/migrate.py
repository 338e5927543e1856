"""The verb ``migrate``."""

from __future__ import annotations

import re
from contextlib import ExitStack

import click

import zarrstore
from zarrstore.cli.common import (
    confirm,
    dry_run_option,
    echo_err,
    executor_options,
    json_option,
    memory_option,
    opened,
    opened_destination,
    path_argument,
    print_json,
    print_table,
    storage_options,
    target_argument,
    with_executor,
    yes_option,
)
from zarrstore.keys import normalize_path
from zarrstore.nodes import walk
from zarrstore.tools.listing import require
from zarrstore.tools.migrate_1to2 import migrate_1to2
from zarrstore.tools.migrate_1to3 import migrate_1to3
from zarrstore.tools.migrate_2to3 import migrate_2to3
from zarrstore.tools.migrate_icechunk import migrate_to_icechunk
from zarrstore.tools.migrate_view import view_of
from zarrstore.tools.migration import MigrationReport
from zarrstore.tools.objects import Objects
from zarrstore.tools.report import FORMATS, documents_of, write_report
from zarrstore.tools.shard import Shards
from zarrstore.urls import without_secrets
from zarrstore.wrappers.v2view import V2View


@click.command()
@target_argument()
@path_argument()
@click.option(
    "--to",
    "version",
    type=click.Choice(["2", "3", "icechunk"]),
    help="The version wanted, by default the next one; or a repository: then PATH is where it is, unless --dest is.",
)
@click.option("--dest", metavar="TARGET", help="Copy the chunks there and write the documents there (2 to 3 only).")
@click.option("--shards", metavar="auto|SIZE|SHAPE", help="With --dest, pack chunks into shards: auto, 16MiB, 512x512.")
@click.option(
    "--objects",
    type=click.Choice(["reencode", "unpickle"]),
    help="With --dest, encode objects anew as strings or bytes; unpickle reads pickles too, and runs nothing in them.",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write what became of each node, who reads it and the checksums to FILE.json or FILE.html.",
)
@click.option("-m", "--message", help="With --to icechunk, of the commit.")
@click.option("--overwrite", is_flag=True, help="Replace version 3 documents, and chunks at --dest, that differ.")
@click.option("--resume", type=click.Path(dir_okay=False), metavar="FILE", help="With --dest, a journal to go on from.")
@click.option("--remove-v2", is_flag=True, help="Delete the documents of version 2 once those of version 3 stand.")
@memory_option
@executor_options
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
    dest: str | None,
    shards: str | None,
    objects: Objects | None,
    overwrite: bool,
    resume: str | None,
    report_file: str | None,
    message: str | None,
    remove_v2: bool,
    memory: int,
    jobs: int | None,
    dask: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    storage_option: tuple[str, ...],
) -> None:
    """Bring the hierarchy at PATH to the next version of Zarr: documents only, chunks are not touched.

    What is version 1 becomes version 2, and its documents are deleted; what is version 2 becomes version 3, beside
    which the documents of version 2 stay unless --remove-v2. It goes one version at a time unless --to 3 is given.
    With --dest, TARGET is only read. Exit 1 if a node cannot be expressed in the new version.

    zarrstore migrate old.lmdb s3://bucket/repo --to icechunk makes one commit of the whole, or none.
    """
    if report_file is not None and not report_file.lower().endswith(FORMATS):
        raise click.UsageError(f"--report {report_file!r}: it is written as {' or '.join(FORMATS)}")
    if version == "icechunk":
        if remove_v2 or resume is not None:
            raise click.UsageError("--remove-v2 and --resume are not for --to icechunk: it is one commit, or none")
        place, at = (path, "") if dest is None else (dest, path)
        if not place:
            raise click.UsageError("say where the repository is: zarrstore migrate TARGET REPOSITORY --to icechunk")
        report = _to_icechunk(
            target, place, at, shards, objects, overwrite, message, dry_run, storage_option, report_file, memory
        )
        _show(report, as_json)
        ctx.exit(1 if report.counts().get("impossible") else 0)
    if message is not None:
        raise click.UsageError("--message is for --to icechunk")
    if dest is not None and (remove_v2 or version == "2"):
        raise click.UsageError("--dest is for version 2 to 3, and gets no documents of version 2 that could be removed")
    if dest is None and shards is not None:
        raise click.UsageError("--shards is for --dest: chunks are not packed into shards where they are")
    if dest is None and objects is not None:
        raise click.UsageError("--objects is for --dest: objects are not encoded anew where they are")
    if dest is None and resume is not None:
        raise click.UsageError("--resume is for --dest: in place, a second run goes on by itself")
    with ExitStack() as stack:
        store = stack.enter_context(opened(target, "r" if dry_run or dest else "r+", storage_option))
        require(store, normalize_path(path))
        found = {node.version for node in walk(store, path)}
        old = documents_of(store, path) if report_file is not None else {}
        if 1 in found and dest is not None:
            raise click.UsageError(f"{target} holds version 1, which is migrated in place first: leave out --dest")
        doomed = ["1"] * (1 in found) + ["2"] * (remove_v2 and (1 not in found or version == "3"))
        if doomed and not dry_run:
            confirm(f"Delete the version {' and '.join(doomed)} documents of {target}?", yes)
        target_store = None
        if 1 in found and version != "3":
            report = migrate_1to2(store, path, dry_run=dry_run)
        elif 1 in found:
            report = migrate_1to3(store, path=path, dry_run=dry_run, remove_v2=remove_v2)
        elif version == "2":
            report = migrate_1to2(store, path, dry_run=dry_run)
        else:
            target_store = (
                None if dest is None else stack.enter_context(opened_destination(dest, dry_run, storage_option))
            )
            report = migrate_2to3(
                store,
                target_store,
                path,
                dry_run=dry_run,
                remove_v2=remove_v2,
                overwrite=overwrite,
                resume=None if dry_run else resume,
                shards=None if shards is None else parse_shards(shards),
                objects=objects,
                memory=memory,
                executor=stack.enter_context(with_executor(jobs, dask)),
            )
        if report_file is not None:
            view = None if target_store is None else view_of(target_store)
            new = store if target_store is None else target_store if view is None else view.inner
            write_report(report, report_file, old, new, names=(target, dest or target))
    _show(report, as_json)
    ctx.exit(1 if report.counts().get("impossible") else 0)


def _to_icechunk(
    target: str,
    place: str,
    path: str,
    shards: str | None,
    objects: Objects | None,
    overwrite: bool,
    message: str | None,
    dry_run: bool,
    storage_option: tuple[str, ...],
    report_file: str | None,
    memory: int,
) -> MigrationReport:
    """Migrate into a repository, and print its history."""
    url = place if place.startswith("icechunk") else f"icechunk+{place}" if "://" in place else f"icechunk:{place}"
    packing = None if shards is None else parse_shards(shards)
    with opened(target, "r", storage_option) as store:
        require(store, normalize_path(path))
        if dry_run:
            plan, _ = migrate_to_icechunk(store, V2View({}), path, shards=packing, objects=objects, dry_run=True)
            if report_file is not None:
                write_report(plan, report_file, store, {}, names=(target, url))
            return plan
        with opened(url, "a", storage_option) as dest:
            text = message or f"{target} migrated by zarrstore {zarrstore.__version__}"
            facts = {"source": without_secrets(target), "zarrstore": zarrstore.__version__}
            report, _ = migrate_to_icechunk(
                store,
                dest,
                path,
                message=text,
                metadata=facts,
                shards=packing,
                objects=objects,
                overwrite=overwrite,
                memory=memory,
            )
            if report_file is not None:
                write_report(report, report_file, store, dest.inner, names=(target, url))  # type: ignore[attr-defined]
            for one in dest.history():  # type: ignore[attr-defined]
                echo_err(f"{one.id} {one.written_at:%Y-%m-%d %H:%M:%S} {one.message}")
    return report


def parse_shards(text: str) -> Shards:
    """Return what ``--shards`` says: ``auto``, a size in bytes, or a shape in items.

    Examples
    --------
    >>> parse_shards("auto"), parse_shards("16MiB"), parse_shards("512x512"), parse_shards("1000,")
    ('auto', 16777216, (512, 512), (1000,))
    """
    if text == "auto":
        return text
    size = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMG]i?)?B?", text, re.IGNORECASE)
    if size is not None:
        unit = (size[2] or "").upper()
        factor = (1024 if unit.endswith("I") else 1000) ** "KMG".find(unit[:1]) * (1024 if unit.endswith("I") else 1000)
        return int(float(size[1]) * (factor if unit else 1))
    lengths = [length for length in re.split("[x,]", text) if length]
    if not lengths or not all(length.isdecimal() for length in lengths):
        raise click.UsageError(f"--shards {text!r} is neither auto, nor a size as 16MiB, nor a shape as 512x512")
    return tuple(map(int, lengths))


def _show(report: MigrationReport, as_json: bool) -> None:
    if as_json:
        print_json(report.as_dict())
        return
    rows = [(node.path or "/", node.kind, node.action, "; ".join(node.notes)) for node in report]
    if rows:
        print_table(("path", "kind", "action", "notes"), rows)
    counts = ", ".join(f"{count:,} {action}" for action, count in report.counts().items()) or "nothing to do"
    echo_err(f"version {report.source} to {report.target}: {counts}")
