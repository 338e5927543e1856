from __future__ import annotations

import errno
import pickle
from collections import Counter

import pytest

from tests.support.cases import each_of
from zarrstore import DictStore, MetricsStore, ObstoreStore, PrefixStore, SQLiteStore, Store
from zarrstore.driver import Driver
from zarrstore.errors import DamagedStoreError, ReadOnlyError, StoreReadError
from zarrstore.stores.http import HTTPStore
from zarrstore.testing import CountingStore, FailingStore
from zarrstore.wrappers.retry import PERMANENT_ERRNOS, RetryStore


class Pauses(list):
    """A sleep that only takes notes."""

    def __call__(self, seconds):
        self.append(seconds)


TREE = {"a/0": b"1", "a/1": b"22", "b": b"333"}

CALLS = {
    "_get": lambda store: store["b"],
    "_contains": lambda store: "b" in store,
    "_keys": lambda store: sorted(store),
    "_count": len,
    "_get_range": lambda store: store.getrange("b", 1),
    "_get_suffix": lambda store: store.getsuffix("b", 1),
    "_nbytes": lambda store: store._nbytes("b"),
    "_get_many": lambda store: dict(store.getitems(["a/0", "b", "absent"])),
    "_listdir": lambda store: store.listdir("a"),
    "_getsize": lambda store: store.getsize("a"),
    "_set": lambda store: store.__setitem__("c", b"4"),
    "_delete": lambda store: store.__delitem__("b"),
    "_set_many": lambda store: store.setitems((f"n/{n}", b"x") for n in range(10)),
    "_delete_many": lambda store: store.delitems(iter(["a/0", "absent"])),
    "_rmdir": lambda store: store.rmdir("a"),
    "_rename": lambda store: store.rename("a", "z"),
    "_clear": lambda store: store.clear(),
    "_sweep": lambda store: store.sweep(),
    "_flush": lambda store: store.flush(),
}


@each_of("method", CALLS)
def test_a_passing_error_is_not_seen(method):
    plain = DictStore(dict(TREE))
    expected = CALLS[method](plain)
    pauses = Pauses()
    inner = FailingStore(DictStore(dict(TREE)), ConnectionResetError("gone"), methods=[method], times=3)
    store = RetryStore(inner, attempts=4, jitter=0, sleep=pauses)
    assert CALLS[method](store) == expected
    assert dict(inner.inner) == dict(plain)
    assert pauses == [0.1, 0.2, 0.4]


@each_of("method", CALLS)
def test_an_error_that_stays_is_raised_as_it_is_after_the_last_attempt(method):
    inner = FailingStore(DictStore(dict(TREE)), ConnectionResetError("gone"), methods=[method])
    with pytest.raises(ConnectionResetError, match="gone") as caught:
        CALLS[method](RetryStore(inner, attempts=3, sleep=Pauses()))
    assert inner.failures == 3
    assert caught.value.__notes__[-1] == "after 3 attempts"


def forbidden():
    try:
        raise PermissionError("403")
    except PermissionError as exc:
        error = StoreReadError("b", "remote", "403 Forbidden")
        error.__cause__ = exc
        return error


PERMANENT = [
    *(OSError(number, "permanent") for number in sorted(PERMANENT_ERRNOS)),
    PermissionError("refused"),
    FileExistsError(errno.EEXIST, "exists"),
    ReadOnlyError("b", "store"),
    DamagedStoreError("b", "is cut off"),
    forbidden(),
    ValueError("not asked for"),
    KeyError("b"),
]


@each_of("error", PERMANENT, ids=lambda error: f"{type(error).__name__} {getattr(error, 'errno', '')}")
def test_what_a_second_attempt_cannot_cure_is_raised_at_once(error):
    pauses = Pauses()
    inner = FailingStore(DictStore(dict(TREE)), error, methods=["_get", "_set"])
    store = RetryStore(inner, sleep=pauses)
    for act in (lambda: store["b"], lambda: store.__setitem__("b", b"new")):
        with pytest.raises(type(error)):
            act()
    assert (inner.failures, pauses) == (2, [])


def test_a_missing_key_is_an_answer_even_if_all_errors_are_to_be_tried_again():
    pauses = Pauses()
    inner = CountingStore(DictStore(dict(TREE)))
    store = RetryStore(inner, retry_on=(Exception,), sleep=pauses)
    assert store.get("absent") is None
    assert dict(store.getitems(["absent", "b"])) == {"b": b"333"}
    with pytest.raises(KeyError):
        del store["absent"]
    assert pauses == []


def test_errors_of_your_own_can_be_named():
    class Throttled(Exception):
        pass

    inner = FailingStore({"a": b"1"}, Throttled(), methods=["_get"], times=1)
    with pytest.raises(Throttled):
        RetryStore(inner, sleep=Pauses())["a"]
    inner.failures = 0
    assert RetryStore(inner, retry_on=(Throttled, OSError), sleep=Pauses())["a"] == b"1"


