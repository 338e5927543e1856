"""DBMStore over every implementation: those of this Python, and by this very file under other Pythons the others."""

from __future__ import annotations

import dbm
import dbm.dumb
import gc
import hashlib
import importlib
import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from tests.support import peers
from tests.support.interrupts import Interrupts
from zarrstore.errors import (
    ClosedStoreError,
    DamagedStoreError,
    LockedStoreError,
    ReadOnlyError,
    StoreNotFoundError,
    StoreReadError,
    ValueTooLargeError,
)
from zarrstore.stores import dbm as module
from zarrstore.stores.dbm import DBMStore, handles
from zarrstore.testing import StoreConformance

DATA = Path(__file__).parent.parent / "data" / "v2"
CHECKOUT = Path(__file__).parent.parent.parent


def _openers():
    for name in ("dumb", "ndbm", "gnu", "sqlite3"):
        try:
            yield name, importlib.import_module(f"dbm.{name}").open
        except ImportError:
            continue


OPENERS = dict(_openers())
WITHIN = "ZARRSTORE_DBM_WITHIN" in os.environ


def only(here):
    """Leave a test out where it has nothing to say; another run of this file has it."""
    return (lambda test: test) if here else (lambda test: None)


@pytest.fixture(params=OPENERS)
def opener(request):
    return OPENERS[request.param]


@pytest.fixture
def store(opener, tmp_path):
    with DBMStore(tmp_path / "d", open=opener) as opened:
        yield opened


for _name, _open in OPENERS.items():

    class _Suite(StoreConformance):
        opener = staticmethod(_open)
        examples = 8

        def make_store(self, tmp_path):
            return DBMStore(tmp_path / "d", open=self.opener)

        def reopen(self, store, tmp_path):
            store.close()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return DBMStore(tmp_path / "d")  # found out, not told

    globals()[f"TestOver_{_name}"] = type(f"TestOver_{_name}", (_Suite,), {"__module__": __name__})
    del _Suite


@pytest.mark.slow
@pytest.mark.timeout(400)
@only(not WITHIN)
@pytest.mark.parametrize("peer, implementations", [("debian", {"ndbm", "gnu"}), ("py313", {"sqlite3"})])
def test_every_implementation_passes_this_file(peer, implementations, tmp_path):
    python = peers.python(peer)
    inside = "import importlib, sys; [importlib.import_module('dbm.' + name) for name in sys.argv[1:]]"
    subprocess.run([python, "-c", inside, *implementations], check=True, timeout=60)
    command = [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path}", __file__]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    env |= {"ZARRSTORE_DBM_WITHIN": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


# What old releases wrote, and what they read.


def legacy(name, tmp_path):
    for file in DATA.glob(f"{name}*"):
        shutil.copy(file, tmp_path)
    return tmp_path / name


def digests(store):
    return {key: hashlib.sha256(value).hexdigest() for key, value in store.items()}


MANIFEST = json.loads((DATA / "manifest.json").read_text())["keys"]


@pytest.mark.parametrize("name, needs", [("legacy-dumb.dbm", "dumb"), ("legacy-gnu.dbm", "gnu")])
@pytest.mark.parametrize("flag", ["r", "c"])
def test_every_value_that_zarr_2_wrote_is_there(name, needs, flag, tmp_path):
    if needs not in OPENERS:
        return  # test_every_implementation_passes_this_file comes here with a Python that has it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with DBMStore(legacy(name, tmp_path), flag=flag) as store:
            assert store.implementation == f"dbm.{needs}"
            assert len(store) == len(MANIFEST) == 89
            assert digests(store) == MANIFEST


