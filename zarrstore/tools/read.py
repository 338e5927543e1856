"""A whole array out of its chunks: for checks and small rescues, where no Zarr is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.metadata import chunking, documents, v2
from zarrstore.metadata.chunk import decode_chunk
from zarrstore.spelling import chunk_keys_of
from zarrstore.targets import Target, opens
from zarrstore.tools.listing import value_or_none

if TYPE_CHECKING:
    import numpy as np

__all__ = ["read_array"]


@opens(store="r")
def read_array(store: Target, path: object = "", *, max_nbytes: int | None = 1 << 30) -> np.ndarray[Any, Any]:
    """Return all items of a version 2 array.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str
        Where the array is.
    max_nbytes : int or None, bytes, default 1 GiB
        Refuse a larger array; None sets no limit.

    Returns
    -------
    numpy.ndarray
        Of the array's shape and dtype. Items of chunks that were never written are the fill value, or zero if there
        is none.

    Raises
    ------
    KeyError
        No array is at `path`.
    MetadataError
        Its document is wrong.
    ValueError
        The array is larger than `max_nbytes`, or a chunk cannot be decoded; the error names the chunk.

    Notes
    -----
    Memory: the array and one chunk. Not a replacement for Zarr: no selections, no writing. Object arrays of pickles
    are refused. Source: the version 2 specification.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=3, chunks=2, dtype="<i2", compressor=None, fill_value=7, path="a")
    >>> store["a/1"] = b"\\x05\\x00\\x00\\x00"
    >>> read_array(store, "a")
    array([7, 7, 5], dtype=int16)
    """
    import numpy as np

    adapted = as_store(store)
    at = k.normalize_path(path)
    key = k.join(at, documents.ZARRAY)
    meta = v2.decode_array(adapted[key], key)
    size = chunking.chunk_nitems(meta.shape) * meta.numpy_dtype.itemsize
    if max_nbytes is not None and size > max_nbytes:
        raise ValueError(f"array {at!r} has {size:,} bytes, and {max_nbytes:,} are allowed; pass max_nbytes=None")
    fill = meta.numpy_fill
    # Objects that were never written are None, as in zarr 2; numbers are zero.
    new = np.empty if meta.numpy_dtype.kind == "O" else np.zeros
    out = new(meta.shape, dtype=meta.numpy_dtype, order="F" if meta.order == "F" else "C")
    if fill is not None:
        out[...] = fill
    rule = chunk_keys_of(adapted, at, meta)
    names = {rule.key(at, coords): coords for coords in chunking.chunk_grid(meta.shape, meta.chunks)}
    found = adapted.getitems(names)
    for chunk_key, coords in names.items():
        data = value_or_none(found, chunk_key)
        if data is None:
            continue
        try:
            chunk = decode_chunk(data, meta, max_nbytes=max_nbytes)
        except ValueError as exc:
            raise ValueError(f"chunk {chunk_key!r}: {exc}") from exc
        region = tuple(
            slice(i * n, min((i + 1) * n, size)) for i, n, size in zip(coords, meta.chunks, meta.shape, strict=True)
        )
        out[region] = chunk[tuple(slice(0, part.stop - part.start) for part in region)]
    return out
