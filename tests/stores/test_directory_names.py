"""Names that a file system does not keep apart: Windows by its rules, exFAT (which ignores case) as it is."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import peers
from zarrstore import DirectoryStore, NestedDirectoryStore, open_store
from zarrstore import keys as k
from zarrstore.errors import InvalidKeyError
from zarrstore.stores import directory
from zarrstore.stores.directory.names import Names, windows_problem
from zarrstore.testing import StoreConformance

TAKEN = (
    ".zarray",
    "0.0",
    "console",
    "nully",
    "a.b",
    ".a",
    "com",
    "com10",
    "lpt",
    "auxiliary.txt",
    "é",
    "a b",
    "$a",
    "a'",
)
REFUSED = (
    "con",
    "CON",
    "nul.txt",
    "aux.tar.gz",
    "com1",
    "LPT9.x",
    "com\u00b9",
    "conin$",
    "prn ",
    "a.",
    "a ",
    "...",
    "a:b",
)


@pytest.mark.parametrize("name", TAKEN)
def test_windows_takes(name):
    assert windows_problem(name) == ""


@pytest.mark.parametrize("name", [*REFUSED, *(f"a{sign}b" for sign in '<>"|?*'), "a\tb", "a\x01"])
def test_windows_refuses(name):
    assert windows_problem(name) != ""


@pytest.fixture
def on_windows(monkeypatch, tmp_path):
    monkeypatch.setattr(directory, "Names", functools.partial(Names, windows=True))
    return DirectoryStore(tmp_path / "data")


@pytest.mark.parametrize("key", ["con", "b/nul.txt/0.0", "a./b", "b/c ", "ab:c/d"])
def test_a_key_that_windows_would_take_for_something_else_is_refused_and_absent(on_windows, key):
    store = on_windows
    store["a/b"] = b"1"
    with pytest.raises(InvalidKeyError, match=r"Windows|device"):
        store[key] = b"2"
    with pytest.raises(InvalidKeyError):
        store.rename("a", key)
    assert (store.get(key), key in store, store.listdir(key), store.getsize(key)) == (None, False, [], 0)
    with pytest.raises(KeyError):
        del store[key]
    store.rmdir(key)
    assert dict(store.items()) == {"a/b": b"1"}
    assert not store.capabilities.case_sensitive


def test_a_place_that_keeps_names_apart_is_left_in_peace(tmp_path):
    store = DirectoryStore(tmp_path)
    assert Names(str(tmp_path)).folds in (None, False)
    store.update({"a": b"1", "A": b"2", "é": b"3", "e\u0301": b"4"})
    assert (len(store), store.capabilities.case_sensitive) == (4, True)
    assert Names(str(tmp_path)).folds is False
    assert Names(str(tmp_path / "not yet" / "there")).folds is False


def test_twins_in_a_place_that_keeps_them_apart_do_not_make_it_one_that_folds(tmp_path):
    for name in ("abc", "ABC"):
        (tmp_path / name).touch()
    assert Names(str(tmp_path)).folds is False


@pytest.mark.parametrize("kept", [[], ["other"]])
def test_what_another_thread_removes_between_the_look_and_the_listing_has_no_twin(tmp_path, monkeypatch, kept):
    """An exFAT file system showed it once in five hundred: FileNotFoundError, or a value that is its own twin."""
    store = DirectoryStore(tmp_path)
    store["d/y"] = b"1"
    names = Names(str(tmp_path))
    names.folds = True
    listdir = os.listdir

    def removing(path):
        if os.path.basename(path) == "d":
            (tmp_path / "d" / "y").unlink()
            if not kept:
                (tmp_path / "d").rmdir()
        return listdir(path)

    monkeypatch.setattr(os, "listdir", removing)
    for name in kept:
        (tmp_path / "d" / name).touch()
    names.check("d/y")


# On a file system that takes no heed of case.


@pytest.fixture(scope="module")
def exfat(tmp_path_factory):
    peers.require("exfat")
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("mounting a file system needs root and /dev/fuse")
    folder = tmp_path_factory.mktemp("exfat")
    image, place = folder / "image", folder / "place"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    device = subprocess.run(
        ["losetup", "-f", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        subprocess.run(["mount.exfat-fuse", device, place], check=True, capture_output=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.fixture
def folding(exfat, request) -> Path:
    place = exfat / request.node.name.replace("[", "-").replace("]", "")
    place.mkdir()
    return place


def check_twins(store):
    store.update({"data/.zarray": b"1", "data/0.0": b"2"})
    for key in ("Data/0.0", "data/.ZARRAY", "DATA/.zarray", "Data/new"):
        with pytest.raises(InvalidKeyError, match="keeps only one"):
            store[key] = b"x"
        assert (store.get(key), key in store, key in dict(store.getitems([key]))) == (None, False, False)
        with pytest.raises(KeyError):
            del store[key]
    assert (store.listdir("Data"), list(store.keys_below("DATA"))) == ([], [])
    store.rmdir("DATA")
    with pytest.raises(KeyError):
        store.rename("DATA", "other")
    store["x"] = b"3"
    with pytest.raises(InvalidKeyError):
        store.rename("x", "DATA")
    assert dict(store.items()) == {"data/.zarray": b"1", "data/0.0": b"2", "x": b"3"}
    assert not store.capabilities.case_sensitive


@pytest.mark.parametrize("make", [DirectoryStore, NestedDirectoryStore, open_store])
def test_a_name_in_another_case_is_refused_and_absent(folding, make):
    check_twins(make(folding / "new"))  # nothing is there yet: the nearest directory tells, or the first set


def test_a_store_that_is_there_already_is_judged_when_it_is_opened(folding):
    DirectoryStore(folding)["data/0.0"] = b"1"
    store = DirectoryStore(folding)
    assert not store.capabilities.case_sensitive
    assert (store.get("Data/0.0"), store.get("data/0.0")) == (None, b"1")


def test_a_name_that_the_file_system_does_not_take_is_an_invalid_key(folding):
    store = DirectoryStore(folding)
    for key in ("ab:c", "a?", 'a"b'):
        with pytest.raises(InvalidKeyError, match="takes no such name"):
            store[key] = b"1"
    assert list(store) == []


def test_chunks_cost_no_listing_where_case_is_ignored(folding, monkeypatch):
    store = DirectoryStore(folding)
    store.update({".zarray": b"1", "0.0": b"2"})
    listings = []
    monkeypatch.setattr(os, "listdir", lambda path: listings.append(path) or [])
    store["0.1"] = b"3"
    assert (store["0.0"], "1.1" in store, listings) == (b"2", False, [])


@pytest.mark.slow
class TestOverExfat(StoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, exfat):
        self.root = exfat

    def make_store(self, tmp_path):
        return DirectoryStore(self.root / tmp_path.name)

    def reopen(self, store, tmp_path):
        return self.make_store(tmp_path)

    def tree(self):
        return {key: value for key, value in super().tree().items() if not any(map(windows_problem, k.segments(key)))}

    segments = ("a", "ab", "a.b", "a-", "a0", "a_", "a%", "é", "0", "1.0", ".zarray", "b")
