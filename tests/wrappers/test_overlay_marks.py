"""What an overlay decodes from its marks is judged like what a caller gives; its steps are flushed in their order."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.support import world
from tests.support.cases import each_of
from zarrstore import DictStore
from zarrstore.errors import UnsupportedOperation
from zarrstore.keys import is_key
from zarrstore.stores.lmdb import LMDBStore
from zarrstore.testing import HOSTILE_KEYS, CountingStore, Recorder, SlowStore
from zarrstore.wrappers.overlay import MARKS, OverlayStore, Pending, decode_mark, encode_mark

from .shelf import Shelf

#: Marks that no overlay writes, and that name what is outside, or what is nobody's.
FORGED = (
    f"{MARKS}/d../d../kprecious",
    f"{MARKS}/k..",
    f"{MARKS}/k.",
    f"{MARKS}/k",
    f"{MARKS}/d/kx",
    f"{MARKS}/d./below",
    f"{MARKS}/d../below",
    f"{MARKS}/kC:",
    f"{MARKS}/dC:/kx",
    f"{MARKS}/k.__zarrstore-x",
    f"{MARKS}/kback\\slash",
    f"{MARKS}/x../kx",
    f"{MARKS}/..",
    f"{MARKS}/d{MARKS}/kx",
    f"{MARKS}/k{MARKS}",
    f"{MARKS}/d{MARKS}/below",
    f"{MARKS}/.DS_Store",
    f"{MARKS}/belowx",
    f"{MARKS}/kx/below",
)


@each_of("mark", FORGED)
def test_a_mark_that_names_no_key_is_no_mark(mark):
    assert decode_mark(mark, lambda: b"") is None


@each_of("key", [key for key in HOSTILE_KEYS if isinstance(key, str) and key])
def test_a_mark_of_a_hostile_key_is_no_mark(key):
    for mark in (f"{MARKS}/k{key}", f"{MARKS}/d{key}/below", f"{MARKS}/d{key}/kx"):
        found = decode_mark(mark, bytes)
        assert found is None or found == ("below", "") or is_key(found[1])
        assert found is None or found[1] != key


@each_of(
    "content", [b"", b"k", b"k../x", b"below..", b"kx\xff", b"b", b"xkey", b"k/etc/passwd", MARKS.encode(), b"kother"]
)
def test_a_mark_of_a_long_key_that_was_forged_is_no_mark(content):
    mark, _ = encode_mark("key", "x" * 255)
    assert decode_mark(mark, lambda: content) is None


@each_of("key", ["a", "a/b", "x" * 255, "d/" + "é" * 120, "/".join(["part"] * 100), "~", "below", "k"])
def test_a_mark_comes_back_as_what_was_marked(key):
    for kind in ("key", "below"):
        mark, content = encode_mark(kind, key)
        assert decode_mark(mark, lambda: content) == (kind, key)  # noqa: B023
        assert len(mark.encode()) < 511
        assert max(len(name.encode()) for name in mark.split("/")) <= 255
    assert decode_mark(*_both("below", "")) == ("below", "")


def _both(kind, path):
    mark, content = encode_mark(kind, path)
    return mark, lambda: content


def test_forged_marks_hide_nothing_and_delete_nothing():
    lower = {"precious": b"1", "x": b"2", f"{MARKS}/x": b"3", f"{MARKS}": b"4"}
    recorder = Recorder()
    watched = recorder.watch(lower, "lower")
    store = OverlayStore(watched, _Raw(dict.fromkeys(FORGED, b"")))
    assert dict(store) == {"precious": b"1", "x": b"2"}
    assert not store.pending()
    store["x"] = b"new"
    store.commit()
    assert lower == {"precious": b"1", "x": b"new", f"{MARKS}/x": b"3", f"{MARKS}": b"4"}
    assert not [key for _, action, key in recorder.order() if action == "delete"]


class _Raw(DictStore):
    """A store that lists whatever was put into it, as a foreign tool may have."""

    def __init__(self, items):
        super().__init__()
        self.raw = items

    def _keys(self, path):
        yield from super()._keys(path)
        yield from (key for key in self.raw if key.startswith(path + "/") or not path)


_ESCAPE = """
    import json, os
    from tests.support import world
    from tests.wrappers.test_overlay_marks import FORGED, _Raw
    from zarrstore import DirectoryStore
    from zarrstore.wrappers.overlay import OverlayStore

    world.require_inside()
    os.makedirs("outer/store")
    for name in ("outer/precious", "precious", "outer/store/kept"):
        open(name, "w").write("here")
    with world.EscapeSentinel("outer/store") as sentinel:
        store = OverlayStore(DirectoryStore(os.getcwd()), _Raw(dict.fromkeys(FORGED, b"")))
        store["new"] = b"1"
        store.commit()
        del store["new"]
        store.commit()
    found = sorted(os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names)
    print(json.dumps({"escapes": sentinel.escapes, "found": found}))
