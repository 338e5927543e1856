"""Anything bytes-like in, `bytes` or a flat view of the same memory out; sizes in bytes."""

from __future__ import annotations

from typing import Any

__all__ = ["as_buffer", "as_bytes", "md5", "nbytes", "parse_nbytes", "sha256"]


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


def parse_nbytes(name: str, size: float | str | None) -> float | None:
    """Return a size that was given as a number of bytes or as text with a unit; None stays None.

    Parameters
    ----------
    name : str
        Of the argument, for the error.
    size : int, float, str or None
        ``"2GB"`` is 2e9 and ``"2GiB"`` is 2**31; K, M, G and T alone mean the same as KB, MB, GB and TB. Case and
        white space do not matter.

    Raises
    ------
    ValueError
        A text that is no size.
    TypeError
        Neither a number nor a text.

    Examples
    --------
    >>> parse_nbytes("max_size", "2GB"), parse_nbytes("max_size", "1.5 MiB"), parse_nbytes("max_size", 7)
    (2000000000.0, 1572864.0, 7)
    """
    if isinstance(size, str):
        number, unit = _split_unit(size)
        try:
            return float(number) * _UNITS[unit]
        except (ValueError, KeyError):
            raise ValueError(
                f"{name} is {size!r}: a number of bytes, or text like '500MB' or '2GiB', is wanted"
            ) from None
    if size is not None and not hasattr(size, "__float__"):
        raise TypeError(f"{name} is {size!r}: a number of bytes, or text like '500MB' or '2GiB', is wanted")
    return size


_UNITS = {
    **{f"{prefix}{b}": 1000.0**n for n, prefix in enumerate(("", "k", "m", "g", "t")) for b in ("", "b")},
    **{f"{prefix}ib": 1024.0**n for n, prefix in enumerate(("k", "m", "g", "t"), 1)},
}


def _split_unit(text: str) -> tuple[str, str]:
    compact = text.replace(" ", "").replace("_", "").lower()
    number = compact.rstrip("bkmgti")
    return number, compact[len(number) :]


def sha256(value: bytes | memoryview) -> str:
    """Return the SHA-256 of a value in hexadecimal digits.

    Examples
    --------
    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    import hashlib  # not at the top: it loads OpenSSL, which takes as long as a small command

    return hashlib.sha256(value).hexdigest()


def md5(value: bytes | memoryview) -> str:
    """Return the MD5 of a value in hexadecimal digits, as the listings of S3 tell it.

    Examples
    --------
    >>> md5(b"")[:8]
    'd41d8cd9'
    """
    import hashlib

    return hashlib.md5(value, usedforsecurity=False).hexdigest()
