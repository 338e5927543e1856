"""Data types and fill values of version 3, to and from what version 2 says."""

from __future__ import annotations

import base64
import re
import struct
from typing import TYPE_CHECKING, Any

from zarrstore.metadata import dtypes

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NotRepresentable", "data_type_of", "dtype_of", "fill_of", "fill_to_v3", "needs_endian", "same_fill"]


class NotRepresentable(ValueError):
    """One version has no words for what the other says; the text says what."""


_PLAIN = {
    "b1": "bool",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "c8": "complex64",
    "c16": "complex128",
}
_NAMED = {name: code for code, name in _PLAIN.items()}
_TIMES = {"M": "numpy.datetime64", "m": "numpy.timedelta64"}
#: Objects that both versions can represent, by their version 2 codec.
STRINGS = {"vlen-utf8": "string", "vlen-bytes": "variable_length_bytes"}
_STRING_NAMES = {"string": "vlen-utf8", "variable_length_bytes": "vlen-bytes", "bytes": "vlen-bytes"}


def data_type_of(dtype: np.dtype[Any], object_codec: str | None = None) -> str | dict[str, Any]:
    """Return the ``data_type`` member for a NumPy dtype; raise NotRepresentable where there is none.

    Parameters
    ----------
    dtype : numpy.dtype
        Byte order is left out: the ``bytes`` codec says it.
    object_codec : str, optional
        Name of the codec by which objects are encoded.

    Examples
    --------
    >>> import numpy as np
    >>> data_type_of(np.dtype(">f4")), data_type_of(np.dtype("M8[25s]"))
    ('float32', {'name': 'numpy.datetime64', 'configuration': {'unit': 's', 'scale_factor': 25}})
    """
    import numpy as np

    kind, size = dtype.kind, dtype.itemsize
    if kind == "c" and dtype.byteorder == ">":
        raise NotRepresentable(f"dtype {dtype.str!r}: zarrs 0.2 reads big-endian complex numbers wrongly")
    plain = _PLAIN.get(f"{kind}{size}")
    if plain is not None:
        return plain
    if kind == "O":
        if object_codec not in STRINGS:
            raise NotRepresentable(f"objects encoded by {object_codec!r}: version 3 knows strings and bytes only")
        return STRINGS[object_codec]
    if kind in "mM":
        unit, factor = np.datetime_data(dtype)
        return _named(_TIMES[kind], unit=unit, scale_factor=factor)
    if kind in "fc":
        raise NotRepresentable(
            f"dtype {dtype.str!r}: version 3 has no {8 * size}-bit {'floats' if kind == 'f' else 'complex'}"
        )
    if not size:
        raise NotRepresentable(f"dtype {dtype.str!r}: version 3 has no items of 0 bytes")
    if kind == "S":
        return _named("null_terminated_bytes", length_bytes=size)
    if kind == "U":
        return _named("fixed_length_utf32", length_bytes=size)
    if dtype.names is None:
        return _named("raw_bytes", length_bytes=size)
    return _named("structured", fields=_fields(dtype))


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _fields(dtype: np.dtype[Any]) -> list[list[Any]]:
    assert dtype.names is not None
    assert dtype.fields is not None
    fields = []
    end = 0
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        if offset != end:
            raise NotRepresentable(f"structure with a gap before {name!r}: version 3 packs the fields")
        end += field.itemsize
        if field.subdtype is not None:
            raise NotRepresentable(
                f"structure with the subarray {name!r} of shape {field.shape}: version 3 has none in a field"
            )
        if field.hasobject:
            raise NotRepresentable(f"structure with objects in {name!r}: version 3 has none in a field")
        if field.names is None and field.byteorder == ">":
            raise NotRepresentable(
                f"structure with the big-endian {name!r}: zarr 3.1 reads every field as little-endian (3.4 does not)"
            )
        fields.append([name, data_type_of(field)])
    if end != dtype.itemsize:
        raise NotRepresentable(
            f"structure with {dtype.itemsize - end} bytes behind the last field: version 3 packs the fields"
        )
    return fields


