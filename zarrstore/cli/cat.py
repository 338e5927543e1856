"""The verb ``cat``."""

from __future__ import annotations

import json
import sys

import click

from zarrstore import keys as k
from zarrstore.cli.common import complete_path, json_option, not_empty, opened, storage_options, target_argument
from zarrstore.metadata import documents


@click.command()
@target_argument()
@click.argument("key", callback=not_empty, shell_complete=complete_path)
@json_option
@storage_options
def command(target: str, key: str, as_json: bool, storage_option: tuple[str, ...]) -> None:
    """Write the bytes of KEY to stdout; with --json, a document laid out for reading."""
    with opened(target, "r", storage_option) as store:
        data = store[k.check_key(key)]
    if as_json:
        data = json.dumps(documents.loads(data, key), indent=2, ensure_ascii=False).encode() + b"\n"
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
