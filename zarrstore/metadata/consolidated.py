"""Consolidated metadata: one document that repeats all others, in version 2 and in version 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zarrstore import keys
from zarrstore.errors import InvalidKeyError, MetadataError
from zarrstore.metadata import documents

__all__ = [
    "Staleness",
    "build",
    "build_inline",
    "compare",
    "compare_inline",
    "is_repeated",
    "parse",
    "parse_inline",
]

_REPEATED = frozenset({documents.ZARRAY, documents.ZGROUP, documents.ZATTRS})


def is_repeated(key: str) -> bool:
    """Tell whether consolidated metadata of version 2 repeats the document at `key`.

    Examples
    --------
    >>> is_repeated("foo/.zarray"), is_repeated(".zmetadata"), is_repeated("foo.zarray")
    (True, False, False)
    """
    return keys.name(key) in _REPEATED


def build(found: Mapping[str, bytes]) -> bytes:
    r"""Return the bytes of a ``.zmetadata`` that repeats the given documents; the same for any order of them.

    Parameters
    ----------
    found : mapping of str to bytes
        Keys relative to the hierarchy, and the documents; what is no document (a chunk, ``.zmetadata``) is left out.

    Raises
    ------
    MetadataError
        A document cannot be parsed, or its key is none; the error names it.

    Notes
    -----
    Source: zarr 2.18.7 ``consolidate_metadata``, the same bytes.

    Examples
    --------
    >>> build({".zgroup": b'{"zarr_format": 2}', "foo/0.0": b"chunk"}).count(b"\n")
    7
    """
    metadata = {
        _judged(key, documents.ZMETADATA): documents.loads(found[key], key) for key in found if is_repeated(key)
    }
    return documents.dumps({"zarr_consolidated_format": 1, "metadata": metadata})


def parse(data: bytes, key: str = documents.ZMETADATA, *, strict: bool = True) -> dict[str, dict[str, Any]]:
    """Return the documents that a ``.zmetadata`` repeats, parsed, by their keys: every name judged.

    Parameters
    ----------
    data : bytes
        The document.
    key : str
        Its full key, for the error.
    strict : bool, default True
        Refuse a name that is no key or no document's. Otherwise such an entry is left out: it stands for nothing that
        can be read, and the others are as good as without it.

    Returns
    -------
    dict of str to dict
        Not judged member by member: `v2.check_array` and `v2.check_group` do that, and cost more.

    Raises
    ------
    MetadataError
        It is no consolidated metadata of format 1, or a name in it is no key or no document's.

    Examples
    --------
    >>> parse(b'{"zarr_consolidated_format": 1, "metadata": {"a/.zgroup": {"zarr_format": 2}}}')
    {'a/.zgroup': {'zarr_format': 2}}
    >>> parse(b'{"zarr_consolidated_format": 1, "metadata": {"../x/.zarray": {}}}')
    Traceback (most recent call last):
    zarrstore.errors.MetadataError: '.zmetadata' is not Zarr metadata: "../x/.zarray" is no key: '..' is not a segment
    """
    document = documents.loads(data, key)
    version = document.get("zarr_consolidated_format")
    if version != 1 or isinstance(version, bool):
        raise MetadataError(key, "zarr_consolidated_format", f"is {version!r}, and 1 is expected")
    metadata = _object(document, "metadata", key)
    entries = {}
    for name in metadata:
        try:
            _judged(name, key)
            if not is_repeated(name):
                raise MetadataError(key, name, f"names no document: {', '.join(sorted(_REPEATED))} are repeated")
            entries[name] = _object(metadata, name, key)
        except MetadataError:
            if strict:
                raise
    return entries


def _judged(name: str, key: str) -> str:
    try:
        return keys.check_key(name)
    except InvalidKeyError as exc:
        raise MetadataError(key, name, f"is no key: {exc.reason}") from None


def _object(members: Mapping[str, Any], name: str, key: str) -> dict[str, Any]:
    value = members.get(name)
    if not isinstance(value, dict):
        raise MetadataError(key, name, "is missing" if name not in members else "is no object")
    return value


@dataclass(frozen=True)
class Staleness:
    """How consolidated metadata differs from the documents it repeats: keys, sorted. False if it does not.

    Parameters
    ----------
    missing : tuple of str
        Documents that it lacks.
    extra : tuple of str
        Documents that it repeats and that are not there.
    different : tuple of str
        Documents that say something else, or that cannot be parsed.
    """

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    different: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.different)


def compare(consolidated: Mapping[str, Mapping[str, Any]], found: Mapping[str, bytes]) -> Staleness:
    """Tell what consolidated metadata misses, has too much and says differently, by meaning and not by spelling.

    Parameters
    ----------
    consolidated : mapping of str to dict
        From `parse`.
    found : mapping of str to bytes
        The documents themselves; what is no document is left out.

    Examples
    --------
    >>> compare({"a/.zgroup": {"zarr_format": 2}}, {"a/.zgroup": b'{"zarr_format":2}', "b/.zgroup": b"{}"})
    Staleness(missing=('b/.zgroup',), extra=(), different=())
    """
    there = {key for key in found if is_repeated(key)}
    different = []
    for key in sorted(there & consolidated.keys()):
        try:
            # Bytes are compared, because NaN is not equal to itself, and 1 is equal to True.
            same = documents.dumps(documents.loads(found[key], key)) == documents.dumps(consolidated[key])
        except MetadataError:
            same = False
        if not same:
            different.append(key)
    return Staleness(
        missing=tuple(sorted(there - consolidated.keys())),
        extra=tuple(sorted(consolidated.keys() - there)),
        different=tuple(different),
    )


def compare_inline(repeated: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> Staleness:
    """Tell how inline consolidated metadata of version 3 differs from the documents that it repeats.

    Parameters
    ----------
    repeated : mapping of str to dict
        From `parse_inline`.
    found : mapping of str to dict
        The ``zarr.json`` of every node below the group, by its path relative to the group.

    Examples
    --------
    >>> compare_inline({"a": {"node_type": "group"}}, {"b": {"node_type": "array"}})
    Staleness(missing=('b',), extra=('a',), different=())
    """
    common = repeated.keys() & found.keys()
    return Staleness(
        missing=tuple(sorted(found.keys() - repeated.keys())),
        extra=tuple(sorted(repeated.keys() - found.keys())),
        different=tuple(sorted(path for path in common if _essence(repeated[path]) != _essence(found[path]))),
    )


def _essence(node: Mapping[str, Any]) -> bytes:
    """Return what a ``zarr.json`` says, without what means the same when it is absent."""
    members = {name: value for name, value in node.items() if name != "consolidated_metadata"}
    for name in ("attributes", "storage_transformers", "dimension_names"):
        if not members.get(name):
            members.pop(name, None)
    return documents.dumps(members)


def build_inline(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ``consolidated_metadata`` member of a version 3 group.

    Parameters
    ----------
    nodes : mapping of str to dict
        The ``zarr.json`` of every node below the group, by its path relative to the group.

    Notes
    -----
    Source: zarr 3.1.6, whose order (by depth, then by path) and shape (an empty member in each group below) this keeps.

    Examples
    --------
    >>> nodes = {"b/x": {"node_type": "array"}, "b": {"node_type": "group"}}
    >>> list(build_inline(nodes)["metadata"])
    ['b', 'b/x']
    """
    metadata = {}
    for path in sorted(nodes, key=lambda path: (len(keys.segments(path)), path)):
        node = {name: value for name, value in nodes[path].items() if name != "consolidated_metadata"}
        if node.get("node_type") == "group":
            node["consolidated_metadata"] = _inline({})
        metadata[path] = node
    return _inline(metadata)


def _inline(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": metadata}


def parse_inline(document: Mapping[str, Any], key: str = documents.ZARR_JSON) -> dict[str, dict[str, Any]] | None:
    """Return the nodes that a version 3 group's ``zarr.json`` repeats, by judged path; None if it repeats none.

    Raises
    ------
    MetadataError
        ``consolidated_metadata`` is not of the kind "inline", or a name in it is no key.

    Examples
    --------
    >>> parse_inline({"node_type": "group"}) is None
    True
    >>> parse_inline({"consolidated_metadata": {"kind": "inline", "metadata": {"/a": {}}}})
    Traceback (most recent call last):
    zarrstore.errors.MetadataError: 'zarr.json' is not Zarr metadata: "/a" is no key: a key does not begin with '/'
    """
    if document.get("consolidated_metadata") is None:
        return None
    inline = _object(document, "consolidated_metadata", key)
    if inline.get("kind") != "inline":
        raise MetadataError(key, "consolidated_metadata", f'is of the kind {inline.get("kind")!r}, not "inline"')
    metadata = _object(inline, "metadata", key)
    for name in metadata:
        _judged(name, key)
        _object(metadata, name, key)
    return metadata
