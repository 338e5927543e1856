"""Trees of old releases, whose nested chunks no document announces: every verb keeps every value that was there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import peers
from tests.tools import old
from zarrstore import (
    DictStore,
    DirectoryStore,
    NestedDirectoryStore,
    check_consolidated,
    consolidate_metadata,
    init_array,
    migrate_2to3,
    verify,
)
from zarrstore.base import Capabilities
from zarrstore.errors import ConflictError, MetadataError, UnsupportedOperation
from zarrstore.metadata import documents, v2
from zarrstore.spelling import chunk_keys_of, spellings_of, stored_chunk_keys_of
from zarrstore.tools.nestedtrees import looks_nested
from zarrstore.tools.repair import repair
from zarrstore.tools.respell import respell
from zarrstore.wrappers.v3view import V3View

READ = Path(old.__file__)
NESTED = "2.4.0", "nested.zarr"


def wrong(peer: str, *targets: tuple[str, str, Path]) -> list[str]:
    return peers.run(peer, READ, json.dumps([[release, kind, str(path)] for release, kind, path in targets]))


def two_by_two(*chunks: str, separator: str | None = None) -> dict[str, bytes]:
    """Return an array of four chunks, some of which are there."""
    store: dict[str, bytes] = {}
    init_array(store, (4, 4), (2, 2), "u1", None, 0, path="a", dimension_separator=separator)
    store.update({f"a/{chunk}": bytes([n + 1] * 4) for n, chunk in enumerate(chunks)})
    return store


# Recognition ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("release", "name"), [(r, n) for r, n in old.STORES if n != "a.zip"])
def test_a_nested_tree_that_does_not_say_so_is_recognised_and_no_other_is(release: str, name: str) -> None:
    assert looks_nested(DirectoryStore(old.DATA / release / name)) is ((release, name) == NESTED)


def test_recognition_looks_at_a_bounded_number_of_directories() -> None:
    store = DictStore({f"g{n}/h/.zgroup": b"{}" for n in range(1000)})
    looked: list[str] = []
    listdir = store._listdir
    store._listdir = lambda path: (looked.append(path), listdir(path))[1]  # type: ignore[method-assign,assignment]
    assert not looks_nested(store)
    assert len(looked) <= 64


def test_arrays_without_chunks_and_groups_with_numbers_for_names_do_not_decide() -> None:
    store = two_by_two()
    init_array(store, (4, 4), (2, 2), "u1", path="0/1/2")
    assert not looks_nested(store)
    store["0/1/2/1/0"] = b"...."
    assert looks_nested(store)


def test_the_rule_of_an_array_comes_from_its_document_then_from_its_keys_then_from_its_store() -> None:
    def rule(store: dict[str, bytes], default: str | None = None) -> str:
        mapping = DictStore(store, dimension_separator=default)
        return chunk_keys_of(mapping, "a", v2.decode_array(store["a/.zarray"])).separator

    assert rule(two_by_two("0/1", separator=".")) == "."
    assert rule(two_by_two("0.1", separator="/")) == "/"
    assert rule(two_by_two("0/1")) == "/"
    assert rule(two_by_two("0.1"), "/") == "."
    assert rule(two_by_two(), "/") == "/"
    assert rule(two_by_two("0.1", "1/1")) == "."
    assert rule(two_by_two("7/7")) == "."  # outside the grid, so no chunk


def test_of_many_chunks_only_the_first_are_looked_at() -> None:
    class Counted(DictStore):
        taken = 0

        def _keys(self, path: str) -> Any:
            for key in super()._keys(path):
                self.taken += 1
                yield key

    store = Counted({f"a/0.{n}": b"." for n in range(1000)})
    meta = v2.build_array((1000, 1000), (1, 1), "u1")
    assert spellings_of(store, "a", meta).separators == {"."}
    assert store.taken <= 300


# Every verb ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("release", "name"), old.STORES)
def test_verify_finds_nothing_wrong_with_what_old_releases_wrote(release: str, name: str) -> None:
    with old.opened(old.DATA / release / name) as store:
        report = verify(store)
        assert report.problems == ()
        assert report.fully_checked
        assert (report.n_arrays, report.n_groups, report.n_decoded) == (6, 2, report.n_chunks)
        assert report.n_chunks > 15


def test_a_store_over_a_nested_tree_is_migrated_as_what_it_is(tmp_path: Path) -> None:
    targets = []
    for kind in (DirectoryStore, NestedDirectoryStore):
        for name in ("kept", "removed", "removed by a second run"):
            folder = tmp_path / kind.__name__ / name
            folder.mkdir(parents=True)
            source = old.copied(*NESTED, folder)
            report = migrate_2to3(kind(source), remove_v2=name == "removed")
            assert any("'/' was taken" in note for node in report for note in node.notes)
            if name == "removed by a second run":
                migrate_2to3(kind(source), remove_v2=True)
            assert ("grid/.zarray" in kind(source)) is (name == "kept")
            targets.append((NESTED[0], "dir", source))
    assert wrong("self", *targets) == []


def test_a_view_of_version_3_shows_the_values_of_a_nested_tree() -> None:
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    from zarrstore.bridges.zarr3 import MappingStore

    expected = np.load(old.DATA / "2.4.0" / "expected.npz")
    for store in (DirectoryStore(old.DATA / "2.4.0/nested.zarr"), NestedDirectoryStore(old.DATA / "2.4.0/nested.zarr")):
        group = zarr.open_group(MappingStore(V3View(store), read_only=True), mode="r", zarr_format=3)
        assert np.array_equal(group["grid"][...], expected["grid"])
        assert np.array_equal(group["deep/cube"][...], expected["deep__cube"])


@pytest.mark.parametrize("kind", [dict, DictStore])
def test_verify_says_of_a_plain_store_what_zarr_would_not_find(kind: Any) -> None:
    report = verify(kind(two_by_two("0/1", "1/0")))
    assert [(problem.key, problem.kind) for problem in report.problems] == [("a/.zarray", "separator")]
    assert report.n_chunks == report.n_decoded == 2


def test_an_array_with_chunks_in_both_spellings_is_not_migrated() -> None:
    store = two_by_two("0.1", "1/1")
    before = dict(store)
    with pytest.raises(MetadataError, match="named in both ways"):
        migrate_2to3(store)
    with pytest.raises(MetadataError, match="named in both ways"):
        migrate_2to3(store, {})
    assert store == before


def test_consolidated_metadata_is_not_written_where_its_readers_would_not_find_the_chunks(tmp_path: Path) -> None:
    source = old.copied(*NESTED, tmp_path)
    for store in (DirectoryStore(source), NestedDirectoryStore(source)):
        with pytest.raises(MetadataError, match="repair"):
            consolidate_metadata(store)
        assert ".zmetadata" not in store
    repair(DirectoryStore(source))
    consolidate_metadata(DirectoryStore(source))
    assert wrong("zarr2", (NESTED[0], "dir", source)) == []


# Repair --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DirectoryStore, NestedDirectoryStore])
def test_repair_makes_an_old_tree_readable_by_any_zarr_and_says_so_first(kind: Any, tmp_path: Path) -> None:
    source = old.copied(*NESTED, tmp_path)
    before = dict(DirectoryStore(source))
    planned = repair(kind(source), dry_run=True)
    assert dict(DirectoryStore(source)) == before
    done = repair(kind(source))
    assert [one.key for one in planned] == [one.key for one in done]
    assert {"deep/cube/.zarray", "deep/f/.zarray", "grid/.zarray"} <= {one.key for one in done}
    assert wrong("zarr2", (NESTED[0], "dir", source)) == []
    assert wrong("z34", (NESTED[0], "dir", source)) == []
    assert verify(DirectoryStore(source))
    assert not repair(kind(source))
    after = dict(DirectoryStore(source))
    assert {key: value for key, value in after.items() if not key.endswith(".zarray")} == {
        key: value for key, value in before.items() if not key.endswith(".zarray")
    }


def test_repair_mends_an_array_that_a_migration_of_an_older_release_hid() -> None:
    store = two_by_two("0/1", "1/0")
    migrate_2to3(store)
    document = json.loads(store["a/zarr.json"])
    document["chunk_key_encoding"]["configuration"]["separator"] = "."
    store["a/zarr.json"] = documents.dumps(document)
    assert {problem.kind for problem in verify(store).problems} == {"separator", "disagreement"}
    assert [one.key for one in repair(store)] == ["a/.zarray", "a/zarr.json"]
    assert verify(store)
    only_3 = {key: value for key, value in store.items() if not key.startswith((".z", "a/.z"))}
    only_3["a/zarr.json"] = documents.dumps(document)
    assert [one.key for one in repair(only_3)] == ["a/zarr.json"]
    assert verify(only_3)


def test_repair_mends_a_document_that_names_the_other_separator() -> None:
    for stated, chunk in ((".", "0/1"), ("/", "0.1")):
        store = two_by_two(chunk, separator=stated)
        assert [one.key for one in repair(store)] == ["a/.zarray"]
        assert verify(store)


def test_repair_renews_what_repeats_the_documents() -> None:
    store = two_by_two("0/1")
    store[".zmetadata"] = documents.dumps(
        {"zarr_consolidated_format": 1, "metadata": {"a/.zarray": json.loads(store["a/.zarray"])}}
    )
    assert [one.key for one in repair(store)] == ["a/.zarray", ".zmetadata"]
    assert not check_consolidated(store)
    assert verify(store)


def test_repair_notes_what_it_cannot_decide_and_leaves_it() -> None:
    store = two_by_two("0.1", "1/1")
    before = dict(store)
    report = repair(store)
    assert not report
    assert "respell" in report.notes[0]
    assert store == before


def test_nothing_is_repaired_where_nothing_is_wrong(tmp_path: Path) -> None:
    for release, name in old.STORES:
        if (release, name) != NESTED:
            assert not repair(old.opened(old.DATA / release / name), dry_run=True)


# Respelling ----------------------------------------------------------------------------------------------------------


def test_chunks_change_their_spelling_and_change_it_back(tmp_path: Path) -> None:
    source = old.copied(*NESTED, tmp_path)
    store = DirectoryStore(source)
    report = respell(store, ".")
    assert {entry.path: entry.n_chunks for entry in report} == {"deep/cube": 4, "deep/f": 4, "grid": 12, "never": 0}
    assert wrong("zarr2", (NESTED[0], "dir", source)) == []
    assert "grid/0.1" in store
    assert "grid/0/1" not in store
    assert verify(store)
    respell(store, "/")
    assert wrong("zarr2", (NESTED[0], "dir", source)) == []
    assert "grid/0/1" in store
    assert not respell(store, "/")


def test_a_dry_run_of_respelling_writes_nothing() -> None:
    store = two_by_two("0.1")
    before = dict(store)
    assert respell(store, "/", dry_run=True).arrays[0].n_chunks == 1
    assert store == before


def test_consolidated_metadata_and_version_3_follow_the_spelling() -> None:
    store = two_by_two("0.1", "1.1")
    consolidate_metadata(store)
    migrate_2to3(store)
    respell(store, "/")
    assert verify(store)
    assert not check_consolidated(store)
    assert sorted(key for key in store if key[2:3].isdigit()) == ["a/0/1", "a/1/1"]


def test_mixed_spellings_are_merged_only_when_asked_for() -> None:
    store = two_by_two("0.1", "1/1")
    before = dict(store)
    with pytest.raises(MetadataError, match="merge=True"):
        respell(store, "/")
    assert store == before
    respell(store, "/", merge=True)
    assert sorted(key for key in store if key[2:3].isdigit()) == ["a/0/1", "a/1/1"]
    clash = two_by_two("0.1", "0/1")
    before = dict(clash)
    with pytest.raises(ConflictError):
        respell(clash, "/", merge=True)
    assert clash == before


def test_respelling_that_was_interrupted_anywhere_goes_on() -> None:
    from zarrstore.testing import FailingStore

    chunks = ("0.0", "0.1", "1.0", "1.1")
    wanted = two_by_two(*chunks)
    respell(wanted, "/")
    writes = ["_set", "_set_many", "_delete", "_delete_many"]
    for point in range(20):
        inner = DictStore(two_by_two(*chunks))
        failing = FailingStore(inner, OSError(28, "full"), methods=writes, after=point, times=1)
        try:
            respell(failing, "/")
        except OSError:
            meta = v2.decode_array(inner["a/.zarray"])
            rule = chunk_keys_of(inner, "a", meta)
            assert all(rule.key("a", (i, j)) in inner for i in (0, 1) for j in (0, 1)), point
            respell(inner, "/")
        assert dict(inner) == wanted, point
        if not failing.failures:
            break
    assert point >= 3


def test_a_store_that_nests_by_itself_gets_no_flat_names(tmp_path: Path) -> None:
    source = old.copied(*NESTED, tmp_path)
    with pytest.raises(UnsupportedOperation, match="DirectoryStore"):
        respell(NestedDirectoryStore(source), ".")
    assert respell(NestedDirectoryStore(source), "/")
    assert wrong("zarr2", (NESTED[0], "dir", source)) == []


def test_what_a_nested_store_shows_as_flat_is_stored_nested(tmp_path: Path) -> None:
    store = NestedDirectoryStore(tmp_path / "n")
    store.update(two_by_two("0.1"))
    meta = v2.decode_array(store["a/.zarray"])
    assert chunk_keys_of(store, "a", meta).separator == "."
    assert stored_chunk_keys_of(store, "a", meta).separator == "/"
    # The same class over files that are flat, which it reads too: zarr 3 will look for them as they are.
    DirectoryStore(tmp_path / "g").update(two_by_two("0.1"))
    over_flat = NestedDirectoryStore(tmp_path / "g")
    assert stored_chunk_keys_of(over_flat, "a", meta).separator == "."
    migrate_2to3(over_flat)
    rule = json.loads(DirectoryStore(tmp_path / "g")["a/zarr.json"])["chunk_key_encoding"]
    assert rule["configuration"]["separator"] == "."
    assert {entry.key for entry in store._details("")} == set(store)
    assert {entry.key for entry in over_flat._details("")} == set(over_flat)
    flat = DirectoryStore(tmp_path / "f", dimension_separator="/")
    flat.update(two_by_two("0.1"))
    assert stored_chunk_keys_of(flat, "a", meta).separator == "."


# What a repair looks at ----------------------------------------------------------------------------------------------


def version_3(separator: str, *chunks: str) -> dict[str, bytes]:
    """Return an array of version 3 alone, whose chunks are named as in version 2."""
    store = two_by_two(*chunks, separator=separator)
    migrate_2to3(store, remove_v2=True)
    return store


def test_an_array_of_version_3_changes_its_spelling_and_one_of_version_1_is_a_note() -> None:
    store = version_3(".", "0.1", "1.1")
    assert [entry.path for entry in respell(store, "/")] == ["a"]
    assert sorted(key for key in store if key[2:3].isdigit()) == ["a/0/1", "a/1/1"]
    encoding = json.loads(store["a/zarr.json"])["chunk_key_encoding"]
    assert encoding == {"name": "v2", "configuration": {"separator": "/"}}
    assert verify(store)
    version_1 = {
        "a/meta": b'{"zarr_format": 1, "shape": [4, 4], "chunks": [2, 2], "dtype": "|u1", "order": "C",'
        b' "compression": "zlib", "compression_opts": 1, "fill_value": 0}',
        "a/attrs": b"{}",
    }
    report = respell(version_1, "/")
    assert (report.arrays, report.notes) == ((), ("a/meta: version 1 has one spelling; migrate it first",))


def test_attributes_that_an_interrupted_removal_left_are_deleted_from_the_consolidated_metadata_too() -> None:
    store = {".zgroup": b'{"zarr_format": 2}', **version_3(".", "0.1")}
    del store["zarr.json"]
    store["a/.zattrs"] = b"{}"
    store[".zmetadata"] = documents.dumps(
        {"zarr_consolidated_format": 1, "metadata": {".zgroup": {"zarr_format": 2}, "a/.zattrs": {}}}
    )
    assert {one.key for one in repair(store)} == {"a/.zattrs", ".zmetadata"}
    assert json.loads(store[".zmetadata"])["metadata"] == {".zgroup": {"zarr_format": 2}}


def test_attributes_that_version_3_does_not_have_are_kept_and_noted() -> None:
    store = version_3(".", "0.1")
    store["a/.zattrs"] = b'{"units": "K"}'
    before = dict(store)
    report = repair(store)
    assert store == before
    assert any(note.startswith("a/.zattrs: ") and "other attributes" in note for note in report.notes)


def test_a_repair_that_needs_to_delete_is_refused_before_the_first_write_where_nothing_can_be_deleted() -> None:
    class Append(DictStore):
        capabilities = Capabilities(erasable=False)

        def _delete(self, key: str) -> None:
            raise UnsupportedOperation("delete", self, "")

        _delete_many = _delete  # type: ignore[assignment]

    items = {**two_by_two("0/1"), "g/zarr.json": documents.dumps({"zarr_format": 3, "node_type": "group"})}
    items["g/.zattrs"] = b"{}"
    store = Append(items)
    with pytest.raises(UnsupportedOperation, match="copy it to another store"):
        repair(store)
    assert dict(store) == items


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 2)])
def test_consolidation_refuses_nested_chunks_that_no_document_announces(shape: tuple[int, ...]) -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=shape, chunks=1, path="a", dimension_separator="/")
    document = json.loads(store["a/.zarray"])
    del document["dimension_separator"]
    store |= {"a/.zarray": json.dumps(document).encode(), "a/" + "/".join("0" * len(shape)): b""}
    with pytest.raises(MetadataError, match="repair"):
        consolidate_metadata(store)
    assert ".zmetadata" not in store
