"""Counters of a cache, and how much it holds."""

from __future__ import annotations

from dataclasses import dataclass

from zarrstore.shown import Shown, human_bytes

__all__ = ["CacheStats", "Counts"]


class Counts:
    """What is counted while a cache works, besides its hits."""

    def __init__(self) -> None:
        self.misses = self.missing_hits = self.fetches = self.joined = 0


@dataclass(frozen=True, slots=True, repr=False)
class CacheStats(Shown):
    """What an `LRUStoreCache` did and holds, at one moment.

    Parameters
    ----------
    hits, misses : int
        Values and parts handed out from memory, and not from memory.
    missing_hits : int
        Reads of a key that was known to be missing.
    fetches : int
        Values and parts asked of the store below, one for each key of a batch.
    joined : int
        Readers that shared the fetch of another one.
    entries, evictions : int
        Values and parts held; how many went to make room.
    size, max_size : int, bytes
        What the values held take, and may take (None: no limit).
    missing, listings : int
        Keys known to be missing; listings remembered.
    tier_hits, tier_entries, tier_size, tier_evictions, tier_errors : int
        The same of the second tier (size in bytes, as last listed), and its errors, none of which failed a read.
    """

    hits: int
    misses: int
    missing_hits: int
    fetches: int
    joined: int
    entries: int
    evictions: int
    size: int
    max_size: int | None
    missing: int
    listings: int
    tier_hits: int
    tier_entries: int
    tier_size: int
    tier_evictions: int
    tier_errors: int

    def _title(self) -> str:
        asked = self.hits + self.misses
        share = f"{self.hits / asked:.0%} of {asked:,} reads hit, " if asked else ""
        limit = "no limit" if self.max_size is None else human_bytes(self.max_size)
        return f"cache: {share}{human_bytes(self.size)} of {limit} held"

    def _headers(self) -> tuple[str, ...]:
        return ("counter", "value")

    def _rows(self) -> list[tuple[str, ...]]:
        values = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return [(name, "no limit" if value is None else f"{value:,}") for name, value in values]