def test_pauses_double_up_to_a_limit():
    pauses = Pauses()
    inner = FailingStore({"a": b"1"}, TimeoutError(), methods=["_get"], times=6)
    RetryStore(inner, attempts=7, backoff=1, max_backoff=5, jitter=0, sleep=pauses)["a"]
    assert pauses == [1, 2, 4, 5, 5, 5]


def test_a_value_of_a_batch_that_fails_late_is_tried_again():
    class Late(CountingStore):
        """Its batches are read when they are asked, and fail then."""

        def _get_many(self, keys):
            return Store._get_many(self, keys)

    inner = Late(FailingStore(DictStore(dict(TREE)), TimeoutError(), methods=["_get"], times=2))
    assert dict(RetryStore(inner, sleep=Pauses()).getitems(TREE)) == TREE


def test_a_listing_that_breaks_off_is_begun_again_and_gives_no_key_twice():
    class Breaking(CountingStore):
        breaks = 2

        def _keys(self, path):
            for n, key in enumerate(self.inner._keys(path)):
                if n == 2 and self.breaks:
                    self.breaks -= 1
                    raise ConnectionResetError("page 2")
                yield key

    assert sorted(RetryStore(Breaking(DictStore(dict(TREE))), sleep=Pauses())) == sorted(TREE)


class LostAnswer(CountingStore):
    """Does what it is told, once, and loses the answer."""

    lost = False

    def _then_lose(self, method, *args):
        getattr(self.inner, method)(*args)
        if not self.lost:
            self.lost = True
            raise TimeoutError("no answer")

    def _delete(self, key):
        self._then_lose("_delete", key)

    def _rename(self, source, destination):
        if self.lost and not self.inner._is_occupied(source):
            raise FileNotFoundError(errno.ENOENT, source)
        self._then_lose("_rename", source, destination)


def test_what_happened_although_its_answer_was_lost_has_happened():
    store = RetryStore(LostAnswer(DictStore(dict(TREE))), sleep=Pauses())
    del store["b"]
    assert sorted(store) == ["a/0", "a/1"]
    store = RetryStore(LostAnswer(DictStore(dict(TREE))), sleep=Pauses())
    store.rename("a", "z")
    assert sorted(store) == ["b", "z/0", "z/1"]


def test_a_large_batch_is_passed_on_in_parts():
    inner = CountingStore(DictStore())
    value = bytes(1 << 20)
    RetryStore(inner).setitems((f"k/{n}", value) for n in range(40))
    assert [len(call[1]) for call in inner.log] == [16, 16, 8]
    inner.reset()
    RetryStore(inner).setitems((f"s/{n}", b"") for n in range(5000))
    assert [len(call[1]) for call in inner.log] == [4096, 904]


def test_nonsense_is_refused_and_the_configuration_pickles():
    for arguments in ({"attempts": 0}, {"backoff": -1}, {"jitter": -0.1}, {"jitter": 2}, {"deadline": -1}):
        with pytest.raises(ValueError, match=r"is -?\d"):
            RetryStore({}, **arguments)
    copy = pickle.loads(pickle.dumps(RetryStore(DictStore(dict(TREE)), attempts=7, retry_on=(TimeoutError,))))
    assert (copy.attempts, copy.retry_on, dict(copy)) == (7, (TimeoutError,), TREE)


def test_pauses_are_random_within_the_share_that_jitter_says():
    pauses = Pauses()
    inner = FailingStore({"a": b"1"}, TimeoutError(), methods=["_get"])
    for _ in range(200):
        with pytest.raises(TimeoutError):
            RetryStore(inner, attempts=2, backoff=1, sleep=pauses)["a"]
    assert len(set(pauses)) > 100
    assert 0.5 <= min(pauses) < 0.6
    assert 0.9 < max(pauses) <= 1


def test_no_attempt_begins_after_the_deadline():
    now = [100.0]

    def sleep(seconds):
        now[0] += seconds

    def fail(method, *args):
        now[0] += 2  # each attempt takes so long
        return TimeoutError("slow")

    inner = FailingStore(DictStore(dict(TREE)), fail)
    store = RetryStore(
        inner, attempts=100, backoff=1, max_backoff=1, jitter=0, deadline=10, sleep=sleep, clock=lambda: now[0]
    )
    for method, act in CALLS.items():
        inner.failures, now[0] = 0, 100.0
        with pytest.raises(TimeoutError) as caught:
            act(store)
        assert (method, inner.failures, now[0]) == (method, 4, 111.0)
        assert caught.value.__notes__[-1] == "after 4 attempts: the next one would begin after 10 seconds"


@pytest.mark.parametrize("status", [400, 401, 403, 405])
def test_what_a_web_server_refuses_is_asked_once(status, http_server, proxy, tmp_path):
    (tmp_path / "d").mkdir()
    between = proxy(http_server(tmp_path / "d"))
    between.fail(status)
    store = RetryStore(HTTPStore(between.url), sleep=Pauses())
    with pytest.raises(StoreReadError, match=str(status)):
        store["a"]
    assert between.counts == {"GET": 1}


