"""Nothing secret stands in a repr, an error, a note, a description or a log: every remote store, every wrapper."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.roster import WRAPPERS
from tests.support.servers.proxy import Proxy
from zarrstore import copy_store, open_store
from zarrstore.cli.group import run
from zarrstore.stores.opendal import OpenDALStore
from zarrstore.targets import store_of
from zarrstore.tools.info import describe_store
from zarrstore.tools.journal import place_name

#: In every secret below, however it is encoded.
SECRET = "hunter2TopSecret"
SHOWN_NOWHERE = (SECRET, base64.b64encode(f"me:{SECRET}".encode()).decode(), base64.b64encode(SECRET.encode()).decode())

S3 = {"key": "AKIAEXAMPLE", "secret": SECRET, "token": SECRET}


def s3fs_options(url: str) -> dict[str, Any]:
    client = {"endpoint_url": url, "region_name": "us-east-1"}
    return {**S3, "client_kwargs": client}


def obstore_s3(url: str) -> Any:
    store = pytest.importorskip("obstore.store", reason="needs obstore: pip install zarrstore[obstore]")
    keys = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": SECRET, "session_token": SECRET}
    options = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
    return store.S3Store("bucket", endpoint=url, region="us-east-1", **keys, **options)


def obstore_azure(url: str) -> Any:
    store = pytest.importorskip("obstore.store", reason="needs obstore: pip install zarrstore[obstore]")
    options = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
    sas = f"sv=2024&sig={SECRET}"
    return store.AzureStore("bucket", account_name="me", sas_key=sas, endpoint=url, **options)


def obstore_http(url: str) -> Any:
    store = pytest.importorskip("obstore.store", reason="needs obstore: pip install zarrstore[obstore]")
    options = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
    return store.HTTPStore(url.replace("://", f"://me:{SECRET}@"), **options)


def opendal(service: str, url: str, **options: Any) -> Any:
    library = pytest.importorskip("opendal", reason="needs opendal: pip install zarrstore[opendal]")
    return library.Operator(service, endpoint=url, **options)


def zarr3(name: str) -> Any:
    return getattr(pytest.importorskip("zarr.storage", reason="needs zarr: pip install zarrstore[zarr3]"), name)


def zarr3_fsspec(url: str) -> Any:
    return zarr3("FsspecStore").from_url("s3://bucket/x", storage_options=s3fs_options(url))


def with_user(url: str) -> str:
    return url.replace("://", f"://me:{SECRET}@")


def fsspec(url: str, **options: Any) -> Any:
    from zarrstore import FSStore

    return FSStore(url, **options)


def http(url: str) -> Any:
    from zarrstore import HTTPStore

    return HTTPStore(f"{with_user(url)}/data", headers={"Authorization": f"Bearer {SECRET}"}, retries=0)


#: What is opened with a secret, of the URL of a server.
STORES: dict[str, Callable[[str], Any]] = {
    "http": http,
    "fsspec s3": lambda url: fsspec("s3://bucket/x", **s3fs_options(url)),
    "fsspec http": lambda url: fsspec(f"{with_user(url)}/data?sig={SECRET}"),
    "fsspec http headers": lambda url: fsspec(f"{url}/data", headers={"X-Token": SECRET}),
    "fsspec chain": lambda url: fsspec(f"simplecache::{with_user(url)}/data"),
    "obstore s3": obstore_s3,
    "obstore azure": obstore_azure,
    "obstore http": obstore_http,
    "opendal s3": lambda url: opendal(
        "s3", url, bucket="b", region="us-east-1", access_key_id="AKIA", secret_access_key=SECRET, session_token=SECRET
    ),
    "opendal webdav": lambda url: opendal("webdav", url, username="me", password=SECRET),
    "opendal http": lambda url: opendal("http", url, token=SECRET),
    "zarr 3 FsspecStore": zarr3_fsspec,
    "zarr 3 FsspecStore http": lambda url: zarr3("FsspecStore").from_url(f"{with_user(url)}/data?sig={SECRET}"),
    "zarr 3 ObjectStore": lambda url: zarr3("ObjectStore")(obstore_s3(url)),
    "zarr 3 ObjectStore http": lambda url: zarr3("ObjectStore")(obstore_http(url)),
    "fsspec map": lambda url: pytest.importorskip("fsspec").get_mapper(f"{with_user(url)}/data?sig={SECRET}"),
}

#: Their errors are those of zarr 3, aiohttp and obstore, passed on as they are.
FOREIGN = {"zarr 3 FsspecStore http", "zarr 3 ObjectStore http"}

#: What fails where the server refuses everything.
CALLS: dict[str, Callable[[Any], Any]] = {
    "get": lambda store: store["a/x"],
    "in": lambda store: "a/x" in store,
    "getitems": lambda store: dict(store.getitems(["a/x", "a/y"])),
    "getrange": lambda store: store.getrange("a/x", 1, 3),
    "getsize": lambda store: store.getsize("a"),
    "set": lambda store: store.__setitem__("a/x", b"1"),
    "setitems": lambda store: store.setitems({"a/x": b"1", "a/y": b"2"}),
    "delete": lambda store: store.__delitem__("a/x"),
    "delitems": lambda store: store.delitems(["a/x", "a/y"]),
    "list": lambda store: list(store),
    "listdir": lambda store: store.listdir("a"),
    "rename": lambda store: store.rename("a", "b"),
    "rmdir": lambda store: store.rmdir("a"),
    "copy": lambda store: copy_store({"a": b"1"}, store),
    "copy from": lambda store: copy_store(store, {}),
}


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """Yield the URL of a server that refuses every request."""
    with Proxy("http://127.0.0.1:9") as proxy:
        proxy.fail(403)
        yield proxy.url


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let s3fs repeat nothing."""
    library = pytest.importorskip("s3fs", reason="needs s3fs: pip install zarrstore[s3]")
    monkeypatch.setattr(library.S3FileSystem, "retries", 1)


