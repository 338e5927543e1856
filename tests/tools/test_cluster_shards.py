"""Workers elsewhere pack chunks into shards: each shard once, and nothing of a chunk passes through the client."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.executors import Elsewhere
from zarrstore import DirectoryStore, diff, init_array, migrate_2to3, verify
from zarrstore.errors import ClusterError
from zarrstore.testing import CountingStore


def fill(store: Any, shape: tuple[int, ...], separator: str, path: str = "a") -> None:
    init_array(
        store,
        shape=shape,
        chunks=(1,) * len(shape),
        dtype="u1",
        compressor=None,
        fill_value=0,
        path=path,
        dimension_separator=separator,
    )
    for number, place in enumerate(product(*map(range, shape))):
        if number % 7:  # some chunks are absent
            store[f"{path}/{separator.join(map(str, place))}"] = bytes([number % 250 + 1])


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize(("shape", "shards"), [((23, 3), (2, 3)), ((3, 23), (3, 2)), ((40,), (3,)), ((), ())], ids=str)
def test_workers_write_the_shards_that_this_process_would(
    shape: tuple[int, ...], shards: tuple[int, ...], separator: str, tmp_path: Path
) -> None:
    source = DirectoryStore(tmp_path / "source")
    fill(source, shape, separator)
    source["a/notes/7.txt"] = b"no chunk"
    expected, dest = DirectoryStore(tmp_path / "expected"), DirectoryStore(tmp_path / "dest")
    migrate_2to3(source, expected, shards=shards)
    executor = Elsewhere()
    migrate_2to3(source, dest, shards=shards, executor=executor)
    assert list(diff(expected, dest)) == []
    assert executor.n_tasks > (10 if shape else 1)
    assert verify(dest, missing="none")


class Listing(DirectoryStore):
    """A DirectoryStore that writes down which directories are listed, by whichever copy of it."""

    listed: list[str] = []

    def _keys(self, path: str) -> Any:
        Listing.listed.append(path)
        return super()._keys(path)


def test_each_worker_lists_directories_of_its_own(tmp_path: Path) -> None:
    source, dest = Listing(tmp_path / "source"), DirectoryStore(tmp_path / "dest")
    fill(source, (24, 3), "/")
    Listing.listed = []
    migrate_2to3(source, dest, shards=(2, 3), executor=Elsewhere())
    below = [path for path in Listing.listed if path.startswith("a/")]
    assert sorted(below) == sorted(f"a/{row}" for row in range(24))


def test_what_the_client_asks_and_handles_does_not_grow_with_the_chunks(tmp_path: Path) -> None:
    asked = []
    for count in (300, 1200):
        source, dest = DirectoryStore(tmp_path / f"s{count}"), DirectoryStore(tmp_path / f"d{count}")
        fill(source, (count,), ".")
        mine, theirs, executor = CountingStore(source), CountingStore(dest), Elsewhere()
        migrate_2to3(mine, theirs, shards=(count // 20,), executor=executor)
        # The copies that the workers got count for themselves.
        asked.append((sum(mine.calls.values()), sum(theirs.calls.values()), executor.n_tasks))
        assert verify(dest, missing="none").n_chunks == 20
    assert asked[0] == asked[1]
    assert sum(asked[0]) < 100


def test_a_cluster_that_ends_leaves_no_document_and_is_named(tmp_path: Path) -> None:
    source, dest = DirectoryStore(tmp_path / "source"), DirectoryStore(tmp_path / "dest")
    fill(source, (40,), ".")

    class Ending(Elsewhere):
        def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
            if self.n_tasks > 5:
                self.answer = CancelledError()
            return super().submit(function, *args, **options)

    with pytest.raises(ClusterError, match=r"the scheduler is gone.*no document was written.*overwrite=True"):
        migrate_2to3(source, dest, shards=(2,), executor=Ending())
    assert list(dest)
    assert not [key for key in dest if key.endswith("zarr.json")]
    journal = tmp_path / "journal"
    with pytest.raises(ClusterError, match="go on with the same resume="):
        migrate_2to3(source, dest, shards=(2,), executor=Ending(), overwrite=True, resume=journal)
    migrate_2to3(source, dest, shards=(2,), executor=Elsewhere(), resume=journal)
    expected = DirectoryStore(tmp_path / "expected")
    migrate_2to3(source, expected, shards=(2,))
    assert list(diff(expected, dest)) == []


def test_whoever_asks_is_told_of_each_shard(tmp_path: Path) -> None:
    from zarrstore.tools.shard import migrate_to_shards

    source, dest = DirectoryStore(tmp_path / "source"), DirectoryStore(tmp_path / "dest")
    fill(source, (40,), ".")
    seen: list[str] = []
    migrate_to_shards(source, dest, shards=(2,), executor=Elsewhere(), on_shard=seen.append)
    assert sorted(seen) == sorted(f"a/c/{number}" for number in range(20))
