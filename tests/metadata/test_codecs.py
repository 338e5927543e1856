"""One chunk through its codecs, and the bombs that are refused."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import each_of
from zarrstore.metadata import bounded, chunking, v2
from zarrstore.metadata.chunk import decode_chunk, encode_chunk

DATA = Path(__file__).parents[1] / "data" / "v2"
ARRAYS = json.loads((DATA / "manifest.json").read_text())["arrays"]
COMPRESSORS = [
    None,
    *({"id": "blosc", "cname": name, "clevel": 5, "shuffle": 1, "blocksize": 0} for name in ("lz4", "zstd", "zlib")),
    {"id": "zlib", "level": 1},
    {"id": "gzip", "level": 1},
    {"id": "bz2", "level": 1},
    {"id": "lz4", "acceleration": 1},
    {"id": "zstd", "level": 1},
    {"id": "lzma", "format": 1, "check": -1, "preset": 1, "filters": None},
    {"id": "lzma", "format": 2, "check": -1, "preset": 1, "filters": None},
    {"id": "lzma", "format": 3, "check": -1, "preset": None, "filters": [{"id": 33, "preset": 1}]},
]
NAMES = [f"{c['id']}-{c.get('cname', c.get('format', ''))}" if c else "none" for c in COMPRESSORS]


def array(**parameters):
    return v2.build_array(**({"shape": (100, 100), "chunks": (50, 50), "dtype": "<i4"} | parameters))


@each_of("compressor", COMPRESSORS, ids=NAMES)
@each_of("order", ["C", "F"])
def test_what_was_encoded_is_decoded(compressor, order):
    meta = array(compressor=compressor, order=order, filters=[{"id": "delta", "dtype": "<i4"}])
    items = np.random.default_rng(0).integers(0, 99, (50, 50)).astype("<i4")
    assert decode_chunk(encode_chunk(items, meta), meta).tolist() == items.tolist()


@each_of("name", ARRAYS)
def test_every_array_of_zarr_2_is_decoded(name):
    meta = v2.decode_array((DATA / "legacy.zarr" / name / ".zarray").read_bytes())
    found = np.zeros(meta.shape, meta.numpy_dtype)
    if meta.fill_value is not None:
        found[...] = meta.numpy_fill
    for position in chunking.chunk_grid(meta.shape, meta.chunks):
        path = DATA / "legacy.zarr" / name / next(iter(chunking.chunk_names((), ()))) if not position else None
        path = path or DATA / "legacy.zarr" / name / ".".join(map(str, position))
        if path.exists():
            chunk = decode_chunk(path.read_bytes(), meta)
            spans = [(i * c, min((i + 1) * c, s)) for i, c, s in zip(position, meta.chunks, meta.shape, strict=True)]
            found[tuple(slice(*span) for span in spans)] = chunk[tuple(slice(stop - start) for start, stop in spans)]
    entry = ARRAYS[name]
    if entry["file"] is None:
        assert found.tolist() == entry["values"]
    else:
        expected = np.load(DATA / "expected" / entry["file"])
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def zstd_without_size(data: bytes) -> bytes:
    """Return a frame that does not tell its size: raw blocks of at most 128 KiB."""
    frame = bytearray((0xFD2FB528).to_bytes(4, "little") + b"\x00\x58")
    parts = [data[at : at + 131072] for at in range(0, len(data), 131072)] or [b""]
    for index, part in enumerate(parts):
        frame += (len(part) << 3 | (index == len(parts) - 1)).to_bytes(3, "little") + part
    return bytes(frame)


def zstd_run(nbytes: int, blocks: int) -> bytes:
    """Return a frame of runs of one byte that does not tell its size: a bomb of 4 bytes a block."""
    block = [(nbytes << 3 | 1 << 1 | (index == blocks - 1)).to_bytes(3, "little") + b"\0" for index in range(blocks)]
    return (0xFD2FB528).to_bytes(4, "little") + b"\x00\x58" + b"".join(block)


NOTHING = bytes(50 << 20)

#: By name: the codec, and what makes the bomb. Made in the test, for each worker of pytest-xdist collects them all.
BOMBS = {
    "zlib": ({"id": "zlib", "level": 9}, lambda: zlib.compress(NOTHING, 1)),
    "gzip": ({"id": "gzip", "level": 9}, lambda: gzip.compress(NOTHING, 1)),
    "gzip-many": ({"id": "gzip", "level": 9}, lambda: gzip.compress(bytes(10_000)) * 1000),
    "bz2": ({"id": "bz2", "level": 1}, lambda: bz2.compress(NOTHING, 1)),
    "lzma": ({"id": "lzma", "format": 1, "check": -1, "preset": 1}, lambda: lzma.compress(NOTHING, preset=0)),
    "blosc": ({"id": "blosc"}, lambda: numcodecs.Blosc("zstd").encode(NOTHING)),
    "lz4": ({"id": "lz4"}, lambda: numcodecs.LZ4().encode(NOTHING)),
    "zstd": ({"id": "zstd", "level": 1}, lambda: numcodecs.Zstd(1).encode(NOTHING)),
    "zstd-second-frame": ({"id": "zstd"}, lambda: numcodecs.Zstd(1).encode(b"ab") + numcodecs.Zstd(1).encode(NOTHING)),
    "zstd-sizeless": ({"id": "zstd"}, lambda: zstd_run(131072, 2000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_allocated(name):
    compressor, make = BOMBS[name]
    bomb = make()
    assert len(bomb) < 2 << 20
    meta = array(compressor=compressor)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="would decode to"):
            decode_chunk(bomb, meta)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_a_frame_that_does_not_tell_its_size_is_read():
    items = np.arange(2500, dtype="<i4").reshape(50, 50)
    found = decode_chunk(zstd_without_size(items.tobytes()), array(compressor={"id": "zstd", "level": 1}))
    assert found.tolist() == items.tolist()


def test_a_skippable_frame_and_several_frames_are_read():
    data = np.arange(2500, dtype="<i4").tobytes()
    zstd = numcodecs.Zstd(1, checksum=True)
    frames = (0x184D2A53).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"xyz" + zstd.encode(data)
    assert bounded._claim_zstd(memoryview(frames)) == 10_000
    assert bounded._claim_zstd(memoryview(zstd.encode(data[:300]) + zstd.encode(data[:70000]))) == 300 + 10_000


def test_several_streams_and_padding_are_read_as_gzip_reads_them():
    data = np.arange(2500, dtype="<i4").tobytes()
    meta = array(compressor={"id": "gzip", "level": 1})
    assert decode_chunk(gzip.compress(data[:5000]) + gzip.compress(data[5000:]) + bytes(7), meta)[49, 49] == 2499


@each_of("compressor", COMPRESSORS[1:], ids=NAMES[1:])
def test_a_truncated_or_foreign_chunk_is_a_value_error(compressor):
    meta = array(compressor=compressor)
    whole = encode_chunk(np.random.default_rng(0).integers(0, 2**31, (50, 50)).astype("<i4"), meta)
    for bad in (b"", whole[:1], whole[: len(whole) // 2], whole[:-1], b"<html>not found</html>"):
        with pytest.raises(ValueError, match=r"cannot decode it|are expected"):
            decode_chunk(bad, meta)


@given(st.data())
def test_a_chunk_with_a_flipped_byte_is_items_or_a_value_error(data):
    compressor = data.draw(st.sampled_from(COMPRESSORS))
    meta = array(chunks=(5, 5), compressor=compressor)
    chunk = bytearray(encode_chunk(np.arange(25).reshape(5, 5), meta))
    at = data.draw(st.integers(0, len(chunk) - 1))
    chunk[at] ^= data.draw(st.integers(1, 255))
    try:
        assert decode_chunk(bytes(chunk), meta).shape == (5, 5)
    except ValueError as exc:
        assert exc.args  # noqa: PT017


@pytest.mark.parametrize("nbytes", [0, 9999, 10001, 9996, 20000])
def test_a_chunk_of_the_wrong_size_is_told_with_both_sizes(nbytes):
    with pytest.raises(ValueError, match=f"it has {nbytes:,} bytes, and 10,000 are expected"):
        decode_chunk(bytes(nbytes), array(compressor=None))


def test_a_chunk_beyond_the_cap_is_refused_by_its_description_alone():
    meta = array(shape=10**9, chunks=10**9)
    with pytest.raises(ValueError, match="has 4,000,000,000 bytes, and 1,000,000 are allowed"):
        decode_chunk(b"", meta, max_nbytes=10**6)


def test_strings_that_claim_more_items_than_a_chunk_has_are_refused():
    meta = v2.build_array(shape=4, chunks=2, dtype=str, compressor=None)
    chunk = encode_chunk(np.array(["a", "b"], dtype=object), meta)
    assert decode_chunk(chunk, meta).tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="vlen-utf8 says 4,294,967,295 items, and 2 are expected"):
        decode_chunk(b"\xff\xff\xff\xff" + chunk[4:], meta)


def test_a_filter_with_a_dtype_that_would_blow_the_chunk_up_is_refused():
    meta = array(filters=[{"id": "categorize", "dtype": "<U99999999", "astype": "|u1", "labels": ["a"]}])
    with pytest.raises(ValueError, match="categorize has \"dtype\" '<U99999999', wider than 32 bytes"):
        decode_chunk(bytes(100), meta)


def test_pickle_is_never_undone():
    meta = v2.build_array(
        shape=4, chunks=2, dtype=object, object_codec={"id": "pickle", "protocol": 5}, compressor=None
    )
    with pytest.raises(ValueError, match="pickle is not decoded: such a chunk can run any program"):
        decode_chunk(b"", meta)


def test_a_codec_that_nobody_has_is_named():
    with pytest.raises(ValueError, match="nosuch cannot decode it"):
        decode_chunk(b"", array(compressor={"id": "nosuch"}))


def test_objects_where_numbers_are_expected_and_the_other_way_round_are_refused():
    text = v2.build_array(shape=4, chunks=2, dtype=str, compressor=None)
    chunk = encode_chunk(np.array(["a", "b"], dtype=object), text)
    with pytest.raises(ValueError, match="it holds objects, and int32 is expected"):
        decode_chunk(chunk, v2.build_array(4, 2, "<i4", None, filters=[{"id": "vlen-utf8"}]))
    with pytest.raises(ValueError, match="the object codec is missing"):
        decode_chunk(bytes(8), v2.build_array(4, 2, object, None, object_codec={"id": "delta", "dtype": "<i4"}))


def test_a_chunk_of_another_shape_is_not_encoded():
    with pytest.raises(ValueError, match=r"of shape \(5, 5\) was given, and \(50, 50\) is expected"):
        encode_chunk(np.zeros((5, 5)), array())


def test_lzma_with_filters_in_a_container_is_read_though_numcodecs_cannot():
    filters = [{"id": 3, "dist": 4}, {"id": 33, "preset": 1}]
    meta = array(compressor={"id": "lzma", "format": 1, "check": -1, "preset": None, "filters": filters})
    items = np.arange(2500, dtype="<i4").reshape(50, 50)
    assert decode_chunk(encode_chunk(items, meta), meta).tolist() == items.tolist()
