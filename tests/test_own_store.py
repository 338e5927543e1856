"""The store of examples/06, made by following CONTRIBUTING alone, goes through the suite like any other."""

from __future__ import annotations

import importlib.util
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from zarrstore.testing import StoreConformance

EXAMPLE = Path(__file__).parent.parent / "examples" / "06_a_store_of_your_own.py"
spec = importlib.util.spec_from_file_location("own_store", EXAMPLE)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


def write(path: Path, items: Mapping[str, bytes] | list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, value in items.items() if isinstance(items, Mapping) else items:
            entry = tarfile.TarInfo(name)
            entry.size = len(value)
            archive.addfile(entry, io.BytesIO(value))
    return path


class TestTarStore(StoreConformance):
    pickles = False  # its module is loaded by path

    def make_store(self, tmp_path):
        return module.TarStore(write(tmp_path / "empty.tar", {}))

    def make_filled(self, tmp_path, items):
        return module.TarStore(write(tmp_path / "full.tar", items))


def test_names_that_are_no_keys_are_not_shown(tmp_path):
    store = module.TarStore(write(tmp_path / "a.tar", {"../evil": b"1", "/etc/x": b"2", "good/0": b"3"}))
    assert dict(store) == {"good/0": b"3"}


def test_of_two_entries_with_one_name_the_last_counts(tmp_path):
    store = module.TarStore(write(tmp_path / "a.tar", [("a", b"old"), ("a", b"new")]))
    assert dict(store) == {"a": b"new"}


def test_what_is_no_archive_is_an_error(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(tarfile.ReadError):
        module.TarStore(tmp_path / "a.tar")
