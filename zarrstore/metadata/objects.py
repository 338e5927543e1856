"""Chunks of objects encoded by JSON, MsgPack and pickle: read with every size compared before memory is taken."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from zarrstore.metadata import dtypes
from zarrstore.metadata.pickles import load_array

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DECODERS", "decode_objects"]

#: Codecs that are read here. The names without a 2 are those of numcodecs before 0.6, which wrote no shape.
DECODERS = frozenset({"json", "json2", "msgpack", "msgpack2", "pickle"})


def decode_objects(
    step: dict[str, Any], data: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """Return the items that one of `DECODERS` encoded.

    Parameters
    ----------
    step : dict
        The codec's configuration.
    data : bytes-like
        What the codec wrote.
    dtype : numpy.dtype
        Of the array.
    shape : tuple of int
        Of the chunk.

    Returns
    -------
    numpy.ndarray
        Of the shape that `data` says: as many items as `shape` has.

    Raises
    ------
    ValueError
        It is damaged, or holds another number of items or another dtype.

    Notes
    -----
    numcodecs allocates the shape that a chunk says before it looks at the rest. Of a pickle no more is read than
    `pickles.load_array` does. Source: numcodecs 0.16 and 0.5.

    Examples
    --------
    >>> import numpy as np
    >>> decode_objects({"id": "json2"}, b'["a",{"b":1},"|O",[2]]', np.dtype("O"), (2,)).tolist()
    ['a', {'b': 1}]
    """
    raw = bytes(memoryview(data).cast("B"))
    name = step["id"]
    if name == "pickle":
        return load_array(raw)
    if name[:4] == "json":
        found = json.loads(raw.decode(step.get("encoding", "utf-8")), strict=bool(step.get("strict", True)))
    else:
        import msgpack

        found = msgpack.unpackb(raw, raw=bool(step.get("raw", False)))
    return _items(found, dtype, shape, with_shape=name[-1:] == "2")


def _items(found: Any, dtype: np.dtype[Any], shape: tuple[int, ...], *, with_shape: bool) -> np.ndarray[Any, Any]:
    import numpy as np

    members = 2 if with_shape else 1
    if not isinstance(found, list) or len(found) < members:
        raise ValueError("it is no list that ends with the dtype of its items")
    values = found[:-members]
    _check_spelling(found[-members], dtype)
    if with_shape:
        shape = _stated_shape(found[-1], math.prod(shape))
    items = np.empty(shape, dtype=dtype)
    if not shape:
        items[()] = _only(values)
        return items
    flat = _flattened(values, shape)
    if len(flat) != items.size:
        raise ValueError(f"it has {len(flat):,} items, and {items.size:,} are expected")
    flat_items = items.reshape(-1)
    for at, value in enumerate(flat):
        flat_items[at] = value
    return items


def _check_spelling(spelling: Any, dtype: np.dtype[Any]) -> None:
    if isinstance(spelling, bytes):
        spelling = spelling.decode("ascii")
    if not isinstance(spelling, str) or dtypes.decode_dtype(spelling) != dtype:
        raise ValueError(f"it holds {spelling!r}, and {dtype.str!r} is expected")


def _stated_shape(stated: Any, nitems: int) -> tuple[int, ...]:
    if not isinstance(stated, list) or not all(type(size) is int and size >= 0 for size in stated):
        raise ValueError(f"its shape is {stated!r}")
    if math.prod(stated) != nitems:
        raise ValueError(f"it has {math.prod(stated):,} items, and {nitems:,} are expected")
    return tuple(stated)


def _flattened(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Return the items of lists in lists; every list of one level has to be as long as the shape says."""
    for size in shape[1:]:
        if not all(isinstance(one, list) and len(one) == size for one in values):
            raise ValueError(f"its lists are no array of shape {shape}")
        values = [value for one in values for value in one]
    return values


def _only(values: list[Any]) -> Any:
    if len(values) != 1:
        raise ValueError(f"it has {len(values):,} items, and one is expected")
    return values[0]
