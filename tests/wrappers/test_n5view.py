"""N5 under version 2 keys: what others wrote reads equal, what is written here others read."""

from __future__ import annotations

import itertools
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

import zarrstore
from tests.support import peers
from tests.support.cases import each_of
from tests.wrappers.test_views import ViewConformance
from zarrstore import DictStore, N5View
from zarrstore.errors import InvalidKeyError, MetadataError, ReadOnlyError, StoreReadError
from zarrstore.metadata import n5, v2
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import CountingStore

DATA = Path(__file__).parent.parent / "data" / "old"
WRITERS = ["2.4.0", "2.11.3", "tensorstore"]


def expected_of(writer):
    """Return what the writer read back, by path, axes as Zarr counts them."""
    found = np.load(DATA / writer / "expected.npz")
    if writer == "tensorstore":
        return {name.replace("__", "/"): found[name].T for name in found.files}
    return {name[4:].replace("__", "/"): found[name] for name in found.files if name.startswith("n5__")}


class TestN5View(ViewConformance):
    def make_store(self, tmp_path):
        return N5View(DictStore())


class TestN5ViewOfDirectory(ViewConformance):
    def make_store(self, tmp_path):
        return N5View(DirectoryStore(tmp_path / "d"))


def arrays(store):
    return {node.path: zarrstore.read_array(store, node.path) for node in zarrstore.walk(store) if node.kind == "array"}


# What others wrote --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS)
def test_hierarchies_of_other_writers_read_as_those_read_them(writer):
    with zarrstore.open_store(DATA / writer / "data.n5", mode="r") as store:
        found, expected = arrays(store), expected_of(writer)
        assert sorted(found) == sorted(expected)
        for path, values in expected.items():
            np.testing.assert_array_equal(found[path], values)
        assert bool(zarrstore.verify(store))


def test_a_root_that_says_n5_is_opened_as_n5_and_one_that_says_zarr_is_not(tmp_path):
    assert isinstance(zarrstore.open_store(DATA / "2.4.0" / "data.n5"), N5View)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "attributes.json").write_text("{}")
    (tmp_path / "a" / ".zgroup").write_text('{"zarr_format": 2}')
    assert type(zarrstore.open_store(tmp_path / "a")) is DirectoryStore
    with zarrstore.open_store(tmp_path / "new.n5") as store:
        zarrstore.init_group(store)
    assert json.loads((tmp_path / "new.n5" / "attributes.json").read_text()) == {"n5": "2.0.0"}


def test_attributes_are_the_users_and_a_directory_without_a_document_is_a_group():
    store = zarrstore.open_store(DATA / "2.11.3" / "data.n5", mode="r")
    assert json.loads(store[".zattrs"]) == {"title": "n5"}
    assert "attributes.json" not in store
    other = zarrstore.open_store(DATA / "tensorstore" / "data.n5", mode="r")
    assert json.loads(other["gzip/.zgroup"]) == {"zarr_format": 2}  # gzip/ has no attributes.json
    assert {"gzip/.zgroup", "part/.zarray"} <= set(other)
    assert other.listdir("gzip") == [".zgroup", "i32"]
    assert other.listdir("") == [".zgroup", "blosc", "bz", "gzip", "part", "raw", "xz"]


# Types, compressions and shapes -------------------------------------------------------------------------------------

TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
COMPRESSIONS = [
    {"type": "raw"},
    {"type": "gzip", "level": -1, "useZlib": False},
    {"type": "gzip", "level": 3, "useZlib": True},
    {"type": "bzip2", "blockSize": 1},
    {"type": "xz", "preset": 1},
    {"type": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 2, "blocksize": 0},
    {"type": "zstd", "level": 1},
]
SHAPES = [((7,), (3,)), ((6, 4), (3, 2)), ((5, 7), (2, 3)), ((3, 5, 4), (2, 2, 3))]
CASES = list(itertools.product(TYPES, COMPRESSIONS, SHAPES))


def values_of(name, shape):
    return np.random.default_rng(0).integers(0, 100, shape).astype(name)


def tensorstore_array(place, dtype, compression, shape, chunks, **more):
    ts = pytest.importorskip("tensorstore", reason="needs tensorstore: pip install zarrstore[test]")
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(place)}}
    if compression is not None:
        spec["metadata"] = {
            "dimensions": list(shape[::-1]),
            "blockSize": list(chunks[::-1]),
            "dataType": dtype,
            "compression": compression,
        }
    return ts.open(spec, create=compression is not None, open=True).result()


