"""What becomes of each node in a migration to version 3: the plan of `migrate_2to3` and of `migrate_to_shards`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.metadata import consolidated, documents, v2
from zarrstore.nodes import Node
from zarrstore.tools.migration import MigratedNode, MigrationReport

__all__ = ["Step", "attrs_of", "by_depth", "consolidate", "repetition", "report_of_steps"]


@dataclass
class Step:
    """What becomes of one node.

    Parameters
    ----------
    node : Node
        What is there.
    document : dict or None
        Its ``zarr.json``; None if version 3 cannot say what it is.
    notes : list of str
        What differs, or why there is no document.
    attrs : dict or None
        Its attributes in version 2, if it has any.
    action : {'migrated', 'kept', 'impossible'}
        As `MigratedNode` has it.
    raw : bytes or None
        The document as it stands already, if its own words stay.
    """

    node: Node
    document: dict[str, Any] | None
    notes: list[str]
    attrs: dict[str, Any] | None = None
    action: str = "migrated"
    raw: bytes | None = None

    @property
    def key(self) -> str:
        """The key of the document of version 3."""
        return k.join(self.node.path, documents.ZARR_JSON)

    @property
    def data(self) -> bytes:
        """The document as it is written."""
        return documents.dumps(self.document) if self.raw is None else self.raw


S = TypeVar("S", bound=Step)


def attrs_of(store: Store, node: Node) -> dict[str, Any] | None:
    """Return the attributes of a node of version 2; None if it has no document of them."""
    data = store.get(node.attrs_key)
    return None if data is None else v2.decode_attrs(data, node.attrs_key)


def by_depth(steps: Iterable[S]) -> list[S]:
    """Return steps in the order in which they are written: arrays, then the deepest groups, the root last."""
    return sorted(steps, key=lambda step: (step.node.kind == "group", -len(k.segments(step.node.path))))


def repetition(group: Step, steps: Iterable[Step]) -> dict[str, Mapping[str, Any]]:
    """Return the documents that the consolidated metadata of a group repeats, by their paths relative to it."""
    return {
        k.replace_root(step.node.path, group.node.path, ""): step.document
        for step in steps
        if step.document is not None and k.is_below(step.node.path, group.node.path)
    }


def consolidate(group: Step, steps: Iterable[Step]) -> None:
    """Put the repetition of all documents below a group into its own."""
    document = group.document or {}
    group.document = {**document, "consolidated_metadata": consolidated.build_inline(repetition(group, steps))}
    group.raw = None


def report_of_steps(steps: Sequence[Step], dry_run: bool) -> MigrationReport:
    """Return what a migration from version 2 to 3 reports of its steps."""
    nodes = (
        MigratedNode(
            step.node.path,
            step.node.kind,
            "planned" if dry_run and step.action == "migrated" else step.action,
            tuple(step.notes),
            () if step.action == "impossible" else (step.key,),
        )
        for step in steps
    )
    return MigrationReport(2, 3, dry_run, tuple(nodes))