def needs_endian(dtype: np.dtype[Any]) -> bool:
    """Tell whether the ``bytes`` codec has to say a byte order for items of `dtype`.

    Examples
    --------
    >>> import numpy as np
    >>> [needs_endian(np.dtype(name)) for name in ("<i2", "i1", "S5", "U5", "i1,i2", "i1,S2")]
    [True, False, False, True, True, False]
    """
    if dtype.names is not None:
        return any(needs_endian(dtype[name]) for name in dtype.names)
    return dtype.kind not in "SVOb" and (dtype.itemsize > 1)


def fill_to_v3(value: Any, dtype: np.dtype[Any], notes: list[str], object_codec: str | None = None) -> Any:
    """Return the ``fill_value`` member of version 3 for that of version 2; None becomes the dtype's zero.

    Examples
    --------
    >>> import numpy as np
    >>> notes = []
    >>> fill_to_v3(None, np.dtype("S3"), notes), fill_to_v3("NaN", np.dtype("f8"), notes)
    ('', 'NaN')
    >>> notes
    ["fill_value null became '': version 3 has no undefined one"]
    """
    if dtype.kind == "O":
        return _fill_of_objects(value, notes, object_codec)
    if value is None:
        fill = dtypes.encode_fill(dtypes.normalize_fill(0, dtype), dtype)
        notes.append(f"fill_value null became {fill!r}: version 3 has no undefined one")
        return fill
    # Version 3 says all others as version 2 does; decoded and encoded, 0 for a float becomes 0.0.
    return dtypes.encode_fill(dtypes.decode_fill(value, dtype), dtype)


def _fill_of_objects(value: Any, notes: list[str], object_codec: str | None) -> str:
    if isinstance(value, str) and (object_codec == "vlen-utf8" or not value):
        return value
    if value is None or (value == 0 and not isinstance(value, str)):
        notes.append(
            f"fill_value {'null' if value is None else value} became '': version 3 takes a value of the array's type"
        )
        return ""
    raise NotRepresentable(f"fill_value {value!r} of an array of {STRINGS.get(object_codec or '', 'objects')}")


def dtype_of(data_type: Any, endian: str | None) -> tuple[np.dtype[Any], str | None]:
    """Return the NumPy dtype that a ``data_type`` means, and for strings their version 2 codec.

    Parameters
    ----------
    data_type : str or dict
        The member.
    endian : {'little', 'big'} or None
        What the ``bytes`` codec says.

    Raises
    ------
    NotRepresentable
        NumPy, and so version 2, has no such type.

    Examples
    --------
    >>> dtype_of("float32", "big"), dtype_of("string", None)
    ((dtype('>f4'), None), (dtype('O'), 'vlen-utf8'))
    """
    import numpy as np

    name, configuration = _name_and_configuration(data_type)
    if name in _STRING_NAMES and not configuration:
        return np.dtype("O"), _STRING_NAMES[name]
    try:
        return _dtype_of(name, configuration, ">" if endian == "big" else "<"), None
    except NotRepresentable:
        raise
    except Exception as exc:  # A length that is no number, a unit that NumPy does not know ...
        raise NotRepresentable(f"data type {data_type!r} ({exc})") from None


