"""DirectoryStore when calls of the system fail, come back short or are interrupted: no value is lost, cut or leaked."""

from __future__ import annotations

import errno
import os
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.stores.test_directory import files
from tests.support.descriptors import files_open_below
from tests.support.interrupts import Interrupts
from zarrstore.errors import InvalidKeyError, StoreReadError
from zarrstore.stores import _files
from zarrstore.stores.directory import DirectoryStore, direct, writing
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.temp import TempStore


@pytest.fixture
def store(tmp_path):
    yield DirectoryStore(tmp_path / "data")
    _files.remove_tree(str(tmp_path / "data"))  # pytest's own removal recurses, and stops at deep trees


# Short reads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("limit", [1, 1000, 4096, 65536])
def test_a_read_that_comes_back_short_is_carried_on(tmp_path, limit, direct):
    store = DirectoryStore(tmp_path, direct_io=direct)
    value = os.urandom(limit * 3 + 7)
    store["a"] = value
    pread = store._pread
    store._pread = lambda fd, n, offset: pread(fd, min(n, limit), offset)
    for _ in range(4):  # each read learns from the one before
        assert store["a"] == value
        assert store.getrange("a", 1) == value[1:]
        assert store.getsuffix("a", limit + 1) == value[-limit - 1 :]


def test_a_damaged_sector_is_an_error_not_a_shorter_value(store):
    """The system returns what is before the sector, and its error only to the next read."""
    store["a"] = os.urandom(5000)
    pread = store._pread

    def damaged(fd, n, offset):
        if offset >= 4096:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, min(n, 4096 - offset), offset)

    store._pread = damaged
    with pytest.raises(StoreReadError):
        store["a"]
    with pytest.raises(StoreReadError):
        store.getrange("a", 0)


def sparse(place, size):
    """Make a file of zeros with marks at both ends that takes next to no room."""
    with open(place, "wb") as file:
        file.write(b"begin")
        file.seek(size - 3)
        file.write(b"end")


@pytest.mark.slow
def test_each_read_of_a_value_above_2_gib_is_whole(store):
    size = 2**31 + 1
    os.mkdir(store.path)
    sparse(Path(store.path, "big"), size)
    store["small"] = b"small"
    for _ in range(3):
        value = store["big"]
        assert (len(value), value[:5], value[-3:]) == (size, b"begin", b"end")
        del value
    assert store["small"] == b"small"
    assert store.getrange("big", size - 3) == b"end"
    assert store.getsuffix("big", 3) == b"end"
    assert store.getsize("big") == size


@pytest.mark.slow
def test_a_value_above_2_gib_is_set_whole(store):
    import mmap

    size = 2**31 + 4097
    with mmap.mmap(-1, size) as zeros:
        zeros[:5], zeros[-3:] = b"begin", b"end"
        with memoryview(zeros) as view:
            store._set("big", view)
    assert store.getsize("big") == size
    assert (store.getrange("big", 0, 5), store.getsuffix("big", 3)) == (b"begin", b"end")


# What a call takes, and what it leaves --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DirectoryStore, NestedDirectoryStore, TempStore])
@pytest.mark.parametrize("value", [memoryview(b"value"), memoryview(b"")], ids=["some", "empty"])
def test_a_memoryview_is_written_as_bytes_are(tmp_path, kind, value):
    store = kind(dir=tmp_path) if kind is TempStore else kind(tmp_path)
    for durability in ("none", "always"):
        store.durability = durability
        store._set("a/b", value)
        store._set_many([("a/c", value), ("a/0.0", value)])
        assert [store[key] for key in ("a/b", "a/c", "a/0.0")] == [bytes(value)] * 3
    direct = DirectoryStore(tmp_path / "direct", direct_io=True)
    direct._set("a", value)
    assert direct["a"] == bytes(value)


@pytest.mark.parametrize("kind", [DirectoryStore, NestedDirectoryStore, TempStore])
@pytest.mark.parametrize("durability", ["none", "always"])
def test_a_chunk_is_written_from_the_caller_s_memory(tmp_path, kind, durability):
    store = kind(dir=tmp_path, durability=durability) if kind is TempStore else kind(tmp_path, durability=durability)
    chunk = np.arange(4 << 20, dtype="u1").reshape(1 << 11, 1 << 11)
    store.update({"a/0.0": chunk, "a/.zarray": b"{}"})
    tracemalloc.start()
    try:
        store["a/0.0"] = chunk
        store.setitems({"a/0.1": chunk, "b": chunk})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < chunk.nbytes // 8
    assert store["a/0.0"] == store["b"] == chunk.tobytes()


