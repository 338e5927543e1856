"""Directories: what lies below a path, and only that."""

from __future__ import annotations

import pytest

from zarrstore.base import Store
from zarrstore.errors import ConflictError, DestinationExistsError, RenameError
from zarrstore.testing.conformance.making import StoreMaking

__all__ = ["HierarchyTests"]


class HierarchyTests(StoreMaking):
    """listdir, getsize, rmdir, rename."""

    def test_a_listing_is_complete_or_refused(self, full: Store) -> None:
        there = [key for key in self.tree() if key in full]
        assert there, "the store holds nothing of the tree, so this shows nothing"
        if not self._can_list(full):
            return
        listed = set(full)
        assert [key for key in there if key not in listed] == []
        for key in there:
            parts = key.split("/")
            for n in range(len(parts)):
                path = "/".join(parts[:n])
                assert parts[n] in full.listdir(path), f"{path!r} does not list {parts[n]!r}, though {key!r} is there"
                assert key in set(full.keys_below(path)), f"{key!r} is not listed below {path!r}"

    def test_listdir_gives_the_sorted_children_once_each(self, full: Store) -> None:
        if not self._can_list(full):
            return
        keys = list(self.tree())
        for path in ("", "foo", "foo/oof", "a_c", "a%c", "deep/1/2", "c", "é", "日本", "[a-z]*?"):
            start = len(path) + 1 if path else 0
            below = [key for key in keys if not path or key.startswith(path + "/")]
            assert full.listdir(path) == sorted({key[start:].split("/")[0] for key in below}), path
            assert sorted(full.keys_below(path)) == sorted(below)
        assert full.listdir("/foo//oof/") == ["x"]
        assert full.listdir("foo/bar") == []
        assert full.listdir("absent") == []
        assert full.listdir(None) == full.listdir("")
        listing = full.listdir("foo")
        listing.clear()
        assert full.listdir("foo") == ["bar", "foo", "oof"]

    def test_getsize_is_that_of_the_value_or_of_the_values_immediately_below(self, full: Store) -> None:
        assert full.getsize("foo/oof/x") == 2
        assert full.getsize("c/0.0") == 0
        assert full.getsize("absent") == 0
        if self._can_list(full):
            assert full.getsize("foo") == 1
            assert full.getsize("foo/oof") == 2
            assert full.getsize("deep") == 0
            assert full.getsize("big") == min(self.largest, 1 << 20)

    def test_rmdir_removes_the_subtree_and_touches_no_neighbour(self, full: Store) -> None:
        if not self._can_write(full) or not self._can_erase(full, "foo/bar"):
            return
        expected = self.tree()
        for path in ("foo", "a_c", "a%c", "é", "[a-z]*?", "deep/1/2", "uns/names", "absent", "c/0.0"):
            full.rmdir(path)
            expected = {key: value for key, value in expected.items() if not key.startswith(path + "/")}
            assert sorted(full) == sorted(expected), path
        assert dict(full.items()) == expected
        full.rmdir("")
        assert list(full) == []
        assert full.listdir("") == []
        full["foo/bar"] = b"again"
        assert dict(full) == {"foo/bar": b"again"}

    def test_rename_keeps_the_rest_of_the_key(self, full: Store) -> None:
        if not self._can_write(full) or not self._can_erase(full, "foo/bar"):
            return
        expected = self.tree()
        for source, destination in (
            ("foo", "dst"),
            ("uns", "b"),
            ("a_c", "new/deep/place"),
            ("c/9.10", "c/8.8"),
            ("deep/1", "shallow"),
            ("é", "è"),
            ("a%c", "a%cx"),
        ):
            full.rename(source, destination)
            expected = {
                destination + key[len(source) :] if key == source or key.startswith(source + "/") else key: value
                for key, value in expected.items()
            }
            assert sorted(full) == sorted(expected), (source, destination)
        assert dict(full.items()) == expected
        assert "deep" not in full.listdir("")

    def test_rename_has_one_contract(self, full: Store) -> None:
        if not self._can_write(full) or not self._can_erase(full, "foo/bar"):
            return
        expected = self.tree()
        for source, destination, error in (
            ("absent", "x", KeyError),
            ("absent", "absent", KeyError),
            ("foo", "foo/child", RenameError),
            ("foo", "foo/bar", RenameError),
            ("", "foo/all", RenameError),
            ("foo", "uns", DestinationExistsError),
            ("foo/bar", "uns/names", DestinationExistsError),
            ("foo", "uns/names", DestinationExistsError),
            ("foo/oof", "foo", DestinationExistsError),
            ("foo", "", DestinationExistsError),
        ):
            with pytest.raises(error) as caught:
                full.rename(source, destination)
            assert error is not KeyError or type(caught.value) is KeyError, (source, destination)
        full.rename("foo", "foo")
        full.rename("foo/bar", "/foo//bar/")
        assert dict(full.items()) == expected

    def test_a_value_and_a_directory_of_one_name(self, store: Store) -> None:
        if not self._can_write(store):
            return
        store["a/b"] = b"1"
        store["v"] = b"2"
        if store.capabilities.hierarchical:
            for key in ("a", "v/x", "a/b/c", "v/x/y/z"):
                with pytest.raises(ConflictError):
                    store[key] = b"lost?"
            with pytest.raises(ConflictError):
                store.rename("v", "a/b/c")
            assert dict(store.items()) == {"a/b": b"1", "v": b"2"}
            return
        store["a"] = b"3"
        store["v/x"] = b"4"
        assert dict(store.items()) == {"a/b": b"1", "v": b"2", "a": b"3", "v/x": b"4"}
        assert store.listdir("") == ["a", "v"]
        assert store.listdir("a") == ["b"]
        assert store.getsize("a") == 1
        if self._can_erase(store, "a"):
            del store["a"]
            store.rmdir("v")
            assert dict(store.items()) == {"a/b": b"1", "v": b"2"}
