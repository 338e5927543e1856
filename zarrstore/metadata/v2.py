"""Version 2 documents: built as zarr 2.18.7 builds them, and read with every member judged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zarrstore.errors import MetadataError
from zarrstore.metadata import chunking, codecs, documents, dtypes

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "ArrayMeta",
    "build_array",
    "check_array",
    "check_group",
    "decode_array",
    "decode_attrs",
    "decode_group",
    "encode_array",
    "encode_attrs",
    "encode_group",
]

_MEMBERS = ("zarr_format", "shape", "chunks", "dtype", "compressor", "fill_value", "order", "filters")
_MAX_NDIM = 64  # NumPy's limit since 2.0


@dataclass(frozen=True)
class ArrayMeta:
    """What a ``.zarray`` says, every member judged. Values are the document's own (JSON), not NumPy's.

    Parameters
    ----------
    shape, chunks : tuple of int
        One length per axis; chunks are positive.
    dtype : str or list
        As in the document; `numpy_dtype` is the type that it means.
    compressor : dict or None
        Configuration with its ``id``.
    fill_value : object
        As in the document (``"NaN"``, base64, ...); `numpy_fill` is the scalar that it means.
    order : {'C', 'F'}
        Layout of the items within a chunk.
    filters : list of dict, or None
        Configurations, in the order of encoding.
    dimension_separator : {'.', '/'} or None
        None where the document does not say; `separator` is then ``"."``.
    extra : dict
        Members that the specification does not know; kept.

    Examples
    --------
    >>> meta = build_array(shape=(100, 100), chunks=(10, 30), dtype="i4")
    >>> meta.separator, meta.n_chunks, meta.chunk_nbytes, meta.numpy_dtype
    ('.', 40, 1200, dtype('int32'))
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str | list[Any]
    compressor: dict[str, Any] | None
    fill_value: Any
    order: str
    filters: list[dict[str, Any]] | None
    dimension_separator: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def separator(self) -> str:
        """What parts the numbers of a chunk's name."""
        return self.dimension_separator or "."

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the items. Imports NumPy."""
        return dtypes.decode_dtype(self.dtype)

    @property
    def numpy_fill(self) -> Any:
        """The fill value as a scalar of `numpy_dtype`, or None. Imports NumPy."""
        return dtypes.decode_fill(self.fill_value, self.numpy_dtype, self.filters[0] if self.filters else None)

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return chunking.grid_shape(self.shape, self.chunks)

    @property
    def n_chunks(self) -> int:
        """Number of chunks when all are written."""
        return chunking.n_chunks(self.shape, self.chunks)

    @property
    def chunk_nbytes(self) -> int:
        """Size of one decoded chunk in bytes. Imports NumPy."""
        return chunking.chunk_nitems(self.chunks) * self.numpy_dtype.itemsize

    def document(self) -> dict[str, Any]:
        """Return the members as a new dict, ready for `documents.dumps`."""
        members = {
            **self.extra,
            "zarr_format": 2,
            "shape": list(self.shape),
            "chunks": list(self.chunks),
            "dtype": self.dtype,
            "compressor": self.compressor,
            "fill_value": self.fill_value,
            "order": self.order,
            "filters": self.filters,
        }
        if self.dimension_separator:
            members["dimension_separator"] = self.dimension_separator
        return members


def build_array(
    shape: Any,
    chunks: Any = True,
    dtype: Any = None,
    compressor: Any = "default",
    fill_value: Any = None,
    order: str = "C",
    filters: Any = None,
    object_codec: Any = None,
    dimension_separator: str | None = None,
) -> ArrayMeta:
    """Return the description of a new array, every parameter judged: nothing is written, so nothing is half written.

    Parameters
    ----------
    shape : int or tuple of int
        Length of each axis.
    chunks : int or tuple of int, or bool, default True
        Length of a chunk along each axis. True guesses, False is one chunk, -1 or None leaves an axis whole.
    dtype : dtype-like, default float64
        ``str``, ``bytes`` and ``"array:<dtype>"`` stand for objects and pick their codec.
    compressor : codec or None, default Blosc(cname='lz4', clevel=5, shuffle=1)
        Any object with ``get_config()``, or its configuration. None for an array without axes.
    fill_value : object
        Value of what was never written; 0 is the dtype's zero, None leaves it undefined.
    order : {'C', 'F'}
        Layout within a chunk.
    filters : sequence of codec, optional
        Applied before the compressor.
    object_codec : codec, optional
        Encodes Python objects; becomes the first filter.
    dimension_separator : {'.', '/'}, optional
        What parts the numbers of a chunk's name; None leaves the member out, which means '.'.

    Returns
    -------
    ArrayMeta
        `encode_array` gives the bytes that zarr 2.18.7 writes for the same parameters.

    Raises
    ------
    ValueError, TypeError
        A parameter cannot be used; the text names it.

    Notes
    -----
    Source: zarr 2.2 ``init_array``; where 2.18.7 differs (``chunks=10`` for two axes, subarray dtypes, complex and
    datetime fill values), its correction is kept. Sizes that are not whole and positive are refused.

    Examples
    --------
    >>> build_array(shape=(10000, 10000), chunks=True, dtype="f8").chunks
    (313, 625)
    """
    found, picked = dtypes.normalize_dtype(dtype)
    # A subarray dtype such as '(2,3)i4' brings axes of its own.
    sizes = chunking.normalize_shape(shape) + found.shape
    base = found.base
    if len(sizes) > _MAX_NDIM:
        raise ValueError(f"shape has {len(sizes)} axes, and at most {_MAX_NDIM} are possible")
    lengths = chunking.normalize_chunks(chunks, sizes, base.itemsize)
    layout = str(order).upper()
    if layout not in ("C", "F"):
        raise ValueError(f"order {order!r}: 'C' or 'F' is expected")
    if dimension_separator not in (None, ".", "/"):
        raise ValueError(f"dimension_separator {dimension_separator!r}: '.', '/' or None is expected")
    fill = dtypes.normalize_fill(fill_value, base)
    object_codec = picked if object_codec is None else object_codec
    steps = _filters(base, filters, object_codec)
    # One value alone is not worth a header, and zarr writes none.
    compression = codecs.compressor_config(compressor) if sizes else None
    meta = ArrayMeta(
        shape=sizes,
        chunks=lengths,
        dtype=dtypes.encode_dtype(base),
        compressor=compression,
        fill_value=dtypes.encode_fill(fill, base, steps[0] if steps else None),
        order=layout,
        filters=steps,
        dimension_separator=dimension_separator,
    )
    try:
        encoded = encode_array(meta)
        return decode_array(encoded, documents.ZARRAY)
    except (TypeError, MetadataError) as exc:
        raise ValueError(f"these parameters give no document that can be read again: {exc}") from exc


def _filters(dtype: np.dtype[Any], filters: Any, object_codec: Any) -> list[dict[str, Any]] | None:
    if not dtype.hasobject:
        if object_codec is not None:
            warnings.warn("an object_codec is only needed for object arrays", UserWarning, stacklevel=3)
        return codecs.filters_config(filters)
    if object_codec is None:
        if not filters:
            raise ValueError(
                "an array of objects needs an object_codec: pass one, such as numcodecs.MsgPack(), or dtype=str"
            )
        warnings.warn(
            "an array of objects without object_codec: the first of `filters` is taken for it; pass it as object_codec",
            FutureWarning,
            stacklevel=3,
        )
    return codecs.filters_config(filters, object_codec)


def encode_array(meta: ArrayMeta) -> bytes:
    r"""Return the bytes of a ``.zarray``, as zarr 2.18.7 writes them.

    Examples
    --------
    >>> encode_array(build_array(shape=(), dtype="i1"))[:20]
    b'{\n    "chunks": [],\n'
    """
    return documents.dumps(meta.document())


def decode_array(data: bytes, key: str = documents.ZARRAY) -> ArrayMeta:
    """Read a ``.zarray``.

    Parameters
    ----------
    data : bytes
        The document.
    key : str
        Its full key, for the error.

    Raises
    ------
    MetadataError
        It is no version 2 array; the error names `key`, the member and the reason.

    Notes
    -----
    About 15 µs; the first call imports NumPy. Members that nobody knows are kept in `extra`. Stricter than zarr 2 in
    what can only be damage: sizes that are negative, boolean, fractional or beyond 64 bits, chunks of 0, ranks that
    differ.

    Examples
    --------
    >>> decode_array(encode_array(build_array(shape=10, chunks=5, dtype="u1"))).chunks
    (5,)
    >>> decode_array(b'{"zarr_format": 1}', "foo/.zarray")
    Traceback (most recent call last):
    zarrstore.errors.MetadataError: 'foo/.zarray' is not Zarr metadata: "zarr_format" is 1, and 2 is expected
    """
    return check_array(documents.loads(data, key), key)


def check_array(document: Mapping[str, Any], key: str = documents.ZARRAY) -> ArrayMeta:
    """Judge the members of a ``.zarray`` that is parsed already, such as one from ``.zmetadata``.

    Raises
    ------
    MetadataError
        As `decode_array`.
    """
    documents.refuse_constants(document, key)
    _check_format(document, key)
    for member in _MEMBERS:
        if member not in document:
            raise MetadataError(key, member, "is missing")
    shape, chunks = _grid(document, key)
    order = _order(document["order"], key)
    separator = document.get("dimension_separator")
    if separator not in (None, ".", "/"):
        raise MetadataError(key, "dimension_separator", f"is {_short(separator)}, and '.' or '/' is expected")
    compressor, filters = document["compressor"], document["filters"]
    _check_codecs(compressor, filters, key)
    dtype, fill_value = document["dtype"], document["fill_value"]
    found = _decoded_dtype(dtype, key)
    if found.kind == "O" and not filters:
        raise MetadataError(key, "filters", "name no codec that encodes the objects")
    _check_fill(fill_value, found, key)
    known = {*_MEMBERS, "dimension_separator"}
    extra = {member: value for member, value in document.items() if member not in known}
    return ArrayMeta(shape, chunks, dtype, compressor, fill_value, order, filters, separator, extra)


def _check_format(document: Mapping[str, Any], key: str) -> None:
    found = document.get("zarr_format")
    if "zarr_format" not in document:
        raise MetadataError(key, "zarr_format", "is missing")
    if found != 2 or isinstance(found, bool | float):
        raise MetadataError(key, "zarr_format", f"is {_short(found)}, and 2 is expected")


def _sizes(sizes: Any, key: str, member: str, smallest: int) -> tuple[int, ...]:
    if not isinstance(sizes, list):
        raise MetadataError(key, member, f"is {_short(sizes)}, and a list of int is expected")
    if len(sizes) > _MAX_NDIM:
        raise MetadataError(key, member, f"has {len(sizes)} entries, and at most {_MAX_NDIM} axes are possible")
    for size in sizes:
        # type(), not isinstance: True is an int.
        if type(size) is not int:
            raise MetadataError(key, member, f"holds {_short(size)}, and an int is expected")
        if not smallest <= size <= chunking.MAX_SIZE:
            raise MetadataError(key, member, f"holds {_short(size)}, and {smallest} to 2**63 - 1 is possible")
    return tuple(sizes)


def _grid(document: Mapping[str, Any], key: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape and the chunks, of as many axes."""
    shape = _sizes(document["shape"], key, "shape", 0)
    chunks = _sizes(document["chunks"], key, "chunks", 1)
    if not shape and all(length == 1 for length in chunks):
        chunks = ()  # zarr 2 reads the one item all the same
    if len(chunks) != len(shape):
        raise MetadataError(key, "chunks", f'has {_entries(chunks)}, "shape" has {len(shape)}')
    return shape, chunks


