"""Every verb and wrapper takes whatever `open_store` takes, and closes what it opened."""

from __future__ import annotations

import json
import re

import pytest
import zarr
from zarr.storage import LocalStore

import zarrstore
from zarrstore import DirectoryStore, NodeNotFoundError, StoreNotFoundError, as_store, targets
from zarrstore.tools.chunkmap import chunk_map
from zarrstore.tools.info import describe_node, describe_store
from zarrstore.tools.move import move


def filled(place):
    """Write one array of version 2 into a store, with what makes it consolidated."""
    zarrstore.init_array(place, shape=4, chunks=2, dtype="|u1", compressor=None, path="foo/bar")
    place.update({"foo/bar/0": b"12", "foo/bar/1": b"34", ".DS_Store": b"junk"})
    zarrstore.consolidate_metadata(place)


#: What a target is made of a directory in which `filled` has been: every form in which a store is named.
FORMS = {
    "path": str,
    "URL": lambda path: path.as_uri(),
    "Path": lambda path: path,
    "dict": lambda path: dict(DirectoryStore(path)),
    "store": lambda path: DirectoryStore(path),
    "zarr 3 store": lambda path: LocalStore(path),
    "zarr Group": lambda path: zarr.open_group(LocalStore(path), mode="r+", zarr_format=2),
}

#: Each verb on a target, and a directory for what it writes elsewhere.
VERBS = {
    "listdir": lambda at, tmp: zarrstore.listdir(at, "foo/bar"),
    "rmdir": lambda at, tmp: zarrstore.rmdir(at, "foo"),
    "rename": lambda at, tmp: zarrstore.rename(at, "foo/bar", "foo/baz"),
    "getsize": lambda at, tmp: zarrstore.getsize(at, "foo/bar/0"),
    "keys_below": lambda at, tmp: sorted(zarrstore.keys_below(at, "foo")),
    "getitems": lambda at, tmp: dict(zarrstore.getitems(at, ["foo/bar/0", "foo/bar/9"])),
    "setitems": lambda at, tmp: zarrstore.setitems(at, {"foo/bar/1": b"56"}),
    "delitems": lambda at, tmp: zarrstore.delitems(at, ["foo/bar/1"]),
    "getrange": lambda at, tmp: zarrstore.getrange(at, "foo/bar/0", 1),
    "getranges": lambda at, tmp: zarrstore.getranges(at, "foo/bar/0", [(0, 1)]),
    "getsuffix": lambda at, tmp: zarrstore.getsuffix(at, "foo/bar/0", 1),
    "init_array": lambda at, tmp: zarrstore.init_array(at, shape=3, path="new"),
    "init_group": lambda at, tmp: zarrstore.init_group(at, path="new"),
    "contains_array": lambda at, tmp: zarrstore.contains_array(at, "foo/bar"),
    "contains_group": lambda at, tmp: zarrstore.contains_group(at, "foo"),
    "delete_node": lambda at, tmp: zarrstore.delete_node(at, "foo/bar"),
    "walk": lambda at, tmp: [node.path for node in zarrstore.walk(at)],
    "tree": lambda at, tmp: str(zarrstore.tree(at)),
    "du": lambda at, tmp: zarrstore.du(at),
    "read_array": lambda at, tmp: zarrstore.read_array(at, "foo/bar").tolist(),
    "verify": lambda at, tmp: zarrstore.verify(at).n_chunks,
    "diff": lambda at, tmp: [str(one) for one in zarrstore.diff(at, {})],
    "clean": lambda at, tmp: zarrstore.clean(at),
    "repair": lambda at, tmp: len(zarrstore.repair(at)),
    "respell": lambda at, tmp: len(zarrstore.respell(at, "/").arrays),
    "move": lambda at, tmp: move(at, "foo/bar", "foo/baz"),
    "check_consolidated": lambda at, tmp: bool(zarrstore.check_consolidated(at)),
    "consolidate_metadata": lambda at, tmp: sorted(zarrstore.consolidate_metadata(at, ".zother")),
    "open_consolidated": lambda at, tmp: zarrstore.open_consolidated(at)["foo/bar/0"],
    "manifest_of": lambda at, tmp: zarrstore.manifest_of(at),
    "write_manifest": lambda at, tmp: zarrstore.write_manifest(at, tmp / "sums"),
    "dandi_checksum": lambda at, tmp: zarrstore.dandi_checksum(at),
    "write_bagit_manifest": lambda at, tmp: zarrstore.write_bagit_manifest(at, tmp / "bag"),
    "chunk_map": lambda at, tmp: str(chunk_map(at, "foo/bar")),
    "describe_node": lambda at, tmp: describe_node(at, "foo/bar"),
    "describe_store": lambda at, tmp: "store" in describe_store(at),
    "copy_store": lambda at, tmp: tuple(zarrstore.copy_store(at, tmp / "copy.zip")),
    "migrate_1to2": lambda at, tmp: zarrstore.migrate_1to2(at).counts(),
    "migrate_1to3": lambda at, tmp: zarrstore.migrate_1to3(at).counts(),
    "migrate_2to3": lambda at, tmp: zarrstore.migrate_2to3(at, tmp / "v3.zarr").counts(),
    "migrate_3to2": lambda at, tmp: zarrstore.migrate_3to2(at, tmp / "v2.zarr").counts(),
    "migrate_to_shards": lambda at, tmp: zarrstore.migrate_to_shards(at, tmp / "v3.zip").counts(),
    "migrate_to_icechunk": lambda at, tmp: _into_repository(at),
    "write_report": lambda at, tmp: _reported(at, tmp),
    "pack": lambda at, tmp: tuple(zarrstore.pack(at, tmp / "packed.zip")),
    "unpack": lambda at, tmp: tuple(zarrstore.unpack(at, tmp / "unpacked")),
}