@pytest.mark.parametrize("durability", ["none", "flush"])
def test_an_interrupt_at_any_moment_leaves_no_descriptor_and_no_temporary(tmp_path, durability):
    store = DirectoryStore(tmp_path / "data", durability=durability)
    store["a/b"] = b"0" * 10_000

    def work():
        for i in range(100):
            store["a/b"]
            store["a/b"] = b"%d" % (i % 10) * 10_000
            store.getrange("a/b", 10, 20)
            store.flush()
            store.listdir("a")

    cuts = 0
    with Interrupts() as interrupts:
        while cuts < 150:
            cuts += interrupts.during(work, 0.003)
    assert files_open_below(tmp_path) == []
    assert files(Path(store.path)) == ["a/b"]
    assert len(store["a/b"]) == 10_000


def test_an_interrupt_while_directories_are_made_leaves_no_empty_ones(store, monkeypatch):
    store["kept"] = b"1"

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store["a/b/c/d"] = b"1"
    assert (files(Path(store.path)), store.listdir()) == (["kept"], ["kept"])


def test_a_key_of_thousands_of_segments_is_refused_before_a_directory_is_made(store, monkeypatch):
    new = []
    mkdir = os.mkdir
    monkeypatch.setattr(os, "mkdir", lambda *args: (new.append(args), mkdir(*args)))
    with pytest.raises(InvalidKeyError, match="takes no name so long"):
        store["d/" * 3000 + "x"] = b"1"
    store["there"] = b"1"
    with pytest.raises(InvalidKeyError, match="takes no name so long"):
        store.rename("there", "d/" * 3000 + "x")
    assert len(new) <= 1  # the root
    assert (dict(store), files(Path(store.path))) == ({"there": b"1"}, ["there"])


def test_looks_at_directories_grow_with_the_depth_and_no_faster(store, monkeypatch):
    monkeypatch.setattr("zarrstore.stores.directory.folders.monotonic", lambda: 0.0)

    def count(depth: int) -> int:
        store.clear()
        calls = []
        with monkeypatch.context() as patch:
            for name in ("lstat", "mkdir", "open", "rmdir", "replace"):
                call = getattr(os, name)
                patch.setattr(os, name, lambda *a, call=call, **kw: (calls.append(a), call(*a, **kw))[1])
            store._stat = os.lstat
            key = "d/" * depth + "x"
            store[key] = b"1"
            assert store[key] == b"1"
            del store[key]
        return len(calls)

    assert count(400) < 2.2 * count(200)


def test_a_deep_tree_is_swept_and_a_deep_temporary_one_removed(tmp_path):
    store = TempStore(dir=tmp_path)
    key = "d/" * 1500 + "x"
    store[key] = b"1"
    assert store.sweep() == []
    store.close()
    assert os.listdir(tmp_path) == []


# Durability -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch):
    """Return the list of the names that were fsynced since it was cleared last."""
    names: list[str] = []
    fsync = os.fsync

    def note(fd):
        fsync(fd)
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(os, "fsync", note)
    return names


def test_a_flush_after_an_interrupted_flush_syncs_what_that_left(tmp_path, synced, monkeypatch):
    store = DirectoryStore(tmp_path, durability="flush")
    store.update({f"k{i}": b"1" for i in range(200)})
    counted = os.fsync

    def interrupted(fd):
        counted(fd)
        if len(synced) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.flush()
    monkeypatch.setattr(os, "fsync", counted)
    store.flush()
    assert {f"k{i}" for i in range(200)} <= set(synced)
    synced.clear()
    store.flush()
    assert synced == []


def test_flushes_interrupted_at_any_moment_forget_nothing(tmp_path, synced):
    store = DirectoryStore(tmp_path, durability="flush")
    rounds = tries = 0
    with Interrupts() as interrupts:
        while rounds < 60:
            tries += 1
            keys = {f"k{i}": b"1" for i in range(20)}
            store.update({f"{tries}/{key}": value for key, value in keys.items()})
            synced.clear()
            if interrupts.during(store.flush, 0.004):
                rounds += 1
                store.flush()
            assert keys.keys() <= set(synced)


