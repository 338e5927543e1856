"""The reader of documents has one error, whatever it is given."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.cases import each_of
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_what_is_written_is_read_again(document):
    assert documents.loads(documents.dumps(document), ".zattrs") == document


def test_documents_are_ascii_sorted_and_indented_by_four():
    document = {"b": [1, "\u017e"], "a": {"x": float("nan")}, "c": [], "d": np.int16(3), "e": np.float32(0.5)}
    assert documents.dumps(document).decode("ascii").splitlines() == [
        "{",
        '    "a": {',
        '        "x": NaN',
        "    },",
        '    "b": [',
        "        1,",
        '        "\\u017e"',
        "    ],",
        '    "c": [],',
        '    "d": 3,',
        '    "e": 0.5',
        "}",
    ]


def test_what_json_cannot_say_is_a_type_error():
    with pytest.raises(TypeError, match="bytes"):
        documents.dumps({"a": b"x"})


@each_of(
    ("data", "member", "reason"),
    [
        (b"", None, "is not JSON"),
        (b"{", None, "is not JSON"),
        (b'{"a": 1} x', None, "is not JSON"),
        (b"{'a': 1}", None, "is not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', None, "is not JSON"),
        ('{"a": 1}'.encode("utf-16"), None, "is not UTF-8 at byte 0"),
        (b'{"a": "\xff"}', None, "is not UTF-8 at byte 7"),
        (b"[]", None, "is a JSON array, not an object"),
        (b'"text"', None, "is a JSON string, not an object"),
        (b"null", None, "is a JSON null, not an object"),
        (b"true", None, "is a JSON boolean, not an object"),
        (b"1.5", None, "is a JSON number, not an object"),
        (b"NaN", None, "is a JSON number, not an object"),
        (b'{"a": 1, "b": 2, "a": 1}', "a", "stands there twice"),
        (b'{"a": {"b": 1, "b": 2}}', "b", "stands there twice"),
        (b'{"a": %s}' % (b"1" * 5000), None, "cannot be parsed"),
    ],
)
def test_what_is_no_document_is_one_error_that_names_the_key(data, member, reason):
    with pytest.raises(MetadataError) as caught:
        documents.loads(data, "foo/.zattrs")
    assert (caught.value.key, caught.value.member) == ("foo/.zattrs", member)
    assert caught.value.reason.startswith(reason)


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_nesting_is_limited_and_the_limit_is_exact():
    assert documents.loads(nested(documents.MAX_DEPTH), "x")["a"]
    with pytest.raises(MetadataError, match="is nested deeper than 128 levels"):
        documents.loads(nested(documents.MAX_DEPTH + 1), "x")


@pytest.mark.parametrize("data", [nested(10_000), b'{"a":' * 10_000, b"[" * 10_000, b'[{"a":' * 10_000])
def test_ten_thousand_levels_are_refused_and_are_no_recursion_error(data):
    with pytest.raises(MetadataError, match="is nested deeper"):
        documents.loads(data, "x")


def test_brackets_in_strings_do_not_count_and_shallow_ones_may_be_many():
    brackets = "[{" * 500 + '\\"' + "[" * 500
    document = {"text": brackets, brackets: 1, "many": [[] for _ in range(1000)]}
    assert documents.loads(documents.dumps(document), "x") == document


@pytest.mark.parametrize("data", [b'{"' + b'\\"' * 10**6, b'"' * 10**6, b'{"a": "' + b"\\" * 10**6, b"[]" * 10**6])
def test_a_hostile_document_of_megabytes_is_refused(data):
    # Brackets make the depth be looked at; a pattern that backtracks would run into the time limit of the suite.
    with pytest.raises(MetadataError):
        documents.loads(data + b"[" * 200 + b"]" * 200, "x")


def test_a_document_beyond_the_limit_is_not_even_decoded(monkeypatch):
    monkeypatch.setattr(documents, "MAX_NBYTES", 10)
    with pytest.raises(MetadataError, match="has 11 bytes, and 10 are allowed"):
        documents.loads(b"\xff" * 11, "x")


def test_bare_constants_are_let_through_and_refused_where_that_is_asked():
    document = documents.loads(b'{"a": [1, {"b": -Infinity}], "c": NaN}', ".zattrs")
    assert document["a"] == [1, {"b": -np.inf}]
    with pytest.raises(MetadataError) as caught:
        documents.refuse_constants(document, ".zattrs")
    assert caught.value.member == "a"
    with pytest.raises(MetadataError):
        documents.refuse_constants({"c": documents.loads(b'{"c": 1e999}', "x")}, "x")
    documents.refuse_constants({"a": [1.0, "NaN", None]}, "x")


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ truefalsn019.eE-', max_size=200).map(str.encode))
@example(json.dumps({"a": [1]}).encode()[:-1])
def test_any_bytes_give_a_dict_or_a_metadata_error(data):
    with contextlib.suppress(MetadataError):
        assert isinstance(documents.loads(data, "x"), dict)
