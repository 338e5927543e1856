"""Flags, threads, other processes, copies, and random histories."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from zarrstore.adapt import KVStore, as_store
from zarrstore.base import DRIVER, WRITES, Store
from zarrstore.errors import ClosedStoreError, UnsupportedOperation, ZarrStoreError
from zarrstore.testing.conformance.making import StoreMaking
from zarrstore.testing.stateful import check_against_dict
from zarrstore.wrappers.base import Wrapper

__all__ = ["PromiseTests"]


class PromiseTests(StoreMaking):
    """What a store says of itself."""

    def test_the_flags_agree_with_the_methods(self, store: Store) -> None:
        if isinstance(store, (Wrapper, KVStore)):
            return  # they speak for what they hold
        cls = type(store)
        flags = store.capabilities
        # One way only: a bridge may have the method for some of its file systems, and the flag for those.
        assert not flags.ranged or cls._get_range is not Store._get_range
        assert not flags.concurrent or cls._get_many is not Store._get_many
        assert not flags.durable_flush or cls._flush is not Store._flush
        assert (flags.erasable, flags.listable) <= (True, True)

    def test_a_wrapper_forwards_every_driver_method(self, store: Store) -> None:
        if not isinstance(store, Wrapper):
            return
        missing = [name for name in DRIVER if getattr(type(store), name) is getattr(Store, name)]
        assert not missing, f"{type(store).__name__} falls back to the slow default of {missing}"
        if not store.capabilities.writable and store.inner.capabilities.writable:
            open_ = [name for name in WRITES if getattr(type(store), name) is getattr(Wrapper, name)]
            assert not open_, f"{type(store).__name__} lets {open_} through"

    def test_threads_read_whole_values_and_listings_never_raise(self, store: Store) -> None:
        if not store.capabilities.thread_safe or not self._can_write(store):
            return
        erasable = store.capabilities.erasable
        size = min(2000, self.largest)
        problems: list[BaseException | str] = []
        stop = threading.Event()

        def write(me: int) -> None:
            for n in range(30):
                for name in ("x", "d/y"):
                    store[f"t{me}/{name}"] = bytes([n]) * size
                    if store[f"t{me}/{name}"] != bytes([n]) * size:
                        problems.append(f"thread {me} read back something else at {n}")
                if erasable and n % 5 == 4:
                    del store[f"t{me}/d/y"]
                    if f"t{me}/d/y" in store:
                        problems.append(f"thread {me} sees what it deleted at {n}")

        def read() -> None:
            while not stop.is_set():
                for me in range(3):
                    for value in (store.get(f"t{me}/x"), store.get(f"t{me}/d/y")):
                        if value is not None and (len(value) != size or len(set(value)) > 1):
                            problems.append("a torn value")
                    if store.capabilities.listable:
                        store.listdir(f"t{me}")
                        store.getsize(f"t{me}")
                if store.capabilities.listable:
                    for key in store:
                        if key.split("/")[0] not in {"t0", "t1", "t2"}:
                            problems.append(f"a phantom key {key!r}")

        def guarded(work: Callable[..., None], *args: Any) -> None:
            try:
                work(*args)
            except BaseException as exc:
                problems.append(exc)

        readers = [threading.Thread(target=guarded, args=(read,)) for _ in range(2)]
        writers = [threading.Thread(target=guarded, args=(write, me)) for me in range(3)]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in readers:
            thread.join()
        assert problems == [], repr(problems[:3])
        assert store["t1/x"] == bytes([29]) * size

    def test_what_was_written_is_there_when_opened_again(self, tmp_path: Path) -> None:
        if self.reopen is None:
            return
        expected = self.tree()
        opened = self.reopen(self.make_filled(tmp_path, expected), tmp_path)
        store = as_store(opened)
        assert {key: store[key] for key in expected} == expected
        if store.capabilities.listable:
            assert sorted(store) == sorted(expected)
        if store.capabilities.writable and store.capabilities.erasable:
            del store["foo/bar"]
            store["foo/new"] = b"new"
            store.flush()
            opened = self.reopen(opened, tmp_path)
            store = as_store(opened)
            assert sorted(store.keys_below("foo")) == ["foo/foo/foo", "foo/new", "foo/oof/x"]
        store.close()
        store.close()

    def test_a_pickled_copy_works(self, tmp_path: Path) -> None:
        if not self.pickles:
            return
        items = {"foo/bar": b"1", "foo/baz": b"22"}
        store = as_store(self.make_filled(tmp_path, items))
        store.flush()
        try:
            parcel = pickle.dumps(store)
        except UnsupportedOperation:  # a store may refuse while it is open for writing; once closed it must not
            store.close()
            parcel = pickle.dumps(store)
        duplicate = pickle.loads(parcel)
        assert type(duplicate) is type(store)
        assert {key: duplicate[key] for key in items} == items
        assert duplicate.capabilities == store.capabilities or not duplicate.capabilities.writable
        duplicate.close()
        store.close()
        del duplicate, store
        gc.collect(1)  # what was made here is young: a full collection would go through everything that pytest holds

    def test_copies_work_and_closing_one_leaves_the_other(self, tmp_path: Path) -> None:
        if not self.pickles:
            return
        items = {"foo/bar": b"1", "foo/baz": b"22"}
        store = as_store(self.make_filled(tmp_path, items))
        store.flush()
        try:
            copies = [copy.copy(store), copy.deepcopy(store)]
        except UnsupportedOperation:  # as for pickling
            store.close()
            copies = [copy.copy(store), copy.deepcopy(store)]
        for duplicate in copies:
            assert type(duplicate) is type(store)
            assert {key: duplicate[key] for key in items} == items
            duplicate.close()
        with suppress(ClosedStoreError):
            assert {key: store[key] for key in items} == items
        store.close()

    def test_a_forked_child_reads_what_was_written_and_the_parent_goes_on(self, tmp_path: Path) -> None:
        if not self.checks_processes or not self.forks or not hasattr(os, "fork"):
            return
        items = {f"foo/v{n}": bytes([n]) * 100 for n in range(20)}  # no names of chunks, which a view would refuse
        with as_store(self.make_filled(tmp_path, items)) as store:
            store.flush()
            child = os.fork()
            if child == 0:
                status = 1
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)  # a child that hangs ends by this signal
                try:
                    status = 0 if {key: store[key] for key in items} == items else 2
                except ZarrStoreError:  # refused in words: better than to hang for threads that only the parent has
                    status = 0
                finally:
                    os._exit(status)  # what pytest set up belongs to the parent
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0, "1: an error, 2: other values, -14: it hangs"
            assert {key: store[key] for key in items} == items
            if store.capabilities.writable:
                store["foo/later"] = b"1"
                assert store["foo/later"] == b"1"

    def test_another_process_sees_what_this_one_writes_if_the_store_says_so(self, tmp_path: Path) -> None:
        if not self.checks_processes:
            return
        store = as_store(self.make_filled(tmp_path, {"from/parent": b"1"}))
        with store:
            if not store.capabilities.process_safe or not store.capabilities.writable or not self.pickles:
                return
            store.flush()
            script = (
                "import pickle, sys\n"
                "store = pickle.load(open(sys.argv[1], 'rb'))\n"
                "assert store['from/parent'] == b'1'\n"
                "store['from/child'] = b'2'\n"
                "assert store.listdir('from') == ['child', 'parent']\n"
                "store.close()\n"
            )
            parcel = tmp_path.parent / f"{tmp_path.name}.pickle"
            parcel.write_bytes(pickle.dumps(store))
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            done = subprocess.run(
                [sys.executable, "-c", script, str(parcel)], env=env, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            assert store["from/child"] == b"2"
            assert store.listdir("from") == ["child", "parent"]

    def test_random_histories_end_as_they_do_with_a_dict(
        self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        probe = as_store(self.make_filled(tmp_path, {"foo": b""}))
        if not (self._can_write(probe) and self._can_erase(probe, "foo") and self._can_list(probe)):
            return
        probe.close()
        place = [tmp_path]

        def make() -> Any:
            place[0] = tmp_path_factory.mktemp("history")
            return self.make_store(place[0])

        again = self.reopen
        reopen = None if again is None else (lambda opened: again(opened, place[0]))
        check_against_dict(make, reopen=reopen, names=self.segments, max_examples=self.examples)
