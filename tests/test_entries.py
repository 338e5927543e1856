"""Listings with sizes and identities: what copies, budgets and journals go by."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zarrstore import (
    ConsolidatedStore,
    DictStore,
    DirectoryStore,
    FilterStore,
    OpenDALStore,
    OverlayStore,
    PrefixStore,
    ReadOnlyStore,
    SplitStore,
    consolidate_metadata,
    init_array,
)
from zarrstore.base import Entry
from zarrstore.testing import CountingStore


def test_a_directory_tells_size_and_an_identity_that_changes_with_the_value(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store["a/0"] = b"123"
    (before,) = store._details("")
    assert (before.key, before.nbytes) == ("a/0", 3)
    assert list(store._details("a")) == [before]
    assert list(store._details("b")) == []
    store["a/0"] = b"321"
    (replaced,) = store._details("")
    assert replaced.identity != before.identity
    status = os.stat(tmp_path / "a" / "0")
    (tmp_path / "a" / "0").write_bytes(b"231")  # in place, and the time of change set back
    os.utime(tmp_path / "a" / "0", ns=(status.st_atime_ns, status.st_mtime_ns))
    (overwritten,) = store._details("")
    assert overwritten.identity != replaced.identity


def test_sizes_come_from_memory_and_nothing_is_made_up_for_other_mappings() -> None:
    assert list(DictStore({"a": b"12"})._details("")) == [Entry("a", 2)]
    assert list(CountingStore({"a": b"12"})._details("")) == [Entry("a")]


def test_a_wrapper_of_keys_passes_entries_on_and_one_of_listings_does_not(tmp_path: Path) -> None:
    inner = DirectoryStore(tmp_path)
    inner["p/a"] = b"123"
    (entry,) = inner._details("")
    assert list(PrefixStore(ReadOnlyStore(inner), "p")._details("")) == [entry._replace(key="a")]
    assert [found.key for found in FilterStore(inner)._details("")] == ["p/a"]


def test_wrappers_of_two_stores_tell_what_their_listings_tell_and_ask_for_no_key(tmp_path: Path) -> None:
    lower, upper = DirectoryStore(tmp_path / "lower"), DirectoryStore(tmp_path / "upper")
    init_array(lower, shape=4, chunks=2, dtype="u1", path="a")
    lower.update({"a/0": b"12", "a/1": b"34"})
    overlay = OverlayStore(CountingStore(lower), CountingStore(upper))
    (was,) = (entry for entry in OverlayStore(lower, upper)._details("") if entry.key == "a/0")
    del overlay["a/1"]
    overlay["a/0"] = b"123"
    found = {entry.key: entry for entry in OverlayStore(lower, upper)._details("a")}
    assert {key: entry.nbytes for key, entry in found.items()} == {"a/0": 3, "a/.zarray": lower.getsize("a/.zarray")}
    assert found["a/0"].identity not in ("", was.identity)
    assert found["a/0"] == OverlayStore(lower, upper)._entry("a/0")

    upper = DirectoryStore(tmp_path / "chunks")
    upper["a/0"] = b"123"
    split = SplitStore(lower, upper)
    assert {entry.key: entry.nbytes for entry in split._details("")} == {
        "a/0": 3,
        **{key: lower.getsize(key) for key in lower if key.endswith((".zarray", ".zgroup"))},
    }
    consolidate_metadata(lower)
    consolidated = ConsolidatedStore(lower)
    sizes = {entry.key: entry.nbytes for entry in consolidated._details("")}
    assert sizes == {key: len(value) for key, value in consolidated.items()}
    assert min(sizes.values()) > 0
    for store in (overlay, SplitStore(CountingStore(lower), CountingStore(upper))):
        counted = [store.inner, store.upper if isinstance(store, OverlayStore) else store.chunks]
        for inner in counted:
            inner.reset()
        list(store._details(""))
        assert set(counted[0].calls) | set(counted[1].calls) <= {"_details", "_keys"}


def test_opendal_tells_the_sizes_of_its_listing(tmp_path: Path) -> None:
    opendal = pytest.importorskip("opendal")
    store = OpenDALStore(opendal.Operator("fs", root=str(tmp_path)))
    store.update({"a/0": b"123", "a/b/1": b"12345", "empty": b""})
    # A size of 0 may mean that the listing tells none.
    assert {entry.key: entry.nbytes for entry in store._details("")} == {"a/0": 3, "a/b/1": 5, "empty": -1}