def test_every_type_compression_and_partial_edge_of_tensorstore_reads_equal(tmp_path):
    store = N5View(DirectoryStore(tmp_path))
    for i, (dtype, compression, (shape, chunks)) in enumerate(CASES):
        values = values_of(dtype, shape)
        tensorstore_array(tmp_path / str(i), dtype, compression, shape, chunks).write(values.T).result()
    found = arrays(store)
    assert len(found) == len(CASES) == 280
    for path, items in found.items():
        dtype, _, (shape, _) = CASES[int(path)]
        np.testing.assert_array_equal(items, values_of(dtype, shape), err_msg=str(CASES[int(path)]))
    assert bool(zarrstore.verify(store))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_what_is_written_here_tensorstore_reads_and_it_reads_back_as_it_was_set(tmp_path, order, endian):
    store = N5View(DirectoryStore(tmp_path))
    compressors = [
        None,
        {"id": "gzip", "level": 1},
        {"id": "zlib", "level": 1},
        {"id": "bz2", "level": 1},
        {"id": "blosc", "cname": "lz4", "clevel": 1, "shuffle": 1, "blocksize": 0},
    ]
    for dtype, compressor in itertools.product(("u1", "i2", "u4", "f8"), compressors):
        shape, chunks = (5, 7), (2, 3)
        kind = np.dtype(dtype).newbyteorder(endian) if dtype != "u1" else np.dtype("u1")
        path = f"{dtype}-{compressor['id'] if compressor else 'raw'}"
        zarrstore.init_array(store, shape, chunks, kind, compressor, 0, order, path=path)
        meta = v2.decode_array(store[f"{path}/.zarray"])
        assert (meta.dtype, meta.order, meta.compressor) == (kind.str, order, compressor)
        values = values_of(dtype, shape)
        for i, j in np.ndindex(*meta.grid_shape):
            chunk = np.zeros(chunks, kind)
            part = values[2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            chunk[: part.shape[0], : part.shape[1]] = part
            encoded = zarrstore.metadata.chunk.encode_chunk(chunk, meta)
            store[f"{path}/{i}.{j}"] = encoded
            assert zarrstore.metadata.chunk.decode_chunk(store[f"{path}/{i}.{j}"], meta).tolist() == chunk.tolist()
        read = tensorstore_array(tmp_path / path, None, None, shape, chunks).read().result()
        np.testing.assert_array_equal(read.T, values)
        np.testing.assert_array_equal(zarrstore.read_array(store, path), values)


def test_zarr_2_reads_through_the_view_what_its_own_n5store_wrote_and_the_other_way_round(tmp_path):
    script = """
import itertools, json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, numcodecs, zarr
from zarr.n5 import N5Store
import zarrstore
from zarrstore import N5View
from zarrstore.stores.directory import DirectoryStore
place = sys.argv[1]
theirs, ours = N5Store(place + "/theirs"), N5View(DirectoryStore(place + "/ours"))
compressors = [None, numcodecs.GZip(1), numcodecs.BZ2(1), numcodecs.LZMA(preset=1), numcodecs.Blosc("zstd", 1)]
count = 0
for dtype, compressor, (shape, chunks) in itertools.product(
    ("i1", "u2", "i4", "u8", "f4", "f8"), compressors, (((7,), (3,)), ((5, 7), (2, 3)), ((3, 5, 4), (2, 2, 3)))
):
    values = np.random.default_rng(count).integers(0, 100, shape).astype(dtype)
    path = f"g/{count}"
    for writer, reader in ((theirs, N5View(DirectoryStore(place + "/theirs"))), (ours, N5Store(place + "/ours"))):
        options = {"chunks": chunks, "dtype": dtype, "compressor": compressor, "fill_value": 0}
        array = zarr.create(shape, store=writer, path=path, **options)
        array[...] = values
        array.attrs["unit"] = "m"
        again = zarr.open_array(reader, mode="r", path=path)
        assert (again[...] == values).all(), (path, type(reader))
        assert again.attrs["unit"] == "m"
    count += 1
groups = zarr.open_group(N5View(DirectoryStore(place + "/theirs")), mode="r")
assert len(list(groups["g"].arrays())) == count
print(json.dumps(count))
"""
    assert peers.run("zarr2", script, str(tmp_path)) == 90


# Blocks -------------------------------------------------------------------------------------------------------------


def one_dataset(compression, dimensions=(4,), block=(2,)):
    inner = {
        "a/attributes.json": json.dumps(
            {"dimensions": dimensions, "blockSize": block, "dataType": "uint16", "compression": compression}
        ).encode()
    }
    return inner, N5View(inner)


def test_the_payload_of_a_whole_block_is_the_chunk():
    inner, store = one_dataset({"type": "raw"})
    inner["a/0"] = struct.pack(">HHI2H", 0, 1, 2, 7, 8)
    assert store["a/0"] == struct.pack(">2H", 7, 8)
    assert zarrstore.read_array(store, "a").tolist() == [7, 8, 0, 0]


def test_a_block_with_the_number_of_its_items_is_read_if_it_fills_its_shape():
    inner, store = one_dataset({"type": "raw"})
    inner["a/0"] = struct.pack(">HHII2H", 1, 1, 2, 2, 7, 8)
    inner["a/1"] = struct.pack(">HHII3H", 1, 1, 2, 3, 7, 8, 9)
    assert store["a/0"] == struct.pack(">2H", 7, 8)
    with pytest.raises(StoreReadError, match="3 items for 2 places"):
        store["a/1"]


def test_java_s_framing_of_lz4_is_read():
    import numcodecs

    inner, store = one_dataset({"type": "lz4", "blockSize": 65536}, [2000], [1000])
    items = np.arange(1000, dtype=">u2").tobytes()
    frames = b""
    for part in (items[:1200], items[1200:]):
        packed = numcodecs.LZ4().encode(part)[4:]
        frames += b"LZ4Block" + struct.pack("<BiiI", 0x20 | 6, len(packed), len(part), 0) + packed
    raw = np.arange(1000, 2000, dtype=">u2").tobytes()
    inner["a/0"] = struct.pack(">HHI", 0, 1, 1000) + frames + b"LZ4Block" + struct.pack("<BiiI", 0x16, 0, 0, 0)
    inner["a/1"] = (
        struct.pack(">HHI", 0, 1, 1000) + b"LZ4Block" + struct.pack("<BiiI", 0x16, len(raw), len(raw), 0) + raw
    )
    assert zarrstore.read_array(store, "a").tolist() == list(range(2000))
    with pytest.raises(ValueError, match="LZ4 framing of Java"):
        store["a/0"] = b"x"


@each_of(
    "block",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\1\0\0",
        b"\0\0\0\2" + bytes(12),
        b"\0\2\0\1" + bytes(8),
        struct.pack(">HHI", 0, 1, 3) + bytes(6),
        struct.pack(">HHI", 0, 1, 0),
        struct.pack(">HHI", 0, 1, 1) + b"x",
        b"\xff" * 20,
    ],
    ids=range(9),
)
def test_a_damaged_block_is_an_error_that_names_its_chunk_and_never_absence(block):
    inner, store = one_dataset({"type": "raw"})
    inner["a/0"] = block
    with pytest.raises(StoreReadError, match=r"cannot read 'a/0' from N5View"):
        store["a/0"]
    assert "a/0" in store
    assert not zarrstore.verify(store)


