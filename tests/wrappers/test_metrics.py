from __future__ import annotations

import pickle
import threading

import pytest

from zarrstore import DictStore
from zarrstore.testing import FailingStore
from zarrstore.wrappers.metrics import MethodMetrics, MetricsStore


def without_seconds(metrics):
    return {
        name: (one.calls, one.keys, one.misses, one.errors, one.bytes_read, one.bytes_written)
        for name, one in metrics.items()
    }


def test_every_call_is_counted_with_its_bytes_and_misses():
    store = MetricsStore(DictStore({"a/0": b"12345", "a/1": b"123"}))
    assert store["a/0"] == b"12345"
    assert store.get("absent") is None
    assert "a/1" in store
    assert "absent" not in store
    assert store.getrange("a/0", 1, 3) == b"23"
    assert store.getsuffix("a/1", 2) == b"23"
    assert dict(store.getitems(["a/0", "a/1", "absent"])) == {"a/0": b"12345", "a/1": b"123"}
    store["b"] = b"1234567"
    store.update({"c": b"12", "d": b"3"})
    del store["b"]
    with pytest.raises(KeyError):
        del store["b"]
    store.delitems(["c", "d"])
    assert store.listdir("a") == ["0", "1"]
    assert sorted(iter(store)) == ["a/0", "a/1"]
    assert without_seconds(store.metrics()) == {
        "get": (2, 2, 1, 0, 5, 0),
        "contains": (2, 2, 1, 0, 0, 0),
        "get_range": (1, 1, 0, 0, 2, 0),
        "get_suffix": (1, 1, 0, 0, 2, 0),
        "get_many": (1, 3, 0, 0, 0, 0),
        "get_item": (3, 3, 1, 0, 8, 0),
        "set": (1, 1, 0, 0, 0, 7),
        "set_many": (1, 2, 0, 0, 0, 3),
        "delete": (2, 2, 1, 0, 0, 0),
        "delete_many": (1, 2, 0, 0, 0, 0),
        "listdir": (1, 2, 0, 0, 0, 0),
        "keys": (1, 2, 0, 0, 0, 0),
    }
    assert (store.reads, store.bytes_read, store.misses) == (7, 17, 2)
    assert (store.writes, store.bytes_written, store.keys_erased, store.errors) == (3, 10, 3, 0)


def test_a_failed_write_counts_as_an_error_and_no_bytes():
    store = MetricsStore(FailingStore(DictStore(), OSError(28, "full"), methods=["_set", "_get"]))
    for act in (lambda: store.__setitem__("a", b"123"), lambda: store["a"]):
        with pytest.raises(OSError, match="full"):
            act()
    assert (store.errors, store.bytes_written, store.misses) == (2, 0, 0)
    assert store.method("get") == MethodMetrics(1, 1, 0, 1, 0, 0, store.method("get").seconds)


def test_reset_forgets_everything():
    store = MetricsStore(DictStore({"a": b"1"}))
    store.pop("a")
    assert store.keys_erased == 1
    store.reset()
    assert store.metrics() == {}
    assert (store.reads, store.keys_erased, store.seconds) == (0, 0, 0)
    assert store.method("get") == MethodMetrics()


def test_seconds_are_those_of_the_store_and_not_of_the_reader(clock):
    class Slow(DictStore):
        def _get(self, key):
            clock.pass_seconds(0.5)
            return super()._get(key)

        def _keys(self, path):
            for key in super()._keys(path):
                clock.pass_seconds(0.25)
                yield key

    store = MetricsStore(Slow({"a": b"1", "b": b"2"}))
    keys = iter(store)
    next(keys)
    clock.pass_seconds(60)  # a reader that takes its time
    list(keys)
    assert store.method("keys").seconds == 0.5
    store["a"]
    assert store.method("get").seconds == 0.5


def test_a_listing_left_half_way_is_counted_too():
    store = MetricsStore(DictStore({"a": b"1", "b": b"2"}))
    assert store
    assert without_seconds(store.metrics()) == {"keys": (1, 1, 0, 0, 0, 0)}


def test_numbers_are_exact_under_threads_and_a_copy_begins_at_zero():
    store = MetricsStore(DictStore({"a": b"12"}))

    def work():
        for _ in range(500):
            store["a"]
            store.get("absent")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store.reads, store.bytes_read, store.misses) == (4000, 4000, 2000)
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.reads, copy["a"], copy.reads) == (0, b"12", 1)
