"""Which documents must not be written: those by which a reader would find the place of a value that was not copied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from zarrstore import keys as k
from zarrstore.errors import MetadataError
from zarrstore.metadata import documents

__all__ = ["Holding", "document_order", "is_document"]

#: Version 1's documents have ordinary names; to copy such a key late costs nothing.
_VERSION_1 = frozenset({documents.META, documents.ATTRS})
_NAMES = documents.DOCUMENTS | _VERSION_1
#: Attributes before the document that makes a reader look for them, and what repeats other documents last.
_RANKS = {documents.ZATTRS: 0, documents.ATTRS: 0, documents.ZMETADATA: 2}


def is_document(key: str) -> bool:
    """Tell whether a key is copied as a document: after all chunks.

    Examples
    --------
    >>> is_document("a/.zarray"), is_document("a/0.0")
    (True, False)
    """
    return k.name(key) in _NAMES


def document_order(key: str) -> str:
    """Return what documents are sorted by: the deepest first, attributes, then nodes, then consolidated metadata.

    Examples
    --------
    >>> sorted([".zmetadata", ".zgroup", "a/.zarray", "a/.zattrs"], key=document_order)
    ['a/.zattrs', 'a/.zarray', '.zgroup', '.zmetadata']
    """
    return f"{99_999 - len(k.segments(key)):05d}{_RANKS.get(k.name(key), 1)}"


class Holding:
    """What is held back because of the keys that failed.

    Parameters
    ----------
    source : mapping of str to bytes
        Where the documents are read of which the name does not tell what they are: ``zarr.json`` and ``meta``.

    Notes
    -----
    `holds` is asked in the order of `document_order`: the array nearest above a failed key is held back, and no array
    above that. Of each node all documents are held back, of version 2 and of version 3. A consolidated document
    (``.zmetadata``, or a ``zarr.json`` that repeats others) above a failed key is always held back. Memory: the
    directories of the failed keys and those above them.

    Examples
    --------
    >>> holding = Holding({})
    >>> holding.failed("a/0.0")
    >>> [key for key in ("a/.zarray", "b/.zarray", ".zgroup", ".zmetadata") if holding.holds(key)]
    ['a/.zarray', '.zmetadata']
    """

    def __init__(self, source: Mapping[str, Any]) -> None:
        self._source = source
        #: For each path: in how many directories at or below it keys failed whose array is not found yet.
        self._open: Counter[str] = Counter()
        self._directories: set[str] = set()
        self._without_attributes: set[str] = set()
        self._held: set[str] = set()

    def failed(self, key: str) -> None:
        """Note that a key was not copied."""
        directory = k.parent(key)
        if k.name(key) in (documents.ZATTRS, documents.ATTRS):
            self._without_attributes.add(directory)
        if directory not in self._directories:
            self._directories.add(directory)
            self._open.update((*k.parents(directory), directory))

    def holds(self, key: str) -> bool:
        """Tell whether a document must be held back, and remember that it is."""
        name, path = k.name(key), k.parent(key)
        if path not in self._open:  # nothing failed at or below it
            return False
        if name in (documents.ZATTRS, documents.ATTRS):
            return False
        if name == documents.ZMETADATA:
            return True
        kind = self._kind(key, name)
        if kind == "consolidated" or (kind != "other" and path in self._without_attributes):
            return True
        if kind != "array" or not (self._open[path] > 0 or path in self._held):
            return False
        if path not in self._held:
            self._held.add(path)
            count = self._open[path]
            for directory in (*k.parents(path), path):
                self._open[directory] -= count
        return True

    def _kind(self, key: str, name: str) -> str:
        if name in (documents.ZARRAY, documents.ZGROUP):
            return "array" if name == documents.ZARRAY else "group"
        try:
            document = documents.loads(bytes(self._source[key]), key)
        except MetadataError:
            return "array" if name == documents.ZARR_JSON else "other"
        except Exception:
            return "array"  # it cannot be read, so it may be one
        if name == documents.META:
            return "array" if document.get("zarr_format") == 1 else "other"
        if document.get("consolidated_metadata") is not None:
            return "consolidated"
        return "array" if document.get("node_type") == "array" else "group"
