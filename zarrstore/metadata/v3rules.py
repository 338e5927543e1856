"""What a version 3 document must hold: every rule that zarr 3 enforces when it opens a node, as one list of reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zarrstore.errors import MetadataError
from zarrstore.metadata import documents, v3types
from zarrstore.metadata.chunkkeys import chunk_keys_of_v3

if TYPE_CHECKING:
    import numpy as np

__all__ = ["reasons"]

_ARRAY_REQUIRED = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
_ARRAY_OPTIONAL = frozenset({"attributes", "dimension_names", "storage_transformers"})
_COMMON = frozenset({"zarr_format", "node_type"})
_GROUP_MEMBERS = _COMMON | {"attributes", "consolidated_metadata"}

# Kinds of codecs: from array to array, from array to bytes, from bytes to bytes.
_ARRAY_TO_ARRAY = frozenset(
    {"transpose", "cast_value", "scale_offset"}
    | {f"numcodecs.{name}" for name in ("astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize")}
)
_ARRAY_TO_BYTES = frozenset(
    {"bytes", "endian", "sharding_indexed", "vlen-bytes", "vlen-utf8", "numcodecs.pcodec", "numcodecs.zfpy"}
)
#: Codecs whose ``configuration`` zarr 3 requires.
_CONFIGURED = frozenset({"blosc", "gzip", "zstd", "transpose", "sharding_indexed"})
_BYTES_TO_BYTES = frozenset(
    {"blosc", "crc32c", "gzip", "zstd"}
    | {
        f"numcodecs.{name}"
        for name in (
            *("adler32", "blosc", "bz2", "crc32", "crc32c", "fletcher32", "gzip", "jenkins_lookup3"),
            *("lz4", "lzma", "shuffle", "zlib", "zstd"),
        )
    }
)


def reasons(document: Mapping[str, Any], key: str = documents.ZARR_JSON) -> list[str]:
    """Return every reason for which zarr 3.4 refuses a ``zarr.json``; none if it opens.

    Parameters
    ----------
    document : mapping
        The parsed document.
    key : str
        Its full key, for errors of other modules.

    Examples
    --------
    >>> reasons({"zarr_format": 3, "node_type": "group", "attributes": []})
    ['"attributes" is no object']
    >>> reasons({"zarr_format": 3.0, "node_type": "group"})
    ['"zarr_format" is 3.0, and 3 is expected']
    """
    version = document.get("zarr_format")
    if type(version) is not int or version != 3:
        return [f'"zarr_format" is {version!r}, and 3 is expected']
    kind = document.get("node_type")
    if kind == "group":
        return [*_attributes(document), *_unknown_members(document, _GROUP_MEMBERS)]
    if kind != "array":
        return [f'"node_type" is {kind!r}, and "array" or "group" is expected']
    missing = [f'"{member}" is missing' for member in _ARRAY_REQUIRED if member not in document]
    return missing or list(_array(document, key))


def _array(document: Mapping[str, Any], key: str) -> Iterator[str]:
    yield from _attributes(document)
    yield from _unknown_members(document, {*_COMMON, *_ARRAY_REQUIRED, *_ARRAY_OPTIONAL})
    shape = document["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        yield f'"shape" is {shape!r}, and a list of whole numbers is expected'
        return
    yield from _chunk_grid(document["chunk_grid"], len(shape))
    if isinstance(document["chunk_key_encoding"], str):
        yield f'"chunk_key_encoding" is {document["chunk_key_encoding"]!r}, and an object with a "name" is expected'
    try:
        chunk_keys_of_v3(document, key)
    except MetadataError as exc:
        yield f'"{exc.member}" {exc.reason}'
    yield from _dimension_names(document.get("dimension_names"), len(shape))
    if document.get("storage_transformers"):
        yield '"storage_transformers" is not empty, and zarr 3 knows none'
    dtype = yield from _items(document)
    needs_endian = dtype is not None and v3types.needs_endian(dtype) and dtype.names is None
    yield from codec_reasons(document["codecs"], len(shape), needs_endian, _chunk_shape(document))


def _items(document: Mapping[str, Any]) -> Generator[str, None, np.dtype[Any] | None]:
    """Yield what is wrong with the type and the fill value; return the type as NumPy knows it."""
    dtype = None
    if isinstance(document["data_type"], dict) and "configuration" not in document["data_type"]:
        yield '"data_type" is an object without a "configuration"'
    try:
        dtype, _ = v3types.dtype_of(document["data_type"], None)
        v3types.fill_of(document["fill_value"], dtype)
    except v3types.NotRepresentable as exc:
        yield f'"data_type": {exc}'
    except Exception as exc:  # NumPy, struct and base64 raise what they like.
        yield f'"fill_value" {exc}'
    return dtype


def _attributes(document: Mapping[str, Any]) -> Iterator[str]:
    # zarr 3 takes null for an empty object.
    if not isinstance(document.get("attributes") or {}, dict) or document.get("attributes") == []:
        yield '"attributes" is no object'


def _unknown_members(document: Mapping[str, Any], known: frozenset[str] | set[str]) -> Iterator[str]:
    for member in sorted(document.keys() - known):
        value = document[member]
        if not (isinstance(value, dict) and value.get("must_understand") is False):
            yield f'"{member}" is no member that zarr 3 knows, and does not say "must_understand": false'


def _chunk_grid(grid: Any, ndim: int) -> Iterator[str]:
    if not isinstance(grid, dict) or grid.get("name") != "regular":
        yield f'"chunk_grid" is {_short(grid)}, and a regular one is expected'
        return
    lengths = _stated_chunks(grid)
    if not _are_lengths(lengths):
        yield f'"chunk_grid" has the chunk shape {lengths!r}, and a list of positive numbers is expected'
    elif len(lengths) != ndim:
        yield f'"chunk_grid" has {len(lengths)} axes, "shape" has {ndim}'


def _chunk_shape(document: Mapping[str, Any]) -> list[int] | None:
    lengths = _stated_chunks(document["chunk_grid"])
    return lengths if _are_lengths(lengths) else None


def _stated_chunks(grid: Any) -> Any:
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    return configuration.get("chunk_shape") if isinstance(configuration, dict) else None


def _are_lengths(value: Any) -> bool:
    return isinstance(value, list) and all(type(length) is int and length > 0 for length in value)


def _dimension_names(names: Any, ndim: int) -> Iterator[str]:
    if names is None:
        return
    if not isinstance(names, list) or not all(name is None or isinstance(name, str) for name in names):
        yield f'"dimension_names" is {_short(names)}, and a list of texts is expected'
    elif len(names) != ndim:
        yield f'"dimension_names" has {len(names)} names, "shape" has {ndim} axes'


# Codecs -------------------------------------------------------------------------------------------------------------


def codec_reasons(codecs: Any, ndim: int, needs_endian: bool, chunk_shape: list[int] | None) -> Iterator[str]:
    """Yield every reason for which zarr 3 refuses a ``codecs`` member."""
    if not isinstance(codecs, list) or not codecs:
        yield '"codecs" is no list of codecs' if not isinstance(codecs, list) else '"codecs" is empty'
        return
    makes_bytes = any(_kind(codec) == 1 for codec in codecs)
    stage = 0
    for codec in codecs:
        kind = _kind(codec)
        if kind is None:
            yield _unknown_codec(codec)
            return
        if kind < stage or (kind == stage == 1):
            yield f'"codecs" has {codec["name"]!r} in the wrong place'
        stage = max(stage, kind) if kind != 1 else 1
        if kind == 2 and not makes_bytes:
            break
        for reason in _codec(codec, ndim, needs_endian, chunk_shape):
            yield f'"codecs": {reason}'
    if not makes_bytes:
        yield '"codecs" has none that makes bytes of an array'


def _kind(codec: Any) -> int | None:
    """Return the stage at which a codec stands: 0, 1 or 2; None if zarr 3 does not know it."""
    name = codec.get("name") if isinstance(codec, dict) else None
    if isinstance(name, str):
        for kind, names in enumerate((_ARRAY_TO_ARRAY, _ARRAY_TO_BYTES, _BYTES_TO_BYTES)):
            if name in names:
                return kind
    return None


def _unknown_codec(codec: Any) -> str:
    if isinstance(codec, dict) and isinstance(codec.get("name"), str):
        return f'"codecs" holds {codec["name"]!r}, which zarr 3 does not know'
    return f'"codecs" holds {_short(codec)}, and an object with a "name" is expected'


def _codec(codec: dict[str, Any], ndim: int, needs_endian: bool, chunk_shape: list[int] | None) -> Iterator[str]:
    name = codec["name"]
    configuration = codec.get("configuration", {})
    if not isinstance(configuration, dict):
        yield f"the configuration of {name!r} is no object"
        return
    if name in _CONFIGURED and "configuration" not in codec:
        yield f'{name!r} has no "configuration"'
        return
    if name == "bytes" and needs_endian and configuration.get("endian") is None:
        yield "bytes has no endian, which items of several bytes need"
    for reason in _configuration(name, configuration, ndim, needs_endian, chunk_shape):
        yield f"{name} {reason}"


def _configuration(
    name: str, configuration: dict[str, Any], ndim: int, needs_endian: bool, chunk_shape: list[int] | None
) -> Iterator[str]:
    if name == "transpose":
        order = configuration.get("order")
        axes = list(range(ndim))
        if not isinstance(order, list) or any(type(axis) is not int for axis in order) or sorted(order) != axes:
            yield f"has the order {order!r}, which is no permutation of the {ndim} axes"
    elif name == "sharding_indexed":
        yield from _sharding(configuration, ndim, needs_endian, chunk_shape)
    elif name in _RULES:
        yield from _members(configuration, _RULES[name])


def _members(configuration: dict[str, Any], rules: Mapping[str, _Rule]) -> Iterator[str]:
    for member, (valid_value, expected) in rules.items():
        if member in configuration and not valid_value(configuration[member]):
            yield f"has {member} {configuration[member]!r}, and {expected} is expected"
    for member in sorted(configuration.keys() - rules.keys()):
        yield f"has the unknown member {member!r}"


def _sharding(
    configuration: dict[str, Any], ndim: int, needs_endian: bool, chunk_shape: list[int] | None
) -> Iterator[str]:
    inner = configuration.get("chunk_shape")
    yield from _inner_chunks(inner, ndim, chunk_shape)
    if configuration.get("index_location", "end") not in ("start", "end"):
        yield f"has index_location {configuration['index_location']!r}, and 'start' or 'end' is expected"
    for member in ("codecs", "index_codecs"):
        if member in configuration:
            lengths = inner if isinstance(inner, list) else None
            axes = ndim + 1 if member == "index_codecs" else ndim
            for reason in codec_reasons(configuration[member], axes, needs_endian or member == "index_codecs", lengths):
                yield f"in its {member}: {reason}"
        else:
            yield f"lacks {member!r}"


def _inner_chunks(lengths: Any, ndim: int, shard_shape: list[int] | None) -> Iterator[str]:
    if not _are_lengths(lengths):
        yield f"has the chunk shape {lengths!r}, and a list of positive numbers is expected"
    elif len(lengths) != ndim:
        yield f"has a chunk shape of {len(lengths)} axes, and the array has {ndim}"
    elif shard_shape is not None and any(outer % own for outer, own in zip(shard_shape, lengths, strict=False)):
        yield f"has the chunk shape {lengths!r}, which does not divide the shard {shard_shape!r}"


# Whether a value is valid, and what is expected of one.
_Rule = tuple[Callable[[Any], bool], str]


def _is_int(low: int, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_BLOSC_NAMES = ("lz4", "lz4hc", "blosclz", "snappy", "zlib", "zstd")
_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
_RULES: dict[str, dict[str, _Rule]] = {
    "bytes": {"endian": (lambda value: value in ("little", "big", None), "'little' or 'big'")},
    "gzip": {"level": (_is_int(0, 9), "a whole number from 0 to 9")},
    "zstd": {
        "level": (_is_int(-(1 << 17), 22), "a whole number up to 22"),
        "checksum": (lambda value: isinstance(value, bool), "true or false"),
    },
    "blosc": {
        "typesize": (_is_int(1, math.inf), "a positive whole number"),
        "cname": (lambda value: value in _BLOSC_NAMES, "the name of a compressor"),
        "clevel": (_is_int(0, 9), "a whole number from 0 to 9"),
        "shuffle": (lambda value: value in _SHUFFLES, "'noshuffle', 'shuffle' or 'bitshuffle'"),
        "blocksize": (_is_int(0, math.inf), "a whole number"),
    },
    "vlen-utf8": {},
    "vlen-bytes": {},
}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
