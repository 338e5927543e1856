"""Version 2 chunks in version 3 shards: the same values to every reader, and no chunk decoded on the way."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numcodecs
import numpy as np
import pytest

import zarrstore
from tests.support import peers
from zarrstore import DictStore, migrate_2to3, migrate_to_shards
from zarrstore.chunknames import is_chunk_name
from zarrstore.errors import DamagedStoreError, DestinationExistsError, MetadataError, UnsupportedOperation
from zarrstore.metadata import sharding, v2
from zarrstore.metadata.chunk import encode_chunk
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import CountingStore, Recorder
from zarrstore.tools.journal import Journal

V2 = Path(__file__).parent.parent / "data" / "v2"


def fill(store, path, values, chunks, dtype=None, separator=".", leave=(), **options):
    """Write an array of version 2, but for the chunks to `leave` out."""
    zarrstore.init_array(
        store, values.shape, chunks, dtype or values.dtype, path=path, dimension_separator=separator, **options
    )
    meta = v2.decode_array(store[f"{path}/.zarray"])
    for coords in np.ndindex(*meta.grid_shape):
        if coords in leave:
            continue
        part = values[tuple(slice(at * size, (at + 1) * size) for at, size in zip(coords, meta.chunks, strict=True))]
        chunk = np.full(meta.chunks, meta.numpy_fill or 0, meta.numpy_dtype)
        chunk[tuple(map(slice, part.shape))] = part
        store[f"{path}/{separator.join(map(str, coords))}"] = encode_chunk(chunk, meta)


def hierarchy():
    store: dict[str, bytes] = {}
    rng = np.random.default_rng(0)
    zarrstore.init_group(store)
    store[".zattrs"] = b'{"title": "t"}'
    fill(
        store, "g/grid", rng.integers(0, 99, (25, 17)).astype("<f4"), (6, 5), compressor=numcodecs.Zlib(1), fill_value=7
    )
    fill(
        store,
        "g/cube",
        rng.integers(0, 99, (4, 7, 6)).astype(">i2"),
        (2, 3, 2),
        separator="/",
        compressor=None,
        fill_value=0,
    )
    fill(
        store,
        "line",
        rng.integers(0, 99, 103).astype("|u1"),
        10,
        fill_value=1,
        leave={(3,), (10,)},
        filters=[numcodecs.Shuffle(1)],
    )
    fill(
        store,
        "f",
        rng.integers(0, 99, (9, 8)).astype("<i8"),
        (2, 8),
        order="F",
        compressor=numcodecs.Blosc("zstd", 3),
        fill_value=0,
    )
    zarrstore.init_array(store, (50, 50), (5, 5), "<f8", path="never", fill_value=-1)
    return store


def values_of(store):
    return {node.path: zarrstore.read_array(store, node.path) for node in zarrstore.walk(store) if node.kind == "array"}


SHARDS = ["auto", 1, 700, 10**6]


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("reader", ["zarr", "tensorstore", "zarrs"])
def test_every_reader_sees_the_values_of_before(tmp_path, shards, reader):
    store, dest = hierarchy(), DirectoryStore(tmp_path / "d")
    expected = values_of(store)
    report = migrate_2to3(store, dest, shards=shards)
    assert report.counts() == {"migrated": 7}
    for path, values in expected.items():
        np.testing.assert_array_equal(READERS[reader](tmp_path / "d", path), values, err_msg=path)
    assert json.loads(dest["zarr.json"])["attributes"] == {"title": "t"}
    assert bool(zarrstore.verify(dest))


def by_zarr(place, path):
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    return zarr.open_array(place / path, mode="r", zarr_format=3)[...]


def by_zarrs(place, path):
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    pytest.importorskip("zarrs", reason="needs zarrs: pip install zarrstore[test]")
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return by_zarr(place, path)


def by_tensorstore(place, path):
    ts = pytest.importorskip("tensorstore", reason="needs tensorstore: pip install zarrstore[test]")
    if b"numcodecs" in (place / path / "zarr.json").read_bytes():
        return by_zarr(place, path)  # a codec that only zarr has
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(place / path)}}
    return ts.open(spec).result().read().result()


READERS = {"zarr": by_zarr, "tensorstore": by_tensorstore, "zarrs": by_zarrs}


@pytest.mark.needs_peer("z34")
def test_zarr_3_4_reads_what_zarr_2_18_wrote_out_of_shards(tmp_path):
    dest = DirectoryStore(tmp_path / "d")
    source = zarrstore.open_store(V2 / "legacy.zarr", mode="r")
    report = migrate_2to3(source, dest, shards=2000)
    done = [node.path for node in report if node.action == "migrated" and node.kind == "array"]
    assert len(done) >= 15
    script = """
