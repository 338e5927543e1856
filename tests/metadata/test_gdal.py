"""What the report of a migration says of GDAL is what GDAL does."""

from __future__ import annotations

import json
from pathlib import Path

import numcodecs
import numpy as np
import pytest

from tests.support import peers
from zarrstore import DirectoryStore, init_array, migrate_2to3
from zarrstore.metadata import v2
from zarrstore.metadata.chunk import encode_chunk
from zarrstore.metadata.readers import refusals

READ = """
import json, sys
import numpy, rasterio
found = {}
for name, (dtype, values) in json.load(open(sys.argv[2])).items():
    try:
        with rasterio.open(f'ZARR:"{sys.argv[1]}/{name}"') as data:
            items = data.read(1)
    except rasterio.errors.RasterioIOError as exc:
        found[name] = str(exc)
    else:
        expected = numpy.frombuffer(bytes.fromhex(values), dtype).reshape(items.shape)
        found[name] = "equal" if numpy.array_equal(items, expected) else "wrong"
print(json.dumps(found))
"""
TYPES = "b1 i1 u1 <i2 >i2 <u2 <i4 >u4 <i8 <u8 <f2 <f4 >f4 <f8 <c8 <c16 S3 <U2 <M8[s]".replace("b1", "|b1").split()
COMPRESSORS = {
    "blosc": numcodecs.Blosc(),
    "bitshuffle": numcodecs.Blosc("zstd", 3, 2),
    "gzip": numcodecs.GZip(1),
    "zstd": numcodecs.Zstd(1, checksum=True),
    "zlib": numcodecs.Zlib(1),
    "bz2": numcodecs.BZ2(1),
    "lz4": numcodecs.LZ4(),
    "none": None,
}


def hierarchy() -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """Return a hierarchy of version 2 with partial edges, and its values."""
    random = np.random.default_rng(0)
    numbers = random.integers(0, 100, (7, 8))
    store: dict[str, bytes] = {}
    arrays: dict[str, np.ndarray] = {}

    def put(name: str, items: np.ndarray, **members: object) -> None:
        init_array(store, shape=(7, 8), chunks=(4, 5), dtype=items.dtype, path=name, **{"fill_value": 0, **members})
        meta = v2.decode_array(store[f"{name}/.zarray"])
        for i, j in np.ndindex(2, 2):
            chunk = np.zeros((4, 5), items.dtype)
            part = items[i * 4 : i * 4 + 4, j * 5 : j * 5 + 5]
            chunk[: part.shape[0], : part.shape[1]] = part
            store[f"{name}/{i}.{j}"] = encode_chunk(chunk, meta)
        arrays[name] = items

    for n, code in enumerate(TYPES):
        items = (numbers > 50 if code == "|b1" else numbers).astype(code)
        put(f"type{n}", items, compressor=numcodecs.Zstd(1), fill_value=None if code[-1:] in "]3" else 0)
    for name, compressor in COMPRESSORS.items():
        put(name, numbers.astype("<i4"), compressor=compressor)
    put("order-f", numbers.astype("<i4"), order="F")
    put("delta", numbers.astype("<i4"), filters=[numcodecs.Delta("<i4")])
    put("shuffle", numbers.astype("<i4"), filters=[numcodecs.Shuffle(4)])
    return store, arrays


@pytest.mark.slow
@pytest.mark.needs_peer("gdal")
@pytest.mark.parametrize("shards", [None, (8, 10)], ids=["chunks", "shards"])
def test_gdal_reads_equal_what_the_report_does_not_name_and_refuses_what_it_names(
    shards: tuple[int, int] | None, tmp_path: Path
) -> None:
    old, arrays = hierarchy()
    new = DirectoryStore(tmp_path / "new")
    migrate_2to3(old, new, shards=shards)
    refused = {name for name in arrays if "GDAL" in refusals(json.loads(new[f"{name}/zarr.json"]))}
    values = {name: [items.dtype.str, items.tobytes().hex()] for name, items in arrays.items()}
    (tmp_path / "values").write_text(json.dumps(values))
    found = peers.run("gdal", READ, new.path, tmp_path / "values", checkout=False)
    assert {name for name, status in found.items() if status == "equal"} == set(arrays) - refused
    assert "wrong" not in found.values()
    assert len(set(arrays) - refused) == (0 if shards else 22)
