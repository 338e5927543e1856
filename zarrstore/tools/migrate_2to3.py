"""Version 2 hierarchies made readable as version 3: new documents beside untouched chunks, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.allowance import MEMORY, check_memory
from zarrstore.base import Store
from zarrstore.errors import MetadataError, ReadOnlyError, UnsupportedOperation
from zarrstore.metadata import agreement, consolidated, documents, v2, v3
from zarrstore.nodes import Node, walk
from zarrstore.spelling import chunk_keys_of, spellings_of, stored_chunk_keys_of
from zarrstore.targets import Target, opens
from zarrstore.tools.consolidate import consolidated_updates
from zarrstore.tools.exchange import exchange, removal_order
from zarrstore.tools.migrate_view import copy_into_view, view_of
from zarrstore.tools.migration import MigrationReport
from zarrstore.tools.migration_copy import CopyOptions, copy_chunks, excludes_of
from zarrstore.tools.nearby import absent
from zarrstore.tools.objects import Objects, reencoded, way_out, with_notes
from zarrstore.tools.overlap import found_among, overlap, values_of_keys
from zarrstore.tools.overlapping import refuse_merging
from zarrstore.tools.shard import Shards, migrate_to_shards
from zarrstore.tools.steps import Step, by_depth, consolidate, repetition, report_of_steps

__all__ = ["migrate_2to3", "migrate_in_place"]

_V2_DOCUMENTS = (documents.ZARRAY, documents.ZGROUP, documents.ZATTRS, documents.ZMETADATA)


@opens(store=lambda given: "r+" if given.get("dest") is None else "r", dest="a")
def migrate_2to3(
    store: Target,
    dest: Target | None = None,
    path: object = "",
    *,
    dry_run: bool = False,
    remove_v2: bool = False,
    overwrite: bool = False,
    resume: str | os.PathLike[str] | None = None,
    shards: Shards | None = None,
    objects: Objects | None = None,
    memory: int = MEMORY,
    executor: Executor | None = None,
) -> MigrationReport:
    """Write a version 3 document for every version 2 node that version 3 can represent: all of them, or none.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    dest : MutableMapping of str to bytes, optional
        Copy the chunks there and write the documents there; `store` is then only read. A repository or a session of
        Icechunk gets documents first, and version 3's own names of chunks; ``"icechunk://..."`` makes one commit, or
        none, and a repository or session that the caller opened is committed by the caller.
    path : str
        The root of the hierarchy.
    dry_run : bool, default False
        Plan and report, and write nothing.
    remove_v2 : bool, default False
        Delete the version 2 documents of the nodes that have one of version 3, once all of those stand. Nodes that
        version 3 cannot represent keep theirs, and so do the groups above them, whose ``.zmetadata`` then repeats only
        these. Not with `dest`, which gets none. A document that another writer changes before its deletion stays, and
        all is put back; let nobody write documents meanwhile, since a moment remains.
    overwrite : bool, default False
        Replace a version 3 document that says something else, and chunks of other content that are in `dest`; delete
        chunks in `dest` that `store` lacks.
    resume : path-like, optional
        With `dest`, a journal of the chunks that are copied: see `copy_store`. Without it, a second run compares the
        chunks that are there already with those of `store`.
    shards : 'auto', int (bytes) or tuple of int (items), optional
        Pack the chunks into shards in `dest`, as they are, without decoding one: see `migrate_to_shards`.
    objects : {'reencode', 'unpickle'}, optional
        Encode objects that version 3 cannot say anew in `dest`: as strings or bytes where all items are, otherwise as
        strings that each hold the text of a JSON value. 'unpickle' reads pickles too, of plain values and NumPy's
        arrays and numbers only, and runs nothing that they name. The report says what became of each array. By default
        such arrays are 'impossible'.
    memory : int, bytes, default 128 MiB
        What the values under way in all threads may take together; one value more may be held.
        Shards are held besides, see `migrate_to_shards`.
    executor : concurrent.futures.Executor, optional
        With `dest`, where chunks are copied or packed: see `copy_store`.

    Returns
    -------
    MigrationReport
        A node for each array and group: 'migrated' (or 'planned'), 'kept' where its document stood already,
        'impossible' with the reason.

    Raises
    ------
    MetadataError
        A document is damaged, is version 1, or a version 3 document where its own is to be says something else; an
        array has chunks in both spellings and its document does not say which counts. Nothing was written.
    DestinationExistsError
        A chunk of other content, or one that `store` lacks, is in `dest` already. Nothing was written.
    KeyError
        Neither an array nor a group is at or below `path`.
    ReadOnlyError, UnsupportedOperation
        Where the documents are to be cannot be written, or `store` cannot erase and `remove_v2` is True.
    ValueError
        `remove_v2` or `resume` with a `dest` that does not go with it; `objects` is no such word.

    Notes
    -----
    Chunks keep their names and bytes: the documents say so (``chunk_key_encoding`` "v2"), by the names that are there
    where version 2 does not say. ``.zmetadata`` becomes inline consolidated metadata, ``_ARRAY_DIMENSIONS`` becomes
    ``dimension_names``, a null fill value zero; consolidated documents above `path` follow. A second run takes in what
    was added since, and finishes what was interrupted. All is planned before the first write; arrays are written
    before the groups above them; if a write fails, what was written is taken back and what was deleted is put back, so
    the hierarchy reads as version 2 at every moment (chunks copied to `dest` stay there). A removal begins with
    consolidated metadata and the root, so that an interrupted one leaves nothing that version 2 half reads. Cost: as
    `walk`, one read more a node and one write; the names of up to 256 chunks of an array that does not say how they are
    spelled. Source: the specifications of versions 2 and 3; zarr 3's ``migrate v3``, which stops half way on
    consolidated metadata, null fills and strings.

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
    if dest is not None and remove_v2:
        raise ValueError("remove_v2 is for a migration in place: dest gets no documents of version 2")
    if dest is None and resume is not None:
        raise ValueError("resume is for a migration to dest: in place, a second run goes on by itself")
    check_memory(memory)
    source, at = as_store(store), k.normalize_path(path)
    target = None if dest is None else as_store(dest)
    notes = None
    if objects is not None:
        source, notes = reencoded(source, at, objects, target)
    if target is None:
        if shards is not None:
            raise UnsupportedOperation("pack chunks into shards where they are", source, "pass dest")
        report = migrate_in_place(
            source, walk(source, at), at, dry_run=dry_run, remove_v2=remove_v2, overwrite=overwrite
        )
    else:
        report = _to_dest(source, target, at, shards, CopyOptions(overwrite, dry_run, resume, memory, executor))
    return report if notes is None else with_notes(report, notes)


