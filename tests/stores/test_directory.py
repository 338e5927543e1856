"""DirectoryStore: the conformance suite in every mode, and what is its own."""

from __future__ import annotations

import errno
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import peers
from zarrstore.errors import (
    ConflictError,
    DestinationExistsError,
    InvalidKeyError,
    RootIsFileError,
    StoreReadError,
)
from zarrstore.stores import _files
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.directory.folders import Folders
from zarrstore.testing import StoreConformance

PARTIAL = "0.0.0123456789abcdef0123456789abcdef.partial"


class TestDirectoryStore(StoreConformance):
    examples = 30

    def make_store(self, tmp_path):
        return DirectoryStore(tmp_path / "data")

    def reopen(self, store, tmp_path):
        store.close()
        return DirectoryStore(tmp_path / "data")


class TestDurableAtFlush(StoreConformance):
    def make_store(self, tmp_path):
        return DirectoryStore(tmp_path / "data", durability="flush")


class TestDurableAlways(StoreConformance):
    examples = 5

    def make_store(self, tmp_path):
        return DirectoryStore(tmp_path / "data", durability="always")


class TestDirectIO(StoreConformance):
    @pytest.fixture
    def tmp_path(self, disk_path):
        return disk_path

    def make_store(self, tmp_path):
        return DirectoryStore(tmp_path / "data", direct_io=True)


class TestFollowingSymlinks(StoreConformance):
    checks_processes = False

    def make_store(self, tmp_path):
        return DirectoryStore(tmp_path / "data", follow_symlinks=True)


def test_removing_a_deep_path_that_is_not_there_looks_once_at_each_directory(tmp_path, monkeypatch):
    checks = []
    check = Folders.check
    monkeypatch.setattr(Folders, "check", lambda self, path: checks.append(path) or check(self, path))
    with DirectoryStore(tmp_path / "data", follow_symlinks=True) as store:
        store["a"] = b""
        checks.clear()
        store.rmdir("/".join("x" * 300))
    assert len(checks) < 1000


class TestReachedThroughALink(StoreConformance):
    """The root itself may be a symbolic link."""

    checks_processes = False

    def make_store(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "data").symlink_to("real")
        return DirectoryStore(tmp_path / "data")


def files(root: Path) -> list[str]:
    """Return every file and empty directory below a root, whatever it is."""
    return sorted(
        str((Path(at) / name).relative_to(root))
        for at, folders, names in os.walk(root)
        for name in [*names, *(folder for folder in folders if not os.listdir(Path(at, folder)))]
    )


@pytest.fixture
def store(tmp_path):
    yield DirectoryStore(tmp_path / "data")
    _files.remove_tree(str(tmp_path / "data"))  # pytest's own removal recurses, and stops at deep trees


# The root -----------------------------------------------------------------------------------------------------------


def test_the_root_is_absolute_from_the_start_and_made_by_the_first_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = DirectoryStore("deep/down")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (list(store), store.listdir(), store.getsize(), "a" in store) == ([], [], 0, False)
    store.clear()
    assert not (tmp_path / "deep").exists()
    store["a"] = b"1"
    assert (tmp_path / "deep/down/a").read_bytes() == b"1"
    assert store.path == str(tmp_path / "deep/down")


