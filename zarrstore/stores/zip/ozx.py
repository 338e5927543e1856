"""OME-Zarr in one file (``.ozx``): the order, the end and the comment that RFC-9 of OME-NGFF asks for.

The text followed is that of March 2026 (state R2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from zarrstore import keys as k
from zarrstore.metadata.documents import ZARR_JSON
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip.archive import Archive
from zarrstore.stores.zip.end import End

__all__ = ["LONGEST_COMMENT", "SUFFIX", "comment_of", "departures", "json_first"]

SUFFIX = ".ozx"
#: The most bytes that a comment of ours has.
LONGEST_COMMENT = 256


def json_first(names: Iterable[str]) -> list[str]:
    """Return names with those of ``zarr.json`` documents first, breadth first.

    Examples
    --------
    >>> json_first(["a/c/0", "a/b/zarr.json", "zarr.json", "a/zarr.json"])
    ['zarr.json', 'a/zarr.json', 'a/b/zarr.json', 'a/c/0']
    """
    return sorted(names, key=lambda name: (k.name(name) != ZARR_JSON, _depth(name)))


def _depth(name: str) -> tuple[int, str]:
    return (len(k.segments(name)), name) if k.name(name) == ZARR_JSON else (0, "")


def version_of(root_document: bytes | None) -> str | None:
    """Return the version of OME-Zarr that a root document states, None if it states none."""
    try:
        version = json.loads(root_document or b"")["attributes"]["ome"]["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, str) and version else None


def comment_of(root_document: bytes | None) -> bytes:
    """Return the comment for an archive whose directory is in the order of `json_first`; nothing for no OME-Zarr."""
    version = version_of(root_document)
    if version is None:
        return b""
    members = {"ome": {"version": version, "zipFile": {"centralDirectory": {"jsonFirst": True}}}}
    comment = json.dumps(members, separators=(",", ":")).encode()
    return comment if len(comment) <= LONGEST_COMMENT else b""


def departures(archive: Archive, end: End, label: str) -> Iterator[tuple[str, str]]:
    """Yield the names at which an archive departs from RFC-9, and how; nothing if it does not claim to follow it."""
    stated = _stated(end.comment)
    if not label.lower().endswith(SUFFIX) and stated is None:
        return
    names = archive.directory.names()
    root = archive.directory.find(ZARR_JSON) is not None and not archive.directory.root
    version = version_of(archive.get(ZARR_JSON)) if root else None
    if not root:
        where = f", and the hierarchy is in the folder {archive.directory.root!r}" if archive.directory.root else ""
        yield ZARR_JSON, f"must be at the root of the archive, and is not{where}; pack its hierarchy anew"
    elif version is None:
        yield ZARR_JSON, "states no version of OME-Zarr ({'ome': {'version': ...}} in its attributes)"
    for name in names:
        if name.lower().endswith(SUFFIX):
            yield name, "must not be there: an OME-Zarr archive within another"
    yield from _of_the_end(end, label, stated, version)
    if not archive.directory.root:
        yield from _of_the_order(archive, names, _claims_order(stated))
        yield from _of_the_entries(archive, names)


def _of_the_end(end: End, label: str, stated: dict[str, Any] | None, version: str | None) -> Iterator[tuple[str, str]]:
    if not label.lower().endswith(SUFFIX):
        yield "", f"the name of the archive should end in {SUFFIX}"
    if not end.is_zip64:
        yield "", "the archive should end in the format ZIP64, whatever its size"
    if stated is None:
        yield "", "the comment of the archive should state the version of OME-Zarr"
    elif version is not None and stated.get("version") != version:
        yield "", f"the comment states version {stated.get('version')!r}, and the root {version!r}"


def _of_the_order(archive: Archive, names: list[str], is_claimed: bool) -> Iterator[tuple[str, str]]:
    n_documents = sum(k.name(name) == ZARR_JSON for name in names)
    wanted = json_first(names)[:n_documents]
    if names[:n_documents] != wanted:
        text = "says falsely that the documents come first" if is_claimed else "should have the documents first"
        yield "", f"the directory of the archive {text}, breadth first"
    places = sorted((fmt.entry_of(record).offset, name) for name, record in archive.directory.index.items())
    if [name for _, name in places[:n_documents]] != wanted:
        yield "", "the entries of the archive should begin with the documents, breadth first; pack it anew"


def _of_the_entries(archive: Archive, names: list[str]) -> Iterator[tuple[str, str]]:
    packed = next((name for name in names if archive.entry(name).method != fmt.STORED), None)
    if packed is not None:
        yield packed, "is compressed by the archive, and should be stored: pack it anew"
    for name in names:
        if k.name(name) == ZARR_JSON and _has_small_chunks(archive, name, names):
            yield name, "describes an array without shards, and should have them: zarrstore migrate --shards"


def _has_small_chunks(archive: Archive, name: str, names: list[str]) -> bool:
    """Tell whether a document is that of an array with more than one entry, and without the sharding codec."""
    try:
        document = json.loads(archive.get(name))
        if document["node_type"] != "array" or document["codecs"][0]["name"] == "sharding_indexed":
            return False
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False  # verify says elsewhere what is wrong with it
    return sum(k.is_below(other, k.parent(name)) for other in names) > 2


def _stated(comment: bytes) -> dict[str, Any] | None:
    """Return the member ``ome`` of a comment, None if it has none. Earlier drafts end it in a zero."""
    try:
        ome = json.loads(comment.rstrip(b"\0"))["ome"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return ome if isinstance(ome, dict) else None


def _claims_order(stated: dict[str, Any] | None) -> bool:
    try:
        return bool((stated or {})["zipFile"]["centralDirectory"]["jsonFirst"])
    except (KeyError, TypeError):
        return False
