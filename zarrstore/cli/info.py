"""The verb ``info``."""

from __future__ import annotations

import json
from typing import Any

import click

from zarrstore import keys as k
from zarrstore.cli.common import (
    json_option,
    opened,
    path_argument,
    print_json,
    print_table,
    printable,
    questions_option,
    storage_options,
    target_argument,
)
from zarrstore.tools.info import describe_node, describe_store
from zarrstore.tools.progress import human_bytes


@click.command()
@target_argument()
@path_argument()
@questions_option
@json_option
@storage_options
def command(target: str, path: str, max_questions: int, as_json: bool, storage_option: tuple[str, ...]) -> None:
    """What the store is, and what the array or group at PATH is: documents, attributes, chunks and sizes."""
    with opened(target, "r", storage_option) as store:
        facts = {"store": describe_store(store), "node": describe_node(store, path, max_questions=max_questions)}
    if as_json:
        print_json(facts)
        return
    if not k.normalize_path(path):
        print_table((f"{facts['store'].pop('store')} {printable(target)}", ""), _rows(facts["store"]))
        click.echo()
    node = facts["node"]
    print_table((f"{node.pop('kind')} {printable(node.pop('path')) or '/'}", ""), _rows(node))


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"  {name}" if not rows else f"{name}", "")] if not value else []
            rows += [(f"{name}: {member}", _shown(member, held)) for member, held in value.items()]
        else:
            rows.append((name, _shown(name, value)))
    return rows


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return f"{value:,} ({human_bytes(value)})" if "bytes" in name else f"{value:,}"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)
