"""Healthy hierarchies of both versions with shards and text, and every kind of damage that can be done to them.

Each damage changes a dict of the hierarchy and names the keys of which at least one must be reported.
"""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numcodecs
import numpy as np

from zarrstore import consolidate_metadata, init_array, init_group, migrate_2to3
from zarrstore.metadata import chunking, documents, v2
from zarrstore.metadata.chunk import encode_chunk
from zarrstore.metadata.crc import crc32c

Hierarchy = dict[str, bytes]


class Damage(NamedTuple):
    """One kind: what is done, and where it must be reported (any of these keys, or any key if there is none)."""

    name: str
    change: Callable[[Hierarchy], object]
    keys: frozenset[str]


def write(store: Hierarchy, path: str, **parameters: Any) -> None:
    """Write an array with all its chunks."""
    init_array(store, path=path, **parameters)
    meta = v2.decode_array(store[f"{path}/.zarray"])
    rng = np.random.default_rng(len(path))
    for coords in chunking.chunk_grid(meta.shape, meta.chunks):
        if meta.numpy_dtype.kind == "U":
            items = np.full(meta.chunks, "text", meta.numpy_dtype)
        else:
            items = rng.integers(0, 50, meta.chunks).astype(meta.numpy_dtype)
        store[f"{path}/{meta.separator.join(map(str, coords)) or '0'}"] = encode_chunk(items, meta)


COMPRESSORS = {
    "zlib": numcodecs.Zlib(1),
    "gzip": numcodecs.GZip(1),
    "bz2": numcodecs.BZ2(1),
    "lzma": numcodecs.LZMA(preset=1),
    "blosc": numcodecs.Blosc(),
    "zstd": numcodecs.Zstd(1),
    "lz4": numcodecs.LZ4(),
    "raw": None,
    "crc": None,
}


def version_2() -> Hierarchy:
    """Return a hierarchy of version 2 with consolidated metadata."""
    store: Hierarchy = {}
    init_group(store)
    store[".zattrs"] = b'{"title": "healthy"}'
    for name, compressor in COMPRESSORS.items():
        filters = [numcodecs.CRC32()] if name == "crc" else None
        write(
            store,
            f"c/{name}",
            shape=(5, 4),
            chunks=(3, 2),
            dtype="<i4",
            compressor=compressor,
            filters=filters,
            fill_value=0,
            dimension_separator=".",
        )
    write(store, "g/nested", shape=(4, 4), chunks=(2, 2), dtype="<f8", fill_value=0, dimension_separator="/")
    write(store, "g/flat", shape=6, chunks=2, dtype="u1", compressor=None, fill_value=None)
    write(store, "g/text", shape=4, chunks=2, dtype="<U4", compressor=None, fill_value="")
    store["g/nested/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["y", "x"], "units": "m"}'
    store["g/.zattrs"] = b'{"note": 1}'
    consolidate_metadata(store)
    return store


def both() -> Hierarchy:
    """Return the same with documents of version 3 beside those of version 2."""
    store = version_2()
    migrate_2to3(store)
    return store


def checksum(data: bytes) -> bytes:
    """Return the checksum as a shard carries it."""
    return struct.pack("<I", crc32c(data))


def shard(chunks: list[bytes], location: str = "end") -> bytes:
    """Return a shard of these inner chunks."""
    size = 16 * len(chunks) + 4
    at = size if location == "start" else 0
    index = b""
    for chunk in chunks:
        index += struct.pack("<QQ", at, len(chunk))
        at += len(chunk)
    index += checksum(index)
    return index + b"".join(chunks) if location == "start" else b"".join(chunks) + index


def version_3() -> Hierarchy:
    """Return a hierarchy of version 3 with inline consolidated metadata and shards."""
    store = both()
    migrate_2to3(store, remove_v2=True)
    document = documents.loads(store["c/zlib/zarr.json"], "zarr.json")
    inner = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "numcodecs.zlib", "configuration": {"level": 1}},
    ]
    for name, location in (("end", "end"), ("start", "start")):
        sharded = copy.deepcopy(document)
        sharded["shape"], sharded["attributes"] = [4, 4], {}
        sharded["chunk_grid"]["configuration"]["chunk_shape"] = [4, 2]
        sharded["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "/"}}
        index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        configuration = {
            "chunk_shape": [2, 2],
            "codecs": inner,
            "index_codecs": index_codecs,
            "index_location": location,
        }
        sharded["codecs"] = [{"name": "sharding_indexed", "configuration": configuration}]
        store[f"s/{name}/zarr.json"] = documents.dumps(sharded)
        for n in range(2):
            chunks = [zlib.compress(np.full(4, n + m, "<i4").tobytes()) for m in range(2)]
            store[f"s/{name}/c/0/{n}"] = shard(chunks, location)
    store["s/zarr.json"] = documents.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}})
    consolidate_metadata(store)
    return store


