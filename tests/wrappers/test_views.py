"""Version 2 over version 3 and back: the documents translated, the chunks untouched."""

from __future__ import annotations

import json
import pickle

import pytest

from tests.bridges.legacy import ARRAYS, DATA, NOT_ZARR_3
from tests.support import peers
from tests.wrappers.shelf import Shelf
from zarrstore import DictStore
from zarrstore.errors import InvalidKeyError, MetadataError, UnsupportedOperation
from zarrstore.metadata import consolidated, documents, v2
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import CountingStore, StoreConformance
from zarrstore.wrappers._views import may_name_a_chunk
from zarrstore.wrappers.v2view import V2View
from zarrstore.wrappers.v3view import V3View


class ViewConformance(StoreConformance):
    """Keys that belong to no hierarchy pass through; what is named like a chunk needs its array."""

    segments = ("a", "ab", "a.b", "a-", "a0", "a_", "A", "é", "b")
    examples = 8

    def tree(self):
        named = {key: key.rpartition("/")[2] for key in super().tree()}
        return {key: value for key, value in super().tree().items() if not self.needs_an_array(named[key])}

    @staticmethod
    def needs_an_array(name):
        return may_name_a_chunk(name) or name[:2] == ".z"

    # Left out, because these set keys that end in 0.0, in 0 or in c.
    def test_deleting_removes_the_key_and_nothing_else(self): ...
    def test_getsize_is_that_of_the_value_or_of_the_values_immediately_below(self): ...
    def test_rename_keeps_the_rest_of_the_key(self): ...
    def test_getitems_gives_those_that_exist(self): ...
    def test_setitems_and_delitems_do_all(self): ...
    def test_parts_of_a_value(self): ...
    def test_the_free_functions_say_the_same_as_the_methods(self): ...
    def test_the_other_methods_of_a_mapping_work(self): ...
    def test_a_value_and_a_directory_of_one_name(self): ...


class TestV2View(ViewConformance):
    def make_store(self, tmp_path):
        return V2View(DictStore())


class TestV2ViewOfDirectory(ViewConformance):
    def make_store(self, tmp_path):
        return V2View(DirectoryStore(tmp_path / "d"))


class TestV3View(ViewConformance):
    def make_store(self, tmp_path):
        return V3View(DictStore())


class TestV3ViewOfHierarchical(ViewConformance):
    def make_store(self, tmp_path):
        return V3View(Shelf())


def zarray(**members):
    return v2.encode_array(
        v2.build_array(**{"shape": (4, 6), "chunks": (2, 3), "dtype": "<i4", "fill_value": 0, **members})
    )


GROUP = v2.encode_group()


def loads(data):
    return documents.loads(data, "x")


@pytest.fixture
def legacy():
    """What zarr 2.18.7 wrote, without what version 3 cannot say."""
    held = dict(DirectoryStore(DATA / "legacy.zarr"))
    return {key: value for key, value in held.items() if key[: len("stations/meta/")] != "stations/meta/"}


#: Version 3 has no null here: it becomes 0.
NULL_FILLS = {f"{name}/.zarray" for name in ARRAYS}


@pytest.mark.parametrize("order", ["as listed", "chunks first", "attributes first"])
def test_what_zarr_2_wrote_comes_back_through_version_3(legacy, order):
    below = DictStore()
    view = V2View(below)
    keys = sorted(legacy, reverse=order == "chunks first")
    if order == "attributes first":
        keys.sort(key=lambda key: key[-7:] != ".zattrs")
    view.setitems((key, legacy[key]) for key in keys if key != ".zmetadata")
    assert not [key for key in below if "/.z" in key or key[:2] == ".z"]
    got = dict(view)
    legacy.pop(".zmetadata")
    assert sorted(got) == sorted(legacy)
    differ = {key for key in legacy if got[key] != legacy[key]}
    assert differ <= NULL_FILLS
    for key in differ:
        was, now = loads(legacy[key]), loads(got[key])
        assert {name for name in was if was[name] != now[name]} <= {"fill_value", "compressor"}, key
    assert {key: view[key] for key in keys if key in got} == got
    assert {path: view.listdir(path) for path in ("", "ocean", "ocean/deep", "ocean/deep/raw")} == {
        path: DictStore(dict(legacy)).listdir(path) for path in ("", "ocean", "ocean/deep", "ocean/deep/raw")
    }


