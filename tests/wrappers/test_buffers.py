"""A large buffer goes through wrappers to the store that writes it without a copy; what is kept is copied once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tests.support.cases import each_of
from zarrstore import DictStore, LRUStoreCache
from zarrstore.metadata import consolidated
from zarrstore.stores.directory import DirectoryStore
from zarrstore.wrappers.consolidated import ConsolidatedStore
from zarrstore.wrappers.filter import FilterStore
from zarrstore.wrappers.metrics import MetricsStore
from zarrstore.wrappers.overlay import OverlayStore
from zarrstore.wrappers.prefix import PrefixStore
from zarrstore.wrappers.split import SplitStore
from zarrstore.wrappers.usagelog import UsageLogStore

MIB = 1 << 20


def writable_consolidated(inner):
    inner[".zmetadata"] = consolidated.build({})
    return ConsolidatedStore(inner, write_chunks=True)


WRAP = {
    "prefix": lambda inner: PrefixStore(inner, "p"),
    "filter": FilterStore,
    "metrics": MetricsStore,
    "usagelog": lambda inner: UsageLogStore(inner, lambda line: None),
    "overlay": lambda inner: OverlayStore({}, inner),
    "split": lambda inner: SplitStore(PrefixStore(inner, "d"), PrefixStore(inner, "c")),
    "consolidated": writable_consolidated,
    "cache too small": lambda inner: LRUStoreCache(inner, MIB),
    "stack": lambda inner: MetricsStore(PrefixStore(FilterStore(inner), "p")),
}


@pytest.mark.parametrize("name", WRAP)
@pytest.mark.parametrize("batch", [False, True])
def test_a_chunk_of_4_mib_is_not_copied_on_its_way(name, batch, tmp_path):
    store = WRAP[name](DirectoryStore(tmp_path))
    chunk = np.arange(MIB, dtype="<u4")
    store["warm"] = chunk[:10]
    assert store.takes_buffers
    tracemalloc.start()
    if batch:
        store.setitems({"a/0": chunk, "a/1": chunk})
    else:
        store["a/0"] = chunk
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB, f"{peak / MIB:.1f} MiB"
    assert store["a/0"] == chunk.tobytes()


@each_of("name", WRAP)
def test_a_store_that_keeps_values_gets_bytes(name):
    store = WRAP[name](DictStore())
    chunk = np.arange(100, dtype="<u4")
    store["a/0"] = chunk
    store.setitems({"a/1": chunk, "a/.zattrs2": chunk[:3]})
    before = chunk.tobytes()
    chunk[:] = 0
    assert (store["a/0"], store["a/1"], type(store["a/0"])) == (before, before, bytes)


@pytest.mark.parametrize("make", [DictStore, None], ids=["dict", "directory"])
def test_what_a_cache_keeps_is_copied_once_and_its_own(make, tmp_path):
    cache = LRUStoreCache(make() if make else DirectoryStore(tmp_path), None)
    chunk = np.arange(MIB, dtype="<u4")
    tracemalloc.start()
    cache["a"] = chunk
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4.5 * MIB
    before = chunk.tobytes()
    chunk[:] = 7
    assert cache["a"] == before
    assert cache.inner["a"] == before


def test_documents_of_a_batch_are_not_changed_while_chunks_are_set(tmp_path):
    store = SplitStore(DirectoryStore(tmp_path / "d"), DirectoryStore(tmp_path / "c"))
    buffer = bytearray(b"document")

    def items():
        yield "a/.zattrs", buffer
        buffer[:] = b"a chunk!"
        yield "a/0", buffer

    store.setitems(items())
    assert (store["a/.zattrs"], store["a/0"]) == (b"document", b"a chunk!")
