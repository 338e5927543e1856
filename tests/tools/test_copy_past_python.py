"""From directory to directory the system copies: the same result, links and leftovers included, and no byte here."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from zarrstore import DirectoryStore, NestedDirectoryStore, ReadOnlyStore, copy_store
from zarrstore.testing import CountingStore, tree

pytestmark = pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="this system has no copy_file_range")


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record what `copy_file_range` copied."""
    sizes: list[int] = []
    genuine = os.copy_file_range

    def recording(*args: Any) -> int:
        sizes.append(genuine(*args))
        return sizes[-1]

    monkeypatch.setattr(os, "copy_file_range", recording)
    return sizes


def test_large_values_are_copied_by_the_system(
    tmp_path: Path, copied: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({"a/first": b"1", **{f"a/{n}": os.urandom(1 << 20) for n in range(5)}, "a/empty": b""})
    read: list[str] = []
    genuine = DirectoryStore._get

    def recorded(self: DirectoryStore, key: str) -> bytes:
        read.append(key)
        return genuine(self, key)

    monkeypatch.setattr(DirectoryStore, "_get", recorded)
    result = copy_store(ReadOnlyStore(source), DirectoryStore(tmp_path / "d"))
    assert read == ["a/0"]  # the first in a directory that does not exist yet
    assert sum(copied) == (4 << 20) + 1
    assert result == (7, 0, (5 << 20) + 1)
    monkeypatch.undo()
    assert dict(DirectoryStore(tmp_path / "d")) == dict(source)
    assert not [name for _, _, names in os.walk(tmp_path / "d") for name in names if name.startswith(".zarrstore")]


def test_the_adversarial_tree_arrives_whole(tmp_path: Path, copied: list[int]) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update(tree())
    copy_store(source, DirectoryStore(tmp_path / "d"), dest_path="below")
    assert {key.partition("/")[2]: value for key, value in DirectoryStore(tmp_path / "d").items()} == dict(source)
    assert copied


@pytest.mark.parametrize("kind", ["verify", "wrapped", "nested", "lower case", "journal"])
def test_where_values_must_be_seen_or_keys_are_changed_python_copies(
    kind: str, tmp_path: Path, copied: list[int]
) -> None:
    source = DirectoryStore(tmp_path / "s", normalize_keys=kind == "lower case")
    source.update({"a/.zarray": b"{}", "a/0.0": b"1", "a/0.1": b"2"})
    dest = (NestedDirectoryStore if kind == "nested" else DirectoryStore)(tmp_path / "d")
    wrapped: Any = CountingStore(source) if kind == "wrapped" else source
    resume = tmp_path / "journal" if kind == "journal" else None
    copy_store(wrapped, dest, verify=kind == "verify", resume=resume)
    assert sum(copied) == (3 if kind == "journal" else 0)  # the listing tells identities, so no digest is needed
    assert dict(dest) == dict(source)


def test_links_and_what_is_no_value_are_copied_as_by_get_and_set(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({"a/0": b"0", "a/1": b"1"})
    (tmp_path / "outside").write_bytes(b"secret")
    os.symlink("1", tmp_path / "s" / "a" / "inner")
    os.symlink(tmp_path / "outside", tmp_path / "s" / "a" / "outer")
    os.mkfifo(tmp_path / "s" / "a" / "fifo")
    dest = DirectoryStore(tmp_path / "d")
    copy_store(source, dest)
    assert dict(dest) == dict(source)
    assert dest["a/inner"] == b"1"
    os.symlink(tmp_path, tmp_path / "d" / "b")
    result = copy_store(source, dest, source_path="a", dest_path="b", errors="collect")
    assert set(result.errors) == {"a/0", "a/1", "a/inner"}
    assert not (tmp_path / "0").exists()


def test_a_failure_of_the_system_s_copy_leaves_the_ordinary_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({"a/0": b"0", "a/1": b"1", "a/2": b"2"})

    def refuses(*args: Any) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    for broken in (refuses, lambda *args: 0):
        monkeypatch.setattr(os, "copy_file_range", broken)
        dest = DirectoryStore(tmp_path / "d")
        copy_store(source, dest, if_exists="replace")
        assert dict(dest) == dict(source)
        assert sorted(os.listdir(tmp_path / "d" / "a")) == ["0", "1", "2"]


def test_a_value_that_vanished_is_an_error_of_its_key(tmp_path: Path) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({"a/0": b"0", "a/1": b"1"})
    listed = list(source._keys(""))
    os.unlink(tmp_path / "s" / "a" / "1")
    source._keys = lambda path: listed  # type: ignore[method-assign]
    result = copy_store(source, DirectoryStore(tmp_path / "d"), errors="collect")
    assert result.errors == {"a/1": "it vanished while the copy ran"}
    assert result.n_copied == 1  # the first went the ordinary way, which makes the directory


def test_what_was_copied_past_python_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DirectoryStore(tmp_path / "s")
    source.update({"a/0": b"0", "a/1": b"1"})
    dest = DirectoryStore(tmp_path / "d", durability="flush")
    synced: list[str] = []
    genuine = os.fsync

    def recording(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    copy_store(source, dest)
    assert {f"{tmp_path}/d/a/0", f"{tmp_path}/d/a/1"} <= set(synced)
