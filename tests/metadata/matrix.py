"""Arrays of every kind of dtype, order, filter and compressor: written by zarr 2.18.7, read by any zarr 3.

::

    python matrix.py write FOLDER     FOLDER/v2.zarr and FOLDER/expected.pickle, under zarr 2
    python matrix.py large FOLDER     the same with every dtype under many codecs, filters and fills
    python matrix.py read FOLDER      compare FOLDER/v3.zarr, under zarr 3; the last line is JSON
    python matrix.py status FOLDER    the same, but what each array is: equal, refused or wrong
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np

DTYPES = [
    *("b1", "i1", "u1", "<i2", ">i2", "<u4", ">u8", "<i8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c16"),
    *("S3", "<U5", ">U5", "V5", "<M8[ns]", ">M8[25s]", "<m8[D]", "M8[D]"),
]


def values(dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    if dtype.kind in "biu":
        return rng.integers(0, 2 if dtype.kind == "b" else 100, (7, 5)).astype(dtype)
    if dtype.kind in "fc":
        return rng.normal(size=(7, 5)).astype(dtype)
    if dtype.kind in "SU":
        return np.array(["a", "bc", "def", ""] * 9)[:35].reshape(7, 5).astype(dtype)
    if dtype.kind in "mM":
        return rng.integers(-1000, 1000, (7, 5)).astype("i8").astype(dtype)
    return np.frombuffer(rng.bytes(35 * dtype.itemsize), dtype).reshape(7, 5)


def arrays():
    """Yield name, values, parameters."""
    import numcodecs as nc

    rng = np.random.default_rng(0)
    for name in DTYPES:
        data = values(np.dtype(name), rng)
        label = name.translate({ord("<"): "little-", ord(">"): "big-", ord("["): "-", ord("]"): None})
        yield f"dtype-{label}", data, {}
        yield f"dtype-{label}-F", data, {"order": "F", "compressor": nc.Zstd(1)}
        yield f"dtype-{label}-null", data, {"compressor": None, "fill_value": None}

    cube = rng.normal(size=(9, 6, 4)) * 100
    compressors = {
        "blosc-auto": nc.Blosc("lz4", 3, -1),
        "blosc-zstd-bit": nc.Blosc("zstd", 3, 2),
        "blosc-lz4hc": nc.Blosc("lz4hc", 1, 0),
        "blosc-blosclz": nc.Blosc("blosclz"),
        "blosc-zlib": nc.Blosc("zlib", 2, 1, 64),
        "zlib": nc.Zlib(3),
        "gzip": nc.GZip(2),
        "bz2": nc.BZ2(1),
        "lzma": nc.LZMA(preset=1),
        "lzma-raw": nc.LZMA(format=3, filters=[{"id": 33, "preset": 1}]),
        "lz4": nc.LZ4(),
        "zstd": nc.Zstd(3),
        "zstd-checksum": nc.Zstd(3, checksum=True),
        "crc32": nc.CRC32(),
    }
    for name, compressor in compressors.items():
        yield f"compressor-{name}", cube.astype("f4"), {"compressor": compressor}
        yield f"compressor-{name}-u1-F", cube.astype("u1"), {"compressor": compressor, "order": "F"}

    steps = np.cumsum(rng.integers(0, 9, (9, 6, 4)), axis=0).astype("i4")
    filters = {
        "delta": ([nc.Delta("i4")], steps),
        "delta-astype": ([nc.Delta("i4", "i2")], steps),
        "delta-big": ([nc.Delta(">i4")], steps.astype(">i4")),
        "delta-reinterprets": ([nc.Delta("u4")], steps),
        "scale": ([nc.FixedScaleOffset(0, 100, "f8", "i4")], cube),
        "scale-big": ([nc.FixedScaleOffset(0, 100, ">f8", ">i4")], cube.astype(">f8")),
        "scale-u1": ([nc.FixedScaleOffset(-200, 0.5, "f8", "u1")], cube),
        "quantize": ([nc.Quantize(2, "f8")], cube),
        "quantize-astype": ([nc.Quantize(2, "f8", "f4")], cube),
        "bitround": ([nc.BitRound(5)], cube.astype("f4")),
        "astype": ([nc.AsType("f4", "f8")], cube),
        "shuffle": ([nc.Shuffle(8)], cube),
        "shuffle-zlib": ([nc.Shuffle(8), nc.Zlib(1)], cube),
        "zlib": ([nc.Zlib(1)], cube),
        "blosc": ([nc.Blosc()], cube),
        "crc32": ([nc.CRC32()], cube),
        "adler32": ([nc.Adler32()], cube),
        "fletcher32": ([nc.Fletcher32()], cube),
        "jenkins": ([nc.JenkinsLookup3()], cube),
        "scale-delta-shuffle": ([nc.FixedScaleOffset(0, 100, "f8", "i4"), nc.Delta("i4"), nc.Shuffle(4)], cube),
        "shuffle-delta": ([nc.Shuffle(4), nc.Delta("u1")], steps),
        "packbits": ([nc.PackBits()], cube > 0),
        "categorize": ([nc.Categorize(["a", "b"], "U2")], np.array(["a", "b"] * 20)),
        "base64": ([nc.Base64()], cube),
    }
    for name, (chain, data) in filters.items():
        yield f"filter-{name}", data, {"filters": chain, "compressor": nc.Zlib(1)}
        yield f"filter-{name}-F", data, {"filters": chain, "compressor": None, "order": "F"}

    record = np.zeros(6, [("a", "<i4"), ("b", "<f8"), ("c", "S3")])
    record["a"], record["b"], record["c"] = range(6), rng.normal(size=6), b"xy"
    yield "struct", record, {}
    yield "struct-big", record.astype([("a", ">i4"), ("b", "<f8"), ("c", "S3")]), {}
    yield "struct-bytes", record.astype([("a", "u1"), ("b", "i1"), ("c", "S3")]), {}
    yield "struct-subarray", np.zeros(4, [("a", "i4"), ("b", "f4", (2,))]), {}
    yield "struct-nested", np.ones(4, [("a", "i4"), ("n", [("x", "f4"), ("t", "M8[s]")])]), {}
    yield "struct-text", np.ones(4, [("a", "<U3"), ("b", "i2")]), {}

    text = np.array(["a", "\u017e", "", "long string"] * 3, dtype=object).reshape(4, 3)
    yield "object-utf8", text, {"object_codec": nc.VLenUTF8()}
    yield "object-utf8-F", text, {"object_codec": nc.VLenUTF8(), "order": "F", "compressor": None}
    yield "object-utf8-zlib", text, {"object_codec": nc.VLenUTF8(), "filters": [nc.Zlib(1)]}
    yield "object-bytes", np.array([b"a", b"\xff", b"", b"long"], dtype=object), {"object_codec": nc.VLenBytes()}
    yield "object-json", text, {"object_codec": nc.JSON()}
    yield "object-msgpack", text, {"object_codec": nc.MsgPack()}
    ragged = np.empty(3, object)
    ragged[:] = [np.arange(2), np.arange(0), np.arange(5)]
    yield "object-array", ragged, {"object_codec": nc.VLenArray("i8")}

    yield "no-axes", np.array(2.5, "f4"), {"fill_value": 3}
    yield "no-axes-F", np.array(7, ">i4"), {"order": "F"}
    yield "no-items", np.zeros((0, 4), "f4"), {}
    yield "nested", np.arange(20).reshape(4, 5), {"dimension_separator": "/"}
    yield "one-axis-F", np.arange(20, dtype=">i4"), {"order": "F"}


def large_arrays():
    """Yield name, values, parameters of many more: every dtype under every kind of codec, every filter that fits."""
    import numcodecs as nc

    rng = np.random.default_rng(1)
    compressors = {
        "blosc-auto": nc.Blosc("lz4", 3, -1),
        "blosc-bit": nc.Blosc("zstd", 1, 2),
        "zlib": nc.Zlib(-1),
        "gzip-auto": nc.GZip(-1),
        "bz2": nc.BZ2(1),
        "lz4": nc.LZ4(),
        "zstd-F": nc.Zstd(1),
    }
    for n, name in enumerate(DTYPES):
        data = values(np.dtype(name), rng)
        label = _label(name)
        for m, (codec, compressor) in enumerate(compressors.items()):
            order = "F" if codec.endswith("-F") else "C"
            fill = (None, 0)[(n + m) % 2]
            yield f"{label}-{codec}", data, {"compressor": compressor, "order": order, "fill_value": fill}

    for name in ("i1", "<i2", ">i2", "<i4", ">i4", "<i8", ">i8", "u1", "<u2", ">u4", "<u8"):
        steps = np.cumsum(rng.integers(0, 3, (7, 5)), axis=0).astype(name)
        label = _label(name)
        yield f"delta-{label}", steps, {"filters": [nc.Delta(name)]}
        for astype in ("i1", "<i2", ">i2", "<i4", ">i8", "<f4", ">f8"):
            yield f"delta-{label}-{_label(astype)}", steps, {"filters": [nc.Delta(name, astype)], "compressor": None}
        yield f"shuffle-{label}-F", steps, {"filters": [nc.Shuffle(np.dtype(name).itemsize)], "order": "F"}
    for name in ("<f4", ">f4", "<f8", ">f8"):
        reals = (rng.normal(size=(7, 5)) * 10).astype(name)
        label = _label(name)
        for astype in ("i1", "<i2", ">i2", "<i4", ">i4", "<u2"):
            chain = [nc.FixedScaleOffset(-50 if astype == "<u2" else 0, 2, name, astype)]
            yield f"scale-{label}-{_label(astype)}", reals, {"filters": chain}
        for encode in ("<f4", ">f4", "<f2"):
            yield f"astype-{label}-{_label(encode)}", reals, {"filters": [nc.AsType(encode, name)]}
        yield f"bitround-{label}", reals, {"filters": [nc.BitRound(6)]}
        yield f"quantize-{label}-F", reals, {"filters": [nc.Quantize(1, name)], "order": "F"}
        yield f"delta-{label}", reals.round(), {"filters": [nc.Delta(name)]}
    flags = rng.integers(0, 2, (7, 5)).astype(bool)
    yield "packbits", flags, {"filters": [nc.PackBits()]}
    yield "packbits-F-none", flags, {"filters": [nc.PackBits()], "order": "F", "compressor": None}
    from numcodecs.pcodec import PCodec
    from numcodecs.zfpy import ZFPY

    numeric = {
        "pcodec": (PCodec(), ("<i4", "<f8", "<u2", ">f4")),
        "zfpy": (ZFPY(tolerance=0.01), ("<f4", "<f8", ">f4")),
    }
    for codec, (encoder, names) in numeric.items():
        for name in names:
            data = values(np.dtype(name), rng)
            label = f"{codec}-{_label(name)}"
            yield label, data, {"compressor": encoder}
            yield f"{label}-F", data, {"compressor": encoder, "order": "F"}
            yield f"{codec}-filter-{_label(name)}", data, {"filters": [encoder], "compressor": nc.Zstd(1)}
            yield f"{codec}-filter-{_label(name)}-F", data, {"filters": [encoder], "compressor": None, "order": "F"}


def _label(name: str) -> str:
    return name.translate({ord("<"): "little-", ord(">"): "big-", ord("["): "-", ord("]"): None})


FILLS = {
    "nan": ("f4", np.nan),
    "minus-inf": (">f8", -np.inf),
    "complex": ("c8", 1 - 2j),
    "int": ("i4", -7),
    "uint": ("u8", 2**64 - 1),
    "bool": ("b1", True),
    "bytes": ("S4", b"ab"),
    "text": ("U4", "\u00e9x"),
    "nat": ("M8[ns]", "NaT"),
    "void": ("V3", b"abc"),
    "struct": ([("a", "i2"), ("b", "S2")], (5, b"q")),
    "utf8": (str, "zz"),
}


def write(folder: Path, large: bool = False) -> None:
    import zarr

    group = zarr.open_group(str(folder / "v2.zarr"), "w")
    for name, data, parameters in large_arrays() if large else arrays():
        chunks = tuple(max(1, (length + 1) // 2) for length in data.shape)
        try:
            group.create_dataset(name, data=data, shape=data.shape, dtype=data.dtype, chunks=chunks, **parameters)
            group[name][...]
        except Exception:  # zarr 2 cannot write or read it itself
            del group[name]
        else:
            if large and len(data.shape) == 2 and parameters.get("fill_value", 0) is not None:
                _remove_a_chunk(folder / "v2.zarr" / name)
    for name, (dtype, fill) in FILLS.items():
        array = group.create_dataset(f"fill-{name}", shape=(5, 3), chunks=(2, 2), dtype=dtype, fill_value=fill)
        array[0, 0] = array[0, 0]
    expected = {name: array[...] for name, array in group.arrays()}
    (folder / "expected.pickle").write_bytes(pickle.dumps(expected))
    print(json.dumps(sorted(expected)))


def _remove_a_chunk(array: Path) -> None:
    """Leave one chunk to the fill value."""
    for chunk in (array / "1.1", array / "1/1"):
        chunk.unlink(missing_ok=True)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind == "O" or found.dtype.kind in "OT":
        return found.astype(object).tolist() == expected.astype(object).tolist()
    # Version 3 gives the machine's byte order; all else has to be the same to the bit.
    little = expected.dtype.newbyteorder("<")
    return found.dtype.newbyteorder("<") == little and (
        found.astype(found.dtype.newbyteorder("<")).tobytes() == expected.astype(little).tobytes()
    )


def read(folder: Path) -> dict[str, str]:
    """Return what differs, by name."""
    import zarr

    expected = pickle.loads((folder / "expected.pickle").read_bytes())
    group = zarr.open_group(str(folder / "v3.zarr"), mode="r", zarr_format=3)
    differs = {}
    for path in sorted((folder / "v3.zarr").glob("*/zarr.json")):
        name = path.parent.name
        try:
            found = np.asarray(group[name][...])
            if not same(found, expected[name]):
                differs[name] = f"{found.dtype} {found.ravel()[:3]} is not {expected[name].ravel()[:3]}"
        except Exception as exc:
            differs[name] = repr(exc)
    return differs


def statuses(folder: Path) -> dict[str, str]:
    """Return of each array what this zarr makes of it: equal, refused or wrong."""
    import zarr

    expected = pickle.loads((folder / "expected.pickle").read_bytes())
    group = zarr.open_group(str(folder / "v3.zarr"), mode="r", zarr_format=3, use_consolidated=False)
    found = {}
    for path in sorted((folder / "v3.zarr").glob("*/zarr.json")):
        name = path.parent.name
        try:
            found[name] = "equal" if same(np.asarray(group[name][...]), expected[name]) else "wrong"
        except Exception as exc:
            found[name] = f"refused: {exc!r}"[:200]
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] in ("write", "large"):
        write(Path(sys.argv[2]), sys.argv[1] == "large")
    elif sys.argv[1] == "status":
        if len(sys.argv) > 3:
            import zarr

            zarr.config.set({"codec_pipeline.path": sys.argv[3], "codec_pipeline.strict": True})
        print(json.dumps(statuses(Path(sys.argv[2]))))
    else:
        print(json.dumps(read(Path(sys.argv[2]))))
