"""Requests on the connections of an asynchronous fsspec filesystem: several in flight, each answer proved.

fsspec's own calls do more: they ask for a size before a copy, list where a name is missing, and drop what a server
says of single keys. Those of HTTP take every failure for absence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar
from urllib.parse import quote

from zarrstore import keys as k
from zarrstore.allowance import Gate
from zarrstore.answers import Answer, Unusable, check_length, problem_of_body, redirect_target
from zarrstore.driver import Pair
from zarrstore.optional import require
from zarrstore.urls import fits_xml

__all__ = ["S3Requests", "WebRequests", "gather"]

T = TypeVar("T")

#: Keys of one request to delete, and of one page of a listing: what S3 takes and gives.
_PAGE = 1000
#: Bytes. Above the first, a value is sent in parts; above the second, S3 copies only in parts.
_LARGE, _LARGEST_COPY = 100 << 20, 5 << 30
#: How often the reading of a body is tried; s3fs itself repeats requests.
_ATTEMPTS = 3
_MAX_REDIRECTS = 5
#: Bytes of a body that are taken at a time, and bytes per second that an answer must bring.
_PIECE, _LOWEST_RATE = 1 << 20, 64
#: How many of the client's time-outs the head of an answer may take, with all the repeats of the client.
_PATIENCE = 10


async def gather(act: Callable[[Any], Awaitable[T]], items: Sequence[Any], limit: int) -> list[T | BaseException]:
    """Return what `act` gives for each item, or the error that it raises; at most `limit` at a time."""
    free = asyncio.Semaphore(limit)

    async def one(item: Any) -> T:
        async with free:
            return await act(item)

    return await asyncio.gather(*map(one, items), return_exceptions=True)


class _Requests:
    """What S3 and HTTP have in common.

    Parameters
    ----------
    filesystem : callable
        Returns the filesystem: another one in a forked child.
    lead : str
        What stands before a key on the filesystem.
    workers : int
        Requests in flight at a time.
    """

    def __init__(self, filesystem: Callable[[], Any], lead: str, workers: int) -> None:
        self._filesystem = filesystem
        self._lead = lead
        self._workers = workers

    @property
    def _fs(self) -> Any:
        return self._filesystem()

    def _run(self, act: Callable[..., Awaitable[T]], *args: Any) -> T:
        asyn = require("fsspec.asyn", extra="fsspec", feature="FSStore")
        result: T = asyn.sync(self._fs.loop, act, *args)
        return result

    def _each(self, act: Callable[[Any], Awaitable[T]], items: Sequence[Any]) -> list[T]:
        """Do something for each item, several at a time; raise the first error after all have ended."""
        results = self._run(gather, act, items, self._workers)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results  # type: ignore[return-value]

    async def _ask(self, method: str, key: str, headers: Mapping[str, str]) -> Answer:
        raise NotImplementedError

    def ask(self, method: str, key: str, headers: Mapping[str, str]) -> Answer:
        """Return the answer about one key."""
        return self._run(self._ask, method, key, headers)

    def ask_many(self, keys: Sequence[str], room: int) -> list[Answer | BaseException | None]:
        """Return the answer, or the error, about each key; None of those for which `room` bytes did not suffice."""
        gate = Gate(room)

        async def ask(key: str) -> Answer | None:
            if not gate.enter():
                return None
            answer = None
            try:
                answer = await self._ask("GET", key, {})
            finally:
                gate.leave(0 if answer is None else len(answer.body))
            return answer

        return self._run(gather, ask, keys, self._workers)


class S3Requests(_Requests):
    """Requests to S3 through s3fs: one for each get, set, copy and look; one for 1,000 deletes or names."""

    def _place(self, key: str) -> dict[str, str]:
        # Not fs.split_path for a key: it takes "?versionId=" in one for a version.
        bucket, lead, _ = self._fs.split_path(self._lead + "x")
        return {"Bucket": bucket, "Key": lead[:-1] + key}

    def _call(self, method: str, **arguments: Any) -> Awaitable[Any]:
        fs = self._fs
        call: Awaitable[Any] = fs._call_s3(method, fs.req_kw, **arguments)
        return call

    async def _ask(self, method: str, key: str, headers: Mapping[str, str]) -> Answer:
        where = self._place(key) | dict(headers)
        try:
            if method == "HEAD":
                reply = await self._soon(self._call("head_object", **where))
                return Answer(200, "", _http_headers(reply), b"")
            return await self._read(where)
        except Exception as exc:
            if _status(exc) == 416:
                return Answer(416, "Range Not Satisfiable", {}, b"")
            raise

    async def _read(self, where: dict[str, str]) -> Answer:
        for attempt in range(_ATTEMPTS):
            reply = await self._soon(self._call("get_object", **where))
            headers = _http_headers(reply)
            body = reply["Body"]
            try:
                # What S3 stores under an encoding is the value; the server never packs by itself.
                if problem := problem_of_body({**headers, "Content-Encoding": ""}):
                    raise Unusable(problem)
                data = await self._body(body)
                break
            except Unusable:
                raise
            except Exception:
                if attempt == min(_ATTEMPTS, max(1, int(getattr(self._fs, "retries", _ATTEMPTS)))) - 1:
                    raise
                await asyncio.sleep(0.1 * 2**attempt)
            finally:
                body.close()
        check_length(headers, data)
        status = int(reply["ResponseMetadata"]["HTTPStatusCode"])
        return Answer(status, "", headers, data)

    async def _body(self, body: Any) -> bytes:
        """Return all of a body; TimeoutError if it comes too slowly for as long as the client waits for a piece."""
        pieces, count = [], 0
        begun = time.monotonic()
        while piece := await body.read(_PIECE):
            pieces.append(piece)
            count += len(piece)
            passed = time.monotonic() - begun
            if passed > self._patience() and count < _LOWEST_RATE * passed:
                raise TimeoutError(f"{count:,} bytes in {passed:.0f} seconds")
        return b"".join(pieces)

    def _patience(self) -> float:
        """Return how long the client waits for a piece of an answer, in seconds."""
        return float((self._fs.config_kwargs or {}).get("read_timeout", 60))

    async def _soon(self, call: Awaitable[T]) -> T:
        """Return what a call gives that should not take long; the client's time-out is between two bytes only."""
        return await asyncio.wait_for(call, _PATIENCE * self._patience())

    # Writing ---------------------------------------------------------------------------------------------------------

    async def _put(self, item: tuple[str, bytes]) -> None:
        key, value = item
        if len(value) <= _LARGE or "?versionId=" in key:
            await self._call("put_object", **self._place(key), Body=value)
        else:
            await self._fs._pipe_file(self._lead + key, value)

    def put(self, key: str, value: bytes) -> None:
        """Store one value."""
        self._run(self._put, (key, value))

    def put_many(self, items: Sequence[tuple[str, bytes]], stored: Callable[[str], object]) -> None:
        """Store many values, and call `stored` with the key of each that is."""

        async def put(item: tuple[str, bytes]) -> None:
            await self._put(item)
            stored(item[0])

        self._each(put, items)

    async def _copy(self, source: S3Requests, pair: Pair) -> int:
        key, dest_key, nbytes = pair
        if nbytes < 0:
            nbytes = int((await self._soon(source._call("head_object", **source._place(key))))["ContentLength"])
        if nbytes > _LARGEST_COPY:
            await self._fs._copy_managed(source._lead + key, self._lead + dest_key, nbytes)
        else:
            await self._call("copy_object", CopySource=source._place(key), **self._place(dest_key))
        return nbytes

    def copy_many(self, pairs: Sequence[Pair]) -> None:
        """Copy values at the server."""
        self._each(partial(self._copy, self), pairs)

    def copy_from(self, source: S3Requests, pairs: Sequence[Pair]) -> list[int | None]:
        """Copy values of another root at the server, as far as it does; return the size of each that it copied."""
        results = self._run(gather, partial(self._copy, source), pairs, self._workers)
        return [None if isinstance(result, BaseException) else result for result in results]

    def shares_service(self, other: S3Requests) -> bool:
        """Tell whether both ask one service under one name, so that it can copy from one to the other."""

        def service(requests: S3Requests) -> object:
            fs = requests._fs
            options = dict(fs.storage_options)
            config = {**(options.pop("config_kwargs", None) or {}), "max_pool_connections": 0}
            # The endpoint is the one that it is connected to: the environment may have named another one since.
            return type(fs), fs.storage_args, options, config, fs.s3.meta.endpoint_url

        return service(self) == service(other)

    def delete_many(self, keys: Sequence[str]) -> list[Mapping[str, Any]]:
        """Delete many values, if they are there; return what the server says of those that it would not delete.

        A thousand by one request; one by one those that its XML cannot name, else it would be refused whole, for ever.
        """

        async def delete(batch: Sequence[str]) -> list[Mapping[str, Any]]:
            places = [self._place(key) for key in batch]
            objects = [{"Key": place["Key"]} for place in places]
            reply = await self._call(
                "delete_objects", Bucket=places[0]["Bucket"], Delete={"Objects": objects, "Quiet": True}
            )
            return list(reply.get("Errors", ()))

        async def delete_one(key: str) -> None:
            await self._call("delete_object", **self._place(key))

        nameable = [key for key in keys if fits_xml(key)]
        batches = [nameable[at : at + _PAGE] for at in range(0, len(nameable), _PAGE)]
        refused = [error for errors in self._each(delete, batches) for error in errors]
        self._each(delete_one, [key for key in keys if not fits_xml(key)])
        return refused

    # Listing ---------------------------------------------------------------------------------------------------------

    def pages(self, prefix: str, delimiter: str = "", limit: int = _PAGE) -> Iterator[Mapping[str, Any]]:
        """Yield the pages of the listing of all names that begin with a prefix; one request a page."""
        place = self._place(prefix)
        more: dict[str, Any] = {}
        remembered = ""
        for number in count(1):
            page = self._run(self._list, place, delimiter, limit, more)
            _check_page(page)
            yield page
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == remembered:
                raise OSError("the server says that the listing goes on, and not where")
            if number & (number - 1) == 0:  # Brent's way to notice any circle, with one token in memory
                remembered = token
            more = {"ContinuationToken": token}

    async def _list(self, place: dict[str, str], delimiter: str, limit: int, more: dict[str, Any]) -> Mapping[str, Any]:
        options = {"Delimiter": delimiter} if delimiter else {}
        where = {"Bucket": place["Bucket"], "Prefix": place["Key"], "MaxKeys": limit}
        reply: Mapping[str, Any] = await self._soon(self._call("list_objects_v2", **where, **options, **more))
        return reply

    def key_of(self, name: str) -> str:
        """Return the key of an object; the empty string if it has none here."""
        lead = self._place("")["Key"]
        key = name[len(lead) :] if name.startswith(lead) else ""
        return key if k.is_key(key) else ""


