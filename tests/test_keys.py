"""The judge of keys and the algebra of paths: pure, so this is where they are proven, before any store uses them."""

from __future__ import annotations

import pickle
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import each_of
from zarrstore import keys as k
from zarrstore.chunknames import chunk_coords, chunk_name, flatten, nest
from zarrstore.errors import InvalidKeyError, InvalidPathError
from zarrstore.testing import HOSTILE_KEYS, TREE

NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=8)
NAMES = NAME.filter(lambda name: name not in (".", "..") and not name.startswith(k.RESERVED))
KEYS = st.lists(NAMES, min_size=1, max_size=5).map("/".join).filter(k.is_key)
PATHS = st.one_of(st.just(""), KEYS)
ANYTHING = st.text(alphabet=st.sampled_from("ab./\\\0:~ é\ud800"), max_size=12)


def test_there_are_enough_hostile_keys() -> None:
    assert len({repr(key) for key in HOSTILE_KEYS}) >= 200


@each_of("key", HOSTILE_KEYS, ids=lambda key: repr(key)[:40])
def test_a_hostile_key_is_refused_with_its_reason(key: object) -> None:
    assert not k.is_key(key)
    with pytest.raises(InvalidKeyError) as caught:
        k.check_key(key)
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == f"invalid key {key!r}: {caught.value.reason}"
    assert str(pickle.loads(pickle.dumps(InvalidKeyError("x", "y")))) == str(InvalidKeyError("x", "y"))