"""


def test_no_forged_mark_reaches_a_file_outside_the_root():
    found = world.run_readonly(_ESCAPE)
    assert found == {"escapes": [], "found": ["./outer/precious", "./outer/store/kept", "./precious"]}, json.dumps(
        found
    )


@pytest.mark.parametrize("make_upper", [DictStore, Shelf, lambda: None], ids=["flat", "hierarchical", "LMDB"])
@pytest.mark.parametrize("key", ["x" * 255, "d/" + "y" * 255 + "/z", "/".join(["directory"] * 45)])
def test_a_key_with_the_longest_name_is_deleted_and_stays_so(make_upper, key, tmp_path):
    upper = make_upper()
    upper = LMDBStore(tmp_path / "upper") if upper is None else upper
    lower = {key: b"old", "other": b"1", key + "x"[: len(key) % 2]: b"old"}
    expected = {name: value for name, value in lower.items() if name != key}
    store = OverlayStore(lower, upper)
    del store[key]
    assert dict(store) == dict(OverlayStore(lower, upper)) == expected
    assert OverlayStore(lower, upper).pending() == Pending((), (key,), ())
    store.commit()
    assert (lower, dict(upper)) == (expected, {})
    upper.close()


def test_a_directory_with_the_longest_name_is_removed_and_stays_so():
    lower = {"p/" + "x" * 255 + "/0": b"old", "p/1": b"1"}
    store = OverlayStore(lower, DictStore())
    store.rmdir("p/" + "x" * 255)
    assert dict(OverlayStore(lower, store.upper)) == {"p/1": b"1"}
    assert list(store.upper) != []


# The order of a commit: whatever was flushed, a power cut at any moment shows the old state or the new one.


def test_a_commit_flushes_each_step_before_the_next_one_begins():
    recorder = Recorder()
    lower = recorder.watch(DictStore({"a": b"old", "gone": b"old", "b/c": b"old"}), "lower")
    upper = recorder.watch(DictStore(), "upper")
    store = OverlayStore(lower, upper)
    store["a"] = b"new"
    del store["gone"]
    store.rmdir("b")
    recorder.events.clear()
    store.commit()
    first, *_ = recorder.events
    assert first[:2] == ("upper", "flush")
    # The values before lower is flushed, lower before the first mark goes, the marks before the first value goes.
    recorder.require_order(("lower", "delete"), ("lower", "set"), ("lower", "flush"), ("upper", "rmdir", MARKS))
    removed = [n for n, event in enumerate(recorder.events) if event[:3] == ("upper", "rmdir", MARKS)]
    values = [n for n, event in enumerate(recorder.events) if event[:3] == ("upper", "delete", "a")]
    flushes = [n for n, event in enumerate(recorder.events) if event[:2] == ("upper", "flush")]
    assert any(removed[0] < flush < values[0] for flush in flushes)
    assert flushes[-1] > values[-1]


# Stores that cannot be listed, and batches.


class _Unlistable(CountingStore):
    def __init__(self, inner):
        super().__init__(inner)
        self.capabilities = replace(self.inner.capabilities, listable=False)

    def _refuse(self, *args):
        raise UnsupportedOperation("list", self)

    _keys = _count = _listdir = _refuse


@pytest.mark.parametrize("make_upper", [DictStore, Shelf])
def test_over_a_store_that_cannot_be_listed_changes_are_kept_and_committed(make_upper):
    held = {"a/0": b"old", "a/1": b"old", "b": b"old"}
    store = OverlayStore(_Unlistable(held), make_upper())
    assert not store.capabilities.listable
    store["a/0"] = b"new"
    store["new/x"] = b"1"
    del store["a/1"]
    assert (store.get("a/0"), store.get("a/1"), store["b"], store["new/x"]) == (b"new", None, b"old", b"1")
    store.commit()
    assert held == {"a/0": b"new", "b": b"old", "new/x": b"1"}
    store.rmdir("a")
    assert "a/0" not in store
    assert "a/0" in held


def test_a_batch_over_two_stores_that_wait_is_a_batch_of_each():
    lower = CountingStore(SlowStore({f"a/{n}": b"old" for n in range(100)}, 0))
    upper = CountingStore(SlowStore({f"a/{n}": b"new" for n in range(0, 100, 2)}, 0))
    store = OverlayStore(lower, upper)
    lower.reset(), upper.reset()
    found = dict(store.getitems([f"a/{n}" for n in range(100)]))
    assert found == {f"a/{n}": b"old" if n % 2 else b"new" for n in range(100)}
    assert lower.calls["_get"] + lower.calls["_contains"] + upper.calls["_get"] + upper.calls["_contains"] == 0
    # 2, 16 and the rest, until it is known how large values are; each is asked of both stores at most once.
    assert max(lower.calls["_get_many"], upper.calls["_get_many"]) <= 3


def test_deleting_many_keys_asks_the_store_below_once_for_each_directory():
    lower = CountingStore(SlowStore({f"a/{n}": b"old" for n in range(100)}, 0))
    store = OverlayStore(lower, DictStore())
    lower.reset()
    store.delitems([f"a/{n}" for n in range(100)] + ["a/absent"])
    assert lower.calls == {"_listdir": 1}
    assert list(store) == []
    assert "a/absent" not in store.pending().deleted
