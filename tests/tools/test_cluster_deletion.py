"""Workers elsewhere delete, clean and consolidate: what is left, in which order, and what the client has to do."""

from __future__ import annotations

import json
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.support.executors import Elsewhere
from zarrstore import (
    DirectoryStore,
    clean,
    consolidate_metadata,
    delete_node,
    init_array,
    init_group,
    migrate_2to3,
    rmdir,
)
from zarrstore.cli.group import run
from zarrstore.errors import ClusterError, MetadataError
from zarrstore.testing import CountingStore
from zarrstore.tools import cluster
from zarrstore.tools.consolidate import check_consolidated
from zarrstore.tools.holding import is_document

CHUNKS = 60


def fill(store: Any) -> None:
    init_group(store)
    for name in ("a", "deep/b", "deep/er/c"):
        init_array(store, shape=CHUNKS, chunks=1, dtype="u1", compressor=None, fill_value=0, path=name)
        store.update({f"{name}/{n}": bytes([n]) for n in range(CHUNKS)})
    store.update({"deep.x/0": b"beside", "deeper/0": b"beside"})


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    source = DirectoryStore(tmp_path / "store")
    fill(source)
    return source


class Log(DirectoryStore):
    """A DirectoryStore that writes down what is deleted, by whichever copy of it."""

    deleted: list[str] = []

    def _delete_many(self, keys: Any) -> None:
        wanted = list(keys)
        Log.deleted += [key for key in wanted if super(Log, self)._contains(key) and "probe" not in key]
        super()._delete_many(wanted)

    def _rmdir(self, path: str) -> None:
        Log.deleted += list(self._keys(path))
        super()._rmdir(path)


@pytest.mark.parametrize("path", ["", "deep", "a", "deep/er", "nothing"])
def test_workers_delete_what_is_below_and_nothing_beside(store: DirectoryStore, path: str) -> None:
    before = dict(store)
    left = {key: value for key, value in before.items() if path and not key.startswith(f"{path}/")}
    for executor in (Elsewhere(), ThreadPoolExecutor(2)):
        rmdir(store, path, executor=executor)
        assert dict(store) == left
        store.update(before)


def test_documents_are_deleted_before_any_chunk(tmp_path: Path) -> None:
    logged = Log(tmp_path / "store")
    fill(logged)
    logged["deep/b/nested/.zarray"] = b"{}"
    logged["deep/b/nested/0"] = b"1"
    number = sum(is_document(key) for key in logged)
    Log.deleted = []
    rmdir(logged, executor=Elsewhere())
    assert {is_document(key) for key in Log.deleted[:number]} == {True}
    assert {is_document(key) for key in Log.deleted[number:]} == {False}
    assert Log.deleted[0] == ".zgroup"
    assert len(Log.deleted) == len(set(Log.deleted)) > 3 * CHUNKS


def test_what_a_cluster_that_ended_left_is_deleted_by_the_next(store: DirectoryStore) -> None:
    class Ending(Elsewhere):
        """Of the tasks that delete, the third finds no scheduler."""

        n_deletions = 0

        def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
            self.n_deletions += function.__name__ == "_delete_part"
            if self.n_deletions > 2:
                self.answer = CancelledError()
            return super().submit(function, *args, **options)

    with pytest.raises(ClusterError, match=r"the scheduler is gone.*run it again to delete the rest"):
        rmdir(store, executor=Ending())
    assert 0 < len(store) < 3 * CHUNKS + 2
    assert not any(map(is_document, store))
    rmdir(store, executor=Elsewhere())
    assert list(store) == []


def test_what_is_set_meanwhile_is_deleted_too(store: DirectoryStore) -> None:
    class Slow(Elsewhere):
        def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
            if function.__name__ == "_delete_part":
                store["late/0"] = b"1"
            return super().submit(function, *args, **options)

    rmdir(store, executor=Slow())
    assert list(store) == []


