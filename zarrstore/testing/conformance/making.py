"""How the suite makes stores, and how it asks what a store can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import ReadOnlyError, UnsupportedOperation
from zarrstore.testing.trees import SEGMENTS, tree

__all__ = ["StoreMaking", "refuses"]


def refuses(error: type[Exception], act: Callable[..., Any], *args: Any) -> None:
    """Assert that ``act(*args)`` raises `error`; for loops over many keys, where `pytest.raises` costs too much."""
    try:
        found = act(*args)
    except error:
        return
    raise AssertionError(f"{getattr(act, '__name__', act)}{args!r} gave {found!r} where {error.__name__} was due")


class StoreMaking:
    """The part of the suite that its user overrides: how a store is made, filled and opened again.

    Attributes
    ----------
    largest : int, bytes
        The largest value that the suite writes; less if the store has such a limit.
    segments : sequence of str
        Names from which the state machine makes keys.
    examples : int
        Histories that the state machine plays.
    pickles, checks_processes : bool
        Whether a pickled copy stands on the same place; whether to start other processes.
    forks : bool
        Whether a forked child may use the store.
    """

    largest: int = 1 << 22
    segments: Sequence[str] = SEGMENTS
    examples: int = 15
    pickles: bool = True
    checks_processes: bool = True
    forks: bool = True

    def make_store(self, tmp_path: Path) -> MutableMapping[str, Any]:
        """Return a new, empty store in `tmp_path`."""
        raise NotImplementedError("make_store(tmp_path) returns a new, empty store")

    #: ``reopen(store, tmp_path)`` closes the store and opens the same place again; None if nothing outlives the object.
    reopen: Callable[..., Any] | None = None

    def make_filled(self, tmp_path: Path, items: Mapping[str, bytes]) -> Mapping[str, Any]:
        """Return a store in `tmp_path` that holds `items`."""
        store = self.make_store(tmp_path)
        as_store(store).setitems(items)
        return store

    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        """An empty store, closed afterwards."""
        with as_store(self.make_filled(tmp_path, {})) as opened:
            yield opened

    @pytest.fixture
    def filled(self, tmp_path: Path) -> Any:
        """Make a store that holds the given items; closed afterwards."""
        opened: list[Store] = []

        def fill(items: Mapping[str, bytes]) -> Store:
            opened.append(as_store(self.make_filled(tmp_path, items)))
            return opened[-1]

        yield fill
        for store in opened:
            store.close()

    @pytest.fixture
    def full(self, filled: Callable[[Mapping[str, bytes]], Store]) -> Store:
        """A store that holds the adversarial tree."""
        return filled(self.tree())

    def tree(self) -> dict[str, bytes]:
        """Return the adversarial tree, cut to what the store can hold."""
        return tree(self.largest)

    def _can_write(self, store: Store) -> bool:
        """Tell whether the store is writable; if it says not, it must refuse each write, and change nothing."""
        if store.capabilities.writable:
            return True
        before = dict(store.items()) if store.capabilities.listable else None
        with pytest.raises(ReadOnlyError):
            store["new/key"] = b"1"
        with pytest.raises(ReadOnlyError):
            store.setitems({"new/key": b"1"})
        assert "new/key" not in store
        assert before is None or dict(store.items()) == before
        return False

    def _can_erase(self, store: Store, key: str) -> bool:
        """Tell whether the store is erasable; if it says not, it must refuse to delete `key`, which is there."""
        if store.capabilities.erasable:
            return True
        with pytest.raises((UnsupportedOperation, ReadOnlyError)):
            del store[key]
        with pytest.raises((UnsupportedOperation, ReadOnlyError)):
            store.rmdir("")
        with pytest.raises((UnsupportedOperation, ReadOnlyError)):
            store.clear()
        with pytest.raises((UnsupportedOperation, ReadOnlyError)):
            store.rename(key, "elsewhere")
        assert key in store
        return False

    def _can_list(self, store: Store) -> bool:
        """Tell whether the store is listable; if it says not, it must refuse to list."""
        if store.capabilities.listable:
            return True
        for refused in (iter, len, bool, lambda held: held.keys_below("foo")):
            with pytest.raises(UnsupportedOperation):
                refused(store)
        return False
