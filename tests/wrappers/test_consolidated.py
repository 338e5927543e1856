from __future__ import annotations

import json

import pytest

from tests.support.cases import each_of
from zarrstore import DictStore, LRUStoreCache
from zarrstore.errors import DestinationExistsError, MetadataError, ReadOnlyError, UnsupportedOperation
from zarrstore.metadata import consolidated
from zarrstore.metadata.consolidated import Staleness
from zarrstore.metadata.documents import dumps
from zarrstore.testing import CountingStore, StoreConformance, tree
from zarrstore.wrappers.base import Wrapper
from zarrstore.wrappers.consolidated import ConsolidatedStore
from zarrstore.wrappers.metrics import MetricsStore
from zarrstore.wrappers.prefix import PrefixStore
from zarrstore.wrappers.readonly import ReadOnlyStore
from zarrstore.wrappers.split import SplitStore

from .shelf import Shelf


class TestConsolidatedStore(StoreConformance):
    inner = DictStore

    def tree(self):
        """The adversarial tree, and the document that repeats its documents."""
        held = tree()
        return {**held, ".zmetadata": consolidated.build(held)}

    def make_store(self, tmp_path):
        return self.make_filled(tmp_path, {})

    def make_filled(self, tmp_path, items):
        inner = self.inner()
        inner.update({".zmetadata": consolidated.build(items), **items})
        return ConsolidatedStore(inner)

    def test_an_empty_store_is_empty(self, store):
        # Not quite: there is no consolidated metadata without the document that holds it.
        assert dict(store) == {".zmetadata": consolidated.build({})}


class TestConsolidatedHierarchical(TestConsolidatedStore):
    inner = Shelf


class TestReadOnlyOverConsolidated(TestConsolidatedStore):
    def make_filled(self, tmp_path, items):
        return ReadOnlyStore(super().make_filled(tmp_path, items))


class TestConsolidatedOverPrefix(TestConsolidatedStore):
    inner = staticmethod(lambda: PrefixStore(DictStore(), "part"))


ARRAY = {"zarr_format": 2, "shape": [2]}
DOCUMENTS = {".zgroup": {"zarr_format": 2}, ".zattrs": {"t": 1}, "a/.zarray": ARRAY, "g/.zgroup": {"zarr_format": 2}}


def hierarchy():
    held = {key: dumps(document) for key, document in DOCUMENTS.items()}
    return {**held, ".zmetadata": consolidated.build(held), "a/0": b"chunk", "g/x": b"no document"}


def test_documents_cost_one_read_for_all_and_the_absent_none():
    inner = CountingStore(DictStore(hierarchy()))
    store = ConsolidatedStore(inner)
    assert inner.calls == {"_get": 1}
    assert {key: json.loads(store[key]) for key in DOCUMENTS} == DOCUMENTS
    assert (store.get("a/.zattrs"), ".zarray" in store, store.get("g/zarr.json")) == (None, False, None)
    assert dict(store.getitems([".zattrs", "a/.zarray", "a/.zattrs"])) == {
        key: dumps(DOCUMENTS[key]) for key in (".zattrs", "a/.zarray")
    }
    assert (store.getrange(".zattrs", 0, 1), store.getsuffix(".zattrs", 1), store.getsize(".zattrs")) == (
        b"{",
        b"}",
        14,
    )
    assert inner.calls["_get"] == 1
    assert inner.calls["_get_many"] <= 1  # of nothing
    assert store["a/0"] == b"chunk"


def test_listings_show_documents_and_chunks():
    store = ConsolidatedStore(DictStore({**hierarchy(), "a/.zattrs": b"{}", "g/zarr.json": b"{}"}))
    assert dict(store) == hierarchy()  # documents that it does not repeat are out of sight
    assert (store.listdir(), store.listdir("a"), store.listdir("g")) == (
        [".zattrs", ".zgroup", ".zmetadata", "a", "g"],
        [".zarray", "0"],
        [".zgroup", "x"],
    )


class Unlistable(CountingStore):
    """As a web server: what is named is served, and there is no list."""

    def __init__(self, inner):
        super().__init__(inner)
        from dataclasses import replace

        self.capabilities = replace(self.capabilities, listable=False)

    def _before(self, method, *args):
        super()._before(method, *args)
        if method in ("_keys", "_count", "_listdir"):
            raise UnsupportedOperation("list", self)


