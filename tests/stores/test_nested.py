"""NestedDirectoryStore: a chunk under either spelling is one record, listed as its array says."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.stores.test_directory import files
from tests.support import peers
from tests.support.collector import not_collecting
from zarrstore.errors import ConflictError
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.testing import StoreConformance

FLAT = b'{"zarr_format": 2, "shape": [4, 4]}'
SLASHED = b'{"zarr_format": 2, "shape": [4, 4], "dimension_separator": "/"}'


class TestNestedDirectoryStore(StoreConformance):
    examples = 60

    def make_store(self, tmp_path):
        return NestedDirectoryStore(tmp_path / "data")

    def reopen(self, store, tmp_path):
        store.close()
        return NestedDirectoryStore(tmp_path / "data")


class TestNestedAlways(StoreConformance):
    examples = 5
    checks_processes = False

    def make_store(self, tmp_path):
        return NestedDirectoryStore(tmp_path / "data", durability="always")


@pytest.fixture
def store(tmp_path):
    return NestedDirectoryStore(tmp_path / "data")


def test_the_separator_is_a_slash_and_nothing_else(tmp_path):
    assert NestedDirectoryStore(tmp_path)._dimension_separator == "/"
    assert NestedDirectoryStore(tmp_path, False, None)._dimension_separator == "/"
    for other in (".", "", "x"):
        with pytest.raises(ValueError, match="a NestedDirectoryStore has '/'"):
            NestedDirectoryStore(tmp_path, dimension_separator=other)


@pytest.mark.parametrize("array", [None, FLAT, SLASHED], ids=["no array", "flat", "slashed"])
@pytest.mark.parametrize("first", ["foo/10.20.30", "foo/10/20/30"])
@pytest.mark.parametrize("second", ["foo/10.20.30", "foo/10/20/30"])
def test_a_chunk_in_either_spelling_is_one_record(store, array, first, second):
    if array:
        store["foo/.zarray"] = array
    others = len(store)
    store[first] = b"first"
    assert (store[second], second in store, store.getsize(second)) == (b"first", True, 5)
    assert (store.getrange(second, 1, 3), store.getsuffix(second, 2)) == (b"ir", b"st")
    assert dict(store.getitems([second])) == {second: b"first"}
    store[second] = b"second"
    assert (store[first], store[second], len(store)) == (b"second", b"second", others + 1)
    assert len(list(store)) == others + 1
    del store[second]
    assert (first in store, second in store, len(store)) == (False, False, others)
    assert store.listdir("foo") == ([".zarray"] if array else [])
    with pytest.raises(KeyError):
        del store[first]


def test_what_zarr_2_2_tested(store):
    store["0.0"] = b"xxx"
    assert (store["0.0"], store["0/0"]) == (b"xxx", b"xxx")
    store["foo/10.20.30"] = b"yyy"
    assert (store["foo/10.20.30"], store["foo/10/20/30"]) == (b"yyy", b"yyy")
    store["42"] = b"zzz"
    assert store["42"] == b"zzz"


def test_chunks_are_listed_in_the_spelling_that_their_array_says(store):
    for path, document in (("flat", FLAT), ("slashed", SLASHED), ("broken", b"not JSON")):
        store[f"{path}/.zarray"] = document
        store[f"{path}/.zattrs"] = b"{}"
        store[f"{path}/0.1"] = store[f"{path}/1/0"] = b"1"
    store["none/0.1"] = store["none/1/0"] = b"1"
    dots, slashes = {"0.1", "1.0"}, {"0/1", "1/0"}
    documents = {".zarray", ".zattrs"}
    expected = {
        *(f"flat/{name}" for name in dots | documents),
        *(f"slashed/{name}" for name in slashes | documents),
        *(f"broken/{name}" for name in dots | documents),
        *("none/0.1", "none/1/0"),
    }
    assert sorted(store) == sorted(expected)
    assert len(store) == len(expected)
    assert store.listdir("flat") == sorted(dots | documents)
    assert store.listdir("slashed") == sorted(slashes | documents)
    assert store.listdir("none") == ["0.1", "1"]
    assert (store.listdir("slashed/0"), store.listdir("flat/0")) == (["1"], [])
    assert sorted(store.keys_below("slashed/0")) == ["slashed/0/1"]
    assert (list(store.keys_below("flat/0")), sorted(store.keys_below("flat"))) == (
        [],
        sorted(f"flat/{name}" for name in dots | documents),
    )
    assert store.getsize("flat") == sum(len(store[key]) for key in store if key.startswith("flat/"))
    assert store.getsize("slashed/0") == 1
    assert files(Path(store.path, "flat")) == [".zarray", ".zattrs", "0/1", "1/0"]
    assert {key: store[key] for key in store} == dict(store.items())


def test_a_directory_of_chunks_with_flat_keys_is_no_directory(store):
    store["a/.zarray"] = FLAT
    store["a/0.1"] = b"1"
    before = dict(store)
    store.rmdir("a/0")
    with pytest.raises(KeyError):
        store.rename("a/0", "b")
    assert dict(store) == before
    with pytest.raises(ConflictError):
        store["a/0"] = b"where the directory is"
    assert dict(store) == before
    store["s/.zarray"] = SLASHED
    store["s/0/1"] = store["s/1/1"] = b"1"
    store.rmdir("s/0")
    store.rename("s/1", "s/7")
    assert sorted(store.keys_below("s")) == ["s/.zarray", "s/7/1"]


def test_a_chunk_keeps_its_name_when_its_array_goes(store):
    chunks = {"a/0.1": b"1", "a/1.0": b"2", "a/2": b"3", "a/x": b"4"}
    store.update(
        {"a/.zarray": FLAT, **chunks, "s/.zarray": SLASHED, "s/0/1": b"5", "a/7/.zarray": FLAT, "a/7/0.0": b"6"}
    )
    del store["a/.zarray"]
    rest = {"a/7/.zarray": FLAT, "a/7/0.0": b"6"}
    assert dict(store) == {**chunks, **rest, "s/.zarray": SLASHED, "s/0/1": b"5"}
    assert store["a/0/1"] == b"1"
    store.delitems(["s/.zarray", "a/7/.zarray"])
    assert dict(store) == {**chunks, "s/0/1": b"5", "a/7/0.0": b"6"}
    store["a/.zarray"] = FLAT
    assert store["a/1.0"] == b"2"
    store.rename("a/.zarray", "document")
    assert {key: store[key] for key in chunks} == chunks


def test_a_directory_named_zarray_makes_no_array(store):
    store.update({".zarray/a": b"1", "0.1": b"2"})
    assert (dict(store), files(Path(store.path))) == ({".zarray/a": b"1", "0.1": b"2"}, [".zarray/a", "0.1"])


def test_items_popped_one_by_one_are_those_that_were_there(store):
    expected = {f"a/{i}.{j}": b"1" for i in range(3) for j in range(2)}
    expected |= {"a/.zarray": FLAT, "a/.zattrs": b"{}", ".zgroup": b"{}", "g/0/.zarray": FLAT, "g/0/0.0": b"2"}
    store.update(expected)
    popped = []
    while store:
        popped.append(store.popitem())
    assert dict(popped) == expected
    assert len(popped) == len(expected)
    names = [key for key, _ in popped]
    assert names.index("a/.zarray") > max(names.index(key) for key in expected if key.startswith("a/0"))


def test_deleting_a_whole_array_key_by_key_moves_nothing(store, monkeypatch):
    store.update({"a/.zarray": FLAT, **{f"a/{i}.0": b"1" for i in range(20)}})
    moves = []
    link = os.link
    monkeypatch.setattr(os, "link", lambda *args, **kw: (moves.append(args), link(*args, **kw)))
    store.delitems(sorted(store, reverse=True))
    assert (list(store), moves) == ([], [])


def test_sizes_in_a_listing_are_those_of_the_values_in_any_spelling(store):
    store.update({"f/.zarray": FLAT, "f/0.1": b"12", "s/.zarray": SLASHED, "s/0/1": b"123", "n/0.1": b"1234"})
    assert {entry.key: entry.nbytes for entry in store._details("")} == {key: len(store[key]) for key in store}


def test_a_chunk_that_another_store_sets_in_another_spelling_is_found_at_once(tmp_path):
    one, two = NestedDirectoryStore(tmp_path), NestedDirectoryStore(tmp_path)
    value = 0
    for prepare in ({}, {"a/.zarray": FLAT}, {"a/.zarray": SLASHED}):
        for first, second in (("a/0.1", "a/0/1"), ("a/0/1", "a/0.1"), ("a/0.1", "a/0.1")):
            one.clear()
            one.update(prepare)
            for writer, reader in ((one, two), (two, one), (one, two)):
                for spelling in (first, second):
                    value += 1
                    assert (reader.get(first) is None) is (reader.get(second) is None)
                    writer[spelling] = b"%d" % value
                    assert writer[first] == writer[second] == reader[first] == reader[second] == b"%d" % value
                    assert len(list(reader)) == 1 + len(prepare)
            one.pop(second)
            assert (two.get(first), two.get(second), first in two) == (None, None, False)


def test_an_array_that_comes_from_another_store_between_two_chunks_gets_both_nested(tmp_path):
    one, two = NestedDirectoryStore(tmp_path), NestedDirectoryStore(tmp_path)
    one["a/0.0"] = b"1"
    assert one["a/0.0"] == b"1"
    two["a/.zarray"] = FLAT
    one["a/0.0"] = b"2"  # within the second for which `one` takes `a` for no array
    one["a/0.1"] = b"3"
    assert files(tmp_path) == ["a/.zarray", "a/0/0", "a/0/1"]
    assert two["a/0.0"] == b"2"


@pytest.mark.needs_peer("zarr2")
@pytest.mark.parametrize(
    "kind",
    [
        "NestedDirectoryStore(path)",
        "DirectoryStore(path, dimension_separator='/')",
        "FSStore(path, dimension_separator='/', auto_mkdir=True)",
    ],
)
def test_zarr_2_18_counts_the_chunks_that_are_initialized(tmp_path, kind):
    script = f"""
        import sys, json, warnings
        warnings.simplefilter("ignore")
        import numpy as np, zarr
        import zarrstore.bridges.zarr2
        import zarrstore, zarr.storage
        counts = []
        for number, module in enumerate((zarrstore, zarr.storage)):
            DirectoryStore, NestedDirectoryStore = module.DirectoryStore, module.NestedDirectoryStore
            FSStore = module.FSStore
            path = sys.argv[1] + str(number)
            store = {kind}
            array = zarr.create((100, 50), chunks=(10, 10), store=store, path="x", dtype="i4", dimension_separator="/")
            array[:] = 1
            # zarr's FSStore lists the flat spelling of keys, and reads by it; ours lists its keys.
            names = [name.replace("/", ".") for name in store.listdir("x")]
            counts.append([array.nchunks_initialized, sorted(names)])
        print(json.dumps(counts))
    """
    ours, theirs = peers.run("zarr2", script, tmp_path / "data")
    assert ours == theirs
    assert ours[0] == 50


@pytest.mark.parametrize("document, chunk", [(FLAT, "0/0.1"), (SLASHED, "0/0/1")])
def test_arrays_and_groups_with_numbers_for_names(store, document, chunk):
    """As OME-Zarr has them: the group ``5`` holds the arrays ``5/0`` and ``5/1``."""
    expected = {"5/.zgroup": b"{}"}
    for array in ("0", "1", "10"):
        expected[f"5/{array}/.zarray"] = document
        expected["5/" + chunk.replace("0", array, 1)] = b"chunk"
    store.update(expected)
    assert dict(store) == expected
    assert store.listdir("5") == [".zgroup", "0", "1", "10"]
    assert store["5/0/0/1"] == store["5/0/0.1"] == b"chunk"
    store.rename("5/10", "5/2")
    store.rmdir("5/1")
    assert sorted(store.listdir("5")) == [".zgroup", "0", "2"]
    assert store["5/2/0/1"] == b"chunk"


def test_names_that_only_look_like_chunks(store):
    expected = {
        **{f"v1.2/{name}": b"1" for name in ("x", ".zgroup", "0.1.x", "1.", ".1", "1..2")},
        **{"1.2/x": b"2", "a/1.2/y/.zattrs": b"3", "one/5": b"4", "one/.zarray": b'{"shape": [9]}', "٣.٤": b"5"},
    }
    store.update(expected)
    assert dict(store) == expected
    assert all(os.path.isfile(os.path.join(store.path, key)) for key in expected)


def test_chunks_that_were_set_before_their_array_are_nested_when_it_comes(store):
    store.update({"a/0.0": b"1", "a/1.1": b"2", "a/2.2": b"3", "a/2": b"in the way", "a/x": b"4"})
    assert files(Path(store.path)) == ["a/0.0", "a/1.1", "a/2", "a/2.2", "a/x"]
    store["a/.zarray"] = FLAT
    assert files(Path(store.path)) == ["a/.zarray", "a/0/0", "a/1/1", "a/2", "a/2.2", "a/x"]
    assert sorted(store) == ["a/.zarray", "a/0.0", "a/1.1", "a/2", "a/2.2", "a/x"]
    assert [store[key] for key in ("a/0.0", "a/1/1", "a/2.2", "a/2/2")] == [b"1", b"2", b"3", b"3"]


def test_a_flat_tree_is_read_and_written_over_as_it_stands(tmp_path):
    flat = DirectoryStore(tmp_path)
    flat.update({"a/.zarray": FLAT, "a/0.0": b"1", "a/0.1": b"2", "s/.zarray": SLASHED, "s/0.0": b"3"})
    store = NestedDirectoryStore(tmp_path)
    assert dict(store) == {"a/.zarray": FLAT, "a/0.0": b"1", "a/0.1": b"2", "s/.zarray": SLASHED, "s/0/0": b"3"}
    assert store.listdir("a") == [".zarray", "0.0", "0.1"]
    store["a/0.0"] = b"new"
    assert (store["a/0.0"], store["a/0/0"], len(store), store.listdir("a")) == (
        b"new",
        b"new",
        5,
        [".zarray", "0.0", "0.1"],
    )
    del store["a/0.0"]
    assert (store.get("a/0.0"), "a/0/0" in store, store.listdir("a")) == (None, False, [".zarray", "0.1"])
    assert files(tmp_path) == ["a/.zarray", "a/0.1", "s/.zarray", "s/0.0"]


def test_an_array_that_another_process_makes_or_removes_is_noticed(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("zarrstore.stores.nested.monotonic", lambda: now[0])
    store, other = NestedDirectoryStore(tmp_path), DirectoryStore(tmp_path)
    store["a/0.0"] = b"1"
    other["a/.zarray"] = FLAT
    store["a/0.1"] = b"2"
    assert files(tmp_path) == ["a/.zarray", "a/0.0", "a/0/1"]
    other["a/.zarray"] = SLASHED
    assert sorted(store) == ["a/.zarray", "a/0/0", "a/0/1"]
    other.rmdir("a")
    now[0] += 1.1
    store["a/0.0"] = b"3"
    assert (list(store), files(tmp_path)) == (["a/0.0"], ["a/0.0"])


def test_an_array_that_this_store_removes_is_forgotten_at_once(store):
    for remove in (lambda: store.rmdir("a"), lambda: store.delitems(["a/.zarray", "a/0.0"]), store.clear):
        store.update({"a/.zarray": FLAT, "a/0.0": b"1"})
        assert files(Path(store.path)) == ["a/.zarray", "a/0/0"]
        remove()
        store["a/0.0"] = b"2"
        assert (list(store), files(Path(store.path))) == (["a/0.0"], ["a/0.0"])
        store.clear()


def test_what_is_renamed_lies_where_its_new_name_says(store):
    store["a/.zarray"] = FLAT
    store["x"] = b"1"
    store.rename("x", "a/3.4")
    assert (store["a/3/4"], files(Path(store.path))) == (b"1", ["a/.zarray", "a/3/4"])
    store.rename("a/3/4", "y")
    assert (dict(store), store.listdir()) == ({"a/.zarray": FLAT, "y": b"1"}, ["a", "y"])
    store["a/0.1"] = b"2"
    store.rename("a", "deep/b")
    assert dict(store) == {"deep/b/.zarray": FLAT, "deep/b/0.1": b"2", "y": b"1"}
    assert files(Path(store.path, "deep")) == ["b/.zarray", "b/0/1"]


def test_a_chunk_and_a_directory_of_one_name(store):
    store["a/.zarray"] = FLAT
    store["a/1.0/x"] = b"1"
    with pytest.raises(ConflictError, match=r"holds 'a/1\.0/x' below"):
        store["a/1.0"] = b"lost?"
    store["a/0.0"] = b"2"
    for key in ("a/0.0/x", "a/0.0/x/y"):
        with pytest.raises(ConflictError):
            store[key] = b"lost?"
    store.rename("a/1.0", "b")
    store["a/1.0"] = b"3"
    assert dict(store) == {"a/.zarray": FLAT, "a/0.0": b"2", "a/1.0": b"3", "b/x": b"1"}


def test_a_refused_key_in_a_nested_spelling_is_refused(store):
    for key in ("../0.0", "0.0/..", "/0.0", "a//0.0", "a/../0.0"):
        assert (key in store, store.get(key)) == (False, None)
        with pytest.raises(KeyError):
            store[key] = b"1"
    assert not os.path.exists(store.path)


# Trees that others wrote ----------------------------------------------------------------------------------------------

ZARR_2_18 = """
    import sys, json, warnings
    warnings.simplefilter("ignore")
    import numpy as np, zarr
    store = zarr.NestedDirectoryStore(sys.argv[1])
    root = zarr.group(store, overwrite=True)
    root.array("a", np.arange(20).reshape(4, 5), chunks=(2, 2))
    root.create_group("g").array("0", np.arange(8).reshape(2, 2, 2), chunks=(1, 1, 1))
    root.array("one", np.arange(5), chunks=2)
    print(json.dumps(sorted(store)))
