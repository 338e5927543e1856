"""The verb ``cache``."""

from __future__ import annotations

from dataclasses import asdict

import click

from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.cli.common import (
    confirm,
    echo_err,
    json_option,
    memory_option,
    opened,
    path_argument,
    print_json,
    print_table,
    storage_options,
    target_argument,
    yes_option,
)
from zarrstore.keys import normalize_path
from zarrstore.tools.listing import require
from zarrstore.wrappers.lru import LRUStoreCache

#: Where the second tier keeps its entries.
_ENTRIES = ("values", "parts")


@click.group()
def command() -> None:
    """The second tier of LRUStoreCache, which outlives the process: look, fill, empty."""


@command.command("stats")
@target_argument("cache")
@json_option
def stats(cache: str, as_json: bool) -> None:
    """What CACHE holds."""
    with opened(cache, "r") as tier:
        found = asdict(LRUStoreCache({}, 0, cache=tier).stats())
    held = {name: value for name, value in found.items() if name.startswith("tier")}
    if as_json:
        print_json(held)
    else:
        print_table(("cache", ""), [(name, "none" if value is None else f"{value:,}") for name, value in held.items()])


@command.command("warm")
@target_argument()
@target_argument("cache")
@path_argument()
@click.option("--size", type=click.FloatRange(min=0), help="What CACHE may take, in bytes (2e9 is two gigabytes).")
@memory_option
@json_option
@storage_options
def warm(
    target: str, cache: str, path: str, size: float | None, memory: int, as_json: bool, storage_option: tuple[str, ...]
) -> None:
    """Read what is at and below PATH in TARGET into CACHE, until it is full."""
    with opened(target, "r", storage_option) as store, opened(cache, "a") as tier:
        require(store, normalize_path(path))
        fetched = LRUStoreCache(store, 0, cache=tier, cache_size=size).prefetch(path, memory=memory)
    if as_json:
        print_json({"fetched": fetched})
    echo_err(f"fetched {fetched:,} values")


@command.command("clear")
@target_argument("cache")
@yes_option
def clear(cache: str, yes: bool) -> None:
    """Empty CACHE."""
    with opened(cache, "r+") as tier:
        if not _is_cache(tier):
            raise click.UsageError(f"{cache!r} is no cache of zarrstore; nothing was deleted")
        count = len(as_store(tier))
        confirm(f"Delete {count:,} cached values in {cache}?", yes)
        tier.clear()
    echo_err(f"deleted {count:,} cached values")


def _is_cache(tier: Store) -> bool:
    """Tell whether a store holds nothing but entries of a cache."""
    if not all(name in (*_ENTRIES, "claims") or name.startswith(".") for name in tier.listdir()):
        return False
    for directory in _ENTRIES:
        sample = next(iter(tier.keys_below(directory)), None)
        if sample is not None and tier.getrange(sample, 0, 3) != b"ZSC":
            return False
    return True
