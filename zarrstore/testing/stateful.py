"""A hypothesis machine that plays any store against a dict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from zarrstore.adapt import as_store
from zarrstore.errors import ConflictError, DestinationExistsError, RenameError
from zarrstore.testing.disturbances import with_disturbances
from zarrstore.testing.trees import SEGMENTS

__all__ = ["check_against_dict"]


class Model:
    """What a store must do, over a dict, in the plainest words there are (and not with `zarrstore.keys`)."""

    def __init__(self, hierarchical: bool) -> None:
        self.items: dict[str, bytes] = {}
        self.hierarchical = hierarchical

    def copy(self) -> Model:
        other = Model(self.hierarchical)
        other.items = dict(self.items)
        return other

    def admits(self, items: dict[str, bytes]) -> bool:
        """Whether all of these can be set, in this order."""
        scratch = self.copy()
        for key, value in items.items():
            if scratch.conflict(key):
                return False
            scratch.items[key] = value
        return True

    def setitems(self, items: dict[str, bytes]) -> None:
        self.items.update(items)

    def delitems(self, keys: list[str]) -> None:
        for key in keys:
            self.items.pop(key, None)

    def below(self, path: str) -> list[str]:
        return [key for key in self.items if path == "" or key.startswith(path + "/")]

    def stands(self, path: str) -> bool:
        return path in self.items or bool(self.below(path))

    def conflict(self, key: str) -> bool:
        """Whether a hierarchical store must refuse to set `key`."""
        parts = key.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        return self.hierarchical and (any(path in self.items for path in above) or bool(self.below(key)))

    def listdir(self, path: str) -> list[str]:
        start = len(path) + 1 if path else 0
        return sorted({key[start:].split("/")[0] for key in self.below(path)})

    def getsize(self, path: str) -> int:
        if path in self.items:
            return len(self.items[path])
        start = len(path) + 1 if path else 0
        return sum(len(self.items[key]) for key in self.below(path) if "/" not in key[start:])

    def rmdir(self, path: str) -> None:
        for key in self.below(path):
            del self.items[key]

    def rename(self, source: str, destination: str) -> type[Exception] | None:
        """Move, or return the error that is due and move nothing."""
        if not self.stands(source):
            return KeyError
        if source == destination:
            return None
        if source == "" or destination.startswith(source + "/"):
            return RenameError
        if destination == "" or self.stands(destination):
            return DestinationExistsError
        parts = destination.split("/")
        if self.hierarchical and any("/".join(parts[:n]) in self.items for n in range(1, len(parts))):
            return ConflictError
        for key in [*self.below(source), *([source] if source in self.items else [])]:
            self.items[destination + key[len(source) :]] = self.items.pop(key)
        return None


def _machine(
    make: Callable[[], Any], names: Sequence[str], reopen: Callable[[Any], Any] | None, disturbances: Collection[str]
) -> type[Any]:
    segment = st.sampled_from(list(names))
    paths = st.lists(segment, min_size=1, max_size=3).map("/".join)
    any_path = st.one_of(st.just(""), paths)
    values = st.binary(max_size=20)

    class Machine(RuleBasedStateMachine):
        @initialize()
        def start(self) -> None:
            self.opened = make()
            self.store = as_store(self.opened)
            self.model = Model(self.store.capabilities.hierarchical)

        @rule(key=paths, value=values)
        def set(self, key: str, value: bytes) -> None:
            if self.model.conflict(key):
                try:
                    self.store[key] = value
                except ConflictError:
                    return
                raise AssertionError(f"{key!r} was set where {sorted(self.model.items)} stand")
            self.store[key] = value
            self.model.items[key] = value

        @rule(items=st.dictionaries(paths, values, max_size=4))
        def setitems(self, items: dict[str, bytes]) -> None:
            if self.model.admits(items):
                self.store.setitems(items)
                self.model.setitems(items)

        @rule(key=paths)
        def delete(self, key: str) -> None:
            expected = self.model.items.pop(key, None)
            try:
                del self.store[key]
            except KeyError:
                assert expected is None, f"{key!r} was there and could not be deleted"
            else:
                assert expected is not None, f"{key!r} was not there and was deleted"

        @rule(keys=st.lists(paths, max_size=4))
        def delitems(self, keys: list[str]) -> None:
            self.store.delitems(keys)
            self.model.delitems(keys)

        @rule(key=paths)
        def get(self, key: str) -> None:
            assert self.store.get(key) == self.model.items.get(key)
            assert (key in self.store) == (key in self.model.items)

        @rule(keys=st.lists(paths, max_size=5))
        def getitems(self, keys: list[str]) -> None:
            expected = {key: self.model.items[key] for key in keys if key in self.model.items}
            assert dict(self.store.getitems(keys)) == expected

        @rule(key=paths, start=st.integers(0, 25), length=st.integers(0, 25))
        def parts(self, key: str, start: int, length: int) -> None:
            value = self.model.items.get(key)
            if value is not None:
                assert self.store.getrange(key, start, start + length) == value[start : start + length]
                assert self.store.getrange(key, start) == value[start:]
                assert self.store.getsuffix(key, length) == (value[-length:] if length else b"")

        @rule(path=any_path)
        def look(self, path: str) -> None:
            assert self.store.listdir(path) == self.model.listdir(path)
            assert self.store.getsize(path) == self.model.getsize(path)
            assert sorted(self.store.keys_below(path)) == sorted(self.model.below(path))

        @rule(path=paths)
        def rmdir(self, path: str) -> None:
            self.store.rmdir(path)
            self.model.rmdir(path)

        @rule(source=any_path, destination=any_path)
        def rename(self, source: str, destination: str) -> None:
            due = self.model.rename(source, destination)
            try:
                self.store.rename(source, destination)
            except (KeyError, DestinationExistsError, RenameError) as exc:
                came: type[Exception] | None = type(exc)
            else:
                came = None
            assert came is due, f"{came} came where {due} was due"

        @rule(root=st.booleans())
        def clear(self, root: bool) -> None:
            if root:
                self.store.rmdir("")
            else:
                self.store.clear()
            self.model.items.clear()

        @rule()
        def flush_and_reopen(self) -> None:
            self.store.flush()
            if reopen is not None:
                self.opened = reopen(self.opened)
                self.store = as_store(self.opened)

        @invariant()
        def same_items(self) -> None:
            assert sorted(self.store) == sorted(self.model.items)
            assert len(self.store) == len(self.model.items)
            assert dict(self.store.items()) == self.model.items

        def teardown(self) -> None:
            if hasattr(self, "store"):
                self.store.close()

    return with_disturbances(Machine, paths, values, disturbances)


def check_against_dict(
    make: Callable[[], Any],
    *,
    reopen: Callable[[Any], Any] | None = None,
    names: Sequence[str] = SEGMENTS,
    max_examples: int = 25,
    steps: int = 25,
    disturbances: Collection[str] = (),
    seed: int | None = None,
) -> None:
    """Play random operations on a store and on a dict, and raise at the first difference.

    Parameters
    ----------
    make : callable
        ``make() -> mapping``, new and empty each time.
    reopen : callable, optional
        ``reopen(mapping) -> mapping``: closes it and opens the same place again.
    names : sequence of str
        Segments that keys are made of.
    max_examples, steps : int
        How many histories, and how long each at most.
    disturbances : collection of {'threads', 'pickle', 'fork', 'interrupt'}
        Further steps: writes from several threads, a pickled copy that is looked at, a forked child that looks (now and
        then while another thread writes), and Ctrl-C at any place of a call, after which each key has its old or its
        new value.
    seed : int, optional
        Which histories; by default the same each time.

    Raises
    ------
    AssertionError
        The store and the dict differ; hypothesis prints the shortest history that shows it.

    Notes
    -----
    Source: the idea is zarr 3's ``zarr.testing.stateful``; the contract is `Store`'s.

    Examples
    --------
    >>> check_against_dict(dict, max_examples=5)
    """
    machine = _machine(make, names, reopen, disturbances)
    run_state_machine_as_test(
        machine if seed is None else with_seed(seed)(machine),
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=seed is None,
            suppress_health_check=list(HealthCheck),
        ),
    )
