"""Consolidated metadata: what zarr writes, hostile names, and staleness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cases import each_of
from zarrstore.errors import MetadataError
from zarrstore.metadata import consolidated

LEGACY = Path(__file__).parents[1] / "data" / "v2" / "legacy.zarr"
FOUND = {path.relative_to(LEGACY).as_posix(): path.read_bytes() for path in LEGACY.rglob("*") if path.is_file()}
HOSTILE = ["../../x/.zarray", "/etc/.zarray", "a//.zgroup", "./.zgroup", "C:/.zgroup", "a\\b/.zattrs", "\ud800/.zattrs"]


def zmetadata(**metadata):
    return json.dumps({"zarr_consolidated_format": 1, "metadata": metadata}).encode()


def test_the_document_is_the_one_zarr_2_wrote_in_any_order():
    assert consolidated.build(FOUND) == FOUND[".zmetadata"]
    assert consolidated.build(dict(reversed(FOUND.items()))) == FOUND[".zmetadata"]


def test_a_built_document_parses_to_the_documents_it_repeats():
    parsed = consolidated.parse(FOUND[".zmetadata"])
    assert parsed == {key: json.loads(data) for key, data in FOUND.items() if consolidated.is_repeated(key)}
    assert not consolidated.compare(parsed, FOUND)


@each_of("name", [*HOSTILE, ""])
def test_a_hostile_name_is_refused_and_named(name):
    with pytest.raises(MetadataError, match="is no key") as caught:
        consolidated.parse(zmetadata(**{name: {"zarr_format": 2}}), "foo/.zmetadata")
    assert (caught.value.key, caught.value.member) == ("foo/.zmetadata", name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_never_written_either(name):
    with pytest.raises(MetadataError, match="is no key"):
        consolidated.build({name: b"{}"})


@pytest.mark.parametrize("name", ["foo/0.0", "foo", "foo.zarray", ".zmetadata", "zarr.json"])
def test_only_documents_are_repeated(name):
    with pytest.raises(MetadataError, match="names no document") as caught:
        consolidated.parse(zmetadata(**{name: {}}))
    assert caught.value.member == name
    assert json.loads(consolidated.build({name: b"not JSON"}))["metadata"] == {}


@pytest.mark.parametrize(
    ("data", "member"),
    [
        (b"{}", "zarr_consolidated_format"),
        (b'{"zarr_consolidated_format": 2, "metadata": {}}', "zarr_consolidated_format"),
        (b'{"zarr_consolidated_format": true, "metadata": {}}', "zarr_consolidated_format"),
        (b'{"zarr_consolidated_format": 1}', "metadata"),
        (b'{"zarr_consolidated_format": 1, "metadata": []}', "metadata"),
        (zmetadata(**{"a/.zarray": "text"}), "a/.zarray"),
        (b'{"zarr_consolidated_format": 1, "metadata": {"a/.zgroup": {}, "a/.zgroup": {}}}', "a/.zgroup"),
    ],
)
def test_what_is_no_consolidated_metadata_names_the_member(data, member):
    with pytest.raises(MetadataError) as caught:
        consolidated.parse(data)
    assert caught.value.member == member


def test_a_document_that_cannot_be_repeated_is_named():
    with pytest.raises(MetadataError, match=r"'a/\.zarray' is not Zarr metadata: is not JSON"):
        consolidated.build({"a/.zarray": b"{", ".zgroup": b"{}"})


def test_staleness_tells_missing_extra_and_different_and_not_spelling():
    repeated = {"gone/.zgroup": {}, "same/.zattrs": {"a": float("nan")}, "bool/.zattrs": {"a": 1}, "bad/.zarray": {}}
    found = {
        "same/.zattrs": b'{ "a":NaN }',
        "bool/.zattrs": b'{"a": true}',
        "bad/.zarray": b"{",
        "new/.zarray": b"{}",
        "same/0": b"a chunk",
        ".zmetadata": b"{}",
    }
    assert consolidated.compare(repeated, found) == consolidated.Staleness(
        missing=("new/.zarray",), extra=("gone/.zgroup",), different=("bad/.zarray", "bool/.zattrs")
    )


def test_inline_metadata_is_by_depth_then_path_and_each_group_below_has_an_empty_one():
    group = {"node_type": "group", "zarr_format": 3, "consolidated_metadata": {"stale": 1}}
    array = {"node_type": "array", "zarr_format": 3}
    inline = consolidated.build_inline({"b/x/y": array, "c": group, "b/x": group, "b": group, "a": array})
    empty = {"kind": "inline", "must_understand": False, "metadata": {}}
    group_below = {"node_type": "group", "zarr_format": 3, "consolidated_metadata": empty}
    expected = {"a": array, "b": group_below, "c": group_below, "b/x": group_below, "b/x/y": array}
    assert inline == {"kind": "inline", "must_understand": False, "metadata": expected}
    assert list(inline["metadata"]) == list(expected)
    assert consolidated.parse_inline({"consolidated_metadata": inline}) == expected
    assert consolidated.parse_inline({"consolidated_metadata": None}) is None


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", ""])
def test_a_hostile_name_in_inline_metadata_is_refused(name):
    with pytest.raises(MetadataError, match="is no key"):
        consolidated.parse_inline({"consolidated_metadata": {"kind": "inline", "metadata": {name: {}}}})


@pytest.mark.parametrize(
    "inline", [[], {}, {"kind": "inline"}, {"kind": "inline", "metadata": {"a": 1}}, {"kind": "x"}]
)
def test_inline_metadata_of_another_shape_is_refused(inline):
    with pytest.raises(MetadataError):
        consolidated.parse_inline({"consolidated_metadata": inline})
