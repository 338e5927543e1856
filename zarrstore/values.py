"""Anything bytes-like in, `bytes` or a flat view of the same memory out; sizes in bytes."""

from __future__ import annotations

from typing import Any

__all__ = ["as_buffer", "as_bytes", "nbytes"]


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


def as_buffer(value: Any) -> bytes | memoryview:
    """Return the content of any buffer without a copy, where its memory is contiguous.

    Parameters
    ----------
    value : bytes-like or array-like
        As `as_bytes` takes.

    Returns
    -------
    bytes or memoryview
        `bytes` as they are; for any other contiguous buffer a flat, read-only view of format ``"B"`` in memory order
        (so a Fortran-contiguous array keeps its order); a copy where the memory is not contiguous. A view shows what
        its owner writes later: whoever keeps it copies it.

    Raises
    ------
    TypeError
        As `as_bytes`.

    Examples
    --------
    >>> view = as_buffer(bytearray(b"abc"))
    >>> view.nbytes, view.format, view.readonly, bytes(view)
    (3, 'B', True, b'abc')
    >>> as_buffer(memoryview(b"abcdef")[::2])
    b'ace'
    """
    if type(value) is bytes:
        return value
    flags = getattr(value, "flags", None)
    if hasattr(value, "dtype") and hasattr(value, "reshape") and getattr(flags, "forc", False):
        if value.dtype.hasobject:
            return as_bytes(value)  # which refuses it, and says why
        if not value.nbytes:
            return b""
        # Seen as plain bytes first: NumPy refuses the buffer protocol to datetime64 and timedelta64.
        return memoryview(value.reshape(-1, order="A").view("u1")).toreadonly()
    try:
        view = memoryview(value)
    except TypeError:
        return as_bytes(value)
    if view.format == "O" or not view.c_contiguous or not view.nbytes:
        return as_bytes(value)
    try:
        return view.cast("B").toreadonly()
    except (TypeError, ValueError):  # of a format that memoryview cannot cast, as ctypes has them
        return as_bytes(value)


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
