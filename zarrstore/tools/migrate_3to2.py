"""Version 3 hierarchies back to version 2, for programs that know no other: shards unpacked, no chunk decoded."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Literal

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY, check_memory
from zarrstore.metadata import documents, v3
from zarrstore.nodes import Node, walk
from zarrstore.targets import Target, opens
from zarrstore.tools.migration import MigratedNode, MigrationReport, arrays_of
from zarrstore.tools.migration_copy import CopyOptions, copy_into, excludes_of
from zarrstore.tools.nearby import absent
from zarrstore.wrappers.unsharded import UnshardedView
from zarrstore.wrappers.v2view import V2View

__all__ = ["migrate_3to2"]


@opens(store="r", dest="a")
def migrate_3to2(
    store: Target,
    dest: Target,
    path: object = "",
    *,
    dimension_separator: Literal[".", "/"] = ".",
    dry_run: bool = False,
    overwrite: bool = False,
    memory: int = MEMORY,
    executor: Executor | None = None,
) -> MigrationReport:
    """Write the version 3 hierarchy below a path as version 2, with its chunks as they are.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed; it is only read.
    dest : MutableMapping of str to bytes
        Where the version 2 hierarchy is to be.
    path : str
        The root of the hierarchy, in both.
    dimension_separator : {'.', '/'}
        What stands between the numbers of a chunk's name in `dest`.
    dry_run : bool, default False
        Plan and report, and write nothing.
    overwrite : bool, default False
        Replace what is in `dest`, and delete chunks there that `store` lacks.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.
    executor : concurrent.futures.Executor, optional
        Where chunks are copied: see `copy_store`.

    Returns
    -------
    MigrationReport
        A node for each array and group: 'migrated' (or 'planned'), or 'impossible' with what version 2 lacks.

    Raises
    ------
    DestinationExistsError
        A key, or a chunk that `store` lacks, is in `dest` already, and `overwrite` is False. Nothing was written.
    KeyError
        Neither an array nor a group is at or below `path`.

    Notes
    -----
    A shard is unpacked into the chunks that lie in it. Cost: each chunk is read once and written once; the index of a
    shard is read once. Documents come last, so that a reader finds whole arrays or none. Source: this package.

    Examples
    --------
    >>> from zarrstore import init_array, migrate_to_shards
    >>> old, new, back = {}, {}, {}
    >>> init_array(old, shape=4, chunks=2, dtype="|u1", compressor=None, path="a")
    >>> old.update({"a/0": b"12", "a/1": b"34"})
    >>> migrate_to_shards(old, new).counts(), migrate_3to2(new, back).counts()
    ({'migrated': 2}, {'migrated': 2})
    >>> sorted(back), back["a/1"]
    (['.zgroup', 'a/.zarray', 'a/0', 'a/1'], b'34')
    """
    check_memory(memory)
    source, at = UnshardedView(as_store(store)), k.normalize_path(path)
    nodes = [_migrated(node, dry_run) for node in walk(source, at)]
    if not nodes:
        raise absent(source, at, "array or group")
    impossible = [node.path for node in nodes if node.action == "impossible"]
    if not dry_run:
        view = V2View(source, dimension_separator)
        options = CopyOptions(overwrite, memory=memory, executor=executor)
        copy_into(view, dest, at, excludes_of((), impossible), arrays_of(nodes), options)
    return MigrationReport(3, 2, dry_run, tuple(nodes))


def _migrated(node: Node, dry_run: bool) -> MigratedNode:
    if node.error is not None:
        raise node.error
    action = "planned" if dry_run else "migrated"
    if node.version != 3:
        return MigratedNode(node.path, node.kind, "impossible", (f"is version {node.version}, not 3",))
    if node.kind == "group":
        return MigratedNode(node.path, node.kind, action, keys=(k.join(node.path, documents.ZGROUP),))
    found = v3.array_v3_to_v2(node.document, node.key)
    if found.document is None:
        return MigratedNode(node.path, node.kind, "impossible", tuple(found.problems))
    return MigratedNode(node.path, node.kind, action, tuple(found.notes), (k.join(node.path, documents.ZARRAY),))
