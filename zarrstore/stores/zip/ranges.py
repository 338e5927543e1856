"""A zip archive behind requests: each read is one request for a range of bytes, and the size is asked for once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from zarrstore.adapt import as_store
from zarrstore.driver import Extent
from zarrstore.errors import StoreNotFoundError, StoreReadError
from zarrstore.spans import Span, read_spans

__all__ = ["TAIL", "RangeFile", "RangeSource", "ValueRanges"]

#: Bytes read first, from the end of the archive: its end, and a directory of up to 15,000 entries with it.
TAIL = 1 << 20


class RangeSource(Protocol):
    """What `ZipStore` reads an archive from, if it is neither a path nor a file object.

    Each call is one request, and may come from any thread. An object with these two methods will do; if it has
    ``getranges(spans)`` too, which returns a list of `bytes` for a list of (start, stop), batches are read by that.
    """

    def size(self) -> int:
        """Return the length of the archive in bytes."""

    def getrange(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, clipped at the end."""


class ValueRanges:
    """A value of a store, as a source of ranges for `ZipStore`.

    Parameters
    ----------
    store : mapping
        What holds the archive as one of its values. A store that is not ``ranged``, or a mapping without ``getrange``,
        reads the whole archive for each part of it.
    key : str
        The archive's key.

    Raises
    ------
    StoreNotFoundError
        By `size`: there is no such key.
    StoreReadError
        By `size`: the store cannot tell the size.

    Notes
    -----
    Threads, processes, pickling: as `store`. The archive must not change while it is read: CRCs and headers show most
    changes as damage.

    Examples
    --------
    >>> import io, zipfile
    >>> from zarrstore import ZipStore
    >>> file = io.BytesIO()
    >>> with zipfile.ZipFile(file, "w") as archive:
    ...     archive.writestr("foo/0.0", b"data")
    >>> dict(ZipStore(ValueRanges({"a.zip": file.getvalue()}, "a.zip")))
    {'foo/0.0': b'data'}
    """

    def __init__(self, store: Mapping[str, Any], key: str) -> None:
        self.store = as_store(store)
        self.key = key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r}, {self.key!r})"

    def size(self) -> int:
        """Return the length of the archive in bytes. One request."""
        try:
            size = self.store._nbytes(self.key)
        except KeyError:
            raise StoreNotFoundError(self.key, f"a zip archive in {self.store}") from None
        if size < 0:
            raise StoreReadError(self.key, self.store, "its size is not known, and an archive is read from its end")
        return size

    def getrange(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`, clipped at the end. One request."""
        with self._as_read_errors():
            return self.store._get_range(self.key, start, stop)

    def getranges(self, spans: Sequence[Span]) -> list[bytes]:
        """Return several parts, those that lie close together by one request."""
        with self._as_read_errors():
            return self.store._get_ranges(self.key, spans)

    def extent(self) -> Extent | None:
        """Return where the archive lies for other programs, None if nowhere."""
        return self.store._extent(self.key)

    @contextmanager
    def _as_read_errors(self) -> Iterator[None]:
        try:
            yield
        except KeyError:
            # Not absence of the key that was looked for in the archive.
            raise StoreReadError(self.key, self.store, "the archive was deleted while it was read") from None


class RangeFile:
    """A source of ranges as a File.

    Parameters
    ----------
    source : RangeSource
        Where the bytes come from.
    """

    def __init__(self, source: RangeSource) -> None:
        self.source = source
        self.label = str(getattr(source, "key", None) or repr(source))
        self._size: int | None = None

    def size(self) -> int:
        if self._size is None:
            self._size = self.source.size()
        return self._size

    def pread(self, n: int, offset: int) -> bytes:
        """Return `n` bytes from `offset` on, fewer at the end."""
        stop = min(offset + n, self.size())
        return self.source.getrange(offset, stop) if offset < stop else b""

    def pread_many(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return several parts, given as (start, stop)."""
        clipped = [(start, max(start, min(stop, self.size()))) for start, stop in spans]
        getranges = getattr(self.source, "getranges", None)
        if getranges is not None:
            return list(getranges(clipped))
        return read_spans(
            lambda start, stop: self.pread((self.size() if stop is None else stop) - start, start), clipped
        )