import json, sys, numpy as np, zarr
place, v2, paths = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
for path in paths:
    a = zarr.open_array(v2 + "/legacy.zarr/" + path, mode="r", zarr_format=2)[...]
    b = zarr.open_array(place + "/" + path, mode="r", zarr_format=3)[...]
    assert a.shape == b.shape and repr(a.tolist()) == repr(b.tolist()), path
print(json.dumps(len(paths)))
"""
    assert peers.run("z34", script, str(tmp_path / "d"), str(V2), json.dumps(done)) == len(done)


def test_no_chunk_is_decoded_or_encoded_and_each_is_read_once(monkeypatch):
    store = CountingStore(DictStore(root=hierarchy()))
    store.reset()

    def refuse(self, *args, **kwargs):
        raise AssertionError("a codec was called")

    for codec in (numcodecs.Zlib, numcodecs.Blosc, numcodecs.Shuffle):
        monkeypatch.setattr(codec, "decode", refuse)
        monkeypatch.setattr(codec, "encode", refuse)
    migrate_2to3(store, {}, shards=700)
    n_chunks = sum(is_chunk_name(zarrstore.keys.name(key)) for key in store)
    assert store.calls["_get"] <= n_chunks + 30  # documents beside


def test_a_shard_holds_its_chunks_byte_for_byte_in_order_with_its_index_behind():
    store: dict[str, bytes] = {}
    fill(store, "a", np.arange(20, dtype="u1"), 2, compressor=None, fill_value=0, leave={(1,), (5,)})
    dest: dict[str, bytes] = {}
    migrate_2to3(store, dest, shards=(8,))
    assert sorted(dest) == ["a/c/0", "a/c/1", "a/c/2", "a/zarr.json", "zarr.json"]
    assert dest["a/c/0"] == bytes([0, 1, 4, 5, 6, 7]) + sharding.pack_index([2, None, 2, 2])
    assert dest["a/c/2"] == bytes([16, 17, 18, 19]) + sharding.pack_index([2, 2, None, None])


def test_the_name_of_a_chunk_outside_the_grid_does_not_come_along():
    store: dict[str, bytes] = {}
    fill(store, "a", np.arange(4, dtype="u1"), 2, compressor=None, fill_value=0)
    store["a/7"] = b"xx"
    store["a/readme"] = b"foreign"
    dest: dict[str, bytes] = {}
    migrate_2to3(store, dest, shards="auto")
    assert sorted(dest) == ["a/c/0", "a/zarr.json", "zarr.json"]


def test_chunks_spelled_otherwise_than_the_document_says_are_found(tmp_path):
    store: dict[str, bytes] = {}
    values = np.arange(16, dtype="u1").reshape(4, 4)
    fill(store, "a", values, (2, 2), separator="/", compressor=None, fill_value=0)
    document = json.loads(store["a/.zarray"])
    del document["dimension_separator"]  # as zarr 2.0 to 2.7 wrote it
    store["a/.zarray"] = json.dumps(document).encode()
    dest = DirectoryStore(tmp_path / "d")
    migrate_2to3(store, dest, shards="auto")
    np.testing.assert_array_equal(by_zarr(tmp_path / "d", "a"), values)


# Refusals -----------------------------------------------------------------------------------------------------------


def test_shards_need_a_destination_and_a_shape_of_whole_chunks():
    store: dict[str, bytes] = {}
    fill(store, "a", np.arange(20, dtype="u1"), 3, compressor=None, fill_value=0)
    before = dict(store)
    with pytest.raises(UnsupportedOperation, match="pass dest"):
        migrate_2to3(store, shards="auto")
    dest: dict[str, bytes] = {}
    for shape in ((8,), (6, 6), (0,)):
        with pytest.raises(MetadataError, match="multiple of a chunk's"):
            migrate_2to3(store, dest, shards=shape)
    with pytest.raises(ValueError, match="'auto', a number of bytes, or a shape"):
        migrate_2to3(store, dest, shards="big")
    assert (store, dest) == (before, {})


def test_what_is_there_is_not_overwritten_unless_it_is_said():
    store, dest = hierarchy(), {}
    migrate_2to3(store, dest, shards=700)
    before = dict(dest)
    for shards in (700, 10**6):
        with pytest.raises(DestinationExistsError, match="pass overwrite=True"):
            migrate_2to3(store, dest, shards=shards)
        assert dest == before
    dest = {"zarr.json": b'{"mine": 1}'}
    with pytest.raises(DestinationExistsError, match="overwrite=True"):
        migrate_2to3(store, dest, shards=700)
    assert dest == {"zarr.json": b'{"mine": 1}'}


def test_shards_of_another_shape_do_not_stay_behind_to_be_read_for_data(tmp_path):
    store: dict[str, bytes] = {}
    fill(store, "a", np.arange(1, 21, dtype="u1"), 2, compressor=None, fill_value=0)
    dest = DirectoryStore(tmp_path / "d")
    migrate_to_shards(store, dest, shards=(2,))
    for n in range(5, 10):
        del store[f"a/{n}"]
    migrate_to_shards(store, dest, shards=(10,), overwrite=True)
    assert by_zarr(tmp_path / "d", "a").tolist() == [*range(1, 11), *[0] * 10]
    assert sorted(dest.keys_below("a/c")) == ["a/c/0"]


def test_a_dry_run_writes_nothing():
    store, dest = hierarchy(), {}
    report = migrate_2to3(store, dest, shards="auto", dry_run=True)
    assert report.counts() == {"planned": 7}
    assert dest == {}
    assert any("chunks to a shard of" in note for node in report for note in node.notes)


# Order, resumption, executors ---------------------------------------------------------------------------------------


def test_documents_come_after_a_flush_of_all_shards_and_groups_after_their_arrays():
    recorder = Recorder()
    dest = recorder.watch(DictStore(), "dest")
    migrate_2to3(hierarchy(), dest, shards=700)
    order = [str(event) for event in recorder.events]
    last_shard = max(i for i, event in enumerate(order) if "/c/" in event)
    first_document = min(i for i, event in enumerate(order) if "zarr.json" in event)
    flushes = [i for i, event in enumerate(order) if "flush" in event]
    assert any(last_shard < i < first_document for i in flushes)
    assert flushes[-1] == len(order) - 1
    group = next(
        i for i, event in enumerate(order) if "g/zarr.json" in event and "grid" not in event and "cube" not in event
    )
    assert all(i < group for i, event in enumerate(order) if "g/grid/zarr.json" in event or "g/cube/zarr.json" in event)


def test_after_a_failure_no_document_stands_and_the_second_run_writes_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("zarrstore.tools.shard._RECORDED_TOGETHER", 1)
    store, inner, journal = DictStore(root=hierarchy()), DirectoryStore(tmp_path / "d"), tmp_path / "journal"
    whole: dict[str, bytes] = {}
    migrate_2to3(store, whole, shards=300)
    calls = itertools.count()

    class Breaking(zarrstore.wrappers.base.Wrapper):
        def _set(self, key, value):
            if next(calls) == 9:
                raise OSError("the disk is gone")
            super()._set(key, value)

    with pytest.raises(OSError, match="the disk is gone"):
        migrate_to_shards(store, Breaking(inner), shards=300, workers=1, resume=journal)
    written = set(inner)
    assert len(written) == 9
    assert not any(key.endswith("zarr.json") for key in written)
    with pytest.raises(DestinationExistsError):
        migrate_to_shards(store, inner, shards=300)
    with pytest.raises(DamagedStoreError, match="another copy"):
        migrate_to_shards(store, inner, shards=10**6, resume=journal)
    calls = itertools.count(100)
    migrate_to_shards(store, Breaking(inner), shards=300, resume=journal)
    assert dict(inner) == whole
    assert next(calls) - 100 <= len(whole) - len(written) + 1
    assert not journal.exists()


def test_a_shard_whose_chunks_changed_meanwhile_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("zarrstore.tools.shard._RECORDED_TOGETHER", 1)
    store, dest, journal = DirectoryStore(tmp_path / "s"), DirectoryStore(tmp_path / "d"), tmp_path / "journal"
    fill(store, "a", np.arange(40, dtype="u1"), 2, compressor=None, fill_value=0)
    calls = itertools.count()

    class Breaking(zarrstore.wrappers.base.Wrapper):
        def _set(self, key, value):
            if next(calls) == 4:
                raise OSError("the disk is gone")
            super()._set(key, value)

    with pytest.raises(OSError, match="the disk is gone"):
        migrate_to_shards(store, Breaking(dest), shards=(8,), workers=1, resume=journal)
    store["a/3"] = b"xy"  # of the same size
    del store["a/4"]
    migrate_to_shards(store, dest, shards=(8,), resume=journal)
    fresh: dict[str, bytes] = {}
    migrate_to_shards(store, fresh, shards=(8,))
    assert dict(dest) == fresh


def test_a_shard_is_recorded_after_the_flush_of_its_destination(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(Journal, "record", lambda self, versions: order.append(("record", len(list(versions)))))
    recorder = Recorder()
    dest = recorder.watch(DictStore(), "dest")
    migrate_to_shards(hierarchy(), dest, shards=700, resume=tmp_path / "journal")
    assert order
    events = [str(event) for event in recorder.events]
    assert sum("flush" in event for event in events) >= 3  # before the record, before the documents, after them


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_shards_are_put_together_by_any_executor(tmp_path, kind):
    source, dest = DirectoryStore(tmp_path / "s"), DirectoryStore(tmp_path / "d")
    source.update(hierarchy())
    whole: dict[str, bytes] = {}
    migrate_2to3(source, whole, shards=700)
    with kind(2) as executor:
        migrate_to_shards(source, dest, shards=700, executor=executor)
    assert dict(dest) == whole


def test_a_killed_run_is_taken_up_again(tmp_path):
    source = DirectoryStore(tmp_path / "s")
    fill(source, "a", np.arange(4000, dtype="<u2"), 2, compressor=None, fill_value=0)
    script = """