def test_a_tilde_is_an_ordinary_name_as_in_zarr(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DirectoryStore("~/x").path == str(tmp_path / "~/x")
    assert DirectoryStore(os.fsencode("x")).path == str(tmp_path / "x")


def test_a_file_at_the_root_is_a_valueerror_before_and_after_it_appeared(tmp_path):
    store = DirectoryStore(tmp_path / "data")
    (tmp_path / "data").write_bytes(b"PK")
    with pytest.raises(ValueError, match="a file is there, not a directory"):
        DirectoryStore(tmp_path / "data")
    with pytest.raises(RootIsFileError):
        store["a"] = b"1"
    assert store.get("a") is None
    assert (tmp_path / "data").read_bytes() == b"PK"


def test_an_unknown_durability_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'none', 'flush' or 'always'"):
        DirectoryStore(tmp_path, durability="sometimes")


def test_a_pickled_copy_has_the_same_configuration(tmp_path):
    store = DirectoryStore(tmp_path, True, "/", durability="flush", direct_io=True, follow_symlinks=True)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.__getstate__() == store.__getstate__()
    assert (copy == store, copy.capabilities == store.capabilities, copy._dimension_separator) == (True, True, "/")
    assert len(pickle.dumps(store)) < 500


def test_normalize_keys_lowers_keys_and_paths_and_judges_what_comes_of_it(tmp_path):
    store = DirectoryStore(tmp_path, normalize_keys=True)
    store["Foo/BAR"] = b"1"
    assert (store["fOO/bar"], list(store), store.listdir("FOO"), "FOO/BAR" in store) == (
        b"1",
        ["foo/bar"],
        ["bar"],
        True,
    )
    assert list(store.keys_below("FOO")) == ["foo/bar"]
    with pytest.raises(InvalidKeyError):
        store[_files.RESERVED.upper()] = b"x"
    store.rename("FOO", "Bar")
    assert dict(store) == {"bar/bar": b"1"}
    store.rmdir("BAR")
    assert list(store) == []


# Values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 200_000, 9_000_000])
def test_values_of_sizes_around_every_border_come_back(tmp_path, disk_path, size, direct):
    tmp_path = disk_path if direct else tmp_path
    store = DirectoryStore(tmp_path, direct_io=direct)
    value = os.urandom(size)
    store["a/b"] = b"before"
    store["a/b"] = value
    for _ in range(3):  # the second read asks for what the first has learnt
        assert store["a/b"] == value
    assert os.path.getsize(tmp_path / "a/b") == size
    assert store.getrange("a/b", size // 3, size // 2) == value[size // 3 : size // 2]
    assert store.getrange("a/b", 1) == value[1:]
    assert store.getsuffix("a/b", 10) == value[-10:]
    store["a/c"] = b"small"
    assert (store["a/c"], store["a/b"] == value, store["a/c"]) == (b"small", True, b"small")


def test_a_write_that_comes_back_short_is_carried_on(store, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:1000]))
    store["a"] = value = os.urandom(10_500)
    assert store["a"] == value


def test_a_disk_that_takes_nothing_more_is_an_error(store, monkeypatch):
    store["a"] = b"old"
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    with pytest.raises(OSError, match="cannot set 'a' in DirectoryStore") as caught:
        store["a"] = b"new"
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert (dict(store), files(Path(store.path))) == ({"a": b"old"}, ["a"])


def test_the_umask_says_who_may_read(store):
    old = os.umask(0o027)
    try:
        store["a/b"] = b"1"
    finally:
        os.umask(old)
    modes = [os.stat(os.path.join(store.path, name)).st_mode & 0o777 for name in ("a", "a/b")]
    assert modes == [0o750, 0o640]


