"""Version 1 arrays made readable as version 3, in two steps that are both planned before the first is done."""

from __future__ import annotations

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.registry import store_class
from zarrstore.targets import Target, opens
from zarrstore.tools.migrate_1to2 import apply_1to2, plan_1to2, report_1to2
from zarrstore.tools.migrate_2to3 import migrate_2to3
from zarrstore.tools.migration import MigratedNode, MigrationReport
from zarrstore.wrappers.overlay import OverlayStore

__all__ = ["migrate_1to3"]


@opens(store="r+")
def migrate_1to3(
    store: Target, path: object = "", *, dry_run: bool = False, remove_v2: bool = False
) -> MigrationReport:
    """Bring version 1 arrays at or below a path to version 3: `migrate_1to2`, then `migrate_2to3`.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    path : str
        Where to look.
    dry_run : bool, default False
        Plan and report, and write nothing.
    remove_v2 : bool, default False
        Delete the version 2 documents at the end.

    Returns
    -------
    MigrationReport
        The notes of both steps.

    Raises
    ------
    MetadataError
        As `migrate_1to2` and `migrate_2to3`.

    Notes
    -----
    The second step is planned on the result of the first before that is written. Source: this package.

    Examples
    --------
    >>> store = {
    ...     "meta": b'{"zarr_format": 1, "shape": [4], "chunks": [2], "dtype": "<i4", "order": "C",'
    ...     b' "compression": "zlib", "compression_opts": 1, "fill_value": 0}',
    ...     "attrs": b"{}",
    ... }
    >>> migrate_1to3(store).counts(), sorted(store)
    ({'migrated': 1}, ['.zarray', '.zattrs', 'zarr.json'])
    """
    source = as_store(store)
    at = k.normalize_path(path)
    plans = plan_1to2(source, at)
    # The new documents lie over the store first, so that the second step is planned before anything is written.
    rehearsal = OverlayStore(source, store_class("dict")())
    for plan in plans:
        rehearsal.upper.update({plan.zarray_key: plan.zarray, plan.zattrs_key: plan.zattrs})
    second = migrate_2to3(rehearsal, path=at, dry_run=True)
    if not dry_run:
        apply_1to2(source, plans)
        second = migrate_2to3(source, path=at, remove_v2=remove_v2)
    first = report_1to2(plans, dry_run)
    notes = {node.path: node.notes for node in first}
    nodes = tuple(
        MigratedNode(node.path, node.kind, node.action, (*notes.get(node.path, ()), *node.notes), node.keys)
        for node in second
    )
    return MigrationReport(1, 3, dry_run, nodes)