@each_of(
    "wrap",
    [
        lambda s: s,
        ReadOnlyStore,
        lambda s: SplitStore(s, s.inner),
        lambda s: LRUStoreCache(s, 99),
        Wrapper,
        MetricsStore,
    ],
)
@each_of("held", ["version 2", "version 3"])
def test_a_store_that_cannot_list_says_so_and_tells_the_documents_of_a_group(wrap, held):
    items, array = (hierarchy(), "a") if held == "version 2" else (inline(), "g/a")
    store = wrap(ConsolidatedStore(Unlistable(DictStore(items))))
    assert not store.capabilities.listable
    for refused in (
        lambda: list(store),
        lambda: len(store),
        lambda: dict(store),
        lambda: bool(store),
        lambda: list(store.keys_below("g")),
        lambda: store.listdir(array),
        lambda: store.listdir(f"{array}/0"),
        lambda: store.listdir("absent"),
        lambda: dict(store.items()),
    ):
        with pytest.raises(UnsupportedOperation, match="list"):
            refused()
    documents = [".zattrs", ".zgroup", ".zmetadata", "a", "g"] if held == "version 2" else ["g", "zarr.json"]
    assert store.listdir() == documents
    assert store.listdir("g") == ([".zgroup"] if held == "version 2" else ["a", "zarr.json"])
    chunk = next(key for key, value in items.items() if value == b"chunk")
    assert (store[chunk], store.getsize(chunk), store.getsize(array), store.getsize("")) == (b"chunk", 5, -1, -1)


def test_a_consolidated_document_of_another_name_is_listed_once_and_never_written():
    inner = DictStore({f"meta/a/{key}": value for key, value in hierarchy().items()} | {"meta/all.json": b""})
    inner["meta/all.json"] = consolidated.build({f"a/{key}": value for key, value in hierarchy().items()})
    store = ConsolidatedStore(inner, "meta/all.json", write_chunks=True)
    assert sorted(store) == sorted(set(store))
    assert store.listdir("meta") == ["a", "all.json"]
    assert store["meta/all.json"] == inner["meta/all.json"]
    for write in (
        lambda: store.__setitem__("meta/all.json", b"{}"),
        lambda: store.__delitem__("meta/all.json"),
        lambda: store.setitems({"meta/all.json": b"{}"}),
        lambda: store.rename("meta/a/g/x", "meta/all.json"),
    ):
        with pytest.raises((ReadOnlyError, DestinationExistsError)):
            write()
    store["meta/a/a/0"] = b"new"
    assert (store["meta/a/a/0"], len(store)) == (b"new", len(list(store)))


@pytest.mark.parametrize("key", [".zattrs", "a/.zattrs", ".zmetadata", "zarr.json", "new/.zgroup"])
def test_a_document_is_never_written_and_a_chunk_if_allowed(key):
    inner = DictStore(hierarchy())
    for store in (ConsolidatedStore(inner), ConsolidatedStore(inner, write_chunks=True)):
        for write in (
            lambda: store.__setitem__(key, b"{}"),  # noqa: B023
            lambda: store.__delitem__(key),  # noqa: B023
            lambda: store.setitems({key: b"{}"}),  # noqa: B023
            lambda: store.delitems([key]),  # noqa: B023
            lambda: store.rmdir("a"),  # noqa: B023
            lambda: store.rename("a", "b"),  # noqa: B023
            lambda: store.clear(),  # noqa: B023
        ):
            with pytest.raises(ReadOnlyError):
                write()
    assert dict(inner) == hierarchy()
    store["a/0"] = b"new"
    store.update({"a/1": b"new"})
    store["a/old/1"] = b"1"
    store.rmdir("a/old")
    store.rename("g/x", "g/y")
    store.delitems(["a/1"])
    assert dict(inner) == {**{k: v for k, v in hierarchy().items() if k != "g/x"}, "a/0": b"new", "g/y": b"no document"}
    with pytest.raises(ReadOnlyError):
        ConsolidatedStore(inner)["a/0"] = b"newer"


def test_a_store_for_documents_and_one_for_chunks_is_how_zarr_2_did_it():
    inner = DictStore(hierarchy())
    store = SplitStore(ConsolidatedStore(inner), inner)
    assert sorted(store) == sorted(inner)
    assert not store.capabilities.writable