@only(not WITHIN)
@pytest.mark.needs_peer("zarr2")
def test_zarr_2_reads_what_is_written_anew(tmp_path):
    expected = {}
    with (
        DBMStore(legacy("legacy-dumb.dbm", tmp_path), "r") as old,
        DBMStore(tmp_path / "new", open=dbm.dumb.open) as new,
    ):
        new.update(old)
        expected = digests(new)
    script = """
        import hashlib, json, sys, warnings
        warnings.simplefilter("ignore")
        import dbm.dumb, zarr
        store = zarr.DBMStore(sys.argv[1], flag="r", open=dbm.dumb.open)
        group = zarr.open_group(store, mode="r")
        group.visititems(lambda name, node: node[...] if hasattr(node, "shape") and node.dtype != object else None)
        print(json.dumps({key: hashlib.sha256(store[key]).hexdigest() for key in store}))
    """
    assert peers.run("zarr2", script, tmp_path / "new", checkout=False) == expected == MANIFEST


# What it is.


def test_it_names_the_implementation_and_the_room_it_takes(store):
    store.update({"a/b": b"12", "c": b"345"})
    store["c"] = b"6789"
    store.flush()
    description = store.describe()
    assert description.pop("dead_bytes") > 0
    assert description == {"implementation": f"dbm.{_short(store)}", "entries": 2, "live_bytes": 6}


def _short(store):
    return next(name for name, opener in OPENERS.items() if opener is store.open)


def test_the_parameters_are_those_of_zarr_2(tmp_path):
    store = DBMStore(str(tmp_path / "d"), "n", 0o600, dbm.dumb.open, False, "/")
    with store:
        assert (store.path, store.mode, store.open) == (str(tmp_path / "d"), 0o600, dbm.dumb.open)
        assert (store.write_lock, store._dimension_separator) == (False, "/")
        assert not store.capabilities.thread_safe


def test_any_open_function_will_do_and_gets_its_arguments(tmp_path):
    class Custom(dict):
        def close(self):
            self.clear()

    asked = []

    def opener(path, flag, mode, **kwargs):
        asked.append((Path(path).name, flag, mode, kwargs))
        return Custom()

    with DBMStore(tmp_path / "d", "n", 0o640, opener, fast=True) as store:
        store["é/0"] = b"1"
        assert dict(store) == {"é/0": b"1"}
        assert store.implementation.endswith("Custom")
    assert asked == [("d", "n", 0o640, {"fast": True})]


def test_names_that_are_no_keys_are_not_listed(opener, tmp_path):
    with opener(str(tmp_path / "d"), "c") as db:
        for name in (b"fine", b"\xff\xfe", b"a//b", b"/x"):
            db[name] = b"1"
    with DBMStore(tmp_path / "d") as store:
        assert dict(store) == {"fine": b"1"}
        assert len(store) == 1


def test_the_danger_of_dumb_is_said_once_and_only_to_those_who_did_not_choose_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_warned_of_dumb", False)
    for name in "abc":
        DBMStore(tmp_path / name, open=dbm.dumb.open).close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in "abc":
            DBMStore(tmp_path / name).close()
    # What other tests left to the garbage collector may warn meanwhile.
    warned = [one for one in caught if "dbm.dumb" in str(one.message)]
    assert [one.filename for one in warned] == [__file__]


# Threads, processes, life.


def test_other_threads_may_use_and_close_it(store):
    done = []

    def work():
        store["a"] = b"1"
        done.append((store["a"], list(store), "b" in store, store.get("b")))
        store.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [(b"1", ["a"], False, None)]


OTHER = """
import sys, dbm
from zarrstore.stores.dbm import DBMStore, handles
path, flag = sys.argv[1:3]
import importlib
opener = importlib.import_module("dbm." + sys.argv[3]).open
try:
    store = DBMStore(path, flag, open=opener)
    store.get("a")
    print("open", flush=True)
    sys.stdin.read()
    store.close()
except Exception as exc:
    print(type(exc).__name__, flush=True)
"""


