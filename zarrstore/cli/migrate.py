"""The verb ``migrate``."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any, NamedTuple

import click

import zarrstore
from zarrstore.base import Store
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
from zarrstore.tools.migrate_2to3 import migrate_2to3, migrate_in_place
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
def command(ctx: click.Context, /, **given: Any) -> None:
    """Bring the hierarchy at PATH to the next version of Zarr: documents only, chunks are not touched.

    What is version 1 becomes version 2, and its documents are deleted; what is version 2 becomes version 3, beside
    which the documents of version 2 stay unless --remove-v2. It goes one version at a time unless --to 3 is given.
    With --dest, TARGET is only read. Exit 1 if a node cannot be expressed in the new version.

    zarrstore migrate old.lmdb s3://bucket/repo --to icechunk makes one commit of the whole, or none.
    """
    asked = _Options(**given)
    _check(asked)
    report = _to_icechunk(asked) if asked.version == "icechunk" else _to_version(asked)
    _show(report, asked.as_json)
    ctx.exit(1 if report.counts().get("impossible") else 0)


class _Options(NamedTuple):
    """What was asked on the command line."""

    target: str
    path: str
    version: str | None
    dest: str | None
    shards: str | None
    objects: Objects | None
    overwrite: bool
    resume: str | None
    report_file: str | None
    message: str | None
    remove_v2: bool
    memory: int
    jobs: int | None
    dask: str | None
    dry_run: bool
    yes: bool
    as_json: bool
    storage_option: tuple[str, ...]

    @property
    def packing(self) -> Shards | None:
        """What is packed into shards."""
        return None if self.shards is None else parse_shards(self.shards)


def _check(asked: _Options) -> None:
    """Refuse options that do not go together."""
    if asked.report_file is not None and not asked.report_file.lower().endswith(FORMATS):
        raise click.UsageError(f"--report {asked.report_file!r}: it is written as {' or '.join(FORMATS)}")
    if asked.version == "icechunk":
        if asked.remove_v2 or asked.resume is not None:
            raise click.UsageError("--remove-v2 and --resume are not for --to icechunk: it is one commit, or none")
        if not (asked.path if asked.dest is None else asked.dest):
            raise click.UsageError("say where the repository is: zarrstore migrate TARGET REPOSITORY --to icechunk")
        return
    if asked.message is not None:
        raise click.UsageError("--message is for --to icechunk")
    if asked.dest is not None and (asked.remove_v2 or asked.version == "2"):
        raise click.UsageError("--dest is for version 2 to 3, and gets no documents of version 2 that could be removed")
    if asked.dest is None:
        _check_in_place(asked)


def _check_in_place(asked: _Options) -> None:
    if asked.shards is not None:
        raise click.UsageError("--shards is for --dest: chunks are not packed into shards where they are")
    if asked.objects is not None:
        raise click.UsageError("--objects is for --dest: objects are not encoded anew where they are")
    if asked.resume is not None:
        raise click.UsageError("--resume is for --dest: in place, a second run goes on by itself")


def _to_version(asked: _Options) -> MigrationReport:
    """Migrate in place or to a destination, and write the report that was asked for."""
    with ExitStack() as stack:
        mode = "r" if asked.dry_run or asked.dest else "r+"
        store = stack.enter_context(opened(asked.target, mode, asked.storage_option))
        require(store, normalize_path(asked.path))
        nodes = list(walk(store, asked.path))
        found = {node.version for node in nodes}
        old = documents_of(store, asked.path) if asked.report_file is not None else {}
        _confirm_deletion(asked, found)
        dest = None
        if 1 in found and asked.version == "3":
            report = migrate_1to3(store, path=asked.path, dry_run=asked.dry_run, remove_v2=asked.remove_v2)
        elif 1 in found or asked.version == "2":
            report = migrate_1to2(store, asked.path, dry_run=asked.dry_run)
        elif asked.dest is None:
            options = {"dry_run": asked.dry_run, "remove_v2": asked.remove_v2, "overwrite": asked.overwrite}
            report = migrate_in_place(store, nodes, normalize_path(asked.path), **options)
        else:
            dest = stack.enter_context(opened_destination(asked.dest, asked.dry_run, asked.storage_option))
            report = _to_version_3(asked, store, dest, stack)
        if asked.report_file is not None:
            view = None if dest is None else view_of(dest)
            new = store if dest is None else dest if view is None else view.inner
            write_report(report, asked.report_file, old, new, names=(asked.target, asked.dest or asked.target))
    return report


def _confirm_deletion(asked: _Options, found: set[int]) -> None:
    """Ask before documents are deleted; refuse what holds version 1 and was to be only read."""
    if 1 in found and asked.dest is not None:
        raise click.UsageError(f"{asked.target} holds version 1, which is migrated in place first: leave out --dest")
    doomed = ["1"] * (1 in found) + ["2"] * (asked.remove_v2 and (1 not in found or asked.version == "3"))
    if doomed and not asked.dry_run:
        confirm(f"Delete the version {' and '.join(doomed)} documents of {asked.target}?", asked.yes)


def _to_version_3(asked: _Options, store: Store, dest: Store, stack: ExitStack) -> MigrationReport:
    return migrate_2to3(
        store,
        dest,
        asked.path,
        dry_run=asked.dry_run,
        overwrite=asked.overwrite,
        resume=None if asked.dry_run else asked.resume,
        shards=asked.packing,
        objects=asked.objects,
        memory=asked.memory,
        executor=stack.enter_context(with_executor(asked.jobs, asked.dask)),
    )


def _to_icechunk(asked: _Options) -> MigrationReport:
    """Migrate into a repository, and print its history."""
    place, path = (asked.path, "") if asked.dest is None else (asked.dest, asked.path)
    url = place if place.startswith("icechunk") else f"icechunk+{place}" if "://" in place else f"icechunk:{place}"
    packing, objects = asked.packing, asked.objects
    with opened(asked.target, "r", asked.storage_option) as store:
        require(store, normalize_path(path))
        if asked.dry_run:
            plan, _ = migrate_to_icechunk(store, V2View({}), path, shards=packing, objects=objects, dry_run=True)
            if asked.report_file is not None:
                write_report(plan, asked.report_file, store, {}, names=(asked.target, url))
            return plan
        with opened(url, "a", asked.storage_option) as dest:
            report, _ = migrate_to_icechunk(
                store,
                dest,
                path,
                message=asked.message or f"{asked.target} migrated by zarrstore {zarrstore.__version__}",
                metadata={"source": without_secrets(asked.target), "zarrstore": zarrstore.__version__},
                shards=packing,
                objects=objects,
                overwrite=asked.overwrite,
                memory=asked.memory,
            )
            inner = dest.inner  # type: ignore[attr-defined]
            if asked.report_file is not None:
                write_report(report, asked.report_file, store, inner, names=(asked.target, url))
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
