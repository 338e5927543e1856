"""Listings with sizes and identities: what copies, budgets and journals go by."""

from __future__ import annotations

import os
from pathlib import Path

from zarrstore import DictStore, DirectoryStore, FilterStore, PrefixStore, ReadOnlyStore
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