def test_what_a_web_server_cannot_do_now_is_asked_again(http_server, proxy, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"1")
    between = proxy(http_server(tmp_path / "d"))
    between.fail(503, times=2)
    assert RetryStore(HTTPStore(between.url, retries=0), sleep=Pauses())["a"] == b"1"


class Flaky(DictStore):
    """Stores and deletes one after the other; some keys fail so many times."""

    def __init__(self, times):
        super().__init__()
        self.times = Counter(times)
        self.calls = Counter()

    def _act(self, key):
        self.calls[key] += 1
        if self.times[key] > 0:
            self.times[key] -= 1
            raise TimeoutError(f"{key} is slow today")

    _set_many, _delete_many = Driver._set_many, Driver._delete_many

    def _set(self, key, value):
        self._act(key)
        super()._set(key, value)

    def _delete(self, key):
        self._act(key)
        super()._delete(key)


ITEMS = {f"n/{n}": b"%d" % n for n in range(100)}


def test_of_a_batch_that_fails_only_what_is_not_done_is_repeated():
    inner = Flaky({"n/3": 2, "n/70": 3})
    pauses = Pauses()
    store = RetryStore(inner, attempts=4, jitter=0, sleep=pauses)
    store.setitems(ITEMS)
    assert dict(inner) == ITEMS
    assert inner.calls == Counter(dict.fromkeys(ITEMS, 1)) + Counter({"n/3": 2, "n/70": 3})
    # What was done in between begins the count anew.
    assert pauses == [0.1, 0.2, 0.1, 0.2, 0.4]
    inner.calls.clear()
    inner.times.update({"n/5": 1, "n/99": 1})
    store.delitems(ITEMS)
    assert dict(inner) == {}
    assert inner.calls == Counter(dict.fromkeys(ITEMS, 1)) + Counter({"n/5": 1, "n/99": 1})


def test_the_error_names_what_of_the_batch_is_not_done():
    inner = Flaky({"n/98": 9})
    with pytest.raises(TimeoutError) as caught:
        RetryStore(inner, attempts=3, sleep=Pauses()).setitems(ITEMS)
    assert caught.value.__notes__ == ["after 3 attempts", "2 of 100 keys of the batch are not done, as 'n/98'"]
    assert inner.calls["n/98"] == 3
    assert inner.calls.total() == 98 + 3


def test_a_key_that_never_comes_ends_after_its_attempts_however_much_else_was_done():
    inner = Flaky({f"n/{n}": 1 for n in range(0, 100, 2)} | {"n/50": 99})
    with pytest.raises(TimeoutError, match="n/50"):
        RetryStore(inner, attempts=3, sleep=Pauses()).setitems(ITEMS)
    assert inner.calls["n/50"] == 3


@pytest.mark.parametrize("wrap", [lambda store: PrefixStore(store, "p"), MetricsStore])
def test_behind_a_wrapper_that_changes_what_is_set_the_whole_batch_is_repeated(wrap):
    # One key has the name that another has below: what that says of its own must not be taken for this one's.
    items = {"p/a": b"1", "a": b"2", "b": b"3"}
    inner = Flaky({"p/b": 1, "b": 1})
    store = RetryStore(wrap(inner), sleep=Pauses())
    store.setitems(items)
    assert {key: store[key] for key in items} == items


def test_a_store_that_does_all_or_nothing_is_given_all_again(tmp_path):
    inner = FailingStore(SQLiteStore(tmp_path / "a.sqlite"), TimeoutError(), methods=["_set_many"], times=2)
    RetryStore(inner, sleep=Pauses()).setitems(ITEMS)
    assert dict(inner.inner) == ITEMS


def test_an_error_after_the_last_key_is_no_success():
    class Late(Flaky):
        failures = 0

        def _set_many(self, items):
            super()._set_many(items)
            self.failures += 1
            if self.failures < 3:
                raise TimeoutError("not flushed")

    inner = Late({})
    RetryStore(inner, sleep=Pauses()).setitems(ITEMS)
    assert inner.failures == 3
    with pytest.raises(TimeoutError, match="not flushed"):
        inner.failures = 0
        RetryStore(inner, attempts=2, sleep=Pauses()).setitems(ITEMS)


def test_of_requests_under_way_at_once_only_those_that_failed_are_repeated():
    obstore = pytest.importorskip("obstore.store")

    class Service(ObstoreStore):
        calls = Counter()

        def _set(self, key, value):
            self.calls[key] += 1
            if self.calls[key] == 1 and int(key[2:]) % 25 == 24:
                raise TimeoutError(key)
            super()._set(key, value)

    inner = Service(obstore.MemoryStore(), workers=1)
    RetryStore(inner, sleep=Pauses()).setitems(ITEMS)
    assert dict(inner) == ITEMS
    assert inner.calls.total() == 104
