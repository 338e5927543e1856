"""Stores that cannot be listed: what a reader reaches there is copied and compared whole, or the verb refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zarrstore import (
    ConsolidatedStore,
    DictStore,
    DirectoryStore,
    LMDBStore,
    UnsupportedOperation,
    ZipStore,
    consolidate_metadata,
    copy_store,
    diff,
    du,
    init_array,
    init_group,
    migrate_2to3,
    open_store,
    pack,
    verify,
    write_manifest,
)
from zarrstore.batch import LazyItems
from zarrstore.errors import MetadataError
from zarrstore.metadata import consolidated, documents
from zarrstore.tools.grid import grid_of
from zarrstore.tools.info import describe_node
from zarrstore.tools.listing import keys_of
from zarrstore.tools.manifest import compare_manifest, manifest_of
from zarrstore.wrappers.base import Wrapper

V2 = Path(__file__).parent.parent / "data" / "v2" / "legacy.zarr"


class Unlistable(Wrapper):
    """A store that answers for single keys only, as a web server does."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.capabilities = replace(self.inner.capabilities, listable=False, concurrent=True)
        self.asked: list[str] = []

    def _keys(self, path: str) -> Iterable[str]:
        raise UnsupportedOperation("be listed", self)

    _listdir = _keys

    def _get(self, key: str) -> bytes:
        self.asked.append(key)
        return super()._get(key)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return LazyItems(self._get, keys)

    def _contains(self, key: str) -> bool:
        self.asked.append(key)
        return super()._contains(key)


def hierarchy(consolidated: bool = True) -> dict[str, bytes]:
    """Return arrays that are full, sparse, empty, without axes, and of the nested spelling."""
    store: dict[str, bytes] = {}
    init_array(store, shape=(4, 6), chunks=(2, 3), path="g/full")
    init_array(store, shape=(4, 6), chunks=(2, 3), path="g/nested", dimension_separator="/")
    init_array(store, shape=100, chunks=1, path="sparse")
    init_array(store, shape=0, chunks=1, path="empty")
    init_array(store, shape=(), path="scalar")
    store["g/.zattrs"] = b"{}"
    for i in range(2):
        for j in range(2):
            store[f"g/full/{i}.{j}"] = f"full {i} {j}".encode()
            store[f"g/nested/{i}/{j}"] = f"nested {i} {j}".encode()
    store["sparse/77"] = b"77"
    store["scalar/0"] = b"0"
    if consolidated:
        consolidate_metadata(store)
    return store


def version_3() -> dict[str, bytes]:
    """Return a hierarchy of version 3 with inline metadata, one array in the key encoding of version 2, one sharded."""

    def array(shape: list[int], encoding: Any, codecs: Any = ()) -> dict[str, Any]:
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": "int8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2] * len(shape)}},
            "chunk_key_encoding": encoding,
            "fill_value": 0,
            "codecs": list(codecs) or [{"name": "bytes"}],
        }

    group = {"zarr_format": 3, "node_type": "group"}
    sharding = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1], "codecs": [{"name": "bytes"}]}}
    nodes: dict[str, Any] = {
        "g": group,
        "g/a": array([4, 3], {"name": "default"}),
        "g/b": array([4], {"name": "v2", "configuration": {"separator": "."}}),
        "g/c": array([4, 4], {"name": "default", "configuration": {"separator": "."}}, [sharding]),
        "g/d": array([], "default"),
    }
    root = {**group, "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": nodes}}
    store = {f"{path}/zarr.json": json.dumps(node).encode() for path, node in nodes.items()}
    store |= {"zarr.json": json.dumps(root).encode(), "g/a/c/0/0": b"1", "g/a/c/1/1": b"2", "g/b/1": b"3"}
    return store | {"g/c/c.1.0": b"4", "g/d/c": b"5"}


