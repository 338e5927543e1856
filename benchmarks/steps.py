"""What is measured of any mapping: so many keys set, got, looked for, deleted or listed, one call each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["STEPS"]


def _set(store: Any, keys: Sequence[str], value: bytes) -> None:
    for key in keys:
        store[key] = value


def _get(store: Any, keys: Sequence[str], value: bytes) -> None:
    for key in keys:
        store[key]


def _in(store: Any, keys: Sequence[str], value: bytes) -> None:
    for key in keys:
        key in store  # noqa: B015 - that is what is measured


def _delete(store: Any, keys: Sequence[str], value: bytes) -> None:
    for key in keys:
        del store[key]


def _delete_batch(store: Any, keys: Sequence[str], value: bytes) -> None:
    if hasattr(store, "delitems"):
        store.delitems(keys)
    else:
        _delete(store, keys, value)


def _list(store: Any, keys: Sequence[str], value: bytes) -> None:
    list(store)


#: By name: ``act(store, keys, value)``. "replace" is "set" of keys that are there.
STEPS: dict[str, Callable[[Any, Sequence[str], bytes], None]] = {
    "set": _set,
    "replace": _set,
    "get": _get,
    "in": _in,
    "delete": _delete,
    "delete a batch": _delete_batch,
    "list": _list,
}
