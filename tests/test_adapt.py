"""Foreign mappings: what they can do by themselves is used, what they lack is made up for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from zarrstore import KVStore, as_store, ops
from zarrstore.errors import ReadOnlyError
from zarrstore.testing import StoreConformance


class Plain(MutableMapping[str, Any]):
    """A mapping with nothing but what MutableMapping asks for."""

    def __init__(self) -> None:
        self.records: dict[str, Any] = {}
        self.calls: list[str] = []

    def __getitem__(self, key: str) -> Any:
        self.calls.append("get")
        return self.records[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.calls.append("set")
        self.records[key] = value

    def __delitem__(self, key: str) -> None:
        self.calls.append("del")
        del self.records[key]

    def __iter__(self) -> Iterator[str]:
        self.calls.append("iter")
        return iter(list(self.records))

    def __len__(self) -> int:
        return len(self.records)


class Able(Plain):
    """A mapping with methods of its own for everything."""

    def listdir(self, path: str) -> list[str]:
        self.calls.append("listdir")
        return ops.listdir(self.records, path)[::-1]

    def rmdir(self, path: str) -> None:
        self.calls.append("rmdir")
        ops.rmdir(self.records, path)

    def rename(self, source: str, destination: str) -> None:
        self.calls.append("rename")
        ops.rename(self.records, source, destination)

    def getsize(self, path: str) -> int:
        self.calls.append("getsize")
        return ops.getsize(self.records, path)

    def getitems(self, keys: list[str]) -> dict[str, Any]:
        self.calls.append(f"getitems {len(keys)}")
        return {key: self.records[key] for key in keys if key in self.records}

    def setitems(self, items: dict[str, Any]) -> None:
        self.calls.append(f"setitems {len(items)}")
        self.records.update(items)

    def delitems(self, keys: list[str]) -> None:
        self.calls.append(f"delitems {len(keys)}")
        for key in keys:
            del self.records[key]

    def __contains__(self, key: object) -> bool:
        return key in self.records


class TestPlainMapping(StoreConformance):
    def make_store(self, tmp_path: Any) -> Plain:
        return Plain()


class TestAbleMapping(StoreConformance):
    def make_store(self, tmp_path: Any) -> Able:
        return Able()


def test_a_store_is_itself_and_a_mapping_is_wrapped() -> None:
    store = as_store({})
    assert as_store(store) is store
    assert isinstance(store, KVStore)


@pytest.mark.parametrize("thing", [None, 1, "path", b"x", [("a", b"1")], object()])
def test_what_is_no_mapping_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match="is not a mapping"):
        as_store(thing)
    if not isinstance(thing, str):  # which is a path, where nothing is
        assert ops.getsize(thing) == -1


def test_own_methods_of_a_mapping_are_used() -> None:
    able = Able()
    ops.setitems(able, {"a/b": b"1", "a/c": b"22", "d": b""})
    assert ops.listdir(able, "a") == ["b", "c"]
    assert ops.getsize(able, "a") == 3
    assert dict(ops.getitems(able, ["a/b", "a/c", "x"])) == {"a/b": b"1", "a/c": b"22"}
    ops.rename(able, "a", "e")
    ops.delitems(able, ["e/b", "x"])
    ops.rmdir(able, "e")
    assert able.records == {"d": b""}
    names = {call.split()[0] for call in able.calls}
    assert {"setitems", "listdir", "getsize", "getitems", "rename", "delitems", "rmdir"} <= names
    assert not {"get", "set", "del", "iter"} & names
    assert [call for call in able.calls if call.startswith("getitems")] == ["getitems 2", "getitems 1"]


def test_a_hundred_keys_are_few_batches_of_a_mapping_that_has_batches() -> None:
    able = Able()
    able.records = {f"k{n}": b"v" for n in range(100)}
    store = KVStore(able)
    assert len(dict(store.getitems(list(able.records)))) == 100
    assert able.calls == ["getitems 2", "getitems 16", "getitems 82"]
    able.calls.clear()
    assert len(dict(store.getitems(list(able.records)))) == 100
    assert able.calls == ["getitems 100"]


def test_a_foreign_batch_is_spoken_to_in_its_dialect() -> None:
    asked: list[tuple[Any, ...]] = []

    class FsspecLike(Plain):
        def getitems(self, keys: list[str], on_error: str = "raise") -> dict[str, bytes]:
            asked.append((keys, on_error))
            return {"a": b"1", "b": KeyError("b"), **({"c": PermissionError("403")} if "c" in keys else {})}  # type: ignore[dict-item]

    class Zarr2Like(Plain):
        def getitems(self, keys: list[str], *, contexts: dict[str, Any]) -> dict[str, bytes]:
            asked.append((keys, contexts))
            return {"a": b"1"}

    assert dict(ops.getitems(FsspecLike(), ["a", "b"])) == {"a": b"1"}
    assert dict(ops.getitems(Zarr2Like(), ["a", "b"])) == {"a": b"1"}
    assert asked == [(["a", "b"], "return"), (["a", "b"], {})]
    with pytest.raises(PermissionError, match="403"):
        dict(ops.getitems(FsspecLike(), ["a", "b", "c"]))


def test_values_of_any_kind_come_out_as_bytes_that_are_nobody_else_s() -> None:
    value = bytearray(b"abc")
    mapping = {"a": value, "b": memoryview(b"xyz"), "c": np.arange(2, dtype="u1")}
    store = as_store(mapping)
    got = store["a"]
    value[:] = b"..."
    assert (got, store["b"], store["c"]) == (b"abc", b"xyz", b"\0\1")
    with pytest.raises(TypeError, match="cannot store"):
        as_store({"a": "text"})["a"]


def test_keys_of_a_mapping_that_are_no_keys_are_left_out() -> None:
    mapping = {"a": b"1", "b//c": b"2", 3: b"3", "../x": b"4", "": b"5"}
    store = as_store(mapping)
    assert list(store) == ["a"]
    assert store.listdir("") == ["a"]
    assert "../x" not in store
    assert len(mapping) == 5


def test_a_mapping_that_cannot_be_written_is_a_read_only_store() -> None:
    store = as_store(MappingProxyType({"a": b"1"}))
    assert store["a"] == b"1"
    assert not store.capabilities.writable
    for write in (
        lambda: store.__setitem__("b", b""),
        lambda: store.__delitem__("a"),
        store.clear,
        lambda: store.rmdir(""),
        lambda: store.rename("a", "b"),
        lambda: store.setitems({"b": b""}),
        lambda: store.delitems(["a"]),
    ):
        with pytest.raises(ReadOnlyError):
            write()


def test_a_mapping_that_deletes_whole_directories_is_asked_to_delete_values_only() -> None:
    class Greedy(Plain):
        def __delitem__(self, key: str) -> None:
            for stored in [k for k in self.records if k == key or k.startswith(key + "/")]:
                del self.records[stored]

    greedy = Greedy()
    greedy.records = {"a/b": b"1"}
    with pytest.raises(KeyError):
        del as_store(greedy)["a"]
    assert greedy.records == {"a/b": b"1"}


def test_a_missing_value_in_a_foreign_error_is_respelled() -> None:
    class Odd(Plain):
        def __getitem__(self, key: str) -> Any:
            raise KeyError(b"something else", 3)

    with pytest.raises(KeyError) as caught:
        as_store(Odd())["a/b"]
    assert caught.value.args == ("a/b",)


def test_an_error_that_is_no_absence_comes_through() -> None:
    class Forbidden(Plain):
        def __getitem__(self, key: str) -> Any:
            raise PermissionError(403, "Forbidden")

    with pytest.raises(PermissionError):
        as_store(Forbidden())["a"]
    with pytest.raises(PermissionError):
        as_store(Forbidden()).get("a")


def test_what_another_thread_sets_while_a_dict_s_keys_move_is_not_lost():
    class Shared(dict[str, bytes]):
        def __setitem__(self, key: str, value: bytes) -> None:
            super().__setitem__(key, value)
            if value == b"old":  # another thread, after the copy
                super().__setitem__("a/x", b"new")
                super().__setitem__("a/later", b"1")

    mapping = Shared({"a/x": b"old", "a/y": b"2"})
    ops.rename(mapping, "a", "b")
    assert mapping == {"b/x": b"new", "b/y": b"2", "a/later": b"1"}
