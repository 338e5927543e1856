from __future__ import annotations

import pytest

from zarrstore import DictStore
from zarrstore.errors import ConflictError, InvalidKeyError, InvalidPathError, RenameError
from zarrstore.testing import StoreConformance
from zarrstore.wrappers.prefix import PrefixStore

from .shelf import Shelf


class TestPrefixOverHierarchical(StoreConformance):
    examples = 10

    def make_store(self, tmp_path):
        return PrefixStore(Shelf(), "a/b")


def whole():
    # "exp" is a directory, a value, the beginning of other names, and the letters of some.
    return {"exp": b"a value", "exp/x": b"1", "exp/pxe/x": b"22", "experiment/x": b"3", "exp.x": b"4", "pxe": b"5"}


def test_a_subtree_is_a_store_and_its_neighbours_are_none_of_it():
    inner = whole()
    part = PrefixStore(inner, "/exp//")
    assert dict(part) == {"x": b"1", "pxe/x": b"22"}
    assert (len(part), part.listdir(), part.getsize(), part.getsize("pxe")) == (2, ["pxe", "x"], 1, 2)
    part.clear()
    assert inner == {"exp": b"a value", "experiment/x": b"3", "exp.x": b"4", "pxe": b"5"}


def test_renames_and_removals_stay_below():
    inner = whole()
    part = PrefixStore(inner, "exp")
    part.rename("pxe", "exp")
    part.rmdir("x")
    assert inner == {**{k: v for k, v in whole().items() if k != "exp/pxe/x"}, "exp/exp/x": b"22"}
    with pytest.raises(RenameError):
        part.rename("", "elsewhere")
    with pytest.raises(InvalidPathError):
        part.rename("x", "../out")
    with pytest.raises(InvalidKeyError):
        part["../out"] = b"1"


def test_the_root_is_the_whole():
    inner = whole()
    store = PrefixStore(inner, "")
    assert dict(store) == inner
    store.clear()
    assert inner == {}


def test_a_part_of_a_part_is_a_part():
    inner = DictStore()
    PrefixStore(PrefixStore(inner, "a"), "b/c")["d"] = b"1"
    assert dict(inner) == {"a/b/c/d": b"1"}


def test_a_path_that_no_key_can_have_is_refused_at_once():
    for path, error in (("a/../b", InvalidPathError), ("a\0", InvalidKeyError), ("a/.__zarrstore/b", InvalidKeyError)):
        with pytest.raises(error):
            PrefixStore({}, path)


def test_equal_parts_of_equal_stores_are_equal():
    inner = DictStore()
    assert PrefixStore(inner, "a") == PrefixStore(inner, "a/")
    assert PrefixStore(inner, "a") != PrefixStore(inner, "b")


def test_below_a_value_of_a_hierarchical_store_nothing_can_be_set():
    inner = Shelf()
    inner["a"] = b"1"
    with pytest.raises(ConflictError):
        PrefixStore(inner, "a/b")["c"] = b"2"
    assert dict(inner) == {"a": b"1"}
