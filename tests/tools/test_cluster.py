"""Workers elsewhere: that they see the same stores, what is wrong with them, and what the client has to do."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.executors import Elsewhere
from tests.support.servers.static import python_server
from zarrstore import (
    CopyError,
    DirectoryStore,
    HTTPStore,
    ZipStore,
    check_consolidated,
    consolidate_metadata,
    copy_store,
    delete_node,
    diff,
    init_array,
    init_group,
    migrate_2to3,
    migrate_3to2,
    pack,
    rmdir,
    verify,
)
from zarrstore.errors import ClusterError, DestinationExistsError
from zarrstore.stores.zip.ranges import ValueRanges
from zarrstore.testing import CountingStore
from zarrstore.tools import cluster
from zarrstore.tools.executing import window
from zarrstore.tools.subtrees import Subtree, entries_of, subtrees


@pytest.fixture
def source(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "source")
    for name in ("a", "deep/b", "deep/er/c"):
        init_array(store, shape=200, chunks=1, dtype="u1", compressor=None, fill_value=0, path=name)
        store.setitems((f"{name}/{n}", bytes([n])) for n in range(200))
    store["stray"] = b"1"
    return store


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    import multiprocessing

    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as executor:
        yield executor


def test_parts_cover_every_key_once(source: DirectoryStore) -> None:
    for path, wanted in (("", 2), ("", 5), ("", 50), ("a", 7), ("deep", 3), ("stray", 2)):
        parts = list(subtrees(source, path, wanted))
        keys = sorted([*source.keys_below(path), *([path] if path in source else [])])
        met = [
            key
            for part in parts
            for key in [*source.keys_below(part.path), *([part.path] if part.path in source else [])]
            if part.takes(key)
        ]
        assert sorted(met) == keys, (path, wanted)
        assert wanted <= len(parts) <= 8 * wanted
    assert Subtree("a").takes("a/0")


def test_a_value_at_the_path_of_others_is_of_one_part_too(tmp_path: Path) -> None:
    items = {"a": b"1", "a/b": b"2", "a/b/c": b"3", "a/b/d": b"4", "e": b"5", "a.x": b"6"}
    archive = ZipStore(tmp_path / "a.zip", mode="w")
    archive.update(items)
    archive.close()
    with ZipStore(tmp_path / "a.zip", mode="r") as store:
        for wanted in (1, 2, 3, 5, 9):
            parts = list(subtrees(store, "", wanted))
            met = [entry.key for part in parts for entry in entries_of(store, part) if part.takes(entry.key)]
            assert sorted(met) == sorted(items), wanted


def test_a_copy_by_processes_is_whole_and_the_client_handles_no_chunk(
    source: DirectoryStore, pool: Any, tmp_path: Path
) -> None:
    dest = DirectoryStore(tmp_path / "dest")
    result = copy_store(source, dest, executor=pool)
    assert (result[:2], result.n_bytes_copied > 600) == ((len(list(source)), 0), True)
    assert list(diff(source, dest)) == []
    with pytest.raises(DestinationExistsError):
        copy_store(source, dest, executor=pool)
    dest["a/7"] = b"changed"
    assert copy_store(source, dest, executor=pool, if_exists="skip").n_copied == 0
    assert copy_store(source, dest, executor=pool, if_exists="differ").n_copied == 1
    assert copy_store(source, dest, "deep", "to", executor=pool).n_copied == sum(1 for _ in source.keys_below("deep"))
    assert list(diff(source, dest, "deep", "to")) == []
    assert verify(dest, executor=pool).n_decoded == 1000
    assert not [key for key in dest if "probe" in key]


def test_what_globs_leave_out_is_left_out_by_workers_too(source: DirectoryStore, tmp_path: Path) -> None:
    dest = DirectoryStore(tmp_path / "dest")
    copy_store(source, dest, "deep", executor=Elsewhere(), include_globs=["/er"], exclude_globs=["7"])
    assert set(dest) == {key[5:] for key in source.keys_below("deep/er")} - {"er/c/7"}


def test_documents_above_a_value_that_a_worker_could_not_copy_are_held_back(
    source: DirectoryStore, tmp_path: Path
) -> None:
    dest = DirectoryStore(tmp_path / "dest")
    dest["deep/b/7/below"] = b"in the way"
    with pytest.raises(CopyError) as caught:
        copy_store(source, dest, executor=Elsewhere(), if_exists="skip")
    assert set(caught.value.errors) == {"deep/b/7", "deep/b/.zarray"}
    assert "a/.zarray" in dest
    assert "deep/b/.zarray" not in dest


def test_a_destination_that_the_workers_see_elsewhere_is_an_error(source: DirectoryStore, tmp_path: Path) -> None:
    dest, other = DirectoryStore(tmp_path / "dest"), DirectoryStore(tmp_path / "other")

    def their_folder(args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(other if isinstance(arg, DirectoryStore) and arg.path == dest.path else arg for arg in args)

    with pytest.raises(ClusterError, match=r"is not there on worker .*; give a destination that all machines see"):
        copy_store(source, dest, executor=Elsewhere(their_folder))
    assert list(dest) == list(other) == []


def test_a_worker_whose_writes_do_not_arrive_is_an_error(source: DirectoryStore, tmp_path: Path) -> None:
    class Lost(DirectoryStore):
        def _set(self, key: str, value: bytes) -> None:
            """Write nowhere."""

    dest = DirectoryStore(tmp_path / "dest")

    def losing(args: tuple[Any, ...]) -> tuple[Any, ...]:
        lost = Lost(dest.path)
        return tuple(lost if isinstance(arg, DirectoryStore) and arg.path == dest.path else arg for arg in args)

    with pytest.raises(ClusterError, match="is not there for this process"):
        copy_store(source, dest, executor=Elsewhere(losing))
    assert list(dest) == []


def test_a_source_that_the_workers_see_as_another_is_an_error(source: DirectoryStore, tmp_path: Path) -> None:
    dest, other = DirectoryStore(tmp_path / "dest"), DirectoryStore(tmp_path / "other")

    def their_source(args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(other if isinstance(arg, DirectoryStore) and arg.path == source.path else arg for arg in args)

    with pytest.raises(ClusterError, match="as another value, or not at all"):
        copy_store(source, dest, executor=Elsewhere(their_source))
    assert list(dest) == []
    with pytest.raises(ClusterError, match="as another value"):
        verify(source, executor=Elsewhere(their_source))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ModuleNotFoundError("No module named 'zarrstore'"), "a worker lacks a package: No module named 'zarrstore'"),
        (CancelledError(), "the scheduler is gone"),
        (concurrent.futures.BrokenExecutor("all died"), "a task failed on a worker: BrokenExecutor: all died"),
        ("never", "no worker has done a task within"),
    ],
)
def test_workers_that_cannot_work_are_an_error_that_names_the_cause(
    answer: Any, words: str, source: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.1)
    dest = DirectoryStore(tmp_path / "dest")
    with pytest.raises(ClusterError, match=words) as caught:
        copy_store(source, dest, executor=Elsewhere(answer=answer))
    assert "nothing was written" in str(caught.value)
    assert list(dest) == []


def test_an_executor_without_workers_is_an_error(source: DirectoryStore, tmp_path: Path) -> None:
    executor = Elsewhere()
    executor._max_workers = 0
    with pytest.raises(ClusterError, match="it has no worker"):
        copy_store(source, DirectoryStore(tmp_path / "dest"), executor=executor)


@pytest.mark.parametrize("journal", [False, True])
def test_a_copy_of_which_all_fails_ends_early_and_names_the_cause(
    source: DirectoryStore, tmp_path: Path, journal: bool
) -> None:
    class Full(DirectoryStore):
        n_tried = 0

        def _set(self, key: str, value: bytes) -> None:
            if "probe" in key:
                return super()._set(key, value)
            Full.n_tried += 1
            raise ValueError("the gateway refuses")

        def _set_many(self, items: Any) -> None:
            for key, value in items:
                self._set(key, value)

    dest = DirectoryStore(tmp_path / "dest")

    def full(args: tuple[Any, ...]) -> tuple[Any, ...]:
        store = Full(dest.path)
        return tuple(store if isinstance(arg, DirectoryStore) and arg.path == dest.path else arg for arg in args)

    options = {"resume": tmp_path / "journal"} if journal else {}
    executor = Elsewhere(full)
    executor._max_workers = 1
    with pytest.raises(ClusterError, match=r"values all failed, as .*: the gateway refuses; what was copied is whole"):
        copy_store(source, dest, executor=executor, **options)
    # Made good, it goes on.
    assert copy_store(source, dest, executor=Elsewhere(), if_exists="skip" if not journal else "raise", **options)
    assert list(diff(source, dest)) == []


def test_a_cluster_that_ends_in_the_middle_leaves_what_can_be_gone_on_with(
    source: DirectoryStore, tmp_path: Path
) -> None:
    dest = DirectoryStore(tmp_path / "dest")

    class Ending(Elsewhere):
        def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
            if self.n_tasks > 5:
                self.answer = CancelledError()
            return super().submit(function, *args, **options)

    with pytest.raises(ClusterError, match="the scheduler is gone"):
        copy_store(source, dest, executor=Ending(), if_exists="skip")
    assert not [key for key in dest if key.endswith(".zarray")]
    copy_store(source, dest, executor=Elsewhere(), if_exists="skip")
    assert list(diff(source, dest)) == []


def test_the_window_is_twice_the_threads_of_the_cluster() -> None:
    class Client:
        def nthreads(self) -> dict[str, int]:
            return {"tcp://a": 12, "tcp://b": 20}

    executor = Elsewhere()
    del executor._max_workers
    executor._client = Client()  # type: ignore[attr-defined]
    assert window(executor) == 64


def test_what_the_client_asks_and_handles_does_not_grow_with_the_keys(tmp_path: Path) -> None:
    asked = []
    for count in (1000, 4000):
        source, dest = DirectoryStore(tmp_path / f"s{count}"), DirectoryStore(tmp_path / f"d{count}")
        init_array(source, shape=count, chunks=1, dtype="u1", compressor=None, path="a")
        source.setitems((f"a/{n}", b"1") for n in range(count))
        mine, theirs, executor = CountingStore(source), CountingStore(dest), Elsewhere()
        assert copy_store(mine, theirs, executor=executor).n_copied == count + 2
        # The copies that the workers got count for themselves.
        asked.append((sum(mine.calls.values()), sum(theirs.calls.values()), executor.n_tasks))
        assert list(diff(source, dest)) == []
    assert asked[0] == asked[1]
    assert sum(asked[0]) < 100


def test_an_archive_that_is_read_travels_to_workers(source: DirectoryStore, pool: Any, tmp_path: Path) -> None:
    pack(source, tmp_path / "a.zip")
    with ZipStore(tmp_path / "a.zip", mode="r") as archive:
        for number, executor in enumerate((pool, elsewhere := Elsewhere())):
            dest = DirectoryStore(tmp_path / f"dest{number}")
            assert copy_store(archive, dest, executor=executor)[:2] == (len(source), 0)
            assert list(diff(source, dest)) == []
            assert verify(archive, executor=executor).n_decoded == 600
        assert elsewhere.n_tasks > 10
    with ZipStore(tmp_path / "a.zip", mode="a") as writer:
        assert not writer.capabilities.process_safe  # one process writes it, which then does all the work
        assert copy_store(writer, DirectoryStore(tmp_path / "dest2"), executor=pool)[0] == len(source)


def test_an_archive_in_a_store_that_all_see_travels(source: DirectoryStore, tmp_path: Path) -> None:
    pack(source, tmp_path / "a.zip")
    executor = Elsewhere()
    with ZipStore(ValueRanges(DirectoryStore(tmp_path), "a.zip")) as archive:
        assert verify(archive, executor=executor).n_decoded == 600
    assert executor.n_tasks == 5  # whether it sees the same, what is odd, and three arrays
    held = ZipStore(ValueRanges({"a.zip": (tmp_path / "a.zip").read_bytes()}, "a.zip"))
    assert not held.capabilities.process_safe


def test_a_web_server_travels_to_workers(pool: Any, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "source")
    init_group(store)
    init_array(store, shape=8, chunks=1, dtype="u1", compressor=None, fill_value=0, path="a")
    store.setitems((f"a/{n}", bytes([n])) for n in range(8))
    consolidate_metadata(store)
    with python_server(tmp_path) as url:
        web, elsewhere = HTTPStore(f"{url}/source"), Elsewhere()
        for number, executor in enumerate((pool, elsewhere)):
            dest = DirectoryStore(tmp_path / f"dest{number}")
            assert copy_store(web, dest, executor=executor).n_copied == len(store)
            assert list(diff(store, dest)) == []
        assert elsewhere.n_tasks > 2  # the first one only looks whether the workers see the same


@pytest.mark.parametrize("options", [{}, {"shards": 40}], ids=["plain", "shards"])
def test_a_migration_by_workers_is_the_one_that_is_made_here(
    options: Any, source: DirectoryStore, pool: Any, tmp_path: Path
) -> None:
    expected = DirectoryStore(tmp_path / "expected")
    report = migrate_2to3(source, expected, **options)
    for number, executor in enumerate((pool, elsewhere := Elsewhere())):
        dest = DirectoryStore(tmp_path / f"dest{number}")
        assert migrate_2to3(source, dest, executor=executor, **options) == report
        assert list(diff(expected, dest)) == []
    assert elsewhere.n_tasks > 10

    def other_disk(args: Any) -> Any:
        return tuple(
            DirectoryStore(tmp_path / "local") if isinstance(arg, DirectoryStore) and arg.path == dest.path else arg
            for arg in args
        )

    dest = DirectoryStore(tmp_path / "far")
    with pytest.raises(ClusterError, match="is not there on worker"):
        migrate_2to3(source, dest, executor=Elsewhere(other_disk), **options)
    assert list(dest) == []


def test_a_migration_back_to_version_2_by_workers(source: DirectoryStore, pool: Any, tmp_path: Path) -> None:
    newer = DirectoryStore(tmp_path / "newer")
    migrate_2to3(source, newer, shards=40)
    for number, executor in enumerate((None, pool)):
        back = DirectoryStore(tmp_path / f"back{number}")
        migrate_3to2(newer, back, executor=executor)
        assert [str(one) for one in diff(source, back)] == ["< stray"]


def test_processes_pack(source: DirectoryStore, pool: Any, tmp_path: Path) -> None:
    assert pack(source, tmp_path / "a.zip", executor=pool)[:2] == (len(source), 0)
    with ZipStore(tmp_path / "a.zip", mode="r") as archive:
        assert list(diff(source, archive)) == []


def test_processes_consolidate_and_delete(source: DirectoryStore, pool: Any) -> None:
    consolidate_metadata(source, executor=pool)
    assert not check_consolidated(source)
    delete_node(source, "a", executor=pool)
    assert {key.split("/")[0] for key in source} == {".zgroup", ".zmetadata", "deep", "stray"}
    rmdir(source, executor=pool)
    assert list(source) == []
    with pytest.raises(KeyError):
        delete_node(source, "a", executor=pool)