def other(path, flag, name):
    env = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", OTHER, str(path), flag, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize(
    "mine, theirs, together", [("c", "c", False), ("c", "r", False), ("r", "c", False), ("r", "r", True)]
)
def test_a_second_process_is_refused_unless_both_read(mine, theirs, together, opener, tmp_path):
    name = next(name for name, known in OPENERS.items() if known is opener)
    with DBMStore(tmp_path / "d", open=opener) as store:
        store["a"] = b"1"
    with DBMStore(tmp_path / "d", mine, open=opener) as store:
        with other(tmp_path / "d", theirs, name) as process:
            line = process.stdout.readline().strip()
            assert line == ("open" if together or name == "sqlite3" else "LockedStoreError")
        assert store["a"] == b"1"
    with other(tmp_path / "d", "c", name) as process:
        assert process.stdout.readline().strip() == "open"
        if name != "sqlite3":
            with pytest.raises(LockedStoreError):
                DBMStore(tmp_path / "d")
    assert [file for file in os.listdir(tmp_path) if file.endswith(".lock")] == []


OPENING = """
import sys, importlib
from zarrstore.stores.dbm import DBMStore, handles
opener = importlib.import_module("dbm." + sys.argv[2]).open
for i in range(30):
    with DBMStore(sys.argv[1], open=opener) as store:
        store[f"{sys.argv[3]}-{i}"] = b"1" * 100
        len(store)
"""


@only("sqlite3" in OPENERS)
def test_processes_that_open_at_the_same_moment_all_get_in(tmp_path):
    env = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", OPENING, str(tmp_path / "d"), "sqlite3", str(n)], env=env)
        for n in range(3)
    ]
    assert [process.wait(100) for process in processes] == [0, 0, 0]
    with DBMStore(tmp_path / "d") as store:
        assert len(store) == 90


@pytest.mark.parametrize("older", OPENERS)
@pytest.mark.parametrize("newer", OPENERS)
def test_a_new_database_takes_the_place_of_an_older_one_of_any_kind(tmp_path, older, newer):
    with DBMStore(tmp_path / "d", open=OPENERS[older]) as store:
        store.update({"old": b"1", "older": b"2"})
        del store["older"]  # dumb writes a .bak
    (tmp_path / "d.txt").write_bytes(b"not part of any")
    with DBMStore(tmp_path / "d", "n", open=OPENERS[newer]) as store:
        assert dict(store) == {}
        store["new"] = b"3"
    with DBMStore(tmp_path / "d", open=OPENERS[newer]) as store:
        assert dict(store) == {"new": b"3"}
    assert dbm.whichdb(str(tmp_path / "d")) == f"dbm.{newer}"
    assert (tmp_path / "d.txt").exists()


@only("sqlite3" in OPENERS)
def test_what_a_killed_writer_left_of_an_older_sqlite3_database_does_not_come_back(tmp_path):
    with other(tmp_path / "d", "c", "sqlite3") as process:
        assert process.stdout.readline().strip() == "open"
        DBMStore(tmp_path / "d")["old"] = b"1"
        process.kill()
    with DBMStore(tmp_path / "d", "n", open=OPENERS["sqlite3"]) as store:
        assert dict(store) == {}


@only("gnu" in OPENERS)
def test_a_gnu_database_in_use_is_not_removed_for_a_new_one_of_another_kind(tmp_path):
    with DBMStore(tmp_path / "d", open=OPENERS["gnu"]) as store:
        store["a"] = b"1"
        with other(tmp_path / "d", "n", "dumb") as process:
            assert process.stdout.readline().strip() == "LockedStoreError"
        assert store["a"] == b"1"


def test_an_interrupt_while_it_opens_leaves_no_lock(opener, tmp_path):
    with Interrupts() as interrupts:
        for i in range(60):
            interrupts.during(lambda: DBMStore(tmp_path / "d", open=opener).close(), 1e-6 + i * 1e-5)
    gc.collect()
    with DBMStore(tmp_path / "d", open=opener) as store:
        store["a"] = b"1"


def test_it_takes_a_path_of_bytes(opener, tmp_path):
    with DBMStore(os.fsencode(tmp_path / "d"), open=opener) as store:
        store["a"] = b"1"
    with DBMStore(str(tmp_path / "d")) as store:
        assert (store["a"], store.path) == (b"1", str(tmp_path / "d"))


