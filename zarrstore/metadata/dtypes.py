"""Data types and fill values, between what documents say and what NumPy holds."""

from __future__ import annotations

import base64
import binascii
import inspect
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "OBJECT_CODECS",
    "decode_dtype",
    "decode_fill",
    "encode_dtype",
    "encode_fill",
    "has_unit",
    "normalize_dtype",
    "normalize_fill",
]

#: dtypes that stand for objects of one class, and the codec that zarr 2 picks for them.
OBJECT_CODECS = {"str": "vlen-utf8", "bytes": "vlen-bytes", "array": "vlen-array"}

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def decode_dtype(described: Any) -> np.dtype[Any]:
    """Return the NumPy dtype that a document's ``dtype`` member means.

    Parameters
    ----------
    described : str or list
        ``"<f8"``, or ``[["a", "<i4"], ["b", "<f8", [2]]]``.

    Raises
    ------
    ValueError
        It is neither, or NumPy knows no such type, or it is a subarray (whose axes belong into ``shape``).

    Notes
    -----
    Remembers strings: 0.2 µs for one seen before.

    Examples
    --------
    >>> decode_dtype("<f8"), decode_dtype([["a", "|i1"], ["b", "<f4", [2]]])
    (dtype('float64'), dtype([('a', 'i1'), ('b', '<f4', (2,))]))
    """
    if isinstance(described, str):
        return _named(described)
    if not isinstance(described, list) or not described:
        raise ValueError(f"is {described!r}, and a string or a list of fields is expected")
    return _parsed([_field(field) for field in described], described)


@lru_cache(maxsize=1024)
def _named(described: str) -> np.dtype[Any]:
    # NumPy takes '' for float64 and reads 'i4,f8' as two fields.
    if not described:
        raise ValueError("is empty")
    return _parsed(described, described)


def _parsed(spec: Any, described: Any) -> np.dtype[Any]:
    import numpy as np

    try:
        dtype: np.dtype[Any] = np.dtype(spec)
    except Exception as exc:  # TypeError, ValueError, SyntaxError, KeyError ...: NumPy parses this in several places.
        raise ValueError(f"is {_short(described)}, which NumPy does not know ({_short(exc)})") from None
    if dtype.subdtype is not None:
        raise ValueError(f"is {_short(described)}: the axes of a subarray belong into shape")
    return dtype


def _field(field: Any) -> tuple[Any, ...]:
    if not isinstance(field, list) or len(field) not in (2, 3):
        raise ValueError(f"has the field {_short(field)}, and [name, type] or [name, type, shape] is expected")
    name, described, *shape = field
    spec_name = _field_name(name)
    spec = [_field(inner) for inner in described] if isinstance(described, list) else described
    if not isinstance(spec, str | list) or not spec:
        raise ValueError(f"has the field {_short(field)}, whose type is neither a string nor a list of fields")
    lengths = [tuple(part) if isinstance(part, list) else part for part in shape]
    return (spec_name, spec, *lengths)


def _field_name(name: Any) -> str | tuple[str, ...]:
    """Return the name of a field, which may be a pair of title and name."""
    names = tuple(name) if isinstance(name, list) else (name,)
    if len(names) > 2 or not all(isinstance(part, str) for part in names):
        raise ValueError(f"has a field named {_short(name)}")
    return names if len(names) == 2 else "".join(names)


def has_unit(dtype: np.dtype[Any]) -> bool:
    """Tell whether a datetime64 or timedelta64 says what it counts.

    Examples
    --------
    >>> import numpy as np
    >>> has_unit(np.dtype("M8[s]")), has_unit(np.dtype("M8"))
    (True, False)
    """
    import numpy as np

    return np.datetime_data(dtype)[0] != "generic"


def encode_dtype(dtype: np.dtype[Any]) -> str | list[Any]:
    """Return what a document says for a NumPy dtype: a string, or one entry per field.

    Examples
    --------
    >>> import numpy as np
    >>> encode_dtype(np.dtype("f4")), encode_dtype(np.dtype([("a", "u1"), ("b", "<i2", (3,))]))
    ('<f4', [['a', '|u1'], ['b', '<i2', [3]]])
    """
    if dtype.fields is None:
        return dtype.str
    described = _as_lists(dtype.descr)
    assert isinstance(described, list)
    return described


def _as_lists(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_as_lists(part) for part in value]
    return value


