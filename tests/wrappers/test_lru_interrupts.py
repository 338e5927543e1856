"""Whatever stops a reader or a writer of a cache, and wherever: nothing stays in flight, and the size stays true."""

from __future__ import annotations

import gc
import os
import pickle
import random
import signal
import threading
import time
from dataclasses import replace

import pytest

from zarrstore import DictStore
from zarrstore.testing import SlowStore
from zarrstore.testing.interrupts import interrupted, places
from zarrstore.wrappers import lru
from zarrstore.wrappers.lru import LRUStoreCache

FOLDER = os.path.dirname(lru.__file__)


class RangedStore(DictStore):
    capabilities = replace(DictStore.capabilities, ranged=True)


def settled(cache):
    """Check that nothing is in flight and the books are right."""
    assert not cache._fetcher.lock.locked()
    cache.stats()  # which is exact, also after an interrupt
    flying = cache._fetcher.in_flight
    while flying._abandoned:
        flying.leave(flying._abandoned.popleft())
    assert (flying._fetches, flying._listings, flying._writes, flying._trees, flying._copies) == ({}, {}, {}, [], {})
    values = cache._values
    assert values.size == values.real_size()
    assert cache.max_size is None or values.size <= cache.max_size
    for key, entries in values._parts.items():
        assert all(values._kept_parts.get((key, entry.start)) is entry for entry in entries)
    for table in (cache._memory.missing, cache._memory.sizes, cache._memory.listings.below):
        before = table._weight
        table.recount()
        assert table._weight == before


ACTS = {
    "get": lambda c: c["a/1"],
    "get cold": lambda c: (c.invalidate_values(), c["a/1"]),
    "missing": lambda c: c.get("none"),
    "in": lambda c: "a/2" in c,
    "range": lambda c: (c.getrange("a/2", 1, 4), c.getrange("a/2", 4, 6), c.getsuffix("a/2", 2)),
    "ranges": lambda c: c.getranges("a/3", [(0, 2), (4, None)]),
    "batch": lambda c: dict(c.getitems([f"a/{n}" for n in range(6)])),
    "set": lambda c: c.__setitem__("a/1", b"new value"),
    "setitems": lambda c: c.setitems({"a/1": b"x", "a/9": b"y"}),
    "delete": lambda c: c.__delitem__("a/4"),
    "delitems": lambda c: c.delitems(["a/4", "a/5"]),
    "rmdir": lambda c: c.rmdir("a"),
    "rename": lambda c: c.rename("a", "b"),
    "listdir": lambda c: c.listdir("a"),
    "keys": lambda c: list(c),
    "invalidate": lambda c: c.invalidate(),
    "prefetch": lambda c: c.prefetch("a"),
}


def make(tier):
    items = {f"a/{n}": f"value {n}".encode() for n in range(6)}
    held = {"cache": DictStore(), "cache_size": 600} if tier else {}
    return LRUStoreCache(RangedStore(items), 30, **held)