@pytest.mark.parametrize("verb", [rmdir, clean, consolidate_metadata, delete_node])
def test_workers_that_cannot_work_change_nothing(
    verb: Any, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.1)
    before = dict(store)
    other = DirectoryStore(tmp_path / "other")

    def their_folder(args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(other if isinstance(arg, DirectoryStore) else arg for arg in args)

    idle = Elsewhere()
    idle._max_workers = 0
    for executor, words in (
        (Elsewhere(their_folder), "is not there on worker"),
        (Elsewhere(answer=ModuleNotFoundError("No module named 'zarrstore'")), "a worker lacks a package"),
        (Elsewhere(answer=CancelledError()), "the scheduler is gone"),
        (Elsewhere(answer="never"), "no worker has done a task within"),
        (idle, "it has no worker"),
    ):
        with pytest.raises(ClusterError, match=words):
            verb(store, executor=executor)
        assert dict(store) == before
        assert list(other) == []


def test_an_error_of_a_part_is_raised_as_it_is(store: DirectoryStore) -> None:
    class Refused(DirectoryStore):
        def _rmdir(self, path: str) -> None:
            raise PermissionError(13, f"cannot remove {path!r}")

    def refusing(args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(Refused(store.path) if isinstance(arg, DirectoryStore) else arg for arg in args)

    with pytest.raises(PermissionError, match="cannot remove"):
        rmdir(store, executor=Elsewhere(refusing))
    assert not any(map(is_document, store))


def test_what_the_client_asks_and_handles_does_not_grow_with_the_keys(tmp_path: Path) -> None:
    asked = []
    for count in (200, 800):
        inner = DirectoryStore(tmp_path / str(count))
        init_array(inner, shape=count, chunks=1, dtype="u1", compressor=None, path="a")
        inner.update({f"a/{n}": b"1" for n in range(count)})
        mine, executor = CountingStore(inner), Elsewhere()
        consolidate_metadata(mine, executor=executor)
        assert not check_consolidated(inner)
        calls = sum(mine.calls.values())
        rmdir(mine, executor=executor)
        assert list(inner) == []
        # The copies that the workers got count for themselves.
        asked.append((calls, sum(mine.calls.values()), executor.n_tasks))
    assert asked[0] == asked[1]
    assert asked[0][1] < 60


def test_workers_consolidate_what_this_process_would(store: DirectoryStore, tmp_path: Path) -> None:
    newer = DirectoryStore(tmp_path / "newer")
    migrate_2to3(store, newer)
    for one in (store, newer):
        for path in ("", "deep"):
            before = dict(one)
            consolidate_metadata(one, path=path)
            expected = dict(one)
            for key in expected.keys() - before.keys():
                del one[key]
            one.update(before)
            executor = Elsewhere()
            consolidate_metadata(one, path=path, executor=executor)
            assert executor.n_tasks > 5
            assert dict(one) == expected != before
            assert not check_consolidated(one, path=path, executor=executor)
    del store["deep/b/.zarray"]
    assert check_consolidated(store, path="deep", executor=Elsewhere()).extra == ("b/.zarray",)


def test_a_spelling_that_readers_would_not_find_is_refused_by_workers_too(store: DirectoryStore) -> None:
    init_array(store, shape=(4, 4), chunks=1, dtype="u1", compressor=None, path="n")
    document = json.loads(store["n/.zarray"])
    document.pop("dimension_separator", None)
    store["n/.zarray"] = json.dumps(document).encode()
    store["n/0/0"] = b"1"
    with pytest.raises(MetadataError, match="is missing, and the chunks are nested"):
        consolidate_metadata(store, executor=Elsewhere())
    assert ".zmetadata" not in store


def test_workers_find_the_junk_that_this_process_would(store: DirectoryStore) -> None:
    before = dict(store)
    junk = ["a/.DS_Store", "deep/._x", "deep/er/c/Thumbs.db", "deep/.ipynb_checkpoints/0", ".DS_Store"]
    store.update(dict.fromkeys(junk, b""))
    expected = clean(store, dry_run=True)
    assert clean(store, dry_run=True, executor=Elsewhere()) == expected == sorted(expected)
    assert len(expected) >= 4
    assert clean(store, executor=Elsewhere()) == expected
    assert {key for key in store if key not in before} == set(junk) - set(expected)


def test_a_view_deletes_in_its_own_order(store: DirectoryStore) -> None:
    from zarrstore import V3View

    executor = Elsewhere()
    rmdir(V3View(store), "a", executor=executor)
    assert executor.n_tasks == 0
    assert not [key for key in store if key.startswith("a/")]


def test_the_command_line_deletes_on_workers(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    executor = Elsewhere()
    for verb in ("rm", "clean", "consolidate"):
        monkeypatch.setattr(f"zarrstore.cli.{verb}.with_executor", lambda jobs, dask: nullcontext(executor))

    def run_verb(verb: str, *args: str) -> Any:
        assert run([verb, store.path, *args, "--dask", "tcp://scheduler:8786", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert run_verb("consolidate")["stale"] is False
    below = sum(1 for _ in store.keys_below("deep"))
    assert run_verb("rm", "deep", "--dry-run")["n_keys"] == below > 0
    assert sum(1 for _ in store.keys_below("deep")) == below
    assert run_verb("rm", "deep", "--yes")["n_keys"] == below
    assert not [key for key in store if key.startswith("deep/")]
    assert not check_consolidated(store)
    store["a/.DS_Store"] = b""
    assert run_verb("clean", "--yes")["keys"] == ["a/.DS_Store"]
    assert "a/.DS_Store" not in store
    assert executor.n_tasks > 15
