"""What bridges to object stores have in common: requests overlap, and a failure is never taken for absence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from zarrstore import keys as k
from zarrstore.allowance import Sizes, read_overlapped
from zarrstore.base import Capabilities, Store
from zarrstore.batch import AheadItems, batches, checklist
from zarrstore.driver import Copier, Driver, Pair
from zarrstore.errors import ConflictError, StoreReadError
from zarrstore.permits import Permits
from zarrstore.urls import without_secrets

__all__ = ["Objects", "status_of", "unopened"]

T = TypeVar("T")

#: Size from which a value is copied in the memory that the library gave it in, in bytes: one copy less.
LARGE = 1 << 20

#: What a local file system says of a directory, of what is below a file, and of a name too long for any file. The
#: libraries have no classes of their own for these.
_NOTHING_THERE = ("os error 20)", "os error 21)", "os error 36)", "os error 63)")
#: Where the libraries tell the status of an answer.
_STATUS = re.compile(r"status(?: code)?: ([0-9]{3})")


#: What the libraries raise for a permission that lacks.
_REFUSALS = frozenset({"PermissionDeniedError", "UnauthenticatedError", "PermissionDenied"})


def status_of(exc: Exception) -> int | None:
    """Return the status of the server's answer that an error tells of, None if it tells none."""
    found = _STATUS.search(str(exc))
    return int(found[1]) if found else None


def unopened(library: str, url: str, options: Mapping[str, Any], exc: BaseException, hint: str = "") -> ValueError:
    """Return the error for a URL that a library does not open: its first sentence, and the names of the options."""
    text = without_secrets(str(exc)).replace("\\n", "\n").partition("\n")[0].rstrip(".")
    names = f" with the options {', '.join(sorted(options))}" if options else ""
    return ValueError(f"{library} cannot open {without_secrets(url)!r}{names}: {text}{hint if options else ''}")


