"""N5: its ``attributes.json`` as version 2 documents and back, and its blocks as chunks and back.

An N5 hierarchy counts axes from the fastest, Zarr from the slowest: shapes, chunk shapes and the numbers of a block's
path are reversed, and the items in memory are the same. A block is a header and the compressed items, big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from zarrstore.errors import MetadataError
from zarrstore.metadata import documents, v2
from zarrstore.metadata.chunk import decode_chunk, encode_chunk

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ATTRIBUTES",
    "VERSION",
    "Dataset",
    "array_to_n5",
    "attrs_of",
    "block_to_chunk",
    "chunk_to_block",
    "dataset",
    "is_dataset",
    "without_dataset",
]

ATTRIBUTES = "attributes.json"
#: What is written into groups; zarr 2's N5Store writes and wants it.
VERSION = "2.0.0"

_DATASET = frozenset({"dimensions", "blockSize", "dataType", "compression", "compressionType"})
#: What this package notes of a ``.zarray`` that N5 has no words for. Other readers pass it over.
_NOTE = "_zarrstore"
_RESERVED = _DATASET | {"n5", _NOTE}
#: Members of a ``.zarray`` that may differ from what N5 says, and stand in the note.
_NOTED = ("dtype", "order", "fill_value", "compressor", "dimension_separator")

_DTYPES = {
    "int8": "|i1",
    "int16": ">i2",
    "int32": ">i4",
    "int64": ">i8",
    "uint8": "|u1",
    "uint16": ">u2",
    "uint32": ">u4",
    "uint64": ">u8",
    "float32": ">f4",
    "float64": ">f8",
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_HEADER = struct.Struct(">HH")
_DEFAULT, _VARLENGTH = 0, 1
#: Bytes. A few bytes of a block at the edge must not take any memory that a document announces.
_MOST_FILLED = 1 << 30
_JAVA_LZ4 = struct.Struct("<8sBiiI")


class Dataset(NamedTuple):
    """An N5 dataset as an array of version 2.

    Parameters
    ----------
    meta : v2.ArrayMeta
        As it is shown.
    stored : v2.ArrayMeta
        As the payload of a block is: big-endian, C order. Equal to `meta` in what matters for the bytes where a payload
        is a chunk as it stands.
    compression : str
        N5's name of the compression.
    """

    meta: v2.ArrayMeta
    stored: v2.ArrayMeta
    compression: str

    @property
    def keeps_payload(self) -> bool:
        """Whether the payload of a whole block is the chunk, byte for byte."""
        same = all(getattr(self.meta, name) == getattr(self.stored, name) for name in ("dtype", "compressor"))
        order = self.meta.order == "C" or len(self.meta.shape) < 2
        return same and order and self.compression != "lz4"


# Documents ----------------------------------------------------------------------------------------------------------


def is_dataset(attributes: Mapping[str, Any]) -> bool:
    """Tell whether these are the attributes of a dataset, not of a group."""
    return "dimensions" in attributes and "dataType" in attributes


def dataset(attributes: Mapping[str, Any], key: str = ATTRIBUTES, separator: str | None = None) -> Dataset:
    """Return the array that the attributes of a dataset describe.

    Parameters
    ----------
    attributes : mapping
        The content of ``attributes.json``.
    key : str
        For the error.
    separator : {'.', '/'} or None
        The dimension separator to show.

    Raises
    ------
    MetadataError
        A member is missing, of the wrong type, or names what is not known here.

    Notes
    -----
    Source: the N5 specification 4.0.0; zarr 2.18.7's N5Store. Deviation: the type is shown big-endian, as the items
    are, so that most blocks pass through undecoded.

    Examples
    --------
    >>> found = dataset(
    ...     {"dimensions": [10, 4], "blockSize": [5, 2], "dataType": "uint16", "compression": {"type": "raw"}}
    ... )
    >>> found.meta.shape, found.meta.chunks, found.meta.dtype, found.meta.compressor
    ((4, 10), (2, 5), '>u2', None)
    """
    data_type = attributes["dataType"]
    if not isinstance(data_type, str) or data_type not in _DTYPES:
        raise MetadataError(key, "dataType", f"is {data_type!r}; {', '.join(_DTYPES)} are known")
    compression = attributes.get("compression", {"type": attributes.get("compressionType", "raw")})
    if not isinstance(compression, Mapping) or not isinstance(compression.get("type"), str):
        raise MetadataError(key, "compression", 'is no object with a "type"')
    document: dict[str, Any] = {
        "zarr_format": 2,
        "shape": _sizes(attributes, "dimensions", key),
        "chunks": _sizes(attributes, "blockSize", key),
        "dtype": _DTYPES[data_type],
        "compressor": _compressor(compression, key),
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    if separator == "/":
        document["dimension_separator"] = separator
    stored = v2.check_array(document, key)
    note = attributes.get(_NOTE)
    if isinstance(note, Mapping):
        document |= {member: note[member] for member in _NOTED if member in note}
    meta = v2.check_array(document, key)
    if (meta.numpy_dtype.newbyteorder("="), meta.filters) != (stored.numpy_dtype.newbyteorder("="), None):
        raise MetadataError(key, _NOTE, "describes another type than dataType")
    return Dataset(meta, stored, str(compression["type"]))


def _sizes(attributes: Mapping[str, Any], member: str, key: str) -> list[int]:
    """Return one size for each axis; N5 names the axis that varies fastest first."""
    sizes = attributes.get(member)
    if not isinstance(sizes, list) or not all(type(size) is int for size in sizes):
        raise MetadataError(key, member, "is no list of integers")
    return sizes[::-1]


def attrs_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's attributes: all members but N5's own."""
    return {name: value for name, value in attributes.items() if name not in _RESERVED}


