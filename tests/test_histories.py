"""The checker of histories sees what is wrong, and nothing in what is right."""

from __future__ import annotations

import threading

import pytest

from tests.support.cases import each_of
from tests.support.histories import ABSENT, Op, play, restless, violations
from zarrstore import DictStore
from zarrstore.wrappers.base import Wrapper


def w(value, start, end):
    return Op("k", True, value, start, end)


def r(value, start, end):
    return Op("k", False, value, start, end)


@each_of(
    "history",
    [
        [],
        [r(ABSENT, 0, 1)],
        [w(b"a", 0, 1), r(b"a", 2, 3)],
        [w(b"a", 0, 9), r(ABSENT, 1, 2), r(b"a", 3, 4)],
        [w(b"a", 0, 9), w(b"b", 0, 9), r(b"b", 1, 2), r(b"a", 3, 4)],
        [w(b"a", 0, 1), w(b"b", 2, 9), r(b"a", 3, 4), r(b"b", 5, 6)],
        [w(b"a", 0, 1), w(ABSENT, 2, 3), r(ABSENT, 4, 5), w(b"b", 6, 7), r(b"b", 8, 9)],
        [w(b"a", 0, 1), w(ABSENT, 2, 9), r(b"a", 3, 4), r(ABSENT, 5, 6)],
        [w(b"a", 0, 1), w(ABSENT, 2, 20), w(b"b", 5, 6), r(b"b", 7, 8), r(ABSENT, 9, 10)],
        [w(b"a", 0, 20), r(b"a", 1, 30), r(ABSENT, 2, 3)],
    ],
)
def test_what_one_after_the_other_could_have_seen_passes(history):
    assert violations(history) == []


@each_of(
    "history",
    [
        [r(b"a", 0, 1)],
        [r(b"a", 0, 1), w(b"a", 2, 3)],
        [w(b"a", 0, 1), r(ABSENT, 2, 3)],
        [w(b"a", 0, 1), w(b"b", 2, 3), r(b"a", 4, 5)],
        [w(b"a", 0, 9), w(b"b", 0, 9), r(b"b", 1, 2), r(b"a", 3, 4), r(b"b", 5, 6)],
        [w(b"a", 0, 1), w(b"b", 2, 9), r(b"b", 3, 4), r(b"a", 5, 6)],
        [w(b"a", 0, 1), w(ABSENT, 2, 3), r(b"a", 4, 5)],
        [w(b"a", 0, 1), w(ABSENT, 2, 9), r(ABSENT, 3, 4), r(b"a", 5, 6)],
        [w(b"a", 0, 1), w(ABSENT, 2, 3), w(b"b", 4, 5), r(ABSENT, 6, 7)],
        [w(b"a", 0, 1), r(b"a", 2, 3), r(ABSENT, 4, 5), w(ABSENT, 6, 7)],
    ],
)
def test_what_nobody_could_have_seen_is_found(history):
    assert violations(history) != []


class Careless(Wrapper):
    """The cache that everybody writes first: what was read late is kept for ever."""

    def __init__(self, inner):
        super().__init__(inner)
        self.kept = {}
        self.lock = threading.Lock()

    def _get(self, key):
        if key in self.kept:
            return self.kept[key]
        value = self.inner._get(key)
        with self.lock:
            self.kept[key] = value
        return value

    def _set(self, key, value):
        self.inner._set(key, value)
        with self.lock:
            self.kept.pop(key, None)

    def _delete(self, key):
        self.inner._delete(key)
        with self.lock:
            self.kept.pop(key, None)


KEYS = ["a/0", "a/1", "b/0", "b/1"]


def test_a_careless_cache_is_found_out():
    with restless():
        assert any(violations(play(Careless(DictStore()), ops=8_000, keys=KEYS, seed=seed)) for seed in range(10))


@pytest.mark.parametrize("seed", range(4))
def test_a_dict_store_is_linearizable(seed):
    with restless():
        assert violations(play(DictStore(), ops=10_000, keys=KEYS, seed=seed)) == []