def _check_page(page: Mapping[str, Any]) -> None:
    """Raise Unusable if a page of a listing lacks what the names and sizes of objects are read from."""
    objects, prefixes = page.get("Contents", ()), page.get("CommonPrefixes", ())
    names = [item.get("Key") for item in objects] + [item.get("Prefix") for item in prefixes]
    if not all(isinstance(name, str) for name in names):
        raise Unusable("the listing has an object without a name, or with several")
    if not all(isinstance(item.get("Size"), int) for item in objects):
        raise Unusable("the listing has an object without a size, or with several")


class WebRequests(_Requests):
    """Requests over HTTP on the session of fsspec's own filesystem, with its options."""

    async def _ask(self, method: str, key: str, headers: Mapping[str, str]) -> Answer:
        fs = self._fs
        session = await fs.set_session()
        options = dict(fs.kwargs)
        # identity: a server that packs its answer would send a range of the packed bytes, or all of them.
        sent = {"Accept-Encoding": "identity", **(options.pop("headers", None) or {}), **headers}
        url = str(fs.encode_url(self._lead)) + quote(key, safe="/")
        for _ in range(_MAX_REDIRECTS + 1):
            async with session.request(method, _encoded(url), headers=sent, allow_redirects=False, **options) as reply:
                answer = await self._answer(method, reply)
            if answer.status in (404, 410):
                raise FileNotFoundError(key)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            try:
                url = redirect_target(url, key, answer)
            except KeyError:
                raise FileNotFoundError(key) from None
        raise Unusable(f"more than {_MAX_REDIRECTS} redirects")

    async def _answer(self, method: str, reply: Any) -> Answer:
        body = b""
        if method != "HEAD" and reply.status in (200, 203, 206):
            if problem := problem_of_body(reply.headers):
                raise Unusable(problem)
            body = await reply.read()
            check_length(reply.headers, body)
        return Answer(reply.status, reply.reason or "", reply.headers, body)


def _encoded(url: str) -> Any:
    yarl = require("yarl", extra="fsspec", feature="FSStore over HTTP")
    return yarl.URL(url, encoded=True)


def _http_headers(reply: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a reply of botocore, which writes their names in small letters."""
    return {name.title(): value for name, value in reply["ResponseMetadata"].get("HTTPHeaders", {}).items()}


def _status(exc: BaseException) -> int | None:
    """Return the status of the server's answer that an error of botocore or s3fs tells of."""
    at: BaseException | None = exc
    while at is not None:
        reply = getattr(at, "response", None)
        if isinstance(reply, Mapping):
            status = reply.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return int(status) if status else None
        at = at.__cause__
    return None
