"""A migration to version 3 through a view of version 2, into what takes a chunk only within an array that is there."""

from __future__ import annotations

from collections.abc import Iterable

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.metadata import documents
from zarrstore.tools.migration import MigratedNode, MigrationReport, arrays_of
from zarrstore.tools.migration_copy import CopyOptions, copy_into, excludes_of, without_other_chunks
from zarrstore.tools.overlap import found_among
from zarrstore.wrappers.v2view import V2View

__all__ = ["as_done", "copy_into_view", "view_of"]


def view_of(dest: Store) -> V2View | None:
    """Return the view of version 2 through which a destination is written; None if it takes documents last.

    Notes
    -----
    A V2View (as IcechunkStore) is one itself. A session of Icechunk, which has keys of version 3 and wants documents
    first, gets one.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> view_of(as_store({})), view_of(V2View({})) is None
    (None, False)
    """
    if isinstance(dest, V2View):
        return dest
    if dest._documents_first and documents.ZARR_JSON not in dest._refused_documents:
        return V2View(dest)
    return None


def copy_into_view(
    source: Store, view: V2View, path: str, plan: MigrationReport, options: CopyOptions
) -> MigrationReport:
    """Copy the hierarchy of version 2 below a path through a view, without what the plan says is impossible.

    Raises
    ------
    DestinationExistsError
        Something else is there already, and `overwrite` is False.
    """
    impossible = [node.path for node in plan if node.action == "impossible"]
    excludes = excludes_of((documents.ZMETADATA, documents.ZARR_JSON), impossible)
    arrays = arrays_of(plan)
    # The view shows no chunk where no array is; one that lies there would be seen as soon as there is one.
    present = found_among(view.inner, (k.join(array, documents.ZARR_JSON) for array in arrays))
    new = [array for array in arrays if k.join(array, documents.ZARR_JSON) not in present]
    without_other_chunks(as_store({}), view.inner, path, new, options)
    copy_into(source, view, path, excludes, arrays, options)
    return plan if plan.dry_run else as_done(plan.nodes, 2)


def as_done(nodes: Iterable[MigratedNode], version: int) -> MigrationReport:
    """Return the report of a plan that was carried out."""
    done = (
        MigratedNode(
            node.path, node.kind, "migrated" if node.action == "planned" else node.action, node.notes, node.keys
        )
        for node in nodes
    )
    return MigrationReport(version, 3, False, tuple(done))