@pytest.mark.parametrize("act", ["set", "first set", "delete", "rename", "mkdir"])
def test_what_was_interrupted_behind_its_system_call_is_synced_by_the_next_flush(tmp_path, synced, monkeypatch, act):
    """The change stands on the disk, so a power cut after the next flush must find all of it or none."""
    (tmp_path / "data").mkdir()
    store = DirectoryStore(tmp_path / "data", durability="flush")
    store.update({"d/old": b"1", "d/x": b"2"})
    store.flush()
    synced.clear()
    name = {"set": "replace", "delete": "unlink", "rename": "unlink", "mkdir": "mkdir", "first set": "rename_new"}[act]
    module = writing if act == "first set" else os
    call = getattr(module, name)

    def interrupted(*args, **kwargs):
        call(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            if act == "set":
                store["d/x"] = b"new"
            elif act == "first set":
                store["d/new"] = b"new"
            elif act == "delete":
                del store["d/x"]
            elif act == "rename":
                store.rename("d/x", "d/y")
            else:
                store["new/x"] = b"1"
    store.flush()
    if act == "set":
        assert _files.is_temporary(synced[0]), "before it replaced the old value"
    if act == "first set":
        assert "new" in synced
    assert ("d" if act != "mkdir" else "data") in synced


def failing_fsync(monkeypatch, name, code=errno.EIO):
    fsync = os.fsync

    def fail(fd):
        if os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == name:
            raise OSError(code, os.strerror(code))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("how", ["rmdir", "clear", "delete", "set", "another store", "rename over"])
def test_a_failed_sync_of_a_value_that_is_no_more_fails_no_later_flush(tmp_path, monkeypatch, how):
    store = DirectoryStore(tmp_path, durability="flush")
    store.update({"d/a": b"1", "d/b": b"2", "c": b"3"})
    with monkeypatch.context() as patch:
        failing_fsync(patch, "a")
        with pytest.raises(OSError, match="set 'd/a' again"):
            store.flush()
    with pytest.raises(OSError, match="set 'd/a' again"):
        store.flush()
    if how == "rmdir":
        store.rmdir("d")
    elif how == "clear":
        store.clear()
    elif how == "delete":
        del store["d/a"]
    elif how == "set":
        store["d/a"] = b"again"
    elif how == "another store":
        DirectoryStore(tmp_path)["d/a"] = b"again"
    else:
        store.rename("d/a", "e")
        with pytest.raises(OSError, match="set 'e' again"):  # the value is what it was
            store.flush()
        del store["e"]
    store.flush()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EIO])
