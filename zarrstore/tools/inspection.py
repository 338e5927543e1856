"""What names and documents of a hierarchy show to be wrong; chunks are named here, and decoded elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, NamedTuple

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.errors import MetadataError
from zarrstore.metadata import agreement, chunking, consolidated, documents, v2, v3, v3rules, v3types
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3
from zarrstore.metadata.shards import ShardLayout, shard_layout
from zarrstore.nodes import Node, walk
from zarrstore.spelling import spellings_of
from zarrstore.tools.findings import Counts, Problem
from zarrstore.tools.places import Places
from zarrstore.tools.sortedkeys import SortedKeys
from zarrstore.tools.streams import Spool

__all__ = ["Inspection", "PlannedChunk"]

#: Missing chunks that are named one by one, for each array.
_MISSING_NAMED = 100
_V2_DOCUMENTS = (documents.ZARRAY, documents.ZGROUP, documents.ZATTRS)
_OF_NODES = (*documents.DOCUMENTS, documents.META, documents.ATTRS)
_READERS: dict[str, Callable[[bytes, str], object]] = {
    documents.ZARRAY: v2.decode_array,
    documents.ZGROUP: v2.decode_group,
    documents.ZATTRS: v2.decode_attrs,
}


class PlannedChunk(NamedTuple):
    """A chunk that is to be decoded, and what it is: a plain one or a shard."""

    key: str
    nbytes: int
    layout: v2.ArrayMeta | ShardLayout


@dataclass(frozen=True)
class _Description:
    """What the documents say of an array."""

    meta: v2.ArrayMeta  # of a sharded array: that of its shards
    chunk_keys: ChunkKeys
    layout: v2.ArrayMeta | ShardLayout | None  # None if its chunks cannot be decoded here


@dataclass
class Inspection:
    """All that is found without decoding a chunk: first `check_documents`, then `chunks` to its end, then `finish`.

    Parameters
    ----------
    store : Store
        What is looked at.
    path : str
        The root of the hierarchy.
    keys : SortedKeys
        All keys below it.
    missing : {'unfilled', 'all', 'none'}
        See `verify`.
    elsewhere : frozenset of str
        Paths of arrays at which another process looks: here they only count as nodes of the hierarchy.
    """

    store: Store
    path: str
    keys: SortedKeys
    missing: str
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    elsewhere: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.present = set(self.keys.documents)
        self.unclaimed = dict.fromkeys(self.keys.documents)
        self.nodes: dict[str, Node] = {}

    def problem(self, key: str, kind: str, reason: str) -> None:
        """Note that something is wrong."""
        self.problems.append(Problem(key, kind, reason))

    def check_documents(self) -> None:
        """Look at every document of a node."""
        self.nodes = {node.path: node for node in walk(self.store, self.path, on_error=self._directory_error)}
        for node in self.nodes.values():
            if node.path in self.elsewhere:
                for name in _OF_NODES:
                    self._claim(k.join(node.path, name))
                self._check_ancestors(node)
                continue
            self._check_documents(node)
            if node.kind == "array":
                self.counts.n_arrays += 1
            else:
                self.counts.n_groups += 1
            self._check_ancestors(node)

    def chunks(self) -> Iterator[PlannedChunk]:
        """Look at the name of every key, in their order; yield the chunks that can be decoded."""
        found: set[str] = set()
        # The keys below a path follow one another. A key belongs to the topmost array above it.
        for path, entries in groupby(self.keys, self._array_above):
            if path in self.elsewhere:
                continue
            if path is not None:
                found.add(path)
                yield from self._check_array(self.nodes[path], entries)
                continue
            for entry in entries:
                if entry.key not in self.present:
                    self._check_unclaimed(entry.key)
        found |= self.elsewhere
        for node in self.nodes.values():
            if node.kind == "array" and node.path not in found and self._array_above(Entry(node.key)) == node.path:
                yield from self._check_array(node, ())

    def _array_above(self, entry: Entry) -> str | None:
        for path in k.parents(entry.key):
            node = self.nodes.get(path)
            if node is not None and node.kind == "array":
                return path
        return None

    def finish(self) -> None:
        """Look at what repeats the documents, and at the documents of no node."""
        self._check_zmetadata()
        self._check_inline()
        for key in self.unclaimed:
            self._check_unclaimed(key)

    def _directory_error(self, path: str, error: Exception) -> None:
        if not any(problem.key == path and problem.kind == "unread" for problem in self.problems):
            self.problem(path, "unread", str(error) or type(error).__name__)

    def _claim(self, key: str) -> bool:
        return self.unclaimed.pop(key, "absent") is None

    # Documents ------------------------------------------------------------------------------------------------------

    def _check_documents(self, node: Node) -> None:
        parsed = {name: self._check_document(k.join(node.path, name)) for name in _V2_DOCUMENTS}
        v3_document = self._check_zarr_json(k.join(node.path, documents.ZARR_JSON))
        if node.version == 1:
            self._claim(node.key)
            self._claim(node.attrs_key)
            self.notes.append(f"{node.key}: version 1, whose chunks are not looked at; migrate it first")
        zgroup = k.join(node.path, documents.ZGROUP)
        if k.join(node.path, documents.ZARRAY) in self.present and zgroup in self.present:
            self.problem(zgroup, "contradiction", "an array and a group at one path")
        self._check_leftovers(node)
        if node.version == 2 and v3_document is not None:
            self._check_agreement(node, parsed, v3_document)

    def _check_leftovers(self, node: Node) -> None:
        """Report documents of an older version than that of their node."""
        if node.version == 2 and node.kind == "array":
            for key in (k.join(node.path, name) for name in (documents.META, documents.ATTRS)):
                if self._claim(key):
                    self.problem(key, "leftover", "a document of version 1; migrate_1to2 removes it")
        elif node.version == 3:
            for key in (k.join(node.path, name) for name in (documents.ZATTRS, documents.ZMETADATA)):
                if key in self.present:
                    self._claim(key)
                    self.problem(key, "leftover", "a document of version 2 at a node of version 3")

    def _check_document(self, key: str) -> Any:
        """Judge a document of version 2; return what it says, None if nothing can be said."""
        if not self._claim(key):
            return None
        try:
            return _READERS[k.name(key)](self.store[key], key)
        except MetadataError as exc:
            self.problem(key, "document", _reason(exc))
        except Exception as exc:
            self.problem(key, "unread", str(exc) or type(exc).__name__)
        return None

    def _check_zarr_json(self, key: str) -> dict[str, Any] | None:
        if not self._claim(key):
            return None
        try:
            document = documents.loads(self.store[key], key)
        except MetadataError as exc:
            self.problem(key, "document", _reason(exc))
            return None
        except Exception as exc:
            self.problem(key, "unread", str(exc) or type(exc).__name__)
            return None
        reasons = v3rules.reasons(document, key)
        for reason in reasons:
            self.problem(key, "document", reason)
        return None if reasons else document

    def _check_agreement(self, node: Node, parsed: Mapping[str, Any], v3_document: Mapping[str, Any]) -> None:
        key = k.join(node.path, documents.ZARR_JSON)
        if v3_document["node_type"] != node.kind:
            self.problem(key, "disagreement", f"it says {v3_document['node_type']}, and {node.key!r} says {node.kind}")
            return
        attrs = parsed[documents.ZATTRS]
        if attrs is None and node.attrs_key in self.present:
            return  # damaged, and reported
        meta = parsed[documents.ZARRAY]
        if node.kind == "array" and meta is None:
            return
        separator = None
        if node.kind == "array":
            separator = self._separator(node.path, meta)
        differences = agreement.differences(meta, attrs or {}, v3_document, key, separator=separator)
        for difference in differences:
            self.problem(key, "disagreement", difference)

    def _separator(self, path: str, meta: v2.ArrayMeta) -> str:
        if meta.dimension_separator is None:
            names = self.keys.sample(path)
            if spellings_of(self.store, path, meta, keys=names).separators == {"/"}:
                return "/"
        return meta.separator if self.store._dimension_separator is None else meta.dimension_separator or ""

    def _check_ancestors(self, node: Node) -> None:
        """Report a node that no reader walks to: a group is above it, and not at every level between the two."""
        nodes = self.nodes
        above = [path for path in k.parents(node.path) if path == self.path or k.is_below(path, self.path)]
        groups = [path for path in above if path in nodes]
        for path in above[above.index(groups[0]) :] if groups else ():
            if path not in nodes:
                self.problem(node.key, "orphan", f"no group is at {path!r}, though one is at {groups[0]!r}")
                return
        if node.version == 2 and any(nodes[path].version == 3 for path in groups):
            reason = "a document of version 2 below a group that has one of version 3 only"
            self.problem(node.key, "leftover", reason)

    # Arrays ---------------------------------------------------------------------------------------------------------

    def _check_array(self, node: Node, entries: Iterable[Entry]) -> Iterator[PlannedChunk]:
        description = self._describe(node)
        if description is None:
            for entry in entries:
                self._claim(entry.key)  # nothing can be said of its chunks
            return
        meta, rule = description.meta, description.chunk_keys
        layout = description.layout
        if any(step.get("id") == "pickle" for step in meta.filters or ()):
            self.notes.append(f"{node.key}: pickled objects, which are not decoded")
            layout = None
        chunks = Places(meta.grid_shape)
        with Spool() as misspelled:
            for entry in entries:
                kind = self._kind(entry.key, node, meta, rule, chunks)
                if kind == "misspelled":
                    misspelled.add(entry)
                elif kind == "chunk" and layout is not None:
                    yield PlannedChunk(entry.key, entry.nbytes, layout)
            as_chunks = self._check_spelling(node, meta, rule, chunks, misspelled)
            if as_chunks and layout is not None:
                for entry in misspelled:
                    yield PlannedChunk(entry.key, entry.nbytes, layout)
        self.counts.n_chunks += chunks.count
        self.counts.n_expected += meta.n_chunks
        self._check_missing(node, meta, rule, chunks)

    def _kind(self, key: str, node: Node, meta: v2.ArrayMeta, rule: ChunkKeys, chunks: Places) -> str:
        """Tell what a key below an array is, and report it if it is nothing."""
        if key in self.present:
            return "document"
        coords = rule.loose_coords(key, node.path)
        if coords is not None:
            if rule.key(node.path, coords) == key and _is_inside(coords, meta.grid_shape):
                chunks.add(coords)
                return "chunk"
            self.problem(key, "outside", f"the grid of {node.path!r} has {meta.grid_shape} chunks")
            return "outside"
        if rule.ndim > 1 and _other(rule).coords(key, node.path) is not None:
            return "misspelled"
        self._check_unclaimed(key)
        return "foreign"

    def _check_spelling(
        self, node: Node, meta: v2.ArrayMeta, rule: ChunkKeys, chunks: Places, misspelled: Spool
    ) -> bool:
        """Report chunks that are named with the other separator; return whether they are the chunks of the array."""
        if len(misspelled) and not chunks.count and meta.dimension_separator is None and node.version == 2:
            first = next(iter(misspelled)).key
            reason = f'it has no "dimension_separator", and its chunks are named as {first!r}; repair() adds it'
            self.problem(node.key, "separator", reason)
            for entry in misspelled:
                coords = _other(rule).coords(entry.key, node.path)
                assert coords is not None
                # A name outside of the grid is counted too, and is no chunk that could be missing.
                chunks.add(coords)
            return True
        for entry in misspelled:
            self.problem(entry.key, "separator", f"{node.key!r} puts {rule.separator!r} between the numbers")
        return False

    def _describe(self, node: Node) -> _Description | None:
        """Return what is known of an array; None where its document is damaged, which was reported."""
        try:
            if node.error is not None:
                return None
            if node.version == 2:
                meta = v2.check_array(node.document, node.key)
                return _Description(meta, ChunkKeys("v2", meta.separator, len(meta.shape)), meta)
            if node.version == 3 and not v3rules.reasons(node.document, node.key):
                return self._describe_v3(node)
        except MetadataError:
            pass
        return None

    def _describe_v3(self, node: Node) -> _Description | None:
        rule = chunk_keys_of_v3(node.document, node.key)
        translation = v3.array_v3_to_v2(node.document, node.key)
        if translation.document is not None:
            meta = v2.check_array(translation.document, node.key)
            return _Description(meta, rule, meta)
        plain = v3.array_v3_to_v2(v3.without_codecs(node.document), node.key)
        if plain.document is None:
            self.notes.append(f"{node.key}: its chunks are not looked at: {'; '.join(plain.problems)}")
            return None
        meta = v2.check_array(plain.document, node.key)
        try:
            layout = shard_layout(node.document, node.key)
            reason = "; ".join(translation.problems)
        except v3types.NotRepresentable as exc:
            layout, reason = None, str(exc)
        if layout is None:
            self.notes.append(f"{node.key}: its chunks are not decoded: {reason}")
        return _Description(meta, rule, layout)

    def _check_missing(self, node: Node, meta: v2.ArrayMeta, rule: ChunkKeys, chunks: Places) -> None:
        absent = meta.n_chunks - chunks.count
        unfilled = meta.fill_value is None and bool(chunks.count) and node.version == 2
        if absent <= 0 or self.missing == "none" or not (self.missing == "all" or unfilled):
            return
        why = "the array has no fill value" if meta.fill_value is None else "all chunks are wanted"
        grid = chunking.chunk_grid(meta.shape, meta.chunks)
        # A document may claim any number of chunks: the first are named, the rest counted.
        for coords in islice((coords for coords in grid if not chunks.has(coords)), _MISSING_NAMED):
            self.problem(rule.key(node.path, coords), "missing", why)
        if absent > _MISSING_NAMED:
            self.problem(node.key, "missing", f"{absent - _MISSING_NAMED:,} more chunks")

    # Consolidated metadata ------------------------------------------------------------------------------------------

    def _check_zmetadata(self) -> None:
        for key in [key for key in self.unclaimed if k.name(key) == documents.ZMETADATA]:
            self._claim(key)
            at = k.parent(key)
            wanted = [name for name in self.keys.documents if k.is_below(name, at) and consolidated.is_repeated(name)]
            try:
                content = self.store[key]
                found = {k.replace_root(name, at, ""): self._value_or_empty(name) for name in wanted}
                self._report_staleness(key, consolidated.compare(consolidated.parse(content, key), found))
            except MetadataError as exc:
                self.problem(key, "document", _reason(exc))
            except Exception as exc:
                self.problem(key, "unread", str(exc) or type(exc).__name__)

    def _value_or_empty(self, key: str) -> bytes:
        try:
            return self.store[key]
        except Exception:
            return b""  # what cannot be read is reported under its own key, and differs from any repetition

    def _check_inline(self) -> None:
        for path in self.nodes:
            key = k.join(path, documents.ZARR_JSON)
            if key not in self.present:
                continue
            document = self._parsed(key)
            try:
                repeated = consolidated.parse_inline(document, key)
            except MetadataError as exc:
                self.problem(key, "document", _reason(exc))
                continue
            if repeated is None:
                continue
            below = (
                name for name in self.keys.documents if k.name(name) == documents.ZARR_JSON and k.is_below(name, path)
            )
            found = {k.replace_root(k.parent(name), path, ""): self._parsed(name) for name in below if name != key}
            self._report_staleness(key, consolidated.compare_inline(repeated, found))

    def _parsed(self, key: str) -> dict[str, Any]:
        try:
            return documents.loads(self.store[key], key)
        except Exception:
            return {}  # reported with the document itself

    def _report_staleness(self, key: str, stale: consolidated.Staleness) -> None:
        for what, names in (("lacks", stale.missing), ("still has", stale.extra), ("differs in", stale.different)):
            for name in names:
                self.problem(key, "stale", f"it {what} {name!r}")

    # The rest -------------------------------------------------------------------------------------------------------

    def _check_unclaimed(self, key: str) -> None:
        nodes = self.nodes
        above = [path for path in k.parents(key) if path in nodes]
        arrays = [path for path in above if nodes[path].kind == "array"]
        if k.name(key) in documents.DOCUMENTS and arrays:
            self.problem(key, "contradiction", f"a node below the array at {arrays[-1]!r}")
        elif k.name(key) in documents.DOCUMENTS:
            self.problem(key, "orphan", f"no array and no group is at {k.parent(key)!r}")
        elif arrays:
            self.problem(key, "foreign", f"it is neither a chunk nor a document of the array at {arrays[-1]!r}")
        else:
            self.problem(key, "foreign", "it belongs to no array and no group")


def _reason(error: MetadataError) -> str:
    return error.reason if error.member is None else f'"{error.member}" {error.reason}'


def _is_inside(coords: tuple[int, ...], grid: tuple[int, ...]) -> bool:
    return all(i < n for i, n in zip(coords, grid, strict=True))


def _other(rule: ChunkKeys) -> ChunkKeys:
    return rule.respelled("/" if rule.separator == "." else ".")
