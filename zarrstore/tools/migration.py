"""What a migration found, did and could not say: the report of every migration here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from zarrstore.shown import Shown

__all__ = ["MigratedNode", "MigrationReport", "arrays_of"]


@dataclass(frozen=True)
class MigratedNode:
    """One array or group of a migration.

    Parameters
    ----------
    path : str
        Where it is; ``""`` is the root.
    kind : {'array', 'group'}
        What it is.
    action : {'planned', 'migrated', 'kept', 'impossible'}
        What was done, or would be: `kept` was there already, `impossible` has no equivalent in the new version.
    notes : tuple of str
        What differs from a plain transcription, what no codec decodes, why it is impossible.
    keys : tuple of str
        The documents written, or to be written.

    Examples
    --------
    >>> MigratedNode("foo", "array", "planned", keys=("foo/.zarray",)).action
    'planned'
    """

    path: str
    kind: str
    action: str
    notes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class MigrationReport(Shown):
    """All nodes of a migration, in the order of their paths.

    Parameters
    ----------
    source, target : int
        Versions of the Zarr format.
    dry_run : bool
        Nothing was written.
    nodes : tuple of MigratedNode
        Every node found.

    Examples
    --------
    >>> report = MigrationReport(1, 2, False, (MigratedNode("", "array", "migrated"),))
    >>> len(report), report.counts()
    (1, {'migrated': 1})
    """

    source: int
    target: int
    dry_run: bool
    nodes: tuple[MigratedNode, ...] = field(default_factory=tuple)

    def _title(self) -> str:
        counts = ", ".join(f"{count:,} {action}" for action, count in self.counts().items()) or "no nodes"
        return f"version {self.source} to {self.target}{' (dry run)' if self.dry_run else ''}: {counts}"

    def _headers(self) -> tuple[str, ...]:
        return ("path", "kind", "action", "notes")

    def _rows(self) -> list[tuple[object, ...]]:
        return [(node.path or "/", node.kind, node.action, "; ".join(node.notes)) for node in self.nodes]

    def __iter__(self) -> Iterator[MigratedNode]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def counts(self) -> dict[str, int]:
        """Return how many nodes there are of each action."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.action] = counts.get(node.action, 0) + 1
        return counts

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "source": self.source,
            "target": self.target,
            "dry_run": self.dry_run,
            "counts": self.counts(),
            "nodes": [
                {
                    "path": node.path,
                    "kind": node.kind,
                    "action": node.action,
                    "notes": list(node.notes),
                    "keys": list(node.keys),
                }
                for node in self.nodes
            ],
        }


def arrays_of(nodes: Iterable[MigratedNode]) -> list[str]:
    """Return the paths of the arrays that the new version can represent.

    Examples
    --------
    >>> arrays_of([MigratedNode("", "group", "planned"), MigratedNode("foo", "array", "planned")])
    ['foo']
    """
    return [node.path for node in nodes if node.kind == "array" and node.action != "impossible"]