def test_a_killed_writer_leaves_no_lock(opener, tmp_path):
    name = next(name for name, known in OPENERS.items() if known is opener)
    with other(tmp_path / "d", "c", name) as process:
        assert process.stdout.readline().strip() == "open"
        process.kill()
    with DBMStore(tmp_path / "d", "n", open=opener) as store:
        store["a"] = b"1"


def test_stores_of_one_process_share_one_database(opener, tmp_path):
    with DBMStore(tmp_path / "d", "n", open=opener) as one:
        one["a"] = b"1"
        with DBMStore(tmp_path / "d", open=opener) as two, DBMStore(tmp_path / "d", "r", open=opener) as reader:
            two["b"] = b"2"
            assert dict(one) == dict(two) == dict(reader) == {"a": b"1", "b": b"2"}
            with pytest.raises(ReadOnlyError):
                reader["c"] = b"3"
            with pytest.raises(LockedStoreError, match="in this process"):
                DBMStore(tmp_path / "d", "n", open=opener)
        one["c"] = b"3"
        assert sorted(one) == ["a", "b", "c"]


def test_a_new_database_is_not_made_anew_by_a_copy_of_the_store(opener, tmp_path):
    store = DBMStore(tmp_path / "d", "n", open=opener)
    store["a"] = b"1"
    parcel = pickle.dumps(store)
    store.close()
    assert pickle.loads(pickle.dumps(store))["a"] == b"1"
    with pickle.loads(parcel) as copy:
        assert dict(copy) == {"a": b"1"}
        assert copy == store


def test_a_dropped_store_is_closed(opener, tmp_path):
    store = DBMStore(tmp_path / "d", open=opener)
    store["a"] = b"1"
    del store
    with DBMStore(tmp_path / "d", "n" if opener is not dbm.dumb.open else "c", open=opener):
        pass


def lost(path):
    """Make a store that nobody can reach and only a garbage collection finds; return its database's path."""
    store = DBMStore(path, open=dbm.dumb.open)
    store["a"] = b"1"
    store.itself = store
    return store.path


def test_a_lost_store_may_be_collected_by_a_thread_that_opens_another(tmp_path):
    def collect_and_open(*args):  # in a thread of its own, for which the thread that opens waits with the lock
        gc.collect()
        return dbm.dumb.open(*args)

    gc.collect()
    gc.disable()
    try:
        path = lost(tmp_path / "lost")
        DBMStore(tmp_path / "d", open=collect_and_open).close()
    finally:
        gc.enable()
    with DBMStore(path, "w", open=dbm.dumb.open) as store:  # nobody holds it
        assert dict(store) == {"a": b"1"}


def test_a_rename_lets_no_other_thread_write_between_its_copies_and_its_deletes(store, monkeypatch):
    writable = []

    def delete(keys):
        def attempt():
            if store._handle.lock.acquire(blocking=False):
                store._handle.lock.release()
                writable.append(keys)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        DBMStore._delete_many(store, keys)

    if not store._handle.direct:
        return  # dbm.sqlite3, which other processes write too: the docstring says what may be lost
    store["a/x"] = b"1"
    monkeypatch.setattr(store, "_delete_many", delete)
    store.rename("a", "b")
    assert (dict(store), writable) == ({"b/x": b"1"}, [])


class Owner:
    """Closes its store when it is collected."""

    def __init__(self, store):
        self.store, self.itself = store, self

    def __del__(self):
        self.store.close()


@pytest.mark.parametrize("is_owned", [False, True], ids=["lost", "closed by its owner"])
def test_a_store_may_be_collected_while_this_thread_closes_another(is_owned, tmp_path):
    other = DBMStore(tmp_path / "d", open=dbm.dumb.open)
    close = other._handle.close

    def collect_and_close():
        gc.collect()
        close()

    other._handle.close = collect_and_close
    gc.collect()
    gc.disable()
    try:
        path = lost(tmp_path / "lost")
        held = DBMStore(path, open=dbm.dumb.open) if is_owned else None
        if held is not None:
            Owner(held)
        other.close()
    finally:
        gc.enable()
    with DBMStore(path, "w", open=dbm.dumb.open) as store:
        assert dict(store) == {"a": b"1"}


