"""One chunk through the compressor and the filters of its array: decoded and encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zarrstore.metadata import bounded, chunking, dtypes
from zarrstore.metadata.objects import DECODERS, decode_objects
from zarrstore.metadata.v2 import ArrayMeta
from zarrstore.values import as_bytes

if TYPE_CHECKING:
    import numpy as np

__all__ = ["decode_chunk", "encode_chunk"]

# Codecs that run what a chunk tells them to run.
_RUNS_CODE = frozenset({"pickle"})
_VLEN = frozenset({"vlen-utf8", "vlen-bytes", "vlen-array"})
# Members of a filter's configuration that name a dtype, by which a chunk could be blown up.
_DTYPE_MEMBERS = ("dtype", "astype", "encode_dtype", "decode_dtype")
# No filter makes an item wider than complex256.
_WIDEST = 32
_OBJECT_LIMIT = 2 << 30


def decode_chunk(
    data: bytes, meta: ArrayMeta, *, max_nbytes: int | None = None, strict: bool = False, pickles: bool = False
) -> np.ndarray[Any, Any]:
    """Return the items of one chunk, shaped as ``meta.chunks``; whatever is wrong with it is one ValueError.

    Parameters
    ----------
    data : bytes-like
        The chunk's value.
    meta : v2.ArrayMeta
        The array's description.
    max_nbytes : int or None, bytes
        Refuse a chunk that needs more than this when decoded.
    strict : bool, default False
        Refuse also what Zarr reads without a complaint and no writer writes: bytes behind the end of a compressed
        stream, and text with numbers that are no code points.
    pickles : bool, default False
        Read ``pickle`` too, as far as `pickles.load_array` does, which runs nothing.

    Returns
    -------
    numpy.ndarray
        Always a whole chunk, at the edge of the array too, as zarr 2 stores it. May be read-only.

    Raises
    ------
    ValueError
        No codec decodes it, the size is wrong, or it needs more than `max_nbytes`. ``pickle`` is not undone unless
        `pickles` is True, because for others such a chunk can run any program.

    Notes
    -----
    Memory: no step may give more than the chunk's own size, or 32 times that where there are filters; see `bounded` for
    which codecs are held to it before and which after. Source: zarr 2.18.7; deviation: lzma chunks written with filters
    in a container are read, which numcodecs cannot.

    Examples
    --------
    >>> import numpy as np
    >>> from zarrstore.metadata.v2 import build_array
    >>> meta = build_array(shape=(2, 3), chunks=(2, 2), dtype="i2", compressor={"id": "zlib", "level": 1}, order="F")
    >>> decode_chunk(encode_chunk(np.array([[1, 2], [3, 4]]), meta), meta)
    array([[1, 2],
           [3, 4]], dtype=int16)
    """
    dtype = meta.numpy_dtype
    nitems = chunking.chunk_nitems(meta.chunks)
    expected = nitems * dtype.itemsize
    if max_nbytes is not None and expected > max_nbytes:
        raise ValueError(f"a chunk of {meta.chunks} {dtype} has {expected:,} bytes, and {max_nbytes:,} are allowed")
    steps = [*(meta.filters or ()), *([meta.compressor] if meta.compressor else ())]
    _check_steps(steps, max(_WIDEST, dtype.itemsize), pickles)
    limit = expected if not meta.filters else max(_WIDEST * nitems, expected) * 2 + 4096
    if dtype.hasobject:
        limit = _OBJECT_LIMIT if max_nbytes is None else max_nbytes
    decoded = _through_steps(data, steps, meta, limit, strict)
    try:
        items = _flat_items(decoded, dtype, nitems)
        if strict:
            _check_text(items)
        return items.reshape(meta.chunks, order="F" if meta.order == "F" else "C")
    except TypeError as exc:
        raise ValueError(f"it is no chunk of {dtype}: {exc}") from None


def _through_steps(data: bytes, steps: list[dict[str, Any]], meta: ArrayMeta, limit: int, strict: bool) -> Any:
    """Return what the codecs of an array decode, the last of them first; none may give more than `limit` bytes."""
    decoded: Any = data
    for step in reversed(steps):
        if step["id"] in _VLEN:
            _check_vlen(step["id"], decoded, chunking.chunk_nitems(meta.chunks))
        try:
            if step is steps[0] and step["id"] in DECODERS:
                decoded = decode_objects(step, decoded, meta.numpy_dtype, meta.chunks)
            else:
                decoded = bounded.decode_step(step, decoded, limit, strict)
        except Exception as exc:  # Codecs raise what they like: RuntimeError, zlib.error, OSError, TypeError ...
            raise ValueError(f"{step['id']} cannot decode it: {exc}") from exc
    return decoded


def _flat_items(decoded: Any, dtype: np.dtype[Any], nitems: int) -> np.ndarray[Any, Any]:
    """Return what the last codec gave as so many items, in memory order, whatever shape the codec gave it."""
    import numpy as np

    items = np.asarray(decoded) if hasattr(decoded, "dtype") else np.frombuffer(decoded, dtype="u1")
    items = items.reshape(-1, order="A")
    if dtype.kind == "O" and items.dtype.kind != "O":
        raise ValueError(f"it holds {items.dtype}, no objects: the object codec is missing")
    if dtype.kind != "O" and items.dtype != dtype:
        items = _reinterpreted(items, dtype, nitems * dtype.itemsize)
    if items.size != nitems:
        raise ValueError(f"it has {items.size:,} items, and {nitems:,} are expected")
    return items


def _reinterpreted(items: np.ndarray[Any, Any], dtype: np.dtype[Any], expected: int) -> np.ndarray[Any, Any]:
    if items.dtype.kind == "O":
        raise ValueError(f"it holds objects, and {dtype} is expected")
    if items.nbytes != expected:
        raise ValueError(f"it has {items.nbytes:,} bytes, and {expected:,} are expected")
    return items.view("u1").view(dtype)


def _check_text(items: np.ndarray[Any, Any]) -> None:
    if items.dtype.names is not None:
        for name in items.dtype.names:
            _check_text(items[name])
    elif items.dtype.kind == "U" and items.size and items.dtype.itemsize:
        code_points = items.copy().view(items.dtype.byteorder.replace("|", "=") + "u4")
        highest = int(code_points.max())
        if highest > 0x10FFFF:
            raise ValueError(f"it holds the number {highest:#x} in a text, and code points end at 0x10ffff")


def _check_steps(steps: list[dict[str, Any]], widest: int, pickles: bool) -> None:
    for step in steps:
        if step["id"] in _RUNS_CODE and not (pickles and step is steps[0]):
            raise ValueError(f"{step['id']} is not decoded: such a chunk can run any program")
        for member in _DTYPE_MEMBERS:
            if member in step and dtypes.decode_dtype(step[member]).itemsize > widest:
                raise ValueError(f'{step["id"]} has "{member}" {step[member]!r}, wider than {widest} bytes')


def _check_vlen(name: str, data: Any, nitems: int) -> None:
    # numcodecs allocates what the header says before it looks at the rest.
    header_nitems = int.from_bytes(bytes(memoryview(data).cast("B")[:4]), "little")
    if header_nitems != nitems:
        raise ValueError(f"{name} says {header_nitems:,} items, and {nitems:,} are expected")


def _has_dates(dtype: np.dtype[Any]) -> bool:
    return dtype.names is not None and any(
        dtype[name].base.kind in "mM" or _has_dates(dtype[name].base) for name in dtype.names
    )


def encode_chunk(items: Any, meta: ArrayMeta) -> bytes:
    """Return the value of one chunk: the inverse of `decode_chunk`.

    Parameters
    ----------
    items : array-like
        A whole chunk, shaped as ``meta.chunks``.
    meta : v2.ArrayMeta
        The array's description.

    Raises
    ------
    ValueError
        `items` has another shape.
    """
    import numcodecs
    import numpy as np

    chunk = np.asarray(items, dtype=meta.numpy_dtype, order="F" if meta.order == "F" else "C")
    if chunk.shape != meta.chunks:
        raise ValueError(f"a chunk of shape {chunk.shape} was given, and {meta.chunks} is expected")
    # numcodecs reads a buffer, and NumPy gives none for structures that hold dates.
    encoded: Any = chunk.view(f"V{chunk.dtype.itemsize}") if _has_dates(chunk.dtype) else chunk
    for step in [*(meta.filters or ()), *([meta.compressor] if meta.compressor else ())]:
        encoded = numcodecs.get_codec(dict(step)).encode(encoded)
    return as_bytes(encoded)
