"""Parts of values in the second tier: kept, joined, counted, forgotten, judged."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import peers, world
from tests.support.cases import each_of
from zarrstore import DictStore
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import CountingStore
from zarrstore.wrappers.lru import LRUStoreCache
from zarrstore.wrappers.lru.entries import Piece, key_of, name_of, pack, unpack
from zarrstore.wrappers.lru.questions import Range, Suffix
from zarrstore.wrappers.lru.tier import Tier

VALUE = bytes(range(200)) * 50


class RangedStore(DictStore):
    capabilities = replace(DictStore.capabilities, ranged=True)


def remote():
    return CountingStore(RangedStore({"c/0": VALUE, "é/" + "x" * 300: VALUE}))


def files(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in Path(folder).rglob("*")
        if path.is_file() and ".__zarrstore" not in path.name and path.parts[-2] != "claims"
    }


@pytest.mark.parametrize("key", ["c/0", "é/" + "x" * 300])
@pytest.mark.parametrize("max_size", [0, 10**9])
def test_what_one_process_read_in_parts_the_next_one_reads_from_the_tier(key, max_size, tmp_path):
    def ask(cache):
        return [
            cache.getsuffix(key, 40),
            cache.getrange(key, 0, 1000),
            cache.getrange(key, 1000, 3000),
            cache.getrange(key, 500, 2500),  # over the seam of two parts
            *cache.getranges(key, [(9000, 9100), (100, 200), (9900, None), (9050, 20_000)]),
            cache.getsuffix(key, 7),
        ]

    inner = remote()
    expected = ask(inner)
    inner.reset()
    assert ask(LRUStoreCache(inner, max_size, cache=DirectoryStore(tmp_path))) == expected
    assert inner.reads > 0
    again = remote()
    cache = LRUStoreCache(again, max_size, cache=DirectoryStore(tmp_path), cache_size=10**9)
    assert ask(cache) == expected
    assert again.calls == {}
    assert cache.stats().tier_size == sum(files(tmp_path).values())
    assert cache.stats().tier_errors == 0


def test_a_process_that_opened_before_finds_what_another_one_added_since(tmp_path):
    inner = remote()
    early = LRUStoreCache(inner, 0, cache=DirectoryStore(tmp_path))
    LRUStoreCache(remote(), 0, cache=DirectoryStore(tmp_path)).getrange("c/0", 10, 50)
    assert early.getrange("c/0", 20, 30) == VALUE[20:30]
    assert inner.calls == {}
    early["c/0"] = b"new"
    assert LRUStoreCache(inner, 0, cache=DirectoryStore(tmp_path)).getrange("c/0", 0, 9) == b"new"


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.__setitem__("c/0", b"new"),
        lambda cache: cache.setitems({"c/0": b"new"}),
        lambda cache: cache.__delitem__("c/0"),
        lambda cache: cache.delitems(["c/0"]),
        lambda cache: cache.rmdir("c"),
        lambda cache: cache.rename("c", "d"),
        lambda cache: cache.clear(),
        lambda cache: (cache.inner.__setitem__("c/0", b"new"), cache.invalidate_values()),
    ],
    ids=["set", "setitems", "del", "delitems", "rmdir", "rename", "clear", "invalidate"],
)
@pytest.mark.parametrize("shared", [True, False])
def test_parts_of_what_was_written_do_not_come_back(write, shared, tmp_path):
    tier = DirectoryStore(tmp_path) if shared else DictStore()
    inner = RangedStore({"c/0": VALUE, "e/0": VALUE})
    cache = LRUStoreCache(inner, 100, cache=tier)
    cache.getrange("c/0", 0, 50), cache.getsuffix("c/0", 20), cache.getranges("c/0", [(70, 90)])
    write(cache)
    for opened in (cache, LRUStoreCache(inner, 100, cache=tier)):
        for ask in (lambda s: s.getrange("c/0", 0, 50), lambda s: s.getsuffix("c/0", 20)):
            try:
                expected = ask(inner)
            except KeyError:
                with pytest.raises(KeyError):
                    ask(opened)
            else:
                assert ask(opened) == expected


@settings(max_examples=settings.default.max_examples)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["range", "range", "open", "suffix", "ranges", "get", "set", "reopen"]),
            st.integers(0, 12_000),
            st.integers(0, 4000),
        ),
        max_size=25,
    ),
    max_size=st.sampled_from([0, 500, 5000, None]),
    budget=st.sampled_from([2_000, 20_000, None]),
)
def test_any_order_of_parts_gives_what_the_store_gives(steps, max_size, budget):
    inner, tier = RangedStore({"c/0": VALUE}), DictStore()
    cache = LRUStoreCache(inner, max_size, cache=tier, cache_size=budget)
    for act, start, length in steps:
        if act == "range":
            got, want = (store.getrange("c/0", start, start + length) for store in (cache, inner))
        elif act == "open":
            got, want = (store.getrange("c/0", start) for store in (cache, inner))
        elif act == "suffix":
            got, want = (store.getsuffix("c/0", start) for store in (cache, inner))
        elif act == "ranges":
            spans = [(start, start + length), (start // 2, None), (0, length)]
            got, want = (store.getranges("c/0", spans) for store in (cache, inner))
        elif act == "get":
            got, want = cache["c/0"], inner["c/0"]
        elif act == "set":
            cache["c/0"] = VALUE[start : start + length + 1] or b"x"
            got = want = None
        else:
            cache = LRUStoreCache(inner, max_size, cache=tier, cache_size=budget)
            got = want = None
        assert got == want
        assert budget is None or sum(map(len, tier.values())) <= budget
        assert cache._values.size == cache._values.real_size()
        assert cache.stats().tier_size == sum(map(len, tier.values()))
    assert cache.stats().tier_errors == 0


def _read_for_ever(folder, budget, seed, ready):
    import random

    cache = LRUStoreCache(remote(), 0, cache=DirectoryStore(folder), cache_size=budget)
    chance = random.Random(seed)
    ready.set()
    while True:
        start, length = chance.randrange(9000), chance.randrange(1, 900)
        if cache.getrange("c/0", start, start + length) != VALUE[start : start + length]:
            os._exit(3)


def test_three_processes_that_read_parts_keep_one_budget_and_kills_leave_nothing_uncounted(tmp_path):
    fork, budget = get_context("fork"), 20_000
    ready = [fork.Event() for _ in range(3)]
    workers = [fork.Process(target=_read_for_ever, args=(tmp_path, budget, n, ready[n])) for n in range(3)]
    for worker in workers:
        worker.start()
    try:
        assert all(event.wait(20) for event in ready)
        most = looks = 0
        while looks < 100 or most <= budget / 3:
            try:
                before, after = files(tmp_path), files(tmp_path)
            except FileNotFoundError:
                continue
            most = max(most, sum(size for name, size in before.items() if after.get(name) == size))
            looks += 1
            assert most <= budget
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 3
    cache = LRUStoreCache(remote(), 0, cache=DirectoryStore(tmp_path), cache_size=budget)
    assert cache.stats().tier_size == sum(files(tmp_path).values()) <= budget
    assert cache.getrange("c/0", 5, 5000) == VALUE[5:5000]


def test_a_damaged_part_is_counted_and_read_below(tmp_path):
    LRUStoreCache(remote(), 0, cache=DirectoryStore(tmp_path)).getrange("c/0", 0, 100)
    (path,) = (tmp_path / "parts").rglob("0-100")
    for damage in (b"", b"what is this", path.read_bytes()[:-1], path.read_bytes()[:-1] + b"\0"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damage)
        inner = remote()
        cache = LRUStoreCache(inner, 0, cache=DirectoryStore(tmp_path))
        assert cache.getrange("c/0", 0, 100) == VALUE[:100]
        assert (cache.stats().tier_errors, inner.calls["_get_range"]) == (1, 1)


def test_a_part_moved_to_another_place_is_not_used():
    tier = DictStore()
    LRUStoreCache(remote(), 0, cache=tier).getrange("c/0", 0, 100)
    (place,) = tier
    tier[place.replace("0-100", "50-100")] = tier[place]
    assert LRUStoreCache(remote(), 0, cache=tier).getrange("c/0", 100, 140) == VALUE[100:140]
    assert unpack("c/0", place, pack("c/0", place, b"1", 1.0)) == (b"1", 1.0)
    assert unpack("c/1", place, pack("c/0", place, b"1", 1.0)) is None


# Names that are read back


@each_of(
    "name",
    ["..%2Fx", "a%2F..%2Fb", "%2Fetc", ".", "..", "a%00", "~", "~abc", "%7E%2F..", "a%2F", "C:", "a%2f.."],
)
def test_a_name_that_stands_for_no_key_is_none_of_ours(name):
    key = key_of(name)
    assert key is None or name_of(key) == name
    assert key is None or ".." not in key.split("/")


@pytest.mark.parametrize("key", ["a", "a/0.0", "~", "~x", "100%/%2F", "é" * 300, "x" * 5000])
def test_a_name_comes_back_as_its_key(key):
    assert key_of(name_of(key)) in (key, "")


@each_of(
    "name",
    ["", "1", "-1-2", "1-2-3", "01-2", "1-02", "tail-3-end", "tail", "1-2-END", "٣-٤", "1" * 30 + "-2", "../1-2"],
)
def test_a_name_that_is_no_piece_is_none_of_ours(name):
    assert Piece.parse(name) is None


def test_forged_names_in_a_tier_are_neither_used_counted_nor_removed():
    forged = [
        "values/..%2Fx",
        "values/a%2F..%2Fb",
        "parts/..%2Fx/0-5",
        "parts/c%2F0/x",
        "parts/c%2F0/0-5/more",
        "parts/c%2F0/1111111111111111111111111111-5",
        "claims/x",
        "claims/h-99999999999999999999-7-x",
        "claims/--1-x",
        "claims/h-0-7-x",
    ]
    tier = DictStore(dict.fromkeys(forged, b"9" * 50))
    inner = RangedStore({"c/0": VALUE})
    cache = LRUStoreCache(inner, 0, cache=tier, cache_size=1000)
    assert cache.getrange("c/0", 0, 5) == VALUE[:5]
    assert cache.stats().tier_entries == 1
    cache["c/0"] = b"new"
    assert cache.getrange("c/0", 0, 5) == b"new"
    cache.invalidate()
    assert {name for name in forged if name.startswith(("values", "parts/.."))} <= set(tier)
    assert cache.stats().tier_errors == 0


_ESCAPE = """
    import json, os
    from dataclasses import replace
    from tests.support import world
    from zarrstore import DictStore, DirectoryStore
    from zarrstore.wrappers.lru import LRUStoreCache

    world.require_inside()
    os.makedirs("outer/tier/values")
    os.makedirs("outer/tier/parts")
    open("outer/x", "w").write("precious")
    for name in ("..%2Fx", "..%2F..%2Fx", "%2Fetc%2Fpasswd"):
        open("outer/tier/values/" + name, "w").write("forged")
        os.makedirs("outer/tier/parts/" + name)
        open("outer/tier/parts/" + name + "/0-5", "w").write("forged")
    with world.EscapeSentinel("outer/tier", also=["/proc"]) as sentinel:
        cache = LRUStoreCache({"a": b"1" * 900}, 0, cache=DirectoryStore(os.getcwd()), cache_size=1000)
        cache["a"]
        cache["b"] = b"2"
        cache.rmdir("x")
        cache.invalidate()
        cache.clear()
        cache.close()
    print(json.dumps([sentinel.escapes, open("outer/x").read()]))