#: Public functions that take no store; and `write_references`, which names the files of one, which a dict has not.
_OTHERS = {"write_references", "as_store", "open_store", "read_manifest"}


def _into_repository(at):
    """Return what a repository holds after a migration."""
    icechunk = pytest.importorskip("icechunk", reason="needs icechunk: pip install zarrstore[icechunk]")
    from zarrstore.bridges.icechunk import IcechunkStore

    dest = IcechunkStore(icechunk.Repository.create(icechunk.in_memory_storage()))
    report, commit = zarrstore.migrate_to_icechunk(at, dest, "foo")
    return report.counts(), commit is not None, dict(dest)


def _reported(at, tmp):
    """Return what a report says of each node."""
    report = zarrstore.migrate_2to3(at, tmp / "v3.zarr")
    zarrstore.write_report(report, tmp / "report.json", at, tmp / "v3.zarr")
    return json.loads((tmp / "report.json").read_text())["nodes"]


def test_the_table_names_every_verb():
    public = {name for name in zarrstore.__all__ if name[0].islower() and callable(getattr(zarrstore, name))}
    assert public - _OTHERS <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_does_the_same_whatever_names_the_store(verb, tmp_path):
    outcomes = {}
    for n, (form, target_of) in enumerate(FORMS.items()):
        place = tmp_path / f"{n}.zarr"
        filled(DirectoryStore(place))
        target = target_of(place)
        (tmp_path / str(n)).mkdir()
        result = VERBS[verb](target, tmp_path / str(n))
        left = target if isinstance(target, dict) else dict(DirectoryStore(place))
        outcomes[form] = (result, left)
    assert outcomes == dict.fromkeys(FORMS, outcomes["dict"])


@pytest.mark.parametrize(
    "wrapper",
    [
        zarrstore.FilterStore,
        zarrstore.LRUStoreCache,
        zarrstore.MetricsStore,
        zarrstore.N5View,
        zarrstore.OverlayStore,
        zarrstore.PrefixStore,
        zarrstore.ReadOnlyStore,
        zarrstore.RetryStore,
        zarrstore.SplitStore,
        zarrstore.UnshardedView,
        zarrstore.UsageLogStore,
        zarrstore.V2View,
        zarrstore.V3View,
        zarrstore.ConsolidatedStore,
    ],
)
def test_a_wrapper_does_the_same_whatever_names_the_store(wrapper, tmp_path):
    more = {
        zarrstore.LRUStoreCache: ["1MB"],
        zarrstore.PrefixStore: ["foo"],
        zarrstore.OverlayStore: [{}],
        zarrstore.SplitStore: [{}],
        zarrstore.UsageLogStore: [[].append],
    }.get(wrapper, [])
    filled(DirectoryStore(tmp_path / "a.zarr"))
    listings = {}
    for form, target_of in FORMS.items():
        with wrapper(target_of(tmp_path / "a.zarr"), *more) as store:
            listings[form] = sorted(store)
    assert listings == dict.fromkeys(FORMS, listings["dict"])
    assert listings["dict"]


def test_references_are_written_from_a_path(tmp_path):
    filled(DirectoryStore(tmp_path / "a.zarr"))
    written = {
        form: zarrstore.write_references(FORMS[form](tmp_path / "a.zarr"), tmp_path / f"{n}.json")
        for n, form in enumerate(("path", "URL", "Path", "store"))
    }
    assert len(set(written.values())) == 1
    for form in ("dict", "zarr 3 store", "zarr Group"):  # which do not tell in what file a value lies
        with pytest.raises(zarrstore.UnsupportedOperation, match="copy it to a directory"):
            zarrstore.write_references(FORMS[form](tmp_path / "a.zarr"), tmp_path / "refused.json")
    assert not (tmp_path / "refused.json").exists()


def test_what_a_verb_opened_is_closed_again_after_an_error_too(tmp_path, monkeypatch):
    filled(DirectoryStore(tmp_path / "a.zarr"))
    closed = []
    monkeypatch.setattr(DirectoryStore, "_close", lambda self: closed.append(self.path))
    zarrstore.tree(tmp_path / "a.zarr")
    with pytest.raises(KeyError):
        zarrstore.tree(tmp_path / "a.zarr", "no/such/path")
    list(zarrstore.walk(tmp_path / "a.zarr"))
    assert closed == [str(tmp_path / "a.zarr")] * 3


