r"""Paths that Windows does not open, on a faked Windows: longer than 259 characters, and roots behind ``\\?\``."""

from __future__ import annotations

import errno
import functools
import pickle
import types

import pytest

from zarrstore import (
    DBMStore,
    DirectoryStore,
    LMDBStore,
    NestedDirectoryStore,
    SQLiteStore,
    ZipStore,
    longpaths,
    open_store,
    registry,
)
from zarrstore.errors import InvalidKeyError, InvalidPathError, StoreNotFoundError, StoreReadError
from zarrstore.longpaths import LONG, SHORT, length_problem, path_limit, root_problem
from zarrstore.stores import directory
from zarrstore.stores._files import ABSENT
from zarrstore.stores.directory.names import Names

STORES = (DirectoryStore, NestedDirectoryStore)


@pytest.mark.parametrize(
    ("path", "room", "fits"),
    [
        ("a" * 259, 0, True),
        ("a" * 260, 0, False),
        ("a" * 200, 59, True),
        ("a" * 200, 60, False),
        ("\U0001f30a" * 129, 0, True),  # two units of UTF-16 each
        ("\U0001f30a" * 130, 0, False),
        ("\ud800" * 260, 0, False),  # as a name of bytes that are no text
    ],
)
def test_a_path_is_measured_as_windows_measures_it(path, room, fits):
    problem = length_problem(path, SHORT, room)
    assert (problem == "") is fits
    if not fits:
        assert all(part in problem for part in ("260", "259", "LongPathsEnabled"))


def test_with_long_paths_on_a_shorter_root_is_all_that_helps():
    assert length_problem("a" * 5000, LONG) == ""
    problem = length_problem("a" * 40_000, LONG)
    assert problem.endswith("choose a shorter root")


@pytest.mark.parametrize(("answer", "limit"), [(1, LONG), (0, SHORT), (0x7FFFFF00, SHORT), (0x7FFFFF01, LONG)])
def test_the_system_is_asked_whether_long_paths_are_on(answer, limit):
    assert path_limit(types.SimpleNamespace(RtlAreLongPathsEnabled=lambda: answer)) == limit


def test_a_windows_older_than_long_paths_has_none():
    assert path_limit(types.SimpleNamespace()) == SHORT


@pytest.mark.parametrize(
    ("root", "way"),
    [
        ("\\\\?\\C:\\data", "give it as C:\\data;"),
        ("\\??\\C:\\data", "give it as C:\\data;"),
        ("\\\\?\\UNC\\server\\share\\data", "give it as \\\\server\\share\\data;"),
        ("\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\data", "give the letter of its drive;"),
    ],
)
def test_a_verbatim_root_is_refused_with_the_plain_path(root, way):
    with pytest.raises(InvalidPathError) as caught:
        Names(root, windows=True)
    assert all(part in caught.value.reason for part in (way, "LongPathsEnabled"))


@pytest.mark.parametrize("root", ["C:\\data", "\\\\server\\share\\data", "\\\\.\\C:\\data", "/data", "?"])
def test_other_roots_are_taken(root):
    assert root_problem(root) == ""
    assert root_problem("\\\\?\\" + root) != ""


def test_elsewhere_neither_is_judged(tmp_path):
    assert Names("\\\\?\\C:\\data", windows=False).limit is None
    store = DirectoryStore(tmp_path)
    key = "/".join("b" * 100 for _ in range(5))
    store[key] = b"1"
    assert store[key] == b"1"


def test_the_error_of_a_long_path_is_none_that_means_absence():
    assert longpaths.PathLengthError("a", "b").errno not in ABSENT
    assert errno.ENAMETOOLONG in ABSENT


@pytest.fixture(params=STORES, ids=lambda store: store.__name__)
def long_tree(request, tmp_path, monkeypatch):
    """A store opened where Windows takes a hundred characters below its root, and a value that another wrote deeper."""
    root = tmp_path / "data"
    outside = request.param(root)
    outside["a/b"] = b"1"
    outside["a/" + "c" * 120] = b"2"
    outside["d/" + "e" * 120 + "/f"] = b"3"
    limited = functools.partial(Names, windows=True, limit=len(str(root)) + 101)
    monkeypatch.setattr(directory, "Names", limited)
    return request.param(root)


