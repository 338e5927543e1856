"""Our stores in zarr 2.18: what reaches them, and what comes out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import peers

pytestmark = [pytest.mark.needs_peer("zarr2"), pytest.mark.timeout(120)]


def run(script, *args):
    return peers.run("zarr2", script, *args)


def test_the_methods_of_the_store_are_called_and_the_store_is_not_wrapped():
    found = run("""
        import json, numpy as np, zarr
        import zarrstore.bridges.zarr2
        from zarr.storage import BaseStore, KVStore, Store
        from zarrstore import DictStore
        from zarrstore.testing import CountingStore

        store = CountingStore(DictStore())
        group = zarr.open_group(store, mode="w")
        array = group.create_dataset("deep/a", shape=(10, 10), chunks=(1, 10), dtype="i4", fill_value=0)
        calls = {}
        def counted(name, act):
            store.reset()
            act()
            calls[name] = dict(store.calls)
        counted("write", lambda: array.__setitem__(slice(None), 7))
        counted("read", lambda: array[:])
        sparing = zarr.open_array(store, path="deep/a", write_empty_chunks=False)
        counted("empty", lambda: sparing.__setitem__(slice(0, 3), 0))
        counted("names", lambda: list(iter(group["deep"])))
        counted("size", lambda: array.nbytes_stored)
        counted("rename", lambda: group.move("deep/a", "deep/b"))
        counted("remove", lambda: group.__delitem__("deep"))
        kinds = [isinstance(store, cls) for cls in (BaseStore, Store, KVStore)]
        print(json.dumps([calls, array.store is store, kinds]))
    """)
    calls, same, kinds = found
    assert same
    assert kinds == [True, True, False]
    assert calls["write"] == {"_set_many": 1}
    assert calls["read"] == {"_get_many": 1}
    assert calls["empty"]["_delete_many"] == 1
    assert calls["names"]["_listdir"] == 1
    assert "_keys" not in calls["names"]
    assert calls["size"] == {"_getsize": 1}
    assert calls["rename"]["_rename"] == 1
    assert "_keys" not in calls["rename"]
    assert calls["remove"]["_rmdir"] == 1


def test_a_hundred_chunks_are_one_batch_of_a_store_and_a_hundred_reads_of_a_plain_mapping():
    plain, ours = run("""
        import json, zarr
        import zarrstore.bridges.zarr2
        from collections.abc import MutableMapping
        from zarrstore import DictStore
        from zarrstore.testing import CountingStore

        class Plain(MutableMapping):
            "A mapping, and no more: what zarr 2 makes of it is a KVStore."
            def __init__(self, inner): self.inner = inner
            def __getitem__(self, key): return self.inner[key]
            def __setitem__(self, key, value): self.inner[key] = value
            def __delitem__(self, key): del self.inner[key]
            def __iter__(self): return iter(self.inner)
            def __len__(self): return len(self.inner)
            def __contains__(self, key): return key in self.inner

        held = DictStore()
        zarr.create(shape=100, chunks=1, dtype="i4", store=held)[:] = 7
        counted = CountingStore(held)
        calls = []
        for store in (Plain(counted), counted):
            array = zarr.open_array(store, mode="r")
            counted.reset()
            assert array[:].tolist() == [7] * 100
            calls.append(dict(counted.calls))
        print(json.dumps(calls))
    """)
    assert plain["_get"] >= 100
    assert ours == {"_get_many": 1}


def test_the_18_arrays_of_zarr_2_18_come_out_of_six_of_our_stores(tmp_path):
    differ = run(
        """
        import json, sys, zarr
        from pathlib import Path
        import zarrstore.bridges.zarr2
        from tests.bridges.legacy import ARRAYS, LEGACY, expected, same
        differ = {}
        for name, make in LEGACY.items():
            folder = Path(sys.argv[1], name)
            folder.mkdir()
            with make(folder) as store:
                ways = [zarr.open_group, zarr.open_consolidated] if ".zmetadata" in store else [zarr.open_group]
                for opened in (way(store, mode="r") for way in ways):
                    differ[name] = [array for array in ARRAYS if not same(opened[array][...], expected(array))]
                    names = []
                    opened.visit(names.append)
                    assert set(ARRAYS) <= set(names), names
        print(json.dumps(differ))
        """,
        tmp_path,
    )
    assert len(differ) == 6
    assert not any(differ.values()), differ


def test_an_array_that_zarr_2_writes_into_each_of_our_stores_is_read_back_by_zarr_s_own(tmp_path):
    assert run(
        """
        import json, sys, numpy as np, zarr
        import zarr.storage as theirs
        import zarrstore.bridges.zarr2
        from zarrstore.stores.directory import DirectoryStore
        from zarrstore.stores.lmdb import LMDBStore
        from zarrstore.stores.nested import NestedDirectoryStore
        from zarrstore.stores.zip import ZipStore
        folder = sys.argv[1]
        data = np.arange(60.0).reshape(6, 10)
        separators = {}
        for ours, their, name in (
            (DirectoryStore, theirs.DirectoryStore, "d"),
            (NestedDirectoryStore, theirs.NestedDirectoryStore, "n"),
            (LMDBStore, theirs.LMDBStore, "l.lmdb"),
            (ZipStore, theirs.ZipStore, "z.zip"),
        ):
            path = f"{folder}/{name}"
            with ours(path) as store:
                group = zarr.open_group(store, mode="w")
                group.create_dataset("a/b", data=data, chunks=(4, 4))
                group["a"].attrs["x"] = 1
                zarr.consolidate_metadata(store)
            with their(path) as store:
                group = zarr.open_consolidated(store)
                assert (group["a/b"][:] == data).all()
                assert dict(group["a"].attrs) == {"x": 1}
                separators[name] = group["a/b"]._dimension_separator
        print(json.dumps(separators))
        """,
        tmp_path,
    ) == {"d": ".", "n": "/", "l.lmdb": ".", "z.zip": "."}


def test_an_array_pickles_to_a_process_that_knows_the_bridge_or_does_not(tmp_path):
    assert run(
        """
        import json, pickle, subprocess, sys, zarr
        import zarrstore.bridges.zarr2
        from zarrstore.stores.directory import DirectoryStore
        folder = sys.argv[1]
        array = zarr.create(shape=5, chunks=2, dtype="i4", store=DirectoryStore(f"{folder}/d"))
        array[:] = 7
        with open(f"{folder}/array.pickle", "wb") as file:
            pickle.dump(array, file)
        script = (
            "import pickle, sys; array = pickle.load(open(sys.argv[1], 'rb'));"
            "print(int(array[:].sum()), type(array.store).__name__)"
        )
        answers = [
            subprocess.run(
                [sys.executable, "-c", first + script, f"{folder}/array.pickle"], stdout=subprocess.PIPE, text=True
            ).stdout.split()
            for first in ("", "import zarrstore.bridges.zarr2;")
        ]
        print(json.dumps(answers))
        """,
        tmp_path,
    ) == [["35", "KVStore"], ["35", "DirectoryStore"]]


def test_read_only_stores_and_stores_under_zarr_s_own_wrappers_work():
    assert run("""
        import json, zarr
        import zarrstore.bridges.zarr2
        from zarr.errors import ReadOnlyError
        from zarrstore import DictStore
        from zarrstore.testing import CountingStore
        from zarrstore.wrappers.consolidated import ConsolidatedStore
        from zarrstore.wrappers.readonly import ReadOnlyStore
        held = DictStore()
        group = zarr.open_group(held, mode="w")
        group.create_dataset("a", shape=4, chunks=1, dtype="i4")[:] = 3
        zarr.consolidate_metadata(held)
        opened = zarr.open_group(ReadOnlyStore(held), mode="r")
        answers = [opened["a"][:].tolist()]
        try:
            zarr.open_array(ReadOnlyStore(held), path="a", mode="r+")[:] = 4
        except PermissionError as exc:
            answers.append(type(exc).__name__)
        counted = CountingStore(held)
        cached = zarr.open_group(zarr.LRUStoreCache(counted, max_size=None), mode="r")
        answers.append(cached["a"][:].tolist())
        counted = CountingStore(held)
        consolidated = zarr.open_group(ConsolidatedStore(counted), mode="r")
        counted.reset()
        answers.append([sorted(iter(consolidated)), consolidated["a"].shape, dict(counted.calls)])
        print(json.dumps(answers))
    """) == [[3] * 4, "ReadOnlyError", [3] * 4, [["a"], [4], {"_listdir": 1}]]


def test_without_zarr_2_the_error_says_what_is_missing():
    done = subprocess.run(
        [sys.executable, "-c", "import zarrstore.bridges.zarr2"],
        capture_output=True,
        text=True,
        cwd=peers.CHECKOUT,
        timeout=60,
    )
    assert done.returncode == 1
    assert "MissingDependencyError: zarrstore.bridges.zarr2 needs zarr: pip install zarrstore[zarr2]" in done.stderr