def test_a_store_of_the_caller_stays_open(tmp_path):
    with zarrstore.ZipStore(tmp_path / "a.zip", mode="w") as store:
        filled(store)
        zarrstore.tree(store)
        store["still"] = b"open"


def test_reading_a_path_where_nothing_is_creates_nothing(tmp_path):
    for verb in (zarrstore.tree, zarrstore.du, zarrstore.verify, zarrstore.listdir):
        with pytest.raises(StoreNotFoundError, match=re.escape("nothing.zarr")):
            verb(tmp_path / "nothing.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_opens_for_reading_and_creates_no_destination(tmp_path):
    filled(DirectoryStore(tmp_path / "a.zarr"))
    result = zarrstore.copy_store(tmp_path / "a.zarr", tmp_path / "b.zip", dry_run=True)
    assert result.n_copied
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_copying_to_a_database_that_is_not_there_makes_one(tmp_path):
    zarrstore.copy_store({"a": b"1"}, tmp_path / "new.db")
    assert (tmp_path / "new.db").read_bytes()[:15] == b"SQLite format 3"


def test_consolidated_metadata_of_a_zip_path_is_on_the_disk_when_the_verb_returns(tmp_path):
    with zarrstore.ZipStore(tmp_path / "a.zip", mode="w") as store:
        zarrstore.init_array(store, shape=3, path="foo")
    opened = zarrstore.consolidate_metadata(tmp_path / "a.zip")
    try:
        import zipfile

        assert ".zmetadata" in zipfile.ZipFile(tmp_path / "a.zip").namelist()
    finally:
        opened.close()


def test_a_group_or_array_of_zarr_stands_for_the_part_of_its_store(tmp_path):
    filled(DirectoryStore(tmp_path / "a.zarr"))
    root = zarr.open_group(LocalStore(tmp_path / "a.zarr"), mode="r", zarr_format=2)
    assert sorted(as_store(root["foo"])) == [".zgroup", "bar/.zarray", "bar/0", "bar/1"]
    assert sorted(as_store(root["foo/bar"])) == [".zarray", "0", "1"]


class _Node:
    """What zarr 2 and 3 call a Group, as far as `as_store` looks at one: it is a mapping of names to nodes."""

    def __init__(self, store, path):
        self.store, self.chunk_store, self.path = store, store, path

    def keys(self):
        return ["bar"]

    def __getitem__(self, name):
        raise AssertionError("a member is no value")


def test_a_group_of_zarr_2_is_no_mapping_of_keys_to_bytes():
    Group = type("Group", (_Node,), {"__module__": "zarr.hierarchy"})
    held = {"foo/.zgroup": b"{}", "foo/bar/0": b"1", "other": b""}
    assert dict(as_store(Group(held, "foo"))) == {".zgroup": b"{}", "bar/0": b"1"}


@pytest.mark.parametrize("nothing", [None, 7, object(), b"bytes"])
def test_what_stands_for_no_store_is_refused_by_its_type(nothing):
    with pytest.raises(TypeError, match=type(nothing).__name__):
        zarrstore.tree(nothing)


def test_no_verb_says_key_error_with_an_empty_path():
    for verb in (zarrstore.tree, zarrstore.repair, zarrstore.verify, zarrstore.delete_node):
        with pytest.raises(NodeNotFoundError, match="at the root: the store is empty"):
            verb({})
    with pytest.raises(KeyError, match="the root"):
        zarrstore.rename({}, "", "b")


def test_a_path_that_is_nearly_right_is_named():
    store = {}
    zarrstore.init_array(store, shape=3, path="foo/temperature")
    with pytest.raises(NodeNotFoundError, match=r"no array .* 'foo/tmperature': did you mean 'foo/temperature'"):
        zarrstore.tree(store, "foo/tmperature")
    with pytest.raises(NodeNotFoundError, match=r"nothing at 'xyz': the root holds '.zgroup', 'foo'"):
        describe_node(store, "xyz")


def test_sizes_are_taken_with_their_units_or_refused_with_what_is_wanted():
    cache = zarrstore.LRUStoreCache({}, "2GB", cache={}, cache_size="1 GiB")
    assert (cache.max_size, cache.cache_size) == (2_000_000_000, 1 << 30)
    with pytest.raises(ValueError, match="'500MB' or '2GiB'"):
        zarrstore.LRUStoreCache({}, "lots")
    with pytest.raises(ValueError, match="negative"):
        zarrstore.LRUStoreCache({}, "-1MB")
    with pytest.raises(TypeError, match="a number of bytes"):
        zarrstore.LRUStoreCache({}, [1])


def test_what_is_a_mapping_is_handed_on_as_it_is():
    held = {"a": b"1"}
    assert targets.opens(store="r")(_identity)(held) is held


def _identity(store):
    return store