LONG_KEYS = ("a/" + "c" * 120, "d/" + "e" * 120 + "/f", "d/" + "e" * 120 + "/absent", "g" * 101)
ACTS = {
    "get": lambda store, key: store.get(key),
    "getitem": lambda store, key: store[key],
    "contains": lambda store, key: key in store,
    "getsize": lambda store, key: store.getsize(key),
    "getrange": lambda store, key: store.getrange(key, 0, 1),
    "getitems": lambda store, key: dict(store.getitems([key])),
    "delete": lambda store, key: store.__delitem__(key),
    "listdir": lambda store, key: store.listdir(key),
    "rmdir": lambda store, key: store.rmdir(key),
    "rename": lambda store, key: store.rename(key, "h"),
    "keys_below": lambda store, key: list(store.keys_below(key)),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("key", LONG_KEYS, ids=["file", "below", "absent", "root"])
def test_what_the_system_would_not_say_is_no_absence(long_tree, act, key):
    with pytest.raises(StoreReadError, match=r"needs .* characters, and Windows opens none of more than") as caught:
        ACTS[act](long_tree, key)
    assert caught.value.permanent
    assert not isinstance(caught.value, KeyError)


@pytest.mark.parametrize("key", [*LONG_KEYS, "s" * 60 + "/x"], ids=["file", "below", "absent", "root", "temporary"])
def test_no_value_is_set_under_a_path_too_long(long_tree, key):
    for act in (long_tree.__setitem__, lambda key, value: long_tree.update({key: value})):
        with pytest.raises(InvalidKeyError, match=r"needs .* characters, and Windows opens none of more than"):
            act(key, b"4")
    # Whether something is there already cannot be known either.
    with pytest.raises((InvalidKeyError, StoreReadError), match="LongPathsEnabled"):
        long_tree.rename("a/b", key)
    assert long_tree["a/b"] == b"1"


def test_a_listing_that_cannot_be_whole_is_an_error(long_tree):
    with pytest.raises(StoreReadError, match="LongPathsEnabled"):
        list(long_tree)
    with pytest.raises(OSError, match="LongPathsEnabled") as caught:
        long_tree.rmdir("d")
    assert "eeee' is below it" in str(caught.value)
    assert long_tree.listdir("a") == ["b", "c" * 120]


def test_what_fits_is_read_and_set(long_tree):
    long_tree["i"] = b"5"
    assert (long_tree["a/b"], long_tree["i"], "a/x" in long_tree, long_tree.get("n" * 99)) == (b"1", b"5", False, None)
    del long_tree["i"]
    assert pickle.loads(pickle.dumps(long_tree))["a/b"] == b"1"


@pytest.mark.parametrize(
    "act",
    [
        lambda path: ZipStore(path, mode="r"),
        lambda path: ZipStore(path, mode="r+"),
        lambda path: SQLiteStore(path, readonly=True),
        lambda path: LMDBStore(path, readonly=True),
        lambda path: DBMStore(path, flag="r"),
    ],
    ids=["zip-r", "zip-r+", "sqlite", "lmdb", "dbm"],
)
def test_a_file_at_a_path_too_long_is_not_reported_as_absent(monkeypatch, tmp_path, act):
    folder = tmp_path / ("p" * 140)
    folder.mkdir()
    place = str(folder / ("q" * 140))
    with pytest.raises(StoreNotFoundError):
        act(place)
    monkeypatch.setattr(longpaths, "_IS_WINDOWS", True)
    with pytest.raises(InvalidPathError, match=r"needs .* characters.*LongPathsEnabled"):
        act(place)
    with pytest.raises(StoreNotFoundError):
        act(str(tmp_path / "none"))


@pytest.mark.parametrize("suffix", ["", ".zip", ".sqlite", ".lmdb"])
@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_root_too_long_is_not_reported_as_absent(monkeypatch, tmp_path, suffix, mode):
    monkeypatch.setattr(registry, "_IS_WINDOWS", True)
    place = "/".join((str(tmp_path), "p" * 140, "q" * 140 + suffix))
    for target in (place, f"file://{place}"):
        with pytest.raises(InvalidPathError, match=r"needs .* characters.*LongPathsEnabled"):
            open_store(target, mode=mode)
    with pytest.raises(InvalidPathError, match="LongPathsEnabled"):
        Names(place, windows=True)
    assert list(tmp_path.iterdir()) == []
