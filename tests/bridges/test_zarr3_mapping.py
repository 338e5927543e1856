"""Stores of zarr 3 as ours: the conformance suite over each of them."""

from __future__ import annotations

import pytest

pytest.importorskip("zarr.abc.store", reason="needs zarr 3: pip install zarrstore[zarr3]")

import asyncio
import uuid
import warnings

import fsspec
import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, LoggingStore, MemoryStore, ZipStore
from zarr.testing.store import LatencyStore

from zarrstore import DictStore
from zarrstore.bridges.zarr3 import AsyncStoreMapping, MappingStore, to_zarr3
from zarrstore.errors import ConflictError, ReadOnlyError, UnsupportedOperation
from zarrstore.testing import SlowStore, StoreConformance, tree
from zarrstore.wrappers.prefix import PrefixStore

pytestmark = pytest.mark.timeout(120)


class TestMemoryStore(StoreConformance):
    examples = 8

    def make_store(self, tmp_path):
        return AsyncStoreMapping(MemoryStore())


class TestMemoryStoreOnOurLoop(StoreConformance):
    examples = 8

    def make_store(self, tmp_path):
        return AsyncStoreMapping(MemoryStore(), loop="own")


class TestLocalStore(StoreConformance):
    examples = 8

    def make_store(self, tmp_path):
        return AsyncStoreMapping(LocalStore(tmp_path / "local"))

    def reopen(self, store, tmp_path):
        store.close()
        return AsyncStoreMapping(LocalStore(tmp_path / "local"))


class TestZipStore(StoreConformance):
    pickles = False  # unpickling an archive that is open for writing would truncate it
    checks_processes = False

    def make_store(self, tmp_path):
        # A zip written twice says so.
        warnings.filterwarnings("ignore", "Duplicate name")
        return AsyncStoreMapping(ZipStore(tmp_path / "data.zip", mode="a"))


class TestFsspecStore(StoreConformance):
    examples = 5

    @pytest.fixture(autouse=True)
    def _fsspec(self):
        pytest.importorskip("fsspec", reason="needs fsspec: pip install zarrstore[fsspec]")

    def make_store(self, tmp_path):
        # Flat, as object stores are; the memory of fsspec is one for the whole process.
        return AsyncStoreMapping(FsspecStore.from_url(f"memory://{tmp_path}"))

    segments = ("a", "ab", "a.b", "A", "é", "0")

    def test_a_value_and_a_directory_of_one_name(self, store):
        # fsspec's memory is neither flat nor a tree: it refuses a value below a value, and takes one on a directory.
        store["a/b"] = b"1"
        with pytest.raises(ConflictError):
            store["a/b/c"] = b"2"
        assert dict(store.items()) == {"a/b": b"1"}

    def test_random_histories_end_as_they_do_with_a_dict(self):
        # For the same reason: the model is either flat or a tree.
        ...


class TestObjectStore(StoreConformance):
    examples = 8
    pickles = False  # obstore's memory cannot be pickled

    def tree(self):
        # obstore refuses control characters.
        return {key: value for key, value in super().tree().items() if "\n" not in key}

    @pytest.fixture(autouse=True)
    def _obstore(self):
        pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")

    def make_store(self, tmp_path):
        from obstore.store import MemoryStore as Memory
        from zarr.storage import ObjectStore

        return AsyncStoreMapping(ObjectStore(Memory()))


@pytest.mark.slow  # what is logged costs more than what is tested
class TestLoggingStore(StoreConformance):
    examples = 5
    checks_processes = False

    def make_store(self, tmp_path):
        return AsyncStoreMapping(LoggingStore(MemoryStore(), log_level="ERROR"))


class TestThereAndBack(StoreConformance):
    """One of ours as a store of zarr 3 as one of ours."""

    examples = 5

    def make_store(self, tmp_path):
        return AsyncStoreMapping(MappingStore(DictStore()))


def test_a_store_that_is_read_only_or_cannot_erase_says_so(tmp_path):
    held = MemoryStore()
    AsyncStoreMapping(held)["a"] = b"1"
    store = AsyncStoreMapping(held.with_read_only(True))
    for write in (lambda: store.__setitem__("a", b"2"), lambda: store.__delitem__("a"), store.clear):
        with pytest.raises(ReadOnlyError):
            write()
    archive = AsyncStoreMapping(ZipStore(tmp_path / "a.zip", mode="w"))
    archive["a"] = b"1"
    with pytest.raises(UnsupportedOperation):
        del archive["a"]
    assert dict(archive) == {"a": b"1"}
    archive.close()


def test_a_batch_makes_its_requests_at_one_time():
    class Busy(LatencyStore):
        running = busiest = 0

        async def _counted(self, request):
            Busy.running += 1
            Busy.busiest = max(Busy.busiest, Busy.running)
            try:
                return await request
            finally:
                Busy.running -= 1

        async def get(self, *args, **options):
            return await self._counted(super().get(*args, **options))

        async def set(self, *args, **options):
            return await self._counted(super().set(*args, **options))

    store = AsyncStoreMapping(Busy(MemoryStore(), get_latency=0.02, set_latency=0.02))
    items = {f"a/{n}": b"x" for n in range(100)}
    store.setitems(items)
    written, Busy.busiest = Busy.busiest, 0
    assert dict(store.getitems(items)) == items
    assert min(written, Busy.busiest) >= 10


def test_deleting_a_directory_s_name_deletes_nothing_where_zarr_would_remove_the_tree(tmp_path):
    store = AsyncStoreMapping(LocalStore(tmp_path / "d"))
    store["a/b"] = b"1"
    with pytest.raises(KeyError):
        del store["a"]
    store.delitems(["a"])
    assert dict(store) == {"a/b": b"1"}
    assert "a" not in store
    assert store.getsize("a") == 1