def _order(order: Any, key: str) -> str:
    if order in ("c", "f"):
        order = order.upper()  # NumPy, and so zarr 2, takes both
    if order not in ("C", "F"):
        raise MetadataError(key, "order", f"is {_short(order)}, and 'C' or 'F' is expected")
    return str(order)


def _decoded_dtype(dtype: Any, key: str) -> np.dtype[Any]:
    try:
        found = dtypes.decode_dtype(dtype)
    except ValueError as exc:
        raise MetadataError(key, "dtype", str(exc)) from None
    if found.kind in "mM" and not dtypes.has_unit(found):
        raise MetadataError(key, "dtype", f"is {_short(dtype)}, which has no unit")
    return found


def _check_fill(fill_value: Any, dtype: np.dtype[Any], key: str) -> None:
    # Fields that hold objects have their fill value in the object codec's encoding: known only to who has the codec.
    if fill_value is None or (dtype.hasobject and dtype.kind == "V"):
        return
    try:
        dtypes.decode_fill(fill_value, dtype)
    except ValueError as exc:
        raise MetadataError(key, "fill_value", str(exc)) from None


def _check_codecs(compressor: Any, filters: Any, key: str) -> None:
    if compressor is not None:
        _check_codec(compressor, key, "compressor")
    if filters is None:
        return
    if not isinstance(filters, list):
        raise MetadataError(key, "filters", f"is {_short(filters)}, and null or a list is expected")
    for step in filters:
        _check_codec(step, key, "filters")