@pytest.mark.parametrize("make", [hierarchy, version_3])
def test_a_copy_diff_and_du_of_what_cannot_be_listed_equal_those_of_what_can(
    make: Callable[[], dict[str, bytes]], tmp_path: Path
) -> None:
    store = make()
    dest: dict[str, bytes] = {}
    result = copy_store(Unlistable(store), dest, verify=True)
    assert dest == store
    assert result[:2] == (len(store), 0)
    assert any("cannot be listed" in note for note in result.notes)
    assert sorted(keys_of(Unlistable(store))) == sorted(store)
    assert list(diff(Unlistable(store), store)) == list(diff(store, Unlistable(store))) == []
    assert du(Unlistable(store)) == du(store)
    assert du(Unlistable(store), "g", depth=0) == du(store, "g", depth=0)
    pack(Unlistable(store), tmp_path / "a.zip", verify=True)
    assert dict(ZipStore(tmp_path / "a.zip", mode="r")) == store


def test_progress_ends_at_what_was_there() -> None:
    seen: list[Any] = []
    store = hierarchy()
    copy_store(Unlistable(store), {}, progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (len(store), len(store))


def test_differences_are_found_on_the_side_that_cannot_be_listed() -> None:
    store = hierarchy()
    other = {**store, "g/full/0.0": b"changed", "foreign": b""}
    del other["g/full/1.1"]
    other["sparse/3"] = b"new"
    wanted = ["! g/full/0.0", "> g/full/1.1", "< sparse/3"]
    assert [str(found) for found in diff(Unlistable(other), store)] == wanted
    assert next(str(found) for found in diff(other, Unlistable(store))) == "< foreign"


def test_a_part_is_copied_by_the_consolidated_metadata_above_it() -> None:
    store = hierarchy()
    for path in ("g", "g/full", "g/nested/1", "sparse"):
        dest: dict[str, bytes] = {}
        copy_store(Unlistable(store), dest, source_path=path, dest_path=path)
        assert dest == {key: value for key, value in store.items() if key.startswith(f"{path}/")}


def test_a_single_array_needs_no_consolidated_metadata() -> None:
    store = hierarchy(consolidated=False)
    store["g/full/.zattrs"] = b"{}"
    dest: dict[str, bytes] = {}
    copy_store(Unlistable(store), dest, source_path="g/full", dest_path="g/full")
    assert dest == {key: value for key, value in store.items() if key.startswith("g/full/")}


def test_without_documents_the_verbs_refuse_and_write_nothing(tmp_path: Path) -> None:
    store: dict[str, bytes] = {"a/0": b"1"}
    init_group(store)
    dest: dict[str, bytes] = {}
    for verb in (
        lambda: copy_store(Unlistable(store), dest),
        lambda: list(diff(Unlistable(store), dest)),
        lambda: list(diff(dest, Unlistable(store))),
        lambda: du(Unlistable(store)),
        lambda: pack(Unlistable(store), tmp_path / "a.zip"),
    ):
        with pytest.raises(UnsupportedOperation, match="no consolidated metadata"):
            verb()
    assert dest == {}
    assert list(tmp_path.iterdir()) == []


def test_damaged_consolidated_metadata_is_an_error() -> None:
    for key in (".zmetadata", "zarr.json"):
        with pytest.raises(MetadataError):
            copy_store(Unlistable({**hierarchy(), key: b"{"}), {})


def test_how_many_chunks_are_asked_for_is_said_first_and_more_than_a_million_only_on_demand(tmp_path: Path) -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=2_000_000, chunks=1, path="a")
    consolidate_metadata(store)
    unlistable = Unlistable(store)
    for verb in (
        lambda: copy_store(unlistable, {}),
        lambda: du(unlistable),
        lambda: list(diff(unlistable, {})),
        lambda: pack(unlistable, tmp_path / "a.zip"),
        lambda: pack(unlistable, tmp_path / "a.zip", dry_run=True),
        lambda: verify(unlistable),
        lambda: describe_node(unlistable, "a"),
        lambda: manifest_of(unlistable),
        lambda: write_manifest(unlistable, tmp_path / "sums"),
        lambda: list(compare_manifest(unlistable, {})),
    ):
        with pytest.raises(UnsupportedOperation, match=r"2,000,000 chunks.*max_questions=2000000"):
            verb()
    assert len(unlistable.asked) < 40
    assert list(tmp_path.iterdir()) == []
    lines: list[str] = []
    store = hierarchy()
    copy_store(Unlistable(store), {}, dry_run=True, log=lines.append)
    assert "note: 109 chunks are asked for by name" in lines
    with pytest.raises(UnsupportedOperation, match="109 chunks"):
        copy_store(Unlistable(store), {}, max_questions=108)
    copy_store(Unlistable(store), {}, max_questions=109)
    copy_store(Unlistable(store), {}, max_questions=None)
    for limited in (
        lambda n: pack(Unlistable(store), tmp_path / f"{n}.zip", max_questions=n),
        lambda n: verify(Unlistable(store), decode=False, max_questions=n),
        lambda n: manifest_of(Unlistable(store), max_questions=n),
        lambda n: write_manifest(Unlistable(store), tmp_path / f"{n}.sums", max_questions=n),
        lambda n: list(compare_manifest(Unlistable(store), {}, max_questions=n)),
    ):
        with pytest.raises(UnsupportedOperation, match=r"more than 108 only with max_questions=109"):
            limited(108)
        limited(109)
        limited(None)
    with pytest.raises(UnsupportedOperation, match="max_questions=100"):
        describe_node(Unlistable(store), "sparse", max_questions=99)
    assert describe_node(Unlistable(store), "sparse", max_questions=100)["chunks_initialized"] == 1