def test_chunks_are_the_same_bytes_below(legacy):
    below = DictStore()
    V2View(below).setitems({key: value for key, value in legacy.items() if key != ".zmetadata"})
    documents_ = [key for key in below if key[-9:] == "zarr.json"]
    chunks = sorted(below[key] for key in below if key not in documents_)
    assert chunks == sorted(value for key, value in legacy.items() if key.rpartition("/")[2][:2] != ".z")


READ_3 = """
    import json, sys, warnings
    warnings.simplefilter("ignore")
    import zarr
    from tests.bridges.legacy import ARRAYS, NOT_ZARR_3, expected, same
    group = zarr.open_group(sys.argv[1], mode="r", zarr_format=3)
    wanted = [name for name in ARRAYS if name not in NOT_ZARR_3]
    print(json.dumps([name for name in wanted if not same(group[name][...], expected(name))]))
"""
READ_2 = """
    import json, sys, zarr
    import zarrstore.bridges.zarr2
    from tests.bridges.legacy import ARRAYS, NOT_ZARR_3, expected, same
    from zarrstore.wrappers.v2view import V2View
    from zarrstore.stores.directory import DirectoryStore
    group = zarr.open_group(V2View(DirectoryStore(sys.argv[1])), mode="r")
    wanted = [name for name in ARRAYS if name not in NOT_ZARR_3]
    names = []
    group.visit(names.append)
    assert set(wanted) <= set(names)
    print(json.dumps([name for name in wanted if not same(group[name][...], expected(name))]))
"""


@pytest.mark.needs_peer("zarr2", "z34")
@pytest.mark.timeout(180)
def test_both_releases_of_zarr_read_it(legacy, tmp_path):
    with DirectoryStore(tmp_path / "d") as below:
        V2View(below).setitems({key: value for key, value in legacy.items() if key != ".zmetadata"})
    for peer in ("self", "z34"):
        assert peers.run(peer, READ_3, tmp_path / "d") == []
    assert peers.run("zarr2", READ_2, tmp_path / "d") == []