@pytest.mark.parametrize("length", [46, 200, 230, 255])
def test_a_segment_may_be_as_long_as_the_file_system_takes(store, length):
    key = "d" * length + "/" + "é" * (length // 2)
    store[key] = b"1"
    assert dict(store) == {key: b"1"}
    del store[key]
    assert files(Path(store.path)) == []


@pytest.mark.parametrize("key", ["x" * 256, "é" * 128, "a/" + "x" * 300, "x" * 300 + "/a", "d/" * 2100 + "x"])
def test_what_is_too_long_is_absent_to_read_and_refused_to_write(store, key):
    assert (store.get(key), key in store, store.getsize(key), store.listdir(key)) == (None, False, 0, [])
    with pytest.raises(InvalidKeyError, match="takes no name so long"):
        store[key] = b"1"
    with pytest.raises(KeyError):
        del store[key]
    assert files(Path(store.path).parent) in ([], ["data"])


def test_a_tree_as_deep_as_paths_may_be(store):
    key = "d/" * 1200 + "x"
    store[key] = b"1"
    assert (list(store), len(store), store[key]) == ([key], 1, b"1")
    store.rename("d/d", "e")
    assert list(store) == ["e/" + "d/" * 1198 + "x"]
    store.rmdir("e")
    assert store.listdir() == []


# Conflicts ----------------------------------------------------------------------------------------------------------


def test_a_value_on_a_directory_or_below_a_value_is_refused_by_name_and_leaves_nothing(store):
    store.update({"a/b/c": b"1", "v": b"2"})
    for key, other in (("a", "a/b/c"), ("a/b", "a/b/c"), ("v/x", "v"), ("v/x/y/z", "v"), ("a/b/c/d/e", "a/b/c")):
        with pytest.raises(ConflictError) as caught:
            store[key] = b"lost?"
        assert caught.value.other == other
    assert files(Path(store.path)) == ["a/b/c", "v"]


def test_directories_without_keys_make_way_for_a_value(store):
    store["x"] = b"1"
    os.makedirs(os.path.join(store.path, "a/b/c"))
    os.makedirs(os.path.join(store.path, "r"))
    Path(store.path, "a/b", dead_temporary()).write_bytes(b"half")
    store["a"] = b"2"
    store.rename("x", "r")
    assert dict(store) == {"a": b"2", "r": b"1"}
    os.mkdir(os.path.join(store.path, "e"))
    store["s/t"] = b"3"
    store.rename("s", "e")
    assert dict(store) == {"a": b"2", "r": b"1", "e/t": b"3"}


def test_what_is_no_value_is_not_removed_for_one(store):
    os.makedirs(os.path.join(store.path, "a"))
    os.mkfifo(os.path.join(store.path, "a", "pipe"))
    with pytest.raises(ConflictError, match="'a/pipe'"):
        store["a"] = b"1"
    assert files(Path(store.path)) == ["a/pipe"]
    store.rmdir("a")
    store["a"] = b"1"
    assert dict(store) == {"a": b"1"}


def test_rename_does_not_overwrite_what_was_set_after_it_had_looked(store):
    store.update({"a": b"1", "d/x": b"2", "b": b"3", "e/y": b"4"})
    for source, destination in (("a", "b"), ("d", "e"), ("a", "e"), ("d", "b")):
        with pytest.raises(DestinationExistsError):
            store._rename(source, destination)
    with pytest.raises(ConflictError):
        store._rename("a", "b/c")
    with pytest.raises(KeyError):
        store._rename("gone", "new/place")
    assert files(Path(store.path)) == ["a", "b", "d/x", "e/y"]


def test_rename_works_where_there_are_no_hard_links(store, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    store.update({"a": b"1", "b": b"2"})
    store.rename("a", "deep/down")
    with pytest.raises(DestinationExistsError):
        store._rename("b", "deep/down")
    assert dict(store) == {"deep/down": b"1", "b": b"2"}


# Pruning ------------------------------------------------------------------------------------------------------------


def test_empty_parents_are_pruned_and_the_root_is_not(store):
    store.update({"a/b/c/d": b"1", "a/x": b"2", "m/n": b"3"})
    del store["a/b/c/d"]
    assert files(Path(store.path)) == ["a/x", "m/n"]
    store.rename("a/x", "m/o/p")
    assert (files(Path(store.path)), store.listdir()) == (["m/n", "m/o/p"], ["m"])
    store.delitems(["m/n", "m/o/p"])
    assert os.listdir(store.path) == []


def test_clear_and_rmdir_leave_the_root_and_take_what_is_no_key(store):
    store.update({"a/b": b"1", "c": b"2"})
    Path(store.path, "a", PARTIAL).write_bytes(b"left")
    os.mkfifo(os.path.join(store.path, "a", "pipe"))
    store.rmdir("a")
    assert os.listdir(store.path) == ["c"]
    store.clear()
    assert os.listdir(store.path) == []


# Failures to read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_failure_to_read_is_never_absence(store, monkeypatch, code):
    store["a/b"] = b"1"

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    for name, acts in {
        "open": [lambda: store["a/b"], lambda: store.get("a/b"), lambda: store.getrange("a/b", 0, 1)],
        "scandir": [lambda: list(store), lambda: len(store), lambda: store.listdir("a"), lambda: bool(store)],
    }.items():
        for act in acts:
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                with pytest.raises(StoreReadError) as caught:
                    act()
            assert not isinstance(caught.value, KeyError)
            assert os.strerror(code) in str(caught.value)
    store._stat = fail
    for act in (lambda: "a/b" in store, lambda: store.getsize("a/b"), lambda: store.pop("a/b")):
        with pytest.raises(StoreReadError):
            act()


@pytest.mark.parametrize(
    "code, kind",
    [(errno.ENOSPC, OSError), (errno.EIO, OSError), (errno.EDQUOT, OSError), (errno.EACCES, PermissionError)],
)
@pytest.mark.parametrize("call", ["open", "write", "close", "replace", "mkdir"])
def test_a_failure_to_write_names_the_key_and_keeps_the_old_value(store, monkeypatch, call, code, kind):
    store.update({"a": b"old", "d/x": b"1"})
    real = getattr(os, call)

    def fail(*args, **kwargs):
        if call == "close":
            real(*args)
        raise OSError(code, os.strerror(code))

    key = "new/b" if call == "mkdir" else "a"
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(kind, match=f"cannot set '{key}' in DirectoryStore") as caught:
            store[key] = b"new"
    assert caught.value.errno == code
    assert files(Path(store.path)) == ["a", "d/x"]
    assert dict(store) == {"a": b"old", "d/x": b"1"}
    store[key] = b"new"
    assert store[key] == b"new"


def test_an_interrupt_leaves_no_temporary_file(store, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store["a/b"] = b"1"
    assert [name for name in files(Path(store.path)) if name != "a"] == []


@pytest.mark.parametrize("winerror", [5, 32])
def test_a_replace_that_windows_denies_is_tried_again(store, monkeypatch, winerror):
    store["a"] = b"old"
    replace, denied = os.replace, []

    def deny(source, destination):
        if len(denied) < 3:
            denied.append(destination)
            error = PermissionError(errno.EACCES, "in use")
            error.winerror = winerror
            raise error
        replace(source, destination)

    monkeypatch.setattr(os, "replace", deny)
    store["a"] = b"new"
    assert (store["a"], len(denied), files(Path(store.path))) == (b"new", 3, ["a"])


def test_a_replace_that_windows_denies_for_good_is_an_error(store, monkeypatch):
    store["a"] = b"old"
    tried = []

    def deny(source, destination):
        tried.append(destination)
        error = PermissionError(errno.EACCES, "in use")
        error.winerror = 5
        raise error

    monkeypatch.setattr(os, "replace", deny)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(PermissionError, match="cannot set 'a'"):
        store["a"] = b"new"
    assert (store["a"], files(Path(store.path)), 5 < len(tried) < 20) == (b"old", ["a"], True)


# Names that are no keys ---------------------------------------------------------------------------------------------


def dead_temporary() -> str:
    """Return the name of a temporary file of a process that has ended."""
    script = "from zarrstore.stores._files import temporary_name; print(temporary_name())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=peers.CHECKOUT
    )
    return done.stdout.strip()


def test_a_temporary_file_of_a_dead_writer_is_no_key_and_swept_by_the_next_listing(store):
    store["a/b"] = b"1"
    dead, mine = dead_temporary(), _files.temporary_name()
    foreign = re.sub(r"-[0-9a-f]{8}-", "-00000000-", dead, count=1)
    for name in (dead, mine, foreign):
        Path(store.path, "a", name).write_bytes(b"half")
        assert _files.is_temporary(name)
    assert (list(store), len(store), store.listdir("a"), store.getsize("a")) == (["a/b"], 1, ["b"], 1)
    assert files(Path(store.path)) == sorted(["a/b", f"a/{mine}", f"a/{foreign}"])
    old = os.stat(store.path).st_mtime - 2 * _files.ABANDONED_AFTER
    os.utime(Path(store.path, "a", foreign), (old, old))
    store.listdir("a")
    assert files(Path(store.path)) == sorted(["a/b", f"a/{mine}"])
    store.clear()
    assert files(Path(store.path)) == [f"a/{mine}"]  # somebody may be about to finish it


def test_a_process_of_the_same_number_that_started_later_is_another(store):
    mine = _files.temporary_name()
    assert not _files.is_abandoned(mine)
    lead, host, pid, start, number = mine.rsplit("-", 4)
    assert _files.is_abandoned("-".join([lead, host, pid, f"{int(start, 16) + 1:016x}", number]))


def test_names_of_temporary_files_have_one_length_and_differ_between_parent_and_child():
    names = [_files.temporary_name() for _ in range(100)]
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, _files.temporary_name().encode())
        os._exit(0)
    os.waitpid(child, 0)
    names.append(os.read(ours, 1000).decode())
    assert (len(set(names)), len({len(name) for name in names})) == (101, 1)
    assert names[-1].split("-")[2] == f"{child:08x}"


def test_what_killed_writers_of_zarr_2_left_is_no_key(store):
    store["a/0.0"] = b"1"
    Path(store.path, "a", PARTIAL).write_bytes(b"half")
    key = f"a/{PARTIAL}"
    assert (list(store), len(store), store.listdir("a"), store.getsize("a")) == (["a/0.0"], 1, ["0.0"], 1)
    assert (key in store, store.get(key), dict(store.getitems([key])), store.getsize(key)) == (False, None, {}, 0)
    for act in (lambda: store.__setitem__(key, b"x"), lambda: store.setitems({key: b"x"})):
        with pytest.raises(InvalidKeyError):
            act()
    with pytest.raises(KeyError):
        del store[key]
    store["a/x.partial"] = b"an ordinary name"
    assert sorted(store) == ["a/0.0", "a/x.partial"]


def test_files_whose_names_are_no_keys_are_not_listed(store):
    store["a/b"] = b"1"
    for name in (b"back\\slash", b"\xff\xfe", b".__zarrstore-note"):
        Path(os.fsdecode(os.path.join(os.fsencode(store.path), b"a", name))).write_bytes(b"x")
        os.makedirs(os.path.join(os.fsencode(store.path), b"dir-" + name))
    Path(store.path, "c:").write_bytes(b"x")
    assert (list(store), len(store), store.listdir("a")) == (["a/b"], 1, ["b"])
    assert store.listdir() == ["a", "dir-.__zarrstore-note"]


@pytest.mark.parametrize("n", [1, 30])
def test_a_batch_of_deletes_takes_values_only(store, n):
    # 30 are looked for by one listing of their directory, 1 and the others one by one.
    outside = Path(store.path + "-outside")
    outside.write_bytes(b"kept")
    keys = [f"a/{i}" for i in range(n)]
    store.update(dict.fromkeys(keys, b"1"))
    for name in ("pipe", "link", "below", PARTIAL):
        place = Path(store.path, "a", name)
        if name == "pipe":
            os.mkfifo(place)
        elif name == "link":
            place.symlink_to(outside)
        elif name == "below":
            place.mkdir()
        else:
            place.write_bytes(b"left")
    store.delitems([keys[0], "a/pipe", "a/link", "a/below", "a/absent", *keys])
    assert sorted(os.listdir(os.path.join(store.path, "a"))) == sorted(["pipe", "link", "below", PARTIAL])
    assert outside.read_bytes() == b"kept"


def test_two_who_delete_a_half_each_leave_no_directory(store):
    keys = [f"a/b/{i}" for i in range(40)]
    store.update(dict.fromkeys(keys, b"1"))
    other = type(store)(store.path)
    store.delitems(keys[:18])
    other.delitems(keys[18:38])
    del store[keys[38]]
    assert os.listdir(os.path.join(store.path, "a", "b")) == ["39"]
    del other[keys[39]]
    assert os.listdir(store.path) == []


def test_only_regular_files_are_keys_and_a_fifo_blocks_nobody(store):
    store["a/b"] = b"1"
    os.mkfifo(Path(store.path, "a", "pipe"))
    assert (store.get("a/pipe"), "a/pipe" in store, list(store), store.listdir("a")) == (None, False, ["a/b"], ["b"])
    with pytest.raises(KeyError):
        store.getrange("a/pipe", 0, 1)
    writer = os.open(Path(store.path, "a", "pipe"), os.O_RDWR)
    os.write(writer, b"not a value")
    assert store.get("a/pipe") is None
    assert os.read(writer, 100) == b"not a value"
    os.close(writer)
    with pytest.raises(KeyError):
        del store["a/pipe"]
    assert files(Path(store.path)) == ["a/b", "a/pipe"]


# Durability ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch):
    """Return the names of what was fsynced, in order, temporary files as '*'."""
    seen = []
    fsync = os.fsync

    def note(fd):
        name = os.readlink(f"/proc/self/fd/{fd}")
        seen.append(os.path.join(os.path.dirname(name), "*") if _files.is_temporary(os.path.basename(name)) else name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)

    def take(root):
        found = [os.path.relpath(name, root) for name in seen]
        seen.clear()
        return found

    return take


def test_without_durability_nothing_is_synced(store, synced):
    store["a/b"] = b"1"
    store.flush()
    store.close()
    assert synced(store.path) == []


def test_flush_syncs_files_then_directories_and_new_parents_once(tmp_path, synced):
    (tmp_path / "data").mkdir()
    store = DirectoryStore(tmp_path / "data", durability="flush")
    for key in ("a/b/c", "a/b/d", "x"):
        store[key] = b"1"
    assert synced(store.path) == []
    store.flush()
    found = synced(store.path)
    assert sorted(found[:3]) == ["a/b/c", "a/b/d", "x"]
    assert sorted(found[3:]) == [".", "a", "a/b"]
    store.flush()
    assert synced(store.path) == []
    del store["a/b/c"], store["a/b/d"]
    store.flush()
    assert synced(store.path) == ["."]
    store["p/q"] = b"1"
    store.rename("p", "r/s")
    store.flush()
    found = synced(store.path)
    assert found[0] == "r/s/q"
    assert sorted(found[1:]) == [".", "r", "r/s"]
    store.rmdir("r")
    store.close()
    assert synced(store.path) == ["."]


def test_always_syncs_the_file_before_it_has_its_name_and_the_directory_after(tmp_path, synced):
    (tmp_path / "data").mkdir()
    store = DirectoryStore(tmp_path / "data", durability="always")
    store["a/b"] = b"1"
    found = synced(store.path)
    assert (found[0], sorted(found[1:])) == ("a/*", [".", "a"])
    store["a/b"] = b"2"
    assert synced(store.path) == ["a/*", "a"]
    store["a/c"] = b"2"
    synced(store.path)
    del store["a/c"]
    assert synced(store.path) == ["a"]
    store.setitems({"a/b": b"3", "a/c": b"4", "a/d": b"5"})
    assert synced(store.path) == ["a/*", "a/*", "a/*", "a"]
    store.rename("a", "z")
    assert synced(store.path) == ["."]
    assert dict(store) == {"z/b": b"3", "z/c": b"4", "z/d": b"5"}


def test_a_root_that_is_made_is_synced_in_its_own_parent(tmp_path, synced):
    store = DirectoryStore(tmp_path / "new" / "data", durability="always")
    store["a"] = b"1"
    assert {"*", ".", "..", "../.."} <= set(synced(store.path))


def test_a_sync_that_failed_is_told_until_the_value_is_set_again(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path, durability="flush")
    store.update({"a": b"1", "b": b"2"})
    fsync = os.fsync

    def fail(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/a"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="set 'a' again"):
        store.flush()
    monkeypatch.undo()
    # The system has dropped the pages that it could not write: a second fsync would say that all is well.
    with pytest.raises(OSError, match="set 'a' again"):
        store.flush()
    store["a"] = b"1"
    store.flush()


def test_a_second_flush_waits_for_the_first(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path, durability="flush")
    store["a"] = b"1"
    begun, go_on = threading.Event(), threading.Event()
    fsync, order = os.fsync, []

    def slow(fd):
        begun.set()
        go_on.wait(10)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    first = threading.Thread(target=lambda: (store.flush(), order.append(1)))
    second = threading.Thread(target=lambda: (store.flush(), order.append(2)))
    first.start()
    assert begun.wait(10)
    second.start()
    second.join(0.1)
    assert second.is_alive()
    go_on.set()
    first.join()
    second.join()
    assert sorted(order) == [1, 2]


def test_a_child_may_flush_although_its_parent_was_flushing(tmp_path):
    store = DirectoryStore(tmp_path, durability="flush")
    store["a"] = b"1"
    with store._unsynced._locks.setdefault(os.getpid(), threading.Lock()):
        child = os.fork()
        if child == 0:
            store["b"] = b"2"
            store.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert (status, dict(store)) == (0, {"a": b"1", "b": b"2"})


# Costs --------------------------------------------------------------------------------------------------------------

COUNTED = """
import os, sys
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.nested import NestedDirectoryStore

def mark(name):
    os.path.exists(f"/mark/{name}")

store = (NestedDirectoryStore if sys.argv[2] == "nested" else DirectoryStore)(sys.argv[1])
key = "foo/.zarray"
store[key] = b"{}"
store[key], key in store
key = "foo/0.0"
store[key] = bytes(1000)
store[key], key in store
mark("set")
store[key] = bytes(1000)
mark("get")
store[key]
mark("in")
key in store
mark("absent")
store.get("foo/absent")
mark("listdir")
store.listdir("foo")
mark("more")
store["plain/0.0"] = bytes(1000)
store["plain/0.0"], "plain/0.0" in store
mark("set without a document")
store["plain/0.0"] = bytes(1000)
mark("get without a document")
store["plain/0.0"]
mark("in without a document")
"plain/0.0" in store
mark("delete")
del store["plain/0.0"]
mark("more")
many = [f"many/{n}" for n in range(100)]
store.update(dict.fromkeys(many, b""))
mark("delete 100")
store.delitems(many)
mark("end")
"""


@pytest.mark.needs_peer("strace")
@pytest.mark.parametrize("kind", ["plain", "nested"])
def test_a_set_is_4_system_calls_a_get_4_and_an_in_1(tmp_path, kind):
    peers.require("strace")
    log = tmp_path / "log"
    command = ["strace", "-o", str(log), sys.executable, "-c", COUNTED, str(tmp_path / "data"), kind]
    subprocess.run(command, check=True, cwd=peers.CHECKOUT, stdin=subprocess.DEVNULL)
    calls: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        if found := re.search(r'"/mark/([\w ]+)"', line):
            calls[found[1]] = current = []
        elif calls and (call := re.match(r"(\w+)\(", line)) and call[1] not in ("brk", "mmap", "munmap", "futex"):
            current.append(call[1])
    names = {"pread64": "read", "newfstatat": "stat", "lstat": "stat", "access": "faccessat", "faccessat2": "faccessat"}
    calls = {step: [names.get(call, call) for call in found] for step, found in calls.items()}
    assert calls["set"] == ["openat", "write", "close", "rename"]
    assert calls["get"] == ["openat", "read", "lseek", "close"]
    assert calls["in"] == ["stat"]
    assert calls["absent"] == ["openat"]
    looks = ["faccessat"] * (2 if kind == "nested" else 0)  # for an array and a nested file that came meanwhile
    assert calls["set without a document"] == ["openat", "write", "close", "rename", *looks]
    assert calls["get without a document"] == ["openat", "read", "lseek", "close"]
    assert calls["in without a document"] == ["stat"]
    assert [c for c in calls["delete"] if c != "faccessat"] == ["stat", "unlink", "rmdir"]
    if kind == "plain":
        # One listing instead of 100 looks, and one rmdir.
        assert calls["delete 100"].count("unlink") == 100
        assert calls["delete 100"].count("stat") <= 2
        assert calls["delete 100"].count("rmdir") == 1
        assert [c for c in calls["listdir"] if c not in ("fstat", "stat")] == [
            "openat",
            "getdents64",
            "getdents64",
            "close",
        ]
