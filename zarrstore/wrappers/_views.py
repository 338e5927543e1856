"""What the views of one version over the other share: names of chunks, and documents as one sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.chunknames import is_chunk_name
from zarrstore.errors import MetadataError
from zarrstore.metadata import consolidated, v2, v3
from zarrstore.metadata.documents import ZATTRS, ZGROUP

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_KEYS", "array_for", "attrs_of", "inline_for", "may_name_a_chunk", "with_attrs"]

#: What a batch of writes holds at most.
MAX_BATCH_BYTES = 16 << 20
MAX_BATCH_KEYS = 1024


def may_name_a_chunk(name: str) -> bool:
    """Tell whether the last segment of a key may be that of a chunk, in version 2 or in version 3.

    Examples
    --------
    >>> [may_name_a_chunk(name) for name in ("0.1", "7", "c", "c.0.1", "chunk", ".zarray")]
    [True, True, True, True, False, False]
    """
    return is_chunk_name(name) or name == "c" or (name[:2] == "c." and is_chunk_name(name[2:]))


def attrs_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes as version 2 has them: the names of axes among them."""
    attrs = dict(node.get("attributes") or {})
    names = node.get("dimension_names")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        attrs[v3.DIMENSIONS] = names
    return attrs


def with_attrs(node: dict[str, Any], attrs: dict[str, Any]) -> dict[str, Any]:
    attrs = dict(attrs)
    if node["node_type"] == "array":
        names = attrs.get(v3.DIMENSIONS)
        node.pop("dimension_names", None)
        if isinstance(names, list) and len(names) == len(node["shape"]) and all(isinstance(n, str) for n in names):
            node["dimension_names"] = attrs.pop(v3.DIMENSIONS)
    return {**node, "attributes": attrs}


def array_for(meta: v2.ArrayMeta, old: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    translation = v3.array_v2_to_v3(meta, attrs_of(old) if old else None, chunk_keys="default")
    if translation.document is None:
        raise MetadataError(key, None, f"version 3 cannot represent it: {'; '.join(translation.problems)}")
    if old is not None and old["node_type"] == "array":
        # Its chunks are there already, under these names.
        translation.document["chunk_key_encoding"] = old["chunk_key_encoding"]
    return translation.document


def inline_for(documents_by_key: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what version 3 repeats of the documents that a ``.zmetadata`` repeats."""
    nodes: dict[str, dict[str, Any]] = {}
    for key, document in documents_by_key.items():
        path, name = k.parent(key), k.name(key)
        if not path or name == ZATTRS:
            continue
        attrs = dict(documents_by_key.get(k.join(path, ZATTRS), {}))
        if name == ZGROUP:
            nodes[path] = v3.group_v2_to_v3(attrs).document or {}
        else:
            translation = v3.array_v2_to_v3(v2.check_array(document, key), attrs, chunk_keys="default").document
            if translation is not None:
                nodes[path] = translation
    return consolidated.build_inline(nodes)
