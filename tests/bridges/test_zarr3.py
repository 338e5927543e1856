"""zarr 3 over our stores: what a user of arrays sees, and what reaches the store."""

from __future__ import annotations

import pytest

pytest.importorskip("zarr.abc.store", reason="needs zarr 3: pip install zarrstore[zarr3]")

import asyncio
import inspect
import json
import pickle

import numpy as np
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from tests.bridges.legacy import ARRAYS, LEGACY, NOT_ZARR_3, expected, same
from zarrstore import DictStore
from zarrstore.bridges.zarr3 import MappingStore, to_zarr3
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import CountingStore, FailingStore, SlowStore
from zarrstore.wrappers.lru import LRUStoreCache
from zarrstore.wrappers.overlay import OverlayStore
from zarrstore.wrappers.readonly import ReadOnlyStore

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification"),
    pytest.mark.filterwarnings("ignore:.*Consolidated metadata is currently not part"),
]


def buffer(data):
    return default_buffer_prototype().buffer.from_bytes(data)


@pytest.mark.parametrize("name", LEGACY)
def test_what_zarr_2_wrote_is_read_by_zarr_3(name, tmp_path):
    with LEGACY[name](tmp_path) as store:
        # One dtype that zarr 3 lacks would make the consolidated form fail as a whole.
        group = zarr.open_group(to_zarr3(store), mode="r", use_consolidated=False)
        differ = [name for name in ARRAYS if name not in NOT_ZARR_3 and not same(group[name][...], expected(name))]
        assert differ == []
        assert dict(group["ocean/surface"].attrs) == {"units": "K"}


def with_dimensions(store):
    """Return the hierarchy with the names of axes that xarray wants, without what zarr 3 cannot open.

    The store itself stays as it is.
    """
    shown = OverlayStore(store, {})
    for name, entry in ARRAYS.items():
        if name in NOT_ZARR_3:
            shown.rmdir(name)
            continue
        attrs = json.loads(shown.get(f"{name}/.zattrs", b"{}"))
        attrs.setdefault("_ARRAY_DIMENSIONS", [f"{name}-{n}".replace("/", "-") for n in range(len(entry["shape"]))])
        shown[f"{name}/.zattrs"] = json.dumps(attrs).encode()
    return shown


@pytest.mark.parametrize("store", LEGACY)
def test_what_zarr_2_wrote_is_read_by_xarray(store, tmp_path):
    xarray = pytest.importorskip("xarray", reason="needs xarray: pip install xarray")
    seen = set()
    with LEGACY[store](tmp_path) as held:
        shown = to_zarr3(with_dimensions(held))
        for group in ("", "ocean/deep", "ocean/surface", "stations"):
            dataset = xarray.open_zarr(shown, group=group, consolidated=False, decode_cf=False)
            for variable in dataset.variables:
                name = f"{group}/{variable}".strip("/")
                assert same(dataset[variable].values, expected(name)), name
                seen.add(name)
    assert seen == ARRAYS.keys() - NOT_ZARR_3
    assert dataset["label"].dims == ("stations-label-0",)


def test_the_names_of_axes_and_the_times_are_xarray_s(tmp_path):
    xarray = pytest.importorskip("xarray", reason="needs xarray: pip install xarray")
    with LEGACY["LMDBStore"](tmp_path) as held:
        surface = xarray.open_zarr(to_zarr3(with_dimensions(held)), group="ocean/surface", consolidated=False)
        assert surface.temperature.dims == ("time", "lat", "lon")
        assert surface.temperature.dtype == "f4"
        assert surface.time.values[1:].tobytes() == expected("ocean/surface/time")[1:].tobytes()
        assert surface.attrs == {"units": "K"}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_written_by_zarr_3_is_read_back_and_by_others(zarr_format):
    held = {}
    group = zarr.create_group(MappingStore(held), zarr_format=zarr_format, attributes={"title": "x"})
    data = np.arange(60.0).reshape(6, 10)
    group.create_array("deep/a", shape=data.shape, chunks=(2, 5), dtype="f8")[:] = data
    del group["deep/a"]
    assert not [key for key in held if "deep/a" in key]
    group.create_array("deep/b", shape=data.shape, chunks=(4, 4), dtype="f8", fill_value=0)[:] = data
    zarr.consolidate_metadata(MappingStore(held))
    again = zarr.open_consolidated(MappingStore(dict(held)))
    assert (again["deep/b"][:] == data).all()
    again["deep/b"][:4] = 0  # chunks of the fill value only: zarr 3 deletes them
    assert (again["deep/b"][:4] == 0).all()
    assert [name for name, _ in again.members(max_depth=None)] == ["deep", "deep/b"]
    assert again["deep/b"].nbytes_stored() > 0


