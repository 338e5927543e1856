"""Checksums of others: DANDI's equal, byte for byte, to zarr_checksum; BagIt's as RFC 8493 says."""

from __future__ import annotations

import hashlib
import random

import pytest

import zarrstore
from zarrstore.errors import DamagedStoreError
from zarrstore.stores.directory import DirectoryStore
from zarrstore.testing import tree
from zarrstore.tools.checksums import bagit_lines, compare_bagit, dandi_checksum, write_bagit_manifest


def theirs(store):
    package = pytest.importorskip("zarr_checksum", reason="needs zarr_checksum: pip install zarrstore[test]")
    from zarr_checksum.generators import yield_files_local

    return package.compute_zarr_checksum(yield_files_local(store.path)).digest


def test_the_adversarial_tree_has_the_checksum_that_dandi_s_own_package_computes(tmp_path):
    store = DirectoryStore(tmp_path / "d")
    items = {key: value for key, value in tree().items() if not any(key.startswith(f"{other}/") for other in tree())}
    for key, value in items.items():
        try:
            store[key] = value
        except zarrstore.ConflictError:
            continue
    assert len(store) > 10
    assert dandi_checksum(store) == theirs(store)
    assert dandi_checksum(dict(store)) == dandi_checksum(store)


def test_random_trees_have_it_too(tmp_path):
    rng = random.Random(0)
    names = ["a", "a-", "a.b", "a0", "ab", "é", "0.0", ".zarray", "z" * 40]
    for n in range(25):
        store = DirectoryStore(tmp_path / str(n))
        for _ in range(rng.randrange(1, 60)):
            key = "/".join(rng.choice(names) for _ in range(rng.randrange(1, 5)))
            try:
                store[key] = rng.randbytes(rng.randrange(40))
            except zarrstore.ConflictError:
                continue
        assert dandi_checksum(store) == theirs(store), sorted(store)


@pytest.mark.parametrize(
    "items",
    [
        {},
        {"a/b/c/d/e/f/g": b""},
        {"é": b"1", "e\u0301": b"2", "ﬀ/\U0001f600": b"3", "日本/語": b"4", "\u00df/ss": b"5"},
        {"a/0": b"1", "a.b/0": b"2", "a0/0": b"3", "ab": b"4", "A/0": b"5"},
    ],
    ids=["empty", "nested", "unicode", "siblings"],
)
def test_trees_that_are_empty_deep_or_named_in_any_script_have_it(items, tmp_path):
    store = DirectoryStore(tmp_path / "d")
    store.update(items)
    (tmp_path / "d").mkdir(exist_ok=True)
    assert dandi_checksum(store) == theirs(store) == dandi_checksum(items)


def test_a_part_of_a_store_and_a_store_of_nothing():
    data = {"a/b/0": b"1", "ab/0": b"2"}
    assert dandi_checksum(data, "a") == dandi_checksum({"b/0": b"1"})
    assert dandi_checksum({}).endswith("-0--0")


def test_many_files_of_one_directory_are_not_held_in_memory(monkeypatch):
    data = {f"{n:05d}": b"%d" % n for n in range(3000)}
    whole = dandi_checksum(data)
    monkeypatch.setattr("zarrstore.tools.checksums._SPOOLED", 1000)
    assert dandi_checksum(data) == whole


# BagIt --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha512", "sha256", "md5"])
def test_a_manifest_lists_the_payload_and_is_checked(tmp_path, algorithm):
    data = {"a/0": b"chunk", "50%\n": b"odd", "b": b""}
    file = tmp_path / f"manifest-{algorithm}.txt"
    assert write_bagit_manifest(data, file, algorithm=algorithm) == 3
    assert f"{hashlib.new(algorithm, b'odd').hexdigest()}  data/50%25%0A\n" in file.read_text()
    assert list(compare_bagit(data, file)) == []
    assert dict(compare_bagit({"a/0": b"other", "50%\n": b"odd", "c": b""}, file)) == {
        "a/0": "different",
        "b": "missing",
        "c": "foreign",
    }


def test_bagit_s_own_validation_accepts_it(tmp_path):
    bagit = pytest.importorskip("bagit", reason="needs bagit: pip install zarrstore[test]")
    data = {"a/0": b"chunk", "a/.zarray": b"{}", "é/x": b"1"}
    with DirectoryStore(tmp_path / "bag" / "data") as payload:
        payload.update(data)
    write_bagit_manifest(data, tmp_path / "bag" / "manifest-sha256.txt", algorithm="sha256")
    (tmp_path / "bag" / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    assert bagit.Bag(str(tmp_path / "bag")).is_valid()


@pytest.mark.parametrize("line", ["", "abc", "abc  other/x", "abc  data/../x", "abc  data/", "abc  /data/x"])
def test_a_line_that_names_no_key_is_refused(tmp_path, line):
    (tmp_path / "manifest-md5.txt").write_text(line + "\n")
    with pytest.raises(DamagedStoreError, match="line 1"):
        list(bagit_lines(tmp_path / "manifest-md5.txt"))