def test_a_dry_run_of_packing_plans_and_writes_nothing(tmp_path: Path) -> None:
    store = hierarchy()
    archive = tmp_path / "a.zip"
    assert pack(store, archive, dry_run=True)[:2] == (len(store), 0)
    # Which of the 109 chunks are there is not asked.
    assert pack(Unlistable(store), archive, dry_run=True)[0] == 109 + sum(map(_is_document, store))
    assert list(tmp_path.iterdir()) == []
    pack(store, archive)
    before = archive.read_bytes()
    with pytest.raises(FileExistsError):
        pack(store, archive, dry_run=True)
    pack({"a": b"1"}, archive, dry_run=True, overwrite=True)
    assert archive.read_bytes() == before


@pytest.mark.parametrize("separator", [".", "/"])
def test_an_array_that_does_not_say_how_it_spells_its_chunks_is_asked(separator: str) -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=(40, 2), chunks=(1, 1), path="a")
    document = json.loads(store["a/.zarray"])
    document.pop("dimension_separator", None)
    store["a/.zarray"] = json.dumps(document).encode()
    for position in ("39,1", "0,1"):
        store["a/" + position.replace(",", separator)] = b"1"
        store[".zmetadata"] = consolidated.build(store)
        unlistable = Unlistable(store)
        dest: dict[str, bytes] = {}
        copy_store(unlistable, dest)
        assert dest == store
        # The first position is within the chunks that are tried, the other is not: then both spellings are asked for.
        assert grid_of(Unlistable(store)).n_questions == (160 if position == "39,1" and len(dest) == 4 else 80)


def test_errors_of_the_server_are_errors_and_not_absence() -> None:
    class Forbidden(Unlistable):
        def _get(self, key: str) -> bytes:
            if key == "g/full/1.1":
                raise PermissionError(13, "403 Forbidden", key)
            return super()._get(key)

    result = copy_store(Forbidden(hierarchy()), dest := DictStore(), errors="collect")
    assert set(result.errors) == {"g/full/1.1", "g/full/.zarray", ".zmetadata"}
    assert "g/full/0.0" in dest


def test_if_exists_looks_at_what_is_there_and_not_at_what_may_be() -> None:
    store = hierarchy()
    assert copy_store(Unlistable(store), dest := {"sparse/3": b"mine"})[:1] == (len(store),)
    assert dest["sparse/3"] == b"mine"
    with pytest.raises(FileExistsError):
        copy_store(Unlistable(store), {"sparse/77": b"mine"})
    assert copy_store(Unlistable(store), {"sparse/77": b"mine"}, if_exists="skip")[:2] == (len(store) - 1, 1)


def test_a_document_that_is_repeated_and_not_there_is_not_there_in_the_copy_either() -> None:
    store = hierarchy()
    del store["sparse/.zarray"]
    dest: dict[str, bytes] = {}
    copy_store(Unlistable(store), dest)
    assert dest == store


