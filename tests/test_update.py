"""A store takes what ``dict.update`` takes, and is joined with a dict as a dict is."""

from __future__ import annotations

import pytest

from tests.support.roster import STORES
from zarrstore.adapt import as_store


class MappingLike:
    """What ``multiprocessing.Manager().dict()`` is: it has keys, and is no `Mapping`."""

    def __init__(self, items):
        self.items_ = items

    def keys(self):
        return list(self.items_)

    def __getitem__(self, key):
        return self.items_[key]


@pytest.mark.parametrize("name", STORES)
def test_update_takes_what_a_dict_takes(name, tmp_path):
    with as_store(STORES[name](tmp_path)) as store:
        store.update({"a/0": b"0"})
        store.update(MappingLike({"a/1": b"1"}))
        store.setitems(MappingLike({"a/2": b"2"}))
        store.update([("a/3", b"3")], b=b"4")
        expected = {"a/0": b"0", "a/1": b"1", "a/2": b"2", "a/3": b"3", "b": b"4"}
        assert dict(store) == expected


@pytest.mark.parametrize("name", STORES)
def test_a_store_and_a_dict_are_joined_as_dicts_are(name, tmp_path):
    with as_store(STORES[name](tmp_path)) as store:
        store.update({"a": b"1", "b": b"2"})
        assert store | {"b": b"3", "c": b"4"} == {"a": b"1", "b": b"3", "c": b"4"}
        assert {"b": b"3", "c": b"4"} | store == {"a": b"1", "b": b"2", "c": b"4"}
        joined = store
        joined |= {"b": b"3"}
        assert joined is store
        assert dict(store) == {"a": b"1", "b": b"3"}
        with pytest.raises(TypeError):
            store | [("a", b"1")]