def check(text: str, what: str) -> None:
    found = [secret for secret in SHOWN_NOWHERE if secret in text]
    assert not found, f"{what} shows a secret: {text}"


def own_text(exc: BaseException) -> str:
    """Return what an error of ours says: itself, its fields, its notes."""
    notes = getattr(exc, "__notes__", ())
    return "\n".join([repr(exc), str(exc), repr(vars(exc)), *map(str, exc.args), *notes])


def errors_of(store: Any) -> Iterator[tuple[str, BaseException]]:
    for name, call in CALLS.items():
        # OpenDAL lists without letting other threads run: that of the server is one of them.
        if isinstance(store, OpenDALStore) and name not in ("get", "in", "getitems", "getrange", "set", "setitems"):
            continue
        try:
            call(store)
        except Exception as exc:
            yield name, exc


@pytest.mark.parametrize("kind", STORES)
def test_no_store_shows_a_secret(kind: str, refusing: str, caplog: pytest.LogCaptureFixture) -> None:
    store = store_of(STORES[kind](refusing))
    check(f"{store!r} {store} {describe_store(store)} {place_name(store)}", "the store")
    if kind in FOREIGN:
        return
    n_errors = 0
    with caplog.at_level(logging.DEBUG, logger="zarrstore"):
        for name, exc in errors_of(store):
            n_errors += 1
            check(own_text(exc), f"the error of {name}")
            check("".join(traceback.format_exception(exc)), f"the traceback of {name}")
    assert n_errors >= 4
    for record in caplog.records:
        if record.name.startswith("zarrstore"):
            check(record.getMessage(), "a log")


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_no_wrapper_shows_a_secret(wrapper: str, refusing: str, tmp_path: Path) -> None:
    for kind in ("http", "fsspec s3"):
        store = WRAPPERS[wrapper](store_of(STORES[kind](refusing)), tmp_path / "data")
        check(f"{store!r} {store} {describe_store(store)} {place_name(store)}", f"{wrapper} over {kind}")
        try:
            store["a/x"]
        except Exception as exc:
            check(own_text(exc), f"an error of {wrapper} over {kind}")
        for file in tmp_path.rglob("*"):
            if file.is_file():
                check(file.read_bytes().decode("latin-1"), f"a file of {wrapper}")


@pytest.mark.parametrize("target", ["{user}/x.zip|zip:a", "{user}/x.zip?sig={secret}", "{user}/x?sig={secret}|lru:"])
def test_what_opens_a_url_shows_no_secret(
    target: str, refusing: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url = target.format(user=with_user(refusing), secret=SECRET)
    try:
        store = open_store(url, mode="r")
    except Exception as exc:
        check(own_text(exc), "the error")
    else:
        check(repr(store), "the store")
    assert run(["ls", url]) > 0
    assert run(["copy", url, str(tmp_path / "d")]) > 0
    printed = capsys.readouterr()
    check(printed.out + printed.err, "the command")


def test_a_journal_names_its_places_without_secrets(refusing: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    source = {"a/.zarray": b"{}"}
    with pytest.raises(Exception, match=r"403|Forbidden|refused") as refused:
        copy_store(source, store_of(STORES["fsspec s3"](refusing)), if_exists="replace", resume=journal)
    check(own_text(refused.value), "the error")
    for kind in ("http", "fsspec http", "fsspec chain"):
        check(place_name(store_of(STORES[kind](refusing))), "the journal")
    if journal.exists():
        check(journal.read_bytes().decode("latin-1"), "the journal")


def test_an_error_pickles_without_the_secrets_of_its_store(refusing: str) -> None:
    for kind in ("http", "fsspec s3", "obstore s3"):
        store = store_of(STORES[kind](refusing))
        for name, exc in errors_of(store):
            check(pickle.dumps(exc).decode("latin-1"), f"the pickled error of {name} of {kind}")
