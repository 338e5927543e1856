"""Questions to a distant store that do not depend on each other are asked at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from zarrstore import init_array, init_group, migrate_2to3, walk
from zarrstore.stores.obstore import ObstoreStore

obstore = pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")

GROUPS = 8


class _Distant(ObstoreStore):
    """Answers no question that `waits` chooses until four of them are asked at one moment."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._four = threading.Barrier(4)
        self._waits: Callable[[str, str], bool] = lambda question, key: False

    @contextmanager
    def waiting(self, choose: Callable[[str, str], bool]) -> Iterator[None]:
        self._waits = choose
        try:
            yield
        finally:
            self._waits = lambda question, key: False
        assert not self._four.broken, "fewer than four were asked at one moment"

    def _get(self, key: str) -> bytes:
        if self._waits("get", key):
            self._four.wait(20)
        return super()._get(key)

    def _contains(self, key: str) -> bool:
        if self._waits("in", key):
            self._four.wait(20)
        return super()._contains(key)


@pytest.fixture
def store() -> _Distant:
    inner = obstore.store.MemoryStore()
    store = ObstoreStore(inner)
    init_group(store)
    for n in range(GROUPS):
        init_group(store, path=f"g{n}")
        init_array(store, path=f"g{n}/a", shape=4, chunks=2, dtype="i4", compressor=None)
    return _Distant(inner)  # which has read nothing yet, and knows no sizes


def test_a_walk_asks_for_absent_documents_together(store: _Distant) -> None:
    # Absence tells no size, and two were asked at a time while no size was known.
    with store.waiting(lambda question, key: key.startswith("g") and key.count("/") == 1 and key.endswith(".zarray")):
        assert len(list(walk(store))) == 1 + 2 * GROUPS


def test_a_migration_asks_for_the_consolidated_metadata_of_all_groups_together(store: _Distant) -> None:
    del store[".zgroup"]  # so that as many groups are asked about as the barrier lets through
    with store.waiting(lambda question, key: question == "in" and key.count("/") == 1 and key.endswith(".zmetadata")):
        migrate_2to3(store)
    assert all(f"g{n}/a/zarr.json" in store for n in range(GROUPS))
