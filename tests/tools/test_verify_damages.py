"""Some 270 kinds of damage over five stores: each is reported, or named as not looked at; the healthy are healthy."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.tools import damages
from zarrstore import DictStore, DirectoryStore, LMDBStore, SQLiteStore, ZipStore, verify
from zarrstore.base import Capabilities
from zarrstore.errors import ConflictError, UnsupportedOperation
from zarrstore.testing import FailingStore

STORES = {
    "dict": lambda folder: DictStore(),
    "dir": lambda folder: DirectoryStore(folder / "d"),
    "lmdb": lambda folder: LMDBStore(folder / "l.lmdb"),
    "sqlite": lambda folder: SQLiteStore(folder / "s.sqlite"),
    "zip": lambda folder: ZipStore(folder / "z.zip", mode="w"),
}


@cache
def _healthy(kind: str) -> dict[str, bytes]:
    return damages.CATALOGUE[kind][0]()


def healthy(kind: str) -> dict[str, bytes]:
    return dict(_healthy(kind))


def all_damages() -> Iterator[tuple[str, damages.Damage]]:
    for kind, (_, groups) in damages.CATALOGUE.items():
        for group in groups:
            for damage in group():
                yield kind, damage


def test_there_are_at_least_190_kinds() -> None:
    names = [(kind, damage.name) for kind, damage in all_damages()]
    assert len(names) == len(set(names))
    assert len(names) >= 190, len(names)


@pytest.mark.parametrize("kind", damages.CATALOGUE)
def test_the_healthy_hierarchy_is_healthy_and_fully_checked(kind: str) -> None:
    report = verify(healthy(kind))
    assert report.problems == ()
    assert report.notes == ()
    assert report.n_decoded == report.n_chunks > 20


def missed(make: Any, folder: Path, chosen: list[tuple[str, damages.Damage]]) -> list[str]:
    """Return the damages of which a report says nothing."""
    silent = []
    for n, (kind, damage) in enumerate(chosen):
        items = healthy(kind)
        damage.change(items)
        place = folder / str(n)
        place.mkdir()
        with make(place) as store:
            try:
                store.update(items)
            except ConflictError:
                continue  # a store of files has no value on a directory: such a damage cannot be done to it
            report = verify(store)
            found = {problem.key for problem in report.problems}
            named = " ".join(report.notes)
            if not (found & damage.keys or any(key in named for key in damage.keys)):
                silent.append(f"{kind}: {damage.name}: {sorted(found)}")
            assert not report or not report.fully_checked, damage.name
    return silent


@pytest.mark.parametrize("part", range(4))
def test_every_damage_is_reported(part: int, tmp_path: Path) -> None:
    assert missed(STORES["dict"], tmp_path, list(all_damages())[part::4]) == []


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", [name for name in STORES if name != "dict"])
def test_every_damage_is_reported_in_every_store(store: str, tmp_path: Path) -> None:
    chosen = list(all_damages())
    assert missed(STORES[store], tmp_path, chosen) == []


def test_a_sample_of_the_damages_is_reported_in_every_store(tmp_path: Path) -> None:
    rng = random.Random(os.environ.get("PYTEST_XDIST_WORKER", ""))
    for name, make in STORES.items():
        (tmp_path / name).mkdir()
        assert missed(make, tmp_path / name, rng.sample(list(all_damages()), 6)) == [], name


# What is no key, and what cannot be read ------------------------------------------------------------------------------


def test_links_pipes_and_names_that_are_no_keys_are_reported(tmp_path: Path) -> None:
    root = tmp_path / "d"
    DirectoryStore(root).update(healthy("version 2"))
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    os.symlink("/nowhere/at/all", root / "c/zlib/9.9")
    os.symlink(tmp_path / "outside", root / "g/link")
    os.symlink(tmp_path / "elsewhere", root / "g/folder")
    os.mkfifo(root / "g/pipe")
    (root / "g" / "back\\slash").write_bytes(b"")
    found = {problem.key for problem in verify(DirectoryStore(root)).problems if problem.kind == "irregular"}
    assert found == {"c/zlib/9.9", "g/link", "g/folder", "g/pipe", "g/back\\slash"}


def test_a_link_within_the_root_is_no_problem(tmp_path: Path) -> None:
    root = tmp_path / "d"
    DirectoryStore(root).update(healthy("version 2"))
    os.rename(root / "c/zlib/0.0", root / "c/zlib/kept")
    os.symlink("kept", root / "c/zlib/0.0")
    assert {problem.key for problem in verify(DirectoryStore(root)).problems} == {"c/zlib/kept"}


def test_a_directory_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "d"
    DirectoryStore(root).update(healthy("version 2"))
    script = """
        import json, sys
        from zarrstore import DirectoryStore, verify
        print(json.dumps([(problem.key, problem.kind) for problem in verify(DirectoryStore(sys.argv[1])).problems]))
    """
    assert run_without_overriding_permissions(script, root) == []
    (root / "g").chmod(0)
    (root / "c/zlib/0.0").chmod(0)
    try:
        found = run_without_overriding_permissions(script, root)
    finally:
        (root / "g").chmod(0o755)
    assert ["g", "unread"] in found
    assert ["c/zlib/0.0", "unread"] in found


def run_without_overriding_permissions(script: str, *args: object) -> Any:
    """Run a script and return what it printed; root reads everything, so root runs it without that capability."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*drop, sys.executable, "-c", textwrap.dedent(script), *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_directory_whose_listing_fails_is_reported_and_the_others_are_looked_at() -> None:
    class Broken(DictStore):
        def _keys(self, path: str) -> Any:
            for key in super()._keys(path):
                if key.startswith("g/"):
                    raise PermissionError(13, "Permission denied", "g")
                yield key

        def _listdir(self, path: str) -> Any:
            if path == "g":
                raise PermissionError(13, "Permission denied", "g")
            return {key[len(path) + bool(path) :].split("/")[0] for key in items if key.startswith(path and path + "/")}

    items = {**healthy("version 2"), "c/zlib/0.0": b"junk"}
    store = Broken(items)
    found = {(problem.key, problem.kind) for problem in verify(store).problems}
    assert ("g", "unread") in found
    assert ("c/zlib/0.0", "undecodable") in found


