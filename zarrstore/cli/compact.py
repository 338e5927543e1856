"""The verb ``compact``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from zarrstore.cli.common import echo_err, json_option, opened, print_json, target_argument


@click.command()
@target_argument()
@json_option
def command(target: str, as_json: bool) -> None:
    """Give back the free space of a zip, LMDB or SQLite TARGET.

    The file is the old one or the new one at every moment.
    """
    before = _size(target)
    with opened(target, "r+") as store:
        # ZipStore has an option of the name `compact`, and a method `repack`.
        give_back = getattr(store, "repack", None) or getattr(store, "compact", None)
        if give_back is None:
            raise click.UsageError(f"{target!r} has no free space to give back: zip, LMDB and SQLite files have")
        give_back()
    after = _size(target)
    if as_json:
        print_json({"before": before, "after": after})
    echo_err(f"{target}: {before:,} bytes became {after:,}")


def _size(target: str) -> int:
    path = Path(os.path.expanduser(target))
    files = [path] if path.is_file() else [file for file in path.glob("*") if file.is_file()]
    # Sparse files count as what they take, which is what is given back; others without the rest of their last block.
    return sum(_taken(file.stat()) for file in files)


def _taken(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # not on Windows
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)