@pytest.mark.parametrize("tier", [False, True])
@pytest.mark.parametrize("name", ACTS)
def test_an_interrupt_at_any_instruction_leaves_nothing_in_flight_and_a_true_size(name, tier):
    count = places_of(name, tier)
    for at in range(0, count, max(1, count // 20)):
        assert play(name, tier, at) or at > count - 5


def places_of(name, tier):
    cache = make(tier)
    cache["a/0"], cache["a/5"]
    return places(lambda: ACTS[name](cache), FOLDER)


def play(name, tier, at):
    """Interrupt one act, and check what is left of it; return whether it was interrupted."""
    cache = make(tier)
    cache["a/0"], cache["a/5"]
    there = interrupted(lambda: ACTS[name](cache), at, FOLDER)
    settled(cache)
    # And the cache works on, for another thread too.
    found = []
    thread = threading.Thread(target=lambda: found.append(dict(cache.items())), daemon=True)
    thread.start()
    thread.join(10)
    assert found == [dict(cache.inner.items())], at
    settled(cache)
    return there


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tier", [False, True])
@pytest.mark.parametrize("name", ACTS)
def test_an_interrupt_at_every_instruction_leaves_nothing_in_flight_and_a_true_size(name, tier):
    for at in range(places_of(name, tier)):
        play(name, tier, at)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_signals_at_random_moments_leave_nothing_in_flight_and_a_true_size():
    chance = random.Random(7)
    cache = LRUStoreCache(SlowStore(RangedStore({f"a/{n}": bytes([n]) * n for n in range(50)}), 0), 300)
    stop, armed = threading.Event(), threading.Event()
    main = threading.main_thread().ident
    wrong = []

    def read():
        rng = random.Random(8)
        while not stop.is_set():
            n = rng.randrange(50)
            if cache.get(f"a/{n}") not in (bytes([n]) * n, None):
                wrong.append(n)

    def send():
        rng = random.Random(9)
        while not stop.is_set():
            if armed.wait(0.1):
                time.sleep(rng.random() * 0.002)
                if armed.is_set():
                    armed.clear()
                    signal.pthread_kill(main, signal.SIGUSR1)

    handled = []

    def interrupt(*_):
        handled.append(1)
        raise KeyboardInterrupt

    def work():
        # Not for ever: Python drops what is raised in the callback of a weak reference.
        before = len(handled)
        while len(handled) == before:
            n = chance.randrange(50)
            act = chance.randrange(8)
            if act < 3:
                cache.get(f"a/{n}")
            elif act < 5:
                cache[f"a/{n}"] = bytes([n]) * n
            elif act == 5:
                cache.getrange(f"a/{n}", 0, 5)
            elif act == 6:
                dict(cache.getitems([f"a/{m}" for m in range(n, n + 5)]))
            else:
                cache.listdir("a")

    before = signal.signal(signal.SIGUSR1, interrupt)
    threads = [threading.Thread(target=target, daemon=True) for target in (read, send)]
    for thread in threads:
        thread.start()
    interrupts = 0
    try:
        for _ in range(300):
            try:
                armed.set()
                work()
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
        signal.signal(signal.SIGUSR1, before)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert interrupts > 200
    settled(cache)


def test_a_half_read_listing_may_be_collected_by_a_thread_that_holds_the_lock():
    cache = LRUStoreCache({f"a/{n}": b"" for n in range(10)}, None)

    class Cycle:
        pass

    def half_read():
        cycle = Cycle()
        cycle.me, cycle.listing = cycle, iter(cache.keys_below("a"))
        next(cycle.listing)

    def collect():
        half_read()
        with cache._fetcher.lock:
            gc.collect()

    gc.disable()
    try:
        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "the collector waits for the lock that its own thread holds"
    finally:
        gc.enable()
    assert sorted(cache) == sorted(cache.inner)
    settled(cache)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_from_several_threads_leave_children_whose_caches_work():
    cache = LRUStoreCache(
        SlowStore(RangedStore({str(n): bytes(10) for n in range(200)}), 0.0001), 500, cache=DictStore()
    )
    stop = threading.Event()

    def work(seed):
        rng = random.Random(seed)
        while not stop.is_set():
            key = str(rng.randrange(200))
            rng.choice([cache.get, cache.__contains__, lambda k: cache.__setitem__(k, bytes(10))])(key)

    workers = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(3)]
    for worker in workers:
        worker.start()
    codes = []

    def fork():
        for _ in range(4):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                right = all(cache[str(n)] == bytes(10) for n in range(200))
                right = right and cache._values.size == cache._values.real_size() <= 500
                os._exit(0 if right else 1)
            codes.append(os.waitpid(child, 0)[1])

    forkers = [threading.Thread(target=fork) for _ in range(2)]
    for forker in forkers:
        forker.start()
    for forker in forkers:
        forker.join(60)
    stop.set()
    for worker in workers:
        worker.join(10)
    assert codes == [0] * 8


def test_a_cache_is_pickled_while_threads_use_it():
    cache = LRUStoreCache(DictStore({str(n): bytes(10) for n in range(50)}), 100)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for n in range(50):
                cache.get(str(n))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    copies = [pickle.loads(pickle.dumps(cache)) for _ in range(20)]
    stop.set()
    for thread in threads:
        thread.join()
    assert all(copy["7"] == bytes(10) and copy.max_size == 100 for copy in copies)


def test_a_tuple_is_no_key_of_a_part():
    cache = LRUStoreCache(RangedStore({"a": b"0123"}), None)
    assert cache.getrange("a", 1, 2) == b"1"
    for key in (("a", 1), ("a", -1), ("a", ("range", 1, 2))):
        assert key not in cache
        with pytest.raises(KeyError):
            cache[key]
