"""Requests to a web server: repeated after passing failures, redirected within bounds, answered whole or not at all."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from zarrstore.answers import (
    Answer,
    Unusable,
    check_length,
    content_length,
    problem_of_body,
    redirect_target,
)
from zarrstore.errors import StoreReadError
from zarrstore.stores.http.strict import pool_manager
from zarrstore.urls import split_userinfo, without_secrets

__all__ = ["Client"]

#: Statuses that say that nothing is there.
_ABSENT = frozenset({404, 410})
#: Statuses whose body is a value, or a part of one.
_WITH_VALUE = frozenset({200, 203, 206})
#: Statuses after which the request is repeated.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
#: Headers that are not sent to another server than the one they were given for.
_SECRET_HEADER = re.compile(r"auth|cookie|token|secret|signature|api-?key", re.IGNORECASE)
#: Pauses before a request is repeated, in seconds: the first, doubled each time, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 60.0
#: Bytes of an error page that are read, so that the connection can be used again.
_MAX_ERROR_PAGE = 1 << 16


class Client:
    """Requests for the values below a URL, on connections that are kept open.

    Parameters
    ----------
    url : str
        Where the keys begin; without user and password.
    headers : mapping
        Sent with each request.
    timeout : float, seconds
        See `strict.pool_manager`.
    retries : int
        How often a request is repeated.
    missing_is : collection of int
        Statuses besides 404 and 410 that mean absence.
    connections : int
        Connections kept open.
    shown : str
        The store, in errors.
    identity : str
        Who asks, in errors about permissions.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: float,
        retries: int,
        missing_is: Collection[int],
        connections: int,
        shown: str,
        identity: str,
        urllib3: Any,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        path, question, query = url.partition("#")[0].partition("?")
        self._lead = path if path.endswith("/") else path + "/"
        self._query = question + query
        self._headers = dict(headers)
        self._timeout = timeout
        self._retries = retries
        self._missing = _ABSENT | frozenset(missing_is)
        self._connections = connections
        self._shown = shown
        self._identity = identity
        self._urllib3 = urllib3
        self._pause = pause
        self._pool: Any = None
        self._pid = os.getpid()

    def url_of(self, key: str) -> str:
        """Return the URL of a value, its query included."""
        return self._lead + quote(key, safe="/") + self._query

    def ask(self, method: str, key: str, extra: Mapping[str, str] | None = None) -> Answer:
        """Return the answer about a key, after redirects, whatever its status but absence.

        Raises
        ------
        KeyError
            The server says that nothing is there.
        StoreReadError
            There is no answer, it is not whole, or it leads nowhere.
        """
        url = self.url_of(key)
        # identity: a server that packs its answer would send a range of the packed bytes, or all of them.
        headers = {"Accept-Encoding": "identity", **self._headers, **(extra or {})}
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._persistent(method, key, url, headers)
            if answer.status not in _REDIRECTS:
                break
            source, url = url, self._redirected(key, url, answer)
            if urlsplit(source)[:2] != urlsplit(url)[:2]:
                headers = {name: value for name, value in headers.items() if not _SECRET_HEADER.search(name)}
        else:
            raise self.error(key, f"more than {_MAX_REDIRECTS} redirects")
        if answer.status in self._missing:
            raise KeyError(key)
        return answer

    def ask_listing(self, path: str) -> Answer:
        """Return the answer to ``PATH/?list``, which `zarrstore serve` gives."""
        place = quote(f"{path}/" if path else "", safe="/")
        url = self._lead + place + (f"{self._query}&list" if self._query else "?list")
        return self._persistent("GET", path, url, {"Accept-Encoding": "identity", **self._headers})

    def error(self, key: str, reason: str, *, permanent: bool = True) -> StoreReadError:
        """Return the error about a key that cannot be read."""
        return StoreReadError(key, self._shown, without_secrets(reason), permanent=permanent)

    def refusal(self, key: str, answer: Answer) -> StoreReadError:
        """Return the error for an answer whose status is no success."""
        status = f"the server answered {answer.status} {answer.reason}".rstrip()
        if answer.status in (401, 403, 407):
            status += (
                f" to a request {self._identity}; headers={{'Authorization': ...}} or a user and a password in the URL"
                f" change that, and missing_is={{{answer.status}}} takes it for absence"
            )
        return self.error(key, status, permanent=answer.status not in _PASSING)

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.clear()

    # One request -----------------------------------------------------------------------------------------------------

    def _manager(self) -> Any:
        if self._pool is None or self._pid != os.getpid():
            # A forked child must not share the connections of its parent.
            self._pool, self._pid = pool_manager(self._urllib3, self._connections, self._timeout), os.getpid()
        return self._pool

    def _persistent(self, method: str, key: str, url: str, headers: Mapping[str, str]) -> Answer:
        """Return the answer to a request that is repeated while it fails in a way that may pass."""
        for attempt in range(self._retries + 1):
            try:
                answer = self._once(method, url, headers)
            except Unusable as exc:
                raise self.error(key, str(exc)) from None
            except self._urllib3.exceptions.HTTPError as exc:
                if attempt == self._retries:
                    # Not chained: urllib3's own messages may show the URL with its query.
                    raise self.error(key, f"no answer: {exc}", permanent=False) from None
                self._pause(_backoff(attempt))
                continue
            if answer.status not in _PASSING or answer.status in self._missing or attempt == self._retries:
                break
            self._pause(self._wait(answer, attempt))
        return answer

    def _once(self, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        response = self._manager().request(
            method, url, headers=headers, redirect=False, retries=False, preload_content=False, decode_content=False
        )
        whole = False
        try:
            body = self._read(method, response)
            whole = body is not None
            return Answer(response.status, response.reason or "", response.headers, body or b"")
        finally:
            if not whole:
                response.close()  # what is left in the connection must not be taken for the next answer
            response.release_conn()

    def _read(self, method: str, response: Any) -> bytes | None:
        """Return the body, None if it was left unread."""
        headers = response.headers
        if method == "HEAD":
            response.read()  # nothing, but the connection is free then
            return b""
        if response.status in _WITH_VALUE:
            if problem := problem_of_body(headers):
                raise Unusable(problem)
            body: bytes = response.read()
            check_length(headers, body)
            return body
        try:
            length = content_length(headers)
        except Unusable:
            return None
        if length is None or length > _MAX_ERROR_PAGE:
            return None
        response.read()
        return b""

    def _redirected(self, key: str, url: str, answer: Answer) -> str:
        try:
            return split_userinfo(redirect_target(url, key, answer))[0]
        except Unusable as exc:
            raise self.error(key, str(exc)) from None

    def _wait(self, answer: Answer, attempt: int) -> float:
        """Return the pause in seconds: as the server wishes, at most a minute, else twice the last one."""
        wish = answer.headers.get("Retry-After")
        if wish is not None:
            try:
                return min(max(0.0, float(self._urllib3.util.Retry().parse_retry_after(wish))), _LONGEST_PAUSE)
            except self._urllib3.exceptions.InvalidHeader:
                pass
        return _backoff(attempt)


def _backoff(attempt: int) -> float:
    """Return a pause in seconds, doubled with each attempt; half of it is random, so that clients part."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**attempt) * random.uniform(0.5, 1.0)
