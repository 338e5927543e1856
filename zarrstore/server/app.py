"""Stores on the web, for reading: one application of ASGI over any stores."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

from zarrstore import keys as k
from zarrstore.adapt import as_store
from zarrstore.base import Store
from zarrstore.errors import NotRepresentableError, ZarrStoreError
from zarrstore.server import pages
from zarrstore.server.consolidation import Consolidation
from zarrstore.server.replies import EVERYWHERE, FilePart, Reply, is_document, reply_with_value
from zarrstore.server.whole import whole_value

__all__ = ["ZERO_COPY", "Application", "make_app"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

#: ASGI's message for a part of an open file, sent to servers that name it among their extensions.
ZERO_COPY = "http.response.zerocopysend"
#: Headers of a request that change its answer.
_HEEDED = frozenset({b"range", b"if-range", b"if-none-match", b"accept-encoding", b"authorization"})
#: Headers of a request whose answer takes more than the value: those, and what makes a body or another protocol.
_INVOLVED = (_HEEDED - {b"accept-encoding"}) | {b"content-length", b"transfer-encoding", b"expect", b"upgrade"}
#: A path without escapes and without a query.
_PLAIN = re.compile(rb"/[A-Za-z0-9._/@:,;=+*~!$&'()-]+")
#: URLs remembered.
_MOST = 1 << 14
_PREFLIGHT = {
    "access-control-allow-methods": "GET, HEAD, OPTIONS",
    "access-control-allow-headers": "range, if-none-match, if-range, authorization, cache-control, pragma",
    "access-control-max-age": "86400",
}


def make_app(stores: Mapping[str, Any] | Any, *, token: str | None = None, consolidate: bool = True) -> Application:
    """Return an ASGI application that serves stores for reading.

    Parameters
    ----------
    stores : store, or mapping of str to store
        One store is served at ``/``; several, each below its name.
    token : str, optional
        Without it in ``Authorization: Bearer TOKEN`` or ``?token=TOKEN``, all is refused with 401.
    consolidate : bool, default True
        Make consolidated metadata where there is none.

    Notes
    -----
    GET and HEAD of a key, with ranges (one or several), suffixes, ETag, If-None-Match and If-Range; gzip for documents
    only. ``PATH/`` is a page for people, ``PATH/?list`` all keys below a path with their sizes, as ``HTTPStore`` reads
    them. A path is a key or it is absent: nothing outside a store can be named. Any page of a browser may read what is
    served (CORS): on a machine with a browser, use `token` for what is not public.
    """
    named = stores if isinstance(stores, Mapping) and not isinstance(stores, Store) else {"": stores}
    return Application({name: as_store(store) for name, store in named.items()}, token, consolidate)


class _Request(NamedTuple):
    path: str
    method: str
    headers: Mapping[str, str]
    query: Mapping[str, list[str]]
    #: Whether the server sends a part of an open file.
    takes_files: bool


class Application:
    """Answers requests for the values of some stores; see `make_app`."""

    def __init__(self, stores: Mapping[str, Store], token: str | None, consolidate: bool) -> None:
        self.stores = stores
        self._token = token
        self._consolidations = {name: Consolidation(store) for name, store in stores.items()} if consolidate else {}
        # What waits for a network or for other threads must not hold the loop; a local file is read faster in place.
        self._inline = {name: not store.capabilities.concurrent for name, store in stores.items()}
        #: URLs that were judged, with what they name.
        self._local: dict[bytes, tuple[Store, str]] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        reply = await self._reply(scope)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        headers += EVERYWHERE
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        if reply.part is None:
            await send(start)
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})
            return
        file, offset, count = reply.part
        with file:
            await send(start)
            await send({"type": ZERO_COPY, "file": file, "offset": offset, "count": count, "more_body": False})

    async def _reply(self, scope: MutableMapping[str, Any]) -> Reply:
        method = scope["method"]
        if method == "OPTIONS":
            return Reply(204, dict(_PREFLIGHT))
        if method not in ("GET", "HEAD"):
            return _text(405, "what is served can be read only", allow="GET, HEAD, OPTIONS")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in scope["headers"] if name in _HEEDED}
        query = (
            parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True) if scope["query_string"] else {}
        )
        if self._token is not None and not self._is_allowed(headers, query):
            return _text(401, "a token is needed", **{"www-authenticate": "Bearer"})
        try:
            raw = scope.get("raw_path") or scope["path"].encode()
            path = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
        except UnicodeDecodeError:
            return _text(404, "nothing is there")
        takes_files = ZERO_COPY in (scope.get("extensions") or ())
        return await self._at(_Request(path.removeprefix("/"), method, headers, query, takes_files))

    def _is_allowed(self, headers: Mapping[str, str], query: Mapping[str, list[str]]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        offered = [given] if kind.lower() == "bearer" else query.get("token", [])
        return any(hmac.compare_digest(one.strip().encode(), str(self._token).encode()) for one in offered)

    async def _at(self, request: _Request) -> Reply:
        place = self._place(request.path)
        if place is None:
            is_root = not request.path and "" not in self.stores
            return pages.index_of(sorted(self.stores)) if is_root else _text(404, "nothing is there")
        name, rest = place
        try:
            if self._inline[name] and rest and not rest.endswith("/"):
                return self._answer(name, rest, request)
            return await asyncio.to_thread(self._answer, name, rest, request)
        except NotRepresentableError as exc:
            return _text(404, str(exc))
        except KeyError:
            return _text(404, "nothing is there")
        except (ZarrStoreError, OSError, ValueError) as exc:
            # Not 404: a reader would take it for a chunk that was never written.
            return _text(502, f"the store cannot be read: {type(exc).__name__}")

    def _place(self, path: str) -> tuple[str, str] | None:
        """Return the name of a store and the path within it; None if no store has the name."""
        if "" in self.stores:
            return "", path
        name, _, rest = path.partition("/")
        return (name, rest) if name in self.stores else None

    def _answer(self, name: str, path: str, request: _Request) -> Reply:
        store = self.stores[name]
        if not path or path.endswith("/"):
            place = path.removesuffix("/")
            if place and not k.is_key(place):
                raise KeyError(path)
            if "list" in request.query:
                return pages.listing(store, place)
            if "picture" in request.query:
                return pages.picture(store, place, request.query["picture"][0])
            return pages.page(store, place)
        if not k.is_key(path):
            raise KeyError(path)
        consolidation = self._consolidations.get(name)
        document = None if consolidation is None else consolidation.document(path)
        _, method, headers, _, takes_files = request
        return reply_with_value(store, path, method, headers, document, takes_files=takes_files)

    def immediate(
        self, method: bytes, url: bytes, headers: Headers, takes_files: bool = False
    ) -> tuple[bytes, bytes | FilePart] | None:
        """Return the header block and the body for a value of a local store that is asked for whole.

        A body above 128 KiB is an open file if `takes_files`. None for everything else, also for what is absent or
        cannot be read: then `__call__` answers. Where both answer, they answer the same.
        """
        target = self._local.get(url) or self._local_target(url)
        if target is None or not _INVOLVED.isdisjoint([name for name, _ in headers]):
            return None
        try:
            return whole_value(*target, method, takes_files)
        except (KeyError, ZarrStoreError, OSError, ValueError):
            return None

    def _local_target(self, url: bytes) -> tuple[Store, str] | None:
        """Return the store and the key of a URL that names nothing but a value of a local store."""
        if self._token is not None or not _PLAIN.fullmatch(url):
            return None
        place = self._place(url[1:].decode("ascii"))
        if place is None or not self._inline[place[0]] or not k.is_key(place[1]) or is_document(place[1]):
            return None
        if len(self._local) >= _MOST:
            self._local.clear()
        self._local[url] = found = self.stores[place[0]], place[1]
        return found


def _text(status: int, sentence: str, **headers: str) -> Reply:
    body = json.dumps({"error": sentence}).encode() + b"\n"
    return Reply(status, {"content-type": "application/json", "content-length": str(len(body)), **headers}, body)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
