"""A file that is created at once: without a name until it is whole, with one, and where there are no links."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zarrstore.stores import _sync
from zarrstore.stores._sync import create_file
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.sqlite import SQLiteStore
from zarrstore.testing import StoreConformance

CHECKOUT = Path(__file__).parent.parent.parent


def _no_links(*args, **kwargs):
    raise OSError(errno.EPERM, "this file system has no links")


@pytest.fixture(params=["unnamed", "named", "without links"])
def way(request, monkeypatch):
    if request.param != "unnamed":
        monkeypatch.setattr(_sync, "_open_unnamed", lambda folder, mode: None)
    if request.param == "without links":
        monkeypatch.setattr(os, "link", _no_links)
    return request.param


def test_a_file_is_there_whole_and_nothing_beside_it(tmp_path, way):
    old = os.umask(0o027)
    try:
        assert create_file(str(tmp_path / "a"), b"content" * 10_000) is True
    finally:
        os.umask(old)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"content" * 10_000
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_there_is_never_replaced(tmp_path, way):
    (tmp_path / "a").write_bytes(b"first")
    assert create_file(str(tmp_path / "a"), b"second") is False
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_of_many_creators_one_is_first(tmp_path, way):
    for round_ in range(20):
        path = str(tmp_path / f"{round_}")
        results = {}
        gate = threading.Barrier(4)

        def create(n, path=path, results=results, gate=gate):
            gate.wait()
            results[n] = create_file(path, bytes([n]) * 5000)

        threads = [threading.Thread(target=create, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (first,) = (n for n, created in results.items() if created)
        assert Path(path).read_bytes() == bytes([first]) * 5000


@pytest.mark.parametrize("kind", [LMDBStore, SQLiteStore])
def test_a_store_is_created_whatever_the_file_system_can_do(tmp_path, way, kind):
    with kind(tmp_path / "a") as store:
        store["x"] = b"1"
    with kind(tmp_path / "a") as store:
        assert dict(store) == {"x": b"1"}


@pytest.mark.parametrize("kind", [LMDBStore, SQLiteStore])
def test_a_path_may_be_bytes_and_need_not_be_utf8(tmp_path, kind):
    name = os.fsencode(tmp_path) + b"/caf\xe9 %41?"
    with kind(name) as store:
        store["x"] = b"1"
        assert "caf" in repr(store)
    with kind(name) as store, kind(os.fsdecode(name)) as same:
        assert dict(store) == {"x": b"1"}
        assert store == same
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9 %41?"]


class TestSQLiteStoreInMemory(StoreConformance):
    checks_processes = False
    pickles = False  # as in zarr 2: a copy would be another database
    examples = 5

    def make_store(self, tmp_path):
        return SQLiteStore(":memory:")


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("extra", [1, (1 << 31) - 100])
def test_a_value_above_2_gib_is_kept_by_lmdb_and_its_parts_are_right(tmp_path, extra):
    script = """
import sys
import numpy as np
from zarrstore.stores.lmdb import LMDBStore
size = (2 << 30) + int(sys.argv[2])
value = np.zeros(size, "u1")
value[-3:] = (1, 2, 3)
value[1 << 31] = 7 if size > (1 << 31) + 3 else value[1 << 31]
with LMDBStore(sys.argv[1]) as store:
    store["a"] = value
    assert store.getsize("a") == size
    assert store.getsuffix("a", 3) == bytes(value[-3:])
    assert store.getrange("a", size - 2) == bytes([2, 3])
    assert store.getrange("a", (1 << 31) - 2, (1 << 31) + 1) == bytes(value[(1 << 31) - 2 : (1 << 31) + 1])
    with store.reading() as view:
        assert view["a"].nbytes == size
with LMDBStore(sys.argv[1]) as store:
    assert store.getsize("a") == size
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a"), str(extra)], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
