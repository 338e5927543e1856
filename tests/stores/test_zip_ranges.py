"""An archive behind requests: how many of them each call takes."""

from __future__ import annotations

import gc
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.stores.test_zip_archives import VALUES, made
from zarrstore import DictStore, copy_store
from zarrstore.base import Capabilities
from zarrstore.errors import (
    ClosedStoreError,
    DamagedStoreError,
    ReadOnlyError,
    StoreNotFoundError,
    StoreReadError,
    UnsupportedOperation,
    ValueTooLargeError,
)
from zarrstore.stores.zip import ZipStore
from zarrstore.stores.zip.ranges import RangeFile, ValueRanges
from zarrstore.testing import StoreConformance


class Ranges(DictStore):
    """A store that serves ranges and notes each request."""

    capabilities = Capabilities(ranged=True)

    def __init__(self, items: Any) -> None:
        super().__init__()
        self.update(items)
        self.requests: list[object] = []

    def _get(self, key: str) -> bytes:
        raise AssertionError("the whole archive was read")

    def _contains(self, key: str) -> bool:
        raise AssertionError("not needed")

    def _nbytes(self, key: str) -> int:
        self.requests.append("size")
        return len(self.root[key])

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        self.requests.append((start, stop))
        return self.root[key][start:stop]  # type: ignore[no-any-return]

    def asked(self) -> int:
        """Return the number of requests since the last call."""
        count = len(self.requests)
        self.requests.clear()
        return count


