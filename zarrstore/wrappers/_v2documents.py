"""The documents of version 2 that stand in one document of version 3, read out of it and written into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.errors import MetadataError, NotRepresentableError
from zarrstore.metadata import consolidated, documents, v2, v3
from zarrstore.metadata.documents import ZARR_JSON, ZARRAY, ZATTRS, ZGROUP, ZMETADATA

__all__ = ["attrs_of", "document_of", "names_of", "with_attrs", "with_document"]


def names_of(node: Mapping[str, Any]) -> set[str]:
    """Return the names of the documents of version 2 that a node has.

    Examples
    --------
    >>> sorted(names_of({"node_type": "group", "attributes": {"a": 1}}))
    ['.zattrs', '.zgroup']
    """
    names = {ZARRAY if node["node_type"] == "array" else ZGROUP}
    if attrs_of(node):
        names.add(ZATTRS)
    if node.get("consolidated_metadata") is not None:
        names.add(ZMETADATA)
    return names


def document_of(node: Mapping[str, Any], path: str, name: str, separator: str | None) -> bytes:
    """Return one document of the node at `path`; raise NotRepresentableError where version 2 has no words for it."""
    if name == ZATTRS:
        return v2.encode_attrs(attrs_of(node))
    if name == ZGROUP:
        return v2.encode_group()
    if name == ZMETADATA:
        return zmetadata_of(node, path, separator)
    translation = v3.array_v3_to_v2(node, k.join(path, ZARR_JSON), separator=separator)
    if translation.document is None:
        raise NotRepresentableError(k.join(path, ZARRAY), 2, "; ".join(translation.problems))
    return documents.dumps(translation.document)


def zmetadata_of(node: Mapping[str, Any], path: str, separator: str | None) -> bytes:
    """Return what a group repeats of the nodes below it, without those that version 2 cannot represent."""
    found: dict[str, bytes] = {}
    nodes = {"": node, **(consolidated.parse_inline(node, k.join(path, ZARR_JSON)) or {})}
    for node_path, one in nodes.items():
        try:
            shown = {
                name: document_of(one, k.join(path, node_path), name, separator) for name in names_of(one) - {ZMETADATA}
            }
        except MetadataError:
            continue
        found.update((k.join(node_path, name), data) for name, data in shown.items())
    return consolidated.build(found)


def with_document(old: dict[str, Any] | None, key: str, name: str, value: bytes) -> dict[str, Any]:
    """Return the node as it is after its document `name` was set; `old` is None where there was no node."""
    if name == ZARRAY:
        return _array_for(v2.decode_array(value, key), old, key)
    group: dict[str, Any] = v3.group_v2_to_v3(attrs_of(old) if old else None).document or {}
    if name == ZGROUP:
        v2.decode_group(value, key)
        return old if old is not None and old["node_type"] == "group" else group
    node = dict(old) if old is not None else group
    if name == ZATTRS:
        return with_attrs(node, v2.decode_attrs(value, key))
    node["consolidated_metadata"] = _inline_for(consolidated.parse(value, key))
    return node


def attrs_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes as version 2 has them: the names of axes among them."""
    attrs = dict(node.get("attributes") or {})
    names = node.get("dimension_names")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        attrs[v3.DIMENSIONS] = names
    return attrs


def with_attrs(node: dict[str, Any], attrs: dict[str, Any]) -> dict[str, Any]:
    """Return the node with other attributes: names of axes as version 3 has them."""
    attrs = dict(attrs)
    if node["node_type"] == "array":
        names = attrs.get(v3.DIMENSIONS)
        node.pop("dimension_names", None)
        if isinstance(names, list) and len(names) == len(node["shape"]) and all(isinstance(n, str) for n in names):
            node["dimension_names"] = attrs.pop(v3.DIMENSIONS)
    return {**node, "attributes": attrs}


def _array_for(meta: v2.ArrayMeta, old: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
    translation = v3.array_v2_to_v3(meta, attrs_of(old) if old else None, chunk_keys="default")
    if translation.document is None:
        raise MetadataError(key, None, f"version 3 cannot represent it: {'; '.join(translation.problems)}")
    if old is not None and old["node_type"] == "array":
        # Its chunks are there already, under these names.
        translation.document["chunk_key_encoding"] = old["chunk_key_encoding"]
    return translation.document


def _inline_for(documents_by_key: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
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
