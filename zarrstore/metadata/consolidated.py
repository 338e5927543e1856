"""Consolidated metadata: one document that repeats all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zarrstore.metadata import documents

__all__ = ["Staleness", "build", "compare", "parse"]


def build(found: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a ``.zmetadata`` that repeats the given documents.

    Parameters
    ----------
    found : mapping of str to bytes
        Keys relative to the hierarchy, and the documents; what is no document (a chunk, ``.zmetadata``) is left out.

    Raises
    ------
    MetadataError
        A document cannot be parsed; the error names its key.
    """
    raise NotImplementedError


def parse(data: bytes, key: str = documents.ZMETADATA) -> dict[str, dict[str, Any]]:
    """Return the documents that a ``.zmetadata`` repeats, parsed, by their judged keys.

    Raises
    ------
    MetadataError
        It is no consolidated metadata of format 1, or a name in it is no key (``"../../x/.zarray"``) or no document.
    """
    raise NotImplementedError


@dataclass(frozen=True)
class Staleness:
    """How consolidated metadata differs from the documents it repeats: keys, sorted."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    different: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.different)


def compare(consolidated: Mapping[str, Mapping[str, Any]], found: Mapping[str, bytes]) -> Staleness:
    """Tell what consolidated metadata misses, has too much and says differently, by value and not by spelling."""
    raise NotImplementedError
