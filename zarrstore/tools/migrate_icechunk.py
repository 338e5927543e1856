"""A hierarchy brought into a repository of Icechunk as one commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY, check_memory
from zarrstore.base import Store
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents
from zarrstore.nodes import walk
from zarrstore.targets import Target, opens
from zarrstore.tools.migrate_2to3 import migrate_2to3
from zarrstore.tools.migrate_view import as_done
from zarrstore.tools.migration import MigratedNode, MigrationReport, arrays_of
from zarrstore.tools.migration_copy import CopyOptions, copy_into, excludes_of
from zarrstore.tools.objects import Objects, reencoded, with_notes
from zarrstore.tools.shard import Shards, migrate_to_shards

__all__ = ["migrate_to_icechunk"]


@opens(store="r")
def migrate_to_icechunk(
    store: Target,
    dest: Any,
    path: object = "",
    *,
    message: str = "migrated by zarrstore",
    metadata: Mapping[str, Any] | None = None,
    shards: Shards | None = None,
    objects: Objects | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    memory: int = MEMORY,
) -> tuple[MigrationReport, str | None]:
    """Write the hierarchy at a path into a repository and commit it: all of it, or nothing.

    Parameters
    ----------
    store : Mapping of str to bytes
        A hierarchy of version 2, or of version 3, that can be listed; only read.
    dest : IcechunkStore
        Of a branch that can be written.
    path : str
        The root of the hierarchy, in both.
    message : str
        Of the commit.
    metadata : mapping, optional
        Further members of the commit.
    shards : 'auto', int (bytes) or tuple of int (items), optional
        Pack the chunks of version 2 into shards, as `migrate_to_shards` does.
    objects : {'reencode', 'unpickle'}, optional
        Encode objects that version 3 cannot say anew, as `migrate_2to3` does.
    overwrite : bool, default False
        Replace what is there under the same keys.
    dry_run : bool, default False
        Plan, write nothing and commit nothing.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.

    Returns
    -------
    MigrationReport
        As `migrate_2to3` gives it: arrays that version 3 cannot represent are 'impossible' and left out.
    str or None
        The id of the commit; None of a dry run, and if nothing changed.

    Raises
    ------
    DestinationExistsError
        Something else is there already, and `overwrite` is False.
    MetadataError
        A document is damaged, is version 1, or nodes of versions 2 and 3 stand side by side.
    KeyError
        Neither an array nor a group is at or below `path`.
    CopyError
        A value could not be copied, or is nothing that Icechunk holds. Nothing is committed.

    Notes
    -----
    Chunks are copied as they are. Whatever fails, no commit is made and what was set is discarded. Consolidated
    metadata is left out: Icechunk's snapshots are it. Cost: each chunk is read and written once. Source: this package.

    Examples
    --------
    >>> import icechunk
    >>> from zarrstore import init_array
    >>> from zarrstore.bridges.icechunk import IcechunkStore
    >>> store, dest = {}, IcechunkStore(icechunk.Repository.create(icechunk.in_memory_storage()))
    >>> init_array(store, shape=4, chunks=2, dtype="|u1", compressor=None, path="a")
    >>> store["a/0"] = b"12"
    >>> report, commit = migrate_to_icechunk(store, dest, message="first")
    >>> report.counts(), dest.history()[0].message, dest["a/0"]
    ({'migrated': 2}, 'first', b'12')
    """
    check_memory(memory)
    source, at = as_store(store), k.normalize_path(path)
    versions = {node.version for node in walk(source, at)}
    if not versions:
        raise KeyError(path)
    if versions not in ({2}, {3}):
        found = " and ".join(map(str, sorted(version for version in versions if version)))
        raise MetadataError(at, "zarr_format", f"is {found}: one version, 2 or 3, is wanted; see migrate_1to2")
    notes: dict[str, list[str]] = {}
    if objects is not None:
        source, notes = reencoded(source, at, objects, as_store(dest))
    try:
        if versions == {3}:
            report = _copy_3(source, dest, at, overwrite, dry_run, memory)
        elif shards is not None:
            report = migrate_to_shards(source, dest.inner, at, shards, overwrite=overwrite, dry_run=dry_run)
        else:
            report = migrate_2to3(source, dest, at, overwrite=overwrite, dry_run=dry_run, memory=memory)
    except BaseException:
        if not dry_run:
            dest.discard()
        raise
    report = with_notes(report, notes)
    if dry_run or not dest.has_changes:
        return report, None
    return report, dest.commit(message, metadata)


def _copy_3(source: Store, dest: Any, path: str, overwrite: bool, dry_run: bool, memory: int) -> MigrationReport:
    nodes = [
        MigratedNode(node.path, node.kind, "planned", (), (k.join(node.path, documents.ZARR_JSON),))
        for node in walk(source, path)
    ]
    options = CopyOptions(overwrite, dry_run, memory=memory)
    copy_into(source, dest.inner, path, excludes_of((documents.ZMETADATA,), ()), arrays_of(nodes), options)
    return MigrationReport(3, 3, True, tuple(nodes)) if dry_run else as_done(nodes, 3)