"""


def test_no_forged_name_in_a_tier_reaches_a_file_outside_of_it():
    assert world.run_readonly(_ESCAPE) == [[], "precious"]


# The promise as a user sees it


_SHARDED = """
    import sys, json, zarr, numpy as np
    from zarrstore import DirectoryStore, LRUStoreCache
    from zarrstore.bridges.zarr3 import MappingStore
    from zarrstore.testing import CountingStore

    remote = CountingStore(DirectoryStore(sys.argv[1]))
    cache = LRUStoreCache(remote, 1e6, cache=DirectoryStore(sys.argv[2]), cache_size=1e9)
    array = zarr.open_array(MappingStore(cache, read_only=True), mode="r", zarr_format=3)
    total = int(array[5:40, 10:60].sum()) + int(array[0, 0]) + int(array[100:, 90:].sum())
    print(json.dumps([total, remote.calls["_get_range"] + remote.calls["_get_ranges"] + remote.calls["_get_suffix"],
                      remote.calls["_get"], zarr.__version__]))
"""


@pytest.mark.parametrize("peer", ["self", pytest.param("z34", marks=pytest.mark.needs_peer("z34"))])
def test_a_sharded_array_read_in_a_second_process_costs_no_remote_read(peer, tmp_path):
    zarr = pytest.importorskip("zarr")
    import numpy as np

    array = zarr.create_array(
        zarr.storage.LocalStore(tmp_path / "remote"), shape=(128, 128), chunks=(8, 8), shards=(64, 64), dtype="i4"
    )
    data = np.arange(128 * 128, dtype="i4").reshape(128, 128)
    array[:] = data
    expected = int(data[5:40, 10:60].sum()) + int(data[0, 0]) + int(data[100:, 90:].sum())
    runs = [peers.run(peer, _SHARDED, tmp_path / "remote", tmp_path / "tier") for _ in range(2)]
    assert [total for total, *_ in runs] == [expected] * 2
    assert runs[0][1] > 0
    assert runs[1][1:3] == [0, 0], runs


def test_parts_are_asked_below_once_by_threads_that_ask_at_one_moment():
    import threading

    inner = remote()
    cache = LRUStoreCache(inner, None, cache=DictStore())
    barrier, found = threading.Barrier(8), []

    def read():
        barrier.wait()
        found.append(cache.getranges("c/0", [(0, 9), (5000, 5009)]))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[VALUE[:9], VALUE[5000:5009]]] * 8
    assert inner.calls == {"_get_ranges": 1}


def test_an_empty_part_of_an_absent_value_is_absent():
    tier = Tier(DictStore(), None, None)
    tier.put("a", b"", 0.0, Range(5, 5))
    tier.put("a", b"", 0.0, Suffix(0))
    assert (tier.get("a", Range(5, 5)), tier.get("a", Suffix(0)), len(tier)) == (None, None, 0)
