"""An OpenDAL operator as a mapping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zarrstore import keys as k
from zarrstore.base import Capabilities, Store
from zarrstore.batch import AheadItems
from zarrstore.errors import StoreReadError
from zarrstore.optional import require

__all__ = ["OpenDALStore"]

#: Requests under way at a time.
_WORKERS = 16


class OpenDALStore(Store):
    """Keep each value as one file of an OpenDAL operator: memory, local files, S3, WebDAV, SQL databases and more.

    Parameters
    ----------
    operator : opendal.Operator
        ``opendal.Operator("fs", root=...)`` and the like.
    uri : str, optional
        By which the operator was made: what a pickle carries. Without it, an operator that does not pickle its
        content (memory) loses it.

    Raises
    ------
    MissingDependencyError
        opendal is not installed.

    Notes
    -----
    Cost: one request a get or set, one ``stat`` for ``in``; a range is one ``stat`` and one read, since OpenDAL
    refuses one that goes past the end; batches run 16
    requests at a time. Absence is what OpenDAL calls NotFound, a directory, or a place below a file; all else is
    StoreReadError. Threads: safe.
    Source: this package.

    Examples
    --------
    >>> import opendal
    >>> store = OpenDALStore(opendal.Operator("memory"))
    >>> store["foo/0.0"] = b"data"
    >>> store["foo/0.0"], store.listdir("foo"), store.getrange("foo/0.0", 1, 99)
    (b'data', ['0.0'], b'ata')
    """

    capabilities = Capabilities(ranged=True, concurrent=True)

    def __init__(self, operator: Any, uri: str | None = None) -> None:
        self._errors = require("opendal.exceptions", extra="opendal", feature="OpenDALStore")
        self.operator = operator
        self.uri = uri

    @classmethod
    def from_url(cls, url: str, **options: Any) -> OpenDALStore:
        """Open the operator that a URL names, as ``opendal.Operator.from_uri`` does."""
        opendal = require("opendal", extra="opendal", feature="OpenDALStore")
        return cls(opendal.Operator.from_uri(url, **options), url)

    def __repr__(self) -> str:
        return f"OpenDALStore({self.operator!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.uri is not None:
            return type(self).from_url, (self.uri,)
        return type(self), (self.operator,)

    def _failure(self, key: str, exc: Exception) -> Exception:
        absent = (self._errors.NotFound, self._errors.IsADirectory, self._errors.NotADirectory)
        if isinstance(exc, absent):
            return KeyError(key)
        # The local file system says so of a directory, and of what is below a file, in no class of its own.
        if any(said in str(exc) for said in ("Is a directory", "Not a directory", "os error 21", "os error 20")):
            return KeyError(key)
        return StoreReadError(key, self, str(exc))

    # Reading -------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        try:
            return bytes(self.operator.read(key))
        except Exception as exc:
            raise self._failure(key, exc) from exc

    def _stat(self, key: str) -> Any:
        try:
            found = self.operator.stat(key)
        except Exception as exc:
            raise self._failure(key, exc) from exc
        if not found.mode.is_file():
            raise KeyError(key)
        return found

    def _contains(self, key: str) -> bool:
        try:
            self._stat(key)
        except KeyError:
            return False
        return True

    def _nbytes(self, key: str) -> int:
        return int(self._stat(key).content_length)

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        size = self._nbytes(key)
        end = size if stop is None else min(stop, size)
        if start >= end:
            return b""
        try:
            return bytes(self.operator.read(key, offset=start, size=end - start))
        except Exception as exc:
            raise self._failure(key, exc) from exc

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self._get_range(key, max(0, self._nbytes(key) - n), None)

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

    def _entries(self, path: str, recursive: bool) -> Iterator[tuple[str, bool]]:
        """Yield the names that OpenDAL lists below a directory, and whether each is a value."""
        try:
            for entry in self.operator.list(k.prefix(path) or "/", recursive=recursive):
                # Directories end in a slash, and the one that was asked for is among them.
                at = k.normalize_path(entry.path)
                if k.is_below(at, path) and k.is_key(at):
                    yield at, not entry.path.endswith("/")
        except Exception as exc:
            if not isinstance(self._failure(path, exc), KeyError):
                raise self._failure(path, exc) from exc

    def _keys(self, path: str) -> Iterator[str]:
        return (name for name, is_value in self._entries(path, recursive=True) if is_value)

    def _listdir(self, path: str) -> Iterable[str]:
        names = set()
        for name, is_value in self._entries(path, recursive=False):
            # Deleting leaves empty directories behind, which are no children.
            if is_value or next(iter(self._keys(name)), None) is not None:
                names.add(k.name(name))
        return names

    # Writing -------------------------------------------------------------------------------------------------------

    def _set(self, key: str, value: bytes) -> None:
        self.operator.write(key, value)

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
        self._stat(key)
        self.operator.delete(key)
