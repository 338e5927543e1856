"""Whether a document of version 2 and one of version 3 describe the same node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zarrstore.metadata import documents, v2, v3
from zarrstore.metadata.chunkkeys import ChunkKeys, chunk_keys_of_v3

__all__ = ["attribute_differences", "differences"]


def differences(
    meta: v2.ArrayMeta | None,
    attrs: Mapping[str, Any],
    document: Mapping[str, Any],
    key: str = documents.ZARR_JSON,
    *,
    separator: str | None = None,
) -> list[str]:
    """Return what two descriptions of one node say differently; nothing if they agree.

    Parameters
    ----------
    meta : v2.ArrayMeta or None
        From ``.zarray``; None for a group.
    attrs : mapping
        From ``.zattrs``.
    document : mapping
        A ``zarr.json`` that `v3rules` finds no fault with.
    key : str
        Its full key, for errors.
    separator : str, optional
        What stands between the numbers of the chunks' names, where that is known better than by `meta`; ``""`` does
        not compare it.

    Examples
    --------
    >>> meta = v2.build_array(shape=4, chunks=2, dtype="<i4", fill_value=0)
    >>> document = v3.array_v2_to_v3(meta).document
    >>> differences(meta, {}, document), differences(meta, {"a": 1}, {**document, "shape": [5]})
    ([], ['"attributes" differ', '"shape" is [5] here, and [4] in version 2'])
    """
    if meta is None:
        expected = v3.group_v2_to_v3(attrs).document or {}
        return ['"attributes" differ'] if _unlike(expected["attributes"], document.get("attributes") or {}) else []
    translation = v3.array_v2_to_v3(meta, attrs)
    if translation.document is None:
        return []  # nothing to compare with: version 3 describes the array in its own way
    expected = translation.document
    found = attribute_differences(attrs, document)
    wanted = meta.separator if separator is None else separator
    found += _name_differences(chunk_keys_of_v3(document, key), wanted if len(meta.shape) > 1 else "")
    return found + _form_differences(expected, document, key)


def _form_differences(expected: Mapping[str, Any], document: Mapping[str, Any], key: str) -> list[str]:
    """Return how the form of two arrays differs, through the words of version 2: it spells equal ones alike."""
    ours = v3.array_v3_to_v2(expected, key, separator=".").document
    theirs = v3.array_v3_to_v2(document, key, separator=".").document
    if ours is None or theirs is None:
        if _unlike(expected["codecs"], document["codecs"]):
            return ['"codecs" differ']
        return []
    return [
        f'"{member}" is {theirs[member]!r} here, and {ours[member]!r} in version 2'
        for member in ("shape", "chunks", "dtype", "compressor", "filters", "order", "fill_value")
        if _unlike(ours[member], theirs[member])
    ]


def _name_differences(rule: ChunkKeys, separator: str) -> list[str]:
    """Return whether chunks are named otherwise than in version 2 with a separator; ``""`` is any."""
    if separator and rule[:2] != ("v2", separator):
        there = f"{rule.encoding} {rule.separator!r}"
        return [f'"chunk_key_encoding" is {there} here, and v2 {separator!r} in version 2']
    if rule.encoding != "v2":
        return [f'"chunk_key_encoding" is {rule.encoding} here, and v2 in version 2']
    return []


def attribute_differences(attrs: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    """Return whether attributes, or the names of axes among them, differ between ``.zattrs`` and a ``zarr.json``.

    Examples
    --------
    >>> document = {"shape": [3], "dimension_names": ["x"], "attributes": {"a": 1}}
    >>> attribute_differences({"a": 1, "_ARRAY_DIMENSIONS": ["x"]}, document), attribute_differences({}, document)
    ([], ['"attributes" differ', '"dimension_names" differ'])
    """
    wanted, names = v3.split_dimensions(attrs, len(document.get("shape", ())), [])
    found = []
    if _unlike(wanted, document.get("attributes") or {}):
        found.append('"attributes" differ')
    if _unlike(names or None, document.get("dimension_names") if any(document.get("dimension_names") or ()) else None):
        found.append('"dimension_names" differ')
    return found


def _unlike(one: Any, other: Any) -> bool:
    # As bytes: NaN is not equal to itself, and 1 is equal to True.
    return documents.dumps({"": one}) != documents.dumps({"": other})
