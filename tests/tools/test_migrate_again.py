"""A migration that is run again, into a place that is not empty, at a part, or stopped anywhere; copies into views."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zarrstore import (
    DictStore,
    check_consolidated,
    consolidate_metadata,
    copy_store,
    init_array,
    init_group,
    migrate_1to3,
    migrate_2to3,
    migrate_3to2,
    migrate_to_shards,
    verify,
)
from zarrstore.errors import DestinationExistsError, MetadataError
from zarrstore.metadata import documents, v2, v3
from zarrstore.testing import FailingStore
from zarrstore.tools.repair import repair
from zarrstore.wrappers.base import Wrapper
from zarrstore.wrappers.v2view import V2View
from zarrstore.wrappers.v3view import V3View


def small(odd: bool = False) -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    init_group(store)
    init_array(store, (4, 4), (2, 2), "<i4", None, 0, path="g/a", dimension_separator=".")
    init_array(store, 4, 2, "<i4", None, 0, path="g/h/b")
    store.update(
        {"g/a/0.1": bytes(16), "g/a/.zattrs": b'{"units": "m"}', "g/.zattrs": b'{"t": 1}', "g/h/b/0": b"12345678"}
    )
    if odd:
        init_array(store, 4, 2, object, object_codec={"id": "msgpack2"}, fill_value=None, path="g/h/odd")
    consolidate_metadata(store)
    return store


def of_version_2(store: Any) -> list[str]:
    return sorted(key for key in store if key.rsplit("/", 1)[-1] in (".zarray", ".zgroup", ".zattrs", ".zmetadata"))


# Again ---------------------------------------------------------------------------------------------------------------


def test_an_array_that_is_added_afterwards_is_taken_in_by_a_second_migration() -> None:
    store = small()
    migrate_2to3(store)
    init_array(store, 4, 2, "u1", path="new/c")
    consolidate_metadata(store)
    report = migrate_2to3(store)
    assert report.counts() == {"migrated": 3, "kept": 4}
    assert sorted(json.loads(store["zarr.json"])["consolidated_metadata"]["metadata"]) == [
        "g",
        "g/a",
        "g/h",
        "g/h/b",
        "new",
        "new/c",
    ]
    assert verify(store)
    assert migrate_2to3(store).counts() == {"kept": 7}


def test_inline_consolidated_metadata_that_zarr_3_wrote_follows_a_new_array() -> None:
    store = small()
    del store[".zmetadata"]
    migrate_2to3(store)
    consolidate_metadata(store)
    del store[".zmetadata"]
    init_array(store, 4, 2, "u1", path="new")
    migrate_2to3(store)
    assert "new" in json.loads(store["zarr.json"])["consolidated_metadata"]["metadata"]
    assert verify(store)


def test_a_document_in_other_words_that_means_the_same_is_kept_as_it_is() -> None:
    store = small()
    migrate_2to3(store)
    document = json.loads(store["g/a/zarr.json"])
    del document["storage_transformers"]
    document["codecs"] = [{"configuration": {"endian": "little"}, "name": "bytes"}]
    spelled = json.dumps(document).encode()
    store["g/a/zarr.json"] = spelled
    assert {node.path: node.action for node in migrate_2to3(store)}["g/a"] == "kept"
    assert store["g/a/zarr.json"] == spelled


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("g/a/.zattrs", b'{"units": "km"}'),
        ("g/.zattrs", b'{"t": 2}'),
        ("g/a/.zarray", lambda data: data.replace(b"4,\n        4", b"6,\n        4")),
    ],
)
def test_a_node_that_was_changed_since_is_a_conflict_and_nothing_is_written(key: str, change: Any) -> None:
    store = small()
    migrate_2to3(store)
    new = change if isinstance(change, bytes) else change(store[key])
    assert new != store[key]
    store[key] = new
    before = dict(store)
    with pytest.raises(MetadataError, match="overwrite=True"):
        migrate_2to3(store)
    assert store == before
    migrate_2to3(store, overwrite=True)
    assert not [problem for problem in verify(store).problems if problem.kind == "disagreement"]


# To a destination ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["zarr.json", "g/zarr.json", "g/a/zarr.json", "g/a/0.1"])
def test_nothing_that_is_at_the_destination_is_overwritten(key: str) -> None:
    dest = {key: b'{"zarr_format": 3, "node_type": "group", "attributes": {"mine": 1}}', "other": b"kept"}
    before = dict(dest)
    with pytest.raises((MetadataError, DestinationExistsError), match="pass overwrite=True"):
        migrate_2to3(small(), dest)
    assert dest == before
    migrate_2to3(small(), dest, overwrite=True)
    assert dest["other"] == b"kept"
    assert dest[key] != before[key]


def of_version_3() -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    migrate_2to3(small(), store)
    return store


#: How a migration to a destination is written -> the migration, and the source.
TO_A_DESTINATION: dict[str, tuple[Any, Any]] = {
    "2 to 3": (migrate_2to3, small),
    "2 to 3, through a view": (lambda store, dest, **kwargs: migrate_2to3(store, V2View(dest), **kwargs), small),
    "3 to 2": (migrate_3to2, of_version_3),
    "2 to shards": (migrate_to_shards, small),
}


@pytest.mark.parametrize("way", TO_A_DESTINATION)
def test_a_chunk_that_the_source_lacks_does_not_become_a_value_of_the_destination(way: str) -> None:
    migrate, source = TO_A_DESTINATION[way]
    new: dict[str, bytes] = {}
    migrate(source(), new)
    name = next(key for key in ("g/a/0.1", "g/a/c/0/0", "g/a/c/0/1") if key in new)
    other = name.replace("1", "0") if name.endswith("1") else name
    dest = {other: b"\x01" * 16, "g/a/notes.txt": b"kept", "elsewhere/0.0": b"kept"}
    before = dict(dest)
    with pytest.raises(DestinationExistsError, match=f"{other}.*pass overwrite=True"):
        migrate(source(), dest)
    assert dest == before
    migrate(source(), dest, overwrite=True)
    assert {key: dest.pop(key) for key in ("g/a/notes.txt", "elsewhere/0.0")} == {
        key: before[key] for key in ("g/a/notes.txt", "elsewhere/0.0")
    }
    assert dest == new


def test_documents_of_version_2_at_the_destination_are_not_its_business() -> None:
    dest = {"g/.zattrs": b'{"mine": 1}', "g/a/.zarray": b"{}"}
    before = dict(dest)
    migrate_2to3(small(), dest)
    assert before.items() < dest.items()
    assert "g/a/zarr.json" in dest


def test_a_migration_to_a_destination_can_be_run_again() -> None:
    source, dest = small(), {}
    migrate_2to3(source, dest)
    first = dict(dest)
    assert set(migrate_2to3(source, dest).counts()) == {"kept"}
    assert dest == first
    init_array(source, 4, 2, "u1", None, path="new")
    source["new/0"] = b"12"
    migrate_2to3(source, dest)
    assert verify(dest)
    assert dest["new/0"] == b"12"


@pytest.mark.parametrize("journal", [False, True])
def test_a_migration_to_a_destination_that_failed_anywhere_goes_on(journal: bool, tmp_path: Path) -> None:
    wanted: dict[str, bytes] = {}
    migrate_2to3(small(), wanted)
    for point in range(30):
        inner = DictStore()
        resume = tmp_path / f"journal{point}" if journal else None
        failing = FailingStore(inner, OSError(28, "full"), methods=["_set", "_set_many"], after=point, times=1)
        try:
            migrate_2to3(small(), failing, resume=resume)
        except (OSError, RuntimeError):
            assert not set(inner) - set(wanted)
            migrate_2to3(small(), failing, resume=resume)
        assert dict(inner) == wanted, point
        if not failing.failures:
            break
    assert point >= 2


def test_the_source_of_a_migration_is_only_read_and_combinations_without_sense_are_refused(tmp_path: Path) -> None:
    source = small()
    migrate_2to3(source, {})
    assert source == small()
    with pytest.raises(ValueError, match="remove_v2"):
        migrate_2to3(source, {}, remove_v2=True)
    with pytest.raises(ValueError, match="resume"):
        migrate_2to3(source, resume=tmp_path / "j")


def test_messages_name_only_parameters_that_there_are() -> None:
    import inspect

    from zarrstore.tools import migrate_2to3 as module

    parameters = set(inspect.signature(migrate_2to3).parameters) | {"merge"}
    named = set(re.findall(r"(?:pass|leave) ([a-z_0-9]+)(?:=| )", inspect.getsource(module)))
    assert named
    assert named - parameters - {"dest"} == set()


# Removal -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("configuration", [5, None, [], "/", {"separator": 0}])
def test_a_document_of_version_3_with_a_wrong_chunk_key_encoding_is_no_error_of_python(configuration: Any) -> None:
    old: dict[str, bytes] = {}
    init_array(old, shape=(4,), chunks=(2,))
    new: dict[str, bytes] = {}
    migrate_2to3(old, new)
    document = json.loads(new["zarr.json"])
    document["chunk_key_encoding"]["configuration"] = configuration
    store = {"zarr.json": json.dumps(document).encode()}
    dest: dict[str, bytes] = {}
    migrate_2to3(dict(store), dest)
    assert dest == store


def test_a_removal_leaves_nothing_of_version_2_behind() -> None:
    for twice in (False, True):
        store = small()
        if twice:
            migrate_2to3(store)
        migrate_2to3(store, remove_v2=True)
        assert of_version_2(store) == []
        assert verify(store)


class _Killed(BaseException):
    pass


class _Dying(Wrapper):
    """Dies at the n-th change, and at every one after; what a batch changes comes in the reverse order."""

    def __init__(self, inner: Any, after: int) -> None:
        super().__init__(inner)
        self.left = after

    def _change(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _Killed

    def _set(self, key: str, value: Any) -> None:
        self._change()
        super()._set(key, value)

    def _set_many(self, items: Any) -> None:
        for key, value in reversed(list(items)):
            self._set(key, value)

    def _delete_many(self, keys: Any) -> None:
        for key in reversed(list(keys)):
            self._change()
            super()._delete_many([key])


@pytest.mark.parametrize("odd", [False, True])
def test_a_removal_that_is_killed_anywhere_hides_nothing_and_is_finished_by_the_next(odd: bool) -> None:
    wanted = small(odd)
    migrate_2to3(wanted, remove_v2=True)
    for point in range(60):
        store = small(odd)
        try:
            migrate_2to3(_Dying(store, point), remove_v2=True)
        except _Killed:
            # A reader of version 2 at the root finds either everything, or no hierarchy.
            if ".zgroup" in store:
                assert set(of_version_2(wanted)) <= set(of_version_2(store)), point
            if ".zmetadata" in store:
                repeated = json.loads(store[".zmetadata"])["metadata"]
                assert set(repeated) <= set(store), point
            if len(of_version_2(store)) < len(of_version_2(small(odd))):
                assert {key for key in wanted if key.endswith("zarr.json")} <= set(store), point
            migrate_2to3(store, remove_v2=True)
        else:
            break
        assert of_version_2(store) == of_version_2(wanted), point
        assert {key: value for key, value in store.items() if "zmeta" not in key} == {
            key: value for key, value in wanted.items() if "zmeta" not in key
        }, point
        assert verify(store), (point, verify(store).problems)
    assert point >= 8


def test_attributes_that_an_interrupted_removal_left_are_deleted_only_if_version_3_has_them() -> None:
    store = small()
    migrate_2to3(store, remove_v2=True)
    store["g/a/.zattrs"] = b'{"units": "m"}'
    store["g/.zattrs"] = b'{"t": 7}'
    assert {(p.key, p.kind) for p in verify(store).problems} == {("g/a/.zattrs", "leftover"), ("g/.zattrs", "leftover")}
    report = migrate_2to3(store, remove_v2=True)
    assert of_version_2(store) == ["g/.zattrs"]
    assert any("g/.zattrs stays" in note for node in report for note in node.notes)
    store["g/a/.zattrs"] = b'{"units": "m"}'
    assert [one.key for one in repair(store)] == ["g/a/.zattrs"]


# At a part -----------------------------------------------------------------------------------------------------------


def test_the_consolidated_documents_of_the_root_follow_a_migration_below_it() -> None:
    store = small()
    migrate_2to3(store)
    init_array(store, 4, 2, "u1", path="g/h/new")
    consolidate_metadata(store)
    json_before = json.loads(store["zarr.json"])["consolidated_metadata"]["metadata"]
    assert "g/h/new" not in json_before or json_before
    migrate_2to3(store, path="g/h")
    assert "g/h/new" in json.loads(store["zarr.json"])["consolidated_metadata"]["metadata"]
    assert verify(store)
    migrate_2to3(store, path="g/h", remove_v2=True)
    assert sorted(json.loads(store[".zmetadata"])["metadata"]) == [
        ".zgroup",
        "g/.zattrs",
        "g/.zgroup",
        "g/a/.zarray",
        "g/a/.zattrs",
    ]
    assert not check_consolidated(store)


def test_consolidating_version_3_writes_inline_metadata_and_checks_it() -> None:
    store = small()
    migrate_2to3(store, remove_v2=True)
    assert json.loads(store["zarr.json"])["consolidated_metadata"]
    del store["g/h/b/zarr.json"], store["g/h/b/0"]
    assert check_consolidated(store).extra == ("g/h/b/zarr.json",)
    consolidate_metadata(store)
    assert ".zmetadata" not in store
    assert not check_consolidated(store)
    assert sorted(json.loads(store["zarr.json"])["consolidated_metadata"]["metadata"]) == ["g", "g/a", "g/h"]


def test_zarr_3_reads_the_inline_metadata_that_consolidation_writes(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    from zarrstore import DirectoryStore

    group = zarr.open_group(str(tmp_path / "h"), mode="w", zarr_format=3)
    group.create_array("a/b", shape=(5,), dtype="i4", fill_value=3)
    consolidate_metadata(DirectoryStore(tmp_path / "h"))
    again = zarr.open_consolidated(str(tmp_path / "h"), zarr_format=3)
    assert again["a/b"][...].tolist() == [3] * 5
    assert verify(DirectoryStore(tmp_path / "h"))


def test_version_1_to_3_is_rehearsed_over_the_store_and_not_in_memory() -> None:
    store = {
        "meta": b'{"zarr_format": 1, "shape": [4], "chunks": [2], "dtype": "<i4", "order": "C",'
        b' "compression": "none", "compression_opts": null, "fill_value": 0}',
        "attrs": b"{}",
        "0": bytes(8),
    }
    before = dict(store)
    assert migrate_1to3(store, dry_run=True).counts() == {"planned": 1}
    assert store == before
    assert migrate_1to3(store, remove_v2=True).counts() == {"migrated": 1}
    assert sorted(store) == ["0", "zarr.json"]


# Into views ----------------------------------------------------------------------------------------------------------


def test_a_hierarchy_of_version_2_is_copied_into_a_view_of_version_3() -> None:
    below: dict[str, bytes] = {}
    source = {key: value for key, value in small().items() if key != ".zmetadata"}
    result = copy_store(source, V2View(below))
    assert result.n_copied == len(source)
    assert sorted(below) == [
        "g/a/c/0/1",
        "g/a/zarr.json",
        "g/h/b/c/0",
        "g/h/b/zarr.json",
        "g/h/zarr.json",
        "g/zarr.json",
        "zarr.json",
    ]
    assert verify(below)
    again: dict[str, bytes] = {}
    copy_store(V2View(below), again)
    assert replace(v2.decode_array(again["g/a/.zarray"]), dimension_separator=".") == v2.decode_array(
        source["g/a/.zarray"]
    )
    assert {key: again[key] for key in ("g/a/0.1", "g/h/b/0")} == {key: source[key] for key in ("g/a/0.1", "g/h/b/0")}


def test_a_hierarchy_of_version_3_is_copied_into_a_view_of_version_2() -> None:
    source: dict[str, bytes] = {}
    copy_store({key: value for key, value in small().items() if key != ".zmetadata"}, V2View(source))
    below: dict[str, bytes] = {}
    copy_store(source, V3View(below))
    assert sorted(key for key in below if key[-1].isdigit()) == ["g/a/0/1", "g/h/b/0"]
    assert verify(below)
    assert below["g/a/0/1"] == bytes(16)


def test_chunks_of_many_batches_are_copied_into_a_view() -> None:
    source: dict[str, bytes] = {}
    init_array(source, 3000, 1, "u1", None, 0, path="z/a")
    source.update({f"z/a/{n}": b"x" for n in range(3000)})
    below: dict[str, bytes] = {}
    copy_store(source, V2View(below), workers=3)
    assert sum(key.startswith("z/a/c/") for key in below) == 3000


def test_migrated_documents_say_what_version_3_says_itself() -> None:
    store = small()
    migrate_2to3(store)
    for key in store:
        if key.endswith("zarr.json"):
            assert v3.node_type(documents.loads(store[key], key)) in ("array", "group")


def test_an_odd_name_in_consolidated_metadata_stops_neither_its_check_nor_its_update() -> None:
    store: dict[str, bytes] = {}
    init_array(store, shape=3, path="g/a", fill_value=0)
    consolidate_metadata(store)
    document = json.loads(store[".zmetadata"])
    document["metadata"]["../evil/.zarray"] = {}
    store[".zmetadata"] = documents.dumps(document)
    check_consolidated(store)
    migrate_2to3(store, path="g", remove_v2=True)
    assert "g/a/.zarray" not in json.loads(store[".zmetadata"])["metadata"]


def test_a_repair_of_consolidated_metadata_reads_documents_only() -> None:
    class Noting(dict[str, bytes]):
        def __getitem__(self, key: str) -> bytes:
            read.append(key)
            return super().__getitem__(key)

    read: list[str] = []
    store = Noting(small())
    store["g/.zattrs"] = b'{"t": 2}'
    repair(store)
    assert not check_consolidated(dict(store))
    assert "g/.zattrs" in read
    assert not {key for key in read if key.rsplit("/", 1)[-1] not in documents.DOCUMENTS}
