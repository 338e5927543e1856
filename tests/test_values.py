"""What goes in as any buffer and comes out as bytes."""

from __future__ import annotations

import array
import mmap
from pathlib import Path

import numpy as np
import pytest

from tests.support import roster
from tests.support.cases import each_of
from zarrstore import as_store
from zarrstore.values import as_buffer, as_bytes, nbytes

GRID = np.arange(24, dtype="<i2").reshape(2, 3, 4)
BUFFERS = [
    (b"abc", b"abc"),
    (bytearray(b"abc"), b"abc"),
    (memoryview(b"abcdef")[::-2], b"fdb"),
    (memoryview(GRID), GRID.tobytes()),
    (array.array("d", [1.5]), array.array("d", [1.5]).tobytes()),
    (GRID, GRID.tobytes("C")),
    (np.asfortranarray(GRID), GRID.tobytes("F")),
    (GRID.transpose(1, 0, 2), GRID.transpose(1, 0, 2).tobytes("C")),
    (GRID[:, ::2, ::-1], GRID[:, ::2, ::-1].tobytes("C")),
    (np.array(["NaT", "2020"], "M8[ns]"), np.array(["NaT", "2020"], "M8[ns]").view("i8").tobytes()),
    (np.array([5], "m8[s]"), (5).to_bytes(8, "little")),
    (np.array(["é"]), "é".encode("utf-32-le")),
    (np.array(b"ab"), b"ab"),
    (np.float32(1), b"\0\0\x80?"),
    (np.empty((0, 5)), b""),
]


@each_of(("value", "expected"), BUFFERS, ids=lambda v: type(v).__name__)
def test_any_buffer_becomes_its_bytes_in_memory_order(value: object, expected: bytes) -> None:
    result = as_bytes(value)
    assert type(result) is bytes
    assert result == expected
    assert nbytes(value) == len(expected)


def test_bytes_are_not_copied_and_their_subclasses_are() -> None:
    class Mine(bytes):
        pass

    plain = b"abc"
    assert as_bytes(plain) is plain
    assert type(as_bytes(Mine(b"abc"))) is bytes


def test_a_memory_map_is_a_buffer() -> None:
    with mmap.mmap(-1, 10) as mapped:
        mapped[:3] = b"abc"
        assert as_bytes(mapped) == b"abc" + bytes(7)


@each_of(
    "value", ["text", None, 1, 1.5, [1], (1,), {}, np.array([None]), np.zeros(1, "O,i4"), memoryview(np.array([None]))]
)
def test_what_is_no_buffer_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot store"):
        as_bytes(value)


def test_an_unknown_size_is_minus_one() -> None:
    assert nbytes("text") == -1
    assert nbytes(None) == -1


@each_of(("value", "expected"), BUFFERS, ids=lambda v: type(v).__name__)
def test_any_buffer_becomes_a_flat_view_of_the_same_bytes(value: object, expected: bytes) -> None:
    result = as_buffer(value)
    assert bytes(result) == expected
    assert len(result) == len(expected)
    if isinstance(result, memoryview):
        assert (result.format, result.ndim, result.readonly) == ("B", 1, True)


@each_of(
    "value",
    [
        GRID,
        np.asfortranarray(GRID),
        bytearray(b"abc"),
        memoryview(GRID),
        array.array("d", [1.5]),
        np.array(["2020"], "M8[ns]"),
        np.zeros(2, "i4,f8"),
        np.array(5),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_a_contiguous_buffer_is_not_copied(value: object) -> None:
    view = as_buffer(value)
    assert isinstance(view, memoryview)
    first = np.frombuffer(view, "u1")
    if isinstance(value, np.ndarray):
        assert np.shares_memory(first, value)
    else:
        assert np.shares_memory(first, np.frombuffer(value, "u1"))  # type: ignore[call-overload]


@pytest.mark.parametrize("value", ["text", None, 1, [1], np.array([object()]), np.zeros(1, "i4,O")], ids=range(6))
def test_what_is_no_buffer_is_refused_as_a_view_too(value: object) -> None:
    with pytest.raises(TypeError, match="cannot store"):
        as_buffer(value)


@pytest.mark.parametrize("name", roster.STORES)
def test_a_part_of_a_missing_value_is_missing_however_small(name: str, tmp_path: Path) -> None:
    store = as_store(roster.STORES[name](tmp_path))
    store["a"] = b"value"
    for missing in (
        lambda: store.getrange("b", 0, 0),
        lambda: store.getrange("b", 3, 3),
        lambda: store.getrange("b", 5, 2),
        lambda: store.getranges("b", [(0, 0)]),
        lambda: store.getsuffix("b", 0),
    ):
        with pytest.raises(KeyError):
            missing()
    assert (store.getrange("a", 2, 2), store.getsuffix("a", 0), store.getranges("a", [(1, 1)])) == (b"", b"", [b""])
    store.close()
