"""All that can be wrong with a hierarchy is planted, and found with key and reason; in clean ones nothing is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

from tests.bridges import legacy
from tests.support.ahead import AheadStore
from zarrstore import (
    DictStore,
    DirectoryStore,
    consolidate_metadata,
    init_array,
    init_group,
    migrate_2to3,
    verify,
    write_manifest,
)
from zarrstore.errors import ClusterError
from zarrstore.metadata import chunking, v2
from zarrstore.metadata.chunk import encode_chunk
from zarrstore.testing import CountingStore, FailingStore
from zarrstore.tools.findings import KINDS
from zarrstore.tools.manifest import manifest_of


def write(store: Any, path: str, **parameters: Any) -> None:
    """Write an array with all its chunks."""
    init_array(store, path=path, **parameters)
    meta = v2.decode_array(bytes(store[f"{path}/.zarray"]))
    rng = np.random.default_rng(0)
    for name in chunking.chunk_names(meta.shape, meta.chunks, meta.separator):
        items = rng.integers(0, 50, meta.chunks).astype(meta.numpy_dtype)
        store[f"{path}/{name}"] = encode_chunk(items, meta)


def clean() -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    write(store, "a", shape=(6, 6), chunks=(3, 3), dtype="<i4", compressor=numcodecs.Zlib(1), fill_value=0)
    write(store, "g/flat", shape=10, chunks=4, dtype="u1", compressor=None)
    write(store, "g/nested", shape=(4, 4), chunks=(2, 2), dtype="<f8", dimension_separator="/", fill_value=0)
    store["a/.zattrs"] = b'{"units": "m"}'
    consolidate_metadata(store)
    return store


def unconsolidated(store: dict[str, bytes]) -> None:
    del store[".zmetadata"]


def plant(**changes: bytes | None) -> Callable[[dict[str, bytes]], None]:
    def change(store: dict[str, bytes]) -> None:
        for key, value in changes.items():
            if value is None:
                del store[key]
            else:
                store[key] = value

    return change


def both(*changes: Callable[[dict[str, bytes]], None]) -> Callable[[dict[str, bytes]], None]:
    def change(store: dict[str, bytes]) -> None:
        for one in changes:
            one(store)

    return change


ARRAY = json.dumps(
    {
        "zarr_format": 2,
        "shape": [2],
        "chunks": [2],
        "dtype": "|u1",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
).encode()
GROUP = b'{"zarr_format": 2}'

#: What is planted, and all that must be reported: (key, kind).
DAMAGE: dict[str, tuple[Callable[[dict[str, bytes]], None], set[tuple[str, str]]]] = {
    "a chunk that is empty": (plant(**{"a/0.0": b""}), {("a/0.0", "undecodable")}),
    "a chunk cut short": (lambda s: s.update({"a/0.1": s["a/0.1"][:-4]}), {("a/0.1", "undecodable")}),
    "a chunk of the wrong size": (plant(**{"g/flat/0": b"12345"}), {("g/flat/0", "undecodable")}),
    "a chunk of other bytes": (plant(**{"g/nested/0/1": b"junk" * 30}), {("g/nested/0/1", "undecodable")}),
    "a chunk outside the grid": (plant(**{"a/2.0": b"x"}), {("a/2.0", "outside")}),
    "a chunk with a leading zero": (plant(**{"a/00.0": b"x"}), {("a/00.0", "outside")}),
    "the other separator": (lambda s: s.update({"a/0/1": s.pop("a/0.1")}), {("a/0/1", "separator")}),
    "a missing chunk without a fill value": (plant(**{"g/flat/1": None}), {("g/flat/1", "missing")}),
    "junk in an array": (plant(**{"a/.DS_Store": b""}), {("a/.DS_Store", "foreign")}),
    "junk in a group": (plant(**{"g/notes.txt": b"", "x": b""}), {("g/notes.txt", "foreign"), ("x", "foreign")}),
    "a damaged array document": (both(unconsolidated, plant(**{"a/.zarray": b"{"})), {("a/.zarray", "document")}),
    "an array document of another rank": (
        both(unconsolidated, plant(**{"a/.zarray": ARRAY.replace(b'"chunks": [2]', b'"chunks": [2, 2]')})),
        {("a/.zarray", "document")},
    ),
    "damaged attributes": (both(unconsolidated, plant(**{"a/.zattrs": b"[]"})), {("a/.zattrs", "document")}),
    "a group of another version": (
        both(unconsolidated, plant(**{"g/.zgroup": b'{"zarr_format": 7}'})),
        {("g/.zgroup", "document")},
    ),
    "an array and a group at one path": (
        both(unconsolidated, plant(**{"a/.zgroup": GROUP})),
        {("a/.zgroup", "contradiction")},
    ),
    "an array below an array": (
        both(unconsolidated, plant(**{"a/below/.zarray": ARRAY})),
        {("a/below/.zarray", "contradiction")},
    ),
    "attributes of nothing": (
        both(unconsolidated, plant(**{"lost/.zattrs": b"{}"})),
        {("lost/.zattrs", "orphan")},
    ),
    "a group missing between": (
        both(unconsolidated, plant(**{"p/q/.zarray": ARRAY})),
        {("p/q/.zarray", "orphan")},
    ),
    "consolidated metadata that lacks a document": (
        plant(**{"new/.zgroup": GROUP}),
        {(".zmetadata", "stale")},
    ),
    "consolidated metadata that has one too many": (
        lambda s: [s.pop(key) for key in list(s) if key.startswith("a/")] and None,
        {(".zmetadata", "stale")},
    ),
    "consolidated metadata that says something else": (
        plant(**{"a/.zattrs": b'{"units": "km"}'}),
        {(".zmetadata", "stale")},
    ),
    "damaged consolidated metadata": (plant(**{".zmetadata": b'{"metadata": 3}'}), {(".zmetadata", "document")}),
    "consolidated metadata that leads out": (
        plant(**{".zmetadata": b'{"zarr_consolidated_format": 1, "metadata": {"../../x/.zarray": {}}}'}),
        {(".zmetadata", "document")},
    ),
    "documents of version 1 left": (
        plant(**{"a/meta": b"{}", "a/attrs": b"{}"}),
        {("a/meta", "leftover"), ("a/attrs", "leftover")},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_found_with_its_key_and_nothing_else_is(damage: str) -> None:
    change, wanted = DAMAGE[damage]
    store = clean()
    assert verify(store)
    change(store)
    report = verify(store)
    assert {(problem.key, problem.kind) for problem in report.problems} == wanted
    assert all(problem.reason and problem.kind in KINDS for problem in report.problems)
    assert not report
    assert json.loads(json.dumps(report.as_dict()))["ok"] is False


def test_all_damages_at_once_are_all_found() -> None:
    store = clean()
    for key in ("a/0.0", "a/1.1", "g/flat/0", "g/nested/0/0"):
        store[key] = b"?"
    store["g/flat/9"] = b"x"
    found = {problem.key for problem in verify(store).problems}
    assert found == {"a/0.0", "a/1.1", "g/flat/0", "g/nested/0/0", "g/flat/9"}


def test_a_value_that_cannot_be_read_is_a_problem_and_no_absence() -> None:
    from zarrstore.batch import LazyItems

    store = FailingStore(clean(), OSError(5, "Input/output error"), methods=["_get"], keys=["a/0.0", "g/.zgroup"])
    store._get_many = lambda keys: LazyItems(store._get, keys)  # type: ignore[method-assign]
    del store.inner[".zmetadata"]
    assert [(p.key, p.kind) for p in verify(store).problems] == [("a/0.0", "unread"), ("g/.zgroup", "unread")]
    store.only_keys = frozenset({"a/0.0"})
    (problem,) = verify(store).problems
    assert (problem.key, problem.kind) == ("a/0.0", "unread")
    assert "Input/output error" in problem.reason


def test_a_manifest_finds_what_is_changed_missing_and_new(tmp_path: Path) -> None:
    store = clean()
    write_manifest(store, tmp_path / "sums")
    assert verify(store, manifest=tmp_path / "sums")
    unconsolidated(store)
    store["g/flat/0"] = b"4444"
    store["a/.zattrs"] = b"{}"
    store["h/.zgroup"] = GROUP
    report = verify(store, manifest=tmp_path / "sums")
    assert {(problem.key, problem.kind) for problem in report.problems} == {
        (key, "manifest") for key in (".zmetadata", "g/flat/0", "a/.zattrs", "h/.zgroup")
    }
    part = verify(store, "g", manifest=manifest_of(store, "g"))
    assert part


def test_fifty_clean_hierarchies_are_clean() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        store: dict[str, bytes] = {}
        init_group(store)
        for n in range(rng.randint(1, 4)):
            rank = rng.randint(0, 3)
            shape = tuple(rng.randint(0 if rank > 1 else 1, 7) for _ in range(rank))
            write(
                store,
                rng.choice(["", "g/", "g/h/"]) + f"array{n}",
                shape=shape,
                chunks=tuple(rng.randint(1, 5) for _ in range(rank)) or True,
                dtype=rng.choice(["i1", "<u2", ">i4", "<f8", "b1", "<c8", "S3", "M8[s]"]),
                compressor=rng.choice([None, "default", numcodecs.Zlib(1), numcodecs.Zstd(1), numcodecs.BZ2(1)]),
                fill_value=rng.choice([None, 0]) if rank else 0,
                order=rng.choice("CF"),
                filters=rng.choice([None, [numcodecs.Shuffle(1), numcodecs.CRC32()]]),
                dimension_separator=rng.choice([None, ".", "/"]),
            )
        for key in list(store):
            if not key.rsplit("/", 1)[-1].startswith(".") and rng.random() < 0.2:
                path = key.rsplit("array", 1)[0] + "array" + key.rsplit("array", 1)[1][0]
                if json.loads(store[f"{path}/.zarray"])["fill_value"] is not None:
                    del store[key]
        if rng.random() < 0.5:
            consolidate_metadata(store)
        report = verify(store)
        assert report.problems == (), (seed, report.problems)
        assert report.n_decoded == report.n_chunks


@pytest.mark.parametrize("name", legacy.LEGACY)
def test_genuine_hierarchies_are_clean(name: str, tmp_path: Path) -> None:
    with legacy.LEGACY[name](tmp_path) as store:
        report = verify(store)
        assert report.problems == ()
        assert (report.n_arrays, report.n_groups, report.n_chunks, report.n_decoded) == (18, 5, 61, 61)


def test_a_hierarchy_of_version_3_is_looked_at_too(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="needs zarr 3: pip install zarrstore[zarr3]")
    if not zarr.__version__.startswith("3"):
        pytest.skip("needs zarr 3: pip install zarrstore[zarr3]")
    group = zarr.open_group(str(tmp_path / "h"), mode="w", zarr_format=3)
    array = group.create_array("a/b", shape=(5, 5), chunks=(2, 2), dtype="i4")
    array[...] = 7
    store = DirectoryStore(tmp_path / "h")
    report = verify(store)
    assert report.problems == ()
    assert report.n_decoded == 9
    store["a/b/c/0/0"] = b"junk"
    store["a/b/c/9/9"] = b"junk"
    assert {(p.key, p.kind) for p in verify(store).problems} == {("a/b/c/0/0", "undecodable"), ("a/b/c/9/9", "outside")}


def test_a_document_that_claims_ten_to_the_18_chunks_costs_nothing() -> None:
    store = {".zarray": ARRAY.replace(b"[2]", b"[1000000000000000000]", 1).replace(b"[2]", b"[1]"), "0": b"1"}
    assert verify(store)
    report = verify(store, missing="all")
    assert len(report.problems) == 101
    assert "999,999,999,999,999,899 more" in report.problems[0].reason + report.problems[-1].reason


def test_a_chunk_that_would_need_too_much_memory_is_a_problem_instead() -> None:
    store = clean()
    report = verify(store, max_chunk_nbytes=30)
    assert {problem.kind for problem in report.problems} == {"undecodable"}
    assert any("allowed" in problem.reason for problem in report.problems)


def test_missing_chunks_are_looked_for_as_told() -> None:
    store = clean()
    del store["a/0.0"], store["g/flat/0"]
    assert {problem.key for problem in verify(store, missing="unfilled").problems} == {"g/flat/0"}
    assert {problem.key for problem in verify(store, missing="all").problems} == {"a/0.0", "g/flat/0"}
    assert verify(store, missing="none")
    with pytest.raises(ValueError, match="missing is"):
        verify(store, missing="some")


def test_without_decoding_no_chunk_is_read() -> None:
    store = clean()
    store["a/0.0"] = b"?"
    report = verify(store, decode=False)
    assert report
    assert report.n_decoded == 0


def test_any_executor_finds_the_same(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "d")
    store.update(clean())
    for n in range(3):
        write(store, f"many{n}", shape=500, chunks=1, dtype="u1")
    store["many1/77"] = b"too long"
    wanted = verify(store)
    assert [problem.key for problem in wanted.problems if problem.kind == "undecodable"] == ["many1/77"]
    seen: list[Any] = []
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        assert verify(store, executor=threads, progress=seen.append) == wanted
        assert verify(store, executor=processes) == wanted
        assert verify(DictStore(dict(store.items())), executor=processes) == wanted
    assert seen[-1].done == seen[-1].total == wanted.n_decoded


def test_nothing_there_is_a_keyerror() -> None:
    with pytest.raises(KeyError):
        verify({})
    with pytest.raises(KeyError):
        verify(clean(), "absent")


def test_a_key_below_two_arrays_is_a_chunk_of_one() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=2, chunks=1, dtype="|u1", compressor=None, fill_value=0, path="a")
    store["a/b/.zarray"] = store["a/.zarray"]
    store |= {"a/0": b"1", "a/b/0": b"22"}
    problems = [str(problem) for problem in verify(store).problems]
    assert len(problems) == len(set(problems))
    assert sum("a/b/0" in problem for problem in problems) == 1


@pytest.mark.parametrize("key", ["zarr.json", "a/zarr.json"])
def test_a_document_of_version_3_that_cannot_be_read_is_a_problem(key: str) -> None:
    inner: dict[str, bytes] = {}
    init_array(inner, shape=2, chunks=1, dtype="|u1", compressor=None, fill_value=0, path="a")
    inner["a/0"] = b"1"
    migrate_2to3(inner, remove_v2=True)
    store = FailingStore(inner, OSError(5, "Input/output error"), methods=["_get", "_get_many"], keys=[key])
    assert (key, "unread") in {(problem.key, problem.kind) for problem in verify(store).problems}


def test_values_under_way_keep_within_the_budget_of_all_threads_together() -> None:
    size, count, memory = 10_000, 120, 100_000
    store = AheadStore()
    init_array(store, shape=size * count, chunks=size, dtype="u1", compressor=None, path="a")
    store.update({f"a/{n}": bytes(size) for n in range(count)})
    with ThreadPoolExecutor(4) as pool:
        report = verify(store, executor=pool, memory=memory)
    assert report
    assert report.n_decoded == count
    # What is fetched, and one value more in each thread that it has not let go of.
    assert store.most * size <= memory + size


def test_the_spelling_of_chunks_is_seen_beside_any_number_of_them() -> None:
    store: dict[str, Any] = {}
    init_array(store, shape=(60, 60), chunks=(2, 2), dtype="u1", compressor=None, path="a", fill_value=None)
    document = json.loads(store["a/.zarray"])
    document.pop("dimension_separator", None)
    store["a/.zarray"] = json.dumps(document).encode()
    store.update({f"a/{i}/{j}": bytes(4) for i in range(30) for j in range(30) if (i, j) != (7, 7)})
    report = verify(store)
    assert [(problem.key, problem.kind) for problem in report.problems] == [
        ("a/.zarray", "separator"),
        ("a/7.7", "missing"),
    ]
    assert (report.n_chunks, report.n_decoded) == (899, 899)


def test_where_values_cannot_be_read_together_each_is_read_alone() -> None:
    items: dict[str, bytes] = {}
    init_array(items, shape=4, chunks=1, dtype="|u1", compressor=None, fill_value=0, path="a")
    items |= {f"a/{n}": b"1" for n in range(4)}

    class Alone(DictStore):
        def _get_many(self, keys: Any) -> Any:
            if any(key[-1].isdigit() for key in keys):
                raise OSError(5, "Input/output error")
            return super()._get_many(keys)

    report = verify(Alone(items))
    assert (report.problems, report.n_decoded) == ((), 4)
    assert [problem.key for problem in verify(Alone({**items, "a/2": b"22"})).problems] == ["a/2"]


def test_the_values_of_a_batch_are_read_together() -> None:
    store = CountingStore({})
    init_array(store, shape=4, chunks=1, dtype="|u1", compressor=None, fill_value=0, path="a")
    store.update({f"a/{n}": b"1" for n in range(4)})
    store.reset()
    assert verify(store).n_decoded == 4
    assert [key for method, key, *_ in store.log if method == "_get" and str(key)[-1].isdigit()] == []


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_listing_is_asked_for_sizes_where_that_costs_no_question_each(concurrent: bool) -> None:
    asked: list[str] = []

    class Recorded(DictStore):
        capabilities = replace(DictStore.capabilities, concurrent=concurrent)

        def _details(self, path: str) -> Any:
            asked.append(path)
            return super()._details(path)

    store = Recorded({})
    init_array(store, shape=4, chunks=1, dtype="|u1", compressor=None, fill_value=0, path="a")
    assert verify(store)
    assert bool(asked) is concurrent


def test_an_executor_without_workers_is_refused(tmp_path: Path) -> None:
    class Empty(Executor):
        _max_workers = 0

        def submit(self, *args: Any, **options: Any) -> Any:
            raise AssertionError("nobody would do it")

    store = DirectoryStore(tmp_path / "d")
    store["a"] = b""
    with pytest.raises(ClusterError, match="no worker"):
        verify(store, executor=Empty())
