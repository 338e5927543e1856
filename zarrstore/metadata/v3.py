"""Version 3 documents, to and from version 2; the chunks are never touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from zarrstore.errors import MetadataError
from zarrstore.metadata import documents, dtypes, v2, v3codecs, v3types
from zarrstore.metadata.chunkkeys import chunk_keys_of_v3
from zarrstore.metadata.readers import misreadings

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Translation",
    "array_v2_to_v3",
    "array_v3_to_v2",
    "group_v2_to_v3",
    "group_v3_to_v2",
    "losses",
    "node_type",
    "split_dimensions",
    "without_codecs",
]

#: Where xarray keeps the names of the axes in version 2.
DIMENSIONS = "_ARRAY_DIMENSIONS"

_ARRAY_MEMBERS = frozenset(
    {
        "zarr_format",
        "node_type",
        "shape",
        "data_type",
        "chunk_grid",
        "chunk_key_encoding",
        "fill_value",
        "codecs",
        "attributes",
        "dimension_names",
        "storage_transformers",
    }
)
_GROUP_MEMBERS = frozenset({"zarr_format", "node_type", "attributes", "consolidated_metadata"})


@dataclass(frozen=True)
class Translation:
    """What came out, and what did not.

    Parameters
    ----------
    document : dict or None
        The translated document, for `documents.dumps`; None if the other version cannot represent it.
    problems : list of str
        Why there is none. Empty where there is one.
    notes : list of str
        What the other version says in other words (a null fill value becomes 0), or not at all.
    attrs : dict
        Attributes, where they live in a document of their own (version 2); empty for version 3.
    """

    document: dict[str, Any] | None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)


def array_v2_to_v3(
    meta: v2.ArrayMeta,
    attrs: Mapping[str, Any] | None = None,
    *,
    chunk_keys: str = "v2",
    separator: str | None = None,
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
    separator : {'.', '/'}, optional
        What stands between the numbers of the chunks' names, where that is known better than by the document.

    Returns
    -------
    Translation
        Without a document where version 3, as zarr 3.1 reads it, has no equivalent: objects other than strings and
        bytes, structures with subarrays, gaps, objects or big-endian fields, floats beyond 64 bits, codecs that zarr 3
        lacks.

    Notes
    -----
    Proven with zarr 3.1.6 and 3.4.2 on what zarr 2.18.7 wrote. ``null`` fill values become the dtype's zero.

    Examples
    --------
    >>> meta = v2.build_array(shape=(4, 6), chunks=(2, 3), dtype="<f4", fill_value=float("nan"))
    >>> translation = array_v2_to_v3(meta, {"_ARRAY_DIMENSIONS": ["y", "x"], "units": "K"})
    >>> translation.document["dimension_names"], translation.document["attributes"], translation.document["fill_value"]
    (['y', 'x'], {'units': 'K'}, 'NaN')
    >>> array_v2_to_v3(v2.build_array(shape=3, dtype="O", object_codec={"id": "json2"})).problems
    ["objects encoded by 'json2': version 3 knows strings and bytes only"]
    """
    notes: list[str] = []
    object_codec = meta.filters[0]["id"] if meta.filters else None
    dtype = meta.numpy_dtype
    try:
        data_type = v3types.data_type_of(dtype, object_codec)
        codecs = v3codecs.chain_to_v3(meta)
        fill_value = v3types.fill_to_v3(meta.fill_value, dtype, notes, object_codec)
    except v3types.NotRepresentable as exc:
        return Translation(None, [str(exc)], notes)
    attributes, names = split_dimensions(attrs or {}, len(meta.shape), notes)
    if names is not None and meta.fill_value not in (None, "NaN", "") and "_FillValue" not in attributes:
        notes.append(
            f"xarray takes the fill value {meta.fill_value!r} for missing data in version 2, "
            "and in version 3 only with use_zarr_fill_value_as_mask=True"
        )
    if meta.extra:
        notes.append(f"left out, because version 3 knows no such members: {', '.join(sorted(meta.extra))}")
    document: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(meta.shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(meta.chunks)}},
        "chunk_key_encoding": _encoding(chunk_keys, separator or meta.separator),
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": _attributes(attributes, notes),
        "storage_transformers": [],
    }
    if names is not None:
        document["dimension_names"] = names
    return Translation(document, [], [*notes, *misreadings(document)])