def test_staleness_tells_what_differs_and_reload_sees_it():
    inner = DictStore(hierarchy())
    store = ConsolidatedStore(inner)
    assert not store.staleness()
    inner["a/.zarray"] = dumps({**ARRAY, "shape": [3]})
    inner["n/.zgroup"] = b'{"zarr_format": 2}'
    inner[".zattrs"] = b'{"t":1}'  # the same in other words
    del inner["g/.zgroup"]
    stale = Staleness(missing=("n/.zgroup",), extra=("g/.zgroup",), different=("a/.zarray",))
    assert store.staleness() == stale
    inner[".zmetadata"] = consolidated.build(dict(inner))
    assert store.staleness() == stale  # of what it serves
    assert json.loads(store["a/.zarray"]) == ARRAY
    store.reload()
    assert not store.staleness()
    assert json.loads(store["a/.zarray"])["shape"] == [3]
    inner[".zmetadata"] = b"cut"
    with pytest.raises(MetadataError):
        store.reload()
    assert json.loads(store["a/.zarray"])["shape"] == [3]


def inline():
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    array = {"zarr_format": 3, "node_type": "array", "shape": [2]}
    root = {**group, "consolidated_metadata": consolidated.build_inline({"g": group, "g/a": array})}
    return {
        "zarr.json": dumps(root),
        "g/zarr.json": dumps(group),
        "g/a/zarr.json": dumps(array),
        "g/a/c/0": b"chunk",
    }


@pytest.mark.parametrize("key", ["zarr.json", ".zmetadata"])
def test_the_inline_form_of_version_3_is_served_too(key):
    inner = CountingStore(DictStore(inline()))
    store = ConsolidatedStore(inner, key)
    assert dict(store) == inline()
    inner.reset()
    assert json.loads(store["g/a/zarr.json"])["shape"] == [2]
    assert inner.calls == {}
    assert not store.staleness()
    inner["g/a/zarr.json"] = b'{"shape": [4]}'
    inner["n/zarr.json"] = b"{}"
    inner["g/zarr.json"] = b"cut"
    assert store.staleness() == Staleness(missing=("n/zarr.json",), different=("g/a/zarr.json", "g/zarr.json"))


def test_consolidated_metadata_of_a_part_names_its_keys_from_there():
    part = hierarchy()
    whole = DictStore({f"deep/er/{key}": value for key, value in part.items()})
    store = ConsolidatedStore(whole, "deep/er/.zmetadata")
    assert dict(PrefixStore(store, "deep/er")) == part
    assert not store.staleness()


@pytest.mark.parametrize(
    "data, error, text",
    [
        (None, KeyError, "consolidate_metadata"),
        (b"", MetadataError, "JSON"),
        (b"{}", MetadataError, "zarr_consolidated_format"),
        (b'{"zarr_consolidated_format": 2, "metadata": {}}', MetadataError, "1 is expected"),
    ],
)
def test_what_is_no_consolidated_metadata_does_not_open(data, error, text):
    with pytest.raises(error, match=text):
        ConsolidatedStore({} if data is None else {".zmetadata": data})


@pytest.mark.parametrize("name", ["../../x/.zarray", "/x/.zarray", "a//.zgroup", "a/0.0", "", "a/.zmetadata"])
def test_an_odd_name_among_the_documents_is_left_out_and_the_others_are_read(name):
    data = b'{"zarr_consolidated_format": 1, "metadata": {"b/.zgroup": {"zarr_format": 2}, "%b": {"x": 1}}}'
    store = ConsolidatedStore({".zmetadata": data % name.encode()})
    assert sorted(store) == [".zmetadata", "b/.zgroup"]
    assert name not in store


def test_a_zarr_json_that_repeats_nothing_is_no_consolidated_metadata():
    with pytest.raises(KeyError, match="consolidate_metadata"):
        ConsolidatedStore({"zarr.json": b'{"zarr_format": 3, "node_type": "group"}'})
    with pytest.raises(MetadataError, match="consolidated_metadata"):
        ConsolidatedStore({"zarr.json": b'{"zarr_format": 3, "node_type": "group"}'}, "zarr.json")
