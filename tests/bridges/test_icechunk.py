"""Icechunk under version 2 keys: written, committed, read natively by zarr 3, and seen as it was before."""

from __future__ import annotations

import pytest

pytest.importorskip("icechunk", reason="needs icechunk: pip install zarrstore[icechunk]")
pytest.importorskip("zarr.abc.store", reason="needs zarr 3: pip install zarrstore[zarr3]")

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import icechunk
import zarr

from tests.bridges.legacy import ARRAYS, DATA, NOT_ZARR_3, expected, same
from tests.support import peers
from zarrstore import CopyError, copy_store, migrate_2to3, read_array
from zarrstore.bridges.icechunk import IcechunkSession, IcechunkStore, Snapshot
from zarrstore.errors import InvalidKeyError, ReadOnlyError, UnsupportedOperation
from zarrstore.metadata import v2
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import FailingStore

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification"),
    pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification"),
]

GROUP = v2.encode_group()


def zarray(**members):
    members = {"shape": (4, 6), "chunks": (2, 3), "dtype": "<i4", "fill_value": 0, "compressor": None, **members}
    return v2.encode_array(v2.build_array(**members))


CHUNK = bytes(range(24))


@pytest.fixture
def repository():
    return icechunk.Repository.create(icechunk.in_memory_storage())


@pytest.fixture
def legacy():
    held = dict(DirectoryStore(DATA / "legacy.zarr"))
    return {k: v for k, v in held.items() if not k.startswith("stations/meta/") and k != ".zmetadata"}


def test_what_zarr_2_wrote_is_committed_read_natively_and_seen_again_after_the_next_commit(repository, legacy):
    store = IcechunkStore(repository)
    store.setitems(legacy)
    assert sorted(store) == sorted(legacy)
    assert store.has_changes
    first = store.commit("what zarr 2.18.7 wrote", {"by": "a test"})
    assert not store.has_changes

    def native(**where):
        return zarr.open_group(repository.readonly_session(**where).store, mode="r")

    group = native(branch="main")
    wanted = [name for name in ARRAYS if name not in NOT_ZARR_3]
    assert [name for name in wanted if not same(group[name][...], expected(name))] == []
    before = {key: store[key] for key in store}

    store["ocean/deep/raw/.zattrs"] = b'{"units": "m"}'
    store.rmdir("stations")
    store.rename("ocean/surface", "ocean/top")
    del store["ocean/deep/packed/0"]
    second = store.commit("less")
    group = native(branch="main")
    assert sorted(name for name, _ in group.members()) == ["never_written", "ocean", "scalar", "sparse"]
    assert same(group["ocean/top/temperature"][...], expected("ocean/surface/temperature"))
    assert dict(group["ocean/deep/raw"].attrs) == {"units": "m"}

    past = store.at(first)
    assert dict(past) == before
    assert [name for name in wanted if not same(native(snapshot_id=first)[name][...], expected(name))] == []
    history = store.history()
    assert [(one.id, one.message) for one in history[:2]] == [(second, "less"), (first, "what zarr 2.18.7 wrote")]
    assert history[0].parent == first
    assert history[1].metadata == {"by": "a test"}
    assert all(isinstance(one, Snapshot) for one in history)
    assert [one.id for one in past.history()] == [one.id for one in history[1:]]
    assert (past.snapshot_id, store.snapshot_id) == (first, second)


def test_zarr_3_commits_and_version_2_keys_show_it(repository):
    session = repository.writable_session("main")
    group = zarr.create_group(session.store, attributes={"t": 1})
    group.create_array("a", shape=(4, 4), chunks=(2, 2), dtype="f4", dimension_names=("y", "x"))[:] = 2
    session.commit("native")
    store = IcechunkStore(repository, read_only=True)
    assert sorted(store) == [".zattrs", ".zgroup", "a/.zarray", "a/.zattrs", "a/0.0", "a/0.1", "a/1.0", "a/1.1"]
    assert store.listdir("a") == [".zarray", ".zattrs", "0.0", "0.1", "1.0", "1.1"]
    assert v2.decode_attrs(store["a/.zattrs"]) == {"_ARRAY_DIMENSIONS": ["y", "x"]}
    assert store.getsize("a/0.0") == len(store["a/0.0"])
    assert store.getrange("a/0.0", 0, 3) == store["a/0.0"][:3]
    assert store.getsuffix("a/0.0", 3) == store["a/0.0"][-3:]


@pytest.mark.needs_peer("zarr2")
def test_zarr_2_itself_reads_and_writes(tmp_path):
    """In one process there is one zarr: zarr 2 works on a directory, and what it did is carried over."""
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    script = """
        import json, sys, numpy as np, zarr
        import zarrstore.bridges.zarr2
        from zarrstore.stores.directory import DirectoryStore
        group = zarr.open_group(DirectoryStore(sys.argv[1]), mode="a")
        if "a" in group:
            print(json.dumps([group["a"][:].tolist(), dict(group["a"].attrs)]))
        else:
            group.create_dataset("a", data=np.arange(12).reshape(3, 4), chunks=2, fill_value=0)
            group["a"].attrs["units"] = "K"
    """
    peers.run("zarr2", script, tmp_path / "before")
    store = IcechunkStore(repository)
    store.setitems(DirectoryStore(tmp_path / "before"))
    store.commit("from zarr 2")
    again = IcechunkStore(icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "repo"))))
    DirectoryStore(tmp_path / "after").setitems(again)
    assert peers.run("zarr2", script, tmp_path / "after") == [
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
        {"units": "K"},
    ]


