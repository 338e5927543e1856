"""A store whose values come a batch at a time, ahead of their reader, and are counted until somebody lets them go."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zarrstore import DictStore
from zarrstore.base import Entry
from zarrstore.batch import AheadItems

__all__ = ["AheadStore"]


class AheadStore(DictStore):
    """No listing tells the sizes of its values; `most` is how many were under way at once.

    Parameters
    ----------
    keeps : bool
        Whether a value that was taken from a batch counts until `release`; else it is let go by being taken.
    """

    capabilities = replace(DictStore.capabilities, concurrent=True)

    def __init__(self, items: Mapping[str, bytes] | None = None, *, keeps: bool = False) -> None:
        super().__init__(dict(items or {}))
        self.keeps = keeps
        self.under_way: set[str] = set()
        self.most = 0
        self._counting = threading.Lock()

    def release(self, key: str) -> None:
        with self._counting:
            self.under_way.discard(key)

    def _details(self, path: str) -> Iterable[Entry]:
        return map(Entry, self._keys(path))

    def _get_many(self, keys: Sequence[str]) -> Any:
        store = self

        class Items(AheadItems):
            def __getitem__(self, key: str) -> bytes:
                value = super().__getitem__(key)
                if not store.keeps:
                    store.release(key)
                return value

        return Items(self._fetch, keys)

    def _fetch(self, wanted: Iterable[str]) -> dict[str, bytes]:
        keys = list(wanted)
        with self._counting:
            self.under_way.update(keys)
            self.most = max(self.most, len(self.under_way))
        return {key: self._get(key) for key in keys}
