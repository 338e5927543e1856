"""Shapes and chunks: normalised, guessed and counted as zarr 2 does."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator
from typing import Any

from zarrstore.chunknames import chunk_name

__all__ = [
    "MAX_SIZE",
    "chunk_grid",
    "chunk_names",
    "chunk_nitems",
    "grid_shape",
    "guess_chunks",
    "n_chunks",
    "normalize_chunks",
    "normalize_shape",
]

#: Longest axis: sizes are 64-bit signed integers wherever arrays are indexed.
MAX_SIZE = 2**63 - 1

# The three figures of zarr's guess, in bytes.
_BASE = 256 * 1024
_SMALLEST = 128 * 1024
_LARGEST = 64 * 1024 * 1024


def _size(value: Any, what: str, smallest: int) -> int:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or value != value // 1:
        raise ValueError(f"{what} holds {value!r}: a whole number is expected")
    size = int(value)
    if size < smallest:
        raise ValueError(f"{what} holds {size}: at least {smallest} is expected")
    if size > MAX_SIZE:
        raise ValueError(f"{what} holds {size}: at most {MAX_SIZE} is possible")
    return size


def normalize_shape(shape: Any) -> tuple[int, ...]:
    """Return a shape as a tuple of int.

    Parameters
    ----------
    shape : int or iterable of int
        One length, or one per axis. Whole floats and NumPy's integers count as int.

    Raises
    ------
    TypeError
        `shape` is None or no iterable.
    ValueError
        A length is negative, not whole, a boolean, or beyond 64 bits. (Deviation: zarr 2 warns or accepts.)

    Examples
    --------
    >>> normalize_shape(10), normalize_shape([20, 30]), normalize_shape(())
    ((10,), (20, 30), ())
    """
    if shape is None:
        raise TypeError("shape is None: an int, or one int per axis, is expected")
    if isinstance(shape, numbers.Number):
        shape = (shape,)
    return tuple(_size(length, "shape", 0) for length in shape)


def normalize_chunks(chunks: Any, shape: tuple[int, ...], typesize: int) -> tuple[int, ...]:
    """Return the shape of a chunk, one length per axis of `shape`.

    Parameters
    ----------
    chunks : bool, None, int or iterable of int or None
        True or None guesses; False is one chunk; an int holds for every axis; axes that are missing, None or -1 are not
        divided.
    shape : tuple of int
        Normalised shape of the array.
    typesize : int, bytes
        Size of one item.

    Raises
    ------
    ValueError
        More lengths than axes, or a length that is not positive.

    Notes
    -----
    Source: zarr 2.18.7; deviation: an axis of length 0 that is not divided gets chunks of 1, since zarr cannot read
    the 0 that it writes.

    Examples
    --------
    >>> normalize_chunks(True, (10000, 10000), 8)
    (313, 625)
    >>> normalize_chunks((10, -1), (100, 50), 4), normalize_chunks(7, (9, 9), 1)
    ((10, 50), (7, 7))
    """
    if chunks is None or chunks is True:
        return guess_chunks(shape, typesize)
    if chunks is False:
        chunks = ()
    elif isinstance(chunks, numbers.Number):
        chunks = (chunks,) * len(shape)
    lengths = tuple(chunks)
    if len(lengths) > len(shape):
        raise ValueError(f"chunks {lengths!r} has {len(lengths)} lengths, and shape {shape!r} has {len(shape)}")
    lengths += (None,) * (len(shape) - len(lengths))
    whole = (None, -1)
    return tuple(
        max(1, axis) if length in whole else _size(length, "chunks", 1)
        for length, axis in zip(lengths, shape, strict=True)
    )


def guess_chunks(shape: tuple[int, ...], typesize: int) -> tuple[int, ...]:
    """Return zarr 2's guess of a good chunk shape: between 128 KiB and 64 MiB, growing with the array.

    Examples
    --------
    >>> guess_chunks((10000, 10000), 8), guess_chunks((), 8), guess_chunks((0, 5), 4)
    ((313, 625), (), (1, 5))
    """
    lengths = [float(max(1, length)) for length in shape]
    total = math.prod(lengths) * typesize
    target = _BASE * 2.0 ** math.log10(total / 2**20) if total else 0.0
    target = min(max(target, _SMALLEST), _LARGEST)
    axis = 0
    while True:
        items = math.prod(lengths)
        nbytes = items * typesize
        near = nbytes < target or abs(nbytes - target) / target < 0.5
        if (near and nbytes < _LARGEST) or items == 1:
            return tuple(map(int, lengths))
        # Axes are halved in turn, the first one first, so that the last stays longest.
        lengths[axis] = math.ceil(lengths[axis] / 2.0)
        axis = (axis + 1) % len(lengths)


def chunk_nitems(chunks: Iterable[int]) -> int:
    """Return how many items one chunk holds.

    Examples
    --------
    >>> chunk_nitems((3, 4)), chunk_nitems(())
    (12, 1)
    """
    return math.prod(chunks)


def grid_shape(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Return the number of chunks along each axis.

    Examples
    --------
    >>> grid_shape((10, 10), (4, 5)), grid_shape((0, 5), (2, 5)), grid_shape((), ())
    ((3, 2), (0, 1), ())
    """
    return tuple(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))


def n_chunks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    """Return how many chunks an array has when all are written; an array without axes has one.

    Examples
    --------
    >>> n_chunks((10, 10), (4, 5)), n_chunks((0, 5), (2, 5)), n_chunks((), ())
    (6, 0, 1)
    """
    return math.prod(grid_shape(shape, chunks))


def chunk_grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the position of every chunk, the last axis fastest.

    Notes
    -----
    Lazy, in constant memory, whatever the sizes: a document may claim 10**18 chunks.

    Examples
    --------
    >>> list(chunk_grid((4, 3), (2, 2)))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    grid = grid_shape(shape, chunks)
    if 0 in grid:
        return
    # Not itertools.product: it would make tuples of the ranges first.
    position = [0] * len(grid)
    while True:
        yield tuple(position)
        for axis in reversed(range(len(grid))):
            position[axis] += 1
            if position[axis] < grid[axis]:
                break
            position[axis] = 0
        else:
            return


def chunk_names(shape: tuple[int, ...], chunks: tuple[int, ...], separator: str = ".") -> Iterator[str]:
    """Yield the name of every chunk below the array's path, the last axis fastest.

    Examples
    --------
    >>> list(chunk_names((4, 3), (2, 2))), list(chunk_names((4, 3), (2, 3), "/")), list(chunk_names((), ()))
    (['0.0', '0.1', '1.0', '1.1'], ['0/0', '1/0'], ['0'])
    """
    return (chunk_name(position, separator) for position in chunk_grid(shape, chunks))
