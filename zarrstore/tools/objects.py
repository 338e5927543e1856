"""Arrays of objects that version 3 cannot say, shown as text or bytes: what migrations do with ``objects=``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from zarrstore import keys as k
from zarrstore.base import Entry, Store
from zarrstore.batch import LazyItems
from zarrstore.errors import MetadataError, StoreReadError, UnsupportedOperation
from zarrstore.metadata import documents, v2
from zarrstore.metadata.chunk import decode_chunk, encode_chunk
from zarrstore.metadata.chunkkeys import ChunkKeys
from zarrstore.metadata.objects import DECODERS
from zarrstore.nodes import Node, walk
from zarrstore.spelling import chunk_keys_of
from zarrstore.tools.manifest import values_of
from zarrstore.tools.migration import MigrationReport
from zarrstore.wrappers.base import Wrapper

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MEMBER", "Objects", "reencoded", "way_out", "with_notes"]

#: What is done with objects that version 3 cannot say: all but pickles are encoded anew, or those too.
Objects = Literal["reencode", "unpickle"]
#: The attribute that tells a reader how version 2 encoded the items, where what is read now is not what it was.
MEMBER = "zarr_v2_object_codec"
_CODECS = (DECODERS - {"pickle"}) | {"categorize", "vlen-array"}


def reencoded(store: Store, path: str, objects: str, dest: Store | None) -> tuple[Store, dict[str, list[str]]]:
    """Return a store that shows the object arrays below a path as version 3 can say them, and what became of each.

    Parameters
    ----------
    store : Store
        A hierarchy; only read.
    path : str
        Its root, normal.
    objects : {'reencode', 'unpickle'}
        Whether pickles are read too, by `metadata.pickles.load_array`, which runs nothing that they name.
    dest : Store or None
        Where the migration writes; without one, chunks would be changed under the eyes of version 2's readers.

    Returns
    -------
    Store
        Read-only in effect: the `store` with other ``.zarray``, ``.zattrs`` and chunks where an array is encoded anew.
    dict of str to list of str
        For each object array, the sentences that belong into the report.

    Raises
    ------
    ValueError
        `objects` is neither.
    UnsupportedOperation
        There is no `dest`.

    Notes
    -----
    What an array becomes is known after each of its chunks was decoded once, before anything is written: strings (all
    items are text), bytes (all are bytes), or the text of a JSON value for each item. Nothing is lost on the way: an
    empty text stands for what is missing (null, NaN, or the 0 that was never written) only in an array of one kind of
    those and without an empty text of its own. Arrays of variable length are encoded by version 2 as bytes are, so
    their chunks stay as they are. Cost: each chunk of such an array is decoded twice and encoded once. Memory: one
    chunk. Source: numcodecs 0.16; what version 3 has for objects as of zarr 3.4.

    Examples
    --------
    >>> from zarrstore import init_array
    >>> from zarrstore.adapt import as_store
    >>> store = as_store({})
    >>> init_array(store, shape=2, chunks=2, dtype="O", object_codec={"id": "json2"}, compressor=None, path="a")
    >>> store["a/0"] = b'["x",null,"|O",[2]]'
    >>> shown, notes = reencoded(store, "", "reencode", as_store({}))
    >>> len(shown["a/0"]), notes["a"]
    (13, ["re-encoded from 'json2' to strings; '' is null"])
    """
    if objects not in ("reencode", "unpickle"):
        raise ValueError(f"objects is {objects!r}; it is 'reencode', or 'unpickle' where pickles are to be read too")
    if dest is None:
        raise UnsupportedOperation("re-encode objects where they are", store, "pass dest")
    arrays: dict[str, _Array] = {}
    notes: dict[str, list[str]] = {}
    for node in walk(store, path):
        meta = _object_array(node)
        if meta is None:
            continue
        name = (meta.filters or [{}])[0]["id"]
        if name == "pickle" and objects != "unpickle":
            notes[node.path] = [way_out(meta)]
            continue
        try:
            found = _planned(store, node.path, meta)
        except ValueError as exc:
            notes[node.path] = [f"not re-encoded: {exc}"]
            continue
        arrays[node.path] = found
        notes[node.path] = [found.note]
    return (_Reencoded(store, arrays) if arrays else store), notes


def way_out(meta: v2.ArrayMeta) -> str:
    """Return which word lets an array that version 3 cannot say be encoded anew; "" if none does.

    Examples
    --------
    >>> way_out(v2.build_array(shape=3, dtype="O", object_codec={"id": "json2"}))
    "objects='reencode' encodes them anew in dest"
    """
    first = meta.filters[0]["id"] if meta.filters else None
    if first == "pickle":
        return "objects='unpickle' encodes them anew in dest, by an unpickler that runs nothing"
    return "objects='reencode' encodes them anew in dest" if first in _CODECS else ""


def with_notes(report: MigrationReport, notes: Mapping[str, Sequence[str]]) -> MigrationReport:
    """Return a report whose nodes have further notes, by their paths, in the place of `way_out`."""
    nodes = []
    for node in report:
        others = tuple(note for note in node.notes if not note.startswith("objects='"))
        nodes.append(replace(node, notes=(*notes[node.path], *others)) if node.path in notes else node)
    return replace(report, nodes=tuple(nodes))


def _object_array(node: Node) -> v2.ArrayMeta | None:
    """Return the description of an array of version 2 whose first filter makes bytes or numbers of objects."""
    if node.error is not None or node.version != 2 or node.kind != "array":
        return None
    try:
        meta = v2.check_array(node.document, node.key)
    except MetadataError:  # the migration itself says so
        return None
    first = meta.filters[0]["id"] if meta.filters else None
    return meta if first == "pickle" or first in _CODECS else None


# Plan ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Array:
    """One array: what it was, what it is shown as, and the rule by which items become others (None: as they are)."""

    old: v2.ArrayMeta
    new: v2.ArrayMeta
    rule: ChunkKeys
    items: str | None
    note: str

    def chunk(self, key: str, path: str, data: bytes) -> bytes:
        """Return a chunk in the new encoding, its items beyond the edge of the array as never written."""
        import numpy as np

        coords = self.rule.coords(key, path)
        assert coords is not None
        items = decode_chunk(data, self.old, pickles=True)
        if self.items is not None:
            inside = _inside(self.old, coords)
            plain = np.empty(items.shape, dtype=object)
            plain[...] = self.new.fill_value
            plain[inside] = _mapped(_ITEMS[self.items], items[inside])
            items = plain
        return encode_chunk(items, self.new)


def _inside(meta: v2.ArrayMeta, coords: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the part of a chunk that lies within the array."""
    sizes = zip(meta.shape, meta.chunks, coords, strict=True)
    return tuple(slice(0, max(0, min(chunk, size - at * chunk))) for size, chunk, at in sizes)


