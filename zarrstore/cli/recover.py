"""The verb ``recover``."""

from __future__ import annotations

import click

from zarrstore.cli.common import echo_err, json_option, not_empty, print_json, printable
from zarrstore.stores.zip import ZipStore


@click.command()
@click.argument("archive", type=click.Path(exists=True, dir_okay=False))
@click.argument("dest", type=click.Path(dir_okay=False), required=False, callback=not_empty)
@json_option
def command(archive: str, dest: str | None, as_json: bool) -> None:
    """Keep every whole entry of a damaged zip ARCHIVE, in place or in a new archive DEST."""
    recovery = ZipStore.recover(archive, dest)
    facts = {name: getattr(recovery, name) for name in recovery.__dataclass_fields__}
    facts = {name: list(v) if isinstance(v, tuple | set | frozenset) else v for name, v in facts.items()}
    if as_json:
        print_json(facts)
    for name, value in facts.items():
        text = (", ".join(map(str, value)) or "none") if isinstance(value, list) else value
        echo_err(printable(f"{name}: {text}"))