"""
READ = """
    import sys, json, warnings
    warnings.simplefilter("ignore")
    import numpy as np, zarr
    from zarrstore.stores.nested import NestedDirectoryStore
    for store in (NestedDirectoryStore(sys.argv[1]), zarr.NestedDirectoryStore(sys.argv[1])):
        root = zarr.open_group(store, mode="r")
        assert (root["a"][:] == np.arange(20).reshape(4, 5)).all()
        assert (root["g/0"][:] == np.arange(8).reshape(2, 2, 2)).all()
        assert (root["one"][:] == np.arange(5)).all()
"""


@pytest.mark.needs_peer("zarr2")
def test_a_tree_of_zarr_2_18_is_read_and_listed_as_there(tmp_path):
    keys = peers.run("zarr2", ZARR_2_18, tmp_path)
    store = NestedDirectoryStore(tmp_path)
    assert sorted(store) == keys
    assert "a/0/1" in keys
    assert store["a/0.1"] == store["a/0/1"]
    peers.run("zarr2", READ, tmp_path)


@pytest.mark.needs_peer("zarr2")
def test_zarr_2_18_writes_through_ours_what_its_own_reads(tmp_path):
    script = ZARR_2_18.replace("zarr.NestedDirectoryStore", "NestedDirectoryStore")
    ours = (
        "import zarrstore.bridges.zarr2\n    from zarrstore.stores.nested import NestedDirectoryStore\n    import numpy"
    )
    keys = peers.run("zarr2", script.replace("import numpy", ours), tmp_path / "ours")
    assert peers.run("zarr2", ZARR_2_18, tmp_path / "theirs") == keys
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")
    peers.run("zarr2", READ, tmp_path / "ours")


@pytest.mark.needs_peer("zarr2")
def test_zarr_2_18_that_takes_ours_for_any_mapping_writes_flat_keys_into_nested_files(tmp_path):
    script = ZARR_2_18.replace("zarr.NestedDirectoryStore", "NestedDirectoryStore")
    ours = "from zarrstore.stores.nested import NestedDirectoryStore\n    import numpy"
    keys = peers.run("zarr2", script.replace("import numpy", ours), tmp_path)
    assert "a/0.1" in keys
    assert {"a/0/1", "g/0/0/1/1", "one/2"} <= set(files(tmp_path))
    assert sorted(NestedDirectoryStore(tmp_path)) == keys


def tree_of_zarr_2_2(root: Path) -> np.ndarray:
    """Write an array as zarr 2.2's NestedDirectoryStore did: nested chunks, and no dimension_separator."""
    data = np.arange(20).reshape(4, 5)
    document = {
        **{"chunks": [2, 2], "compressor": None, "dtype": "<i8", "fill_value": 0, "filters": None},
        **{"order": "C", "shape": [4, 5], "zarr_format": 2},
    }
    (root / "0").mkdir(parents=True)
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    (root / "0" / ".zarray").write_text(json.dumps(document))
    padded = np.zeros((4, 6), "<i8")
    padded[:, :5] = data
    for i in range(2):
        (root / "0" / str(i)).mkdir()
        for j in range(3):
            (root / "0" / str(i) / str(j)).write_bytes(padded[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].tobytes())
    return data


