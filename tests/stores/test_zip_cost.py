"""What calls of ZipStore cost, in counts: copies of a value, steps of Python, bytes a key, reads of the file."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stores.test_zip_archives import made
from tests.support.cases import each_of
from tests.support.collector import not_collecting
from zarrstore.stores.zip import ZipStore
from zarrstore.stores.zip import directory as zip_directory
from zarrstore.stores.zip import file as zip_file
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip import records as zip_records
from zarrstore.stores.zip.builder import EntryBuilder
from zarrstore.stores.zip.codec import crc32_function
from zarrstore.stores.zip.names import SortedNames


def peak_of(act: Callable[[], object]) -> int:
    """Return the bytes of memory that a call has at most, beyond what there was."""
    tracemalloc.start()
    try:
        kept = act()
        return tracemalloc.get_traced_memory()[1] - (len(kept) if isinstance(kept, bytes) else 0)
    finally:
        tracemalloc.stop()


def steps_of(act: Callable[[], object]) -> int:
    """Return how many lines of the package and calls of C a call makes."""
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    with not_collecting():
        sys.setprofile(profile)
        try:
            act()
        finally:
            sys.setprofile(None)
    return count


# Copies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [1 << 20, 4 << 20])
@pytest.mark.parametrize("kind", ["bytes", "array", "view", "fortran", "strided"])
def test_a_large_value_is_written_from_the_caller_s_memory(tmp_path, nbytes, kind):
    content = os.urandom(nbytes)
    array = np.frombuffer(content, dtype="f8")
    value: Any = {
        "bytes": content,
        "array": array,
        "view": memoryview(bytearray(content)),
        "fortran": np.asfortranarray(array.reshape(-1, 64)),
        "strided": array[::2],
    }[kind]
    with ZipStore(tmp_path / "a.zip") as store:
        store["first"] = b"1"
        copies = 1 if kind == "strided" else 0
        for act in (
            lambda: store.__setitem__("a", value),
            lambda: store.setitems({"b": value, "c": value}),
            lambda: store.setitems(iter([("d", value)])),
        ):
            assert peak_of(act) < (copies + 0.1) * nbytes, f"more than {copies} copies"
        expected = value.tobytes("A") if kind != "bytes" else value
        assert peak_of(lambda: store["a"]) < 0.1 * nbytes, "a value is read into its own bytes and nowhere else"
        assert [store[key] for key in "abcd"] == [expected] * 4


def test_a_buffer_that_is_filled_anew_for_each_item_is_no_trap(tmp_path):
    buffer = bytearray(50_000)

    def items(size):
        for i in range(20):
            buffer[:] = bytes([i]) * len(buffer)
            yield f"{size}/{i}", memoryview(buffer)[:size]

    with ZipStore(tmp_path / "a.zip") as store:
        for size in (100, 50_000):
            store.setitems(items(size))
        for size in (100, 50_000):
            assert [store[f"{size}/{i}"] for i in range(20)] == [bytes([i]) * size for i in range(20)]
        store["a"] = buffer
        buffer[:] = bytes(len(buffer))
        assert store["a"] == bytes([19]) * len(buffer)


def test_packed_buffers_are_read_as_they_were_given(tmp_path):
    array = np.arange(100_000, dtype="i4").reshape(100, 1000)
    for compression in (8, 12, 14):
        with ZipStore(tmp_path / f"{compression}.zip", compression=compression) as store:
            store["a"] = array
            store.setitems({"b": memoryview(array), "c": bytearray(b"x")})
            assert (store["a"], store["b"], store["c"]) == (array.tobytes(), array.tobytes(), b"x")


def test_a_small_set_is_one_write_and_a_large_one_too(tmp_path, monkeypatch):
    calls: list[str] = []
    for module in (zip_file, sys.modules["zarrstore.stores.zip.writer"]):
        real = module.pwrite
        monkeypatch.setattr(module, "pwrite", lambda *args, real=real: (calls.append("pwrite"), real(*args))[1])
    pwritev = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: (calls.append("pwritev"), pwritev(*args))[1])
    with ZipStore(tmp_path / "a.zip") as store:
        store["first"] = b"1"
        for value, call in ((b"x" * 1000, "pwrite"), (b"x" * 4_000_000, "pwritev")):
            calls.clear()
            store["a"] = value
            assert calls == [call]
        calls.clear()
        store.setitems({f"k/{i}": b"x" * 1000 for i in range(500)})
        assert calls == ["pwrite"]


# The two builders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"", b"x", os.urandom(30_000)])
@pytest.mark.parametrize("key", ["a", "foo/bar/0.0", "x" * 65_535])
def test_both_builders_make_the_same_entry(monkeypatch, key, value):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    builder = EntryBuilder("", crc32_function())
    builder.tick()
    for offset in (1, 70_000, fmt.LIMIT - 1):
        lead, fields, raw, record = builder.build_plain(key, value, len(value), offset)
        entry = builder.build(key, fmt.STORED, builder.crc32(value), value, len(value), offset)
        assert lead + fields + raw == entry.header
        assert record == entry.record


def test_the_time_of_entries_follows_the_clock(monkeypatch):
    builder = EntryBuilder("", crc32_function())
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    stamps = []
    for now in (1e9, 1e9 + 0.9, 1e9 + 2, 1e9 - 7200):  # a clock may be set back
        monkeypatch.setattr("zarrstore.stores.zip.builder.clock", lambda now=now: now)
        stamps.append(builder.tick())
        assert builder.build_plain("a", b"", 0, 1)[0][10:14] == stamps[-1].to_bytes(4, "little")
    assert stamps[0] == stamps[1]
    assert len(set(stamps)) == 3


# The directory -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """An archive of 60,000 entries."""
    path = tmp_path_factory.mktemp("many") / "a.zip"
    with ZipStore(path) as store:
        store.setitems((f"foo/{i // 300}/{i % 300}", b"x") for i in range(60_000))
    return path


def test_listing_all_takes_no_step_for_each_entry(many):
    def opened_and_listed() -> None:
        assert len(list(ZipStore(many, mode="r"))) == 60_000

    assert steps_of(opened_and_listed) < 2000


def test_an_absent_key_that_stands_in_all_others_takes_few_steps(many):
    store = ZipStore(many, mode="r")
    for key in ("foo", "0", "o", "foo/1", "foo/1/2999"):
        assert steps_of(lambda key=key: store.get(key)) < 4000  # of which most compile a pattern
        assert store.get(key) is None
    assert store._archive.directory._index is None
    assert store["foo/1/299"] == b"x"
    assert store["foo/0/0"] == b"x"


def test_a_search_finds_the_last_of_one_name_also_where_many_contain_it(tmp_path):
    path = tmp_path / "a.zip"
    items = [(f"foo/{i}", b"x" * 40) for i in range(3000)]
    items[10:10] = [("foo", b"10")]
    items[1000:1000] = [("foo", b"1000")]
    with pytest.warns(UserWarning, match="Duplicate"):
        path.write_bytes(made(items))
    store = ZipStore(path, mode="r")
    assert store._archive.directory._index is None
    assert store["foo"] == b"1000"
    assert store._archive.directory._index is None
    assert len(store) == 3001
    assert store["foo"] == b"1000"


def test_work_on_one_subtree_takes_few_steps_whatever_else_there_is(many, tmp_path):
    path = tmp_path / "a.zip"
    shutil.copy(many, path)
    with ZipStore(path, compact=False) as store:
        store["foo/7/new"] = b"n"
        store.listdir("foo/7")  # sorts, once
        acts: list[Callable[[], object]] = [
            lambda: store.__setitem__("foo/7/other", b"o"),
            lambda: store.listdir("foo/7/none"),
            lambda: store.rename("foo/7/new", "foo/7/newer"),
            lambda: store.__delitem__("foo/7/newer"),
            lambda: store.rmdir("foo/absent"),
            lambda: store.__setitem__("bar/x", b"o"),
            lambda: store.rmdir("bar"),
            lambda: list(store.keys_below("bar")),
        ]
        for number, act in enumerate(acts):
            assert steps_of(act) < 400, f"act {number}"
        assert len(store.listdir("foo/7")) == 301
        assert store.listdir() == ["foo"]
        assert len(store) == 60_001


def test_many_changes_between_listings_are_sorted_at_once_and_hold_no_memory(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        store["a/0"] = b"1"
        assert store.listdir("a") == ["0"]
        for _ in range(5000):
            store["b/x"] = b"1"
            del store["b/x"]
        assert store._archive.directory._touched is None
        store.setitems({f"c/{i}": b"" for i in range(500)})
        assert (store.listdir(), len(store.listdir("c"))) == (["a", "c"], 500)


def test_an_open_archive_takes_so_many_bytes_a_key(many):
    def opened() -> ZipStore:
        store = ZipStore(many, mode="r")
        len(store)
        store._archive.directory.index
        return store

    gc.collect()
    tracemalloc.start()
    store = opened()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held / 60_000 < 230
    assert len(store) == 60_000


# Names in order ------------------------------------------------------------------------------------------------------


def test_names_put_and_dropped_one_by_one_stay_sorted(monkeypatch):
    import random

    monkeypatch.setattr("zarrstore.stores.zip.names._BLOCK", 4)
    chance = random.Random(0)
    pool = [f"{a}/{b}" for a in ("a", "ab", "a.b", "é", "a/b") for b in ("x", "y/z", "y", "-", "0")] + ["a", "b", "a/b"]
    expected = set(chance.sample(pool, 10))
    names = SortedNames(expected)
    for _ in range(3000):
        name = chance.choice(pool)
        there = chance.random() < 0.5
        (expected.add if there else expected.discard)(name)
        names.put(name, there)
        path = chance.choice(["", "a", "a/b", "ab", "a.b", "é", "b", "none"])
        lead = path + "/" if path else ""
        below = sorted(name for name in expected if name.startswith(lead))
        assert names.below(path) == below
        assert names.children(path) == {name[len(lead) :].partition("/")[0] for name in below}


# Reading the directory -----------------------------------------------------------------------------------------------


def _directory(count: int, **changes: bytes) -> list[bytes]:
    builder = EntryBuilder("", crc32_function())
    builder.tick()
    return [builder.build_plain(f"k/{i}", b"x" * 10, 10, 1 + 100 * i)[3] for i in range(count)]


def test_a_plain_directory_is_read_as_one_that_is_read_record_by_record():
    for count in (2, 3, 300):
        records = _directory(count)
        raw = fmt.directory_of(records)
        assert zip_records._parse_plain(raw, count) == zip_records._parse_each("a.zip", raw, count)
        assert zip_records._are_in_order(records)
        assert not zip_records._are_in_order(records[::-1])
        assert not zip_records._are_in_order([records[0], *records])
    assert zip_records._are_in_order([])


@each_of(
    ("at", "change"),
    [(24, 1), (24, -1), (26, 1), (28, 1), (25, 1), (27, 1), (29, 1)],
    ids=["longer", "shorter", "extra", "comment", "far longer", "far more extra", "far more comment"],
)
@each_of("which", [0, 1, 50, 99])
def test_a_record_whose_lengths_lie_is_not_taken_for_a_plain_one(at, change, which):
    records = _directory(100)
    record = bytearray(records[which])
    record[at] += change
    records[which] = bytes(record)
    assert zip_records._parse_plain(fmt.directory_of(records), 100) is None


@each_of("which", [0, 1, 50, 98])
@each_of("at", [16, 18, 19, 39, 41], ids=["size", "size << 16", "size << 24", "place << 8", "place << 24"])
def test_entries_that_share_bytes_are_seen_wherever_they_stand(which, at):
    records = _directory(100)
    record = bytearray(records[which])
    record[at] |= 0x60
    records[which] = bytes(record)
    assert not zip_records._are_in_order(records)


def test_a_name_with_a_signature_in_it_is_read_record_by_record(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_directory, "_SMALL", 0)
    with ZipStore(tmp_path / "a.zip") as store:
        for key in ("a", "PK\1\2", "b", "PK\1\2" * 20, "c"):
            store[key] = key.encode()
    store = ZipStore(tmp_path / "a.zip", mode="r")
    assert sorted(store) == sorted(["a", "PK\1\2", "b", "PK\1\2" * 20, "c"])
    assert all(store[key] == key.encode() for key in store)


def test_names_may_begin_and_end_with_none():
    names = SortedNames([])
    for there in (False, True, True, False, False, True):
        names.put("a", there)
        assert names.below("") == (["a"] if there else [])


@pytest.mark.parametrize("at", [16, 38], ids=["size", "place"])
@pytest.mark.parametrize("which", [0, 99])
def test_numbers_that_stand_in_zip64_fields_are_not_compared_with_the_others(at, which):
    records = _directory(100)
    record = bytearray(records[which])
    record[at : at + 4] = b"\xff" * 4
    records[which] = bytes(record)
    assert not zip_records._are_in_order(records)


def test_a_record_counts_only_in_line_with_all_that_can_be_before_it(monkeypatch):
    monkeypatch.setattr(zip_directory, "_LONGEST_RECORD", 60)
    in_line = zip_directory.Directory._is_in_line
    assert not in_line(b"junk" + fmt.CENTRAL + b"x" * 50, 4), "a directory begins with a record"
    raw = b"x" * 100 + fmt.CENTRAL + b"ab"  # as within a comment: too short for a record
    assert not in_line(raw + fmt.CENTRAL + b"x" * 50, len(raw))
    whole = b"".join(fmt.CENTRAL + record for record in _directory(5))
    assert in_line(whole, whole.rindex(fmt.CENTRAL))


def test_no_byte_of_an_archive_is_written_twice(tmp_path, monkeypatch):
    written: list[int] = []
    genuine = zip_file.OSFile.write

    def recording(self: zip_file.OSFile, parts: Any, offset: int) -> None:
        written.append(sum(map(len, parts)))
        genuine(self, parts, offset)

    monkeypatch.setattr(zip_file.OSFile, "write", recording)
    with ZipStore(tmp_path / "a.zip", mode="x") as store:
        store["a"] = b"x" * 1000
    assert sum(written) == os.path.getsize(tmp_path / "a.zip")


def test_packing_anew_what_has_nothing_to_give_back_gives_nothing_back(tmp_path):
    with ZipStore(tmp_path / "a.zip") as store:
        store.update({f"k/{n}": bytes(100) for n in range(10)})
        assert store.repack() == 0
