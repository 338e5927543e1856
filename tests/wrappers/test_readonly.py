from __future__ import annotations

import pytest

from tests.support.cases import each_of
from zarrstore import DictStore
from zarrstore.base import WRITES
from zarrstore.errors import InvalidKeyError, ReadOnlyError
from zarrstore.refuse import RefuseWrites
from zarrstore.wrappers.readonly import ReadOnlyStore

ITEMS = {"a/0.0": b"1", "b": b"2"}


@each_of(
    "write",
    [
        lambda store: store.__setitem__("a/0.0", b"new"),
        lambda store: store.__delitem__("a/0.0"),
        lambda store: store.__delitem__("absent"),
        lambda store: store.setitems({"c": b"3"}),
        lambda store: store.setitems({}),
        lambda store: store.update(c=b"3"),
        lambda store: store.delitems(["b"]),
        lambda store: store.delitems([]),
        lambda store: store.rmdir("a"),
        lambda store: store.rmdir("nothing"),
        lambda store: store.rename("b", "c"),
        lambda store: store.clear(),
        lambda store: store.pop("b"),
        lambda store: store.popitem(),
        lambda store: store.setdefault("c", b"3"),
    ],
)
def test_every_way_to_write_is_refused_and_changes_nothing(write):
    inner = DictStore(dict(ITEMS))
    with pytest.raises(ReadOnlyError, match="is read-only"):
        write(ReadOnlyStore(inner))
    assert dict(inner) == ITEMS


def test_what_only_reads_is_allowed():
    store = ReadOnlyStore(dict(ITEMS))
    store.rename("b", "b")
    store.flush()
    assert store.setdefault("b", b"other") == b"2"
    assert (store.is_writeable(), store.is_erasable(), store.is_listable()) == (False, False, True)
    assert store == dict(ITEMS)


def test_the_refusal_names_the_key_and_the_store():
    with pytest.raises(ReadOnlyError) as caught:
        ReadOnlyStore(DictStore())["a/0.0"] = b"1"
    assert str(caught.value) == "cannot write 'a/0.0': ReadOnlyStore(DictStore(<0 values>)) is read-only"
    with pytest.raises(InvalidKeyError):
        ReadOnlyStore(DictStore())["../x"] = b"1"


def test_the_refusal_leaves_out_no_driver_method_that_writes():
    assert [name for name in WRITES if name not in vars(RefuseWrites)] == []
