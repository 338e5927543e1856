"""Every member of a version 2 document is judged, and what is wrong is named."""

from __future__ import annotations

import contextlib
import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import each_of
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents, v1, v2, v3

GOOD = {
    "zarr_format": 2,
    "shape": [10, 20],
    "chunks": [5, 7],
    "dtype": "<f8",
    "compressor": {"id": "zlib", "level": 1},
    "fill_value": 0.0,
    "order": "C",
    "filters": None,
}


def encoded(**changes):
    members = GOOD | changes
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


@each_of(
    ("changes", "member", "reason"),
    [
        ({"zarr_format": ...}, "zarr_format", "is missing"),
        ({"zarr_format": 3}, "zarr_format", "is 3, and 2 is expected"),
        ({"zarr_format": 2.0}, "zarr_format", "is 2.0, and 2 is expected"),
        ({"zarr_format": "2"}, "zarr_format", "is '2', and 2 is expected"),
        *(({member: ...}, member, "is missing") for member in GOOD),
        ({"shape": 10}, "shape", "is 10, and a list of int is expected"),
        ({"shape": "10"}, "shape", "is '10', and a list of int is expected"),
        ({"shape": None}, "shape", "is None, and a list of int is expected"),
        ({"shape": [10, float("inf")]}, "shape", "holds a bare NaN or Infinity"),
        ({"shape": [float("nan"), 1]}, "shape", "holds a bare NaN or Infinity"),
        ({"shape": [-5, 10]}, "shape", "holds -5, and 0 to 2**63 - 1 is possible"),
        ({"shape": [True, 10]}, "shape", "holds True, and an int is expected"),
        ({"shape": [10.0, 10]}, "shape", "holds 10.0, and an int is expected"),
        ({"shape": [10**30, 10]}, "shape", f"holds {10**30}, and 0 to 2**63 - 1 is possible"),
        ({"shape": [[10], 10]}, "shape", "holds [10], and an int is expected"),
        ({"shape": [1] * 65}, "shape", "has 65 entries, and at most 64 axes are possible"),
        ({"chunks": [0, 5]}, "chunks", "holds 0, and 1 to 2**63 - 1 is possible"),
        ({"chunks": [False, 5]}, "chunks", "holds False, and an int is expected"),
        ({"chunks": True}, "chunks", "is True, and a list of int is expected"),
        ({"chunks": [5]}, "chunks", 'has 1 entry, "shape" has 2'),
        ({"chunks": [5, 5, 5]}, "chunks", 'has 3 entries, "shape" has 2'),
        ({"dtype": "<q9"}, "dtype", "is '<q9', which NumPy does not know"),
        ({"dtype": None}, "dtype", "is None, and a string or a list of fields is expected"),
        ({"dtype": ""}, "dtype", "is empty"),
        ({"dtype": {}}, "dtype", "is {}, and a string or a list of fields is expected"),
        ({"dtype": []}, "dtype", "is [], and a string or a list of fields is expected"),
        ({"dtype": "(2,3)<i4"}, "dtype", "is '(2,3)<i4': the axes of a subarray belong into shape"),
        ({"dtype": [["a"]]}, "dtype", "has the field ['a']"),
        ({"dtype": [["a", "<i4"], ["a", "<i4"]]}, "dtype", "is [['a', '<i4'], ['a', '<i4']], which NumPy"),
        ({"dtype": [["a", "<i4", [10**12]]]}, "dtype", "is [['a', '<i4', [1000000000000]]], which NumPy"),
        ({"dtype": [[1, "<i4"]]}, "dtype", "has a field named 1"),
        ({"dtype": [["a", None]]}, "dtype", "has the field ['a', None]"),
        ({"order": "K"}, "order", "is 'K', and 'C' or 'F' is expected"),
        ({"order": "A"}, "order", "is 'A', and 'C' or 'F' is expected"),
        ({"dtype": "<M8"}, "dtype", "is '<M8', which has no unit"),
        ({"dtype": "|O"}, "filters", "name no codec"),
        ({"order": ["C"]}, "order", "is ['C'], and 'C' or 'F' is expected"),
        ({"dimension_separator": "-"}, "dimension_separator", "is '-', and '.' or '/' is expected"),
        ({"dimension_separator": ["/"]}, "dimension_separator", "is ['/'], and '.' or '/' is expected"),
        ({"compressor": "zlib"}, "compressor", "holds 'zlib', and a codec has an \"id\""),
        ({"compressor": {}}, "compressor", 'holds {}, and a codec has an "id"'),
        ({"compressor": {"id": 1}}, "compressor", "holds {'id': 1}, and a codec has an \"id\""),
        ({"filters": {"id": "delta"}}, "filters", "is {'id': 'delta'}, and null or a list is expected"),
        ({"filters": ["delta"]}, "filters", "holds 'delta', and a codec has an \"id\""),
        ({"fill_value": "zero"}, "fill_value", "is 'zero', which is no value of dtype float64"),
        ({"fill_value": [1]}, "fill_value", "is [1], which is no value of dtype float64"),
        ({"fill_value": float("nan")}, "fill_value", "holds a bare NaN or Infinity"),
        ({"dtype": "|u1", "fill_value": 300}, "fill_value", "is 300, which is no value of dtype uint8"),
        ({"dtype": "<i4", "fill_value": 1.5}, "fill_value", "is 1.5, which is no value of dtype int32"),
        ({"dtype": "<i4", "fill_value": "x"}, "fill_value", "is 'x', which is no value of dtype int32"),
        ({"dtype": "<i8", "fill_value": 2**63}, "fill_value", f"is {2**63}, which is no value of dtype int64"),
        ({"dtype": "<c8", "fill_value": 1}, "fill_value", "is 1, which is no value of dtype complex64"),
        ({"dtype": "|V2", "fill_value": "!!"}, "fill_value", "is '!!', which is no value of dtype"),
        ({"dtype": "|V2", "fill_value": "AAAA"}, "fill_value", "is 'AAAA', which is no value of dtype"),
        ({"dtype": "|S2", "fill_value": {}}, "fill_value", "is {}, which is no value of dtype |S2"),
        ({"dtype": "<U2", "fill_value": [5]}, "fill_value", "is [5], which is no value of dtype <U2"),
        ({"dtype": "<M8[s]", "fill_value": "now-ish"}, "fill_value", "is 'now-ish', which is no value of dtype"),
    ],
)
def test_a_bad_member_is_named_with_the_reason(changes, member, reason):
    with pytest.raises(MetadataError) as caught:
        v2.decode_array(encoded(**changes), "foo/.zarray")
    assert (caught.value.key, caught.value.member) == ("foo/.zarray", member)
    assert caught.value.reason.startswith(reason)


