"""What the views have in common: they show other documents and other names of chunks than their inner store has."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from zarrstore.base import Store
from zarrstore.chunknames import is_chunk_name
from zarrstore.targets import Target
from zarrstore.threads import free_in_children
from zarrstore.wrappers._reads import ComputedReads

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_KEYS", "Shared", "View", "may_name_a_chunk"]

T = TypeVar("T")
R = TypeVar("R")

#: What a batch of writes holds at most.
MAX_BATCH_BYTES = 16 << 20
MAX_BATCH_KEYS = 1024


class View(ComputedReads):
    """A wrapper that makes documents out of those of `inner`, and remembers how the chunks of arrays are stored.

    Parameters
    ----------
    inner : Mapping
        The store that is looked at.
    dimension_separator : {'.', '/'}, optional
        How the names of chunks are spelled here; by default as `inner` says.

    Notes
    -----
    What is remembered is neither pickled nor compared. A subclass writes `_get` and `_keys`, tells in `_is_computed`
    which values are no values of `inner`, and in `_inner_key` where the others are.
    """

    #: Names of the attributes that remember, each a dict.
    _memories: ClassVar[tuple[str, ...]] = ("_arrays",)

    def __init__(self, inner: Target, dimension_separator: Literal[".", "/"] | None = None) -> None:
        super().__init__(inner)
        if dimension_separator is not None:
            if dimension_separator not in (".", "/"):
                raise ValueError(f"dimension_separator {dimension_separator!r}: '.' or '/' is expected")
            self._dimension_separator = dimension_separator
        self._reset()

    def _reset(self) -> None:
        self._lock = free_in_children(threading.RLock())
        for name in self._memories:
            setattr(self, name, {})

    def _at_once(self, ask: Callable[[T], R], things: Sequence[T]) -> list[R]:
        """Return the answers of `inner` to questions that do not depend on each other, asked together if it gains."""
        flags = self.inner.capabilities
        if len(things) < 2 or not (flags.concurrent and flags.thread_safe):
            return [ask(thing) for thing in things]
        from zarrstore.threads import Threads

        with Threads(min(self.inner._in_flight, len(things)), "zarrstore-view") as pool:
            return list(pool.map(ask, things))

    def invalidate(self) -> None:
        """Forget what was read of arrays, after another writer changed or replaced one."""
        for name in self._memories:
            getattr(self, name).clear()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", *self._memories)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _place(self) -> object:
        place = super()._place()
        return None if place is None else (place, self._dimension_separator)

    def _is_computed(self, key: str) -> bool:
        return True

    def _count(self) -> int:
        return sum(1 for _ in self._keys(""))

    def _getsize(self, path: str) -> int:
        return Store._getsize(self, path)


class Shared:
    """Values of one batch of `inner`, some of which several values here are made of.

    Parameters
    ----------
    store : Store
        `inner`.
    keys : iterable of str
        What is read, each as often as something is made of it.

    Notes
    -----
    A batch hands out each value once: what is needed again is held until its last use.

    Examples
    --------
    >>> from zarrstore.adapt import as_store
    >>> values = Shared(as_store({"a": b"1", "b": b"2"}), ["a", "a", "b"])
    >>> values["a"], values["b"], values["a"], values.held
    (b'1', b'2', b'1', {})
    """

    def __init__(self, store: Store, keys: Iterable[str]) -> None:
        self._left = Counter(keys)
        self._found: Mapping[str, bytes] = store._get_many(list(self._left))
        self.held: dict[str, bytes] = {}

    def __getitem__(self, key: str) -> bytes:
        value = self.held.pop(key, None)
        if value is None:
            value = self._found[key]
        self._left[key] -= 1
        if self._left[key] > 0:
            self.held[key] = value
        return value


def may_name_a_chunk(name: str) -> bool:
    """Tell whether the last segment of a key may be that of a chunk, in version 2 or in version 3.

    Examples
    --------
    >>> [may_name_a_chunk(name) for name in ("0.1", "7", "c", "c.0.1", "chunk", ".zarray")]
    [True, True, True, True, False, False]
    """
    return is_chunk_name(name) or name == "c" or (name[:2] == "c." and is_chunk_name(name[2:]))
