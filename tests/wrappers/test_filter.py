from __future__ import annotations

import pytest

from zarrstore import DictStore
from zarrstore.errors import InvalidKeyError
from zarrstore.wrappers.filter import JUNK, FilterStore

JUNK_KEYS = {
    ".DS_Store": b"j",
    "a/.ds_store": b"j",
    "a/._0.0": b"j",
    "a/THUMBS.DB": b"j",
    "__MACOSX/a/._0.0": b"j",
    "a/0.0.0123456789abcdef0123456789abcdef.partial": b"j",
    "._dir/x/y": b"j",
}
#: Alike, and none of it junk: a wildcard that matched too much would hide data.
GENUINE = {
    ".zgroup": b"{}",
    "a/.zarray": b"{}",
    "a/0.0": b"1",
    "a/x.partial": b"22",
    "a/DS_Store": b"3",
    "a/.": None,
    "_/x": b"4",
    "my desktop.ini/x": b"5",
    "a/.DS_Store.bak": b"6",
    "a/.git2": b"7",
}
del GENUINE["a/."]


@pytest.fixture
def inner():
    return DictStore({**GENUINE, **JUNK_KEYS})


def test_junk_is_neither_listed_nor_read_nor_counted_and_nothing_else_is_missing(inner):
    store = FilterStore(inner)
    assert dict(store) == GENUINE
    assert len(store) == len(GENUINE)
    assert store.listdir() == [".zgroup", "_", "a", "my desktop.ini"]
    assert store.listdir("a") == sorted(key[2:] for key in GENUINE if key[:2] == "a/")
    assert store.listdir("._dir/x") == []
    assert store.getsize("a") == sum(len(value) for key, value in GENUINE.items() if key[:2] == "a/")
    assert store.getsize("._dir/x") == 0
    for key in JUNK_KEYS:
        assert key not in store
        assert store.get(key) is None
        with pytest.raises(KeyError):
            store.getrange(key, 0)
        with pytest.raises(KeyError):
            store.getsuffix(key, 1)
        with pytest.raises(KeyError):
            del store[key]
    assert dict(store.getitems([*JUNK_KEYS, *GENUINE])) == GENUINE
    assert sorted(store.hidden_keys()) == sorted(JUNK_KEYS)
    assert sorted(store.hidden_keys("a")) == sorted(key for key in JUNK_KEYS if key[:2] == "a/")


def test_a_hidden_key_cannot_be_set_and_the_error_says_why(inner):
    store = FilterStore(inner)
    for write in (
        lambda: store.__setitem__("b/.DS_Store", b"x"),
        lambda: store.setitems({"b/.DS_Store": b"x"}),
        lambda: store.__setitem__(".git/config", b"x"),
        lambda: store.rename("a", "b/.git"),
    ):
        with pytest.raises(InvalidKeyError, match="is hidden by a FilterStore"):
            write()
    assert dict(inner) == {**GENUINE, **JUNK_KEYS}


def test_deletes_leave_junk_where_no_directory_goes_with_it(inner):
    store = FilterStore(inner)
    store.delitems([*JUNK_KEYS, "a/0.0"])
    store.rmdir("._dir")
    assert dict(inner) == {**{key: value for key, value in GENUINE.items() if key != "a/0.0"}, **JUNK_KEYS}


def test_a_directory_goes_with_the_junk_in_it(inner):
    store = FilterStore(inner)
    store.rename("a", "b")
    assert not [key for key in inner if key[:2] == "a/"]
    assert "b/._0.0" in inner
    store.rmdir("b")
    assert not [key for key in inner if key[:2] == "b/"]


def test_junk_at_the_destination_of_a_rename_is_not_in_the_way():
    inner = DictStore({"a/x": b"1", "b/.DS_Store": b"junk"})
    FilterStore(inner).rename("a", "b")
    assert dict(inner) == {"b/x": b"1"}


def test_patterns_can_be_chosen():
    inner = {"a/x.tmp": b"1", "a/.DS_Store": b"2", "b": b"3"}
    assert sorted(FilterStore(inner, ["*.tmp"])) == ["a/.DS_Store", "b"]
    assert sorted(FilterStore(inner, [*JUNK, "*.tmp"])) == ["b"]
    assert sorted(FilterStore(inner, "*.tmp")) == ["a/.DS_Store", "b"]
    assert sorted(FilterStore(inner, [])) == sorted(inner)