@each_of(
    ("raw_fill", "dtype", "fill"),
    [
        (None, "<f8", None),
        ("NaN", "<f4", np.float32("nan")),
        ("-Infinity", ">f8", np.float64("-inf")),
        (1, "<f8", np.float64(1)),
        (["NaN", 1], "<c8", np.complex64(complex("nan+1j"))),
        (0, "|b1", np.False_),
        (5.0, "<i4", np.int32(5)),
        (2**64 - 1, "<u8", np.uint64(2**64 - 1)),
        ("YWJj", "|S6", np.bytes_(b"abc")),
        ("", "|S6", np.bytes_(b"")),
        (0, "|S6", np.bytes_(b"0")),  # as zarr 2 reads it
        ("a!", "|S6", np.bytes_(b"a!")),
        ("\u00e9", "<U4", np.str_("\u00e9")),
        (0, "<U4", np.str_("0")),
        (-1, "<M8[s]", np.datetime64(-1, "s")),
        (2**64 - 1, "<M8[s]", np.datetime64(-1, "s")),  # as zarr 2.2.0 wrote it
        (2**63, ">m8[D]", np.timedelta64("NaT", "D")),
        ("NaT", "<M8[ns]", np.datetime64("NaT", "ns")),
        ("AQI=", "|V2", np.void(b"\1\2")),
        ({"any": ["thing"]}, "|O", {"any": ["thing"]}),
    ],
)
def test_fill_values_of_every_kind_are_read(raw_fill, dtype, fill):
    filters = [{"id": "json2"}] if dtype == "|O" else None
    found = v2.decode_array(encoded(fill_value=raw_fill, dtype=dtype, filters=filters)).numpy_fill
    assert type(found) is type(fill)
    assert repr(found) == repr(fill)