def test_read_only_sessions_refuse_writes_and_change_nothing(repository):
    store = IcechunkStore(repository)
    store.update({".zgroup": GROUP, "a/.zarray": zarray(), "a/0.0": CHUNK})
    snapshot = store.commit("first")
    repository.create_tag("v1", snapshot)
    for reader in (
        IcechunkStore(repository, read_only=True),
        IcechunkStore(repository, snapshot_id=snapshot),
        IcechunkStore(repository, tag="v1"),
        IcechunkStore(repository.readonly_session("main")),
        store.at(snapshot),
    ):
        assert not reader.capabilities.writable
        before = dict(reader)
        for write in (
            lambda: reader.__setitem__("a/0.0", b"x"),  # noqa: B023
            lambda: reader.__setitem__("a/.zattrs", b"{}"),  # noqa: B023
            lambda: reader.setitems({"a/0.1": b"x"}),  # noqa: B023
            lambda: reader.__delitem__("a/0.0"),  # noqa: B023
            lambda: reader.__delitem__("a/.zarray"),  # noqa: B023
            lambda: reader.delitems(["a/0.0"]),  # noqa: B023
            lambda: reader.rmdir("a"),  # noqa: B023
            lambda: reader.rename("a", "b"),  # noqa: B023
            lambda: reader.clear(),  # noqa: B023
            lambda: reader.commit("nothing"),  # noqa: B023
        ):
            with pytest.raises(ReadOnlyError):
                write()
        assert dict(reader) == before


def test_a_session_given_by_itself_is_read_only_after_its_commit(repository):
    session = repository.writable_session("main")
    store = IcechunkStore(session)
    store[".zgroup"] = GROUP
    store.commit("first")
    assert not store.capabilities.writable
    with pytest.raises(ReadOnlyError):
        store["a/.zgroup"] = GROUP
    with pytest.raises(UnsupportedOperation, match="Repository"):
        store.history()
    with pytest.raises(UnsupportedOperation, match="Repository"):
        store.at("x")
    with pytest.raises(TypeError, match="dict"):
        IcechunkStore({})


def test_what_is_not_committed_can_be_discarded(repository):
    store = IcechunkStore(repository)
    store[".zgroup"] = GROUP
    store.commit("first")
    store.update({"a/.zarray": zarray(), "a/0.0": CHUNK})
    store.discard()
    assert (sorted(store), store.has_changes) == ([".zgroup"], False)
    with pytest.raises(UnsupportedOperation):
        store["a/0.0"] = CHUNK  # its array is gone


def test_two_writers_of_one_branch_do_not_overwrite_each_other_unnoticed(repository):
    one = IcechunkStore(repository)
    one.update({".zgroup": GROUP, "a/.zarray": zarray()})
    one.commit("first")
    one["a/0.0"] = CHUNK
    other = IcechunkStore(repository)
    other["a/0.0"] = CHUNK[::-1]
    other.commit("other")
    with pytest.raises(icechunk.ConflictError):
        one.commit("one")
    assert IcechunkStore(repository)["a/0.0"] == CHUNK[::-1]


def test_other_keys_are_absent_and_refused(repository):
    store = IcechunkStore(repository)
    store.update({".zgroup": GROUP, "a/.zarray": zarray(), "a/0.0": CHUNK})
    for key in ("readme.txt", "a/readme.txt", "zarr.json", "a/c/0/0", "a/7", "a/0.0.0", "b/0.0", "c/0", "a/9.9"):
        assert key not in store
        assert store.get(key) is None
        assert store.getsize(key) == 0
        with pytest.raises(KeyError):
            del store[key]
    assert dict(store.getitems(["readme.txt", "a/9.9", "a/0.0"])) == {"a/0.0": CHUNK}
    for key in ("readme.txt", "a/readme.txt", "zarr.json", "a/c/0/0", "a/7", "a/9.9"):
        with pytest.raises(InvalidKeyError):
            store[key] = CHUNK
    with pytest.raises(UnsupportedOperation):
        store["b/0.0"] = CHUNK
    assert sorted(store) == [".zgroup", "a/.zarray", "a/0.0"]