def test_a_read_only_store_refuses_as_zarr_refuses():
    held = {}
    zarr.create_array(MappingStore(held), shape=4, dtype="i4")[:] = 1
    before = dict(held)
    for store in (MappingStore(held, read_only=True), MappingStore(ReadOnlyStore(held)), to_zarr3(held, True)):
        assert store.read_only
        array = zarr.open_array(store, mode="r")
        assert array[:].tolist() == [1] * 4
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 2
        with pytest.raises(ValueError, match="read-only"):
            zarr.open_array(store, mode="r+")
        for write in (
            store.clear(),
            store.delete_dir("c"),
            store.set_if_not_exists("x", buffer(b"")),
            store.delete("x"),
        ):
            with pytest.raises(ValueError, match="read-only"):
                asyncio.run(write)
        for write in (lambda: store.set_sync("x", buffer(b"")), lambda: store.delete_sync("x")):  # noqa: B023
            with pytest.raises(ValueError, match="read-only"):
                write()
    with pytest.raises(ValueError, match="cannot be written"):
        MappingStore(ReadOnlyStore(held)).with_read_only(False)
    # A writable store opened for reading only: zarr asks it for a read-only copy.
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_array(MappingStore(held), mode="r")[:] = 2
    assert held == before


def test_an_array_pickles_with_its_store(tmp_path):
    array = zarr.create_array(MappingStore(DirectoryStore(tmp_path / "d")), shape=4, dtype="i4")
    array[:] = 3
    copy = pickle.loads(pickle.dumps(array))
    assert copy[:].tolist() == [3] * 4
    copy[:] = 4
    assert array[:].tolist() == [4] * 4


def test_equal_stores_are_equal_and_their_kinds_are_told_apart(tmp_path):
    one = MappingStore(DirectoryStore(tmp_path / "d"))
    assert one == MappingStore(DirectoryStore(tmp_path / "d"), read_only=True)
    assert one != MappingStore(DirectoryStore(tmp_path / "e"))
    assert one != DirectoryStore(tmp_path / "d")
    with pytest.raises(TypeError):
        hash(one)


def test_a_hundred_chunks_of_a_remote_store_cost_few_requests():
    held = CountingStore(DictStore())
    data = np.arange(100 * 10).reshape(100, 10)
    with zarr.config.set({"async.concurrency": 100}):
        array = zarr.create_array(MappingStore(SlowStore(held, 0.01)), shape=data.shape, chunks=(1, 10), dtype="i8")
        held.reset()
        array[:] = data
        assert held.writes <= 20
        held.reset()
        assert (array[:] == data).all()
        assert held.reads <= 20


def test_a_part_of_a_shard_is_read_as_a_part(tmp_path):
    held = CountingStore(DirectoryStore(tmp_path / "d"))
    store = MappingStore(held)
    array = zarr.create_array(store, shape=(64, 64), chunks=(8, 8), shards=(64, 64), dtype="i4", compressors=None)
    array[:] = np.arange(64 * 64).reshape(64, 64)
    held.reset()
    assert (array[:8, :8] == np.arange(64 * 64).reshape(64, 64)[:8, :8]).all()
    assert held.calls["_get_suffix"] == 1  # the index
    assert held.calls["_get_range"] + held.calls["_get_ranges"] == 1  # one chunk of 64; zarr 3.4 asks for several
    assert held.calls["_get"] + held.calls["_get_many"] == 0


def test_parts_and_wholes_are_asked_together_in_the_order_given():
    store = MappingStore({"a": b"0123456789", "b": b"x"})
    asked = [("a", RangeByteRequest(2, 4)), ("absent", None), ("b", None), ("a", SuffixByteRequest(0)), ("a", None)]
    found = asyncio.run(store.get_partial_values(default_buffer_prototype(), iter(asked)))
    assert [None if value is None else value.to_bytes() for value in found] == [b"23", None, b"x", b"", b"0123456789"]


def test_a_failure_is_never_read_as_a_fill_value():
    held = DictStore()
    zarr.create_array(MappingStore(held), shape=4, chunks=1, dtype="i4", fill_value=0)[:] = 7
    for in_thread in (True, False):
        broken = FailingStore(held, PermissionError("403"), keys=["c/2"])
        array = zarr.open_array(MappingStore(broken, in_thread=in_thread), mode="r")
        assert array[:2].tolist() == [7, 7]
        with pytest.raises(PermissionError, match="403"):
            array[:]


