"""What is provably wrong in a hierarchy is put right: chunks that no reader finds, repetitions that are stale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.chunknames import nest
from zarrstore.errors import MetadataError, ReadOnlyError, UnsupportedOperation
from zarrstore.metadata import agreement, consolidated, documents, v2, v3rules
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3
from zarrstore.nodes import Node, walk
from zarrstore.shown import Shown
from zarrstore.spelling import spellings_of, stored_chunk_keys_of
from zarrstore.targets import Target, opens
from zarrstore.tools.nearby import absent

__all__ = ["Repair", "RepairReport", "repair"]


@dataclass(frozen=True)
class Repair:
    """One document that is rewritten or deleted.

    Parameters
    ----------
    key : str
        Of the document.
    reason : str
        What is wrong, and what is done about it.
    value : bytes or None
        What is written; None deletes.
    """

    key: str
    reason: str
    value: bytes | None


@dataclass(frozen=True, repr=False)
class RepairReport(Shown):
    """All that was repaired, or would be. True if anything was to be done.

    Parameters
    ----------
    dry_run : bool
        Nothing was written.
    repairs : tuple of Repair
        In the order of writing.
    notes : tuple of str
        What is wrong and cannot be decided here, with the way out.
    """

    dry_run: bool
    repairs: tuple[Repair, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.repairs)

    def _title(self) -> str:
        return f"{len(self.repairs):,} documents {'would be' if self.dry_run else 'were'} changed"

    def _headers(self) -> tuple[str, ...]:
        return ("key", "action", "reason")

    def _rows(self) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = [
            (one.key, "delete" if one.value is None else "write", one.reason) for one in self.repairs
        ]
        return rows + [("", "note", note) for note in self.notes]

    def __iter__(self) -> Iterator[Repair]:
        return iter(self.repairs)

    def __len__(self) -> int:
        return len(self.repairs)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "dry_run": self.dry_run,
            "repairs": [
                {"key": one.key, "action": "delete" if one.value is None else "write", "reason": one.reason}
                for one in self.repairs
            ],
            "notes": list(self.notes),
        }


@opens(store="r+")
def repair(store: Target, path: object = "", *, dry_run: bool = False) -> RepairReport:
    """Put right the documents that are provably wrong; chunks are not touched.

    Parameters
    ----------
    store : MutableMapping of str to bytes
        Any mapping that can be listed.
    path : str
        The root of the hierarchy.
    dry_run : bool, default False
        Report what is to be done, and write nothing.

    Returns
    -------
    RepairReport
        Every document that was rewritten or deleted, with the reason.

    Raises
    ------
    ReadOnlyError, UnsupportedOperation
        There is something to repair, and the store cannot be written or cannot erase. Nothing was written.
    KeyError
        Nothing is at or below `path`.

    Notes
    -----
    What is repaired: an array all of whose chunks are named with the other separator than its document says, or than a
    reader assumes where the document says nothing (zarr 2.0 to 2.7 wrote nested chunks so), gets the right
    ``dimension_separator``, in a ``zarr.json`` beside it too; ``.zmetadata`` and inline consolidated metadata that do
    not repeat the documents are made anew; ``.zattrs`` and ``.zmetadata`` of nodes that have become version 3 are
    deleted if ``zarr.json`` says the same. An array with chunks in both spellings is only noted, see `respell`.
    Cost: one listing of everything and one read of each document. Crash: each step is whole, and a second run goes on.
    Source: this package.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=(4, 4), chunks=(2, 2), path="a")
    >>> store["a/0/1"] = b"chunk"
    >>> [one.key for one in repair(store, dry_run=True)]
    ['a/.zarray']
    >>> repair(store).repairs[0].reason
    "its chunks are named as 'a/0/1', which readers do not look for: dimension_separator becomes '/'"
    """
    adapted = as_store(store)
    at = k.normalize_path(path)
    repairs: list[Repair] = []
    notes: list[str] = []
    nodes = list(walk(adapted, at))
    if not nodes and not adapted.listdir(at):
        raise absent(adapted, at)
    for node in nodes:
        if node.error is not None:
            notes.append(f"{node.key}: {node.error.reason}")
        elif node.kind == "array":
            repairs += _repair_array(adapted, node, notes)
        if node.version == 3 and node.error is None:
            repairs += _repair_leftovers(adapted, node, notes)
    changes = {one.key: one.value for one in repairs}
    repairs += _repair_consolidated(adapted, nodes, changes)
    if repairs and not dry_run:
        _check_writable(adapted, repairs)
        _carry_out(adapted, repairs)
    return RepairReport(dry_run, tuple(repairs), tuple(notes))


def _check_writable(store: Store, repairs: list[Repair]) -> None:
    if not store.capabilities.writable:
        raise ReadOnlyError(repairs[0].key, store)
    if not store.capabilities.erasable and any(one.value is None for one in repairs):
        raise UnsupportedOperation("delete documents", store, "copy it to another store first")


def _carry_out(store: Store, repairs: list[Repair]) -> None:
    for one in repairs:
        if one.value is None:
            store.delitems([one.key])
        else:
            store[one.key] = one.value
    store.flush()


def _repair_array(store: Store, node: Node, notes: list[str]) -> Iterator[Repair]:
    zarr_json = k.join(node.path, documents.ZARR_JSON)
    try:
        if node.version == 2:
            meta = v2.check_array(node.document, node.key)
            separator, example = _right_separator(store, node.path, meta, notes)
            if separator is not None:
                reason = _reason(example, f"dimension_separator becomes {separator!r}")
                document = {**node.document, "dimension_separator": separator}
                yield Repair(node.key, reason, documents.dumps(document))
            data = store.get(zarr_json)
            rule = stored_chunk_keys_of(store, node.path, meta)
            wanted = separator or rule.separator
        else:
            data, wanted = store.get(zarr_json), None
        if data is not None:
            yield from _repair_v3_array(store, node.path, documents.loads(data, zarr_json), wanted)
    except MetadataError as exc:
        notes.append(f"{exc.key}: {exc.reason}")


def _right_separator(
    store: Store, path: str, meta: v2.ArrayMeta, notes: list[str]
) -> tuple[str, str] | tuple[None, None]:
    """Return the separator that a document lacks and a chunk that shows it; None where the document is right."""
    found = spellings_of(store, path, meta, limit=None)
    if found.flat is not None and found.nested is not None:
        notes.append(
            f"{k.join(path, documents.ZARRAY)}: its chunks are named in both ways, as {found.flat!r} and as "
            f"{found.nested!r}; respell() gives them one spelling"
        )
        return None, None
    stored = stored_chunk_keys_of(store, path, meta, limit=None).separator
    if meta.dimension_separator is None and found.flat is not None and stored == "/":
        return "/", nest(found.flat)  # the store shows one file under both spellings
    if found.nested is not None and meta.separator == ".":
        return "/", found.nested
    if found.flat is not None and meta.separator == "/":
        return ".", found.flat
    return None, None


def _repair_v3_array(store: Store, path: str, document: dict[str, Any], wanted: str | None) -> Iterator[Repair]:
    key = k.join(path, documents.ZARR_JSON)
    if v3rules.reasons(document, key) or document["node_type"] != "array":
        return
    rule = chunk_keys_of_v3(document, key)
    if rule.encoding != "v2" or rule.ndim < 2:
        return
    other = rule.respelled("/" if rule.separator == "." else ".")
    if wanted is None:
        example = _only_named_as(store, path, rule, other)
    else:
        example = None if wanted == rule.separator else _example(store, path, other)
    if example is None:
        return
    encoding = {"name": "v2", "configuration": {"separator": other.separator}}
    reason = _reason(example, f"chunk_key_encoding becomes v2 {other.separator!r}")
    yield Repair(key, reason, documents.dumps({**document, "chunk_key_encoding": encoding}))


def _only_named_as(store: Store, path: str, rule: ChunkKeys, other: ChunkKeys) -> str | None:
    """Return a chunk that is named by the other rule; None if there is none, or one that is named by the rule."""
    chunks = [name for name in store.keys_below(path) if k.name(name) not in documents.DOCUMENTS]
    if any(rule.coords(name, path) is not None for name in chunks):
        return None
    return next((name for name in chunks if other.coords(name, path) is not None), None)


def _example(store: Store, path: str, rule: ChunkKeys) -> str | None:
    both = (rule, rule.respelled("/" if rule.separator == "." else "."))
    for key in store.keys_below(path):
        coords = next((found for one in both if (found := one.coords(key, path)) is not None), None)
        if coords is not None:
            return rule.key(path, coords)
    return None


def _reason(example: str | None, remedy: str) -> str:
    return f"its chunks are named as {example!r}, which readers do not look for: {remedy}"


def _repair_leftovers(store: Store, node: Node, notes: list[str]) -> Iterator[Repair]:
    """Delete what a removal of version 2 that was interrupted left at a node of version 3."""
    zattrs = k.join(node.path, documents.ZATTRS)
    data = store.get(zattrs)
    if data is not None:
        try:
            same = not agreement.attribute_differences(v2.decode_attrs(data, zattrs), node.document)
        except MetadataError as exc:
            notes.append(f"{zattrs}: {exc.reason}")
            return
        if same:
            yield Repair(zattrs, "zarr.json says the same, and the node is version 3: it is deleted", None)
        else:
            notes.append(f"{zattrs}: the node is version 3, whose zarr.json has other attributes; delete one of them")
    zmetadata = k.join(node.path, documents.ZMETADATA)
    if zmetadata in store:
        yield Repair(zmetadata, "the group is version 3, and readers of version 2 find nothing: it is deleted", None)


def _repair_consolidated(store: Store, nodes: list[Node], changes: Mapping[str, bytes | None]) -> Iterator[Repair]:
    def value(key: str) -> bytes | None:
        return changes[key] if key in changes else store.get(key)

    groups = [node.path for node in nodes if node.kind == "group"]
    for path in sorted(groups, key=lambda path: -len(k.segments(path))):
        yield from _repair_group(store, path, value)


def _repair_group(store: Store, path: str, value: Callable[[str], bytes | None]) -> Iterator[Repair]:
    """Make the consolidated metadata of a group anew where it does not repeat the documents as they will be."""
    zmetadata, zarr_json = k.join(path, documents.ZMETADATA), k.join(path, documents.ZARR_JSON)
    below = list(store.keys_below(path)) if zmetadata in store or zarr_json in store else []
    data = value(zmetadata)
    if data is not None:
        found = _present(filter(consolidated.is_repeated, below), value)
        new = _new_zmetadata(data, zmetadata, {k.replace_root(key, path, ""): one for key, one in found.items()})
        if new is not None:
            yield Repair(zmetadata, "it does not repeat the documents: it is made anew", new)
    data = value(zarr_json)
    if data is not None:
        keys = [key for key in below if k.name(key) == documents.ZARR_JSON and key != zarr_json]
        new = _new_inline(data, zarr_json, _present(keys, value), path)
        if new is not None:
            yield Repair(zarr_json, "it does not repeat the documents below it: it is made anew", new)


def _present(keys: Iterable[str], value: Callable[[str], bytes | None]) -> dict[str, bytes]:
    return {key: one for key in keys if (one := value(key)) is not None}


def _new_zmetadata(data: bytes, key: str, found: Mapping[str, bytes]) -> bytes | None:
    try:
        new = consolidated.build(found)
    except MetadataError:
        return None  # a document is damaged: nothing right can be repeated
    try:
        stale = consolidated.compare(consolidated.parse(data, key), found)
    except MetadataError:
        return new
    return new if stale else None


def _new_inline(data: bytes, key: str, found: Mapping[str, bytes], path: str) -> bytes | None:
    try:
        document = documents.loads(data, key)
        repeated = consolidated.parse_inline(document, key)
        nodes = {k.replace_root(k.parent(name), path, ""): documents.loads(one, name) for name, one in found.items()}
    except MetadataError:
        return None
    if repeated is None or not consolidated.compare_inline(repeated, nodes):
        return None
    return documents.dumps({**document, "consolidated_metadata": consolidated.build_inline(nodes)})


# Recognition --------------------------------------------------------------------------------------------------------
