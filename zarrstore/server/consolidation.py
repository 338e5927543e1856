"""Consolidated metadata for a hierarchy that has none, made when it is asked for and remembered for a moment."""

from __future__ import annotations

import threading
import time

from zarrstore import keys as k
from zarrstore.base import Store
from zarrstore.errors import ZarrStoreError
from zarrstore.metadata import consolidated, documents
from zarrstore.tools.consolidate import consolidate_metadata
from zarrstore.wrappers.overlay import OverlayStore

__all__ = ["Consolidation"]

#: Seconds for which a document that was made is handed out again.
_AGE = 10.0


class Consolidation:
    """Makes the consolidated documents of one store; threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: dict[str, tuple[float, bytes | None]] = {}
        self._lock = threading.Lock()

    def document(self, key: str) -> bytes | None:
        """Return the document for a key, None if what is in the store is to be sent.

        Notes
        -----
        ``.zmetadata`` is made where there is none. ``zarr.json`` of the root is sent with its nodes where it names
        none. Cost: one listing and the reads of all documents, at most every ten seconds.
        """
        is_inline = key == documents.ZARR_JSON
        if not (is_inline or k.name(key) == documents.ZMETADATA) or not self._store.capabilities.listable:
            return None
        with self._lock:
            at, found = self._made.get(key, (float("-inf"), None))
            if time.monotonic() - at >= _AGE:
                found = self._inline(key) if is_inline else self._zmetadata(key)
                self._made = {**self._made, key: (time.monotonic(), found)} if len(self._made) < 100 else {}
            return found

    def _zmetadata(self, key: str) -> bytes | None:
        path = k.parent(key)
        if key in self._store or k.join(path, documents.ZGROUP) not in self._store:
            return None
        return self._consolidated(key, path)

    def _inline(self, key: str) -> bytes | None:
        data = self._store.get(key)
        try:
            if data is None or consolidated.parse_inline(documents.loads(data, key), key) is not None:
                return None
        except ZarrStoreError:
            return None
        return self._consolidated(key, "")

    def _consolidated(self, key: str, path: str) -> bytes | None:
        seen = OverlayStore(self._store, {})
        try:
            consolidate_metadata(seen, path=path)
            return seen.get(key)
        except (ZarrStoreError, KeyError):
            return None  # damaged documents are for the reader to find
