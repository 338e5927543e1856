from __future__ import annotations

import pickle
import threading
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from zarrstore import DictStore
from zarrstore.errors import ConflictError, InvalidKeyError, ReadOnlyError
from zarrstore.testing import SEGMENTS, CountingStore, FailingStore, StoreConformance, check_against_dict, tree
from zarrstore.wrappers.overlay import MARKS, OverlayStore, Pending
from zarrstore.wrappers.readonly import ReadOnlyStore

from .shelf import Shelf


class TestOverlayOverWhatIsRemoved(StoreConformance):
    """Everything below stands in the lower store and was removed before the test begins."""

    examples = 15

    def make_store(self, tmp_path):
        lower = DictStore({**tree(100), "a/b/c": b"old", "x": b"old"})
        store = OverlayStore(lower, DictStore())
        store.rmdir("a")
        store.clear()
        return store

    def reopen(self, store, tmp_path):
        return OverlayStore(store.lower, store.upper)


class TestOverlayOfReadOnlyLower(StoreConformance):
    examples = 10

    def make_store(self, tmp_path):
        return OverlayStore(ReadOnlyStore({}), Shelf())

    def make_filled(self, tmp_path, items):
        """Half of the items lie below, half above."""
        below = dict(list(items.items())[::2])
        store = OverlayStore(ReadOnlyStore(below), Shelf())
        store.setitems({key: value for key, value in items.items() if key not in below})
        return store

    def reopen(self, store, tmp_path):
        return OverlayStore(store.lower, store.upper)


class TestOverlayOfHierarchical(StoreConformance):
    examples = 15

    def make_store(self, tmp_path):
        return OverlayStore(Shelf(), Shelf())


class TestOverlayOfHierarchicalUnderFlat(StoreConformance):
    examples = 15

    def make_store(self, tmp_path):
        return OverlayStore(Shelf(), DictStore())


LOWER = {"a/0": b"0", "a/1": b"1", "ab/0": b"2", "b/c/0": b"3", "b/c/1": b"4", "v": b"5"}


@pytest.mark.parametrize("make_lower, make_upper", [(dict, dict), (dict, Shelf), (Shelf, Shelf), (Shelf, dict)])
@pytest.mark.parametrize("committing", [False, True])
def test_histories_over_a_filled_store_end_as_they_do_with_a_dict(make_lower, make_upper, committing):
    """The store is reopened, and committed, between any two steps."""

    def make():
        lower = make_lower()
        lower.update({**LOWER, ".zarray": b"6", "1.0/é/A": b"7"})
        store = OverlayStore(lower, make_upper())
        store.clear()
        return store

    def reopen(store):
        before = dict(store)
        if committing:
            store.commit()
            assert dict(store.lower) == before
            assert dict(store.upper) == {}
        return OverlayStore(store.lower, store.upper)

    check_against_dict(make, reopen=reopen, names=("a", "b", "ab", "c", "0"), max_examples=12)


def test_nothing_below_is_touched_until_commit():
    lower, upper = dict(LOWER), DictStore()
    store = OverlayStore(ReadOnlyStore(lower), upper)
    store["a/0"] = b"new"
    store["new/x"] = b"6"
    del store["v"]
    store.rmdir("b")
    store.rename("ab", "moved")
    expected = {"a/0": b"new", "a/1": b"1", "new/x": b"6", "moved/0": b"2"}
    assert dict(store) == expected
    assert lower == LOWER
    assert store.pending() == Pending(set=("a/0", "moved/0", "new/x"), deleted=("v",), removed_below=("ab", "b"))
    with pytest.raises(ReadOnlyError):
        store.commit()
    assert (dict(store), lower) == (expected, LOWER)