# Documents ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"dtype": "<M8[s]"}, "integers and floats only"),
        ({"dtype": "<U3", "fill_value": None}, "integers and floats only"),
        ({"fill_value": 7}, "reads as 0"),
        ({"filters": [{"id": "delta", "dtype": "<i4"}]}, "N5 has none"),
        ({"compressor": {"id": "lz4", "acceleration": 1}}, "which N5 readers do not know"),
        ({"shape": [], "chunks": []}, "no dataset without one"),
    ],
)
def test_what_n5_cannot_represent_is_refused_and_nothing_is_written(members, reason):
    inner = {}
    document = {
        "zarr_format": 2,
        "shape": [4],
        "chunks": [2],
        "dtype": "<i4",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    with pytest.raises(MetadataError, match=reason):
        N5View(inner)["a/.zarray"] = json.dumps(document | members).encode()
    assert inner == {}


@each_of(
    ("member", "value"),
    [
        ("dataType", "string"),
        ("dimensions", 4),
        ("dimensions", [4.5]),
        ("blockSize", [0]),
        ("blockSize", [2, 2]),
        ("compression", {"type": "snappy"}),
        ("compression", 3),
        ("compression", {"type": "gzip", "level": "high"}),
        ("_zarrstore", {"dtype": "<f8"}),
    ],
)
def test_a_damaged_document_is_one_error_that_names_it(member, value):
    members = {"dimensions": [4], "blockSize": [2], "dataType": "int32", "compression": {"type": "raw"}} | {
        member: value
    }
    with pytest.raises(MetadataError, match=r"'a/attributes\.json'"):
        _ = N5View({"a/attributes.json": json.dumps(members).encode()})["a/.zarray"]


def test_the_compression_type_of_the_first_n5_versions_is_understood():
    members = {"dimensions": [4], "blockSize": [2], "dataType": "int32", "compressionType": "gzip"}
    assert n5.dataset(members).meta.compressor == {"id": "gzip", "level": 6}


def test_attributes_of_ours_do_not_touch_those_of_n5():
    inner, store = one_dataset({"type": "raw"})
    before = json.loads(inner["a/attributes.json"])
    store["a/.zattrs"] = b'{"unit": "m"}'
    assert json.loads(inner["a/attributes.json"]) == before | {"unit": "m"}
    with pytest.raises(MetadataError, match="N5's own"):
        store["a/.zattrs"] = b'{"dimensions": [1]}'
    del store["a/.zattrs"]
    assert json.loads(inner["a/attributes.json"]) == before
    del store["a/.zarray"]
    assert inner == {}


def test_n5_s_own_document_is_not_shown_and_not_settable():
    _, store = one_dataset({"type": "raw"})
    assert sorted(store) == [".zgroup", "a/.zarray"]
    assert store.get("a/attributes.json") is None
    with pytest.raises(InvalidKeyError, match="not shown here"):
        store["a/attributes.json"] = b"{}"
    with pytest.raises(ReadOnlyError):
        N5View(zarrstore.ReadOnlyStore({}))[".zgroup"] = b'{"zarr_format": 2}'


def test_a_chunk_before_its_array_is_refused_and_in_a_batch_it_waits():
    inner = {}
    store = N5View(inner)
    with pytest.raises(InvalidKeyError, match=r"set its \.zarray first"):
        store["a/0.0"] = b"1"
    meta = v2.build_array(shape=(2, 2), chunks=(2, 1), dtype="|u1", compressor=None, fill_value=0)
    store.update([("a/0.1", b"ab"), ("a/.zarray", v2.encode_array(meta)), ("a/0.0", b"cd")])
    assert zarrstore.read_array(store, "a").tolist() == [[99, 97], [100, 98]]
    assert sorted(inner) == ["a/0/0", "a/1/0", "a/attributes.json"]


# Verbs --------------------------------------------------------------------------------------------------------------


def test_everything_works_on_it(tmp_path):
    source = zarrstore.open_store(DATA / "2.11.3" / "data.n5", mode="r")
    expected = arrays(source)
    assert str(zarrstore.tree(source)).startswith("/\n")
    for target in (tmp_path / "a.zip", tmp_path / "b.n5", tmp_path / "c.zarr"):
        with zarrstore.open_store(target) as dest:
            zarrstore.copy_store(source, dest, verify=target.suffix != ".n5")
        with zarrstore.open_store(target, mode="r") as again:
            found = arrays(again)
            assert sorted(found) == sorted(expected)
            for path, values in expected.items():
                np.testing.assert_array_equal(found[path], values)
    with zarrstore.open_store(tmp_path / "c.zarr") as store:
        zarrstore.migrate_2to3(store)
    zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")
    group = zarr.open_group(tmp_path / "c.zarr", mode="r", zarr_format=3)
    for path, values in expected.items():
        np.testing.assert_array_equal(group[path][...], values)


def test_a_subtree_is_removed_and_moved():
    inner, store = one_dataset({"type": "raw"})
    inner["a/0"] = struct.pack(">HHI2H", 0, 1, 2, 7, 8)
    store.rename("a", "b/c")
    assert sorted(inner) == ["b/c/0", "b/c/attributes.json"]
    assert zarrstore.read_array(store, "b/c").tolist() == [7, 8, 0, 0]
    store.rmdir("b")
    assert inner == {}
    assert "a/.zarray" not in store


def test_a_batch_is_one_batch_below_and_a_pickled_view_works():
    backend = CountingStore(DictStore())
    inner, _ = one_dataset({"type": "raw"})
    backend.update(inner)
    backend.update({f"a/{i}": struct.pack(">HHI2H", 0, 1, 2, i, i) for i in range(2)})
    store = pickle.loads(pickle.dumps(N5View(backend)))
    store = N5View(backend)
    assert "a/.zarray" in store
    backend.reset()
    assert dict(store.getitems(["a/0", "a/1", "a/2"])) == {f"a/{i}": struct.pack(">2H", i, i) for i in range(2)}
    assert backend.calls == {"_get_many": 1}


def test_a_small_block_takes_no_memory_that_its_document_announces():
    attributes = {
        "dimensions": [2**31, 2],
        "blockSize": [2**31, 2],
        "dataType": "uint16",
        "compression": {"type": "raw"},
    }
    block = struct.pack(">HHII", 0, 2, 1, 1) + b"\0\1"
    view = N5View(
        {"attributes.json": b'{"n5": "2.0.0"}', "a/attributes.json": json.dumps(attributes).encode(), "a/0/0": block}
    )
    with pytest.raises(StoreReadError, match="8,589,934,592 bytes"):
        view["a/0.0"]