@pytest.mark.parametrize("key", [".zgroup", "c/zlib/.zarray", "g/.zattrs", ".zmetadata", "c/zlib/0.0"])
def test_a_value_that_cannot_be_read_is_reported_and_the_rest_is_looked_at(key: str) -> None:
    inner = DictStore(healthy("version 2"))
    inner["g/flat/0"] = b"longer"
    store = FailingStore(inner, OSError(5, "Input/output error"), methods=["_get", "_get_many"], keys=[key])
    found = {(problem.key, problem.kind) for problem in verify(store).problems}
    assert (key, "unread") in found
    assert ("g/flat/0", "undecodable") in found


def test_a_zip_entry_with_a_bad_checksum_is_reported(tmp_path: Path) -> None:
    with ZipStore(tmp_path / "a.zip", mode="w") as store:
        store.update(healthy("version 2"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.find(b'"shape"', data.find(b"c/zlib/.zarray"))
    data[at + 1 : at + 6] = b"SHAPE"
    (tmp_path / "a.zip").write_bytes(data)
    with ZipStore(tmp_path / "a.zip", mode="r") as store:
        report = verify(store)
    assert "c/zlib/.zarray" in {problem.key for problem in report.problems}


# How it looks ---------------------------------------------------------------------------------------------------------


def test_a_mapping_that_is_not_safe_for_threads_is_read_by_one() -> None:
    import threading

    threads: set[int] = set()

    class Fragile(dict[str, bytes]):
        def __getitem__(self, key: str) -> bytes:
            threads.add(threading.get_ident())
            return super().__getitem__(key)

    class Unsafe(DictStore):
        capabilities = Capabilities(thread_safe=False)

        def _get(self, key: str) -> bytes:
            threads.add(threading.get_ident())
            return super()._get(key)

        def _get_many(self, keys: Any) -> Any:
            threads.add(threading.get_ident())
            return {key: super(Unsafe, self)._get(key) for key in keys if super(Unsafe, self)._contains(key)}

    assert verify(Unsafe(healthy("version 2")))
    assert threads == {threading.get_ident()}


class Unlisted(DictStore):
    """As a plain web server: it answers for names, and lists nothing."""

    capabilities = Capabilities(listable=False)

    def _keys(self, path: str) -> Any:
        raise UnsupportedOperation("be listed", self, "no")

    _listdir = _keys


@pytest.mark.parametrize("kind", damages.CATALOGUE)
def test_a_store_that_cannot_be_listed_is_looked_at_by_the_grid(kind: str) -> None:
    report = verify(Unlisted(healthy(kind)))
    assert report.problems == ()
    assert report.n_decoded == verify(healthy(kind)).n_decoded
    assert not report.fully_checked
    assert "cannot be listed" in report.notes[0]
    broken = Unlisted({**healthy(kind), "c/zlib/0.0": b"junk"})
    assert [problem.key for problem in verify(broken).problems] == ["c/zlib/0.0"]
    with pytest.raises(UnsupportedOperation):
        verify(Unlisted({"a/0": b""}))


def test_pickled_objects_make_the_report_incomplete() -> None:
    items = dict(healthy("version 2"))
    damages._pickled(items)
    report = verify(items)
    assert not report.fully_checked
    assert any("pickled" in note for note in report.notes)


# The healthy ----------------------------------------------------------------------------------------------------------


def clean_hierarchies(count: int) -> Iterator[dict[str, bytes]]:
    from tests.tools.hierarchies import random_hierarchy

    return (random_hierarchy(random.Random(seed)) for seed in range(count))


def _nothing_is_found(count: int) -> None:
    for seed, store in enumerate(clean_hierarchies(count)):
        report = verify(store)
        assert report.problems == (), (seed, report.problems)
        assert report.fully_checked, (seed, report.notes)


def test_nothing_is_found_in_40_healthy_hierarchies() -> None:
    _nothing_is_found(40)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_nothing_is_found_in_600_healthy_hierarchies() -> None:
    _nothing_is_found(600)


def test_an_array_that_version_2_cannot_say_is_named_as_not_looked_at() -> None:
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4],
        "data_type": "variable_length_bytes",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": "YWJj",
        "codecs": [{"name": "vlen-bytes"}],
    }
    report = verify({"a/zarr.json": json.dumps(document).encode(), "a/c/0": b"junk"}, "a")
    assert not report.fully_checked
    assert any("a/zarr.json: its chunks are not looked at" in note for note in report.notes)
