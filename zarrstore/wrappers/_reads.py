"""The methods that read one value, for wrappers that choose by its key where it comes from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from zarrstore.base import Store
from zarrstore.spans import Span
from zarrstore.wrappers.base import Wrapper

__all__ = ["ComputedReads", "SidedReads"]


class SidedReads(Wrapper):
    """A wrapper around several stores, of which one has the value of a key."""

    @abstractmethod
    def _side(self, key: str) -> Store:
        """Return the store that has the value of a key, if one has; may raise KeyError if none has."""

    def _get(self, key: str) -> bytes:
        return self._side(key)._get(key)

    def _contains(self, key: str) -> bool:
        try:
            return self._side(key)._contains(key)
        except KeyError:
            return False

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._side(key)._get_range(key, start, stop)

    def _get_ranges(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        return self._side(key)._get_ranges(key, spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self._side(key)._get_suffix(key, n)

    def _nbytes(self, key: str) -> int:
        return self._side(key)._nbytes(key)


class ComputedReads(Wrapper):
    """A wrapper that makes some values itself: a part of such a value is cut out of the whole."""

    @abstractmethod
    def _is_computed(self, key: str) -> bool:
        """Tell whether the value of a key is made here."""

    def _inner_key(self, key: str) -> str:
        """Return the key of `inner` that is shown as `key`, which is not computed; raise KeyError if none can be."""
        return self._to_inner(key)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if self._is_computed(key):
            return self._get(key)[start:stop]
        return self.inner._get_range(self._inner_key(key), start, stop)

    def _get_ranges(self, key: str, spans: Sequence[Span]) -> list[bytes]:
        if self._is_computed(key):
            value = self._get(key)
            return [value[start:stop] for start, stop in spans]
        return self.inner._get_ranges(self._inner_key(key), spans)

    def _get_suffix(self, key: str, n: int) -> bytes:
        if self._is_computed(key):
            return Store._get_suffix(self, key, n)
        return self.inner._get_suffix(self._inner_key(key), n)

    def _nbytes(self, key: str) -> int:
        return len(self._get(key)) if self._is_computed(key) else self.inner._nbytes(self._inner_key(key))
