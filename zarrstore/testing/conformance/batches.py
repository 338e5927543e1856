"""Many values in one call, parts of a value, and the free functions over them."""

from __future__ import annotations

import pytest

from zarrstore import ops
from zarrstore.base import Store
from zarrstore.testing.conformance.making import StoreMaking

__all__ = ["BatchTests"]


class BatchTests(StoreMaking):
    """getitems, setitems, delitems, getrange, getsuffix."""

    def test_getitems_gives_those_that_exist(self, full: Store) -> None:
        expected = self.tree()
        found = full.getitems([*expected, "absent", "foo", "../x"])
        assert dict(found) == expected
        found = full.getitems(["foo/bar", "absent", "c/0.0"])
        assert "foo/bar" in found
        assert found["foo/bar"] == b"1"
        assert "absent" not in found
        assert found["c/0.0"] == b""
        assert sorted(found) == ["c/0.0", "foo/bar"]
        assert len(found) == 2
        with pytest.raises(KeyError):
            found["absent"]
        with pytest.raises(KeyError):
            found["foo/oof/x"]  # it exists, but was not asked for
        assert dict(full.getitems([])) == {}
        assert dict(full.getitems(iter(["foo/bar", "foo/bar"]))) == {"foo/bar": b"1"}

    def test_setitems_and_delitems_do_all(self, store: Store) -> None:
        if not self._can_write(store):
            return
        items = {f"a/{n}": bytes([n % 256]) * min(n, self.largest) for n in range(300)}
        store.setitems(items)
        assert dict(store.items()) == items
        store.setitems((key, bytearray(b"new")) for key in ("a/0", "b"))
        assert (store["a/0"], store["b"]) == (b"new", b"new")
        if self._can_erase(store, "b"):
            store.delitems([*items, "absent", "..", "a/0"])
            assert dict(store.items()) == {"b": b"new"}

    def test_parts_of_a_value(self, full: Store) -> None:
        value = self.tree()["c/9.10"]
        for start, stop in ((0, 10), (5, 6), (10, 10), (250, 300), (300, 400), (0, None), (100, None), (20, 10)):
            assert full.getrange("c/9.10", start, stop) == value[start:stop], (start, stop)
        spans = [(100, None), (0, 10), (5, 6), (10, 10), (250, 300), (300, 400), (20, 10), (0, 256)]
        assert full.getranges("c/9.10", spans) == [value[start:stop] for start, stop in spans]
        assert full.getranges("c/9.10", []) == []
        for absent in ([(0, 1)], [(3, 3)]):
            with pytest.raises(KeyError) as caught:
                full.getranges("no/such", absent)
            assert caught.value.args == ("no/such",)
        for n in (0, 1, 10, 256, 1000):
            assert full.getsuffix("c/9.10", n) == (value[-n:] if n else b""), n
        assert full.getrange("c/0.0", 0, 10) == b""
        assert full.getsuffix("c/0.0", 10) == b""
        assert type(full.getrange("c/9.10", 0, 4)) is bytes
        for method in (full.getrange, full.getsuffix):
            with pytest.raises(ValueError, match="-1"):
                method("c/9.10", -1)

    def test_the_free_functions_say_the_same_as_the_methods(self, full: Store) -> None:
        assert ops.getsize(full, "foo/oof/x") == 2
        assert ops.getrange(full, "foo/oof/x", 1) == b"2"
        assert ops.getsuffix(full, "foo/oof/x", 1) == b"2"
        assert dict(ops.getitems(full, ["foo/bar"])) == {"foo/bar": b"1"}
        if self._can_list(full):
            assert ops.listdir(full, "foo") == full.listdir("foo")
            assert sorted(ops.keys_below(full, "foo")) == ["foo/bar", "foo/foo/foo", "foo/oof/x"]
        if full.capabilities.erasable:
            ops.setitems(full, {"n/1": b"1", "n/2": b"2"})
            ops.delitems(full, ["n/1"])
            ops.rename(full, "n", "m")
            assert full.listdir("m") == ["2"]
            ops.rmdir(full, "m")
            assert dict(full.items()) == self.tree()
