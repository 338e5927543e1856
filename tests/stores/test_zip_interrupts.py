"""ZipStore when Ctrl-C comes: at every place of every call at which CPython looks for signals."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.descriptors import files_open_below
from zarrstore.stores import zip as zip_store
from zarrstore.stores.zip import ZipStore
from zarrstore.testing.interrupts import interrupted

FOLDER = os.path.dirname(zip_store.__file__)

BEFORE = {"d/a": b"1", "d/b": b"2" * 50_000, "d/e/f": b"3", "dd": b"4", "x": b"5", "big": b"6" * 40_000}


def interrupted_at(n: int, act: Callable[[], object]) -> bool:
    """Call `act`, and raise KeyboardInterrupt at the `n`-th place; tell whether there were so many."""
    return interrupted(act, n - 1, FOLDER)


@pytest.fixture
def few_objects() -> None:
    """Take what other tests made out of the garbage collector: each `gc.collect` would go through it all."""
    gc.collect()
    gc.freeze()


ACTS: dict[str, Callable[[ZipStore], object]] = {
    "set": lambda store: store.__setitem__("new", b"n"),
    "overwrite": lambda store: store.__setitem__("x", b"other"),
    "set-large": lambda store: store.__setitem__("big", b"n" * 60_000),
    "setitems": lambda store: store.setitems({"x": b"other", "new": b"n", "big": b"b" * 50_000}),
    "delete": lambda store: store.__delitem__("x"),
    "delitems": lambda store: store.delitems(["x", "d/a", "absent"]),
    "rmdir": lambda store: store.rmdir("d"),
    "clear": lambda store: store.clear(),
    "rename": lambda store: store.rename("d", "moved/d"),
    "flush": lambda store: store.flush(),
    "repack": lambda store: store.repack(),
}
AFTER: dict[str, dict[str, bytes | None]] = {
    "set": {"new": b"n"},
    "overwrite": {"x": b"other"},
    "set-large": {"big": b"n" * 60_000},
    "setitems": {"x": b"other", "new": b"n", "big": b"b" * 50_000},
    "delete": {"x": None},
    "delitems": {"x": None, "d/a": None},
    "rmdir": {"d/a": None, "d/b": None, "d/e/f": None},
    "clear": dict.fromkeys(BEFORE),
    "rename": {
        **{key: None for key in BEFORE if key.startswith("d/")},
        **{f"moved/{key}": value for key, value in BEFORE.items() if key.startswith("d/")},
    },
    "flush": {},
    "repack": {},
}


def _begun(path: Path) -> ZipStore:
    store = ZipStore(path, compact=False)
    store.update(BEFORE)
    store["x"] = b"old"
    store.flush()
    store["x"] = BEFORE["x"]
    store.listdir("d")  # what listings keep must follow too
    return store


def _holds_what_it_says(store: ZipStore) -> dict[str, bytes]:
    held = dict(store)
    assert len(store) == len(held)
    for path in ("", "d", "d/e", "moved", "moved/d"):
        below = {key for key in held if not path or key.startswith(path + "/")}
        assert set(store.keys_below(path)) == below
        depth = len(path) + 1 if path else 0
        assert store.listdir(path) == sorted({key[depth:].partition("/")[0] for key in below})
    return held


def _lock_is_free(store: ZipStore) -> bool:
    taken: list[bool] = []

    def take() -> None:
        taken.append(store._mutex.acquire(timeout=5))
        if taken[0]:
            store._mutex.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken == [True]


#: Of acts with many places, each so many-th in the normal run.
STEPS = {"rename": 4, "repack": 11}


@pytest.mark.parametrize("act", list(ACTS))
def test_an_interrupt_anywhere_leaves_old_or_new_and_a_store_that_works(tmp_path, monkeypatch, act):
    monkeypatch.setattr("zarrstore.stores.zip.file._sync", lambda fd: None)
    _interrupt_everywhere(tmp_path, act, STEPS.get(act, 1))


@pytest.mark.slow
@pytest.mark.parametrize("act", list(STEPS))
def test_an_interrupt_at_each_of_many_places_leaves_old_or_new(tmp_path, monkeypatch, act):
    monkeypatch.setattr("zarrstore.stores.zip.file._sync", lambda fd: None)
    _interrupt_everywhere(tmp_path, act, 1)


def _interrupt_everywhere(tmp_path: Path, act: str, step: int) -> None:
    path, n = tmp_path / "a.zip", 1 - step
    while True:
        n += step
        path.unlink(missing_ok=True)
        store = _begun(path)
        there = interrupted_at(n, lambda store=store: ACTS[act](store))
        held = _holds_what_it_says(store)
        changed = AFTER[act]
        for key in {*BEFORE, *held, *changed}:
            allowed = [BEFORE.get(key)] + ([changed[key]] if key in changed else [])
            assert held.get(key) in allowed, f"place {n}: {key!r} is {held.get(key)!r}"
        if act in ("rename", "set", "delete"):
            assert len({held.get(key) == changed[key] for key in changed}) == 1, f"place {n}: half done"
        # Whoever saw it, and flushed, has it: also after a kill that comes later.
        store.flush()
        assert _holds_what_it_says(store) == held
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == held
        store["later"] = b"l"
        shutil.copy(path, tmp_path / "killed.zip")
        ZipStore.recover(tmp_path / "killed.zip")
        with ZipStore(tmp_path / "killed.zip", mode="r") as killed:
            assert dict(killed) == {**held, "later": b"l"}, f"place {n}"
        assert _lock_is_free(store), f"place {n}: the lock was not given back"
        if not there:
            break
    assert n > 5


@pytest.mark.parametrize("second", [1, 3, 8])
def test_a_second_interrupt_finds_a_store_that_the_first_left_in_order(tmp_path, monkeypatch, second):
    """Also while the first is being dealt with, which the tracer cannot reach: so here act by act."""
    monkeypatch.setattr("zarrstore.stores.zip.file._sync", lambda fd: None)
    for n in range(1, 60, 3):
        path = tmp_path / f"{second}-{n}.zip"
        store = _begun(path)
        interrupted_at(n, lambda store=store: store.rmdir("d"))
        interrupted_at(second, lambda store=store: store.setitems({"y": b"1", "d/a": b"2"}))
        held = _holds_what_it_says(store)
        store.flush()
        with zipfile.ZipFile(path) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == held


def test_an_interrupted_close_can_be_done_again_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("zarrstore.stores.zip.file._sync", lambda fd: None)
    path, n, there = tmp_path / "a.zip", 0, True
    while there:
        n += 1
        path.unlink(missing_ok=True)
        store = _begun(path)
        store.compact = True
        store["big"] = BEFORE["big"]
        store["big"] = BEFORE["big"]
        there = interrupted_at(n, store.close)
        store.close()
        with ZipStore(path) as again:  # the lock was given back too
            assert dict(again) == BEFORE
        assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc: run on Linux")
@pytest.mark.parametrize("mode", ["r", "a", "w", "x"])
@pytest.mark.usefixtures("few_objects")
def test_an_interrupted_opening_leaves_no_file_open_and_no_lock(tmp_path, mode):
    path, n, there = tmp_path / "a.zip", 0, True
    with ZipStore(path) as store:
        store.update(BEFORE)
    content = path.read_bytes()
    while there:
        n += 1
        if mode == "x":
            path.unlink()
        else:
            path.write_bytes(content)
        there = interrupted_at(n, lambda: ZipStore(path, mode=mode))
        gc.collect()
        assert files_open_below(tmp_path) == [], f"place {n}"
        ZipStore(path, mode="w").close()
    assert n > 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc: run on Linux")
@pytest.mark.usefixtures("few_objects")
def test_an_interrupted_flush_of_a_new_archive_leaves_no_file_open(tmp_path):
    n, there = 0, True
    while there:
        n += 1
        store = ZipStore(tmp_path / f"{n}.zip")
        store["a"] = b"1"
        there = interrupted_at(n, store.flush)
        store.close()
        del store
        gc.collect()
        assert files_open_below(tmp_path) == [], f"place {n}"
