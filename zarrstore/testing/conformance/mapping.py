"""A store is a mapping of str to bytes, and nothing is lost, shared or swallowed."""

from __future__ import annotations

import array
import collections
import ctypes
import random
from typing import Any

import numpy as np
import pytest

from zarrstore.base import Store
from zarrstore.testing.conformance.making import StoreMaking, refuses

__all__ = ["MappingTests"]


class HasKeys:
    """What `dict.update` takes for a mapping, and `collections.abc.Mapping` does not."""

    def __init__(self, items: dict[str, bytes]) -> None:
        self.items_by_key = items

    def keys(self) -> list[str]:
        return list(self.items_by_key)

    def __getitem__(self, key: str) -> bytes:
        return self.items_by_key[key]


class MappingTests(StoreMaking):
    """Values under keys."""

    def test_the_adversarial_tree_comes_back_byte_for_byte_under_its_own_names(self, full: Store) -> None:
        expected = self.tree()
        assert {key: full[key] for key in expected} == expected
        assert all(type(full[key]) is bytes for key in expected)
        if self._can_list(full):
            assert sorted(full) == sorted(expected)
            assert len(full) == len(expected)
            assert dict(full.items()) == expected
            assert bool(full)

    def test_an_empty_store_is_empty(self, store: Store) -> None:
        assert "foo" not in store
        assert store.get("foo") is None
        assert store.getsize("foo") == 0
        assert dict(store.getitems(["foo", "bar"])) == {}
        if self._can_list(store):
            assert list(store) == []
            assert len(store) == 0
            assert not store
            assert store.listdir("") == []
            assert store.listdir("foo") == []

    def test_every_kind_of_buffer_goes_in_and_bytes_come_out(self, store: Store) -> None:
        if not self._can_write(store):
            return
        grid: Any = np.arange(12, dtype="<i4").reshape(3, 4)
        stamps = np.array(["2020-01-01", "NaT"], dtype="<M8[D]")
        fortran: Any = np.asfortranarray(grid)
        cube = np.arange(24, dtype=">u2").reshape(2, 3, 4)
        values: dict[str, tuple[Any, bytes]] = {
            "bytes": (b"abc", b"abc"),
            "bytearray": (bytearray(b"abc"), b"abc"),
            "memoryview": (memoryview(b"abc"), b"abc"),
            "strided view": (memoryview(b"abcdef")[::2], b"ace"),
            "array": (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
            "c order": (grid, grid.tobytes("C")),
            "f order": (fortran, grid.tobytes("F")),
            "strided": (grid[:, ::2], grid[:, ::2].tobytes("C")),
            "datetime64": (stamps, stamps.tobytes()),
            "scalar": (np.float64(1.5), np.float64(1.5).tobytes()),
            "bool": (np.array([True, False]), b"\x01\x00"),
            "structured": (np.zeros(2, dtype="i4,f8"), bytes(24)),
            "empty": (b"", b""),
            "empty array": (np.empty((0, 3)), b""),
            "no dimension": (np.array(7, dtype="<i8"), (7).to_bytes(8, "little")),
            "backwards": (grid[::-1, ::-1], grid[::-1, ::-1].tobytes("C")),
            "broadcast": (np.broadcast_to(grid[:1], (3, 4)), grid[:1].tobytes() * 3),
            "axes in no order": (cube.transpose(1, 2, 0), cube.transpose(1, 2, 0).tobytes("C")),
            "big endian": (cube, cube.tobytes()),
            "read only": (memoryview(bytearray(b"abc")).toreadonly(), b"abc"),
            "view of items": (memoryview(array.array("i", [1, 2])), array.array("i", [1, 2]).tobytes()),
            "view of a grid": (memoryview(grid), grid.tobytes("C")),
            "view in f order": (memoryview(fortran), grid.tobytes("F")),
            "strided view of a grid": (memoryview(grid)[::2], grid[::2].tobytes("C")),
            "c array": ((ctypes.c_uint16 * 2)(1, 2), bytes((ctypes.c_uint16 * 2)(1, 2))),
        }
        for name, (value, _) in values.items():
            store[f"v/{name}"] = value
        got = {name: store[f"v/{name}"] for name in values}
        assert got == {name: expected for name, (_, expected) in values.items()}
        assert {type(value) for value in got.values()} == {bytes}
        store.setitems({f"v/{name}": value for name, (value, _) in values.items()})
        assert dict(store.getitems([f"v/{name}" for name in values])) == {
            f"v/{name}": expected for name, (_, expected) in values.items()
        }

    def test_values_of_every_size_come_back_whole(self, store: Store) -> None:
        if not self._can_write(store):
            return
        # Sizes on both sides of what pages, pipes, headers and buffers are made for; 300 follows 4 MiB in its place.
        sizes = [0, 1, 255, 256, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_003, 1 << 22, 300]
        for size in sizes:
            value = random.Random(size).randbytes(min(size, self.largest))
            store["a/value"] = value
            assert store["a/value"] == value, size
            assert store.getsize("a/value") == len(value)
            assert store.getrange("a/value", len(value) // 2) == value[len(value) // 2 :], size
            assert store.getsuffix("a/value", 10) == value[-10:], size

    @pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
    def test_what_is_no_buffer_is_refused_and_the_old_value_survives(self, store: Store, batch: bool) -> None:
        if not self._can_write(store):
            return
        store["a/b"] = b"old"
        write = (lambda key, value: store.setitems({key: value})) if batch else store.__setitem__
        objects = np.array([object()]), np.array("text", dtype="O")
        for value in ("text", None, 1, 1.5, [1, 2], (), {}, object(), *objects):
            refuses(TypeError, write, "a/b", value)
            refuses(TypeError, write, "a/c", value)
        assert dict(store.items()) == {"a/b": b"old"}

    def test_a_value_cannot_be_changed_behind_the_back_of_the_store(self, store: Store) -> None:
        if not self._can_write(store):
            return
        value = bytearray(b"abc")
        store["a"] = value
        grid = np.zeros(3, dtype="u1")
        store["b"] = grid
        first = store["a"]
        value[:] = b"xyz"
        grid[:] = 7
        assert (store["a"], store["b"], first) == (b"abc", b"\0\0\0", b"abc")
        batch = bytearray(b"batch")
        store.update({"f": batch, "g": b"1"})
        batch[:] = b"later"
        assert store["f"] == b"batch"
        store["a"] = b"later"
        assert first == b"abc"

    def test_overwriting_leaves_one_key_with_the_last_value(self, store: Store) -> None:
        if not self._can_write(store):
            return
        for n in range(5):
            store["a/b"] = b"x" * (5 - n)
        assert list(store) == ["a/b"]
        assert len(store) == 1
        assert store["a/b"] == b"x"
        assert store.listdir("a") == ["b"]

    def test_a_missing_key_is_a_keyerror_in_the_caller_s_spelling(self, full: Store) -> None:
        for key in ("absent", "foo/absent", "foo/bar/absent", "absent/x/y"):
            for method, *args in (("__getitem__", key), ("getrange", key, 0, 1), ("getsuffix", key, 1)):
                with pytest.raises(KeyError) as caught:
                    getattr(full, method)(*args)
                assert caught.value.args == (key,)
                assert type(caught.value) is KeyError
            assert key not in full
            assert full.get(key, b"default") == b"default"

    def test_a_directory_is_not_a_key(self, full: Store) -> None:
        assert "foo" not in full
        assert full.get("foo") is None
        with pytest.raises(KeyError):
            full["deep/1/2"]

    def test_deleting_removes_the_key_and_nothing_else(self, full: Store) -> None:
        if not self._can_write(full) or not self._can_erase(full, "foo/bar"):
            return
        expected = self.tree()
        for key in ("foo/bar", "deep/1/2/3/4/5/6/7/8", "c/0.0"):
            del full[key]
            del expected[key]
        for key in ("foo", "deep", "absent", "foo/bar"):  # directories, and what is not there any more
            with pytest.raises(KeyError) as caught:
                del full[key]
            assert caught.value.args == (key,)
        assert dict(full.items()) == expected
        assert "deep" not in full.listdir("")

    def test_the_other_methods_of_a_mapping_work(self, store: Store) -> None:
        if not self._can_write(store):
            return
        store.update({"a": b"1", "b/c": b"22"})
        store.update([("d", bytearray(b"3"))])
        store |= collections.UserDict({"a": b"1"})
        store.update(HasKeys({"a": b"1"}))  # as multiprocessing's dict, no Mapping
        assert store | {"a": b"x"} == {"a": b"x", "b/c": b"22", "d": b"3"}
        assert {"a": b"x", "y": b"y"} | store == {"a": b"1", "b/c": b"22", "d": b"3", "y": b"y"}
        assert store.setdefault("a", b"other") == b"1"
        assert store.setdefault("e", b"4") == b"4"
        assert sorted(store.keys()) == ["a", "b/c", "d", "e"]
        assert sorted(store.values()) == [b"1", b"22", b"3", b"4"]
        assert ("b/c", b"22") in store.items()
        assert store == {"a": b"1", "b/c": b"22", "d": b"3", "e": b"4"}
        assert store != {"a": b"1"}
        if not self._can_erase(store, "a"):
            return
        assert store.pop("a") == b"1"
        assert store.pop("a", None) is None
        key, value = store.popitem()
        assert (key, value) in {("b/c", b"22"), ("d", b"3"), ("e", b"4")}
        store.clear()
        assert list(store) == []
        store["again"] = b"1"
        assert dict(store) == {"again": b"1"}
        store.clear()
        store.clear()

    def test_a_store_is_unhashable_and_equals_itself(self, store: Store) -> None:
        assert store == store
        assert store != 1
        with pytest.raises(TypeError):
            hash(store)
