"""Readers of version 3: which arrays they are known to refuse, and for which they give wrong values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zarrstore.errors import MetadataError
from zarrstore.metadata import dtypes

__all__ = ["READERS", "misreadings", "refusals"]


#: Readers that are looked at, with the releases that were tried.
READERS = {
    "zarr 3.1": "3.1.6",
    "zarr 3.4": "3.4",
    "TensorStore": "0.1.86",
    "zarrs": "0.2.3, as zarr's codec pipeline",
    "zarrita": "0.7.5",
    "GDAL": "3.12.2",
}

_NUMBERS = frozenset({"bool", "float32", "float64", *(f"{sign}int{8 << n}" for sign in ("", "u") for n in range(4))})
_MORE_NUMBERS = _NUMBERS | {"float16", "complex64", "complex128"}
_TYPES = {
    "TensorStore": _MORE_NUMBERS | {"raw_bytes"},
    "zarrs": _MORE_NUMBERS,
    "zarrita": _NUMBERS | {"string"},
    "GDAL": _MORE_NUMBERS,
}
#: The codecs that the specification itself describes.
_CODECS = frozenset({"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd"})
_MORE_CODECS = {
    "TensorStore": _CODECS,
    "zarrs": _CODECS | {f"numcodecs.{name}" for name in ("bz2", "fixedscaleoffset", "pcodec", "shuffle", "zlib")},
    "zarrita": _CODECS
    | {"vlen-utf8", *(f"numcodecs.{name}" for name in ("bitround", "delta", "lz4", "shuffle", "zlib"))},
    "GDAL": _CODECS - {"crc32c", "sharding_indexed"},
}


def refusals(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the readers of `READERS` that do not read an array of version 3, each with the reason.

    Parameters
    ----------
    document : mapping
        The ``zarr.json`` of an array.

    Notes
    -----
    Source: as `misreadings`; for GDAL, ``tests/metadata/test_gdal.py`` (3.10 and older read none of these arrays, and
    3.13's manual names shards). A reader that is not named may still refuse what no run has tried.

    Examples
    --------
    >>> document = {"data_type": "float16", "codecs": [{"name": "bytes"}, {"name": "numcodecs.lzma"}]}
    >>> refusals(document)["zarrita"], sorted(refusals(document))
    ("it has no data type 'float16'", ['GDAL', 'TensorStore', 'zarrita', 'zarrs'])
    """
    data_type = _name(document.get("data_type"))
    codecs = list(map(_name, _all_codecs(document.get("codecs"))))
    found: dict[str, str] = {}
    if data_type in ("structured", "struct") and "sharding_indexed" in codecs:
        found["zarr 3.1"] = "it reads no shards of structured items"
    for reader, types in _TYPES.items():
        unknown = next((name for name in codecs if name not in _MORE_CODECS[reader]), None)
        if data_type not in types:
            found[reader] = f"it has no data type {data_type!r}"
        elif unknown is not None:
            found[reader] = f"it has no codec {unknown!r}"
    if {"name": "numcodecs.zlib", "configuration": {"level": -1}} in _all_codecs(document.get("codecs")):
        found.setdefault("zarrs", "it takes no level -1 of 'numcodecs.zlib'")
    return found


def _name(member: Any) -> str:
    return str(member.get("name")) if isinstance(member, Mapping) else str(member)


def _all_codecs(codecs: Any) -> Iterator[Any]:
    """Yield codecs, and those within shards."""
    for codec in codecs if isinstance(codecs, list) else ():
        yield codec
        configuration = codec.get("configuration") if isinstance(codec, Mapping) else None
        if isinstance(configuration, Mapping):
            yield from _all_codecs(configuration.get("codecs"))
            yield from _all_codecs(configuration.get("index_codecs"))


def misreadings(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each way in which a known reader takes an array of version 3 for other values.

    Parameters
    ----------
    document : mapping
        The ``zarr.json`` of an array.

    Notes
    -----
    Found by a run over what zarr 2.18.7 writes (``tests/metadata/test_v3_matrix.py``). Readers that refuse an array
    are not named. Source: zarrita 0.7.5, which reads the same arrays of version 2 wrongly as well.

    Examples
    --------
    >>> delta = {"name": "numcodecs.delta", "configuration": {"dtype": "<i4", "astype": "<i2"}}
    >>> list(misreadings({"codecs": [delta]}))
    ["zarrita reads wrong values: it ignores 'astype' of filter 'delta'"]
    >>> list(misreadings({"codecs": [], "fill_value": 2**64 - 1}))
    ['zarrita reads fill value 18446744073709551615 as another number: JavaScript rounds those above 2**53']
    """
    for codec in document.get("codecs", ()):
        if isinstance(codec, Mapping) and codec.get("name") == "numcodecs.delta" and _changes_type(codec):
            yield "zarrita reads wrong values: it ignores 'astype' of filter 'delta'"
    fill = document.get("fill_value")
    if type(fill) is int and int(float(fill)) != fill:
        yield f"zarrita reads fill value {fill} as another number: JavaScript rounds those above 2**53"


def _changes_type(codec: Mapping[str, Any]) -> bool:
    configuration = codec.get("configuration") or {}
    try:
        items = dtypes.decode_dtype(configuration["dtype"])
        differences = dtypes.decode_dtype(configuration.get("astype") or configuration["dtype"])
    except (KeyError, TypeError, ValueError, MetadataError):
        return False
    # Whole numbers of one size wrap round in the same way, with a sign and without.
    whole = items.kind in "iu" and differences.kind in "iu"
    return items.itemsize != differences.itemsize or not (whole or items.kind == differences.kind)
