"""LMDBStore without copies: buffers on the way in, views of the map on the way out."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from itertools import count
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from zarrstore.errors import LockedStoreError
from zarrstore.stores import _process
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.lmdb.view import View
from zarrstore.testing.interrupts import interrupted, places
from zarrstore.threads import Starter

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.fixture
def store(tmp_path):
    with LMDBStore(tmp_path / "data.lmdb") as opened:
        yield opened


# In -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["set", "setitems", "update"])
def test_a_numpy_chunk_is_set_without_a_copy(store, how):
    chunk = np.random.default_rng(0).integers(0, 255, 4 << 20, dtype="u1").reshape(1024, -1)
    store["warm"] = chunk
    tracemalloc.start()
    try:
        if how == "set":
            store["a"] = chunk
        elif how == "setitems":
            store.setitems({"a": chunk})
        else:
            store.update([("a", chunk)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000
    assert store["a"] == chunk.tobytes()


@pytest.mark.parametrize("size", [10, 100_000, 300_000, 1_000_000])
def test_a_batch_of_one_buffer_that_is_filled_again_and_again_keeps_each_content(store, size):
    scratch = bytearray(size)

    def items():
        for n in range(6):
            scratch[:] = bytes([n]) * size
            yield f"k{n}", scratch

    store.setitems(items())
    assert dict(store.items()) == {f"k{n}": bytes([n]) * size for n in range(6)}


# Out ----------------------------------------------------------------------------------------------------------------


def test_a_view_is_one_state_of_the_store_without_a_copy(store):
    store.update({"a": bytes(4 << 20), "b/c": b"12345", "empty": b""})
    tracemalloc.start()
    try:
        with store.reading() as view:
            store["a"] = b"new"
            store["later"] = b"1"
            assert (len(view), list(view), "later" in view, "b/c" in view) == (3, ["a", "b/c", "empty"], False, True)
            value = view["a"]
            assert (value.nbytes, value.readonly, value.format) == (4 << 20, True, "B")
            assert np.frombuffer(view["b/c"], "u1").tolist() == [49, 50, 51, 52, 53]
            assert bytes(view["empty"]) == b""
            for key in ("absent", "../x", "k" * 600, 7):
                assert key not in view
                with pytest.raises(KeyError):
                    view[key]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert store["a"] == b"new"


def test_no_value_of_a_view_can_be_used_after_its_block(store):
    store.update({"a": b"A" * 5000, "b": b"B" * 5000})
    with store.reading() as view:
        value, other = view["a"], view["b"]
        part = value[10:20]
        assert bytes(part) == b"A" * 10
        del part
        assert np.frombuffer(other, "u2")[3:].sum() > 0
    for held in (value, other):
        with pytest.raises(ValueError, match="released"):
            bytes(held)
    for use in (lambda: view["a"], lambda: "a" in view, lambda: list(view), lambda: len(view)):
        with pytest.raises(ValueError, match="within its 'with' block"):
            use()
    with view:  # another block, another state
        assert bytes(view["a"]) == b"A" * 5000


@pytest.mark.parametrize(
    "derive", [lambda v: v[10:20], lambda v: v.cast("H"), memoryview, lambda v: np.frombuffer(v, "u1"), np.asarray]
)
def test_what_is_made_of_a_value_and_outlives_the_block_is_an_error(store, derive):
    store["a"] = b"A" * 5000
    holder = []
    with pytest.raises(BufferError, match="let go of the rest within it"):
        with store.reading() as view:
            holder.append(derive(view["a"]))
    for n in range(100):
        store["a"] = bytes([n]) * 5000
    assert set(bytes(holder[0])) == {65}, "its memory stays as it was"
    holder.clear()
    store["large"] = bytes(64 << 20)  # the map can grow again


def test_an_array_that_outlives_the_block_is_an_error_and_no_crash(tmp_path):
    script = """
import gc, sys
import numpy as np
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.lmdb.view import View
from zarrstore.testing.interrupts import interrupted, places
from zarrstore.threads import Starter
store = LMDBStore(sys.argv[1])
store["a"] = b"A" * 50_000
try:
    with store.reading() as view:
        array = np.frombuffer(view["a"], "u1")[5:]
except BufferError as exc:
    print("let go of the rest" in str(exc))
for n in range(200):
    store["a"] = bytes([n]) * 50_000
print(set(array.tolist()) == {65})
try:
    store["large"] = bytes(64 << 20)
except BufferError as exc:
    print("still in use" in str(exc))
del array
gc.collect()
store["large"] = bytes(64 << 20)
print(len(store))
with store.reading() as view:
    try:
        array = np.frombuffer(view["a"], "u1")
        raise KeyError("the caller's own")
    except KeyError:
        pass
    del array
store.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a")], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "True", "2"]