def with_attrs(attributes: Mapping[str, Any], attrs: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the attributes of a node with the user's replaced by `attrs`."""
    taken = sorted(_RESERVED & set(attrs))
    if taken:
        raise MetadataError(key, taken[0], "is a name of N5's own and cannot be an attribute")
    return {name: value for name, value in attributes.items() if name in _RESERVED} | dict(attrs)


def without_dataset(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a node as those of a group."""
    return {"n5": VERSION} | {name: value for name, value in attributes.items() if name not in _DATASET | {_NOTE}}


def array_to_n5(meta: v2.ArrayMeta, key: str = documents.ZARRAY) -> dict[str, Any]:
    """Return N5's members for an array of version 2.

    Parameters
    ----------
    meta : v2.ArrayMeta
        What is to be stored. Another byte order or layout than N5's is noted beside, and its chunks are converted.
    key : str
        For the error.

    Raises
    ------
    MetadataError
        N5 has no such type, codec, filter or fill value, or the array has no axes.

    Examples
    --------
    >>> meta = v2.build_array(
    ...     shape=(4, 10), chunks=(2, 5), dtype="<u2", compressor={"id": "gzip", "level": 5}, fill_value=0
    ... )
    >>> array_to_n5(meta)["dimensions"], array_to_n5(meta)["compression"]["type"]
    ([10, 4], 'gzip')
    """
    if not meta.shape:
        raise MetadataError(key, "shape", "has no axes, and N5 has no dataset without one")
    dtype = meta.dtype
    big = dtype.replace("<", ">") if isinstance(dtype, str) else ""
    if big not in _NAMES:
        raise MetadataError(key, "dtype", f"is {dtype!r}, and N5 has integers and floats only")
    if meta.filters:
        raise MetadataError(key, "filters", "stand there, and N5 has none")
    if meta.fill_value not in (0, None):
        raise MetadataError(key, "fill_value", f"is {meta.fill_value!r}, and what is absent in N5 reads as 0")
    members: dict[str, Any] = {
        "dimensions": list(meta.shape[::-1]),
        "blockSize": list(meta.chunks[::-1]),
        "dataType": _NAMES[big],
        "compression": _compression(meta.compressor, key),
    }
    shown = dataset(members, key).meta.document()
    wanted = meta.document()
    note = {name: wanted.get(name) for name in _NOTED if wanted.get(name) != shown.get(name)}
    return members | ({_NOTE: note} if note else {})


def _compressor(compression: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return the numcodecs configuration that undoes an N5 compression."""

    def number(name: str, default: int) -> int:
        value = compression.get(name, default)
        if type(value) is not int:
            raise MetadataError(key, "compression", f'has "{name}" {value!r}, no integer')
        return default if value < 0 else value

    match compression["type"]:
        case "raw":
            return None
        case "gzip":
            name = "zlib" if compression.get("useZlib") else "gzip"
            return {"id": name, "level": number("level", 6)}
        case "bzip2":
            return {"id": "bz2", "level": number("blockSize", 9)}
        case "xz":
            return {"id": "lzma", "format": 1, "check": -1, "preset": number("preset", 6), "filters": None}
        case "blosc":
            return {
                "id": "blosc",
                "cname": str(compression.get("cname", "lz4")),
                "clevel": number("clevel", 5),
                "shuffle": number("shuffle", 1),
                "blocksize": number("blocksize", 0),
            }
        case "lz4":
            return {"id": "lz4", "acceleration": 1}
        case "zstd":
            return {"id": "zstd", "level": number("level", 3)}
        case other:
            raise MetadataError(key, "compression", f'has the "type" {other!r}, which is not known here')


def _compression(compressor: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    """Return the N5 compression whose payload is what the compressor makes."""
    if compressor is None:
        return {"type": "raw"}
    match compressor["id"]:
        case "gzip" | "zlib" as name:
            return {"type": "gzip", "level": compressor.get("level", 6), "useZlib": name == "zlib"}
        case "bz2":
            return {"type": "bzip2", "blockSize": compressor.get("level", 9)}
        case "lzma" if compressor.get("format", 1) == 1 and not compressor.get("filters"):
            preset = compressor.get("preset")
            return {"type": "xz", "preset": 6 if preset is None else preset}
        case "blosc":
            names = ("cname", "clevel", "shuffle", "blocksize")
            return {"type": "blosc", **{name: compressor[name] for name in names if name in compressor}}
        case "zstd":
            return {"type": "zstd", "level": compressor.get("level", 3)}
        case other:
            raise MetadataError(key, "compressor", f"is {other!r}, which N5 readers do not know")


# Blocks -------------------------------------------------------------------------------------------------------------


def block_to_chunk(block: bytes, one: Dataset) -> bytes:
    """Return the chunk that a block stands for; whatever is wrong with it is one ValueError.

    Parameters
    ----------
    block : bytes
        Header and payload.
    one : Dataset
        Its dataset.

    Notes
    -----
    A whole block in C order passes through undecoded. One that ends with the array is filled up with zeros, since a
    chunk of version 2 is whole at the edge too.
    """
    shape, start = _read_header(block, one)
    payload = block[start:]
    if shape == one.stored.chunks and one.keeps_payload:
        return payload
    if one.compression == "lz4":
        payload = _from_java_lz4(payload)
    part = v2.check_array(one.stored.document() | {"shape": list(shape), "chunks": list(shape)})
    items = decode_chunk(payload, part)
    return encode_chunk(_whole(items, one.stored.chunks), one.meta)


def chunk_to_block(chunk: bytes | memoryview, one: Dataset) -> bytes:
    """Return the block of a chunk: always a whole one, as zarr 2's N5Store writes it."""
    payload: bytes | memoryview = chunk
    if one.compression == "lz4":
        raise ValueError("blocks in the LZ4 framing of Java can be read here, not written; choose another compression")
    if not one.keeps_payload:
        payload = encode_chunk(decode_chunk(bytes(chunk), one.meta), one.stored)
    sizes = one.stored.chunks[::-1]
    return b"".join((_HEADER.pack(_DEFAULT, len(sizes)), struct.pack(f">{len(sizes)}I", *sizes), payload))


def _read_header(block: bytes, one: Dataset) -> tuple[tuple[int, ...], int]:
    """Return the shape of a block's items, slowest axis first, and where its payload begins."""
    if len(block) < _HEADER.size:
        raise ValueError(f"a block of {len(block)} bytes has no header")
    mode, ndim = _HEADER.unpack_from(block)
    if mode not in (_DEFAULT, _VARLENGTH):
        raise ValueError(f"a block of mode {mode} holds serialised objects, no numbers")
    if ndim != len(one.stored.chunks):
        raise ValueError(f"a block of {ndim} axes, and the dataset has {len(one.stored.chunks)}")
    end = _HEADER.size + 4 * ndim + (4 if mode == _VARLENGTH else 0)
    if len(block) < end:
        raise ValueError("a block that ends within its header")
    numbers = struct.unpack_from(f">{(end - _HEADER.size) // 4}I", block, _HEADER.size)
    shape = tuple(numbers[:ndim][::-1])
    if not all(0 < size <= most for size, most in zip(shape, one.stored.chunks, strict=True)):
        raise ValueError(f"a block of {shape} items, and the dataset's have {one.stored.chunks}")
    if mode == _VARLENGTH and numbers[ndim] != prod(shape):
        raise ValueError(
            f"a block of {numbers[ndim]:,} items for {prod(shape):,} places: no array of version 2 has such"
        )
    return shape, end


def _whole(items: np.ndarray[Any, Any], chunks: tuple[int, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    if items.shape == chunks:
        return items
    nbytes = prod(chunks) * items.dtype.itemsize
    if nbytes > _MOST_FILLED:
        raise ValueError(
            f"a block of {items.shape} items, which a chunk of version 2 would fill up with zeros to {nbytes:,} bytes; "
            f"no more than {_MOST_FILLED:,} are made"
        )
    whole = np.zeros(chunks, items.dtype)
    whole[tuple(map(slice, items.shape))] = items
    return whole


def _from_java_lz4(payload: bytes) -> bytes:
    """Return what numcodecs' LZ4 decodes, for what Java's LZ4BlockOutputStream wrote."""
    import numcodecs

    codec = numcodecs.get_codec({"id": "lz4"})
    parts, at = [], 0
    while at < len(payload):
        if at + _JAVA_LZ4.size > len(payload):
            raise ValueError("an LZ4 block of Java that ends within its header")
        magic, token, packed, size, _ = _JAVA_LZ4.unpack_from(payload, at)
        at += _JAVA_LZ4.size
        if magic != b"LZ4Block" or packed < 0 or size < 0 or at + packed > len(payload):
            raise ValueError("no LZ4 block of Java")
        if not size:
            break
        data = payload[at : at + packed]
        at += packed
        parts.append(data if token & 0xF0 == 0x10 else bytes(codec.decode(struct.pack("<i", size) + data)))
        if len(parts[-1]) != size:
            raise ValueError("an LZ4 block of Java of another size than it says")
    return bytes(codec.encode(b"".join(parts)))
