"""Version 3 documents, to and from version 2."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest

from tests.support.cases import each_of
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents, v2, v3
from zarrstore.metadata.chunk import decode_chunk
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3

ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [4, 6],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": "NaN",
    "codecs": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 3}},
    ],
    "attributes": {"units": "K"},
    "dimension_names": ["y", "x"],
}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def changed(**changes):
    members = copy.deepcopy(ARRAY) | changes
    return {name: value for name, value in members.items() if value is not ...}


def test_a_version_3_array_in_version_2():
    done = v3.array_v3_to_v2(ARRAY)
    assert done.document == {
        "zarr_format": 2,
        "shape": [4, 6],
        "chunks": [2, 3],
        "dtype": "<f4",
        "compressor": {"id": "zstd", "level": 3, "checksum": False},
        "fill_value": "NaN",
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
    assert done.attrs == {"units": "K", "_ARRAY_DIMENSIONS": ["y", "x"]}
    assert (done.problems, done.notes) == ([], [])


def test_a_view_may_choose_the_separator():
    assert "dimension_separator" not in v3.array_v3_to_v2(ARRAY, separator=".").document


def test_the_whole_document_for_a_version_2_array():
    meta = v2.build_array((4, 6), (2, 3), ">i2", fill_value=-1, order="F", dimension_separator="/")
    done = v3.array_v2_to_v3(meta, {"_ARRAY_DIMENSIONS": ["y", "x"], "units": "K", "_FillValue": -1})
    assert done.document == {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4, 6],
        "data_type": "int16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/"}},
        "fill_value": -1,
        "codecs": [
            {"name": "transpose", "configuration": {"order": [1, 0]}},
            {"name": "bytes", "configuration": {"endian": "big"}},
            {
                "name": "blosc",
                "configuration": {"typesize": 2, "cname": "lz4", "clevel": 5, "shuffle": "shuffle", "blocksize": 0},
            },
        ],
        "attributes": {"units": "K", "_FillValue": -1},
        "storage_transformers": [],
        "dimension_names": ["y", "x"],
    }
    assert (done.problems, done.notes, done.attrs) == ([], [], {})


@pytest.mark.parametrize(
    ("parameters", "attrs", "note"),
    [
        ({"dtype": "f8"}, {}, "fill_value null became 0.0"),
        ({"dtype": "f8", "fill_value": 7}, {"_ARRAY_DIMENSIONS": ["a"]}, "xarray takes the fill value 7.0 for missing"),
        ({"dtype": "f8", "fill_value": 0}, {"_ARRAY_DIMENSIONS": ["a", "b"]}, "_ARRAY_DIMENSIONS ['a', 'b'] stays"),
        ({"dtype": "f8", "fill_value": 0}, {"_ARRAY_DIMENSIONS": "a"}, "_ARRAY_DIMENSIONS 'a' stays an attribute"),
        ({"dtype": "f8", "fill_value": 0}, {"range": [0, float("inf")]}, 'attribute "range" holds a bare NaN'),
        ({"dtype": str, "fill_value": 0}, {}, "fill_value 0 became ''"),
    ],
)
def test_what_version_3_says_in_other_words_is_noted(parameters, attrs, note):
    done = v3.array_v2_to_v3(v2.build_array(shape=4, **parameters), attrs)
    assert done.document is not None
    assert [text[: len(note)] for text in done.notes] == [note]


@pytest.mark.parametrize(("dtype", "shuffle"), [("|u1", "bitshuffle"), ("<i4", "shuffle")])
def test_blosc_s_automatic_shuffle_is_the_one_that_numcodecs_takes(dtype, shuffle):
    compressor = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": -1, "blocksize": 0}
    done = v3.array_v2_to_v3(v2.build_array(4, dtype=dtype, fill_value=0, compressor=compressor))
    assert done.document["codecs"][-1]["configuration"]["shuffle"] == shuffle


@pytest.mark.parametrize(
    ("dtype", "value", "fill"),
    [
        ("<f8", 7, 7.0),
        ("<c8", [1, 2], [1.0, 2.0]),
        ("|b1", 0, False),
        ("<i4", 5.0, 5),
        ("<M8[s]", 2**64 - 1, -1),  # as zarr 2.2.0 wrote it
        ("|S3", 0, "MA=="),
    ],
)
def test_a_fill_value_is_spelled_as_its_type_wants_it(dtype, value, fill):
    document = v2.build_array(4, dtype=dtype).document() | {"fill_value": value}
    found = v3.array_v2_to_v3(v2.check_array(document)).document["fill_value"]
    assert (found, repr(found)) == (fill, repr(fill))


def test_a_chunk_has_the_name_that_the_document_says():
    assert [ChunkKeys(name, sep, 2).name((1, 20)) for name in ("default", "v2") for sep in "./"] == [
        "c.1.20",
        "c/1/20",
        "1.20",
        "1/20",
    ]
    assert [ChunkKeys(name, "/", 0).name(()) for name in ("default", "v2")] == ["c", "0"]


def test_members_that_version_3_does_not_know_are_left_out_and_noted():
    document = v2.build_array(4, dtype="i4", fill_value=0).document() | {"author": "N."}
    done = v3.array_v2_to_v3(v2.check_array(document))
    assert done.notes == ["left out, because version 3 knows no such members: author"]


@each_of(
    ("parameters", "problem"),
    [
        ({"dtype": "<f16"}, "version 3 has no 128-bit floats"),
        ({"dtype": "<c32"}, "version 3 has no 256-bit complex"),
        ({"dtype": "S"}, "version 3 has no items of 0 bytes"),
        ({"dtype": np.dtype([("a", "i1"), ("b", "i4")], align=True)}, ""),
        ({"dtype": [("a", "O")], "object_codec": {"id": "json2"}}, "structure with objects in 'a'"),
        ({"dtype": [("a", [("b", ">i2")])]}, "structure with the big-endian 'b'"),
        ({"dtype": str, "fill_value": 5}, "fill_value 5 of an array of string"),
        ({"dtype": bytes, "fill_value": "x"}, "fill_value 'x' of an array of variable_length_bytes"),
        ({"compressor": {"id": "mine"}}, "codec 'mine': zarr 3 has none of that name"),
        ({"compressor": {"id": "blosc", "cname": "new"}}, "blosc with cname 'new'"),
        ({"filters": [{"id": "delta", "dtype": "nonsense"}]}, "filter 'delta', whose \"dtype\" is 'nonsense'"),
        ({"dtype": str, "filters": [{"id": "delta", "dtype": "u1"}]}, "filter 'delta' after one that gives bytes"),
    ],
)
def test_what_version_3_cannot_say_is_a_problem_and_no_error(parameters, problem):
    done = v3.array_v2_to_v3(v2.build_array(shape=4, **parameters))
    if not problem:
        # NumPy spells the gap as a field of its own, and so the document has it.
        fields = done.document["data_type"]["configuration"]["fields"]
        assert [name for name, _ in fields] == ["a", "f1", "b"]
        return
    assert done.document is None
    assert len(done.problems) == 1
    assert problem in done.problems[0]


@each_of(
    ("changes", "problem"),
    [
        ({"data_type": "bfloat16"}, "data type 'bfloat16': NumPy has none like it"),
        ({"data_type": {"name": "numpy.datetime64", "configuration": {"unit": "x"}}}, "data type {'name': 'numpy.da"),
        ({"data_type": {"name": "raw_bytes", "configuration": {"length_bytes": 0}}}, "data type 'raw_bytes'"),
        ({"data_type": 5}, "data type 5"),
        ({"chunk_grid": {"name": "rectilinear", "configuration": {}}}, "version 2 knows regular ones only"),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {}}]}, "codec 'sharding_indexed'"),
        ({"codecs": []}, "a codec chain that never comes to bytes"),
        ({"codecs": [LITTLE, {"name": "new"}]}, "codec 'new': version 2 has none like it"),
        ({"codecs": [5]}, "codec 5"),
        ({"codecs": [{"name": "bytes", "configuration": {"endian": "middle"}}]}, "byte order 'middle'"),
        ({"codecs": [{"name": "transpose", "configuration": {"order": [1]}}, LITTLE]}, "transposition [1]"),
        ({"codecs": [LITTLE, {"name": "blosc", "configuration": {"shuffle": "x"}}]}, "blosc with shuffle 'x'"),
        ({"data_type": "string"}, "strings that 'vlen-utf8' does not encode"),
        ({"storage_transformers": [{"name": "x"}]}, "storage transformers: version 2 has none"),
        ({"extra": 5}, "member 'extra', which must be understood"),
    ],
)
def test_what_version_2_cannot_say_is_a_problem_and_no_error(changes, problem):
    done = v3.array_v3_to_v2(changed(**changes))
    assert done.document is None
    assert len(done.problems) == 1
    assert problem in done.problems[0]


def test_a_member_that_need_not_be_understood_is_left_out():
    assert v3.array_v3_to_v2(changed(extra={"must_understand": False})).problems == []
    for extra in ({}, {"must_understand": True}, {"must_understand": 0}, None, False):
        assert len(v3.array_v3_to_v2(changed(extra=extra)).problems) == 1, extra


@each_of(
    ("changes", "member"),
    [
        ({"zarr_format": 2}, "zarr_format"),
        ({"node_type": "group"}, "node_type"),
        ({"node_type": "table"}, "node_type"),
        ({"shape": ...}, "shape"),
        ({"shape": 4}, "shape"),
        ({"shape": [4, -6]}, "shape"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 3]}}}, "chunks"),
        ({"codecs": ...}, "codecs"),
        ({"codecs": {}}, "codecs"),
        ({"attributes": []}, "attributes"),
        ({"chunk_key_encoding": {"name": "v5"}}, "chunk_key_encoding"),
        ({"chunk_key_encoding": {"name": "v2", "configuration": {"separator": ":"}}}, "chunk_key_encoding"),
        ({"fill_value": None}, "fill_value"),
        ({"fill_value": "0xzz"}, "fill_value"),
        ({"fill_value": "0x7fc0"}, "fill_value"),
        ({"fill_value": [1, 2]}, "fill_value"),
    ],
)
def test_what_is_no_version_3_array_is_an_error_that_names_the_member(changes, member):
    with pytest.raises(MetadataError) as caught:
        v3.array_v3_to_v2(changed(**changes), "foo/zarr.json")
    assert (caught.value.key, caught.value.member) == ("foo/zarr.json", member)


STRUCT = {
    "name": "struct",
    "configuration": {"fields": [{"name": "a", "data_type": "int16"}, {"name": "b", "data_type": "float32"}]},
}


@each_of(
    ("data_type", "value", "dtype", "fill"),
    [
        ("float16", "0x7e00", "<f2", "NaN"),
        ("float32", "0xff800000", "<f4", "-Infinity"),
        ("float64", 1, "<f8", 1.0),
        ("complex64", ["NaN", "0x40000000"], "<c8", ["NaN", 2.0]),
        ("complex128", [1, -2.5], "<c16", [1.0, -2.5]),
        ("bool", True, "|b1", True),
        ("r16", [1, 255], "|V2", "Af8="),
        ({"name": "raw_bytes", "configuration": {"length_bytes": 2}}, "Af8=", "|V2", "Af8="),
        ({"name": "null_terminated_bytes", "configuration": {"length_bytes": 3}}, "YWI=", "|S3", "YWI="),
        ({"name": "fixed_length_utf32", "configuration": {"length_bytes": 8}}, "\u00e9", "<U2", "\u00e9"),
        ({"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 25}}, "NaT", "<M8[25s]", -(2**63)),
        ({"name": "numpy.timedelta64", "configuration": {"unit": "D", "scale_factor": 1}}, -3, "<m8[D]", -3),
        (STRUCT, {"a": 1, "b": "0x40000000"}, [["a", "<i2"], ["b", "<f4"]], "AQAAAABA"),
        (STRUCT, {"a": 1}, [["a", "<i2"], ["b", "<f4"]], "AQAAAAAA"),
        (STRUCT, "AQAAAABA", [["a", "<i2"], ["b", "<f4"]], "AQAAAABA"),
    ],
)
def test_every_data_type_has_its_dtype_and_its_fill_value(data_type, value, dtype, fill):
    done = v3.array_v3_to_v2(changed(data_type=data_type, fill_value=value))
    assert (done.document["dtype"], done.document["fill_value"]) == (dtype, fill)


def test_a_group_both_ways():
    translation = v3.group_v2_to_v3({"a": float("nan")})
    assert translation.notes == [
        'attribute "a" holds a bare NaN or Infinity, which readers not written in Python may refuse'
    ]
    done = v3.group_v3_to_v2(translation.document | {"consolidated_metadata": None})
    assert done.document == {"zarr_format": 2}
    assert list(done.attrs) == ["a"]
    assert v3.group_v3_to_v2(translation.document | {"x": 1}).problems == ["member 'x', which must be understood"]
    with pytest.raises(MetadataError, match="is 'array', and 'group' is expected"):
        v3.group_v3_to_v2(ARRAY)


def test_dimension_names_that_leave_some_out_are_noted():
    done = v3.array_v3_to_v2(changed(dimension_names=["y", None]))
    assert "_ARRAY_DIMENSIONS" not in done.attrs
    assert done.notes == ["dimension_names ['y', None] were left out: _ARRAY_DIMENSIONS names all axes or none"]
    assert v3.array_v3_to_v2(changed(dimension_names=[None, None])).notes == []


KINDS = ["<f4", ">i2", "|b1", "<c16", "<M8[s]", "S4", "<U3", "string", "struct"]


# zarr 3.1.6 cannot read transposed strings that it wrote itself (3.4.2 can), so they prove nothing here.
@pytest.mark.parametrize(
    ("dtype", "order"), [(dtype, order) for dtype in KINDS for order in "CF" if (dtype, order) != ("string", "F")]
)
def test_what_zarr_3_writes_is_decoded_under_the_version_2_description(dtype, order):
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    data = np.arange(24).reshape(4, 6)
    if dtype == "string":
        data = data.astype(str).astype(object)
    elif dtype == "struct":
        data = data.astype([("a", "<i4"), ("b", "S2")])
    else:
        data = data.astype(dtype)
    store: dict = {}
    filters = [zarr.codecs.TransposeCodec(order=(1, 0))] if order == "F" else "auto"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            zarr.storage.MemoryStore(store),
            shape=(4, 6),
            chunks=(2, 3),
            dtype=str if dtype == "string" else data.dtype,
            filters=filters,
        )
        array[...] = data
    document = documents.loads(store["zarr.json"].to_bytes(), "zarr.json")
    done = v3.array_v3_to_v2(document)
    meta = v2.check_array(done.document)
    assert (meta.order, meta.chunks, meta.separator) == (order, (2, 3), "/")
    name = chunk_keys_of_v3(document).name((1, 1))
    assert decode_chunk(store[name].to_bytes(), meta).tolist() == data[2:, 3:].tolist()
    again = json.loads(documents.dumps(v3.array_v2_to_v3(meta, chunk_keys="default").document))
    ours = {member: again[member] for member in document if member in again}
    theirs = {member: value for member, value in document.items() if member in again}
    # zarr names no byte order for a structure, and for others the machine's own.
    if dtype != "struct":
        assert ours == theirs


@pytest.mark.parametrize("peer", ["z34"])
def test_no_document_that_zarr_3_4_refuses_is_taken_for_a_good_one(peer):
    from pathlib import Path

    from tests.metadata import v3_variants
    from tests.support import peers
    from zarrstore.metadata import v3rules

    variants = v3_variants.variants()
    refused = peers.run(peer, Path(v3_variants.__file__))
    assert len(variants) > 200
    assert len(refused) > 100
    # A group with an unknown member, which zarr 3.1 refuses and 3.4 does not, is a good one here too.
    assert [name for name in refused if not v3rules.reasons(variants[name])] == []
    stricter = [name for name in variants if v3rules.reasons(variants[name]) and name not in refused]
    assert len(stricter) < 20, stricter


ARRAY_FILTERS = [
    ("int32", [("delta", {"dtype": "<i4", "astype": "<i2"})]),
    ("int32", [("delta", {"dtype": "<i4"})]),
    ("float64", [("fixedscaleoffset", {"dtype": "<f8", "astype": "<i4", "offset": 0, "scale": 10})]),
    ("float64", [("quantize", {"dtype": "<f8", "digits": 3})]),
    ("float64", [("astype", {"encode_dtype": "<f4", "decode_dtype": "<f8"})]),
    (
        "float64",
        [
            ("fixedscaleoffset", {"dtype": "<f8", "astype": "<i4", "offset": 0, "scale": 10}),
            ("delta", {"dtype": "<i4"}),
        ],
    ),
]


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    """Return a folder of arrays, ``NUMBER-ENDIAN`` each, that one process of zarr 3.4 wrote through `ARRAY_FILTERS`."""
    from tests.support import peers

    folder = tmp_path_factory.mktemp("filtered")
    for number, (data_type, filters) in enumerate(ARRAY_FILTERS):
        for endian in ("little", "big"):
            codecs = [{"name": f"numcodecs.{name}", "configuration": configuration} for name, configuration in filters]
            codecs.append({"name": "bytes", "configuration": {"endian": endian}})
            document = {
                "zarr_format": 3,
                "node_type": "array",
                "shape": [7, 5],
                "data_type": data_type,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [7, 5]}},
                "chunk_key_encoding": {"name": "default"},
                "fill_value": 0,
                "codecs": codecs,
                "attributes": {},
            }
            (folder / f"{number}-{endian}").mkdir()
            (folder / f"{number}-{endian}" / "zarr.json").write_text(json.dumps(document))
    script = """
        import pathlib, sys, warnings, numpy as np, zarr
        warnings.simplefilter("ignore")
        for path in pathlib.Path(sys.argv[1]).iterdir():
            array = zarr.open_array(path, mode="r+")
            array[...] = (np.arange(35) * 3).reshape(7, 5)
            assert zarr.open_array(path, mode="r")[...].tolist() == (np.arange(35) * 3).reshape(7, 5).tolist()
    """
    peers.run("z34", script, folder)
    return folder


@pytest.mark.needs_peer("z34")
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("number", range(len(ARRAY_FILTERS)))
def test_array_filters_before_bytes_of_any_order_are_decoded_as_zarr_3_4_wrote_them(filtered, number, endian):
    folder = filtered / f"{number}-{endian}"
    translation = v3.array_v3_to_v2(json.loads((folder / "zarr.json").read_text()))
    chunk = decode_chunk((folder / "c/0/0").read_bytes(), v2.check_array(translation.document))
    assert chunk.tolist() == (np.arange(35) * 3).reshape(7, 5).tolist()


@pytest.mark.parametrize(
    ("orders", "order"),
    [([[1, 0]], "F"), ([[1, 0], [1, 0]], "C"), ([[0, 1]], "C"), ([[1, 0], [0, 1], [1, 0], [1, 0]], "F"), ([], "C")],
)
def test_several_transpositions_are_taken_together(orders, order):
    codecs = [{"name": "transpose", "configuration": {"order": one}} for one in orders]
    codecs.append({"name": "bytes", "configuration": {"endian": "little"}})
    done = v3.array_v3_to_v2(
        changed(codecs=codecs, shape=[4, 6], chunk_grid={"name": "regular", "configuration": {"chunk_shape": [2, 3]}})
    )
    assert done.document["order"] == order


def test_what_would_be_lost_in_version_2_is_named():
    document = v3.array_v2_to_v3(v2.build_array((4, 4), (2, 2), "<f4", fill_value=0)).document
    assert v3.losses(document) == []
    for change, word in (
        ({"dimension_names": [None, "x"]}, "dimension_names"),
        ({"fill_value": "0x7fc00001"}, "fill_value"),
        ({"extra": {"must_understand": False}}, "extra"),
    ):
        assert word in v3.losses({**document, **change})[0]


@each_of(
    ("data_type", "value", "shown"),
    [
        ("float32", "0x7fc00001", "NaN"),
        ("float64", "0x7ff8000000000123", "NaN"),
        ("complex64", ["0x7fc00001", 0.0], ["NaN", 0.0]),
        ("float32", "0x7fc00000", None),
        ("float32", "NaN", None),
        ("float32", "0x7f800000", None),
        ("complex128", ["NaN", "-Infinity"], None),
    ],
    ids=str,
)
def test_a_nan_whose_bits_version_2_cannot_say_is_noted(data_type, value, shown):
    done = v3.array_v3_to_v2(changed(data_type=data_type, fill_value=value))
    expected = [f"fill_value {value!r} becomes {shown!r}: version 2 has only one NaN"] if shown is not None else []
    assert (done.problems, done.notes) == ([], expected)