def test_a_flush_that_could_not_open_a_file_is_made_good_by_the_next(tmp_path, synced, monkeypatch, code):
    store = DirectoryStore(tmp_path, durability="flush")
    store.update({f"k{i}": b"1" for i in range(20)})
    call = os.open

    def fail(path, *args, **kwargs):
        if os.path.basename(path) == "k7":
            raise OSError(code, os.strerror(code))
        return call(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        for _ in range(2):
            with pytest.raises(OSError, match=r"cannot make .* durable"):
                store.flush()
    synced.clear()
    store.flush()
    assert "k7" in synced


def test_a_value_set_while_a_flush_syncs_the_old_one_is_synced_itself(tmp_path, synced, monkeypatch):
    store = DirectoryStore(tmp_path, durability="flush")
    store["a"] = b"1"
    counted, begun = os.fsync, []

    def set_meanwhile(fd):
        if not begun:
            begun.append(True)
            store["a"] = b"2"
        counted(fd)

    monkeypatch.setattr(os, "fsync", set_meanwhile)
    store.flush()
    assert _files.is_temporary(synced[0])
    assert synced[1:] == ["a (deleted)", tmp_path.name]


def test_two_threads_of_a_child_flush_one_after_the_other(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path, durability="flush")
    store["a"] = b"1"
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            inside, most = [], []
            fsync = os.fsync

            def slow(fd):
                inside.append(fd)
                most.append(len(inside))
                time.sleep(0.02)
                fsync(fd)
                inside.remove(fd)

            os.fsync = slow
            threads = [threading.Thread(target=store.flush) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os.write(write, b"%d" % max(most))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"1"
    os.close(read)
    os.close(write)


# Each system call that fails once -------------------------------------------------------------------------------------

#: What fails, and how.
CALLS = {
    "open": errno.EMFILE,
    "write": errno.ENOSPC,
    "close": errno.EIO,
    "replace": errno.EIO,
    "mkdir": errno.ENOSPC,
    "lstat": errno.EIO,
    "unlink": errno.EIO,
    "rmdir": errno.EIO,
    "rename": errno.EIO,
    "link": errno.ENOSPC,
    "scandir": errno.EMFILE,
    "fsync": errno.EIO,
}
STEPS = {
    "set over": lambda store: store.__setitem__("a/x", b"new"),
    "set new": lambda store: store.__setitem__("b/c/y", b"new"),
    "delete": lambda store: store.__delitem__("a/x"),
    "rename": lambda store: store.rename("a", "z/a"),
    "rename a value": lambda store: store.rename("a/x", "z/x"),
    "rmdir": lambda store: store.rmdir("a"),
    "setitems": lambda store: store.setitems({"a/x": b"new", "b/y": b"new"}),
    "get": lambda store: store["a/x"],
    "getrange": lambda store: store.getrange("a/x", 0, 2),
    "in": lambda store: "a/x" in store,
    "list": lambda store: sorted(store),
    "listdir": lambda store: store.listdir("a"),
    "flush": lambda store: store.flush(),
}


@pytest.mark.parametrize(
    "kind, durability",
    [(DirectoryStore, "none"), (DirectoryStore, "flush"), (DirectoryStore, "always"), (NestedDirectoryStore, "none")],
)
@pytest.mark.parametrize("step", STEPS)
def test_a_system_call_that_fails_once_loses_nothing_and_leaves_nothing(tmp_path, kind, durability, step):
    """Each of the first calls in turn: what was acknowledged stays, and nothing is left over."""
    for number, (name, nth) in enumerate((name, nth) for name in CALLS for nth in range(3)):
        store = kind(tmp_path / str(number), durability=durability)
        fail_once(store, step, name, nth)


def fail_once(store, step, name, nth):
    before = {"a/x": b"old", "a/y": b"1", "c": b"2"}
    store.update(before)
    store.flush()
    count = 0
    call = getattr(os, name)

    def fail(*args, **kwargs):
        nonlocal count
        count += 1
        if count == nth + 1:
            if name == "close":
                call(*args)
            raise OSError(CALLS[name], os.strerror(CALLS[name]))
        return call(*args, **kwargs)

    failed = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, fail)
        if name == "lstat":
            patch.setattr(store, "_stat", fail)
        try:
            result = STEPS[step](store)
        except OSError:
            failed = True
    assert files_open_below(store.path) == []
    found = dict(store)
    if not failed and step in ("get", "getrange", "in", "list", "listdir"):
        assert STEPS[step](store) == result
    for key, value in before.items():
        moved = {"rename": f"z/{key}", "rename a value": "z/x"}.get(step, key)
        if step in ("set over", "setitems"):
            assert found[key] in (value, b"new"), (name, nth)
        elif step in ("delete", "rmdir"):  # a removal that failed may be half done
            assert found.get(key, value) == value, (name, nth)
        else:
            assert value in (found.get(key), found.get(moved)), (name, nth)
    leftovers = [file for file in files(Path(store.path)) if _files.is_temporary(os.path.basename(file))]
    assert leftovers == [], (name, nth)


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="direct reads are made with preadv")
@pytest.mark.parametrize("most", [1, 512, 4096, 5000])
def test_short_direct_reads_are_no_end_of_a_value(tmp_path, monkeypatch, most):
    """A read that ended before the first byte asked for gave an empty value."""
    value = bytes(range(256)) * 60
    store = DirectoryStore(tmp_path, direct_io=True)
    store["a"] = value
    preadv = os.preadv
    monkeypatch.setattr(direct, "_arm", lambda fd, direct=True: True)
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:most]], offset))
    assert store["a"] == value
    for start, stop in [(0, 10), (600, 700), (5000, 5100), (15_300, 15_360), (15_360, 15_400)]:
        assert store.getrange("a", start, stop) == value[start:stop]
    assert [store.getsuffix("a", n) for n in (0, 1, 5000)] == [b"", value[-1:], value[-5000:]]
