"""What every store must do, as a pytest class to inherit from.

A store or mapping of your own goes through it in a few lines::

    from zarrstore.testing import StoreConformance


    class TestMyStore(StoreConformance):
        def make_store(self, tmp_path):
            return MyStore(tmp_path / "data")

        def reopen(self, store, tmp_path):  # only if it outlives the object
            store.close() return MyStore(tmp_path / "data")

What the store's `capabilities` deny is tested too: a store that says it is not erasable must refuse to delete.
"""

from __future__ import annotations

import array
import collections
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zarrstore import ops
from zarrstore.adapt import KVStore, as_store
from zarrstore.base import DRIVER, WRITES, Store
from zarrstore.errors import (
    ConflictError,
    DestinationExistsError,
    InvalidKeyError,
    InvalidPathError,
    ReadOnlyError,
    RenameError,
    UnsupportedOperation,
)
from zarrstore.testing.stateful import check_against_dict
from zarrstore.testing.trees import HOSTILE_KEYS, SEGMENTS, tree
from zarrstore.wrappers.base import Wrapper

__all__ = ["StoreConformance"]


class HasKeys:
    """What `dict.update` takes for a mapping, and `collections.abc.Mapping` does not."""

    def __init__(self, items: dict[str, bytes]) -> None:
        self.items_by_key = items

    def keys(self) -> list[str]:
        return list(self.items_by_key)

    def __getitem__(self, key: str) -> bytes:
        return self.items_by_key[key]