def _encoding(chunk_keys: str, separator: str) -> dict[str, Any]:
    if chunk_keys == "default":
        return {"name": "default", "configuration": {"separator": "/"}}
    if chunk_keys != "v2":
        raise ValueError(f"chunk_keys {chunk_keys!r}: 'v2' or 'default' is expected")
    return {"name": "v2", "configuration": {"separator": separator}}


def split_dimensions(attrs: Mapping[str, Any], ndim: int, notes: list[str]) -> tuple[dict[str, Any], list[str] | None]:
    """Return attributes without the names of the axes, and those names; None where they do not name all axes.

    Examples
    --------
    >>> split_dimensions({"units": "K", "_ARRAY_DIMENSIONS": ["x"]}, 1, [])
    ({'units': 'K'}, ['x'])
    """
    names = attrs.get(DIMENSIONS)
    if DIMENSIONS not in attrs:
        return dict(attrs), None
    if isinstance(names, list) and len(names) == ndim and all(isinstance(name, str) for name in names):
        return {name: value for name, value in attrs.items() if name != DIMENSIONS}, names
    notes.append(f"{DIMENSIONS} {names!r} stays an attribute: it does not name the {ndim} axes of the array")
    return dict(attrs), None


def _attributes(attrs: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    try:
        documents.refuse_constants(attrs, documents.ZARR_JSON)
    except MetadataError as exc:
        notes.append(f'attribute "{exc.member}" {exc.reason}, which readers not written in Python may refuse')
    return attrs


def group_v2_to_v3(attrs: Mapping[str, Any] | None = None) -> Translation:
    """Return the ``zarr.json`` of a group; `consolidated.build_inline` gives what it may repeat.

    Examples
    --------
    >>> group_v2_to_v3({"title": "survey"}).document
    {'zarr_format': 3, 'node_type': 'group', 'attributes': {'title': 'survey'}}
    """
    notes: list[str] = []
    attributes = _attributes(dict(attrs or {}), notes)
    return Translation({"zarr_format": 3, "node_type": "group", "attributes": attributes}, [], notes)


def node_type(document: Mapping[str, Any], key: str = documents.ZARR_JSON) -> str:
    """Return what a ``zarr.json`` describes: 'array' or 'group'; raise MetadataError if neither.

    Examples
    --------
    >>> node_type({"zarr_format": 3, "node_type": "group"})
    'group'
    """
    version = document.get("zarr_format")
    if type(version) is not int or version != 3:
        raise MetadataError(key, "zarr_format", f"is {version!r}, and 3 is expected")
    found = document.get("node_type")
    if found not in ("array", "group"):
        raise MetadataError(key, "node_type", f"is {found!r}, and 'array' or 'group' is expected")
    return str(found)


def array_v3_to_v2(
    document: Mapping[str, Any], key: str = documents.ZARR_JSON, *, separator: str | None = None
) -> Translation:
    """Return the ``.zarray`` (as `document`) and ``.zattrs`` (as `attrs`) for a version 3 array.

    Parameters
    ----------
    document : mapping
        A parsed ``zarr.json``.
    key : str
        Its full key, for the error.
    separator : {'.', '/'}, optional
        What parts the numbers of a chunk's name above the view; by default what the document says.

    Returns
    -------
    Translation
        Without a document where version 2 has no equivalent: sharding, irregular grids, other transpositions, other
        types.

    Raises
    ------
    MetadataError
        It is no version 3 array.

    Examples
    --------
    >>> meta = v2.build_array(shape=(4, 6), chunks=(2, 3), dtype=">f4", fill_value=0, order="F")
    >>> back = array_v3_to_v2(array_v2_to_v3(meta).document)
    >>> back.document == meta.document()
    True
    """
    _check_array_members(document, key)
    attrs = _attrs(document, key)
    own_separator = chunk_keys_of_v3(document, key).separator
    for member in ("shape", "codecs"):
        if not isinstance(document[member], list):
            raise MetadataError(key, member, "is no list")
    problems = _not_understood(document, _ARRAY_MEMBERS)
    if document.get("storage_transformers"):
        problems.append("storage transformers: version 2 has none")
    try:
        stored = _stored_form(document)
    except v3types.NotRepresentable as exc:
        problems.append(str(exc))
    if problems:
        return Translation(None, problems, [], attrs)
    chain, object_codec = stored.chain, stored.object_codec
    if object_codec is not None and [step["id"] for step in chain.filters[:1]] != [object_codec]:
        return Translation(None, [f"strings that {object_codec!r} does not encode"], [], attrs)
    fill_value = _fill_back(document["fill_value"], stored, key)
    zarray: dict[str, Any] = {
        "zarr_format": 2,
        "shape": document["shape"],
        "chunks": stored.chunks,
        "dtype": dtypes.encode_dtype(stored.dtype),
        "compressor": chain.compressor,
        "fill_value": fill_value,
        "order": chain.order,
        "filters": chain.filters or None,
    }
    shown_separator = own_separator if separator is None else separator
    if shown_separator != ".":
        zarray["dimension_separator"] = shown_separator
    notes: list[str] = []
    _dimensions_back(document.get("dimension_names"), len(document["shape"]), attrs, notes)
    if stored.dtype.kind in "fc" and not v3types.same_fill(fill_value, document["fill_value"], stored.dtype):
        notes.append(f"fill_value {document['fill_value']!r} becomes {fill_value!r}: version 2 has only one NaN")
    # Judged by the rules of version 2, with the key of this document.
    return Translation(v2.check_array(zarray, key).document(), [], notes, attrs)


def _check_array_members(document: Mapping[str, Any], key: str) -> None:
    if node_type(document, key) != "array":
        raise MetadataError(key, "node_type", "is 'group', and 'array' is expected")
    missing = _ARRAY_MEMBERS - document.keys() - {"attributes", "dimension_names", "storage_transformers"}
    if missing:
        raise MetadataError(key, min(missing), "is missing")


class _StoredForm(NamedTuple):
    """How version 2 says in what form the chunks of an array of version 3 are stored."""

    chunks: Any  # not judged yet
    chain: v3codecs.Chain
    dtype: np.dtype[Any]
    object_codec: str | None


def _stored_form(document: Mapping[str, Any]) -> _StoredForm:
    """Return how version 2 says it; raise NotRepresentable if it cannot."""
    chunks = _chunks(document["chunk_grid"])
    chain = v3codecs.chain_of(document["codecs"], len(document["shape"]))
    dtype, object_codec = v3types.dtype_of(document["data_type"], None if chain.dtype else chain.endian)
    if object_codec == "vlen-bytes" and document["fill_value"]:
        # JSON has no bytes, and a text would be read as text.
        raise v3types.NotRepresentable(f"fill_value {document['fill_value']!r} of variable-length bytes")
    return _StoredForm(chunks, chain, dtype if chain.dtype is None else chain.dtype, object_codec)


def _fill_back(fill_value: Any, stored: _StoredForm, key: str) -> Any:
    """Return a fill value as version 2 writes it; raise MetadataError if it is none of the dtype."""
    try:
        found = v3types.fill_of(fill_value, stored.dtype)
    except Exception as exc:  # ValueError by us; NumPy, struct and base64 raise what they like.
        raise MetadataError(key, "fill_value", str(exc)) from None
    # 0 is what zarr 2 writes itself, and vlen-bytes encodes as b"".
    return 0 if stored.object_codec == "vlen-bytes" else found


def without_codecs(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of the same array with the plainest codecs: its shape and grid without its encoding.

    Examples
    --------
    >>> without_codecs({"data_type": "string", "codecs": []})["codecs"]
    [{'name': 'vlen-utf8'}]
    """
    try:
        _, object_codec = v3types.dtype_of(document.get("data_type"), None)
    except v3types.NotRepresentable:
        object_codec = None
    plain = {"name": object_codec} if object_codec else {"name": "bytes", "configuration": {"endian": "little"}}
    return {**document, "codecs": [plain]}


def losses(document: Mapping[str, Any], key: str = documents.ZARR_JSON) -> list[str]:
    """Return what of a version 3 array would not come back if it were kept as version 2; nothing if all would.

    Parameters
    ----------
    document : mapping
        A parsed ``zarr.json`` that `array_v3_to_v2` gives a document for.
    key : str
        Its full key, for errors.

    Notes
    -----
    The names of chunks are not compared.

    Examples
    --------
    >>> document = array_v2_to_v3(v2.build_array(shape=(4, 4), dtype="<f4", fill_value=0)).document
    >>> losses(document), losses({**document, "dimension_names": ["x", None]})
    ([], ["dimension_names ['x', None]"])
    """
    there = array_v3_to_v2(document, key)
    meta = v2.check_array(there.document or {}, key)
    back = array_v2_to_v3(meta, there.attrs)
    if back.document is None:
        return [f"codecs: {'; '.join(back.problems)}"]
    lost = [f"member {member!r}" for member in sorted(document.keys() - _ARRAY_MEMBERS)]
    names = document.get("dimension_names")
    if any(names or ()) and back.document.get("dimension_names") != names:
        lost.append(f"dimension_names {names!r}")
    if documents.dumps(back.document["attributes"]) != documents.dumps(document.get("attributes") or {}):
        lost.append("attributes")
    lost += _lost_item(document, back.document)
    if array_v3_to_v2(back.document, key, separator=".").document != {
        name: value for name, value in (there.document or {}).items() if name != "dimension_separator"
    }:
        lost.append("codecs")
    return lost


def _lost_item(document: Mapping[str, Any], back: Mapping[str, Any]) -> list[str]:
    """Return what of the type and the fill value does not come back."""
    dtype, _ = v3types.dtype_of(document["data_type"], None)
    if v3types.dtype_of(back["data_type"], None)[0] != dtype:
        return [f"data_type {document['data_type']!r}"]
    if not v3types.same_fill(back["fill_value"], document["fill_value"], dtype):
        return [f"fill_value {document['fill_value']!r}"]
    return []


def _attrs(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    attrs = document.get("attributes")
    attrs = {} if attrs is None else attrs  # zarr 3 takes null for an empty object
    if not isinstance(attrs, dict):
        raise MetadataError(key, "attributes", "is no object")
    return dict(attrs)


def _not_understood(document: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    return [
        f"member {member!r}, which must be understood"
        for member in sorted(document.keys() - set(known))
        if not (isinstance(document[member], dict) and document[member].get("must_understand") is False)
    ]


def _chunks(grid: Any) -> Any:
    if isinstance(grid, dict) and grid.get("name") == "regular" and isinstance(grid.get("configuration"), dict):
        return grid["configuration"].get("chunk_shape")
    raise v3types.NotRepresentable(f"chunk grid {grid!r}: version 2 knows regular ones only")


def _dimensions_back(names: Any, ndim: int, attrs: dict[str, Any], notes: list[str]) -> None:
    if names is None or names == [None] * ndim:
        return
    if isinstance(names, list) and len(names) == ndim and all(isinstance(name, str) for name in names):
        attrs[DIMENSIONS] = names
    else:
        notes.append(f"dimension_names {names!r} were left out: {DIMENSIONS} names all axes or none")


def group_v3_to_v2(document: Mapping[str, Any], key: str = documents.ZARR_JSON) -> Translation:
    """Return the ``.zgroup`` (as `document`) and ``.zattrs`` (as `attrs`) for a version 3 group.

    Raises
    ------
    MetadataError
        It is no version 3 group.

    Examples
    --------
    >>> translation = group_v3_to_v2({"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}})
    >>> translation.document, translation.attrs
    ({'zarr_format': 2}, {'a': 1})
    """
    if node_type(document, key) != "group":
        raise MetadataError(key, "node_type", "is 'array', and 'group' is expected")
    attrs = _attrs(document, key)
    problems = _not_understood(document, _GROUP_MEMBERS)
    return Translation(None if problems else {"zarr_format": 2}, problems, [], attrs)