class Bare:
    """The least that is a source of ranges."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.requests = 0

    def size(self) -> int:
        return len(self.content)

    def getrange(self, start: int, stop: int) -> bytes:
        self.requests += 1
        return self.content[start:stop]


def archive_of(path: Path, count: int, size: int = 10, **options: Any) -> bytes:
    with ZipStore(path, **options) as store:
        store.setitems((f"foo/bar/{i}", b"%d" % (i % 10) * size) for i in range(count))
    return path.read_bytes()


class TestZipStoreOverRanges(StoreConformance):
    def make_store(self, tmp_path: Path) -> Any:
        return self.make_filled(tmp_path, {})

    def make_filled(self, tmp_path: Path, items: Any) -> Any:
        with ZipStore(tmp_path / "a.zip", mode="w") as store:
            store.update(items)
        return ZipStore.from_store({"a.zip": (tmp_path / "a.zip").read_bytes()}, "a.zip")


@pytest.mark.parametrize(("count", "requests"), [(0, 2), (10, 2), (10_000, 2), (100_000, 3)])
def test_opening_takes_at_most_three_requests_whatever_the_number_of_entries(tmp_path, count, requests):
    source = Ranges({"a.zip": archive_of(tmp_path / "a.zip", count)})
    store = ZipStore.from_store(source, "a.zip")
    assert source.requests[0] == "size"
    assert source.asked() == requests
    assert len(store) == count
    assert store.listdir("foo/bar") == sorted(map(str, range(count)))
    assert "foo/absent" not in store
    assert source.asked() == 0, "what the directory tells takes no request"
    if count > 1:
        assert store["foo/bar/1"] == b"1" * 10
        assert source.asked() == 1


@pytest.mark.parametrize("compression", [0, 8, 14])
@pytest.mark.parametrize("size", [0, 10, 40_000, 3_000_000])
def test_a_value_takes_one_request(tmp_path, size, compression):
    source = Ranges({"a.zip": archive_of(tmp_path / "a.zip", 4, size, compression=compression)})
    store = ZipStore.from_store(source, "a.zip")
    source.asked()
    for i in range(4):
        assert store[f"foo/bar/{i}"] == b"%d" % i * size
        assert source.asked() == 1
        assert store.getsize(f"foo/bar/{i}") == size
        assert source.asked() == 0


def test_an_entry_with_a_long_extra_field_or_beyond_4_gib_is_read_still(tmp_path):
    info = zipfile.ZipInfo("a")
    info.extra = b"\x99\x99\x40\x00" + bytes(64)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"value")
    content = (tmp_path / "a.zip").read_bytes()
    source = Ranges({"a.zip": content, "before.zip": bytes(5000) + content})
    for key in source:
        assert dict(ZipStore.from_store(source, key)) == {"a": b"value"}


def test_a_part_takes_one_request_and_the_first_of_each_value_one_more(tmp_path):
    source = Ranges({"a.zip": archive_of(tmp_path / "a.zip", 3, 500_000)})
    store = ZipStore.from_store(source, "a.zip")
    source.asked()
    for key, requests in (("foo/bar/1", 2), ("foo/bar/1", 1), ("foo/bar/2", 2), ("foo/bar/1", 1)):
        assert store.getrange(key, 300_000, 300_010) == key[-1:].encode() * 10
        assert source.asked() == requests
    assert store.getsuffix("foo/bar/1", 7) == b"1" * 7
    assert source.asked() == 1
    assert store.getranges("foo/bar/1", [(0, 10), (400_000, 400_001), (20, 30)]) == [b"1" * 10, b"1", b"1" * 10]
    assert source.asked() == 2


def test_values_of_a_batch_that_lie_close_together_take_one_request(tmp_path):
    keys = [f"foo/bar/{i}" for i in range(200)]
    source = Ranges({"a.zip": archive_of(tmp_path / "a.zip", 300, 20_000)})
    store = ZipStore.from_store(source, "a.zip")
    source.asked()
    shuffled = random.Random(0).sample(keys, len(keys))
    found = dict(store.getitems([*shuffled, "absent"]))
    assert found == {key: key[-1:].encode() * 20_000 for key in keys}
    assert source.asked() == 1
    assert len(dict(store.getitems(["foo/bar/0", "foo/bar/299"]))) == 2
    assert source.asked() == 2, "what lies between is not read"


def test_a_batch_larger_than_the_memory_it_may_take_is_read_in_pieces(tmp_path):
    source = Ranges({"a.zip": archive_of(tmp_path / "a.zip", 60, 1_000_000)})
    store = ZipStore.from_store(source, "a.zip")
    source.asked()
    for key, value in store.getitems([f"foo/bar/{i}" for i in range(60)]).items():
        assert value == key[-1:].encode() * 1_000_000
    spans = [request for request in source.requests if request != "size"]
    assert len(spans) in range(4, 9)
    assert max(stop - start for start, stop in spans) < 20 << 20


def test_copying_out_of_it_takes_few_requests(tmp_path):
    source = Ranges({"a.zip": archive_of(tmp_path / "a.zip", 1000, 1000)})
    dest: dict[str, bytes] = {}
    copy_store(ZipStore.from_store(source, "a.zip"), dest)
    assert len(dest) == 1000
    assert source.asked() < 20


def test_damage_packed_values_and_limits_are_told_as_of_a_file(tmp_path):
    content = bytearray(made(VALUES, 8))
    content[35] ^= 1
    store = ZipStore.from_store({"a.zip": bytes(content)}, "a.zip", max_value_size=70_000)
    with pytest.raises(DamagedStoreError, match="has a damaged entry 'a'"):
        store["a"]
    with pytest.raises(DamagedStoreError, match="has a damaged entry 'a'"):
        dict(store.getitems(["a", "é"]))
    with pytest.raises(ValueTooLargeError):
        dict(store.getitems(["b/c"]))
    assert dict(store.getitems(["é", "b/empty"])) == {"é": b"accent", "b/empty": b""}
    with pytest.raises(DamagedStoreError, match="4 of its entries are whole"):
        ZipStore.from_store({"a.zip": made(VALUES)[:-3]}, "a.zip")
    with pytest.raises(ReadOnlyError):
        store["x"] = b"1"


def test_any_object_with_two_methods_is_a_source(tmp_path):
    source = Bare(archive_of(tmp_path / "a.zip", 50, 1000))
    with ZipStore(source) as store:
        assert len(dict(store.getitems(list(store)))) == 50
        assert source.requests == 2
        assert not store.is_writeable()
    for mode in ("w", "r+"):
        with pytest.raises(UnsupportedOperation):
            ZipStore(source, mode=mode)


def test_what_is_absent_is_not_a_missing_key_of_the_archive(tmp_path):
    source = Ranges({"a.zip": archive_of(tmp_path / "a.zip", 3)})
    with pytest.raises(StoreNotFoundError, match=r"b\.zip"):
        ZipStore.from_store(source, "b.zip")
    store = ZipStore.from_store(source, "a.zip")
    del source.root["a.zip"]

    def deleted(key: str, start: int, stop: int | None) -> bytes:
        raise KeyError(key)

    source._get_range = deleted  # type: ignore[method-assign]
    for act in (lambda: store["foo/bar/1"], lambda: store.getrange("foo/bar/1", 0, 1)):
        with pytest.raises(StoreReadError, match="deleted while it was read"):
            act()


def test_it_pickles_with_its_inner_store_and_closes_it(tmp_path):
    with ZipStore(tmp_path / "outer.zip") as outer:
        outer["inner.zip"] = made(VALUES)
    outer = ZipStore(tmp_path / "outer.zip", mode="r")
    store = ZipStore.from_store(outer, "inner.zip")
    again = pickle.loads(pickle.dumps(store))
    assert dict(again) == dict(store) == VALUES
    store.close()
    with pytest.raises(ClosedStoreError):
        outer["inner.zip"]
    with pytest.raises(ClosedStoreError):
        store["a"]
    assert again["a"] == VALUES["a"]
    again.close()
    gc.collect()


def test_an_empty_object_is_a_damaged_archive_whose_size_is_known():
    source = ValueRanges(DictStore({"a.zip": b""}), "a.zip")
    assert (source.size(), RangeFile(source).size()) == (0, 0)
    assert RangeFile(source).label == "a.zip"


def test_parts_to_the_end_are_asked_of_a_source_that_knows_no_batches():
    class Source:
        def size(self) -> int:
            return 10

        def getrange(self, start: int, stop: int) -> bytes:
            asked.append((start, stop))
            return b"0123456789"[start:stop]

    asked: list[tuple[int, int]] = []
    file = RangeFile(Source())
    assert file.pread_many([(8, 20), (0, 2), (9, 10)]) == [b"89", b"01", b"9"]
    asked.clear()
    assert file.pread_many([(0, 2), (1, 3)]) == [b"01", b"12"]
    assert max(stop for _, stop in asked) == 3, "no more than is needed"
    assert "Source object" in file.label
