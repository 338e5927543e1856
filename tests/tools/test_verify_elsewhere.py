"""A verification that workers plan and do: it says what a verification here says, and the client handles no chunk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tools.test_cluster import Elsewhere
from tests.tools.test_verify_damages import all_damages, healthy
from zarrstore import DictStore, DirectoryStore, init_array, verify
from zarrstore.errors import ClusterError, ConflictError
from zarrstore.testing import CountingStore
from zarrstore.tools import outline

_SHARED: dict[str, dict[str, bytes]] = {}


class Bucket(DictStore):
    """A flat store that all processes see: what travels is its name."""

    capabilities = replace(DictStore.capabilities, process_safe=True, hierarchical=False)

    def __init__(self, name: str, items: dict[str, bytes]) -> None:
        super().__init__(items)
        self.name = name
        _SHARED[name] = items

    def __reduce__(self) -> tuple[Any, ...]:
        return Bucket, (self.name, _SHARED[self.name])


def differing(tmp_path: Path, chosen: list[tuple[str, Any]]) -> Iterator[str]:
    """Yield the damages of which a report from workers says something else than one from here."""
    for number, (kind, damage) in enumerate(chosen):
        items = healthy(kind)
        damage.change(items)
        stores: list[Any] = [Bucket(str(number), items)]
        directory = DirectoryStore(tmp_path / str(number))
        try:
            directory.update(items)
            stores.append(directory)
        except ConflictError:
            pass  # files have no value on a directory
        for store in stores:
            for missing in ("unfilled", "all"):
                here = verify(store, missing=missing)
                there = verify(store, missing=missing, executor=Elsewhere())
                if here != replace(there, notes=here.notes) or sorted(here.notes) != sorted(there.notes):
                    yield f"{kind}: {damage.name}: {here} {there}"


def test_workers_report_a_sample_of_damages_as_this_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outline, "_CHUNKS_A_TASK", 3)  # so that arrays are dealt out to several tasks
    chosen = random.Random(5).sample(list(all_damages()), 5)
    assert list(differing(tmp_path, chosen)) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_report_every_damage_as_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline, "_CHUNKS_A_TASK", 3)
    assert list(differing(tmp_path, list(all_damages()))) == []


def test_what_lies_outside_of_arrays_is_seen(tmp_path: Path) -> None:
    items = healthy("version 2") if "version 2" in {kind for kind, _ in all_damages()} else {}
    items |= {"stray": b"1", "folder/without/document/x": b"1", ".DS_Store": b""}
    store = Bucket("outside", items)
    report = verify(store, executor=Elsewhere())
    assert report == verify(store)
    assert {"stray", "folder/without/document/x", ".DS_Store"} <= {problem.key for problem in report.problems}


def test_nothing_at_a_path_is_an_error_and_an_array_is_a_root(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    init_array(store, shape=50, chunks=1, dtype="u1", compressor=None, fill_value=0, path="deep/a")
    store["deep/a/7"] = b"12"
    with pytest.raises(KeyError):
        verify(store, "none", executor=Elsewhere())
    for path in ("deep/a", "deep", ""):
        assert verify(store, path, executor=Elsewhere()) == verify(store, path)


def test_what_the_client_asks_does_not_grow_with_the_chunks(tmp_path: Path) -> None:
    asked = []
    for count in (1000, 4000):
        store = DirectoryStore(tmp_path / str(count))
        init_array(store, shape=count, chunks=1, dtype="u1", compressor=None, path="a")
        store.setitems((f"a/{n}", b"1") for n in range(count))
        mine, executor = CountingStore(store), Elsewhere()
        report = verify(mine, executor=executor)
        assert (bool(report), report.n_decoded, report.n_chunks) == (True, count, count)
        # The copies that the workers got count for themselves.
        asked.append(sum(mine.calls.values()))
    assert asked[0] == asked[1]
    assert asked[0] < 60


def test_a_cluster_that_dies_is_an_error_that_names_the_cause(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    init_array(store, shape=50, chunks=1, dtype="u1", compressor=None, fill_value=0, path="a")
    done = []

    def twist(args: Any) -> Any:
        done.append(args)
        if len(done) == 3:
            raise ModuleNotFoundError("No module named 'zarrstore'")
        return args

    with pytest.raises(ClusterError, match="a worker lacks a package"):
        verify(store, executor=Elsewhere(twist=twist))