def test_a_commit_makes_lower_what_the_overlay_showed_and_empties_upper():
    lower, upper = DictStore(dict(LOWER)), DictStore()
    store = OverlayStore(lower, upper)
    store.rmdir("b")
    store["b/c/0"] = b"again"
    del store["a/1"]
    store["a/1"] = b"again"
    del store["v"]
    store["v/below"] = b"a directory now"
    expected = {"a/0": b"0", "a/1": b"again", "ab/0": b"2", "b/c/0": b"again", "v/below": b"a directory now"}
    assert dict(store) == expected
    store.commit()
    assert (dict(lower), dict(upper), dict(store), store.pending()) == (expected, {}, expected, Pending((), (), ()))
    store.commit()
    assert dict(lower) == expected


def test_a_value_that_was_removed_and_set_again_is_never_missing_below_during_a_commit():
    lower = CountingStore(DictStore(dict(LOWER)))
    store = OverlayStore(lower, DictStore())
    store.rmdir("b")
    del store["a/0"]
    store.update({"b/c/1": b"again", "a/0": b"again"})
    store.commit()
    removed = {key for method, *args in lower.log if method in ("_delete_many",) for key in args[0]}
    assert removed == {"b/c/0"}
    assert lower.calls["_rmdir"] + lower.calls["_clear"] == 0


def test_a_rollback_shows_what_was_there():
    store = OverlayStore(dict(LOWER), DictStore())
    store.clear()
    store["x"] = b"1"
    assert dict(store) == {"x": b"1"}
    store.rollback()
    assert dict(store) == LOWER
    assert not store.pending()


@pytest.mark.parametrize("upper_class", [DictStore, Shelf])
def test_what_was_deleted_stays_deleted_when_opened_again(upper_class):
    lower, upper = DictStore(dict(LOWER)), upper_class()
    store = OverlayStore(lower, upper)
    store.rmdir("b/c")
    del store["a/0"]
    store.rmdir("a")
    del store["v"]
    for again in (OverlayStore(lower, upper), pickle.loads(pickle.dumps(store))):
        assert dict(again) == {"ab/0": b"2"}
        assert (again.listdir(), again.listdir("b"), again.listdir("a")) == (["ab"], [], [])
    again = OverlayStore(lower, upper)
    again.clear()
    assert dict(OverlayStore(lower, upper)) == {}


def test_marks_are_out_of_sight_and_their_place_is_taken():
    upper = DictStore()
    store = OverlayStore({**LOWER, f"{MARKS}/lower": b"x"}, upper)
    store.rmdir("b")
    del store["v"]
    assert sorted(key for key in upper) == [f"{MARKS}/db/below", f"{MARKS}/kv"]
    assert sorted(store) == ["a/0", "a/1", "ab/0"]
    assert store.listdir() == ["a", "ab"]
    assert (store.listdir(MARKS), store.getsize(MARKS), list(store.keys_below(MARKS))) == ([], 0, [])
    for key in (MARKS, f"{MARKS}/kv", f"{MARKS}/lower"):
        assert key not in store
        assert dict(store.getitems([key])) == {}
        with pytest.raises(KeyError):
            del store[key]
        with pytest.raises(InvalidKeyError, match="OverlayStore keeps"):
            store[key] = b"x"
    store.rmdir(MARKS)
    store.delitems([f"{MARKS}/kv"])
    assert "v" not in store


def test_junk_among_the_marks_is_passed_over():
    upper = DictStore()
    OverlayStore(LOWER, upper).rmdir("b")
    upper[f"{MARKS}/.DS_Store"] = b"junk"
    assert sorted(OverlayStore(LOWER, upper)) == ["a/0", "a/1", "ab/0", "v"]


def test_what_is_in_the_way_below_is_seen_and_what_was_deleted_is_not():
    store = OverlayStore(DictStore(dict(LOWER)), Shelf())
    for key in ("a", "v/x", "a/0/deep/er"):
        with pytest.raises(ConflictError):
            store[key] = b"lost?"
    store.rmdir("a")
    store["a"] = b"a value now"
    del store["v"]
    store["v/x"] = b"a directory now"
    assert dict(store) == {"ab/0": b"2", "b/c/0": b"3", "b/c/1": b"4", "a": b"a value now", "v/x": b"a directory now"}


