"""DirectoryStore and NestedDirectoryStore with many threads and many processes at one place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import mixed
from tests.support.histories import play, restless, violations
from zarrstore.errors import DestinationExistsError
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.nested import NestedDirectoryStore

KINDS = pytest.mark.parametrize("kind", [DirectoryStore, NestedDirectoryStore])
CHECKOUT = Path(__file__).parent.parent.parent


def together(*works: Callable[[], object]) -> None:
    """Do all at once, and raise what any raised."""
    raised: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


@KINDS
def test_8_threads_see_what_one_after_the_other_could_have_seen(tmp_path, kind):
    # Every key in a directory of its own, or of one other: each delete prunes what the next set makes again.
    keys = ["a/b/c/1", "a/b/c/2", "a/b/d", "e/f/0.1", "e/f/1.0"]
    with restless():
        history = play(kind(tmp_path / "data"), ops=8000, keys=keys)
    assert violations(history) == []
    assert len(history) > 7000


@pytest.mark.nightly
@KINDS
def test_a_million_operations_of_8_threads_are_linearizable(tmp_path, kind):
    keys = [f"a/{i % 7}/{i}" for i in range(60)]
    for seed in range(20):
        history = play(kind(tmp_path / str(seed)), ops=50_000, keys=keys, seed=seed)
        assert violations(history) == []


@KINDS
def test_4_processes_of_mixed_operations(tmp_path, kind):
    script = """
import json, sys
from tests.support import mixed
from zarrstore.stores.directory import DirectoryStore
from zarrstore.stores.nested import NestedDirectoryStore
problems = []
store = {"DirectoryStore": DirectoryStore, "NestedDirectoryStore": NestedDirectoryStore}[sys.argv[3]](sys.argv[1])
mixed.work(store, int(sys.argv[2]), 4, 1500, 2, problems)
print(json.dumps(problems))
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "data"), str(i), kind.__name__],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    results = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    assert results == [[], [], [], []]
    left = [name for _, _, names in os.walk(tmp_path) for name in names if name.startswith(".")]
    assert left == []


def test_8_threads_of_mixed_operations(tmp_path):
    store, problems = DirectoryStore(tmp_path / "data"), []
    together(*(lambda i=i: mixed.work(store, i, 8, 400, 1, problems) for i in range(8)))
    assert problems == []


@KINDS
def test_what_stays_is_in_every_listing_and_nothing_twice_while_others_come_and_go(tmp_path, kind):
    store: Any = kind(tmp_path / "data")
    stay = {f"a/b{i % 3}/{i}.{i}" for i in range(60)}
    store.update(dict.fromkeys(stay, b"1"))
    come = {f"a/b{i % 3}/{i}.x" for i in range(60)} | {f"a/new/{i}/x" for i in range(10)}
    done = threading.Event()

    def change() -> None:
        try:
            for _ in range(12):
                store.update(dict.fromkeys(stay, b"2"))  # replaced, not gone
                store.update(dict.fromkeys(come, b"1"))
                store.delitems(come)
        finally:
            done.set()

    def look() -> None:
        while not done.is_set():
            found = list(store)
            assert len(found) == len(set(found))
            assert stay <= set(found) <= stay | come
            assert {"b0", "b1", "b2"} <= set(store.listdir("a")) <= {"b0", "b1", "b2", "new"}
            assert 60 <= len(store) <= 130
            assert store.getsize("a/b0") >= 20

    together(change, look, look)
    assert set(store) == stay


@KINDS
def test_a_set_meets_an_rmdir_or_a_rename_and_is_whole_or_gone(tmp_path, kind):
    store: Any = kind(tmp_path / "data")
    value, done = b"v" * 5000, threading.Event()

    def change() -> None:
        try:
            for i in range(300):
                store[f"a/b/{i % 5}"] = value
        finally:
            done.set()

    def remove() -> None:
        while not done.is_set():
            store.rmdir("a")

    def move() -> None:
        while not done.is_set():
            try:
                store.rename("a/b", "c")
            except KeyError:
                continue
            except DestinationExistsError:
                pass  # a set that had found a/b moved along, after the first look of rmdir
            store.rmdir("c")

    def read() -> None:
        while not done.is_set():
            assert store.get("a/b/1", value) == value

    together(change, remove, read)
    done.clear()
    together(change, move, read)
    store["a/b/1"] = value
    store.rmdir("a")
    store.rmdir("c")
    assert [name for _, folders, names in os.walk(store.path) for name in folders + names] == []


def test_deletes_of_many_leave_no_directory(tmp_path):
    store = DirectoryStore(tmp_path / "data")
    keys = [f"a/b/c{i % 4}/{i}" for i in range(200)]
    store.update(dict.fromkeys(keys, b"1"))
    together(*(lambda part=part: [store.pop(key) for key in keys[part::4]] for part in range(4)))
    assert os.listdir(store.path) == []


def test_a_child_and_its_parent_write_to_one_store(tmp_path):
    store = DirectoryStore(tmp_path / "data", durability="flush")
    child = os.fork()
    who = "child" if child == 0 else "parent"
    for i in range(200):
        store[f"shared/{i % 10}"] = store[f"{who}/{i}"] = who.encode() * 100
    if child == 0:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert (status, len(store)) == (0, 410)
    assert {store[f"shared/{i}"] for i in range(10)} <= {b"child" * 100, b"parent" * 100}


def test_a_temporary_file_that_a_rename_carried_away_does_not_outlive_its_set(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path / "data")
    store["a/x"] = b"1"
    close = os.close

    def close_and_move(fd: int) -> None:
        monkeypatch.undo()
        close(fd)
        store.rename("a", "b")

    monkeypatch.setattr(os, "close", close_and_move)
    store["a/y"] = b"2"
    assert dict(store) == {"a/y": b"2", "b/x": b"1"}
    assert sorted(os.listdir(tmp_path / "data" / "b")) == ["x"]
