"""What bridges to object stores have in common: requests overlap, and a failure is never taken for absence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.batch import AheadItems, batches
from zarrstore.errors import ConflictError, StoreReadError

__all__ = ["Objects"]

T = TypeVar("T")

#: What a local file system says of a directory, of what is below a file, and of a name too long for any file. The
#: libraries have no classes of their own for these.
_NOTHING_THERE = ("os error 20)", "os error 21)", "os error 36)", "os error 63)")


class Objects(Store):
    """Base of the bridges whose calls are synchronous, safe for threads, and wait for a server.

    Parameters
    ----------
    missing_is : sequence of exception classes
        What the library raises for absence.
    hierarchical : bool
        Whether the values are files, which exclude directories of their names.
    process_safe : bool
        Whether other processes see what is written.
    """

    #: Requests under way at a time, and what a batch of writes holds in bytes and in number.
    workers, batch_bytes, batch_keys = 16, 32 << 20, 256

    def __init__(self, missing_is: Sequence[type[Exception]], hierarchical: bool, process_safe: bool) -> None:
        self._missing = tuple(missing_is)
        self.capabilities = Capabilities(
            ranged=True, concurrent=True, hierarchical=hierarchical, process_safe=process_safe
        )

    def _error(self, key: str, exc: Exception) -> Exception:
        """Return what to raise for a failed call: KeyError if it says that nothing is there."""
        text = str(exc)
        if isinstance(exc, self._missing) or any(said in text for said in _NOTHING_THERE):
            return KeyError(key)
        # The object services hold no name of more than 1,024 bytes, and answer so when they are asked for one.
        if "status: 400" in text and len(key.encode()) > 1024:
            return KeyError(key)
        # Only the first line: what follows is for those who debug the library.
        return StoreReadError(key, self, f"{type(exc).__name__}: {text.partition(chr(10))[0]}")

    def _ask(self, key: str, act: Callable[[], T]) -> T:
        try:
            return act()
        except Exception as exc:
            raise self._error(key, exc) from exc

    def _put(self, key: str, value: bytes) -> None:
        """Store an object. Override."""
        raise NotImplementedError

    def _remove(self, key: str) -> None:
        """Delete an object, or do nothing if there is none. Override."""
        raise NotImplementedError

    def _contains(self, key: str) -> bool:
        try:
            self._nbytes(key)
        except KeyError:
            return False
        return True

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return AheadItems(self._fetch, keys)

    def _fetch(self, keys: Sequence[str]) -> dict[str, bytes]:
        found = self._overlap(self._or_none, keys)
        return {key: value for key, value in zip(keys, found, strict=True) if value is not None}

    def _or_none(self, key: str) -> bytes | None:
        try:
            return self._get(key)
        except KeyError:
            return None

    def _overlap(self, act: Callable[[Any], T], things: Sequence[Any]) -> list[T]:
        if len(things) < 2:
            return [act(thing) for thing in things]
        with ThreadPoolExecutor(min(self.workers, len(things))) as pool:
            return list(pool.map(act, things))

    def _listdir(self, path: str) -> Iterable[str]:
        for name, is_value in self._children(path):
            # Directories of files stay when their last file goes, and are no children then.
            if is_value or not self.capabilities.hierarchical or self._holds(k.join(path, name)):
                yield name

    def _holds(self, path: str) -> bool:
        return next(iter(self._keys(path)), None) is not None

    def _children(self, path: str) -> Iterator[tuple[str, bool]]:
        """Yield the names below a path, each once, and whether it is a value. Override."""
        raise NotImplementedError

    def _set(self, key: str, value: bytes) -> None:
        try:
            self._put(key, value)
        except Exception as exc:
            if self.capabilities.hierarchical:
                self._refuse_if_conflict(key)
            exc.add_note(f"while setting {key!r} in {self}")
            raise

    def _refuse_if_conflict(self, key: str) -> None:
        for above in k.parents(key):
            if above and self._contains(above):
                raise ConflictError(key, self, above)
        below = next(iter(self._keys(key)), None)
        if below is not None:
            raise ConflictError(key, self, below)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        for batch in batches(items, self.batch_keys, self.batch_bytes):
            self._overlap(lambda item: self._set(*item), list(batch.items()))

    def _delete(self, key: str) -> None:
        # Most services delete what is missing without a word.
        if not self._contains(key):
            raise KeyError(key)
        self._remove(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        self._overlap(self._remove, list(dict.fromkeys(keys)))

    def _getsize(self, path: str) -> int:
        if path:
            with suppress(KeyError):
                return self._nbytes(path)
        return sum(self._sizes(path))

    def _sizes(self, path: str) -> Iterable[int]:
        """Return the sizes of the values immediately below a path."""
        return self._overlap(self._nbytes, [k.join(path, name) for name, is_value in self._children(path) if is_value])
