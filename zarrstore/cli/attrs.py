"""The verb ``attrs``."""

from __future__ import annotations

import json
from typing import Any

import click

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.cli.common import (
    echo_err,
    opened,
    path_argument,
    print_value,
    printable,
    storage_options,
    target_argument,
)
from zarrstore.metadata import documents
from zarrstore.nodes import Node, node_at


@click.command()
@target_argument()
@path_argument()
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="VALUE may be JSON; else it is text.")
@click.option("--delete", "names", multiple=True, metavar="NAME", help="Remove an attribute.")
@storage_options
def command(
    target: str, path: str, pairs: tuple[str, ...], names: tuple[str, ...], storage_option: tuple[str, ...]
) -> None:
    """Print the attributes of the array or group at PATH as JSON, or change some of them.

    \b
    zarrstore attrs data.zarr ocean/temperature
    zarrstore attrs data.zarr ocean --set units=K --set valid='[0, 1]' --delete old
    """
    changes = dict(_pair(text) for text in pairs)
    with opened(target, "r+" if changes or names else "r", storage_option) as store:
        at = k.normalize_path(path)
        node = node_at(store, at)
        if node is None:
            from zarrstore.tools.nearby import absent

            raise absent(store, at, "array or group")
        attributes = _attributes(store, node)
        if changes or names:
            attributes = {name: value for name, value in {**attributes, **changes}.items() if name not in names}
            rewritten = _write(store, node, attributes)
            also = "".join(f"; {printable(key)} says so too" for key in rewritten)
            echo_err(f"set {len(changes):,}, deleted {len(names):,}{also}")
            return
    print_value(attributes)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _attributes(store: Store, node: Node) -> dict[str, Any]:
    if node.error is not None:
        raise node.error
    if node.version == 3:
        return dict(node.document.get("attributes", {}))
    data = store.get(node.attrs_key)
    return {} if data is None else dict(documents.loads(data, node.attrs_key))


def _write(store: Store, node: Node, attributes: dict[str, Any]) -> list[str]:
    # Loaded to change something only: it takes as long as all the rest of the verb.
    from zarrstore.tools.consolidate import set_document

    if node.version == 3:
        return set_document(store, node.key, documents.dumps({**node.document, "attributes": attributes}))
    return set_document(store, node.attrs_key, documents.dumps(attributes))
