from __future__ import annotations

from dataclasses import replace

import pytest

from zarrstore import DictStore
from zarrstore.errors import ConflictError, UnsupportedOperation
from zarrstore.testing import CountingStore, FailingStore, Recorder, StoreConformance
from zarrstore.wrappers.split import SplitStore

from .shelf import Shelf


class TestSplitOfHierarchical(StoreConformance):
    examples = 15

    def make_store(self, tmp_path):
        return SplitStore(Shelf(), Shelf())


class TestSplitOfFlatAndHierarchical(StoreConformance):
    examples = 15

    def make_store(self, tmp_path):
        return SplitStore(DictStore(), Shelf())


TREE = {
    ".zgroup": b"{}",
    "a/.zarray": b"{ }",
    "a/.zattrs": b"{  }",
    "a/0.0": b"1",
    "a/0.1": b"22",
    "b/zarr.json": b"{}",
}
DOCUMENTS = {key: value for key, value in TREE.items() if key[-1] != "0" and key[-1] != "1"}
CHUNKS = {key: value for key, value in TREE.items() if key not in DOCUMENTS}


def test_documents_go_to_one_and_the_rest_to_the_other():
    metadata, chunks = DictStore(), DictStore()
    store = SplitStore(metadata, chunks)
    store.update(TREE)
    assert (dict(metadata), dict(chunks)) == (DOCUMENTS, CHUNKS)
    assert dict(store) == TREE
    assert store.listdir("a") == [".zarray", ".zattrs", "0.0", "0.1"]
    assert store.getsize("a") == 3 + 4 + 1 + 2
    store.rename("a", "z")
    assert sorted(metadata) == [".zgroup", "b/zarr.json", "z/.zarray", "z/.zattrs"]
    assert sorted(chunks) == ["z/0.0", "z/0.1"]
    store.rmdir("z")
    assert (sorted(metadata), sorted(chunks)) == ([".zgroup", "b/zarr.json"], [])


def test_a_value_that_becomes_a_document_by_its_new_name_changes_sides():
    metadata, chunks = DictStore(), DictStore()
    store = SplitStore(metadata, chunks)
    store["a/.zattrs.new"] = b"{}"
    store.rename("a/.zattrs.new", "a/.zattrs")
    assert (dict(metadata), dict(chunks), dict(store)) == ({"a/.zattrs": b"{}"}, {}, {"a/.zattrs": b"{}"})


def test_chunks_alone_ask_the_store_of_chunks_alone():
    metadata, chunks = CountingStore(DictStore()), CountingStore(DictStore())
    store = SplitStore(metadata, chunks)
    store.update(TREE)
    metadata.reset()
    chunks.reset()
    assert dict(store.getitems(CHUNKS)) == CHUNKS
    store["a/0.2"] = b"3"
    store.delitems(["a/0.2"])
    assert metadata.calls == {}
    assert chunks.calls == {"_get_many": 1, "_set": 1, "_delete_many": 1}


def test_a_document_is_written_after_the_chunks_it_describes():
    chunks = FailingStore(DictStore(), OSError(28, "No space left on device"), methods=["_set_many"])
    metadata = DictStore()
    with pytest.raises(OSError, match="No space"):
        SplitStore(metadata, chunks).setitems(TREE)
    assert dict(metadata) == {}


def test_a_rename_that_fails_half_way_is_undone():
    chunks = FailingStore(DictStore(), OSError("no"), methods=["_rename"])
    store = SplitStore(DictStore(), chunks)
    store.update(TREE)
    with pytest.raises(OSError, match="no"):
        store.rename("a", "z")
    assert dict(store) == TREE


def test_what_stands_in_the_way_in_the_other_store_is_seen():
    store = SplitStore(Shelf(), Shelf())
    store["a/.zarray"] = b"{}"
    store["c/.zattrs/0"] = b"odd, but a key"
    for key in ("a", "a/.zarray/0", "c/.zattrs"):
        with pytest.raises(ConflictError):
            store[key] = b"1"
        with pytest.raises(ConflictError):
            store.setitems({key: b"1"})
    assert dict(store) == {"a/.zarray": b"{}", "c/.zattrs/0": b"odd, but a key"}


