"""A cluster of two processes copies, verifies and migrates 20,000 chunks, and one of them is killed half way."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from zarrstore import (
    DirectoryStore,
    LMDBStore,
    ZipStore,
    check_consolidated,
    consolidate_metadata,
    copy_store,
    init_array,
    migrate_2to3,
    pack,
    rmdir,
    verify,
)
from zarrstore.tools.diff import diff
from zarrstore.tools.executing import window

CHUNKS = 20_000


@pytest.fixture(scope="module")
def cluster_client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    # Imported here: at the head of the file, each worker of a run would spend a third of a second on it.
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install zarrstore[dask]")
    import dask

    with (
        # A worker that a test has killed is started anew. One that takes longer than this would be given up for good.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "200s"}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            host="127.0.0.1",
            local_directory=str(tmp_path_factory.mktemp("workers")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def client(cluster_client: Any) -> Any:
    cluster_client.wait_for_workers(2, timeout=200)  # a test may have killed one
    return cluster_client


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_twenty_thousand_chunks_on_a_cluster_that_loses_a_worker(client: Any, tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "source")
    init_array(source, shape=CHUNKS, chunks=1, dtype="<i4", compressor=None, fill_value=0, path="a")
    source.setitems((f"a/{n}", n.to_bytes(4, "little")) for n in range(CHUNKS))
    dest = DirectoryStore(tmp_path / "dest")
    killed: list[int] = []

    def kill_one(progress: Any) -> None:
        if not killed and progress.done >= CHUNKS // 2:
            workers = client.run(os.getpid)
            killed.append(next(iter(workers.values())))
            os.kill(killed[0], signal.SIGKILL)

    with client.get_executor() as executor:
        result = copy_store(source, dest, executor=executor, progress=kill_one)
        assert killed
        assert result[:2] == (CHUNKS + 2, 0)
        assert result.errors == {}
        assert list(diff(source, dest)) == []
        report = verify(dest, executor=executor, missing="all")
        assert report
        assert report.n_decoded == CHUNKS
        assert migrate_2to3(dest).counts() == {"migrated": 2}
        dest["a/777"] = b"damaged"
        assert [problem.key for problem in verify(dest, executor=executor).problems] == ["a/777"]


@pytest.mark.timeout(120)
def test_a_store_of_one_process_keeps_the_work_here(client: Any, tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "source")
    source.setitems((f"a/{n}", str(n).encode()) for n in range(1200))
    with client.get_executor() as executor, LMDBStore(tmp_path / "dest.lmdb") as dest:
        assert copy_store(source, dest, executor=executor, verify=True)[:2] == (1200, 0)
        assert list(diff(source, dest)) == []


@pytest.mark.timeout(120)
def test_processes_of_dask_copy_parts_by_themselves(client: Any, tmp_path: Path) -> None:
    source, dest = DirectoryStore(tmp_path / "source"), DirectoryStore(tmp_path / "dest")
    init_array(source, shape=600, chunks=1, dtype="u1", compressor=None, path="a")
    source.setitems((f"a/{n}", b"1") for n in range(600))
    with client.get_executor() as executor:
        assert window(executor) == 4
        assert copy_store(source, dest, executor=executor)[:2] == (602, 0)
        assert list(diff(source, dest)) == []
        dest["a/7"] = b"12"
        report = verify(dest, executor=executor)
        assert report == verify(dest)
        assert [problem.key for problem in report.problems] == ["a/7"]


@pytest.mark.timeout(120)
def test_processes_of_dask_consolidate_and_delete(client: Any, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    for name in ("a", "b"):
        init_array(store, shape=300, chunks=1, dtype="u1", compressor=None, path=name)
        store.update({f"{name}/{n}": b"1" for n in range(300)})
    with client.get_executor() as executor:
        consolidate_metadata(store, executor=executor)
        assert not check_consolidated(store)
        rmdir(store, "a", executor=executor)
        assert {key.split("/")[0] for key in store} == {".zgroup", ".zmetadata", "b"}
        rmdir(store, executor=executor)
        assert list(store) == []


@pytest.mark.timeout(120)
def test_processes_of_dask_pack_and_make_shards(client: Any, tmp_path: Path) -> None:
    source, dest = DirectoryStore(tmp_path / "source"), DirectoryStore(tmp_path / "dest")
    init_array(source, shape=100, chunks=1, dtype="u1", compressor=None, path="a")
    source.update({f"a/{n}": b"1" for n in range(100)})
    with client.get_executor() as executor:
        pack(source, tmp_path / "a.zip", executor=executor)
        migrate_2to3(source, dest, shards=(10,), executor=executor)
    with ZipStore(tmp_path / "a.zip", mode="r") as archive:
        assert list(diff(source, archive)) == []
    assert verify(dest, missing="all").n_chunks == 10


class Killing(Executor):
    """Kill a worker when the sixth task of one kind is handed out, while those before it are at work."""

    def __init__(self, client: Any, function: str) -> None:
        self._client, self.function, self.n_tasks = client, function, 0
        self.inner = client.get_executor()

    def submit(self, function: Any, /, *args: Any, **options: Any) -> Any:
        future = self.inner.submit(function, *args, **options)
        self.n_tasks += function.__name__ == self.function
        if self.n_tasks == 6 and function.__name__ == self.function:
            os.kill(next(iter(self._client.run(os.getpid).values())), signal.SIGKILL)
        return future


def twenty_arrays(path: Path) -> DirectoryStore:
    store = DirectoryStore(path)
    for number in range(20):
        init_array(store, shape=200, chunks=1, dtype="u1", compressor=None, path=f"a{number}")
        store.update({f"a{number}/{n}": bytes(n) for n in range(200)})
    return store


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_deletion_goes_on_when_a_worker_dies(client: Any, tmp_path: Path) -> None:
    store = twenty_arrays(tmp_path / "store")
    executor = Killing(client, "_delete_part")
    rmdir(store, executor=executor)
    assert executor.n_tasks > 6
    assert list(store) == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_archive_is_whole_though_a_worker_dies(client: Any, tmp_path: Path) -> None:
    source = twenty_arrays(tmp_path / "source")
    executor = Killing(client, "pack_part")
    assert pack(source, tmp_path / "a.zip", executor=executor)[0] == sum(1 for _ in source)
    assert executor.n_tasks > 6
    with ZipStore(tmp_path / "a.zip", mode="r") as archive:
        assert list(diff(source, archive)) == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_shards_are_whole_though_a_worker_dies(client: Any, tmp_path: Path) -> None:
    source, dest = DirectoryStore(tmp_path / "source"), DirectoryStore(tmp_path / "dest")
    for number in range(10):
        init_array(source, shape=200, chunks=1, dtype="u1", compressor=None, path=f"a{number}")
        source.update({f"a{number}/{n}": b"1" for n in range(200)})
    executor = Killing(client, "write_shards")
    migrate_2to3(source, dest, shards=(20,), executor=executor)
    assert executor.n_tasks > 6
    report = verify(dest, missing="all")
    assert (report.n_chunks, report.problems) == (100, ())
