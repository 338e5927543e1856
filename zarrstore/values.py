"""Anything bytes-like in, `bytes` out; sizes in bytes."""

from __future__ import annotations

from typing import Any

__all__ = ["as_bytes", "nbytes"]


def as_bytes(value: Any) -> bytes:
    """Return the content of any buffer as `bytes` that nobody else can change.

    Parameters
    ----------
    value : bytes-like or array-like
        `bytes`, `bytearray`, `memoryview`, `array.array`, `mmap`, a NumPy array of any layout and of any dtype without
        objects (datetime64 too).

    Returns
    -------
    bytes
        `value` itself if it is exactly `bytes`, else a copy in memory order: Fortran order for Fortran-contiguous
        arrays, C order for all others.

    Raises
    ------
    TypeError
        `value` is no buffer (str, list, int, None), or holds Python objects, whose bytes would be pointers.

    Notes
    -----
    Source: zarr 2.3 and later, ``ensure_contiguous_ndarray``; deviation: strided arrays are copied, not refused.

    Examples
    --------
    >>> as_bytes(bytearray(b"abc")), as_bytes(memoryview(b"abcdef")[::2])
    (b'abc', b'ace')
    """
    if type(value) is bytes:
        return value
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(value, "tobytes"):
        if getattr(dtype, "hasobject", False):
            raise TypeError(f"cannot store a value of dtype {dtype}: its bytes are pointers; encode the objects first")
        # NumPy refuses the buffer protocol to datetime64 and timedelta64, so its own copy is asked first.
        return bytes(value.tobytes("A"))
    try:
        view = memoryview(value)
    except TypeError:
        raise TypeError(f"cannot store a value of type {type(value).__name__}: it is not bytes-like") from None
    if view.format == "O":
        raise TypeError("cannot store a buffer of Python objects: its bytes are pointers; encode the objects first")
    return view.tobytes("A")


def nbytes(value: Any) -> int:
    """Return the size of a value in bytes, -1 where it cannot be known.

    Examples
    --------
    >>> nbytes(b"abc"), nbytes(memoryview(b"abcd")), nbytes("text")
    (3, 4, -1)
    """
    if isinstance(value, bytes | bytearray):
        return len(value)
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    try:
        return memoryview(value).nbytes
    except TypeError:
        return -1