@pytest.mark.needs_peer("zarr2")
@pytest.mark.timeout(180)
def test_zarr_2_works_in_a_hierarchy_of_zarr_3(tmp_path):
    zarr = pytest.importorskip("zarr", reason="needs zarr 3: pip install zarrstore[zarr3]")
    import numpy as np

    data = np.arange(60.0).reshape(6, 10)
    group = zarr.create_group(str(tmp_path / "d"), zarr_format=3, attributes={"title": "new"})
    group.create_array("a", shape=data.shape, chunks=(4, 4), dtype="f8", dimension_names=("y", "x"))[:] = data
    group.create_array("sharded", shape=(8, 8), chunks=(2, 2), shards=(4, 4), dtype="i4")[:] = 1
    group.create_array("scalar", shape=(), dtype="f8")[...] = 4.5
    group.create_array(
        "flat", shape=(5,), chunks=(2,), dtype="i4", chunk_key_encoding={"name": "v2", "separator": "."}
    )[:] = 9
    result = peers.run(
        "zarr2",
        """
        import json, sys, numpy as np, zarr
        import zarrstore.bridges.zarr2
        from zarrstore.wrappers.v2view import V2View
        from zarrstore.stores.directory import DirectoryStore
        from zarrstore.wrappers.prefix import PrefixStore
        store = V2View(DirectoryStore(sys.argv[1]))
        group = zarr.open_group(store, mode="r+")
        result = {"attrs": dict(group.attrs), "names": sorted(group.array_keys()), "dims": dict(group["a"].attrs)}
        result["values"] = [group["a"][:].sum(), group["scalar"][()].item(), group["flat"][:].tolist()]
        assert "sharded" not in group and sorted(name for name, _ in group.arrays()) == ["a", "flat", "scalar"]
        result["unreadable"] = store.unreadable()
        group["a"][:2] = -1
        group["a"].attrs["units"] = "K"
        group["a"].resize(8, 10)
        group["flat"][4] = 7
        new = group.create_dataset("deep/new", shape=(3, 3), chunks=2, dtype=">i2", fill_value=5, order="F")
        new[:2] = np.arange(6).reshape(2, 3)
        group.attrs["by"] = "zarr 2"
        group.move("scalar", "moved")
        group.create_dataset("deleted", shape=3)[:] = 1
        del group["deleted"]
        part = PrefixStore(store, "deep")
        zarr.consolidate_metadata(part)
        again = zarr.open_consolidated(part)
        result["consolidated"] = [sorted(again.array_keys()), again["new"][:].tolist()]
        print(json.dumps(result))
        """,
        tmp_path / "d",
    )
    assert result["attrs"] == {"title": "new"}
    assert result["names"] == ["a", "flat", "scalar"]
    assert result["dims"] == {"_ARRAY_DIMENSIONS": ["y", "x"]}
    assert result["values"] == [data.sum(), 4.5, [9] * 5]
    assert list(result["unreadable"]) == ["sharded"]
    assert "version 2 cannot represent the array: codec 'sharding_indexed'" in result["unreadable"]["sharded"]
    assert result["consolidated"] == [["new"], [[0, 1, 2], [3, 4, 5], [5, 5, 5]]]
    group = zarr.open_group(str(tmp_path / "d"), mode="r", zarr_format=3, use_consolidated=False)
    data[:2] = -1
    assert (group["a"][:6] == data).all()
    assert group["a"].shape == (8, 10)
    assert group["a"].metadata.dimension_names == ("y", "x")
    assert dict(group["a"].attrs) == {"units": "K"}
    assert (group["sharded"][:] == 1).all()
    assert group["moved"][...] == 4.5
    assert group["flat"][:].tolist() == [9] * 4 + [7]
    assert group["deep/new"][:].tolist() == [[0, 1, 2], [3, 4, 5], [5, 5, 5]]
    assert dict(group.attrs) == {"title": "new", "by": "zarr 2"}
    assert sorted(name for name, _ in group.members(max_depth=None)) == [
        "a",
        "deep",
        "deep/new",
        "flat",
        "moved",
        "sharded",
    ]
    repeated = zarr.open_consolidated(str(tmp_path / "d/deep"), zarr_format=3)
    assert repeated.metadata.consolidated_metadata.metadata["new"].shape == (3, 3)


@pytest.mark.parametrize("separator", [".", "/"])
def test_either_spelling_of_a_chunk_is_understood_and_one_is_listed(separator):
    below = {}
    view = V2View(below, dimension_separator=separator)
    view["a/.zarray"] = zarray(dimension_separator="/")
    view["a/0.1"] = b"one"
    view["a/1/1"] = b"two"
    assert sorted(below) == ["a/c/0/1", "a/c/1/1", "a/zarr.json"]
    assert (view["a/0/1"], view["a/1.1"]) == (b"one", b"two")
    assert sorted(view) == sorted(["a/.zarray", f"a/0{separator}1", f"a/1{separator}1"])
    assert view.listdir("a") == sorted({".zarray", *(f"{n}{separator}1".split("/")[0] for n in (0, 1))})
    assert loads(view["a/.zarray"]).get("dimension_separator", ".") == separator
    if separator == "/":
        assert view.listdir("a/0") == ["1"]
        view.rmdir("a/0")
        assert sorted(below) == ["a/c/1/1", "a/zarr.json"]
    with pytest.raises(ValueError, match="expected"):
        V2View(below, dimension_separator=":")


