"""Everything that is wrong with a hierarchy, each with its key and its reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import MetadataError
from zarrstore.metadata import chunking, consolidated, documents, v2, v3
from zarrstore.metadata.chunk import decode_chunk
from zarrstore.nodes import Node, walk
from zarrstore.tools.executing import run_ordered
from zarrstore.tools.manifest import manifest_of, read_manifest
from zarrstore.tools.progress import Progress, reporter

__all__ = ["KINDS", "Problem", "VerifyReport", "verify"]

#: Every kind of problem, and what it means.
KINDS = {
    "document": "a document that is not Zarr metadata",
    "contradiction": "documents that cannot both be right",
    "orphan": "a document or a node that no reader finds from above",
    "missing": "a chunk that is not there, where no fill value may stand in for it",
    "foreign": "a key that belongs to no node",
    "outside": "a chunk outside the grid of its array",
    "separator": "a chunk named with the other dimension separator",
    "undecodable": "a chunk that no codec decodes, or that has the wrong size",
    "unread": "a value that could not be read",
    "stale": "consolidated metadata that does not repeat the documents",
    "manifest": "a value that is not what the manifest says",
    "leftover": "a document of version 1 beside one of version 2",
}

_BATCH = 64
#: Missing chunks that are named one by one, for each array.
_MISSING_NAMED = 100


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    key : str
        Where.
    kind : str
        One of `KINDS`.
    reason : str
        What is wrong, in words.

    Examples
    --------
    >>> str(Problem("a/0", "undecodable", "zlib cannot decode it"))
    'a/0: undecodable: zlib cannot decode it'
    """

    key: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.kind}: {self.reason}"


@dataclass(frozen=True)
class VerifyReport:
    """Every problem found, and what was looked at. True if there is none.

    Parameters
    ----------
    problems : tuple of Problem
        In the order of the nodes.
    n_arrays, n_groups : int
        Nodes.
    n_chunks, n_expected : int
        Chunks that are there, and that there would be if all were written.
    n_decoded : int
        Chunks that were decoded.
    notes : tuple of str
        What could not be looked at, and why.

    Examples
    --------
    >>> report = verify({".zgroup": b'{"zarr_format": 2}', ".DS_Store": b""})
    >>> bool(report), [problem.key for problem in report.problems]
    (False, ['.DS_Store'])
    """

    problems: tuple[Problem, ...] = ()
    n_arrays: int = 0
    n_groups: int = 0
    n_chunks: int = 0
    n_expected: int = 0
    n_decoded: int = 0
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "ok": bool(self),
            "problems": [{"key": p.key, "kind": p.kind, "reason": p.reason} for p in self.problems],
            "arrays": self.n_arrays,
            "groups": self.n_groups,
            "chunks": self.n_chunks,
            "chunks_expected": self.n_expected,
            "chunks_decoded": self.n_decoded,
            "notes": list(self.notes),
        }


