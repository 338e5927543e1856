"""What may come to a store between two calls, and within one: steps of the machine in `stateful`."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from zarrstore.testing.interrupts import interrupted

__all__ = ["DISTURBANCES", "with_disturbances"]

#: What a child that hangs is killed after, in seconds.
_PATIENCE = 60
_THREADS = 3


def with_disturbances(machine: type[Any], paths: Any, values: Any, names: Iterable[str]) -> type[Any]:
    """Return the machine with these further steps.

    Parameters
    ----------
    machine : type
        What `stateful` plays: it has `store`, `model` and `places`, all states that a call may have left.
    paths, values : strategies
        Of keys and of values.
    names : iterable of {'threads', 'pickle', 'fork', 'interrupt'}
        Which steps.
    """
    steps = {name: step for chosen in names for name, step in DISTURBANCES[chosen](paths, values).items()}
    return type("Machine", (machine,), steps)


# Threads -------------------------------------------------------------------------------------------------------------


def _threads(paths: Any, values: Any) -> dict[str, Any]:
    acts = st.tuples(st.sampled_from(["set", "delete", "batch", "rmdir"]), st.sampled_from("xyz"), values)

    @rule(plans=st.lists(st.lists(acts, min_size=1, max_size=4), min_size=2, max_size=_THREADS))
    def several_threads(self: Any, plans: list[list[tuple[str, str, bytes]]]) -> None:
        """Let each thread write below a directory of its own: what is there in the end is sure."""
        problems: list[BaseException] = []

        def work(number: int, plan: list[tuple[str, str, bytes]]) -> None:
            try:
                for act, name, value in plan:
                    _act(self.store, f"thread-{number}", act, name, value)
            except BaseException as exc:
                problems.append(exc)

        threads = [threading.Thread(target=work, args=pair) for pair in enumerate(plans)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]
        for number, plan in enumerate(plans):
            for act, name, value in plan:
                _act(self.model, f"thread-{number}", act, name, value)

    return {"several_threads": several_threads}


def _act(on: Any, directory: str, act: str, name: str, value: bytes) -> None:
    key = f"{directory}/{name}"
    items = {key: value, f"{directory}/batch": value}
    if act == "rmdir":
        on.rmdir(directory)
    elif act == "delete":
        on.delitems([key])
    else:
        on.setitems({key: value} if act == "set" else items)


# Copies and children -------------------------------------------------------------------------------------------------


def _pickles(paths: Any, values: Any) -> dict[str, Any]:
    @rule()
    def a_copy_shows_the_same(self: Any) -> None:
        copy = pickle.loads(pickle.dumps(self.opened))
        try:
            assert dict(copy.items()) == self.model.items
        finally:
            copy.close()

    return {"a_copy_shows_the_same": a_copy_shows_the_same}


def _forks(paths: Any, values: Any) -> dict[str, Any]:
    @rule(busy=st.booleans())
    def a_child_shows_the_same(self: Any, busy: bool) -> None:
        """Fork, now and then while another thread writes; the child has all that stood before."""
        expected = dict(self.model.items)
        writer = threading.Thread(target=_write, args=(self.store,)) if busy else None
        if writer is not None:
            writer.start()
        code = _status_of_child(lambda: _without_other_thread(self.store) == expected)
        if writer is not None:
            writer.join()
            self.store.rmdir(_BUSY)
        assert code == 0, f"a forked child saw something else, or ended with {code}"

    return {"a_child_shows_the_same": a_child_shows_the_same}


_BUSY = "thread-of-the-fork"


def _write(store: Any) -> None:
    for number in range(20):
        store[f"{_BUSY}/{number % 3}"] = b"x" * number


def _without_other_thread(store: Any) -> dict[str, bytes]:
    return {key: value for key, value in store.items() if not key.startswith(_BUSY + "/")}


def _status_of_child(check: Callable[[], bool]) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(_PATIENCE)
            code = 0 if check() else 3
        except BaseException:
            traceback.print_exc()  # otherwise nobody learns why it ended with 1
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# Interrupts ----------------------------------------------------------------------------------------------------------


def _interrupts(paths: Any, values: Any) -> dict[str, Any]:
    # Most calls have few places.
    places = st.one_of(st.integers(0, 20), st.integers(0, 150))

    def after(self: Any, act: Callable[[], object], at: int, change: Callable[[Any], object]) -> None:
        """Do `act` with Ctrl-C in it, and `change` to a copy of the model: each key has its old or its new value."""
        new = self.model.copy()
        if change(new) is False:
            return
        if not interrupted(act, at):
            self.model = new
            return
        for key in self.model.items.keys() | new.items.keys():
            allowed = (self.model.items.get(key), new.items.get(key))
            found = self.store.get(key)
            assert found in allowed, f"{key!r} is {found!r} after an interrupt, and can be one of {allowed}"
            if found is None:
                self.model.items.pop(key, None)
            else:
                self.model.items[key] = found

    @rule(key=paths, value=values, at=places)
    def interrupted_set(self: Any, key: str, value: bytes, at: int) -> None:
        if not self.model.conflict(key):
            after(self, lambda: self.store.__setitem__(key, value), at, lambda model: model.setitems({key: value}))

    @rule(keys=st.lists(paths, max_size=4), value=values, at=places)
    def interrupted_setitems(self: Any, keys: list[str], value: bytes, at: int) -> None:
        items = {key: value + str(number).encode() for number, key in enumerate(keys)}
        if self.model.admits(items):
            after(self, lambda: self.store.setitems(items), at, lambda model: model.setitems(items))

    @rule(keys=st.lists(paths, max_size=4), at=places)
    def interrupted_delitems(self: Any, keys: list[str], at: int) -> None:
        after(self, lambda: self.store.delitems(keys), at, lambda model: model.delitems(keys))

    @rule(path=st.one_of(st.just(""), paths), at=places)
    def interrupted_rmdir(self: Any, path: str, at: int) -> None:
        after(self, lambda: self.store.rmdir(path), at, lambda model: model.rmdir(path))

    @rule(source=paths, destination=paths, at=places)
    def interrupted_rename(self: Any, source: str, destination: str, at: int) -> None:
        # Of two names, at least one has the value: no key is lost that the model has at either.
        held = {key: value for key, value in self.model.items.items() if key == source or key.startswith(source + "/")}
        after(
            self,
            lambda: self.store.rename(source, destination),
            at,
            lambda model: model.rename(source, destination) is None,
        )
        for key, value in held.items():
            moved = destination + key[len(source) :]
            assert value in (self.model.items.get(key), self.model.items.get(moved)), f"{key!r} is lost"

    @rule(path=st.one_of(st.just(""), paths), at=places)
    def interrupted_reads(self: Any, path: str, at: int) -> None:
        keys = [path, *self.model.items]

        def read() -> None:
            self.store.listdir(path)
            dict(self.store.getitems(keys))
            self.store.getsize(path)
            sorted(self.store.keys_below(path))

        interrupted(read, at)

    return {
        step.__name__: step
        for step in (
            interrupted_set,
            interrupted_setitems,
            interrupted_delitems,
            interrupted_rmdir,
            interrupted_rename,
            interrupted_reads,
        )
    }


DISTURBANCES: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "threads": _threads,
    "pickle": _pickles,
    "fork": _forks,
    "interrupt": _interrupts,
}
