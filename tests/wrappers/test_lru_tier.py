"""The second tier: it outlives the process, keeps within its budget whoever dies, and never fails a read."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from zarrstore import DictStore
from zarrstore.errors import ReadOnlyError
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import CountingStore, FailingStore, StoreConformance
from zarrstore.wrappers.lru import LRUStoreCache, claims, entries
from zarrstore.wrappers.lru import tier as disk_tier
from zarrstore.wrappers.lru.tier import Tier
from zarrstore.wrappers.prefix import PrefixStore
from zarrstore.wrappers.readonly import ReadOnlyStore

fork = get_context("fork")


class TestCacheOnADisk(StoreConformance):
    def make_store(self, tmp_path):
        return LRUStoreCache(DictStore(), 10, cache=DirectoryStore(tmp_path / "tier"), cache_size=100_000)


def value(number):
    """Return a value that says which it is, of a size of its own."""
    return f"value {number} ".encode() * (1 + number % 40)


def filled(n):
    return {f"a/{number}": value(number) for number in range(n)}


def stored(folder):
    """Return the sizes of what stands in a tier's folder at one moment, by name; temporary files left out."""
    while True:
        before, after = _scan(folder), _scan(folder)
        # What is there, unchanged, before and after was there all at once.
        if before == after:
            return {name: size for name, (size, _) in before.items()}
        return {name: size for name, (size, at) in before.items() if after.get(name) == (size, at)}


def _scan(folder):
    found = {}
    place = Path(folder, "values")
    if place.is_dir():
        for entry in os.scandir(place):
            if not entry.name.startswith(".__zarrstore"):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                found[entry.name] = (status.st_size, status.st_mtime_ns)
    return found


def opened(inner, folder, size=None, **options):
    return LRUStoreCache(inner, 0, cache=DirectoryStore(folder), cache_size=size, **options)


# It outlives the process


def test_what_was_fetched_once_is_not_fetched_by_the_next_session(tmp_path):
    inner = CountingStore(filled(50))
    assert dict(opened(inner, tmp_path).getitems(list(filled(50)))) == filled(50)
    inner.reset()
    cache = opened(inner, tmp_path)
    assert dict(cache.getitems(list(filled(50)))) == filled(50)
    assert (cache["a/7"], cache.getrange("a/7", 2, 9), "a/7" in cache) == (value(7), value(7)[2:9], True)
    assert inner.calls == {}
    stats = cache.stats()
    assert (stats.fetches, stats.tier_hits, stats.tier_entries) == (0, 53, 50)
    assert stats.tier_size == sum(stored(tmp_path).values())


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.__setitem__("a/1", b"new"),
        lambda cache: cache.setitems({"a/1": b"new", "a/2": b"newer"}),
        lambda cache: cache.__delitem__("a/1"),
        lambda cache: cache.delitems(["a/1", "a/2"]),
        lambda cache: cache.rmdir("a"),
        lambda cache: cache.rename("a", "c"),
        lambda cache: cache.rename("b", "d"),
        lambda cache: cache.clear(),
    ],
    ids=["set", "setitems", "del", "delitems", "rmdir", "rename", "rename another", "clear"],
)
def test_what_was_written_does_not_come_back_in_the_next_session(tmp_path, write):
    inner = DictStore({**filled(5), "ab/1": b"beside", "b/" + "long" * 100: b"long", "a": b"at the path"})
    cache = opened(inner, tmp_path)
    assert dict(cache.items()) == dict(inner.items())
    write(cache)
    after = opened(inner, tmp_path)
    for key in {*filled(5), "ab/1", "b/" + "long" * 100, "a", "c/1", "d/" + "long" * 100}:
        assert after.get(key) == inner.get(key), key


def test_a_value_written_behind_is_seen_after_invalidate_in_the_next_session_too(tmp_path):
    inner = {"a": b"old"}
    cache = opened(inner, tmp_path)
    assert cache["a"] == b"old"
    inner["a"] = b"new"
    assert opened(inner, tmp_path)["a"] == b"old"
    cache.invalidate_values()
    assert stored(tmp_path) == {}
    assert opened(inner, tmp_path)["a"] == b"new"


def test_age_counts_across_sessions(tmp_path, monkeypatch, clock):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    inner = CountingStore({"a": b"old"})
    opened(inner, tmp_path)["a"]
    inner["a"] = b"new"
    monkeypatch.setattr(time, "time", lambda: now + 59)
    young = LRUStoreCache(inner, 100, cache=DirectoryStore(tmp_path), max_age=60)
    assert young["a"] == b"old"
    # In memory it is 59 seconds old from the start.
    assert young._values._kept["a"].born - clock.now == pytest.approx(-59, abs=0.001)
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert opened(inner, tmp_path, max_age=60)["a"] == b"new"
    monkeypatch.setattr(time, "time", lambda: now - 1000)  # a clock that was set back
    assert opened(inner, tmp_path, max_age=60)["a"] == b"new"