def test_a_relative_root_is_not_cut_out_of_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = AsyncStoreMapping(LocalStore("a"))
    store.update({"data/x": b"1", "a/y": b"2"})
    assert sorted(store) == ["a/y", "data/x"]


def test_what_a_killed_writer_left_is_no_key(tmp_path):
    store = AsyncStoreMapping(LocalStore(tmp_path / "d"))
    store["a/b"] = b"1"
    (tmp_path / "d/a/b.0123456789abcdef0123456789abcdef.partial").write_bytes(b"torn")
    assert (list(iter(store)), store.listdir("a")) == (["a/b"], ["b"])


def test_zarr_s_loop_cannot_wait_for_itself_and_ours_can_be_waited_for():
    """A mapping that drives zarr's loop goes into a MappingStore, whose calls come from that loop."""
    inner = MemoryStore()
    zarr.create_array(inner, shape=4, chunks=1, dtype="i4")[:] = 7
    for loop in ("zarr", "own"):
        array = zarr.open_array(MappingStore(AsyncStoreMapping(inner, loop)))
        assert array[:].tolist() == [7] * 4
    store = AsyncStoreMapping(inner, "own")

    async def nested():
        return store["zarr.json"]  # blocks this loop, and not the one it waits for

    assert b"node_type" in asyncio.run(nested())
    with pytest.raises(ValueError, match="'zarr' or 'own'"):
        AsyncStoreMapping(inner, "mine")
    with pytest.raises(TypeError, match="dict"):
        AsyncStoreMapping({})


def test_a_hierarchy_is_copied_out_of_a_zarr_3_store_byte_for_byte():
    inner = MemoryStore()
    group = zarr.create_group(inner, zarr_format=2)
    group.create_array("a", shape=(5, 5), chunks=(2, 2), dtype="f8")[:] = 1.5
    group.create_group("g").attrs["x"] = 1
    held = dict(AsyncStoreMapping(inner))
    assert set(held) >= {".zgroup", "a/.zarray", "a/0.0", "g/.zattrs"}
    copy = zarr.open_group(MappingStore(held), mode="r")
    assert (copy["a"][:] == 1.5).all()
    assert dict(copy["g"].attrs) == {"x": 1}


def test_to_zarr3_takes_what_there_is():
    held = dict(tree())
    assert to_zarr3(held).mapping == held
    inner = MemoryStore()
    assert to_zarr3(inner) is inner
    assert to_zarr3(AsyncStoreMapping(inner)) is inner
    assert to_zarr3(inner, read_only=True).read_only
    assert to_zarr3(held, read_only=True).read_only
    with pytest.raises(TypeError, match="not a mapping"):
        to_zarr3(3)


@pytest.mark.parametrize("wrap", ["zarr", "own"])
def test_a_key_is_no_pattern_and_a_directory_is_no_key_within_a_wrapper_of_zarr(wrap, tmp_path):
    from zarr.storage import WrapperStore

    class Own(WrapperStore):
        pass

    around = LoggingStore if wrap == "zarr" else Own
    fs = fsspec.filesystem("memory")
    root = f"/{uuid.uuid4().hex}"
    stores = {
        "fsspec": FsspecStore(AsyncFileSystemWrapper(fs, asynchronous=True), path=root),
        "local": LocalStore(tmp_path),
    }
    for name, store in stores.items():
        mapping = AsyncStoreMapping(around(store))
        mapping.update({"ab": b"1", "axb": b"2", "d/x": b"3"})
        for key in ("a*", "a?", "a[b]", "*", "d"):
            assert key not in mapping, (name, key)
            with pytest.raises(KeyError):
                del mapping[key]
            mapping.delitems([key])
        assert dict(mapping) == {"ab": b"1", "axb": b"2", "d/x": b"3"}
        del mapping["ab"]
        assert dict(mapping) == {"axb": b"2", "d/x": b"3"}
        if name == "fsspec":
            mapping["a*"] = b"4"
            with pytest.raises(UnsupportedOperation, match="patterns"):
                del mapping["a*"]
            assert dict(mapping) == {"axb": b"2", "d/x": b"3", "a*": b"4"}


def test_sixty_four_calls_at_a_time_through_two_bridges_do_not_wait_for_each_other():
    held = DictStore({f"part/{n}": bytes([n]) for n in range(64)})
    inner = to_zarr3(SlowStore(held, 0.001), read_only=False)
    store = to_zarr3(PrefixStore(AsyncStoreMapping(inner, loop="own"), "part"))

    async def main():
        parts = [store.get(str(n), default_buffer_prototype(), RangeByteRequest(0, 1)) for n in range(64)]
        sizes = [store.getsize(str(n)) for n in range(64)]
        return await asyncio.gather(*parts, *sizes)

    found = sync(asyncio.wait_for(main(), 30))
    assert [value.to_bytes() for value in found[:64]] == [bytes([n]) for n in range(64)]
    assert found[64:] == [1] * 64


def test_parts_of_a_value_are_read_at_one_time():
    reads = []

    class Watched(MemoryStore):
        async def get(self, key, prototype, byte_range=None):
            reads.append("begun")
            await asyncio.sleep(0.01)
            reads.append("ended")
            return await super().get(key, prototype, byte_range)

    store = AsyncStoreMapping(Watched())
    store["a"] = bytes(range(256)) * 4096
    value = store["a"]
    spans = [(0, 10), (500_000, 500_010), (1_000_000, None), (3, 3), (5, 20)]
    reads.clear()
    assert store.getranges("a", spans) == [value[start:stop] for start, stop in spans]
    assert reads == ["begun"] * 3 + ["ended"] * 3
    with pytest.raises(KeyError):
        store.getranges("absent", spans)