def test_a_structure_keeps_its_fields_shapes_and_titles():
    dtype = [["a", ">i2"], ["b", "<f4", [2, 3]], ["c", [["d", "|S3"]]], [["title", "e"], "|b1"], ["", "|V2"]]
    meta = v2.decode_array(encoded(dtype=dtype, fill_value=None))
    assert meta.dtype == dtype
    fields = [("a", ">i2"), ("b", "<f4", (2, 3)), ("c", [("d", "S3")]), (("title", "e"), "?"), ("", "V2")]
    assert meta.numpy_dtype == np.dtype(fields)


def test_members_that_nobody_knows_are_kept():
    meta = v2.decode_array(encoded(dimension_separator="/", author={"name": "N."}))
    assert meta.extra == {"author": {"name": "N."}}
    assert meta.document() == GOOD | {"dimension_separator": "/", "author": {"name": "N."}}
    assert v2.decode_array(v2.encode_array(meta)) == meta


def test_a_null_separator_is_a_dot_and_is_not_written():
    meta = v2.decode_array(encoded(dimension_separator=None))
    assert meta.separator == "."
    assert "dimension_separator" not in meta.document()


@pytest.mark.parametrize(
    ("data", "member"),
    [(b"{}", "zarr_format"), (b'{"zarr_format": 1}', "zarr_format"), (b'{"zarr_format": 2, "x": NaN}', "x")],
)
def test_a_group_is_judged_too(data, member):
    with pytest.raises(MetadataError) as caught:
        v2.decode_group(data, "foo/.zgroup")
    assert (caught.value.key, caught.value.member) == ("foo/.zgroup", member)