@pytest.mark.parametrize("key", ["~", "~x/~", "100%/%2F", "é" * 300, "a/" * 500 + "b", "x" * 5000, ".zarray", "A", "a"])
def test_every_key_is_kept(tmp_path, key):
    inner = CountingStore({key: b"1"})
    opened(inner, tmp_path)[key]
    assert opened(inner, tmp_path)[key] == b"1"
    assert inner.calls == {"_get": 1}


def test_two_stores_share_a_tier_by_prefix(tmp_path):
    tier = DirectoryStore(tmp_path)
    one, two = (LRUStoreCache({"a": name}, 0, cache=PrefixStore(tier, name.decode())) for name in (b"one", b"two"))
    assert (one["a"], two["a"], one["a"], two["a"]) == (b"one", b"two", b"one", b"two")
    assert one.stats().tier_errors == two.stats().tier_errors == 0


# Its budget


def test_the_budget_holds_across_two_reopenings_and_a_smaller_one(tmp_path):
    items = filled(300)
    for session, budget in enumerate([20_000, 20_000, 20_000, 5_000]):
        cache = opened(items, tmp_path, budget)
        assert sum(stored(tmp_path).values()) <= budget
        for key in random.Random(session).sample(list(items), 200):
            assert cache[key] == items[key]
            assert sum(stored(tmp_path).values()) <= budget
        assert cache.stats().tier_evictions > 0
        assert sum(stored(tmp_path).values()) > budget / 2
        assert cache.stats().tier_errors == 0


def test_the_least_recently_used_goes_first(tmp_path):
    items = {f"a/{number}": bytes(1000) for number in range(40)}
    inner = CountingStore(items)
    cache = opened(inner, tmp_path, 20_000)
    for key in list(items)[:12]:
        cache[key]
    for key in list(items)[12:]:
        cache[key], cache["a/3"]
    assert [key for _, key in inner.log] == list(items)
    cache["a/4"]
    assert inner.log[-1] == ("_get", "a/4")


def test_an_oversized_value_leaves_nothing_and_a_full_batch_fits(tmp_path):
    cache = opened({"large": bytes(5000), "small": bytes(50)}, tmp_path, 1000)
    assert (cache["large"], cache["large"], cache["small"]) == (bytes(5000), bytes(5000), bytes(50))
    assert list(stored(tmp_path)) == ["small"]


def _read_for_ever(folder, budget, seed, ready):
    cache = opened(filled(300), folder, budget)
    chance = random.Random(seed)
    ready.set()
    while True:
        number = chance.randrange(300)
        if cache[f"a/{number}"] != value(number):
            os._exit(3)
        if number % 7 == 0:
            cache[f"a/{number}"] = value(number)


def test_several_processes_share_the_budget_and_kills_leave_nothing_untracked(tmp_path):
    budget = 30_000
    for round_ in range(3):
        ready = [fork.Event() for _ in range(3)]
        workers = [
            fork.Process(target=_read_for_ever, args=(tmp_path, budget, 10 * round_ + seed, ready[seed]))
            for seed in range(3)
        ]
        for worker in workers:
            worker.start()
        try:
            assert all(event.wait(20) for event in ready)
            most = looks = 0
            while looks < 100 or most <= budget / 2:
                most, looks = max(most, sum(stored(tmp_path).values())), looks + 1
                assert most <= budget
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
        assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 3
        assert sum(stored(tmp_path).values()) <= budget
    cache = opened(filled(300), tmp_path, budget)
    assert cache.stats().tier_size == sum(stored(tmp_path).values())
    assert {key: cache[key] for key in filled(300)} == filled(300)
    assert cache.stats().tier_errors == 0
    assert sum(stored(tmp_path).values()) <= budget
    cache.close()
    assert os.listdir(tmp_path / "claims") == [] if (tmp_path / "claims").exists() else True


def test_a_pickled_and_a_forked_cache_claim_for_themselves(tmp_path):
    cache = opened(filled(20), tmp_path, 3000)
    copy = pickle.loads(pickle.dumps(cache))
    session = cache._tier.claim.session
    answers = fork.Queue()

    def child():
        answers.put((cache._tier.claim.session, cache._tier._room, cache["a/3"] == value(3)))

    cache["a/1"]
    process = fork.Process(target=child)
    process.start()
    other, room, right = answers.get(timeout=20)
    process.join(20)
    assert len({session, copy._tier.claim.session, other}) == 3
    assert (room, right) == (0, True)


