"""What a version 3 document must hold: every rule that zarr 3 enforces when it opens a node, as one list of reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zarrstore.errors import MetadataError
from zarrstore.metadata import documents, v3types
from zarrstore.metadata.chunkkeys import chunk_keys_of_v3

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
    needs_endian = dtype is not None and v3types.needs_endian(dtype) and dtype.names is None
    yield from codec_reasons(document["codecs"], len(shape), needs_endian, _chunk_shape(document))


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
    configuration = grid.get("configuration")
    lengths = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
    if not isinstance(lengths, list) or not all(type(length) is int and length > 0 for length in lengths):
        yield f'"chunk_grid" has the chunk shape {lengths!r}, and a list of positive numbers is expected'
    elif len(lengths) != ndim:
        yield f'"chunk_grid" has {len(lengths)} axes, "shape" has {ndim}'


def _chunk_shape(document: Mapping[str, Any]) -> list[int] | None:
    grid = document["chunk_grid"]
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    lengths = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
    valid = isinstance(lengths, list) and all(type(length) is int and length > 0 for length in lengths)
    return lengths if valid else None


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
    stage = 0
    for codec in codecs:
        if not isinstance(codec, dict) or not isinstance(codec.get("name"), str):
            yield f'"codecs" holds {_short(codec)}, and an object with a "name" is expected'
            return
        name = codec["name"]
        kind = _kind(name)
        if kind is None:
            yield f'"codecs" holds {name!r}, which zarr 3 does not know'
            return
        if kind < stage or (kind == stage == 1):
            yield f'"codecs" has {name!r} in the wrong place'
        stage = max(stage, kind) if kind != 1 else 1
        if kind == 2 and not any(_kind(_name(other)) == 1 for other in codecs):
            break
        configuration = codec.get("configuration", {})
        if not isinstance(configuration, dict):
            yield f'"codecs": the configuration of {name!r} is no object'
            continue
        if name in _CONFIGURED and "configuration" not in codec:
            yield f'"codecs": {name!r} has no "configuration"'
            continue
        if name == "bytes" and needs_endian and configuration.get("endian") is None:
            yield '"codecs": bytes has no endian, which items of several bytes need'
        for reason in _configuration(name, configuration, ndim, needs_endian, chunk_shape):
            yield f'"codecs": {name} {reason}'
    if sum(_kind(_name(codec)) == 1 for codec in codecs) == 0:
        yield '"codecs" has none that makes bytes of an array'


def _name(codec: Any) -> str:
    return str(codec.get("name")) if isinstance(codec, dict) else ""


def _kind(name: str) -> int | None:
    for kind, names in enumerate((_ARRAY_TO_ARRAY, _ARRAY_TO_BYTES, _BYTES_TO_BYTES)):
        if name in names:
            return kind
    return None


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
    else:
        for member, (valid_value, required, expected) in _RULES.get(name, {}).items():
            if member not in configuration:
                if required:
                    yield f"lacks {member!r}"
            elif not valid_value(configuration[member]):
                yield f"has {member} {configuration[member]!r}, and {expected} is expected"
        known = _RULES.get(name)
        if known is not None:
            for member in sorted(configuration.keys() - known.keys()):
                yield f"has the unknown member {member!r}"


def _sharding(
    configuration: dict[str, Any], ndim: int, needs_endian: bool, chunk_shape: list[int] | None
) -> Iterator[str]:
    inner = configuration.get("chunk_shape")
    if not isinstance(inner, list) or not all(type(length) is int and length > 0 for length in inner):
        yield f"has the chunk shape {inner!r}, and a list of positive numbers is expected"
    elif len(inner) != ndim:
        yield f"has a chunk shape of {len(inner)} axes, and the array has {ndim}"
    elif chunk_shape is not None and any(outer % own for outer, own in zip(chunk_shape, inner, strict=False)):
        yield f"has the chunk shape {inner!r}, which does not divide the shard {chunk_shape!r}"
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


_Rule = tuple[Callable[[Any], bool], bool, str]


def _is_int(low: int, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_BLOSC_NAMES = ("lz4", "lz4hc", "blosclz", "snappy", "zlib", "zstd")
_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
_RULES: dict[str, dict[str, _Rule]] = {
    "bytes": {"endian": (lambda value: value in ("little", "big", None), False, "'little' or 'big'")},
    "gzip": {"level": (_is_int(0, 9), False, "a whole number from 0 to 9")},
    "zstd": {
        "level": (_is_int(-(1 << 17), 22), False, "a whole number up to 22"),
        "checksum": (lambda value: isinstance(value, bool), False, "true or false"),
    },
    "blosc": {
        "typesize": (_is_int(1, math.inf), False, "a positive whole number"),
        "cname": (lambda value: value in _BLOSC_NAMES, False, "the name of a compressor"),
        "clevel": (_is_int(0, 9), False, "a whole number from 0 to 9"),
        "shuffle": (lambda value: value in _SHUFFLES, False, "'noshuffle', 'shuffle' or 'bitshuffle'"),
        "blocksize": (_is_int(0, math.inf), False, "a whole number"),
    },
    "vlen-utf8": {},
    "vlen-bytes": {},
}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
