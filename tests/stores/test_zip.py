"""ZipStore as a store: the suite, and what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zarrstore.stores.zip import ZipStore
from zarrstore.testing import StoreConformance


class TestZipStore(StoreConformance):
    def make_store(self, tmp_path: Path) -> Any:
        return ZipStore(tmp_path / "a.zip", mode="w")

    def reopen(self, store: Any, tmp_path: Path) -> Any:
        store.close()
        return ZipStore(tmp_path / "a.zip")


class TestPackedZipStore(TestZipStore):
    examples = 5

    def make_store(self, tmp_path: Path) -> Any:
        return ZipStore(tmp_path / "a.zip", mode="w", compression=8)