def _name_and_configuration(data_type: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(data_type, str):
        return data_type, {}
    if isinstance(data_type, dict) and isinstance(data_type.get("name"), str):
        configuration = data_type.get("configuration", {})
        if isinstance(configuration, dict):
            return data_type["name"], configuration
    raise NotRepresentable(f"data type {data_type!r}")


def _dtype_of(name: str, configuration: dict[str, Any], order: str) -> np.dtype[Any]:
    import numpy as np

    if name in _NAMED:
        return np.dtype(order + _NAMED[name])
    bits = re.fullmatch(r"r([0-9]{1,9})", name)
    if bits and int(bits[1]) % 8 == 0:
        return np.dtype(f"V{int(bits[1]) // 8}")
    for kind, time in _TIMES.items():
        if name == time:
            return np.dtype(f"{order}{kind}8[{int(configuration['scale_factor'])}{configuration['unit']}]")
    if name in ("structured", "struct"):
        return np.dtype([_field(field, order) for field in configuration["fields"]])
    spec = _fixed_length(name, int(configuration.get("length_bytes", 0)), order)
    if spec is None:
        raise NotRepresentable(f"data type {name!r}: NumPy has none like it")
    return np.dtype(spec)


def _fixed_length(name: str, nbytes: int, order: str) -> str | None:
    """Return the NumPy type of bytes or text of a fixed length; None if the name or the length is of none."""
    if nbytes <= 0:
        return None
    if name == "null_terminated_bytes":
        return f"S{nbytes}"
    if name == "raw_bytes":
        return f"V{nbytes}"
    return f"{order}U{nbytes // 4}" if name == "fixed_length_utf32" and nbytes % 4 == 0 else None


def _field(field: Any, order: str) -> tuple[str, np.dtype[Any]]:
    # "structured" has pairs, "struct" (zarr 3.4) has objects.
    name, data_type = (field["name"], field["data_type"]) if isinstance(field, dict) else field
    inner, configuration = _name_and_configuration(data_type)
    return name, _dtype_of(inner, configuration, order)


def fill_of(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the version 2 ``fill_value`` for that of version 3; raise ValueError if it is none.

    Examples
    --------
    >>> import numpy as np
    >>> fill_of("0x7fc00000", np.dtype("f4")), fill_of("NaT", np.dtype("M8[s]")), fill_of([1, 255], np.dtype("V2"))
    ('NaN', -9223372036854775808, 'Af8=')
    """
    if dtype.kind == "O":
        if not isinstance(value, str):
            raise ValueError(f"is {value!r}, and a string is expected")
        return value
    if value is None:
        raise ValueError("is null, and version 3 has no undefined one")
    return dtypes.encode_fill(_scalar(value, dtype), dtype)


def same_fill(one: Any, other: Any, dtype: np.dtype[Any]) -> bool:
    """Tell whether two ``fill_value`` members of version 3 mean the same bits.

    Examples
    --------
    >>> import numpy as np
    >>> same_fill("NaN", "0x7fc00000", np.dtype("f4")), same_fill("NaN", "0x7fc00001", np.dtype("f4"))
    (True, False)
    """
    import numpy as np

    if dtype.kind == "O":
        return bool(one == other)
    first, second = (np.asarray(_scalar(value, dtype), dtype=dtype).tobytes() for value in (one, other))
    return first == second


def _scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    import numpy as np

    if dtype.kind == "f" and isinstance(value, str) and value.startswith("0x"):
        return np.array(_bits(value, dtype.itemsize), dtype=dtype)[()]
    if dtype.kind == "c" and isinstance(value, list) and len(value) == 2:
        # Part by part: a list of floats as version 2 writes them would have lost the bits of a NaN.
        parts = np.dtype(f"f{dtype.itemsize // 2}")
        scalar = np.empty((), dtype=dtype)
        scalar.real, scalar.imag = (_scalar(part, parts) for part in value)
        return scalar[()]
    if dtype.kind == "V" and isinstance(value, list):
        value = base64.standard_b64encode(bytes(value)).decode("ascii")
    if dtype.names is not None and isinstance(value, dict):
        return _structure(value, dtype)
    return dtypes.decode_fill(value, dtype)


def _structure(value: dict[str, Any], dtype: np.dtype[Any]) -> Any:
    import numpy as np

    fields = dtype.names or ()
    if not value.keys() <= set(fields):
        raise ValueError(f"is {value!r}, and the fields are {', '.join(fields)}")
    item = np.zeros((), dtype=dtype)
    for name, part in value.items():
        item[name] = _scalar(part, dtype[name])
    return item[()]


def _bits(value: str, nbytes: int) -> float:
    raw = bytes.fromhex(value[2:])
    if len(raw) != nbytes:
        raise ValueError(f"is {value!r}, and {nbytes} bytes are expected")
    return float(struct.unpack({2: ">e", 4: ">f", 8: ">d"}[nbytes], raw)[0])