@each_of(
    ("parameters", "message"),
    [
        ({"shape": (-1,)}, "shape holds -1"),
        ({"shape": 10, "chunks": 0}, "chunks holds 0"),
        ({"shape": (1,) * 65}, "shape has 65 axes"),
        ({"shape": 10, "order": "K"}, "order 'K'"),
        ({"shape": 10, "dimension_separator": "-"}, "dimension_separator '-'"),
        ({"shape": 10, "compressor": "zlib"}, "compressor 'zlib' is no codec"),
        ({"shape": 10, "compressor": 5}, "compressor 5 is no codec"),
        ({"shape": 10, "compressor": {"level": 1}}, 'lacks an "id"'),
        ({"shape": 10, "compressor": {"id": "x", "y": b"z"}}, "which JSON cannot represent"),
        ({"shape": 10, "filters": ["delta"]}, "filter 'delta' is no codec"),
        ({"shape": 10, "dtype": object}, "needs an object_codec"),
        ({"shape": 10, "dtype": [("a", "O")]}, "needs an object_codec"),
        ({"shape": 10, "dtype": "array"}, "write 'str', 'bytes' or 'array:<dtype>'"),
        ({"shape": 10, "dtype": "str:x"}, "write 'str', 'bytes' or 'array:<dtype>'"),
        ({"shape": 10, "dtype": "M8"}, r"dtype '<M8' has no unit: write one, such as '<M8\[ns\]'"),
        ({"shape": 10, "dtype": "u1", "fill_value": 300}, "fill_value 300 is no value of dtype uint8"),
        ({"shape": 10, "dtype": "i4", "fill_value": [1, 2]}, r"fill_value \[1, 2\] is no value of dtype int32"),
        ({"shape": 10, "dtype": "i4", "fill_value": np.zeros(2)}, "fill_value array.* is no value of dtype int32"),
        ({"shape": 10, "dtype": "U3", "fill_value": b"a"}, "fill_value b'a' is no value of dtype <U3"),
        ({"shape": 10, "dtype": "V2", "fill_value": b"abc"}, "it has 3 bytes, an item has 2"),
        ({"shape": 10, "dtype": str, "fill_value": b"a"}, "these parameters give no document"),
        ({"shape": 10, "dtype": str, "fill_value": float("nan")}, "bare NaN or Infinity"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named_before_anything_is_written(parameters, message):
    with pytest.raises(ValueError, match=message):
        v2.build_array(**parameters)


def test_any_object_with_get_config_is_a_codec():
    class Mine:
        def get_config(self):
            return {"id": "mine", "numbers": (np.int64(1), 2.5)}

    meta = v2.build_array(shape=10, dtype="i4", compressor=Mine(), filters=[Mine()])
    assert meta.compressor == {"id": "mine", "numbers": [1, 2.5]}
    assert meta.filters == [meta.compressor]


def test_a_needless_object_codec_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="only needed for object arrays"):
        meta = v2.build_array(shape=10, dtype="i4", object_codec={"id": "json2"})
    assert meta.filters is None


def test_objects_with_filters_alone_take_the_first_for_the_codec_with_a_warning():
    with pytest.warns(FutureWarning, match="pass it as object_codec"):
        meta = v2.build_array(shape=10, dtype=object, filters=[{"id": "json2"}])
    assert meta.filters == [{"id": "json2"}]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["<f8", "|O", "NaN", "C", "/", "", "AAAA", "i4,f8", "(1,", "=M8[25s]"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)
V1 = {
    "zarr_format": 1,
    "shape": [10],
    "chunks": [5],
    "dtype": "<i4",
    "compression": "lzma",
    "compression_opts": {"format": 1, "check": 0, "preset": 1, "filters": None},
    "fill_value": 0,
    "order": "C",
}
FILTERED = GOOD | {
    "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": -1, "blocksize": 0},
    "filters": [
        {"id": "fixedscaleoffset", "dtype": "<f8", "astype": "<i4", "offset": 0, "scale": 10},
        {"id": "quantize", "dtype": "<i4", "astype": "<i4", "digits": 2},
        {"id": "shuffle", "elementsize": 4},
    ],
}
V3 = v3.array_v2_to_v3(
    v2.build_array((4, 6), (2, 3), ">f4", fill_value=0, order="F", filters=[{"id": "delta", "dtype": ">f4"}]),
    {"_ARRAY_DIMENSIONS": ["y", "x"]},
).document


def places(document, path=()):
    """Yield the path of every value in a document."""
    for name, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from places(value, (*path, name))


def mutate(document, path, value):
    mutant = copy.deepcopy(document)
    spot = mutant
    for name in path[:-1]:
        spot = spot[name]
    if value is ...:
        del spot[path[-1]]
    else:
        spot[path[-1]] = value
    return mutant


@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_a_mutated_document_gives_a_description_or_a_metadata_error(data):
    document, read = data.draw(
        st.sampled_from(
            [
                (GOOD, v2.decode_array),
                (
                    GOOD | {"dtype": [["a", "<i4"], ["b", "|S3", [2]]], "fill_value": "AAAAAAAAAAAAAA=="},
                    v2.decode_array,
                ),
                (GOOD | {"dtype": "<M8[ns]", "fill_value": 5}, v2.decode_array),
                (GOOD | {"dtype": "<c8", "fill_value": [0, 1]}, v2.decode_array),
                (FILTERED, v2.decode_array),
                (FILTERED | {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "crc32"}]}, v2.decode_array),
                (V1, v1.array_to_v2),
                (V3, lambda raw, key: v3.array_v3_to_v2(documents.loads(raw, key), key)),
            ]
        ),
        label="document",
    )
    paths = list(places(document))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(paths))
        with contextlib.suppress(KeyError, IndexError, TypeError):
            document = mutate(document, path, data.draw(VALUES | st.just(...)))
    raw = json.dumps(document).encode()
    try:
        found = read(raw, "foo/key")
    except MetadataError as exc:
        assert exc.key == "foo/key"  # noqa: PT017
        return
    if isinstance(found, v2.ArrayMeta):
        # What was accepted can be used: nothing in it raises later.
        assert v2.decode_array(v2.encode_array(found)) == found
        assert found.n_chunks >= 0
        assert found.numpy_dtype is not None
        assert isinstance(v3.array_v2_to_v3(found), v3.Translation)