def verify(
    store: Mapping[str, Any],
    path: object = "",
    decode: bool = True,
    manifest: str | os.PathLike[str] | Mapping[str, str] | None = None,
    executor: Executor | None = None,
    *,
    missing: str = "unfilled",
    max_chunk_nbytes: int = 1 << 30,
    progress: bool | Callable[[Progress], object] | None = None,
) -> VerifyReport:
    """Look at every key of a hierarchy and return every problem, not the first.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping that can be listed.
    path : str
        The root of the hierarchy.
    decode : bool, default True
        Read and decode every chunk. Otherwise values are not read but for documents.
    manifest : path-like or mapping, optional
        SHA-256 by key, as `write_manifest` writes it: every value is read and compared, and a key that is missing or
        new is a problem.
    executor : concurrent.futures.Executor, optional
        Where chunks are decoded: threads, processes, ``dask.distributed``'s. Stores travel to it by pickle unless it
        is a ThreadPoolExecutor; one that only this process may use is read here. Not given, as many threads as there
        are cores.
    missing : {'unfilled', 'all', 'none'}
        Which absent chunks are problems: those of arrays without a fill value some of whose chunks are there; all;
        none. Zarr does not write what equals the fill value, so an absent chunk says nothing where there is one.
    max_chunk_nbytes : int, bytes, default 1 GiB
        A chunk that needs more when decoded is a problem instead of a danger.
    progress : callable or True, optional
        Called with a `Progress` as chunks are decoded; True draws a bar (needs rich).

    Returns
    -------
    VerifyReport
        True if nothing is wrong.

    Raises
    ------
    KeyError
        Nothing is at or below `path`.

    Notes
    -----
    Cost: one listing of all keys, one of each directory of groups, one read of each document, and of each chunk if
    `decode`. Memory: the names of the keys, and a batch of 64 chunks a worker. Pickled objects are not decoded (a
    pickle can run any program) and noted. Source: the version 2 specification; what users ask for.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=4, chunks=2, dtype="i1", fill_value=0, compressor=None, path="a")
    >>> store["a/0"] = b"12"
    >>> bool(verify(store))
    True
    >>> store["a/1"] = b"123"
    >>> print(verify(store).problems[0])
    a/1: undecodable: it has 3 bytes, and 2 are expected
    """
    if missing not in ("unfilled", "all", "none"):
        raise ValueError(f"missing is {missing!r}; it is 'unfilled', 'all' or 'none'")
    adapted = as_store(store)
    at = k.normalize_path(path)
    keys = sorted(adapted.keys_below(at))
    if not keys:
        raise KeyError(at)
    survey = _Survey(adapted, at, keys, missing)
    survey.look()
    work = [_Batch(plan.meta, batch) for plan in survey.plans for batch in _batches(plan.keys)] if decode else []
    decoded = 0
    total = sum(len(batch.keys) for batch in work)
    own = nullcontext(executor) if executor is not None else ThreadPoolExecutor(os.cpu_count() or 1)
    with own as chosen, reporter(progress, total, "verify") as report:
        travels = isinstance(chosen, ThreadPoolExecutor) or adapted.capabilities.process_safe
        tasks: Iterable[tuple[Any, ...]]
        if travels:
            tasks = ((check_batch, adapted, batch, max_chunk_nbytes) for batch in work)
        else:
            tasks = ((check_values, _read(adapted, batch), batch, max_chunk_nbytes) for batch in work)
        for batch, found in zip(work, run_ordered(chosen, tasks), strict=True):
            survey.problems += found
            decoded += len(batch.keys)
            report(Progress(decoded, total, errors=0))
    if manifest is not None:
        survey.check_manifest(manifest)
    order = {key: n for n, key in enumerate(keys)}
    survey.problems.sort(key=lambda problem: (order.get(problem.key, len(order)), problem.key))
    return replace(survey.report(), n_decoded=decoded)


@dataclass(frozen=True)
class _Batch:
    meta: v2.ArrayMeta
    keys: Sequence[str]


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[at : at + _BATCH] for at in range(0, len(keys), _BATCH))


def check_batch(store: Store, batch: _Batch, max_nbytes: int) -> list[Problem]:
    """Read and decode some chunks of one array; runs wherever the executor is."""
    return check_values(store.getitems(batch.keys), batch, max_nbytes)


def check_values(values: Mapping[str, bytes], batch: _Batch, max_nbytes: int) -> list[Problem]:
    """Decode some chunks of one array, read already or as they are asked for."""
    problems = []
    for key in batch.keys:
        try:
            data = values[key]
        except KeyError:
            problems.append(Problem(key, "unread", "it was listed, and is gone"))
            continue
        except Exception as exc:
            problems.append(Problem(key, "unread", str(exc) or type(exc).__name__))
            continue
        try:
            decode_chunk(data, batch.meta, max_nbytes=max_nbytes)
        except (ValueError, MemoryError) as exc:
            problems.append(Problem(key, "undecodable", str(exc) or "not enough memory"))
    return problems


def _read(store: Store, batch: _Batch) -> dict[str, bytes]:
    return dict(store.getitems(batch.keys))


@dataclass
class _Plan:
    meta: v2.ArrayMeta
    keys: list[str]