def test_an_error_of_a_lost_store_is_not_raised_to_whoever_opens_another(tmp_path):
    gc.collect()
    gc.disable()
    try:
        path = lost(tmp_path / "lost")
        handle = next(handle for handle in handles._handles.values() if handle.path == path)
        handle.close = lambda: (_ for _ in ()).throw(OSError("disk full"))
        with pytest.warns(RuntimeWarning, match="closed by nobody.*disk full"):
            gc.collect()
    finally:
        gc.enable()
    del handle.close
    handle.close()


def test_after_close_everything_says_so(store):
    store["a"] = b"1"
    store.close()
    store.close()
    for use in (
        lambda: store["a"],
        lambda: "a" in store,
        lambda: list(store),
        lambda: store.update(a=b"1"),
        lambda: store.pop("a"),
        store.flush,
        store.describe,
    ):
        with pytest.raises(ClosedStoreError):
            use()


@only(hasattr(os, "fork"))
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_neither_harms_the_parent_s_database_nor_uses_it(store, tmp_path):
    store["a"] = b"1"
    child = os.fork()
    if not child:
        status = 1
        try:
            if store.implementation == "dbm.sqlite3":
                store["child"] = b"2"
                status = 0
            else:
                try:
                    store["child"] = b"2"
                except LockedStoreError:
                    status = 0
            del store._handle, store._release
        finally:
            os._exit(status)
    store["b"] = b"2"
    assert os.waitpid(child, 0)[1] == 0
    with other(tmp_path / "d", "c", _short(store)) as process:
        line = process.stdout.readline().strip()
    assert line == ("open" if _short(store) == "sqlite3" else "LockedStoreError")
    assert store.pop("child", None) == (b"2" if _short(store) == "sqlite3" else None)
    assert dict(store) == {"a": b"1", "b": b"2"}


def test_a_child_that_ends_in_order_does_not_write_the_parent_s_index(tmp_path):
    script = """
        import dbm.dumb, os, sys
        from zarrstore.stores.dbm import DBMStore, handles
        store = DBMStore(sys.argv[1], open=dbm.dumb.open)
        store["a"] = b"1"
        child = os.fork()
        if not child:
            sys.exit(0)
        store["b"] = b"2"
        store.flush()
        os.waitpid(child, 0)
        print(len(open(sys.argv[1] + ".dir").readlines()))
    """
    assert peers.run("self", script, tmp_path / "d") == 2


# Failures.


def test_a_read_only_store_refuses_and_keeps(opener, tmp_path):
    with DBMStore(tmp_path / "d", open=opener) as store:
        store["a"] = b"1"
    with DBMStore(tmp_path / "d", "r", open=opener) as store:
        for use in (lambda: store.update(b=b"2"), lambda: store.pop("a"), lambda: store.rmdir("")):
            with pytest.raises(ReadOnlyError, match="flag='r'"):
                use()
        store.flush()
        assert dict(store) == {"a": b"1"}


@pytest.mark.parametrize("flag", ["r", "w"])
def test_an_empty_value_is_not_absent(flag, opener, tmp_path):
    with DBMStore(tmp_path / "d", open=opener) as store:
        store["empty"] = b""
        assert dict(store) == {"empty": b""}
        store["some"] = b"1"
    with DBMStore(tmp_path / "d", flag, open=opener) as store:
        assert (store["empty"], "empty" in store, dict(store)) == (b"", True, {"empty": b"", "some": b"1"})


@pytest.mark.parametrize("flag", ["r", "w"])
def test_nothing_is_made_where_something_must_be(flag, opener, tmp_path):
    with pytest.raises(StoreNotFoundError, match="DBM database"):
        DBMStore(tmp_path / "d", flag, open=opener)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"PK\5\6", b"junk" * 5000], ids=["empty", "zip", "junk"])
def test_a_foreign_file_is_not_opened_as_an_empty_store(content, opener, tmp_path):
    (tmp_path / "d").write_bytes(content)
    for chosen in (None, opener):
        with pytest.raises(DamagedStoreError, match="no DBM database"):
            DBMStore(tmp_path / "d", open=chosen)
    assert (tmp_path / "d").read_bytes() == content
    assert os.listdir(tmp_path) == ["d"]