class SharedDict(DictStore):
    """A DictStore that says it is safe for processes, as a disk is."""

    capabilities = replace(DictStore.capabilities, process_safe=True)


def test_a_claim_counts_until_it_is_void(monkeypatch):
    store, big = SharedDict(), bytes(100)
    now = time.time()
    store["claims/otherhost-1-7-abc"] = f"9000 {now}".encode()
    store["claims/broken"] = b"?"
    store[f"claims/{claims.host()}-{_dead_process()}-7-abc"] = f"9999 {now}".encode()
    tier = Tier(store, 10_000, None)
    for number in range(50):
        tier.put(f"{number}", big, 0.0)
    # The dead and the broken claim are gone; the one of the other machine leaves 1000 bytes.
    assert set(store.listdir("claims")) == {"otherhost-1-7-abc", tier.claim.session}
    assert 0 < sum(map(len, map(store.__getitem__, store.keys_below("values")))) <= 1000
    assert tier.errors == 0
    monkeypatch.setattr(time, "time", lambda: now + 2 * claims.LIFETIME)
    for number in range(50):
        tier.put(f"{number}", big, 0.0)
    assert len(tier) == 50
    assert set(store.listdir("claims")) == {tier.claim.session}
    tier.close()
    assert store.listdir("claims") == []


def _dead_process():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_one_claim_is_good_for_many_entries():
    store = CountingStore(SharedDict())
    tier = Tier(store, 1_000_000, None)
    for number in range(1000):
        tier.put(f"{number}", bytes(100), 0.0)
    assert store.calls["_listdir"] <= 2 * 5
    assert len(tier) == 1000


# Nothing that goes wrong with it fails a read


def _damage(folder, how):
    files = sorted(Path(folder, "values").iterdir())
    contents = [file.read_bytes() for file in files]
    for number, file in enumerate(files):
        data = bytearray(contents[number])
        if how == "bit":
            data[random.Random(number).randrange(len(data))] ^= 1 << random.Random(-number).randrange(8)
        elif how == "cut":
            del data[random.Random(number).randrange(len(data)) :]
        elif how == "foreign":
            data = bytearray(b"what is this" * 10)
        elif how == "another's":
            data = bytearray(contents[number - 1])
        file.write_bytes(data)


@pytest.mark.parametrize("how", ["bit", "cut", "foreign", "another's"])
def test_a_damaged_entry_is_counted_passed_by_and_replaced(tmp_path, how):
    items = filled(60)
    assert dict(opened(items, tmp_path).getitems(list(items))) == items
    _damage(tmp_path, how)
    inner = CountingStore(items)
    cache = opened(inner, tmp_path)
    assert {key: cache[key] for key in items} == items
    assert (cache.stats().tier_errors, inner.calls) == (60, {"_get": 60})
    inner.reset()
    assert dict(opened(inner, tmp_path).getitems(list(items))) == items
    assert inner.calls == {}


def test_a_head_that_lies_is_passed_by():
    entry = entries.pack("key", "values/key", b"value", 1.0)
    assert entries.unpack("key", "values/key", entry) == (b"value", 1.0)
    for at in range(len(entry)):
        for bit in range(8):
            data = bytearray(entry)
            data[at] ^= 1 << bit
            assert entries.unpack("key", "values/key", bytes(data)) is None
    for cut in range(len(entry)):
        assert entries.unpack("key", "values/key", entry[:cut]) is None
    assert entries.unpack("other", "values/other", entry) is None
    assert entries.unpack("key", "parts/key/0-5", entry) is None


@pytest.mark.parametrize(
    "methods", [["_get"], ["_set"], ["_listdir"], ["_nbytes"], ["_get", "_set", "_listdir", "_delete", "_nbytes"]]
)
@pytest.mark.parametrize("cache_size", [None, 5_000])
def test_a_tier_that_fails_is_counted_and_every_read_is_right(methods, cache_size):
    items = filled(40)
    tier = FailingStore(SharedDict(), OSError(5, "Input/output error"), methods=methods)
    cache = LRUStoreCache(items, 0, cache=tier, cache_size=cache_size)
    for _ in range(2):
        assert {key: cache[key] for key in items} == items
        assert dict(cache.getitems([*items, "none"])) == items
        assert [key in cache for key in (*items, "none")] == [True] * 40 + [False]
    assert cache.stats().tier_errors == tier.failures
    assert tier.failures > 0 or methods == ["_nbytes"]