import sys, time, zarrstore, zarrstore.wrappers.base
from zarrstore.stores.directory import DirectoryStore
class Slow(zarrstore.wrappers.base.Wrapper):
    def _set(self, key, value):
        time.sleep(0.01)
        super()._set(key, value)
dest = Slow(DirectoryStore(sys.argv[2]))
zarrstore.migrate_2to3(DirectoryStore(sys.argv[1]), dest, shards=(16,), resume=sys.argv[3])
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script, *(str(tmp_path / name) for name in ("s", "d", "journal"))], cwd=peers.CHECKOUT
    )
    dest = DirectoryStore(tmp_path / "d")
    while child.poll() is None and len(dest) < 20:
        time.sleep(0.02)
    child.kill()
    child.wait()
    written = len(dest)
    assert 20 <= written < 250
    assert "a/zarr.json" not in dest
    migrate_to_shards(source, dest, shards=(16,), resume=tmp_path / "journal")
    np.testing.assert_array_equal(by_zarr(tmp_path / "d", "a"), np.arange(4000))


# Shapes -------------------------------------------------------------------------------------------------------------


def test_chosen_shapes_are_near_the_target_and_within_the_array():
    rng = np.random.default_rng(0)
    for _ in range(300):
        ndim = int(rng.integers(1, 5))
        chunks = tuple(int(n) for n in rng.integers(1, 30, ndim))
        shape = tuple(int(n) for n in rng.integers(0, 500, ndim))
        nbytes, target = int(rng.integers(1, 10**4)), int(rng.integers(1, 10**7))
        shards = sharding.chosen_shape(shape, chunks, nbytes, target)
        counts = [shard // chunk for shard, chunk in zip(shards, chunks, strict=True)]
        assert all(shard % chunk == 0 for shard, chunk in zip(shards, chunks, strict=True))
        assert all(count <= max(1, -(-size // chunk)) for count, size, chunk in zip(counts, shape, chunks, strict=True))
        assert np.prod(counts) * nbytes <= max(target, nbytes)


def test_consolidated_metadata_that_lies_in_an_array_stays_out_of_its_document():
    source = {}
    zarrstore.init_array(source, shape=4, chunks=2, dtype="|u1", compressor=None, fill_value=0, path="a")
    source |= {"a/0": b"12", "a/.zmetadata": b"{}"}
    dest = {}
    migrate_2to3(source, dest, shards=4)
    assert "consolidated_metadata" not in json.loads(dest["a/zarr.json"])
