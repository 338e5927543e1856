"""The index of DictStore's directories says what the keys say."""

from __future__ import annotations

from zarrstore import DictStore


def test_a_value_that_outlived_the_directory_of_its_name_leaves_no_name_behind():
    store = DictStore()
    store.listdir()  # builds the index
    store.update({"a": b"1", "a/b/c": b"2"})
    del store["a/b/c"]
    assert store.listdir("a") == []
    del store["a"]
    assert (store.listdir(), list(store)) == ([], [])


def test_a_directory_that_outlived_the_value_of_its_name_is_still_listed():
    store = DictStore()
    store.listdir()
    store.update({"a": b"1", "a/b": b"2"})
    del store["a"]
    assert (store.listdir(), store.listdir("a")) == (["a"], ["b"])
