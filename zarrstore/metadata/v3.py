"""Version 3 documents, to and from version 2; the chunks are never touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zarrstore.metadata import v2

__all__ = ["Translation", "array_v2_to_v3", "array_v3_to_v2", "group_v2_to_v3", "group_v3_to_v2"]


@dataclass(frozen=True)
class Translation:
    """What came out, and what did not.

    Parameters
    ----------
    document : dict or None
        The translated document; None if the other version cannot say it.
    problems : list of str
        Why there is none. Empty where there is one.
    notes : list of str
        What the other version says in other words (a null fill value becomes 0).
    attrs : dict
        Attributes, where they live in a document of their own (version 2).
    """

    document: dict[str, Any] | None
    problems: list[str]
    notes: list[str]
    attrs: dict[str, Any]


def array_v2_to_v3(
    meta: v2.ArrayMeta, attrs: Mapping[str, Any] | None = None, *, chunk_keys: str = "v2"
) -> Translation:
    """Return the ``zarr.json`` under which the chunks of a version 2 array, untouched, decode to the same values.

    Parameters
    ----------
    meta : v2.ArrayMeta
        From `v2.decode_array`.
    attrs : mapping, optional
        From `v2.decode_attrs`. ``_ARRAY_DIMENSIONS`` becomes ``dimension_names``.
    chunk_keys : {'v2', 'default'}
        'v2' keeps the names of the chunks; 'default' is version 3's own (``c/0/0``), for a view that renames them.
    """
    raise NotImplementedError


def group_v2_to_v3(attrs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group."""
    raise NotImplementedError


def array_v3_to_v2(document: Mapping[str, Any], key: str = "zarr.json") -> Translation:
    """Return the ``.zarray`` (as `document`) and ``.zattrs`` (as `attrs`) for a version 3 array."""
    raise NotImplementedError


def group_v3_to_v2(document: Mapping[str, Any], key: str = "zarr.json") -> Translation:
    """Return the ``.zgroup`` (as `document`) and ``.zattrs`` (as `attrs`) for a version 3 group."""
    raise NotImplementedError
