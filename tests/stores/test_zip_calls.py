"""ZipStore where system calls do less than was asked, and where sizes pass what one call or 32 bits take."""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stores.test_zip_archives import VALUES, made
from zarrstore.stores.zip import ZipStore
from zarrstore.stores.zip import archive as zip_archive
from zarrstore.stores.zip import file as zip_file
from zarrstore.stores.zip import format as fmt
from zarrstore.stores.zip import writer as zip_writer
from zarrstore.testing import tree


def _patch(
    monkeypatch: pytest.MonkeyPatch, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    real = getattr(zip_file, name)
    for module in (zip_file, zip_archive, zip_writer):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, wrap(real))


@pytest.fixture
def short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read returns a third of what it could."""
    _patch(monkeypatch, "pread", lambda real: lambda fd, n, offset: real(fd, n - n * 2 // 3, offset))


@pytest.fixture
def short_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write takes a third of what it is given."""
    _patch(
        monkeypatch,
        "pwrite",
        lambda real: lambda fd, data, offset: real(fd, memoryview(data)[: max(1, len(data) // 3)], offset),
    )
    pwritev = os.pwritev

    def short(fd: int, parts: Any, offset: int) -> int:
        joined = b"".join(parts)
        return pwritev(fd, [joined[: max(1, len(joined) // 3)]], offset)

    monkeypatch.setattr(os, "pwritev", short)


@pytest.mark.parametrize("compression", [0, 8])
def test_reads_that_come_short_are_read_on(tmp_path, short_reads, compression):
    (tmp_path / "a.zip").write_bytes(made(VALUES, compression))
    with ZipStore(tmp_path / "a.zip") as store:
        assert dict(store) == VALUES
        assert store.getrange("b/c", 5, 70_000) == VALUES["b/c"][5:70_000]
        assert store.getsuffix("b/c", 70_000) == VALUES["b/c"][-70_000:]
        store.rename("b", "d")
        store.repack()
        assert store["d/c"] == VALUES["b/c"]
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content[:-5])
    assert ZipStore.recover(tmp_path / "a.zip").kept == 4


def test_writes_that_take_less_are_written_on(tmp_path, short_writes):
    expected = tree()
    with ZipStore(tmp_path / "a.zip") as store:
        for key, value in expected.items():
            store[key] = value
        store.setitems(expected)
        store["large"] = expected["large"] = os.urandom(200_000)
        store.rename("large", "larger")
        expected["larger"] = expected.pop("large")
        assert dict(store) == expected
    assert dict(ZipStore(tmp_path / "a.zip", mode="r")) == expected
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None


def test_no_call_is_asked_for_more_than_every_system_takes(tmp_path, monkeypatch):
    most = 5000
    monkeypatch.setattr(zip_file, "_MOST", most)
    monkeypatch.setattr(zip_archive, "_TRUSTED", most)
    asked: list[int] = []

    def limited(real):
        def call(fd, what, offset):
            size = what if isinstance(what, int) else len(what)
            asked.append(size)
            if size > most + 100_000 * (size < 33_000):  # the short way is never near a limit
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(fd, what, offset)

        return call

    for name in ("pread", "pwrite"):
        _patch(monkeypatch, name, limited)
    value = os.urandom(123_456)
    with ZipStore(tmp_path / "a.zip") as store:
        store["first"] = b"1"
        store["a"] = value
        store.setitems({"b": value, "c": b"2"})
        assert store["a"] == value == store["b"]
        assert store.getrange("a", 10, 100_000) == value[10:100_000]
    assert max(asked) <= 33_000
    assert ZipStore(tmp_path / "a.zip", mode="r")["a"] == value


def _sparse(path: Path, nbytes: int) -> bytes:
    """Make an archive whose value "a" is `nbytes` long and a hole but for its last bytes; return those."""
    last = b"the last bytes"
    header = fmt.local_header(b"a", 0, 0, 0, 1, nbytes, nbytes)
    record = fmt.central_record(header, b"a", nbytes, nbytes, 0)
    later = fmt.local_header(b"b", 0, 0, 0, 0, 0, 0)
    place = len(header) + nbytes
    listing = fmt.directory_of([record, fmt.central_record(later, b"b", 0, 0, place)])
    with open(path, "wb") as file:
        file.write(header)
        file.seek(place - len(last))
        file.write(last + later + listing)
        file.write(fmt.end_records(2, len(listing), place + len(later)))
    return last


@pytest.mark.parametrize("nbytes", [(2 << 30) - 1, (2 << 30) + 1, (4 << 30) - 1, (4 << 30) + 1, (5 << 30) + 7])
def test_parts_of_values_around_2_and_4_gib_are_read(tmp_path, nbytes):
    last = _sparse(tmp_path / "a.zip", nbytes)
    for mode in ("r", "a"):
        with ZipStore(tmp_path / "a.zip", mode=mode, compact=False) as store:
            assert store.getsize("a") == nbytes
            assert store.getsuffix("a", 5) == last[-5:]
            assert store.getrange("a", nbytes - len(last)) == last
            assert store.getrange("a", nbytes - 5, nbytes + 100) == last[-5:]
            assert store.getranges("a", [(0, 3), (nbytes - 5, None)]) == [bytes(3), last[-5:]]
            assert store["b"] == b""
            if mode == "a":
                store["c"] = b"3"
    assert dict(ZipStore(tmp_path / "a.zip", mode="r").getitems(["b", "c"])) == {"b": b"", "c": b"3"}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.getinfo("a").file_size == nbytes
        assert archive.read("c") == b"3"


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("nbytes", [(2 << 30) + 1, (4 << 30) + 1])
def test_values_above_2_and_4_gib_are_written_and_read_whole(tmp_path, nbytes):
    value = bytearray(nbytes)
    value[-3:] = b"end"
    with ZipStore(tmp_path / "a.zip") as store:
        store["a"] = value
        store["b"] = b"2"
        found = store["a"]
        assert len(found) == nbytes
        assert found.rstrip(b"dne").count(0) == nbytes - 3
        del found
        store.rename("a", "c")
        assert store.getsuffix("c", 4) == b"\0end"
    with ZipStore(tmp_path / "a.zip") as store:
        assert store.getsize("c") == nbytes
        assert store["b"] == b"2"
    assert zipfile.ZipFile(tmp_path / "a.zip").getinfo("c").file_size == nbytes