def test_a_full_tier_is_counted_and_every_read_is_right():
    items = filled(40)
    tier = FailingStore(DictStore(), OSError(28, "No space left on device"), methods=["_set"], after=10)
    cache = LRUStoreCache(items, 0, cache=tier)
    for _ in range(2):
        assert {key: cache[key] for key in items} == items
    assert (cache.stats().tier_entries, cache.stats().tier_errors, cache.stats().tier_hits) == (10, 60, 10)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root: it mounts a small tmpfs")
def test_a_really_full_disk_is_counted_and_every_read_is_right(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs leave to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        items = {f"a/{number}": random.Random(number).randbytes(50_000) for number in range(150)}
        cache = opened(items, place)
        for _ in range(2):
            assert {key: cache[key] for key in items} == items
            assert dict(cache.getitems(list(items))) == items
        stats = cache.stats()
        assert stats.tier_errors > 0
        assert stats.tier_hits > 0
        cache["a/0"] = b"new"  # which needs no room
        again = opened(items, place, 2_000_000)
        assert sum(stored(place).values()) <= 2_000_000
        assert {key: again[key] for key in items} == items
        assert again.stats().tier_errors == 0
        assert sum(stored(place).values()) <= 2_000_000
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.__setitem__("a/1", b"new"),
        lambda cache: cache.setitems({"a/1": b"new"}),
        lambda cache: cache.__delitem__("a/1"),
        lambda cache: cache.delitems(["a/1"]),
        lambda cache: cache.rmdir("a"),
        lambda cache: cache.clear(),
    ],
    ids=["set", "setitems", "del", "delitems", "rmdir", "clear"],
)
def test_a_write_fails_before_it_began_if_the_tier_cannot_forget_the_old_value(write):
    below = DictStore(filled(3))
    tier = FailingStore(DictStore(), OSError(30, "Read-only file system"), methods=["_delete"], times=1)
    cache = LRUStoreCache(below, None, cache=tier)
    cache["a/1"]
    with pytest.raises(OSError, match="Read-only file system") as caught:
        write(cache)
    assert "could not forget the old value; nothing was written" in caught.value.__notes__[0]
    assert dict(below.items()) == filled(3)
    write(cache)
    assert cache.get("a/1") == below.get("a/1") != value(1)


def test_a_tier_that_is_read_only_is_read_and_hinders_only_writes_of_what_it_holds():
    tier = DictStore()
    items = DictStore(filled(3))
    LRUStoreCache(items, 0, cache=tier)["a/1"]
    inner = CountingStore(items)
    cache = LRUStoreCache(inner, 0, cache=ReadOnlyStore(tier), cache_size=1000)
    assert (cache["a/1"], cache["a/2"], inner.calls) == (value(1), value(2), Counter(_get=1))
    cache["a/2"] = b"new"
    with pytest.raises(ReadOnlyError):
        cache["a/1"] = b"new"
    assert (items["a/1"], items["a/2"], cache.stats().tier_errors) == (value(1), b"new", 1)


def test_nothing_of_another_kind_in_the_tier_is_touched_by_opening_it(tmp_path):
    store = DirectoryStore(tmp_path)
    store["mine/notes"] = b"keep"
    cache = LRUStoreCache(filled(100), 0, cache=store, cache_size=500)
    cache.prefetch("a")
    cache.invalidate()
    assert store["mine/notes"] == b"keep"


def test_the_budget_holds_while_many_threads_add(monkeypatch):
    """What one thread is about to add counts when another one claims."""
    most = []

    class Dawdling(SharedDict):
        def _set(self, key, value):
            time.sleep(0.001 if key.startswith("values") else 0)
            super()._set(key, value)
            most.append(sum(len(entry) for key, entry in list(self.root.items()) if key.startswith("values")))

    monkeypatch.setattr(disk_tier, "_SHARE", 1000)  # a claim for every entry
    tier = Tier(Dawdling(), 1000, None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tier.put(f"{number}", bytes(100), 0.0), range(200)))
    assert 500 < max(most) <= 1000
    assert (tier.errors, tier._pending) == (0, 0)


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_what_another_process_adds_while_one_claims_is_counted(moment):
    """The other one has claimed, and now adds and withdraws between two steps of this claim: see `claims`."""
    listings = []

    class Hooked(SharedDict):
        def _listdir(self, path):
            if tier is not None:
                listings.append(path)
                if len(listings) == moment:
                    store._set("values/other", bytes(600))
                    other.close()
            return super()._listdir(path)

    tier, store = None, Hooked()
    other = Tier(store, 1000, None)
    assert other._reserve(600)
    tier = Tier(store, 1000, None)
    tier.put("mine", bytes(600), 0.0)
    assert len(listings) >= 2
    assert sum(len(entry) for key, entry in store.items() if key.startswith("values")) <= 1000