# Damages -------------------------------------------------------------------------------------------------------------


def _set(key: str, value: bytes) -> Callable[[Hierarchy], object]:
    return lambda store: store.__setitem__(key, value)


def _alter(key: str, change: Callable[[bytes], bytes]) -> Callable[[Hierarchy], object]:
    return lambda store: store.__setitem__(key, change(store[key]))


def _member(key: str, *path: str, value: Any = ...) -> Callable[[Hierarchy], object]:
    """Change a member of a document; without a value, remove it."""

    def change(store: Hierarchy) -> None:
        document = json.loads(store[key])
        inner = document
        for name in path[:-1]:
            inner = inner[name]
        if value is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
        store[key] = json.dumps(document).encode()

    return change


def _damage(name: str, change: Callable[[Hierarchy], object], *keys: str) -> Damage:
    return Damage(name, change, frozenset(keys))


def of_chunks() -> Iterator[Damage]:
    """Damages to chunks of every codec."""
    for codec in COMPRESSORS:
        key = f"c/{codec}/0.0"
        yield _damage(f"{codec}: empty", _set(key, b""), key)
        yield _damage(f"{codec}: half", _alter(key, lambda data: data[: len(data) // 2]), key)
        yield _damage(f"{codec}: last byte cut", _alter(key, lambda data: data[:-1]), key)
        yield _damage(f"{codec}: other bytes", _set(key, b"junk" * 30), key)
        yield _damage(f"{codec}: zeros", _alter(key, lambda data: bytes(len(data) + 3)), key)
        if codec not in ("lz4", "zstd"):
            yield _damage(f"{codec}: bytes behind", _alter(key, lambda data: data + b"behind"), key)
    for codec in ("zlib", "gzip", "bz2", "lzma", "crc"):  # those that carry a checksum
        key = f"c/{codec}/1.1"
        yield _damage(f"{codec}: a bit in the middle", _alter(key, _flip), key)
    yield _damage("a chunk of another array", lambda s: s.update({"g/flat/0": s["c/raw/0.0"]}), "g/flat/0")
    yield _damage("text beyond the code points", _set("g/text/0", struct.pack("<8I", 0x110000, *[65] * 7)), "g/text/0")
    yield _damage("text of one byte less", _alter("g/text/1", lambda data: data[:-1]), "g/text/1")


def _flip(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def of_names() -> Iterator[Damage]:
    """Keys that should not be there, and keys that are missing."""
    for key in ("c/zlib/2.0", "c/zlib/0.2", "c/zlib/00.0", "g/nested/0/9", "g/flat/3", "c/raw/9.9"):
        yield _damage(f"outside: {key}", _set(key, b"x"), key)
    for key in (
        "c/zlib/0",
        "c/zlib/0.0.0",
        "c/zlib/x",
        "c/zlib/0.0.tmp",
        "c/zlib/.DS_Store",
        "g/Thumbs.db",
        "notes.txt",
        "c/zlib/0.0~",
        "g/nested/0/0/0",
        "c/._zlib",
        "c/zlib/c/0/0",
        "c/zlib/-1.0",
    ):
        yield _damage(f"foreign: {key}", _set(key, b"x"), key)
    yield _damage("nested among flat", lambda s: s.update({"c/zlib/0/1": s.pop("c/zlib/0.1")}), "c/zlib/0/1")
    yield _damage("flat among nested", lambda s: s.update({"g/nested/0.1": s.pop("g/nested/0/1")}), "g/nested/0.1")
    yield _damage("missing where nothing fills", lambda s: s.pop("g/flat/1"), "g/flat/1")
    for key in ("x/.zarray", "x/.zgroup", "x/y/.zattrs"):
        value = b'{"zarr_format": 2}' if key.endswith("group") else b"{}"
        yield _damage(f"a document alone: {key}", _set(key, value), key, ".zmetadata")
    yield _damage(
        "a group missing between",
        lambda s: [s.pop("g/.zgroup"), s.pop("g/.zattrs"), s.pop("g/zarr.json", 0)],
        "g/nested/.zarray",
        "g/flat/.zarray",
        ".zmetadata",
        "zarr.json",
    )
    yield _damage(
        "an array below an array", lambda s: s.update({"c/zlib/in/.zarray": s["c/zlib/.zarray"]}), "c/zlib/in/.zarray"
    )
    yield _damage("a group and an array", _set("c/zlib/.zgroup", b'{"zarr_format": 2}'), "c/zlib/.zgroup")
    for name in ("meta", "attrs"):
        yield _damage(f"left of version 1: {name}", _set(f"c/zlib/{name}", b"{}"), f"c/zlib/{name}")


ZARRAY_MEMBERS: dict[str, list[Any]] = {
    "zarr_format": [1, 3, "2", None, ...],
    "shape": [[5], [5, -4], [5, 4.5], "5", None, ...],
    "chunks": [[3], [3, 0], [3, 2, 1], None, ...],
    "dtype": ["<q9", "", None, [["a"]], "|O", ...],
    "order": ["A", None, ...],
    "compressor": ["zlib", {"level": 1}, []],
    "filters": [{}, [1], [{"x": 1}], ...],
    "fill_value": ["x", [0], {}, ...],
    "dimension_separator": ["-", 3],
}


def of_documents_2() -> Iterator[Damage]:
    """Damages to documents of version 2."""
    key = "c/zlib/.zarray"
    for member, values in ZARRAY_MEMBERS.items():
        for value in values:
            yield _damage(f".zarray {member} {value!r}", _member(key, member, value=value), key)
    for key in (".zgroup", ".zattrs", "c/zlib/.zarray", "g/.zattrs", ".zmetadata"):
        for what, value in (
            ("cut", b'{"zarr_format": 2'),
            ("empty", b""),
            ("a list", b"[]"),
            ("binary", b"\xff\xfe\0"),
        ):
            yield _damage(f"{key}: {what}", _set(key, value), key, ".zmetadata")
    yield _damage("a member twice", _set("g/.zattrs", b'{"a": 1, "a": 2}'), "g/.zattrs")
    yield _damage("nested without end", _set("g/.zattrs", b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}"), "g/.zattrs")
    yield _damage("a group of version 7", _set("g/.zgroup", b'{"zarr_format": 7}'), "g/.zgroup")
    yield _damage("another dtype", _member("c/raw/.zarray", "dtype", value="<i8"), "c/raw/.zarray", "c/raw/0.0")
    yield _damage(
        "another compressor", _member("c/zlib/.zarray", "compressor", value={"id": "bz2", "level": 1}), "c/zlib/0.0"
    )
    yield _damage("an unknown codec", _member("c/zlib/.zarray", "compressor", value={"id": "unheard"}), "c/zlib/0.0")
    yield _damage("larger chunks", _member("c/raw/.zarray", "chunks", value=[4, 2]), "c/raw/0.0")
    yield _damage("a smaller shape", _member("c/zlib/.zarray", "shape", value=[3, 4]), "c/zlib/1.0", "c/zlib/1.1")
    yield _damage("pickled objects", _pickled, "c/raw/.zarray")
    for what, change in (
        ("lacks", _member(".zmetadata", "metadata", "c/zlib/.zarray")),
        ("too much", _member(".zmetadata", "metadata", "q/.zgroup", value={"zarr_format": 2})),
        ("different", _member(".zmetadata", "metadata", "g/.zattrs", value={"note": 2})),
        ("format 9", _member(".zmetadata", "zarr_consolidated_format", value=9)),
        ("an odd name", _member(".zmetadata", "metadata", "../x/.zarray", value={})),
        ("no document", _member(".zmetadata", "metadata", "a/0.0", value={})),
        ("no object", _member(".zmetadata", "metadata", "g/.zattrs", value=3)),
    ):
        yield _damage(f".zmetadata: {what}", change, ".zmetadata")


def _pickled(store: Hierarchy) -> None:
    _member("c/raw/.zarray", "filters", value=[{"id": "pickle"}])(store)
    _member("c/raw/.zarray", "dtype", value="|O")(store)


V3_MEMBERS: dict[str, list[Any]] = {
    "zarr_format": [2, 3.0, "3", ...],
    "node_type": ["Array", None, "group", ...],
    "shape": [[5], [5, -1], [5.5, 4], None, ...],
    "data_type": ["int33", "<i4", None, {"name": "int32"}, ...],
    "chunk_grid": ["regular", {"name": "odd"}, {"name": "regular", "configuration": {"chunk_shape": [3, 0]}}, ...],
    "chunk_key_encoding": ["default", {"name": "odd"}, {"name": "v2", "configuration": {"separator": "-"}}, ...],
    "fill_value": ["x", None, 1.5, 2**40, ...],
    "codecs": [
        [],
        ["bytes"],
        [{"name": "odd"}],
        [{"name": "bytes", "configuration": {"endian": "middle"}}],
        [{"name": "gzip", "configuration": {"level": 1}}],
        [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 10}}],
        [{"name": "bytes"}],
        [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "transpose", "configuration": {"order": [1, 0]}},
        ],
        ...,
    ],
    "attributes": [[], "x"],
    "dimension_names": [["y"], ["y", 3], "yx"],
    "storage_transformers": [[{"name": "x"}]],
    "unknown": [1, {"must_understand": True}],
}


def of_documents_3() -> Iterator[Damage]:
    """Damages to documents of version 3, to inline consolidated metadata and to shards."""
    key = "c/zlib/zarr.json"
    for member, values in V3_MEMBERS.items():
        for n, value in enumerate(values):
            yield _damage(f"zarr.json {member} {n} {str(value)[:40]}", _member(key, member, value=value), key)
    for what, change in (
        ("lacks", _member("zarr.json", "consolidated_metadata", "metadata", "c/zlib")),
        ("too much", _member("zarr.json", "consolidated_metadata", "metadata", "q", value={"node_type": "group"})),
        ("different", _member("zarr.json", "consolidated_metadata", "metadata", "g", "attributes", value={"note": 2})),
        (
            "an array differs",
            _member("zarr.json", "consolidated_metadata", "metadata", "c/zlib", "shape", value=[6, 4]),
        ),
        ("another kind", _member("zarr.json", "consolidated_metadata", "kind", value="odd")),
        ("an odd name", _member("zarr.json", "consolidated_metadata", "metadata", "../x", value={})),
    ):
        yield _damage(f"inline: {what}", change, "zarr.json")
    yield _damage("zarr.json: cut", _set("g/zarr.json", b"{"), "g/zarr.json")
    yield _damage("zarr.json: empty", _set("g/zarr.json", b""), "g/zarr.json")


def of_shards() -> Iterator[Damage]:
    """Damages to shards."""
    for name in ("end", "start"):
        key = f"s/{name}/c/0/0"
        index = slice(-36, None) if name == "end" else slice(0, 36)

        def in_index(change: Callable[[bytearray], object], index: slice = index) -> Callable[[bytes], bytes]:
            def altered(data: bytes) -> bytes:
                numbers = bytearray(data[index][:-4])
                change(numbers)
                new = bytes(numbers) + checksum(bytes(numbers))
                return data[:-36] + new if index.start == -36 else new + data[36:]

            return altered

        yield _damage(f"shard {name}: empty", _set(key, b""), key)
        yield _damage(f"shard {name}: shorter than its index", _alter(key, lambda data: data[:20]), key)
        yield _damage(
            f"shard {name}: a bit of the index",
            _alter(key, lambda data, i=index: data.replace(data[i], _flip(data[i]))),
            key,
        )
        yield _damage(
            f"shard {name}: checksum", _alter(key, lambda data, i=index: data.replace(data[i][-4:], b"\0\0\0\0")), key
        )
        yield _damage(
            f"shard {name}: an offset too far",
            _alter(key, in_index(lambda n: n.__setitem__(slice(0, 8), struct.pack("<Q", 10**6)))),
            key,
        )
        yield _damage(
            f"shard {name}: a size too large",
            _alter(key, in_index(lambda n: n.__setitem__(slice(8, 16), struct.pack("<Q", 10**9)))),
            key,
        )
        yield _damage(
            f"shard {name}: chunks on each other",
            _alter(key, in_index(lambda n: n.__setitem__(slice(0, 16), n[16:32]))),
            key,
        )
        at = 2 if name == "end" else 38
        yield _damage(
            f"shard {name}: an inner chunk",
            _alter(key, lambda data, at=at: data[:at] + b"\xff\xff\xff" + data[at + 3 :]),
            key,
        )
        yield _damage(f"shard {name}: cut", _alter(key, lambda data: data[:-1]), key)
        yield _damage(
            f"shard {name}: outside", lambda s, n=name: s.update({f"s/{n}/c/0/9": s[f"s/{n}/c/0/0"]}), f"s/{name}/c/0/9"
        )


def of_both() -> Iterator[Damage]:
    """Documents of the two versions that disagree, and what a half-removed version leaves."""
    for member, value in (
        ("shape", [6, 4]),
        ("fill_value", 9),
        ("data_type", "uint32"),
        ("chunk_key_encoding", {"name": "v2", "configuration": {"separator": "/"}}),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [2, 2]}}),
        ("attributes", {"other": 1}),
        ("dimension_names", ["a", "b"]),
        ("node_type", "group"),
        ("codecs", [{"name": "bytes", "configuration": {"endian": "big"}}]),
    ):
        key = "c/zlib/zarr.json"
        yield _damage(f"disagreement: {member}", _member(key, member, value=value), key)
    yield _damage(
        "disagreement: attributes of a group", _member("g/zarr.json", "attributes", value={"note": 2}), "g/zarr.json"
    )
    yield _damage("disagreement: attributes of version 2", _set("g/nested/.zattrs", b"{}"), "g/nested/zarr.json")
    yield _damage(
        "disagreement: resized in version 2", _member("c/gzip/.zarray", "shape", value=[5, 5]), "c/gzip/zarr.json"
    )
    yield _damage(
        "half removed: the root",
        lambda s: [s.pop(".zgroup"), s.pop(".zattrs"), s.pop(".zmetadata")],
        "g/.zgroup",
        "c/.zgroup",
        "c/zlib/.zarray",
    )
    yield _damage("half removed: an array", lambda s: s.pop("g/nested/.zarray"), "g/nested/.zattrs")
    yield _damage("half removed: a group", lambda s: [s.pop("g/.zgroup")], "g/.zattrs", "g/nested/.zarray")


#: Every healthy hierarchy and what is done to it.
CATALOGUE: dict[str, tuple[Callable[[], Hierarchy], tuple[Callable[[], Iterator[Damage]], ...]]] = {
    "version 2": (version_2, (of_chunks, of_names, of_documents_2)),
    "version 3": (version_3, (of_documents_3, of_shards)),
    "both": (both, (of_both,)),
}
