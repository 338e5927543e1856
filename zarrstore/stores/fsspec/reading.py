"""Values of a filesystem, whole and in part. Never by fs.cat or fs.rm: they take "*" and "[" in a key for a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

from zarrstore import keys as k
from zarrstore.allowance import Found, allowance
from zarrstore.answers import Answer, Unusable, content_length, md5_of
from zarrstore.base import Entry
from zarrstore.batch import AheadItems, LazyItems
from zarrstore.driver import Extent
from zarrstore.errors import StoreReadError
from zarrstore.spans import read_suffix
from zarrstore.stores.fsspec import filesystems
from zarrstore.stores.fsspec.place import Place
from zarrstore.stores.fsspec.requests import S3Requests
from zarrstore.values import as_bytes

__all__ = ["Reading", "described"]

#: For a place that is not there, FTP's `ls` of fsspec calls itself for each place above. A RecursionError in one of the
#: calls, between a command and its answer, leaves the connection out of step for good.
_DEEP = 50


class Reading(Place):
    """The driver methods that read values: by the requests of S3 and of web servers, else through the filesystem."""

    def _get(self, key: str) -> bytes:
        return self._reader.get(key) if self._reader is not None else self._cat(key)

    def _cat(self, key: str, **span: int | None) -> bytes:
        try:
            if self._traits.unproved:
                return self._proved(self._path(key), **span)
            return as_bytes(self.fs.cat_file(self._path(key), **span))
        except Exception as exc:
            error = self._error(key, exc)
            # pyarrow's have no class of their own for what is a directory.
            if isinstance(error, StoreReadError) and not (self._traits.flat or self._traits.remote):
                self._info(key)
            # A filesystem that keeps copies takes every failure to ask for absence.
            if isinstance(error, KeyError) and self._traits.keeps_copies:
                self._info(key)
                error = self._read_error(key, "its filesystem said that it is absent, and knows it")
            raise error  # noqa: B904 - it has its cause

    def _proved(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return what a file has from `start` to `end`; Unusable if that is not what its size promises."""
        first = start or 0
        with self.fs.open(path, "rb") as file:
            if first:
                file.seek(first)
            data = as_bytes(file.read() if end is None else file.read(end - first))
            size = int(file.size)
        for promised in (size, None):
            if promised is None:  # of a packed answer, the first was the packed size
                promised = int(self.fs.info(path)["size"])
            if len(data) == max(0, (promised if end is None else min(end, promised)) - first):
                return data
        raise Unusable(f"{len(data):,} bytes came, and the value has {promised:,}")

    def _extent(self, key: str) -> Extent | None:
        path = self._path(key)
        return Extent(path if self._traits.local else str(self.fs.unstrip_protocol(path)))

    def _info(self, key: str) -> dict[str, Any]:
        """Return what the filesystem knows of a value; KeyError if there is no value."""
        if self._is_deep_and_missing(k.parent(key)):
            raise KeyError(key)
        try:
            # What keeps copies lists the directory instead, which a web server may refuse.
            fs = filesystems.below_copies(self.fs) if self._traits.keeps_copies else self.fs
            info: dict[str, Any] = fs.info(self._path(key))
        except Exception as exc:
            raise self._error(key, exc)  # noqa: B904 - it has its cause
        if info.get("type") is None:
            raise self._read_error(key, "the server does not say whether it is a value or a directory")
        if info["type"] != "file":
            raise KeyError(key)
        return info

    def _is_deep_and_missing(self, path: str) -> bool:
        return self._traits.serial and path.count("/") > _DEEP and self._is_missing(self._path(path))

    def _is_missing(self, path: str) -> bool:
        """Tell whether the listing of a place above shows that there is no directory at a place of the filesystem."""
        if self._traits.flat or self._traits.remote:
            return False
        places = [path]
        while (above := self.fs._parent(places[-1])).rstrip("/") != places[-1].rstrip("/"):
            places.append(above)
        # From the root down: the first place that is not there settles it.
        return any(self._is_absent(place, above) for above, place in pairwise(reversed(places)))

    def _is_absent(self, path: str, above: str) -> bool:
        """Tell whether the listing of the place above lacks a directory, and it cannot be listed by its name either."""
        try:
            infos = self.fs.ls(above, detail=True)
        except Exception:
            return False
        if any(info["type"] == "directory" and info["name"].strip("/") == path.strip("/") for info in infos):
            return False
        try:
            self.fs.ls(path, detail=True)
        except Exception:
            return True
        # Servers leave names that begin with a dot out of a listing. A file is listed as its own only child.
        return any(info["name"].strip("/") == path.strip("/") for info in infos)

    def _check_presence(self, key: str) -> None:
        """Raise KeyError if there is no value."""
        # Not fs.isfile: it takes every failure for absence.
        if self._reader is not None:
            self._reader.check_presence(key)
        else:
            self._info(key)

    def _contains(self, key: str) -> bool:
        try:
            self._check_presence(key)
        except KeyError:
            return False
        return True

    def _nbytes(self, key: str) -> int:
        if self._reader is not None:
            return self._reader.nbytes(key)
        size = self._info(key).get("size")
        return -1 if size is None else int(size)

    def _known_nbytes(self, key: str) -> int:
        """Return the size; an error if the filesystem does not know it."""
        nbytes = self._nbytes(key)
        if nbytes < 0:
            raise self._read_error(key, "its size is not known, so neither is where it ends")
        return nbytes

    def _entry(self, key: str) -> Entry:
        if isinstance(self._requests, S3Requests):
            answer = self._ask("HEAD", key, {})
            return _described_by_head(key, answer.headers)
        if self._reader is not None:
            return Entry(key, *self._reader.describe(key))
        return described(key, self._info(key))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if not self.capabilities.ranged:
            return super()._get_range(key, start, stop)
        if self._reader is not None:
            return self._reader.get_range(key, start, stop)
        return self._part(key, stop is not None and stop <= start, start, start=start, end=stop)

    def _get_suffix(self, key: str, n: int) -> bytes:
        if not self.capabilities.ranged:
            return super()._get_suffix(key, n)
        if self._reader is not None:
            return self._reader.get_suffix(key, n)
        if self._traits.counts_from_the_end:
            return self._part(key, n == 0, 0, start=-n)
        return read_suffix(n, lambda: self._known_nbytes(key), lambda start, stop: self._get_range(key, start, stop))

    def _part(self, key: str, nothing: bool, first: int, **span: int | None) -> bytes:
        if nothing:
            self._info(key)
            return b""
        for is_last in (False, True):
            try:
                return self._cat(key, **span)
            except StoreReadError as exc:
                # A range that begins at the end of the value or behind it is an error to most servers. Where the value
                # has more bytes by now, it was replaced meanwhile.
                if self._known_nbytes(key) <= first:
                    return b""
                if exc.permanent or is_last:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        if not self._traits.remote:
            return LazyItems(self._get, keys)
        return AheadItems(self._fetch, keys, sizes=self._value_sizes)

    def _fetch(self, keys: Sequence[str]) -> Found:
        found = Found()
        answers = self._answers(keys)
        found.unasked = [key for key, answer in zip(keys, answers, strict=True) if answer is None]
        for key, answer in zip(keys, answers, strict=True):
            if answer is None:
                continue
            try:
                if isinstance(answer, BaseException):
                    raise self._error(key, answer)
                found[key] = answer if isinstance(answer, bytes) else self._whole(key, answer)
            except KeyError:
                continue
        return found

    def _answers(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return for each key an answer, a value, the error that was met, or None where no room was left to ask."""
        if self._requests is not None:
            return self._requests.ask_many([self._name(key) for key in keys], allowance().nbytes)
        paths = [self._path(key) for key in keys]
        return list(self.fs.cat_ranges(paths, None, None, on_error="return", batch_size=self.workers))

    def _whole(self, key: str, answer: Any) -> bytes:
        if isinstance(answer, Answer) and self._reader is not None:
            return self._reader.whole(key, answer)
        return as_bytes(answer)


def _described_by_head(key: str, headers: Mapping[str, Any]) -> Entry:
    """Return the entry of an object by the headers of a HEAD; what of it cannot be read is not known."""
    etag, size, modified = str(headers.get("Etag", "")), None, -1.0
    with suppress(Unusable):
        size = content_length(headers)
    with suppress(ValueError, TypeError, OverflowError):  # of a date that is none
        modified = parsedate_to_datetime(headers["Last-Modified"]).timestamp() if "Last-Modified" in headers else -1.0
    return Entry(key, -1 if size is None else size, etag.strip('"'), md5_of(etag), modified)


def described(key: str, info: Mapping[str, Any]) -> Entry:
    """Return the entry of a file that a filesystem describes."""
    size = info.get("size")
    nbytes = -1 if size is None else int(size)
    for name in ("ETag", "etag", "md5", "md5Hash", "content_md5", "checksum"):
        if isinstance(mark := info.get(name), str) and mark:
            return Entry(key, nbytes, mark.strip('"'))
    for name in ("mtime", "last_modified", "LastModified", "modified", "created"):
        if (time := info.get(name)) is not None:
            return Entry(key, nbytes, f"{time}-{nbytes}")
    return Entry(key, nbytes)
