"""Large values of a service are written from the memory in which the library received them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from zarrstore import DirectoryStore, RetryStore, copy_store
from zarrstore.errors import StoreReadError
from zarrstore.stores._objects import LARGE
from zarrstore.stores.obstore import ObstoreStore

obstore = pytest.importorskip("obstore", reason="needs obstore: pip install zarrstore[obstore]")

VALUES = {f"foo/{n}": bytes([n]) * LARGE for n in range(3)} | {f"uns/{n}": b"small" for n in range(9)}


class _Watched(ObstoreStore):
    """Counts how values are read. In memory, but asked as a server is."""

    def __init__(self) -> None:
        super().__init__(obstore.store.MemoryStore())
        self._over_network = True
        self.reads: Counter[str] = Counter()
        self.damaged: set[str] = set()

    def _buffer(self, key: str) -> memoryview | None:
        self.reads["buffer"] += 1
        if key in self.damaged:
            raise StoreReadError(key, self, "the answer broke off")
        return super()._buffer(key)

    def _get(self, key: str) -> bytes:
        self.reads["get"] += 1
        return super()._get(key)

    def _get_many(self, keys: Any) -> Any:
        self.reads["batch"] += 1
        return super()._get_many(keys)


@pytest.fixture
def source() -> _Watched:
    store = _Watched()
    store.update(VALUES)
    return store


def test_large_values_are_written_without_a_copy_and_small_ones_come_in_batches(
    source: _Watched, tmp_path: Path
) -> None:
    dest = DirectoryStore(tmp_path / "d")
    result = copy_store(RetryStore(source), RetryStore(dest), workers=1)
    assert (result.n_copied, result.n_bytes_copied) == (12, 3 * LARGE + 45)
    assert dict(dest) == VALUES
    assert source.reads == {"buffer": 3, "get": 9, "batch": 1}


def test_what_the_buffer_does_not_give_is_read_in_the_ordinary_way(source: _Watched, tmp_path: Path) -> None:
    source.damaged = {"foo/1"}
    dest = DirectoryStore(tmp_path / "d")
    assert copy_store(source, dest).n_copied == 12
    assert dict(dest) == VALUES


@pytest.mark.parametrize("way", ["verify", "durability"])
def test_a_copy_that_hashes_values_and_a_store_that_syncs_each_take_bytes(
    source: _Watched, tmp_path: Path, way: str
) -> None:
    dest = DirectoryStore(tmp_path / "d", durability="always" if way == "durability" else "flush")
    copy_store(source, dest, verify=way == "verify")
    assert source.reads["buffer"] == 0
    assert dict(dest) == VALUES
