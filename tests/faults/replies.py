"""Replies of servers as mutants, before each store that reads from one.

A read gives the right value, what the changed reply itself frames as whole, or an error of this package; KeyError only
where a reply says that nothing is there. A listing names keys only, a cut one is never taken for whole; nothing waits
for ever, asks for ever, or takes memory for what a reply merely announces. Run one client by hand::

    $ python -m tests.faults.replies HTTPStore 1000
"""

from __future__ import annotations

import datetime
import functools
import json
import random
import re
import resource
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.mutants import little_memory, ours, patience
from tests.support.servers.mutant import MOST, SITE, Mutants, mutants, sizes, wholes
from zarrstore.errors import StoreReadError
from zarrstore.keys import is_key
from zarrstore.stores.fsspec import FSStore
from zarrstore.stores.http import HTTPStore
from zarrstore.stores.obstore import ObstoreStore
from zarrstore.wrappers.consolidated import ConsolidatedStore

__all__ = ["CLIENTS", "SHARES", "bounded_memory", "run"]

#: Seconds. The server closes after each changed reply, so only what waits for more than that is given up. botocore's
#: client waits for ten of them.
TIMEOUT, S3_TIMEOUT = 5.0, 1.5
Client = Callable[[str], Any]


def _over_http(url: str) -> Any:
    return HTTPStore(f"{url}/web", timeout=TIMEOUT, retries=0)


def _served(url: str) -> Any:
    return HTTPStore(f"{url}/web", timeout=TIMEOUT, retries=0, listing=True)


def _inline(url: str) -> Any:
    return HTTPStore(f"{url}/web/inline", timeout=TIMEOUT, retries=0)


def _consolidated(url: str) -> Any:
    return ConsolidatedStore(_over_http(url))


@functools.cache
def _fsspec_http(url: str) -> Any:
    import aiohttp

    limits = aiohttp.ClientTimeout(total=4 * TIMEOUT, sock_read=TIMEOUT)
    return FSStore(f"{url}/web", client_kwargs={"timeout": limits}, skip_instance_cache=True)


@functools.cache
def _obstore_http(url: str) -> Any:
    from obstore import store

    return ObstoreStore(store.HTTPStore(f"{url}/web", client_options=_LIMITS, retry_config=_RETRIES))


_LIMITS: Any = {"allow_http": True, "timeout": f"{TIMEOUT:.1f}s"}
_RETRIES: Any = {"max_retries": 0, "retry_timeout": datetime.timedelta(seconds=5)}


@functools.cache
def _fsspec_s3(url: str) -> Any:
    import s3fs

    config = {"retries": {"max_attempts": 0}, "read_timeout": S3_TIMEOUT, "connect_timeout": 2}
    client = {"endpoint_url": url, "region_name": "us-east-1"}
    fs = s3fs.S3FileSystem(anon=True, client_kwargs=client, config_kwargs=config, skip_instance_cache=True)
    fs.retries = 1
    return FSStore("s3/root", fs=fs)


@functools.cache
def _obstore_s3(url: str) -> Any:
    from obstore import store

    return ObstoreStore(
        store.S3Store(
            "s3",
            prefix="root",
            endpoint=url,
            region="us-east-1",
            skip_signature=True,
            virtual_hosted_style_request=False,
            client_options=_LIMITS,
            retry_config=_RETRIES,
        )
    )


@functools.cache
def _webdav(url: str) -> Any:
    from webdav4.fsspec import WebdavFileSystem

    # webdav4 waits between tries of its own after some statuses, for longer than a hang is taken for.
    fs = WebdavFileSystem(f"{url}/dav", timeout=TIMEOUT, retry=False, skip_instance_cache=True)
    return FSStore("", fs=fs, mode="r")


CLIENTS: dict[str, Client] = {
    "HTTPStore": _over_http,
    "HTTPStore of zarrstore serve": _served,
    "HTTPStore, inline documents": _inline,
    "ConsolidatedStore": _consolidated,
    "FSStore http": _fsspec_http,
    "ObstoreStore http": _obstore_http,
    "FSStore s3": _fsspec_s3,
    "ObstoreStore s3": _obstore_s3,
    "FSStore webdav": _webdav,
}
#: How many mutants each reads, of the 10^5 of a whole run.
SHARES = {
    "HTTPStore": 35_000,
    "HTTPStore of zarrstore serve": 18_000,
    "HTTPStore, inline documents": 14_000,
    "ConsolidatedStore": 14_000,
    "FSStore http": 8_000,
    "ObstoreStore http": 5_000,
    "FSStore s3": 1_000,
    "ObstoreStore s3": 4_000,
    "FSStore webdav": 1_000,
}

#: Reads of one value: how, and what it is of a whole value.
READS: dict[str, tuple[Callable[[Any], Any], Callable[[bytes], Any]]] = {
    "get": (lambda s: s["v"], lambda v: v),
    "getitems": (lambda s: s.getitems(["v", "absent"])["v"], lambda v: v),
    "getrange": (lambda s: s.getrange("v", 100, 200), lambda v: v[100:200]),
    "getrange to the end": (lambda s: s.getrange("v", 300), lambda v: v[300:]),
    "getrange behind the end": (lambda s: s.getrange("v", 2000, 2010), lambda v: v[2000:2010]),
    "getsuffix": (lambda s: s.getsuffix("v", 50), lambda v: v[-50:]),
}
#: Looks, of which only the kind of the result is known.
LOOKS: dict[str, tuple[Callable[[Any], Any], type]] = {
    "in": (lambda s: "v" in s, bool),
    "getsize": (lambda s: s.getsize("v"), int),
    "entry": (lambda s: s._entry("v").nbytes, int),
    "get of what is absent": (lambda s: s.get("absent", b""), bytes),
    "getsize of a directory": (lambda s: s.getsize("a"), int),
}
LISTINGS: dict[str, Callable[[Any], list[str]]] = {
    "list": lambda s: list(s),
    "listdir": lambda s: list(s.listdir()),
    "listdir of a group": lambda s: list(s.listdir("a")),
    "entries": lambda s: [entry.key for entry in s._details("")],
}