def _mapped(function: Callable[[Any], Any], items: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    out = np.empty(items.shape, dtype=object)
    for at in np.ndindex(items.shape):
        out[at] = function(items[at])
    return out


def _text(item: Any) -> str:
    return item if isinstance(item, str) else ""


def _bytes(item: Any) -> bytes:
    return item if isinstance(item, bytes) else b""


def _json(item: Any) -> str:
    if isinstance(item, dict) and not all(isinstance(key, str) for key in item):
        raise ValueError("a dictionary has keys that are no text, and in JSON they would be")
    return json.dumps(item)


_ITEMS: dict[str, Callable[[Any], Any]] = {"text": _text, "bytes": _bytes, "json": _json}


def _planned(store: Store, path: str, meta: v2.ArrayMeta) -> _Array:
    """Return what an array becomes; ValueError if nothing that version 3 has is the same."""
    rule = chunk_keys_of(store, path, meta)
    filters = meta.filters or []
    first, later = filters[0], filters[1:]
    name = first["id"]
    if name == "vlen-array":
        note = (
            f"vlen arrays are shown as bytes, their chunks as they were: numpy.frombuffer(item, {first['dtype']!r}); "
            f"the attribute {MEMBER!r} says so"
        )
        new = replace(meta, filters=[{"id": "vlen-bytes"}, *later], fill_value=0)
        return _Array(meta, new, rule, None, note)
    if meta.numpy_dtype.kind != "O":
        _decode_all(store, path, meta, rule, _Census())
        new = replace(meta, filters=later or None)
        return _Array(meta, new, rule, None, f"re-encoded without the filter {name!r}: items are as they were")
    census = _Census()
    _decode_all(store, path, meta, rule, census)
    items, target, fill, meaning = census.verdict(name, meta.fill_value)
    new = replace(meta, filters=[{"id": target}, *later], fill_value=fill)
    return _Array(meta, new, rule, items, f"re-encoded from {name!r} to {meaning}")


def _decode_all(store: Store, path: str, meta: v2.ArrayMeta, rule: ChunkKeys, census: _Census) -> None:
    count = 0
    for key, value in values_of(store, path):
        coords = rule.coords(key, "")
        if coords is None or not all(at < size for at, size in zip(coords, meta.grid_shape, strict=True)):
            continue
        count += 1
        try:
            items = decode_chunk(value, meta, pickles=True)[_inside(meta, coords)]
            if items.dtype.kind == "O":
                census.add(items.reshape(-1), meta.fill_value)
        except ValueError as exc:
            raise ValueError(f"chunk {k.join(path, key)!r}: {exc}") from exc
    if count < math.prod(meta.grid_shape):
        census.add([meta.fill_value], meta.fill_value)


@dataclass
class _Census:
    """Which kinds of items an array has."""

    texts: int = 0
    empty: bool = False
    bytes: int = 0
    values: int = 0
    missing: set[str] = field(default_factory=set)
    unpaired: bool = False

    def add(self, items: Iterable[Any], fill: Any) -> None:
        for item in items:
            missing = _missing(item, fill)
            if missing is not None:
                self.missing.add(missing)
            elif isinstance(item, str):
                self.texts += 1
                self.empty |= not item
                self.unpaired |= not item.isascii() and any("\ud800" <= c <= "\udfff" for c in item)
            elif isinstance(item, bytes):
                self.bytes += 1
                self.empty |= not item
            else:
                self.values += 1
            if not isinstance(item, bytes):
                _check_json(item)

    def _kinds(self) -> set[str]:
        counts = (("text", self.texts), ("bytes", self.bytes), ("value", self.values))
        return {kind for kind, count in counts if count}

    def _is_exact(self) -> bool:
        """Tell whether an empty text or value can stand for what is missing: for one kind of it, and nothing else."""
        return not self.missing or (len(self.missing) == 1 and not self.empty)

    def verdict(self, name: str, fill: Any) -> tuple[str, str, Any, str]:
        """Return the rule for items, version 2's codec, the fill value, and what it means."""
        kinds = self._kinds()
        exact = self._is_exact()
        meaning = f"; '' is {next(iter(self.missing))}" if self.missing else ": items are as they were"
        if kinds == {"text"} and exact and not self.unpaired:
            return "text", "vlen-utf8", fill if isinstance(fill, str) else "", f"strings{meaning}"
        if kinds == {"bytes"}:
            if exact:
                return "bytes", "vlen-bytes", 0, f"bytes{meaning}"
            missing = " and ".join(sorted(self.missing))
            raise ValueError(f"it holds empty bytes beside {missing}, and version 3 has no word for the latter")
        if "bytes" in kinds:
            raise ValueError("it holds bytes among other values, which are neither text nor JSON")
        numbers = ", numbers and arrays of NumPy and tuples as numbers and lists" if name == "pickle" else ""
        meaning = f"strings, each the text of a JSON value{numbers}; the attribute {MEMBER!r} says so"
        return "json", "vlen-utf8", _json(fill), meaning


def _missing(item: Any, fill: Any) -> str | None:
    """Return the name of what stands for no item: null, NaN, or the fill value 0."""
    if item is None:
        return "null"
    if isinstance(item, float) and item != item:
        return "NaN"
    return "0, the fill value" if type(item) is int and item == 0 and fill == 0 and type(fill) is int else None


def _check_json(item: Any) -> None:
    if item is None or isinstance(item, str | bool | int | float):
        return
    try:
        _json(item)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"an item is no value of JSON: {exc}") from None


