"""How a tree of zarr 2.0 to 2.7's NestedDirectoryStore is told from others, at every opening: so it imports little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.chunknames import is_number
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents
from zarrstore.metadata.chunkkeys import ChunkKeys

__all__ = ["looks_nested"]


def looks_nested(store: Mapping[str, Any], *, max_arrays: int = 16, max_directories: int = 64) -> bool:
    """Tell whether this is a tree of zarr 2.0 to 2.7's NestedDirectoryStore, whose arrays do not say so.

    Parameters
    ----------
    store : Mapping of str to bytes
        The tree as a plain store shows it, such as a DirectoryStore.
    max_arrays, max_directories : int
        How many to look at.

    Returns
    -------
    bool
        By the first array of two or more axes that has no ``dimension_separator`` and has chunks. False if none of
        those that are looked at decides.

    Notes
    -----
    Cost: one listing of each directory that is looked at, and the documents of the arrays among them. Imports no NumPy.

    Examples
    --------
    >>> document = b'{"zarr_format": 2, "shape": [4, 4], "chunks": [2, 2]}'
    >>> looks_nested({"a/.zarray": document, "a/0/1": b""}), looks_nested({"a/.zarray": document, "a/0.1": b""})
    (True, False)
    """
    adapted = as_store(store)
    waiting = [""]
    arrays = 0
    for _ in range(max_directories):
        if not waiting or arrays >= max_arrays:
            break
        path = waiting.pop(0)
        names = adapted.listdir(path)
        if documents.ZARRAY in names:
            arrays += 1
            verdict = _is_nested(adapted, path, names)
            if verdict is not None:
                return verdict
        elif documents.ZARR_JSON not in names or documents.ZGROUP in names:
            waiting += [k.join(path, name) for name in names if name not in documents.DOCUMENTS]
    return False


def _is_nested(store: Store, path: str, names: list[str]) -> bool | None:
    key = k.join(path, documents.ZARRAY)
    try:
        document = documents.loads(store.get(key) or b"", key)
    except MetadataError:
        return None
    shape = document.get("shape")
    if document.get("dimension_separator") is not None or not isinstance(shape, list) or len(shape) < 2:
        return None
    flat = ChunkKeys("v2", ".", len(shape))
    if any(flat.coords(k.join(path, name), path) is not None for name in names):
        return False
    # Follow the first directories whose names are numbers: in a nested tree, a value lies one level down for each axis.
    at = path
    for _ in shape:
        numbers = list(filter(is_number, names))
        if not numbers:
            return None
        at = k.join(at, numbers[0])
        names = store.listdir(at)
    return True if at in store else None