@each_of(
    ("key", "reason"),
    [
        ("", "a key is not empty"),
        ("/", "a key does not begin with '/'"),
        ("/a", "a key does not begin with '/'"),
        ("a/", "a key does not end with '/'"),
        ("a//b", "'' is not a segment"),
        ("../x", "'..' is not a segment"),
        ("a/./b", "'.' is not a segment"),
        ("a\0b", "NUL is not allowed"),
        ("a\\b", "a backslash is not allowed, segments are parted by '/'"),
        ("C:/x", "'C:' is a drive letter"),
        ("\ud800", "a lone surrogate is not text"),
        (b"a", "a key is a str, not bytes"),
        (3, "a key is a str, not int"),
        ([], "a key is a str, not list"),
    ],
)
def test_the_reason_says_what_is_wrong(key: object, reason: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        k.check_key(key)
    assert caught.value.reason == reason


@each_of("key", [*TREE, "...", "a/...", "..a", "a..", ".a", "a.", "x" * 10_000, "C", "1:2", "é:x", "~"])
def test_a_good_key_comes_back_unchanged(key: str) -> None:
    assert k.check_key(key) == key
    assert k.check_key(key) == key  # now from the memo


def test_a_subclass_of_str_comes_back_as_plain_text() -> None:
    class Sly(str):
        def __str__(self) -> str:
            return "../x"

    assert type(k.check_key(Sly("a/sly"))) is str
    assert k.check_key(Sly("a/sly")) == "a/sly"
    with pytest.raises(InvalidKeyError):
        k.check_key(Sly("../y"))


def test_the_memo_is_bounded_and_remembers_no_refusal() -> None:
    for n in range(70_000):
        k.check_key(f"memo/{n}")
    k.check_key("long/" + "x" * 1000)
    assert len(k.judged) <= 1 << 16
    assert all(len(key) <= 512 for key in k.judged)
    with pytest.raises(InvalidKeyError):
        k.check_key("..")
    assert ".." not in k.judged


@given(ANYTHING)
def test_the_judge_and_a_naive_reading_of_the_rules_agree(text: str) -> None:
    parts = text.split("/")
    try:
        text.encode()
        encodes = True
    except UnicodeEncodeError:
        encodes = False
    good = (
        encodes
        and not any(part in ("", ".", "..") for part in parts)
        and not any(c in text for c in "\0\\")
        and not (len(text) > 1 and text[1] == ":" and text[0] in string.ascii_letters)
    )
    assert k.is_key(text) == good


@given(KEYS)
def test_a_key_is_a_normal_path(key: str) -> None:
    assert k.normalize_path(key) == key


@given(ANYTHING)
def test_a_path_is_normal_once_normalised_or_refused(text: str) -> None:
    try:
        path = k.normalize_path(text)
    except InvalidPathError:
        parts = text.replace("\\", "/").split("/")
        assert "." in parts or ".." in parts
        return
    assert k.normalize_path(path) == path
    assert not path.startswith("/")
    assert not path.endswith("/")
    assert "//" not in path


@each_of(
    ("given_", "normal"),
    [(None, ""), ("", ""), ("/", ""), ("//", ""), ("/a/", "a"), ("a//b", "a/b"), ("a\\b", "a/b"), (b"a/b", "a/b")],
)
def test_paths_are_spelled_as_zarr_2_spells_them(given_: object, normal: str) -> None:
    assert k.normalize_path(given_) == normal


@each_of("path", [".", "..", "a/..", "../a", "a/./b", "..\\a", b"a/..", "é".encode()])
def test_a_path_that_leads_elsewhere_is_refused(path: object) -> None:
    with pytest.raises(InvalidPathError):
        k.normalize_path(path)


@given(PATHS, PATHS)
def test_join_and_the_ways_apart(path: str, other: str) -> None:
    joined = k.join(path, other)
    assert k.segments(joined) == k.segments(path) + k.segments(other)
    assert k.join(k.parent(joined), k.name(joined)) == joined
    assert [k.join(*k.segments(joined)[:n]) for n in range(len(k.segments(joined)))] == list(k.parents(joined))


@given(PATHS, KEYS)
def test_what_is_joined_below_lies_below(path: str, rest: str) -> None:
    key = k.join(path, rest)
    assert k.is_below(key, path)
    assert key.startswith(k.prefix(path))
    assert k.child(key, path) == k.segments(rest)[0]
    assert k.children([key], path) == {k.segments(rest)[0]}
    assert not k.is_below(path + "x", path) or not path


@given(PATHS, KEYS, PATHS)
def test_replace_root_keeps_the_rest_of_the_key(source: str, rest: str, destination: str) -> None:
    moved = k.replace_root(k.join(source, rest), source, destination)
    assert moved == k.join(destination, rest)
    assert k.replace_root(moved, destination, source) == k.join(source, rest)


def test_replace_root_slices_and_never_strips() -> None:
    assert k.replace_root("uns/names", "uns", "b") == "b/names"
    assert k.replace_root("foo/oof/x", "foo", "dst") == "dst/oof/x"
    with pytest.raises(ValueError, match="does not lie below"):
        k.replace_root("foobar/x", "foo", "dst")


@given(st.lists(KEYS, max_size=8), PATHS)
def test_children_are_those_of_a_naive_listing(keys: list[str], path: str) -> None:
    start = k.segments(path)
    naive = {
        k.segments(key)[len(start)]
        for key in keys
        if k.segments(key)[: len(start)] == start and len(k.segments(key)) > len(start)
    }
    assert k.children(keys, path) == naive


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4), PATHS)
def test_chunk_names_go_to_nested_and_back(coords: list[int], array: str) -> None:
    flat = k.join(array, ".".join(map(str, coords)))
    nested = nest(flat)
    assert nested == k.join(array, "/".join(map(str, coords)))
    assert flatten(nested, array) == flat
    assert chunk_coords(flat, array) == tuple(coords)
    assert chunk_coords(nested, array, "/") == tuple(coords)
    assert chunk_coords(k.join(array, chunk_name(tuple(coords), "/")), array, "/") == tuple(coords)


@each_of("key", [".zarray", "foo/.zattrs", "v1.2/x", "a/1.x", "a/1..2", "a/.1", "a/1.", "²/x", "a/².³"])
def test_what_is_no_chunk_is_not_nested(key: str) -> None:
    assert nest(key) == key
    assert flatten(key, "a") == key
    assert chunk_coords(key, "a") is None


@given(st.lists(st.lists(st.integers(0, 300), min_size=2, max_size=2), max_size=20))
def test_natural_order_is_that_of_the_numbers(coords: list[list[int]]) -> None:
    names = [f"a/{i}.{j}" for i, j in coords]
    assert sorted(names, key=k.natural_order) == [f"a/{i}.{j}" for i, j in sorted(coords)]


@given(st.lists(KEYS, max_size=10))
def test_natural_order_takes_any_keys(keys: list[str]) -> None:
    assert sorted(sorted(keys, key=k.natural_order)) == sorted(keys)


def test_natural_order_takes_numbers_of_any_length():
    longer, longest = "1" + "0" * 5000, "2" + "0" * 5000
    names = [f"a/{name}" for name in ("x", "007", "7", "8", longer, longest)]
    assert sorted(random.Random(0).sample(names, len(names)), key=k.natural_order) == names
