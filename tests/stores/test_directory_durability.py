"""What a flush made durable stays so while writing goes on: no value is replaced by one that is not on the disk."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import peers
from zarrstore.stores import _files, _sync
from zarrstore.stores._files import rename_new
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.nested import NestedDirectoryStore
from zarrstore.stores.temp import TempStore
from zarrstore.tools.copy import copy_store


@pytest.fixture
def synced(monkeypatch):
    """Return what the files and directories that were fsynced held, in order: bytes, or a sorted list of names."""
    seen = []
    fsync = os.fsync

    def note(fd):
        place = os.readlink(f"/proc/self/fd/{fd}")
        seen.append(sorted(os.listdir(place)) if os.path.isdir(place) else Path(place).read_bytes())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)

    def take():
        found = seen.copy()
        seen.clear()
        return found

    return take


@pytest.fixture(params=[DirectoryStore, NestedDirectoryStore, TempStore])
def store(request, tmp_path):
    place = {"dir": tmp_path} if request.param is TempStore else {"path": tmp_path / "data"}
    opened = request.param(durability="flush", **place)
    opened.update({"a/k": b"1", "a/other": b"1", "b/k": b"1"})
    opened.flush()
    return opened


def test_a_value_is_synced_before_it_replaces_another_and_not_again(store, synced):
    store["a/k"] = b"2"
    assert synced() == [b"2"]
    store.setitems({"a/k": b"3", "a/other": b"4", "a/fresh": b"5"})
    assert synced() == [b"3", b"4"]
    store.flush()
    assert [found for found in synced() if isinstance(found, bytes)] == [b"5"]


def test_a_first_set_syncs_nothing(store, synced):
    store["a/fresh"] = b"2"
    store["new/directory/k"] = b"2"
    assert synced() == []


@pytest.mark.parametrize(
    "remove",
    [
        lambda store: store.__delitem__("a/k"),
        lambda store: store.delitems(["a/k"]),
        lambda store: store.rmdir("a"),
        lambda store: store.clear(),
        lambda store: store.rename("a/k", "moved"),
        lambda store: store.rename("a", "moved"),
        lambda store: store.pop("a/k"),
    ],
    ids=["del", "delitems", "rmdir", "clear", "rename", "rename of the directory", "pop"],
)
def test_a_key_that_was_removed_since_the_flush_is_set_again_synced(store, synced, remove):
    remove(store)
    synced()
    store["a/k"] = b"2"
    assert synced() == [b"2"]


def test_a_removal_that_was_flushed_is_forgotten(store, synced):
    del store["a/k"]
    store.rmdir("b")
    store.flush()
    synced()
    store.update({"a/k": b"2", "b/k": b"2"})
    assert synced() == []


def test_what_is_moved_to_where_a_value_was_removed_is_synced_first(store, synced):
    store["fresh/k"] = b"2"
    store.rmdir("a")
    assert synced() == []
    store.rename("fresh", "a")
    assert synced() == [b"2"]
    store["more/k"] = b"3"
    store.rename("more", "nothing/was/here")
    assert synced() == []


def test_removals_beyond_the_bound_count_for_all_keys(store, synced, monkeypatch):
    monkeypatch.setattr(_sync, "MAX_UNSYNCED", 1)
    del store["a/k"], store["b/k"]
    assert "" in store._unsynced.removed
    store["b/k"] = b"2"
    assert synced() == [b"2"]


def test_a_failed_sync_leaves_the_old_value_and_names_the_key(store, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=r"cannot set 'a/k' in .*Input/output error"):
            store["a/k"] = b"2"
        assert store["a/k"] == b"1"
    store.flush()
    assert [name for _, _, names in os.walk(store.path) for name in names if name.startswith(".")] == []


def test_a_failed_sync_before_a_move_moves_nothing(store, monkeypatch):
    store["fresh/k"] = b"2"
    store.rmdir("a")

    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="cannot rename 'fresh' in"):
            store.rename("fresh", "a")
    assert dict(store) == {"b/k": b"1", "fresh/k": b"2"}


def test_a_disk_that_cannot_be_read_is_no_absent_source_of_a_rename(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path)
    store.update({"a/k": b"1"})
    lstat, move = os.lstat, store._tree.move

    def fail(path, *args, **kwargs):
        if str(path).endswith("/a"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return lstat(path, *args, **kwargs)

    def moved(source, destination):
        monkeypatch.setattr(os, "lstat", fail)
        move(source, destination)

    monkeypatch.setattr(store._tree, "move", moved)
    with pytest.raises(OSError, match="cannot rename 'a' in"):
        store.rename("a", "b/c")
    monkeypatch.undo()
    assert dict(store) == {"a/k": b"1"}


def test_a_value_that_the_system_copies_is_synced_before_it_replaces_another(tmp_path, synced):
    source, dest = (DirectoryStore(tmp_path / name, durability="flush") for name in "sd")
    source.update({"k": b"2", "l": b"2"})
    dest["k"] = b"1"
    dest.flush()
    synced()
    copy_store(source, dest, if_exists="replace")
    assert synced()[0] == b"2"
    assert dict(dest) == dict(source)


def test_a_chunk_is_synced_before_its_flat_file_is_removed(tmp_path, synced):
    DirectoryStore(tmp_path).update({"a/.zarray": b"{}", "a/0.1": b"1"})
    store = NestedDirectoryStore(tmp_path, durability="flush")
    store["a/0.1"] = b"2"
    assert synced() == [b"2"]
    assert not Path(store.path, "a", "0.1").exists()


def test_the_directory_of_a_tempstore_is_synced_in_its_parent(tmp_path, synced):
    store = TempStore(dir=tmp_path, durability="flush")
    store["k"] = b"1"
    store.flush()
    assert [os.path.basename(store.path)] in synced()


COUNTED = """
import os, sys
from zarrstore.stores.directory import DirectoryStore