def migrate_in_place(
    store: Store, nodes: Iterable[Node], path: str, *, dry_run: bool, remove_v2: bool, overwrite: bool
) -> MigrationReport:
    """Do as `migrate_2to3` without `dest` does, with the nodes of a walk that was made already."""
    if documents.ZARR_JSON in store._refused_documents:
        raise UnsupportedOperation("migrate in place", store, "what is stored is not version 2; pass dest")
    plan = _plan(store, store, nodes, path, overwrite, in_place=True)
    if dry_run:
        return report_of_steps(plan.steps, True)
    _check_writable(store, path)
    if remove_v2 and not store.capabilities.erasable:
        raise UnsupportedOperation("remove version 2 documents", store, "leave remove_v2 False, or pass dest")
    _exchange_documents(store, plan, _removable(store, plan) if remove_v2 else [])
    return report_of_steps(plan.steps, False)


def _to_dest(source: Store, dest: Store, path: str, shards: Shards | None, options: CopyOptions) -> MigrationReport:
    view = view_of(dest)
    if view is not None and options.resume is not None:
        raise UnsupportedOperation("go on from a journal", view, "leave resume out: it is one commit, or none")
    if view is None and dest._aliases:
        refuse_merging((node.path for node in walk(source, path)), dest)
    if shards is not None:
        return migrate_to_shards(
            source,
            dest if view is None else view.inner,
            path,
            shards,
            dry_run=options.dry_run,
            overwrite=options.overwrite,
            resume=options.resume,
            executor=options.executor,
        )
    if view is not None:
        steps = _plan(source, as_store({}), walk(source, path), path, False, in_place=False).steps
        return copy_into_view(source, view, path, report_of_steps(steps, options.dry_run), options)
    plan = _plan(source, dest, walk(source, path), path, options.overwrite, in_place=False)
    if options.dry_run:
        return report_of_steps(plan.steps, True)
    _check_writable(dest, path)
    excludes = excludes_of(
        (*_V2_DOCUMENTS, documents.ZARR_JSON), (step.node.path for step in plan.steps if step.action == "impossible")
    )
    arrays = [step.node.path for step in plan.steps if step.node.kind == "array" and step.action != "impossible"]
    copy_chunks(source, dest, path, excludes, arrays, options)
    _exchange_documents(dest, plan, [])
    return report_of_steps(plan.steps, False)