def test_arrays_without_axes_and_with_one():
    below = {}
    view = V2View(below)
    view.update({"none/.zarray": zarray(shape=(), chunks=()), "none/0": b"x"})
    view.update({"one/.zarray": zarray(shape=5, chunks=2), "one/0": b"y", "one/2": b"z"})
    assert sorted(below) == ["none/c", "none/zarr.json", "one/c/0", "one/c/2", "one/zarr.json"]
    assert sorted(view) == ["none/.zarray", "none/0", "one/.zarray", "one/0", "one/2"]
    assert (view["none/0"], view["one/2"]) == (b"x", b"z")


def test_an_array_at_the_root_and_a_group_that_is_named_like_a_chunk():
    view = V2View({})
    view.update({".zarray": zarray(), "0.0": b"x"})
    assert dict(view) == {".zarray": zarray(), "0.0": b"x"}
    view = V2View({})
    view.update({".zgroup": GROUP, "0/.zarray": zarray(), "0/1.1": b"x", "1/.zgroup": GROUP})
    assert sorted(view) == [".zgroup", "0/.zarray", "0/1.1", "1/.zgroup"]
    assert (view.listdir(), view.listdir("0")) == ([".zgroup", "0", "1"], [".zarray", "1.1"])


def test_a_chunk_without_its_array_is_refused_and_one_that_comes_early_waits():
    below = {}
    view = V2View(below)
    for write in (lambda: view.__setitem__("a/0.0", b"x"), lambda: view.setitems({"a/0.0": b"x", "b/1": b"y"})):
        with pytest.raises(UnsupportedOperation, match=r"set its \.zarray first"):
            write()
    assert below == {}
    view.setitems([("a/0.0", b"x"), ("a/.zattrs", b'{"u": 1}'), ("a/.zarray", zarray())])
    assert dict(view) == {"a/0.0": b"x", "a/.zattrs": b'{\n    "u": 1\n}', "a/.zarray": zarray()}


def test_what_version_3_keeps_for_itself_is_out_of_sight():
    below = {}
    view = V2View(below)
    view.update({".zgroup": GROUP, "a/.zarray": zarray(), "a/0.0": b"x"})
    below.update({"a/c/9/9/9": b"foreign", "a/7": b"foreign", ".zattrs": b"{}", "b/.zarray": b"raw"})
    assert sorted(view) == [".zgroup", "a/.zarray", "a/0.0"]
    for key in ("zarr.json", "a/zarr.json", "a/c/0/0", "a/7", ".zattrs", "b/.zarray", "a/c/9/9/9"):
        assert key not in view
        assert view.get(key) is None
        with pytest.raises(KeyError):
            view.getrange(key, 0)
        with pytest.raises(KeyError):
            del view[key]
    assert dict(view.getitems(["a/zarr.json", "a/c/0/0", "a/7"])) == {}
    for key in ("a/zarr.json", "a/c/0/0", "a/7", "a/0.0.0"):
        with pytest.raises(InvalidKeyError):
            view[key] = b"{}"


