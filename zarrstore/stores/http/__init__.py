"""Values read from a web server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from zarrstore import keys as k
from zarrstore.allowance import Sizes, read_overlapped
from zarrstore.answers import ValueReader
from zarrstore.base import Capabilities, Entry
from zarrstore.batch import AheadItems
from zarrstore.driver import Extent
from zarrstore.errors import MetadataError, UnsupportedOperation
from zarrstore.metadata import consolidated, documents
from zarrstore.optional import require
from zarrstore.permits import Permits
from zarrstore.refuse import RefuseWrites
from zarrstore.stores.http.client import Client
from zarrstore.urls import UserInfo, split_userinfo, with_userinfo, without_secrets

__all__ = ["HTTPStore"]


class HTTPStore(RefuseWrites):
    """Read the values below a URL; what is not plainly absent is an error, and a short value is never returned.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``; keys are appended to its path. A ``user:password@`` in it is sent as basic
        authentication; `url` holds it no more then, and neither repr nor errors show it, nor the values of a query.
    headers : mapping, optional
        Sent with each request; those that may be secret (``Authorization``, ``Cookie``, tokens) not to another server
        that a redirect leads to.
    timeout : float, seconds, default 30
        To connect, and between two pieces of an answer; also how long an answer may be slower than 64 bytes per second.
    retries : int, default 3
        How often a request is repeated after 408, 425, 429, 500, 502, 503, 504 or a broken connection: after 0.1 to
        0.2 s, then twice as long each time, or as long as ``Retry-After`` says, at most a minute.
    missing_is : collection of int, optional
        Statuses besides 404 and 410 that mean absence: ``{403}`` for a service that answers so for what is not there.
    workers : int, default 32
        Requests in flight at a time in a batch.
    listing : bool, default False
        The server is ``zarrstore serve``, whose listing is complete: keys can be listed. `open_store` passes it for
        ``zarrstore+http://`` and ``zarrstore+https://``.

    Raises
    ------
    MissingDependencyError
        urllib3 is not installed.
    ValueError
        The URL is none of HTTP.

    Notes
    -----
    Cost: one request a get (several in flight in a batch, on connections kept open), one HEAD for ``in`` and sizes. A
    server that ignores ranges sends the whole value, which is cut here.

    An answer counts as whole if it has the announced length, or ends with the last chunk of a chunked body. One that
    has neither, that is packed, or that contradicts itself raises StoreReadError. A redirect to a listing
    (``.../name/``) is absence.

    Nothing can be written. A web server has no listing to rely on, so the keys cannot be listed: iteration, `len` and
    `keys_below` raise UnsupportedOperation. `listdir` of a group answers from consolidated metadata (``.zmetadata``,
    or an inline ``zarr.json``), which is read once; `listdir` within an array raises, for no document names chunks.
    `getsize` of a directory is -1. Threads: safe. Forked children open their own connections. A pickle carries the
    headers and the password, which the copy needs. Source: zarr 2's use of fsspec, where a 403 read as a missing chunk.

    Examples
    --------
    >>> store = HTTPStore("http://127.0.0.1:8000/data.zarr")
    >>> store.url
    'http://127.0.0.1:8000/data.zarr'
    >>> HTTPStore("https://me:secret@host/data.zarr?sig=abc")
    HTTPStore('https://host/data.zarr?sig=***')
    """

    capabilities = Capabilities(
        writable=False, erasable=False, listable=False, ranged=True, concurrent=True, process_safe=True
    )

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        missing_is: Collection[int] = (),
        workers: int = 32,
        listing: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{without_secrets(url)!r} is no URL of HTTP")
        self.url, self._user = split_userinfo(url)
        self.headers = dict(headers or {})
        self.timeout = timeout
        self.retries = retries
        self.missing_is = frozenset(missing_is)
        self.workers = self._in_flight = workers
        self.listing = listing
        if listing:
            self.capabilities = replace(type(self).capabilities, listable=True)
        self._value_sizes = Sizes()
        self._names: dict[str, bool] | None = None
        # One for all batches that run at the same time.
        self._free = Permits(workers)
        sent, identity = _credentials(self._user, self.headers)
        self._client = Client(
            self.url,
            sent,
            timeout,
            retries,
            self.missing_is,
            workers,
            shown=repr(self),
            identity=identity,
            urllib3=require("urllib3", extra="http", feature="HTTPStore"),
            pause=lambda seconds: time.sleep(seconds),
        )
        self._reader = ValueReader(self._client.ask, self._client.refusal, self._client.error)

    def __repr__(self) -> str:
        return f"HTTPStore({without_secrets(self.url)!r})"

    def _place(self) -> object:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        names = ("url", "headers", "timeout", "retries", "missing_is", "workers", "listing")
        return {name: getattr(self, name) for name in names} | {"user": tuple(self._user)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = dict(state)
        user = UserInfo(*options.pop("user"))
        HTTPStore.__init__(self, with_userinfo(options.pop("url"), user), **options)

    # Reading ---------------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> bytes:
        return self._reader.get(key)

    def _contains(self, key: str) -> bool:
        try:
            self._reader.check_presence(key)
        except KeyError:
            return False
        return True

    def _extent(self, key: str) -> Extent | None:
        return Extent(self._client.url_of(key))

    def _nbytes(self, key: str) -> int:
        return self._reader.nbytes(key)

    def _entry(self, key: str) -> Entry:
        return Entry(key, *self._reader.describe(key))

    def _get_range(self, key: str, start: int, stop: int | None) -> bytes:
        return self._reader.get_range(key, start, stop)

    def _get_suffix(self, key: str, n: int) -> bytes:
        return self._reader.get_suffix(key, n)

    def _get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return AheadItems(self._fetch, keys, sizes=self._value_sizes)

    def _fetch(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return read_overlapped(self._or_none, keys, self._free)

    def _or_none(self, key: str) -> bytes | None:
        try:
            return self._get(key)
        except KeyError:
            return None

    # Listing: the documents that consolidated metadata names ---------------------------------------------------------

    def _documents(self) -> dict[str, bool]:
        """Return the keys of all documents, and of each whether it is that of an array."""
        if self._names is None:
            self._names = self._consolidated()
        return self._names

    def _consolidated(self) -> dict[str, bool]:
        data = self._or_none(documents.ZMETADATA)
        if data is not None:
            keys = [documents.ZMETADATA, *consolidated.parse(data, strict=False)]
            return {key: k.name(key) == documents.ZARRAY for key in keys}
        data = self._or_none(documents.ZARR_JSON)
        nodes = None if data is None else self._inline(data)
        if nodes is None:
            raise self._unlistable("consolidate the metadata there, and groups can be listed")
        named = {k.join(path, documents.ZARR_JSON): node.get("node_type") == "array" for path, node in nodes.items()}
        return {documents.ZARR_JSON: False} | named

    def _inline(self, data: bytes) -> Mapping[str, Mapping[str, Any]] | None:
        try:
            return consolidated.parse_inline(documents.loads(data, documents.ZARR_JSON))
        except MetadataError:
            return None

    def _unlistable(self, way_out: str) -> UnsupportedOperation:
        return UnsupportedOperation("be listed", self, f"a web server has no listing that can be relied on; {way_out}")

    def _details(self, path: str) -> Iterable[Entry]:
        if not self.listing:
            return super()._details(path)
        return self._listed(path)

    def _listed(self, path: str) -> list[Entry]:
        """Return all keys below a path, as `zarrstore serve` lists them."""
        try:
            answer = self._client.ask_listing(path)
        except KeyError:
            return []
        if answer.status in (404, 410):
            return []
        lines = (answer.body or b"").splitlines()
        try:
            head, *rows, foot = map(json.loads, lines)
            if answer.status != 200 or head.get("zarrstore") != "list" or foot.get("keys") != len(rows):
                raise ValueError
            if not all(type(nbytes) is int and nbytes >= -1 for _, nbytes in rows):
                raise ValueError
            return [Entry(k.check_key(key), nbytes) for key, nbytes in rows if k.is_below(key, path)]
        except (ValueError, TypeError, AttributeError):
            reason = f"the answer to ?list, with status {answer.status}, is no whole listing of zarrstore serve"
            raise self._client.error(path, reason) from None

    def _keys(self, path: str) -> Iterable[str]:
        if self.listing:
            return [entry.key for entry in self._listed(path)]
        raise self._unlistable("consolidated metadata names the documents, and listdir of a group gives them")

    def _listdir(self, path: str) -> Iterable[str]:
        if self.listing:
            return k.children(self._keys(path), path)
        known = self._documents()
        if path in known:
            return ()
        for at in (*k.parents(path), path):
            if any(known.get(k.join(at, name)) for name in (documents.ZARRAY, documents.ZARR_JSON)):
                raise self._unlistable(f"{at!r} is an array, and no document names its chunks")
        names = k.children(known, path)
        if not names:
            raise self._unlistable(f"no document names a group at {path!r}")
        return names

    def _getsize(self, path: str) -> int:
        if path:
            with suppress(KeyError):
                return self._nbytes(path)
        return -1  # whether values lie below it, no answer tells

    def _close(self) -> None:
        self._client.close()


def _credentials(user: UserInfo, headers: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the headers to send, and a word on who asks, without what is secret."""
    names = {name.lower() for name in headers}
    if "authorization" in names:
        return dict(headers), "with an Authorization header"
    if user.user is not None:
        token = base64.b64encode(f"{user.user}:{user.password or ''}".encode()).decode()
        return {**headers, "Authorization": f"Basic {token}"}, f"as the user {user.user!r}"
    return dict(headers), "with a cookie" if "cookie" in names else "without credentials"
