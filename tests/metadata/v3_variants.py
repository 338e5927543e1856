"""Version 3 documents, right and wrong, and which of them a zarr opens.

::

    python v3_variants.py      under zarr 3: the names of those that it refuses, as JSON
"""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

ARRAY: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [6, 4],
    "data_type": "int32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 2]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    "attributes": {},
}
GROUP: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}


def _codec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _shards(**changes: Any) -> list[Any]:
    configuration = {
        "chunk_shape": [1, 2],
        "codecs": [BYTES],
        "index_codecs": [BYTES, CRC],
        "index_location": "end",
    }
    return [_codec("sharding_indexed", **(configuration | changes))]


MEMBERS: dict[str, list[Any]] = {
    "zarr_format": [3, 3.0, "3", 2, True, None],
    "node_type": ["array", "Array", None, "dataset"],
    "shape": [[6, 4], [0, 4], [6.0, 4], [-1, 4], "6", None, [True, 4], [6], 6],
    "data_type": [
        *("int32", "int64", "uint8", "float64", "bool", "Int32", "i4", "<i4", "int128", None, 4, "decimal"),
        {"name": "int32"},
        {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 1}},
    ],
    "chunk_grid": [
        {"name": "regular", "configuration": {"chunk_shape": lengths}}
        for lengths in ([3, 2], [3], [3, 0], [3, -1], [3.0, 2], None, 3, [3, 2, 1])
    ]
    + [{"name": "regular"}, "regular", None, {"name": "odd", "configuration": {}}],
    "chunk_key_encoding": [
        *({"name": name} for name in ("default", "v2", "v3", "odd")),
        *({"name": "v2", "configuration": {"separator": separator}} for separator in ("/", ".", "-", None)),
        *("default", None, {}),
    ],
    "fill_value": [0, 5, -5, 2**31, 2**40, 1.5, 1.0, "0", "x", None, [], {}, True, "NaN", "0x01"],
    "attributes": [{}, {"a": 1}, [], "x", 3, None],
    "dimension_names": [["y", "x"], ["y", None], None, [], ["y"], ["y", "x", "z"], "yx", ["y", 3], 3],
    "storage_transformers": [[], None, [{"name": "x"}], {}],
    "unknown": [None, 1, {}, {"must_understand": False}, {"must_understand": True}, {"must_understand": 0}],
    "codecs": [
        [],
        None,
        ["bytes"],
        [{"name": "bytes"}],
        [_codec("bytes")],
        [_codec("bytes", endian="big")],
        [_codec("bytes", endian="middle")],
        [_codec("bytes", endian=None)],
        [BYTES, BYTES],
        [BYTES, _codec("gzip", level=1)],
        [BYTES, _codec("gzip", level=10)],
        [BYTES, _codec("gzip", level=-1)],
        [BYTES, _codec("gzip", level="1")],
        [BYTES, _codec("gzip", level=1, odd=2)],
        [BYTES, {"name": "gzip"}],
        [_codec("gzip", level=1), BYTES],
        [_codec("gzip", level=1)],
        [BYTES, _codec("zstd", level=3, checksum=False)],
        [BYTES, _codec("zstd", level=23, checksum=False)],
        [BYTES, _codec("zstd", level=3, checksum="no")],
        [BYTES, {"name": "zstd"}],
        [BYTES, _codec("odd")],
        [BYTES, _codec("numcodecs.odd")],
        [BYTES, CRC],
        [BYTES, _codec("crc32c", odd=1)],
        [BYTES, _codec("blosc", typesize=4, cname="lz4", clevel=5, shuffle="shuffle", blocksize=0)],
        [BYTES, _codec("blosc", typesize=4, cname="odd", clevel=5, shuffle="shuffle", blocksize=0)],
        [BYTES, _codec("blosc", typesize=4, cname="lz4", clevel=10, shuffle="shuffle", blocksize=0)],
        [BYTES, _codec("blosc", typesize=4, cname="lz4", clevel=5, shuffle=1, blocksize=0)],
        [BYTES, _codec("blosc", typesize=0, cname="lz4", clevel=5, shuffle="shuffle", blocksize=0)],
        [BYTES, {"name": "blosc"}],
        [_codec("transpose", order=[1, 0]), BYTES],
        [_codec("transpose", order=[0, 1]), BYTES],
        [_codec("transpose", order=[1, 1]), BYTES],
        [_codec("transpose", order=[1]), BYTES],
        [_codec("transpose", order=[2, 0]), BYTES],
        [_codec("transpose", order="F"), BYTES],
        [_codec("transpose", order="C"), BYTES],
        [{"name": "transpose"}, BYTES],
        [BYTES, _codec("transpose", order=[1, 0])],
        [_codec("vlen-utf8")],
        _shards(),
        _shards(index_location="start"),
        _shards(index_location="middle"),
        _shards(chunk_shape=[2, 2]),
        _shards(chunk_shape=[1]),
        _shards(chunk_shape=[0, 1]),
        _shards(codecs=[]),
        _shards(codecs=["bytes"]),
        _shards(index_codecs=[]),
        _shards(index_codecs=[BYTES]),
        [*_shards(), _codec("gzip", level=1)],
        [_codec("numcodecs.delta", dtype="<i4"), BYTES],
        [BYTES, _codec("numcodecs.zlib", level=1)],
        [BYTES, _codec("numcodecs.shuffle", elementsize=4)],
        {"name": "bytes"},
    ],
}
FILLS: dict[str, list[Any]] = {
    "float64": [0, 1.5, "NaN", "Infinity", "-Infinity", "0x7ff8000000000000", "0x7fc00000", "nan", None, "1.5", True],
    "bool": [True, False, 0, 1, "true", None],
    "complex64": [[0, 1], ["NaN", 0.0], [0], 0, "0", None],
    "string": ["", "x", 0, None],
    "uint8": [0, 255, 256, -1],
}


def variants() -> dict[str, dict[str, Any]]:
    """Return documents by name."""
    found = {}
    for member, values in MEMBERS.items():
        for n, value in enumerate(values):
            document = copy.deepcopy(ARRAY)
            document[member] = value
            found[f"{member} {n} {json.dumps(value)[:60]}"] = document
        if member in ARRAY:
            document = copy.deepcopy(ARRAY)
            del document[member]
            found[f"{member} missing"] = document
    for data_type, fills in FILLS.items():
        for fill in fills:
            document = copy.deepcopy(ARRAY) | {"data_type": data_type, "fill_value": fill}
            if data_type == "string":
                document["codecs"] = [{"name": "vlen-utf8"}]
            found[f"fill of {data_type} {fill!r}"] = document
    for member in ("attributes", "zarr_format", "node_type", "unknown", "dimension_names", "shape"):
        for n, value in enumerate(MEMBERS[member]):
            if (member, value) != ("node_type", "array"):
                document = copy.deepcopy(GROUP)
                document[member] = value
                found[f"group {member} {n} {json.dumps(value)}"] = document
    return found


def refused() -> dict[str, str]:
    """Return the names of the documents that the zarr of this interpreter refuses, with its reasons."""
    import zarr

    names = {}
    for name, document in variants().items():
        store = zarr.storage.MemoryStore(
            {"zarr.json": zarr.core.buffer.cpu.Buffer.from_bytes(json.dumps(document).encode())}
        )
        try:
            opened = zarr.open(store, mode="r")
            if isinstance(opened, zarr.Array):
                opened[...]
        except Exception as exc:
            names[name] = repr(exc)[:120]
    return names


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(refused()))
