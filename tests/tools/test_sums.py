"""A manifest that workers make: byte for byte the one that is made here."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.tools.test_cluster import Elsewhere
from tests.tools.test_verify_elsewhere import Bucket
from zarrstore import DirectoryStore, read_manifest, write_manifest
from zarrstore.errors import ClusterError
from zarrstore.testing import CountingStore

#: Names that sort otherwise than their directories do, and that are written with a backslash.
ITEMS = {
    **{f"foo/{n}": b"%d" % n for n in range(40)},
    "foo.bar/x": b"1",
    "foo0": b"2",
    "foo/bar/deep": b"3",
    "line\nbreak/x": b"4",
    "line\rbreak": b"5",
    "\u2028/x": b"6",
    ".zgroup": b"{}",
}


@pytest.mark.parametrize("path", ["", "foo", "foo/bar", "none"])
def test_workers_make_the_manifest_that_this_process_makes(path: str, tmp_path: Path) -> None:
    # In a flat store a value and others below it: the lines of two parts lie between one another.
    bucket = Bucket("sums", {**ITEMS, "foo": b"at the path", "foo.bar": b"8"})
    directory = DirectoryStore(tmp_path / "d")
    directory.update(ITEMS)
    for store in (bucket, directory):
        here, there = tmp_path / "here", tmp_path / "there"
        executor = Elsewhere()
        assert write_manifest(store, there, path, executor=executor) == write_manifest(store, here, path)
        assert there.read_bytes() == here.read_bytes()
        assert executor.n_tasks > 3
        assert list(read_manifest(there)) == sorted(read_manifest(here))


def test_what_the_client_asks_for_a_manifest_does_not_grow_with_the_keys(tmp_path: Path) -> None:
    asked = []
    for count in (1000, 4000):
        store = DirectoryStore(tmp_path / str(count))
        store.setitems((f"a/{n}", b"1") for n in range(count))
        mine = CountingStore(store)
        assert write_manifest(mine, tmp_path / "sums", executor=Elsewhere()) == count
        asked.append(sum(mine.calls.values()))
    assert asked[0] == asked[1] < 20


class Dying(Elsewhere):
    """Its first task ends; after that there is no scheduler."""

    def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
        if self.n_tasks:
            self.answer = ImportError("No module named 'zarrstore'")
        return super().submit(function, *args, **options)


def test_the_manifest_stays_as_it_was_when_the_cluster_dies(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "d")
    store.update(ITEMS)
    file = tmp_path / "sums"
    file.write_text("before")
    with pytest.raises(ClusterError, match="a worker lacks a package"):
        write_manifest(store, file, executor=Dying())
    assert file.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "sums"]
