"""Version 1 arrays, as zarr 1.1.0 wrote them, described in version 2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.cases import each_of
from zarrstore.errors import MetadataError
from zarrstore.metadata import chunking, v1, v2
from zarrstore.metadata.chunk import decode_chunk

DATA = Path(__file__).parents[1] / "data" / "v1"
FIXTURES = json.loads((DATA / "manifest.json").read_text())["fixtures"]
NAMES = [fixture["name"] for fixture in FIXTURES]


def read(fixture, meta):
    """Decode every chunk of a version 1 array under a version 2 description."""
    out = np.zeros(meta.shape, meta.numpy_dtype)
    if meta.fill_value is not None:
        out[...] = meta.numpy_fill
    for position, name in zip(
        chunking.chunk_grid(meta.shape, meta.chunks), chunking.chunk_names(meta.shape, meta.chunks), strict=True
    ):
        if name not in fixture["keys"]:
            continue
        chunk = decode_chunk((DATA / fixture["store"] / name).read_bytes(), meta)
        spans = [(i * c, min((i + 1) * c, s)) for i, c, s in zip(position, meta.chunks, meta.shape, strict=True)]
        out[tuple(slice(*span) for span in spans)] = chunk[tuple(slice(stop - start) for start, stop in spans)]
    return out


@each_of("fixture", FIXTURES, ids=NAMES)
def test_the_description_is_the_faithful_one(fixture):
    meta, _ = v1.array_to_v2((DATA / fixture["store"] / "meta").read_bytes())
    assert meta.document() == fixture["faithful_zarray"]
    assert v2.decode_array(v2.encode_array(meta)) == meta


@each_of("fixture", FIXTURES, ids=NAMES)
def test_the_chunks_decode_to_what_zarr_1_read(fixture):
    meta, notes = v1.array_to_v2((DATA / fixture["store"] / "meta").read_bytes())
    if fixture["unreadable_today"]:
        with pytest.raises(ValueError, match="blosc cannot decode it"):
            read(fixture, meta)
        assert [note for note in notes if "blosc cannot decode" in note]
        return
    assert not [note for note in notes if "cannot decode" in note]
    expected = np.load(DATA / fixture["expected"])
    found = read(fixture, meta)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if meta.fill_value is None:
        # What was never written is undefined in version 1: only written chunks can be compared, and all are written.
        assert len(fixture["keys"]) == meta.n_chunks + 2
    assert found.tobytes() == expected.tobytes()


def test_all_thirty_arrays_are_here_and_one_is_unreadable():
    assert len(FIXTURES) == 30
    assert sum(fixture["unreadable_today"] for fixture in FIXTURES) == 1


def meta_v1(**changes):
    members = {
        "zarr_format": 1,
        "shape": [10],
        "chunks": [5],
        "dtype": "<i4",
        "compression": "zlib",
        "compression_opts": 1,
        "fill_value": None,
        "order": "C",
    }
    members.update(changes)
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


@each_of(
    ("dtype", "raw_fill", "fill"),
    [
        ("|S6", 0, "MA=="),  # b"0", which is what NumPy fills with
        ("|S2", "abcd", "YWI="),
        ("<U4", 0, "0"),
        ("<M8[ns]", -1, -1),
        ("<M8[D]", "1970-01-02", 1),
        ("<m8[s]", 0, 0),
        ("<f8", float("-inf"), "-Infinity"),
        ("<i4", 1.0, 1),
        ("|u1", 300, 44),
        ("|i1", 200, -56),
        ("|b1", 1, True),
        ([["a", "<i2"], ["b", "|S1"]], [258, "x"], "AgF4"),
    ],
)
def test_a_fill_value_is_what_numpy_fills_with(dtype, raw_fill, fill):
    meta, notes = v1.array_to_v2(meta_v1(dtype=dtype, fill_value=raw_fill))
    assert meta.fill_value == fill
    assert bool(notes) == (dtype in ("|u1", "|i1"))


@pytest.mark.parametrize("compression", ["zlib", "bz2", "none", None])
def test_order_f_becomes_c_where_version_1_wrote_c_and_the_notes_say_so(compression):
    data = meta_v1(order="F", compression=compression, compression_opts=None)
    meta, notes = v1.array_to_v2(data)
    assert meta.order == "C"
    assert len(notes) == 1
    assert "order F became C" in notes[0]


def test_order_f_stays_with_blosc():
    meta, notes = v1.array_to_v2(meta_v1(order="F", compression="blosc", compression_opts=None))
    assert (meta.order, notes) == ("F", [])


def test_raw_lzma_keeps_its_filters():
    opts = {"format": 3, "check": -1, "preset": None, "filters": [{"id": 33, "preset": 1}]}
    meta, notes = v1.array_to_v2(meta_v1(compression="lzma", compression_opts=opts))
    assert (meta.compressor, notes) == ({"id": "lzma", **opts}, [])


def test_blosc_snappy_is_reported():
    opts = {"cname": "snappy", "clevel": 5, "shuffle": 1}
    _, notes = v1.array_to_v2(meta_v1(compression="blosc", compression_opts=opts))
    assert len(notes) == 1
    assert "snappy" in notes[0]


@each_of(
    ("changes", "member"),
    [
        ({"zarr_format": 2}, "zarr_format"),
        ({"zarr_format": True}, "zarr_format"),
        ({"shape": ...}, "shape"),
        ({"shape": [float("inf")]}, "shape"),
        ({"chunks": [0]}, "chunks"),
        ({"chunks": [5, 5]}, "chunks"),
        ({"dtype": "<q9"}, "dtype"),
        ({"dtype": "|O"}, "dtype"),
        ({"order": "K"}, "order"),
        ({"compression": "gzip"}, "compression"),
        ({"compression": ["zlib"]}, "compression"),
        ({"compression_opts": "1"}, "compression_opts"),
        ({"compression": "blosc", "compression_opts": 5}, "compression_opts"),
        ({"compression": "blosc", "compression_opts": {"cname": "lz4", "typesize": 4}}, "compression_opts"),
        ({"compression": "lzma", "compression_opts": {"format": float("nan")}}, "compression_opts"),
        ({"fill_value": float("nan")}, "fill_value"),
        ({"fill_value": "abc"}, "fill_value"),
        ({"fill_value": {}}, "fill_value"),
        ({"dtype": "|S4", "fill_value": "\u00e9"}, "fill_value"),
    ],
)
def test_a_bad_document_names_the_key_and_the_member(changes, member):
    with pytest.raises(MetadataError) as caught:
        v1.array_to_v2(meta_v1(**changes), "foo/meta")
    assert (caught.value.key, caught.value.member) == ("foo/meta", member)


def test_attrs_are_copied_as_they_are_and_a_missing_document_is_an_empty_object():
    data = b'{"b":   NaN,\n "a": 1}'
    assert v1.attrs_to_v2(data) is data
    assert v1.attrs_to_v2(None) == b"{}"
    with pytest.raises(MetadataError, match="'foo/attrs' is not Zarr metadata: is a JSON array"):
        v1.attrs_to_v2(b"[]", "foo/attrs")
