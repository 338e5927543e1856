"""Codec chains of version 3, to and from the filters and the compressor of version 2, for the same encoded bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zarrstore.metadata import dtypes, v3types
from zarrstore.metadata.v3types import NotRepresentable

if TYPE_CHECKING:
    import numpy as np

    from zarrstore.metadata.v2 import ArrayMeta

__all__ = ["Chain", "chain_of", "chain_to_v3"]

# Filters of numcodecs that map an array to an array, and the member that names the dtype of the result.
_ARRAY_FILTERS = {
    "astype": "encode_dtype",
    "bitround": None,
    "delta": "astype",
    "fixedscaleoffset": "astype",
    "packbits": None,
    "quantize": "astype",
}
# And the member that names the dtype of the input.
_TAKES = {"astype": "decode_dtype", "delta": "dtype", "fixedscaleoffset": "dtype", "quantize": "dtype"}
# Codecs of numcodecs that map an array to bytes, in the place of the ``bytes`` codec.
_ARRAY_TO_BYTES = frozenset({"pcodec", "zfpy"})
# Codecs of numcodecs that map bytes to bytes and are registered in zarr 3 under numcodecs.<name>.
_CHECKSUMS = frozenset({"adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"})
_BYTES_CODECS = _CHECKSUMS | {"bz2", "lz4", "lzma", "shuffle", "zlib"}
_FILTERS_ONLY = _CHECKSUMS | {"shuffle"}
_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
_CNAMES = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
_PREFIX = "numcodecs."
# What makes bytes of an array in version 3.
_SERIALIZERS = frozenset({"bytes", *v3types.STRINGS, *(_PREFIX + name for name in _ARRAY_TO_BYTES)})

# The name and the configuration of a codec of version 3.
_Codec = tuple[str, dict[str, Any]]


def chain_to_v3(meta: ArrayMeta) -> list[dict[str, Any]]:
    """Return the ``codecs`` member for a version 2 array.

    Raises
    ------
    NotRepresentable
        zarr 3 has no such codec, or not in that place.

    Examples
    --------
    >>> from zarrstore.metadata.v2 import build_array
    >>> meta = build_array(shape=(4, 4), dtype=">i2", order="F", compressor={"id": "gzip", "level": 1})
    >>> [codec["name"] for codec in chain_to_v3(meta)]
    ['transpose', 'bytes', 'gzip']
    """
    dtype = meta.numpy_dtype
    steps = list(meta.filters or ())
    chain: list[dict[str, Any]] = []
    if meta.order == "F" and meta.shape:
        # First of all: version 2 hands the filters a chunk in memory order.
        chain.append(_named("transpose", order=list(range(len(meta.shape)))[::-1]))
    if dtype.kind == "O":
        # data_type_of has refused all but these.
        chain.append(_named(steps.pop(0)["id"]))
    else:
        while steps and steps[0]["id"] in _ARRAY_FILTERS:
            step = steps.pop(0)
            chain.append(_numcodecs(step))
            dtype = _after(step, dtype)
        chain.append(_array_to_bytes(meta, steps, dtype))
    for step in steps:
        if step["id"] in _ARRAY_FILTERS:
            raise NotRepresentable(f"filter {step['id']!r} after one that gives bytes: in version 3 it works on arrays")
        chain.append(_bytes_codec(step, dtype))
        dtype = dtypes.decode_dtype("|u1")
    if meta.compressor is not None and meta.compressor["id"] not in _ARRAY_TO_BYTES:
        chain.append(_bytes_codec(meta.compressor, dtype))
    return chain


def _array_to_bytes(meta: ArrayMeta, steps: list[dict[str, Any]], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the codec that makes bytes of an array: ``bytes``, or one of numcodecs, which is taken off `steps`."""
    step = steps[0] if steps else meta.compressor
    if steps and meta.compressor is not None and meta.compressor["id"] in _ARRAY_TO_BYTES:
        raise NotRepresentable(f"codec {meta.compressor['id']!r} after one that gives bytes: it works on arrays")
    if step is None or step["id"] not in _ARRAY_TO_BYTES:
        return _bytes(dtype)
    if dtype.byteorder == ">":
        raise NotRepresentable(f"codec {step['id']!r} of big-endian items: zarr 3 gives it little-endian ones")
    if steps:
        steps.pop(0)
    return _numcodecs(step)


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _numcodecs(step: dict[str, Any]) -> dict[str, Any]:
    return _named(_PREFIX + step["id"], **{name: value for name, value in step.items() if name != "id"})


def _bytes(dtype: np.dtype[Any]) -> dict[str, Any]:
    if not v3types.needs_endian(dtype):
        return {"name": "bytes"}
    return _named("bytes", endian="big" if dtype.str[0] == ">" else "little")


