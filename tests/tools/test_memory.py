"""Bytes that verbs hold: the budget of ``memory=``, which every verb that moves values takes in the same way."""

from __future__ import annotations

import inspect
import re
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

import zarrstore
from zarrstore import DictStore, LRUStoreCache
from zarrstore.allowance import FIRST_BATCH, MEMORY, allowed
from zarrstore.base import Entry
from zarrstore.batch import AheadItems
from zarrstore.cli.group import cli
from zarrstore.tools.manifest import compare_manifest, digests_of, manifest_of, values_of, write_manifest

MIB = 1 << 20
N = 12
DOCUMENT = (
    f'{{"zarr_format": 2, "shape": [{N * MIB}], "chunks": [{MIB}], "dtype": "|u1", "compressor": null,'
    ' "fill_value": 0, "order": "C", "filters": null}'
).encode()

VERBS = [
    zarrstore.copy_store,
    zarrstore.diff,
    zarrstore.verify,
    zarrstore.migrate_2to3,
    zarrstore.migrate_3to2,
    zarrstore.pack,
    zarrstore.unpack,
    zarrstore.manifest_of,
    zarrstore.write_manifest,
    zarrstore.migrate_to_icechunk,
    compare_manifest,
    digests_of,
    values_of,
    LRUStoreCache.prefetch,
]
_PARAMETER = re.compile(r"^memory : int, bytes, default 128 MiB\n    What the values under way in all threads", re.M)


class Far(DictStore):
    """A hierarchy whose values are made as they are read, in batches ahead, and whose listing tells no size."""

    capabilities = replace(DictStore.capabilities, concurrent=True)

    def _get(self, key: str) -> bytes:
        if key == "a/.zarray":
            return DOCUMENT
        if key == ".zgroup":
            return b'{"zarr_format": 2}'
        if not key.startswith("a/") or not key[2:].isdigit() or int(key[2:]) >= N:
            raise KeyError(key)
        return b"\1" * MIB

    def _contains(self, key: str) -> bool:
        return key in set(self._keys(""))

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        there = set(self._keys(""))
        return AheadItems(lambda wanted: {key: self._get(key) for key in wanted if key in there}, keys)

    def _keys(self, path: str) -> Iterator[str]:
        names = [".zgroup", "a/.zarray", *(f"a/{i}" for i in range(N))]
        return iter([name for name in names if not path or name.startswith(path + "/")])

    def _details(self, path: str) -> Iterator[Entry]:
        return map(Entry, self._keys(path))

    def _listdir(self, path: str) -> list[str]:
        return [".zgroup", "a"] if not path else [name[2:] for name in self._keys("a")] if path == "a" else []


class Nowhere(DictStore):
    """Takes values and keeps none."""

    def _set(self, key: str, value: bytes) -> None:
        pass


def read_one_by_one(store: Far) -> None:
    keys = [f"a/{i}" for i in range(N)]
    with allowed(MIB, FIRST_BATCH):
        found = store.getitems(keys)
    for key in keys:
        found[key]


def read_to_the_end(items: Any) -> None:
    for _ in items:
        pass


#: What each does with at most 2 MiB, and how many values of 1 MiB it may hold besides.
ACTS: dict[str, tuple[Callable[[Far, Path], Any], int]] = {
    "getitems": (lambda store, tmp: read_one_by_one(store), 0),
    "copy": (lambda store, tmp: zarrstore.copy_store(store, Nowhere(), memory=2 * MIB, workers=4), 1),
    "copy with differ": (
        lambda store, tmp: zarrstore.copy_store(store, Far(), memory=2 * MIB, if_exists="differ", workers=1),
        1,
    ),
    "diff": (lambda store, tmp: read_to_the_end(zarrstore.diff(store, Far(), memory=2 * MIB)), 1),
    "verify": (lambda store, tmp: zarrstore.verify(store, memory=2 * MIB), 2),  # and what one decodes to
    "manifest": (lambda store, tmp: read_to_the_end(digests_of(store, memory=2 * MIB)), 1),
    "compare": (lambda store, tmp: read_to_the_end(compare_manifest(store, {}, memory=2 * MIB)), 1),
    "pack": (lambda store, tmp: zarrstore.pack(store, tmp / "a.zip", memory=2 * MIB), 1),
    "migrate": (lambda store, tmp: zarrstore.migrate_2to3(store, Nowhere(), memory=2 * MIB), 1),
    # The entry of the second tier repeats the value behind a header.
    "prefetch": (lambda store, tmp: LRUStoreCache(store, 0, cache=Nowhere()).prefetch("a", memory=2 * MIB), 1),
}


@pytest.mark.parametrize("verb", ACTS)
def test_values_of_unknown_size_stay_within_the_budget_and_the_values_in_hand(verb: str, tmp_path: Path) -> None:
    act, besides = ACTS[verb]
    store = Far()
    act(store, tmp_path / "first") if verb != "pack" else None  # imports, and whatever is made once
    tracemalloc.start()
    try:
        act(store, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= (2 + besides) * MIB + MIB // 2


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__qualname__)
def test_every_verb_that_moves_values_takes_the_same_budget(verb: Callable[..., Any]) -> None:
    parameter = inspect.signature(verb).parameters["memory"]
    assert parameter.default == MEMORY
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    documentation = inspect.getdoc(verb) or ""  # Python 3.13 takes the indentation away by itself
    assert _PARAMETER.search(documentation) or "Parameters as `manifest_of`" in documentation


def test_a_budget_of_nothing_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for act in (
        lambda: zarrstore.copy_store({}, {}, memory=0),
        lambda: zarrstore.diff({}, {}, memory=0),
        lambda: zarrstore.verify({}, memory=0),
        lambda: zarrstore.migrate_2to3({}, memory=0),
        lambda: zarrstore.migrate_3to2({}, {}, memory=0),
        lambda: zarrstore.pack({}, tmp_path / "a.zip", memory=0),
        lambda: zarrstore.unpack({}, tmp_path / "d", memory=0),
        lambda: manifest_of({}, memory=0),
        lambda: write_manifest({}, tmp_path / "m", memory=0),
        lambda: LRUStoreCache({}, 0).prefetch("", memory=0),
    ):
        with pytest.raises(ValueError, match="memory is 0; at least one byte is needed"):
            read_to_the_end(act())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["copy", "sync", "diff", "verify", "pack", "unpack", "migrate", "cache warm"])
def test_the_command_line_takes_the_budget_in_mib(verb: str) -> None:
    command: Any = cli
    for name in verb.split():
        command = command.get_command(click.Context(command), name)
    option = next(param for param in command.params if param.name == "memory")
    assert option.default == 128
    assert option.callback(None, option, 3) == 3 * MIB