def test_keys_of_the_other_kind_are_neither_read_nor_counted():
    store = SplitStore({"a/.zarray": b"{}", "a/0.0": b"old"}, {"a/0.0": b"new", "a/.zarray": b"old"})
    assert dict(store) == {"a/.zarray": b"{}", "a/0.0": b"new"}
    assert (len(store), store.listdir("a")) == (2, [".zarray", "0.0"])


def test_capabilities_are_those_of_both():
    import types

    read_only = types.MappingProxyType({})
    assert not SplitStore(DictStore(), read_only).capabilities.writable
    assert not SplitStore(read_only, DictStore()).capabilities.writable
    assert not SplitStore(DictStore(), DictStore()).capabilities.blocking
    assert SplitStore(DictStore(), FailingStore(Shelf(), OSError())).capabilities.hierarchical


def test_both_are_closed_even_if_one_fails():
    chunks = CountingStore(DictStore())
    metadata = FailingStore(DictStore(), OSError("no"), methods=["_close"])
    with pytest.raises(OSError, match="no"):
        SplitStore(metadata, chunks).close()
    assert chunks.calls == {"_close": 1}


@pytest.mark.parametrize("make", [DictStore, Shelf])
def test_one_store_on_both_sides_is_that_store(make):
    one = make()
    store = SplitStore(one, one)
    store.update(TREE)
    assert sorted(store) == sorted(TREE)
    assert (len(store), dict(store.items()), dict(one.items())) == (len(TREE), TREE, TREE)
    for path in ("", "a", "b", "a/0.0", "a/.zarray"):
        assert (store.listdir(path), store.getsize(path)) == (one.listdir(path), one.getsize(path)), path
    store.rename("a", "z")
    assert sorted(one) == sorted(key.replace("a/", "z/", 1) if key.startswith("a/") else key for key in TREE)
    store.rmdir("z")
    assert dict(one.items()) == {".zgroup": b"{}", "b/zarr.json": b"{}"}


def test_keys_of_the_other_kind_are_not_sized():
    store = SplitStore({"a/.zarray": b"{}", "a/0.0": b"stray"}, {"a/0.0": b"new", "a/.zarray": b"stray too"})
    assert store.getsize("a") == len(b"{}" + b"new")


def test_documents_come_last_go_first_and_are_flushed_last():
    recorder = Recorder()
    store = SplitStore(recorder.watch(DictStore(), "documents"), recorder.watch(DictStore(), "chunks"))
    store.setitems(TREE)
    store.flush()
    recorder.require_order(("chunks", "set"), ("documents", "set"), ("chunks", "flush"), ("documents", "flush"))
    for act, action in (
        (lambda: store.delitems(["a/0.0", "a/.zarray"]), "delete"),
        (lambda: store.rmdir("a"), "rmdir"),
        (store.clear, "clear"),
    ):
        recorder.events.clear()
        act()
        recorder.require_order(("documents", action), ("chunks", action))


def test_chunks_that_cannot_be_listed_make_a_store_that_cannot_be_listed():
    class Unlistable(DictStore):
        capabilities = replace(DictStore.capabilities, listable=False)

        def _keys(self, path):
            raise UnsupportedOperation("list", self)

        _listdir = _keys

    store = SplitStore(DictStore(DOCUMENTS), Unlistable(CHUNKS))
    assert store.listdir() == [".zgroup", "a", "b"]
    for path in ("a", "a/0.0", "absent"):
        with pytest.raises(UnsupportedOperation):
            store.listdir(path)
    with pytest.raises(UnsupportedOperation):
        list(store)
    assert store.getsize("a") == -1


def test_a_document_among_the_chunks_is_out_of_sight_and_a_directory_of_that_name_is_not():
    store = SplitStore({}, {"a/.zarray": b"{}", "a/0": b"1", "b/.zarray/0": b"2"})
    assert store.listdir("a") == ["0"]
    assert store.listdir("b") == [".zarray"]


def test_a_rename_on_one_side_is_a_rename_of_that_store():
    chunks = CountingStore({"a/0": b"1"})
    store = SplitStore({}, chunks)
    store.rename("a/0", "a/1")
    assert chunks.calls["_rename"] == 1
    assert chunks.calls["_set"] == chunks.calls["_get"] == 0