def test_a_directory_is_no_database(tmp_path):
    with pytest.raises(DamagedStoreError, match="is a directory"):
        DBMStore(tmp_path)


def test_files_of_an_implementation_that_is_not_here_are_not_passed_over(tmp_path):
    (tmp_path / "d.db").write_bytes(b"junk" * 100)
    with pytest.raises(DamagedStoreError, match="no DBM implementation of this Python"):
        DBMStore(tmp_path / "d")
    assert os.listdir(tmp_path) == ["d.db"]


def test_a_database_of_another_kind_is_not_written_beside(opener, tmp_path):
    for name, other_opener in OPENERS.items():
        if other_opener is not opener:
            with DBMStore(tmp_path / "d", "n", open=other_opener) as store:
                store["a"] = b"1"
            before = sorted(os.listdir(tmp_path))
            with pytest.raises(DamagedStoreError, match=f"is a dbm.{name} database"):
                DBMStore(tmp_path / "d", open=opener)
            assert sorted(os.listdir(tmp_path)) == before
            for file in before:
                os.remove(tmp_path / file)


@only("sqlite3" in OPENERS)
def test_another_sqlite_database_gets_no_table_of_ours(tmp_path):
    with sqlite3.connect(tmp_path / "d") as db:
        db.execute("CREATE TABLE zarr (k TEXT PRIMARY KEY, v BLOB)")
    db.close()
    with pytest.raises(DamagedStoreError, match="SQLiteStore opens it"):
        DBMStore(tmp_path / "d")


@only("sqlite3" in OPENERS)
@pytest.mark.parametrize("flag", ["r", "c"])
def test_a_schema_whose_names_are_not_utf8_is_damage(tmp_path, flag):
    DBMStore(tmp_path / "d", "n", open=OPENERS["sqlite3"]).close()
    with sqlite3.connect(tmp_path / "d") as db:
        db.execute("PRAGMA writable_schema = ON")
        name = "CAST(x'ff' AS TEXT)"
        db.execute(f"INSERT INTO sqlite_master VALUES ('table', {name}, {name}, 2, 'nonsense')")
    db.close()
    with pytest.raises(DamagedStoreError):
        DBMStore(tmp_path / "d", flag)


def test_a_damaged_index_of_dumb_is_an_error_with_a_way_out(tmp_path):
    path = tmp_path / "d"
    with DBMStore(path, open=dbm.dumb.open) as store:
        store.update({f"k{n}": b"x" * 600 for n in range(5)})
    with DBMStore(path, open=dbm.dumb.open) as store:
        del store["k0"]
    whole = (tmp_path / "d.dir").read_bytes()
    for damaged in (b"", whole[:-5], b"'k1', (10240000, 5)\n"):
        (tmp_path / "d.dir").write_bytes(damaged)
        for flag in "cr":
            with pytest.raises(DamagedStoreError):
                DBMStore(path, flag)
    os.remove(tmp_path / "d.dir")
    for flag in "cr":
        with pytest.raises(DamagedStoreError, match=r"d\.bak"):
            DBMStore(path, flag)
    assert os.listdir(tmp_path).count("d") == 0
    shutil.copy(tmp_path / "d.bak", tmp_path / "d.dir")
    with DBMStore(path, "r") as store:
        assert len(store) in (4, 5)  # by the release of Python


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_a_dumb_database_that_was_emptied_opens_as_empty(count, tmp_path):
    with DBMStore(tmp_path / "d", open=dbm.dumb.open) as store:
        store.update({f"a/{n}": b"1" for n in range(count)})
        store.rmdir("a")
    with DBMStore(tmp_path / "d", "w", open=dbm.dumb.open) as store:
        assert list(store) == []


