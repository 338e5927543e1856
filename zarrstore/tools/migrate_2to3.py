"""Version 2 hierarchies made readable as version 3: new documents beside untouched chunks, all of them or none."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import DestinationExistsError, MetadataError, ReadOnlyError, UnsupportedOperation
from zarrstore.metadata import consolidated, documents, v2, v3
from zarrstore.nodes import Node, walk
from zarrstore.tools.copy import copy_store
from zarrstore.tools.migrate_1to2 import migrate_1to2
from zarrstore.tools.migration import MigratedNode, MigrationReport

__all__ = ["migrate_1to3", "migrate_2to3"]

_V2_DOCUMENTS = (documents.ZARRAY, documents.ZGROUP, documents.ZATTRS, documents.ZMETADATA)


def migrate_2to3(
    store: MutableMapping[str, Any],
    dest: MutableMapping[str, Any] | None = None,
    path: object = "",
    *,
    dry_run: bool = False,
    remove_v2: bool = False,
    overwrite: bool = False,
) -> MigrationReport:
    """Write a version 3 document for every version 2 node that version 3 can represent: all of them, or none.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    dest : MutableMapping of str to bytes, optional
        Copy the chunks there and write the documents there; `store` is then only read.
    path : str
        The root of the hierarchy.
    dry_run : bool, default False
        Plan and report, and write nothing.
    remove_v2 : bool, default False
        Delete the version 2 documents of the nodes that have one of version 3, once all of those stand. Nodes that
        version 3 cannot represent keep theirs, and so do the groups above them, whose ``.zmetadata`` then repeats only
        these.
    overwrite : bool, default False
        Replace a version 3 document that says something else, and chunks that are in `dest` already.

    Returns
    -------
    MigrationReport
        A node for each array and group: 'migrated' (or 'planned'), 'kept' where its document stood already,
        'impossible' with the reason.

    Raises
    ------
    MetadataError
        A document is damaged, is version 1, or a version 3 document where its own is to be says something else. Nothing
        was written.
    DestinationExistsError
        A chunk is in `dest` already. Nothing was written.
    KeyError
        Neither an array nor a group is at or below `path`.
    ReadOnlyError, UnsupportedOperation
        Where the documents are to be cannot be written, or `store` cannot erase and `remove_v2` is True.

    Notes
    -----
    Chunks keep their names and bytes: the documents say so (``chunk_key_encoding`` "v2"). ``.zmetadata`` becomes
    inline consolidated metadata, ``_ARRAY_DIMENSIONS`` becomes ``dimension_names``, a null fill value zero. All is
    planned before the first write; arrays are written before the groups above them; if a write fails, what was
    written is taken back and what was deleted is put back, so the hierarchy reads as version 2 at every moment (chunks
    copied to `dest` stay there). A ``.zmetadata`` above `path` is left as it is. Cost: as `walk`, one read more a node
    and one write. Source: the specifications of versions 2 and 3; zarr 3's ``migrate
    v3``, which stops half way on consolidated metadata, null fills and strings.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=4, chunks=2, dtype="<f4", path="a")
    >>> store["a/0"] = b"chunk"
    >>> migrate_2to3(store).counts()
    {'migrated': 2}
    >>> sorted(store)
    ['.zgroup', 'a/.zarray', 'a/0', 'a/zarr.json', 'zarr.json']
    """
    source = as_store(store)
    at = k.normalize_path(path)
    target = source if dest is None else as_store(dest)
    plan = _plan(source, target, at, overwrite)
    if not dry_run:
        if not target.capabilities.writable:
            raise ReadOnlyError(k.join(at, documents.ZARR_JSON), target)
        if remove_v2 and dest is None and not source.capabilities.erasable:
            raise UnsupportedOperation("remove version 2 documents", source, "leave remove_v2 False, or pass dest")
        removable: list[str] = []
        if dest is not None:
            _copy_chunks(source, target, at, plan, overwrite)
        elif remove_v2:
            removable = _removable(source, plan)
        _apply(target, plan, removable, _repeated_anew(source, plan, set(removable)))
    return plan.report(dry_run)


def migrate_1to3(
    store: MutableMapping[str, Any], path: object = "", *, dry_run: bool = False, remove_v2: bool = False
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
    # Only documents are looked at, so a copy of them stands in for the store.
    rehearsal = {
        key: source[key]
        for key in source.keys_below(at)
        if k.name(key) in documents.DOCUMENTS or k.name(key) in (documents.META, documents.ATTRS)
    }
    first = migrate_1to2(rehearsal, at)
    second = migrate_2to3(rehearsal, path=at, dry_run=True)
    if not dry_run:
        migrate_1to2(source, at)
        second = migrate_2to3(source, path=at, remove_v2=remove_v2)
    notes = {node.path: node.notes for node in first}
    nodes = tuple(
        MigratedNode(node.path, node.kind, node.action, (*notes.get(node.path, ()), *node.notes), node.keys)
        for node in second
    )
    return MigrationReport(1, 3, dry_run, nodes)


# Plan ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Step:
    """What becomes of one node."""

    node: Node
    document: dict[str, Any] | None
    notes: list[str]
    action: str = "migrated"
    raw: bytes | None = None

    @property
    def key(self) -> str:
        return k.join(self.node.path, documents.ZARR_JSON)

    @property
    def data(self) -> bytes:
        return documents.dumps(self.document) if self.raw is None else self.raw


@dataclass
class _Plan:
    steps: list[_Step] = field(default_factory=list)

    def written(self) -> list[_Step]:
        """The steps that write: arrays before groups, the deepest groups first, the root last."""
        writing = [step for step in self.steps if step.action == "migrated"]
        return sorted(writing, key=lambda step: (step.node.kind == "group", -len(k.segments(step.node.path))))

    def report(self, dry_run: bool) -> MigrationReport:
        return MigrationReport(
            2,
            3,
            dry_run,
            tuple(
                MigratedNode(
                    step.node.path,
                    step.node.kind,
                    "planned" if dry_run and step.action == "migrated" else step.action,
                    tuple(step.notes),
                    () if step.action == "impossible" else (step.key,),
                )
                for step in self.steps
            ),
        )


def _plan(store: Store, target: Store, path: str, overwrite: bool) -> _Plan:
    plan = _Plan()
    for node in walk(store, path):
        if node.error is not None:
            raise node.error
        if node.version == 1:
            raise MetadataError(node.key, "zarr_format", "is 1: migrate_1to2 first, or use migrate_1to3")
        if node.version == 2:
            plan.steps.append(_step(store, node))
        else:
            plan.steps.append(_Step(node, dict(node.document), [], raw=store[node.key]))
    if not plan.steps:
        raise KeyError(path)
    _consolidate(store, plan)
    for step in plan.steps:
        _compare(target, step, overwrite)
    return plan


def _step(store: Store, node: Node) -> _Step:
    attrs_data = store.get(node.attrs_key)
    attrs = None if attrs_data is None else v2.decode_attrs(attrs_data, node.attrs_key)
    if node.kind == "array":
        translation = v3.array_v2_to_v3(v2.check_array(node.document, node.key), attrs)
    else:
        v2.check_group(node.document, node.key)
        translation = v3.group_v2_to_v3(attrs)
    if translation.document is None:
        return _Step(node, None, [*translation.problems, *translation.notes], "impossible")
    return _Step(node, translation.document, list(translation.notes))


def _consolidate(store: Store, plan: _Plan) -> None:
    """Give the groups that have a ``.zmetadata`` an inline one."""
    for step in plan.steps:
        if step.node.kind != "group" or k.join(step.node.path, documents.ZMETADATA) not in store:
            continue
        below = {
            k.replace_root(other.node.path, step.node.path, ""): other.document
            for other in plan.steps
            if other.document is not None and k.is_below(other.node.path, step.node.path)
        }
        if step.document is not None and step.node.version == 2:
            step.document["consolidated_metadata"] = consolidated.build_inline(below)
            step.notes.append("its .zmetadata became inline consolidated metadata, made anew from the documents")


def _compare(store: Store, step: _Step, overwrite: bool) -> None:
    """See what stands where the document is to be."""
    if step.action != "migrated":
        return
    there = store.get(step.key)
    if there is None:
        return
    if there == step.data:
        step.action = "kept"
    elif not overwrite:
        raise MetadataError(
            step.key,
            None,
            f"stands in the way of that for {step.node.key!r} and says something else; pass overwrite=True",
        )


def _removable(store: Store, plan: _Plan) -> list[str]:
    """Return the version 2 documents that nobody needs any more."""
    needed = {above for step in plan.steps if step.action == "impossible" for above in k.parents(step.node.path)}
    return [
        key
        for step in plan.steps
        if step.action != "impossible" and step.node.version == 2 and step.node.path not in needed
        for name in _V2_DOCUMENTS
        if (key := k.join(step.node.path, name)) in store
    ]


def _repeated_anew(store: Store, plan: _Plan, removed: set[str]) -> dict[str, bytes]:
    """Return what the ``.zmetadata`` that stay will say, once the documents that some of them repeat are gone."""
    if not removed:
        return {}
    anew = {}
    for step in plan.steps:
        key = k.join(step.node.path, documents.ZMETADATA)
        if step.node.kind != "group" or key in removed or key not in store:
            continue
        left = [name for name in store.keys_below(step.node.path) if consolidated.is_repeated(name)]
        found = store.getitems(name for name in left if name not in removed)
        anew[key] = consolidated.build({k.replace_root(name, step.node.path, ""): found[name] for name in found})
    return anew


# Do -----------------------------------------------------------------------------------------------------------------


def _apply(store: Store, plan: _Plan, removable: list[str], anew: dict[str, bytes]) -> None:
    """Write, then delete; if either fails, put everything back as it was."""
    steps = plan.written()
    before = {key: store.get(key) for key in [*(step.key for step in steps), *removable, *anew]}
    touched: list[str] = []
    try:
        for step in steps:
            touched.append(step.key)
            store[step.key] = step.data
        store.flush()
        for key in removable:
            touched.append(key)
            store.delitems([key])
        # Last: until then what it says of the others is too much, and nobody's data is lost from sight.
        for key, data in anew.items():
            touched.append(key)
            store[key] = data
        store.flush()
    except BaseException as exc:
        left = _put_back(store, touched, before)
        if left:
            exc.add_note(f"not put back as they were: {', '.join(left)}; version 2 reads all the same")
        raise


def _put_back(store: Store, touched: Iterable[str], before: dict[str, bytes | None]) -> list[str]:
    left = []
    for key in reversed(list(touched)):
        data = before[key]
        try:
            if data is None:
                store.delitems([key])
            else:
                store[key] = data
        except Exception:
            left.append(key)
    return left


def _copy_chunks(source: Store, dest: Store, path: str, plan: _Plan, overwrite: bool) -> None:
    names = "|".join(map(re.escape, (*_V2_DOCUMENTS, documents.ZARR_JSON)))
    impossible = [step.node.path for step in plan.steps if step.action == "impossible"]
    excludes = [rf"(^|/)({names})$", *(f"^{re.escape(k.prefix(array))}" for array in impossible)]
    try:
        copy_store(source, dest, path, path, excludes=excludes, if_exists="replace" if overwrite else "raise")
    except DestinationExistsError as exc:
        raise DestinationExistsError(exc.source, exc.destination, "pass overwrite=True") from None