def play(client: str, number: int, server: Mutants) -> Iterator[str]:
    """Let a client read a mutant; yield what was wrong."""
    server.play(client, number)
    store = ours(lambda: CLIENTS[client](server.url))
    if isinstance(store, Exception):
        return
    chance = random.Random(number)
    for title, (read, part) in _some(READS, chance, number):
        found = ours(functools.partial(read, store))
        if isinstance(found, KeyError):
            if not _says_absence(server.raw):
                yield f"{title}: absent, and no reply says so"
        elif isinstance(found, bytes):
            if not _is_proved(found, part, server.raw):
                yield f"{title}: {len(found)} bytes that no reply frames as a whole"
        elif not isinstance(found, Exception):
            yield f"{title}: {found!r}"
    for title, (look, kind) in _some(LOOKS, chance, number):
        found = ours(functools.partial(look, store))
        if isinstance(found, KeyError) and not _says_absence(server.raw):
            yield f"{title}: absent, and no reply says so"
        if not isinstance(found, (kind, Exception)) or (kind is int and isinstance(found, int) and found < -1):
            yield f"{title}: {found!r}"
        if title == "in" and found is False and not _says_absence(server.raw):
            yield f"{title}: absent, and no reply says so"
    yield from _listings(client, store, server, _some(LISTINGS, chance, number))
    # obstore follows the tokens of a listing by itself, in a circle too.
    if len(server.raw) > MOST and client != "ObstoreStore s3":
        yield f"{len(server.raw)} requests"


def _is_proved(found: bytes, part: Callable[[bytes], bytes], raw: list[bytes]) -> bool:
    """Tell whether bytes are the right ones, or what a changed reply frames as the value, or says of its end."""
    framed = list(wholes(raw))
    # A 206 whose bytes were put elsewhere; of WebDAV's, only the first are taken.
    nbytes = len(part(SITE["v"]))
    if found in [body[:nbytes] for body in framed if len(body) >= nbytes] or any(
        found == part(whole) for whole in (SITE["v"], *framed)
    ):
        return True
    return found == b"" and any(part(bytes(size)) == b"" for size in sizes(raw))


def _some(table: dict[str, Any], chance: random.Random, number: int) -> Iterable[tuple[str, Any]]:
    """Return half of a table, all of it for the honest server: every read of each mutant would make too few mutants."""
    return chance.sample(list(table.items()), len(table) // 2 if number else len(table))


def _listings(client: str, store: Any, server: Mutants, listings: Iterable[tuple[str, Any]]) -> Iterator[str]:
    for title, listing in listings:
        found = ours(functools.partial(listing, store))
        if isinstance(found, KeyError):
            yield f"{title}: KeyError"
        elif not isinstance(found, Exception):
            if wrong := [name for name in found if not is_key(name)]:
                yield f"{title}: {wrong[0]!r} is no key"
            if server.change == "cut" and sorted(found) != _right(client, title) and not _says_absence(server.raw):
                yield f"{title}: a cut listing of {len(found)} names is taken for whole"


@functools.cache
def _right(client: str, title: str) -> list[str]:
    with mutants() as honest:
        for _ in range(20):
            found = ours(lambda: LISTINGS[title](CLIENTS[client](honest.url)))
            if not isinstance(found, StoreReadError):  # of a machine that is too busy
                break
        return sorted(found)


def _says_absence(raw: list[bytes]) -> bool:
    return any(re.search(rb"\A[^\n]*4(04|10)|NoSuch|[Ll]ocation:[^\n]*/\r?\n", reply[:90_000]) for reply in raw)


@contextmanager
def bounded_memory(nbytes: int = 1 << 30) -> Iterator[None]:
    """Let this process take little more memory than it has, until the block ends."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    little_memory(nbytes)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def run(client: str, count: int, first: int = 1) -> dict[str, Any]:
    """Let a client read so many mutants; return what was wrong with them (`bad`), and how many there were."""
    found: dict[str, Any] = {"bad": [], "mutants": 0, "requests": 0}
    warnings.simplefilter("ignore")
    with mutants() as server:
        assert list(play(client, 0, server)) == [], "an honest server is read wrong"
        with bounded_memory():
            for number in range(first, first + count):
                found["bad"] += [
                    f"{client}, mutant {number} ({server.change}): {line}" for line in _one(client, number, server)
                ]
                found["mutants"] += 1
                found["requests"] += len(server.raw)
    return found


def _one(client: str, number: int, server: Mutants) -> list[str]:
    try:
        with patience():
            return list(play(client, number, server))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        trace = exc.__traceback__
        places = []
        while trace is not None:
            places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
            trace = trace.tb_next
        return [f"{type(exc).__name__}: {str(exc)[:300]} at {' < '.join(reversed(places[-5:]))}"]


if __name__ == "__main__":
    name, count_text, *first_text = sys.argv[1:]
    print(json.dumps(run(name, int(count_text), int(first_text[0]) if first_text else 1), indent=1))
