"""A whole array out of its chunks: for checks and small rescues, where no Zarr is at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.metadata import chunking, documents, v2
from zarrstore.metadata.chunk import decode_chunk
from zarrstore.spelling import chunk_keys_of
from zarrstore.targets import Target, opens
from zarrstore.tools.listing import value_or_none
from zarrstore.tools.nearby import absent

if TYPE_CHECKING:
    import numpy as np

__all__ = ["plane", "read_array", "read_region"]


@opens(store="r")
def read_array(store: Target, path: object = "", *, max_nbytes: int | None = 1 << 30) -> np.ndarray[Any, Any]:
    """Return all items of an array of version 2, or of version 3 where version 2 can describe it.

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
    adapted, meta = _opened_array(as_store(store), k.normalize_path(path))
    return _read(adapted, k.normalize_path(path), meta, [(0, n) for n in meta.shape], max_nbytes)


def read_region(
    store: Target, path: object, region: Sequence[tuple[int, int]], *, max_nbytes: int | None = 1 << 30
) -> np.ndarray[Any, Any]:
    """Return a box out of an array, reading no chunk outside it.

    Parameters
    ----------
    store : Mapping of str to bytes
        Any mapping.
    path : str
        Where the array is.
    region : sequence of (start, stop), one per axis
        Clipped at the ends of the array; axes that are not named are taken whole.
    max_nbytes : int or None, bytes, default 1 GiB
        Refuse a larger box, and a larger chunk.

    Raises
    ------
    KeyError, MetadataError, ValueError
        As `read_array`.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=(2, 4), chunks=2, dtype="|u1", compressor=None, fill_value=0, path="a")
    >>> store["a/0.1"] = bytes([1, 2, 3, 4])
    >>> read_region(store, "a", [(1, 2), (1, 9)]).tolist()
    [[0, 3, 4]]
    """
    at = k.normalize_path(path)
    adapted, meta = _opened_array(as_store(store), at)
    whole = [*region, *((0, n) for n in meta.shape[len(region) :])]
    clipped = [(min(start, n), min(stop, n)) for (start, stop), n in zip(whole, meta.shape, strict=False)]
    return _read(adapted, at, meta, clipped, max_nbytes)


def plane(
    store: Target, path: object, at: Sequence[int] = (), *, max_nbytes: int | None = 1 << 30
) -> np.ndarray[Any, Any]:
    """Return the last two axes of an array, at the given indices of those before; 0 where none is given.

    Parameters
    ----------
    store, path, max_nbytes
        As `read_region`.
    at : sequence of int
        One for each axis but the last two.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> store = {}
    >>> init_array(store, shape=(3, 2, 2), chunks=(1, 2, 2), dtype="|u1", compressor=None, fill_value=0, path="a")
    >>> store["a/1.0.0"] = bytes([1, 2, 3, 4])
    >>> plane(store, "a", [1]).tolist()
    [[1, 2], [3, 4]]
    """
    place = k.normalize_path(path)
    adapted, meta = _opened_array(as_store(store), place)
    leading = len(meta.shape) - 2
    if leading < 0:
        raise ValueError(f"array {place!r} has {len(meta.shape)} axes, and a plane has two")
    indices = [*at, *([0] * leading)][:leading]
    region = [(min(i, n - 1), min(i, n - 1) + 1) for i, n in zip(indices, meta.shape, strict=False)]
    box = _read(adapted, place, meta, [*region, *((0, n) for n in meta.shape[leading:])], max_nbytes)
    return box.reshape(meta.shape[leading:])


def _opened_array(store: Store, path: str) -> tuple[Store, v2.ArrayMeta]:
    """Return the metadata of an array, and a store that has its chunks under version 2's names."""
    key = k.join(path, documents.ZARRAY)
    data = store.get(key)
    if data is None:
        if k.join(path, documents.ZARR_JSON) not in store:
            raise absent(store, path, "array")
        from zarrstore.wrappers.v2view import V2View

        store = V2View(store)
        data = store[key]
    return store, v2.decode_array(data, key)


def _read(
    store: Store, path: str, meta: v2.ArrayMeta, region: Sequence[tuple[int, int]], max_nbytes: int | None
) -> np.ndarray[Any, Any]:
    import numpy as np

    shape = tuple(stop - start for start, stop in region)
    size = chunking.chunk_nitems(shape) * meta.numpy_dtype.itemsize
    if max_nbytes is not None and size > max_nbytes:
        raise ValueError(f"array {path!r} has {size:,} bytes, and {max_nbytes:,} are allowed; pass max_nbytes=None")
    fill = meta.numpy_fill
    # Objects that were never written are None, as in zarr 2; numbers are zero.
    new = np.empty if meta.numpy_dtype.kind == "O" else np.zeros
    out = new(shape, dtype=meta.numpy_dtype, order="F" if meta.order == "F" else "C")
    if fill is not None:
        out[...] = fill
    rule = chunk_keys_of(store, path, meta)
    names = {rule.key(path, coords): coords for coords in _positions(region, meta.chunks)}
    found = store.getitems(names)
    for chunk_key, coords in names.items():
        data = value_or_none(found, chunk_key)
        if data is None:
            continue
        try:
            chunk = decode_chunk(data, meta, max_nbytes=max_nbytes)
        except ValueError as exc:
            raise ValueError(f"chunk {chunk_key!r}: {exc}") from exc
        inside, within = [], []
        for i, n, (start, stop) in zip(coords, meta.chunks, region, strict=True):
            first, last = max(i * n, start), min((i + 1) * n, stop)
            inside.append(slice(first - start, last - start))
            within.append(slice(first - i * n, last - i * n))
        out[tuple(inside)] = chunk[tuple(within)]
    return out


def _positions(region: Sequence[tuple[int, int]], chunks: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the positions of the chunks that a box touches."""
    return product(*(range(start // n, -(-stop // n)) for (start, stop), n in zip(region, chunks, strict=True)))
