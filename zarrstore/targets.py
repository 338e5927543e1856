"""Whatever `open_store` takes, where a store is expected: opened for the length of a call, and closed after it."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import StoreNotFoundError

__all__ = ["Target", "opened", "opens", "store_of"]

#: A mapping, a path, a URL, a UPath, a zarr 3 store, a zarr Group or Array, or another object that `open_store` takes.
Target: TypeAlias = Mapping[str, Any] | str | os.PathLike[str] | Any

P = ParamSpec("P")
R = TypeVar("R")
#: A mode of `open_store`, or what tells it from the arguments of the call.
Mode: TypeAlias = str | Callable[[Mapping[str, Any]], str]


def store_of(target: Target, mode: str = "a") -> Store:
    """Return the store that a target stands for: a mapping as a Store, anything else as `open_store` opens it.

    Parameters
    ----------
    target : mapping, path, URL or store object
        None is refused: `open_store` would make a new store of it.
    mode : str
        A mode of `open_store`, for what is no mapping.

    Raises
    ------
    TypeError
        `target` stands for no store.

    Examples
    --------
    >>> store_of({"a": b"1"})["a"]
    b'1'
    """
    if target is None or not _must_open(target):
        return as_store(target)
    # The registry stands above this layer, and the stores beside it; both are known by their names only.
    opened: Store = importlib.import_module("zarrstore.registry").open_store(target, mode)
    return opened


def _must_open(target: object) -> bool:
    if target is None or isinstance(target, Store | Mapping):
        return False
    return not (hasattr(target, "keys") and hasattr(target, "__getitem__"))


def opens(
    result: Literal["value", "iterator", "store"] = "value", **modes: Mode
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a verb take whatever `open_store` takes for the parameters named.

    Parameters
    ----------
    result : {'value', 'iterator', 'store'}
        What the verb returns. An iterator keeps open what it reads until it ends; a store keeps it open for good, and
        its changes are flushed.
    **modes : str or callable
        For each parameter the mode in which it is opened, or a function from the arguments to the mode. With
        ``dry_run=True`` nothing is opened for writing, and a missing destination is an empty store.

    Notes
    -----
    A mapping is handed on as it is. What was opened from a path, URL or UPath is closed when the call ends, with an
    error too; an object of the caller stays open.

    Examples
    --------
    >>> @opens(store="r")
    ... def count(store):
    ...     return len(store)
    >>> count({"a": b"1"})
    1
    """

    def decorate(verb: Callable[P, R]) -> Callable[P, R]:
        names = verb.__code__.co_varnames
        places = [(names.index(name), name, mode) for name, mode in modes.items()]

        def wanted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
            return any(_must_open(args[at] if at < len(args) else kwargs.get(name)) for at, name, _ in places)

        def replaced(stack: ExitStack, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            for _, name, mode in places:
                target = given.get(name)
                if _must_open(target):
                    given[name] = _opened(stack, target, mode, given, closes=result != "store")
            return given

        @functools.wraps(verb)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not wanted(args, kwargs):
                return verb(*args, **kwargs)
            if result == "iterator":
                return iterate(args, kwargs)  # type: ignore[return-value]
            with ExitStack() as stack:
                given = replaced(stack, args, kwargs)
                found = verb(**given)  # type: ignore[call-arg]
                if result == "store":
                    for _, name, _ in places:
                        given[name].flush()
                return found

        def iterate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
            with ExitStack() as stack:
                yield from verb(**replaced(stack, args, kwargs))  # type: ignore[misc,call-arg]

        return call

    return decorate


@contextmanager
def opened(target: Target, mode: str) -> Iterator[Store]:
    """Open a target for the length of a block; what the caller opened stays open."""
    store = store_of(target, mode)
    if isinstance(target, str | os.PathLike) or hasattr(target, "protocol"):
        with store:  # which learns of an error: a repository commits nothing then
            yield store
    else:
        yield store


def _opened(stack: ExitStack, target: Target, mode: Mode, given: Mapping[str, Any], *, closes: bool) -> Store:
    wanted = mode if isinstance(mode, str) else mode(given)
    dry_run = bool(given.get("dry_run"))
    try:
        if not closes:
            return store_of(target, wanted)
        return stack.enter_context(opened(target, "r" if dry_run else wanted))
    except StoreNotFoundError:
        if not dry_run or wanted != "a":
            raise
        return as_store({})