def test_a_hundred_chunks_written_cost_one_listing_of_a_directory_below():
    lower = CountingStore(DictStore({"x/.zarray": b"{}"}))
    store = OverlayStore(lower, Shelf())
    lower.reset()
    for n in range(100):
        store[f"x/{n}"] = b"1"
    assert lower.calls == {"_listdir": 2, "_contains": 1}  # of the root and of x; x is there, and is no value


def test_a_batch_asks_each_store_once_and_only_for_what_it_has():
    lower, upper = CountingStore(DictStore(dict(LOWER))), CountingStore(DictStore())
    store = OverlayStore(lower, upper)
    store["a/0"] = b"new"
    del store["v"]
    lower.reset()
    upper.reset()
    assert dict(store.getitems(["a/0", "a/1", "v", "absent"])) == {"a/0": b"new", "a/1": b"1"}
    assert lower.log == [("_get_many", ["a/1", "absent"])]
    assert upper.calls == {"_contains": 4, "_get_many": 1}


def test_an_unchanged_part_is_sized_by_the_store_below():
    lower = CountingStore(DictStore(dict(LOWER)))
    store = OverlayStore(lower, DictStore())
    store["ab/new"] = b"xx"
    lower.reset()
    assert (store.getsize("a"), store.getsize("v")) == (2, 1)
    assert lower.calls == {"_getsize": 2}
    assert store.getsize("ab") == 3


def test_many_deleted_names_cost_one_pass_and_not_one_each():
    lower = CountingStore(DictStore({f"x/{n}": b"1" for n in range(100)}))
    store = OverlayStore(lower, DictStore())
    store.delitems([f"x/{n}" for n in range(99)])
    lower.reset()
    assert store.listdir("x") == ["99"]
    assert lower.calls == {"_listdir": 1, "_keys": 1}


# Faults: whatever call fails, and wherever a process dies, what is seen is what was seen before the commit began.


def changed(lower, upper):
    store = OverlayStore(lower, upper)
    store.rmdir("b")
    store["b/c/1"] = b"again"
    store["a/0"] = b"new"
    del store["v"]
    store["v/x"] = b"7"
    del store["ab/0"]
    return store


SEEN = {"a/0": b"new", "a/1": b"1", "b/c/1": b"again", "v/x": b"7"}


@pytest.mark.parametrize("make", [DictStore, Shelf])
@pytest.mark.parametrize("failing", ["lower", "upper"])
def test_a_commit_that_breaks_off_anywhere_loses_nothing_and_can_be_repeated(make, failing):
    broken_off = 0
    for calls in range(200):
        lower, upper = make(), make()
        lower.update(LOWER)
        changed(lower, upper)
        stores = {"lower": lower, "upper": upper}
        faults = {"methods": ["_set", "_delete", "_flush"], "after": calls}
        stores[failing] = FailingStore(stores[failing], OSError("cut"), **faults)
        store = OverlayStore(_Loops(stores["lower"]), _Loops(stores["upper"]))
        try:
            store.commit()
        except OSError:
            broken_off += 1
        else:
            break
        assert dict(store) == SEEN
        again = OverlayStore(lower, upper)  # as a new process finds it
        assert dict(again) == SEEN
        again.commit()
        assert (dict(lower), dict(upper)) == (SEEN, {})
    assert dict(lower) == SEEN
    assert broken_off >= 5


class _Loops(CountingStore):
    """Batches and removals as single calls of the store below, so that each of them can fail."""

    def _set_many(self, items):
        for key, value in items:
            self.inner._set(key, value)

    def _delete_many(self, keys):
        for key in keys:
            if self.inner._contains(key):
                self.inner._delete(key)

    def _rmdir(self, path):
        self._delete_many(list(self.inner._keys(path)))