def test_documents_change_in_place_and_keep_what_they_do_not_speak_of():
    below = {}
    view = V2View(below)
    view["a/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["y", "x"], "u": 1}'  # before there is a node
    assert view["a/.zgroup"] == GROUP
    view["a/.zarray"] = zarray()
    assert sorted(view) == ["a/.zarray", "a/.zattrs"]
    held = loads(below["a/zarr.json"])
    assert (held["dimension_names"], held["attributes"]) == (["y", "x"], {"u": 1})
    view["a/.zarray"] = zarray(shape=(9, 6))
    assert loads(view["a/.zattrs"]) == {"_ARRAY_DIMENSIONS": ["y", "x"], "u": 1}
    view["a/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["y"], "v": NaN}'  # does not fit: an attribute like others
    assert loads(below["a/zarr.json"]).get("dimension_names") is None
    assert loads(view["a/.zattrs"])["_ARRAY_DIMENSIONS"] == ["y"]
    del view["a/.zattrs"]
    assert sorted(view) == ["a/.zarray"]
    with pytest.raises(KeyError):
        del view["a/.zattrs"]
    with pytest.raises(KeyError):
        del view["a/.zgroup"]
    view["a/.zgroup"] = GROUP
    assert sorted(view) == ["a/.zgroup"]
    before = dict(below)
    view["a/.zgroup"] = GROUP
    assert below == before
    del view["a/.zgroup"]
    assert below == {}


def test_the_naming_of_chunks_that_are_there_is_kept():
    zarr_json = b"""{"zarr_format": 3, "node_type": "array", "shape": [4], "data_type": "int32", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}}, "attributes": {},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}"""
    below = {"a/zarr.json": zarr_json, "a/0": b"12345678"}
    view = V2View(below)
    view["a/.zarray"] = v2.encode_array(v2.build_array(shape=6, chunks=2, dtype="<i4", fill_value=0, compressor=None))
    view["a/2"] = b"87654321"
    assert sorted(below) == ["a/0", "a/2", "a/zarr.json"]
    assert sorted(view) == ["a/.zarray", "a/0", "a/2"]
    assert loads(below["a/zarr.json"])["shape"] == [6]


def test_what_is_no_document_and_what_version_3_cannot_say_are_refused_and_nothing_is_written():
    below = {}
    view = V2View(below)
    for key, value, text in (
        ("a/.zarray", b"{}", "is missing"),
        ("a/.zgroup", b"[]", "not an object"),
        ("a/.zattrs", b"cut", "not JSON"),
        ("a/.zmetadata", b"{}", "zarr_consolidated_format"),
        (
            "a/.zarray",
            zarray(dtype=object, object_codec={"id": "json2"}, fill_value=None),
            "version 3 cannot represent it",
        ),
    ):
        with pytest.raises(MetadataError, match=text):
            view[key] = value
    assert below == {}


def test_consolidated_metadata_is_the_inline_form():
    below = {}
    view = V2View(below)
    view.update(
        {".zgroup": GROUP, ".zattrs": b'{"t": 1}', "g/.zgroup": GROUP, "g/a/.zarray": zarray(), "g/a/0.0": b"x"}
    )
    assert ".zmetadata" not in view
    result = consolidated.build(dict(view))
    view[".zmetadata"] = result
    assert view[".zmetadata"] == result
    assert view.listdir() == [".zattrs", ".zgroup", ".zmetadata", "g"]
    nodes = consolidated.parse_inline(loads(below["zarr.json"]))
    assert {path: node["node_type"] for path, node in nodes.items()} == {"g": "group", "g/a": "array"}
    sharded = {**nodes["g/a"], "codecs": [{"name": "sharding_indexed", "configuration": {}}]}
    root = {**loads(below["zarr.json"]), "consolidated_metadata": consolidated.build_inline({"s": sharded, **nodes})}
    below["zarr.json"] = documents.dumps(root)
    assert view[".zmetadata"] == result  # what version 2 cannot say is not repeated
    del view[".zmetadata"]
    assert ".zmetadata" not in view
    assert loads(view[".zattrs"]) == {"t": 1}


def test_renames_and_removals_of_nodes_reach_the_store_below_as_such():
    below = CountingStore(DictStore())
    view = V2View(below)
    view.update({".zgroup": GROUP, "a/.zarray": zarray(), "a/0.0": b"x", "ab/.zarray": zarray(), "ab/0.1": b"y"})
    below.reset()
    view.rename("a", "b")
    assert (below.calls["_rename"], below.calls["_delete_many"]) == (1, 0)
    assert sorted(view) == [".zgroup", "ab/.zarray", "ab/0.1", "b/.zarray", "b/0.0"]
    view["b/1.1"] = b"z"
    view.rename("b/0.0", "b/0.1")
    assert (view.get("b/0.0"), view["b/0.1"]) == (None, b"x")
    view.rmdir("b")
    view["b/.zarray"] = zarray(shape=5, chunks=2)  # another number of axes: nothing is remembered of the old one
    view["b/1"] = b"new"
    assert sorted(below) == ["ab/c/0/1", "ab/zarr.json", "b/c/1", "b/zarr.json", "zarr.json"]
    assert below.calls["_rmdir"] == 1


def test_a_chunk_costs_one_call_below_and_a_batch_one_batch():
    below = CountingStore(DictStore())
    view = V2View(below)
    view["deep/er/a/.zarray"] = zarray()
    view.setitems({f"deep/er/a/{m}.{n}": b"x" for m in range(2) for n in range(2)})
    view = pickle.loads(pickle.dumps(view))
    below = view.inner
    view["deep/er/a/0.0"]  # from here on it is known how chunks are named
    below.reset()
    assert view["deep/er/a/0.1"] == b"x"
    assert dict(view.getitems(["deep/er/a/0.0", "deep/er/a/1.1", "deep/er/a/7.7"])) == {
        "deep/er/a/0.0": b"x",
        "deep/er/a/1.1": b"x",
    }
    view["deep/er/a/0.0"] = b"y"
    assert below.calls == {"_get": 1, "_get_many": 1, "_set": 1}


# And back.


def test_what_zarr_2_wrote_is_shown_as_version_3(legacy):
    view = V3View(DictStore(dict(legacy)))
    chunks = {key: value for key, value in legacy.items() if key.rpartition("/")[2][:2] != ".z"}
    shown = dict(view)
    assert {key: value for key, value in shown.items() if key[-9:] != "zarr.json"} == chunks
    nodes = {key.rpartition("/")[0] for key in shown if key[-9:] == "zarr.json"}
    assert nodes == {"", "ocean", "ocean/deep", "ocean/surface", "stations", *ARRAYS} - NOT_ZARR_3
    again = V2View(view)
    assert sorted(again) == sorted(legacy.keys() - {".zmetadata"})
    assert loads(again["ocean/surface/temperature/.zattrs"]) == {"_ARRAY_DIMENSIONS": ["time", "lat", "lon"]}


@pytest.mark.needs_peer("z34")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("peer", ["self", "z34"])
def test_zarr_3_reads_and_writes_an_old_store_as_version_3(tmp_path, peer):
    held = dict(DirectoryStore(DATA / "legacy.zarr"))
    with DirectoryStore(tmp_path / "d") as below:
        below.setitems(held)
    result = peers.run(
        peer,
        """
        import json, sys, warnings
        warnings.simplefilter("ignore")
        import numpy as np, zarr
        from tests.bridges.legacy import ARRAYS, NOT_ZARR_3, expected, same
        from zarrstore.wrappers.v3view import V3View
        from zarrstore.bridges.zarr3 import to_zarr3
        from zarrstore.stores.directory import DirectoryStore
        below = DirectoryStore(sys.argv[1])
        group = zarr.open_group(to_zarr3(V3View(below)), mode="r+", zarr_format=3)
        wanted = [name for name in ARRAYS if name not in NOT_ZARR_3]
        differ = [name for name in wanted if not same(group[name][...], expected(name))]
        group["ocean/deep/raw"][:10] = 0
        group["ocean/deep/raw"].attrs["units"] = "m"
        new = group.create_array("new/a", shape=(4, 4), chunks=(2, 2), dtype="i4", dimension_names=("y", "x"))
        new[:] = 5
        again = zarr.open_group(to_zarr3(below), mode="r", zarr_format=2, use_consolidated=False)
        assert (again["ocean/deep/raw"][:10] == 0).all()
        assert (zarr.open_array(to_zarr3(V3View(below)), path="new/a", mode="r")[:] == 5).all()
        print(json.dumps([differ, dict(again["ocean/deep/raw"].attrs), again["new/a"][:].sum().item(),
                          sorted(below.listdir("new/a")), dict(again["new/a"].attrs)]))
        """,
        tmp_path / "d",
    )
    assert result == [[], {"units": "m"}, 80, [".zarray", ".zattrs", "0", "1"], {"_ARRAY_DIMENSIONS": ["y", "x"]}]


def test_version_3_s_own_names_of_chunks_are_understood():
    below = {}
    view = V3View(below)
    with pytest.raises(UnsupportedOperation, match=r"set its zarr\.json first"):
        view["a/c/0/0"] = b"x"
    V2View(view)["a/.zarray"] = zarray()  # which asks for version 3's default names
    view["a/c/0/1"] = b"x"
    assert sorted(below) == ["a/.zarray", "a/0/1"]
    assert (view["a/c/0/1"], view["a/0/1"]) == (b"x", b"x")
    assert sorted(view) == ["a/0/1", "a/zarr.json"]
    assert json.loads(below["a/.zarray"])["dimension_separator"] == "/"
    del below["a/0/1"]
    below["a/.zarray"] = zarray()
    view["a/c/0/1"] = b"x"
    view["a/c/1/1"] = b"y"
    assert sorted(below) == ["a/.zarray", "a/0.1", "a/1.1"]
    for key in ("a/.zarray", ".zgroup", ".zmetadata"):
        assert key not in view
        with pytest.raises(InvalidKeyError):
            view[key] = b"{}"


def test_what_version_3_cannot_say_is_listed_and_its_document_says_why():
    below = DictStore({"a/.zarray": (DATA / "legacy.zarr/stations/meta/.zarray").read_bytes(), ".zgroup": GROUP})
    view = V3View(below)
    assert view.listdir() == ["a", "zarr.json"]
    with pytest.raises(MetadataError, match="version 3 cannot represent the array: objects encoded by 'msgpack2'"):
        view["a/zarr.json"]
    del view["a/zarr.json"]
    assert dict(view) == {"zarr.json": view["zarr.json"]}
    with pytest.raises(KeyError):
        del view["a/zarr.json"]
    assert view.getrange("zarr.json", 0, 1) + view.getsuffix("zarr.json", 1) == b"{}"
    assert view.getsize("zarr.json") == len(view["zarr.json"])


def test_a_document_of_version_3_replaces_all_that_version_2_said():
    below = {"a/.zarray": zarray(), "a/.zattrs": b'{"u": 1}', "a/0.1": b"x"}
    view = V3View(below)
    array = loads(view["a/zarr.json"])
    default = {"name": "default", "configuration": {"separator": "/"}}
    view["a/zarr.json"] = documents.dumps({**array, "shape": [8, 6], "attributes": {}, "chunk_key_encoding": default})
    # Its chunks are there already, so their names stay.
    assert below == {"a/.zarray": zarray(shape=(8, 6)), "a/0.1": b"x"}
    view["a/zarr.json"] = b'{"zarr_format": 3, "node_type": "group", "attributes": {"t": 2}}'
    assert {key: below[key] for key in below if key != "a/0.1"} == {
        "a/.zgroup": GROUP,
        "a/.zattrs": b'{\n    "t": 2\n}',
    }


def test_nothing_is_remembered_of_an_array_that_is_gone_or_replaced():
    below = CountingStore(DictStore())
    view = V2View(below)
    for away in (
        lambda: view.rmdir("a"),
        lambda: view.rename("a", "b"),
        lambda: view.clear(),
        lambda: view.delitems(view),
    ):
        view.clear()
        view.update({"a/.zarray": zarray(), "a/0.0": b"x"})
        away()
        with pytest.raises(UnsupportedOperation):
            view["a/0.0"] = b"lost?"
    view.clear()
    view.update({"a/.zarray": zarray(), "a/0.0": b"x"})
    del view["a/0.0"]
    view["a/.zarray"] = zarray(shape=5, chunks=2)
    view["a/1"] = b"y"
    assert sorted(below) == ["a/c/1", "a/zarr.json"]
    below.reset()
    view["a/.zarray"] = zarray(shape=5, chunks=2)
    assert below.writes == 0  # it says so already