def test_arrays_whose_chunks_cannot_be_named_are_in_the_notes() -> None:
    store = version_3()
    root = json.loads(store["zarr.json"])
    root["consolidated_metadata"]["metadata"]["g/a"]["chunk_grid"] = {"name": "rectangular"}
    store["zarr.json"] = json.dumps(root).encode()
    result = copy_store(Unlistable(store), {})
    assert any(note.startswith("g/a/zarr.json: its chunks cannot be named") for note in result.notes)


def test_info_counts_chunks_that_are_there_and_nothing_that_a_desktop_left() -> None:
    store = hierarchy()
    facts = describe_node({**store, "g/full/.DS_Store": b"junk"}, "g/full")
    assert (facts["chunks_initialized"], facts["chunks_expected"], facts["nbytes_stored"]) == (4, 4, 32)
    facts = describe_node(version_3(), "g/a")
    assert (facts["chunks_initialized"], facts["chunks_expected"], facts["nbytes_stored"]) == (2, 4, 2)


_UNSEEN = "keys that no document names are not seen"


# From real web servers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["nginx", "http.server"])
def test_from_a_web_server_all_is_as_from_the_directory(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    shutil.copytree(V2, tmp_path / "www" / "legacy.zarr")
    if server == "nginx":
        url = request.getfixturevalue("nginx")(tmp_path / "www").url
    else:
        url = request.getfixturevalue("http_server")(tmp_path / "www")
    target = f"{url.rstrip('/')}/legacy.zarr"
    directory = dict(DirectoryStore(V2))
    with open_store(target, mode="r") as store, ZipStore(tmp_path / "copy.zip", mode="w") as dest:
        assert copy_store(store, dest, verify=True)[:2] == (89, 0)
        assert dict(dest) == directory
        assert list(diff(store, DirectoryStore(V2))) == []
        assert du(store) == du(DirectoryStore(V2))
        assert describe_node(store, "sparse") == describe_node(DirectoryStore(V2), "sparse")
        for decode in (True, False):
            report, local = verify(store, decode=decode), verify(DirectoryStore(V2), decode=decode)
            counts = report.n_arrays, report.n_groups, report.n_chunks, report.n_expected, report.n_decoded
            assert counts == (local.n_arrays, local.n_groups, local.n_chunks, local.n_expected, local.n_decoded)
            assert report.problems == local.problems == ()
            assert set(report.notes) - set(local.notes) == {f"{store} cannot be listed: {_UNSEEN}"}
    (tmp_path / "www/legacy.zarr/ocean/surface/temperature/0.0.0").write_bytes(b"junk")
    with open_store(target, mode="r") as store:
        damaged = verify(DirectoryStore(tmp_path / "www/legacy.zarr")).problems
        assert damaged
        assert verify(store).problems == damaged
        assert [str(found) for found in diff(store, DirectoryStore(V2))] == ["! ocean/surface/temperature/0.0.0"]
    shutil.copy(V2 / "ocean/surface/temperature/0.0.0", tmp_path / "www/legacy.zarr/ocean/surface/temperature")
    with open_store(target, mode="r") as store, LMDBStore(tmp_path / "copy.lmdb") as lmdb:
        assert copy_store(ConsolidatedStore(store), lmdb)[:2] == (89, 0)
        assert {key for key in lmdb if lmdb[key] != directory[key]} <= {key for key in lmdb if _is_document(key)}
    assert pack(target, tmp_path / "packed.zip")[:2] == (89, 0)
    assert dict(ZipStore(tmp_path / "packed.zip", mode="r")) == directory


def _is_document(key: str) -> bool:
    return key.rpartition("/")[2] in documents.DOCUMENTS


def test_an_array_with_documents_of_both_versions_is_asked_for_once() -> None:
    items: dict[str, bytes] = {}
    init_array(items, shape=(4, 6), chunks=(2, 3), path="a")
    document = documents.loads(items["a/.zarray"], "a/.zarray")
    document.pop("dimension_separator", None)  # so that both spellings are possible, of which version 3 names one
    items["a/.zarray"] = documents.dumps(document)
    asked = list(grid_of(Unlistable(items), "a").chunks("a"))
    assert len(asked) == 8
    migrate_2to3(items)
    assert {"a/.zarray", "a/zarr.json"} <= items.keys()
    assert list(grid_of(Unlistable(items), "a").chunks("a")) == asked