def _check_codec(config: Any, key: str, member: str) -> None:
    if not isinstance(config, dict) or not isinstance(config.get("id"), str):
        raise MetadataError(key, member, f'holds {_short(config)}, and a codec has an "id"')


def _entries(sizes: tuple[int, ...]) -> str:
    return "1 entry" if len(sizes) == 1 else f"{len(sizes)} entries"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def encode_group() -> bytes:
    r"""Return the bytes of a ``.zgroup``.

    Examples
    --------
    >>> encode_group()
    b'{\n    "zarr_format": 2\n}'
    """
    return b'{\n    "zarr_format": 2\n}'


def decode_group(data: bytes, key: str = documents.ZGROUP) -> dict[str, Any]:
    """Read a ``.zgroup``; raise MetadataError if it is none.

    Examples
    --------
    >>> decode_group(encode_group())
    {'zarr_format': 2}
    """
    return check_group(documents.loads(data, key), key)


def check_group(document: Mapping[str, Any], key: str = documents.ZGROUP) -> dict[str, Any]:
    """Judge a ``.zgroup`` that is parsed already; raise MetadataError as `decode_group`."""
    documents.refuse_constants(document, key)
    _check_format(document, key)
    return dict(document)


def encode_attrs(attrs: Mapping[str, Any]) -> bytes:
    r"""Return the bytes of a ``.zattrs``.

    Examples
    --------
    >>> encode_attrs({"units": "K"})
    b'{\n    "units": "K"\n}'
    """
    return documents.dumps(dict(attrs))


def decode_attrs(data: bytes, key: str = documents.ZATTRS) -> dict[str, Any]:
    """Read a ``.zattrs``: any JSON object, bare ``NaN`` tokens included, since xarray's users write them.

    Examples
    --------
    >>> decode_attrs(b'{"valid_min": -Infinity}')
    {'valid_min': -inf}
    """
    return documents.loads(data, key)