def _check_writable(store: Store, path: str) -> None:
    if not store.capabilities.writable:
        raise ReadOnlyError(k.join(path, documents.ZARR_JSON), store)


# Plan ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """What becomes of each node, and the documents that were read for it.

    Parameters
    ----------
    steps : list of Step
        One for each node, in their order.
    there : dict of str to bytes or None
        Documents of the store that is written, by their keys; None for those that are absent.
    """

    steps: list[Step]
    there: dict[str, bytes | None]


def _plan(store: Store, target: Store, nodes: Iterable[Node], path: str, overwrite: bool, in_place: bool) -> _Plan:
    judged = list(_judged(nodes))
    if not judged:
        raise absent(store, path, "array or group")
    held, there = _read_documents_of(store, target, judged, in_place)
    steps = list(overlap(store, lambda node: _planned(store, node, held, in_place), judged))
    # The deepest first: a group repeats the documents below it, which may change.
    for step in sorted(steps, key=lambda step: -len(k.segments(step.node.path))):
        if step.document is not None:
            _compare(step, there[step.key], overwrite)
    _consolidate(store, steps, held, there)
    return _Plan(steps, there)


def _read_documents_of(
    store: Store, target: Store, nodes: Sequence[Node], in_place: bool
) -> tuple[dict[str, bytes | None], dict[str, bytes | None]]:
    """Return documents of both stores, read together: attributes and consolidated metadata, and those in the way."""
    own = [node.attrs_key if node.version == 2 else node.key for node in nodes]
    written = [k.join(node.path, documents.ZARR_JSON) for node in nodes]
    if not in_place:
        return values_of_keys(store, own), values_of_keys(target, written)
    repeating = [k.join(node.path, documents.ZMETADATA) for node in nodes if node.kind == "group"]
    held = values_of_keys(store, [*own, *written, *repeating])
    return held, held


def _planned(store: Store, node: Node, held: Mapping[str, bytes | None], in_place: bool) -> Step:
    if node.version == 2:
        return _step(store, node, held[node.attrs_key], in_place)
    raw = held[node.key]
    if raw is None:
        raise KeyError(node.key)
    return Step(node, dict(node.document), [], raw=raw)


def _judged(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        if node.error is not None:
            raise node.error
        if node.version == 1:
            raise MetadataError(node.key, "zarr_format", "is 1: migrate_1to2 first, or use migrate_1to3")
        yield node


def _step(store: Store, node: Node, attributes: bytes | None, in_place: bool) -> Step:
    attrs = None if attributes is None else v2.decode_attrs(attributes, node.attrs_key)
    hint = ""
    if node.kind == "array":
        meta = v2.check_array(node.document, node.key)
        hint = way_out(meta)
        separator = _visible_separator(store, node, meta, in_place)
        translation = v3.array_v2_to_v3(meta, attrs, separator=separator)
        if meta.dimension_separator is None and separator == "/":
            translation.notes.append("dimension_separator is missing: '/' was taken, by the names of its chunks")
    else:
        v2.check_group(node.document, node.key)
        translation = v3.group_v2_to_v3(attrs)
    if translation.document is None:
        notes = [*translation.problems, *translation.notes, *([hint] if hint else [])]
        return Step(node, None, notes, attrs, "impossible")
    return Step(node, translation.document, list(translation.notes), attrs)


def _visible_separator(store: Store, node: Node, meta: v2.ArrayMeta, in_place: bool) -> str:
    """Return the separator under which the chunks that a reader sees now stay visible; raise if none does that."""
    if meta.dimension_separator is not None:
        return meta.dimension_separator
    found = spellings_of(store, node.path, meta)
    if found.flat is not None and found.nested is not None:
        raise MetadataError(
            node.key,
            "dimension_separator",
            f"is missing, and chunks are named in both ways, as {found.flat!r} and as {found.nested!r}; "
            "respell() gives them one spelling",
        )
    rule = stored_chunk_keys_of if in_place else chunk_keys_of
    return rule(store, node.path, meta, keys=found.keys).separator


def _compare(step: Step, there: bytes | None, overwrite: bool) -> None:
    """Look at the document that stands where the step would write."""
    if there is None or step.document is None:
        return
    if there == step.data:
        step.action = "kept"
        return
    try:
        document = documents.loads(there, step.key)
    except MetadataError:
        document = {}
    if _says_the_same(step, document):
        # The document stays as it is; `_consolidate` looks at what it repeats of others.
        step.document, step.raw, step.action = document, there, "kept"
    elif not overwrite:
        raise MetadataError(
            step.key,
            None,
            f"stands in the way of that for {step.node.key!r} and says something else; pass overwrite=True",
        )


def _says_the_same(step: Step, document: Mapping[str, Any]) -> bool:
    assert step.document is not None
    if document.get("zarr_format") != 3 or document.get("node_type") != step.document.get("node_type"):
        return False
    if step.node.version == 3:
        return _own_words(step.document) == _own_words(document)
    try:
        meta = v2.check_array(step.node.document, step.node.key) if step.node.kind == "array" else None
        separator = None if meta is None else step.document["chunk_key_encoding"]["configuration"]["separator"]
        return not agreement.differences(meta, step.attrs or {}, document, step.key, separator=separator)
    except MetadataError:
        return False


def _own_words(document: Mapping[str, Any]) -> bytes:
    """Return what a document says without what it repeats of others."""
    return documents.dumps({name: value for name, value in document.items() if name != "consolidated_metadata"})


def _consolidate(
    store: Store, plan: list[Step], held: Mapping[str, bytes | None], existing: Mapping[str, bytes | None]
) -> None:
    """Give the groups that have a ``.zmetadata``, or repeat others already, an inline repetition of what is planned."""
    groups = [step for step in plan if step.node.kind == "group" and step.document is not None]
    keys = [k.join(step.node.path, documents.ZMETADATA) for step in groups]
    there = {key for key in keys if held.get(key) is not None}
    there |= found_among(store, [key for key in keys if key not in held])
    for step in groups:
        if not _is_repeating(step, plan, k.join(step.node.path, documents.ZMETADATA) in there):
            continue
        consolidate(step, plan)
        if existing[step.key] != step.data:
            step.action = "migrated"
            step.notes.append("its consolidated metadata was made anew from the documents, inline")


def _is_repeating(step: Step, plan: list[Step], has_zmetadata: bool) -> bool:
    """Tell whether a group is to repeat the documents below it, and does not do so already as they are planned."""
    assert step.document is not None
    if step.document.get("node_type") != "group":
        return False
    if step.document.get("consolidated_metadata") is None:
        return has_zmetadata
    repeated = consolidated.parse_inline(step.document, step.key) or {}
    return bool(consolidated.compare_inline(repeated, repetition(step, plan)))


def _removable(store: Store, plan: _Plan) -> list[str]:
    """Return the version 2 documents that nobody needs any more, in the order in which they are deleted.

    Consolidated metadata first, then from the root downwards: however far it comes, no reader of version 2 finds a
    hierarchy of which a part is missing.
    """
    removable = []
    for step, key in _present_documents(store, _replaced(plan.steps), plan.there):
        is_left = step.node.version == 3 and k.name(key) == documents.ZATTRS
        if is_left and not _is_repeated_in(plan.there[key], key, step):
            step.notes.append(f"{key} stays: zarr.json has other attributes")
            continue
        removable.append(key)
    return sorted(removable, key=removal_order)


def _replaced(plan: list[Step]) -> list[Step]:
    """Return the steps of the nodes that version 2 may lose: none that is impossible, and no group above such a one."""
    needed = {above for step in plan if step.action == "impossible" for above in k.parents(step.node.path)}
    return [step for step in plan if step.action != "impossible" and step.node.path not in needed]


def _present_documents(store: Store, steps: list[Step], there: dict[str, bytes | None]) -> list[tuple[Step, str]]:
    """Return the keys of the version 2 documents that are there, each with the step of its node; read all of them."""
    named = [(step, k.join(step.node.path, name)) for step in steps for name in _V2_DOCUMENTS]
    there.update(values_of_keys(store, [key for _, key in named if key not in there]))
    return [(step, key) for step, key in named if there[key] is not None]


def _declarations(plan: list[Step], removed: list[str]) -> dict[str, bytes]:
    """Return the version 2 documents that must say how their chunks are spelled before they are deleted.

    If a document does not say that its chunks are nested, a NestedDirectoryStore shows them under flat names. When such
    a document is deleted, that store moves the chunks to flat files, and version 3 would look for nested ones.
    """
    written = {}
    for step in plan:
        encoding = (step.document or {}).get("chunk_key_encoding")
        configuration = encoding.get("configuration") if isinstance(encoding, Mapping) else None
        nested = isinstance(configuration, Mapping) and configuration.get("separator") == "/"
        if nested and step.node.key in removed and step.node.document.get("dimension_separator") is None:
            written[step.node.key] = documents.dumps({**step.node.document, "dimension_separator": "/"})
    return written


def _is_repeated_in(data: bytes | None, zattrs: str, step: Step) -> bool:
    """Tell whether the attributes that an interrupted removal left stand in the version 3 document too."""
    try:
        attrs = v2.decode_attrs(data or b"", zattrs)
    except MetadataError:
        return False
    return not agreement.attribute_differences(attrs, step.document or {})


def _repetitions(target: Store, plan: _Plan, writes: Mapping[str, bytes], removed: Iterable[str]) -> dict[str, bytes]:
    """Return the consolidated documents that stay and have to follow: those above the path, and ``.zmetadata``."""
    changes: dict[str, bytes | None] = {**writes, **dict.fromkeys(removed)}
    updates = consolidated_updates(target, changes, plan.there)
    own = {step.key for step in plan.steps}
    return {key: data for key, data in updates.items() if key not in own}


# Do -----------------------------------------------------------------------------------------------------------------


def _exchange_documents(store: Store, plan: _Plan, removed: list[str]) -> None:
    """Write the documents of a plan and what repeats them, and delete those that are `removed`."""
    planned = by_depth(step for step in plan.steps if step.action == "migrated")
    writes = {step.key: step.data for step in planned} | _declarations(plan.steps, removed)
    later = _repetitions(store, plan, writes, removed)
    writes.update((key, later.pop(key)) for key in list(later) if key in writes)
    exchange(store, writes, removed, later, plan.there)
