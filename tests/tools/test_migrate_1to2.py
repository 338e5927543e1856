"""Version 1 arrays brought to version 2: the genuine ones, from any mapping, and after every kind of accident."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from zarrstore import DictStore, migrate_1to2, read_array
from zarrstore.errors import MetadataError, ReadOnlyError
from zarrstore.testing import FailingStore, Recorder

DATA = Path(__file__).parent.parent / "data" / "v1"
FIXTURES = json.loads((DATA / "manifest.json").read_text())["fixtures"]
ARRAYS = {fixture["name"]: fixture for fixture in FIXTURES}


class Foreign(MutableMapping[str, Any]):
    """A mapping of somebody else: no class of ours, and values are bytearrays."""

    def __init__(self) -> None:
        self.records: dict[str, bytearray] = {}

    def __getitem__(self, key: str) -> bytearray:
        return self.records[key]

    def __setitem__(self, key: str, value: bytes) -> None:
        self.records[key] = bytearray(value)

    def __delitem__(self, key: str) -> None:
        del self.records[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


def load(name: str) -> dict[str, bytes]:
    return {key: (DATA / name / key).read_bytes() for key in ARRAYS[name]["keys"]}


def directory(tmp_path: Path) -> MutableMapping[str, Any]:
    from zarrstore import DirectoryStore

    return DirectoryStore(tmp_path / "array")


MAPPINGS = {"dict": lambda path: {}, "foreign": lambda path: Foreign(), "directory": directory}


@pytest.mark.parametrize("kind", MAPPINGS)
@pytest.mark.parametrize("name", ARRAYS)
def test_a_genuine_array_reads_as_zarr_1_read_it(name: str, kind: str, tmp_path: Path) -> None:
    fixture = ARRAYS[name]
    store = MAPPINGS[kind](tmp_path)
    store.update(load(name))
    report = migrate_1to2(store)
    assert [node.action for node in report] == ["migrated"]
    chunks = {key: digest for key, digest in fixture["sha256"].items() if key not in ("meta", "attrs")}
    assert sorted(store) == sorted([*chunks, ".zarray", ".zattrs"])
    assert {key: hashlib.sha256(store[key]).hexdigest() for key in chunks} == chunks
    assert json.loads(bytes(store[".zarray"])) == fixture["faithful_zarray"]
    assert json.loads(bytes(store[".zattrs"])) == fixture["attrs"]
    expected = np.load(DATA / fixture["expected"])
    if fixture["unreadable_today"]:
        with pytest.raises(ValueError, match="blosc"):
            read_array(store)
        assert any("blosc" in note and "zstd" in note for node in report for note in node.notes)
    else:
        values = read_array(store)
        assert values.dtype == expected.dtype
        assert values.tobytes() == expected.tobytes()


def test_exactly_one_of_the_thirty_is_beyond_today_s_codecs() -> None:
    assert len(FIXTURES) == 30
    assert [fixture["name"] for fixture in FIXTURES if fixture["unreadable_today"]] == [
        "f8_blosc_zstd_bitshuffle_partial"
    ]


def test_a_second_run_finds_nothing_to_do_and_changes_nothing() -> None:
    store = load("i4_attrs")
    migrate_1to2(store)
    after = dict(store)
    assert len(migrate_1to2(store)) == 0
    assert store == after


def test_a_dry_run_reports_and_writes_nothing() -> None:
    store = MappingProxyType(load("f8_F_zlib"))
    report = migrate_1to2(store, dry_run=True)  # type: ignore[arg-type]
    assert report.dry_run
    assert report.counts() == {"planned": 1}
    assert report.nodes[0].keys == (".zarray", ".zattrs")
    assert "order F became C" in report.nodes[0].notes[0]


def test_a_folder_of_arrays_is_migrated_array_by_array() -> None:
    store: dict[str, bytes] = {}
    for name in ("i4_attrs", "f2_blosc"):
        store.update({f"site/{name}/{key}": value for key, value in load(name).items()})
    store["site/other/meta"] = b"not json, and not ours"
    store["elsewhere/meta"] = store["site/i4_attrs/meta"]
    report = migrate_1to2(store, "/site/")
    assert [node.path for node in report] == ["site/f2_blosc", "site/i4_attrs"]
    assert "elsewhere/meta" in store
    assert "site/other/meta" in store


def test_missing_attrs_are_taken_for_empty_and_said_so() -> None:
    store = load("i4_attrs")
    del store["attrs"]
    report = migrate_1to2(store)
    assert store[".zattrs"] == b"{}"
    assert "attrs was missing" in report.nodes[0].notes[-1]


@pytest.mark.parametrize("point", range(8))
def test_a_failure_at_any_write_leaves_an_array_that_the_next_run_finishes(point: int) -> None:
    whole = load("i4_attrs")
    migrate_1to2(whole)
    inner = DictStore()
    inner.update(load("i4_attrs"))
    failing = FailingStore(
        inner, OSError(28, "full"), methods=["_set", "_set_many", "_delete", "_delete_many"], after=point
    )
    try:
        migrate_1to2(failing)
    except OSError:
        assert "meta" in inner or ".zarray" in inner
        migrate_1to2(inner)
    assert dict(inner) == whole


def test_version_1_goes_only_when_version_2_is_durable() -> None:
    recorder = Recorder()
    migrate_1to2(recorder.watch(DictStore(load("i4_attrs")), "store"))
    actions = [event[1] for event in recorder.order() if event[1] != "close"]
    assert actions.index("flush") < min(n for n, action in enumerate(actions) if "delete" in action)
    assert max(n for n, action in enumerate(actions) if "set" in action) < actions.index("flush")


def test_stopped_between_its_deletions_it_keeps_the_attributes() -> None:
    store = load("i4_attrs")
    whole = dict(store)
    migrate_1to2(whole)
    store.update({key: whole[key] for key in (".zarray", ".zattrs")})
    del store["attrs"]
    migrate_1to2(store)
    assert store == whole


BAD = {
    "not json": b"{",
    "no object": b"[]",
    "version 2": b'{"zarr_format": 2}',
    "a member missing": b'{"zarr_format": 1, "shape": [3]}',
    "negative": b'{"zarr_format": 1, "shape": [-3], "chunks": [3], "dtype": "<i4", "compression": null, '
    b'"compression_opts": null, "fill_value": 0, "order": "C"}',
    "a rank too many": b'{"zarr_format": 1, "shape": [3], "chunks": [3, 3], "dtype": "<i4", "compression": null, '
    b'"compression_opts": null, "fill_value": 0, "order": "C"}',
    "deep": b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
}


@pytest.mark.parametrize("meta", BAD.values(), ids=BAD)
def test_what_is_no_version_1_array_is_refused_and_nothing_is_touched(meta: bytes) -> None:
    store = {"meta": meta, "attrs": b"{}", "0": b"chunk"}
    before = dict(store)
    with pytest.raises(MetadataError) as caught:
        migrate_1to2(store)
    assert caught.value.key == "meta"
    assert store == before


def test_one_bad_array_keeps_all_the_others_as_they_were() -> None:
    store = {f"good/{key}": value for key, value in load("i4_attrs").items()}
    store.update({"bad/meta": BAD["negative"], "bad/attrs": b"{}"})
    before = dict(store)
    with pytest.raises(MetadataError, match="bad/meta"):
        migrate_1to2(store)
    assert store == before


def test_a_version_2_document_that_says_something_else_stops_it() -> None:
    store = load("i4_attrs")
    store[".zarray"] = b"{}"
    before = dict(store)
    with pytest.raises(MetadataError, match="stands beside 'meta'"):
        migrate_1to2(store)
    assert store == before


def test_an_empty_store_is_told_apart_from_one_that_is_done() -> None:
    with pytest.raises(MetadataError, match="not there"):
        migrate_1to2({})
    assert len(migrate_1to2({".zgroup": b'{"zarr_format": 2}', "a/.zarray": b"{}"})) == 0


def test_a_read_only_store_is_refused() -> None:
    store = MappingProxyType(load("i4_attrs"))
    with pytest.raises(ReadOnlyError):
        migrate_1to2(store)  # type: ignore[arg-type]