def test_a_store_that_closes_under_an_array_ends_no_process(tmp_path):
    script = """
import sys
import numpy as np
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.stores.lmdb.view import View
from zarrstore.testing.interrupts import interrupted, places
from zarrstore.threads import Starter
store = LMDBStore(sys.argv[1])
store["a"] = b"A" * 50_000
try:
    with store.reading() as view:
        array = np.frombuffer(view["a"], "u1")
except BufferError:
    pass
try:
    store.close()
except BufferError:
    print("refused")
print(set(array.tolist()) == {65})
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a")], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused", "True"]


def test_what_must_be_alone_with_the_file_says_so_within_a_block(store):
    store["a"] = b"1"
    with store.reading() as view:
        for use in (store.close, store.compact, lambda: store.__setitem__("large", bytes(64 << 20))):
            with pytest.raises(LockedStoreError, match="do this after the block"):
                use()
        store["small"] = b"2"
        assert bytes(view["a"]) == b"1"
    store["large"] = bytes(64 << 20)
    assert sorted(store) == ["a", "large", "small"]


def test_another_thread_waits_for_the_end_of_the_block(store):
    store["a"] = b"1"
    order = []
    with store.reading() as view:
        thread = threading.Thread(
            target=lambda: (store.__setitem__("large", bytes(64 << 20)), order.append("map has grown"))
        )
        thread.start()
        time.sleep(0.2)
        order.append("block ends")
        assert bytes(view["a"]) == b"1"
    thread.join()
    assert order == ["block ends", "map has grown"]


def test_a_fork_within_a_block_leaves_the_parents_view_alone(store, monkeypatch):
    monkeypatch.setattr(_process, "FORK_WAITS", 20)
    store["a"] = b"A" * 9000
    start = time.monotonic()
    with store.reading() as view:
        value = view["a"]
        child = os.fork()
        if not child:
            try:
                with pytest.raises(LockedStoreError, match="forked"):
                    store["a"]
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert time.monotonic() - start < 10, "the fork waited for the block that it is in"
        for n in range(50):
            store["a"] = bytes([n]) * 9000
        assert bytes(value) == b"A" * 9000
    child = os.fork()
    if not child:
        os._exit(0 if store["a"] == b"\x31" * 9000 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_that_leaves_the_block_of_its_parent_frees_nothing_of_it(store):
    store["a"] = b"A" * 9000
    with store.reading() as view:
        value = view["a"]
        child = os.fork()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            for n in range(50):
                store["a"] = bytes([n]) * 9000
            assert bytes(value) == b"A" * 9000
            assert store.describe()["readers"] >= 1
    if not child:
        os._exit(0)


def _ends(act, point=None):
    """Assert that a call in another thread waits for nobody."""
    other = Starter(act, "other")
    other.start()
    other.thread.join(60)
    assert not other.thread.is_alive(), point


def test_an_interrupt_at_any_point_of_a_block_keeps_nobody_waiting(tmp_path):
    def read() -> None:
        with store.reading() as view:
            bytes(view["a"])

    for point in count():
        store = LMDBStore(tmp_path / "data.lmdb")
        store["a"] = b"1"
        came = interrupted(read, point)
        _ends(store.close, point)  # waits for every block
        if not came:
            break
    assert point > 1


def test_an_interrupt_at_the_entry_of_the_end_of_a_block_keeps_nobody_waiting(store):
    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is View.__exit__.__code__:
            sys.settrace(before)
            raise KeyboardInterrupt

    def read() -> None:
        with store.reading() as view:
            bytes(view["a"])

    store["a"] = b"1"
    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            read()
    finally:
        sys.settrace(before)
    del caught  # its frames hold the view
    gc.collect()
    _ends(store.close)


def test_an_interrupt_at_any_point_of_a_write_that_fails_keeps_nobody_waiting(tmp_path):
    def fill() -> None:
        with pytest.raises(OSError, match="is full"):
            store["large"] = bytes(2 << 20)

    store = LMDBStore(tmp_path / "data.lmdb", map_size=1 << 20)
    fill()
    for point in count():
        came = interrupted(fill, point)
        _ends(lambda: store.__setitem__("a", b"1"), point)
        if not came:
            break
    assert point > 1
    store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt of a finalizer is dropped
def test_an_interrupt_while_a_store_is_lost_keeps_nobody_waiting(tmp_path):
    for point in count():
        stores = [LMDBStore(tmp_path / "data.lmdb")]
        came = interrupted(stores.clear, point)
        _ends(lambda: LMDBStore(tmp_path / "data.lmdb").close(), point)
        if not came:
            break
    assert point > 1


def test_what_the_collector_finds_meanwhile_has_no_place_in_what_is_interrupted(tmp_path):
    def act() -> None:
        [[] for _ in range(5000)]  # enough for the collector to begin

    before = places(act)
    for number in range(20):
        lost = [LMDBStore(tmp_path / f"{number}")]
        lost.append(lost)
    del lost
    assert places(act) == before