def _hide_secrets(exc: Exception) -> None:
    """Take the secrets out of what a library says: tracebacks show it, also as the cause of another error."""
    text = str(exc)
    if (plain := without_secrets(text)) != text:
        exc.args = (plain,)


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
    workers : int
        Requests in flight at a time in a batch.
    """

    #: What a batch of writes holds, in bytes and in number.
    batch_bytes, batch_keys = 32 << 20, 256

    def __init__(
        self, missing_is: Sequence[type[Exception]], hierarchical: bool, process_safe: bool, workers: int
    ) -> None:
        self._missing = tuple(missing_is)
        self.workers = self._in_flight = workers
        self._value_sizes = Sizes()
        # One for all batches that run at the same time.
        self._free = Permits(workers)
        self.capabilities = Capabilities(
            ranged=True, concurrent=True, hierarchical=hierarchical, process_safe=process_safe
        )

    def _error(self, key: str, exc: Exception) -> Exception:
        """Return what to raise for a failed call: KeyError if it says that nothing is there."""
        _hide_secrets(exc)
        text = str(exc)
        status = status_of(exc)
        # obstore takes 405 for absence: that is a server that refuses the method, whatever it has.
        if status != 405 and (isinstance(exc, self._missing) or any(sign in text for sign in _NOTHING_THERE)):
            return KeyError(key)
        # The object services hold no name of more than 1,024 bytes, and answer so when they are asked for one.
        if status == 400 and len(key.encode()) > 1024:
            return KeyError(key)
        # Only the first line: what follows is for those who debug the library.
        reason = without_secrets(f"{type(exc).__name__}: {text.partition(chr(10))[0]}")
        is_refused = status in (401, 403) or type(exc).__name__ in _REFUSALS
        if is_refused:
            reason += f"; {self._identity()}"
        is_permanent = is_refused or (status is not None and 400 <= status < 500 and status not in (408, 425, 429))
        return StoreReadError(key, self, reason, permanent=is_permanent)

    def _identity(self) -> str:
        """Say as whom the library asks and which options change that; nothing secret. Override."""
        return "asked with the credentials of its options, which change that"

    def _ask(self, key: str, act: Callable[[], T]) -> T:
        try:
            return act()
        except Exception as exc:
            raise self._error(key, exc) from exc

    #: The directory of local files; None for a service, and where it is not known.
    _root: str | None = None

    def _discard_empty(self, path: str) -> bool:
        """Remove a local directory in which there are only empty directories, and tell whether it was one."""
        place = self._root and os.path.join(self._root, path)
        if not place or not os.path.isdir(place) or os.path.islink(place):
            return False
        try:
            for folder, _, _ in os.walk(place, topdown=False):
                os.rmdir(folder)  # fails where anything else is in it, and where another has put a value
        except OSError:
            return False
        return True

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
        return AheadItems(self._fetch, keys, sizes=self._value_sizes)

    def _fetch(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return read_overlapped(self._or_none, keys, self._free)

    def _or_none(self, key: str) -> bytes | None:
        try:
            return self._get(key)
        except KeyError:
            return None

    def _overlap(self, act: Callable[[Any], T], things: Sequence[Any]) -> list[T]:
        return self._free.map(act, things)

    def _listdir(self, path: str) -> Iterable[str]:
        return (name for name, _ in self._list_children(path))

    def _list_children(self, path: str) -> Iterator[tuple[str, bool]]:
        for name, is_value, is_path in self._children(path):
            # Directories of files stay when their last file goes, and are no children then.
            if is_value or not self.capabilities.hierarchical or self._holds(k.join(path, name)):
                yield name, is_path

    def _holds(self, path: str) -> bool:
        return next(iter(self._keys(path)), None) is not None

    def _children(self, path: str) -> Iterator[tuple[str, bool, bool]]:
        """Yield the names below a path, whether each is a value, and whether something is below it. Override."""
        raise NotImplementedError

    def _set(self, key: str, value: bytes) -> None:
        try:
            self._put(key, value)
        except Exception as exc:
            if self.capabilities.hierarchical:
                self._refuse_if_conflict(key)
            _hide_secrets(exc)
            exc.add_note(f"while setting {key!r} in {self}")
            if type(exc).__name__ in _REFUSALS:
                exc.add_note(self._identity())
            raise

    def _refuse_if_conflict(self, key: str) -> None:
        for above in k.parents(key):
            if above and self._contains(above):
                raise ConflictError(key, self, above)
        below = next(iter(self._keys(key)), None)
        if below is not None:
            raise ConflictError(key, self, below)

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        done = checklist(items)

        def store(item: tuple[str, bytes]) -> None:
            self._set(*item)
            done.add(item[0])

        for batch in batches(items, self.batch_keys, self.batch_bytes):
            self._overlap(store, list(batch.items()))

    def _delete(self, key: str) -> None:
        # Most services delete what is missing without a word.
        if not self._contains(key):
            raise KeyError(key)
        self._remove(key)

    def _delete_many(self, keys: Iterable[str]) -> None:
        done = checklist(keys)

        def remove(key: str) -> None:
            self._remove(key)
            done.add(key)

        self._overlap(remove, list(dict.fromkeys(keys)))

    def _getsize(self, path: str) -> int:
        if path:
            with suppress(KeyError):
                return self._nbytes(path)
        return sum(self._sizes(path))

    def _sizes(self, path: str) -> Iterable[int]:
        """Return the sizes of the values immediately below a path."""
        return self._overlap(
            self._nbytes, [k.join(path, name) for name, is_value, _ in self._children(path) if is_value]
        )

    # Renaming: copies that the server makes ------------------------------------------------------------------------

    def _copy(self, source: str, destination: str) -> None:
        """Copy an object at the server; KeyError if it is absent. Override with `copies`."""
        raise NotImplementedError

    #: Whether the service copies by itself.
    copies = False

    def _copying_from(self, source: Objects) -> Callable[[str, str], None] | None:
        """Return what copies a value of a store of the same class at the server, None if nothing does."""
        return self._copy if source._place() == self._place() is not None else None

    def _copier(self, source: Driver) -> Copier | None:
        if not self.copies or type(source) is not type(self):
            return None
        copy_at_server = self._copying_from(source)
        if copy_at_server is None:
            return None

        def copy_one(pair: Pair) -> int | None:
            try:
                nbytes = source._nbytes(pair.key) if pair.nbytes < 0 else pair.nbytes
                copy_at_server(pair.key, pair.dest_key)
            except Exception:  # the caller tries in its own way, and meets the error again
                return None
            return nbytes

        return lambda pairs: iter(self._overlap(copy_one, pairs))

    def _buffer(self, key: str) -> memoryview | None:
        """Return the value in the memory in which the library gives it; None if that is not possible. Override."""
        return None

    def _copier_to(self, write: Callable[[str, memoryview], object]) -> Copier | None:
        if type(self)._buffer is Objects._buffer:
            return None

        def copy_one(pair: Pair) -> int | None:
            try:
                value = self._buffer(pair.key)
                if value is not None:
                    write(pair.dest_key, value)
            except Exception:  # as above
                return None
            return None if value is None else len(value)

        def copy_large(pairs: Sequence[Pair]) -> Iterator[int | None]:
            large = [pair for pair in pairs if pair.nbytes >= LARGE]
            copied = dict(zip((pair.key for pair in large), self._overlap(copy_one, large), strict=True))
            return (copied.get(pair.key) for pair in pairs)

        return copy_large

    def _rename(self, source: str, destination: str) -> None:
        if not self.copies:
            return super()._rename(source, destination)
        moving = list(self._keys(source))
        # All copied before the first is deleted: whatever fails, the source is whole.
        if source:
            try:
                self._copy(source, destination)
            except KeyError:
                if not moving:
                    raise
            else:
                moving.append(source)
        pairs = [(key, k.replace_root(key, source, destination)) for key in moving if key != source]
        self._overlap(lambda pair: self._copy(*pair), pairs)
        self._delete_many(moving)
        return None
