"""Values read from a web server."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from zarrstore import keys as k
from zarrstore.base import Capabilities
from zarrstore.batch import AheadItems
from zarrstore.errors import MetadataError, StoreReadError, UnsupportedOperation
from zarrstore.metadata import consolidated, documents
from zarrstore.optional import require
from zarrstore.refuse import RefuseWrites

__all__ = ["HTTPStore"]

#: Statuses that say that nothing is there.
_ABSENT = frozenset({404, 410})
#: Statuses that come with a whole value.
_WHOLE = frozenset({200, 203})
#: Statuses after which the request is made again.
_AGAIN = frozenset({429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")
#: What is not sent to another server than the one it was given for.
_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
#: The longest wait before a request is made again, in seconds, whatever Retry-After says.
_LONGEST_WAIT = 60


class HTTPStore(RefuseWrites):
    """Read the values below a URL; whatever is not plainly absent is an error, and a short value is never handed out.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``; keys are appended to its path.
    headers : mapping, optional
        Sent with each request; ``Authorization`` and ``Cookie`` not to another server that a redirect leads to.
    timeout : float, seconds, default 30
        To connect, and between two pieces of an answer.
    retries : int, default 3
        How often a request is made again after 429, 500, 502, 503, 504 or a broken connection, waiting longer each
        time, or as long as ``Retry-After`` says, at most a minute.
    missing_is : collection of int, optional
        Statuses besides 404 and 410 that mean absence: ``{403}`` for a service that answers so for what is not there.
    workers : int, default 16
        Requests under way at a time in a batch.

    Raises
    ------
    MissingDependencyError
        urllib3 is not installed.
    ValueError
        The URL is none of HTTP.

    Notes
    -----
    Cost: one request a get (several under way in a batch, on connections kept open), one HEAD for ``in`` and sizes. A
    server that ignores ranges sends the whole value, which is cut here. A redirect to a listing (``.../name/``) is
    absence. Nothing can be written. Only a hierarchy with consolidated metadata can be listed, and only its
    documents: the first listing reads ``.zmetadata``, or an inline ``zarr.json``. Threads: safe. Forked children open
    their own connections. Pickles by URL. Source: zarr 2's use of fsspec, where a 403 read as a missing chunk.

    Examples
    --------
    >>> store = HTTPStore("http://127.0.0.1:8000/data.zarr")
    >>> store.url
    'http://127.0.0.1:8000/data.zarr'
    """

    capabilities = Capabilities(writable=False, erasable=False, ranged=True, concurrent=True)

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        missing_is: Collection[int] = (),
        workers: int = 16,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{url!r} is no URL of HTTP")
        self.url = url
        self.headers = dict(headers or {})
        self.timeout = timeout
        self.retries = retries
        self.missing_is = frozenset(missing_is)
        self.workers = workers
        path, question, query = url.partition("#")[0].partition("?")
        self._start = path if path.endswith("/") else path + "/"
        self._query = question + query
        self._urllib3 = require("urllib3", extra="http", feature="HTTPStore")
        self._pool: Any = None
        self._pid = os.getpid()
        self._names: dict[str, None] | None = None

    def __repr__(self) -> str:
        return f"HTTPStore({self.url!r})"

    def _place(self) -> object:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        names = ("url", "headers", "timeout", "retries", "missing_is", "workers")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        HTTPStore.__init__(self, **state)

    # Requests ------------------------------------------------------------------------------------------------------

    def _manager(self) -> Any:
        if self._pool is None or self._pid != os.getpid():
            retry = _bounded(self._urllib3.util.Retry)(
                total=self.retries,
                status_forcelist=_AGAIN,
                allowed_methods={"GET", "HEAD"},
                backoff_factor=0.2,
                backoff_max=_LONGEST_WAIT,
                redirect=0,
                raise_on_redirect=False,
                raise_on_status=False,
            )
            timeout = self._urllib3.util.Timeout(connect=self.timeout, read=self.timeout)
            self._pool = self._urllib3.PoolManager(maxsize=self.workers, retries=retry, timeout=timeout, block=False)
            self._pid = os.getpid()
        return self._pool

    def _ask(self, method: str, key: str, extra: Mapping[str, str] | None = None) -> Any:
        """Return the answer to a request whose status is 2xx, or 416, or 405 or 501 for HEAD."""
        url = self._start + quote(key, safe="/") + self._query
        # identity: a server that packs its answer would send a range of something else, or all of it.
        headers = {"Accept-Encoding": "identity", **self.headers, **(extra or {})}
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                answer = self._manager().request(method, url, headers=headers, redirect=False, decode_content=False)
            except self._urllib3.exceptions.HTTPError as exc:
                raise StoreReadError(key, self, f"no answer: {exc}") from exc
            if answer.status not in _REDIRECTS:
                break
            before, url = url, self._redirected(key, url, answer)
            if urlsplit(before)[:2] != urlsplit(url)[:2]:
                headers = {name: value for name, value in headers.items() if name.lower() not in _SECRETS}
        else:
            raise StoreReadError(key, self, f"more than {_MOST_REDIRECTS} redirects")
        if answer.status in _ABSENT or answer.status in self.missing_is:
            raise KeyError(key)
        if 200 <= answer.status < 300 or answer.status == 416 or (method == "HEAD" and answer.status in (405, 501)):
            return answer
        raise StoreReadError(key, self, f"the server answered {answer.status} {answer.reason or ''}".rstrip())

    def _redirected(self, key: str, url: str, answer: Any) -> str:
        where = answer.headers.get("Location")
        if not where:
            raise StoreReadError(key, self, f"the server answered {answer.status} and does not say where to")
        target = urljoin(url, where)
        path = unquote(urlsplit(target).path)
        if path.endswith(f"/{k.name(key)}/"):
            raise KeyError(key)  # a directory, of which the server would send a listing
        if path.endswith("/"):
            raise StoreReadError(key, self, f"the server sends us to {target!r}, which is no value")
        return str(target)

    def _body(self, key: str, answer: Any) -> bytes:
        data: bytes = answer.data
        length = answer.headers.get("Content-Length")
        if length is not None and int(length) != len(data):
            raise StoreReadError(key, self, f"{len(data):,} bytes came, and {int(length):,} were announced")
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding not in ("identity", ""):
            raise StoreReadError(key, self, f"the server packed the answer ({encoding}), though it was asked not to")
        return data

    def _whole(self, key: str, answer: Any) -> bytes:
        if answer.status not in _WHOLE:
            raise StoreReadError(key, self, f"the server answered {answer.status}, which is no whole value")
        return self._body(key, answer)

    def _get(self, key: str) -> bytes:
        return self._whole(key, self._ask("GET", key))

    def _contains(self, key: str) -> bool:
        try:
            self._nbytes(key)
        except KeyError:
            return False
        return True

    def _nbytes(self, key: str) -> int:
        answer = self._ask("HEAD", key)
        length = answer.headers.get("Content-Length")
        if answer.status < 300 and length is not None:
            return int(length)
        # No HEAD here, or no size: one byte tells both.
        answer = self._ask("GET", key, {"Range": "bytes=0-0"})
        if answer.status in (206, 416):
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if total.isdecimal():
                return int(total)
        if answer.status == 416:
            return 0
        return len(self._whole(key, answer)) if answer.status in _WHOLE else len(self._get(key))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        if stop is not None and stop <= start:
            self._nbytes(key)
            return b""
        return self._part(key, f"bytes={start}-{'' if stop is None else stop - 1}", slice(start, stop))

    def _get_suffix(self, key: str, n: int) -> bytes:
        if n == 0:
            self._nbytes(key)
            return b""
        return self._part(key, f"bytes=-{n}", slice(-n, None))

    def _part(self, key: str, wanted: str, cut: slice) -> bytes:
        answer = self._ask("GET", key, {"Range": wanted})
        if answer.status == 416:
            return b""  # it begins behind the end
        if answer.status != 206:
            return self._whole(key, answer)[cut]  # the server ignores ranges
        data = self._body(key, answer)
        # Of a part that is not plainly the one that was asked for, nothing is handed out.
        return data if _fits(cut, answer.headers.get("Content-Range", ""), len(data)) else self._get(key)[cut]

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return AheadItems(self._fetch, keys)

    def _fetch(self, keys: Sequence[str]) -> dict[str, bytes]:
        with ThreadPoolExecutor(min(self.workers, max(1, len(keys)))) as pool:
            values = pool.map(self._or_none, keys)
            return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    def _or_none(self, key: str) -> bytes | None:
        try:
            return self._get(key)
        except KeyError:
            return None

    # Listing: what consolidated metadata names -----------------------------------------------------------------------

    def _documents(self) -> dict[str, None]:
        if self._names is None:
            self._names = dict.fromkeys(self._consolidated())
        return self._names

    def _consolidated(self) -> Iterator[str]:
        data = self._or_none(documents.ZMETADATA)
        if data is not None:
            yield documents.ZMETADATA
            yield from consolidated.parse(data)
            return
        data = self._or_none(documents.ZARR_JSON)
        nodes = None if data is None else self._inline(data)
        if nodes is None:
            raise UnsupportedOperation(
                "be listed", self, "a web server has no listing that can be relied on; consolidate the metadata there"
            )
        yield documents.ZARR_JSON
        for path in nodes:
            yield k.join(path, documents.ZARR_JSON)

    def _inline(self, data: bytes) -> Iterable[str] | None:
        try:
            return consolidated.parse_inline(documents.loads(data, documents.ZARR_JSON))
        except MetadataError:
            return None

    def _keys(self, path: str) -> Iterable[str]:
        return [key for key in self._documents() if k.is_below(key, path)]

    def _listdir(self, path: str) -> Iterable[str]:
        return k.children(self._documents(), path)

    def _getsize(self, path: str) -> int:
        if path:
            with suppress(KeyError):
                return self._nbytes(path)
        try:
            return super()._getsize(path)
        except UnsupportedOperation:
            return -1  # whether values lie below it, nobody can tell

    def _close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.clear()


def _bounded(retry: Any) -> Any:
    """Return a class of retries that waits no longer than a minute, of which urllib3 itself takes six hours."""

    class Bounded(retry):  # type: ignore[misc]
        def get_retry_after(self, response: Any) -> float | None:
            wait = super().get_retry_after(response)
            return None if wait is None else min(wait, _LONGEST_WAIT)

    return Bounded


def _fits(cut: slice, content_range: str, length: int) -> bool:
    """Tell whether a part, as the server describes it, is all that `cut` takes."""
    found = _CONTENT_RANGE.fullmatch(content_range)
    if found is None:
        return False
    first, last, total = map(int, found.groups())
    start, stop, _ = cut.indices(total)
    return (first, last + 1) == (start, stop) and length == stop - start
