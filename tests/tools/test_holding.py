"""Which documents are held back when a key fails: no reader may take a hole for fill values."""

from __future__ import annotations

from pathlib import Path

import pytest

from zarrstore import DictStore, UnsupportedOperation, copy_store
from zarrstore.base import Capabilities
from zarrstore.tools.holding import Holding, document_order

ARRAY = b'{"zarr_format": 3, "node_type": "array"}'
GROUP = b'{"zarr_format": 3, "node_type": "group"}'
INLINE = b'{"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"kind": "inline", "metadata": {}}}'

HIERARCHY = {
    ".zgroup": b"{}",
    ".zmetadata": b"{}",
    "zarr.json": INLINE,
    "a/.zarray": b"{}",
    "a/.zattrs": b"{}",
    "a/0": b"chunk",
    "a/zarr.json": ARRAY,
    "g/.zgroup": b"{}",
    "g/.zattrs": b"{}",
    "g/zarr.json": INLINE,
    "g/b/.zarray": b"{}",
    "g/b/0.0": b"chunk",
    "g/b/zarr.json": ARRAY,
    "g/notes": b"a foreign key",
    "h/zarr.json": GROUP,
    "h/c/zarr.json": ARRAY,
    "h/c/c/0/0": b"chunk",
    "v/meta": b'{"zarr_format": 1}',
    "v/attrs": b"{}",
    "v/0": b"chunk",
    "w/meta": b"a chunk of no array",
}
CONSOLIDATED = {".zmetadata", "zarr.json"}

HELD = {
    "a/0": {"a/.zarray", "a/zarr.json"},
    "g/b/0.0": {"g/b/.zarray", "g/b/zarr.json", "g/zarr.json"},
    "g/notes": {"g/zarr.json"},
    "h/c/c/0/0": {"h/c/zarr.json"},
    "v/0": {"v/meta"},
    "a/.zattrs": {"a/.zarray", "a/zarr.json"},
    "g/.zattrs": {"g/.zgroup", "g/zarr.json"},
    "v/attrs": {"v/meta"},
    "a/.zarray": set(),
    "g/.zgroup": set(),
    "w/meta": set(),
}


class Failing(DictStore):
    """A destination that cannot store one key."""

    def __init__(self, bad: str) -> None:
        super().__init__()
        self.bad = bad

    def _set(self, key: str, value: bytes) -> None:
        if key == self.bad:
            raise OSError(5, "Input/output error")
        super()._set(key, value)


@pytest.mark.parametrize("bad", HELD)
@pytest.mark.parametrize("documents_first", [False, True], ids=["documents last", "documents first"])
def test_the_documents_of_the_array_and_all_that_repeat_them_are_held_back(bad: str, documents_first: bool) -> None:
    dest = Failing(bad)
    result = copy_store(HIERARCHY, dest, errors="collect", documents_first=documents_first)
    assert result.errors.keys() >= HELD[bad] | CONSOLIDATED | {bad}
    assert set(HIERARCHY) - set(dest) == set(result.errors)
    assert result.n_copied == len(dest)
    if not bad.endswith((".zarray", ".zgroup")):
        # Documents of one level are copied together: whether its neighbour of the other version is held back is open.
        assert set(result.errors) == HELD[bad] | CONSOLIDATED | {bad}


def test_a_destination_that_cannot_delete_says_so_of_the_documents_that_it_has() -> None:
    class Archive(Failing):
        capabilities = Capabilities(erasable=False)

        def _delete_many(self, keys: object) -> None:
            raise UnsupportedOperation("delete", self)

    dest = Archive("a/0")
    result = copy_store(HIERARCHY, dest, errors="collect", documents_first=True)
    assert "cannot delete it again" in result.errors["a/.zarray"]
    assert "a/.zarray" in dest


def test_only_the_nearest_array_is_held_back_for_each_failed_key() -> None:
    held = Holding({})
    for key in ("a/b/c/0", "a/b/c/1", "a/x/0"):
        held.failed(key)
    order = sorted(["a/.zarray", "a/b/.zarray", "a/b/c/.zarray", "d/.zarray"], key=document_order)
    assert [key for key in order if held.holds(key)] == ["a/b/c/.zarray", "a/.zarray"]


def test_a_document_that_cannot_be_read_or_parsed_is_taken_for_an_array() -> None:
    held = Holding({"a/zarr.json": b"{", "b/zarr.json": b"[]", "c/meta": b"{"})
    for key in ("a/0", "b/0", "c/0", "d/0"):
        held.failed(key)
    names = ("a/zarr.json", "b/zarr.json", "c/meta", "d/zarr.json")
    assert [held.holds(name) for name in names] == [True, True, False, True]


def test_attributes_come_before_the_documents_that_lead_to_them(tmp_path: Path) -> None:
    class Recording(DictStore):
        def _set(self, key: str, value: bytes) -> None:
            order.append(key)
            super()._set(key, value)

    order: list[str] = []
    copy_store(HIERARCHY, Recording())
    for first, then in [
        ("a/.zattrs", "a/.zarray"),
        ("v/attrs", "v/meta"),
        ("v/0", "v/attrs"),
        ("zarr.json", ".zmetadata"),
    ]:
        assert order.index(first) < order.index(then)
    assert order[-1] == ".zmetadata"