def test_deleting_a_key_never_removes_a_subtree(repository):
    store = IcechunkStore(repository)
    held = {".zgroup": GROUP, "g/.zgroup": GROUP, "g/a/.zarray": zarray(), "g/a/0.0": CHUNK}
    store.update(held)
    for key in ("g/.zgroup", "g/a/.zarray"):
        with pytest.raises(UnsupportedOperation, match="rmdir"):
            del store[key]
    with pytest.raises(UnsupportedOperation, match="not empty"):
        store["g/.zarray"] = zarray()
    assert dict(store) == held
    store.delitems(["g/.zgroup", "g/a/.zarray", "g/a/0.0"])  # all of it: in an order that works
    assert dict(store) == {".zgroup": GROUP}
    store["g/.zattrs"] = b'{"u": 1}'  # makes a group, which becomes an array
    store["g/.zarray"] = zarray()
    assert sorted(store) == [".zgroup", "g/.zarray", "g/.zattrs"]


class TestIcechunkSession:
    @pytest.fixture
    def session(self, repository):
        return IcechunkSession(repository.writable_session("main"))

    def test_version_3_keys_are_as_they_are(self, session, repository):
        memory = zarr.storage.MemoryStore()
        group = zarr.create_group(memory)
        group.create_array("a/b", shape=(4,), chunks=(2,), dtype="i4")[:] = 3
        from zarrstore.bridges.zarr3 import AsyncStoreMapping

        held = dict(AsyncStoreMapping(memory))
        session.setitems((key, held[key]) for key in sorted(held))  # chunks before their array
        assert sorted(session) == sorted(held)
        session.rename("a", "moved/deep")
        assert sorted(session.keys_below("moved")) == sorted("moved/deep" + key[1:] for key in held if key[:2] == "a/")
        session.session.commit("first")
        group = zarr.open_group(repository.readonly_session("main").store, mode="r")
        assert group["moved/deep/b"][:].tolist() == [3] * 4
        with pytest.raises(ReadOnlyError):
            session["zarr.json"] = held["zarr.json"]

    def test_what_is_no_key_of_version_3_is_absent_and_refused(self, session):
        session["zarr.json"] = b'{"zarr_format": 3, "node_type": "group"}'
        for key in ("foo", "foo/bar", ".zgroup", "a/.zarray", "a/0.0", "a/c/0", "c/0"):
            assert key not in session
            assert session.get(key) is None
            assert session.getsize(key) == 0
            with pytest.raises(KeyError):
                session.getrange(key, 0, 1)
            with pytest.raises(InvalidKeyError):
                session[key] = b"x"
        assert dict(session.getitems(["foo", "zarr.json", "c/0"])) == {"zarr.json": session["zarr.json"]}

    def test_a_read_only_session_pickles(self, tmp_path):
        repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
        store = IcechunkStore(repository)
        store.update({".zgroup": GROUP, "a/.zarray": zarray(), "a/0.0": CHUNK})
        store.commit("first")
        for reader in (IcechunkSession(repository.readonly_session("main")), IcechunkStore(repository, read_only=True)):
            assert dict(pickle.loads(pickle.dumps(reader))) == dict(reader)


# Verbs ----------------------------------------------------------------------------------------------------------------


def _native(repository):
    return zarr.open_group(repository.readonly_session(branch="main").store, mode="r")


@pytest.mark.parametrize("executor", [False, True])
def test_a_hierarchy_of_version_2_is_copied_into_a_repository_and_out_again(repository, legacy, executor, tmp_path):
    store = IcechunkStore(repository)
    with ThreadPoolExecutor(4) if executor else nullcontext() as pool:
        result = copy_store(legacy, store, executor=pool, resume=tmp_path / "journal")
    assert (result[:2], result.errors) == ((len(legacy), 0), {})
    store.commit("copied")
    group = _native(repository)
    wanted = [name for name in ARRAYS if name not in NOT_ZARR_3]
    assert [name for name in wanted if not same(group[name][...], expected(name))] == []
    out = DirectoryStore(tmp_path / "out")
    copy_store(IcechunkStore(repository, read_only=True), out, verify=True)
    assert [name for name in wanted if not same(read_array(out, name), expected(name))] == []
    assert sorted(key for key in out if ".z" not in key) == sorted(key for key in legacy if ".z" not in key)


def test_a_copy_that_fails_leaves_no_array_without_its_chunks(repository, legacy):
    store = IcechunkStore(repository)
    source = FailingStore(
        legacy, OSError(5, "Input/output error"), methods=["_get", "_get_many"], keys=["ocean/deep/raw/0"]
    )
    result = copy_store(source, store, errors="collect")
    assert result.errors["ocean/deep/raw/.zarray"].startswith(("deleted again", "not all below it"))
    assert "ocean/deep/raw/0" in result.errors
    assert "never_written/.zarray" not in result.errors
    with pytest.raises(CopyError, match="ocean/deep/raw/"):
        copy_store(source, store, if_exists="replace")


def test_a_migration_gives_chunks_the_names_that_icechunk_wants(repository, legacy):
    dest = IcechunkSession(repository.writable_session("main"))
    report = migrate_2to3(legacy, dest)
    arrays = [node.path for node in report if node.kind == "array" and node.action == "migrated"]
    assert "ocean/deep/raw" in arrays
    assert {key for key in dest if key.endswith("zarr.json")} == {key for node in report for key in node.keys}
    assert all("/c/" in key or key.endswith(("/c", "zarr.json")) for key in dest)
    assert "ocean/deep/raw/c/0" in dest
