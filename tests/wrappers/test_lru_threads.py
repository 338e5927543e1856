"""What eight threads see of a cache is what one after the other could have seen, and its size is true meanwhile."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tests.support.histories import play, restless, violations
from zarrstore import DictStore
from zarrstore.testing import SlowStore
from zarrstore.wrappers.lru import LRUStoreCache

KEYS = [f"{directory}/{number}" for directory in "ab" for number in range(4)]


class Jittery(SlowStore):
    """A store whose answers come late and out of order: before and after it looked."""

    def _before(self, method, *args):
        if os.urandom(1)[0] < 40:
            time.sleep(self.delay)

    def _get(self, key):
        value = super()._get(key)
        self._before("after")
        return value


def roomy():
    return LRUStoreCache(DictStore(), None)


CACHES = {
    "nothing held": lambda: LRUStoreCache(DictStore(), 0),
    "one value held": lambda: LRUStoreCache(DictStore(), 70),
    "some held": lambda: LRUStoreCache(DictStore(), 300),
    "all held": roomy,
    "soon too old": lambda: LRUStoreCache(DictStore(), 300, max_age=0.001, missing_ttl=0.001),
    "second tier": lambda: LRUStoreCache(DictStore(), 70, cache=DictStore(), cache_size=800),
    "two caches": lambda: LRUStoreCache(LRUStoreCache(DictStore(), 300), 70),
}
SLOW = {
    "nothing held": lambda: LRUStoreCache(Jittery(DictStore(), 0.0005), 0),
    "some held": lambda: LRUStoreCache(Jittery(DictStore(), 0.0005), 300),
    "all held": lambda: LRUStoreCache(Jittery(DictStore(), 0.0005), None),
    "threads below": lambda: LRUStoreCache(Jittery(DictStore(), 0.0005, concurrent=False), 300),
    "slow tier": lambda: LRUStoreCache(Jittery(DictStore(), 0.0005), 0, cache=Jittery(DictStore(), 0.0005)),
}


def disturb(cache, rng):
    forget = [cache.invalidate, cache.invalidate_keys, cache.invalidate_values]
    rng.choice([*forget, cache.stats, cache.listdir, lambda: list(cache)])()


def check(make, ops, seed=0, **options):
    """Play, watch the size all the while, and look for what nobody could have seen."""
    cache = make()
    wrong, done = [], threading.Event()

    def watch():
        values = cache._values
        while not done.is_set():
            with cache._fetcher.lock:
                if values.size != values.real_size() or (cache.max_size is not None and values.size > cache.max_size):
                    wrong.append((values.size, values.real_size()))
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with restless():
            history = play(cache, ops=ops, keys=KEYS, seed=seed, extra=disturb, **options)
    finally:
        done.set()
        watcher.join()
    assert violations(history) == []
    assert wrong == []
    flying = cache._fetcher.in_flight
    assert (flying._fetches, flying._listings, flying._writes, flying._trees, flying._copies) == ({}, {}, {}, [], {})
    assert cache._values._parts.keys() <= set(cache._values.keys())
    return cache


@pytest.mark.parametrize("size", CACHES)
def test_a_cache_is_linearizable_in_every_size(size):
    check(CACHES[size], 15_000)


@pytest.mark.parametrize("size", SLOW)
def test_a_cache_over_a_slow_store_is_linearizable(size):
    check(SLOW[size], 2_500)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", CACHES)
def test_a_million_operations_are_linearizable(size):
    for seed in range(10):
        check(CACHES[size], 100_000, seed)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("size", SLOW)
def test_a_hundred_thousand_operations_over_a_slow_store_are_linearizable(size):
    for seed in range(10):
        check(SLOW[size], 10_000, seed)


def test_threads_that_only_hit_count_every_hit():
    cache = LRUStoreCache(dict.fromkeys(KEYS, b"x"), None)
    cache.prefetch(KEYS)

    def read():
        for _ in range(2_000):
            for key in KEYS:
                assert cache[key] == b"x"

    with restless():
        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (cache.hits, cache.misses) == (8 * 2_000 * len(KEYS), len(KEYS))
