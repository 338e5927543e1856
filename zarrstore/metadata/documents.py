"""JSON documents: their names, the bytes that zarr writes, and a strict reader with one error."""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.errors import MetadataError

__all__ = [
    "ATTRS",
    "DOCUMENTS",
    "MAX_DEPTH",
    "MAX_NBYTES",
    "META",
    "ZARRAY",
    "ZARR_JSON",
    "ZATTRS",
    "ZGROUP",
    "ZMETADATA",
    "deletion_order",
    "dumps",
    "loads",
    "refuse_constants",
]

ZARRAY = ".zarray"
ZGROUP = ".zgroup"
ZATTRS = ".zattrs"
ZMETADATA = ".zmetadata"
ZARR_JSON = "zarr.json"
#: The two documents of version 1.
META = "meta"
ATTRS = "attrs"

#: Names that a document of version 2 or 3 has. (``meta`` and ``attrs`` are not here: in a version 2 hierarchy they are
#: ordinary names, see ``stations/meta`` in any xarray file.)
DOCUMENTS = frozenset({ZARRAY, ZGROUP, ZATTRS, ZMETADATA, ZARR_JSON})

#: Deepest nesting of a document. Genuine ones stay below 20; Python's parser overflows its stack at about 1,000.
MAX_DEPTH = 128
#: Largest document, in bytes. Consolidated metadata of 100,000 arrays has about 50 MiB.
MAX_NBYTES = 256 << 20

# A string that is never closed is taken to the end in one go (the quote is optional, nothing is given back):
# otherwise each of its quotes would be tried as a beginning, and 1 MB of \"\"\" would take minutes.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class _Encoder(json.JSONEncoder):
    """Writes NumPy's numbers as Python's."""

    def default(self, o: Any) -> Any:
        if isinstance(o, numbers.Integral):
            return int(o)
        if isinstance(o, numbers.Real):
            return float(o)
        return super().default(o)


def deletion_order(key: str) -> tuple[int, bool, str]:
    """Return what documents are sorted by to be deleted one by one: the deepest first, the node's own after the others.

    Examples
    --------
    >>> sorted([".zgroup", ".zmetadata", "a/.zarray", "a/.zattrs"], key=deletion_order)
    ['a/.zattrs', 'a/.zarray', '.zmetadata', '.zgroup']
    """
    return -len(k.segments(key)), k.name(key) in (ZARRAY, ZGROUP, ZARR_JSON), key


def dumps(document: Any) -> bytes:
    r"""Return a document as the very bytes that zarr 2 writes.

    Parameters
    ----------
    document : dict
        Anything that JSON can represent, NumPy scalars included. NaN and infinities become the bare tokens that zarr 2
        writes too.

    Returns
    -------
    bytes
        ASCII, indented by 4, members sorted.

    Raises
    ------
    TypeError
        `document` holds what JSON cannot represent.
    ValueError
        `document` holds itself.

    Notes
    -----
    Source: zarr 2.18.7 ``json_dumps``, the same bytes.

    Examples
    --------
    >>> dumps({"zarr_format": 2})
    b'{\n    "zarr_format": 2\n}'
    """
    text = json.dumps(document, cls=_Encoder, indent=4, sort_keys=True, ensure_ascii=True, separators=(",", ": "))
    return text.encode("ascii")


class _DuplicateMember(ValueError):
    """Carries the name out of the parser."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateMember(name)
            seen.add(name)
    return members


# Made once: json.loads with a hook builds a decoder per call.
_DECODER = json.JSONDecoder(object_pairs_hook=_members)


def _too_deep(data: bytes) -> bool:
    # The ordinary document is let through by two counts.
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _STRINGS.sub(b"", data).translate(None, _NOT_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        else:
            depth -= 1
    return False


def loads(data: bytes, key: str) -> dict[str, Any]:
    """Parse a document, or raise one MetadataError that says what is wrong with it.

    Parameters
    ----------
    data : bytes
        The value of `key`.
    key : str
        Full key of the document, for the error.

    Returns
    -------
    dict
        The members.

    Raises
    ------
    MetadataError
        `data` is larger than `MAX_NBYTES`, is not UTF-8, not JSON, not an object, nested deeper than `MAX_DEPTH`,
        or names a member twice.

    Notes
    -----
    About 5 µs for an array's document. Depth is found before parsing, in one pass, so a hostile document costs neither
    the stack nor time: 10,000 levels are refused in 0.1 ms. Bare ``NaN``, ``Infinity`` and ``-Infinity``, which JSON
    does not know, are let through: genuine ``.zattrs`` and version 1 ``meta`` contain them. See `refuse_constants`.

    Examples
    --------
    >>> loads(b'{"zarr_format": 2}', "foo/.zgroup")
    {'zarr_format': 2}
    >>> loads(b'{"a": 1, "a": 2}', "foo/.zattrs")
    Traceback (most recent call last):
    zarrstore.errors.MetadataError: 'foo/.zattrs' is not Zarr metadata: "a" stands there twice
    """
    if len(data) > MAX_NBYTES:
        raise MetadataError(key, None, f"has {len(data):,} bytes, and {MAX_NBYTES:,} are allowed")
    if _too_deep(data):
        raise MetadataError(key, None, f"is nested deeper than {MAX_DEPTH} levels")
    try:
        document = _DECODER.decode(str(data, "utf-8"))
    except UnicodeDecodeError as exc:
        raise MetadataError(key, None, f"is not UTF-8 at byte {exc.start}") from None
    except _DuplicateMember as exc:
        raise MetadataError(key, str(exc), "stands there twice") from None
    except json.JSONDecodeError as exc:
        raise MetadataError(key, None, f"is not JSON: {exc}") from None
    except (ValueError, RecursionError) as exc:
        # A number of more than 4,300 digits; the caller's own stack is nearly full.
        raise MetadataError(key, None, f"cannot be parsed: {exc}") from None
    if not isinstance(document, dict):
        raise MetadataError(key, None, f"is a JSON {_json_type(document)}, not an object")
    return document


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    return {list: "array", str: "string", bool: "boolean"}.get(type(value), "number")


def refuse_constants(document: Mapping[str, Any], key: str) -> None:
    """Raise MetadataError if a parsed document holds NaN or an infinity at any depth.

    Examples
    --------
    >>> refuse_constants(loads(b'{"shape": [Infinity]}', "foo/.zarray"), "foo/.zarray")
    Traceback (most recent call last):
    zarrstore.errors.MetadataError: 'foo/.zarray' is not Zarr metadata: "shape" holds a bare NaN or Infinity
    """
    for member, value in document.items():
        if _holds_not_finite(value):
            raise MetadataError(key, member, "holds a bare NaN or Infinity")


def _holds_not_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, list):
        return any(map(_holds_not_finite, value))
    if isinstance(value, dict):
        return any(map(_holds_not_finite, value.values()))
    return False
