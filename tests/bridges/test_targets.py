"""Repositories of Icechunk and stores of zarr 3 as targets of open_store and of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

icechunk = pytest.importorskip("icechunk", reason="needs icechunk: pip install zarrstore[icechunk]")
zarr = pytest.importorskip("zarr", minversion="3", reason="needs zarr 3: pip install zarrstore[zarr3]")

from tests.bridges.legacy import ARRAYS, DATA, NOT_ZARR_3, expected, same  # noqa: E402
from zarrstore import (  # noqa: E402
    DirectoryStore,
    LMDBStore,
    copy_store,
    migrate_2to3,
    migrate_to_icechunk,
    migrate_to_shards,
    open_store,
    tree,
)
from zarrstore.bridges.icechunk import IcechunkSession, IcechunkStore, open_repository  # noqa: E402
from zarrstore.cli.group import run  # noqa: E402
from zarrstore.errors import (  # noqa: E402
    DestinationExistsError,
    MetadataError,
    StoreNotFoundError,
    UnsupportedOperation,
)
from zarrstore.tools.copy import CopyError  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification"),
    pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification"),
]

WANTED = [name for name in ARRAYS if name not in NOT_ZARR_3]
#: zarr 3.1 makes a dictionary key of the fill value of a shard, which those of structured types cannot be.
SHARDED = [name for name in WANTED if expected(name).dtype.names is None]


@pytest.fixture
def legacy(tmp_path: Path) -> str:
    held = {
        key: value
        for key, value in DirectoryStore(DATA / "legacy.zarr").items()
        if not any(key.startswith(f"{name}/") for name in NOT_ZARR_3)
    }
    with LMDBStore(tmp_path / "old.lmdb") as store:
        store.update(held)
    return str(tmp_path / "old.lmdb")


def native(repository: Any) -> Any:
    return zarr.open_group(repository.readonly_session("main").store, mode="r")


def opened(path: Path) -> Any:
    return icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))


@pytest.mark.parametrize("shards", [[], ["--shards", "auto"]], ids=["chunks", "shards"])
def test_one_command_makes_one_commit_that_zarr_3_reads(
    shards: list[str], legacy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = str(tmp_path / "repo")
    assert run(["migrate", legacy, repo, "--to", "icechunk", "-m", "what zarr 2 wrote", *shards]) in (0, 1)
    shown = capsys.readouterr()
    history = [line for line in shown.err.splitlines() if "what zarr 2 wrote" in line]
    group = native(opened(tmp_path / "repo"))
    assert [name for name in (SHARDED if shards else WANTED) if not same(group[name][...], expected(name))] == []
    with open_store(f"icechunk:{repo}", "r") as store:
        assert len(history) == 1
        assert history[0].startswith(store.history()[0].id)
        assert store.history()[0].metadata["source"] == legacy
    assert run(["migrate", legacy, repo, "--to", "icechunk", *shards]) == 3  # it is there already
    assert len(list(opened(tmp_path / "repo").ancestry(branch="main"))) == 2


@pytest.mark.needs_peer("ceph")
def test_the_repository_may_be_in_s3(legacy: str, s3_server: Any, s3_bucket: str, monkeypatch: Any) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    assert run(["migrate", legacy, f"s3://{s3_bucket}/repo", "--to", "icechunk"]) in (0, 1)
    with open_repository(f"s3://{s3_bucket}/repo", "r", s3_server.storage_options()) as store:
        group = native(store.repository)
        assert [name for name in WANTED if not same(group[name][...], expected(name))] == []


def test_what_cannot_be_copied_leaves_no_commit(tmp_path: Path) -> None:
    bad = dict(DirectoryStore(DATA / "legacy.zarr")) | {"notes.txt": b"no array"}
    with open_repository(str(tmp_path / "repo")) as repository:
        with pytest.raises(RuntimeError, match=r"notes\.txt"):
            migrate_to_icechunk(bad, repository)
        assert not repository.has_changes
        assert len(repository.history()) == 1
        mixed: dict[str, bytes] = {
            ".zgroup": b'{"zarr_format": 2}',
            "a/zarr.json": b'{"zarr_format": 3, "node_type": "group"}',
        }
        with pytest.raises(MetadataError, match="2 and 3"):
            migrate_to_icechunk(mixed, repository)
    with pytest.raises(KeyError):
        migrate_to_icechunk({}, repository)


def test_a_version_3_hierarchy_goes_in_as_it_is(legacy: str, tmp_path: Path) -> None:
    with open_store(legacy, "r") as old:
        new: dict[str, bytes] = {}
        migrate_to_shards(old, new)
    with open_repository(str(tmp_path / "repo")) as repository:
        report, commit = migrate_to_icechunk(new, repository)
        assert commit == repository.snapshot_id
        assert set(report.counts()) == {"migrated"}
        assert migrate_to_icechunk(new, repository, overwrite=True)[0].counts() == report.counts()
        with pytest.raises(DestinationExistsError):
            migrate_to_icechunk(new, repository)
    group = native(opened(tmp_path / "repo"))
    assert [name for name in SHARDED if not same(group[name][...], expected(name))] == []


def test_a_repository_opens_by_url_commits_at_the_end_and_not_after_an_error(tmp_path: Path) -> None:
    url = f"icechunk://{tmp_path}/repo"
    with pytest.raises(StoreNotFoundError, match="repository"):
        open_store(url, "r")
    assert not (tmp_path / "repo").exists()
    with open_store(url, message="one group") as store:
        assert isinstance(store, IcechunkStore)
        store[".zgroup"] = b'{"zarr_format": 2}'
    with pytest.raises(RuntimeError), open_store(url) as store:
        store["a/.zgroup"] = b'{"zarr_format": 2}'
        raise RuntimeError
    with open_store(url, "r") as store:
        assert list(store) == [".zgroup"]
        assert [one.message for one in store.history()] == ["one group", "Repository initialized"]
        assert "/" in str(tree(store))
    with pytest.raises(DestinationExistsError):
        open_store(url, "w-")


@pytest.mark.parametrize("name", ["x.zarr", "x.zip"])
def test_zarr_3_s_own_stores_open_under_their_own_keys(name: str, tmp_path: Path) -> None:
    target = f"zarr3:{tmp_path / name}"
    with pytest.raises(StoreNotFoundError):
        open_store(target, "r")
    with open_store(target) as store:
        store["zarr.json"] = b"{}"
    for again in (target, tmp_path / name):
        with open_store(again, "r") as store:
            assert dict(store) == {"zarr.json": b"{}"}


def test_zarr_3_opens_a_url(tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "x")["a"] = b"1"
    with open_store(f"zarr3:file://{tmp_path}/x", "r") as store:
        assert dict(store) == {"a": b"1"}


def test_the_command_says_what_does_not_go_together(legacy: str, tmp_path: Path, capsys: Any) -> None:
    for args, reason in (
        (["--to", "icechunk"], "where the repository is"),
        ([str(tmp_path / "r"), "--to", "icechunk", "--resume", "j"], "one commit"),
        (["-m", "x"], "--to icechunk"),
    ):
        assert run(["migrate", legacy, *args]) == 2
        assert reason in capsys.readouterr().err
    assert run(["migrate", legacy, str(tmp_path / "r"), "--to", "icechunk", "--dry-run", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["dry_run"]
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("shards", [None, "auto"])
def test_migrate_2to3_writes_into_a_session_a_repository_and_a_url(shards: Any, legacy: str, tmp_path: Path) -> None:
    wanted = SHARDED if shards else WANTED
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    report = migrate_2to3(legacy, IcechunkSession(session), shards=shards)
    assert set(report.counts()) == {"migrated"}
    session.commit("by the caller")
    assert [name for name in wanted if not same(native(repository)[name][...], expected(name))] == []
    store = IcechunkStore(icechunk.Repository.create(icechunk.in_memory_storage()))
    assert migrate_2to3(legacy, store, shards=shards).counts() == report.counts()
    assert store.has_changes
    store.commit("by the caller")
    assert [name for name in wanted if not same(native(store.repository)[name][...], expected(name))] == []
    url = f"icechunk://{tmp_path}/repo"
    assert migrate_2to3(legacy, url, shards=shards, dry_run=True).counts() == {"planned": len(report)}
    assert not (tmp_path / "repo").exists()
    assert migrate_2to3(legacy, url, shards=shards).counts() == report.counts()
    with open_store(url, "r") as written:
        assert len(written.history()) == 2  # the commit that made the repository, and one
    assert [name for name in wanted if not same(native(opened(tmp_path / "repo"))[name][...], expected(name))] == []
    with pytest.raises(DestinationExistsError):
        migrate_2to3(legacy, url, shards=shards)


def test_a_verb_that_fails_leaves_no_commit_in_the_repository_that_it_opened(tmp_path: Path) -> None:
    url = f"icechunk://{tmp_path}/repo"
    with open_store(url) as store:
        store[".zgroup"] = b'{"zarr_format": 2}'
    bad = dict(DirectoryStore(DATA / "legacy.zarr")) | {"zz/notes.txt": b"no array"}
    for verb in (migrate_2to3, copy_store):
        with pytest.raises((CopyError, UnsupportedOperation)):
            verb(bad, url, **({"overwrite": True} if verb is migrate_2to3 else {"if_exists": "replace"}))
        with open_store(url, "r") as store:
            assert list(store) == [".zgroup"]
            assert len(store.history()) == 2


def test_a_journal_does_not_go_with_a_repository(legacy: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperation, match="one commit, or none"):
        migrate_2to3(legacy, f"icechunk://{tmp_path}/repo", resume=tmp_path / "journal")
