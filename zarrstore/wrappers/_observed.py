"""What metrics and the usage log share: every driver call is timed, measured and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from zarrstore.base import Entry
from zarrstore.batch import LazyItems
from zarrstore.wrappers.base import Wrapper

__all__ = ["Call", "Observed"]

T = TypeVar("T")


class Call:
    """One driver call, filled in while it runs.

    Attributes
    ----------
    method : str
        The driver method without its underscore; ``"get_item"`` is one value handed out by a batch of ``get_many``.
    args : tuple
        Keys, paths and offsets; the number of keys for a batch.
    keys : int
        How many keys the call was about, or, of a listing, gave.
    read, written : int, bytes
        Sizes of the values that came out and went in.
    outcome : str
        ``"ok"``, ``"absent"`` (a KeyError), or the name of the exception.
    seconds : float
        From the call to its end; of a listing, the time spent in `inner` only.
    """

    __slots__ = ("_begun", "_observed", "args", "keys", "method", "outcome", "read", "seconds", "written")

    def __init__(self, observed: Observed, method: str, *args: object) -> None:
        self._observed = observed
        self.method = method
        self.args = args
        self.keys = 1
        self.read = 0
        self.written = 0
        self.outcome = "ok"
        self.seconds = 0.0
        self._begun = 0.0

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._begun
        if kind is not None:
            self.outcome = "absent" if kind is KeyError else kind.__name__
        self._observed._note(self)


class Observed(Wrapper):
    """Base of the wrappers that only watch: `_note` gets every driver call after it ended, also if it failed.

    Notes
    -----
    `_note` gets a batch when it is asked for, and again for each value it hands out, whose time is what the reader
    waited for it. It does not get `_close`. About 1 µs a call.
    """

    passes_buffers = True

    def _note(self, call: Call) -> None:
        """Override: what to do with a call."""

    def _get(self, key: str) -> bytes:
        with Call(self, "get", key) as call:
            value = self.inner._get(key)
            call.read = len(value)
        return value

    def _contains(self, key: str) -> bool:
        with Call(self, "contains", key) as call:
            found = self.inner._contains(key)
            call.outcome = "ok" if found else "absent"
        return found

    def _keys(self, path: str) -> Iterator[str]:
        return self._listed(path, self.inner._keys)

    def _details(self, path: str) -> Iterator[Entry]:
        return self._listed(path, self.inner._details)

    def _listed(self, path: str, listing: Callable[[str], Iterable[T]]) -> Iterator[T]:
        call = Call(self, "keys", path)
        call.keys = 0
        # A listing runs between the steps of its reader, whose time is not the store's.
        try:
            begun = time.perf_counter()
            for item in listing(path):
                call.seconds += time.perf_counter() - begun
                call.keys += 1
                yield item
                begun = time.perf_counter()
            call.seconds += time.perf_counter() - begun
        except Exception as exc:
            call.outcome = type(exc).__name__
            raise
        finally:
            self._note(call)

    def _count(self) -> int:
        with Call(self, "count"):
            return self.inner._count()

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        with Call(self, "get_range", key, start, stop) as call:
            value = self.inner._get_range(key, start, stop)
            call.read = len(value)
        return value

    def _get_ranges(self, key: str, spans: Sequence[tuple[int, int | None]]) -> list[bytes]:
        with Call(self, "get_ranges", key, len(spans)) as call:
            parts = self.inner._get_ranges(key, spans)
            call.read = sum(map(len, parts))
        return parts

    def _get_suffix(self, key: str, n: int) -> bytes:
        with Call(self, "get_suffix", key, n) as call:
            value = self.inner._get_suffix(key, n)
            call.read = len(value)
        return value

    def _nbytes(self, key: str) -> int:
        with Call(self, "nbytes", key):
            return self.inner._nbytes(key)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        with Call(self, "get_many", len(keys)) as call:
            call.keys = len(keys)
            found = self.inner._get_many(keys)

        def read(key: str) -> bytes:
            with Call(self, "get_item", key) as call:
                value = found[key]
                call.read = len(value)
            return value

        return LazyItems(read, keys)

    def _listdir(self, path: str) -> Iterable[str]:
        with Call(self, "listdir", path) as call:
            names = list(self.inner._listdir(path))
            call.keys = len(names)
        return names

    def _list_children(self, path: str) -> Iterable[tuple[str, bool]]:
        with Call(self, "listdir", path) as call:
            children = list(self.inner._list_children(path))
            call.keys = len(children)
        return children

    def _getsize(self, path: str) -> int:
        with Call(self, "getsize", path):
            return self.inner._getsize(path)

    def _set(self, key: str, value: bytes) -> None:
        with Call(self, "set", key) as call:
            call.written = len(value)
            self.inner._set(key, value)

    def _delete(self, key: str) -> None:
        with Call(self, "delete", key):
            self.inner._delete(key)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        with Call(self, "set_many") as call:
            call.keys = 0

            def passing() -> Iterator[tuple[str, bytes]]:
                for key, value in items:
                    call.keys += 1
                    call.written += len(value)
                    yield key, value

            self.inner._set_many(passing())

    def _delete_many(self, keys: Iterable[str]) -> None:
        with Call(self, "delete_many") as call:
            wanted = list(keys)
            call.keys = len(wanted)
            self.inner._delete_many(wanted)

    def _rmdir(self, path: str) -> None:
        with Call(self, "rmdir", path):
            self.inner._rmdir(path)

    def _rename(self, source: str, destination: str) -> None:
        with Call(self, "rename", source, destination):
            self.inner._rename(source, destination)

    def _clear(self) -> None:
        with Call(self, "clear"):
            self.inner._clear()

    def _sweep(self, path: str, dry_run: bool) -> Iterable[str]:
        with Call(self, "sweep", path):
            return list(self.inner._sweep(path, dry_run))

    def _flush(self) -> None:
        with Call(self, "flush"):
            self.inner._flush()
