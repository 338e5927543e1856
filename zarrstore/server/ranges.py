"""The header ``Range`` of HTTP, judged against the size of a value (RFC 9110, section 14)."""

from __future__ import annotations

import re

__all__ = ["MAX_RANGES", "Unsatisfiable", "parse_ranges"]

#: A header with more parts is ignored, as the RFC allows: it asks for more answer than value.
MAX_RANGES = 100

_PART = re.compile(r"\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII)


class Unsatisfiable(ValueError):
    """No part of the header lies within the value."""


def parse_ranges(header: str, size: int) -> list[tuple[int, int]] | None:
    """Return the parts asked for as (start, stop); None if the header is to be ignored.

    Parameters
    ----------
    header : str
        Value of the header.
    size : int, bytes
        Of the whole value.

    Raises
    ------
    Unsatisfiable
        All parts lie beyond the end.

    Examples
    --------
    >>> parse_ranges("bytes=0-1, -3", 10), parse_ranges("bytes=8-99", 10), parse_ranges("items=0-1", 10)
    ([(0, 2), (7, 10)], [(8, 10)], None)
    """
    unit, equals, text = header.partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    parts = [part for part in text.split(",") if part.strip()]
    if not parts or len(parts) > MAX_RANGES:
        return None
    found = []
    for part in parts:
        match = _PART.fullmatch(part)
        if match is None or not (match[1] or match[2]):
            return None
        first, last = match[1], match[2]
        if first and last and int(last) < int(first):
            return None
        start, stop = _span(first, last, size)
        if start < stop:
            found.append((start, stop))
    if not found:
        raise Unsatisfiable(header)
    if sum(stop - start for start, stop in found) > 2 * size + 1024:
        return None  # parts that overlap again and again would make a small request of a large answer
    return found


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1 if last else size)