_WRITING = ("_set", "_set_many", "_delete", "_delete_many", "_rmdir")


@pytest.mark.parametrize("calls", range(6))
def test_a_delete_that_breaks_off_never_shows_the_old_value_again(calls):
    lower = DictStore({"a": b"old", "d/x": b"old"})
    upper = FailingStore(_Loops(DictStore()), OSError("cut"), methods=_WRITING, after=99)
    store = OverlayStore(lower, upper)
    store.update({"a": b"new", "d/x": b"new"})
    upper.after = calls
    try:
        del store["a"]
        store.rmdir("d")
    except OSError:
        pass
    again = OverlayStore(lower, upper.inner.inner)
    assert again.get("a") in (b"new", None)
    assert again.get("d/x") in (b"new", None)


def test_threads_change_different_keys_at_once():
    store = OverlayStore(DictStore({f"{n}/{m}": b"old" for n in range(4) for m in range(50)}), DictStore())
    problems = []

    def work(me):
        try:
            for m in range(50):
                del store[f"{me}/{m}"]
                assert f"{me}/{m}" not in store
                store[f"{me}/{m}"] = b"new"
                store.listdir(str(me))
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert set(store.values()) == {b"new"}


def test_commits_and_rollbacks_between_any_two_steps_keep_what_is_seen():
    paths = st.lists(st.sampled_from(SEGMENTS[:5]), min_size=1, max_size=3).map("/".join)

    class Machine(RuleBasedStateMachine):
        @initialize(items=st.dictionaries(paths, st.binary(max_size=3), max_size=8))
        def start(self, items):
            self.below, self.model = dict(items), dict(items)
            self.lower, self.upper = DictStore(dict(items)), DictStore()
            self.store = OverlayStore(self.lower, self.upper)

        @rule(key=paths, value=st.binary(max_size=3))
        def set(self, key, value):
            self.store[key] = self.model[key] = value

        @rule(key=paths)
        def delete(self, key):
            self.store.delitems([key])
            self.model.pop(key, None)

        @rule(path=paths)
        def rmdir(self, path):
            self.store.rmdir(path)
            self.model = {key: value for key, value in self.model.items() if not key.startswith(path + "/")}

        @rule()
        def commit(self):
            self.store.commit()
            self.below = dict(self.model)

        @rule()
        def rollback(self):
            self.store.rollback()
            self.model = dict(self.below)

        @rule()
        def reopen(self):
            self.store = OverlayStore(self.lower, self.upper)

        @invariant()
        def same(self):
            assert dict(self.store) == self.model
            assert dict(self.lower) == self.below
            for path in ("", *SEGMENTS[:5]):
                start = len(path) + 1 if path else 0
                names = {key[start:].split("/")[0] for key in self.model if not path or key.startswith(path + "/")}
                assert self.store.listdir(path) == sorted(names)

    run_state_machine_as_test(Machine, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


def test_a_key_that_is_in_both_stores_is_listed_once():
    store = OverlayStore(DictStore(LOWER), DictStore())
    store["a/0"] = b"new"
    store["z"] = b"new"
    assert sorted(store) == sorted([*LOWER, "z"])
    assert sorted(store.keys_below("a")) == ["a/0", "a/1"]
    assert len(store) == len(LOWER) + 1


@pytest.mark.parametrize(
    ("concurrent", "blocking", "expected"),
    [(True, True, True), (False, False, True), (False, True, False), (True, False, True)],
)
def test_an_overlay_is_concurrent_where_its_upper_store_does_not_make_it_wait(concurrent, blocking, expected):
    class Lower(DictStore):
        capabilities = replace(DictStore.capabilities, concurrent=True)

    class Upper(DictStore):
        capabilities = replace(DictStore.capabilities, concurrent=concurrent, blocking=blocking)

    assert OverlayStore(Lower(), Upper()).capabilities.concurrent is expected
    assert OverlayStore(DictStore(), Upper()).capabilities.concurrent is False
