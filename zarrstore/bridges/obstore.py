"""An obstore store as a mapping, through obstore's own synchronous calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.batch import AheadItems
from zarrstore.errors import InvalidKeyError, StoreReadError
from zarrstore.optional import require

__all__ = ["ObstoreStore"]

#: Requests under way at a time.
_WORKERS = 16
#: Keys of one request to delete: what S3 takes.
_DELETES = 1000


class ObstoreStore(Store):
    """Keep each value as one object of an obstore store: S3, Google Cloud, Azure, HTTP, local files or memory.

    Parameters
    ----------
    store : obstore store
        ``obstore.store.S3Store(...)`` and the like, or an obstore ``PrefixStore``-configured one.

    Raises
    ------
    MissingDependencyError
        obstore is not installed.

    Notes
    -----
    Cost: one request a get, set or ``in``; `listdir` one listing with a delimiter; batches run 16 requests at a time,
    deletes go by the thousand. Absence is
    what obstore says it is (404); 403, 5xx and time-outs are StoreReadError. Deleting is one request to look and one
    to delete, since most services do not
    tell whether anything was there. Threads: safe. Processes: as the service. Pickles where the obstore store does
    (not memory). Source: this package;
    names with control characters are refused, as obstore does; the store of zarr 3 over obstore costs 100 times more
    a call.

    Examples
    --------
    >>> import obstore
    >>> store = ObstoreStore(obstore.store.MemoryStore())
    >>> store["foo/0.0"] = b"data"
    >>> store["foo/0.0"], store.listdir("foo"), store.getrange("foo/0.0", 1, 3)
    (b'data', ['0.0'], b'at')
    """

    capabilities = Capabilities(ranged=True, concurrent=True, process_safe=False)

    def __init__(self, store: Any) -> None:
        self._obstore = require("obstore", extra="obstore", feature="ObstoreStore")
        self.store = store

    @classmethod
    def from_url(cls, url: str, **options: Any) -> ObstoreStore:
        """Open the store at a URL, as ``obstore.store.from_url`` does."""
        module = require("obstore.store", extra="obstore", feature="ObstoreStore")
        return cls(module.from_url(url, **options))

    def __repr__(self) -> str:
        return f"ObstoreStore({self.store!r})"

    def _place(self) -> object:
        return self.store

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store,)

    def _failure(self, key: str, exc: Exception) -> Exception:
        if isinstance(exc, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            return KeyError(key)
        # A directory of a local store answers with an error of the system that obstore wraps.
        if "Is a directory" in str(exc) or "Not a directory" in str(exc):
            return KeyError(key)
        if isinstance(exc, ValueError) and "parse path" in str(exc):
            return KeyError(key)  # a name with a control character, which obstore takes for nothing's
        return StoreReadError(key, self, str(exc))

    # Reading -------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        try:
            return bytes(self._obstore.get(self.store, key).bytes())
        except Exception as exc:
            raise self._failure(key, exc) from exc

    def _contains(self, key: str) -> bool:
        try:
            self._obstore.head(self.store, key)
        except Exception as exc:
            failure = self._failure(key, exc)
            if isinstance(failure, KeyError):
                return False
            raise failure from exc
        return True

    def _nbytes(self, key: str) -> int:
        try:
            return int(self._obstore.head(self.store, key)["size"])
        except Exception as exc:
            raise self._failure(key, exc) from exc

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if stop is not None and stop <= start:
            self._nbytes(key)  # obstore refuses an empty range; absence must still be told
            return b""
        wanted = {"offset": start} if stop is None else (start, stop)
        return self._part(key, wanted, beyond=lambda size: start >= size)

    def _get_suffix(self, key: str, n: int) -> bytes:
        if n == 0:
            self._nbytes(key)  # as above
            return b""
        return self._part(key, {"suffix": n}, beyond=lambda size: size == 0)

    def _part(self, key: str, wanted: Any, beyond: Any) -> bytes:
        try:
            return bytes(self._obstore.get(self.store, key, options={"range": wanted}).bytes())
        except Exception as exc:
            failure = self._failure(key, exc)
            # A range that begins behind the end is an error there and empty here.
            if isinstance(failure, StoreReadError) and beyond(self._nbytes(key)):
                return b""
            raise failure from exc

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return AheadItems(self._fetch, keys)

    def _fetch(self, keys: Sequence[str]) -> dict[str, bytes]:
        with ThreadPoolExecutor(_WORKERS) as pool:
            values = pool.map(self._or_none, keys)
            return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    def _or_none(self, key: str) -> bytes | None:
        try:
            return self._get(key)
        except KeyError:
            return None

    # Listing -------------------------------------------------------------------------------------------------------

    def _keys(self, path: str) -> Iterator[str]:
        for page in self._obstore.list(self.store, prefix=path or None):
            for found in page:
                name = found["path"]
                # A prefix of whole segments may also be an object of that very name.
                if k.is_below(name, path) and k.is_key(name):
                    yield name

    def _listdir(self, path: str) -> Iterable[str]:
        return {k.name(found) for found, _ in self._children(path)}

    def _getsize(self, path: str) -> int:
        if path and self._contains(path):
            return self._nbytes(path)
        return sum(size for _, size in self._children(path))

    def _children(self, path: str) -> Iterator[tuple[str, int]]:
        try:
            found = self._obstore.list_with_delimiter(self.store, prefix=path or None)
        except (FileNotFoundError, NotADirectoryError):
            return
        for item in found["objects"]:
            if k.is_below(item["path"], path) and k.is_key(item["path"]):
                yield item["path"], int(item["size"])
        for prefix in found["common_prefixes"]:
            if k.is_below(prefix, path) and k.is_key(prefix):
                yield prefix, 0

    # Writing -------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        try:
            self._obstore.put(self.store, key, value)
        except ValueError as exc:
            raise InvalidKeyError(key, f"obstore cannot hold it: {exc}") from exc

    def _set_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        with ThreadPoolExecutor(_WORKERS) as pool:
            batch: list[tuple[str, bytes]] = []
            size = 0
            for key, value in items:
                batch.append((key, value))
                size += len(value)
                if size > 32 << 20 or len(batch) >= 256:
                    list(pool.map(lambda item: self._set(*item), batch))
                    batch, size = [], 0
            list(pool.map(lambda item: self._set(*item), batch))

    def _delete(self, key: str) -> None:
        if not self._contains(key):
            raise KeyError(key)
        try:
            self._obstore.delete(self.store, key)
        except FileNotFoundError:
            raise KeyError(key) from None

    def _delete_many(self, keys: Iterable[str]) -> None:
        doomed = list(dict.fromkeys(keys))
        for at in range(0, len(doomed), _DELETES):
            batch = doomed[at : at + _DELETES]
            try:
                self._obstore.delete(self.store, batch)
            except FileNotFoundError:  # local stores stop at the first that is missing
                for key in batch:
                    try:
                        self._obstore.delete(self.store, key)
                    except FileNotFoundError:
                        continue