def test_a_cache_around_a_remote_store_makes_the_second_reading_free():
    held = CountingStore(DictStore())
    zarr.create_array(MappingStore(held), shape=(20, 4), chunks=(1, 4), dtype="i4")[:] = 7
    array = zarr.open_array(MappingStore(LRUStoreCache(SlowStore(held, 0.0), max_size=1 << 20)), mode="r")
    array[:]
    held.reset()
    assert (array[:] == 7).all()
    assert held.reads == 0


def test_list_prefix_takes_a_directory_and_no_beginning_of_a_name():
    store = MappingStore({"foo/a": b"1", "foobar/b": b"22", "foo": b"333"})

    async def listed(prefix):
        return sorted([key async for key in store.list_prefix(prefix)])

    for prefix in ("foo", "foo/"):
        assert asyncio.run(listed(prefix)) == ["foo/a"]
        assert asyncio.run(store.getsize_prefix(prefix)) == 1
    assert asyncio.run(listed("")) == ["foo", "foo/a", "foobar/b"]


def test_what_is_no_buffer_is_refused():
    store = MappingStore({})
    for write in (lambda: asyncio.run(store.set("a", b"bytes")), lambda: store.set_sync("a", b"bytes")):
        with pytest.raises(TypeError, match="Buffer"):
            write()
    with pytest.raises(ValueError, match="Unexpected byte_range"):
        store.get_sync("a", byte_range=(0, 1))
    with pytest.raises(NotImplementedError):
        asyncio.run(store.set_partial_values([]))


def test_closing_flushes_and_leaves_the_mapping_open():
    held = CountingStore(DictStore())
    with MappingStore(held) as store:
        zarr.create_array(store, shape=4, dtype="i4")
    assert (held.calls["_flush"], held.calls["_close"]) == (1, 0)


def test_the_pipeline_without_an_event_loop_is_used_where_zarr_has_one():
    fused = "get_ranges_sync" in vars(Store)  # zarr 3.4; this file runs under it too
    pipeline = f"zarr.core.codec_pipeline.{'Fused' if fused else 'Batched'}CodecPipeline"
    held = CountingStore(DictStore())
    data = np.arange(400).reshape(20, 20)
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        for store, together in ((MappingStore(held), False), (MappingStore(SlowStore(held, 0.0)), True)):
            assert store._supports_sync_io is not together
            array = zarr.create_array(store, shape=data.shape, chunks=(5, 5), dtype="i4", overwrite=True)
            array[:] = data
            assert (array[:] == data).all()


def test_every_method_that_zarr_demands_is_there():
    assert not inspect.isabstract(MappingStore)
    for name in ("clear", "delete_dir", "is_empty", "getsize", "getsize_prefix", "set_if_not_exists", "with_read_only"):
        assert name in vars(MappingStore), f"{name} would fall back to zarr's slow default"


def test_parts_of_a_shard_are_one_question_to_the_mapping():
    """As zarr 3.4 asks for the inner chunks of a shard."""
    value = bytes(range(256)) * 40
    mapping = CountingStore(DictStore({"a": value}))
    parts = [RangeByteRequest(0, 9), None, OffsetByteRequest(10_000), RangeByteRequest(5, 7), SuffixByteRequest(3)]
    expected = [value[0:9], value, value[10_000:], value[5:7], value[-3:]]

    async def read(store, key):
        return [group async for group in store.get_ranges(key, parts, prototype=default_buffer_prototype())]

    store = MappingStore(mapping)
    mapping.reset()
    (found,) = asyncio.run(read(store, "a"))
    assert {i: part.to_bytes() for i, part in found} == dict(enumerate(expected))
    assert mapping.calls == {"_get_ranges": 1, "_get_suffix": 1}
    found = store.get_ranges_sync("a", parts, prototype=default_buffer_prototype())
    assert {i: part.to_bytes() for i, part in found} == dict(enumerate(expected))
    for refused in (
        lambda: asyncio.run(read(store, "absent")),
        lambda: store.get_ranges_sync("absent", parts, prototype=default_buffer_prototype()),
    ):
        with pytest.raises(BaseExceptionGroup) as caught:
            refused()
        assert caught.group_contains(FileNotFoundError)