@dataclass
class _Survey:
    """What names and documents tell; the chunks themselves are looked at later."""

    store: Store
    path: str
    keys: list[str]
    missing: str
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plans: list[_Plan] = field(default_factory=list)
    n_arrays: int = 0
    n_groups: int = 0
    n_chunks: int = 0
    n_expected: int = 0

    def report(self) -> VerifyReport:
        return VerifyReport(
            tuple(self.problems),
            self.n_arrays,
            self.n_groups,
            self.n_chunks,
            self.n_expected,
            notes=tuple(self.notes),
        )

    def problem(self, key: str, kind: str, reason: str) -> None:
        self.problems.append(Problem(key, kind, reason))

    def look(self) -> None:
        nodes = {node.path: node for node in walk(self.store, self.path)}
        self.unclaimed = dict.fromkeys(self.keys)
        below = _grouped(self.keys, [node.path for node in nodes.values() if node.kind == "array"])
        for node in nodes.values():
            self._look_at_documents(node)
            if node.kind == "array":
                self.n_arrays += 1
                self._look_at_array(node, below.get(node.path, []))
            else:
                self.n_groups += 1
            self._look_above(node, nodes)
        self._look_at_consolidated()
        for key in self.unclaimed:
            self._look_at_unclaimed(key, nodes)

    def claim(self, key: str) -> bool:
        return self.unclaimed.pop(key, "absent") is None

    def _look_at_documents(self, node: Node) -> None:
        for name in (documents.ZARRAY, documents.ZGROUP, documents.ZATTRS, documents.ZARR_JSON):
            self._look_at_document(k.join(node.path, name))
        if node.version == 1:
            self.claim(node.key)
            self.claim(node.attrs_key)
            self.notes.append(f"{node.key}: version 1, whose chunks are not looked at; migrate it first")
        zarray, zgroup = (k.join(node.path, name) for name in (documents.ZARRAY, documents.ZGROUP))
        if zarray in self.present and zgroup in self.present:
            self.problem(zgroup, "contradiction", "an array and a group at one path")
        for name in (documents.META, documents.ATTRS):
            key = k.join(node.path, name)
            if node.version == 2 and node.kind == "array" and key in self.unclaimed:
                self.claim(key)
                self.problem(key, "leftover", "a document of version 1; migrate_1to2 removes it")

    @property
    def present(self) -> dict[str, None]:
        if not hasattr(self, "_present"):
            self._present = dict.fromkeys(self.keys)
        return self._present

    def _look_at_document(self, key: str) -> None:
        if not self.claim(key):
            return
        readers: dict[str, Callable[[bytes, str], object]] = {
            documents.ZARRAY: v2.decode_array,
            documents.ZGROUP: v2.decode_group,
            documents.ZATTRS: v2.decode_attrs,
            documents.ZARR_JSON: _decode_zarr_json,
        }
        try:
            readers[k.name(key)](self.store[key], key)
        except MetadataError as exc:
            self.problem(key, "document", exc.reason if exc.member is None else f'"{exc.member}" {exc.reason}')
        except Exception as exc:
            self.problem(key, "unread", str(exc) or type(exc).__name__)

    def _look_above(self, node: Node, nodes: Mapping[str, Node]) -> None:
        """A node that has a group somewhere above must have one at every level between, or no reader walks to it."""
        above = [path for path in k.parents(node.path) if path == self.path or k.is_below(path, self.path)]
        groups = [path for path in above if path in nodes]
        if groups:
            for path in above[above.index(groups[0]) :]:
                if path not in nodes:
                    self.problem(node.key, "orphan", f"no group is at {path!r}, though one is at {groups[0]!r}")
                    return

    def _look_at_array(self, node: Node, keys: list[str]) -> None:
        found = self._description(node)
        if found is None:
            for key in keys:
                self.claim(key)  # nothing can be said of its chunks
            return
        meta, encoding = found
        chunks: list[str] = []
        grid = meta.grid_shape
        for key in keys:
            coords = _coords(key, node.path, encoding)
            if key not in self.unclaimed:
                continue
            if coords is not None and len(coords) == max(1, len(grid)):
                self.claim(key)
                inside = all(i < n for i, n in zip(coords, grid, strict=False)) if grid else coords == (0,)
                if inside and k.join(node.path, _name(coords, grid, encoding)) == key:
                    chunks.append(key)
                else:
                    self.problem(key, "outside", f"the grid of {node.path!r} has {grid} chunks")
            elif _other_spelling(key, node.path, encoding, len(grid)):
                self.claim(key)
                self.problem(key, "separator", f"{node.key!r} parts the numbers by {encoding[1]!r}")
        self.n_chunks += len(chunks)
        self.n_expected += meta.n_chunks
        self._look_for_missing(node, meta, encoding, chunks)
        if any(step.get("id") == "pickle" for step in meta.filters or ()):
            self.notes.append(f"{node.key}: pickled objects, which are not decoded")
        else:
            self.plans.append(_Plan(meta, chunks))

    def _description(self, node: Node) -> tuple[v2.ArrayMeta, tuple[str, str]] | None:
        """Return an array's description in the words of version 2, and how its chunks are named."""
        try:
            if node.error is not None:
                return None
            if node.version == 2:
                meta = v2.check_array(node.document, node.key)
                return meta, ("v2", meta.separator)
            if node.version == 3:
                encoding = v3.chunk_key_encoding(node.document, node.key)
                said = v3.array_v3_to_v2(node.document, node.key)
                if said.document is None:
                    self.notes.append(f"{node.key}: its chunks are not looked at: {'; '.join(said.problems)}")
                    return None
                return v2.check_array(said.document, node.key), encoding
        except MetadataError:
            pass  # reported with the document itself
        return None

    def _look_for_missing(
        self, node: Node, meta: v2.ArrayMeta, encoding: tuple[str, str], chunks: Sequence[str]
    ) -> None:
        absent = meta.n_chunks - len(chunks)
        unfilled = meta.fill_value is None and bool(chunks) and node.version == 2
        if absent <= 0 or self.missing == "none" or not (self.missing == "all" or unfilled):
            return
        there = set(chunks)
        names = (
            k.join(node.path, _name(coords, meta.grid_shape, encoding))
            for coords in chunking.chunk_grid(meta.shape, meta.chunks)
        )
        why = "the array has no fill value" if meta.fill_value is None else "all chunks are wanted"
        # A document may claim any number of chunks: the first are named, the rest counted.
        for key in islice((key for key in names if key not in there), _MISSING_NAMED):
            self.problem(key, "missing", why)
        if absent > _MISSING_NAMED:
            self.problem(node.key, "missing", f"{absent - _MISSING_NAMED:,} more chunks")

    def _look_at_consolidated(self) -> None:
        for key in [key for key in self.unclaimed if k.name(key) == documents.ZMETADATA]:
            self.claim(key)
            at = k.parent(key)
            wanted = [name for name in self.keys if k.is_below(name, at) and consolidated.is_repeated(name)]
            found = {k.replace_root(name, at, ""): data for name, data in self.store.getitems(wanted).items()}
            try:
                stale = consolidated.compare(consolidated.parse(self.store[key], key), found)
            except MetadataError as exc:
                self.problem(key, "document", exc.reason if exc.member is None else f'"{exc.member}" {exc.reason}')
                continue
            for what, names in (("lacks", stale.missing), ("still has", stale.extra), ("differs in", stale.different)):
                for name in names:
                    self.problem(key, "stale", f"it {what} {name!r}")

    def _look_at_unclaimed(self, key: str, nodes: Mapping[str, Node]) -> None:
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

    def check_manifest(self, manifest: str | os.PathLike[str] | Mapping[str, str]) -> None:
        wanted = manifest if isinstance(manifest, Mapping) else read_manifest(manifest)
        found = manifest_of(self.store, self.path)
        for name in sorted({*wanted, *found}):
            key = k.join(self.path, name)
            if name not in found:
                self.problem(key, "manifest", "it is in the manifest, and not there")
            elif name not in wanted:
                self.problem(key, "manifest", "it is there, and not in the manifest")
            elif wanted[name] != found[name]:
                self.problem(key, "manifest", f"its SHA-256 is {found[name]}, and the manifest says {wanted[name]}")


