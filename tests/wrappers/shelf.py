"""A hierarchical store in a few lines, for wrappers that treat those differently."""

from __future__ import annotations

from collections.abc import Iterable

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.errors import ConflictError


class Shelf(Store):
    """Values in a dict, where none stands on a directory or below a value."""

    capabilities = Capabilities(hierarchical=True, blocking=False)

    def __init__(self) -> None:
        self.values_by_key: dict[str, bytes] = {}

    def _get(self, key: str) -> bytes:
        return self.values_by_key[key]

    def _set(self, key: str, value: bytes) -> None:
        for above in k.parents(key):
            if above in self.values_by_key:
                raise ConflictError(key, self, above)
        for below in self._keys(key):
            raise ConflictError(key, self, below)
        self.values_by_key[key] = value

    def _delete(self, key: str) -> None:
        del self.values_by_key[key]

    def _keys(self, path: str) -> Iterable[str]:
        return [key for key in list(self.values_by_key) if k.is_below(key, path)]