class StoreConformance:
    """Inherit, say how a store is made, and pytest does the rest.

    Override `make_store`; `reopen` if what was written outlives the object; `make_filled` if a store cannot be
    filled by writing to it.

    Attributes
    ----------
    largest : int, bytes
        The largest value that the store takes, if it has such a limit.
    segments : sequence of str
        Names from which the state machine makes keys.
    examples : int
        Histories that the state machine plays.
    pickles, checks_processes : bool
        Whether a pickled copy stands on the same place; whether to start other processes.
    """

    largest: int = 1 << 20
    segments: Sequence[str] = SEGMENTS
    examples: int = 15
    pickles: bool = True
    checks_processes: bool = True

    def make_store(self, tmp_path: Path) -> MutableMapping[str, Any]:
        """Return a new, empty store in `tmp_path`."""
        raise NotImplementedError("make_store(tmp_path) returns a new, empty store")

    #: ``reopen(store, tmp_path)`` closes the store and opens the same place again; None if nothing outlives the object.
    reopen: Callable[..., Any] | None = None

    def make_filled(self, tmp_path: Path, items: Mapping[str, bytes]) -> Mapping[str, Any]:
        """Return a store in `tmp_path` that holds `items`."""
        store = self.make_store(tmp_path)
        as_store(store).setitems(items)
        return store

    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        """An empty store, closed afterwards."""
        with as_store(self.make_filled(tmp_path, {})) as opened:
            yield opened

    @pytest.fixture
    def filled(self, tmp_path: Path) -> Any:
        """Make a store that holds the given items; closed afterwards."""
        opened: list[Store] = []

        def fill(items: Mapping[str, bytes]) -> Store:
            opened.append(as_store(self.make_filled(tmp_path, items)))
            return opened[-1]

        yield fill
        for store in opened:
            store.close()

    @pytest.fixture
    def full(self, filled: Callable[[Mapping[str, bytes]], Store]) -> Store:
        """A store that holds the adversarial tree."""
        return filled(self.tree())

    def tree(self) -> dict[str, bytes]:
        """Return the adversarial tree, cut to what the store can hold."""
        return tree(self.largest)

    def _can_write(self, store: Store) -> bool:
        """Tell whether the store is writable; if it says not, it must refuse each write, and change nothing."""
        if store.capabilities.writable:
            return True
        before = dict(store.items()) if store.capabilities.listable else None
        with pytest.raises(ReadOnlyError):
            store["new/key"] = b"1"
        with pytest.raises(ReadOnlyError):
            store.setitems({"new/key": b"1"})
        assert "new/key" not in store
        assert before is None or dict(store.items()) == before
        return False

    def _can_erase(self, store: Store, key: str) -> bool:
        """Tell whether the store is erasable; if it says not, it must refuse to delete `key`, which is there."""
        if store.capabilities.erasable:
            return True
        with pytest.raises((UnsupportedOperation, ReadOnlyError)):
            del store[key]
        with pytest.raises((UnsupportedOperation, ReadOnlyError)):
            store.rmdir("")
        with pytest.raises((UnsupportedOperation, ReadOnlyError)):
            store.clear()
        with pytest.raises((UnsupportedOperation, ReadOnlyError)):
            store.rename(key, "elsewhere")
        assert key in store
        return False

    def _can_list(self, store: Store) -> bool:
        """Tell whether the store is listable; if it says not, it must refuse to list."""
        if store.capabilities.listable:
            return True
        with pytest.raises(UnsupportedOperation):
            list(store)
        with pytest.raises(UnsupportedOperation):
            len(store)
        with pytest.raises(UnsupportedOperation):
            store.listdir("")
        return False

    # The mapping ---------------------------------------------------------------------------------------------------

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
        grid = np.arange(12, dtype="<i4").reshape(3, 4)
        stamps = np.array(["2020-01-01", "NaT"], dtype="<M8[D]")
        values = {
            "bytes": (b"abc", b"abc"),
            "bytearray": (bytearray(b"abc"), b"abc"),
            "memoryview": (memoryview(b"abc"), b"abc"),
            "strided view": (memoryview(b"abcdef")[::2], b"ace"),
            "array": (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
            "c order": (grid, grid.tobytes("C")),
            "f order": (np.asfortranarray(grid), grid.tobytes("F")),
            "strided": (grid[:, ::2], grid[:, ::2].tobytes("C")),
            "datetime64": (stamps, stamps.tobytes()),
            "scalar": (np.float64(1.5), np.float64(1.5).tobytes()),
            "bool": (np.array([True, False]), b"\x01\x00"),
            "structured": (np.zeros(2, dtype="i4,f8"), bytes(24)),
            "empty": (b"", b""),
            "empty array": (np.empty((0, 3)), b""),
        }
        for name, (value, _) in values.items():
            store[f"v/{name}"] = value
        got = {name: store[f"v/{name}"] for name in values}
        assert got == {name: expected for name, (_, expected) in values.items()}
        assert {type(value) for value in got.values()} == {bytes}

    @pytest.mark.parametrize(
        "value", ["text", None, 1, [1, 2], object(), np.array([object()])], ids=lambda value: type(value).__name__
    )
    def test_what_is_no_buffer_is_refused_and_the_old_value_survives(self, store: Store, value: Any) -> None:
        if not self._can_write(store):
            return
        store["a/b"] = b"old"
        with pytest.raises(TypeError):
            store["a/b"] = value
        with pytest.raises(TypeError):
            store["a/c"] = value
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

    # Hostile keys --------------------------------------------------------------------------------------------------

    def test_hostile_keys_are_absent_to_read_and_refused_to_write(self, full: Store) -> None:
        before = dict(full.items()) if full.capabilities.listable else None
        for key in HOSTILE_KEYS:
            assert key not in full, key
            assert full.get(key) is None, key  # type: ignore[call-overload]
            with pytest.raises(InvalidKeyError):
                full[key]  # type: ignore[index]
            with pytest.raises(InvalidKeyError):
                full.getrange(key, 0)  # type: ignore[arg-type]
            with pytest.raises(InvalidKeyError):
                full[key] = b"x"  # type: ignore[index]
            with pytest.raises(InvalidKeyError):
                del full[key]  # type: ignore[arg-type]
        assert dict(full.getitems(HOSTILE_KEYS)) == {}  # type: ignore[arg-type]
        if full.capabilities.writable:
            for key in HOSTILE_KEYS:
                if _hashable(key):
                    with pytest.raises(InvalidKeyError):
                        full.setitems({"fine": b"1", key: b"2"})  # type: ignore[arg-type]
            full.delitems(HOSTILE_KEYS)  # type: ignore[arg-type]
        assert before is None or dict(full.items()) == before

    def test_hostile_paths_name_nothing_or_are_refused(self, full: Store) -> None:
        if not full.capabilities.listable:
            return
        before = dict(full.items())
        for path in HOSTILE_KEYS:
            if not isinstance(path, str):
                continue
            named = [part for part in path.replace("\\", "/").split("/") if part]
            if "." in named or ".." in named:
                for act in (full.listdir, full.rmdir, full.getsize, lambda p: full.rename(p, "x"), full.keys_below):
                    with pytest.raises(InvalidPathError):
                        act(path)
                with pytest.raises(InvalidPathError):
                    full.rename("foo", path)
            elif named and "/".join(named) not in {"foo", "foo/bar", "x", "y"}:
                # What is left normalises to a name that nothing has, as "/etc/passwd" does to "etc/passwd".
                assert full.listdir(path) == []
                assert full.getsize(path) == 0
                if full.capabilities.erasable:
                    full.rmdir(path)
                    with pytest.raises(KeyError):
                        full.rename(path, "x")
        assert dict(full.items()) == before

    # Hierarchy -----------------------------------------------------------------------------------------------------

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
            assert full.getsize("big") == self.largest if self.largest < 1 << 20 else 1 << 20

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
            ("a%c", "a%c2"),
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

    # Batches and parts ---------------------------------------------------------------------------------------------

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

    # Flags ---------------------------------------------------------------------------------------------------------

    def test_the_flags_agree_with_the_methods(self, store: Store) -> None:
        if isinstance(store, (Wrapper, KVStore)):
            return  # they speak for what they hold
        cls = type(store)
        flags = store.capabilities
        # One way only: a bridge may have the method for some of its file systems, and the flag for those.
        assert not flags.ranged or cls._get_range is not Store._get_range
        assert not flags.concurrent or cls._get_many is not Store._get_many
        assert not flags.durable_flush or cls._flush is not Store._flush
        assert (flags.erasable, flags.listable) <= (True, True)

    def test_a_wrapper_forwards_every_driver_method(self, store: Store) -> None:
        if not isinstance(store, Wrapper):
            return
        missing = [name for name in DRIVER if getattr(type(store), name) is getattr(Store, name)]
        assert not missing, f"{type(store).__name__} falls back to the slow default of {missing}"
        if not store.capabilities.writable and store.inner.capabilities.writable:
            open_ = [name for name in WRITES if getattr(type(store), name) is getattr(Wrapper, name)]
            assert not open_, f"{type(store).__name__} lets {open_} through"

    # Many at once --------------------------------------------------------------------------------------------------

    def test_threads_read_whole_values_and_listings_never_raise(self, store: Store) -> None:
        if not store.capabilities.thread_safe or not self._can_write(store):
            return
        erasable = store.capabilities.erasable
        size = min(2000, self.largest)
        problems: list[BaseException | str] = []
        stop = threading.Event()

        def write(me: int) -> None:
            for n in range(30):
                for name in ("x", "d/y"):
                    store[f"t{me}/{name}"] = bytes([n]) * size
                    if store[f"t{me}/{name}"] != bytes([n]) * size:
                        problems.append(f"thread {me} read back something else at {n}")
                if erasable and n % 5 == 4:
                    del store[f"t{me}/d/y"]
                    if f"t{me}/d/y" in store:
                        problems.append(f"thread {me} sees what it deleted at {n}")

        def read() -> None:
            while not stop.is_set():
                for me in range(3):
                    for value in (store.get(f"t{me}/x"), store.get(f"t{me}/d/y")):
                        if value is not None and (len(value) != size or len(set(value)) > 1):
                            problems.append("a torn value")
                    if store.capabilities.listable:
                        store.listdir(f"t{me}")
                        store.getsize(f"t{me}")
                if store.capabilities.listable:
                    for key in store:
                        if key.split("/")[0] not in {"t0", "t1", "t2"}:
                            problems.append(f"a phantom key {key!r}")

        def guarded(work: Callable[..., None], *args: Any) -> None:
            try:
                work(*args)
            except BaseException as exc:
                problems.append(exc)

        readers = [threading.Thread(target=guarded, args=(read,)) for _ in range(2)]
        writers = [threading.Thread(target=guarded, args=(write, me)) for me in range(3)]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in readers:
            thread.join()
        assert problems == []
        assert store["t1/x"] == bytes([29]) * size

    def test_what_was_written_is_there_when_opened_again(self, tmp_path: Path) -> None:
        if self.reopen is None:
            return
        expected = self.tree()
        made = self.reopen(self.make_filled(tmp_path, expected), tmp_path)
        store = as_store(made)
        assert {key: store[key] for key in expected} == expected
        if store.capabilities.listable:
            assert sorted(store) == sorted(expected)
        if store.capabilities.writable and store.capabilities.erasable:
            del store["foo/bar"]
            store["foo/new"] = b"new"
            store.flush()
            made = self.reopen(made, tmp_path)
            store = as_store(made)
            assert sorted(store.keys_below("foo")) == ["foo/foo/foo", "foo/new", "foo/oof/x"]
        store.close()
        store.close()

    def test_a_pickled_copy_works(self, tmp_path: Path) -> None:
        if not self.pickles:
            return
        items = {"foo/bar": b"1", "foo/baz": b"22"}
        store = as_store(self.make_filled(tmp_path, items))
        store.flush()
        try:
            parcel = pickle.dumps(store)
        except UnsupportedOperation:  # a store may refuse while it is open for writing; once closed it must not
            store.close()
            parcel = pickle.dumps(store)
        copy = pickle.loads(parcel)
        assert type(copy) is type(store)
        assert {key: copy[key] for key in items} == items
        assert copy.capabilities == store.capabilities or not copy.capabilities.writable
        copy.close()
        store.close()
        del copy, store
        gc.collect()

    def test_another_process_sees_what_this_one_writes_if_the_store_says_so(self, tmp_path: Path) -> None:
        if not self.checks_processes:
            return
        store = as_store(self.make_filled(tmp_path, {"from/parent": b"1"}))
        with store:
            if not store.capabilities.process_safe or not store.capabilities.writable or not self.pickles:
                return
            store.flush()
            script = (
                "import pickle, sys\n"
                "store = pickle.load(open(sys.argv[1], 'rb'))\n"
                "assert store['from/parent'] == b'1'\n"
                "store['from/child'] = b'2'\n"
                "assert store.listdir('from') == ['child', 'parent']\n"
                "store.close()\n"
            )
            parcel = tmp_path.parent / f"{tmp_path.name}.pickle"
            parcel.write_bytes(pickle.dumps(store))
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            done = subprocess.run(
                [sys.executable, "-c", script, str(parcel)], env=env, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            assert store["from/child"] == b"2"
            assert store.listdir("from") == ["child", "parent"]

    # All of it -----------------------------------------------------------------------------------------------------

    def test_random_histories_end_as_they_do_with_a_dict(
        self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        probe = as_store(self.make_filled(tmp_path, {"foo": b""}))
        if not (self._can_write(probe) and self._can_erase(probe, "foo") and self._can_list(probe)):
            return
        probe.close()
        place = [tmp_path]

        def make() -> Any:
            place[0] = tmp_path_factory.mktemp("history")
            return self.make_store(place[0])

        again = self.reopen
        reopen = None if again is None else (lambda made: again(made, place[0]))
        check_against_dict(make, reopen=reopen, names=self.segments, max_examples=self.examples)


def _hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True