def _after(step: dict[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that a filter gives, having made sure that version 3 will think the same."""
    name = step["id"]
    if name == "packbits":
        if dtype.kind != "b":
            raise NotRepresentable(f"filter 'packbits' of {dtype}: it packs booleans")
        return dtypes.decode_dtype("|u1")
    input_dtype = _dtype_member(step, _TAKES.get(name)) or dtype
    output_dtype = _dtype_member(step, _ARRAY_FILTERS[name]) or input_dtype
    if input_dtype != dtype:
        raise NotRepresentable(
            f"filter {name!r} that takes {dtype} for {input_dtype}: version 3 does not reinterpret items"
        )
    if name == "quantize" and output_dtype != input_dtype:
        raise NotRepresentable(
            f"filter 'quantize' that gives {output_dtype} for {input_dtype}: zarr 3 overlooks the difference"
        )
    if name == "quantize" and output_dtype.byteorder == ">":
        raise NotRepresentable(
            "filter 'quantize' of big-endian items: zarr 3.1 and 3.4 read it in opposite byte orders"
        )
    return output_dtype


def _dtype_member(step: dict[str, Any], member: str | None) -> np.dtype[Any] | None:
    """Return the dtype that a member of a filter's configuration names, None if the member is absent."""
    if member is None or step.get(member) is None:
        return None
    try:
        return dtypes.decode_dtype(step[member])
    except ValueError as exc:
        raise NotRepresentable(f'filter {step["id"]!r}, whose "{member}" {exc}') from None


def _bytes_codec(step: dict[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    name = step["id"]
    if name == "blosc":
        return _blosc(step, dtype.itemsize)
    if name == "zstd":
        return _named("zstd", level=step.get("level", 0), checksum=bool(step.get("checksum", False)))
    if name == "gzip":
        level = step.get("level", 1)
        # -1 is zlib's own choice, which is 6; zarr 3 refuses it, and decoding does not depend on it.
        return _named("gzip", level=level if type(level) is int and 0 <= level <= 9 else 6)
    if name in _BYTES_CODECS:
        return _numcodecs(step)
    raise NotRepresentable(f"codec {name!r}: zarr 3 has none of that name that works on bytes")


def _blosc(step: dict[str, Any], itemsize: int) -> dict[str, Any]:
    shuffle = step.get("shuffle", 1)
    if shuffle == -1:
        # numcodecs' automatic choice.
        shuffle = 2 if itemsize == 1 else 1
    cname = step.get("cname", "lz4")
    if type(shuffle) is not int or shuffle not in (0, 1, 2) or cname not in _CNAMES:
        raise NotRepresentable(f"blosc with cname {cname!r} and shuffle {shuffle!r}")
    return _named(
        "blosc",
        # Blosc takes what is wider for single bytes.
        typesize=itemsize if 1 <= itemsize <= 255 else 1,
        cname=cname,
        clevel=step.get("clevel", 5),
        shuffle=_SHUFFLES[shuffle],
        blocksize=step.get("blocksize", 0),
    )


@dataclass(frozen=True)
class Chain:
    """What a version 3 codec chain is in version 2: `dtype` is None where the ``data_type`` alone decides."""

    order: str
    filters: list[dict[str, Any]]
    compressor: dict[str, Any] | None
    endian: str | None
    dtype: np.dtype[Any] | None


def chain_of(codecs: list[Any], ndim: int) -> Chain:
    """Return what a ``codecs`` member is in version 2.

    Raises
    ------
    NotRepresentable
        Version 2 has no such codec (sharding, another transposition ...).

    Examples
    --------
    >>> chain_of([{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "zstd"}], 1).compressor
    {'id': 'zstd', 'level': 0, 'checksum': False}
    """
    parts = map(_parts, codecs)
    axes, array_filters, serializer = _array_stage(parts, ndim)
    input_dtype = None
    if array_filters:
        input_dtype = _dtype_member(array_filters[0], _TAKES.get(array_filters[0]["id"]))
    endian, string_filters = _serializer_of(*serializer)
    bytes_filters = [_from_bytes_codec(name, configuration) for name, configuration in parts]
    # Of one axis alone nothing tells the orders apart: a transposition is taken for the F that it was written for.
    order = "F" if ndim == 1 and _parts(codecs[0])[0] == "transpose" else _order(axes)
    if array_filters:
        _give_byte_order(array_filters, endian)
    filters = [*array_filters, *string_filters, *bytes_filters]
    compressor = None
    if filters and filters[-1]["id"] not in _FILTERS_ONLY | set(_ARRAY_FILTERS) | set(v3types.STRINGS):
        compressor = filters.pop()
    return Chain(order, filters, compressor, endian, input_dtype)


def _array_stage(parts: Iterator[_Codec], ndim: int) -> tuple[list[int], list[dict[str, Any]], _Codec]:
    """Take the codecs up to the one that makes bytes: return the order of the axes, the filters, and that one."""
    axes = list(range(ndim))
    filters: list[dict[str, Any]] = []
    for name, configuration in parts:
        if name in _SERIALIZERS:
            return axes, filters, (name, configuration)
        if name == "transpose" and not filters:
            axes = [axes[axis] for axis in _permutation(configuration, ndim)]
        else:
            filters.append(_array_filter(name, configuration))
    raise NotRepresentable("a codec chain that never comes to bytes")


def _serializer_of(name: str, configuration: dict[str, Any]) -> tuple[str | None, list[dict[str, Any]]]:
    """Return the byte order that the codec which makes bytes names, and the filters that it is in version 2."""
    if name != "bytes":
        own = configuration if name not in v3types.STRINGS else {}
        return None, [{**own, "id": name.removeprefix(_PREFIX)}]
    endian = configuration.get("endian")
    if endian not in (None, "little", "big"):
        raise NotRepresentable(f"byte order {endian!r}")
    return endian, []


def _parts(codec: Any) -> _Codec:
    if isinstance(codec, str):
        return codec, {}
    if isinstance(codec, dict) and isinstance(codec.get("name"), str):
        configuration = codec.get("configuration") or {}
        if isinstance(configuration, dict):
            return codec["name"], configuration
    raise NotRepresentable(f"codec {codec!r}")


def _permutation(configuration: dict[str, Any], ndim: int) -> list[int]:
    order = configuration.get("order")
    axes = list(range(ndim))
    if order in ("C", "F"):
        return axes if order == "C" else axes[::-1]
    if isinstance(order, list) and all(type(axis) is int for axis in order) and sorted(order) == axes:
        return order
    raise NotRepresentable(f"transposition {order!r} of {ndim} axes")


def _order(axes: list[int]) -> str:
    """Return the order of version 2 that all transpositions together make."""
    if axes == sorted(axes):
        return "C"
    if axes == sorted(axes, reverse=True):
        return "F"
    raise NotRepresentable(f"transposition {axes!r}: version 2 knows orders C and F")


def _give_byte_order(filters: list[dict[str, Any]], endian: str | None) -> None:
    """Let the last array filter write in the byte order of the ``bytes`` codec, which follows it in version 3.

    Version 2 has no such codec: what the last filter gives is stored as it is.
    """
    orders = _byte_orders(filters)
    if ">" in orders:
        # As this package writes it for arrays of version 2: all of them, and the bytes too.
        if orders != {">"} or endian != "big":
            raise NotRepresentable("array filters that name another byte order than the bytes codec")
    elif endian == "big":
        _write_big_endian(filters[-1])


def _byte_orders(filters: list[dict[str, Any]]) -> set[str]:
    """Return the byte orders of all items of several bytes that array filters take and give, as NumPy writes them."""
    members = [(step, member) for step in filters for member in (_TAKES.get(step["id"]), _ARRAY_FILTERS[step["id"]])]
    named = (_dtype_member(step, member) for step, member in members)
    return {dtype.byteorder for dtype in named if dtype is not None and dtype.itemsize > 1}


def _write_big_endian(step: dict[str, Any]) -> None:
    member = _ARRAY_FILTERS[step["id"]]
    if member is None:
        raise NotRepresentable(f"filter {step['id']!r} before big-endian bytes")
    output = _dtype_member(step, member) or _dtype_member(step, _TAKES.get(step["id"]))
    if output is None:
        raise NotRepresentable(f"filter {step['id']!r} that names no dtype, before big-endian bytes")
    step[member] = dtypes.encode_dtype(output.newbyteorder(">"))


def _array_filter(name: str, configuration: dict[str, Any]) -> dict[str, Any]:
    short = name[len(_PREFIX) :]
    if name[: len(_PREFIX)] != _PREFIX or short not in _ARRAY_FILTERS:
        raise NotRepresentable(f"codec {name!r}: version 2 has none like it in that place")
    return {**configuration, "id": short}


def _from_bytes_codec(name: str, configuration: dict[str, Any]) -> dict[str, Any]:
    if name == "blosc":
        shuffle = configuration.get("shuffle", "shuffle")
        if shuffle not in _SHUFFLES:
            raise NotRepresentable(f"blosc with shuffle {shuffle!r}")
        return {
            "id": "blosc",
            "cname": configuration.get("cname", "lz4"),
            "clevel": configuration.get("clevel", 5),
            "shuffle": _SHUFFLES.index(shuffle),
            "blocksize": configuration.get("blocksize", 0),
        }
    if name == "zstd":
        return {"id": "zstd", "level": configuration.get("level", 0), "checksum": configuration.get("checksum", False)}
    if name == "gzip":
        return {"id": "gzip", "level": configuration.get("level", 1)}
    if name == "crc32c":
        # numcodecs writes the sum behind the data, as version 3 does, only with location "end".
        return {"id": "crc32c", "location": "end"}
    short = name[len(_PREFIX) :]
    if name[: len(_PREFIX)] == _PREFIX and short in _BYTES_CODECS | {"blosc", "zstd", "gzip"}:
        return {**configuration, "id": short}
    raise NotRepresentable(f"codec {name!r}: version 2 has none like it")