def test_a_tree_of_zarr_2_2_is_listed_flat(tmp_path):
    tree_of_zarr_2_2(tmp_path)
    store = NestedDirectoryStore(tmp_path)
    chunks = [f"0/{i}.{j}" for i in range(2) for j in range(3)]
    assert sorted(store) == sorted([".zgroup", "0/.zarray", *chunks])
    assert (store.listdir("0"), store.listdir()) == ([".zarray", *(key[2:] for key in chunks)], [".zgroup", "0"])
    assert store["0/1.2"] == store["0/1/2"] == (tmp_path / "0/1/2").read_bytes()
    store["0/1.2"] = b"new"
    assert (tmp_path / "0/1/2").read_bytes() == b"new"


@pytest.mark.needs_peer("zarr2")
def test_a_tree_of_zarr_2_2_is_read_by_zarr_through_ours(tmp_path):
    data = tree_of_zarr_2_2(tmp_path)
    script = """
        import sys, json, warnings
        warnings.simplefilter("ignore")
        import zarr
        from zarrstore.stores.nested import NestedDirectoryStore
        array = zarr.open_group(NestedDirectoryStore(sys.argv[1]))["0"]
        found = array[:].tolist()
        array[3, 4] = 77
        print(json.dumps([found, int(array[3, 4])]))
    """
    assert peers.run("zarr2", script, tmp_path) == [data.tolist(), 77]
    assert sorted(os.listdir(tmp_path / "0")) == [".zarray", "0", "1"]


