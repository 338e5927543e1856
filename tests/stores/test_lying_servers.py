"""Servers that lie: whatever they do, a store returns the right value or an error; never a short one, never absence."""

from __future__ import annotations

import datetime
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest

from tests.support.cases import each_of
from tests.support.servers import liar
from zarrstore.errors import StoreReadError
from zarrstore.stores.http import HTTPStore

pytest.importorskip("urllib3", reason="needs urllib3: pip install zarrstore[http]")

VALUE = liar.VALUE
TIMEOUT = 0.4

READS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "get": (lambda store: store["v"], VALUE),
    "getitems": (lambda store: dict(store.getitems(["v", "absent"])), {"v": VALUE}),
    "getrange": (lambda store: store.getrange("v", 100, 200), VALUE[100:200]),
    "getrange from the start": (lambda store: store.getrange("v", 0, 10), VALUE[:10]),
    "getrange over the end": (lambda store: store.getrange("v", 990, 2000), VALUE[990:]),
    "getrange to the end": (lambda store: store.getrange("v", 300), VALUE[300:]),
    "getrange behind the end": (lambda store: store.getrange("v", 2000, 2010), b""),
    "empty getrange": (lambda store: store.getrange("v", 5, 5), b""),
    "getsuffix": (lambda store: store.getsuffix("v", 50), VALUE[-50:]),
    "long getsuffix": (lambda store: store.getsuffix("v", 5000), VALUE),
    "in": (lambda store: "v" in store, True),
    "getsize": (lambda store: store.getsize("v"), len(VALUE)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[liar.Liar]:
    with liar.liar() as running:
        yield running


def over_http(server: liar.Liar, kind: str) -> Any:
    return HTTPStore(f"{server.url}/{kind}/root", timeout=TIMEOUT, retries=0)


def over_fsspec(server: liar.Liar, kind: str) -> Any:
    pytest.importorskip("fsspec")
    aiohttp = pytest.importorskip("aiohttp")
    from zarrstore.stores.fsspec import FSStore

    limits = aiohttp.ClientTimeout(total=4 * TIMEOUT, sock_read=TIMEOUT)
    return FSStore(f"{server.url}/{kind}/root", client_kwargs={"timeout": limits}, skip_instance_cache=True)


def over_obstore(server: liar.Liar, kind: str) -> Any:
    store = pytest.importorskip("obstore.store")
    from zarrstore.stores.obstore import ObstoreStore

    return ObstoreStore(
        store.HTTPStore(
            f"{server.url}/{kind}/root",
            client_options={"allow_http": True, "timeout": f"{4 * TIMEOUT:.1f}s"},
            retry_config={"max_retries": 0, "retry_timeout": datetime.timedelta(seconds=2)},
        )
    )


@functools.cache
def s3_filesystem(url: str) -> Any:
    s3fs = pytest.importorskip("s3fs")
    config = {"retries": {"max_attempts": 0}, "read_timeout": 4 * TIMEOUT, "connect_timeout": 2}
    client = {"endpoint_url": url, "region_name": "us-east-1"}
    fs = s3fs.S3FileSystem(anon=True, client_kwargs=client, config_kwargs=config, skip_instance_cache=True)
    fs.retries = 1
    return fs


def s3_over_fsspec(server: liar.Liar, kind: str) -> Any:
    from zarrstore.stores.fsspec import FSStore

    return FSStore(f"{kind}/root", fs=s3_filesystem(server.url))


def s3_over_obstore(server: liar.Liar, kind: str) -> Any:
    store = pytest.importorskip("obstore.store")
    from zarrstore.stores.obstore import ObstoreStore

    return ObstoreStore(
        store.S3Store(
            kind,
            prefix="root",
            endpoint=server.url,
            region="us-east-1",
            skip_signature=True,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": f"{4 * TIMEOUT:.1f}s"},
            retry_config={"max_retries": 0, "retry_timeout": datetime.timedelta(seconds=2)},
        )
    )


CLIENTS = {
    "HTTPStore": over_http,
    "FSStore http": over_fsspec,
    "ObstoreStore http": over_obstore,
    "FSStore s3": s3_over_fsspec,
    "ObstoreStore s3": s3_over_obstore,
}


@pytest.mark.parametrize("client", CLIENTS)
def test_an_honest_server_is_read_right(client: str, server: liar.Liar) -> None:
    store = CLIENTS[client](server, "honest")
    assert {name: read(store) for name, (read, _) in READS.items()} == {
        name: right for name, (_, right) in READS.items()
    }
    assert "absent" not in store


#: To S3 the encoding of an object is a remark of whoever stored it: the bytes are the value, and their number its size.
NO_LIES_ON_S3 = frozenset({"packs_the_answer", "tells_the_packed_length_to_head"})


LIES = [kind for kind in liar.LIES if kind not in liar.SLOW]


@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "FSStore s3"])
@each_of("kind", LIES)
def test_a_lie_gives_the_right_value_or_an_error(kind: str, client: str, server: liar.Liar) -> None:
    tell(kind, client, server)


# They take seconds each, for botocore repeats, redirects and waits in its own way.
@pytest.mark.slow
@pytest.mark.parametrize("kind", LIES)
def test_a_lie_of_s3_gives_fsspec_the_right_value_or_an_error(kind: str, server: liar.Liar) -> None:
    tell(kind, "FSStore s3", server)


def tell(kind: str, client: str, server: liar.Liar) -> None:
    """Read in every way through a client to which the server lies; fail if it believes the lie."""
    if client.endswith("s3") and kind in NO_LIES_ON_S3:
        return
    store = CLIENTS[client](server, kind)
    wrong = {}
    # botocore makes what it can of a redirect, until the store's patience ends: 4 seconds each time here.
    is_slow = client == "FSStore s3" and kind.startswith(("redirects", "says_no", "speaks"))
    for name, (read, right) in [("get", READS["get"])] if is_slow else READS.items():
        try:
            value = read(store)
        except StoreReadError:
            continue
        except BaseException as exc:
            wrong[name] = f"{type(exc).__name__}: {exc}"
            continue
        if value != right and not (name == "getsize" and value == -1):
            wrong[name] = value if not isinstance(value, bytes) else f"{len(value)} bytes"
    assert wrong == {}
    # On a connection that no lie has spoilt. obstore's clients share none: to a new one every server is the honest one.
    if not client.startswith("Obstore"):
        assert "absent" not in CLIENTS[client](server, kind)


@pytest.mark.parametrize(
    "clients",
    [
        pytest.param([name for name in CLIENTS if name != "FSStore s3"], id="most"),
        pytest.param(["FSStore s3"], marks=pytest.mark.slow, id="FSStore s3"),
    ],
)
def test_a_server_that_dawdles_is_given_up(clients: list[str], server: liar.Liar) -> None:
    def wait(case: tuple[str, str]) -> str:
        kind, client = case
        store = CLIENTS[client](server, kind)
        begun = time.monotonic()
        try:
            store["v"]
        except StoreReadError:
            return "" if time.monotonic() - begun < 30 else "not given up in time"
        except BaseException as exc:
            return f"{type(exc).__name__}: {exc}"
        return "a value"

    # All at once: each waits for a second and a half.
    cases = list(product(sorted(liar.SLOW), clients))
    with ThreadPoolExecutor(len(cases)) as pool:
        ends = dict(zip(cases, pool.map(wait, cases), strict=True))
    assert {case: end for case, end in ends.items() if end} == {}


def test_there_are_more_than_thirty_lies() -> None:
    assert len(liar.LIES) > 45