# View ---------------------------------------------------------------------------------------------------------------


class _Reencoded(Wrapper):
    """A store whose object arrays appear as what they become."""

    def __init__(self, inner: Store, arrays: dict[str, _Array]) -> None:
        super().__init__(inner)
        self.capabilities = replace(inner.capabilities, ranged=False)
        self._arrays = arrays

    def _array_of(self, key: str) -> str | None:
        """Return the path of the array whose chunk or document a key is and that is shown otherwise."""
        name = k.name(key)
        if name in (documents.ZARRAY, documents.ZATTRS):
            path = k.parent(key)
            return path if path in self._arrays else None
        path = next((path for path in k.parents(key) if path in self._arrays), "")
        one = self._arrays.get(path)
        return path if one is not None and one.rule.coords(key, path) is not None else None

    def _shown(self, key: str, path: str, read: Callable[[str], bytes]) -> bytes:
        one = self._arrays[path]
        if k.name(key) == documents.ZARRAY:
            return v2.encode_array(one.new)
        if k.name(key) == documents.ZATTRS:
            return self._attrs(key, one, read)
        if one.items is None and one.new.numpy_dtype.kind == "O":
            return read(key)
        try:
            return one.chunk(key, path, read(key))
        except ValueError as exc:
            raise StoreReadError(key, self, str(exc)) from exc

    def _attrs(self, key: str, one: _Array, read: Callable[[str], bytes]) -> bytes:
        meaningful = one.items == "json" or (one.items is None and one.new.numpy_dtype.kind == "O")
        if not meaningful:
            return read(key)
        try:
            attrs = v2.decode_attrs(read(key), key)
        except KeyError:
            attrs = {}
        return v2.encode_attrs({MEMBER: (one.old.filters or [{}])[0], **attrs})

    def _get(self, key: str) -> bytes:
        path = self._array_of(key)
        return self.inner._get(key) if path is None else self._shown(key, path, self.inner._get)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        found = self.inner._get_many(keys)

        def read(key: str) -> bytes:
            path = self._array_of(key)
            return found[key] if path is None else self._shown(key, path, found.__getitem__)

        return LazyItems(read, keys)

    def _contains(self, key: str) -> bool:
        if k.name(key) == documents.ZATTRS and k.parent(key) in self._arrays:
            return Store._contains(self, key)
        return self.inner._contains(key)

    def _details(self, path: str) -> Iterator[Entry]:
        # The identity stays: by it a journal knows whether a chunk changed. The new size is not known yet.
        for entry in self.inner._details(path):
            yield entry if self._array_of(entry.key) is None else entry._replace(nbytes=-1)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._get(key)[start:stop]

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        value = self._get(key)
        return [value[start:stop] for start, stop in spans]

    def _get_suffix(self, key: str, n: int) -> bytes:
        return Store._get_suffix(self, key, n)

    def _nbytes(self, key: str) -> int:
        return self.inner._nbytes(key) if self._array_of(key) is None else len(self._get(key))

    def _getsize(self, path: str) -> int:
        return Store._getsize(self, path)