def mark(name):
    os.path.exists(f"/mark/{name}")

store = DirectoryStore(sys.argv[1], durability="flush")
store.update({"a/k": b"1", "a/l": b"1"})
store.flush()
mark("first")
store["a/fresh"] = b"1"
mark("over")
store["a/k"] = b"2"
mark("delete")
del store["a/l"]
mark("end")
"""


@pytest.mark.needs_peer("strace")
def test_a_first_set_is_4_system_calls_and_one_over_a_value_8(tmp_path):
    peers.require("strace")
    log = tmp_path / "log"
    command = ["strace", "-o", str(log), sys.executable, "-c", COUNTED, str(tmp_path / "data")]
    subprocess.run(command, check=True, cwd=peers.CHECKOUT, stdin=subprocess.DEVNULL)
    calls: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        if found := re.search(r'"/mark/(\w+)"', line):
            calls[found[1]] = current = []
        elif calls and (call := re.match(r"(\w+)\(", line)) and call[1] not in ("brk", "mmap", "munmap", "futex"):
            current.append(call[1])
    write = ["openat", "write", "close", "renameat2"]
    assert calls["first"] == write
    assert calls["over"] == [*write, "openat", "fsync", "close", "rename"]
    assert len(calls["delete"]) == 3


# A rename that replaces nothing -------------------------------------------------------------------------------------


@pytest.fixture(params=["system", "links", "look"])
def way(request, monkeypatch):
    """Make `rename_new` use each of its ways."""
    if request.param != "system":
        monkeypatch.setattr(_files, "_renameat2", lambda: lambda source, dest: errno.EINVAL)
    if request.param == "look":

        def no_links(*args, **options):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", no_links)


@pytest.mark.usefixtures("way")
def test_a_rename_replaces_nothing(tmp_path):
    source, dest = tmp_path / "é", tmp_path / "dest"
    source.write_bytes(b"1")
    assert rename_new(str(source), str(dest)) is True
    assert (source.exists(), dest.read_bytes()) == (False, b"1")
    source.write_bytes(b"2")
    assert rename_new(str(source), str(dest)) is False
    assert (source.read_bytes(), dest.read_bytes()) == (b"2", b"1")
    os.unlink(dest)
    dest.symlink_to("nowhere")
    assert rename_new(str(source), str(dest)) is False
    with pytest.raises(FileNotFoundError):
        rename_new(str(tmp_path / "absent"), str(tmp_path / "new"))
    with pytest.raises(FileNotFoundError):
        rename_new(str(source), str(tmp_path / "absent" / "new"))


@pytest.mark.usefixtures("way")
def test_values_replace_each_other_in_each_of_these_ways(tmp_path, synced):
    store = DirectoryStore(tmp_path / "data", durability="flush")
    store.update({"a": b"1", "b": b"1"})
    assert synced() == []
    store["a"] = b"2"
    assert synced() == [b"2"]
    assert dict(store) == {"a": b"2", "b": b"1"}
    assert not any(_files.is_temporary(name) for name in os.listdir(store.path))