def _setting_an_array_after(tmp_path, count, durability, flushed):
    """Set chunks, and then their array; return the calls of functions and the syncs of the latter."""
    store = NestedDirectoryStore(tmp_path / f"{count}-{flushed}", durability=durability)
    store.setitems({f"a/{n // 10}.{n % 10}": b"x" for n in range(count)})
    if flushed:
        store.flush()
    calls, syncs = 0, []

    def count_call(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")
        if argument is os.fsync:
            syncs.append(frame)

    with not_collecting():
        threading.setprofile(count_call)
        sys.setprofile(count_call)
        try:
            store["a/.zarray"] = b"{}"
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert sorted(store)[1:3] == ["a/0.0", "a/0.1"]
    assert not os.path.exists(os.path.join(store.path, "a/0.0"))
    return calls, len(syncs)


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("durability", ["none", "flush", "always"])
def test_the_cost_of_an_array_set_after_its_chunks_grows_with_their_number_only(tmp_path, durability, flushed):
    few, _ = _setting_an_array_after(tmp_path, 100, durability, flushed)
    many, syncs = _setting_an_array_after(tmp_path, 400, durability, flushed)
    assert many < 6 * few, (few, many)
    # "always": for each of 42 directories, and not for each chunk. "flush": none, for nothing was overwritten.
    assert syncs <= {"none": 0, "flush": 0, "always": 100}[durability]