def test_a_batch_of_deletes_writes_the_index_of_dumb_twice(tmp_path, monkeypatch):
    with DBMStore(tmp_path / "d", open=dbm.dumb.open) as store:
        store.update({f"a/{n}": b"1" for n in range(100)})
        store.flush()
        written = []
        monkeypatch.setattr(dbm.dumb._Database, "_commit", lambda self: written.append(len(self._index or ())))
        store.rmdir("a")
    assert written[:2] == [1, 0]


@only("gnu" in OPENERS)
def test_a_gnu_database_that_a_kill_left_unreadable_is_no_empty_store(tmp_path):
    import random

    gnu = OPENERS["gnu"]
    outcomes = {"whole": 0, "refused": 0}
    until = time.monotonic() + 90
    for round_ in range(300):
        path = str(tmp_path / f"d{round_}")
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            db, rnd = gnu(path, "n"), random.Random(round_)
            while True:
                db[b"a/%d" % rnd.randrange(400)] = bytes(rnd.randrange(1, 5000))
                os.write(writing, b"x")
        os.read(reading, 1)
        time.sleep(random.Random(round_).uniform(0.002, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading), os.close(writing)
        try:
            with DBMStore(path) as store:
                assert len(store) > 0, f"round {round_}: an empty store after a kill"
            outcomes["whole"] += 1
        except DamagedStoreError as exc:
            if "recover" not in str(exc):
                raise
            outcomes["refused"] += 1
        os.remove(path)
        if (outcomes["refused"] >= 3 and outcomes["whole"]) or time.monotonic() > until:
            break
    assert outcomes["refused"], outcomes


@only("gnu" in OPENERS)
def test_a_full_disk_costs_gnu_only_the_value_that_did_not_fit(tmp_path):
    script = """
        import json, resource, signal, sys
        from zarrstore.stores.dbm import DBMStore, handles
        import dbm.gnu
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        store, kept = DBMStore(sys.argv[1], open=dbm.gnu.open), 0
        try:
            while True:
                store[f"k{kept}"] = bytes(3000)
                kept += 1
        except OSError as exc:
            reason = str(exc)
        whole = all(store.get(f"k{n}") == bytes(3000) for n in range(kept))
        print(json.dumps([kept, len(store), whole, reason]))
    """
    kept, found, whole, reason = peers.run("self", script, tmp_path / "d")
    assert kept == found > 50
    assert whole
    assert f"cannot set 'k{kept}'" in reason


class _Failing(dict):
    error = OSError(5, "Input/output error")

    def __getitem__(self, name):
        raise self.error

    __setitem__ = __contains__ = __delitem__ = lambda self, *args: self[args[0]]

    def keys(self):
        raise self.error

    def close(self):
        pass


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), dbm.error[0]("broken"), sqlite3.OperationalError("locked")]
)
def test_a_failure_of_the_database_is_not_absence(error, tmp_path):
    _Failing.error = error
    with DBMStore(tmp_path / "d", open=lambda *args: _Failing()) as store:
        for use in (lambda: store["a"], lambda: "a" in store, lambda: list(store), lambda: store.pop("a")):
            with pytest.raises(StoreReadError, match=str(error)[-6:]):
                use()
        with pytest.raises(OSError, match="cannot set 'a'"):
            store["a"] = b"1"


class _Limited(dict):
    """The original ndbm, whose records end at about 1 KB. Berkeley DB, as in Debian, has no such limit."""

    __module__ = "_dbm"

    def __setitem__(self, name, value):
        if len(value) > 1008:
            raise OSError("cannot add item to database")
        super().__setitem__(name, value)

    def close(self):
        pass


def test_the_limit_of_ndbm_is_named(tmp_path):
    with DBMStore(tmp_path / "d", open=lambda *args: _Limited()) as store:
        assert store.implementation == "dbm.ndbm"
        with pytest.raises(ValueTooLargeError, match=r"value of 'a' has 2,000 bytes.*ndbm"):
            store["a"] = bytes(2000)


@pytest.mark.timeout(10)
def test_a_database_in_a_directory_that_is_not_there_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        DBMStore(tmp_path / "not yet" / "x", open=dbm.dumb.open)
    assert list(tmp_path.iterdir()) == []
