"""An obstore store as a mapping, through obstore's own synchronous calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from zarrstore import keys as k
from zarrstore.errors import InvalidKeyError
from zarrstore.optional import require
from zarrstore.stores._objects import Objects

__all__ = ["ObstoreStore"]

#: Keys of one request to delete: what S3 takes.
_DELETES = 1000


class ObstoreStore(Objects):
    """Keep each value as one object of an obstore store: S3, Google Cloud, Azure, HTTP, local files or memory.

    Parameters
    ----------
    store : obstore store
        ``obstore.store.S3Store(...)`` and the like; its ``prefix`` is the root.
    missing_is : sequence of exception classes, optional
        What else means that a key is absent. S3 without the permission to list answers 403 for absence:
        ``missing_is=(obstore.exceptions.PermissionDeniedError,)``.

    Raises
    ------
    MissingDependencyError
        obstore is not installed.

    Notes
    -----
    Cost, in requests: get, set, part, `in` 1 (a part that begins behind the end 2); `del` 2, for most services do not
    tell whether anything was there; `delitems` and `rmdir` 1 per 1,000 keys; `listdir` 1 per 1,000 children. Batches
    run 16 requests at a time. obstore makes several attempts for up to 3 minutes before it gives up: ``retry_config``
    shortens that.

    Threads: safe. Processes: as the service. Pickles where the obstore store does (not memory). Names that obstore
    refuses (control characters; on local files those that end in ``#`` and digits) raise InvalidKeyError. On local
    files, ``LocalStore(..., automatic_cleanup=True)`` removes directories that a delete empties. Source: this package.

    Examples
    --------
    >>> import obstore
    >>> store = ObstoreStore(obstore.store.MemoryStore())
    >>> store["foo/0.0"] = b"data"
    >>> store["foo/0.0"], store.listdir("foo"), store.getrange("foo/0.0", 1, 3)
    (b'data', ['0.0'], b'at')
    """

    def __init__(self, store: Any, missing_is: Sequence[type[Exception]] = ()) -> None:
        self._obstore = require("obstore", extra="obstore", feature="ObstoreStore")
        kind = type(store).__name__
        absent: tuple[type[Exception], ...] = (FileNotFoundError, NotADirectoryError, IsADirectoryError, *missing_is)
        super().__init__(absent, hierarchical=kind == "LocalStore", process_safe=kind != "MemoryStore")
        self.store = store
        self.missing_is = tuple(missing_is)

    @classmethod
    def from_url(cls, url: str, missing_is: Sequence[type[Exception]] = (), **options: Any) -> ObstoreStore:
        """Open the store at a URL, as ``obstore.store.from_url`` does."""
        module = require("obstore.store", extra="obstore", feature="ObstoreStore")
        return cls(module.from_url(url, **options), missing_is)

    def __repr__(self) -> str:
        return f"ObstoreStore({self.store!r})"

    def _place(self) -> object:
        return self.store

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, self.missing_is)

    def _error(self, key: str, exc: Exception) -> Exception:
        # A name that obstore has for no object's.
        return KeyError(key) if _is_refused(exc) else super()._error(key, exc)

    def _get(self, key: str) -> bytes:
        return self._ask(key, lambda: bytes(self._obstore.get(self.store, key).bytes()))

    def _nbytes(self, key: str) -> int:
        return self._ask(key, lambda: int(self._obstore.head(self.store, key)["size"]))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if stop is not None and stop <= start:
            self._nbytes(key)  # obstore refuses an empty range; absence must still be told
            return b""
        return self._part(key, {"offset": start} if stop is None else (start, stop), first=start)

    def _get_suffix(self, key: str, n: int) -> bytes:
        if n == 0:
            self._nbytes(key)  # as above
            return b""
        return self._part(key, {"suffix": n}, first=0)

    def _part(self, key: str, wanted: Any, first: int) -> bytes:
        try:
            return bytes(self._obstore.get(self.store, key, options={"range": wanted}).bytes())
        except Exception as exc:
            error = self._error(key, exc)
            # A range that begins at the end or behind it is an error there, and empty here.
            if not isinstance(error, KeyError) and self._nbytes(key) <= first:
                return b""
            raise error from exc

    # Listing -------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterator[str]:
        pages = iter(self._listed(path, lambda: self._obstore.list(self.store, prefix=path or None)))
        while page := self._listed(path, lambda: next(pages, [])):
            for found in page:
                if k.is_below(found["path"], path) and k.is_key(found["path"]):
                    yield found["path"]

    def _listed(self, path: str, act: Callable[[], Any]) -> Any:
        """Return what a listing gives, nothing if nothing is there."""
        try:
            return self._ask(path, act)
        except KeyError:
            return {}

    def _below(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._listed(
            path, lambda: self._obstore.list_with_delimiter(self.store, prefix=path or None)
        )
        return found

    def _children(self, path: str) -> Iterator[tuple[str, bool]]:
        found = self._below(path)
        values = [item["path"] for item in found.get("objects", ())]
        names = {k.child(at, path): True for at in values}
        names |= {name: False for at in found.get("common_prefixes", ()) if (name := k.child(at, path)) not in names}
        return ((name, is_value) for name, is_value in names.items() if name and k.is_key(name))

    def _sizes(self, path: str) -> Iterable[int]:
        return (int(item["size"]) for item in self._below(path).get("objects", ()) if k.is_below(item["path"], path))

    # Writing -------------------------------------------------------------------------------------------------------

    def _put(self, key: str, value: bytes) -> None:
        try:
            self._obstore.put(self.store, key, value)
        except Exception as exc:
            if _is_refused(exc):
                raise InvalidKeyError(key, f"obstore cannot hold it: {str(exc).partition(chr(10))[0]}") from exc
            raise

    def _remove(self, key: str) -> None:
        try:
            self._obstore.delete(self.store, key)
        except TypeError:  # so it says of a name that it refuses
            return
        except Exception as exc:
            if not isinstance(self._error(key, exc), KeyError):
                raise

    def _delete_many(self, keys: Iterable[str]) -> None:
        doomed = list(dict.fromkeys(keys))
        for at in range(0, len(doomed), _DELETES):
            batch = doomed[at : at + _DELETES]
            try:
                self._obstore.delete(self.store, batch)
            except Exception as exc:
                # Local files stop at the first that is missing, and a refused name (a TypeError) refuses them all.
                if not isinstance(exc, TypeError) and not isinstance(self._error(batch[0], exc), KeyError):
                    raise
                super()._delete_many(batch)


def _is_refused(exc: Exception) -> bool:
    said = str(exc)
    return (isinstance(exc, ValueError) and "parse path" in said) or "Invalid path" in said or "InvalidPath" in said
