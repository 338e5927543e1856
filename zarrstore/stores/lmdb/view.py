"""Values of one state of an LMDB file as views of its map, which cannot be used once the block is left."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from zarrstore import keys as k
from zarrstore.stores._process import Stay
from zarrstore.stores.lmdb.ranges import as_text, bounds, some_sizes

if TYPE_CHECKING:
    from zarrstore.stores.lmdb.environments import SharedEnvironment

__all__ = ["View"]


class View(Mapping[str, memoryview]):
    """The values of one state of a file, without a copy, for as long as a ``with`` block.

    Parameters
    ----------
    environment : SharedEnvironment
        What is read from.
    store : object
        Kept alive as long as the view.

    Notes
    -----
    A value is a read-only `memoryview` of LMDB's map. At the end of the block it is released: using it raises
    ValueError. What was made of it (a part, as ``value[2:5]``, or a NumPy array) cannot be taken away from its holder:
    if it is in use still, the end of the block raises BufferError, and the map stays where it is until that is gone.

    The block keeps pages of its state from being used again, and waits at forks, closing and growth of the map: keep it
    short. For one thread.
    """

    def __init__(self, environment: SharedEnvironment, store: object) -> None:
        self._environment = environment
        self._store = store
        self._txn: Any = None
        self._values: list[memoryview] = []
        self._pid = os.getpid()
        self._stay = Stay()
        self._busy: list[Any] = []

    def __enter__(self) -> Self:
        self._stay = Stay()
        try:
            self._busy = self._environment.enter(self._stay)
            self._txn = self._environment.begin(buffers=True)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        free = ended = False
        try:
            free = self.release()
            if free and os.getpid() == self._pid:
                self.abort()
                ended = True
        finally:
            # In this frame, without another: an interrupt may come wherever a function of Python begins. What it left
            # half way is ended by whoever closes the environment; so is, in a forked child, what is the parent's: its
            # end would free the parent's slot in the lock file.
            if not ended:
                self._environment.kept_views.append(self)
            try:
                self._busy.remove(self._stay)
            except ValueError:
                pass
        if not free and value is None:
            raise BufferError(
                "an object made of a value of this view is still in use (a part of it, or a NumPy array): copy what is "
                "to outlive the block, and let go of the rest within it"
            )

    def __del__(self) -> None:
        # `__exit__` is a function of Python too, and an interrupt at its beginning leaves the block unended.
        if getattr(self, "_stay", None) in getattr(self, "_busy", ()):
            self.__exit__(None, KeyboardInterrupt(), None)

    def _leave(self) -> None:
        for busy in (self._busy, self._environment.busy):
            with suppress(ValueError):
                busy.remove(self._stay)

    def release(self) -> bool:
        """Take every value away from its holders; return whether that could be done for all."""
        self._values = [value for value in self._values if not _released(value)]
        return not self._values

    def abort(self) -> None:
        """End the transaction; the values are released."""
        if self._txn is not None:
            self._txn.abort()  # an interrupt may follow at once: once more does nothing
            self._txn = None

    def __getitem__(self, key: str) -> memoryview:
        try:
            name = k.judged[key].encode()
        except (KeyError, TypeError):
            raise KeyError(key) from None
        value = self._read(name)
        if value is None:
            raise KeyError(key)
        self._values.append(value)
        return value

    def _open_txn(self) -> Any:
        if self._stay not in self._busy:
            raise ValueError("this view can be used within its 'with' block only")
        return self._txn

    def _read(self, name: bytes) -> memoryview | None:
        try:
            value: memoryview | None = self._open_txn().get(name)
        except self._environment.lmdb.BadValsizeError:  # too long to be there
            return None
        return value

    def __contains__(self, key: object) -> bool:
        try:
            name = k.judged[key].encode()
        except (KeyError, TypeError):
            return False
        value = self._read(name)
        if value is None:
            return False
        value.release()
        return True

    def __iter__(self) -> Iterator[str]:
        start, end = bounds("")
        last: bytes | None = None
        while names := [name for name, _ in some_sizes(self._open_txn(), start, end, last)]:
            yield from filter(k.is_key, map(as_text, names))
            last = names[-1]

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _released(value: memoryview) -> bool:
    """Release a value; return whether nobody can use its memory any more."""
    # All views of one memory share an object, which Python shows to its garbage collector only. A part of a value is
    # one more, and so is what a NumPy array holds: that one must not be released, since the array would not notice.
    shared = next(iter(gc.get_referents(value)), None)
    try:
        value.release()
    except BufferError:
        return False
    return shared is None or sys.getrefcount(shared) <= _ALONE


def _references() -> int:
    value = memoryview(b"x")
    shared = next(iter(gc.get_referents(value)), None)
    return sys.getrefcount(shared)


#: References to the shared object of a memory of which there is one view.
_ALONE = _references()
