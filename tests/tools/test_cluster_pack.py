"""Workers elsewhere write parts of one zip archive: whole, in order, readable by any tool, or not there at all."""

from __future__ import annotations

import json
import os
import zipfile
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from tests.support.executors import Elsewhere
from zarrstore import CopyError, DirectoryStore, ZipStore, diff, init_array, init_group, pack, verify
from zarrstore.cli.group import run
from zarrstore.errors import ClusterError, DestinationExistsError
from zarrstore.stores.zip import segments
from zarrstore.tools.holding import is_document

CHUNKS = 60


@pytest.fixture
def source(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "source")
    init_group(store)
    for name in ("a", "deep/é", "deep/er/c"):
        init_array(store, shape=CHUNKS, chunks=1, dtype="u1", compressor=None, fill_value=0, path=name)
        store.update({f"{name}/{n}": bytes([n]) for n in range(CHUNKS)})
    store.update({"empty/0": b"", "large/0": os.urandom(1 << 20), "x y.z/ü": b"1"})
    return store


@pytest.mark.parametrize("check", [False, True])
def test_the_archive_is_whole_and_documents_are_first(check: bool, source: DirectoryStore, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    workers = Elsewhere()
    result = pack(source, path, executor=workers, verify=check)
    assert result[:2] == (len(source), 0)
    assert result.n_bytes_copied == sum(map(len, source.values()))
    assert workers.n_tasks > 30
    with ZipStore(path, mode="r") as archive:
        assert list(diff(source, archive)) == []
        assert verify(archive).problems == verify(source).problems
        names = list(archive)
        number = sum(map(is_document, names))
        assert all(map(is_document, names[:number]))
        assert archive.describe()["dead_bytes"] == 0
    with zipfile.ZipFile(path) as other:
        assert other.testzip() is None
        assert sorted(other.namelist()) == sorted(source)
        offsets = [info.header_offset for info in other.infolist()]
        assert offsets == sorted(offsets)
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "source"]
    # Entries are found without the directory, and it can be written on.
    (tmp_path / "torn.zip").write_bytes(path.read_bytes()[:-30])
    ZipStore.recover(tmp_path / "torn.zip", tmp_path / "recovered.zip")
    with ZipStore(tmp_path / "recovered.zip", mode="r") as archive:
        assert list(diff(source, archive)) == []
    with ZipStore(path) as archive:
        archive["later/0"] = b"1"
    with ZipStore(path, mode="r") as archive:
        assert len(archive) == len(source) + 1


def test_a_source_without_documents_is_packed(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "source")
    source.update({f"{n % 5}/{n}": bytes(n) for n in range(50)})
    pack(source, tmp_path / "a.zip", executor=Elsewhere())
    with ZipStore(tmp_path / "a.zip", mode="r") as archive:
        assert list(diff(source, archive)) == []
        assert archive.root == ""
    empty = DirectoryStore(tmp_path / "empty")
    assert pack(empty, tmp_path / "b.zip", executor=Elsewhere())[0] == 0


def test_sizes_beyond_32_bits_are_reserved_as_they_are_written(
    source: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments.fmt, "LIMIT", 50_000)
    pack(source, tmp_path / "a.zip", executor=Elsewhere())
    with ZipStore(tmp_path / "a.zip", mode="r") as archive:
        assert list(diff(source, archive)) == []


def test_values_that_change_meanwhile_make_no_archive(source: DirectoryStore, tmp_path: Path) -> None:
    class Changing(Elsewhere):
        def __init__(self, value: bytes) -> None:
            super().__init__()
            self.value = value

        def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
            if function.__name__ == "pack_part":
                source["large/0"] = self.value
            return super().submit(function, *args, **options)

    for value in (bytes(10), bytes(1 << 21)):
        source["large/0"] = bytes(1000)
        with pytest.raises(CopyError, match="changed while they were packed"):
            pack(source, tmp_path / "a.zip", executor=Changing(value))
        assert sorted(os.listdir(tmp_path)) == ["source"]
    pack(source, tmp_path / "a.zip", executor=Elsewhere())
    with pytest.raises(DestinationExistsError):
        pack(source, tmp_path / "a.zip", executor=Elsewhere())
    pack(source, tmp_path / "a.zip", executor=Elsewhere(), overwrite=True)


def test_a_part_that_is_done_twice_is_the_same(source: DirectoryStore, tmp_path: Path) -> None:
    class Twice(Elsewhere):
        def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
            super().submit(function, *args, **options)
            return super().submit(function, *args, **options)

    pack(source, tmp_path / "a.zip", executor=Twice())
    with ZipStore(tmp_path / "a.zip", mode="r") as archive:
        assert list(diff(source, archive)) == []


def test_workers_that_cannot_work_make_no_archive(source: DirectoryStore, tmp_path: Path) -> None:
    other = DirectoryStore(tmp_path / "other")
    (tmp_path / "place").mkdir()

    def their_folder(args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            other if isinstance(arg, DirectoryStore) and arg.path == str(tmp_path / "place") else arg for arg in args
        )

    class Ending(Elsewhere):
        def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
            if function.__name__ == "pack_part":
                self.answer = CancelledError()
            return super().submit(function, *args, **options)

    for executor, words in (
        (Elsewhere(their_folder), "is not there on worker"),
        (Elsewhere(answer=ModuleNotFoundError("No module named 'zarrstore'")), "a worker lacks a package"),
        (Ending(), "the scheduler is gone.*no archive was made"),
    ):
        with pytest.raises(ClusterError, match=words):
            pack(source, tmp_path / "place" / "a.zip", executor=executor)
        assert os.listdir(tmp_path / "place") == []


def test_ome_zarr_is_packed_by_workers(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "source")
    root = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5"}}}
    below = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    source.update({"zarr.json": json.dumps(root).encode(), "b/zarr.json": json.dumps(below).encode()})
    source.update({f"b/c/{n}": bytes(n) for n in range(40)})
    pack(source, tmp_path / "a.ozx", executor=Elsewhere())
    with ZipStore(tmp_path / "a.ozx", mode="r") as archive:
        assert list(diff(source, archive)) == []
        assert not [problem for problem in verify(archive).problems if problem.kind == "departure"]
    del source["zarr.json"]
    with pytest.raises(ValueError, match="states no version of OME-Zarr"):
        pack(source, tmp_path / "b.ozx", executor=Elsewhere())
    assert sorted(os.listdir(tmp_path)) == ["a.ozx", "source"]


def test_the_command_line_packs_on_workers(
    source: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    executor = Elsewhere()
    monkeypatch.setattr("zarrstore.cli.pack.with_executor", lambda jobs, dask: nullcontext(executor))
    assert run(["pack", source.path, str(tmp_path / "a.zip"), "--dask", "tcp://scheduler:8786"]) == 0
    assert executor.n_tasks > 30
    assert list(diff(source, ZipStore(tmp_path / "a.zip", mode="r"))) == []