def _decode_zarr_json(data: bytes, key: str) -> None:
    document = documents.loads(data, key)
    if v3.node_type(document, key) == "array":
        v3.array_v3_to_v2(document, key)


def _grouped(keys: Iterable[str], arrays: Iterable[str]) -> dict[str, list[str]]:
    """Return the keys below each array."""
    roots = set(arrays)
    grouped: dict[str, list[str]] = {}
    for key in keys:
        for path in k.parents(key):
            if path in roots:
                grouped.setdefault(path, []).append(key)
                break
    return grouped


def _coords(key: str, array: str, encoding: tuple[str, str]) -> tuple[int, ...] | None:
    kind, separator = encoding
    if kind == "v2":
        return k.chunk_coords(key, array, separator)
    if key == k.join(array, "c"):
        return (0,)  # version 3's name for the chunk of an array without axes
    if separator == "/":
        return k.chunk_coords(key, k.join(array, "c"), "/")
    return k.chunk_coords(k.join(array, k.name(key)[2:]), array, ".") if k.name(key).startswith("c.") else None


def _name(coords: tuple[int, ...], grid: tuple[int, ...], encoding: tuple[str, str]) -> str:
    return v3.chunk_name(coords if grid else (), encoding)


def _other_spelling(key: str, array: str, encoding: tuple[str, str], ndim: int) -> bool:
    if encoding[0] != "v2" or ndim < 2:
        return False
    coords = k.chunk_coords(key, array, "/" if encoding[1] == "." else ".")
    return coords is not None and len(coords) == ndim
