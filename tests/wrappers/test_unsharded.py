"""Sharded arrays shown without their shards, and given back to programs that know version 2 only."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import zarrstore
from tests.support import peers
from tests.tools.test_shard import hierarchy, values_of
from tests.wrappers.test_views import ViewConformance
from zarrstore import DictStore, UnshardedView, V2View, migrate_3to2, migrate_to_shards
from zarrstore.chunknames import flatten
from zarrstore.errors import DestinationExistsError, StoreReadError, UnsupportedOperation
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import CountingStore


class TestUnshardedView(ViewConformance):
    def make_store(self, tmp_path):
        return UnshardedView(DictStore())


def sharded(nbytes=700):
    store: dict[str, bytes] = {}
    migrate_to_shards(hierarchy(), store, shards=nbytes)
    return store


@pytest.mark.parametrize("nbytes", [1, 300, 700, 10**6])
def test_chunks_and_documents_are_those_of_before_the_sharding(nbytes):
    plain: dict[str, bytes] = {}
    zarrstore.migrate_2to3(hierarchy(), plain)
    view = UnshardedView(sharded(nbytes))
    old = V2View(view)
    before = hierarchy()
    assert {key: old[key] for key in old if not key.endswith(("zarray", "zgroup", "zattrs"))} == {
        key.replace("g/cube/", "g/cube/").replace("/", "/"): value for key, value in flat(before).items()
    }
    for path, values in values_of(before).items():
        np.testing.assert_array_equal(zarrstore.read_array(old, path), values)
        assert json.loads(view[f"{path}/zarr.json"])["codecs"] == json.loads(plain[f"{path}/zarr.json"])["codecs"]
    assert bool(zarrstore.verify(view))
    assert bool(zarrstore.verify(old))


def flat(store):
    """Return the chunks of a version 2 hierarchy under their flat names."""
    found = {}
    for key, value in store.items():
        if "/.z" in key or key.startswith(".z"):
            continue
        found[flatten(key, "g/cube")] = value
    return found


def test_zarr_3_reads_through_the_view(tmp_path):
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    from zarrstore.bridges.zarr3 import to_zarr3

    group = zarr.open_group(to_zarr3(UnshardedView(sharded())), mode="r", zarr_format=3)
    for path, values in values_of(hierarchy()).items():
        assert group[path].shards is None
        np.testing.assert_array_equal(group[path][...], values)


def test_zarr_2_reads_sharded_data_through_two_views(tmp_path):
    DirectoryStore(tmp_path / "d").update(sharded())
    expected = {path: values.tolist() for path, values in values_of(hierarchy()).items()}
    script = """
import json, sys, zarr
from zarrstore import DirectoryStore, UnshardedView, V2View
group = zarr.open_group(V2View(UnshardedView(DirectoryStore(sys.argv[1]))), mode="r")
print(json.dumps({path: group[path][...].tolist() for path in json.loads(sys.argv[2])}))
"""
    assert peers.run("zarr2", script, str(tmp_path / "d"), json.dumps(list(expected))) == expected


def test_an_index_is_read_once_and_a_batch_of_one_shard_is_one_question():
    backend = CountingStore(DictStore())
    store: dict[str, bytes] = {}
    zarrstore.init_array(store, 8, 1, "|u1", None, 0, path="a")
    store.update({f"a/{n}": bytes([n]) for n in range(8)})
    migrate_to_shards(store, backend, shards=(4,))
    view = UnshardedView(backend)
    assert view["a/c/0"] == b"\0"
    backend.reset()
    assert [view[f"a/c/{n}"] for n in range(4)] == [bytes([n]) for n in range(4)]
    assert backend.calls == {"_get_range": 4}
    backend.reset()
    assert dict(view.getitems([f"a/c/{n}" for n in (0, 1, 3, 9)])) == {f"a/c/{n}": bytes([n]) for n in (0, 1, 3)}
    assert backend.calls["_get_ranges"] == 1
    assert backend.calls["_get_range"] == 0


def test_what_lies_in_shards_is_not_written_and_all_else_is():
    store = sharded()
    view = UnshardedView(store)
    before = dict(store)
    for act in (
        lambda: view.__setitem__("line/c/0", b"x"),
        lambda: view.__setitem__("line/zarr.json", b"{}"),
        lambda: view.__delitem__("line/c/0"),
        lambda: view.rmdir("line/c"),
    ):
        with pytest.raises(UnsupportedOperation, match="belongs to a sharded array"):
            act()
    assert store == before
    view["notes/today"] = b"fine"
    assert store["notes/today"] == b"fine"
    view.rmdir("line")
    assert "line/zarr.json" not in store
    assert list(view.keys_below("line")) == []


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_damaged_index_is_an_error_and_never_absence(cut):
    store = sharded(10**6)
    store["line/c/0"] = store["line/c/0"][:-cut]
    view = UnshardedView(store)
    with pytest.raises(StoreReadError, match="its index"):
        view["line/c/0"]


def test_a_pickled_view_works():
    view = UnshardedView(sharded())
    assert len(view["line/c/0"]) > 0
    assert dict(pickle.loads(pickle.dumps(view))) == dict(view)


# Back to version 2 --------------------------------------------------------------------------------------------------


def test_a_round_trip_gives_the_chunks_and_the_values_of_before():
    back: dict[str, bytes] = {}
    report = migrate_3to2(sharded(), back)
    assert report.counts() == {"migrated": 7}
    assert flat(back) == flat(hierarchy())
    for path, values in values_of(hierarchy()).items():
        np.testing.assert_array_equal(values_of(back)[path], values)
    assert json.loads(back[".zattrs"]) == {"title": "t"}


def test_what_is_there_is_kept_and_what_version_2_cannot_represent_is_named():
    source = sharded()
    document = json.loads(source["line/zarr.json"])
    document["chunk_grid"] = {"name": "rectilinear", "configuration": {}}
    source["odd/zarr.json"] = json.dumps(document).encode()
    dest = {"line/0": b"mine"}
    report = migrate_3to2(source, dest, dry_run=True)
    assert [node.path for node in report if node.action == "impossible"] == ["odd"]
    with pytest.raises(DestinationExistsError, match="overwrite=True"):
        migrate_3to2(source, dest)
    assert dest == {"line/0": b"mine"}
    migrate_3to2(source, dest, overwrite=True)
    assert dest["line/0"] != b"mine"
    assert not any(key.startswith("odd/") for key in dest)