def normalize_dtype(dtype: Any) -> tuple[np.dtype[Any], dict[str, Any] | None]:
    """Return a NumPy dtype for anything that zarr 2 takes as one, and the object codec that it implies.

    Parameters
    ----------
    dtype : dtype-like
        Anything NumPy takes; ``str``, ``bytes`` or ``"array:<dtype>"`` mean objects of that class; None is float64.

    Returns
    -------
    dtype : numpy.dtype
        May be a subarray.
    object_codec : dict or None
        Configuration of the codec that ``str``, ``bytes`` and ``array`` stand for.

    Raises
    ------
    ValueError
        datetime64 or timedelta64 without a unit; ``array`` without its item type.
    TypeError
        NumPy knows no such type.

    Examples
    --------
    >>> normalize_dtype(str), normalize_dtype("array:<i4")
    ((dtype('O'), {'id': 'vlen-utf8'}), (dtype('O'), {'id': 'vlen-array', 'dtype': '<i4'}))
    """
    import numpy as np

    # As zarr 2: a class counts by its name, so that str is not NumPy's '<U0'.
    spec = dtype.__name__ if inspect.isclass(dtype) else dtype
    if isinstance(spec, str):
        kind, colon, argument = spec.partition(":")
        codec = OBJECT_CODECS.get(kind)
        if codec is not None:
            if (kind == "array") != bool(colon):
                raise ValueError(f"dtype {spec!r}: write 'str', 'bytes' or 'array:<dtype>', such as 'array:<i4'")
            config: dict[str, Any] = {"id": codec}
            if colon:
                config["dtype"] = np.dtype(argument).str
            return np.dtype(object), config
    found = np.dtype(spec)
    if found.kind in "mM" and not has_unit(found):
        raise ValueError(f"dtype {found.str!r} has no unit: write one, such as {found.str + '[ns]'!r}")
    return found, None


