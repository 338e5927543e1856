"""Version 1 documents, and what they mean in version 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zarrstore.errors import MetadataError
from zarrstore.metadata import documents, dtypes, v2

if TYPE_CHECKING:
    import numpy as np

__all__ = ["array_to_v2", "attrs_to_v2"]

_MEMBERS = ("zarr_format", "shape", "chunks", "dtype", "compression", "compression_opts", "fill_value", "order")


def array_to_v2(data: bytes, key: str = documents.META) -> tuple[v2.ArrayMeta, list[str]]:
    """Return the version 2 description under which the chunks of a version 1 array, untouched, decode right.

    Parameters
    ----------
    data : bytes
        The version 1 document ``meta``. May hold bare ``NaN`` and ``Infinity``.
    key : str
        Its full key, for the error.

    Returns
    -------
    meta : v2.ArrayMeta
        `v2.encode_array` gives the ``.zarray``.
    notes : list of str
        What differs from a plain transcription and why, and what no codec of today decodes; empty as a rule.

    Raises
    ------
    MetadataError
        It is no version 1 array.

    Notes
    -----
    Source: the values that zarr 1.1.0 itself reads. Right where zarr 2's own ``migrate_1to2`` is not: order F with any
    codec but blosc, fill values of bytes, datetime and structured dtypes, lzma with filters.

    Examples
    --------
    >>> meta, notes = array_to_v2(
    ...     b'{"zarr_format": 1, "shape": [6, 6], "chunks": [3, 3], "dtype": "|S6", "order": "F",'
    ...     b' "compression": "zlib", "compression_opts": 1, "fill_value": "abcd"}'
    ... )
    >>> meta.compressor, meta.order, meta.fill_value
    ({'id': 'zlib', 'level': 1}, 'C', 'YWJjZA==')
    >>> notes
    ['order F became C: version 1 wrote C-ordered bytes with zlib, whatever the document states']
    """
    document = documents.loads(data, key)
    for member in _MEMBERS:
        if member not in document:
            raise MetadataError(key, member, "is missing")
    if document["zarr_format"] != 1 or isinstance(document["zarr_format"], bool):
        raise MetadataError(key, "zarr_format", f"is {document['zarr_format']!r}, and 1 is expected")
    notes: list[str] = []
    compressor = _compressor(document["compression"], document["compression_opts"], key, notes)
    order = document["order"]
    if order == "F" and (compressor is None or compressor["id"] != "blosc"):
        codec = compressor["id"] if compressor else "no compression"
        notes.append(f"order F became C: version 1 wrote C-ordered bytes with {codec}, whatever the document states")
        order = "C"
    if _holds_objects(document["dtype"]):
        raise MetadataError(key, "dtype", "holds objects, which version 1 cannot store")
    draft = {
        "zarr_format": 2,
        "shape": document["shape"],
        "chunks": document["chunks"],
        "dtype": document["dtype"],
        "compressor": compressor,
        "fill_value": None,
        "order": order,
        "filters": None,
    }
    # Judged before the fill value is looked at, which needs the dtype.
    dtype = v2.check_array(draft, key).numpy_dtype
    draft["fill_value"] = _fill(document["fill_value"], dtype, key, notes)
    return v2.check_array(draft, key), notes


def _holds_objects(described: Any) -> bool:
    try:
        return dtypes.decode_dtype(described).hasobject
    except ValueError:
        return False  # judged with the other members


def _fill(raw_fill: Any, dtype: np.dtype[Any], key: str, notes: list[str]) -> Any:
    """Say in version 2 what NumPy makes of a raw fill value when it fills an array with it, as version 1 did.

    So 0 is ``b"0"`` for bytes, in a field of a structure too, and text is itself and no base64.
    """
    import numpy as np

    if raw_fill is None:
        return None
    value = np.zeros((), dtype=dtype)
    try:
        if dtype.kind in "iu" and not isinstance(raw_fill, str):
            bits = 8 * dtype.itemsize
            whole = int(raw_fill)
            low = -(1 << bits - 1) if dtype.kind == "i" else 0
            wrapped = (whole - low) % (1 << bits) + low
            if wrapped != whole:
                # NumPy 2 would refuse it.
                notes.append(f"fill_value {whole} became {wrapped}: that is what an item of {dtype} holds")
            raw_fill = wrapped
        value[...] = tuple(raw_fill) if isinstance(raw_fill, list) else raw_fill
    except Exception as exc:  # NumPy: TypeError, ValueError, OverflowError, UnicodeEncodeError ...
        raise MetadataError(key, "fill_value", f"is {raw_fill!r}, which is no value of dtype {dtype} ({exc})") from None
    return dtypes.encode_fill(value[()], dtype)


def _compressor(name: Any, opts: Any, key: str, notes: list[str]) -> dict[str, Any] | None:
    if name is None or name == "none":
        return None
    translate = _COMPRESSORS.get(name) if isinstance(name, str) else None
    if translate is None:
        known = ", ".join(sorted(_COMPRESSORS))
        raise MetadataError(key, "compression", f"is {name!r}; version 1 knows {known} and none")
    try:
        return translate(opts, notes)
    except (TypeError, ValueError) as exc:
        raise MetadataError(key, "compression_opts", f"is {opts!r}, which {name} does not take ({exc})") from None


def _blosc(opts: Any, notes: list[str]) -> dict[str, Any]:
    options = _options(opts, {"cname", "clevel", "shuffle"})
    cname = options.get("cname", "blosclz")
    if not isinstance(cname, str):
        raise ValueError("cname is no text")
    if cname == "zstd":
        notes.append("blosc cannot decode the chunks: version 1 wrote zstd frames of 2016 (0.7), which zstd 1 gave up")
    if cname == "snappy":
        notes.append("blosc cannot decode the chunks: numcodecs builds it without snappy")
    return {
        "id": "blosc",
        "cname": cname,
        "clevel": _whole(options.get("clevel", 5)),
        "shuffle": _whole(options.get("shuffle", 1)),
        "blocksize": 0,
    }


def _leveled(codec: str) -> Callable[[Any, list[str]], dict[str, Any]]:
    def translate(opts: Any, notes: list[str]) -> dict[str, Any]:
        return {"id": codec, "level": 1 if opts is None else _whole(opts)}

    return translate


_LZMA_RAW = 3


def _lzma(opts: Any, notes: list[str]) -> dict[str, Any]:
    options = _options(opts, {"format", "check", "preset", "filters"})
    format_ = _whole(options.get("format", 1))
    filters = options.get("filters")
    if filters is not None and format_ != _LZMA_RAW:
        # Python takes filters for reading with FORMAT_RAW only; the other formats say theirs in each chunk.
        notes.append(
            "lzma filters were left out: each chunk states its own, and Python refuses them as an argument for reading"
        )
        filters = None
    preset = options.get("preset")
    return {
        "id": "lzma",
        "format": format_,
        "check": _whole(options.get("check", -1)),
        "preset": None if preset is None else _whole(preset),
        "filters": filters,
    }


def _options(opts: Any, known: set[str]) -> dict[str, Any]:
    if opts is None:
        return {}
    if not isinstance(opts, dict) or not opts.keys() <= known:
        raise ValueError(f"an object of {', '.join(sorted(known))} is expected")
    return opts


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no int")
    return value


_COMPRESSORS: dict[str, Callable[[Any, list[str]], dict[str, Any]]] = {
    "blosc": _blosc,
    "bz2": _leveled("bz2"),
    "lzma": _lzma,
    "zlib": _leveled("zlib"),
}


def attrs_to_v2(data: bytes | None, key: str = documents.ATTRS) -> bytes:
    """Return the bytes of ``.zattrs``: those of a version 1 ``attrs``, once they proved to be an object.

    Parameters
    ----------
    data : bytes or None
        The document; None, where it is missing, gives an empty object.
    key : str
        Its full key, for the error.

    Raises
    ------
    MetadataError
        It is no JSON object.

    Examples
    --------
    >>> attrs_to_v2(b'{"units": "K"}'), attrs_to_v2(None)
    (b'{"units": "K"}', b'{}')
    """
    if data is None:
        return documents.dumps({})
    documents.loads(data, key)
    return data