def normalize_fill(fill_value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a fill value as a scalar of `dtype`; None stays, and so does anything for objects; 0 is the dtype's zero.

    Raises
    ------
    ValueError
        `fill_value` is no value of `dtype`.

    Notes
    -----
    Source: zarr 2.18.7; deviation: an array of values is refused here, where zarr fails later or writes them all.

    Examples
    --------
    >>> import numpy as np
    >>> normalize_fill(0, np.dtype("S3")), normalize_fill(300, np.dtype("u1"))
    Traceback (most recent call last):
    ValueError: fill_value 300 is no value of dtype uint8: Python integer 300 out of bounds for uint8
    """
    import numpy as np

    if fill_value is None or dtype.hasobject:
        return fill_value
    try:
        # A comparison with an array has no truth; np.void compares fields.
        zero = not isinstance(fill_value, np.void) and bool(fill_value == 0)
        if zero:
            return np.zeros((), dtype=dtype)[()]
        if dtype.kind == "U":
            if not isinstance(fill_value, str):
                raise ValueError("a str is expected")
            return fill_value
        if isinstance(fill_value, bytes) and dtype.kind == "V":
            if len(fill_value) > dtype.itemsize:
                raise ValueError(f"it has {len(fill_value)} bytes, an item has {dtype.itemsize}")
            return np.array(fill_value, dtype=f"V{dtype.itemsize}").view(dtype)[()]
        value = np.array(fill_value, dtype=dtype)
        if value.ndim:
            raise ValueError("one value is expected")
        return value[()]
    except Exception as exc:
        raise ValueError(f"fill_value {_short(fill_value)} is no value of dtype {dtype}: {exc}") from None


def encode_fill(fill_value: Any, dtype: np.dtype[Any], object_codec: dict[str, Any] | None = None) -> Any:
    """Return what a document says for a fill value that `normalize_fill` gave.

    Parameters
    ----------
    fill_value : scalar or None
        A value of `dtype`.
    dtype : numpy.dtype
        The array's.
    object_codec : dict, optional
        Configuration of the first filter; needed only for fields that hold objects.

    Returns
    -------
    object
        JSON: None, bool, int, float, str, or a list of two for complex numbers.

    Notes
    -----
    Floats that are not finite become ``"NaN"``, ``"Infinity"``, ``"-Infinity"``; bytes and structures base64; datetimes
    the signed count of their unit. Source: zarr 2.18.7 (2.2.0 wrote datetimes unsigned and could not write complex).

    Examples
    --------
    >>> import numpy as np
    >>> encode_fill(np.float32("-inf"), np.dtype("f4")), encode_fill(b"abc", np.dtype("S6"))
    ('-Infinity', 'YWJj')
    >>> encode_fill(np.datetime64("NaT", "s"), np.dtype("M8[s]")), encode_fill(1 - 2j, np.dtype("c8"))
    (-9223372036854775808, [1.0, -2.0])
    """
    if fill_value is None:
        return None
    kind = dtype.kind
    if kind == "V" and dtype.hasobject:
        import numcodecs

        if object_codec is None:
            raise ValueError("a fill value for fields that hold objects needs an object_codec")
        encoded = numcodecs.get_codec(dict(object_codec)).encode(fill_value)
        return base64.standard_b64encode(encoded).decode("ascii")
    if kind == "f":
        return _encode_float(float(fill_value))
    if kind in "iu":
        return int(fill_value)
    if kind == "b":
        return bool(fill_value)
    if kind == "c":
        return [_encode_float(float(fill_value.real)), _encode_float(float(fill_value.imag))]
    if kind in "SV":
        return base64.standard_b64encode(fill_value).decode("ascii")
    if kind in "mM":
        return int(fill_value.view("i8"))
    if kind == "U":
        return str(fill_value)
    return fill_value


def _encode_float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def decode_fill(raw_fill: Any, dtype: np.dtype[Any], object_codec: dict[str, Any] | None = None) -> Any:
    """Return the fill value that a document means, as a scalar of `dtype`; None stays.

    Parameters
    ----------
    raw_fill : object
        The document's ``fill_value``.
    dtype : numpy.dtype
        The array's.
    object_codec : dict, optional
        Configuration of the first filter; needed only for fields that hold objects.

    Raises
    ------
    ValueError
        It is no fill value for `dtype`.

    Notes
    -----
    Takes what zarr 2.2.0 and 2.18.7 wrote, so datetimes below zero in either spelling, signed or unsigned, and what
    2.18.7 reads: numbers as text, the number 0 as the text ``"0"``.

    Examples
    --------
    >>> import numpy as np
    >>> decode_fill("NaN", np.dtype("f8")), decode_fill("YWJj", np.dtype("S6")), decode_fill(None, np.dtype("i4"))
    (np.float64(nan), np.bytes_(b'abc'), None)
    >>> decode_fill(2**64 - 1, np.dtype("M8[D]"))
    np.datetime64('1969-12-31')
    """
    if raw_fill is None or dtype.kind == "O":
        return raw_fill
    try:
        return _decode_fill(raw_fill, dtype, object_codec)
    except Exception as exc:  # NumPy, base64 and codecs raise what they like; the reason is in the text.
        raise ValueError(f"is {_short(raw_fill)}, which is no value of dtype {dtype} ({_short(exc)})") from None


def _decode_fill(raw_fill: Any, dtype: np.dtype[Any], object_codec: dict[str, Any] | None) -> Any:
    import numpy as np

    kind = dtype.kind
    if kind == "f":
        return np.array(_decode_float(raw_fill), dtype=dtype)[()]
    if kind == "c":
        return _decode_complex(raw_fill, dtype)
    if kind in "SV":
        return _decode_bytes(raw_fill, dtype, object_codec)
    if kind == "U":
        if isinstance(raw_fill, list | dict):
            raise ValueError("a string is expected")
        # As zarr 2, which reads the number 0 as the text "0".
        return np.array(raw_fill, dtype=dtype)[()]
    if kind in "mM":
        if isinstance(raw_fill, str):
            return np.array(raw_fill, dtype=dtype)[()]
        number = int(raw_fill) - (1 << 64 if raw_fill >= 1 << 63 else 0)
        return np.array(number, dtype="i8").astype(dtype.newbyteorder("="), copy=False).astype(dtype)[()]
    return _decode_number(raw_fill, dtype)


def _decode_complex(raw_fill: Any, dtype: np.dtype[Any]) -> Any:
    import numpy as np

    if not isinstance(raw_fill, list) or len(raw_fill) != 2:
        raise ValueError("a list of two numbers is expected")
    value = np.empty((), dtype=dtype)
    value.real, value.imag = (_decode_float(part) for part in raw_fill)
    return value[()]


def _decode_number(raw_fill: Any, dtype: np.dtype[Any]) -> Any:
    """Return a whole number or a boolean."""
    import numpy as np

    if isinstance(raw_fill, list | dict):
        raise ValueError("a number is expected")
    if isinstance(raw_fill, str):
        # n5-zarr wrote numbers as text; zarr 2.18.7 and 3.4 read them.
        return np.array(raw_fill, dtype=dtype)[()]
    if dtype.kind in "iu" and raw_fill != int(raw_fill):
        raise ValueError("a whole number is expected")
    return np.array(int(raw_fill) if dtype.kind in "iu" else raw_fill, dtype=dtype)[()]


def _decode_float(raw_fill: Any) -> float:
    if isinstance(raw_fill, str):
        return _NOT_FINITE[raw_fill] if raw_fill in _NOT_FINITE else float(raw_fill)
    if isinstance(raw_fill, list | dict):
        raise ValueError("a number is expected")
    return float(raw_fill)


def _decode_bytes(raw_fill: Any, dtype: np.dtype[Any], object_codec: dict[str, Any] | None) -> Any:
    import numpy as np

    if not isinstance(raw_fill, str):
        if isinstance(raw_fill, list | dict) or (dtype.kind == "V" and raw_fill != 0):
            raise ValueError("base64 text is expected")
        # As zarr 2, which reads the number 0 as the text b"0".
        return np.array(raw_fill, dtype=dtype)[()] if dtype.kind == "S" else np.zeros((), dtype=dtype)[()]
    try:
        raw = base64.b64decode(raw_fill, validate=True)
    except binascii.Error:
        if dtype.kind != "S":
            raise
        raw = raw_fill.encode("ascii")  # as zarr 2: plain text from before base64 came
    if dtype.kind == "S":
        return np.array(raw, dtype=dtype)[()]
    if dtype.hasobject:
        import numcodecs

        if object_codec is None:
            raise ValueError("fields that hold objects need an object codec as the first filter")
        return np.array(numcodecs.get_codec(dict(object_codec)).decode(raw), dtype=dtype)[()]
    if len(raw) > dtype.itemsize:
        raise ValueError(f"{len(raw)} bytes, an item has {dtype.itemsize}")
    return np.array(raw, dtype=f"V{dtype.itemsize}").view(dtype)[()]


def _short(value: object, longest: int = 80) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."
